//! Streams that are stored in parts, by the loops of [`crate::loops`]: what is interrupted is gone on with, no part is taken
//! for a copy, and none is left that belongs to none.

use std::path::Path;

use stillpoint::engine::EngineError;
use stillpoint::model::job::Config;
use stillpoint::model::outcome::Outcome;
use stillpoint::model::target::ReadData;
use stillpoint::pipeline::recover::recover;

use crate::faults::{Bench, Scene};
use crate::loops;
use crate::stored_streams::{
    CHAINED, COMMANDS, DIRECTORY, KEPT, SECRET, STORED, checked, config, damage, differing, found,
    restored,
};
use crate::support::fake_host::Fault;

/// Two subvolumes, all of them sent each time, into a directory.
const PARTED: Scene = Scene { config: files, ..STORED };

/// The same behind commands.
const KEPT_PARTED: Scene = Scene { config: objects, ..KEPT };

/// As differences.
const CHAINED_PARTED: Scene = Scene { config: chained, ..CHAINED };

/// As differences that are encrypted, with a key at hand.
const SECRET_PARTED: Scene = Scene { config: secret, ..SECRET };

const SMALL: &str = "part-size = 1";

fn files(state: &Path) -> Config {
    config(state, &format!("{DIRECTORY}\n{SMALL}\nfull-every = '1s'"))
}

fn objects(state: &Path) -> Config {
    config(state, &format!("{COMMANDS}\n{SMALL}\nfull-every = '1s'"))
}

fn chained(state: &Path) -> Config {
    config(state, &format!("{DIRECTORY}\n{SMALL}"))
}

fn secret(state: &Path) -> Config {
    let keys = "recipients-file = '/etc/recipients'\nidentity-file = '/etc/key'";
    config(state, &format!("{DIRECTORY}\n{SMALL}\n{keys}"))
}

fn uncompressed(state: &Path) -> Config {
    config(state, &format!("{DIRECTORY}\n{SMALL}\nfull-every = '1s'\ncompression = 'none'"))
}

/// The objects that hold streams, and what is recorded of those that are still being stored.
fn objects_with(bench: &Bench, word: &str) -> Vec<String> {
    let world = bench.host.world();
    world.store.objects.keys().filter(|name| name.contains(word)).cloned().collect()
}

fn begun(bench: &Bench) -> Vec<String> {
    objects_with(bench, ".begun")
}

/// The effect by which the n-th part of the first stream of a run is stored.
fn stores(scene: &Scene, part: usize) -> usize {
    let effects = loops::effects(scene);
    let stores = effects.iter().enumerate().filter(|(_, it)| {
        (it.contains("--to /archive/") || it.starts_with("keeper put")) && it.contains(".btrfs")
    });
    let all: Vec<usize> = stores.map(|(n, _)| n).collect();
    assert_eq!(all.len(), 6, "{effects:#?}");
    all[part]
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    for (scene, wanted) in [
        (&PARTED, ["replace /archive/host@", "remove /archive/host@"]),
        (&KEPT_PARTED, ["keeper put host@", "keeper delete host@"]),
    ] {
        let effects = loops::effects(scene);
        for wanted in wanted {
            let is_it = |effect: &&String| effect.starts_with(wanted) && effect.contains(".begun");
            // Once behind each of the first two parts, or when the copy is whole.
            assert!(effects.iter().filter(is_it).count() >= 2, "{wanted}: {effects:#?}");
        }
        assert!(effects.iter().any(|effect| effect.contains(".btrfs.zst.000002")), "{effects:#?}");
        loops::failing_any_effect(scene);
    }
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&PARTED);
    loops::dying_at_any_effect(&KEPT_PARTED);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&PARTED);
    loops::a_signal_at_any_effect(&KEPT_PARTED);
}

#[test]
fn whatever_happens_a_check_finds_nothing_wrong_and_good_copies_leave_nothing_else() {
    for scene in [&PARTED, &KEPT_PARTED] {
        let seed = Bench::with_history_of(scene);
        for (n, what) in loops::effects(scene).iter().enumerate() {
            loops::any_fault_of_a_run_at(
                || seed.duplicate(scene),
                n,
                what,
                |bench, after| {
                    assert_eq!(damage(bench), [] as [String; 0], "{after}");
                    bench.assert_mended(after);
                    assert_eq!(damage(bench), [] as [String; 0], "{after}");
                    assert_eq!(bench.host.world().store.strays(), [] as [String; 0], "{after}");
                    assert_eq!(begun(bench), [] as [String; 0], "{after}");
                },
            );
        }
    }
}

#[test]
fn what_is_torn_is_gone_on_with_and_nothing_is_left() {
    for scene in [&PARTED, &KEPT_PARTED] {
        let seed = Bench::with_history_of(scene);
        let n = stores(scene, 1);
        for fault in [Fault::Fail(n), Fault::KillBefore(n), Fault::KillAfter(n), Fault::CutAfter(n)]
        {
            let bench = seed.duplicate(scene);
            bench.host.arm(fault);
            let _ = loops::unless_we_die(|| bench.run());
            let after = format!("{fault:?}");
            let left = begun(&bench);
            let [record] = &left[..] else { panic!("{after}: {left:?}") };
            let copy = record.strip_suffix(".begun").unwrap().to_owned();
            let first = bench.host.world().store.objects[&format!("{copy}.btrfs.zst")].clone();
            assert!(!bench.host.world().copies().contains(&copy), "{after}: it is no copy");
            assert_eq!(damage(&bench), [] as [String; 0], "{after}");
            bench.host.arm(Fault::None);
            assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
            // The next run finishes it, and stores its beginning no second time.
            let torn = bench.duplicate(scene);
            bench.host.arm(Fault::None);
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Ok, "{after}: {report:#?}");
            assert!(format!("{report:#?}").contains("goes on with the copy"), "{report:#?}");
            let effects = bench.host.world().effects.clone();
            let stored = |object: &str| {
                let is_stored = |it: &&String| {
                    it.ends_with(object) && (it.contains("--to") || it.starts_with("keeper put"))
                };
                effects.iter().filter(is_stored).count()
            };
            assert_eq!(stored(&format!("{copy}.btrfs.zst")), 0, "{effects:#?}");
            assert_eq!(stored(&format!("{copy}.btrfs.zst.000001")), 1, "{effects:#?}");
            assert!(bench.host.world().copies().contains(&copy), "{after}");
            assert_eq!(bench.host.world().store.objects[&format!("{copy}.btrfs.zst")], first);
            assert_eq!(begun(&bench), [] as [String; 0], "{after}");
            assert_eq!(bench.host.world().store.strays(), [] as [String; 0], "{after}");
            assert_eq!(damage(&bench), [] as [String; 0], "{after}");
            if !matches!(fault, Fault::KillAfter(_)) {
                continue;
            }
            // Whatever happens meanwhile, the one after that does.
            let behind_commands = effects.iter().any(|effect| effect.starts_with("keeper put"));
            for (n, what) in effects.iter().enumerate().filter(|_| behind_commands) {
                loops::any_fault_at(
                    || torn.duplicate(scene),
                    n,
                    what,
                    Bench::run,
                    |bench, _, _, after| {
                        bench.assert_mended(after);
                        assert_eq!(begun(bench), [] as [String; 0], "{after}");
                        assert_eq!(bench.host.world().store.strays(), [] as [String; 0], "{after}");
                        assert_eq!(damage(bench), [] as [String; 0], "{after}");
                    },
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_sent_or_has_no_room_keeps_no_part() {
    let bench = Bench::with_history_of(&PARTED);
    bench.host.world().pool.is_unsendable = true;
    bench.host.arm(Fault::Fail(stores(&PARTED, 1)));
    assert_eq!(bench.run().outcome, Outcome::Failed);
    assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
    bench.assert_mended("a snapshot that cannot be sent");
}

/// A run that was killed before the third part of its first stream was stored, when it has been recovered from.
fn killed(scene: &Scene) -> Bench {
    let bench = Bench::with_history_of(scene);
    bench.host.arm(Fault::KillBefore(stores(scene, 2)));
    loops::die(&bench);
    bench.host.arm(Fault::None);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    assert_eq!(begun(&bench).len(), 1);
    bench
}

#[test]
fn parts_that_cannot_be_gone_on_with_are_left_out_of_it_and_go() {
    let seed = killed(&KEPT_PARTED);
    let meddled: [fn(&mut Vec<u8>); 4] = [
        |record| record.truncate(record.len() / 2),
        |record| record.clear(),
        |record| {
            *record = String::from_utf8(record.clone())
                .unwrap()
                .replace("\"part\": 1", "\"part\": 2")
                .into_bytes()
        },
        |record| {
            *record = String::from_utf8(record.clone())
                .unwrap()
                .replace("\"format\": 1", "\"format\": 9")
                .into_bytes()
        },
    ];
    for meddle in meddled {
        let bench = seed.duplicate(&KEPT_PARTED);
        let record = begun(&bench).remove(0);
        meddle(bench.host.world().store.objects.get_mut(&record).unwrap());
        assert_eq!(damage(&bench), [] as [String; 0]);
        bench.assert_mended("parts of no use");
        assert_eq!(begun(&bench), [] as [String; 0]);
        assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
    }
    // Nor those that are opened in another way than the rest would be, or of which one has gone.
    let seed = killed(&PARTED);
    let bench = seed.duplicate(&Scene { config: uncompressed, ..PARTED });
    bench.assert_mended("another compression");
    assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
    let bench = seed.duplicate(&PARTED);
    let record = begun(&bench).remove(0);
    let part = record.replace(".begun", ".btrfs.zst.000001");
    bench.host.world().store.objects.remove(&part).unwrap();
    bench.assert_mended("a part that has gone");
    assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
}

#[test]
fn copies_in_parts_are_read_like_others() {
    for scene in [&CHAINED_PARTED, &SECRET_PARTED] {
        let bench = Bench::with_history_of(scene);
        bench.host.arm(Fault::None);
        let found = found(&bench);
        assert!(found.unread.is_empty(), "{:?}", found.unread.first().map(|it| &it.error));
        let of_home = found.versions.iter().filter(|it| it.path == Path::new("/home/d/a"));
        let sizes: Vec<Option<u64>> = of_home.map(|it| it.size).collect();
        assert_eq!(sizes, [Some(4), Some(9), Some(9)]);
        assert_eq!(differing(&bench, None).unwrap().len(), 1);
        let report = checked(&bench, ReadData::All);
        assert_eq!((report.damage, report.unverifiable), (Vec::new(), None));
        let (result, cleanup) = restored(&bench).unwrap();
        result.unwrap();
        assert_eq!(cleanup.leftovers, []);
        bench.assert_released("a restore");
    }
}

#[test]
fn damage_in_any_part_is_found_and_told_of_that() {
    for part in ["", ".000001", ".000002"] {
        let bench = Bench::with_history_of(&CHAINED_PARTED);
        let oldest = bench.host.world().store.copies().next().unwrap();
        let object = format!("{oldest}.btrfs.zst{part}");
        bench.host.world().store.objects.get_mut(&object).unwrap()[0] ^= 1;
        assert_eq!(damage(&bench), [] as [String; 0]);
        let found = checked(&bench, ReadData::All).damage;
        let told = format!("{object} is not what was stored");
        assert_eq!(found, [told], "{part}");
        // One that has gone leaves no copy.
        bench.host.world().store.objects.remove(&object).unwrap();
        let found = damage(&bench);
        assert!(found.iter().any(|it| it.contains(&format!("{object} is not there"))), "{found:?}");
        let engine = bench.pipeline().engine(&bench.config.targets[0]);
        let listed = engine.list(bench.pipeline().engine_context()).unwrap();
        assert!(listed.iter().all(|copy| copy.id != oldest));
    }
}

#[test]
fn whatever_ends_the_reading_of_a_part_is_told() {
    let seed = Bench::with_history_of(&CHAINED_PARTED);
    let good = seed.duplicate(&CHAINED_PARTED);
    good.host.arm(Fault::None);
    restored(&good).unwrap().0.unwrap();
    let effects = good.host.world().effects.clone();
    let reads = effects.iter().filter(|it| it.contains("pass-object --from")).count();
    assert_eq!(reads, 9, "three parts of each of three: {effects:#?}");
    for (n, what) in effects.iter().enumerate() {
        loops::any_fault_at(|| seed.duplicate(&CHAINED_PARTED), n, what, restored, |_, _, _, _| ());
    }
    for (n, what) in effects.iter().enumerate().filter(|(_, it)| it.contains("--from")) {
        let bench = seed.duplicate(&CHAINED_PARTED);
        bench.host.arm(Fault::Fail(n));
        let (result, _) = restored(&bench).unwrap();
        assert!(result.is_err(), "{what} went unnoticed");
    }
}

#[test]
fn a_deletion_that_breaks_off_leaves_nothing_that_cannot_be_restored() {
    let seed = Bench::with_history_of(&CHAINED_PARTED);
    let delete = |bench: &Bench| {
        let engine = bench.pipeline().engine(&bench.config.targets[0]);
        let all: Vec<String> = seed.host.world().store.copies().collect();
        engine
            .delete(bench.pipeline().engine_context(), &all)
            .map_err(|error: EngineError| error.to_string())
    };
    let good = seed.duplicate(&CHAINED_PARTED);
    good.host.arm(Fault::None);
    delete(&good).unwrap();
    let effects = good.host.world().effects.clone();
    assert_eq!(objects_with(&good, ""), ["target.json"]);
    for (n, what) in effects.iter().enumerate() {
        let scene = || seed.duplicate(&CHAINED_PARTED);
        loops::any_fault_at(scene, n, what, delete, |bench, _, ended, after| {
            assert_eq!(damage(bench), [] as [String; 0], "{after}: {ended:?}");
            delete(bench).unwrap();
            assert_eq!(objects_with(bench, ""), ["target.json"], "{after}");
        });
    }
}
