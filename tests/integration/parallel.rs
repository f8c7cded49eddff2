//! Several jobs of a run at the same time: what overlaps and what must not, whatever goes wrong with any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use stillpoint::engine::{self, Engines};
use stillpoint::model::event::{Event, Observer, StepPlace};
use stillpoint::model::job::{Config, Scope};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::RunReport;
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::run::run;
use stillpoint::step::context::Pipeline;

use crate::captures::{self, QUIET};
use crate::configured::configured;
use crate::faults::{self, Bench, Scene};
use crate::loops;
use crate::support::fake_host::Fault;
use crate::support::fake_vault::vaults;

/// Two jobs on two targets, which hold the same volumes still.
const BOTH: Scene = Scene {
    config: both,
    world: captures::world,
    engines,
    kept: 4,
    tried_again: |effect| effect.starts_with("lvremove"),
    ..faults::LIVE
};

fn both(state: &Path) -> Config {
    let host = format!("[jobs.host.files]\n{FILES}");
    let other = format!("[jobs.other]\ntargets = ['box']\n[jobs.other.files]\n{FILES}\n");
    parallel(2, &(faults::text(state, &host, QUIET) + BOX + &other))
}

/// Files that are held still by snapshots of several providers.
pub const FILES: &str = "paths = ['/home', '/opt', '/srv', '/var']\none-file-system = true\ncapture = 'required'\nconsistent = true\nfreeze-units = ['app.service']\nlvm-classic.size = '10%'";

/// A target that is another engine's.
pub const BOX: &str = "[targets.box.keep]\nlast = 2\n[targets.box.borg]\nrepository = '/vault'\nencryption = 'none'\n";

/// The same configuration, of which so many jobs are at work at the same time.
fn parallel(jobs: u32, text: &str) -> Config {
    configured(&text.replacen("[settings]", &format!("[settings]\nparallel = {jobs}"), 1))
}

/// The engines, of which that of `box` is the fake one.
pub fn engines(config: &Config) -> Engines {
    let mut engines = engine::engines(config);
    engines.extend(vaults(config).into_iter().filter(|(name, _)| name.as_str() == "box"));
    engines
}

/// Jobs that read their files live, by name, each with its targets.
fn live(state: &Path, jobs: &[(&str, &str)]) -> Config {
    let mut text = format!(
        "[settings]\nstate-dir = '{}'\nlock-wait = '0s'\n[targets.usb.keep]\nlast = 9\n[targets.usb.borg]\nrepository = '/repo'\nencryption = 'none'\n",
        state.display()
    ) + BOX;
    for (job, targets) in jobs {
        text += &format!(
            "[jobs.{job}]\ntargets = [{targets}]\nfiles = {{ paths = ['/data'], capture = 'none' }}\n"
        );
    }
    parallel(2, &text)
}

fn apart(state: &Path) -> Config {
    live(state, &[("one", "'usb'"), ("two", "'box'")])
}

fn bench(config: fn(&Path) -> Config) -> Bench {
    let bench = Bench::of(&Scene { config, engines, ..faults::LIVE });
    bench.host.arm(Fault::None);
    bench
}

/// A run of every job, of which the observer is told.
pub fn watched(bench: &Bench, observer: &dyn Observer) -> RunReport {
    let jobs: Vec<_> = bench.config.jobs.iter().collect();
    run(Pipeline { observer, ..bench.pipeline() }, &jobs, Scope::default())
}

fn outcomes(report: &RunReport) -> Vec<(&str, Outcome)> {
    report.jobs.iter().map(|job| (job.name.as_str(), job.outcome.clone())).collect()
}

/// Holds threads up until something has happened.
#[derive(Default)]
pub struct Happened(Mutex<BTreeSet<String>>, Condvar);

impl Happened {
    pub fn note(&self, what: String) {
        self.0.lock().unwrap().insert(what);
        self.1.notify_all();
    }

    #[track_caller]
    pub fn wait_for(&self, what: &[&str]) {
        let has_not = |seen: &mut BTreeSet<String>| what.iter().any(|it| !seen.contains(*it));
        let long = Duration::from_secs(60);
        let seen = self.1.wait_timeout_while(self.0.lock().unwrap(), long, has_not).unwrap().0;
        assert!(what.iter().all(|it| seen.contains(*it)), "never came about: {what:?}: {seen:?}");
    }
}

/// Whom a step stores for, if it does.
pub type Who = fn(&StepPlace) -> Option<String>;

fn job_that_stores(place: &StepPlace) -> Option<String> {
    place.job.as_ref().filter(|_| place.step == "backup").map(ToString::to_string)
}

/// Each of the two begins to store only when the other one does.
pub struct Together {
    pub who: Who,
    pub both: [&'static str; 2],
    pub begun: Happened,
}

impl Observer for Together {
    fn on(&self, event: &Event) {
        if let Event::StepStarted { place } = event
            && let Some(who) = (self.who)(place)
        {
            self.begun.note(who);
            self.begun.wait_for(&self.both);
        }
    }
}

fn together(one: &'static str, other: &'static str) -> Together {
    Together { who: job_that_stores, both: [one, other], begun: Happened::default() }
}

/// Has the one panic when the other one has begun to store. That one ends its work, what is left is in a ledger, and it is
/// recovered from.
#[track_caller]
pub fn a_panic_stops_no_other(scene: &Scene, who: Who, one: &'static str, other: &'static str) {
    struct Clumsy {
        who: Who,
        one: &'static str,
        other: &'static str,
        begun: Happened,
    }

    impl Observer for Clumsy {
        fn on(&self, event: &Event) {
            let Event::StepStarted { place } = event else { return };
            let Some(who) = (self.who)(place) else { return };
            if who == self.other {
                self.begun.note(who);
                self.begun.wait_for(&[self.one]);
            } else if who == self.one {
                self.begun.wait_for(&[self.other]);
                self.begun.note(who);
                panic!("a fault of ours")
            }
        }
    }

    let bench = Bench::with_history_of(scene);
    let before = bench.host.world().vault.copies.clone();
    let clumsy = Clumsy { who, one, other, begun: Happened::default() };
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        watched(&bench, &clumsy);
    }));
    let payload = panicked.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"a fault of ours"));
    let world = bench.host.world();
    assert!(world.vault.copies.keys().any(|id| !before.contains_key(id)), "it has its copy");
    drop(world);
    // What is left is one job's, and the ledger knows of it.
    assert_eq!(bench.ledgers().len(), 1);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    bench.assert_released("a panic");
    bench.assert_mended("a panic");
}

/// The first job stores only when the second one is over.
#[derive(Default)]
struct LastFirst(Happened);

impl Observer for LastFirst {
    fn on(&self, event: &Event) {
        match event {
            Event::JobFinished { job, .. } => self.0.note(job.to_string()),
            Event::StepStarted { place } if job_that_stores(place).as_deref() == Some("one") => {
                self.0.wait_for(&["two"]);
            }
            _ => {}
        }
    }
}

/// Notes which jobs are at work, in the order in which they began, and the most that were at once.
#[derive(Default)]
struct Order(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    begun: Vec<String>,
    at_work: BTreeSet<String>,
    together: Vec<BTreeSet<String>>,
}

impl Observer for Order {
    fn on(&self, event: &Event) {
        let mut seen = self.0.lock().unwrap();
        let Seen { begun, at_work, together } = &mut *seen;
        match event {
            Event::JobStarted { job } => {
                begun.push(job.to_string());
                at_work.insert(job.to_string());
                together.push(at_work.clone());
            }
            Event::JobFinished { job, .. } => {
                at_work.remove(job.as_str());
            }
            _ => {}
        }
    }
}

#[test]
fn two_jobs_on_two_targets_are_at_work_at_the_same_time() {
    let bench = bench(apart);
    let report = watched(&bench, &together("one", "two"));
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.host.world().copies().len(), 2);
    bench.assert_released("two at a time");
}

#[test]
fn a_report_has_the_order_of_the_file() {
    let bench = bench(apart);
    bench.host.world().borg.forgetful = true;
    let report = watched(&bench, &LastFirst::default());
    assert_eq!(outcomes(&report), [("one", Outcome::Failed), ("two", Outcome::Ok)], "{report:#?}");
    let last = bench.history.last_run().unwrap().unwrap();
    assert_eq!(last.outcome, Outcome::Failed);
}

#[test]
fn no_two_jobs_are_at_work_on_one_target_and_each_target_keeps_the_order_of_the_file() {
    let config = |state: &Path| {
        let jobs =
            [("a", "'usb'"), ("b", "'usb'"), ("c", "'usb', 'box'"), ("d", "'box'"), ("e", "'box'")];
        live(state, &jobs)
    };
    let bench = bench(config);
    for _ in 0..3 {
        let order = Order::default();
        let report = watched(&bench, &order);
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        let Seen { begun, at_work, together } = order.0.into_inner().unwrap();
        assert_eq!(begun, ["a", "b", "c", "d", "e"]);
        assert_eq!(at_work, BTreeSet::new());
        assert!(together.iter().all(|jobs| jobs.len() == 1), "{together:?}");
    }
}

#[test]
fn a_job_that_fails_stops_no_other() {
    let bench = bench(apart);
    bench.host.world().borg.forgetful = true;
    let report = watched(&bench, &together("one", "two"));
    assert_eq!(outcomes(&report), [("one", Outcome::Failed), ("two", Outcome::Ok)], "{report:#?}");
    assert_eq!(bench.host.world().vault.copies.len(), 1);
}

#[test]
fn a_job_that_makes_a_file_system_read_only_is_at_work_alone() {
    let config = |state: &Path| {
        let files = "paths = ['/boot']\ncapture = 'required'\nremount-readonly.paths = ['/boot']";
        let host = format!("[jobs.host.files]\n{files}");
        let other = format!("[jobs.other]\ntargets = ['box']\n[jobs.other.files]\n{files}\n");
        parallel(2, &(faults::text(state, &host, "") + BOX + &other))
    };
    let scene = Scene { config, world: captures::world, engines, kept: 4, ..faults::LIVE };
    let bench = Bench::with_history_of(&scene);
    let order = Order::default();
    let report = watched(&bench, &order);
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let Seen { begun, together, .. } = order.0.into_inner().unwrap();
    assert_eq!(begun, ["host", "other"]);
    assert!(together.iter().all(|jobs| jobs.len() == 1), "{together:?}");
    bench.assert_released("two that make one file system read-only");
}

#[test]
fn a_plan_tells_of_one_job_after_the_other() {
    let bench = Bench::of(&BOTH);
    let (report, effects) = bench.plan();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let again = bench.plan().1;
    assert_eq!(effects.len(), again.len());
    let at = |what: &str| effects.iter().position(|effect| effect.contains(what)).unwrap();
    assert!(at(" create ") < at("vault"), "{effects:#?}");
}

#[test]
fn when_one_job_panics_the_others_end_their_work() {
    a_panic_stops_no_other(&BOTH, job_that_stores, "host", "other");
}

#[test]
fn a_signal_begins_no_other_job() {
    let config =
        |state: &Path| live(state, &[("one", "'usb'"), ("two", "'box'"), ("three", "'usb'")]);
    let bench = bench(config);
    // The first effect makes the directory of the run; the next one stores.
    bench.host.arm(Fault::Signal(1));
    let report = watched(&bench, &together("one", "two"));
    assert_eq!(report.outcome, Outcome::Interrupted);
    let told: BTreeMap<&str, Option<&str>> =
        report.jobs.iter().map(|job| (job.name.as_str(), job.reason.as_deref())).collect();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), ["one", "three", "two"]);
    assert_eq!(told["three"], Some("the run ended before it was begun"));
    assert!(report.troubles.contains(&Trouble::Signal(15)));
    bench.assert_released("a signal");
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    loops::failing_any_effect(&BOTH);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&BOTH);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&BOTH);
}

/// The world of the scene has room for the snapshots of both.
#[test]
fn both_jobs_have_captures_at_the_same_time() {
    let bench = Bench::with_history_of(&BOTH);
    let report = watched(&bench, &together("host", "other"));
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    bench.assert_released("captures of two jobs");
}
