//! Streams that are stored in parts: whatever is killed, the next run stores the rest, and what comes back is what was
//! there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench_machine::{
    assert_same_tree, family_of, kill_one_of, moments, must, names_in, processes_about, torture,
};
use crate::btrfs::{Disk, inside};
use crate::stored_streams::{COMMANDS, ENCRYPTED, FILES, OPENED, SCRATCH, Scene, scene};
use crate::subvolumes::closed_directory;

const PARTS: &str = "part-size = 1";

/// At this pace there is time to see the parts, also on a fast machine.
const SLOW: &str = "upload-limit = 1500";

/// The record of the parts of a copy that is still being stored; `None` when there is none.
fn begun(out: &Path) -> Option<serde_json::Value> {
    let name = names_in(out).into_iter().find(|name| name.ends_with(".begun"))?;
    serde_json::from_slice(&fs::read(out.join(name)).ok()?).ok()
}

/// How many parts are recorded.
fn recorded(out: &Path) -> usize {
    begun(out).map_or(0, |begun| begun["parts"].as_array().unwrap().len())
}

/// What a part is, and when it was written.
fn parts_of(scene: &Scene, copy: &str) -> BTreeMap<String, (u64, i64, i64)> {
    let objects =
        scene.objects().into_iter().filter(|name| name.starts_with(&format!("{copy}.btrfs")));
    let look = |name: String| {
        let found = fs::metadata(scene.machine.path("out").join(&name)).unwrap();
        (name, (found.ino(), found.mtime(), found.mtime_nsec()))
    };
    objects.map(look).collect()
}

/// Kills a process of a run when some parts are recorded. Answers with their record, and how the subvolume was then; `None`
/// when the process had done its part by itself.
fn kill(
    scene: &Scene,
    target: &[&str],
    aside: &str,
    victim: &str,
) -> Option<(serde_json::Value, PathBuf)> {
    let out = scene.machine.path("out");
    let root = scene.machine.path("").to_string_lossy().into_owned();
    scene.fill("big", 9);
    let was = scene.aside(aside);
    scene.configure(&[target, &[PARTS, SLOW]].concat(), "");
    let hit = kill_one_of(&scene.machine, &["run"], 0, |id| {
        if recorded(&out) < 3 {
            return None;
        }
        let all = family_of(id).into_iter().chain(processes_about(&root));
        all.into_iter().find(|line| line.contains(victim))
    });
    assert!(hit, "{victim} was not killed in time");
    scene.configure(&[target, &[PARTS]].concat(), "");
    Some((begun(&out)?, was))
}

/// Kills a process of a run when some parts are recorded, and lets the next run go on.
fn killed(scene: &Scene, target: &[&str], (round, victim): (usize, &str)) {
    let (mut whole, mut left) = (scene.machine.copies("t"), None);
    for attempt in 0..5 {
        left = kill(scene, target, &format!("was-{round}-{attempt}"), victim);
        if left.is_some() {
            break;
        }
        whole = scene.machine.copies("t");
    }
    let (left, was) = left.unwrap_or_else(|| panic!("{victim}: {:?}", scene.objects()));
    let copy = left["name"].as_str().unwrap().to_owned();
    let count = left["parts"].as_array().unwrap().len();
    assert!((3..9).contains(&count), "{victim}: {count}");
    assert_eq!(scene.machine.copies("t"), whole, "{victim}: it is no copy");
    scene.machine.run(&["check", "--target", "t"]).expect(0);
    let before = parts_of(scene, &copy);
    fs::write(scene.home().join("later"), victim).unwrap();
    scene.machine.run(&["--json", "run"]).expect(0);
    let now = scene.machine.copies("t");
    let made: Vec<&String> = now.iter().filter(|id| !whole.contains(id)).collect();
    let [finished, new] = made[..] else { panic!("{victim}: {made:?}") };
    assert_eq!(*finished, copy, "{victim}");
    // What was recorded was stored once, and the rest of it now.
    let after = parts_of(scene, &copy);
    assert!(after.len() >= 9, "{victim}: {after:?}");
    for (name, found) in before.iter().take(count) {
        assert_eq!(after.get(name), Some(found), "{victim}: {name} was stored again");
    }
    assert_eq!(scene.strays(), [] as [String; 0], "{victim}");
    scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(0);
    let back = |id: &str| scene.machine.path(&format!("back-{round}-{}", &id[id.len() - 8..]));
    scene.assert_restored(finished, &back(finished), &was);
    scene.assert_restored(new, &back(new), &scene.home());
    scene.assert_nothing_unpacked();
}

fn whatever_is_killed(target: &[&str], victims: &[&str]) {
    let scene = scene(target);
    torture(&scene.home());
    for (round, victim) in victims.iter().enumerate() {
        killed(&scene, target, (round, victim));
    }
}

#[test]
fn whatever_is_killed_only_the_rest_is_stored_in_a_directory() {
    whatever_is_killed(&[FILES, SCRATCH], &["btrfs send", "pass-stream", "stillpoint -c"]);
}

#[test]
fn whatever_is_killed_only_the_rest_is_encrypted() {
    let target = [FILES, ENCRYPTED, OPENED, SCRATCH];
    whatever_is_killed(&target, &["btrfs send", "zstd", "age --encrypt", "pass-object"]);
}

#[test]
fn whatever_is_killed_only_the_rest_is_stored_by_commands() {
    let target = [COMMANDS, SCRATCH];
    whatever_is_killed(&target, &["btrfs send", "pass-object", "stillpoint -c"]);
}

#[test]
fn whatever_is_killed_only_the_rest_is_encrypted_and_stored_by_commands() {
    let target = [COMMANDS, ENCRYPTED, OPENED, SCRATCH];
    whatever_is_killed(&target, &["btrfs send", "stillpoint -c"]);
}

#[test]
fn a_command_that_is_killed_while_it_stores_is_asked_for_the_rest() {
    let target = COMMANDS.replace("[\"dd\",", "[\"{root}/slowly\",");
    let scene = scene(&[COMMANDS, SCRATCH]);
    // One that takes its time, so that it is there to be killed.
    scene.machine.script("slowly", "sleep 0.1; exec dd \"$@\"");
    killed(&scene, &[&target, SCRATCH], (0, "/slowly of="));
}

#[test]
fn parts_come_back_with_standard_tools_alone_and_whatever_reads_copies_reads_them() {
    let scene = scene(&[FILES, ENCRYPTED, OPENED, SCRATCH, PARTS]);
    torture(&scene.home());
    scene.fill("big", 5);
    let (first, _) = scene.run();
    let was = scene.aside("was");
    fs::write(scene.home().join("plain"), "changed\n").unwrap();
    scene.fill("big", 3);
    let (second, _) = scene.run();
    fs::write(scene.home().join("plain"), "small\n").unwrap();
    let (third, _) = scene.run();
    assert!(parts_of(&scene, &first).len() >= 5, "{:?}", scene.objects());
    assert!(parts_of(&scene, &second).len() >= 3, "{:?}", scene.objects());
    assert_eq!(parts_of(&scene, &third).len(), 1, "{:?}", scene.objects());
    let record =
        fs::read_to_string(scene.machine.path("out").join(format!("{third}.json"))).unwrap();
    assert!(record.contains("\"format\": 1"), "what is small is stored as ever: {record}");

    let other = Disk::new(&scene.machine, "btrfs", "other", 300);
    for id in [&first, &second, &third] {
        let pipe = format!(
            "set -e -o pipefail; for part in '{out}/{id}'.btrfs*; do age -d -i '{key}' \"$part\"; done | zstd -d | btrfs -q receive '{at}'",
            out = scene.machine.path("out").display(),
            key = scene.machine.path("key").display(),
            at = other.at.display()
        );
        must("bash", &["-c", &pipe]);
    }
    assert_same_tree(&other.at.join(&first), &was);
    assert_same_tree(&other.at.join(&third), &scene.home());

    scene.machine.run(&["verify", "home", &third]).expect(0).says("and of the 2 before it");
    let found = scene.machine.run(&["--json", "find", "plain", "--all"]).expect(0).json();
    assert_eq!(found["versions"].as_array().unwrap().len(), 3);
    scene.machine.run(&["diff", "home", &first, &second]).expect(0).says("big").says("plain");
    let to = scene.disk.path("as-subvolume");
    scene.machine.run(&["restore", "home", &second, "--as-subvolume", "--to", &to]).expect(0);
    let printed = fs::read_to_string(Path::new(&to).join("plain")).unwrap();
    assert_eq!(printed, "changed\n");
    scene.assert_nothing_unpacked();

    // Damage in one part is found, told of that one, and nothing becomes a difference to it.
    let part = scene.machine.path("out").join(format!("{second}.btrfs.zst.age.000001"));
    let sound = fs::read(&part).unwrap();
    let mut changed = sound.clone();
    changed[1 << 19] ^= 1;
    fs::write(&part, &changed).unwrap();
    let said = scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(14);
    said.says(&format!("{second}.btrfs.zst.age.000001 is not what was stored"));
    let to = scene.machine.path("to").to_string_lossy().into_owned();
    scene.machine.run(&["restore", "home", &third, "--to", &to]).expect(14);
    scene.assert_nothing_unpacked();
    fs::write(&part, &sound).unwrap();
    scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(0);
    // Two that have changed places are not what was stored, though each is whole.
    let other_part = scene.machine.path("out").join(format!("{first}.btrfs.zst.age.000001"));
    let swapped = scene.machine.path("out").join(format!("{first}.btrfs.zst.age.000002"));
    let aside = scene.machine.path("aside");
    for (from, to) in [(&other_part, &aside), (&swapped, &other_part), (&aside, &swapped)] {
        fs::rename(from, to).unwrap();
    }
    let said = scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]);
    assert_eq!(said.code, Some(14), "{}", said.stderr);
    for (from, to) in [(&other_part, &aside), (&swapped, &other_part), (&aside, &swapped)] {
        fs::rename(from, to).unwrap();
    }
    // All parts go with their copy.
    for id in [&third, &second, &first] {
        let said = scene.machine.run(&["prune", "--target", "t", id]);
        assert!(said.code.is_some(), "{}", said.stderr);
    }
    assert_eq!(scene.strays(), [] as [String; 0]);
}

#[test]
fn what_is_not_the_beginning_of_what_is_sent_is_begun_again() {
    let target = [FILES, ENCRYPTED, OPENED, SCRATCH];
    let scene = scene(&target);
    let (left, _) = kill(&scene, &target, "was", "btrfs send").expect("it was not killed in time");
    // A record that speaks of another stream.
    let digest =
        left["parts"].as_array().unwrap().last().unwrap()["mark"]["digest"].as_str().unwrap();
    let record = format!("{}.begun", left["name"].as_str().unwrap());
    let record = scene.machine.path("out").join(record);
    let text = fs::read_to_string(&record).unwrap().replace(digest, &"0".repeat(64));
    fs::write(&record, text).unwrap();
    scene.machine.run(&["run"]).expect(12).says("so all was sent again");
    let made = scene.machine.copies("t");
    assert_eq!(made.len(), 2, "{made:?}");
    scene.assert_restored(&made[0], &scene.machine.path("back"), &scene.home());
    assert_eq!(scene.strays(), [] as [String; 0]);
}

#[test]
fn a_power_cut_leaves_parts_that_are_whole() {
    let scene = scene(&[FILES]);
    let machine = &scene.machine;
    let vault = Disk::new(machine, "ext4", "vault", 200);
    closed_directory(vault.at.join("t"));
    let target = ["directory = \"{root}/vault/t\"", ENCRYPTED, OPENED, PARTS];
    scene.configure(&target, "");
    machine.run(&["init", "t"]).expect(0);
    torture(&scene.home());
    scene.configure(&[&target[..], &["upload-limit = 4000"]].concat(), "");
    let mut gone_on = 0;
    for (round, after) in moments(3, Duration::from_millis(2400)).into_iter().enumerate() {
        scene.fill(&format!("big-{round}"), 8);
        vault.cut_off_in_a_run(machine, after);
        let said = machine.run(&["check", "--target", "t", "--read-data", "100%"]);
        assert_eq!(said.code, Some(0), "one is hollow, after {after:?}: {}", said.stderr);
        let ran = machine.run(&["run"]).expect(0);
        gone_on += usize::from(ran.stderr.contains("goes on with the copy"));
        let last = machine.copies("t").pop().unwrap();
        let said = machine.run(&["verify", "home", &last]);
        assert_eq!(said.code, Some(0), "{last} is none, after {after:?}: {}", said.stderr);
        let strays = scene.strays_in(&vault.at.join("t"));
        assert!(strays.is_empty(), "after {after:?}: {strays:?}");
    }
    assert!(gone_on >= 1, "none was cut off between two parts");
    let last = machine.copies("t").pop().unwrap();
    let to = scene.disk.path("back");
    machine.run(&["restore", "home", &last, "--as-subvolume", "--to", &to]).expect(0);
    assert_same_tree(&scene.home(), Path::new(&to));
}

#[test]
fn what_an_earlier_version_stored_is_read_as_before() {
    let scene = scene(&[FILES, SCRATCH]);
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/streams-1");
    let record = fs::read_to_string(recorded.join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let id = record["name"].as_str().unwrap();
    let place = |from: &str, to: &str| -> PathBuf {
        let to = scene.machine.path("out").join(to);
        fs::copy(recorded.join(from), &to).unwrap();
        to
    };
    place("target.json", "target.json");
    place("stream.btrfs.zst", &format!("{id}.btrfs.zst"));
    place("record.json", &format!("{id}.json"));
    let read = ["check", "--target", "t", "--read-data", "100%"];
    scene.machine.run(&read).expect(0).says("all data of 1");
    scene.machine.run(&["verify", "home", id]).expect(0);
    let to = scene.machine.path("back");
    fs::create_dir(&to).unwrap();
    scene.machine.run(&["restore", "home", id, "--to", to.to_str().unwrap()]).expect(0);
    let back = inside(&to, PathBuf::from("/srv/data/home"));
    assert_eq!(fs::read_to_string(back.join("plain")).unwrap(), "kept\n");
    assert_eq!(fs::read_to_string(back.join("d/file")).unwrap(), format!("{:0300}", 7));
    assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("plain"));
    scene.assert_nothing_unpacked();
}

#[test]
fn a_command_is_started_when_there_is_something_to_store() {
    let scene = scene(&[COMMANDS, SCRATCH]);
    torture(&scene.home());
    // One that says when it was started, and when its first byte came.
    let body = "started=$(date +%s%N); head -c 1 >\"$1\"; echo \"$1 $started $(date +%s%N)\" >>\"$2\"; cat >>\"$1\"";
    let put = scene.machine.script("put", body);
    let log = scene.machine.path("log");
    let slow = "case \"$*\" in *send*) sleep 2;; esac; exec btrfs \"$@\"";
    let slow = scene.machine.script("slow-btrfs", slow);
    let (dd, ours) = (
        "[\"dd\", \"of={root}/out/{name}\", \"status=none\"]",
        format!("[\"{put}\", \"{{root}}/out/{{name}}\", \"{}\"]", log.display()),
    );
    let commands = COMMANDS.replace(dd, &ours);
    assert_ne!(commands, COMMANDS);
    let program = format!("program = \"{slow}\"");
    scene.configure(&[&commands, SCRATCH, PARTS, &program], "");
    scene.fill("big", 3);
    let (id, _) = scene.run();
    let said = fs::read_to_string(&log).unwrap();
    let of_stream = said.lines().filter(|line| line.contains(&format!("{id}.btrfs")));
    let waited: Vec<u64> = of_stream
        .map(|line| {
            let times: Vec<u64> =
                line.split_whitespace().skip(1).map(|time| time.parse().unwrap()).collect();
            (times[1] - times[0]) / 1_000_000
        })
        .collect();
    assert!(waited.len() >= 3, "{said}");
    assert!(waited.iter().all(|milliseconds| *milliseconds < 1500), "{said}");
    scene.machine.run(&["verify", "home", &id]).expect(0);
}

#[test]
fn what_a_place_behind_commands_lost_is_stored_again() {
    let target = [COMMANDS, SCRATCH];
    let scene = scene(&target);
    torture(&scene.home());
    let left = (0..5).find_map(|n| kill(&scene, &target, &format!("was-{n}"), "btrfs send"));
    let (left, was) = left.expect("it was not killed in time");
    let copy = left["name"].as_str().unwrap().to_owned();
    let count = left["parts"].as_array().unwrap().len();
    let before = parts_of(&scene, &copy);
    // A power cut there: the last of what it said was stored is short.
    let lost: Vec<&String> = before.keys().take(count).skip(count - 2).collect();
    for (name, length) in lost.iter().zip([100, 0]) {
        let file = fs::File::options().write(true).open(scene.machine.path("out").join(name));
        file.unwrap().set_len(length).unwrap();
    }
    scene.machine.run(&["run"]).expect(0);
    let after = parts_of(&scene, &copy);
    for name in before.keys().take(count - 2) {
        assert_eq!(after[name], before[name], "{name} was stored again");
    }
    scene.machine.run(&["check", "--target", "t", "--read-data", "100%"]).expect(0);
    scene.assert_restored(&copy, &scene.machine.path("back"), &was);
    assert_eq!(scene.strays(), [] as [String; 0]);
}
