//! Disks that come and go, for real: one that is offline for ten runs, and two that take turns at one mount point.

use std::fs;

use serde_json::Value;

use crate::bench_machine::{Machine, assert_same_tree, must};
use crate::btrfs::Disk;
use crate::subvolumes::{closed_directory, configure};

/// The subvolume `disk/home` of a machine.
fn home(machine: &Machine) -> Disk {
    let disk = Disk::new(machine, "btrfs", "disk", 200);
    must("btrfs", &["-q", "subvolume", "create", &disk.path("home")]);
    fs::write(disk.path("home/large"), vec![7; 4 << 20]).unwrap();
    disk
}

/// A disk with a directory for copies.
fn shelf(machine: &Machine, at: &str) -> Disk {
    let disk = Disk::new(machine, "btrfs", at, 200);
    closed_directory(disk.path("t"));
    disk
}

fn target(name: &str, at: &str) -> String {
    format!(
        "[targets.{name}.btrfs]\nlocation = \"{{root}}/{at}/t\"\nrequire-mount = \"{{root}}/{at}\"\nwhen-absent = \"skip\"\n"
    )
}

fn job(targets: &str) -> String {
    format!("[jobs.home]\ntargets = {targets}\nsubvolumes.paths = [\"{{root}}/disk/home\"]\n")
}

/// What a run, which must go well, says of its targets: the outcome of each, and what was sent to it.
#[track_caller]
fn run(machine: &Machine) -> Vec<(String, Option<u64>)> {
    let report: Value = machine.run(&["--json", "run"]).expect(0).json();
    let targets = report["jobs"][0]["targets"].as_array().unwrap();
    let one = |it: &Value| (it["outcome"].as_str().unwrap().to_owned(), it["bytes_new"].as_u64());
    targets.iter().map(one).collect()
}

#[test]
fn a_disk_that_missed_ten_runs_gets_a_difference() {
    let machine = Machine::bare("[jobs]\n");
    let disk = home(&machine);
    let (stays, goes) = (shelf(&machine, "stays"), shelf(&machine, "goes"));
    configure(
        &machine,
        &format!(
            "{}{}{}",
            target("stays", "stays"),
            target("goes", "goes"),
            job("[\"stays\", \"goes\"]")
        ),
    );
    machine.run(&["init", "stays", "goes"]).expect(0);
    run(&machine);
    let common = disk.snapshots();
    assert_eq!(common.len(), 1);
    goes.unmount();
    for n in 0..10 {
        fs::write(disk.path(&format!("home/{n}")), "x").unwrap();
        let outcomes = run(&machine);
        assert_eq!(outcomes[0].0, "ok");
        assert!(outcomes[0].1.unwrap() < 1 << 20, "a difference: {outcomes:?}");
        assert_eq!(outcomes[1], ("skipped".to_owned(), None));
        let kept = disk.snapshots();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept.contains(&common[0]), "{kept:?}");
    }
    machine.run(&["run"]).expect(0).says("nothing is mounted at");
    machine.run(&["status", "--max-age", "1h"]).expect(0);
    machine.run(&["check", "--target", "goes"]).expect(4);
    machine.run(&["check"]).expect(0);
    machine.run(&["prune", "--dry-run"]).expect(0);
    machine.run(&["list"]).expect(0);
    goes.mount();
    // A disk without the target's directory is no absent one.
    let hidden = goes.path("hidden");
    fs::rename(goes.path("t"), &hidden).unwrap();
    assert_ne!(machine.run(&["run"]).code, Some(0));
    fs::rename(&hidden, goes.path("t")).unwrap();
    let outcomes = run(&machine);
    assert!(outcomes.iter().all(|(outcome, sent)| outcome == "ok" && sent.unwrap() < 1 << 20));
    assert_eq!(disk.snapshots().len(), 1, "the common one of both");
    assert_same_as_newest(&machine, &disk, &goes);

    // It is there, so it is not lost; then it is.
    machine.run(&["forget-target", "goes", "--yes"]).expect(2).says("is there");
    goes.unmount();
    run(&machine);
    assert_eq!(disk.snapshots().len(), 2);
    machine.run(&["forget-target", "goes"]).expect(2).says("--yes");
    machine.run(&["forget-target", "goes", "--dry-run"]).expect(0).says("2 copies recorded");
    machine
        .run(&["forget-target", "goes", "--yes"])
        .expect(0)
        .says("it is still in the configuration");
    run(&machine);
    assert_eq!(disk.snapshots().len(), 1, "nothing is kept for it");
    drop((stays, goes));
}

#[track_caller]
fn assert_same_as_newest(machine: &Machine, disk: &Disk, goes: &Disk) {
    let newest = machine.copies("goes").pop().unwrap();
    assert_same_tree(&disk.at.join("home"), &goes.at.join("t").join(newest));
}

#[test]
fn disks_that_take_turns_are_told_apart_and_get_differences() {
    let machine = Machine::bare("[jobs]\n");
    let disk = home(&machine);
    // Both at one place, of which one is mounted at a time.
    let odd = shelf(&machine, "shelf");
    odd.unmount();
    let image = machine.path("shelf.img");
    fs::rename(&image, machine.path("odd.img")).unwrap();
    let even = shelf(&machine, "shelf");
    let turns = format!(
        "{}{}{}",
        target("odd", "shelf"),
        target("even", "shelf"),
        job("[\"odd\", \"even\"]")
    );
    configure(&machine, &turns);
    machine.run(&["init", "even"]).expect(0);
    // It is not told which disk this is, and nothing is guessed.
    machine.run(&["init", "odd"]).expect(10);
    machine.run(&["init", "--existing", "odd"]).expect(4).says("is that of target even");
    even.unmount();
    odd.mount();
    machine.run(&["init", "odd"]).expect(0);
    for turn in 0..6 {
        fs::write(disk.path(&format!("home/{turn}")), "x").unwrap();
        let outcomes = run(&machine);
        let (here, gone) = if turn % 2 == 0 { (0, 1) } else { (1, 0) };
        assert_eq!(outcomes[gone], ("skipped".to_owned(), None), "in turn {turn}");
        assert_eq!(outcomes[here].0, "ok");
        let sent = outcomes[here].1.unwrap();
        assert_eq!(sent < 1 << 20, turn >= 2, "in turn {turn}, {sent} bytes were sent");
        assert_eq!(disk.snapshots().len(), if turn == 0 { 1 } else { 2 });
        odd.unmount();
        (if turn % 2 == 0 { &even } else { &odd }).mount();
    }
    odd.unmount();
    let ran = machine.run(&["--json", "run"]).expect(0).json();
    assert_eq!(ran["outcome"], "skipped");
    assert_eq!(ran["jobs"][0]["reason"], "every target is absent");
    // The clock is the alarm. Of three copies within a second, the last is dated two seconds ahead.
    std::thread::sleep(std::time::Duration::from_millis(4_200));
    machine.run(&["status", "--max-age", "1s"]).expect(13);
}

#[test]
fn a_job_that_keeps_snapshots_makes_them_while_its_disk_is_away() {
    let machine = Machine::bare("[jobs]\n");
    let disk = home(&machine);
    let goes = shelf(&machine, "goes");
    let told = machine.path("told");
    let keep = format!(
        "keep-snapshots.last = 3\nhooks.after = [[\"/bin/sh\", \"-c\", \"echo $STILLPOINT_OUTCOME >> '{}'\"]]\n",
        told.display()
    );
    configure(&machine, &format!("{}{}{keep}", target("goes", "goes"), job("[\"goes\"]")));
    machine.run(&["init", "goes"]).expect(0);
    run(&machine);
    goes.unmount();
    for n in 0..4 {
        fs::write(disk.path(&format!("home/{n}")), "x").unwrap();
        let ran = machine.run(&["--json", "run"]).expect(0).json();
        assert_eq!(ran["outcome"], "skipped");
        let why = "every target is absent: there is a snapshot, and no copy";
        assert_eq!(ran["jobs"][0]["reason"], why);
        assert_eq!(ran["jobs"][0]["captures"].as_array().unwrap().len(), 1);
    }
    assert_eq!(disk.snapshots().len(), 4, "three, and the next base");
    let words = fs::read_to_string(&told).unwrap();
    assert_eq!(words, "ok\nskipped\nskipped\nskipped\nskipped\n");
    goes.mount();
    let outcomes = run(&machine);
    assert!(outcomes[0].1.unwrap() < 1 << 20, "a difference: {outcomes:?}");
    assert_same_as_newest(&machine, &disk, &goes);
    assert_eq!(disk.snapshots().len(), 3);
}
