//! Copies that are subvolumes: looked into, and restored as what they were.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::bench_machine::{
    HOST, Machine, PROGRAM, Ran, assert_same_tree, command, family_of, kill_one_of, must,
    processes_about, torture, wait_for_no_process_about, wait_until,
};
use crate::btrfs::Disk;
use crate::subvolumes::{Scene, configure, scene, set_read_only, shown, uuid};

fn mount_line(at: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().find(|line| line.split(' ').nth(4) == at.to_str()).map(str::to_owned)
}

/// Mounts the newest copy and waits until that is said.
fn show(scene: &Scene, at: &Path) -> Child {
    let text = at.to_str().unwrap();
    let mut verb = scene.machine.start(&["mount", "home", text]);
    let mut said = String::new();
    BufReader::new(verb.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains(&format!("is at {text} until")), "{said}");
    verb
}

#[test]
fn a_copy_is_shown_until_it_is_unmounted_and_nobody_can_write_to_it() {
    let scene = scene(300);
    torture(&scene.home());
    fs::write(scene.home().join("a name\nof two lines"), "x").unwrap();
    let (copy, _) = scene.run();
    let at = scene.machine.path("a copy");
    fs::create_dir(&at).unwrap();
    let text = at.to_str().unwrap();

    let verb = show(&scene, &at);
    assert_same_tree(&scene.home(), &at);
    let line = mount_line(Path::new(&text.replace(' ', "\\040"))).unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(line.split(' ').nth(5).unwrap().split(',').any(|it| it == option), "{line}");
    }
    // Whoever owns it could make it writable by a mount that can be written through.
    let made = command("btrfs").args(["property", "set", "-f", text, "ro", "false"]).output();
    assert!(!made.unwrap().status.success(), "it was made writable");
    scene.machine.run(&["recover"]).expect(0).says("nothing to release");
    scene.machine.run(&["mount", "home", text]).expect(2).says("not an empty directory");
    must("umount", &[text]);
    Ran::from(verb.wait_with_output().unwrap()).expect(0);

    // Somebody looks around in it meanwhile.
    let verb = show(&scene, &at);
    let mut user = command("sleep").arg("300").current_dir(&at).spawn().unwrap();
    must("kill", &["-INT", &verb.id().to_string()]);
    Ran::from(verb.wait_with_output().unwrap()).expect(130);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "it is mounted still");

    let mut verb = show(&scene, &at);
    must("kill", &["-KILL", &verb.id().to_string()]);
    verb.wait().unwrap();
    assert_same_tree(&scene.home(), &at);
    scene.machine.run(&["recover"]).expect(0).says("released what run");
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "it is mounted still");

    // A person's own mount of another subvolume, which has got its number, stays.
    let mut verb = show(&scene, &at);
    must("kill", &["-KILL", &verb.id().to_string()]);
    verb.wait().unwrap();
    must("umount", &[text]);
    must("mount", &["--bind", &scene.disk.path("home"), text]);
    scene.machine.run(&["recover"]).expect(0);
    assert_eq!(uuid(&at), uuid(&scene.home()), "a person's mount is gone");
    must("umount", &[text]);
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!(scene.machine.copies("t"), [copy]);
    scene.machine.assert_clean_except(&scene.machine.path(""));
}

/// What is in the copies' file system and the source's that was there neither before nor is what is named.
fn leftovers(scene: &Scene) -> Vec<String> {
    let of_a_restore = |name: &String| name.contains(".stillpoint-restore-");
    let mut left: Vec<String> = scene.disk.subvolumes().into_iter().filter(of_a_restore).collect();
    for directory in [&scene.disk.at, &scene.home(), &scene.machine.path("")] {
        let names = fs::read_dir(directory).into_iter().flatten();
        let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        left.extend(names.filter(of_a_restore));
    }
    left
}

/// What lay somewhere before a restore, beside it.
fn kept_aside(scene: &Scene) -> Vec<String> {
    let names = scene.disk.subvolumes().into_iter();
    names.filter(|name| name.contains(".before-restore.") && !name.contains('/')).collect()
}

#[test]
fn a_copy_becomes_a_subvolume_that_can_be_written() {
    let scene = scene(600);
    torture(&scene.home());
    scene.fill("big", 20);
    let (first, _) = scene.run();
    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    scene.run();
    let to = scene.disk.at.join("it's new");
    let text = to.to_str().unwrap();
    let planned =
        scene.machine.run(&["restore", "home", "--as-subvolume", "--to", text, "--dry-run"]);
    planned.expect(0).says("would restore").says("btrfs receive");
    assert!(!to.exists());
    scene.machine.run(&["restore", "home", &first, "--as-subvolume", "--to", text]).expect(0);
    assert_same_tree(&scene.copy(&first), &to);
    assert_eq!(shown(&to, "Received UUID:"), "-");
    fs::write(to.join("written"), "x").unwrap();
    assert_eq!(leftovers(&scene), [] as [String; 0]);

    // Not over anything, not on another file system, and not a path of it.
    let refused = |args: &[&str], says: &str| {
        let all = [&["restore", "home", "--as-subvolume", "--to"], args].concat();
        scene.machine.run(&all).expect(2).says(says);
    };
    refused(&[text], "is there already");
    refused(&[&scene.machine.path("elsewhere").to_string_lossy()], "no btrfs");
    refused(&[&scene.disk.path("x/y")], "make it");
    refused(&[&scene.copies.path("t/inside")], "in use");
    scene.machine.run(&["restore", "home", "/x", "--as-subvolume", "--to", "/y"]).expect(2);
    assert_eq!(leftovers(&scene), [] as [String; 0]);
    scene.machine.assert_clean_except(&scene.machine.path(""));
}

#[test]
fn a_subvolume_changes_places_with_its_copy_and_stays_beside_it() {
    let scene = scene(600);
    torture(&scene.home());
    let (copy, _) = scene.run();
    let home = scene.home();
    fs::write(home.join("plain"), "lost\n").unwrap();
    must("btrfs", &["-q", "subvolume", "create", home.join("nested").to_str().unwrap()]);
    let inside = home.join("mounted");
    fs::create_dir(&inside).unwrap();
    must("mount", &["-t", "tmpfs", "none", inside.to_str().unwrap()]);
    let before = uuid(&home);
    let in_place = ["restore", "home", "--as-subvolume", "--in-place", "--yes"];
    let planned = scene.machine.run(&[&in_place[..], &["--dry-run"]].concat());
    planned.expect(12).says("exchange the subvolumes home");
    let ran = scene.machine.run(&in_place).expect(12);
    let ran = ran.says("home/nested stays").says("home/mounted stays mounted");
    assert_same_tree(&scene.copy(&copy), &home);
    assert_ne!(uuid(&home), before);
    let [aside] = &kept_aside(&scene)[..] else { panic!("{:?}", scene.disk.subvolumes()) };
    let aside = scene.disk.at.join(aside);
    assert_eq!(uuid(&aside), before);
    must("umount", &[aside.join("mounted").to_str().unwrap()]);
    assert_eq!(fs::read_to_string(aside.join("plain")).unwrap(), "lost\n");
    // As it is told.
    assert!(ran.stderr.contains(&format!("btrfs subvolume delete {}", aside.display())));
    must("btrfs", &["-q", "subvolume", "delete", aside.join("nested").to_str().unwrap()]);
    must("btrfs", &["-q", "subvolume", "delete", aside.to_str().unwrap()]);
    assert_eq!(leftovers(&scene), [] as [String; 0]);
    // It is protected as before.
    let (next, sent) = scene.run();
    assert!(sent > 1 << 10, "{sent}: it is no difference to another subvolume");
    assert_same_tree(&home, &scene.copy(&next));
    let (_, sent) = scene.run();
    assert!(sent < 1 << 12, "{sent}");
    assert_eq!(scene.kept(), 1);

    // One that was deleted is a subvolume again.
    must("btrfs", &["-q", "subvolume", "delete", home.to_str().unwrap()]);
    // As files, it becomes a directory, of which no snapshot can be made.
    let as_files = scene.machine.run(&["restore", "home", "--in-place", "--yes"]).expect(12);
    as_files.says("was a subvolume").says("--as-subvolume --in-place");
    assert_same_tree(&scene.copy(&next), &home);
    fs::remove_dir_all(&home).unwrap();
    scene.machine.run(&in_place).expect(0);
    assert_same_tree(&scene.copy(&next), &home);
    scene.run();
    // A directory in its place is somebody's.
    must("btrfs", &["-q", "subvolume", "delete", home.to_str().unwrap()]);
    fs::create_dir(&home).unwrap();
    scene.machine.run(&in_place).expect(2).says("is no subvolume");
    assert_eq!(leftovers(&scene), [] as [String; 0]);
    scene.machine.assert_clean_except(&scene.machine.path(""));
}

#[test]
fn what_is_mounted_changes_places_and_is_shown_when_it_is_mounted_again() {
    let scene = scene(600);
    torture(&scene.home());
    let at = scene.machine.path("mounted here");
    fs::create_dir(&at).unwrap();
    let text = at.to_str().unwrap();
    let mount = ["-o", "subvol=home", &scene.disk.device, text];
    must("mount", &mount);
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/copies/t\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/mounted here\"]\n",
    );
    let (copy, _) = scene.run();
    fs::write(at.join("plain"), "lost\n").unwrap();
    let before = uuid(&at);
    let args = ["restore", "home", "--as-subvolume", "--in-place", "--yes"];
    let ran = scene.machine.run(&args).expect(0).says("until it is mounted again");
    let [aside] = &kept_aside(&scene)[..] else { panic!("{:?}", scene.disk.subvolumes()) };
    assert!(
        ran.stderr.contains(&format!("`btrfs subvolume delete DIR/{aside}`")),
        "{}",
        ran.stderr
    );
    assert_eq!(uuid(&at), before, "the mount shows what it showed");
    assert_eq!(leftovers(&scene), [] as [String; 0]);
    must("umount", &[text]);
    must("mount", &mount);
    assert_same_tree(&scene.copy(&copy), &at);
    assert_eq!(uuid(&scene.disk.at.join(aside)), before);
    must("umount", &[text]);
    must("mount", &["-o", "subvolid=5", &scene.disk.device, text]);
    scene.machine.run(&args).expect(2).says("top-level");
    must("umount", &[text]);
}

#[test]
fn what_lies_in_a_subvolume_is_put_back_into_it() {
    let scene = scene(600);
    let home = scene.home();
    let nested = ["home/a", "home/a/deeper/b", "home/c"].map(|path| scene.disk.path(path));
    for path in &nested {
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        must("btrfs", &["-q", "subvolume", "create", path]);
        fs::write(format!("{path}/x"), path).unwrap();
    }
    fs::write(home.join("file"), "x").unwrap();
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/copies/t\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/disk/home\", \"{root}/disk/home/a\", \"{root}/disk/home/a/deeper/b\"]\nleave-out = [\"{root}/disk/home/c\"]\n",
    );
    scene.machine.run(&["run"]).expect(0);
    for path in &nested {
        fs::write(format!("{path}/x"), "later").unwrap();
    }
    scene.machine.run(&["run"]).expect(0);
    let item = scene.disk.path("home");
    let earliest = scene.machine.copies("t").remove(0);
    let of_run = earliest.rsplit_once('.').unwrap().1.to_owned();
    let to = scene.disk.path("back");
    let args = ["restore", "home", &of_run, "--item", &item, "--as-subvolume"];
    scene.machine.run(&[&args[..], &["--to", &to]].concat()).expect(0);
    for below in ["a", "a/deeper/b"] {
        let back = Path::new(&to).join(below);
        assert_eq!(shown(&back, "Received UUID:"), "-");
        assert_eq!(
            fs::read_to_string(back.join("x")).unwrap(),
            scene.disk.path(&format!("home/{below}"))
        );
        fs::write(back.join("y"), "").unwrap();
    }
    assert!(!Path::new(&to).join("c").exists());
    let ran = scene.machine.run(&[&args[..], &["--in-place", "--yes"]].concat());
    ran.expect(12).says("home/c stays");
    assert_eq!(fs::read_to_string(home.join("a/x")).unwrap(), nested[0]);
    assert_eq!(leftovers(&scene), [] as [String; 0]);
}

#[test]
fn whatever_is_killed_there_is_the_old_or_the_new_and_nothing_else() {
    let scene = scene(600);
    scene.fill("big", 30);
    torture(&scene.home());
    let (copy, _) = scene.run();
    let new = scene.copy(&copy);
    fs::write(scene.home().join("plain"), "the old one\n").unwrap();
    let old = uuid(&scene.home());
    let root = scene.machine.path("").to_string_lossy().into_owned();
    let (mut olds, mut news) = (0, 0);
    for round in 0..9_u64 {
        let args = ["restore", "home", "--as-subvolume", "--in-place", "--yes"];
        let mut verb = scene.machine.start(&args);
        // Later and later: machines are fast or slow, and some rounds must be too early and some too late.
        let moment = Instant::now() + Duration::from_millis((35 << round) - 35);
        wait_until(&mut verb, || Instant::now() >= moment);
        let victim = if round % 3 == 2 { "btrfs receive" } else { "stillpoint -c" };
        let found = processes_about(&root);
        for line in found.iter().filter(|line| line.contains(victim)) {
            let _ = command("kill").args(["-9", line.split(':').next().unwrap()]).status();
        }
        let _ = verb.wait();
        wait_for_no_process_about(&root);
        scene.machine.run(&["recover"]).expect(0);
        assert_eq!(leftovers(&scene), [] as [String; 0], "round {round}");
        if uuid(&scene.home()) == old {
            olds += 1;
            assert_eq!(kept_aside(&scene), [] as [String; 0], "round {round}");
            continue;
        }
        news += 1;
        assert_same_tree(&new, &scene.home());
        let [aside] = &kept_aside(&scene)[..] else { panic!("{:?}", scene.disk.subvolumes()) };
        let aside = scene.disk.at.join(aside);
        assert_eq!(uuid(&aside), old);
        must("btrfs", &["-q", "subvolume", "delete", scene.home().to_str().unwrap()]);
        fs::rename(&aside, scene.home()).unwrap();
    }
    assert!(olds > 0 && news > 0, "{olds} and {news}");
}

#[test]
fn what_a_restore_left_is_ours_after_a_reboot_gave_its_device_another_number() {
    let scene = scene(600);
    scene.fill("big", 150);
    let (_, _) = scene.run();
    let other = Disk::new(&scene.machine, "btrfs", "other", 200);
    let back = Disk::new(&scene.machine, "btrfs", "back", 400);
    let to = back.path("new");
    let verb = ["restore", "home", "--as-subvolume", "--to", &to];
    let killed = kill_one_of(&scene.machine, &verb, 0, |id| {
        let all = family_of(id);
        let receives = all.iter().any(|line| line.contains("btrfs receive"));
        all.into_iter().find(|line| receives && line.contains(" restore home"))
    });
    assert!(killed, "it ended before it could be killed");
    let left = || fs::read_dir(&back.at).unwrap().count();
    assert_eq!(left(), 1);
    let number = || back.at.metadata().unwrap().dev();
    let before = number();
    let (at, elsewhere) = (back.at.to_str().unwrap(), other.at.to_str().unwrap());
    must("umount", &[at]);
    scene.machine.run(&["recover"]).says(&format!("what was mounted at {at} and is not now"));
    // The lowest number that is free.
    must("umount", &[elsewhere]);
    must("mount", &[&back.device, at]);
    must("mount", &[&other.device, elsewhere]);
    assert_ne!(number(), before, "the kernel gave it the same number again");
    scene.machine.run(&["recover"]).expect(0);
    assert_eq!(left(), 0);
}

#[test]
fn a_copy_is_compared_with_what_was_sent() {
    let scene = scene(600);
    let home = scene.home();
    torture(&home);
    for n in 0..60 {
        fs::write(home.join(format!("file-{n}")), format!("{n}").repeat(2000)).unwrap();
    }
    must("mknod", &[home.join("device").to_str().unwrap(), "c", "1", "7"]);
    must("setfattr", &["-n", "user.note", "-v", "x", home.join("file-1").to_str().unwrap()]);
    fs::hard_link(home.join("file-2"), home.join("zz another name of it")).unwrap();
    fs::File::create(home.join("sparse")).unwrap().set_len(5 << 20).unwrap();
    must("btrfs", &["-q", "subvolume", "create", home.join("nested").to_str().unwrap()]);
    scene.configure("", "leave-out = [\"{root}/disk/home/nested\"]");
    let (first, _) = scene.run();
    let verdict = |args: &[&str], code: i32| {
        let ran = scene.machine.run(&[&["--json", "verify", "home"], args].concat()).expect(code);
        ran.json()["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verdict(&[], 0), "ok");
    assert_eq!(verdict(&["--read-data", "10%"], 0), "ok");
    scene.machine.run(&["verify", "home"]).expect(0).says("compared with the source");
    scene.run();
    // The first one's snapshot went with the next run.
    assert_eq!(verdict(&[&first], 12), "unverifiable");
    scene.machine.run(&["verify", "home", &first]).expect(12).says("keep-snapshots");
    scene.machine.run(&["verify", "home", &first, "--read-data", "5%"]).expect(4);
    assert_eq!(verdict(&[], 0), "ok", "a difference is compared as well");
}

#[test]
fn what_differs_from_what_was_sent_is_told() {
    let scene = scene(600);
    let home = scene.home();
    for n in 0..40 {
        fs::write(home.join(format!("file-{n:02}")), format!("{n}").repeat(2000)).unwrap();
    }
    fs::hard_link(home.join("file-02"), home.join("link")).unwrap();
    let (copy, _) = scene.run();
    let at = scene.copy(&copy);
    let path = |name: &str| at.join(name).to_str().unwrap().to_owned();
    falsify(&scene.copies, &copy, || {
        let stamp = fs::metadata(at.join("file-05")).unwrap().modified().unwrap();
        fs::write(at.join("file-05"), "5".repeat(1999) + "6").unwrap();
        fs::File::open(at.join("file-05")).unwrap().set_modified(stamp).unwrap();
        fs::remove_file(at.join("file-03")).unwrap();
        fs::write(at.join("a\nnew one"), "").unwrap();
        must("chmod", &["600", &path("file-07")]);
        must("chown", &["7:8", &path("file-08")]);
        must("setfattr", &["-n", "user.note", "-v", "x", &path("file-09")]);
        fs::remove_file(at.join("link")).unwrap();
        fs::copy(at.join("file-02"), at.join("link")).unwrap();
    });
    let ran = scene.machine.run(&["--json", "verify", "home"]).expect(14).json();
    assert_eq!(ran["verdict"], "failed");
    let damage: Vec<&str> =
        ran["damage"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let wanted = [
        // That the root's time differs as well is not told.
        "$'a\\x0anew one': in the copy alone",
        "file-03: not in the copy",
        "file-05: content",
        "file-07: mode",
        "file-08: owner",
        "file-09: extended attributes",
        "link: time, hard links",
    ];
    assert_eq!(damage.len(), wanted.len(), "{damage:#?}");
    for (found, wanted) in damage.iter().zip(wanted) {
        assert!(found.starts_with(wanted) || wanted.starts_with('$'), "{found} and {wanted}");
    }
}

/// Changes a copy so that no checksum tells it: it and its record agree with each other, and not with what was sent.
pub fn falsify(copies: &Disk, copy: &str, change: impl FnOnce()) {
    let at = copies.at.join("t").join(copy);
    set_read_only(&at, false);
    change();
    set_read_only(&at, true);
    must("sync", &["-f", at.to_str().unwrap()]);
    let record = copies.at.join("t/.stillpoint/copies").join(format!("{copy}.json"));
    let text = fs::read_to_string(&record).unwrap();
    let mut told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let dumped = must("btrfs", &["inspect-internal", "dump-tree", "-t", "root", &copies.device]);
    told["changed"] = changed_of(&dumped, &told["uuid"].to_string()).into();
    fs::write(&record, told.to_string()).unwrap();
}

/// The generation of a subvolume's last change, of what `dump-tree` prints.
fn changed_of(dumped: &str, uuid: &str) -> u64 {
    let uuid = uuid.trim_matches('"');
    let items: Vec<&str> = dumped.split("\titem ").collect();
    let item = items.iter().find(|item| {
        item.contains("ROOT_ITEM") && item.lines().any(|line| line.trim() == format!("uuid {uuid}"))
    });
    let line = item.unwrap().lines().find(|line| line.contains("ctransid")).unwrap();
    let word = line.trim().strip_prefix("ctransid ").unwrap().split(' ').next().unwrap();
    word.parse().unwrap()
}

#[test]
fn a_path_says_of_which_subvolume_it_is() {
    let scene = scene(300);
    let home = scene.home();
    fs::write(home.join("x"), "outer").unwrap();
    must("btrfs", &["-q", "subvolume", "create", home.join("in").to_str().unwrap()]);
    fs::write(home.join("in/x"), "inner").unwrap();
    configure(
        &scene.machine,
        "[targets.t.btrfs]\nlocation = \"{root}/copies/t\"\n[jobs.home]\ntargets = [\"t\"]\n[jobs.home.subvolumes]\npaths = [\"{root}/disk/home\", \"{root}/disk/home/in\"]\n",
    );
    let ran = scene.machine.run(&["--json", "run"]).expect(0).json();
    let run = ran["run_id"].as_str().unwrap();
    let print = |path: &str, of: &[&str]| {
        let path = scene.disk.path(path);
        scene.machine.run(&[&["restore", "home"], of, &[&path, "--stdout"]].concat())
    };
    assert_eq!(print("home/x", &[]).expect(0).stdout, "outer");
    assert_eq!(print("home/in/x", &[]).expect(0).stdout, "inner");
    assert_eq!(print("home/in/x", &[run]).expect(0).stdout, "inner");
    print("elsewhere", &[]).expect(2).says("--item");
    let (x, inner) = (scene.disk.path("home/x"), scene.disk.path("home/in/x"));
    scene.machine.run(&["restore", "home", &x, &inner, "--in-place"]).expect(2).says("--item");
}

#[test]
fn what_a_power_cut_leaves_of_a_record_goes_with_the_next_copy() {
    let scene = scene(300);
    fs::write(scene.home().join("x"), "x").unwrap();
    let (copy, _) = scene.run();
    let records = scene.copies.at.join("t/.stillpoint/copies");
    let digits = "0123456789abcdef";
    let ours = [format!(".{copy}.json.{digits}"), format!(".gone.json.{digits}")];
    let others = [format!(".{copy}.json"), ".x.json.0123".to_owned(), format!("{copy}.{digits}")];
    for name in ours.iter().chain(&others) {
        fs::write(records.join(name), "torn").unwrap();
    }
    scene.run();
    for name in &ours {
        assert!(!records.join(name).exists(), "{name}");
    }
    for name in &others {
        assert!(records.join(name).exists(), "{name}");
    }
}

#[test]
fn a_standard_output_that_was_closed_takes_nothing() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    let path = machine.path("src/hello.txt");
    for target in ["b", "r"] {
        for (to, code) in [(">&-", 4), (">/dev/null", 0)] {
            let output = command("sh")
                .args(["-c", &format!("exec \"$@\" {to}"), "sh", PROGRAM, "-c"])
                .arg(machine.path("stillpoint.toml"))
                .args(["restore", "host", path.to_str().unwrap(), "--stdout", "--target", target])
                .output()
                .unwrap();
            let ran = Ran::from(output).expect(code);
            assert_eq!(
                ran.stderr.contains("standard output was closed"),
                code == 4,
                "{}",
                ran.stderr
            );
        }
    }
}

#[test]
fn what_does_not_fit_or_is_not_whole_changes_nothing() {
    let scene = scene(600);
    scene.fill("big", 130);
    let (copy, _) = scene.run();
    let small = Disk::new(&scene.machine, "btrfs", "small", 120);
    let to = small.path("a\nb");
    let args = ["restore", "home", "--as-subvolume", "--to", &to];
    scene.machine.run(&args).expect(10).says("there is no room at");
    assert_eq!(small.subvolumes(), [] as [String; 0]);
    assert_eq!(fs::read_dir(&small.at).unwrap().count(), 0);
    // A link that leads nowhere, and one to a place that is one.
    let link = scene.disk.at.join("link");
    symlink("/nowhere", &link).unwrap();
    let to_link = ["restore", "home", "--as-subvolume", "--to", link.to_str().unwrap()];
    scene.machine.run(&to_link).expect(2).says("is there already");
    // A sender that is cut off, and a receiver that lies.
    let before = uuid(&scene.home());
    let in_place = ["restore", "home", "--as-subvolume", "--in-place", "--yes"];
    for lie in [
        "if [ \"$1\" = send ]; then real \"$@\" | head -c 5000; exit 0; fi",
        "if [ \"$1\" = receive ]; then cat >/dev/null; exit 0; fi",
        "if [ \"$1\" = receive ]; then real \"$@\"; exit 1; fi",
    ] {
        scene.instead(lie);
        scene.machine.run(&in_place).expect(10);
        assert_eq!(uuid(&scene.home()), before, "{lie}");
        assert_eq!(leftovers(&scene), [] as [String; 0], "{lie}");
        assert_eq!(kept_aside(&scene), [] as [String; 0], "{lie}");
    }
    assert_eq!(scene.machine.copies("t"), [copy]);
    scene.machine.assert_clean_except(&scene.machine.path(""));
}
