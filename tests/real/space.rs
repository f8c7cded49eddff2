//! Space that must stay free, on file systems that free it later.

use std::fs;

use crate::bench_machine::must;
use crate::btrfs::Disk;
use crate::subvolumes::{Scene, scene};

/// Bytes that are free on a disk to whoever is not root.
fn free(disk: &Disk) -> u64 {
    let told = must("stat", &["--file-system", "--format=%a %S", disk.at.to_str().unwrap()]);
    let (blocks, size) = told.trim().split_once(' ').unwrap();
    blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap()
}

#[test]
fn the_oldest_go_for_space_on_either_side_and_it_is_really_free() {
    const WANTED: u64 = 250 << 20;
    let scene = scene(600);
    let Scene { copies, disk, machine, .. } = &scene;
    scene.configure(
        "[targets.t.keep]\nmin-free = \"250M\"",
        "[jobs.home.keep-snapshots]\nmin-free = \"250M\"",
    );
    let (mut went, mut snapshots_went) = (0, 0);
    for round in 0..8 {
        scene.fill("large", 60);
        let before = machine.copies("t");
        let kept_before = disk.snapshots().len();
        let (made, _) = scene.run();
        assert!(free(copies) >= WANTED, "round {round}: {} free", free(copies));
        assert!(free(disk) >= WANTED, "round {round}: {} free", free(disk));
        let after = machine.copies("t");
        assert!(after.contains(&made) && after.len() > 1 || round == 0, "{after:?}");
        // What went is older than all that stayed.
        let gone: Vec<&String> = before.iter().filter(|copy| !after.contains(copy)).collect();
        assert_eq!(before[..gone.len()].iter().collect::<Vec<_>>(), gone);
        // One more would have been one too many: a copy takes up sixty megabytes.
        assert!(gone.is_empty() || free(copies) < WANTED + (100 << 20), "{}", free(copies));
        went += gone.len();
        snapshots_went += kept_before + 1 - disk.snapshots().len();
    }
    assert!(went >= 2 && snapshots_went >= 2, "{went} copies and {snapshots_went} snapshots went");
    // The chain goes on: the newest is a difference to what stayed.
    fs::write(disk.path("home/small"), "x").unwrap();
    let (_, sent) = scene.run();
    assert!(sent < 1 << 20, "{sent} bytes were sent for a small file");
    machine.run(&["check", "--target", "t"]).expect(0);

    // A pinned copy stays, whatever is lacking; then it is said that there is too little.
    let all = machine.copies("t");
    machine.run(&["pin", "home", &all[0]]).expect(0);
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    machine.write("stillpoint.toml", &text.replacen("250M", "90%", 1), 0o600);
    let foreseen = machine.run(&["prune", "--dry-run"]).expect(0);
    foreseen.says("deleted for space, oldest first, until there is enough");
    assert_eq!(machine.copies("t"), all);
    machine.run(&["prune"]).expect(12).says("nothing more may go");
    let left = machine.copies("t");
    assert_eq!(left, [all[0].clone(), all[all.len() - 1].clone()]);
    machine.run(&["status"]).expect(0);
}
