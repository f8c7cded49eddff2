//! Reading copies back in a bad hour: the disk of the state directory is full or read-only, or history is
//! damaged. Whoever needs a file back gets it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use crate::bench_machine::{
    HOST, Machine, Ran, assert_same_tree, must, must_at_last, wait_for_no_loop_device,
    wait_for_no_process_about, wait_until,
};

/// A small file system on `MACHINE/disk`, unmounted at the end.
struct SmallDisk<'m>(&'m Machine);

impl<'m> SmallDisk<'m> {
    /// Makes it and moves the machine's directories of these names onto it.
    fn new(machine: &'m Machine, directories: &[&str]) -> Self {
        let (image, mount) = (machine.path("disk.img"), machine.path("disk"));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        must("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        must("mount", &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()]);
        let mut text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
        for directory in directories {
            let (from, to) = (machine.path(directory), mount.join(directory));
            text = text.replace(
                &format!("-dir = \"{}\"", from.display()),
                &format!("-dir = \"{}\"", to.display()),
            );
        }
        machine.write("stillpoint.toml", &text, 0o600);
        Self(machine)
    }

    /// Leaves not a byte.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.path("disk/filler")).unwrap();
        for size in [1 << 20, 1 << 12, 1 << 10] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
        // What is not on the disk yet might find that there is room after all.
        filler.sync_all().unwrap();
        let probe = self.0.path("disk/probe");
        assert!(fs::write(&probe, [1; 1024]).is_err(), "the disk is not full");
        fs::remove_file(probe).unwrap();
    }

    fn remount(&self, how: &str) {
        must_at_last(
            "mount",
            &["-o", &format!("remount,{how}"), self.0.path("disk").to_str().unwrap()],
        );
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        must_at_last("umount", &[self.0.path("disk").to_str().unwrap()]);
        wait_for_no_loop_device(&self.0.path("disk.img"));
    }
}

/// Makes two copies in each target, which differ.
fn two_copies(machine: &Machine) {
    machine.run(&["run"]).expect(0);
    machine.write("src/new", "new\n", 0o644);
    machine.run(&["run"]).expect(0);
}

/// Restores the last copy from each target and compares it with the source. Answers with what was said.
#[track_caller]
fn restores(machine: &Machine) -> Vec<Ran> {
    let mut told = Vec::new();
    for target in ["b", "r"] {
        let to = machine.path(&format!("out-{target}"));
        let args = ["restore", "host", "--target", target, "--to", to.to_str().unwrap()];
        told.push(machine.run(&args).expect(0));
        let source = machine.path("src");
        assert_same_tree(&source, &to.join(source.strip_prefix("/").unwrap()));
        fs::remove_dir_all(to).unwrap();
    }
    told
}

/// Everything else that only looks or reads. Answers with what was said.
#[track_caller]
fn looks(machine: &Machine) -> Vec<Ran> {
    let to = machine.path("never");
    let told = [
        machine.run(&["list"]).expect(0).says("host"),
        machine.run(&["find", "hello.txt"]).expect(0).says("src/hello.txt"),
        machine.run(&["diff", "host"]).expect(0).says("src/new"),
        machine.run(&["verify", "host"]).expect(0).says("no damage"),
        machine.run(&["verify", "host", "--dry-run"]).expect(0).says("would read"),
        machine.run(&["check", "--target", "r"]).expect(0).says("no damage"),
        machine.run(&["check", "--dry-run"]).expect(0),
        machine
            .run(&["restore", "host", "--dry-run", "--to", to.to_str().unwrap()])
            .expect(0)
            .says("would restore"),
        mounts(machine),
    ];
    assert!(!to.exists());
    told.into()
}

/// Browses the last copy.
#[track_caller]
fn mounts(machine: &Machine) -> Ran {
    let at = machine.path("browse");
    fs::create_dir(&at).unwrap();
    let mut mounting = machine.start(&["mount", "host", "--target", "r", at.to_str().unwrap()]);
    let is_there = || fs::read_dir(&at).is_ok_and(|mut entries| entries.next().is_some());
    let there = wait_until(&mut mounting, is_there);
    if there {
        must_at_last("umount", &[at.to_str().unwrap()]);
    }
    let ran = Ran::from(mounting.wait_with_output().unwrap());
    assert!(there, "{}", ran.stderr);
    fs::remove_dir(at).unwrap();
    ran.expect(0)
}

/// What was said has exactly one warning, with these words.
#[track_caller]
fn one_warning(ran: &Ran, words: &[&str]) {
    let warnings: Vec<&str> =
        ran.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{}", ran.stderr);
    for word in words {
        assert!(warnings[0].contains(word), "{word:?} is missing in {}", warnings[0]);
    }
}

#[track_caller]
fn no_ledger_is_left(machine: &Machine) {
    for directory in ["run/ledger", "run/tmp", "disk/state/ledger", "disk/cache/tmp"] {
        let left: Vec<_> = fs::read_dir(machine.path(directory))
            .map_or(Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect());
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn copies_are_read_back_where_the_state_directory_is_full() {
    let machine = Machine::bare(HOST);
    let disk = SmallDisk::new(&machine, &["state"]);
    machine.run(&["init", "b", "r"]).expect(0);
    two_copies(&machine);
    disk.fill();
    for ran in restores(&machine) {
        one_warning(&ran, &["disk/state/ledger", "No space left", "free some space", "run/ledger"]);
    }
    looks(&machine);
    // History is read even so: what the targets do not know is known.
    let list = machine.run(&["--json", "list", "--target", "r"]).expect(0);
    assert!(!list.stderr.contains("warning"), "{}", list.stderr);
    assert_eq!(list.json()["copies"][0]["healthy"], true);
    machine.run(&["status"]).expect(0);
    machine.run(&["check", "--target", "r"]).expect(0).says("is not recorded");
    // borg's check reserves a number in its own files first. It is not the repository that lacks space.
    machine.run(&["check", "--target", "b"]).expect(10).says("below state-dir");
    // A run holds more than it may lose: it does not begin.
    let refused = machine.run(&["run"]).expect(4);
    assert!(refused.stderr.contains(machine.path("disk/state/").to_str().unwrap()));
    refused.says("is full (then free some space)");
    no_ledger_is_left(&machine);

    fs::remove_file(machine.path("disk/filler")).unwrap();
    machine.run(&["run"]).expect(0);
    for ran in restores(&machine) {
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    }
    no_ledger_is_left(&machine);
}

#[test]
fn copies_are_read_back_where_nothing_can_be_written_to_state_and_cache() {
    let machine = Machine::bare(HOST);
    let disk = SmallDisk::new(&machine, &["state", "cache"]);
    machine.run(&["init", "b", "r"]).expect(0);
    two_copies(&machine);
    disk.remount("ro");
    for ran in restores(&machine) {
        one_warning(&ran, &["Read-only file system", "writable", "run/ledger"]);
    }
    looks(&machine);
    machine.run(&["run"]).expect(4).says("Read-only file system");
    disk.remount("rw");
    disk.fill();
    for ran in restores(&machine) {
        one_warning(&ran, &["No space left", "run/ledger"]);
    }
    looks(&machine);
    no_ledger_is_left(&machine);
}

#[test]
fn copies_are_read_back_where_history_is_damaged() {
    let machine = Machine::new(HOST);
    two_copies(&machine);
    let history = machine.path("state/history.sqlite");
    let sound = fs::read(&history).unwrap();
    let remedy = ["history.sqlite", "move it away", "nothing is recorded"];

    machine.write("state/history.sqlite", "no database", 0o600);
    for ran in restores(&machine).iter().chain(&looks(&machine)) {
        one_warning(ran, &remedy);
    }
    assert_eq!(fs::read(&history).unwrap(), b"no database", "evidence is not touched");
    // What would not be true without history is not said, and what rests on it is not done.
    for args in [&["status"][..], &["run"], &["pin", "host", "latest"], &["prune", "--dry-run"]] {
        machine.run(args).expect(4).says("move it away");
    }

    // Only its tables are damaged, which does not show when it is opened.
    fs::write(&history, &sound).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&history).unwrap();
    for page in 1..sound.len() as u64 / 4096 {
        file.write_all_at(&[0xAA; 4096], page * 4096).unwrap();
    }
    for ran in restores(&machine).iter().chain(&looks(&machine)) {
        one_warning(ran, &remedy);
    }

    // As the remedy says.
    fs::remove_file(&history).unwrap();
    machine.run(&["run"]).expect(0);
    assert!(restores(&machine).iter().all(|ran| !ran.stderr.contains("warning")));
    machine.assert_clean();
}

#[test]
fn what_a_killed_restore_held_by_a_volatile_ledger_is_released() {
    let machine = Machine::bare(HOST);
    let disk = SmallDisk::new(&machine, &["state"]);
    machine.run(&["init", "b", "r"]).expect(0);
    two_copies(&machine);
    disk.remount("ro");
    // An engine that does not come to its end.
    let slow = machine.script(
        "slow-restic",
        "for word; do test \"$word\" = restore && exec sleep 600; done; exec restic \"$@\"",
    );
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let text =
        text.replace("[targets.r.restic]", &format!("[targets.r.restic]\nprogram = \"{slow}\""));
    fs::write(machine.path("stillpoint.toml"), text).unwrap();
    let to = machine.path("out");
    let mut restoring = machine
        .command(&["restore", "host", "--target", "r", "--to", to.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let held = |below: &str| {
        let entries = fs::read_dir(machine.path(below)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| is_named_by_a_run(path)).count()
    };
    assert!(wait_until(&mut restoring, || held("run/ledger") == 1 && held("run/tmp") == 1));
    let mode = fs::metadata(machine.path("run/ledger")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    restoring.kill().unwrap();
    restoring.wait().unwrap();
    machine.run(&["recover"]).expect(0).says("released what run");
    wait_for_no_process_about(&to.to_string_lossy());
    no_ledger_is_left(&machine);
}

fn is_named_by_a_run(path: &Path) -> bool {
    path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))
}
