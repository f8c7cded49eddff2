//! Pins: the mark is in the repository, whatever happens while it is set, and whoever deletes sees it.

use stillpoint::engine::Engines;
use stillpoint::model::copy::Copy;
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::Outcome;
use stillpoint::pipeline::adopt::{adopt, offers};
use stillpoint::pipeline::pin::pin;
use stillpoint::pipeline::session::{LedgerDirectory, session};
use stillpoint::step::context::RunContext;

use crate::adopts;
use crate::captures::target;
use crate::faults::{Bench, LIVE};
use crate::loops;
use crate::support::fake_engine::{FakeEngine, Notes};
use crate::support::fake_host::Fault;

/// The oldest archive's name without its pin.
fn oldest(bench: &Bench) -> String {
    let world = bench.host.world();
    let name = world.borg.archives.keys().next().unwrap();
    name.trim_end_matches(".pinned").to_owned()
}

/// The names under which an archive is there.
fn names_of(bench: &Bench, base: &str) -> Vec<String> {
    let world = bench.host.world();
    world.borg.archives.keys().filter(|name| name.starts_with(base)).cloned().collect()
}

/// What the verb does, in a session of its own.
fn change(bench: &Bench, base: &str, pinned: bool) -> Result<String, String> {
    let engine = bench.engines.values().next().unwrap().as_ref();
    let listed = engine.list(bench.pipeline().engine_context()).map_err(|e| e.to_string())?;
    let copy: Copy = listed.into_iter().find(|copy| copy.answers_to(base)).unwrap();
    let run = RunId::parse("00000abc").unwrap();
    let work = |cx: stillpoint::step::context::RunContext<'_>| pin(cx, engine, &copy, pinned);
    let (said, _) = session(bench.pipeline(), &run, LedgerDirectory::State, work)
        .map_err(|error| error.message)?;
    said.map_err(|error| error.message)
}

fn three_runs(bench: &Bench, after: &str) {
    bench.host.arm(Fault::None);
    for _ in 0..3 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{after}: {report:#?}");
    }
}

#[test]
fn a_pin_is_in_the_repository_and_outlives_history() {
    let seed = Bench::with_history();
    let base = oldest(&seed);
    let id = change(&seed, &base, true).unwrap();
    assert_eq!(id, format!("{base}.pinned"));
    assert!(seed.history.pins(&seed.config.targets[0].name).unwrap().is_empty());
    // The record goes with it: the copy is as healthy as before.
    let engine = seed.engines.values().next().unwrap();
    let mut listed = engine.list(seed.pipeline().engine_context()).unwrap();
    seed.history.enrich(&seed.config.targets[0].name, &mut listed).unwrap();
    assert!(listed.iter().all(|copy| copy.healthy == Some(true)), "{listed:#?}");

    // Another state directory, which knows of nothing.
    let lost = Bench::of(&LIVE);
    *lost.host.world() = seed.host.world().clone();
    lost.accept();
    lost.host.arm(Fault::None);
    for _ in 0..4 {
        lost.run();
        lost.accept();
    }
    assert_eq!(names_of(&lost, &base), std::slice::from_ref(&id), "without history");
    assert_eq!(lost.host.world().borg.archives.len(), 4, "two, and the two that are not its own");
    // Once they are its own, only the pin protects one of them.
    let target = &lost.config.targets[0].name;
    let offered = offers(lost.pipeline(), target, &adopts::ALL).unwrap().copies;
    assert_eq!(offered.len(), 2, "{offered:#?}");
    let work =
        |cx: RunContext<'_>| adopt(cx, lost.engines[target].as_ref(), &offered, adopts::TERMS);
    let run = RunId::parse("00000abd").unwrap();
    session(lost.pipeline(), &run, LedgerDirectory::State, work).unwrap().0.unwrap();
    lost.accept();
    lost.run();
    assert_eq!(names_of(&lost, &base), std::slice::from_ref(&id), "adopted");
    assert_eq!(lost.host.world().borg.archives.len(), 3, "two and the pinned one");

    three_runs(&seed, "with history");
    assert_eq!(names_of(&seed, &base), [id]);
    assert_eq!(change(&seed, &base, false).unwrap(), base);
    three_runs(&seed, "unpinned");
    assert_eq!(names_of(&seed, &base), Vec::<String>::new(), "the policy decides again");
}

/// The released version remembered pins of borg copies in history alone.
#[test]
fn a_pin_that_only_history_knows_gets_its_mark_from_the_next_run() {
    let bench = Bench::with_history();
    let base = oldest(&bench);
    let usb = bench.config.targets[0].name.clone();
    bench.history.pin(&usb, &base, chrono::DateTime::UNIX_EPOCH).unwrap();
    three_runs(&bench, "pinned by the released version");
    assert_eq!(names_of(&bench, &base), [format!("{base}.pinned")]);
    assert!(bench.history.pins(&usb).unwrap().is_empty());
}

/// The name that a pinned archive gets is taken by somebody else's.
#[test]
fn what_bears_the_name_of_a_pinned_copy_is_not_it() {
    let bench = Bench::with_history();
    let base = oldest(&bench);
    bench.host.world().borg.archives.insert(format!("{base}.pinned"), 1);
    let refused = change(&bench, &base, true).unwrap_err();
    assert!(refused.contains("already"), "{refused}");
    let usb = &bench.config.targets[0].name;
    assert!(bench.history.copies(usb).unwrap().iter().any(|copy| copy.id == base));
    assert!(bench.history.pins(usb).unwrap().contains(&base), "it is kept all the same");
    three_runs_at_least_warn(&bench);
    assert!(names_of(&bench, &base).contains(&base));
}

fn three_runs_at_least_warn(bench: &Bench) {
    for _ in 0..3 {
        let report = bench.run();
        assert!(report.outcome <= Outcome::Warning, "{report:#?}");
    }
}

/// Whatever goes wrong while a pin is set or removed: the copy is there under one name, what the verb said
/// holds, and a pin that was begun is kept.
#[test]
fn a_pin_at_any_fault() {
    for pinned in [true, false] {
        let seed = Bench::with_history();
        let base = oldest(&seed);
        if !pinned {
            change(&seed, &base, true).unwrap();
        }
        let counted = seed.duplicate(&LIVE);
        counted.host.arm(Fault::None);
        change(&counted, &base, pinned).unwrap();
        let effects = counted.host.world().effects.clone();
        let rename = effects.iter().position(|effect| effect.contains("rename")).unwrap();
        let change_it = |bench: &Bench| change(bench, &base, pinned);
        for (n, effect) in effects.iter().enumerate() {
            let scene = || seed.duplicate(&LIVE);
            loops::any_fault_at(scene, n, effect, change_it, |bench, _, said, after| {
                let after = format!("{after}, pinned: {pinned}");
                assert_eq!(names_of(bench, &base).len(), 1, "{after}");
                three_runs(bench, &after);
                let names = names_of(bench, &base);
                let marked = [format!("{base}.pinned")];
                match (pinned, said) {
                    (true, Some(Ok(_))) => assert_eq!(names, marked, "{after}"),
                    (true, _) if n >= rename => assert_eq!(names, marked, "{after}"),
                    (false, Some(Ok(_))) => assert_eq!(names, Vec::<String>::new(), "{after}"),
                    // A failure may leave the pin as it was, and says so.
                    _ => assert!(names.is_empty() || names == marked, "{after}"),
                }
            });
        }
    }
}

/// Several runs may write to a restic repository at once. Between the shared lock and the one for deleting
/// somebody pins a copy: what goes is decided again.
#[test]
fn a_pin_between_writing_and_deleting_holds() {
    let keep = KeepPolicy { last: Some(1), ..KeepPolicy::default() };
    for (meanwhile, expected) in [(false, ["delete copy-0 in one, 0 held"].as_slice()), (true, &[])]
    {
        let mut bench = Bench::new();
        let mut one = target("one", None);
        one.keep = Some(keep.clone());
        bench.config.jobs[0].targets = vec![one.name.clone()];
        bench.config.targets = vec![one];
        let notes = Notes::default();
        let mut engine =
            FakeEngine::new(&bench.config.targets[0], bench.host.clone(), notes.clone());
        if meanwhile {
            // The first run lists once and the second one before and after it has the lock.
            engine.meanwhile = Some((3, |copies| {
                let pinned = &mut copies[0];
                pinned.original = Some(std::mem::replace(&mut pinned.id, "copy-0-pinned".into()));
                pinned.pinned = true;
            }));
        }
        bench.engines = Engines::new();
        bench.engines.insert(bench.config.targets[0].name.clone(), Box::new(engine));
        for _ in 0..2 {
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        }
        let deletions: Vec<String> = notes
            .lock()
            .unwrap()
            .iter()
            .filter(|note| note.starts_with("delete"))
            .cloned()
            .collect();
        assert_eq!(deletions, expected);
    }
}

/// A repository that takes one writer at a time is locked once from the copy to the deletion.
#[test]
fn deciding_and_deleting_happen_under_one_lock() {
    let bench = Bench::with_history();
    bench.host.world().asked.clear();
    bench.run();
    let world = bench.host.world();
    assert!(world.effects.iter().any(|effect| effect.contains("delete")), "{:?}", world.effects);
    let targets = world.asked.iter().filter(|path| path.to_string_lossy().contains("target-"));
    // Once for the copy and what follows it, and once for compaction.
    assert_eq!(targets.count(), 2, "{:?}", world.asked);
}

#[test]
fn a_pin_that_the_repository_does_not_take_is_kept_here_and_told_so() {
    let bench = Bench::with_history();
    let target = bench.config.targets[0].name.clone();
    let base = oldest(&bench);
    let good = bench.duplicate(&LIVE);
    good.host.arm(Fault::None);
    change(&good, &base, true).unwrap();
    let effects = good.host.world().effects.clone();
    let marks = effects.iter().position(|effect| effect.contains("rename")).unwrap();
    bench.host.arm(Fault::Fail(marks));
    let refused = change(&bench, &base, true).unwrap_err();
    assert!(refused.contains("this machine's own record keeps it"), "{refused}");
    assert_eq!(bench.history.pins(&target).unwrap().len(), 1);
    // As it says, the next run marks it.
    three_runs(&bench, "a pin that was refused");
    assert_eq!(names_of(&bench, &base), [format!("{base}.pinned")]);
    assert!(bench.history.pins(&target).unwrap().is_empty());
}
