//! Transfers in parts, by the loops of [`crate::loops`]: what is interrupted is gone on with, no part is taken for a copy,
//! and none is left when its copy is whole.

use std::path::{Path, PathBuf};

use stillpoint::model::job::Config;
use stillpoint::model::outcome::Outcome;

use crate::faults::{Bench, Scene};
use crate::loops;
use crate::subvolumes::{SENT, sending};
use crate::support::fake_host::Fault;
use crate::support::fake_pool::FakePool;

/// Two subvolumes, sent to one directory in parts.
const PARTED: Scene = Scene { config, ..SENT };

fn config(state: &Path) -> Config {
    sending(state, "pool", "keep.last = 2\nbtrfs.location = '/pool'\nbtrfs.part-size = 1")
}

/// What lies in the target that has no name yet, and the records of parts.
fn parts(bench: &Bench) -> Vec<PathBuf> {
    let world = bench.host.world();
    let mut found = world.pool.nested();
    found.retain(|path| path.to_str().unwrap().contains(".incoming."));
    found
        .extend(world.pool.names_in(&FakePool::own().join("parts")).into_iter().map(PathBuf::from));
    found
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&PARTED);
    for wanted in ["replace /pool/.stillpoint/parts/", "remove /pool/.stillpoint/parts/"] {
        assert!(effects.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
    loops::failing_any_effect(&PARTED);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&PARTED);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&PARTED);
}

/// How many copies are there of each run, as their names tell.
fn runs(bench: &Bench) -> Vec<usize> {
    let mut runs: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for copy in bench.host.world().pool.copies() {
        *runs.entry(copy.rsplit_once('.').unwrap().1.to_owned()).or_default() += 1;
    }
    runs.into_values().collect()
}

/// How long the streams of all copies are, by their records.
fn lengths(bench: &Bench) -> Vec<u64> {
    let world = bench.host.world();
    let record = |copy: String| FakePool::own().join("copies").join(copy + ".json");
    let records = world.pool.copies().map(|copy| world.pool.file(&record(copy)).unwrap());
    let read = |text: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    records.map(|record| read(record)["stream"].as_u64().unwrap()).collect()
}

#[test]
fn what_is_torn_is_gone_on_with_and_nothing_is_left() {
    let seed = Bench::with_history_of(&PARTED);
    let effects = loops::effects(&PARTED);
    let receives = effects.iter().enumerate().filter(|(_, it)| it.starts_with("btrfs receive"));
    let receives: Vec<usize> = receives.map(|(n, _)| n).collect();
    assert_eq!(receives.len(), 2);
    for n in receives.into_iter().take(1) {
        let bench = seed.duplicate(&PARTED);
        bench.host.arm(Fault::Fail(n));
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
        let left = parts(&bench);
        assert_eq!(left.len(), 2, "a part and its record: {left:?}");
        let whole = bench.host.world().pool.copies().count();
        // The next run finishes it, and whatever happens meanwhile, the one after that.
        bench.host.arm(Fault::None);
        let torn = bench.duplicate(&PARTED);
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        assert!(format!("{report:#?}").contains("goes on with the copy"), "{report:#?}");
        assert_eq!(parts(&bench), [] as [PathBuf; 0]);
        assert!(bench.host.world().pool.copies().count() >= whole);
        assert_eq!(runs(&bench).iter().sum::<usize>(), 4);
        // One was sent in two sessions, and is as long as both together.
        let mut lengths = lengths(&bench);
        lengths.sort_unstable();
        assert_eq!(lengths, [100, 100, 100, 130]);
        let effects = bench.host.world().effects.clone();
        for (n, what) in effects.iter().enumerate() {
            loops::any_fault_at(
                || torn.duplicate(&PARTED),
                n,
                what,
                Bench::run,
                |bench, _, _, after| {
                    bench.assert_mended(after);
                    assert_eq!(parts(bench), [] as [PathBuf; 0], "{after}");
                },
            );
        }
    }
}

#[test]
fn what_cannot_be_sent_is_not_tried_again_and_again() {
    let bench = Bench::with_history_of(&PARTED);
    let effects = loops::effects(&PARTED);
    let n = effects.iter().position(|it| it.starts_with("btrfs receive")).unwrap();
    bench.host.world().pool.is_unsendable = true;
    bench.host.arm(Fault::Fail(n));
    assert_eq!(bench.run().outcome, Outcome::Failed);
    assert_eq!(parts(&bench), [] as [PathBuf; 0]);
    bench.assert_mended("a snapshot that cannot be sent");
}

#[test]
fn runs_that_are_all_killed_leave_no_more_snapshots_each_time() {
    let bench = Bench::with_history_of(&PARTED);
    let effects = loops::effects(&PARTED);
    let n = effects.iter().position(|it| it.starts_with("btrfs receive")).unwrap();
    for killed in 1..6 {
        let bound = |bench: &Bench| bench.host.world().btrfs.top.len() <= 6;
        // What is released comes before it, from the third on.
        bench.host.world().effects.clear();
        let at = if killed < 3 { n } else { n + 1 };
        bench.host.arm(Fault::KillBefore(at));
        loops::die(&bench);
        assert!(bound(&bench), "{killed}: {:#?}", bench.host.world().btrfs.top);
    }
    bench.assert_mended("five killed runs");
    assert_eq!(bench.host.world().btrfs.top.len(), 2, "one of each");
    assert_eq!(parts(&bench), [] as [PathBuf; 0]);
}
