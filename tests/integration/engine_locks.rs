//! The engine's lock in a repository: looked for whenever an engine may have left it, and not forgotten before.

use std::sync::{Arc, Mutex};

use stillpoint::engine::{Context, Engine, EngineError};
use stillpoint::history::{Closure, ClosureKind, Extent, FILE_NAME, History};
use stillpoint::host::dry::DryHost;
use stillpoint::model::names::{RunId, TargetName};
use stillpoint::model::target::ReadData;
use stillpoint::pipeline::closed;
use stillpoint::pipeline::engine_lock::{bracketed, bracketed_with};
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::session::{LedgerDirectory, session};
use stillpoint::pipeline::steps::maintain::{WhenBusy, check, compact};
use stillpoint::step::context::{Pipeline, RunContext};
use stillpoint::step::recorder::Recorder;

use crate::faults::{Bench, Nobody};
use crate::subvolumes::SENT;
use crate::support::fake_engine::{FakeEngine, Notes};
use crate::support::fake_vault::vaults;

fn run_id() -> RunId {
    RunId::parse("00000abc").unwrap()
}

/// A machine whose only target is served by an engine that notes what it is asked.
fn bench(lock_stays: bool) -> (Bench, TargetName, Notes) {
    let mut bench = Bench::new();
    let notes = Notes::default();
    let target = bench.config.targets[0].clone();
    let mut engine = FakeEngine::new(&target, bench.host.clone(), notes.clone());
    engine.lock_stays = lock_stays;
    bench.engines.insert(target.name.clone(), Box::new(engine));
    (bench, target.name, notes)
}

type Failure = fn(String, String) -> EngineError;

fn unreachable(repository: String, detail: String) -> EngineError {
    EngineError::Unreachable { repository, detail }
}

#[test]
fn the_lock_is_looked_for_after_whatever_an_engine_may_have_left_it_behind_with() {
    let rows: [(Failure, bool); 8] = [
        (unreachable, true),
        (|repository, detail| EngineError::Damaged { repository, detail }, true),
        (|repository, detail| EngineError::Locked { repository, detail }, true),
        (|_, command| EngineError::EmptyStream { command }, true),
        (|_, what| EngineError::Output { engine: "restic", what }, true),
        (|repository, _| EngineError::WrongPassphrase { repository }, false),
        (|repository, _| EngineError::RepositoryMissing { repository }, false),
        (|_, detail| EngineError::NoSource { detail }, false),
    ];
    for (failure, looks) in rows {
        let (bench, target, notes) = bench(false);
        let engine = bench.engines[&target].as_ref();
        let work = |cx: RunContext<'_>| {
            bracketed::<()>(cx, engine, |_, _| Err(failure("r".into(), "words".into())))
                .unwrap_err()
        };
        let (said, cleanup) =
            session(bench.pipeline(), &run_id(), LedgerDirectory::State, work).unwrap();
        assert!(cleanup.leftovers.is_empty(), "{said}: {:?}", cleanup.leftovers);
        let released = notes.lock().unwrap().iter().filter(|n| n.starts_with("release")).count();
        assert_eq!(released, usize::from(looks), "{said}");
        bench.assert_released("a look");
    }
}

#[test]
fn a_lock_that_cannot_be_released_stays_in_the_ledger() {
    let (mut bench, target, notes) = bench(true);
    let engine = bench.engines[&target].as_ref();
    let work = |cx: RunContext<'_>| {
        bracketed::<()>(cx, engine, |_, _| Err(unreachable("r".into(), "words".into())))
            .unwrap_err()
    };
    let (said, cleanup) =
        session(bench.pipeline(), &run_id(), LedgerDirectory::State, work).unwrap();
    assert!(said.message.contains("cannot reach"), "the first failure is told: {said}");
    assert_eq!(cleanup.leftovers.len(), 1, "{:?}", cleanup.leftovers);
    assert_eq!(bench.ledgers().len(), 1);
    let engine = FakeEngine::new(&bench.config.targets[0], bench.host.clone(), notes);
    bench.engines.insert(target, Box::new(engine));
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    bench.assert_released("recover");
}

/// How many locks the ledger has while the engine of the only target is called.
fn locks_in_the_ledger(bench: &Bench) -> usize {
    let engine = bench.engines.values().next().unwrap().as_ref();
    let count = |_: &dyn Engine, _: Context<'_>| {
        let ledgers = bench.ledgers().into_iter();
        let texts = ledgers.map(|ledger| std::fs::read_to_string(ledger).unwrap());
        Ok(texts.map(|text| text.matches("release-lock").count()).sum())
    };
    let work = |cx: RunContext<'_>| bracketed(cx, engine, count).unwrap();
    session(bench.pipeline(), &run_id(), LedgerDirectory::State, work).unwrap().0
}

#[test]
fn an_engine_that_takes_no_locks_has_none_in_the_ledger() {
    assert_eq!(locks_in_the_ledger(&Bench::new()), 1, "borg");
    assert_eq!(locks_in_the_ledger(&Bench::of(&SENT)), 0, "btrfs");
    let mut bench = Bench::new();
    bench.engines = vaults(&bench.config);
    assert_eq!(locks_in_the_ledger(&bench), 0, "one that has nothing which it need not have");
}

#[test]
fn a_lock_bears_the_name_of_the_run_where_the_ledger_outlives_a_reboot_and_nowhere_else() {
    let bench = Bench::with_history();
    let engine = bench.engines.values().next().unwrap().as_ref();
    let name_in = |cx: RunContext<'_>| {
        assert!(cx.engine().run.is_none(), "a look is no concern of the ledger");
        let name = bracketed(cx, engine, |engine, context| Ok(engine.lock_owner(context)));
        (!cx.durable, name.unwrap())
    };
    let owned = Some("web1.stillpoint-00000abc".to_owned());
    let (named, _) =
        session(bench.pipeline(), &run_id(), LedgerDirectory::StateElseRuntime, name_in).unwrap();
    assert_eq!(named, (false, owned));
    // No ledger can be begun where a file is in its place.
    std::fs::remove_dir_all(bench.state.path().join("ledger")).unwrap();
    std::fs::write(bench.state.path().join("ledger"), "").unwrap();
    let (named, cleanup) =
        session(bench.pipeline(), &run_id(), LedgerDirectory::StateElseRuntime, name_in).unwrap();
    assert!(cleanup.volatile.is_some());
    assert_eq!(named, (true, None));
    // A dry run carries out what only looks, and has no ledger at all.
    let dry = DryHost::new(Arc::new(bench.host.clone()));
    let pipeline = Pipeline { host: &dry, ..bench.pipeline() };
    let (named, _) =
        session(pipeline, &run_id(), LedgerDirectory::StateElseRuntime, name_in).unwrap();
    assert_eq!(named, (true, None));
}

/// One restic works on both repositories of a copy, and locks both.
#[test]
fn a_copy_that_fails_leaves_no_lock_in_either_repository() {
    let (mut bench, target, notes) = bench(false);
    let mut other = bench.config.targets[0].clone();
    other.name = TargetName::new("source").unwrap();
    let source = FakeEngine::new(&other, bench.host.clone(), notes.clone());
    bench.engines.insert(other.name.clone(), Box::new(source));
    let [engine, source] = [&target, &other.name].map(|name| bench.engines[name].as_ref());
    let work = |cx: RunContext<'_>| {
        bracketed_with::<()>(cx, engine, &[source], |_, _| {
            Err(unreachable("r".into(), "words".into()))
        })
        .unwrap_err()
    };
    session(bench.pipeline(), &run_id(), LedgerDirectory::State, work).unwrap();
    let notes = notes.lock().unwrap();
    for name in [target.as_str(), "source"] {
        assert!(notes.iter().any(|note| note.starts_with(&format!("release the lock of {name}"))));
    }
    bench.assert_released("a copy that failed");
}

/// A check that somebody else makes finds damage while the compaction waits for the target's lock.
#[test]
fn damage_that_is_found_while_a_compaction_waits_stops_it() {
    let bench = Bench::with_history();
    let target = bench.config.targets[0].clone();
    let (path, found) = (bench.state.path().join(FILE_NAME), target.clone());
    let mut once = Some(());
    *bench.host.on_lock.lock().unwrap() = Some(Box::new(move |lock, taken| {
        let is_target = lock.to_string_lossy().contains("/target-");
        if is_target && taken && once.take().is_some() {
            let theirs = Closure {
                target: found.name.clone(),
                kind: ClosureKind::Damage,
                subject: String::new(),
                extent: Some(Extent::Structure),
                detail: "chunk 17 is broken".into(),
                run: RunId::parse("0000beef").unwrap(),
                since: chrono::DateTime::UNIX_EPOCH,
            };
            History::open(&path).unwrap().close(&theirs).unwrap();
        }
    }));
    let (troubled, _) = session(bench.pipeline(), &run_id(), LedgerDirectory::State, |cx| {
        let mut rec = Recorder::new(&Nobody, None);
        assert!(compact(cx, &mut rec, cx.pipeline.engine(&target), WhenBusy::Fail).is_none());
        rec.steps.last().unwrap().detail.clone()
    })
    .unwrap();
    assert!(troubled.contains("chunk 17"), "{troubled}");
    assert!(!bench.host.world().effects.iter().any(|effect| effect.contains("compact")));
}

#[test]
fn what_a_check_found_is_recorded_before_the_lock_goes() {
    let bench = Bench::with_history();
    bench.host.world().borg.damaged = true;
    let target = bench.config.targets[0].clone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (path, name, told) =
        (bench.state.path().join(FILE_NAME), target.name.clone(), Arc::clone(&seen));
    *bench.host.on_lock.lock().unwrap() = Some(Box::new(move |lock, taken| {
        if lock.to_string_lossy().contains("/target-") {
            let closures = History::open(&path).unwrap().closures(&name).unwrap();
            told.lock().unwrap().push((taken, closures.len()));
        }
    }));
    session(bench.pipeline(), &run_id(), LedgerDirectory::State, |cx| {
        let mut rec = Recorder::new(&Nobody, None);
        let engine = cx.pipeline.engine(&target);
        check(cx, &mut rec, engine, ReadData::None, WhenBusy::Fail);
        assert_eq!(closed::known(cx.pipeline, &target.name).unwrap().len(), 1);
    })
    .unwrap();
    assert_eq!(*seen.lock().unwrap(), [(true, 0), (false, 1)]);
}
