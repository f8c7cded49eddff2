//! Copies that lie elsewhere and are mounted: they are received here, shown, and gone when nobody looks any more.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Child;

use crate::bench_machine::{
    Machine, Ran, assert_same_tree, command, family_of, fill, kill_one_of, must, names_in, torture,
};
use crate::btrfs::Disk;
use crate::subvolumes::{made, uuid};
use crate::{plain, served, stored_streams};

/// A job on the subvolume `home` of a disk, whose copies lie elsewhere: the newest is a difference.
struct Elsewhere<'a> {
    machine: &'a Machine,
    disk: &'a Disk,
    /// The copy, and what it is of.
    newest: String,
    was: PathBuf,
    /// The directory at which copies are mounted.
    at: PathBuf,
    /// What there is on the disk without any of them.
    before: (Vec<String>, Vec<String>),
}

impl<'a> Elsewhere<'a> {
    fn new(machine: &'a Machine, disk: &'a Disk) -> Self {
        let home = disk.at.join("home");
        torture(&home);
        fill(home.join("big"), 20);
        let run = || made(&machine.run(&["--json", "run"]).expect(0));
        run();
        fs::write(home.join("plain"), "changed\n").unwrap();
        fs::remove_file(home.join("empty")).unwrap();
        let (newest, sent) = run();
        assert!(sent < 1 << 20, "all of it was sent: {sent}");
        let was = disk.at.join("was");
        let [from, to] = [&home, &was].map(|path| path.to_str().unwrap());
        must("btrfs", &["-q", "subvolume", "snapshot", "-r", from, to]);
        let at = machine.path("mounted");
        fs::create_dir(&at).unwrap();
        let mut it = Self { machine, disk, newest, was, at, before: Default::default() };
        it.before = it.there();
        it
    }

    /// All subvolumes that no run has kept, and what lies beside them, and in the scratch directory if there is one.
    fn there(&self) -> (Vec<String>, Vec<String>) {
        let mut subvolumes = self.disk.subvolumes();
        subvolumes.retain(|name| !name.starts_with(".stillpoint."));
        let mut names = names_in(&self.disk.at);
        names.extend(names_in(&self.disk.at.join("home")));
        let scratch = self.disk.at.join("scratch");
        names.extend(scratch.exists().then(|| names_in(&scratch)).into_iter().flatten());
        names.retain(|name| !name.starts_with(".stillpoint."));
        (subvolumes, names)
    }

    /// Mounts the newest copy and waits until that is said.
    fn mount(&self, more: &[&str]) -> Child {
        self.mount_of(&self.newest, "up to ", more)
    }

    /// The same when another one is the newest now.
    fn mount_newest(&self) -> Child {
        self.mount_of(&self.machine.copies("t").pop().unwrap(), "up to ", &[])
    }

    /// The same of the copy that is the newest, of which the target says that so much is fetched.
    fn mount_of(&self, newest: &str, how_much: &str, more: &[&str]) -> Child {
        let verb = ["mount", "home", self.at.to_str().unwrap()];
        let mut verb = self.machine.start(&[&verb, more].concat());
        let mut lines = BufReader::new(verb.stderr.as_mut().unwrap()).lines();
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains(" until `umount ")) {
            match lines.next() {
                Some(line) => said.push(line.unwrap()),
                None => panic!("{said:#?}"),
            }
        }
        let how_much = format!("{newest} is fetched from target t to be mounted ({how_much}");
        assert!(said[0].contains(&how_much), "{said:#?}");
        verb
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        self.machine.run(&["recover"]).expect(0).says("nothing to release");
        assert_eq!(self.there(), self.before);
        assert_eq!(fs::read_dir(&self.at).unwrap().count(), 0, "it is mounted still");
        self.machine.assert_clean_except(&self.machine.path(""));
    }

    fn is_mounted_as_it_was(&self) {
        let text = self.at.to_str().unwrap();
        let verb = self.mount(&[]);
        assert_same_tree(&self.was, &self.at);
        // Nobody takes it for a copy, or for what it is a copy of.
        assert_ne!(uuid(&self.at), uuid(&self.was));
        assert_ne!(self.there(), self.before, "the scene is another one");
        let written = command("touch").arg(self.at.join("x")).output().unwrap();
        assert!(!written.status.success(), "somebody wrote to it");
        // What goes on beside it has nothing to do with it.
        self.machine.run(&["recover"]).expect(0).says("nothing to release");
        let run = self.machine.run(&["--json", "run"]).expect(0);
        assert_eq!(run.json()["jobs"][0]["outcome"], "ok", "{}", run.stdout);
        assert_same_tree(&self.was, &self.at);
        must("umount", &[text]);
        Ran::from(verb.wait_with_output().unwrap()).expect(0);
        self.assert_nothing_is_left();
    }

    fn ends_with_a_signal_whoever_looks_at_it(&self) {
        let verb = self.mount_newest();
        let mut user = command("sleep").arg("300").current_dir(&self.at).spawn().unwrap();
        must("kill", &["-INT", &verb.id().to_string()]);
        Ran::from(verb.wait_with_output().unwrap()).expect(130);
        self.assert_nothing_is_left();
        user.kill().unwrap();
        user.wait().unwrap();
    }

    fn is_recovered_from_when_it_is_killed(&self) {
        let mut verb = self.mount_newest();
        must("kill", &["-KILL", &verb.id().to_string()]);
        verb.wait().unwrap();
        assert_same_tree(&self.was, &self.at);
        assert_ne!(self.there(), self.before, "the scene is another one");
        // Somebody has mounted something over it: what nobody could tell any more stays.
        let text = self.at.to_str().unwrap();
        must("mount", &["-t", "tmpfs", "none", text]);
        let said = self.machine.run(&["recover"]).expect(11);
        said.says("something else is mounted over").says("still mounted at");
        must("umount", &[text]);
        assert_same_tree(&self.was, &self.at);
        self.machine.run(&["recover"]).expect(0).says("released what run");
        self.assert_nothing_is_left();

        // In the midst of it, also when it is the next command that takes it away.
        for next in [&["recover"][..], &["list"], &["run"]] {
            let verb = ["mount", "home", text];
            let killed = kill_one_of(self.machine, &verb, 0, |id| {
                let all = family_of(id);
                let receives = all.iter().any(|line| line.contains("btrfs receive"));
                all.into_iter().find(|line| receives && line.contains(" mount home"))
            });
            assert!(killed, "it ended before it could be killed");
            assert_ne!(self.there(), self.before, "the scene is another one");
            self.machine.run(next).expect(0);
            if next == ["list"] {
                // That one only looks.
                self.machine.run(&["recover"]).expect(0).says("released what run");
            }
            self.assert_nothing_is_left();
        }
    }

    fn all(&self) {
        self.is_mounted_as_it_was();
        self.ends_with_a_signal_whoever_looks_at_it();
        self.is_recovered_from_when_it_is_killed();
    }
}

#[test]
fn a_copy_that_a_server_keeps() {
    let scene = served::scene();
    Elsewhere::new(&scene.machine, &scene.disk).all();
}

#[test]
fn a_copy_on_a_machine_that_has_btrfs_progs_alone() {
    let scene = plain::scene("t", 600);
    Elsewhere::new(&scene.machine, &scene.disk).all();
}

#[test]
fn a_copy_of_which_encrypted_streams_are_stored() {
    use stored_streams::{ENCRYPTED, FILES, OPENED, SCRATCH};
    let scene = stored_streams::scene(&[FILES, ENCRYPTED, OPENED, SCRATCH]);
    Elsewhere::new(&scene.machine, &scene.disk).all();
}

#[test]
fn it_lies_in_the_subvolume_itself_only_where_no_other_is_seen_and_no_run_minds() {
    use stored_streams::{ENCRYPTED, FILES, OPENED};
    let scene = stored_streams::scene(&[FILES, ENCRYPTED, OPENED]);
    let (machine, disk) = (&scene.machine, &scene.disk);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("other")]);
    let it = Elsewhere::new(machine, disk);
    // As it is where each subvolume is mounted by itself.
    let seen = machine.path("seen");
    fs::create_dir(&seen).unwrap();
    must("mount", &["--bind", disk.at.to_str().unwrap(), seen.to_str().unwrap()]);
    must("umount", &[disk.at.to_str().unwrap()]);
    let home = disk.at.join("home");
    fs::create_dir(&home).unwrap();
    must("mount", &["-o", "subvol=home", &disk.device, home.to_str().unwrap()]);
    must("umount", &[seen.to_str().unwrap()]);

    // One that no job copies is there first.
    let other = machine.path("other");
    fs::create_dir(&other).unwrap();
    must("mount", &["-o", "subvol=other", &disk.device, other.to_str().unwrap()]);
    let mut newest = it.newest.clone();
    for (place, is_in_it) in [(&other, false), (&home, true)] {
        let verb = it.mount_of(&newest, "up to ", &[]);
        let staging = names_in(place).into_iter().find(|it| it.starts_with(".stillpoint-mounted-"));
        let staging = place.join(staging.unwrap());
        assert!(staging.join("copy").is_dir(), "{}", staging.display());
        let run = machine.run(&["--json", "run"]).expect(0);
        assert_eq!(run.json()["jobs"][0]["outcome"], "ok", "{}", run.stdout);
        must("umount", &[it.at.to_str().unwrap()]);
        Ran::from(verb.wait_with_output().unwrap()).expect(0);
        assert!(!staging.exists());
        // An empty directory is all that a copy of what it lies in has of it.
        let next = machine.copies("t").pop().unwrap();
        assert_ne!(next, newest);
        newest = next;
        let name = staging.file_name().unwrap().to_str().unwrap();
        let found = machine.run(&["find", name]).expect(0).stdout.contains(&newest);
        assert_eq!(found, is_in_it, "{newest}");
        if !is_in_it {
            must("umount", &[other.to_str().unwrap()]);
        }
    }
    must("umount", &[home.to_str().unwrap()]);
    fs::remove_dir(&home).unwrap();
    must("mount", &[&disk.device, disk.at.to_str().unwrap()]);
}

#[test]
fn a_machine_without_the_source_is_told_what_helps_and_so_is_one_without_room() {
    let scene = served::scene();
    let (machine, disk) = (&scene.machine, &scene.disk);
    let it = Elsewhere::new(machine, disk);
    let text = it.at.to_str().unwrap();
    let manifest = crate::bench_machine::manifest(&it.was);
    let other = Disk::new(machine, "btrfs", "other", 300);
    let restore = format!("stillpoint restore home {} --target t PATH --to DIR", it.newest);
    let refused = |more: &[&str], says: &[&str]| {
        let mut said = machine.run(&[&["mount", "home", text], more].concat()).expect(4);
        for words in [says, &["--scratch DIR", &*restore, "--as-subvolume --to PATH"]].concat() {
            said = said.says(words);
        }
        assert!(!said.stderr.contains("is fetched"), "{}", said.stderr);
    };
    refused(&["--scratch", &machine.path("none").to_string_lossy()], &["there is no directory"]);
    refused(&["--scratch", &machine.path("").to_string_lossy()], &["is on none"]);
    let open = other.at.join("open");
    fs::create_dir(&open).unwrap();
    must("chmod", &["777", open.to_str().unwrap()]);
    refused(&["--scratch", open.to_str().unwrap()], &["lets others in", "chmod go-w"]);
    let state = machine.path("state").to_string_lossy().into_owned();
    let ours = other.path("ours");
    must("cp", &["-a", &state, &ours]);
    must("mount", &["--bind", &ours, &state]);
    refused(&["--scratch", &ours], &["is the state directory", "which is in use"]);
    must("umount", &[&state]);
    fs::remove_dir_all(&ours).unwrap();

    // What would outlive a reboot is not received where nothing is written down that does.
    must("mount", &["--bind", &state, &state]);
    must("mount", &["-o", "remount,ro,bind", &state]);
    let said = machine.run(&["mount", "home", text]).expect(4);
    said.says("would still be there after a reboot").says(&restore);
    must("umount", &[&state]);

    must("umount", &[disk.at.to_str().unwrap()]);
    refused(&[], &["disk/home is not here"]);
    let verb = it.mount(&["--scratch", other.at.to_str().unwrap()]);
    assert_eq!(crate::bench_machine::manifest(&it.at), manifest);
    must("umount", &[text]);
    Ran::from(verb.wait_with_output().unwrap()).expect(0);
    assert_eq!(other.subvolumes(), [] as [String; 0]);
    assert_eq!(names_in(&other.at), ["open"]);

    // A whole one says how much that is, a difference does not.
    let small = Disk::new(machine, "btrfs", "small", 110);
    let filler = format!("of={}", small.path("filler"));
    command("dd").args(["if=/dev/urandom", &filler, "bs=1M", "status=none"]).output().unwrap();
    let whole = machine.copies("t").remove(0);
    let place = small.at.to_str().unwrap();
    let mount = ["mount", "home", &*whole, text, "--scratch", place];
    let said = machine.run(&mount).expect(4).says("so nothing was fetched");
    said.says("--scratch DIR").says("--ignore-space");
    let said = machine.run(&[&mount[..], &["--ignore-space"]].concat()).expect(10);
    said.says("there is no room at").says("--scratch DIR").says("--as-subvolume --to PATH");
    assert_eq!(small.subvolumes(), [] as [String; 0]);
    assert_eq!(names_in(&small.at), ["filler"]);
    must("mount", &[&disk.device, disk.at.to_str().unwrap()]);
    it.assert_nothing_is_left();

    // That of a difference is not known when what it was made to is gone, and it may take what is left to others.
    machine.run(&["prune", "--target", "t", &whole]).expect(0);
    refused(&[], &["does not say how much", "so nothing was fetched", "--ignore-space"]);
    other.reclaim();
    let free = must("df", &["--output=avail", "-B1", other.at.to_str().unwrap()]);
    let free: u64 = free.lines().nth(1).unwrap().trim().parse().unwrap();
    let filler = other.path("filler");
    // Five percent of it are 15 MiB, and what comes has 20.
    must("fallocate", &["-l", &(free - (25 << 20)).to_string(), &filler]);
    let mount = ["mount", "home", text, "--scratch", other.at.to_str().unwrap()];
    let said = machine.run(&mount).expect(10).says("15.0 MiB stay free unless --ignore-space");
    assert!(said.stderr.contains("the target does not say how much that is"), "{}", said.stderr);
    assert_eq!(other.subvolumes(), [] as [String; 0]);
    assert_eq!(names_in(&other.at), ["filler", "open"]);
    fs::remove_file(&filler).unwrap();
    other.reclaim();
    let how_much = "all of it, and the target does not say";
    let verb = it.mount_of(&it.newest, how_much, &mount[3..]);
    assert_eq!(crate::bench_machine::manifest(&it.at), manifest);

    // Somebody has mounted it elsewhere as well: it stays until that is over.
    let theirs = machine.path("theirs");
    fs::create_dir(&theirs).unwrap();
    must("mount", &["--bind", text, theirs.to_str().unwrap()]);
    must("umount", &[text]);
    let said = Ran::from(verb.wait_with_output().unwrap()).expect(11);
    said.says(&format!("still mounted at {}", theirs.display()));
    assert_eq!(crate::bench_machine::manifest(&theirs), manifest);
    must("umount", &[theirs.to_str().unwrap()]);
    machine.run(&["recover"]).expect(0).says("released what run");
    assert_eq!(other.subvolumes(), [] as [String; 0]);
    it.assert_nothing_is_left();
}
