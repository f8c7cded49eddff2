//! Subvolumes whose streams are stored: as encrypted files of another file system, or behind commands.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use stillpoint::model::hash::hex;

use crate::bench_machine::{
    Machine, assert_same_tree, command, family_of, fill, kill_one_of, moments, must, names_in,
    processes_about, torture,
};
use crate::btrfs::{Disk, inside};
use crate::subvolumes::{closed_directory, configure, made};

/// A job on the subvolume `disk/home`, whose copies go to the target `t`.
pub struct Scene {
    // In this order: what is mounted below the machine's directory goes before that.
    pub disk: Disk,
    pub machine: Machine,
}

pub const FILES: &str = "directory = \"{root}/out\"";

/// Programs that do no more than what they are asked for.
pub const COMMANDS: &str = "put-command = [\"dd\", \"of={root}/out/{name}\", \"status=none\"]\n\
                        get-command = [\"cat\", \"{root}/out/{name}\"]\n\
                        list-command = [\"ls\", \"-A\", \"{root}/out\"]\n\
                        delete-command = [\"rm\", \"{root}/out/{name}\"]";

pub const ENCRYPTED: &str = "recipients-file = \"{root}/recipients\"";
pub const OPENED: &str = "identity-file = \"{root}/key\"";
pub const SCRATCH: &str = "scratch = \"{root}/disk/scratch\"";

pub fn scene(target: &[&str]) -> Scene {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 600);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("home")]);
    closed_directory(machine.path("out"));
    closed_directory(disk.at.join("scratch"));
    let key = machine.path("key");
    must("age-keygen", &["-o", key.to_str().unwrap()]);
    let public = must("age-keygen", &["-y", key.to_str().unwrap()]);
    machine.write("recipients", &format!("# the vault\n{public}"), 0o644);
    let scene = Scene { disk, machine };
    scene.configure(target, "");
    scene.machine.run(&["init", "t"]).expect(0);
    scene
}

impl Scene {
    pub fn configure(&self, target: &[&str], keep: &str) {
        let text = format!(
            "[targets.t.streams]\n{}\n{keep}\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{{root}}/disk/home\"]\n",
            target.join("\n")
        );
        configure(&self.machine, &text);
    }

    pub fn home(&self) -> PathBuf {
        self.disk.at.join("home")
    }

    /// Runs the job, which must go well, and answers with the new copy's id and what was stored for it, in bytes.
    #[track_caller]
    pub fn run(&self) -> (String, u64) {
        made(&self.machine.run(&["--json", "run"]).expect(0))
    }

    /// The subvolume as it is now, kept aside.
    pub fn aside(&self, name: &str) -> PathBuf {
        let aside = self.disk.path(name);
        must("btrfs", &["-q", "subvolume", "snapshot", "-r", &self.disk.path("home"), &aside]);
        aside.into()
    }

    pub fn objects(&self) -> Vec<String> {
        names_in(&self.machine.path("out"))
    }

    /// The object of a copy.
    fn object(&self, id: &str) -> PathBuf {
        let name = self.objects().into_iter().find(|name| name.starts_with(&format!("{id}.btrfs")));
        self.machine.path("out").join(name.unwrap())
    }

    /// Replaces what is stored of a copy, uncompressed, by what is just as well what its record says.
    fn forge(&self, id: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let object = self.object(id);
        let mut bytes = fs::read(&object).unwrap();
        change(&mut bytes);
        fs::write(&object, &bytes).unwrap();
        let at = self.machine.path(&format!("out/{id}.json"));
        let mut record: Value = serde_json::from_slice(&fs::read(&at).unwrap()).unwrap();
        let sha256 = hex(&Sha256::digest(&bytes));
        for what in ["stream", "stored"] {
            let is = record[what].as_object_mut().unwrap();
            assert_eq!(is["bytes"], bytes.len());
            is["sha256"] = sha256.clone().into();
        }
        fs::write(&at, record.to_string()).unwrap();
    }

    /// Everything that belongs to no copy that is listed. What is recorded of parts while they are stored belongs to none.
    pub fn strays(&self) -> Vec<String> {
        self.strays_in(&self.machine.path("out"))
    }

    /// The same where another directory is the target.
    pub fn strays_in(&self, directory: &Path) -> Vec<String> {
        let listed = self.machine.copies("t");
        let is_stray = |name: &String| {
            name.ends_with(".begun")
                || name != "target.json" && !listed.iter().any(|id| name.starts_with(id.as_str()))
        };
        names_in(directory).into_iter().filter(is_stray).collect()
    }

    /// Restores a copy, which must be as the tree kept aside.
    #[track_caller]
    pub fn assert_restored(&self, id: &str, to: &Path, expected: &Path) {
        fs::create_dir(to).unwrap();
        self.machine.run(&["restore", "home", id, "--to", to.to_str().unwrap()]).expect(0);
        assert_same_tree(&inside(to, self.home()), expected);
    }

    /// Nothing that was received to be read is left.
    #[track_caller]
    pub fn assert_nothing_unpacked(&self) {
        let left = self.disk.subvolumes();
        let left: Vec<_> = left.iter().filter(|name| name.contains("home@web1")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(fs::read_dir(self.disk.path("scratch")).unwrap().count(), 0);
    }

    pub fn fill(&self, name: &str, megabytes: u64) {
        fill(self.home().join(name), megabytes);
    }
}

#[test]
fn an_encrypted_copy_comes_back_with_us_and_without_us() {
    let scene = scene(&[FILES, ENCRYPTED]);
    torture(&scene.home());
    scene.fill("big", 5);
    let (first, stored) = scene.run();
    assert!(stored > 5 << 20, "{stored}");
    let was = scene.aside("was");
    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    fs::remove_file(scene.home().join("big")).unwrap();
    let (second, stored) = scene.run();
    assert!(stored < 100_000, "a difference was stored as {stored} bytes");
    let (third, _) = scene.run();
    let is = scene.aside("is");
    assert_eq!(scene.strays(), [] as [String; 0]);

    // This machine has no key: it says what it cannot know.
    let said = scene.machine.run(&["verify", "home"]).expect(12);
    said.says("unverifiable beyond the stored hash");
    scene
        .machine
        .run(&["check", "--target", "t", "--read-data", "100%"])
        .expect(12)
        .says("unverifiable beyond");
    let to = scene.machine.path("none").to_string_lossy().into_owned();
    scene.machine.run(&["restore", "home", "--to", &to]).expect(4).says("scratch");
    scene.configure(&[FILES, ENCRYPTED, SCRATCH], "");
    scene.machine.run(&["restore", "home", "--to", &to]).says("identity-file");
    scene.assert_nothing_unpacked();

    scene.configure(&[FILES, ENCRYPTED, OPENED, SCRATCH], "");
    scene.machine.run(&["verify", "home"]).expect(0).says("and of the 2 before it");
    scene.assert_restored(&first, &scene.machine.path("back1"), &was);
    scene.assert_restored(&third, &scene.machine.path("back3"), &is);
    let plain = scene.disk.path("home/plain");
    let printed = scene.machine.run(&["restore", "home", &second, &plain, "--stdout"]).expect(0);
    assert_eq!(printed.stdout, "changed\n");
    fs::write(&plain, "lost").unwrap();
    scene.machine.run(&["restore", "home", &plain, "--in-place", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(&plain).unwrap(), "changed\n");
    scene.assert_nothing_unpacked();
    // Beside what is restored, where that is on a btrfs.
    scene.configure(&[FILES, ENCRYPTED, OPENED], "");
    scene.assert_restored(&third, &scene.disk.at.join("scratch/back"), &is);
    fs::remove_dir_all(scene.disk.at.join("scratch/back")).unwrap();
    scene.assert_nothing_unpacked();

    // Where it does not fit, the place is named.
    let small = Disk::new(&scene.machine, "btrfs", "small", 110);
    let filler = format!("of={}", small.path("filler"));
    command("dd").args(["if=/dev/urandom", &filler, "bs=1M", "status=none"]).output().unwrap();
    scene.configure(&[FILES, ENCRYPTED, OPENED, "scratch = \"{root}/small\""], "");
    let to = scene.machine.path("nowhere").to_string_lossy().into_owned();
    scene.machine.run(&["restore", "home", &first, "--to", &to]).says("there is no room at");
    assert_eq!(small.subvolumes(), [] as [String; 0]);

    // With standard tools alone, on a disk that knows nothing of the other one.
    let other = Disk::new(&scene.machine, "btrfs", "other", 300);
    for id in [&first, &second, &third] {
        let pipe = format!(
            "set -e -o pipefail; age -d -i '{}' '{}' | zstd -d | btrfs -q receive '{}'",
            scene.machine.path("key").display(),
            scene.object(id).display(),
            other.at.display()
        );
        must("bash", &["-c", &pipe]);
    }
    assert_same_tree(&other.at.join(&first), &was);
    assert_same_tree(&other.at.join(&third), &is);
    // The same on the disk of the source itself, where others claim to be what it is based on.
    scene.machine.run(&["find", "plain"]).expect(0).says("plain");
    let at = scene.machine.path("mounted");
    fs::create_dir(&at).unwrap();
    let own = ["--scratch", at.to_str().unwrap()];
    let said = scene.machine.run(&[&["mount", "home", at.to_str().unwrap()], &own[..]].concat());
    said.expect(4).says("has to be received by a btrfs").says("--as-subvolume");
    scene.machine.run(&["status"]).expect(0);
}

#[test]
fn what_was_changed_or_cut_off_is_found() {
    let scene = scene(&[FILES, ENCRYPTED, OPENED, SCRATCH]);
    scene.fill("big", 3);
    let (first, _) = scene.run();
    fs::write(scene.home().join("x"), "x").unwrap();
    let (second, _) = scene.run();
    let object = scene.object(&first);
    let whole = fs::read(&object).unwrap();
    let mut changed = whole.clone();
    changed[1 << 20] ^= 1;
    fs::write(&object, &changed).unwrap();
    scene.machine.run(&["check", "--target", "t"]).expect(0);
    scene.machine.run(&["verify", "home", &second]).expect(14).says(&first);
    scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(14).says(&first);
    let to = scene.machine.path("to");
    let refused = scene.machine.run(&["restore", "home", "--to", to.to_str().unwrap()]);
    assert_ne!(refused.code, Some(0), "what was changed was restored");
    scene.assert_nothing_unpacked();
    // Without the key it is found as well.
    scene.configure(&[FILES, ENCRYPTED], "");
    scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(14).says(&first);
    scene.configure(&[FILES, ENCRYPTED, OPENED, SCRATCH], "");

    // What is cut off is no copy, nor is what is based on it; the next one stands alone.
    fs::write(&object, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(scene.machine.copies("t"), [] as [String; 0]);
    scene.machine.run(&["check", "--target", "t"]).expect(14).says(&first);
    let ran = scene.machine.run(&["--json", "run"]);
    let target = &ran.json()["jobs"][0]["targets"][0];
    assert!(target["bytes_new"].as_u64().unwrap() > 3 << 20, "{target}");
    let third = target["copy"].as_str().unwrap();
    assert_eq!(scene.machine.copies("t"), [third]);
    scene.machine.run(&["verify", "home"]).expect(0);
}

#[test]
fn damage_in_what_names_the_keys_is_no_missing_key_and_the_next_copy_stands_alone() {
    let scene = scene(&[FILES, ENCRYPTED, OPENED, SCRATCH]);
    scene.fill("big", 3);
    let (first, _) = scene.run();
    fs::write(scene.home().join("x"), "x").unwrap();
    let (second, stored) = scene.run();
    assert!(stored < 100_000, "a difference was stored as {stored} bytes");
    let object = scene.object(&first);
    let mut changed = fs::read(&object).unwrap();
    changed[50] ^= 1;
    fs::write(&object, &changed).unwrap();
    let said = scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(14);
    said.says(&first).says("all data of 2");
    let to = scene.machine.path("to");
    scene.machine.run(&["restore", "home", &second, "--to", to.to_str().unwrap()]).expect(14);
    scene.assert_nothing_unpacked();
    let ran = scene.machine.run(&["--json", "run"]);
    let target = &ran.json()["jobs"][0]["targets"][0];
    assert!(target["bytes_new"].as_u64().unwrap() > 3 << 20, "{target}");
    scene.machine.run(&["verify", "home"]).expect(0).says("all data of the copy");

    // Another key is a key that is missing, and what is stored is read all the same.
    let other = scene.machine.path("other");
    must("age-keygen", &["-o", other.to_str().unwrap()]);
    scene.configure(&[FILES, ENCRYPTED, "identity-file = \"{root}/other\"", SCRATCH], "");
    let read = ["check", "--target", "t", "--read-data", "100%"];
    scene.machine.run(&read).expect(14).says(&first).says("the stored bytes of 2");
    changed[50] ^= 1;
    fs::write(&object, &changed).unwrap();
    scene.machine.run(&read).expect(12).says("no key in the identity-file opens it");
    scene.configure(&[FILES, ENCRYPTED, OPENED, SCRATCH], "");
    scene.machine.run(&read).expect(0);
    assert!(!scene.objects().iter().any(|name| name.ends_with(".damaged")));
}

#[test]
fn whatever_is_killed_the_next_run_is_whole_and_nothing_is_left() {
    let scene = scene(&[FILES, ENCRYPTED, OPENED, SCRATCH]);
    // At this pace each of them is there for a second, also on a fast machine.
    scene.configure(&[FILES, ENCRYPTED, OPENED, SCRATCH, "upload-limit = 15000"], "");
    scene.fill("big", 30);
    let root = scene.machine.path("").to_string_lossy().into_owned();
    let victims =
        ["btrfs send", "pass-stream", "zstd", "age --encrypt", "pass-object", "stillpoint -c"];
    let mut hit = 0;
    for (round, victim) in victims.iter().enumerate() {
        scene.fill(&format!("new-{round}"), 15);
        hit += usize::from(kill_one_of(&scene.machine, &["run"], 2, |id| {
            family_of(id).into_iter().find(|line| line.contains(victim))
        }));
        scene.run();
        assert_eq!(scene.strays(), [] as [String; 0], "after {victim}");
    }
    assert!(hit >= 4, "only {hit} were killed in time");
    scene.machine.run(&["verify", "home"]).expect(0);

    // A restore that is killed while it receives leaves what recover removes.
    let to = scene.machine.path("to");
    kill_one_of(&scene.machine, &["restore", "home", "--to", to.to_str().unwrap()], 0, |_| {
        let all = processes_about(&root);
        let receives = all.iter().any(|line| line.contains("btrfs receive"));
        all.into_iter().find(|line| receives && line.contains(" restore home"))
    });
    scene.machine.run(&["recover"]).expect(0);
    scene.assert_nothing_unpacked();
    scene.machine.assert_clean_except(&scene.machine.path(""));
}

#[test]
fn a_copy_becomes_a_subvolume_in_the_place_of_the_old_one() {
    let scene = scene(&[FILES, ENCRYPTED, OPENED]);
    torture(&scene.home());
    scene.run();
    fs::write(scene.home().join("plain"), "second\n").unwrap();
    let (second, _) = scene.run();
    let to = scene.disk.path("it's new");
    let text = [&*second, "--as-subvolume", "--to", &to];
    let verb = [&["restore", "home"], &text[..]].concat();
    scene.machine.run(&[&verb[..], &["--dry-run"]].concat()).expect(0).says("btrfs receive");
    assert!(!Path::new(&to).exists());
    scene.machine.run(&verb).expect(0);
    assert_same_tree(&scene.home(), Path::new(&to));
    fs::write(Path::new(&to).join("written"), "x").unwrap();
    fs::write(scene.home().join("plain"), "lost\n").unwrap();
    let args = ["restore", "home", "--as-subvolume", "--in-place", "--yes"];
    scene.machine.run(&args).expect(0).says(".before-restore.");
    assert_eq!(fs::read_to_string(scene.home().join("plain")).unwrap(), "second\n");
    let all = scene.disk.subvolumes();
    let left: Vec<_> = all.iter().filter(|name| name.contains(".stillpoint-restore-")).collect();
    assert!(left.is_empty(), "{left:?}");
    // What it is a difference to lay there for a while alone.
    assert_eq!(all.iter().filter(|name| name.contains("before-restore")).count(), 1, "{all:?}");
    assert_eq!(scene.disk.snapshots().len() + 3, all.len(), "{all:?}");
    scene.run();
    scene.machine.assert_clean_except(&scene.machine.path(""));
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left_on_it() {
    let scene = scene(&[FILES]);
    let small = Disk::new(&scene.machine, "ext4", "small", 30);
    closed_directory(small.at.join("t"));
    scene.configure(&["directory = \"{root}/small/t\"", "compression = \"none\""], "");
    scene.machine.run(&["init", "t"]).expect(0);
    fs::write(scene.home().join("x"), "x").unwrap();
    let (first, _) = scene.run();
    scene.fill("big", 35);
    scene.machine.run(&["run"]).expect(10).says("no space is left");
    let left: Vec<_> = fs::read_dir(small.at.join("t")).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    fs::remove_file(scene.home().join("big")).unwrap();
    let (second, _) = scene.run();
    assert_eq!(scene.machine.copies("t"), [first, second]);
}

#[test]
fn commands_store_and_read_and_delete() {
    let scene = scene(&[COMMANDS, SCRATCH]);
    torture(&scene.home());
    scene.run();
    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    let (second, _) = scene.run();
    scene.machine.run(&["plan"]).expect(0).says("stillpoint pass-object\n      | dd of=");
    let is = scene.aside("is");
    scene.machine.run(&["verify", "home"]).expect(0);
    scene.machine.run(&["find", "plain"]).expect(0).says("plain");
    scene.machine.run(&["diff", "home"]).expect(0).says("home/plain");
    scene.assert_restored(&second, &scene.machine.path("back"), &is);
    scene.assert_nothing_unpacked();
    scene.machine.run(&["pin", "home", &second]).expect(0);
    let listed = scene.machine.run(&["--json", "list"]).expect(0).json();
    assert_eq!(listed["copies"][1]["pinned"], true, "{listed}");
    scene.machine.run(&["unpin", "home", &second]).expect(0);

    // What a kept one is a difference to stays, and all goes with it.
    let keep = "[targets.t.keep]\nlast = 1";
    scene.configure(&[COMMANDS, SCRATCH], keep);
    scene.run();
    assert_eq!(scene.machine.copies("t").len(), 3);
    scene.machine.run(&["prune", "--dry-run"]).expect(0);
    scene.configure(&[COMMANDS, SCRATCH, "full-every = \"1s\""], keep);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (last, _) = scene.run();
    assert_eq!(scene.machine.copies("t"), [last.as_str()]);
    assert_eq!(scene.objects().len(), 3, "{:?}", scene.objects());

    // A command that fails halfway leaves no copy.
    let breaks = scene.machine.script("breaks", "head -c 1000 > \"$1\"; exit 1");
    let broken = COMMANDS.replace("\"dd\", \"of={root}", &format!("\"{breaks}\", \"{{root}}"));
    let broken = broken.replace(", \"status=none\"", "");
    scene.configure(&[&broken, SCRATCH], keep);
    scene.machine.run(&["run"]).expect(10);
    assert_eq!(scene.machine.copies("t"), [last.as_str()]);
    assert_eq!(scene.strays(), [] as [String; 0]);
    // Who deletes what another one needs is told.
    scene.configure(&[COMMANDS, SCRATCH], "");
    scene.run();
    let said = scene.machine.run(&["prune", "--target", "t", &last]).expect(12);
    said.says("is needed by");
    // Nor does a place that is another one now.
    fs::remove_file(scene.machine.path("out/target.json")).unwrap();
    scene.configure(&[COMMANDS, SCRATCH], keep);
    scene.machine.run(&["run"]).says("there is no repository");
}

#[test]
fn a_command_that_does_not_take_what_is_stored_is_named_with_what_it_must_do() {
    let scene = scene(&[COMMANDS]);
    fill(scene.home().join("big"), 8);
    // Only streams: what else is stored there is small.
    let early = [
        "case $1 in *.btrfs*) head -c 1000000 > \"$1\"; exit 0;; esac; cat > \"$1\"",
        "case $1 in *.btrfs*) exit 0;; esac; cat > \"$1\"",
    ];
    let stuck = ["case $1 in *.btrfs*) kill -STOP $$;; esac; cat > \"$1\""];
    let named = [
        ("early", &early[..], "ended before it had read everything"),
        ("stuck", &stuck[..], "took nothing of what it was given for 2s"),
    ];
    for (name, bodies, said) in named {
        for (body, part_size) in bodies.iter().flat_map(|it| [(it, "0"), (it, "1")]) {
            let put = scene.machine.script(name, body);
            let commands =
                COMMANDS.replace("\"dd\", \"of={root}", &format!("\"{put}\", \"{{root}}"));
            let commands = commands.replace(", \"status=none\"", "");
            let parts = format!("part-size = {part_size}");
            scene.configure(&[&commands, &parts, "stall-timeout = \"2s\""], "");
            let ran = scene.machine.run(&["run"]).expect(10);
            let ran = ran.says(&format!("/{name} ")).says(said);
            ran.says("it must read its standard input to the end");
            assert_eq!(scene.machine.copies("t"), [] as [String; 0], "{body}");
        }
    }
}

/// What is at a path of a tree, as far as a listing tells it, and all else that a comparison may tell.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: char,
    size: Option<u64>,
    modified: (i64, i64),
    content: Vec<u8>,
    rest: String,
}

/// All that lies in a tree, its root included.
fn seen(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let at = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let found = fs::symlink_metadata(&at).unwrap();
        let file_type = found.file_type();
        let (kind, content) = match () {
            () if file_type.is_dir() => ('d', Vec::new()),
            () if file_type.is_symlink() => {
                ('l', fs::read_link(&at).unwrap().into_os_string().into_vec())
            }
            () if file_type.is_file() => ('-', Sha256::digest(fs::read(&at).unwrap()).to_vec()),
            () if file_type.is_fifo() => ('p', Vec::new()),
            () if file_type.is_socket() => ('s', Vec::new()),
            () => ('c', found.rdev().to_le_bytes().to_vec()),
        };
        if kind == 'd' {
            let names = fs::read_dir(&at).unwrap();
            open.extend(names.map(|entry| path.join(entry.unwrap().file_name())));
        }
        let attributes = match kind {
            'l' => String::new(),
            _ => {
                let getfattr = ["--absolute-names", "-d", "--"];
                let said = command("getfattr").args(getfattr).arg(&at).output().unwrap().stdout;
                let said = String::from_utf8_lossy(&said).into_owned();
                said.lines().filter(|line| line.starts_with("user.")).collect()
            }
        };
        let mode = if kind == 'l' { 0 } else { found.mode() };
        let rest = format!("{mode:o} {}:{} {attributes}", found.uid(), found.gid());
        let size = (kind == '-').then_some(found.len());
        let modified = (found.mtime(), found.mtime_nsec());
        seen.insert(path, Seen { kind, size, modified, content, rest });
    }
    seen
}

/// What `diff` should tell of two trees.
fn expected_changes(
    before: &BTreeMap<PathBuf, Seen>,
    after: &BTreeMap<PathBuf, Seen>,
) -> BTreeMap<PathBuf, &'static str> {
    let all: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let (mut told, mut times) = (BTreeMap::new(), Vec::new());
    for path in all {
        let how = match (before.get(path), after.get(path)) {
            (None, _) => "added",
            (_, None) => "removed",
            (Some(was), Some(is)) if (was.kind, &was.content) != (is.kind, &is.content) => {
                "modified"
            }
            (Some(was), Some(is)) if was.rest != is.rest => "metadata",
            (Some(was), Some(is)) if was.modified != is.modified => {
                if is.kind == 'd' {
                    times.push(path);
                    continue;
                }
                "metadata"
            }
            (Some(_), Some(_)) => continue,
        };
        told.insert(path.clone(), how);
    }
    let parents: BTreeSet<&Path> = told.keys().filter_map(|path| path.parent()).collect();
    let alone = times.into_iter().filter(|path| !parents.contains(path.as_path()));
    let alone: Vec<PathBuf> = alone.cloned().collect();
    told.extend(alone.into_iter().map(|path| (path, "metadata")));
    told
}

/// The path in a document of ours.
fn path_in(entry: &Value) -> PathBuf {
    let Some(hex) = entry["path_bytes"].as_str() else {
        return entry["path"].as_str().unwrap().into();
    };
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    OsString::from_vec((0..hex.len()).step_by(2).map(digits).collect()).into()
}

impl Scene {
    /// What `find` lists of a copy.
    fn listed(&self, versions: &Value, copy: &str) -> BTreeMap<PathBuf, (char, Option<u64>, i64)> {
        let of_it = versions.as_array().unwrap().iter().filter(|it| it["copy"] == copy);
        of_it
            .map(|it| {
                let time: DateTime<Utc> = it["modified"].as_str().unwrap().parse().unwrap();
                let kind = it["kind"].as_str().unwrap().chars().next().unwrap();
                let path = path_in(it).strip_prefix(self.home()).unwrap().to_owned();
                (path, (kind, it["size"].as_u64(), time.timestamp_nanos_opt().unwrap()))
            })
            .collect()
    }

    /// What `diff` tells of two copies.
    fn changes(&self, older: &str, newer: &str) -> BTreeMap<PathBuf, String> {
        let told = self.machine.run(&["--json", "diff", "home", older, newer]).expect(0).json();
        let changes = told["changes"].as_array().unwrap();
        let change = |it: &Value| {
            let path = path_in(it).strip_prefix(self.home()).unwrap().to_owned();
            (path, it["kind"].as_str().unwrap().to_owned())
        };
        changes.iter().map(change).collect()
    }
}

/// Changes of every kind, to what [`torture`] made.
fn upset(home: &Path) {
    let at = |name: &str| home.join(name).to_string_lossy().into_owned();
    fs::create_dir_all(home.join("tree/one/two")).unwrap();
    for name in ["tree/a", "tree/one/b", "tree/one/two/c", "swap-1", "swap-2", "goes"] {
        fs::write(home.join(name), name).unwrap();
    }
    // Names as those under which the kernel makes what is new, and moves what is in the way.
    for name in ["o257-7-0", "o999999-1-0", " ", "tree/..."] {
        fs::write(home.join(name), name).unwrap();
    }
    fill(home.join("big"), 2);
    must("cp", &["--reflink=always", &at("big"), &at("shared")]);
    fs::hard_link(home.join("big"), home.join("tree/big too")).unwrap();
    must("mknod", &[&at("null"), "c", "1", "3"]);
}

#[test]
fn what_copies_hold_and_how_they_differ_is_told_as_a_restore_shows_it() {
    let scene = scene(&[FILES, ENCRYPTED, OPENED]);
    let home = scene.home();
    torture(&home);
    upset(&home);
    let (first, _) = scene.run();

    let rename = |from: &str, to: &str| fs::rename(home.join(from), home.join(to)).unwrap();
    rename("tree/one", "moved");
    rename("moved/two", "tree/two");
    rename("swap-1", "tmp");
    rename("swap-2", "swap-1");
    rename("tmp", "swap-2");
    rename("o257-7-0", "tree/o257-7-0");
    fs::remove_file(home.join("big")).unwrap();
    fs::remove_file(home.join("goes")).unwrap();
    fs::create_dir(home.join("goes")).unwrap();
    fs::write(home.join("goes/in"), "new").unwrap();
    fs::hard_link(home.join("shared"), home.join("shared too")).unwrap();
    // Other content of the same length, with the time set back.
    let at = |name: &str| home.join(name).to_string_lossy().into_owned();
    must("cp", &["-p", &at("empty"), &at("reference")]);
    fs::write(home.join("setuid"), "y").unwrap();
    must("touch", &["-r", &at("reference"), &at("setuid")]);
    std::os::unix::fs::chown(home.join("setuid"), Some(7), Some(8)).unwrap();
    let mut hidden = fs::OpenOptions::new().write(true).open(home.join("plain")).unwrap();
    std::io::Write::write_all(&mut hidden, b"PLAIN").unwrap();
    drop(hidden);
    must("touch", &["-d", "2001-02-03T04:05:06.789Z", &at("plain")]);
    must("setfattr", &["-n", "user.note", "-v", "other", &at("empty")]);
    let (second, _) = scene.run();

    fs::remove_dir_all(home.join("tree")).unwrap();
    rename("moved", "tree");
    fs::File::options().write(true).open(home.join("sparse")).unwrap().set_len(5).unwrap();
    must("cp", &["--reflink=always", &at("shared"), &at("also")]);
    // It was there before what it shares with, which is therefore that of the copy before.
    must("cp", &["--reflink=always", &at("shared"), &at("-f")]);
    fs::remove_file(home.join("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", home.join("link")).unwrap();
    must("touch", &["-d", "2020-01-01", &at("deep/er")]);
    let (third, _) = scene.run();
    // The next one stands alone.
    scene.configure(&[FILES, ENCRYPTED, OPENED, "full-every = \"1s\""], "");
    std::thread::sleep(std::time::Duration::from_secs(1));
    fs::write(home.join("swap-1"), "longer than it was").unwrap();
    fs::set_permissions(home.join("swap-2"), fs::Permissions::from_mode(0o600)).unwrap();
    let (fourth, _) = scene.run();

    let versions = scene.machine.run(&["--json", "find", "*", "--all"]).expect(0).json();
    let all = [&first, &second, &third, &fourth];
    let restored = all.map(|id| {
        let to = scene.disk.path(&format!("back-{}", &id[id.len() - 8..]));
        scene.machine.run(&["restore", "home", id, "--as-subvolume", "--to", &to]).expect(0);
        seen(Path::new(&to))
    });
    for (id, restored) in all.iter().zip(&restored) {
        let as_listed = |(path, it): (&PathBuf, &Seen)| {
            let time = it.modified.0 * 1_000_000_000 + it.modified.1;
            (path.clone(), (it.kind, it.size, time))
        };
        let expected: BTreeMap<_, _> = restored.iter().map(as_listed).collect();
        let listed = scene.listed(&versions["versions"], id);
        let differing: Vec<_> = expected
            .keys()
            .chain(listed.keys())
            .filter(|path| expected.get(*path) != listed.get(*path))
            .map(|path| (path, expected.get(path), listed.get(path)))
            .collect();
        assert!(differing.is_empty(), "{id}: {differing:#?}");
    }
    for (older, newer) in [(0, 1), (1, 2), (0, 2), (2, 0), (2, 3)] {
        let expected = expected_changes(&restored[older], &restored[newer]);
        let expected: BTreeMap<PathBuf, String> =
            expected.into_iter().map(|(path, how)| (path, how.to_owned())).collect();
        assert!(expected.len() > 1, "{expected:#?}");
        let told = scene.changes(all[older], all[newer]);
        assert_eq!(told, expected, "from the copy {older} to {newer}");
    }
    // With the machine itself as well, and nothing of all that was received.
    scene.machine.run(&["diff", "home", &fourth, "live"]).expect(0).says("0 changes");
    scene.assert_nothing_unpacked();

    // Whoever can only write is told why.
    scene.configure(&[FILES, ENCRYPTED], "");
    scene.machine.run(&["find", "plain"]).says("identity-file");
    scene.machine.run(&["diff", "home", &first, &second]).says("identity-file");
    // What was changed is damage, and nothing is told of it.
    scene.configure(&[FILES, ENCRYPTED, OPENED], "");
    let object = scene.object(&third);
    let mut changed = fs::read(&object).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&object, &changed).unwrap();
    scene.machine.run(&["diff", "home", &first, &third]).expect(14).says(&third);
    let found = scene.machine.run(&["--json", "find", "swap-1", "--all"]);
    let copies = found.json()["versions"].as_array().unwrap().len();
    assert_eq!(copies, 3);
}

#[test]
fn a_power_cut_leaves_no_hollow_stream_and_the_next_copy_is_whole() {
    let scene = scene(&[FILES]);
    let machine = &scene.machine;
    let vault = Disk::new(machine, "ext4", "vault", 200);
    closed_directory(vault.at.join("t"));
    let files = "directory = \"{root}/vault/t\"";
    scene.configure(&[files, ENCRYPTED, OPENED], "");
    machine.run(&["init", "t"]).expect(0);
    torture(&scene.home());
    scene.fill("big", 3);
    // What was told to be stored is on the disk.
    let (first, _) = scene.run();
    let cut = vault.as_cut_off(machine);
    vault.becomes(machine, &cut);
    assert_eq!(machine.copies("t"), [first.as_str()]);
    machine.run(&["verify", "home", &first]).expect(0).says("all data of the copy");

    // At this pace there is something to cut off for a second and a half.
    scene.configure(&[files, ENCRYPTED, OPENED, "upload-limit = 4000"], "");
    let mut hit = 0;
    for (round, after) in moments(3, Duration::from_millis(1800)).into_iter().enumerate() {
        scene.fill(&format!("big-{round}"), 6);
        hit += usize::from(vault.cut_off_in_a_run(machine, after));
        let said = machine.run(&["check", "--target", "t", "--read-data", "100%"]);
        assert_eq!(said.code, Some(0), "one is hollow, after {after:?}: {}", said.stderr);
        // What the next one is a difference to is whole, or it would not be so itself.
        machine.run(&["run"]).expect(0);
        let last = machine.copies("t").pop().unwrap();
        let said = machine.run(&["verify", "home", &last]);
        assert_eq!(said.code, Some(0), "{last} is none, after {after:?}: {}", said.stderr);
        let strays = scene.strays_in(&vault.at.join("t"));
        assert!(strays.is_empty(), "after {after:?}: {strays:?}");
    }
    assert!(hit >= 2, "only {hit} were cut off in time");
    assert!(machine.copies("t").contains(&first));
    let last = machine.copies("t").pop().unwrap();
    let to = scene.disk.path("back");
    machine.run(&["restore", "home", &last, "--as-subvolume", "--to", &to]).expect(0);
    assert_same_tree(&scene.home(), Path::new(&to));
}

#[test]
fn what_is_as_it_was_stored_and_cannot_be_understood_is_told_with_its_cause() {
    let scene = scene(&[FILES, "compression = \"none\"", SCRATCH]);
    fs::write(scene.home().join("plain"), "plain").unwrap();
    let (id, _) = scene.run();
    // Of a version that no kernel writes so far: it stands behind the word that every stream begins with.
    scene.forge(&id, |stream| stream[13] = 9);
    let why = "send stream of version 9";
    let is_told = |words: &[&str], code: i32| {
        let ran = scene.machine.run(words).expect(code).says(why).says(&id);
        assert!(!ran.stderr.contains("unfit") && !ran.stdout.contains("unfit"), "{}", ran.stderr);
    };
    is_told(&["find", "*"], 10);
    // Whoever only looks says nothing against it.
    assert!(!scene.objects().iter().any(|name| name.ends_with(".damaged")));
    scene.machine.run(&["list"]).expect(0);
    is_told(&["check", "--target", "t", "--read-data", "100%"], 14);
    scene.machine.run(&["list"]).expect(0).says("damaged");
    let listed = scene.machine.run(&["--json", "list"]).expect(0).json();
    assert_eq!(listed["copies"][0]["damaged"], true);
}
