//! What goes wrong while it is told how much a run would store: a snapshot is made for that, and nothing of it stays.

use std::sync::Mutex;

use stillpoint::host::Host;
use stillpoint::model::event::{Event, Observer};
use stillpoint::model::job::Scope;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::Outcome;
use stillpoint::pipeline::estimate::{Estimates, estimate};
use stillpoint::pipeline::run::run;
use stillpoint::pipeline::session::{Cleanup, LedgerDirectory, session};
use stillpoint::step::context::Pipeline;
use stillpoint::step::error::StepError;

use crate::faults::{Bench, LIVE};
use crate::loops;
use crate::subvolumes::SENT;

type Told = (Result<Estimates, StepError>, Cleanup);

fn told(bench: &Bench) -> Result<Told, StepError> {
    let run = RunId::parse("0badcafe").unwrap();
    session(bench.pipeline(), &run, LedgerDirectory::State, |cx| {
        estimate(cx, &bench.config.jobs[0], None)
    })
}

#[test]
fn it_tells_what_would_be_sent_and_what_it_would_be_a_difference_to() {
    let bench = Bench::with_history_of(&SENT);
    let snapshots = bench.host.world().btrfs.top.clone();
    let (estimates, cleanup) = told(&bench).unwrap();
    let Estimates { known, troubles } = estimates.unwrap();
    assert_eq!((troubles, cleanup.leftovers), (Vec::new(), Vec::new()));
    let copies = bench.host.world().copies();
    for (estimated, item) in known.iter().zip(["/home", "/srv"]) {
        assert_eq!(estimated.item.as_deref(), Some(item));
        assert_eq!(estimated.estimate.bytes, 300);
        assert!(copies.contains(estimated.estimate.based_on.as_ref().unwrap()), "{estimated:?}");
    }
    assert_eq!(known.len(), 2);
    assert_eq!(bench.host.world().btrfs.top, snapshots, "its own are gone, the others are there");
    bench.assert_released("an estimate");
}

#[test]
fn whoever_watches_a_run_sees_how_much_there_is_to_go() {
    struct Watcher(bool, Mutex<Vec<(Option<u64>, Option<u64>)>>);
    impl Observer for Watcher {
        fn on(&self, event: &Event) {
            if let Event::Progress { progress, .. } = event {
                self.1.lock().unwrap().push((progress.bytes_done, progress.bytes_total));
            }
        }
        fn shows_progress(&self) -> bool {
            self.0
        }
    }
    for (looks, total) in [(true, Some(300)), (false, None)] {
        let bench = Bench::with_history_of(&SENT);
        let watcher = Watcher(looks, Mutex::default());
        let pipeline = Pipeline { observer: &watcher, ..bench.pipeline() };
        assert_eq!(run(pipeline, &[&bench.config.jobs[0]], Scope::default()).outcome, Outcome::Ok);
        assert_eq!(*watcher.1.lock().unwrap(), [(Some(100), total), (Some(100), total)]);
    }
}

#[test]
fn where_no_target_can_tell_nothing_is_held_still() {
    let bench = Bench::with_history_of(&LIVE);
    bench.host.world().effects.clear();
    let (estimates, _) = told(&bench).unwrap();
    let error = estimates.unwrap_err();
    assert!(error.message.contains("no target of job host"), "{error:?}");
    assert_eq!(bench.host.world().effects.iter().filter(|it| it.contains("freeze")).count(), 0);
}

#[test]
fn whatever_goes_wrong_nothing_stays() {
    let seed = Bench::with_history_of(&SENT);
    let bench = seed.duplicate(&SENT);
    told(&bench).unwrap().0.unwrap();
    let effects = bench.host.world().effects.clone();
    assert!(effects.len() > 5, "{effects:?}");
    let is_good = |bench: &Bench| {
        let Ok((Ok(estimates), cleanup)) = told(bench) else { return false };
        // The verb adds a signal that came at the very end.
        estimates.troubles.is_empty()
            && cleanup.leftovers.is_empty()
            && bench.host.stop_signal().is_none()
    };
    for (n, what) in effects.iter().enumerate() {
        let scene = || seed.duplicate(&SENT);
        loops::any_fault_at(scene, n, what, is_good, |bench, _, went_well, after| {
            assert_ne!(went_well, Some(true), "{after} went unnoticed");
            bench.assert_mended(after);
        });
    }
}
