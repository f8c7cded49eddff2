//! Restoring over what lives, from each engine: nothing is harmed that the copy does not name, nothing leaves the
//! destination, and whatever ends it leaves nothing behind.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::bench_machine::{
    Bound, HOST, Machine, Ran, assert_same_tree, bounded, must, must_at_last,
    wait_for_no_loop_device, wait_until,
};

/// A machine with one copy in each target, of what `fill` put into its source.
fn copied(fill: impl FnOnce(&Path)) -> Machine {
    let machine = Machine::new(HOST);
    fill(&machine.path("src"));
    machine.run(&["run"]).expect(0);
    machine
}

/// The same, and again with the newer restic that `STILLPOINT_RESTIC_018` names.
#[expect(clippy::print_stderr, reason = "what was not tested is told")]
fn machines(fill: impl Fn(&Path)) -> Vec<Machine> {
    let mut machines = vec![copied(&fill)];
    match std::env::var("STILLPOINT_RESTIC_018") {
        Ok(newer) => {
            let machine = copied(&fill);
            set_restic(&machine, &newer);
            machines.push(machine);
        }
        Err(_) => eprintln!("!!! NOT RUN with restic 0.18: STILLPOINT_RESTIC_018 is not set"),
    }
    machines
}

fn set_restic(machine: &Machine, program: &str) {
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let restic = format!("[targets.r.restic]\nprogram = \"{program}\"");
    machine.write("stillpoint.toml", &text.replace("[targets.r.restic]", &restic), 0o600);
}

fn in_place(machine: &Machine, target: &str, path: &Path) -> Ran {
    let path = path.to_str().unwrap();
    machine.run(&["restore", "host", "latest", path, "--in-place", "--target", target])
}

/// A copy of the source as it is now, with everything about it.
fn keep(machine: &Machine, name: &str) -> PathBuf {
    let kept = machine.path(name);
    must("cp", &["-a", machine.path("src").to_str().unwrap(), kept.to_str().unwrap()]);
    kept
}

/// No staging directory lies anywhere below.
fn no_staging_below(at: &Path) {
    let found = must("find", &[at.to_str().unwrap(), "-name", ".stillpoint-restore-*"]);
    assert_eq!(found, "");
}

/// A file system on a loop device, unmounted at the end.
struct Disk<'m> {
    machine: &'m Machine,
    at: PathBuf,
    image: PathBuf,
}

impl<'m> Disk<'m> {
    fn new(machine: &'m Machine, kind: &str, megabytes: u64, at: &str) -> Self {
        let image = machine.path(&format!("{}.img", at.replace('/', "-")));
        let at = machine.path(at);
        fs::create_dir(&at).unwrap();
        fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        must(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
        must("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        Self { machine, at, image }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        must_at_last("umount", &[self.at.to_str().unwrap()]);
        wait_for_no_loop_device(&self.image);
        assert!(self.machine.root.path().exists());
    }
}

fn various(src: &Path) {
    fs::write(src.join("one"), "one").unwrap();
    fs::hard_link(src.join("one"), src.join("two")).unwrap();
    fs::hard_link(src.join("one"), src.join("sub/three")).unwrap();
    let sparse = fs::File::create(src.join("sparse")).unwrap();
    sparse.set_len(32 << 20).unwrap();
    for name in ["was-link", "was-pipe", "was-directory", "was-full"] {
        fs::write(src.join(name), "a file").unwrap();
    }
    fs::create_dir_all(src.join("was-file/deep")).unwrap();
    fs::write(src.join("was-file/deep/f"), "f").unwrap();
    symlink("nowhere", src.join("dangling")).unwrap();
    fs::set_permissions(src.join("sub"), fs::Permissions::from_mode(0o2751)).unwrap();
    chown(src.join("sub"), Some(12_345), Some(54_321)).unwrap();
    must("setfattr", &["-n", "user.note", "-v", "kept", src.join("sub").to_str().unwrap()]);
    must("touch", &["-d", "2001-02-03T04:05:06Z", src.join("sub").to_str().unwrap()]);
}

#[test]
fn what_the_copy_does_not_name_is_not_touched_and_what_it_names_is_as_it_was() {
    for machine in machines(various) {
        let kept = keep(&machine, "kept");
        let (src, victim) = (machine.path("src"), machine.path("victim"));
        fs::write(&victim, "root's").unwrap();
        for target in ["b", "r"] {
            for name in ["was-link", "was-pipe", "was-directory", "was-full", "one"] {
                fs::remove_file(src.join(name)).unwrap();
            }
            symlink(&victim, src.join("was-link")).unwrap();
            must("mkfifo", &[src.join("was-pipe").to_str().unwrap()]);
            fs::create_dir(src.join("was-directory")).unwrap();
            fs::create_dir(src.join("was-full")).unwrap();
            fs::write(src.join("was-full/mine"), "mine").unwrap();
            fs::remove_dir_all(src.join("was-file")).unwrap();
            fs::write(src.join("was-file"), "a file now").unwrap();
            fs::write(src.join("two"), "changed through both names").unwrap();
            fs::write(src.join("extra"), "extra").unwrap();
            fs::set_permissions(src.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();

            in_place(&machine, target, &src).expect(10).says("was-full").says("move it away first");
            assert_eq!(fs::read_to_string(src.join("was-full/mine")).unwrap(), "mine");
            fs::remove_dir_all(src.join("was-full")).unwrap();
            in_place(&machine, target, &src).expect(0);
            assert_eq!(fs::read_to_string(&victim).unwrap(), "root's");
            assert_eq!(fs::read_to_string(src.join("extra")).unwrap(), "extra");
            fs::remove_file(src.join("extra")).unwrap();
            must("touch", &["-r", kept.to_str().unwrap(), src.to_str().unwrap()]);
            assert_same_tree(&kept, &src);
            assert_eq!(
                src.join("one").metadata().unwrap().ino(),
                src.join("sub/three").metadata().unwrap().ino()
            );
            no_staging_below(machine.root.path());
        }
        machine.assert_clean();
    }
}

#[test]
fn holes_stay_holes_or_it_is_said() {
    for machine in machines(various) {
        for target in ["b", "r"] {
            let to = machine.path(&format!("to-{target}"));
            let ran = machine
                .run(&["restore", "host", "--target", target, "--to", to.to_str().unwrap()])
                .expect(0);
            let sparse = to.join(machine.path("src/sparse").strip_prefix("/").unwrap());
            let has_holes = sparse.metadata().unwrap().blocks() < 1000;
            assert_ne!(has_holes, ran.stderr.contains("sparse"), "{target}: {}", ran.stderr);
        }
    }
}

#[test]
fn directories_above_stay_as_they_are_and_missing_ones_are_as_the_copy_holds_them() {
    for machine in machines(|src| {
        fs::create_dir_all(src.join("a/b/c")).unwrap();
        fs::write(src.join("a/b/c/f"), "f").unwrap();
        fs::set_permissions(src.join("a/b"), fs::Permissions::from_mode(0o751)).unwrap();
        chown(src.join("a/b"), Some(12_345), Some(54_321)).unwrap();
    }) {
        let src = machine.path("src");
        let of = |path: &str| {
            let found = src.join(path).metadata().unwrap();
            (found.mode() & 0o7777, found.uid(), found.gid())
        };
        for target in ["b", "r"] {
            fs::set_permissions(src.join("a"), fs::Permissions::from_mode(0o710)).unwrap();
            chown(src.join("a"), Some(1), Some(1)).unwrap();
            fs::remove_dir_all(src.join("a/b")).unwrap();
            in_place(&machine, target, &src.join("a/b/c/f")).expect(0);
            assert_eq!(of("a"), (0o710, 1, 1), "{target}");
            assert_eq!(of("a/b"), (0o751, 12_345, 54_321), "{target}");
            assert_eq!(fs::read_to_string(src.join("a/b/c/f")).unwrap(), "f");
        }
    }
}

#[test]
fn a_directory_of_which_the_copy_says_nothing_lets_owners_pass_and_is_told() {
    let machine = Machine::new(&HOST.replace("{root}/src", "{root}/src/www/site"));
    fs::create_dir_all(machine.path("src/www/site")).unwrap();
    machine.write("src/www/site/index", "hello", 0o644);
    machine.run(&["run", "--target", "b"]).expect(0);
    fs::remove_dir_all(machine.path("src/www")).unwrap();
    let said = machine.run(&["restore", "host", "--in-place", "--yes", "--target", "b"]).expect(12);
    said.says("src/www, so it was made with owner root and mode 0755");
    assert_eq!(machine.path("src/www").metadata().unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_to_string(machine.path("src/www/site/index")).unwrap(), "hello");
}

#[test]
fn a_link_that_a_user_put_in_the_way_leads_nowhere() {
    for machine in machines(|src| {
        fs::create_dir(src.join("docs")).unwrap();
        fs::write(src.join("docs/passwd"), "evil").unwrap();
    }) {
        let (docs, victim) = (machine.path("src/docs"), machine.path("victim"));
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("passwd"), "root's").unwrap();
        fs::rename(&docs, machine.path("src/away")).unwrap();
        symlink(&victim, &docs).unwrap();
        for target in ["b", "r"] {
            let ran = in_place(&machine, target, &docs.join("passwd")).expect(10);
            ran.says("a symbolic link is there where the copy has a directory");
            // Laid out elsewhere, it goes to a tree that somebody else has prepared.
            let to = machine.path(&format!("to-{target}"));
            let inside = to.join(machine.path("src").strip_prefix("/").unwrap());
            fs::create_dir_all(&inside).unwrap();
            symlink(&victim, inside.join("docs")).unwrap();
            let to = to.to_str().unwrap();
            let all = ["restore", "host", "--target", target, "--to", to, "--into-existing"];
            machine.run(&all).expect(0);
            assert_eq!(fs::read_to_string(inside.join("docs/passwd")).unwrap(), "evil");
            assert_eq!(fs::read_to_string(victim.join("passwd")).unwrap(), "root's");
            assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
            assert_eq!(fs::read_link(&docs).unwrap(), victim);
        }
        machine.assert_clean();
    }
}

#[test]
fn an_archive_with_a_link_and_something_behind_it_writes_nothing_elsewhere() {
    let machine = copied(|_| ());
    let outside = machine.path("outside");
    fs::create_dir(&outside).unwrap();
    // Also into what the engine itself may write.
    let places = [outside.clone(), machine.path("cache"), machine.path("repo-b")];
    let before: Vec<usize> = places.iter().map(|at| fs::read_dir(at).unwrap().count()).collect();
    for (number, place) in places.iter().enumerate() {
        let build = machine.path(&format!("build-{number}"));
        fs::create_dir_all(build.join("x")).unwrap();
        fs::write(build.join("x/victim"), "pwn").unwrap();
        let tar = machine.path(&format!("hostile-{number}.tar"));
        let (tar, below) = (tar.to_str().unwrap(), build.to_str().unwrap());
        let behind = format!("{tar}.behind");
        must("tar", &["cf", &behind, "-C", below, "x/victim"]);
        fs::remove_dir_all(build.join("x")).unwrap();
        symlink(place, build.join("x")).unwrap();
        must("tar", &["cf", tar, "-C", below, "x"]);
        must("tar", &["Af", tar, &behind]);
        let archive = format!("host@web1.2026010{}T000000Z.0badf00d", number + 1);
        let status = machine
            .stranger("borg")
            .args(["import-tar", &format!("{}::{archive}", machine.path("repo-b").display()), tar])
            .status()
            .unwrap();
        assert!(status.success());
        let before = fs::read_dir(place).unwrap().count();
        let to = machine.path(&format!("out-{number}"));
        machine
            .run(&["restore", "host", &archive, "--target", "b", "--to", to.to_str().unwrap()])
            .expect(10);
        assert!(!place.join("victim").exists(), "written through a link");
        assert!(number > 0 || fs::read_dir(place).unwrap().count() == before);
        no_staging_below(machine.root.path());
    }
    assert_eq!(before[0], 0);
}

#[test]
fn a_new_file_system_is_empty_and_a_full_one_is_told_from_a_full_repository() {
    for machine in machines(|src| {
        let noise: Vec<u8> =
            (0..6_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        fs::write(src.join("big"), noise).unwrap();
    }) {
        let small = Disk::new(&machine, "ext4", 4, "small");
        let large = Disk::new(&machine, "ext4", 60, "large");
        for target in ["b", "r"] {
            let to = small.at.to_str().unwrap();
            let args = ["restore", "host", "--target", target, "--to", to];
            let ran = machine.run(&args).expect(4).says("is free at").says("nothing was changed");
            assert!(!ran.stderr.contains("repository"), "{}", ran.stderr);
            assert_eq!(fs::read_dir(&small.at).unwrap().count(), 1, "lost+found");
            let ran = machine.run(&[&args[..], &["--ignore-space"]].concat()).expect(10);
            let ran = ran.says("no space is left at").says("--to");
            assert!(!ran.stderr.contains("stillpoint prune"), "{}", ran.stderr);
            assert_eq!(fs::read_dir(&small.at).unwrap().count(), 1, "lost+found");
            let to = large.at.to_str().unwrap();
            machine.run(&["restore", "host", "--target", target, "--to", to]).expect(0);
            let inside = large.at.join(machine.path("src").strip_prefix("/").unwrap());
            assert_same_tree(&machine.path("src"), &inside);
            let top = inside.strip_prefix(&large.at).unwrap().components().next().unwrap();
            fs::remove_dir_all(large.at.join(top)).unwrap();
        }
    }
}

#[test]
fn what_lies_on_several_file_systems_goes_back_to_each() {
    for machine in machines_with_disks() {
        let src = machine.path("src");
        let disk = Disk::new(&machine, "ext4", 20, "src/disk");
        let btrfs = Disk::new(&machine, "btrfs", 120, "src/btrfs");
        must("btrfs", &["subvolume", "create", btrfs.at.join("inner").to_str().unwrap()]);
        for at in [&disk.at, &btrfs.at, &btrfs.at.join("inner")] {
            fs::write(at.join("f"), "as it was").unwrap();
            fs::create_dir(at.join("d")).unwrap();
            fs::write(at.join("d/g"), "as it was").unwrap();
        }
        machine.run(&["run"]).expect(0);
        for target in ["b", "r"] {
            for at in [&disk.at, &btrfs.at, &btrfs.at.join("inner")] {
                fs::write(at.join("f"), "changed").unwrap();
                fs::remove_dir_all(at.join("d")).unwrap();
                fs::write(at.join("extra"), "extra").unwrap();
            }
            in_place(&machine, target, &src).expect(0);
            for at in [&disk.at, &btrfs.at, &btrfs.at.join("inner")] {
                assert_eq!(fs::read_to_string(at.join("f")).unwrap(), "as it was", "{target}");
                assert_eq!(fs::read_to_string(at.join("d/g")).unwrap(), "as it was", "{target}");
                assert_eq!(fs::read_to_string(at.join("extra")).unwrap(), "extra");
            }
            no_staging_below(machine.root.path());
        }
        machine.assert_clean_except(&src);
    }
}

/// A machine whose copies are yet to be made.
fn machines_with_disks() -> Vec<Machine> {
    let machine = Machine::new(HOST);
    if let Ok(newer) = std::env::var("STILLPOINT_RESTIC_018") {
        set_restic(&machine, &newer);
    }
    vec![machine]
}

#[test]
fn a_whole_job_in_place_wants_a_word_and_a_dump_goes_to_standard_output() {
    let jobs = format!(
        "{HOST}\n[jobs.dump]\ntargets = [\"b\", \"r\"]\n[jobs.dump.commands.db]\ncommand = [\"/usr/bin/seq\", \"200000\"]\nfile-name = \"db.sql\"\n"
    );
    let machine = Machine::new(&jobs);
    machine.run(&["run"]).expect(0);
    machine.write("src/hello.txt", "changed", 0o644);
    for target in ["b", "r"] {
        let whole = ["restore", "host", "--in-place", "--target", target];
        machine.run(&whole).expect(2).says("--yes");
        machine.run(&[&whole[..], &["latest", "/"]].concat()).expect(2).says("--yes");
        assert_eq!(fs::read_to_string(machine.path("src/hello.txt")).unwrap(), "changed");
        machine.run(&[&whole[..], &["--yes"]].concat()).expect(0);
        assert_eq!(fs::read_to_string(machine.path("src/hello.txt")).unwrap(), "hello\n");
        machine.write("src/hello.txt", "changed", 0o644);

        let refused = ["restore", "dump", "--in-place", "--yes", "--target", target];
        machine.run(&refused).expect(2).says("--stdout");
        let dump = machine.run(&["restore", "dump", "--stdout", "--target", target]).expect(0);
        assert_eq!(dump.stdout, must("seq", &["200000"]));
        let path = machine.path("src/sub/data.bin");
        let file =
            ["restore", "host", "latest", path.to_str().unwrap(), "--stdout", "--target", target];
        assert_eq!(machine.run(&file).expect(0).stdout, fs::read_to_string(&path).unwrap());
        let absent = ["restore", "host", "latest", "/nowhere", "--stdout", "--target", target];
        let ran = machine.run(&absent).expect(10).says("there is no file /nowhere");
        assert_eq!(ran.stdout, "");
        let absent = ["restore", "host", "latest", "/nowhere", "--in-place", "--target", target];
        machine.run(&absent).expect(10).says("/nowhere is not in the copy");
    }
    machine.assert_clean();
}

#[test]
fn a_stream_that_is_cut_off_is_no_success() {
    let machine = copied(|src| fs::write(src.join("big"), "0123456789".repeat(400_000)).unwrap());
    let path = machine.path("src/big");
    for target in ["b", "r"] {
        let args =
            ["restore", "host", "latest", path.to_str().unwrap(), "--stdout", "--target", target];
        for full in [true, false] {
            let ran = to_no_end(&machine, &args, full).expect(4);
            let why = if full { "has no space left" } else { "was closed after" };
            let ran = ran.says(&format!("standard output {why}")).says("what was written is not");
            assert!(!ran.stderr.contains("prune"), "{target}: {}", ran.stderr);
            assert!(!ran.stderr.contains("repo-"), "{target}: {}", ran.stderr);
        }
        // A disk that fills up on the way.
        let disk = Disk::new(&machine, "ext4", 2, &format!("disk-{target}"));
        let file = fs::File::create(disk.at.join("dump")).unwrap();
        let mut writing = machine.command(&args);
        let ran = Ran::from(writing.stdout(file).stderr(Stdio::piped()).output().unwrap());
        let ran = ran.expect(4).says("standard output has no space left after");
        assert!(!ran.says(" bytes").stderr.contains("after 0 bytes"), "{target}");
    }
    machine.run(&["status"]).expect(0);
    machine.assert_clean();
}

/// Runs the program with a standard output that is full, or that nobody reads.
fn to_no_end(machine: &Machine, args: &[&str], full: bool) -> Ran {
    let mut command = machine.command(args);
    command.stderr(Stdio::piped());
    if full {
        command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
        return command.output().unwrap().into();
    }
    let (reading, writing) = std::io::pipe().unwrap();
    drop(reading);
    command.stdout(writing).output().unwrap().into()
}

/// Whoever looks may have seen enough; what could not be written is told, and nothing panics.
#[test]
fn a_standard_output_that_takes_nothing_is_told_by_what_looks() {
    let machine = copied(|_| ());
    machine.run(&["run"]).expect(0);
    for words in [
        &["list"][..],
        &["list", "--json"],
        &["find", "hello*"],
        &["find", "hello*", "--json"],
        &["diff", "host"],
        &["diff", "host", "--json"],
        &["verify", "host"],
        &["verify", "host", "--json"],
        &["status"],
        &["plan"],
        &["prune", "--dry-run"],
        &["check-config"],
        &["restore", "host", "--to", "/nonexistent", "--dry-run"],
        &["generate", "config"],
    ] {
        let ran = to_no_end(&machine, words, true).expect(4);
        assert_eq!(ran.says("cannot write to standard output").stderr.lines().count(), 1);
        let ran = to_no_end(&machine, words, false).expect(0);
        assert_eq!(ran.stderr, "", "{words:?}");
    }
    // Nor does anything panic that cannot say what is wrong.
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let ran =
        bounded(&machine.command(&["list", "-vvv"])).stderr(full()).stdout(Stdio::piped()).output();
    Ran::from(ran.unwrap()).expect(0).says("host");
    let ran = bounded(&machine.command(&["run"])).stderr(full()).stdout(full()).output().unwrap();
    assert!(matches!(ran.status.code(), Some(0 | 4)), "{ran:?}");
    machine.assert_clean();
}

#[test]
fn owners_come_back_by_number_where_names_mean_others() {
    let machine = copied(|src| chown(src.join("hello.txt"), Some(33), Some(33)).unwrap());
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    machine.write("passwd", &passwd.replace(":x:33:33:", ":x:4033:4033:"), 0o644);
    for target in ["b", "r"] {
        let to = machine.path(&format!("to-{target}"));
        let script = format!(
            "mount --bind {} /etc/passwd && exec {} -c {} restore host --target {target} --to {}",
            machine.path("passwd").display(),
            crate::bench_machine::PROGRAM,
            machine.path("stillpoint.toml").display(),
            to.display()
        );
        must("unshare", &["-m", "sh", "-c", &script]);
        let back = to.join(machine.path("src/hello.txt").strip_prefix("/").unwrap());
        assert_eq!(back.metadata().unwrap().uid(), 33, "{target}");
    }
}

#[test]
fn a_killed_restore_leaves_what_was_there_and_recover_takes_the_rest_away() {
    let machine = copied(|_| ());
    let slow = machine.script(
        "slow-restic",
        "for word; do test \"$word\" = restore && { restic \"$@\"; exec sleep 600; }; done; exec restic \"$@\"",
    );
    set_restic(&machine, &slow);
    let src = machine.path("src");
    machine.write("src/hello.txt", "changed", 0o644);
    let path = src.to_str().unwrap();
    let args = ["restore", "host", "latest", path, "--in-place", "--target", "r"];
    let mut restoring =
        machine.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // What was laid out nobody but root sees, nor does it have its place yet.
    let staging = || {
        let found = fs::read_dir("/").unwrap().map(|entry| entry.unwrap().path());
        found
            .filter(|path| path.to_string_lossy().starts_with("/.stillpoint-restore-"))
            .find(|path| path.join(src.strip_prefix("/").unwrap()).join("hello.txt").exists())
    };
    assert!(wait_until(&mut restoring, || staging().is_some()));
    let staged = staging().unwrap();
    assert_eq!(staged.metadata().unwrap().mode() & 0o7777, 0o700);
    restoring.kill().unwrap();
    restoring.wait().unwrap();
    assert_eq!(fs::read_to_string(src.join("hello.txt")).unwrap(), "changed");
    machine.run(&["recover"]).expect(0).says("released what run");
    assert!(!staged.exists());
    assert_eq!(fs::read_to_string(src.join("hello.txt")).unwrap(), "changed");
    machine.assert_clean();
}

/// The names and contents of all files below a directory.
fn contents(at: &Path) -> String {
    let at = at.to_str().unwrap();
    must("find", &[at, "-type", "f", "-exec", "sha256sum", "{}", "+"])
}

/// The copy holds the state directory, the runtime directory and a repository as they were once.
#[test]
fn what_is_in_use_stays_as_it_is_by_whatever_name_it_is_reached() {
    for link in [None, Some("leads-to-state")] {
        let all = "\"{root}\"]\nexclude = [\"{root}/repo-b\", \"{root}/repo-r\"]";
        let machine = Machine::bare(&HOST.replace("\"{root}/src\"]", all));
        // Either the state directory itself lies in what is copied, or a link that the settings name.
        let state = match link {
            None => machine.path("state"),
            Some(name) => {
                fs::create_dir(machine.path("real-state")).unwrap();
                symlink("real-state", machine.path(name)).unwrap();
                let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
                let named = machine.path("state").display().to_string();
                let text = text.replace(&named, &machine.path(name).display().to_string());
                machine.write("stillpoint.toml", &text, 0o600);
                machine.path("real-state")
            }
        };
        machine.run(&["init", "b", "r"]).expect(0);
        machine.write("later-a-repository/data/0/0", "not yet one", 0o600);
        machine.write("disk/www/index", "then", 0o644);
        let of_then = state.join("of-then");
        fs::write(&of_then, "then").unwrap();
        // History and the ledger change while they are read, which the engines tell.
        let ran = machine.run(&["run"]);
        assert!(matches!(ran.code, Some(0 | 12)), "{}", ran.stderr);

        fs::remove_file(&of_then).unwrap();
        fs::remove_dir_all(machine.path("later-a-repository")).unwrap();
        let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
        let more = format!(
            "{text}\n[targets.c.restic]\nrepository = \"{}\"\npassword-file = \"{}\"\n",
            machine.path("later-a-repository").display(),
            machine.path("pass").display()
        );
        machine.write("stillpoint.toml", &more, 0o600);
        machine.run(&["init", "c"]).expect(0);
        if let Some(name) = link {
            // In the copy, it led elsewhere.
            fs::rename(&state, machine.path("moved-state")).unwrap();
            fs::remove_file(machine.path(name)).unwrap();
            symlink("moved-state", machine.path(name)).unwrap();
        }
        let state = if link.is_some() { machine.path("moved-state") } else { state };
        let history = state.join("history.sqlite");
        let before =
            (history.metadata().unwrap().ino(), contents(&machine.path("later-a-repository")));
        for target in ["b", "r"] {
            machine.write("src/hello.txt", "changed", 0o644);
            // The configuration is a file like any other one, and comes back as it was each time.
            let configure = || machine.write("stillpoint.toml", &more, 0o600);
            configure();
            let ran = in_place(&machine, target, machine.root.path()).expect(12);
            let ran = ran.says("later-a-repository is the repository of target c, which is in use");
            let ran = match link {
                None => ran.says("state is the state directory, which is in use, so it stays"),
                Some(_) => ran.says("leads-to-state is a link to the state directory, which is in"),
            };
            ran.says("run is the runtime directory");
            assert_eq!(fs::read_to_string(machine.path("src/hello.txt")).unwrap(), "hello\n");
            assert!(!state.join("of-then").exists());
            assert_eq!(fs::read_dir(state.join("ledger")).unwrap().count(), 0, "no old ledger");
            let after =
                (history.metadata().unwrap().ino(), contents(&machine.path("later-a-repository")));
            assert_eq!(before, after, "{target}");
            machine.run(&["recover"]).expect(0);

            let only = state.join("of-then");
            if link.is_none() {
                let ran = in_place(&machine, target, &only).expect(3);
                ran.says("nothing was restored").says("--to");
                assert!(!only.exists());
                let all = ["restore", "host", "--in-place", "--yes", "--target", target];
                let plan = machine.run(&[&all[..], &["--dry-run"]].concat()).expect(0);
                plan.says("state is the state directory, which is in use");
                configure();
                let ran = machine.run(&[&all[..], &["--json"]].concat()).expect(12);
                let warnings = ran.json()["warnings"].to_string();
                assert!(warnings.contains("is the state directory"), "{warnings}");
            }
        }
        machine.run(&["list"]).expect(0).says("host");
        if link.is_none() {
            a_named_path_that_gets_nothing_is_a_failure(&machine, &more);
        }
    }
}

/// One of two paths lies behind a link to a repository, where the copy has a directory, or in a repository.
fn a_named_path_that_gets_nothing_is_a_failure(machine: &Machine, config: &str) {
    fs::rename(machine.path("disk"), machine.path("real-disk")).unwrap();
    symlink("real-disk", machine.path("disk")).unwrap();
    machine.write("real-disk/www/index", "now", 0o644);
    let more = format!(
        "{config}\n[targets.d.restic]\nrepository = \"{}\"\npassword-file = \"{}\"\n",
        machine.path("disk/repo-d").display(),
        machine.path("pass").display()
    );
    machine.write("stillpoint.toml", &more, 0o600);
    machine.run(&["init", "d"]).expect(0);
    let src = machine.path("src");
    for target in ["b", "r"] {
        for (name, told) in [
            ("disk/www", "disk: it is a link to the repository of target d, which is in use"),
            ("later-a-repository/data", "later-a-repository/data was not restored; "),
        ] {
            machine.write("src/hello.txt", "changed", 0o644);
            let other = machine.path(name);
            let paths = [src.to_str().unwrap(), other.to_str().unwrap()];
            let args = ["restore", "host", "latest", paths[0], paths[1], "--in-place"];
            let ran = machine.run(&[&args[..], &["--target", target]].concat()).expect(10);
            ran.says(told).says(machine.path(name.split('/').next().unwrap()).to_str().unwrap());
            assert_eq!(fs::read_to_string(machine.path("src/hello.txt")).unwrap(), "hello\n");
        }
        assert_eq!(fs::read_to_string(machine.path("real-disk/www/index")).unwrap(), "now");
        assert!(machine.path("disk").is_symlink());
        assert!(!machine.path("later-a-repository/data/0/0").exists());
    }
}

/// What is mounted elsewhere, and the whole machine laid out over itself.
#[test]
fn a_bind_mount_does_not_hide_what_is_in_use() {
    let machine = copied(|src| {
        fs::create_dir_all(src.join("bound/ledger")).unwrap();
        fs::write(src.join("bound/ledger/f"), "of old").unwrap();
        fs::create_dir(src.join("part")).unwrap();
        fs::write(src.join("part/f"), "of old").unwrap();
    });
    let bound = Bound::new(&machine.path("state"), machine.path("src/bound"));
    let part = Bound::new(&machine.path("repo-b/data"), machine.path("src/part"));
    for target in ["b", "r"] {
        let args = ["restore", "host", "--target", target];
        let ran = in_place(&machine, target, &machine.path("src")).expect(12);
        ran.says("src/bound is the state directory").says("src/part is a part of the repository");
        let ran = machine.run(&[&args[..], &["--to", "/", "--into-existing"]].concat()).expect(12);
        ran.says("src/bound is the state directory").says("src/part is a part of the repository");
        for at in [&bound.at, &part.at] {
            assert!(!at.join("f").exists() && !at.join("ledger/f").exists());
            let to = at.join("below");
            let to = to.to_str().unwrap();
            for more in [&["--to", to][..], &["--to", at.to_str().unwrap(), "--into-existing"]] {
                let ran = machine.run(&[&args[..], more].concat()).expect(2);
                ran.says("which is in use, so nothing was restored there").says("outside of it");
            }
            assert!(!at.join("below").exists());
        }
        for name in ["state", "run", "cache", "repo-b", "repo-r"] {
            let to = machine.path(name).join("new");
            let ran = machine.run(&[&args[..], &["--to", to.to_str().unwrap()]].concat()).expect(2);
            ran.says("lies in the ").says(machine.path(name).to_str().unwrap());
            assert!(!to.exists());
        }
    }
    drop((bound, part));
    machine.assert_clean();
}

/// Mounts a file system anew.
fn remount(at: &Path, option: &str) {
    must_at_last("mount", &["-o", &format!("remount,{option}"), at.to_str().unwrap()]);
}

#[test]
fn where_nothing_can_be_stored_the_rest_is_restored_and_the_place_is_named() {
    let machine = Machine::new(HOST);
    let src = machine.path("src");
    let disk = Disk::new(&machine, "ext4", 20, "src/disk");
    let btrfs = Disk::new(&machine, "btrfs", 120, "src/btrfs");
    let inner = btrfs.at.join("inner");
    must("btrfs", &["subvolume", "create", inner.to_str().unwrap()]);
    let places = [&src, &disk.at, &btrfs.at, &inner];
    for at in places {
        fs::create_dir(at.join("d")).unwrap();
        fs::write(at.join("f"), "as it was").unwrap();
        fs::write(at.join("d/g"), "as it was").unwrap();
    }
    machine.run(&["run"]).expect(0);
    let property = |value: &str| {
        must("btrfs", &["property", "set", inner.to_str().unwrap(), "ro", value]);
    };
    for target in ["b", "r"] {
        for at in places {
            fs::write(at.join("f"), "changed").unwrap();
            fs::remove_dir_all(at.join("d")).unwrap();
        }
        remount(&disk.at, "ro");
        property("true");
        let ran = in_place(&machine, target, &src).expect(10);
        let ran = ran.says(&format!("mount -o remount,rw {}", disk.at.display()));
        let ran = ran.says(&format!("btrfs property set {} ro false", inner.display()));
        assert!(!ran.stderr.contains(".stillpoint-restore-"), "{}", ran.stderr);
        for (at, word) in places.into_iter().zip(["as it was", "changed", "as it was", "changed"]) {
            assert_eq!(fs::read_to_string(at.join("f")).unwrap(), word, "{}", at.display());
            assert_eq!(at.join("d/g").exists(), word == "as it was");
        }
        let only = disk.at.join("f");
        in_place(&machine, target, &only).expect(4).says("nothing was restored").says("remount,rw");
        let args = ["restore", "host", "--target", target, "--to"];
        for to in [disk.at.join("new"), disk.at.clone()] {
            let into = [&args[..], &[to.to_str().unwrap(), "--into-existing"]].concat();
            machine.run(&into).expect(4).says("remount,rw").says("--to");
        }
        remount(&disk.at, "rw");
        property("false");
        in_place(&machine, target, &src).expect(0);
        for at in places {
            assert_eq!(fs::read_to_string(at.join("d/g")).unwrap(), "as it was");
        }
        no_staging_below(machine.root.path());
    }
    machine.assert_clean_except(&src);
}

#[test]
fn what_cannot_be_replaced_or_written_to_is_told_with_what_to_do() {
    let machine = Machine::new(HOST);
    let src = machine.path("src");
    let disk = Disk::new(&machine, "ext4", 20, "src/disk");
    for path in ["fixed/below", "file"] {
        fs::create_dir_all(disk.at.join("fixed")).unwrap();
        fs::write(disk.at.join(path), "as it was").unwrap();
    }
    symlink("hello.txt", src.join("link")).unwrap();
    must("mkfifo", &[src.join("pipe").to_str().unwrap()]);
    machine.run(&["run"]).expect(0);
    let bound = Bound::new(&machine.path("pass"), src.join("hello.txt"));
    let fixed = disk.at.join("fixed");
    let file = disk.at.join("file");
    for path in [&fixed, &file] {
        must("chattr", &["+i", path.to_str().unwrap()]);
    }
    symlink("nowhere", machine.path("dangling")).unwrap();
    for target in ["b", "r"] {
        let ran = in_place(&machine, target, &src).expect(10);
        let ran = ran.says(&format!("umount {}", bound.at.display()));
        let ran = ran.says(&format!("{}: it is immutable", file.display()));
        let ran = ran.says(&format!("chattr -i {}", file.display()));
        ran.says("its directory is immutable").says(&format!("chattr -i {}", fixed.display()));

        let args = ["restore", "host", "--target", target, "--to"];
        let to = |to: &Path| machine.run(&[&args[..], &[to.to_str().unwrap()]].concat());
        to(&machine.path("dangling")).expect(2).says("dangling is a symbolic link that leads to");
        to(&machine.path("dangling/x")).expect(2).says("dangling is a symbolic link that leads");
        assert!(!machine.path("nowhere").exists());
        let ran = to(Path::new("/proc/x")).expect(4).says("generated by the kernel").says("--to");
        assert!(!ran.stderr.contains("--ignore-space"), "{}", ran.stderr);

        for (path, what) in
            [("link", "is a symbolic link"), ("pipe", "is a pipe"), ("many", "is a directory")]
        {
            let path = src.join(path);
            let path = path.to_str().unwrap();
            let args = ["restore", "host", "latest", path, "--stdout", "--target", target];
            let ran = machine.run(&args).expect(10).says(what).says("--to");
            assert_eq!(ran.stdout, "");
        }
    }
    for path in [&fixed, &file] {
        must("chattr", &["-i", path.to_str().unwrap()]);
    }
}

#[test]
fn paths_that_lie_in_one_another_or_come_twice_are_restored_once() {
    for machine in machines(|src| {
        fs::create_dir_all(src.join("a/b/c")).unwrap();
        for path in ["a/f", "a/b/f", "a/b/c/f", "ab"] {
            fs::write(src.join(path), "as it was").unwrap();
        }
    }) {
        let src = machine.path("src");
        for target in ["b", "r"] {
            for asked in [&["a/b", "a", "a/b/c/f", "a"][..], &["a/b/c/f", "a/b/c/f", "a/b"]] {
                for path in ["a/f", "a/b/f", "a/b/c/f", "ab"] {
                    fs::write(src.join(path), "changed").unwrap();
                }
                let asked: Vec<String> =
                    asked.iter().map(|path| src.join(path).display().to_string()).collect();
                let mut args = vec!["restore", "host", "latest"];
                args.extend(asked.iter().map(String::as_str));
                args.extend(["--in-place", "--target", target]);
                machine.run(&args).expect(0);
                let is_back =
                    |path: &str| fs::read_to_string(src.join(path)).unwrap() == "as it was";
                assert!(is_back("a/b/f") && is_back("a/b/c/f"), "{target}");
                assert_eq!(is_back("a/f"), asked.len() == 4, "{target}");
                assert!(!is_back("ab"), "nobody asked for it");
            }
        }
    }
}

/// Killed again and again while files take their places, until some of them have and some have not.
#[test]
fn a_restore_that_is_killed_leaves_the_old_or_the_new_of_every_file() {
    const FILES: usize = 4000;
    let word = |age: &str, number: usize| format!("{age} {number}\n").repeat(50);
    let machine = copied(|src| {
        for number in 0..FILES {
            fs::write(src.join(format!("many/{number}")), word("then", number)).unwrap();
        }
    });
    let many = machine.path("src/many");
    for target in ["b", "r"] {
        let mut met_both = false;
        for round in 0..20 {
            for number in 0..FILES {
                fs::write(many.join(number.to_string()), word("now", number)).unwrap();
            }
            let path = many.to_str().unwrap();
            let args = ["restore", "host", "latest", path, "--in-place", "--target", target];
            let mut restoring =
                machine.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // Nobody knows when it is this one's turn.
            let watched = round * 577 % FILES;
            let at = many.join(watched.to_string());
            while restoring.try_wait().unwrap().is_none()
                && fs::read_to_string(&at).unwrap() == word("now", watched)
            {}
            restoring.kill().unwrap();
            restoring.wait().unwrap();
            let then = (0..FILES).filter(|&number| {
                let found = fs::read_to_string(many.join(number.to_string())).unwrap();
                let is_then = found == word("then", number);
                assert!(is_then || found == word("now", number), "{target}: {number} is {found:?}");
                is_then
            });
            let then = then.count();
            assert!(then > 0, "{target}: killed before anything was moved");
            assert_eq!(fs::read_dir(&many).unwrap().count(), FILES, "nothing is gone or new");
            machine.run(&["recover"]).expect(0);
            no_staging_below(machine.root.path());
            met_both |= then < FILES;
            if met_both && round >= 2 {
                break;
            }
        }
        assert!(met_both, "{target}: no kill came while files were moved");
        machine.assert_clean();
    }
}
