//! Who comes from btrfs-backup-ng: the real program, of the version that `STILLPOINT_BTRFS_BACKUP_NG` names (`tests/run`
//! does), makes snapshots of a subvolume and sends them. Its configuration is imported, what it has received is adopted,
//! and nothing of it is sent again or deleted.

#![allow(clippy::print_stderr)] // what was not run is said loudly

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::{DateTime, TimeDelta, Utc};

use crate::bench_machine::{Ran, assert_same_tree, command, must, names_in, torture, wait_for};
use crate::btrfs::{Disk, inside};
use crate::existing::{Snapper, assert_same_files, made_at};
use crate::subvolumes::{Scene, closed_directory, configure, disks, made, shown, uuid};

/// A zone that is half an hour off, so that no other one is taken for it.
const ZONE: &str = "Asia/Kolkata";

/// The program with its configuration.
struct Ng {
    program: PathBuf,
    conf: PathBuf,
}

/// The program; `None` where there is none, which is said.
pub fn program() -> Option<PathBuf> {
    let program = std::env::var_os("STILLPOINT_BTRFS_BACKUP_NG").map(PathBuf::from);
    if program.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "there is no btrfs-backup-ng");
        eprintln!("!!! NOT RUN with btrfs-backup-ng: STILLPOINT_BTRFS_BACKUP_NG is not set");
    }
    program
}

/// A machine with a subvolume, an empty directory of another btrfs, and the program with the beginning of its
/// configuration; `None` where there is no such program.
fn scene(global: &str, targets: &str) -> Option<(Scene, Ng)> {
    let program = program()?;
    let scene = disks("t", 600);
    let root = scene.machine.path("");
    let conf = format!(
        "[global]\n{global}\n[[volumes]]\npath = \"{{root}}/disk/home\"\nsnapshot_prefix = \"home-\"\n[[volumes.targets]]\npath = \"{{root}}/copies/t\"\n{targets}\n"
    );
    scene.machine.write("ng.toml", &conf.replace("{root}", root.to_str().unwrap()), 0o600);
    let ng = Ng { program, conf: scene.machine.path("ng.toml") };
    Some((scene, ng))
}

impl Ng {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = command(&self.program);
        command.arg("-c").arg(&self.conf).args(words).env("TZ", ZONE).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn does(&self, words: &[&str]) {
        Ran::from(self.command(words).output().unwrap()).expect(0);
    }

    /// Has it make a snapshot of this content and send it.
    #[track_caller]
    fn takes(&self, scene: &Scene, round: &str) {
        fs::write(scene.home().join("round"), round).unwrap();
        self.does(&["run"]);
    }
}

/// What a machine of that zone does: its zone is that of a file, in whose place another one is for nobody else.
fn run(scene: &Scene, words: &[&str]) -> Ran {
    let plain = scene.machine.command(words);
    let script = format!(
        "mount --bind /usr/share/zoneinfo/{ZONE} \"$(readlink -f /etc/localtime)\" && exec \"$@\""
    );
    let mut there = command("unshare");
    there.args(["--mount", "sh", "-c", &script, "sh"]).stdin(Stdio::null());
    there.arg(plain.get_program()).args(plain.get_args()).output().unwrap().into()
}

/// Its configuration as ours, with the target under the name `t`.
fn imported(scene: &Scene, ng: &Ng) -> String {
    let printed = run(scene, &["import", "btrfs-backup-ng", ng.conf.to_str().unwrap()]).expect(0);
    printed.stdout.replace("copies-t", "t")
}

/// The subvolumes in a directory, by their names.
fn names(below: &Path) -> Vec<String> {
    let mut names = names_in(below);
    names.retain(|name| !name.starts_with('.'));
    names
}

/// The moments of the copies in the target, by their ids.
fn times(scene: &Scene) -> Vec<(String, DateTime<Utc>)> {
    let list = run(scene, &["--json", "list", "--target", "t"]).expect(0).json();
    let of = |copy: &serde_json::Value| {
        let [id, time] = ["id", "time"].map(|key| copy[key].as_str().unwrap().to_owned());
        (id, time.parse().unwrap())
    };
    list["copies"].as_array().unwrap().iter().map(of).collect()
}

/// All of a directory that is a btrfs, as it lies there.
fn subvolumes(disk: &Disk) -> Vec<String> {
    let listed = must("btrfs", &["subvolume", "list", "-u", "-q", "-R", disk.at.to_str().unwrap()]);
    listed.lines().map(|line| line.rsplit(" top level ").next().unwrap().to_owned()).collect()
}

#[test]
fn what_btrfs_backup_ng_sent_becomes_copies_and_the_next_run_sends_a_difference_to_them() {
    let raw = "[[volumes.targets]]\npath = \"raw://{root}/plain/raw\"\ncompress = \"zstd\"";
    let Some((scene, ng)) = scene("retention = {keep = 3, min = \"0s\"}", raw) else { return };
    fs::create_dir_all(scene.machine.path("plain/raw")).unwrap();
    torture(&scene.home());
    scene.fill("big", 20);
    ng.takes(&scene, "1\n");
    // A name holds seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    ng.takes(&scene, "2\n");
    let snapshots = scene.home().join(".snapshots");
    let [first, second]: [String; 2] = names(&snapshots).try_into().unwrap();
    assert_eq!(names(&scene.copies.at.join("t")), [first.as_str(), &second]);
    let streams = names(&scene.machine.path("plain/raw"));
    assert!(streams.contains(&format!("{second}.btrfs.zst")), "{streams:?}");
    let base = shown(&scene.copy(&second), "Parent UUID:");
    assert_eq!(base, uuid(&scene.copy(&first)), "it sends differences, too");

    configure(&scene.machine, &imported(&scene, &ng));
    run(&scene, &["check-config"]).expect(0);
    closed_directory(scene.machine.path("plain/raw/stillpoint"));
    run(&scene, &["init", "t", "plain-raw"]).expect(0);
    let (here, there) = (subvolumes(&scene.disk), subvolumes(&scene.copies));
    let adopted = run(&scene, &["adopt", "t", "--yes"]).expect(0);
    adopted.says(&format!("verify home -- {second}"));
    assert_eq!(scene.machine.copies("t"), [first.as_str(), &second]);
    assert_eq!(subvolumes(&scene.copies), there, "nothing is renamed, moved or changed");
    // Their names hold the time of the machine's zone.
    for (id, time) in times(&scene) {
        let late = made_at(&snapshots.join(&id)) - time;
        assert!((0..=2).contains(&late.num_seconds()), "{id}: {late}");
    }
    let to = scene.machine.path("back");
    fs::create_dir(&to).unwrap();
    run(&scene, &["restore", "home", &first, "--to", to.to_str().unwrap()]).expect(0);
    assert_same_tree(&inside(&to, scene.home()), &snapshots.join(&first));
    run(&scene, &["verify", "home", "--target", "t", "--", &second]).expect(0);

    fs::write(scene.home().join("round"), "ours\n").unwrap();
    let ran = run(&scene, &["--json", "run"]).expect(0);
    let (third, sent) = made(&ran);
    assert!(sent < 1 << 20, "{sent} bytes, although the target has all but a line");
    assert_eq!(shown(&scene.copy(&third), "Parent UUID:"), uuid(&scene.copy(&second)));
    assert_eq!(fs::read_to_string(scene.copy(&third).join("round")).unwrap(), "ours\n");
    run(&scene, &["verify", "home", "--target", "t", "--", &third]).expect(0);
    let stored = &ran.json()["jobs"][0]["targets"][1];
    assert!(stored["bytes_new"].as_u64().unwrap() > 20 << 20, "its streams are not seen: {stored}");
    assert_eq!(names(&scene.machine.path("plain/raw")), with(&streams, "stillpoint"));

    // By its policy, three stay; what was adopted is pinned, and its snapshots here are nobody's to delete.
    run(&scene, &["prune", "--accept"]).expect(0);
    for n in 0..3 {
        fs::write(scene.home().join("round"), format!("ours {n}\n")).unwrap();
        run(&scene, &["run"]).expect(0);
    }
    let left = scene.machine.copies("t");
    assert_eq!((&left[..2], left.len()), (&[first.clone(), second.clone()][..], 5));
    assert!(!left.contains(&third), "{left:?}");
    let here_now: BTreeSet<String> = subvolumes(&scene.disk).into_iter().collect();
    assert!(here.iter().all(|it| here_now.contains(it)), "{here:?} {here_now:?}");
    assert_eq!(scene.kept(), 3);
    run(&scene, &["check", "--target", "t", "--read-data", "100%"]).expect(0);
}

/// These names and another one, in order.
fn with(names: &[String], another: &str) -> Vec<String> {
    let mut names: Vec<String> = names.iter().cloned().chain([another.to_owned()]).collect();
    names.sort();
    names
}

#[test]
fn what_btrfs_backup_ng_goes_on_making_is_sent_and_never_deleted() {
    // The second one of a day gets a number, and no name holds a time.
    let format = "timestamp_format = \"%Y-%m-%d\"";
    let Some((scene, ng)) = scene(format, "") else { return };
    scene.fill("big", 20);
    ng.takes(&scene, "1\n");
    ng.takes(&scene, "2\n");
    let snapshots = scene.home().join(".snapshots");
    let imported = imported(&scene, &ng);
    let existing = format!("existing = [\"{}/*\"]\nsend = \"all\"\n", snapshots.display());
    configure(
        &scene.machine,
        &imported.replace("leave-out = ", &format!("{existing}leave-out = ")),
    );
    let text = fs::read_to_string(scene.machine.path("stillpoint.toml")).unwrap();
    let (before, keep) = text.split_once(".keep-snapshots]").unwrap();
    let (_, keep) = keep.split_once("[jobs.").unwrap();
    let before = before.rsplit_once("[jobs.").unwrap().0;
    scene.machine.write("stillpoint.toml", &format!("{before}[jobs.{keep}"), 0o600);
    run(&scene, &["check-config"]).expect(0);
    run(&scene, &["init", "t"]).expect(0);
    run(&scene, &["adopt", "t", "--trust", "--unpinned", "--yes"]).expect(0);
    // They are of the moments at which their snapshots were made, not of that at which they were received.
    let there = times(&scene);
    assert_eq!(there.len(), 2);
    for (id, time) in &there {
        let moment = made_at(&snapshots.join(id));
        assert!((*time - moment).abs() < TimeDelta::seconds(1), "{id}: {time}, {moment}");
    }
    let ran = run(&scene, &["--json", "run"]).expect(0);
    assert_eq!(ran.json()["outcome"], "skipped", "{}", ran.stdout);
    ran.says(&format!("as {}", there[1].0));

    fs::write(scene.home().join("round"), "3\n").unwrap();
    ng.does(&["snapshot"]);
    let all = names(&snapshots);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[1].ends_with("_1") && all[2].ends_with("_2"), "{all:?}");
    let ran = run(&scene, &["--json", "run"]).expect(0);
    let (copy, sent) = made(&ran);
    assert!(sent < 100 << 10, "{sent}");
    assert_eq!(shown(&scene.copy(&copy), "Parent UUID:"), uuid(&scene.copy(&there[1].0)));
    assert_same_files(&snapshots.join(&all[2]), &scene.copy(&copy));
    let text = fs::read_to_string(scene.machine.path("stillpoint.toml")).unwrap();
    let policy = text.split_once(".keep.t]\n").unwrap().0;
    scene.machine.write("stillpoint.toml", &format!("{policy}.keep.t]\nlast = 1\n"), 0o600);
    run(&scene, &["prune", "--accept"]).expect(0);
    assert_eq!(scene.machine.copies("t"), [copy]);
    assert_eq!(names(&snapshots), all, "its snapshots are not ours");
    scene.disk.assert_no_snapshot();
    // It takes its own place again, where nothing of ours is in its way.
    ng.takes(&scene, "4\n");
}

#[test]
fn a_transfer_that_was_cut_off_is_told_of_and_is_no_copy() {
    let Some((scene, ng)) = scene("", "") else { return };
    scene.fill("big", 20);
    ng.takes(&scene, "1\n");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scene.fill("more", 20);
    let shim = scene.machine.path("shim");
    fs::create_dir(&shim).unwrap();
    scene.machine.script(
        "shim/btrfs",
        "case \" $* \" in *\" receive \"*) kill -KILL $PPID; head -c 3000000 | /usr/bin/btrfs \"$@\"; exit;; esac\nexec /usr/bin/btrfs \"$@\"",
    );
    let path = format!("{}:{}", shim.display(), std::env::var("PATH").unwrap());
    let killed = ng.command(&["run"]).env("PATH", path).output().unwrap();
    assert_eq!(killed.status.code(), None, "{killed:?}");
    let [first, second]: [String; 2] = names(&scene.home().join(".snapshots")).try_into().unwrap();
    let half = scene.copy(&second);
    wait_for("the half of it", || half.join("big").exists());
    let printed = imported(&scene, &ng);
    let told = format!("sending {second} to {} was cut off", scene.copies.path("t"));
    assert!(printed.contains(&told), "{told}\n{printed}");
    assert!(!printed.contains(&format!("sending {first}")), "{printed}");
    configure(&scene.machine, &printed);
    run(&scene, &["init", "t"]).expect(0);
    let adopted = run(&scene, &["adopt", "t", "--trust", "--yes"]).expect(0);
    adopted.says(&format!("{second}: it was not received whole"));
    assert_eq!(scene.machine.copies("t"), [first.as_str()]);
    let (copy, _) = made(&run(&scene, &["--json", "run"]).expect(0));
    assert_eq!(shown(&scene.copy(&copy), "Parent UUID:"), uuid(&scene.copy(&first)));
    assert_same_files(&scene.home(), &scene.copy(&copy));
    assert!(half.exists(), "what is not ours stays until a person deletes it");
}

#[test]
fn what_btrfs_backup_ng_sent_of_snappers_is_adopted_where_it_lies() {
    let own = "source = \"snapper\"\nsnapper = {min_age = \"0s\"}\n";
    let Some((scene, ng)) = scene("", "") else { return };
    scene.fill("big", 20);
    let snapper = Snapper::new(&scene);
    let conf = fs::read_to_string(&ng.conf).unwrap();
    fs::write(&ng.conf, conf.replace("[[volumes.targets]]", &format!("{own}[[volumes.targets]]")))
        .unwrap();
    let first = snapper.makes();
    ng.does(&["run"]);
    fs::write(scene.home().join("second"), "2").unwrap();
    let second = snapper.makes();
    ng.does(&["run"]);
    configure(&scene.machine, &imported(&scene, &ng));
    run(&scene, &["check-config"]).expect(0);
    must("chmod", &["go-rwx", &scene.copies.path("t/.snapshots")]);
    run(&scene, &["init", "t"]).expect(0);
    run(&scene, &["adopt", "t", "--trust", "--yes"]).expect(0);
    let [one, two] = [&first, &second].map(|number| format!("{number}/snapshot"));
    assert_eq!(scene.machine.copies("t"), [one.as_str(), &two]);
    let ran = run(&scene, &["--json", "run"]).expect(0);
    assert_eq!(ran.json()["outcome"], "skipped", "{}", ran.stdout);
    fs::write(scene.home().join("third"), "3").unwrap();
    let third = snapper.makes();
    let (copy, sent) = made(&run(&scene, &["--json", "run"]).expect(0));
    assert!(sent < 100 << 10, "{sent}");
    let at = |id: &str| scene.copies.at.join("t/.snapshots").join(id);
    assert_eq!(shown(&at(&copy), "Parent UUID:"), uuid(&at(&two)));
    assert_same_files(&snapper.at(&third), &at(&copy));
    for (id, number) in [(&one, &first), (&two, &second)] {
        assert_same_files(&snapper.at(number), &at(id));
    }
}

#[test]
fn what_it_prints_as_the_beginning_of_a_configuration_is_imported() {
    let Some((scene, ng)) = scene("", "") else { return };
    let mut init = command(&ng.program);
    let printed = Ran::from(init.args(["config", "init"]).output().unwrap()).expect(0).stdout;
    // With all that stands there in comments.
    let is_key = |line: &str| {
        let name = line.split_once(" = ").map_or("", |(name, _)| name);
        let is_name = |name: &str| name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
        line.starts_with('[') || !name.is_empty() && is_name(name) || line.starts_with("Author")
    };
    let lines = printed.lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if is_key(key) => key,
        _ => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(text.matches("[[volumes]]").count() == 3 && text.contains("\nmin_age = "), "{text}");
    fs::write(&ng.conf, text).unwrap();
    let validated = Ran::from(ng.command(&["config", "validate"]).output().unwrap());
    validated.says("Volumes: 3").says("structure: valid");
    let ours = imported(&scene, &ng);
    assert!(!ours.contains("is not known"), "{ours}");
    configure(&scene.machine, &ours);
    run(&scene, &["check-config"]).expect(0);
}
