//! Captures of LVM volumes by the program itself: thin and classic, ext4 and XFS, a pool that fills up, a
//! snapshot that overflows, an `lvcreate` that is killed. An emulated machine is slow, so each test does
//! several things with one group.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::group::{Group, PROMPT};
use crate::bench_machine::{Machine, must, processes_about};
use crate::matrix::{self, Kills, Source};

/// A machine whose one job reads these paths into restic, with these lines besides.
fn machine(paths: &[&Path], files: &str) -> Machine {
    let machine = Machine::bare("[jobs]\n");
    configure(&machine, paths, files);
    machine.run(&["init", "r"]).expect(0);
    machine
}

fn configure(machine: &Machine, paths: &[&Path], files: &str) {
    let paths: Vec<String> =
        paths.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    machine.configure(&format!(
        "[jobs.host]\ntargets = [\"r\"]\n[jobs.host.files]\npaths = [{}]\ncapture = \"required\"\n{files}\n",
        paths.join(", ")
    ));
}

/// Makes restic's `backup` do this first, in shell.
fn during_backup(machine: &Machine, script: &str) {
    let path = machine.script(
        "other-restic",
        &format!(
            "case \"$*\" in *' backup '*|'backup '*) {script};; esac; exec /usr/bin/restic \"$@\""
        ),
    );
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let table = "[targets.r.restic]\n";
    let text = text.replace(table, &format!("{table}program = \"{path}\"\n"));
    machine.write("stillpoint.toml", &text, 0o600);
}

fn run(machine: &Machine, code: i32) -> Value {
    machine.run(&["--json", "run"]).expect(code).json()
}

fn restored(machine: &Machine, path: &Path) -> String {
    let to = machine.path("back");
    let _ = fs::remove_dir_all(&to);
    fs::create_dir(&to).unwrap();
    machine.run(&["restore", "host", "--to", to.to_str().unwrap()]).expect(0);
    fs::read_to_string(to.join(path.strip_prefix("/").unwrap())).unwrap()
}

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn thin_and_classic_volumes_are_held_still() {
    let rules = Path::new("/etc/udev/rules.d/57-stillpoint.rules");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/udev/57-stillpoint.rules");
    fs::create_dir_all(rules.parent().unwrap()).unwrap();
    fs::copy(shipped, rules).unwrap();
    must("udevadm", &["control", "--reload"]);

    let group = Group::new(1100);
    group.pool("pool", 250);
    group.thin("pool", "data", 150);
    group.linear("plain", 320);
    let (data, plain) = (group.mounted("data", "ext4"), group.mounted("plain", "xfs"));
    fs::write(data.join("file"), "on ext4").unwrap();
    fs::write(plain.join("file"), "on xfs").unwrap();
    must("udevadm", &["settle"]);
    let uuid = must("blkid", &["-s", "UUID", "-o", "value", group.path("data").to_str().unwrap()]);
    let link = format!("/dev/disk/by-uuid/{}", uuid.trim());
    let origin = fs::canonicalize(&link).unwrap();

    let machine = machine(&[&data, &plain], "");
    // While the snapshots are there: what the link leads to, and a change that must not be in the copy.
    let seen = machine.path("seen");
    during_backup(
        &machine,
        &format!(
            "udevadm settle; readlink -f {link} >'{}'; nsenter -t 1 -m sh -c 'echo changed >{}/file'",
            seen.display(),
            data.display()
        ),
    );
    let report = run(&machine, 0);
    let captures = report["jobs"][0]["captures"].as_array().unwrap();
    let providers: Vec<&str> = captures.iter().map(|c| c["provider"].as_str().unwrap()).collect();
    assert_eq!(providers, ["lvm-thin", "lvm-classic"], "{report:#}");
    assert_eq!(fs::read_to_string(&seen).unwrap().trim(), origin.to_str().unwrap());
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "changed\n");
    assert_eq!(restored(&machine, &data.join("file")), "on ext4");
    assert_eq!(restored(&machine, &plain.join("file")), "on xfs");
    group.assert_whole("pool", &["data", "plain", "pool"]);
    machine.assert_clean_except(group.scratch.path());

    // borg sees them as well, and a second copy through new snapshots adds next to nothing.
    machine.run(&["init", "b"]).expect(0);
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    machine.write("stillpoint.toml", &text.replace("[\"r\"]", "[\"b\"]"), 0o600);
    run(&machine, 0);
    let again = run(&machine, 0);
    assert!(again["jobs"][0]["targets"][0]["bytes_new"].as_u64().unwrap() < 4096, "{again:#}");
    group.assert_whole("pool", &["data", "plain", "pool"]);
    fs::remove_file(rules).unwrap();
}

struct Thin {
    group: Group,
    data: PathBuf,
}

impl Source for Thin {
    fn path(&self) -> &Path {
        &self.data
    }

    fn left(&self) -> Vec<String> {
        let mut left = self.group.suspended();
        left.extend(self.group.names().into_iter().filter(|name| name.starts_with("stillpoint")));
        left.extend(self.group.queued_messages());
        let ids = self.group.transactions("pool");
        if ids.lvm != ids.kernel {
            left.push(format!("{ids:?}"));
        }
        left
    }

    fn mounted(&self) -> &Path {
        self.group.scratch.path()
    }
}

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn the_fault_matrix_on_lvm() {
    let group = Group::new(400);
    group.pool("pool", 200);
    group.thin("pool", "data", 100);
    let source = Thin { data: group.mounted("data", "ext4"), group };
    fs::write(source.data.join("file"), "content").unwrap();
    let machine = machine(&[&source.data], "");
    matrix::configure(&machine, &source, r#""r""#);
    // From the promise of the snapshot until it is released; the btrfs of this matrix has the others.
    let kills = Kills { after: "remove-volume", at_most: 5 };
    println!("{}", matrix::run(&machine, &source, kills));
}

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn a_pool_that_runs_full_gets_its_space_back() {
    let mut group = Group::new(400);
    group.pool("pool", 200);
    group.thin("pool", "data", 190);
    let data = group.mounted("data", "ext4");
    fs::write(data.join("file"), "content").unwrap();
    let machine = machine(&[&data], "");
    run(&machine, 0);

    // What the origin overwrites, the snapshot keeps: 90 MiB twice and more do not fit into 200 MiB.
    let big = data.join("big");
    let write = |count: &str| {
        let of = format!("of={}", big.display());
        must(
            "dd",
            &[
                "if=/dev/urandom",
                &of,
                "bs=1M",
                &format!("count={count}"),
                "conv=fsync,notrunc",
                "status=none",
            ],
        );
    };
    write("90");
    let fill = format!(
        "nsenter -t 1 -m dd if=/dev/urandom of={} bs=1M count=90 conv=fsync,notrunc status=none; nsenter -t 1 -m dd if=/dev/urandom of={} bs=1M count=12 conv=fsync status=none; exec sleep 120",
        big.display(),
        data.join("more").display()
    );
    during_backup(&machine, &fill);
    let report = run(&machine, 10);
    assert!(report.to_string().contains("is running full"), "{report:#}");
    assert!(group.takes_writes("data", PROMPT));
    group.assert_whole("pool", &["data", "pool"]);
    machine.assert_clean_except(group.scratch.path());

    // A pool above its limits gets no snapshot at all.
    configure(&machine, &[&data], "[jobs.host.files.lvm-thin]\nmax-data = \"20%\"");
    machine.run(&["run"]).expect(4).says("is too full for a snapshot");
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let text = text.replace("\"required\"", "\"auto\"");
    machine.write("stillpoint.toml", &text, 0o600);
    let report = run(&machine, 12);
    assert_eq!(report["jobs"][0]["captures"][0]["consistency"], "live", "{report:#}");
    group.assert_whole("pool", &["data", "pool"]);
}

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn an_overflowed_snapshot_is_found_although_the_reader_saw_no_error() {
    let group = Group::new(400);
    group.linear("plain", 100);
    let plain = group.mounted("plain", "ext4");
    fs::write(plain.join("file"), "content").unwrap();
    let machine = machine(&[&plain], "[jobs.host.files.lvm-classic]\nsize = \"8M\"");
    run(&machine, 0);
    let good = machine.copies("r");

    // The engine is through with reading and has made its copy when the snapshot breaks.
    let overflow = format!(
        "/usr/bin/restic \"$@\"; status=$?; nsenter -t 1 -m dd if=/dev/urandom of={} bs=1M count=40 conv=fsync status=none; exit $status",
        plain.join("big").display()
    );
    during_backup(&machine, &overflow);
    let report = run(&machine, 10);
    assert!(report.to_string().contains("overflowed"), "{report:#}");
    assert!(machine.copies("r").contains(&good[0]), "an earlier copy is lost");
    let status = machine.run(&["--json", "status"]);
    assert!(status.stdout.contains(&report["jobs"][0]["name"].as_str().unwrap().to_owned()));
    assert_eq!(group.names(), ["plain"]);
    assert_eq!(group.suspended(), Vec::<String>::new());

    // A group without space gets no snapshot.
    configure(&machine, &[&plain], "[jobs.host.files.lvm-classic]\nsize = \"100%\"");
    group.linear("rest", 280);
    machine.run(&["run"]).expect(4).says("and a snapshot of plain takes");
    assert_eq!(group.names(), ["plain", "rest"]);
}

/// An `lvcreate` in front of the real one that notes what it asks device-mapper for, does this first, and is
/// killed when it asks for the n-th time.
fn killed_at(n: usize, first: &str, trace: &Path) {
    let script = format!(
        "#!/bin/sh\n{first}\nexec strace -f -v -s200 -o {} -e trace=ioctl -P /dev/mapper/control -e inject=ioctl:signal=SIGKILL:when={n} /usr/sbin/lvcreate \"$@\"\n",
        trace.display()
    );
    fs::create_dir_all("/usr/local/sbin").unwrap();
    fs::write(WRAPPER, script).unwrap();
    must("chmod", &["755", WRAPPER]);
}

/// Takes it away again, also after a failed test: the tests after it use the real one.
struct InFront;

impl Drop for InFront {
    fn drop(&mut self) {
        let _ = fs::remove_file(WRAPPER);
    }
}

/// Where our programs are looked for first.
const WRAPPER: &str = "/usr/local/sbin/lvcreate";

/// Waits for the end of an `lvcreate` that outlives us on purpose: the shell first, which may still be about to
/// become strace when we are gone.
fn await_lvcreate(trace: &Path) {
    let runs = |text: &str| !processes_about(text).is_empty();
    while runs(WRAPPER) || runs(trace.to_str().unwrap()) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the last `lvcreate` asked device-mapper for.
fn requests(trace: &Path) -> Vec<String> {
    let text = fs::read_to_string(trace).unwrap_or_default();
    text.lines().filter(|line| line.contains(" ioctl(")).map(str::to_owned).collect()
}

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn an_lvcreate_that_is_killed_is_mended() {
    let mut group = Group::new(300);
    group.pool("pool", 150);
    group.thin("pool", "data", 80);
    let data = group.mounted("data", "ext4");
    fs::write(data.join("file"), "kept").unwrap();
    let machine = machine(&[&data], "");
    let trace = group.scratch.path().join("trace");
    // strace counts up to 65535, and LVM asks less often.
    let never = 60_000;
    let _in_front = InFront;
    killed_at(never, "", &trace);
    run(&machine, 0);
    let whole = requests(&trace);

    let mut left = Vec::new();
    for (point, with_us) in [(0, true), (1, true), (2, true), (3, true), (2, false)] {
        let point = &super::lab::POINTS[point];
        let position = |lines: &[String]| lines.iter().position(|line| (point.matches)(line));
        let mut n = position(&whole).expect(point.before) + 1;
        // How often LVM asks before it varies by a few, so that this may take several attempts.
        let mut hit = false;
        for _ in 0..20 {
            // PPID is the program under test.
            killed_at(n, if with_us { "kill -KILL $PPID" } else { "" }, &trace);
            let _ = fs::remove_file(&trace);
            let ran = machine.run(&["run"]);
            await_lvcreate(&trace);
            let lines = requests(&trace);
            let at = position(&lines);
            hit = at.is_some_and(|at| at + 1 == lines.len());
            n = at.map_or(n + 1, |at| at + 1);
            if hit {
                assert_eq!(ran.code, if with_us { None } else { Some(10) }, "{}", ran.stderr);
                let (suspended, ids) = (group.suspended(), group.transactions("pool"));
                left.push(format!("before {}: {suspended:?} suspended, {ids:?}", point.before));
                let held = with_us && point.suspended;
                let expected = if held { vec![group.mapped("data")] } else { Vec::new() };
                assert_eq!(suspended, expected, "{}", point.before);
            }
            machine.run(&["recover"]).expect(0);
            group.assert_whole("pool", &["data", "pool"]);
            assert!(group.takes_writes("data", PROMPT), "{}", point.before);
            machine.assert_clean_except(group.scratch.path());
            if hit {
                break;
            }
        }
        assert!(hit, "lvcreate could not be killed before {}", point.before);
    }
    println!("what was there before recover:\n{}", left.join("\n"));
    killed_at(never, "", &trace);
    run(&machine, 0);
    assert_eq!(restored(&machine, &data.join("file")), "kept");
}

#[test]
#[ignore = "needs device-mapper: run by tests/guest/run"]
fn an_lvcreate_of_a_classic_snapshot_that_is_killed_is_mended() {
    let mut group = Group::new(300);
    group.linear("plain", 100);
    let plain = group.mounted("plain", "ext4");
    fs::write(plain.join("file"), "kept").unwrap();
    let machine = machine(&[&plain], "[jobs.host.files.lvm-classic]\nsize = \"8M\"");
    let trace = group.scratch.path().join("trace");
    let never = 60_000;
    let _in_front = InFront;
    killed_at(never, "", &trace);
    run(&machine, 0);
    let suspends = |line: &String| line.contains("=DM_SUSPEND_FLAG");
    let mut first =
        requests(&trace).iter().position(suspends).expect("the origin is suspended") + 1;

    // Just after the first suspend the origin has a second table, on a device that has none yet.
    let mut left = Vec::new();
    // How often LVM asks before it varies by a few, so that this may take several attempts.
    for after in [1, 2, 4].into_iter().chain([1, 2, 3].into_iter().cycle().take(12)) {
        let is_suspended = |left: &String| left.contains("plain");
        if left.len() >= 3 && left.iter().any(is_suspended) {
            break;
        }
        let n = first + after;
        killed_at(n, "kill -KILL $PPID", &trace);
        let _ = fs::remove_file(&trace);
        assert_eq!(machine.run(&["run"]).code, None);
        await_lvcreate(&trace);
        first = requests(&trace).iter().position(suspends).map_or(first, |at| at + 1);
        left.push(format!("{n}: {:?}", group.suspended()));
        machine.run(&["recover"]).expect(0);
        assert_eq!(group.names(), ["plain"], "{left:?}");
        assert_eq!(group.suspended(), Vec::<String>::new(), "{left:?}");
        assert!(group.takes_writes("plain", PROMPT), "{left:?}");
        let tables = must("dmsetup", &["table"]);
        let ours: Vec<&str> = tables.lines().filter(|line| line.starts_with(&group.name)).collect();
        assert_eq!(ours.len(), 1, "{left:?}: {tables}");
        assert!(ours[0].contains(" linear "), "{left:?}: {tables}");
        machine.assert_clean_except(group.scratch.path());
    }
    println!("suspended before recover: {left:?}");
    assert!(left.iter().any(|left| left.contains("plain")), "nothing was left suspended: {left:?}");
    killed_at(never, "", &trace);
    run(&machine, 0);
    assert_eq!(restored(&machine, &plain.join("file")), "kept");
}
