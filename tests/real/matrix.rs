//! The fault matrix: what a capture survives, as a table that the tests print. The same rows run on a btrfs here and on LVM in an
//! emulated guest; see [`Source`].

use std::fs;
use std::path::Path;

use crate::bench_machine::{Machine, Ran, must, wait_for_no_process_about, wait_until};
use crate::btrfs::Disk;

/// Something that is captured, with a file system of its own.
pub trait Source {
    /// The directory that the job reads.
    fn path(&self) -> &Path;
    /// Snapshots of ours, suspended devices, read-only remounts: whatever a run must not leave.
    fn left(&self) -> Vec<String>;
    /// Where something of the test's own is mounted.
    fn mounted(&self) -> &Path;
}

/// What is done to a run, and the exit code that it must have.
struct Row {
    name: &'static str,
    codes: &'static [i32],
    fault: fn(&Machine) -> Ran,
}

/// The job: both engines, or only restic where time is dear.
pub fn configure(machine: &Machine, source: &dyn Source, targets: &str) {
    let text = format!(
        r#"
[targets.b.keep]
last = 3
[targets.r.keep]
last = 3
[jobs.host]
targets = [{targets}]
[jobs.host.files]
paths = ["{}"]
capture = "required"
"#,
        source.path().display()
    );
    machine.configure(&text);
}

const ROWS: &[Row] = &[
    Row { name: "wrong password", codes: &[10], fault: wrong_password },
    Row { name: "engine fails", codes: &[10], fault: |machine| with_restic(machine, "exit 1") },
    Row {
        name: "engine killed",
        codes: &[10],
        fault: |machine| with_restic(machine, "kill -KILL $$"),
    },
    Row { name: "mount fails", codes: &[10], fault: mount_fails },
    Row { name: "SIGTERM", codes: &[143], fault: |machine| signalled(machine, "TERM") },
    Row { name: "SIGQUIT", codes: &[131], fault: |machine| signalled(machine, "QUIT") },
    Row { name: "SIGINT", codes: &[130], fault: |machine| signalled(machine, "INT") },
    Row { name: "target unmounted", codes: &[10], fault: target_unmounted },
    Row { name: "no fault", codes: &[0], fault: |machine| machine.run(&["run"]) },
];

/// At which events of the ledger a run is killed: at so many after the first one that says this.
#[derive(Clone, Copy)]
pub struct Kills {
    pub after: &'static str,
    pub at_most: usize,
}

impl Kills {
    /// At every event there is.
    pub const ALL: Self = Self { after: "", at_most: usize::MAX };
}

/// Runs every row, then SIGKILL at events of the ledger, and answers with the table.
pub fn run(machine: &Machine, source: &dyn Source, kills: Kills) -> String {
    let _repository = repository_on_a_disk(machine);
    machine.run(&["run"]).expect(0);
    let mut before = machine.copies("r");
    let mut table = vec![format!("{:<24} {:>5}  left  earlier copies  origin", "fault", "exit")];
    for row in ROWS {
        let ran = (row.fault)(machine);
        assert!(
            ran.code.is_some_and(|code| row.codes.contains(&code)),
            "{}: exit {:?}\n{}\n{}",
            row.name,
            ran.code,
            ran.stdout,
            ran.stderr
        );
        table.push(judged(machine, source, row.name, ran.code, &mut before));
    }
    let mut reached = 0;
    for stop_at in 1..=kills.at_most {
        let mut child = machine.start(&["run"]);
        let in_time = wait_until(&mut child, || events(machine, kills.after) >= stop_at);
        if !in_time {
            assert!(child.wait().unwrap().success());
            break;
        }
        must("kill", &["-KILL", &child.id().to_string()]);
        child.wait().unwrap();
        machine.run(&["recover"]).expect(0);
        reached = stop_at;
        let name = format!("SIGKILL at event {stop_at}");
        table.push(judged(machine, source, &name, None, &mut before));
    }
    let enough = kills.at_most.min(8);
    assert!(reached >= enough, "only {reached} events: the loop killed too late");
    machine.run(&["run"]).expect(0);
    table.join("\n")
}

/// Nothing is left, the origin takes a write, the newest copy of those before is there; then `before` are those
/// that are there now. One line of the table.
fn judged(
    machine: &Machine,
    source: &dyn Source,
    name: &str,
    code: Option<i32>,
    before: &mut Vec<String>,
) -> String {
    wait_for_no_process_about(&machine.path("").to_string_lossy());
    let left = source.left();
    assert!(left.is_empty(), "{name}: {left:?}");
    machine.assert_clean_except(source.mounted());
    let probe = source.path().join("probe");
    fs::write(&probe, name).unwrap_or_else(|error| panic!("{name}: the origin: {error}"));
    fs::remove_file(&probe).unwrap();
    let now = machine.copies("r");
    let newest = before.last().expect("there is an earlier copy");
    assert!(now.contains(newest), "{name}: the newest copy is lost");
    *before = now;
    let code = code.map_or("-".into(), |code| code.to_string());
    format!("{name:<24} {code:>5}  {:>4}  intact          writable", left.len())
}

fn wrong_password(machine: &Machine) -> Ran {
    machine.write("pass", "not the password\n", 0o600);
    let ran = machine.run(&["run"]);
    machine.write("pass", "correct horse\n", 0o600);
    ran
}

/// Runs with a restic whose `backup` is this piece of shell.
fn with_restic(machine: &Machine, backup: &str) -> Ran {
    let script = machine.script(
        "other-restic",
        &format!(
            "case \"$*\" in *' backup '*|'backup '*) {backup};; esac; exec /usr/bin/restic \"$@\""
        ),
    );
    let good = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let table = "[targets.r.restic]\n";
    let changed = good.replace(table, &format!("{table}program = \"{script}\"\n"));
    machine.write("stillpoint.toml", &changed, 0o600);
    let ran = machine.run(&["run"]);
    machine.write("stillpoint.toml", &good, 0o600);
    ran
}

/// The place where the view is put together is taken by a file, so that nothing can be mounted there.
fn mount_fails(machine: &Machine) -> Ran {
    let part = machine.path("run/mnt/part");
    fs::remove_dir(&part).unwrap();
    fs::write(&part, "").unwrap();
    let ran = machine.run(&["run"]);
    fs::remove_file(&part).unwrap();
    Ran { code: ran.code.map(|code| if code == 4 { 10 } else { code }), ..ran }
}

/// A signal while the engine reads.
fn signalled(machine: &Machine, signal: &str) -> Ran {
    let reading = machine.path("reading");
    let _ = fs::remove_file(&reading);
    let script = machine.script(
        "slow-restic",
        &format!(
            "case \"$*\" in *' backup '*|'backup '*) touch '{}'; exec sleep 60;; esac; exec /usr/bin/restic \"$@\"",
            reading.display()
        ),
    );
    let good = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let table = "[targets.r.restic]\n";
    let changed = good.replace(table, &format!("{table}program = \"{script}\"\n"));
    machine.write("stillpoint.toml", &changed, 0o600);
    let mut child = machine.start(&["run"]);
    assert!(wait_until(&mut child, || reading.exists()), "it never read");
    must("kill", &["-s", signal, &child.id().to_string()]);
    let ran = child.wait_with_output().unwrap().into();
    machine.write("stillpoint.toml", &good, 0o600);
    ran
}

/// Moves the repository of restic to a disk of its own, mounted where it was.
fn repository_on_a_disk(machine: &Machine) -> Disk {
    let mut disk = Disk::new(machine, "ext4", "repo-r-new", 128);
    let (from, to) = (machine.path("repo-r"), disk.at.clone());
    must("cp", &["-a", &format!("{}/.", from.display()), to.to_str().unwrap()]);
    must("umount", &[to.to_str().unwrap()]);
    fs::remove_dir_all(&from).unwrap();
    fs::create_dir(&from).unwrap();
    must("mount", &[&disk.device, from.to_str().unwrap()]);
    disk.at = from;
    disk
}

/// The disk with the repository goes away just before it is written. Nothing may land where it was.
fn target_unmounted(machine: &Machine) -> Ran {
    let at = machine.path("repo-r").to_string_lossy().into_owned();
    let device = must("findmnt", &["--noheadings", "--output=SOURCE", "--mountpoint", &at]);
    // The engine's namespace is told only where the machine's mounts are shared, as systemd has them.
    let everywhere = format!(
        "nsenter -t {} -m umount --lazy '{at}'; umount --lazy '{at}' 2>/dev/null",
        std::process::id()
    );
    let ran = with_restic(machine, &everywhere);
    let landed = fs::read_dir(&at).unwrap().count();
    must("mount", &[device.trim(), &at]);
    assert_eq!(landed, 0, "something was written below the mount point");
    ran
}

/// How many promises, identities and settlements the ledger holds from the first on that says `after`;
/// children that come and go are none.
fn events(machine: &Machine, after: &str) -> usize {
    let says = |line: &&[u8], words: &str| String::from_utf8_lossy(line).contains(words);
    let Ok(entries) = fs::read_dir(machine.path("state/ledger")) else { return 0 };
    entries
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| fs::read(entry.path()).ok())
        // The last piece is no line yet.
        .map(|bytes| {
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let events = lines.filter(|line| !says(line, "child-"));
            events.skip_while(|line| !says(line, after)).count()
        })
        .max()
        .unwrap_or(0)
}
