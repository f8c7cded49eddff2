//! Who comes from another program: what Debian's btrbk has received becomes a copy of ours, where it is and as it is called,
//! and nothing of it is sent again.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::bench_machine::{assert_same_tree, must, names_in, torture};
use crate::btrfs::inside;
use crate::subvolumes::{Scene, closed_directory, configure, forge, made, scene, set_read_only};

/// A machine whose subvolume btrbk has taken to the target twice, the second time as a difference. Answers with the names.
fn with_btrbk() -> (Scene, [String; 2]) {
    let scene = scene(600);
    torture(&scene.home());
    scene.fill("big", 20);
    closed_directory(scene.disk.path("taken"));
    let root = scene.machine.path("");
    let conf = format!(
        "timestamp_format long-iso\nvolume {0}/disk\n  snapshot_dir taken\n  subvolume home\n    target {0}/copies/t\n",
        root.display()
    );
    scene.machine.write("btrbk.conf", &conf, 0o600);
    let conf = scene.machine.path("btrbk.conf");
    for round in 0..2 {
        fs::write(scene.home().join("round"), format!("{round}\n")).unwrap();
        must("btrbk", &["-q", "-c", conf.to_str().unwrap(), "run"]);
        // A name holds seconds, and which of two copies of one second is the newer one nobody knows.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let mut names = names_in(&scene.target());
    names.retain(|name| name.starts_with("home."));
    (scene, names.try_into().unwrap())
}

#[test]
fn what_btrbk_makes_can_be_sent_and_what_it_has_sent_is_not_sent_again() {
    let (scene, names) = with_btrbk();
    let (bare, root) = (scene.machine.path("btrbk.conf"), scene.machine.path(""));
    let existing = format!("existing = [\"{}/disk/taken/home.*\"]\nsend = \"all\"", root.display());
    scene.configure("", &existing);
    adopt(&scene, &["--trust"]);
    let ran = scene.machine.run(&["--json", "run"]).expect(0);
    assert_eq!(ran.json()["outcome"], "skipped");
    ran.says(&format!("as {}", names[1]));
    // From now on it makes snapshots alone.
    let conf = fs::read_to_string(&bare).unwrap();
    let conf = conf.lines().filter(|line| !line.contains("target")).collect::<Vec<_>>().join("\n");
    fs::write(&bare, conf).unwrap();
    fs::write(scene.home().join("round"), "new\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    must("btrbk", &["-q", "-c", bare.to_str().unwrap(), "run"]);
    let (copy, sent) = scene.run();
    assert!(sent < 100 << 10, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&copy));
    scene.disk.assert_no_snapshot();
}

fn adopt(scene: &Scene, words: &[&str]) -> serde_json::Value {
    let words = [&["--json", "adopt", "t", "--yes"], words].concat();
    scene.machine.run(&words).expect(0).json()
}

/// Which subvolumes lie in the target, but for the generation in which their last change was written down.
fn as_it_is(scene: &Scene) -> Vec<String> {
    let listed =
        must("btrfs", &["subvolume", "list", "-o", "-u", "-q", "-R", &scene.copies.path("t")]);
    listed.lines().map(|line| line.rsplit(" top level ").next().unwrap().to_owned()).collect()
}

#[test]
fn nothing_that_btrbk_sent_is_sent_again_and_nothing_of_it_is_lost() {
    let (scene, [first, second]) = with_btrbk();
    assert_eq!(scene.machine.copies("t"), [] as [String; 0]);
    let before = as_it_is(&scene);
    let shown = scene.machine.run(&["adopt", "t", "--dry-run"]).expect(0);
    shown.says(&first).says(&second).says("its snapshot").says("2 would be adopted");
    assert_eq!(scene.machine.copies("t"), [] as [String; 0]);
    // A person is asked, and here nobody can be.
    scene.machine.run(&["adopt", "t"]).expect(2).says("nothing was adopted");
    scene.machine.run(&["adopt", "t", "--yes"]).expect(0).says(&format!("verify home -- {second}"));
    assert_eq!(scene.machine.copies("t"), [first.as_str(), second.as_str()]);
    assert_eq!(as_it_is(&scene), before, "nothing is renamed, moved or changed");
    assert_eq!(adopt(&scene, &[])["copies"], serde_json::json!([]), "there is nothing left");

    // As long as nobody has compared it, what looks whole may be empty.
    let estimate = || {
        let document = scene.machine.run(&["--json", "estimate", "home"]).expect(0).json();
        document["estimates"][0]["based_on"].as_str().map(str::to_owned)
    };
    assert_eq!(estimate(), None);
    scene.machine.run(&["verify", "home", &second, "--read-data", "50%"]).expect(0);
    assert_eq!(estimate(), None, "a share is not all of it");
    scene.machine.run(&["verify", "home", &second]).expect(0).says("compared with the source");
    assert_eq!(estimate().as_ref(), Some(&second));
    fs::write(scene.home().join("round"), "ours\n").unwrap();
    let (third, sent) = scene.run();
    assert!(sent < 1 << 20, "{sent} bytes, although the target has all but a line");
    assert_same_tree(&scene.home(), &scene.copy(&third));

    // The times are those in the names, in UTC.
    let listed = scene.machine.run(&["--json", "list"]).expect(0).json();
    for copy in listed["copies"].as_array().unwrap() {
        let id = copy["id"].as_str().unwrap();
        assert_eq!(copy["pinned"], id != third, "{copy}");
        let Some(named) = id.strip_prefix("home.") else { continue };
        let named = chrono::DateTime::parse_from_str(named, "%Y%m%dT%H%M%S%z").unwrap();
        let told = chrono::DateTime::parse_from_rfc3339(copy["time"].as_str().unwrap()).unwrap();
        assert_eq!(named, told, "{copy}");
    }
    let to = scene.machine.path("back");
    fs::create_dir(&to).unwrap();
    scene.machine.run(&["restore", "home", &first, "--to", to.to_str().unwrap()]).expect(0);
    let back = inside(&to, scene.home());
    assert_same_tree(&back, &scene.copy(&first));
    scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(0);

    // No policy deletes one before a person says so.
    scene.configure("[targets.t.keep]\nlast = 1\n", "");
    scene.machine.run(&["prune", "--accept"]).expect(0);
    let (fourth, _) = scene.run();
    let left = [first.as_str(), &second, &fourth];
    assert_eq!(scene.machine.copies("t"), left);
    scene.machine.run(&["unpin", "home", &first]).expect(0);
    scene.run();
    assert!(!scene.copy(&first).exists() && scene.copy(&second).exists());
    let snapshots = fs::read_dir(scene.disk.path("taken")).unwrap().count();
    assert_eq!(snapshots, 2, "what btrbk keeps here is not ours");
}

#[test]
fn who_comes_from_btrbk_goes_on_with_its_configuration() {
    let (scene, [first, second]) = with_btrbk();
    let conf = scene.machine.path("btrbk.conf");
    let text = format!("target_preserve_min latest\n{}", fs::read_to_string(&conf).unwrap());
    scene.machine.write("btrbk.conf", &text, 0o600);
    let conf = conf.to_str().unwrap();
    let imported = scene.machine.run(&["import", "btrbk", conf]).expect(0).stdout;
    // The target is made already.
    configure(&scene.machine, &imported.replace("copies-t", "t"));
    scene.machine.run(&["check-config"]).expect(0);
    scene.machine.run(&["adopt", "t", "--yes"]).expect(0);
    scene.machine.run(&["verify", "home", &second]).expect(0);
    fs::write(scene.home().join("round"), "ours\n").unwrap();
    let (third, sent) = scene.run();
    assert!(sent < 1 << 20, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&third));
    // How large the others are nobody knows, so a person has to look before anything is deleted.
    let (fourth, _) = made(&scene.machine.run(&["--json", "run"]).expect(12));
    scene.machine.run(&["prune", "--accept"]).expect(0);
    let (fifth, _) = scene.run();
    let left = scene.machine.copies("t");
    assert_eq!(left, [first, second, fifth], "{third} and {fourth} go, by btrbk's rule");
    // What Debian ships has something of everything.
    let example = scene.machine.run(&["import", "btrbk", "/etc/btrbk/btrbk.conf.example"]);
    configure(&scene.machine, &example.expect(0).says("it is on another machine").stdout);
    scene.machine.run(&["check-config"]).expect(0);
    // Nothing is written anywhere, and what is no configuration is refused with its line.
    scene.machine.write("btrbk.conf", "volume /a\n%\n", 0o600);
    scene.machine.run(&["import", "btrbk", conf]).expect(3).says("line 2");
    scene.machine.run(&["import", "btrfs-backup-ng", conf]).expect(3).says("line 1");
    let nowhere = scene.machine.run(&["import", "btrbk", "/nope"]);
    assert_ne!(nowhere.code, Some(0));
    nowhere.says("/nope").says(" — name its file, which is usually /etc/btrbk/btrbk.conf");
    scene.machine.run(&["import", "borgmatic", conf]).expect(2).says("btrfs-backup-ng");
    scene.machine.run(&["import", "btrbk", "/nowhere"]).expect(4).says("/nowhere");
}

#[test]
fn a_person_may_say_that_they_are_whole_and_what_they_are_of() {
    let (scene, [first, second]) = with_btrbk();
    adopt(&scene, &["--trust", "--unpinned"]);
    fs::write(scene.home().join("round"), "ours\n").unwrap();
    let (third, sent) = scene.run();
    assert!(sent < 1 << 20, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&third));
    scene.configure("[targets.t.keep]\nlast = 1\n", "");
    scene.machine.run(&["prune", "--accept"]).expect(0);
    let (fourth, _) = scene.run();
    assert_eq!(scene.machine.copies("t"), [fourth.as_str()], "{first} and {second} may go");
}

#[test]
fn without_its_snapshot_a_copy_is_what_a_person_says() {
    let (scene, [first, second]) = with_btrbk();
    for name in [&first, &second] {
        must("btrfs", &["-q", "subvolume", "delete", &scene.disk.path(&format!("taken/{name}"))]);
    }
    let left = adopt(&scene, &[]);
    assert_eq!(
        (&left["copies"], left["left"].as_array().unwrap().len()),
        (&serde_json::json!([]), 2)
    );
    let wrong = scene.machine.run(&["adopt", "t", "home.*", "--job", "home", "--item", "/nowhere"]);
    wrong.expect(2).says("has no item /nowhere");
    let item = scene.disk.path("home");
    let taken = adopt(&scene, &["home.*", "--job", "home", "--item", &item]);
    assert_eq!(taken["adopted"], 2, "{taken}");
    assert_eq!(taken["copies"][0]["known_by"], "your word");
    assert_eq!(scene.machine.copies("t"), [first.as_str(), second.as_str()]);
    // Nothing is left to compare it with.
    scene.machine.run(&["verify", "home", &second]).expect(12).says("unverifiable");
    let (third, sent) = scene.run();
    assert!(sent > 20 << 20, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&third));
}

#[test]
fn what_a_power_cut_has_emptied_is_found_by_the_comparison_and_is_never_a_base() {
    let scene = scene(600);
    scene.fill_with_small_files();
    closed_directory(scene.disk.path("taken"));
    let snapshot = scene.disk.path("taken/home.20260101T0000");
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", &scene.disk.path("home"), &snapshot]);
    let stream = scene.machine.path("stream");
    must("btrfs", &["-q", "send", "-f", stream.to_str().unwrap(), &snapshot]);
    must("btrfs", &["-q", "receive", "-f", stream.to_str().unwrap(), &scene.copies.path("t")]);
    // What the disk holds when the program has just ended well.
    let cut = scene.copies.as_cut_off(&scene.machine);
    scene.target_becomes(&cut);
    let hollow = scene.copies.at.join("t/home.20260101T0000");
    let is_hollow = |n: usize| fs::read(hollow.join(n.to_string())).unwrap().is_empty();
    assert!((0..200).any(is_hollow), "the cut came too late");
    adopt(&scene, &[]);
    scene.machine.run(&["verify", "home"]).expect(14).says("home.20260101T0000");
    fs::write(scene.home().join("later"), "x").unwrap();
    let (copy, _) = made(&scene.machine.run(&["--json", "run"]));
    assert_same_tree(&scene.home(), &scene.copy(&copy));
    must("btrfs", &["-q", "subvolume", "delete", hollow.to_str().unwrap()]);
    assert_same_tree(&scene.home(), &scene.copy(&copy));
}

/// Receives a snapshot of the job's subvolume under this name.
fn receive_as(scene: &Scene, name: &OsStr, into: &Path) -> PathBuf {
    let snapshot = scene.disk.at.join("taken").join(name);
    let at = snapshot.to_str().map(str::to_owned);
    let plain = scene.disk.path("taken/plain");
    must("btrfs", &["-q", "subvolume", "snapshot", "-r", &scene.disk.path("home"), &plain]);
    let stream = scene.machine.path("stream");
    must("btrfs", &["-q", "send", "-f", stream.to_str().unwrap(), &plain]);
    must("btrfs", &["-q", "receive", "-f", stream.to_str().unwrap(), into.to_str().unwrap()]);
    fs::rename(&plain, &snapshot).unwrap();
    assert!(at.is_none_or(|at| Path::new(&at).exists()));
    let received = into.join(name);
    fs::rename(into.join("plain"), &received).unwrap();
    received
}

#[test]
fn names_and_places_that_cannot_be_a_copys_are_refused_and_others_work() {
    let scene = scene(600);
    torture(&scene.home());
    closed_directory(scene.disk.path("taken"));
    let target = scene.copies.at.join("t");
    let nested = target.join("12");
    closed_directory(&nested);
    let hostile: [&[u8]; 5] = [
        b"two\nlines.20260101",
        b"\xff\xfe.20260101",
        b".hidden.20260101",
        b"rw.20260101",
        b"flipped.20260101",
    ];
    for name in hostile {
        receive_as(&scene, OsStr::from_bytes(name), &target);
    }
    receive_as(&scene, OsStr::new("snapshot"), &nested);
    let info = "<snapshot><num>12</num><date>2026-01-05 15:31:23</date></snapshot>";
    fs::write(nested.join("info.xml"), info).unwrap();
    let hidden = target.join(".snapshots");
    closed_directory(&hidden);
    receive_as(&scene, OsStr::new("of-a-hidden-one"), &hidden);
    // Written to behind the back of btrfs-progs and left so, and by them.
    set_read_only(&target.join("rw.20260101"), false);
    let flipped = target.join("flipped.20260101");
    must("btrfs", &["property", "set", "-f", flipped.to_str().unwrap(), "ro", "false"]);
    must("btrfs", &["property", "set", flipped.to_str().unwrap(), "ro", "true"]);
    must("btrfs", &["-q", "subvolume", "create", target.join("somebody").to_str().unwrap()]);
    std::os::unix::fs::symlink("/etc", target.join("link.20260101")).unwrap();
    // These work.
    let odd = [
        "-rf.20260101T1200",
        "with space*.20260102",
        "größe-20260103-000000",
        "50%2f",
        "no-moment",
    ];
    for name in odd {
        receive_as(&scene, OsStr::new(name), &target);
    }
    let before = as_it_is(&scene);
    let document = adopt(&scene, &["--trust"]);
    assert_eq!(document["adopted"], 6, "{document:#}");
    let left = document["left"].as_array().unwrap();
    assert_eq!(left.len(), 7, "{document:#}");
    for why in ["UTF-8", "line break", "dot", "writable", "made writable since"] {
        assert!(left.iter().any(|left| left.as_str().unwrap().contains(why)), "{why}: {left:#?}");
    }
    assert!(left.iter().all(|left| !left.as_str().unwrap().contains('\n')), "{left:#?}");
    assert_eq!(as_it_is(&scene), before);
    let mut listed = scene.machine.copies("t");
    listed.sort();
    // snapper's are in directories of theirs, which say when they were made.
    let mut odd: Vec<&str> = [&odd[..], &["12/snapshot"]].concat();
    odd.sort_unstable();
    let numbered = document["copies"].as_array().unwrap();
    let numbered = numbered.iter().find(|copy| copy["copy"] == "12/snapshot").unwrap();
    assert_eq!(numbered["time"], "2026-01-05T15:31:23Z");
    assert_eq!(listed, odd);
    for name in odd {
        scene.machine.run(&["verify", "home", "--", name]).expect(0);
    }
    scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(0);
    let (copy, sent) = scene.run();
    assert!(sent < 100 << 10, "{sent}");
    assert_same_tree(&scene.home(), &scene.copy(&copy));
    let to = scene.machine.path("back");
    fs::create_dir(&to).unwrap();
    scene.machine.run(&["restore", "home", "12/snapshot", "--to", to.to_str().unwrap()]).expect(0);
    let back = inside(&to, scene.home());
    assert_same_tree(&back, &nested.join("snapshot"));
    for name in ["12/snapshot", "50%2f"] {
        scene.machine.run(&["pin", "home", name]).expect(0);
        scene.machine.run(&["unpin", "home", name]).expect(0);
        scene.machine.run(&["prune", "--target", "t", name]).expect(0);
        assert!(
            !target.join(name).exists() && !scene.machine.copies("t").contains(&name.to_owned())
        );
    }
    let records = fs::read_dir(target.join(".stillpoint/copies")).unwrap().count();
    assert_eq!(records, scene.machine.copies("t").len(), "none is left behind");
    // One that somebody writes to after that is none any more.
    let spoilt = target.join("no-moment");
    forge(&spoilt, "forged", "x");
    assert!(!scene.machine.copies("t").contains(&"no-moment".to_owned()));
}
