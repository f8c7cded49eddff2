//! Subvolumes that are sent from one btrfs to another, both on loop devices.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::bench_machine::{
    Machine, Ran, assert_same_tree, command, family_of, fill, kill_one_of, must, names_in, torture,
    wait_for, wait_for_no_process_about, wait_until,
};
use crate::btrfs::{Disk, inside};

/// The copy that a run made, and what was sent for it, in bytes.
pub fn made(ran: &Ran) -> (String, u64) {
    let target = &ran.json()["jobs"][0]["targets"][0];
    (target["copy"].as_str().unwrap().to_owned(), target["bytes_new"].as_u64().unwrap())
}

/// A job on the subvolume `disk/home`, whose copies go to a directory of another btrfs, which is at `copies`.
pub struct Scene {
    // In this order: what is mounted below the machine's directory goes before that.
    pub copies: Disk,
    pub disk: Disk,
    pub machine: Machine,
    /// That directory.
    pub directory: &'static str,
}

/// The two disks, with the subvolume and the directory, before anything is configured.
pub fn disks(directory: &'static str, megabytes: u64) -> Scene {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 600);
    let copies = Disk::new(&machine, "btrfs", "copies", megabytes);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("home")]);
    closed_directory(copies.path(directory));
    Scene { copies, disk, machine, directory }
}

/// A scene whose target is `copies/t`, on a disk of so many MiB.
pub fn scene(megabytes: u64) -> Scene {
    let scene = disks("t", megabytes);
    scene.configure("", "");
    scene.machine.run(&["init", "t"]).expect(0);
    scene
}

/// Settings, and what is given, in which `{root}` stands for the machine's directory.
pub fn configure(machine: &Machine, text: &str) {
    let settings = "[settings]\nhost = \"web1\"\nstate-dir = \"{root}/state\"\nruntime-dir = \"{root}/run\"\ncache-dir = \"{root}/cache\"\nlock-wait = \"1s\"\n";
    let text = format!("{settings}{text}").replace("{root}", &machine.path("").to_string_lossy());
    machine.write("stillpoint.toml", &text, 0o600);
}

impl Scene {
    pub fn configure(&self, target: &str, job: &str) {
        let directory = self.directory;
        configure(
            &self.machine,
            &format!(
                "[targets.t.btrfs]\nlocation = \"{{root}}/copies/{directory}\"\n{target}\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{{root}}/disk/home\"]\n{job}"
            ),
        );
    }

    pub fn home(&self) -> PathBuf {
        self.disk.at.join("home")
    }

    /// The directory of copies.
    pub fn target(&self) -> PathBuf {
        self.copies.at.join(self.directory)
    }

    /// Where a copy lies.
    pub fn copy(&self, id: &str) -> PathBuf {
        self.target().join(id)
    }

    /// Runs the job, which must go well, and answers with the new copy's id and what was sent for it, in bytes.
    #[track_caller]
    pub fn run(&self) -> (String, u64) {
        made(&self.machine.run(&["--json", "run"]).expect(0))
    }

    /// The local snapshots that stay.
    pub fn kept(&self) -> usize {
        self.disk.snapshots().len()
    }

    /// What lies in the directory of copies besides our own directory, by name.
    pub fn there(&self) -> Vec<String> {
        let mut names = names_in(&self.target());
        names.retain(|name| name != ".stillpoint");
        names
    }

    /// What of that is no copy of ours that is listed.
    pub fn strays(&self) -> Vec<String> {
        let listed = self.machine.copies("t");
        self.there().into_iter().filter(|name| !listed.contains(name)).collect()
    }

    pub fn fill(&self, name: &str, megabytes: u64) {
        fill(self.home().join(name), megabytes);
    }

    pub fn fill_with_small_files(&self) {
        for n in 0..200 {
            let content = format!("file {n}\n").repeat(500);
            fs::write(self.home().join(format!("{n}")), content).unwrap();
        }
    }

    /// The power goes, and the target's disk has what this image has.
    pub fn target_becomes(&self, cut: &Path) {
        self.copies.becomes(&self.machine, cut);
    }

    /// A program in the place of btrfs-progs: `body`, in which `real` is them.
    pub fn instead(&self, body: &str) {
        let wrapper = self.machine.script(
            "btrfs-instead",
            &format!("real() {{ /usr/bin/btrfs \"$@\"; }}\n{body}\nexec /usr/bin/btrfs \"$@\""),
        );
        self.configure(&format!("program = \"{wrapper}\""), "");
    }
}

/// A directory into which nobody else comes, as a target must be.
pub fn closed_directory(path: impl AsRef<Path>) {
    fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}

nix::ioctl_write_ptr!(set_flags, 0x94, 26, u64);

/// Makes a subvolume read-only or not by the kernel's own call, which keeps what it was received as.
#[expect(unsafe_code, reason = "the number is what this call reads")]
pub fn set_read_only(path: &Path, read_only: bool) {
    let flags = if read_only { 1 << 1 } else { 0 };
    unsafe { set_flags(fs::File::open(path).unwrap().as_raw_fd(), &raw const flags) }.unwrap();
}

/// Writes a file in a subvolume that is read-only before and after.
pub fn forge(at: &Path, file: &str, text: &str) {
    set_read_only(at, false);
    fs::write(at.join(file), text).unwrap();
    set_read_only(at, true);
}

/// What `btrfs subvolume show` says after this word.
pub fn shown(path: &Path, word: &str) -> String {
    let shown = must("btrfs", &["subvolume", "show", path.to_str().unwrap()]);
    let line = shown.lines().find(|line| line.trim_start().starts_with(word)).unwrap();
    line.rsplit_once([' ', '\t']).unwrap().1.to_owned()
}

pub fn uuid(path: &Path) -> String {
    shown(path, "UUID:")
}

#[test]
fn a_copy_is_the_subvolume_and_only_differences_are_sent_again() {
    let scene = scene(600);
    torture(&scene.home());
    scene.fill("big", 20);
    let (first, sent) = scene.run();
    assert!(sent > 20 << 20, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&first));
    assert_eq!(scene.kept(), 1);

    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    fs::remove_file(scene.home().join("empty")).unwrap();
    must("cp", &["--reflink", &scene.disk.path("home/big"), &scene.disk.path("home/twice")]);
    let (second, sent) = scene.run();
    assert!(sent < 1 << 20, "a shared extent and a line were sent as {sent} bytes");
    assert_same_tree(&scene.home(), &scene.copy(&second));
    assert_eq!(scene.kept(), 1, "the next base, and no other");
    let listed = scene.machine.run(&["--json", "list"]).expect(0).json();
    for copy in listed["copies"].as_array().unwrap() {
        let at = scene.copy(copy["id"].as_str().unwrap());
        let names = must("find", &[at.to_str().unwrap(), "-not", "-type", "d", "-printf", "x"]);
        assert_eq!(copy["files"], names.len(), "{copy}");
    }
    assert_eq!(scene.strays(), [] as [String; 0]);
    scene.machine.assert_clean_except(&scene.machine.path(""));

    // What was there before is in the first copy still, and comes back from it.
    let to = scene.machine.path("back");
    fs::create_dir(&to).unwrap();
    let to = to.to_str().unwrap();
    scene.machine.run(&["restore", "home", &first, "--to", to]).expect(0);
    let back = inside(Path::new(to), scene.home());
    assert_same_tree(&back, &scene.copy(&first));
    fs::write(scene.home().join("plain"), "lost").unwrap();
    let plain = scene.disk.path("home/plain");
    scene.machine.run(&["restore", "home", &second, &plain, "--in-place", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(&plain).unwrap(), "changed\n");
    let printed =
        scene.machine.run(&["restore", "home", &scene.disk.path("home/plain"), "--stdout"]);
    assert_eq!(printed.expect(0).stdout, "changed\n");
    let found = scene.machine.run(&["find", "empty"]).expect(0);
    found.says(&first);
    scene.machine.run(&["verify", "home"]).expect(0);
    scene
        .machine
        .run(&["check", "--target", "t", "--read-data", "100%"])
        .expect(0)
        .says("all data of 2");
    scene.machine.run(&["status"]).expect(0);
}

#[test]
fn what_is_new_far_below_leaves_the_root_as_it_was() {
    let scene = scene(600);
    torture(&scene.home());
    scene.run();
    fs::write(scene.home().join("deep/er/new"), "new\n").unwrap();
    let (copy, _) = scene.run();
    assert_same_tree(&scene.home(), &scene.copy(&copy));
    scene.machine.run(&["verify", "home", &copy]).expect(0).says("compared with the source");
}

#[test]
fn what_an_older_file_shares_with_the_copy_before_is_shared_there() {
    let scene = scene(600);
    for name in ["oldest", "older"] {
        fs::write(scene.home().join(name), name).unwrap();
    }
    scene.fill("big", 20);
    let (first, _) = scene.run();
    // It comes before what it shares with, which is therefore that of the copy before.
    let share = |name: &str| {
        let at = |name: &str| scene.disk.path(&format!("home/{name}"));
        must("cp", &["--reflink=always", &at("big"), &at(name)]);
    };
    share("older");
    let (second, sent) = scene.run();
    assert!(sent < 1 << 20, "a shared extent was sent as {sent} bytes");
    assert_same_tree(&scene.home(), &scene.copy(&second));

    // Where more than one could be meant, none is.
    for copy in [&first, &second] {
        let at = scene.copy(copy);
        let twin = scene.copies.path(&format!("twin-of-{copy}"));
        must("btrfs", &["-q", "subvolume", "snapshot", "-r", at.to_str().unwrap(), &twin]);
    }
    share("oldest");
    let ran = scene.machine.run(&["--json", "run"]).expect(12);
    assert!(ran.stdout.contains("so all was sent"), "{}", ran.stdout);
    let (third, _) = made(&ran);
    assert_same_tree(&scene.home(), &scene.copy(&third));
}

#[test]
fn whatever_is_killed_the_next_run_is_whole_and_nothing_is_left() {
    let scene = scene(600);
    scene.fill("big", 20);
    // At this pace each of them is there for a second, also on a fast machine.
    scene.configure("upload-limit = 10000", "");
    let victims = ["btrfs send", "pass-stream", "btrfs receive", "stillpoint -c"];
    let mut hit = 0;
    for (round, victim) in victims.iter().cycle().take(12).enumerate() {
        scene.fill(&format!("new-{round}"), 10);
        // Each time a little later in the life of the victim.
        hit += usize::from(kill_one_of(&scene.machine, &["run"], round * 2, |id| {
            family_of(id).into_iter().find(|line| line.contains(victim))
        }));
        let (copy, _) = scene.run();
        assert_same_tree(&scene.home(), &scene.copy(&copy));
        assert_eq!(scene.kept(), 1, "after {victim} was killed in round {round}");
        assert_eq!(scene.strays(), [] as [String; 0], "after {victim} in round {round}");
    }
    assert!(hit >= 8, "only {hit} were killed in time");
    scene.machine.assert_clean_except(&scene.machine.path(""));
}

#[test]
fn what_is_compressed_stays_so_on_its_way_and_in_the_copy() {
    let scene = scene(600);
    for disk in [&scene.disk, &scene.copies] {
        must("mount", &["-o", "remount,compress-force=zstd", disk.at.to_str().unwrap()]);
    }
    torture(&scene.home());
    let text = |name: &str, word: &str| {
        fs::write(scene.home().join(name), format!("{word}, ").repeat(8 << 20 >> 3)).unwrap();
    };
    text("first", "stillpoint");
    scene.fill("noise", 4);
    let (plain, sent) = scene.run();
    assert!(sent > 14 << 20, "{sent}");
    // Not the disk that has to compress it once more.
    must("mount", &["-o", "remount,compress=no", scene.copies.at.to_str().unwrap()]);
    scene.configure("compressed-data = true", "");
    scene.machine.run(&["plan"]).expect(0).says("--proto 2 --compressed-data");
    text("second", "and another");
    let before = scene.copies.used();
    let (difference, sent) = scene.run();
    assert!(sent < 1 << 20, "{sent}");
    assert!(scene.copies.used() - before < 2 << 20, "it was stored at its full length");
    for copy in [&plain, &difference] {
        assert!(scene.copy(copy).join("first").exists());
    }
    assert_same_tree(&scene.home(), &scene.copy(&difference));

    // All of it, and back.
    for base in scene.disk.snapshots() {
        must("btrfs", &["-q", "subvolume", "delete", &scene.disk.path(&base)]);
    }
    let (whole, sent) = scene.run();
    assert!((4 << 20..6 << 20).contains(&sent), "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&whole));
    scene.machine.run(&["verify", "home", &whole]).expect(0);
    let to = scene.disk.path("back");
    scene.machine.run(&["restore", "home", &whole, "--as-subvolume", "--to", &to]).expect(0);
    assert_same_tree(Path::new(&to), &scene.copy(&whole));
}

#[test]
fn a_slow_transfer_is_slow_whole_and_can_be_stopped() {
    let scene = scene(600);
    scene.fill("big", 20);
    scene.configure("upload-limit = 1000", "");
    scene.machine.run(&["plan"]).expect(0).says("pass-stream").says("--limit 1000");
    let mut slow = scene.machine.start(&["run"]);
    let root = scene.machine.path("").to_string_lossy().into_owned();
    assert!(wait_until(&mut slow, || !scene.strays().is_empty()), "it ended at once");
    // At this pace it takes 20 seconds.
    assert!(slow.try_wait().unwrap().is_none(), "nothing held it back");
    must("kill", &["-TERM", &slow.id().to_string()]);
    assert_eq!(slow.wait().unwrap().code(), Some(143));
    wait_for_no_process_about(&root);
    assert_eq!(scene.strays(), [] as [String; 0]);
    scene.configure("upload-limit = 1000000", "");
    let (copy, _) = scene.run();
    assert_same_tree(&scene.home(), &scene.copy(&copy));
}

#[test]
fn what_a_power_cut_makes_of_a_receive_is_no_copy() {
    let scene = scene(600);
    scene.fill_with_small_files();
    // What the disk holds when btrfs receive has just ended well.
    let image = scene.machine.path("copies.img");
    let cut = scene.machine.path("cut.img");
    scene.instead(&format!(
        "if [ \"$1\" = receive ]; then real \"$@\" || exit; cp --sparse=always '{}' '{}'; exit 0; fi",
        image.display(),
        cut.display()
    ));
    let (whole, _) = scene.run();
    assert_same_tree(&scene.home(), &scene.copy(&whole));
    scene.configure("", "");
    scene.target_becomes(&cut);
    let listed = scene.machine.copies("t");
    assert!(!listed.contains(&whole), "it has no record, and may be empty: {listed:?}");
    // History knows of a copy that is gone, which closes retention there until a person has looked; the next copy is
    // made all the same, and is based on nothing that is not there.
    let (copy, _) = made(&scene.machine.run(&["--json", "run"]));
    assert_same_tree(&scene.home(), &scene.copy(&copy));
    assert!(scene.machine.copies("t").contains(&copy));
}

#[test]
fn a_whole_run_survives_a_power_cut() {
    let scene = scene(600);
    scene.fill_with_small_files();
    let (copy, _) = scene.run();
    let cut = scene.copies.as_cut_off(&scene.machine);
    // Another UUID: two of one would be one to the kernel.
    let home = scene.machine.path("expected");
    must("cp", &["-a", scene.home().to_str().unwrap(), home.to_str().unwrap()]);
    scene.target_becomes(&cut);
    assert_eq!(scene.machine.copies("t"), [copy.as_str()]);
    assert_same_tree(&home, &scene.copy(&copy));
}

#[test]
fn what_somebody_changed_is_no_copy_and_no_base() {
    let scene = scene(600);
    torture(&scene.home());
    let (first, _) = scene.run();
    let (second, _) = scene.run();
    let changed = scene.copy(&second);
    must("btrfs", &["property", "set", "-f", changed.to_str().unwrap(), "ro", "false"]);
    fs::write(changed.join("plain"), "forged").unwrap();
    must("btrfs", &["property", "set", changed.to_str().unwrap(), "ro", "true"]);
    assert_eq!(scene.machine.copies("t"), [first.as_str()]);
    let checked = scene.machine.run(&["check", "--target", "t"]).expect(14);
    let verb = format!("stillpoint prune --target t {second}");
    checked.says(&format!("1 of 2 copies is damaged: {second}")).says(&verb);
    fs::write(scene.home().join("later"), "x").unwrap();
    let (third, _) = made(&scene.machine.run(&["--json", "run"]));
    assert_same_tree(&scene.home(), &scene.copy(&third));
    // Somebody else's subvolume is left alone, whatever its name.
    let foreign = scene.copies.path("t/home@web1.x.20261126T221410Z.bef28848");
    must("btrfs", &["-q", "subvolume", "create", &foreign]);
    let (fourth, _) = made(&scene.machine.run(&["--json", "run"]));
    assert!(scene.copy(&fourth).exists() && Path::new(&foreign).exists() && changed.exists());
    assert!(!scene.machine.copies("t").iter().any(|id| foreign.ends_with(id.as_str())));

    // A person gets rid of it by its name and that of its target, and of nothing else; not of what lies in the place of one.
    scene.machine.run(&["prune", &second]).expect(10);
    scene
        .machine
        .run(&["prune", "--target", "t", "--dry-run", &second])
        .expect(0)
        .says("1 would be");
    assert!(changed.exists());
    // Nor while somebody is at work in it.
    let used = scene.machine.path("used");
    fs::create_dir(&used).unwrap();
    let (option, at) = (format!("subvol=/t/{second}"), used.to_str().unwrap());
    must("mount", &["-o", &option, &scene.copies.device, at]);
    scene.machine.run(&["prune", "--target", "t", &second]).expect(11).says("is still mounted at");
    assert!(changed.exists());
    must("umount", &[at]);
    scene.machine.run(&["prune", "--target", "t", &second]).expect(0).says("1 deleted");
    assert!(!changed.exists());
    scene.machine.run(&["check", "--target", "t"]).expect(0).says("no damage found");
    scene.run();
    assert_eq!(scene.machine.copies("t").len(), 4);
    let kept = scene.copy(&first);
    must("btrfs", &["-q", "subvolume", "delete", kept.to_str().unwrap()]);
    must("btrfs", &["-q", "subvolume", "create", kept.to_str().unwrap()]);
    let checked = scene.machine.run(&["check", "--target", "t"]).expect(14);
    checked.says("1 of 4 copies is damaged").says("something else");
    scene.machine.run(&["prune", "--target", "t", &first]).expect(10);
    assert!(kept.exists());
}

#[test]
fn what_was_changed_behind_the_back_of_btrfs_progs_is_no_copy_and_no_base() {
    let scene = scene(600);
    torture(&scene.home());
    scene.fill("big", 20);
    let (first, _) = scene.run();
    let changed = scene.copy(&first);
    forge(&changed, "plain", "forged");
    assert_eq!(scene.machine.copies("t"), [] as [String; 0]);
    scene.machine.run(&["check", "--target", "t"]).expect(14).says(&first);
    let (second, sent) = made(&scene.machine.run(&["--json", "run"]));
    assert!(sent > 20 << 20, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&second));

    // The same of the snapshot that stays here. The changed file is in no difference to it.
    let kept = scene.disk.at.join(scene.disk.snapshots().remove(0));
    forge(&kept, "plain", "changed\n");
    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    let (third, _) = made(&scene.machine.run(&["--json", "run"]));
    assert_same_tree(&scene.home(), &scene.copy(&third));
}

#[test]
fn a_place_to_which_others_have_access_takes_no_copies() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    let (copy, _) = scene.run();
    let (place, open) = (scene.copies.at.join("t"), fs::Permissions::from_mode(0o711));
    fs::set_permissions(&place, open.clone()).unwrap();
    scene.machine.run(&["run"]).expect(4).says("chmod go-rwx");
    scene.machine.run(&["check-config", "--online"]).expect(4).says("chmod go-rwx");
    // What is there can still be read.
    assert_eq!(scene.machine.copies("t"), [copy.as_str()]);
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
    // Records are believed, so nobody else may write them.
    for place in [place.clone(), place.join(".stillpoint/copies")] {
        chown(&place, Some(1234), None).unwrap();
        scene.machine.run(&["list"]).expect(3).says("chown root");
        chown(&place, Some(0), None).unwrap();
    }
    scene.run();
    let new = scene.copies.at.join("u");
    fs::create_dir(&new).unwrap();
    fs::set_permissions(&new, open).unwrap();
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/copies/u\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/disk/home\"]\n",
    );
    scene.machine.run(&["init", "t"]).expect(4).says("chmod go-rwx");
}

#[test]
fn a_link_in_a_copy_leads_nowhere() {
    use std::os::unix::ffi::OsStrExt;
    let scene = scene(300);
    let outside = scene.machine.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(scene.home().join("x"), "x").unwrap();
    // Names that can be looked for in a listing, and others.
    let names = [b"link".as_slice(), b"caf\xe9"].map(std::ffi::OsStr::from_bytes);
    for name in names {
        symlink(&outside, scene.home().join(name)).unwrap();
    }
    scene.run();
    let config = scene.machine.path("stillpoint.toml");
    for name in names {
        let inside = scene.home().join(name).join("secret");
        for how in [vec!["--stdout"], vec!["--to", "back"]] {
            let output = command(crate::bench_machine::PROGRAM)
                .current_dir(scene.machine.path(""))
                .arg("-c")
                .arg(&config)
                .args(["restore", "home"])
                .arg(&inside)
                .args(how)
                .output()
                .unwrap();
            let ran = Ran::from(output).expect(10);
            assert_eq!(ran.stdout, "");
        }
    }
    let back = fs::read_dir(scene.machine.path("back"));
    assert_eq!(back.map_or(0, Iterator::count), 0, "nothing was restored");
}

#[test]
fn a_stream_of_something_else_is_not_received() {
    let scene = scene(600);
    fs::write(scene.home().join("secret"), "x").unwrap();
    let other = scene.disk.path("other");
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", &scene.disk.path("home"), &other]);
    scene.instead(&format!("if [ \"$1\" = send ]; then exec /usr/bin/btrfs send -q '{other}'; fi"));
    scene.machine.run(&["run"]).expect(10).says("another subvolume");
    // One that is cut off, with success.
    scene.instead("if [ \"$1\" = send ]; then real \"$@\" | head -c 200; exit 0; fi");
    scene.machine.run(&["run"]).expect(10).says("in the midst");
    // One that was changed on its way.
    scene.instead("if [ \"$1\" = send ]; then real \"$@\" | tr x y; exit 0; fi");
    scene.machine.run(&["run"]).expect(10);
    assert_eq!(scene.strays(), [] as [String; 0]);
    assert_eq!(scene.machine.copies("t"), [] as [String; 0]);
    scene.configure("", "");
    let (copy, _) = scene.run();
    assert_same_tree(&scene.home(), &scene.copy(&copy));
    assert_eq!(scene.kept(), 1);
}

#[test]
fn a_receiver_that_cannot_apply_a_difference_gets_all() {
    let scene = scene(600);
    torture(&scene.home());
    scene.run();
    fs::write(scene.home().join("later"), "x").unwrap();
    // As kernels have done that refuse to share what lies in the parent.
    let marker = scene.machine.path("refused");
    scene.instead(&format!(
        "if [ \"$1\" = receive ] && ! [ -e '{0}' ]; then touch '{0}'; head -c 100 >/dev/null; echo 'ERROR: clone: did not find source subvol' >&2; exit 1; fi",
        marker.display()
    ));
    let (copy, _) = made(&scene.machine.run(&["--json", "run"]).expect(12));
    assert_same_tree(&scene.home(), &scene.copy(&copy));
    assert_eq!(scene.strays(), [] as [String; 0]);
}

#[test]
fn a_base_that_is_changed_when_it_has_been_looked_at_is_none() {
    let scene = scene(600);
    torture(&scene.home());
    scene.run();
    fs::write(scene.home().join("later"), "x").unwrap();
    // Whoever makes the base writable, changes it and makes it read-only again leaves its UUID as it was.
    scene.instead(&format!(
        "if [ \"$1\" = send ]; then
           last=; base=; for word in \"$@\"; do [ \"$last\" = -p ] && base=$word; last=$word; done
           if [ -n \"$base\" ]; then
             at='{}'/$(basename \"$base\")
             real property set -t subvol \"$at\" ro false
             echo changed >\"$at/later\"
             real property set -t subvol \"$at\" ro true
           fi
         fi",
        scene.disk.at.display()
    ));
    let ran =
        scene.machine.run(&["--json", "run"]).expect(12).says("somebody changed the snapshot");
    let (copy, _) = made(&ran);
    assert_same_tree(&scene.home(), &scene.copy(&copy));
    assert_eq!(scene.strays(), [] as [String; 0]);
    scene.configure("", "");
    let (copy, _) = scene.run();
    assert_same_tree(&scene.home(), &scene.copy(&copy));
}

#[test]
fn a_full_disk_is_told_and_gets_its_space_back() {
    let scene = scene(300);
    scene.fill("big", 310);
    let ran = scene.machine.run(&["run"]).expect(10).says("no space is left");
    assert!(!ran.stderr.contains("not one that this run made"), "{}", ran.stderr);
    assert_eq!(scene.strays(), [] as [String; 0]);
    fs::remove_file(scene.home().join("big")).unwrap();
    fs::write(scene.home().join("small"), "x").unwrap();
    // btrfs gives space back in its own time.
    wait_for("there is room again", || scene.machine.run(&["run"]).code == Some(0));
    let copy = scene.machine.copies("t").pop().unwrap();
    assert_same_tree(&scene.home(), &scene.copy(&copy));
}

#[test]
fn a_target_that_is_away_keeps_its_base_and_holds_up_nothing_else() {
    let scene = scene(600);
    closed_directory(scene.copies.path("u"));
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/copies/t\"\n[targets.t.keep]\nlast = 2\n[targets.u.btrfs]\nlocation = \"{root}/copies/u\"\n[jobs.home]\ntargets = [\"t\", \"u\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/disk/home\"]\n",
    );
    scene.machine.run(&["init", "u"]).expect(0);
    scene.fill("big", 20);
    scene.machine.run(&["run"]).expect(0);
    assert_eq!(scene.kept(), 1);
    fs::rename(scene.copies.path("u"), scene.copies.path("away")).unwrap();
    for n in 0..4 {
        fs::write(scene.home().join(format!("{n}")), "x").unwrap();
        scene.machine.run(&["run"]).expect(10).says("u");
        assert_eq!(
            scene.kept(),
            2,
            "the base of each, in round {n}: {:?}",
            scene.disk.subvolumes()
        );
    }
    assert_eq!(scene.machine.copies("t").len(), 2);
    fs::rename(scene.copies.path("away"), scene.copies.path("u")).unwrap();
    let report = scene.machine.run(&["--json", "run"]).expect(0).json();
    for target in report["jobs"][0]["targets"].as_array().unwrap() {
        let sent = target["bytes_new"].as_u64().unwrap();
        assert!(sent < 1 << 20, "{target}: its base was there");
    }
    assert_eq!(scene.kept(), 1);
}

#[test]
fn what_cannot_be_sent_is_told_and_nothing_is_silently_empty() {
    let scene = scene(600);
    fs::create_dir(scene.disk.path("directory")).unwrap();
    fs::write(scene.home().join("x"), "x").unwrap();
    let nested = scene.disk.path("home/nested");
    must("btrfs", &["-q", "subvolume", "create", &nested]);
    fs::write(format!("{nested}/y"), "y").unwrap();
    scene.machine.run(&["run"]).expect(13).says("home/nested").says("leave-out");
    scene.configure("", "leave-out = [\"{root}/disk/home/nested\"]");
    scene.machine.run(&["run"]).expect(0);
    // What is no subvolume cannot be left out, but for the way to one that is.
    let private = scene.home().join("private");
    fs::create_dir(&private).unwrap();
    fs::write(private.join("z"), "z").unwrap();
    scene.configure("", "leave-out = [\"{root}/disk/home/nested\", \"{root}/disk/home/private\"]");
    let told = "home/private: no subvolume, so it is in the copy, although leave-out names it";
    scene.machine.run(&["run"]).expect(12).says(told);
    scene.machine.run(&["check-config", "--online"]).expect(12).says(told);
    let inner = scene.disk.path("home/private/inner");
    must("btrfs", &["-q", "subvolume", "create", &inner]);
    let report = scene.machine.run(&["--json", "run", "home", "home"]).expect(0).json();
    assert_eq!(report["jobs"].as_array().unwrap().len(), 1, "a job that is named twice");
    must("btrfs", &["-q", "subvolume", "delete", &inner]);
    // What is mounted there is no part of it.
    let mounted = private.to_str().unwrap();
    must("mount", &["-t", "tmpfs", "none", mounted]);
    fs::write(private.join("z"), "z").unwrap();
    scene.machine.run(&["run"]).expect(0);
    must("umount", &[mounted]);
    // As a subvolume of its own, and one that is none beside it.
    let paths =
        "paths = [\"{root}/disk/home\", \"{root}/disk/home/nested\", \"{root}/disk/directory\"]";
    configure(
        &scene.machine,
        &format!(
            "[targets.t.btrfs]\nlocation = \"{{root}}/copies/t\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\n{paths}\n"
        ),
    );
    let report = scene.machine.run(&["--json", "run"]).expect(4).json();
    let copies: Vec<bool> = report["jobs"][0]["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["copy"].is_string())
        .collect();
    assert_eq!(copies, [true, true, false], "{report:#}");
    // What one of them lacks is nothing to the others.
    must("btrfs", &["-q", "subvolume", "create", &inner]);
    let report = scene.machine.run(&["--json", "run"]).expect(4).json();
    let targets = report["jobs"][0]["targets"].as_array().unwrap();
    let outcomes: Vec<_> = targets.iter().map(|it| it["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["incomplete", "ok", "failed"], "{report:#}");
    must("btrfs", &["-q", "subvolume", "delete", &inner]);
    scene.machine.run(&["check-config", "--online"]).expect(4).says("no subvolume");
    // One that was received and made writable: all its snapshots would be one.
    scene.configure("", "leave-out = [\"{root}/disk/home/nested\"]");
    let sent = scene.machine.path("stream");
    let snapshot = scene.disk.path("snapshot");
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", &scene.disk.path("home"), &snapshot]);
    must("btrfs", &["send", "-q", "-f", sent.to_str().unwrap(), &snapshot]);
    must("btrfs", &["-q", "subvolume", "delete", &snapshot]);
    let received = scene.copies.path("snapshot");
    let received = received.as_str();
    must(
        "btrfs",
        &["receive", "-q", "-f", sent.to_str().unwrap(), scene.copies.at.to_str().unwrap()],
    );
    assert_ne!(uuid(Path::new(received)), "-");
    // As the kernel's own call does it, which leaves the UUID.
    must(
        "python3",
        &[
            "-c",
            "import fcntl,os,struct,sys; d=os.open(sys.argv[1],os.O_RDONLY); fcntl.ioctl(d,0x4008941a,struct.pack('Q',0))",
            received,
        ],
    );
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/copies/t\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/copies/snapshot\"]\n",
    );
    scene.machine.run(&["run"]).expect(4).says("received from elsewhere");
}

#[test]
fn a_place_that_is_no_target_is_refused() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    scene.machine.run(&["init", "t"]).expect(10).says("already");
    fs::rename(scene.copies.path("t"), scene.copies.path("swapped")).unwrap();
    fs::create_dir(scene.copies.path("t")).unwrap();
    scene.machine.run(&["run"]).expect(10).says("stillpoint init");
    assert_eq!(
        fs::read_dir(scene.copies.path("t")).unwrap().count(),
        0,
        "nothing is made silently"
    );
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/src\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/disk/home\"]\n",
    );
    scene.machine.run(&["init", "t"]).expect(4).says("no btrfs");
}

#[test]
fn names_of_any_kind_are_sent_and_copies_are_pinned_and_pruned() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 300);
    let copies = Disk::new(&machine, "btrfs", "copies", 300);
    let written = "-a b 'd'";
    must("btrfs", &["-q", "subvolume", "create", &disk.path(written)]);
    closed_directory(copies.path("t"));
    torture(&disk.at.join(written));
    configure(
        &machine,
        &format!(
            "[targets.t.btrfs]\nlocation = \"{{root}}/copies/t\"\n[targets.t.keep]\nlast = 1\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{{root}}/disk/{written}\"]\n"
        ),
    );
    machine.run(&["init", "t"]).expect(0);
    machine.run(&["run"]).expect(0);
    let first = machine.copies("t").remove(0);
    machine.run(&["pin", "home", &first]).expect(0);
    for _ in 0..3 {
        machine.run(&["run"]).expect(0);
    }
    let listed = machine.copies("t");
    assert_eq!((listed.len(), &listed[0]), (2, &first), "the pinned one and the last");
    machine.run(&["unpin", "home", &first]).expect(0);
    let would = machine.run(&["prune", "--dry-run"]).expect(0);
    would.says("1 would be deleted");
    assert_eq!(machine.copies("t").len(), 2);
    machine.run(&["prune"]).expect(0);
    let listed = machine.copies("t");
    assert_eq!(listed.len(), 1);
    assert_same_tree(&disk.at.join(written), &copies.at.join("t").join(&listed[0]));
    let left: Vec<String> =
        copies.subvolumes().into_iter().filter(|name| !name.ends_with(&listed[0])).collect();
    assert_eq!(left, [] as [String; 0]);
}

#[test]
fn a_path_that_no_name_can_hold_is_in_the_record() {
    let machine = Machine::bare("[jobs]\n");
    let disk = Disk::new(&machine, "btrfs", "disk", 300);
    let copies = Disk::new(&machine, "btrfs", "copies", 300);
    let names = [
        "Документы и фотографии всей семьи за все годы",
        "Документы и фотографии всей семьи за все годы 2",
    ];
    for name in names {
        must("btrfs", &["-q", "subvolume", "create", &disk.path(name)]);
        fs::write(disk.at.join(name).join("x"), name).unwrap();
    }
    closed_directory(copies.path("t"));
    configure(
        &machine,
        &format!(
            "[targets.t.btrfs]\nlocation = \"{{root}}/copies/t\"\n[targets.t.keep]\nlast = 1\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{{root}}/disk/{}\", \"{{root}}/disk/{}\"]\n",
            names[0], names[1]
        ),
    );
    machine.run(&["init", "t"]).expect(0);
    for _ in 0..2 {
        machine.run(&["run"]).expect(0);
    }
    let listed = machine.run(&["--json", "list"]).expect(0).json();
    let items = listed["copies"].as_array().unwrap().iter();
    let items: BTreeSet<&str> = items.map(|copy| copy["item"].as_str().unwrap()).collect();
    let wanted = names.map(|name| disk.path(name));
    assert_eq!(items, wanted.iter().map(String::as_str).collect());
    for path in &wanted {
        let file = format!("{path}/x");
        let printed =
            machine.run(&["restore", "home", &file, "--item", path, "--stdout"]).expect(0);
        assert!(path.ends_with(&printed.stdout), "{}", printed.stdout);
    }
}

#[test]
fn a_program_that_is_replaced_while_it_runs_goes_on() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    let own = scene.machine.path("replaced");
    fs::copy(crate::bench_machine::PROGRAM, &own).unwrap();
    scene.configure("", "[jobs.home.hooks]\nbefore = [[\"/bin/rm\", \"{root}/replaced\"]]\n");
    let config = scene.machine.path("stillpoint.toml");
    let output = command(own.to_str().unwrap()).arg("-c").arg(config).arg("run").output().unwrap();
    Ran::from(output).expect(0);
    assert!(!own.exists());
    let copy = scene.machine.copies("t").pop().unwrap();
    assert_same_tree(&scene.home(), &scene.copy(&copy));
}

#[test]
fn what_the_units_leave_a_run_is_enough_to_send_and_receive() {
    let scene = scene(300);
    torture(&scene.home());
    let units = scene.machine.run(&["generate", "units"]).expect(0).stdout;
    let named = units.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let set: Vec<String> =
        named.unwrap().split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect();
    for _ in 0..2 {
        let output = command("setpriv")
            .arg(format!("--bounding-set=-all,{}", set.join(",")))
            .arg("--no-new-privs")
            .args([crate::bench_machine::PROGRAM, "-c"])
            .arg(scene.machine.path("stillpoint.toml"))
            .arg("run")
            .output()
            .unwrap();
        Ran::from(output).expect(0);
    }
    let copy = scene.machine.copies("t").pop().unwrap();
    assert_same_tree(&scene.home(), &scene.copy(&copy));
}

#[test]
fn what_changed_between_copies_is_told() {
    let scene = scene(300);
    let home = scene.home();
    let write = |path: &str, text: &str| fs::write(home.join(path), text).unwrap();
    for directory in ["gone", "moved", "stays", "stays/deep", "swap-a", "swap-b"] {
        fs::create_dir(home.join(directory)).unwrap();
    }
    for file in [
        "gone/x",
        "moved/x",
        "stays/x",
        "stays/deep/y",
        "swap-a/x",
        "swap-b/y",
        "edited",
        "renamed",
        "replaced",
        "mode",
        "touched",
    ] {
        write(file, file);
    }
    let (first, _) = scene.run();
    fs::remove_dir_all(home.join("gone")).unwrap();
    fs::rename(home.join("moved"), home.join("here")).unwrap();
    fs::rename(home.join("renamed"), home.join("stays/new-name")).unwrap();
    for (from, to) in [("swap-a", "aside"), ("swap-b", "swap-a"), ("aside", "swap-b")] {
        fs::rename(home.join(from), home.join(to)).unwrap();
    }
    fs::remove_file(home.join("swap-b/x")).unwrap();
    fs::remove_file(home.join("replaced")).unwrap();
    write("replaced", "another");
    write("edited", "edited again");
    write("stays/deep/y", "longer than before");
    must("chmod", &["600", home.join("mode").to_str().unwrap()]);
    must("touch", &["-d", "2001-01-01", home.join("touched").to_str().unwrap()]);
    fs::create_dir_all(home.join("fresh/inner")).unwrap();
    write("fresh/inner/file", "x");
    write("caf\u{e9}\nx", "x");
    std::os::unix::fs::symlink("edited", home.join("link")).unwrap();
    fs::hard_link(home.join("edited"), home.join("hard")).unwrap();
    let (second, _) = scene.run();
    let told = scene.machine.run(&["--json", "diff", "home", &first, &second]).expect(0).json();
    let root = format!("{}/", home.display());
    let changes: Vec<(String, String)> = told["changes"]
        .as_array()
        .unwrap_or_else(|| panic!("{told:#}"))
        .iter()
        .map(|change| {
            let path = change["path"].as_str().unwrap();
            let path = path.strip_prefix(&root).unwrap_or(path).to_owned();
            (path, change["kind"].as_str().unwrap().to_owned())
        })
        .collect();
    let wanted = [
        ("caf\u{e9}\nx", "added"),
        ("edited", "modified"),
        ("fresh", "added"),
        ("fresh/inner", "added"),
        ("fresh/inner/file", "added"),
        ("gone", "removed"),
        ("gone/x", "removed"),
        ("hard", "added"),
        ("here", "added"),
        ("link", "added"),
        ("mode", "metadata"),
        ("moved", "removed"),
        ("renamed", "removed"),
        ("replaced", "modified"),
        ("stays/deep/y", "modified"),
        ("stays/new-name", "added"),
        ("swap-a", "modified"),
        ("swap-a/x", "removed"),
        ("swap-b", "modified"),
        ("touched", "metadata"),
    ];
    let wanted: Vec<(String, String)> =
        wanted.iter().map(|(path, kind)| ((*path).to_owned(), (*kind).to_owned())).collect();
    assert_eq!(changes, wanted);
    // The other way round, and with itself.
    let told = scene.machine.run(&["--json", "diff", "home", &second, &second]).expect(0).json();
    assert_eq!(told["changes"].as_array().unwrap().len(), 0);
}

#[test]
fn a_damaged_record_hides_its_own_copy_and_no_other() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    let (first, _) = scene.run();
    let (second, _) = scene.run();
    let record = scene.copies.at.join("t/.stillpoint/copies").join(format!("{first}.json"));
    let whole = fs::read(&record).unwrap();
    fs::write(&record, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(scene.machine.copies("t"), [second.as_str()]);
    let printed = scene.machine.run(&["restore", "home", &scene.disk.path("home/x"), "--stdout"]);
    assert_eq!(printed.expect(0).stdout, "x");
    // Copies are made, and the target is closed until it is back.
    scene.machine.run(&["run"]).expect(13).says(&first);
    scene.machine.run(&["check", "--target", "t"]).expect(14).says(record.to_str().unwrap());
    fs::write(&record, &whole).unwrap();
    scene.machine.run(&["check", "--target", "t"]).expect(0);
    assert_eq!(scene.machine.copies("t").len(), 3);
}

#[test]
fn what_could_not_be_recorded_leaves_nothing() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    let records = scene.copies.path("t/.stillpoint/copies");
    must("chattr", &["+i", &records]);
    scene.machine.run(&["run"]).expect(10);
    must("chattr", &["-i", &records]);
    assert_eq!(scene.strays(), [] as [String; 0]);
    scene.run();
    scene.machine.run(&["check", "--target", "t"]).expect(0);
}

#[test]
fn the_snapshot_of_a_job_that_is_gone_is_told_of() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    scene.run();
    let text = fs::read_to_string(scene.machine.path("stillpoint.toml")).unwrap();
    scene.machine.write("stillpoint.toml", &text.replace("jobs.home", "jobs.other"), 0o600);
    let snapshot = scene.disk.snapshots().remove(0);
    scene.machine.run(&["run"]).expect(12).says(&snapshot);
    must("btrfs", &["-q", "subvolume", "delete", &scene.disk.path(&snapshot)]);
    scene.run();
    assert_eq!(scene.kept(), 1, "that of the job as it is called now");
}

#[test]
fn a_subvolume_is_restored_to_its_place() {
    let scene = scene(300);
    for name in ["x", "y"] {
        fs::write(scene.home().join(name), name).unwrap();
    }
    scene.run();
    fs::write(scene.home().join("x"), "changed").unwrap();
    fs::remove_file(scene.home().join("y")).unwrap();
    fs::write(scene.home().join("new"), "new").unwrap();
    let x = scene.disk.path("home/x");
    scene.machine.run(&["restore", "home", &x, "--in-place"]).expect(0);
    assert_eq!(fs::read_to_string(&x).unwrap(), "x");
    assert!(!scene.home().join("y").exists(), "it was not asked for");
    scene.machine.run(&["restore", "home", "--in-place", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(scene.home().join("y")).unwrap(), "y");
    assert_eq!(fs::read_to_string(scene.home().join("new")).unwrap(), "new");
}

#[test]
fn long_names_are_sent() {
    let scene = scene(300);
    let long = ["y".repeat(250), format!("{}z", "y".repeat(249))];
    let paths = long.each_ref().map(|name| scene.disk.path(name));
    for path in &paths {
        must("btrfs", &["-q", "subvolume", "create", path]);
        fs::write(format!("{path}/x"), path).unwrap();
    }
    configure(
        &scene.machine,
        &format!(
            "[targets.t.btrfs]\nlocation = \"{{root}}/copies/t\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{}\", \"{}\"]\n",
            paths[0], paths[1]
        ),
    );
    for _ in 0..2 {
        scene.machine.run(&["run"]).expect(0);
    }
    assert_eq!(scene.machine.copies("t").len(), 4);
    for path in &paths {
        let file = format!("{path}/x");
        let args = ["restore", "home", "latest", "--item", path, &file, "--stdout"];
        assert_eq!(scene.machine.run(&args).expect(0).stdout, *path);
    }
}

#[test]
fn our_own_snapshots_are_not_missed_in_a_copy_of_the_top_level_subvolume() {
    let scene = scene(300);
    fs::write(scene.disk.path("x"), "x").unwrap();
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/copies/t\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/disk\"]\nleave-out = [\"{root}/disk/home\"]\n",
    );
    for _ in 0..2 {
        scene.machine.run(&["run"]).expect(0);
    }
    assert_eq!(scene.kept(), 1);
}

#[test]
fn a_swap_file_hinders_its_own_subvolume_alone() {
    let scene = scene(300);
    let swap = scene.disk.path("home/swap");
    fs::write(&swap, "").unwrap();
    must("chattr", &["+C", &swap]);
    fs::write(&swap, vec![0; 16 << 20]).unwrap();
    must("chmod", &["600", &swap]);
    must("mkswap", &[&swap]);
    let other = scene.disk.path("other");
    must("btrfs", &["-q", "subvolume", "create", &other]);
    fs::write(format!("{other}/x"), "x").unwrap();
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/copies/t\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/disk/home\", \"{root}/disk/other\"]\n",
    );
    must("swapon", &[&swap]);
    let checked = scene.machine.run(&["check-config", "--online"]);
    let ran = scene.machine.run(&["run"]);
    must("swapoff", &[&swap]);
    checked.expect(0).says("swapoff");
    ran.expect(4).says("swapoff");
    assert_eq!(scene.machine.copies("t").len(), 1);
    scene.machine.run(&["run"]).expect(0);
}

#[test]
fn sockets_are_not_missed_and_a_record_that_is_no_file_is_not_waited_for() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    drop(std::os::unix::net::UnixListener::bind(scene.home().join("socket")).unwrap());
    let (copy, _) = scene.run();
    let to = scene.machine.path("back");
    fs::create_dir(&to).unwrap();
    scene.machine.run(&["restore", "home", "--to", to.to_str().unwrap()]).expect(0);
    must("mkfifo", &[&scene.copies.path("t/.stillpoint/copies/pipe.json")]);
    assert_eq!(scene.machine.copies("t"), [copy]);
    scene.machine.run(&["check", "--target", "t"]).expect(14).says("it is no file");
}

#[test]
fn a_copy_that_was_taken_elsewhere_is_one_again_when_it_is_back() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    let (first, _) = scene.run();
    fs::write(scene.home().join("x"), "y").unwrap();
    let (second, _) = scene.run();
    let (third, _) = scene.run();
    let home = scene.copy(&first);
    // A copy is read-only, and so stays in its directory.
    let hidden = scene.copies.path(&format!("t/{first}.away"));
    fs::rename(&home, &hidden).unwrap();
    assert_eq!(scene.machine.copies("t"), [second.as_str(), third.as_str()]);
    // Somebody has looked, or another machine deletes there.
    scene.machine.run(&["prune", "--accept", "--target", "t"]).expect(0);
    scene.machine.run(&["prune", "--target", "t", &second]).expect(0);
    assert_eq!(scene.machine.copies("t"), [third.as_str()]);
    fs::rename(&hidden, &home).unwrap();
    assert!(scene.machine.copies("t").contains(&first), "its record was forgotten");
}

#[test]
fn a_snapshot_that_no_history_knows_is_a_base() {
    let scene = scene(600);
    scene.fill("big", 20);
    let (first, whole) = scene.run();
    assert!(whole > 20 << 20, "{whole}");
    // History is lost, and whoever made the copy is nobody any more; the snapshot and the copy are still there.
    fs::remove_dir_all(scene.machine.path("state")).unwrap();
    scene.fill("small", 1);
    let (second, sent) = scene.run();
    assert!(sent < 2 << 20, "{sent} bytes, although the target has {first}");
    assert_same_tree(&scene.home(), &scene.copy(&second));
    // Nobody has said that it may go.
    assert_eq!(scene.kept(), 2);
    // One that somebody made writable and changed is none, nor one that was received.
    fs::remove_dir_all(scene.machine.path("state")).unwrap();
    for snapshot in scene.disk.snapshots() {
        forge(&scene.disk.at.join(snapshot), "meddled", "with");
    }
    let (third, sent) = scene.run();
    assert!(sent > 20 << 20, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&third));
}

#[test]
fn how_much_would_be_sent_is_told_beforehand() {
    let scene = scene(600);
    scene.fill("big", 20);
    let told = || {
        let document = scene.machine.run(&["--json", "estimate", "home"]).expect(0).json();
        let estimate = document["estimates"][0].clone();
        (estimate["bytes"].as_u64().unwrap(), estimate["based_on"].as_str().map(str::to_owned))
    };
    let close = |told: u64, sent: u64| {
        assert!(told.abs_diff(sent) * 50 <= sent, "told {told} bytes, and {sent} were sent");
    };
    let (first, base) = told();
    assert_eq!((base, scene.kept()), (None, 0));
    let (copy, sent) = scene.run();
    close(first, sent);
    scene.fill("more", 5);
    let (second, base) = told();
    assert_eq!((base.as_ref(), scene.kept()), (Some(&copy), 1));
    let (_, sent) = scene.run();
    close(second, sent);
    scene.machine.run(&["estimate", "home"]).expect(0).says("DIFFERENCE TO");
    assert_eq!(scene.strays(), [] as [String; 0]);
}

/// Makes directories in each other, too many for their path to be sent; answers with the first of them.
pub fn too_deep(home: &Path) -> PathBuf {
    // Of seventeen names, each of as many bytes as a name may have but for some.
    const DEEP: &str = "
import os, sys
os.chdir(sys.argv[1])
for n in range(17):
    name = 'deep%02d' % n + 'x' * 240
    os.mkdir(name)
    os.chdir(name)
";
    must("/usr/bin/python3", &["-c", DEEP, home.to_str().unwrap()]);
    let deep = names_in(home).into_iter().find(|name| name.starts_with("deep00")).unwrap();
    home.join(deep)
}

#[test]
fn a_path_that_btrfs_cannot_send_is_told_by_its_name() {
    let scene = scene(600);
    fs::write(scene.home().join("plain"), "plain").unwrap();
    scene.run();
    let deep = too_deep(&scene.home());
    for _ in 0..2 {
        let ran = scene.machine.run(&["run"]).expect(10);
        ran.says("sends no path of 4096 bytes or more").says("it begins with deep00xxx");
        assert_eq!(scene.strays(), [] as [String; 0]);
    }
    fs::remove_dir_all(deep).unwrap();
    scene.run();
}
