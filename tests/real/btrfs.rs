//! Captures of btrfs on a loop device: what engines see, what they find unchanged, what is nested, and that
//! nothing is ever left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stillpoint::host::system::SystemHost;
use stillpoint::host::{Action, Host};

use crate::bench_machine::{
    Machine, PROGRAM, Ran, command, make_keys_cheap, must, must_at_last, processes_about,
    wait_for_no_loop_device, wait_for_no_process_about, wait_until, write_with_mode,
};
use crate::matrix::{self, Kills, Source};

/// A file system on a loop device, mounted below a machine's directory.
pub struct Disk {
    pub device: String,
    pub at: PathBuf,
}

impl Disk {
    /// Makes a file system with `mkfs.KIND` and mounts it at `at`, which is created.
    pub fn new(machine: &Machine, kind: &str, at: &str, megabytes: u64) -> Self {
        let image = machine.path(&format!("{}.img", at.replace('/', "-")));
        fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let image = image.to_str().unwrap();
        must(&format!("mkfs.{kind}"), &["-q", image]);
        let device = must("losetup", &["--find", "--show", image]).trim().to_owned();
        let disk = Self { device, at: machine.path(at) };
        fs::create_dir_all(&disk.at).unwrap();
        disk.mount();
        disk
    }

    /// Mounts it where it belongs.
    pub fn mount(&self) {
        must("mount", &[&self.device, self.at.to_str().unwrap()]);
    }

    /// Takes it away from whoever writes or looks.
    pub fn unmount(&self) {
        must_at_last("umount", &[self.at.to_str().unwrap()]);
    }

    pub fn path(&self, below: &str) -> String {
        self.at.join(below).to_string_lossy().into_owned()
    }

    fn image(&self, machine: &Machine) -> PathBuf {
        let below = self.at.strip_prefix(machine.path("")).unwrap();
        machine.path(&format!("{}.img", below.to_str().unwrap().replace('/', "-")))
    }

    /// What is on it now, as a power cut would leave it.
    pub fn as_cut_off(&self, machine: &Machine) -> PathBuf {
        let (image, cut) = (self.image(machine), machine.path("cut.img"));
        must("cp", &["--sparse=always", image.to_str().unwrap(), cut.to_str().unwrap()]);
        cut
    }

    /// The power goes, and it has what this image has.
    pub fn becomes(&self, machine: &Machine, cut: &Path) {
        let image = self.image(machine);
        self.unmount();
        must("losetup", &["--detach", &self.device]);
        wait_for_no_loop_device(&image);
        fs::rename(cut, &image).unwrap();
        must("losetup", &[&self.device, image.to_str().unwrap()]);
        self.mount();
    }

    /// Runs the jobs, and cuts the power after so much time, of this disk and of all processes alike. Answers whether the
    /// run was not through by then.
    pub fn cut_off_in_a_run(&self, machine: &Machine, after: Duration) -> bool {
        let mut running = machine.start(&["run"]);
        let begun = Instant::now();
        let was_running = wait_until(&mut running, || begun.elapsed() >= after);
        let about = machine.path("").to_string_lossy().into_owned();
        let signal = |signal: &str| {
            for line in processes_about(&about) {
                // Whoever has ended meanwhile need not be told.
                let _ = command("kill").args([signal, line.split(':').next().unwrap()]).output();
            }
        };
        // Nobody writes while the image is copied from its beginning to its end.
        signal("-STOP");
        let cut = self.as_cut_off(machine);
        signal("-KILL");
        let _ = running.kill();
        running.wait().unwrap();
        wait_for_no_process_about(&about);
        self.becomes(machine, &cut);
        was_running
    }

    /// The names of all subvolumes, from the top level.
    pub fn subvolumes(&self) -> Vec<String> {
        let listed = must("btrfs", &["subvolume", "list", self.at.to_str().unwrap()]);
        listed.lines().filter_map(|line| Some(line.split_once(" path ")?.1.to_owned())).collect()
    }

    /// Waits until what was deleted has given its room back, which takes btrfs half a minute by itself.
    pub fn reclaim(&self) {
        let at = self.at.to_str().unwrap();
        for what in ["filesystem", "subvolume", "filesystem"] {
            must("btrfs", &[what, "sync", at]);
        }
    }

    /// How much is stored on it, in bytes, once that is there.
    pub fn used(&self) -> u64 {
        must("btrfs", &["filesystem", "sync", self.at.to_str().unwrap()]);
        let told = must("btrfs", &["filesystem", "df", "-b", self.at.to_str().unwrap()]);
        let line = told.lines().find(|line| line.starts_with("Data")).unwrap();
        line.rsplit_once("used=").unwrap().1.trim().parse().unwrap()
    }

    /// Those that are snapshots of ours.
    pub fn snapshots(&self) -> Vec<String> {
        self.subvolumes().into_iter().filter(|name| name.contains(".stillpoint.")).collect()
    }

    /// No snapshot of ours is there.
    #[track_caller]
    pub fn assert_no_snapshot(&self) {
        let left = self.snapshots();
        assert!(left.is_empty(), "snapshots are left: {left:?}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is mounted in it first, and where a test had it mounted elsewhere: one that failed leaves no loop device.
        for _ in 0..3 {
            let _ = command("umount").args(["--recursive", "--quiet"]).arg(&self.at).status();
        }
        let everywhere = ["--all-targets", "--recursive", "--quiet", &self.device];
        let _ = command("umount").args(everywhere).status();
        let _ = command("losetup").args(["--detach", &self.device]).status();
    }
}

/// The whole tree of the newest copy of a target, below a fresh directory.
pub fn restored(machine: &Machine, target: &str, name: &str) -> PathBuf {
    let to = machine.path(name);
    fs::create_dir_all(&to).unwrap();
    machine.run(&["restore", "host", "--target", target, "--to", to.to_str().unwrap()]).expect(0);
    to
}

/// Where a path of the machine lies in a restored tree.
pub fn inside(restored: &Path, path: impl AsRef<Path>) -> PathBuf {
    restored.join(path.as_ref().strip_prefix("/").unwrap())
}

fn job(machine: &Machine, files: &str) {
    machine.configure(&format!(
        "[jobs.host]\ntargets = [\"b\", \"r\"]\n[jobs.host.files]\ncapture = \"auto\"\n{files}\n"
    ));
}

fn step<'r>(report: &'r serde_json::Value, step: &str) -> &'r serde_json::Value {
    let steps = report["jobs"][0]["steps"].as_array().unwrap();
    steps.iter().find(|s| s["step"] == step).unwrap_or_else(|| panic!("no step {step}: {report:#}"))
}

fn run_json(machine: &Machine, code: i32) -> serde_json::Value {
    let ran: Ran = machine.run(&["--json", "run"]).expect(code);
    ran.json()
}

#[test]
fn copies_hold_one_moment_under_the_original_paths() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 300);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("home")]);
    for n in 0..50 {
        fs::write(disk.path(&format!("home/{n}")), format!("file {n}")).unwrap();
    }
    job(&machine, "paths = [\"{root}/disk/home\"]");
    machine.run(&["init", "b", "r"]).expect(0);
    let report = run_json(&machine, 0);
    assert_eq!(report["jobs"][0]["captures"][0]["provider"], "btrfs", "{report:#}");
    assert_eq!(report["jobs"][0]["captures"][0]["consistency"], "crash-consistent");
    assert_eq!(step(&report, "release")["outcome"], "ok");
    machine.assert_clean_except(&disk.at);
    disk.assert_no_snapshot();
    for target in ["b", "r"] {
        let back = restored(&machine, target, &format!("back-{target}"));
        for n in 0..50 {
            let path = inside(&back, disk.path(&format!("home/{n}")));
            assert_eq!(fs::read_to_string(path).unwrap(), format!("file {n}"));
        }
    }
}

/// A job on `disk/home`, a subvolume of a fresh btrfs, with repositories outside it.
fn home(files: &str) -> (Machine, Disk) {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 300);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("home")]);
    for n in 0..50 {
        fs::write(disk.path(&format!("home/{n}")), format!("file {n}")).unwrap();
    }
    job(&machine, files);
    machine.run(&["init", "b", "r"]).expect(0);
    (machine, disk)
}

/// Makes the engines of both targets open files under the eyes of strace, and answers with the logs.
fn traced(machine: &Machine) -> [PathBuf; 2] {
    let configuration = machine.path("stillpoint.toml");
    let mut text = fs::read_to_string(&configuration).unwrap();
    let logs = [("borg", "borg"), ("restic", "restic")].map(|(engine, program)| {
        let log = machine.path(&format!("{engine}.trace"));
        let wrapper = machine.script(
            &format!("{engine}-traced"),
            &format!(
                "exec strace -f -y -A -e trace=openat,read,pread64 -o '{}' -- /usr/bin/{program} \"$@\"",
                log.display()
            ),
        );
        let table = format!("[targets.{}.{engine}]\n", &engine[..1]);
        text = text.replace(&table, &format!("{table}program = \"{wrapper}\"\n"));
        log
    });
    machine.write("stillpoint.toml", &text, 0o600);
    logs
}

#[test]
fn the_second_run_through_a_new_snapshot_reads_no_file() {
    let (machine, disk) = home("paths = [\"{root}/disk/home\"]\none-file-system = true");
    machine.run(&["run"]).expect(0);
    fs::write(disk.path("home/new"), "new").unwrap();
    let logs = traced(&machine);
    // What an engine remembers of a file that changed within its clock's tick it does not trust.
    std::thread::sleep(std::time::Duration::from_secs(2));
    machine.run(&["run"]).expect(0);
    for log in &logs {
        fs::remove_file(log).unwrap();
    }
    machine.run(&["run"]).expect(0);
    for log in &logs {
        let trace = fs::read_to_string(log).unwrap();
        // borg opens every file to ask for its attributes; what counts is whether it reads. The newest
        // file of a run it never trusts in the next one.
        let read: Vec<&str> = trace
            .lines()
            .filter(|line| line.contains("read") && line.contains("disk/home/"))
            .filter(|line| !line.contains("disk/home/new>"))
            .collect();
        assert!(read.is_empty(), "{} read {read:#?}", log.display());
        assert!(trace.contains("disk/home"), "{} did not look at all:\n{trace}", log.display());
    }
    disk.assert_no_snapshot();
}

#[test]
fn what_is_nested_is_captured_too_or_told() {
    let (machine, disk) = home("paths = [\"{root}/disk/home\"]");
    must("btrfs", &["-q", "subvolume", "create", &disk.path("home/inner")]);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("home/with space")]);
    fs::write(disk.path("home/inner/deep"), "deep").unwrap();
    fs::write(disk.path("home/with space/deep"), "spaced").unwrap();
    let mounted = Disk::new(&machine, "ext4", "disk/home/mounted", 32);
    fs::write(mounted.path("on-ext4"), "on ext4").unwrap();
    let ran = run_json(&machine, 0);
    let back = restored(&machine, "r", "back");
    for (path, content) in
        [("inner/deep", "deep"), ("with space/deep", "spaced"), ("mounted/on-ext4", "on ext4")]
    {
        let path = inside(&back, disk.path(&format!("home/{path}")));
        assert_eq!(fs::read_to_string(path).unwrap(), content, "{ran:#}");
    }
    disk.assert_no_snapshot();

    // Whoever does not cross file systems is told what is missing, until the configuration names it.
    job(&machine, "paths = [\"{root}/disk/home\"]\none-file-system = true");
    let told = run_json(&machine, 13);
    let text = told.to_string();
    for name in ["home/inner", "home/with space", "home/mounted"] {
        assert!(text.contains(&format!("{} (", disk.path(name))), "{name} is not told: {told:#}");
    }
    machine.run(&["plan"]).says("home/inner");
    job(
        &machine,
        "paths = [\"{root}/disk/home\"]\none-file-system = true\nleave-out = [\"{root}/disk/home/inner\", \"{root}/disk/home/with space\", \"{root}/disk/home/mounted\"]",
    );
    run_json(&machine, 0);
    let back = restored(&machine, "b", "back-2");
    assert!(inside(&back, disk.path("home/1")).exists());
    assert!(!inside(&back, disk.path("home/inner/deep")).exists());
    assert!(!inside(&back, disk.path("home/mounted/on-ext4")).exists());
    disk.assert_no_snapshot();
}

#[test]
fn what_is_nested_and_read_live_is_in_the_copy_too() {
    let (machine, disk) = home("paths = [\"{root}/disk/home\"]");
    for name in ["inner", "apart"] {
        must("btrfs", &["-q", "subvolume", "create", &disk.path(&format!("home/{name}"))]);
        fs::write(disk.path(&format!("home/{name}/deep")), "deep").unwrap();
    }
    let mounted = Disk::new(&machine, "ext4", "disk/home/inner/mounted", 32);
    fs::write(mounted.path("on-ext4"), "on ext4").unwrap();
    // A path of its own inside the other, a file system that nothing can hold, and a subvolume live by wish.
    let files = "paths = [\"{root}/disk/home\", \"{root}/disk/home/inner\"]\nlive = [\"{root}/disk/home/apart\"]";
    job(&machine, files);
    run_json(&machine, 0);
    for target in ["b", "r"] {
        let back = restored(&machine, target, &format!("back-{target}"));
        for (path, content) in
            [("inner/deep", "deep"), ("inner/mounted/on-ext4", "on ext4"), ("apart/deep", "deep")]
        {
            let path = inside(&back, disk.path(&format!("home/{path}")));
            assert_eq!(fs::read_to_string(&path).unwrap(), content, "{}", path.display());
        }
    }
    disk.assert_no_snapshot();
}

#[test]
fn what_is_nested_in_a_directory_that_is_mounted_elsewhere_is_found() {
    let (machine, disk) = home("paths = [\"{root}/disk/export\"]");
    for directory in ["home/srv/deep", "home/apart"] {
        fs::create_dir_all(disk.path(directory)).unwrap();
    }
    // The last one lies in the same subvolume, and not in the directory.
    for name in ["home/srv/vm", "home/srv/deep/vm", "home/apart/vm"] {
        must("btrfs", &["-q", "subvolume", "create", &disk.path(name)]);
        fs::write(disk.path(&format!("{name}/image")), "image").unwrap();
    }
    // Unmounted with the disk.
    fs::create_dir(disk.path("export")).unwrap();
    must("mount", &["--bind", &disk.path("home/srv"), &disk.path("export")]);
    let assert_copies = |name: &str| {
        for target in ["b", "r"] {
            let back = restored(&machine, target, &format!("{name}-{target}"));
            for image in ["vm/image", "deep/vm/image"] {
                let image = inside(&back, disk.path(&format!("export/{image}")));
                assert_eq!(fs::read_to_string(&image).unwrap(), "image", "{}", image.display());
            }
        }
        disk.assert_no_snapshot();
    };
    let report = run_json(&machine, 0);
    let captures = report["jobs"][0]["captures"].as_array().unwrap();
    let providers: Vec<_> = captures.iter().filter_map(|c| c["provider"].as_str()).collect();
    assert_eq!(providers, ["none", "btrfs", "btrfs"], "{report:#}");
    assert_copies("held");
    job(&machine, "paths = [\"{root}/disk/export\"]\nlive = [\"{root}/disk/export\"]");
    run_json(&machine, 0);
    assert_copies("live");
    job(&machine, "paths = [\"{root}/disk/export\"]\none-file-system = true");
    let told = run_json(&machine, 13).to_string();
    for name in ["vm", "deep/vm"] {
        assert!(
            told.contains(&format!("{} (subvolume)", disk.path(&format!("export/{name}")))),
            "{name}: {told}"
        );
    }
    assert!(!told.contains("apart"), "{told}");
}

#[test]
fn a_path_through_a_link_is_captured_and_its_mounts_are_left_out() {
    let (machine, disk) = home("paths = [\"{root}/link/www\"]");
    std::os::unix::fs::symlink(disk.path("home"), machine.path("link")).unwrap();
    fs::create_dir(disk.path("home/www")).unwrap();
    fs::write(disk.path("home/www/file"), "before").unwrap();
    let scratch = Disk::new(&machine, "ext4", "disk/home/www/scratch", 32);
    fs::write(scratch.path("inside"), "not for the copy").unwrap();
    let change =
        machine.script("change", &format!("echo after > '{}'", disk.path("home/www/file")));
    job(
        &machine,
        &format!(
            "paths = [\"{{root}}/link/www\"]\nleave-out = [\"{{root}}/link/www/scratch\"]\n[jobs.host.hooks]\nquiesce = [[\"true\"]]\nresume = [[\"{change}\"]]"
        ),
    );
    for target in ["b", "r"] {
        fs::write(disk.path("home/www/file"), "before").unwrap();
        let report = run_json(&machine, 0);
        assert_eq!(report["jobs"][0]["captures"][0]["provider"], "btrfs", "{report:#}");
        let back = inside(&restored(&machine, target, target), machine.path("link/www"));
        assert_eq!(fs::read_to_string(back.join("file")).unwrap(), "before");
        assert!(!back.join("scratch/inside").exists());
    }
    // What is told can be named as it is told.
    job(&machine, "paths = [\"{root}/link/www\"]\none-file-system = true");
    let told = run_json(&machine, 13).to_string();
    let name = machine.path("link/www/scratch");
    assert!(told.contains(&format!("{} (ext4", name.display())), "{told}");
    disk.assert_no_snapshot();
}

#[test]
fn a_mount_that_nobody_reads_may_go_away_at_any_time() {
    let files = "paths = [\"{root}/disk/home\"]\nleave-out = [\"{root}/disk/home/container\"]";
    let (machine, disk) = home(files);
    let merged = disk.path("home/container/merged");
    // Not in memory: below /tmp that would be left out by itself.
    let other = Disk::new(&machine, "ext4", "other", 32);
    fs::write(other.path("inside"), "not for the copy").unwrap();
    let appear = || {
        fs::create_dir_all(&merged).unwrap();
        must("mount", &["--bind", &other.path(""), &merged]);
    };
    let vanish = machine.script("vanish", &format!("umount '{merged}' && rmdir '{merged}'"));
    let hooks = format!("[jobs.host.hooks]\nquiesce = [[\"{vanish}\"]]\nresume = [[\"true\"]]");
    let assert_copies = |name: &str| {
        for target in ["b", "r"] {
            let back = restored(&machine, target, &format!("{name}-{target}"));
            assert!(inside(&back, disk.path("home/1")).exists(), "{name}, {target}");
            assert!(!inside(&back, &merged).join("inside").exists(), "{name}, {target}");
        }
    };

    // It stays.
    appear();
    run_json(&machine, 0);
    assert_copies("stays");
    // A container that is stopped before the snapshot is made.
    job(&machine, &format!("{files}\n{hooks}"));
    run_json(&machine, 0);
    assert!(!Path::new(&merged).exists(), "the hook has not run");
    assert_copies("before");
    // One that ends while the first target is read: the snapshot has its directory, and it is gone.
    job(&machine, files);
    appear();
    let engine = machine.script("borg-then", &format!("/usr/bin/borg \"$@\"; code=$?; case \" $* \" in *' create '*) nsenter --target $PPID --mount {vanish};; esac; exit $code"));
    let good = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let table = "[targets.b.borg]\n";
    let text = good.replace(table, &format!("{table}program = \"{engine}\"\n"));
    machine.write("stillpoint.toml", &text, 0o600);
    run_json(&machine, 0);
    assert!(!Path::new(&merged).exists(), "borg has not run");
    assert_copies("between");
    // What the copy is to hold must be there.
    machine.write("stillpoint.toml", &good.replace("leave-out =", "live ="), 0o600);
    appear();
    let vanishing = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    machine.write("stillpoint.toml", &format!("{vanishing}\n{hooks}\n"), 0o600);
    let ran = machine.run(&["run"]);
    assert_ne!(ran.code, Some(0), "{}", ran.stdout);
    ran.says("cannot open").says("merged");
    disk.assert_no_snapshot();
}

#[test]
fn a_subvolume_whose_name_speaks_of_another_uuid_is_captured() {
    let (machine, disk) = home("paths = [\"{root}/disk/home\"]\none-file-system = false");
    let name = "home/x\n\tUUID: \t\t\tdeadbeef-dead-beef-dead-beefdeadbeef";
    must("btrfs", &["-q", "subvolume", "create", &disk.path(name)]);
    fs::write(disk.path(&format!("{name}/file")), "content").unwrap();
    let report = run_json(&machine, 0);
    let providers: Vec<_> = report["jobs"][0]["captures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| volume["provider"].as_str().unwrap())
        .collect();
    assert_eq!(providers, ["btrfs", "btrfs"], "{report:#}");
    disk.assert_no_snapshot();
    let back = restored(&machine, "r", "back");
    let path = inside(&back, disk.path(&format!("{name}/file")));
    assert_eq!(fs::read_to_string(path).unwrap(), "content");
}

#[test]
fn subvolumes_that_come_and_go_while_they_are_listed_are_no_error() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 300);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("stays")]);
    let host = SystemHost::stopped_by(Arc::default());
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let names: Vec<String> = (0..20).map(|n| disk.path(&format!("goes-{n}"))).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for _ in 0..10 {
                for name in &names {
                    must("btrfs", &["-q", "subvolume", "create", name]);
                }
                must("btrfs", &[&["-q", "subvolume", "delete"], names.as_slice()].concat());
            }
        });
        while !churn.is_finished() {
            let nested = host.nested_subvolumes(&disk.at).unwrap();
            assert!(nested.contains(&disk.at.join("stays")), "{nested:?}");
        }
    });
    let subvolume = host.subvolume(&disk.at.join("stays")).unwrap().unwrap();
    let shown = must("btrfs", &["subvolume", "show", &disk.path("stays")]);
    assert!(shown.contains(&format!("\tUUID: \t\t\t{}\n", subvolume.uuid.unwrap())), "{shown}");
    fs::create_dir(disk.path("plain")).unwrap();
    assert_eq!(host.subvolume(&disk.at.join("plain")).unwrap(), None);
}

#[test]
fn a_snapshot_of_a_run_that_a_reboot_ended_is_released_by_recover() {
    let (machine, mut disk) = home("paths = [\"{root}/disk/home\"]");
    let body =
        "case \"$*\" in 'backup '*) kill -KILL $PPID; sleep 2;; esac; exec /usr/bin/restic \"$@\"";
    let script = machine.script("killer", body);
    let good = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let table = "[targets.r.restic]\n";
    let text = good.replace(table, &format!("{table}program = \"{script}\"\n"));
    machine.write("stillpoint.toml", &text, 0o600);
    assert_eq!(machine.run(&["run"]).code, None, "it was not killed");
    assert_ne!(disk.snapshots(), [] as [String; 0]);
    machine.write("stillpoint.toml", &good, 0o600);
    // As /run is after a reboot.
    fs::remove_dir_all(machine.path("run")).unwrap();
    // Another file system has taken its place, and it is not there yet.
    let at = disk.at.to_str().unwrap().to_owned();
    disk.unmount();
    must("losetup", &["--detach", &disk.device]);
    let image = machine.path("disk.img");
    wait_for_no_loop_device(&image);
    let image = image.to_str().unwrap().to_owned();
    let other = Disk::new(&machine, "btrfs", "other", 120);
    must("mount", &[&other.device, &at]);
    machine.run(&["recover"]).expect(11).says("is not here");
    must_at_last("umount", &[&at]);
    drop(other);
    // It comes back under another name, elsewhere.
    let spare = machine.path("spare.img");
    fs::File::create(&spare).unwrap().set_len(1 << 20).unwrap();
    let spare = must("losetup", &["--find", "--show", spare.to_str().unwrap()]);
    disk.device = must("losetup", &["--find", "--show", &image]).trim().to_owned();
    must("losetup", &["--detach", spare.trim()]);
    disk.at = machine.path("elsewhere");
    fs::create_dir(&disk.at).unwrap();
    disk.mount();
    machine.run(&["recover"]).expect(0);
    disk.assert_no_snapshot();
}

#[test]
fn a_repository_and_caches_below_the_captured_path_stay_live() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 300);
    fs::write(disk.path("file"), "content").unwrap();
    // One of them in a subvolume that is not captured, and so an empty directory in the snapshot.
    must("btrfs", &["-q", "subvolume", "create", &disk.path("cache")]);
    let text = r#"
[settings]
host = "web1"
state-dir = "{root}/disk/state"
runtime-dir = "{root}/disk/run"
cache-dir = "{root}/disk/cache/stillpoint"
[targets.b.borg]
repository = "{root}/disk/repo-b"
passphrase-file = "{root}/pass"
[targets.r.restic]
repository = "local:{root}/disk/repo-r"
password-file = "{root}/pass"
[jobs.host]
targets = ["b", "r"]
[jobs.host.files]
paths = ["{root}/disk"]
capture = "required"
exclude = ["{root}/disk/repo-b", "{root}/disk/repo-r", "{root}/disk/state", "{root}/disk/cache"]
"#;
    let text = text.replace("{root}", &machine.path("").to_string_lossy());
    machine.write("stillpoint.toml", &text, 0o600);
    machine.run(&["init", "b", "r"]).expect(0);
    for _ in 0..2 {
        machine.run(&["run"]).expect(0);
    }
    assert_eq!((machine.copies("b").len(), machine.copies("r").len()), (2, 2));
    let back = restored(&machine, "b", "back");
    assert_eq!(fs::read_to_string(inside(&back, disk.path("file"))).unwrap(), "content");
    machine.run(&["check", "--read-data"]).expect(0);
    disk.assert_no_snapshot();
}

/// `/var/run` is a link on most machines.
#[test]
fn captured_runs_do_with_a_runtime_directory_behind_a_link() {
    let (machine, disk) = home("paths = [\"{root}/disk/home\"]\none-file-system = true");
    fs::create_dir(machine.path("real")).unwrap();
    std::os::unix::fs::symlink(machine.path("real"), machine.path("link")).unwrap();
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let linked = format!("runtime-dir = \"{}\"\n", machine.path("link/run").display());
    let lines = text.lines().filter(|line| !line.starts_with("runtime-dir"));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    assert!(text.contains("[settings]\n"), "{text}");
    let text = text.replace("[settings]\n", &format!("[settings]\n{linked}"));
    machine.write("stillpoint.toml", &text, 0o600);
    machine.run(&["run"]).expect(0);
    assert!(machine.path("real/run/mnt").is_dir());
    assert_eq!((machine.copies("b").len(), machine.copies("r").len()), (1, 1));
    disk.assert_no_snapshot();
}

#[test]
fn a_plan_changes_nothing_and_shows_what_would_be_made() {
    let (machine, disk) = home("paths = [\"{root}/disk/home\"]");
    let before = disk.subvolumes();
    machine
        .run(&["plan"])
        .expect(0)
        .says("make the btrfs snapshot .stillpoint.")
        .says("delete the btrfs snapshot .stillpoint.")
        .says("subvol=/.stillpoint.");
    assert_eq!(disk.subvolumes(), before);
    machine.run(&["check-config", "--online"]).expect(0).says("(btrfs)");
}

#[test]
fn two_jobs_on_one_subvolume_at_once_both_finish() {
    let (machine, disk) = home("paths = [\"{root}/disk/home\"]");
    machine.configure(
        r#"
[jobs.one]
targets = ["b"]
[jobs.one.files]
paths = ["{root}/disk/home"]
capture = "required"
[jobs.two]
targets = ["r"]
[jobs.two.files]
paths = ["{root}/disk/home"]
capture = "required"
"#,
    );
    // They wait for each other while captures are made.
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let text = text.replace("lock-wait = \"1s\"", "lock-wait = \"2m\"");
    machine.write("stillpoint.toml", &text, 0o600);
    for _ in 0..3 {
        let children = ["one", "two"].map(|job| machine.start(&["run", job]));
        for child in children {
            let ran: Ran = child.wait_with_output().unwrap().into();
            ran.expect(0);
        }
    }
    assert_eq!((machine.copies("b").len(), machine.copies("r").len()), (3, 3));
    disk.assert_no_snapshot();
    machine.assert_clean_except(&disk.at);
}

#[test]
fn a_plain_file_system_is_read_only_while_it_is_read() {
    let machine = Machine::bare("[jobs]\n");
    for (kind, extra) in [("ext4", ""), ("xfs", ""), ("ext4", "b")] {
        let name = format!("boot-{kind}{extra}");
        let disk = Disk::new(&machine, kind, &name, 330);
        fs::write(disk.path("vmlinuz"), "kernel").unwrap();
        // The engine itself tries to write: once it must not be able to.
        let probe = machine.script(
            "probe",
            &format!(
                "touch '{}' 2>/dev/null && exit 9; exec /usr/bin/restic \"$@\"",
                disk.path("x")
            ),
        );
        job(
            &machine,
            &format!(
                "paths = [\"{{root}}/{name}\"]\n[jobs.host.files.remount-readonly]\npaths = [\"{{root}}/{name}\"]"
            ),
        );
        let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
        let text = text.replace("targets = [\"b\", \"r\"]", "targets = [\"r\"]");
        machine.write("stillpoint.toml", &text, 0o600);
        if kind == "ext4" && extra.is_empty() {
            machine.run(&["init", "r"]).expect(0);
        }
        let text = text.replace(
            "[targets.r.restic]\n",
            &format!("[targets.r.restic]\nprogram = \"{probe}\"\n"),
        );
        machine.write("stillpoint.toml", &text, 0o600);
        fs::write(machine.path("probe-log"), "").unwrap();
        // Every call of restic outside the capture would find it writable, so only backup is probed.
        let body = format!(
            "case \"$*\" in 'backup '*) touch '{}' 2>/dev/null && exit 9;; esac; exec /usr/bin/restic \"$@\"",
            disk.path("x")
        );
        machine.script("probe", &body);
        let report = run_json(&machine, 0);
        assert_eq!(report["jobs"][0]["captures"][0]["provider"], "remount-readonly");
        fs::write(disk.path("after"), "writable again").unwrap();
        assert!(!disk.at.join("x").exists());

        let writer = fs::File::create(disk.path("open")).unwrap();
        machine.run(&["run"]).expect(10).says("fuser -vm");
        drop(writer);
        fs::write(disk.path("after"), "writable still").unwrap();
    }
}

#[test]
fn what_was_read_only_for_another_run_alone_is_no_capture() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "ext4", "boot", 32);
    fs::write(disk.path("vmlinuz"), "kernel").unwrap();
    job(&machine, "paths = [\"{root}/boot\"]");
    machine.run(&["init", "r"]).expect(0);
    let at = disk.at.to_str().unwrap();
    must_at_last("mount", &["-o", "remount,ro", at]);
    // The other run is done before this one.
    let done = "case \"$*\" in 'backup '*) mount -o remount,rw \"$BOOT\";; esac; exec /usr/bin/restic \"$@\"";
    let script = machine.script("restic", &done.replace("\"$BOOT\"", &format!("'{at}'")));
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let text = text.replace("targets = [\"b\", \"r\"]", "targets = [\"r\"]");
    let table = "[targets.r.restic]\n";
    machine.write("stillpoint.toml", &text, 0o600);
    machine.run(&["run"]).expect(0);
    let text = text.replace(table, &format!("{table}program = \"{script}\"\n"));
    machine.write("stillpoint.toml", &text, 0o600);
    machine.run(&["run"]).expect(10).says("no longer is after reading");
}

#[test]
fn no_provider_is_a_warning_for_auto_and_an_error_for_required() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "ext4", "plain", 64);
    fs::write(disk.path("file"), "content").unwrap();
    job(&machine, "paths = [\"{root}/plain\"]");
    machine.run(&["init", "b", "r"]).expect(0);
    machine.run(&["run"]).expect(0).says("nothing can hold");
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let text = text.replace("capture = \"auto\"", "capture = \"required\"");
    machine.write("stillpoint.toml", &text, 0o600);
    machine.run(&["run"]).expect(4).says("a capture is required");
    assert_eq!(machine.copies("b").len(), 1);
    let text = text.replace("capture =", &format!("live = [\"{}\"]\ncapture =", disk.at.display()));
    machine.write("stillpoint.toml", &text, 0o600);
    machine.run(&["run"]).expect(0);
}

struct Home {
    disk: Disk,
    path: PathBuf,
}

impl Source for Home {
    fn path(&self) -> &Path {
        &self.path
    }

    fn left(&self) -> Vec<String> {
        self.disk.snapshots()
    }

    fn mounted(&self) -> &Path {
        &self.disk.at
    }
}

#[test]
fn the_fault_matrix_on_btrfs() {
    let (machine, disk) = home("paths = [\"{root}/disk/home\"]");
    let source = Home { path: disk.at.join("home"), disk };
    matrix::configure(&machine, &source, r#""b", "r""#);
    println!("{}", matrix::run(&machine, &source, Kills::ALL));
}

/// A root file system of its own on a btrfs, with the machine's programs, entered by chroot.
struct Root {
    disk: Disk,
}

impl Root {
    fn new(machine: &Machine) -> Self {
        let disk = Disk::new(machine, "btrfs", "root", 1500);
        let at = &disk.at;
        for directory in [
            "usr",
            "proc",
            "sys",
            "dev",
            "run",
            "etc",
            "tmp",
            "var/lib",
            "var/cache",
            "root",
            "srv",
        ] {
            fs::create_dir_all(at.join(directory)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), at.join(name)).unwrap();
        }
        for name in ["passwd", "group", "ld.so.cache", "nsswitch.conf"] {
            fs::copy(format!("/etc/{name}"), at.join("etc").join(name)).unwrap();
        }
        let path = |below: &str| at.join(below).to_str().unwrap().to_owned();
        must("mount", &["--bind", "/usr", &path("usr")]);
        must("mount", &["-t", "proc", "proc", &path("proc")]);
        must("mount", &["-t", "sysfs", "sys", &path("sys")]);
        must("mount", &["--rbind", "/dev", &path("dev")]);
        // Their end here must not be their end outside.
        must("mount", &["--make-rslave", &path("dev")]);
        must("mount", &["-t", "tmpfs", "run", &path("run")]);
        // Not by us, for the reason that Machine::script has.
        must("cp", &[PROGRAM, &path("root/stillpoint")]);
        Self { disk }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut chroot = command("chroot");
        chroot.arg(&self.disk.at).arg("/root/stillpoint").args(args);
        chroot.env_clear().env("PATH", "/usr/sbin:/usr/bin");
        chroot.output().unwrap().into()
    }
}

#[test]
fn a_captured_root_is_the_root_of_the_engines() {
    let machine = Machine::bare("[jobs]\n");
    let root = Root::new(&machine);
    let write = |path: &str, text: &str| {
        write_with_mode(&root.disk.at.join(path), text, 0o600);
    };
    write("etc/pass", "secret\n");
    write("etc/hello", "hello");
    for one_file_system in [true, false] {
        write(
            "etc/stillpoint.toml",
            &format!(
                r#"
[settings]
host = "web1"
[targets.b.borg]
repository = "/srv/b"
passphrase-file = "/etc/pass"
[targets.r.restic]
repository = "/srv/r"
password-file = "/etc/pass"
[jobs.host]
targets = ["b", "r"]
[jobs.host.files]
paths = ["/"]
exclude = ["/srv", "/var/cache/stillpoint", "/var/lib/stillpoint"]
leave-out = ["/usr"]
one-file-system = {one_file_system}
capture = "required"
"#
            ),
        );
        if one_file_system {
            root.run(&["init", "b", "r"]).expect(0);
            make_keys_cheap(&root.disk.at.join("srv/r"), "secret");
        }
        for _ in 0..2 {
            let report = root.run(&["--json", "run"]).expect(0).json();
            assert_eq!(report["jobs"][0]["captures"][0]["path"], "/", "{report:#}");
            // The programs, a few files of /etc, and nothing of /usr, /proc, /sys or /dev.
            for target in report["jobs"][0]["targets"].as_array().unwrap() {
                assert!(target["files"].as_u64().unwrap() < 30, "{report:#}");
            }
        }
        root.disk.assert_no_snapshot();
    }
    for target in ["b", "r"] {
        let to = format!("/tmp/back-{target}");
        root.run(&["restore", "host", "--target", target, "--to", &to]).expect(0);
        let hello = root.disk.at.join(&to[1..]).join("etc/hello");
        assert_eq!(fs::read_to_string(hello).unwrap(), "hello");
    }
}

#[test]
fn what_is_lost_is_told_to_each_who_writes_there() {
    let machine = Machine::bare("[jobs]\n");
    let (small, at) = (machine.path("small"), machine.path("disk"));
    fs::create_dir(&small).unwrap();
    must("mount", &["-t", "tmpfs", "-o", "size=40m", "small", small.to_str().unwrap()]);
    let image = small.join("image");
    fs::File::create(&image).unwrap().set_len(200 << 20).unwrap();
    must("mkfs.ext4", &["-q", "-E", "nodiscard", image.to_str().unwrap()]);
    let device = must("losetup", &["--find", "--show", image.to_str().unwrap()]).trim().to_owned();
    // What lies below it has no room: what is written there is lost.
    let disk = Disk { device, at };
    fs::create_dir(&disk.at).unwrap();
    disk.mount();
    let lost = std::panic::catch_unwind(|| {
        let host = SystemHost::new().unwrap();
        let places = ["left", "right", "neither"].map(|name| disk.at.join(name));
        places.iter().for_each(|place| fs::create_dir(place).unwrap());
        let _watched =
            places[..2].iter().map(|place| host.watch_writes(place).unwrap()).collect::<Vec<_>>();
        fs::write(places[0].join("much"), vec![7; 80 << 20]).unwrap();
        places.map(|path| host.act(&Action::FlushFileSystem { path }).is_err())
    });
    drop(disk);
    must_at_last("umount", &[small.to_str().unwrap()]);
    // The kernel has told it by then, and tells it to nobody who comes later.
    assert_eq!(lost.unwrap(), [true, true, false]);
}
