//! Subvolumes whose streams are stored, by the loops of [`crate::loops`]: whatever happens, no copy is listed that is not
//! there, and nothing is left of what is none.

use std::collections::BTreeSet;
use std::path::Path;

use stillpoint::engine::{Change, CheckReport};
use stillpoint::host::Exit;
use stillpoint::model::job::Config;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::Outcome;
use stillpoint::model::target::ReadData;
use stillpoint::pipeline::diff::{Pair, diff};
use stillpoint::pipeline::find::{FilePattern, Found, Search, find};
use stillpoint::pipeline::prune::{Request, prune, scope};
use stillpoint::pipeline::query::Query;
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::restore::{Wanted, restore};
use stillpoint::pipeline::session::{Cleanup, LedgerDirectory, session};
use stillpoint::pipeline::steps::maintain::{self, WhenBusy};
use stillpoint::step::error::StepError;
use stillpoint::step::recorder::Recorder;
use stillpoint::tools::btrfs::edits::Edit;

use crate::captures::mount;
use crate::faults::{Bench, LIVE, Scene, in_a_session};
use crate::loops;
use crate::subvolumes::{machine, no_difference_is_made_to_what_is_changed_meanwhile, sending};
use crate::support::fake_host::{Fault, World};
use crate::support::fake_store::{FakeStore, SCRATCH};

/// Two subvolumes, all of them sent each time, into a directory.
pub const STORED: Scene = Scene { config: files, world, kept: 4, ..LIVE };

/// The same behind commands.
pub const KEPT: Scene = Scene { config: objects, ..STORED };

/// The same as differences: the first copies are whole.
pub const CHAINED: Scene = Scene { config: chained, kept: 6, ..STORED };

/// The same, where a chain is soon followed by another one, and the oldest has ended and goes as a whole.
const ENDED: Scene = Scene { config: ended, kept: 6, ..STORED };

/// As differences that are encrypted, with a key at hand.
pub const SECRET: Scene = Scene { config: secret, world: world_of_secrets, ..CHAINED };

pub const DIRECTORY: &str = "directory = '/archive'\nscratch = '/scratch'";

fn files(state: &Path) -> Config {
    config(state, &format!("{DIRECTORY}\nfull-every = '1s'"))
}

/// A place behind commands.
pub const COMMANDS: &str = "put-command = ['keeper', 'put', '{name}']\nget-command = ['keeper', 'get', '{name}']\nlist-command = ['keeper', 'list']\ndelete-command = ['keeper', 'delete', '{name}']";

fn objects(state: &Path) -> Config {
    config(state, &format!("{COMMANDS}\nfull-every = '1s'"))
}

fn chained(state: &Path) -> Config {
    config(state, DIRECTORY)
}

/// As differences, where nothing says in what they may be received.
pub fn placeless(state: &Path) -> Config {
    config(state, "directory = '/archive'")
}

fn ended(state: &Path) -> Config {
    config(state, &format!("{DIRECTORY}\nfull-every = '30s'"))
}

fn secret(state: &Path) -> Config {
    let keys = "recipients-file = '/etc/recipients'\nidentity-file = '/etc/key'";
    config(state, &format!("{DIRECTORY}\n{keys}"))
}

fn keyless(state: &Path) -> Config {
    config(state, &format!("{DIRECTORY}\nrecipients-file = '/etc/recipients'"))
}

fn world_of_secrets() -> World {
    let mut world = world();
    world.files.insert("/etc/recipients".into(), b"age1vault\n".to_vec());
    world
}

pub fn config(state: &Path, target: &str) -> Config {
    sending(state, "archive", &format!("keep.last = 2\n[targets.archive.streams]\n{target}"))
}

fn world() -> World {
    let mut world = machine();
    world.mounts.push(mount((0, 42), SCRATCH, "btrfs", "/dev/sdd"));
    world.store = FakeStore::made();
    world
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&STORED);
    for wanted in [
        "make the btrfs snapshot",
        "stillpoint pass-object --to /archive/",
        "replace /archive/host@",
        "remove /archive/host@",
        "wait until the file system at /archive",
        "delete the btrfs snapshot",
    ] {
        assert!(effects.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
    loops::failing_any_effect(&STORED);
}

#[test]
fn failing_any_command_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&KEPT);
    for wanted in ["keeper put host@", "keeper delete host@"] {
        assert!(effects.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
    loops::failing_any_effect(&KEPT);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&STORED);
    loops::dying_at_any_effect(&KEPT);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&STORED);
}

#[test]
fn failing_any_effect_of_a_recovery_is_recovered_from() {
    loops::failing_any_effect_of_a_recovery(&STORED);
}

/// What a check finds.
pub fn damage(bench: &Bench) -> Vec<String> {
    checked(bench, ReadData::None).damage
}

pub fn checked(bench: &Bench, read_data: ReadData) -> CheckReport {
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    engine.check(bench.pipeline().engine_context(), read_data, &mut |_| {}).unwrap()
}

/// Changes a byte of the stream of the oldest copy, and changes it back when it is done again.
fn flip(bench: &Bench) -> String {
    let oldest = bench.host.world().store.copies().next().unwrap();
    let mut world = bench.host.world();
    let mut objects = world.store.objects.iter_mut();
    let (_, object) = objects.find(|(it, _)| it.starts_with(&format!("{oldest}.btrfs"))).unwrap();
    object[0] ^= 1;
    oldest
}

/// How many differences the next run would send.
pub fn differences(bench: &Bench) -> usize {
    let (_, planned) = bench.plan();
    planned.iter().filter(|line| line.contains("--based-on")).count()
}

/// Whatever happens in a run, a check finds nothing wrong, and the next good copy leaves nothing else.
pub fn whatever_happens_nothing_else_is_left(scene: &Scene) {
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
            },
        );
    }
}

#[test]
fn whatever_happens_a_check_finds_nothing_wrong_and_the_next_good_copy_leaves_nothing_else() {
    whatever_happens_nothing_else_is_left(&STORED);
    whatever_happens_nothing_else_is_left(&KEPT);
}

#[test]
fn a_failed_upload_leaves_nothing_at_once() {
    let seed = Bench::with_history_of(&STORED);
    let effects = loops::effects(&STORED);
    let stores = |effect: &String| {
        effect.contains("pass-object --to") || effect.starts_with("replace /archive/host@")
    };
    for (n, _) in effects.iter().enumerate().filter(|(_, effect)| stores(effect)).take(4) {
        let bench = seed.duplicate(&STORED);
        bench.host.arm(Fault::Fail(n));
        assert_ne!(bench.run().outcome, Outcome::Ok);
        assert_eq!(bench.host.world().store.strays(), [] as [String; 0], "failing {}", effects[n]);
    }
}

#[test]
fn what_breaks_off_is_no_copy_and_goes() {
    let bench = Bench::with_history_of(&KEPT);
    let effects = loops::effects(&KEPT);
    let put = effects.iter().position(|effect| effect.contains(".json")).unwrap();
    bench.host.arm(Fault::KillAfter(put));
    loops::die(&bench);
    bench.host.arm(Fault::None);
    let half = |world: &mut World| {
        let newest = world.store.copies().max_by_key(|name| name[name.len() - 8..].to_owned());
        let record = format!("{}.json", newest.unwrap());
        let length = world.store.objects[&record].len();
        world.store.objects.get_mut(&record).unwrap().truncate(length / 2);
    };
    half(&mut bench.host.world());
    assert_eq!(damage(&bench), [] as [String; 0]);
    bench.assert_mended("a record that was stored in part");
    assert_eq!(bench.host.world().store.strays(), [] as [String; 0]);
}

#[test]
fn what_a_kept_copy_is_a_difference_to_is_kept() {
    let bench = Bench::with_history_of(&CHAINED);
    let (report, planned) = bench.plan();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(planned.iter().filter(|line| line.contains("--based-on")).count(), 2);
    assert!(!planned.iter().any(|line| line.starts_with("remove")), "{planned:#?}");
    for run in 4..=6 {
        assert_eq!(bench.run().outcome, Outcome::Ok);
        assert_eq!(bench.host.world().copies().len(), 2 * run);
        bench.assert_released("a run");
    }
    // Nor can a person delete it by itself, nor anybody.
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let context = bench.pipeline().engine_context();
    let copies = engine.list(context).unwrap();
    let whole = copies.iter().find(|copy| copy.based_on.is_none()).unwrap();
    let refused = engine.delete(context, std::slice::from_ref(&whole.id)).unwrap_err();
    assert!(refused.to_string().contains("is a difference to"), "{refused}");
    assert_eq!(bench.host.world().copies().len(), 12);
    let all: Vec<String> = copies.iter().map(|copy| copy.id.clone()).collect();
    engine.delete(context, &all).unwrap();
    assert_eq!(bench.host.world().store.objects.len(), 1, "the marker");
}

#[test]
fn a_base_that_somebody_changed_or_took_away_is_none() {
    let meddled: [fn(&mut World); 3] = [
        |world| world.btrfs.top.values_mut().for_each(|snapshot| snapshot.changed += 1),
        |world| {
            let newest: Vec<String> = world.store.copies().collect();
            for copy in newest {
                world.store.objects.insert(format!("{copy}.btrfs.zst"), b"short".to_vec());
            }
        },
        |world| world.store.objects.retain(|name, _| !name.ends_with(".zst")),
    ];
    for meddle in meddled {
        let bench = Bench::with_history_of(&CHAINED);
        assert_eq!(differences(&bench), 2);
        meddle(&mut bench.host.world());
        assert_eq!(differences(&bench), 0, "both must be sent as a whole");
    }
}

#[test]
fn nothing_becomes_a_difference_to_what_was_found_damaged() {
    let bench = Bench::with_history_of(&CHAINED);
    let mark = |name: &str| format!("{name}.damaged");
    let is_marked = |name: &str| bench.host.world().store.objects.contains_key(&mark(name));
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let context = bench.pipeline().engine_context();
    let oldest = flip(&bench);
    assert_eq!(checked(&bench, ReadData::None).damage, [] as [String; 0]);
    assert_eq!(differences(&bench), 2);
    // It closes the target as well, so nothing goes in the runs that follow.
    let found = in_a_session(bench.pipeline(), |cx| {
        let mut rec = Recorder::new(cx.pipeline.observer, None);
        maintain::check(cx, &mut rec, engine, ReadData::All, WhenBusy::Fail).unwrap().damage
    });
    assert!(matches!(found.as_slice(), [it] if it.contains(&oldest)), "{found:?}");
    assert!(is_marked(&oldest));
    assert_eq!(differences(&bench), 1, "the other subvolume has a sound chain");

    // What a run makes then stands alone, and the next are differences to that.
    bench.run();
    let item = oldest.split('.').nth(1).unwrap().to_owned();
    let copies = engine.list(context).unwrap();
    let newest = copies.iter().filter(|copy| copy.id.contains(&item)).max_by_key(|it| it.time);
    let newest = newest.unwrap().clone();
    assert_eq!(newest.based_on, None);
    assert_eq!(engine.verify(context, &newest).unwrap().damage, [] as [String; 0]);
    assert_eq!(differences(&bench), 2);

    // Whoever reads one copy marks it as well, and takes the mark away when it is sound again.
    flip(&bench);
    assert_eq!(checked(&bench, ReadData::All).damage, [] as [String; 0]);
    assert!(!is_marked(&oldest));
    flip(&bench);
    let copy = copies.iter().find(|copy| copy.id == oldest).unwrap();
    assert_eq!(engine.verify(context, copy).unwrap().damage.len(), 1);
    assert!(is_marked(&oldest));
    // A mark goes with its copy.
    let all: Vec<String> = copies.iter().map(|copy| copy.id.clone()).collect();
    engine.delete(context, &all).unwrap();
    assert_eq!(bench.host.world().store.objects.len(), 1, "the marker");
}

#[test]
fn what_keeps_zstd_from_its_work_is_no_damage() {
    let bench = Bench::with_history_of(&CHAINED);
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let context = bench.pipeline().engine_context();
    let ends = |exit, said: &str| bench.host.world().store.zstd = Some((exit, said.to_owned()));
    let is_marked = || {
        let world = bench.host.world();
        world.store.objects.keys().any(|name| name.ends_with(".damaged"))
    };
    for (exit, said) in [
        (Exit::Signal(9), ""),
        (Exit::Code(137), "Killed"),
        (Exit::Code(127), "env: 'zstd': No such file or directory"),
        (Exit::Code(11), "zstd: error 11 : Allocation error : not enough memory"),
    ] {
        ends(exit, said);
        let error = engine.check(context, ReadData::All, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(said) && !is_marked(), "{error}");
    }
    // What it says of what it read is damage, also where the stored bytes are right.
    ends(Exit::Code(1), "/*stdin*\\ : Decoding error (36) : Data corruption detected");
    assert_eq!(checked(&bench, ReadData::All).damage.len(), 6);
    assert!(is_marked());
    bench.host.world().store.zstd = None;
    assert_eq!(checked(&bench, ReadData::All).damage, [] as [String; 0]);
    assert!(!is_marked());
}

#[test]
fn a_mark_is_told_until_something_refutes_it() {
    let bench = Bench::with_history_of(&SECRET);
    let marks = |bench: &Bench| {
        let world = bench.host.world();
        world.store.objects.keys().filter(|name| name.ends_with(".damaged")).count()
    };
    let keyless_of = |bench: &Bench| bench.duplicate(&Scene { config: keyless, ..SECRET });
    let oldest = flip(&bench);
    assert_eq!(checked(&bench, ReadData::All).damage.len(), 1);
    // Whoever reads nothing has refuted nothing.
    let told = checked(&bench, ReadData::None).damage;
    assert!(matches!(told.as_slice(), [it] if it.starts_with(&oldest)), "{told:?}");
    assert!(told[0].contains(&format!("--target {} ", bench.config.targets[0].name)), "{told:?}");
    // Nor is one told twice.
    let report = checked(&bench, ReadData::All);
    assert_eq!((report.damage.len(), report.copies), (1, Some(6)));
    assert_eq!(report.told(), "1 of 6 copies is damaged");
    flip(&bench);
    let without = keyless_of(&bench);
    let report = checked(&without, ReadData::All);
    assert_eq!((report.damage, marks(&without)), (Vec::new(), 0));
    assert_eq!(checked(&without, ReadData::None).damage, [] as [String; 0]);

    // That what it holds is wrong is refuted by nobody who does not open it.
    let within = |bench: &Bench, mark: &str| {
        let mut world = bench.host.world();
        world.store.objects.insert(format!("{oldest}.damaged"), mark.as_bytes().to_vec());
    };
    let without = keyless_of(&bench);
    // Earlier versions did not say how.
    for mark in ["damaged\n", "damaged within\n"] {
        within(&without, mark);
        for _ in 0..2 {
            let told = checked(&without, ReadData::All).damage;
            assert!(matches!(told.as_slice(), [it] if it.starts_with(&oldest)), "{told:?}");
            assert_eq!(marks(&without), 1);
            // Nor is it refuted by bytes that are wrong, and then right again.
            flip(&without);
            checked(&without, ReadData::All);
            flip(&without);
        }
    }
    within(&bench, "damaged within\n");
    assert_eq!(checked(&bench, ReadData::All).damage, [] as [String; 0]);
    assert_eq!(marks(&bench), 0);
}

#[test]
fn damage_that_cannot_be_noted_is_told_all_the_same() {
    let seed = Bench::with_history_of(&CHAINED);
    flip(&seed);
    let good = seed.duplicate(&CHAINED);
    good.host.arm(Fault::None);
    checked(&good, ReadData::All);
    let effects = good.host.world().effects.clone();
    let mark = effects.iter().position(|effect| effect.ends_with(".damaged")).unwrap();
    let bench = seed.duplicate(&CHAINED);
    bench.host.arm(Fault::Fail(mark));
    let found = checked(&bench, ReadData::All).damage;
    assert!(matches!(found.as_slice(), [it] if it.contains("could not be noted")), "{found:?}");
}

#[test]
fn what_age_cannot_open_is_damaged_or_has_another_key_and_the_others_are_read() {
    const NO_KEY: &str = "age: error: no identity matched any of the recipients";
    let ends = |bench: &Bench, exit, said: &str| {
        bench.host.world().store.age = Some((exit, said.to_owned()));
    };
    let bench = Bench::with_history_of(&SECRET);
    let report = checked(&bench, ReadData::All);
    assert_eq!(report.unverifiable, None);
    ends(&bench, Exit::Code(1), NO_KEY);
    let report = checked(&bench, ReadData::All);
    assert_eq!(report.damage, [] as [String; 0]);
    assert!(report.extent.contains("the stored bytes of 6"), "{report:?}");
    assert!(report.unverifiable.unwrap().contains("no key in the identity-file opens it"));
    // Damage where the keys are named looks the same to age.
    let oldest = flip(&bench);
    let report = checked(&bench, ReadData::All);
    assert!(matches!(report.damage.as_slice(), [it] if it.contains(&oldest)), "{report:?}");
    assert_eq!(differences(&bench), 1);
    flip(&bench);
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let context = bench.pipeline().engine_context();
    // That somebody killed it says nothing of what it read.
    ends(&bench, Exit::Signal(9), "");
    let killed = engine.check(context, ReadData::All, &mut |_| {}).unwrap_err();
    assert!(killed.to_string().contains("killed by signal 9"), "{killed}");
    // So it is without any key.
    let keyless = bench.duplicate(&Scene { config: keyless, ..SECRET });
    let report = checked(&keyless, ReadData::All);
    assert_eq!((report.damage, report.unverifiable.is_some()), (Vec::new(), true));
    flip(&keyless);
    assert_eq!(checked(&keyless, ReadData::All).damage.len(), 1);
}

#[test]
fn a_check_without_a_key_takes_back_nothing_that_one_with_it_found() {
    let bench = Bench::with_history_of(&SECRET);
    let target = &bench.config.targets[0].name;
    let check = |bench: &Bench, read_data| {
        in_a_session(bench.pipeline(), |cx| {
            let mut rec = Recorder::new(cx.pipeline.observer, None);
            let engine = cx.pipeline.engine(&bench.config.targets[0]);
            maintain::check(cx, &mut rec, engine, read_data, WhenBusy::Fail).unwrap()
        })
    };
    flip(&bench);
    assert_ne!(check(&bench, ReadData::All).damage, [] as [String; 0]);
    let closed = |bench: &Bench| bench.history.closures(target).unwrap().len();
    assert_eq!(closed(&bench), 1);
    flip(&bench);
    let keyless = bench.duplicate(&Scene { config: keyless, ..SECRET });
    let report = check(&keyless, ReadData::All);
    assert_eq!((report.damage, report.unverifiable.is_some()), (Vec::new(), true));
    assert_eq!(
        closed(&keyless),
        1,
        "what is stored may be what was stored, and hold something else"
    );
    check(&bench, ReadData::All);
    assert_eq!(closed(&bench), 0);
}

#[test]
fn a_deletion_that_breaks_off_leaves_nothing_that_cannot_be_restored() {
    let seed = Bench::with_history_of(&CHAINED);
    let delete = |bench: &Bench| {
        let engine = bench.pipeline().engine(&bench.config.targets[0]);
        let all: Vec<String> = seed.host.world().store.copies().collect();
        engine.delete(bench.pipeline().engine_context(), &all).map_err(|error| error.to_string())
    };
    let good = seed.duplicate(&CHAINED);
    good.host.arm(Fault::None);
    delete(&good).unwrap();
    let effects = good.host.world().effects.clone();
    assert!(effects.len() > 24, "a mark, two objects and the mark: {effects:#?}");
    for (n, what) in effects.iter().enumerate() {
        let scene = || seed.duplicate(&CHAINED);
        loops::any_fault_at(scene, n, what, delete, |bench, _, ended, after| {
            assert_eq!(damage(bench), [] as [String; 0], "{after}: {ended:?}");
            delete(bench).unwrap();
            assert_eq!(bench.host.world().store.objects.len(), 1, "{after}: the marker");
        });
    }
}

#[test]
fn whatever_happens_while_a_chain_goes_a_check_finds_nothing_wrong() {
    let seed = Bench::with_history_of(&ENDED);
    let effects = loops::effects(&ENDED);
    let going = effects.iter().filter(|it| it.starts_with("replace") && it.ends_with(".gone"));
    assert_eq!(going.count(), 4, "two chains of two: {effects:#?}");
    for (n, what) in effects.iter().enumerate() {
        loops::any_fault_of_a_run_at(
            || seed.duplicate(&ENDED),
            n,
            what,
            |bench, after| {
                assert_eq!(damage(bench), [] as [String; 0], "{after}");
                // What a deletion left goes with the next one, which is when the next chain has ended.
                for _ in 0..3 {
                    assert_eq!(bench.run().outcome, Outcome::Ok, "{after}");
                    bench.assert_released(after);
                    assert_eq!(damage(bench), [] as [String; 0], "{after}");
                }
                assert_eq!(bench.host.world().store.strays(), [] as [String; 0], "{after}");
            },
        );
    }
}

#[test]
fn what_a_person_chooses_goes_but_for_what_others_need() {
    let bench = Bench::with_history_of(&ENDED);
    let listed: Vec<String> = bench.host.world().copies();
    let of = |item: &str| -> Vec<String> {
        listed.iter().filter(|copy| copy.contains(item)).cloned().collect()
    };
    let (home, srv) = (of("_2fhome"), of("_2fsrv"));
    assert_eq!((home.len(), srv.len()), (3, 3));
    let prune_chosen = |copies: &[&String]| {
        let copies = copies.iter().map(|copy| (*copy).clone()).collect();
        let request = Request { copies, ..Request::default() };
        let targets = scope(&bench.config, None, None, false).unwrap();
        in_a_session(bench.pipeline(), |cx| prune(cx, &request, targets).unwrap())
    };
    // The first chain of each has ended. One goes as a whole, and of the other one only what the rest stands on was chosen.
    let pruned = prune_chosen(&[&home[0], &home[1], &srv[0]]);
    assert_eq!(pruned.failures, [] as [String; 0]);
    let expected = format!("{} is needed by {}, so it is not deleted", srv[0], srv[1]);
    assert_eq!(pruned.refusals, [expected]);
    let ruling = pruned.decisions.iter().find(|it| it.copy == srv[0]).unwrap();
    assert_eq!((ruling.delete, ruling.reason.starts_with("needed by")), (false, true));
    let gone: BTreeSet<&String> = pruned.deleted.iter().collect();
    assert_eq!(gone, BTreeSet::from([&home[0], &home[1]]));
    let left: Vec<String> = listed.into_iter().filter(|id| !gone.contains(id)).collect();
    assert_eq!(bench.host.world().copies(), left);
    assert_eq!(damage(&bench), [] as [String; 0]);
}

#[test]
fn a_record_of_another_machine_or_series_is_no_base() {
    let change = |bench: &Bench, from: &str, to: &str| {
        let mut world = bench.host.world();
        for (name, object) in &mut world.store.objects {
            if name.ends_with(".json") && name.contains("_2fhome") {
                let text = String::from_utf8(object.clone()).unwrap();
                *object = text.replace(from, to).into_bytes();
            }
        }
    };
    let bench = Bench::with_history_of(&CHAINED);
    assert_eq!(differences(&bench), 2);
    let ours = bench.history.machine().unwrap().unwrap().to_string();
    let others = bench.duplicate(&CHAINED);
    change(&others, &ours, "0000000000000000");
    assert_eq!(differences(&others), 1, "somebody else's");
    // What claims to be a difference to another subvolume's copy is none that can be restored.
    let copies = bench.host.world().copies();
    let first = |item: &str| copies.iter().find(|copy| copy.contains(item)).unwrap().clone();
    let sent = |copy: &str| {
        let record = bench.host.world().store.objects[&format!("{copy}.json")].clone();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        record["sent"].as_str().unwrap().to_owned()
    };
    let (home, srv) = (first("_2fhome"), first("_2fsrv"));
    let base = |copy: &str| format!("\"name\": \"{copy}\",\n    \"sent\": \"{}\"", sent(copy));
    let (from, to) = (base(&home), base(&srv));
    change(&bench, &from, &to);
    let found = damage(&bench);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|it| it.contains("not all that it is based on is there")));
}

#[test]
fn what_claims_to_be_a_copy_of_ours_is_no_base() {
    let bench = Bench::with_history_of(&CHAINED);
    let genuine = bench.host.world().copies();
    for name in &genuine {
        let run = name.rsplit_once('.').unwrap().1;
        let forged = name.replace(run, "00000000");
        let mut world = bench.host.world();
        let objects = &mut world.store.objects;
        let record = String::from_utf8(objects[&format!("{name}.json")].clone()).unwrap();
        let stream = objects[&format!("{name}.btrfs.zst")].clone();
        objects.insert(format!("{forged}.json"), record.replace(run, "00000000").into_bytes());
        objects.insert(format!("{forged}.btrfs.zst"), stream);
    }
    bench.run();
    let world = bench.host.world();
    let bases: Vec<String> = world
        .store
        .copies()
        .filter(|name| !genuine.contains(name) && !name.ends_with(".00000000"))
        .map(|name| {
            let record = &world.store.objects[&format!("{name}.json")];
            let record: serde_json::Value = serde_json::from_slice(record).unwrap();
            record["base"]["name"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(bases.len(), 2, "differences");
    assert!(bases.iter().all(|base| genuine.contains(base)), "{bases:?}");
}

#[test]
fn a_check_says_how_to_get_rid_of_what_is_beyond_repair() {
    for (scene, how) in [(&CHAINED, "rm /archive/"), (&KEPT, "keeper delete ")] {
        let bench = Bench::with_history_of(scene);
        let oldest = bench.host.world().store.copies().next().unwrap();
        bench.host.world().store.objects.remove(&format!("{oldest}.btrfs.zst"));
        let found = damage(&bench);
        let told = format!("remove its record: {how}{oldest}.json");
        assert!(found.iter().any(|it| it.contains(&told)), "{found:?}");
        // Whoever does all of that is rid of them.
        for said in &found {
            let (_, record) = said.trim_end_matches(')').split_once(how).unwrap();
            bench.host.world().store.objects.remove(record).unwrap();
        }
        assert_eq!(damage(&bench), [] as [String; 0]);
    }
}

#[test]
fn what_others_put_there_is_none_of_our_business() {
    let bench = Bench::with_history_of(&CHAINED);
    let copies = bench.host.world().copies();
    let name = &copies[0];
    let record = bench.host.world().store.objects[&format!("{name}.json")].clone();
    let put = |name: &str, content: &[u8]| {
        bench.host.world().store.objects.insert(name.to_owned(), content.to_owned());
    };
    for foreign in ["-rf.json", "../x.json", "a b\u{1b}[2J.btrfs", "notes.json", ".json", ".gone"] {
        put(foreign, &record);
    }
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let listed = engine.list(bench.pipeline().engine_context()).unwrap();
    assert_eq!(listed.len(), copies.len());
    assert_eq!(damage(&bench), [] as [String; 0]);
    // Nor is a record one that says something else than its name, or leads elsewhere.
    let text = String::from_utf8(record.clone()).unwrap();
    for (from, to) in [
        ("\"/home\"", "\"/home/../etc\""),
        ("\"/home\"", "\"/srv\""),
        (": \"host\"", ": \"other\""),
    ] {
        put(&format!("{name}.json"), text.replacen(from, to, 1).as_bytes());
        let found = damage(&bench);
        assert!(found.iter().any(|it| it.contains("of another copy")), "{to}: {found:?}");
    }
    // A record that is none is damaged, and what is a difference to that is none either.
    put(&format!("{name}.json"), b"{}");
    let found = damage(&bench);
    assert!(found.iter().any(|it| it.contains(".json cannot be read")), "{found:?}");
    let based = found.iter().filter(|it| it.contains("not all that it is based on")).count();
    assert_eq!(based, 2, "{found:?}");
    assert_eq!(engine.list(bench.pipeline().engine_context()).unwrap().len(), copies.len() - 3);
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_it_would_do() {
    for scene in [&STORED, &KEPT] {
        let bench = Bench::with_history_of(scene);
        let planned = bench.only_planned();
        let sent = planned.iter().filter(|it| it.contains("btrfs send")).count();
        assert_eq!(sent, 2, "{planned:#?}");
        let going = planned.iter().filter(|it| it.contains(".gone")).count();
        assert_eq!(going, 4, "each of the oldest is marked, and the mark removed: {planned:#?}");
    }
}

/// Restores the newest copy of one subvolume, which is a difference to two others.
pub fn restored(bench: &Bench) -> Result<(Result<(), StepError>, Cleanup), StepError> {
    restored_on(bench, false)
}

/// The same, and on whatever is free if that is asked for.
fn restored_on(
    bench: &Bench,
    ignore_space: bool,
) -> Result<(Result<(), StepError>, Cleanup), StepError> {
    let query = Query {
        job: &bench.config.jobs[0].name,
        host: None,
        target: Some(&bench.config.targets[0].name),
        item: Some("/home"),
    };
    let wanted = Wanted {
        paths: Vec::new(),
        to: Some("/empty/place".into()),
        into_existing: false,
        owners_by_name: false,
        ignore_space,
        dry_run: false,
    };
    let run = RunId::parse("0badcafe").unwrap();
    session(bench.pipeline(), &run, LedgerDirectory::StateElseRuntime, |cx| {
        restore(cx, &query, "latest", &wanted).map(drop)
    })
}

#[test]
fn a_restore_leaves_room_for_others_where_it_receives_the_copy() {
    // While it comes, and when all of it is on the disk.
    for (free, left) in [(Some(49), None), (None, Some(49))] {
        let bench = Bench::with_history_of(&CHAINED);
        (bench.host.world().tree.free, bench.host.world().tree.left) = (free, left);
        let (result, cleanup) = restored(&bench).unwrap();
        let error = result.unwrap_err();
        for words in ["there is no room at /scratch", "49 B free where 50 B stay free", "--to"] {
            assert!(error.message.contains(words), "{words}: {error}");
        }
        for words in ["no space is left", "fewer paths"] {
            assert!(!error.message.contains(words), "{words}: {error}");
        }
        assert_eq!(cleanup, Cleanup::default());
        bench.assert_released("it was too full");
        restored_on(&bench, true).unwrap().0.unwrap();
        bench.assert_released("it took all");
    }
}

#[test]
fn a_restore_deletes_nothing_that_somebody_sees_elsewhere() {
    let bench = Bench::with_history_of(&CHAINED);
    // Whoever mounts it does so while it is read.
    bench.host.world().show(Path::new("/.stillpoint-unpacked-0badcafe/x"), Path::new("/theirs"));
    let (result, cleanup) = restored(&bench).unwrap();
    result.unwrap();
    let [left] = &cleanup.leftovers[..] else { panic!("{cleanup:?}") };
    assert!(left.message.contains("still mounted at /theirs"), "{left:?}");
    let effects = bench.host.world().effects.clone();
    assert!(!effects.iter().any(|it| it.starts_with("delete the subvolume")), "{effects:?}");
    bench.host.world().unmount(Path::new("/theirs"));
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    bench.assert_released("nobody sees it any more");
}

#[test]
fn whatever_ends_a_restore_nothing_that_was_received_for_it_is_left() {
    let seed = Bench::with_history_of(&CHAINED);
    let good = seed.duplicate(&CHAINED);
    good.host.arm(Fault::None);
    let (result, cleanup) = restored(&good).unwrap();
    result.unwrap();
    assert_eq!(cleanup.leftovers, []);
    good.assert_released("a restore");
    let effects = good.host.world().effects.clone();
    let count = |words: &str| effects.iter().filter(|effect| effect.contains(words)).count();
    assert_eq!((count("btrfs receive"), count("delete the subvolume")), (3, 3), "{effects:#?}");
    // A difference is received where it can be seen to what it is one.
    let receives = effects.iter().filter(|effect| effect.contains("btrfs receive"));
    assert_eq!(receives.filter(|effect| effect.contains("/scratch/")).count(), 2, "{effects:#?}");
    // What was received, and that it is deleted.
    assert_eq!(count("wait until the file system at /scratch"), 2, "{effects:#?}");
    for (n, what) in effects.iter().enumerate() {
        loops::any_fault_at(|| seed.duplicate(&CHAINED), n, what, restored, |_, _, _, _| ());
    }
}

/// What is found of the file `a`, and what could not be read.
pub fn found(bench: &Bench) -> Found {
    let search = Search {
        pattern: FilePattern::new("a").unwrap(),
        job: None,
        target: None,
        every_copy: true,
    };
    in_a_session(bench.pipeline(), |cx| find(cx, &search)).unwrap()
}

/// How the copies of one subvolume differ.
pub fn differing(bench: &Bench, older: Option<&str>) -> Result<Vec<Change>, StepError> {
    let query =
        Query { job: &bench.config.jobs[0].name, host: None, target: None, item: Some("/home") };
    let pair = Pair::Copies { older, newer: "latest" };
    in_a_session(bench.pipeline(), |cx| diff(cx, &query, pair)).map(|it| it.changes)
}

#[test]
fn what_copies_hold_is_read_from_each_stream_once() {
    for scene in [&CHAINED, &SECRET] {
        let bench = Bench::with_history_of(scene);
        bench.host.arm(Fault::None);
        let found = found(&bench);
        assert!(found.unread.is_empty(), "{:?}", found.unread.first().map(|it| &it.error));
        let sizes = |root: &str| -> Vec<Option<u64>> {
            let path = Path::new(root).join("d/a");
            found.versions.iter().filter(|it| it.path == path).map(|it| it.size).collect()
        };
        assert_eq!(sizes("/home"), [Some(4), Some(9), Some(9)]);
        assert_eq!(sizes("/srv"), [Some(4), Some(9), Some(9)]);
        let reads = |bench: &Bench| {
            let effects = &bench.host.world().effects;
            effects.iter().filter(|effect| effect.contains("--edits")).count()
        };
        assert_eq!(reads(&bench), 6, "one for each copy");
        let paths = |changes: Vec<Change>| -> Vec<String> {
            changes.iter().map(|it| format!("{:?} {}", it.kind, it.path.display())).collect()
        };
        let all = bench.host.world().copies();
        let oldest = all.iter().find(|copy| copy.contains("_2fhome")).unwrap();
        assert_eq!(paths(differing(&bench, Some(oldest)).unwrap()), ["Modified /home/d/a"]);
        assert_eq!(reads(&bench), 9);
        // To no more than nine bytes, but it was written.
        assert_eq!(paths(differing(&bench, None).unwrap()), ["Modified /home/d/a"]);
        assert_eq!(reads(&bench), 12);
        bench.assert_released("find and diff");
        assert_eq!(bench.host.world().store.received.len(), 0);
    }
}

#[test]
fn what_no_key_opens_is_not_listed_and_the_remedy_is_told() {
    let bench = Bench::with_history_of(&SECRET);
    let keyless = bench.duplicate(&Scene { config: keyless, ..SECRET });
    let unfit = bench.duplicate(&SECRET);
    let said = "age: error: no identity matched any of the recipients".to_owned();
    unfit.host.world().store.age = Some((Exit::Code(1), said));
    for bench in [&keyless, &unfit] {
        let found = found(bench);
        assert_eq!((found.versions.len(), found.unread.len()), (0, 6));
        for unread in &found.unread {
            assert!(format!("{:?}", unread.error).contains("identity-file"), "{:?}", unread.error);
        }
        let refused = differing(bench, None).unwrap_err();
        assert!(format!("{refused:?}").contains("identity-file"), "{refused:?}");
    }
}

#[test]
fn a_stream_that_nobody_could_receive_is_refused_with_its_place() {
    let evil = [
        ("../etc/passwd", Edit::Make { kind: '-', device: 0 }),
        ("/etc/passwd", Edit::Make { kind: '-', device: 0 }),
        ("x/y", Edit::Make { kind: 'd', device: 0 }),
        ("nowhere", Edit::Unlink),
        ("d", Edit::Rename("d/d".into())),
    ];
    for (path, edit) in evil {
        let bench = Bench::with_history_of(&CHAINED);
        bench.host.world().store.more = vec![(path.into(), edit)];
        let found = found(&bench);
        assert_eq!((found.versions.len(), found.unread.len()), (0, 6), "{path}");
        let refused = format!("{:?}", differing(&bench, None).unwrap_err());
        assert!(refused.contains(&format!("at byte 3: {path}: ")), "{refused}");
        // It is to the last byte what was sent: `check` says whether that is so, and `find` says nothing of it.
        assert!(differences(&bench) > 0, "it is called damaged by who only looks");
    }
    // Nor is what was changed since.
    let bench = Bench::with_history_of(&CHAINED);
    let oldest = flip(&bench);
    let found = found(&bench);
    assert_eq!((found.versions.len(), found.unread.len()), (3, 3), "of the other subvolume");
    assert!(format!("{:?}", found.unread[0].error).contains(&oldest));
}

#[test]
fn whatever_fails_while_copies_are_searched_is_told_and_nothing_is_left() {
    let seed = Bench::with_history_of(&CHAINED);
    let good = seed.duplicate(&CHAINED);
    good.host.arm(Fault::None);
    found(&good);
    let effects = good.host.world().effects.clone();
    let reads = effects.iter().enumerate().filter(|(_, effect)| effect.contains("--edits"));
    for (n, what) in reads {
        let bench = seed.duplicate(&CHAINED);
        bench.host.arm(Fault::Fail(n));
        let found = found(&bench);
        assert!(!found.unread.is_empty(), "{what}");
        bench.assert_released(what);
        // What was read before it is not taken for all that there is.
        let told = found.versions.len() + found.unread.len();
        assert_eq!(told, 6, "{what}");
    }
}

#[test]
fn a_base_that_somebody_changes_while_it_is_sent_is_none() {
    no_difference_is_made_to_what_is_changed_meanwhile(&CHAINED, |world| &mut world.btrfs);
}
