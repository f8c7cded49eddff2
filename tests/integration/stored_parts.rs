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
    restored, whatever_happens_nothing_else_is_left,
};
use crate::support::fake_host::Fault;
use crate::support::fake_store;

/// Two subvolumes, all of them sent each time, into a directory.
const PARTED: Scene = Scene { config: files, ..STORED };

/// The same behind commands.
const KEPT_PARTED: Scene = Scene { config: objects, ..KEPT };

/// As differences.
pub const CHAINED_PARTED: Scene = Scene { config: chained, ..CHAINED };

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

/// Whether an effect stores an object.
fn is_put(effect: &str) -> bool {
    effect.contains("--to /archive/") || effect.starts_with("keeper put")
}

/// The effect by which the n-th part of the first stream of a run is stored.
fn stores(scene: &Scene, part: usize) -> usize {
    let effects = loops::effects(scene);
    let stores = effects.iter().enumerate().filter(|(_, it)| is_put(it) && it.contains(".btrfs"));
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
    whatever_happens_nothing_else_is_left(&PARTED);
    whatever_happens_nothing_else_is_left(&KEPT_PARTED);
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
            assert_eq!(puts(&bench, &format!("{copy}.btrfs.zst")), 0, "{effects:#?}");
            assert_eq!(puts(&bench, &format!("{copy}.btrfs.zst.000001")), 1, "{effects:#?}");
            assert!(bench.host.world().copies().contains(&copy), "{after}");
            assert_eq!(bench.host.world().store.objects[&format!("{copy}.btrfs.zst")], first);
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
    bench.host.world().store.unfit = true;
    bench.host.arm(Fault::Fail(stores(&PARTED, 1)));
    assert_eq!(bench.run().outcome, Outcome::Failed);
    assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
    bench.host.world().store.unfit = false;
    bench.assert_mended("a snapshot that cannot be sent");
}

#[test]
fn a_sender_that_fails_by_itself_takes_no_part_with_it() {
    for scene in [&PARTED, &KEPT_PARTED] {
        let bench = Bench::with_history_of(scene);
        bench.host.world().pool.is_unsendable = true;
        bench.host.arm(Fault::Fail(stores(scene, 1)));
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Failed);
        assert!(format!("{report:#?}").contains("injected"), "{report:#?}");
        let left = begun(&bench);
        assert_eq!(left.len(), 1, "{left:?}");
        bench.host.world().pool.is_unsendable = false;
        bench.host.arm(Fault::None);
        let report = bench.run();
        assert!(format!("{report:#?}").contains("goes on with the copy"), "{report:#?}");
        assert_eq!(puts(&bench, &left[0].replace(".begun", ".btrfs.zst")), 0);
        assert_eq!(begun(&bench), [] as [String; 0]);
    }
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

/// Has a record say something as if it had always said so.
fn reword(record: &mut Vec<u8>, is: &str, was: &str) {
    let text = String::from_utf8(record.clone()).unwrap();
    assert!(text.contains(is), "{text}");
    *record = text.replace(is, was).into_bytes();
}

#[test]
fn parts_that_cannot_be_gone_on_with_are_left_out_of_it_and_go() {
    let seed = killed(&KEPT_PARTED);
    let meddled: [fn(&mut Vec<u8>); 4] = [
        |record| record.truncate(record.len() / 2),
        |record| record.clear(),
        |record| reword(record, "\"part\":1", "\"part\":2"),
        |record| reword(record, "\"format\":1", "\"format\":9"),
    ];
    for meddle in meddled {
        let bench = seed.duplicate(&KEPT_PARTED);
        let record = begun(&bench).remove(0);
        meddle(bench.host.world().store.objects.get_mut(&record).unwrap());
        assert_eq!(damage(&bench), [] as [String; 0]);
        bench.assert_mended("parts of no use");
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
        let (engine, context) =
            (bench.pipeline().engine(&bench.config.targets[0]), bench.pipeline().engine_context());
        let copy = engine.list(context).unwrap().remove(0);
        let said = engine.stream(context, &copy, Path::new("/home/d/a")).unwrap_err().to_string();
        for wanted in [".zst", ".%06g 1 2); do cat /archive/\"$part\""] {
            assert!(said.contains(wanted), "{said}");
        }
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

/// How often an object of this name was stored since faults were armed last.
fn puts(bench: &Bench, object: &str) -> usize {
    let world = bench.host.world();
    world.effects.iter().filter(|it| it.ends_with(object) && is_put(it)).count()
}

#[test]
fn records_of_many_parts_are_stored_and_read_behind_commands() {
    const MANY: u32 = 700;
    let bench = Bench::with_history_of(&KEPT_PARTED);
    bench.host.world().store.parts = MANY;
    bench.host.arm(Fault::None);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let records: Vec<usize> = {
        let world = bench.host.world();
        let objects = &world.store.objects;
        let last = |name: &str| objects.contains_key(&format!("{name}.btrfs.zst.{:06}", MANY - 1));
        let long = world.store.copies().filter(|copy| last(copy));
        long.map(|copy| objects[&format!("{copy}.json")].len()).collect()
    };
    assert_eq!(records.len(), 2);
    // Those of parts under way, which say more of each, were longer than an argument may be: the host refuses such.
    assert!(records.iter().all(|length| *length > 50 << 10), "{records:?}");
    assert_eq!(damage(&bench), [] as [String; 0]);
    assert_eq!(begun(&bench), [] as [String; 0]);
}

#[test]
fn what_commands_stored_is_read_back_once_before_it_is_gone_on_with() {
    let seed = killed(&KEPT_PARTED);
    let name = begun(&seed).remove(0).replace(".begun", "");
    let part = |n: u32| fake_store::part(&format!("{name}.btrfs.zst"), n);
    seed.host.world().store.read_back.clear();
    // Killed again before anything more is stored.
    let bench = seed.duplicate(&KEPT_PARTED);
    bench.host.arm(Fault::None);
    bench.run();
    assert_eq!(bench.host.world().store.read_back, [part(0), part(1)]);
    let effects = bench.host.world().effects.clone();
    let third = effects.iter().position(|it| it.ends_with(&part(2))).unwrap();
    let bench = seed.duplicate(&KEPT_PARTED);
    bench.host.arm(Fault::KillBefore(third));
    loops::die(&bench);
    bench.host.arm(Fault::None);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    bench.host.world().store.read_back.clear();
    bench.run();
    assert_eq!(bench.host.world().store.read_back, [] as [String; 0], "they were seen");
    assert_eq!(puts(&bench, &part(1)), 0);
    assert_eq!(puts(&bench, &part(2)), 1);

    // What a power cut there took away is stored again, and all behind it.
    for first in [0, 1] {
        let bench = seed.duplicate(&KEPT_PARTED);
        let hollow = |content: &mut Vec<u8>| content.fill(0);
        hollow(bench.host.world().store.objects.get_mut(&part(first)).unwrap());
        bench.host.arm(Fault::None);
        bench.run();
        for n in 0..3 {
            assert_eq!(puts(&bench, &part(n)), usize::from(n >= first), "part {n} of {first}");
            let world = bench.host.world();
            assert!(world.store.objects[&part(n)].ends_with(b" stored"), "part {n}");
        }
        assert!(bench.host.world().copies().contains(&name));
        assert_eq!(begun(&bench), [] as [String; 0]);
        // Whatever happens on the way, nothing is taken for what it is not.
        let effects = bench.host.world().effects.clone();
        for (n, what) in effects.iter().enumerate() {
            let hollowed = || {
                let bench = seed.duplicate(&KEPT_PARTED);
                hollow(bench.host.world().store.objects.get_mut(&part(first)).unwrap());
                bench
            };
            loops::any_fault_at(hollowed, n, what, Bench::run, |bench, _, _, after| {
                bench.assert_mended(after);
                let world = bench.host.world();
                let of_streams = world.store.objects.iter().filter(|(it, _)| it.contains(".btrfs"));
                let torn: Vec<&String> = of_streams
                    .filter(|(_, content)| !content.ends_with(b" stored"))
                    .map(|(object, _)| object)
                    .collect();
                assert!(torn.is_empty(), "{after}: {torn:?}");
            });
        }
    }
}

#[test]
fn a_part_that_has_gone_costs_only_what_is_behind_it() {
    for scene in [&PARTED, &KEPT_PARTED] {
        let bench = killed(scene);
        let second = begun(&bench).remove(0).replace(".begun", ".btrfs.zst.000001");
        bench.host.world().store.objects.remove(&second).unwrap();
        bench.host.arm(Fault::None);
        assert_eq!(bench.run().outcome, Outcome::Ok);
        assert_eq!(puts(&bench, second.strip_suffix(".000001").unwrap()), 0);
        assert_eq!(puts(&bench, &second), 1);
        assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
    }
}

#[test]
fn nothing_is_asked_to_store_before_there_is_something() {
    let effects = loops::effects(&KEPT_PARTED);
    let is_wait = |it: &String| it.ends_with("pass-object --share --to-nobody --untold");
    let waits: Vec<usize> = (0..effects.len()).filter(|n| is_wait(&effects[*n])).collect();
    assert_eq!(waits.len(), 2, "one for each stream: {effects:#?}");
    assert!(waits[0] < stores(&KEPT_PARTED, 0), "{effects:#?}");
    // While nothing comes of the first stream, nobody is asked to store anything of it.
    let bench = Bench::with_history_of(&KEPT_PARTED);
    bench.host.arm(Fault::Fail(waits[0]));
    bench.run();
    let effects = bench.host.world().effects.clone();
    let put = effects.iter().position(|it| it.starts_with("keeper put")).unwrap();
    let other = effects.iter().rposition(is_wait).unwrap();
    assert!(waits[0] < other && other < put, "{effects:#?}");
    assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
}

#[test]
fn all_parts_are_looked_for_in_one_list() {
    let lists = |parts: u32| {
        let bench = Bench::with_history_of(&KEPT_PARTED);
        bench.host.world().store.parts = parts;
        bench.host.world().store.lists = 0;
        bench.host.arm(Fault::None);
        assert_eq!(bench.run().outcome, Outcome::Ok);
        bench.host.world().store.lists
    };
    assert_eq!(lists(2), lists(9));
}

#[test]
fn what_was_stored_of_another_stream_is_cleared_away_before_all_is_sent_again() {
    for scene in [&PARTED, &KEPT_PARTED] {
        let seed = killed(scene);
        let other = || {
            let bench = seed.duplicate(scene);
            let record = begun(&bench).remove(0);
            let mut world = bench.host.world();
            let content = world.store.objects.get_mut(&record).unwrap();
            reword(content, &format!("{:064x}", 1), &format!("{:064x}", 9));
            drop(world);
            bench
        };
        let bench = other();
        bench.host.arm(Fault::None);
        let report = bench.run();
        assert!(format!("{report:#?}").contains("so all was sent again"), "{report:#?}");
        assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
        let effects = bench.host.world().effects.clone();
        let clears = |it: &(usize, &String)| {
            it.1.starts_with("remove /archive/") || it.1.starts_with("keeper delete")
        };
        let clear = effects.iter().enumerate().find(clears).unwrap();
        assert!(clear.1.ends_with(".begun"), "the record goes first: {effects:#?}");
        for (n, what) in effects.iter().enumerate() {
            loops::any_fault_at(other, n, what, Bench::run, |bench, fault, report, after| {
                // What is not removed at once is before anything gets its name: nothing was stored twice.
                if matches!(fault, Fault::Fail(_)) && n == clear.0 {
                    let report = format!("{:#?}", report.unwrap());
                    assert!(report.contains("so all was sent again"), "{report}");
                }
                // That may be the one which finds that it is another stream, and says so.
                bench.host.arm(Fault::None);
                bench.run();
                bench.assert_mended(after);
                assert_eq!(bench.host.world().store.strays(), [] as [String; 0], "{after}");
            });
        }
    }
}

#[test]
fn a_record_of_parts_that_cannot_be_read_is_none() {
    let bench = killed(&PARTED);
    let record = begun(&bench).remove(0);
    bench.host.world().store.unreadable.insert(Path::new("/archive").join(&record));
    bench.host.arm(Fault::None);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert!(!format!("{report:#?}").contains("goes on with the copy"), "{report:#?}");
    assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
}

#[test]
fn what_is_not_parted_is_one_chain() {
    for scene in [&PARTED, &KEPT_PARTED] {
        let shares = |it: &&String| it.contains("--share");
        assert!(loops::effects(scene).iter().filter(shares).count() > 0);
    }
    let effects = loops::effects(&STORED);
    assert!(!effects.iter().any(|it| it.contains("--share")), "{effects:#?}");
    let (_, planned) = Bench::with_history_of(&STORED).plan();
    assert!(!planned.iter().any(|it| it.contains("--share")), "{planned:#?}");
    // A plan tells of each stream once.
    let (_, planned) = Bench::with_history_of(&KEPT_PARTED).plan();
    let sends = planned.iter().filter(|it| it.contains("--share"));
    assert!(sends.clone().all(|it| it.contains("keeper put")), "{planned:#?}");
    assert_eq!(sends.count(), 2, "{planned:#?}");
}

#[test]
fn parts_without_a_copy_are_one_that_is_not_finished() {
    let bench = killed(&KEPT_PARTED);
    let record = begun(&bench).remove(0);
    let name = record.strip_suffix(".begun").unwrap();
    assert_eq!(objects_with(&bench, name).len(), 3);
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let context = bench.pipeline().engine_context();
    let unfinished = || -> Vec<String> {
        let listed = engine.list(context).unwrap();
        listed.iter().filter_map(|copy| engine.unfinished(copy)).collect()
    };
    assert_eq!(unfinished(), [name]);
    // By whichever of its objects it is named.
    let part = format!("{name}.btrfs.zst.000001");
    engine.delete(context, &[part, record.clone()]).unwrap();
    assert_eq!(objects_with(&bench, name), [] as [String; 0]);
    assert_eq!(unfinished(), [] as [String; 0]);
    let effects = bench.host.world().effects.clone();
    let first = effects.iter().find(|it| it.starts_with("keeper delete")).unwrap();
    assert!(first.ends_with(".begun"), "{first}");
}
