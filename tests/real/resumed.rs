//! Transfers of subvolumes that are interrupted, and go on where they stopped.

use std::fs;
use std::path::Path;

use crate::bench_machine::{
    Machine, assert_same_tree, family_of, fill, kill_one_of, must, processes_about, torture,
    wait_for, wait_for_no_process_about, wait_until,
};
use crate::subvolumes::closed_directory;
use crate::{served, subvolumes};

/// Parts of a MiB, and how much of them is sent in a second, in KiB: see [`slowly`].
const PARTS: &str = "part-size = 1\nupload-limit = 100000";

/// Sends so slowly, while this goes on, that there is time to see the parts: also on a machine that does much else.
fn slowly<T>(machine: &Machine, meanwhile: impl FnOnce() -> T) -> T {
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    let slow = text.replace("upload-limit = 100000", "upload-limit = 2000");
    assert_ne!(text, slow);
    machine.write("stillpoint.toml", &slow, 0o600);
    let result = meanwhile();
    machine.write("stillpoint.toml", &text, 0o600);
    result
}

/// The record of the part that a directory of copies has; `None` when it has none.
fn part(copies: &Path) -> Option<serde_json::Value> {
    let mut records = fs::read_dir(copies.join(".stillpoint/parts")).ok()?.flatten();
    let record = records.find(|record| record.path().extension().is_some_and(|it| it == "json"))?;
    serde_json::from_slice(&fs::read(record.path()).ok()?).ok()
}

/// How far the part goes, in bytes of the stream.
fn offset(copies: &Path) -> u64 {
    part(copies).map_or(0, |part| part["mark"]["offset"].as_u64().unwrap())
}

/// What was sent for a copy when it became whole, in bytes.
fn sent_for(copies: &Path, id: &str) -> u64 {
    let record = fs::read(copies.join(format!(".stillpoint/copies/{id}.json"))).unwrap();
    serde_json::from_slice::<serde_json::Value>(&record).unwrap()["bytes"].as_u64().unwrap()
}

/// Only the last part that is on the disk is left, of which nobody takes it for a copy.
#[track_caller]
fn assert_only_a_part(scene: &subvolumes::Scene, whole: &[String], after: &str) -> u64 {
    let copies = scene.target();
    let part =
        part(&copies).unwrap_or_else(|| panic!("{after}: there is no part: {:?}", scene.there()));
    let name = format!(".incoming.{}.part{}", part["copy"].as_str().unwrap(), part["mark"]["part"]);
    assert!(copies.join(&name).exists(), "{after}: {:?}", scene.there());
    assert_eq!(scene.machine.copies("t"), whole, "{after}");
    offset(&copies)
}

/// The snapshots of the subvolume, whatever they are called: all that is on its disk besides.
fn kept(scene: &subvolumes::Scene) -> usize {
    let disk = scene.disk.at.to_str().unwrap();
    must("btrfs", &["subvolume", "list", "-o", disk]).lines().count() - 1
}

/// Kills a process of a run when a part of so many bytes is there, and lets the next one go on.
fn killed(scene: &subvolumes::Scene, megabytes: u64, least: u64, victim: &str) {
    let (machine, copies) = (&scene.machine, scene.target());
    let whole = machine.copies("t");
    let find = |id| {
        if offset(&copies) < least {
            return None;
        }
        let there = processes_about(copies.to_str().unwrap());
        family_of(id).into_iter().chain(there).find(|it| it.contains(victim))
    };
    let killed = slowly(machine, || kill_one_of(machine, &["run"], 0, find));
    assert!(killed, "{victim} was not killed in time");
    let there = assert_only_a_part(scene, &whole, victim);
    assert!(there >= least);
    fs::write(scene.home().join("later"), victim).unwrap();
    machine.run(&["--json", "run"]).expect(0);
    let now = machine.copies("t");
    let made: Vec<&String> = now.iter().filter(|id| !whole.contains(id)).collect();
    let [finished, new] = made[..] else { panic!("{victim}: {made:?}") };
    let rest = (megabytes << 20) - there;
    let sent = sent_for(&copies, finished);
    assert!(sent < rest + (1 << 20), "{victim}: {sent} bytes were sent, {rest} were left");
    assert!(sent_for(&copies, new) < 1 << 20, "{victim}");
    assert_same_tree(&scene.home(), &scene.copy(new));
    // What was finished is what was there then.
    let without = |at: &Path| {
        let all = crate::bench_machine::manifest(at);
        all.into_iter()
            .filter(|it| !it.contains("later") && !it.starts_with("d "))
            .collect::<Vec<_>>()
    };
    assert_eq!(without(&scene.copy(finished)), without(&scene.home()), "{victim}");
    assert_eq!(scene.there(), now, "{victim}");
    assert_eq!(part(&copies), None);
    assert_eq!(kept(scene), 1, "{victim}");
}

fn share(home: &Path, name: &str, with: &str) {
    let at = |name: &str| home.join(name).to_str().unwrap().to_owned();
    must("cp", &["--reflink=always", &at(with), &at(name)]);
}

#[test]
fn whatever_is_killed_on_either_side_only_the_rest_is_sent_again() {
    let scene = served::scene();
    scene.configure("push", PARTS);
    let copies = scene.target();
    torture(&scene.home());
    fill(scene.home().join("big"), 9);
    share(&scene.home(), "shared", "big");
    let receive = format!("btrfs receive -q -C -- {}", copies.display());
    let serve = format!("serve --root {}", copies.display());
    let victims = ["stillpoint -c", "ssh -F none", &*serve, &*receive];
    for (round, victim) in victims.iter().enumerate() {
        killed(&scene, 9, 5 << 20, victim);
        // The next is a difference, with what it shares with what was there.
        fill(scene.home().join("big"), 9);
        share(&scene.home(), &format!("again-{round}"), "shared");
    }
}

/// A scene on one machine, with a subvolume of so many MiB.
fn local(megabytes: u64) -> subvolumes::Scene {
    let scene = subvolumes::scene(600);
    scene.configure(PARTS, "");
    torture(&scene.home());
    scene.fill("big", megabytes);
    share(&scene.home(), "shared", "big");
    scene
}

#[test]
fn whatever_is_killed_on_one_machine_only_the_rest_is_sent_again() {
    let scene = local(9);
    for (round, victim) in ["pass-stream", "stillpoint -c"].iter().enumerate() {
        killed(&scene, 9, 5 << 20, victim);
        scene.fill("big", 9);
        share(&scene.home(), &format!("again-{round}"), "shared");
    }
}

/// Kills what reads the source when a part of so many bytes is there.
fn kill_the_sender(machine: &Machine, copies: &Path, least: u64) -> bool {
    kill_one_of(machine, &["run"], 0, |id| {
        let reached = offset(copies) >= least;
        reached.then(|| family_of(id).into_iter().find(|it| it.contains("btrfs send")))?
    })
}

/// Interrupts a run when a part of so many bytes is there.
fn interrupt(scene: &subvolumes::Scene, least: u64) {
    let copies = scene.target();
    assert!(slowly(&scene.machine, || kill_the_sender(&scene.machine, &copies, least)));
    assert!(part(&copies).is_some(), "it ended before it was interrupted");
}

#[test]
fn a_power_cut_leaves_a_part_that_is_whole() {
    let scene = local(30);
    let copies = scene.target();
    interrupt(&scene, 4 << 20);
    let before = offset(&copies);
    // While the rest is received, at any moment.
    let cut = slowly(&scene.machine, || {
        let mut going = scene.machine.start(&["run"]);
        assert!(wait_until(&mut going, || offset(&copies) > before + (2 << 20)));
        let cut = scene.copies.as_cut_off(&scene.machine);
        must("kill", &["-9", &going.id().to_string()]);
        going.wait().unwrap();
        cut
    });
    wait_for_no_process_about(&scene.machine.path("").to_string_lossy());
    scene.target_becomes(&cut);
    let there = offset(&copies);
    assert!(there > before, "{there}");
    assert_eq!(scene.machine.copies("t"), [] as [String; 0]);
    scene.machine.run(&["run"]).expect(0);
    let made = scene.machine.copies("t");
    let [finished, new] = &made[..] else { panic!("{made:?}") };
    assert!(sent_for(&copies, finished) < (31 << 20) - there);
    assert_same_tree(&scene.home(), &scene.copy(finished));
    assert_same_tree(&scene.home(), &scene.copy(new));
    assert_eq!(scene.strays(), [] as [String; 0]);
    assert_eq!(scene.kept(), 1);
}

#[test]
fn what_is_not_the_beginning_of_what_is_sent_is_begun_again() {
    let scene = local(16);
    let copies = scene.target();
    interrupt(&scene, 4 << 20);
    // A record that speaks of another stream.
    let record = fs::read_dir(copies.join(".stillpoint/parts")).unwrap().next().unwrap().unwrap();
    let digest = part(&copies).unwrap()["mark"]["digest"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(record.path()).unwrap().replace(&digest, &"0".repeat(64));
    fs::write(record.path(), text).unwrap();
    scene.machine.run(&["run"]).expect(12).says("so all was sent again");
    let made = scene.machine.copies("t");
    assert_eq!(made.len(), 2, "{made:?}");
    assert!(sent_for(&copies, &made[0]) > 16 << 20);
    assert_same_tree(&scene.home(), &scene.copy(&made[0]));
    assert_eq!(scene.strays(), [] as [String; 0]);

    // A snapshot that somebody wrote to is not gone on with.
    scene.fill("big", 16);
    interrupt(&scene, 4 << 20);
    let newest = scene.disk.snapshots().into_iter().map(|name| scene.disk.at.join(name));
    for snapshot in newest {
        subvolumes::forge(&snapshot, "forged", "forged");
    }
    scene.machine.run(&["run"]).expect(0);
    let made = scene.machine.copies("t");
    assert_eq!(made.len(), 3, "{made:?}");
    assert_same_tree(&scene.home(), &scene.copy(&made[2]));
    assert_eq!(scene.strays(), [] as [String; 0]);

    // Nor a part that somebody wrote to.
    scene.fill("big", 16);
    interrupt(&scene, 4 << 20);
    let strays = scene.strays();
    let stray = strays.iter().find(|name| name.contains(".part")).unwrap();
    subvolumes::forge(&copies.join(stray), "plain", "forged");
    scene.machine.run(&["run"]).expect(0);
    let made = scene.machine.copies("t");
    assert_eq!(made.len(), 4, "{made:?}");
    assert_same_tree(&scene.home(), &scene.copy(&made[3]));
    assert_eq!(scene.strays(), [] as [String; 0]);
    assert_eq!(part(&copies), None);
}

#[test]
fn a_full_disk_keeps_no_part() {
    let scene = subvolumes::scene(200);
    scene.configure("part-size = 4", "");
    scene.fill("big", 250);
    scene.machine.run(&["run"]).expect(10).says("no space");
    assert_eq!(scene.strays(), [] as [String; 0]);
    assert_eq!(part(&scene.target()), None);
    fs::remove_file(scene.home().join("big")).unwrap();
    fs::write(scene.home().join("small"), "x").unwrap();
    scene.copies.reclaim();
    wait_for("there is room again", || scene.machine.run(&["run"]).code == Some(0));
    let copy = scene.machine.copies("t").pop().unwrap();
    assert_same_tree(&scene.home(), &scene.copy(&copy));
}

#[test]
fn whoever_lies_about_parts_gets_nothing_and_takes_nothing_away() {
    let scene = served::scene();
    scene.configure("push", PARTS);
    let copies = scene.target();
    fill(scene.home().join("big"), 16);
    assert!(slowly(&scene.machine, || kill_the_sender(&scene.machine, &copies, 4 << 20)));
    let before = part(&copies).unwrap();
    let receiving = |more: &str| {
        let ask = served::Scene::receiving("00112233-4455-6677-8899-aabbccddeeff", 7, 1, None);
        ask.replace("\"base\": null", &format!("\"base\": null, {more}"))
    };
    let digest = "0".repeat(64);
    let mark = |word: &str| format!("\"part_size\": 1048576, \"behind\": {word}");
    let none = format!("{{\"part\": 1, \"offset\": 2, \"digest\": \"{digest}\"}}");
    let there = before["mark"].to_string();
    for (more, said) in [
        ("\"part_size\": 1".to_owned(), "such small parts"),
        (mark(&none), "there is no such part"),
        // One of another copy.
        (mark(&there), "there is no such part"),
        (mark("7"), "cannot be read"),
    ] {
        scene.asked("push", &receiving(&more), b"btrfs-stream").says(said);
        assert_eq!(part(&copies).as_ref(), Some(&before), "{more}");
    }
    scene.machine.run(&["plan"]).expect(0).says("goes on with the copy").says("--leave-out");
    // A key that may not receive gives up nothing, nor one of another host.
    let copy = before["copy"].as_str().unwrap();
    let give_up = format!("{{\"give-up\": {{\"copy\": \"{copy}\"}}}}");
    scene.asked("read", &give_up, b"").says("may not receive");
    assert_eq!(part(&copies).as_ref(), Some(&before));
    let record = copies.join(format!(".stillpoint/parts/{copy}.json"));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"web1\"", "\"web2\"")).unwrap();
    scene.asked("push", &give_up, b"").says("another host");
    fs::write(&record, text).unwrap();
    scene.machine.run(&["run"]).expect(0).says("goes on with the copy");
    assert_eq!(scene.machine.copies("t").len(), 2);
    assert_eq!(part(&copies), None);
}

#[test]
fn a_shared_sender_that_is_killed_leaves_each_its_part() {
    let scene = served::scene();
    closed_directory(scene.copies.path("u"));
    let killed = scene.machine.path("killed");
    let program = scene.machine.script(
        "btrfs-instead",
        &format!(
            "if [ \"$1\" = send ] && ! [ -e '{0}' ]; then touch '{0}'; /usr/bin/btrfs \"$@\" | head -c 9000000; sleep 3; kill -9 $$; fi\nexec /usr/bin/btrfs \"$@\"",
            killed.display()
        ),
    );
    let both = format!("part-size = 1\nprogram = \"{program}\"");
    scene.configure("push", &both);
    let text = fs::read_to_string(scene.machine.path("stillpoint.toml")).unwrap();
    let here = scene.copies.path("u");
    let other = format!("parallel-targets = 2\n[targets.u.btrfs]\nlocation = \"{here}\"\n{both}\n");
    let text = text.replacen("[targets.t.btrfs]", &format!("{other}[targets.t.btrfs]"), 1);
    let text = text.replace("targets = [\"t\"]", "targets = [\"t\", \"u\"]");
    scene.machine.write("stillpoint.toml", &text, 0o600);
    scene.machine.run(&["init", "u"]).expect(0);
    scene.fill("big", 40);
    scene.machine.run(&["run"]).expect(10).says("killed by signal 9");
    let [there, here] = [scene.target(), here.into()];
    for copies in [&there, &here] {
        assert!(offset(copies) > 4 << 20, "{}: {:?}", copies.display(), part(copies));
    }
    scene.machine.run(&["run"]).expect(0);
    for (target, copies) in [("t", &there), ("u", &here)] {
        let newest = scene.machine.copies(target).pop().unwrap();
        assert_same_tree(&scene.home(), &copies.join(newest));
        assert_eq!(part(copies), None, "{target}");
    }
}
