//! What closes retention and compaction in a target, with real engines: damage, copies that somebody else took away,
//! another repository; and a history that somebody else has locked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench_machine::{HOST, Machine, must};

const LAST_ONE: &str = "[targets.b.keep]\nlast = 1\n[targets.r.keep]\nlast = 1\n";

/// A bare engine, as another client of the machine's repositories starts it. What it prints is of no interest.
fn bare(machine: &Machine, program: &str) -> Command {
    let mut bare = machine.stranger(program);
    bare.stdout(Stdio::null());
    bare
}

/// The largest file below a directory.
fn largest(below: &Path) -> PathBuf {
    let text = must("find", &[below.to_str().unwrap(), "-type", "f", "-printf", "%s %p\n"]);
    let sized = |line: &str| {
        let (size, path) = line.split_once(' ').unwrap();
        (size.parse::<u64>().unwrap(), PathBuf::from(path))
    };
    text.lines().map(sized).max().unwrap().1
}

#[test]
fn a_damaged_repository_is_neither_pruned_nor_compacted() {
    let machine = Machine::new(&format!("{LAST_ONE}{HOST}"));
    let noise: Vec<u8> =
        (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(machine.path("src/noise"), noise).unwrap();
    machine.run(&["run"]).expect(0);
    let whole: Vec<(PathBuf, Vec<u8>)> = ["repo-b/data", "repo-r/data"]
        .map(|below| largest(&machine.path(below)))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .into();
    for (path, content) in &whole {
        let mut damaged = content.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        // restic's files are read-only.
        fs::remove_file(path).unwrap();
        fs::write(path, damaged).unwrap();
    }
    machine.run(&["check", "--read-data"]).expect(14);
    machine.run(&["status"]).expect(14).says("closed (damage)");
    for _ in 0..2 {
        machine.run(&["run"]).expect(12).says("damage was found").says("check --read-data");
    }
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 3, "{target}: the policy keeps one");
        machine.run(&["compact", "--target", target]).expect(14).says("not compacted");
        machine.run(&["list", "--target", target]).expect(0).says("is closed");
    }
    machine.run(&["prune"]).expect(12).says("0 deleted");
    // A look at the structure says too little.
    machine.run(&["check", "--target", "r"]).expect(0);
    machine.run(&["status"]).expect(14);
    for (path, content) in &whole {
        fs::write(path, content).unwrap();
    }
    machine.run(&["check", "--read-data"]).expect(0);
    machine.run(&["status"]).expect(0);
    machine.run(&["run"]).expect(0);
    for target in ["b", "r"] {
        assert_eq!(machine.copies(target).len(), 1, "{target}");
    }
    machine.assert_clean();
}

#[test]
fn damage_that_a_reader_meets_closes_the_target() {
    let machine = Machine::new(HOST);
    let noise: Vec<u8> =
        (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let noisy = machine.path("src/noise");
    fs::write(&noisy, noise).unwrap();
    machine.run(&["run"]).expect(0);
    for below in ["repo-b/data", "repo-r/data"] {
        let path = largest(&machine.path(below));
        let mut damaged = fs::read(&path).unwrap();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        fs::remove_file(&path).unwrap();
        fs::write(&path, damaged).unwrap();
    }
    machine.run(&["status"]).expect(0);
    let noisy = noisy.to_str().unwrap();
    for target in ["b", "r"] {
        let args = ["restore", "host", "latest", noisy, "--stdout", "--target", target];
        machine.run(&args).expect(14).says("is damaged");
        machine.run(&["list", "--target", target]).expect(0).says("is closed");
        machine.run(&["prune", "--target", target]).expect(12).says("damage was found");
    }
    machine.run(&["status"]).expect(14).says("closed (damage)");
    // A restore says that it met damage also where that cannot be written down.
    let history = machine.path("state/history.sqlite");
    fs::remove_file(&history).unwrap();
    fs::create_dir(&history).unwrap();
    let args = ["restore", "host", "latest", noisy, "--stdout", "--target", "r"];
    machine.run(&args).expect(14).says("is damaged");
    machine.assert_clean();
}

#[test]
fn what_others_took_away_is_missed() {
    let machine = Machine::new(HOST);
    // Made anew before anything was in it: nothing is missed.
    fs::remove_dir_all(machine.path("repo-b")).unwrap();
    machine.run(&["init", "b"]).expect(0);
    for _ in 0..3 {
        machine.run(&["run"]).expect(0);
    }
    let pinned = machine.copies("b").remove(1);
    machine.run(&["pin", "host", &pinned, "--target", "b"]).expect(0);
    let pinned = format!("{pinned}.pinned");
    let repository = machine.path("repo-b");
    let deleted = bare(&machine, "borg").arg("delete").arg(&repository).arg(&pinned).status();
    assert!(deleted.unwrap().success());
    fs::remove_dir_all(machine.path("repo-r")).unwrap();
    assert!(bare(&machine, "restic").arg("init").status().unwrap().success());

    let plan = machine.run(&["plan"]).expect(13);
    let run = machine.run(&["run"]).expect(13);
    for ran in [plan, run] {
        ran.says(&format!("1 good copy is missing that this machine did not delete ({pinned})"))
            .says("another repository is there")
            .says("3 good copies are missing");
    }
    machine.run(&["status"]).expect(13).says("closed (gone, replaced)");
    machine.run(&["run"]).expect(12);
    machine.run(&["prune", "--accept"]).expect(0);
    machine.run(&["status"]).expect(0);
    machine.run(&["run"]).expect(0);

    // A new repository is no person's word: `init` tells, and so does the run.
    fs::remove_dir_all(machine.path("repo-b")).unwrap();
    machine.run(&["init", "--existing", "b", "r"]).expect(0).says("does not hold");
    machine.run(&["run"]).expect(13).says("another repository is there");
    machine.run(&["prune", "--accept", "--target", "b"]).expect(0);
    machine.run(&["run"]).expect(0);
    machine.assert_clean();
}

#[test]
fn a_history_that_is_merely_locked_is_not_called_damaged() {
    let machine = Machine::new(HOST);
    machine.run(&["run"]).expect(0);
    let other = rusqlite::Connection::open(machine.path("state/history.sqlite")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let refused = machine.run(&["run"]).expect(5).says("nothing is wrong with it");
    assert!(!refused.stderr.contains("move it away"), "{}", refused.stderr);
    // Whoever only looks is not kept waiting.
    machine.run(&["status"]).expect(0);
    let mut waiting = machine.start(&["run"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    other.execute_batch("COMMIT").unwrap();
    assert!(waiting.wait().unwrap().success());
    machine.assert_clean();
}
