//! Several targets of a job at the same time: what overlaps and what must not, whatever goes wrong with any of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use stillpoint::engine::Engines;
use stillpoint::model::event::{Event, Observer, StepPlace};
use stillpoint::model::job::Config;
use stillpoint::model::outcome::{Outcome, Trouble};

use crate::captures::{self, QUIET};
use crate::configured::configured;
use crate::faults::{self, Bench, Scene};
use crate::loops;
use crate::parallel::{self, Happened, Together, watched};
use crate::subvolumes;
use crate::support::fake_host::{Fault, World};

/// Files that are held still, for targets of two engines.
const FILES: Scene = Scene {
    config: files,
    world: captures::world,
    engines: parallel::engines,
    kept: 4,
    tried_again: |effect| effect.starts_with("lvremove"),
    ..faults::LIVE
};

/// Two subvolumes, sent to two directories.
const SENT: Scene = Scene { config: sent, world: pools, kept: 8, ..faults::LIVE };

fn files(state: &Path) -> Config {
    let table = format!("[jobs.host.files]\n{}", parallel::FILES);
    let text = faults::text(state, &table, QUIET);
    at_once(2, &text.replace(r#"targets = ["usb"]"#, r#"targets = ["usb", "box"]"#))
}

fn sent(state: &Path) -> Config {
    let table = "keep.last = 2\nbtrfs.location = '/pool/one'\n[targets.other]\nkeep.last = 2\nbtrfs.location = '/pool/two'";
    let text = subvolumes::text(state, "pool", table);
    configured(&with(2, &text.replace(r#"targets = ["pool"]"#, r#"targets = ["pool", "other"]"#)))
}

fn pools() -> World {
    let mut world = subvolumes::world();
    for (at, id) in [("/pool/one", "0123456789abcdef"), ("/pool/two", "fedcba9876543210")] {
        world.pool.mark(Path::new(at), id);
    }
    world
}

/// Files that are read live, for this many targets of which so many are served at the same time.
fn live(state: &Path, targets: &[&str], limit: u32) -> Config {
    let mut text = faults::text(state, "files = { paths = ['/data'], capture = 'none' }", "");
    let more: Vec<&str> = targets.iter().filter(|name| **name != "usb").copied().collect();
    for name in &more {
        text += &format!(
            "[targets.{name}.keep]\nlast = 2\n[targets.{name}.borg]\nrepository = '/{name}'\nencryption = 'none'\n"
        );
    }
    configured(&with(
        limit,
        &text.replace(r#"targets = ["usb"]"#, &format!("targets = {targets:?}")),
    ))
}

/// The same configuration with `box`, so many targets at the same time.
fn at_once(targets: u32, text: &str) -> Config {
    configured(&with(targets, &(text.to_owned() + parallel::BOX)))
}

fn with(targets: u32, text: &str) -> String {
    text.replacen("[settings]", &format!("[settings]\nparallel-targets = {targets}"), 1)
}

/// The target that a step stores in, if it does.
fn stores(place: &StepPlace) -> Option<String> {
    place.target.as_ref().filter(|_| place.step == "backup").map(ToString::to_string)
}

#[test]
fn two_targets_take_a_copy_at_the_same_time_of_what_is_held_once() {
    let bench = Bench::with_history_of(&FILES);
    let together = Together { who: stores, both: ["usb", "box"], begun: Happened::default() };
    let report = watched(&bench, &together);
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let effects = bench.host.world().effects.clone();
    assert_eq!(effects.iter().filter(|effect| effect.contains("pause")).count(), 1, "{effects:#?}");
    bench.assert_released("two at a time");
}

#[test]
fn a_report_has_the_order_of_the_job_and_one_that_fails_stops_no_other() {
    /// The first target stores only when the second one has.
    #[derive(Default)]
    struct LastFirst(Happened);

    impl Observer for LastFirst {
        fn on(&self, event: &Event) {
            match event {
                Event::StepFinished { place, .. } => {
                    stores(place).into_iter().for_each(|target| self.0.note(target));
                }
                Event::StepStarted { place } if stores(place).as_deref() == Some("usb") => {
                    self.0.wait_for(&["box"]);
                }
                _ => {}
            }
        }
    }

    let bench = Bench::with_history_of(&FILES);
    bench.host.world().borg.forgetful = true;
    let report = watched(&bench, &LastFirst::default());
    let job = &report.jobs[0];
    assert_eq!(job.outcome, Outcome::Failed, "{report:#?}");
    let targets: Vec<_> =
        job.targets.iter().map(|target| (target.target.as_str(), &target.outcome)).collect();
    assert_eq!(targets, [("usb", &Outcome::Failed), ("box", &Outcome::Ok)], "{report:#?}");
    let stored = job.steps.iter().filter(|step| step.step == "backup");
    let stored: Vec<_> = stored.map(|step| step.target.as_ref().unwrap().as_str()).collect();
    assert_eq!(stored, ["usb", "box"]);
}

/// Notes the most targets that were served at once, and all that were.
#[derive(Default)]
struct AtWork(Mutex<(BTreeSet<String>, usize, BTreeSet<String>)>);

impl Observer for AtWork {
    fn on(&self, event: &Event) {
        let mut seen = self.0.lock().unwrap();
        let (at_work, most, all) = &mut *seen;
        match event {
            Event::StepStarted { place } => {
                at_work.extend(stores(place));
                all.extend(stores(place));
            }
            Event::StepFinished { place, .. } => {
                stores(place).into_iter().for_each(|target| assert!(at_work.remove(&target)));
            }
            _ => {}
        }
        *most = (*most).max(at_work.len());
    }
}

#[test]
fn no_more_are_served_than_may_be() {
    let names = ["usb", "a", "b", "c", "d"];
    for (config, limit) in [
        ((|state: &Path| live(state, &["usb", "a", "b", "c", "d"], 2)) as fn(&Path) -> Config, 2),
        (|state: &Path| live(state, &["usb", "a", "b", "c", "d"], 1), 1),
        (|state: &Path| live(state, &["usb", "a", "b", "c", "d"], 16), 5),
    ] {
        let bench = Bench::of(&Scene {
            config,
            engines: crate::support::fake_vault::vaults,
            ..faults::LIVE
        });
        let seen = AtWork::default();
        let report = watched(&bench, &seen);
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        let (at_work, most, all) = seen.0.into_inner().unwrap();
        assert_eq!((at_work.len(), all.len()), (0, names.len()));
        assert!(most <= limit, "{most} of {limit}");
    }
}

#[test]
fn when_that_of_one_target_panics_the_others_end_their_work() {
    parallel::a_panic_stops_no_other(&FILES, stores, "usb", "box");
}

#[test]
fn a_signal_begins_no_other_target() {
    /// A signal comes when the first two have begun.
    struct Stopped<'b>(&'b Bench, Happened);

    impl Observer for Stopped<'_> {
        fn on(&self, event: &Event) {
            if let Event::StepStarted { place } = event
                && let Some(target) = stores(place)
            {
                assert!(target != "b", "it was begun");
                self.1.note(target);
                self.1.wait_for(&["usb", "a"]);
                self.0.host.world().signal = Some(15);
            }
        }
    }

    let config = |state: &Path| live(state, &["usb", "a", "b"], 2);
    let engines: fn(&Config) -> Engines = crate::support::fake_vault::vaults;
    let bench = Bench::of(&Scene { config, engines, ..faults::LIVE });
    bench.host.arm(Fault::None);
    let report = watched(&bench, &Stopped(&bench, Happened::default()));
    assert_eq!(report.outcome, Outcome::Interrupted, "{report:#?}");
    assert!(report.troubles.contains(&Trouble::Signal(15)));
    bench.assert_released("a signal");
}

#[test]
fn a_plan_tells_of_one_target_after_the_other() {
    let bench = Bench::with_history_of(&FILES);
    let (report, effects) = bench.plan();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let at = |what: &str| effects.iter().position(|effect| effect.contains(what)).unwrap();
    assert!(at(" create ") < at("vault keep"), "{effects:#?}");
    assert_eq!(effects.len(), bench.plan().1.len());
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    for scene in [&FILES, &SENT] {
        loops::failing_any_effect(scene);
    }
}

#[test]
fn dying_at_any_effect_of_files_is_recovered_from() {
    loops::dying_at_any_effect(&FILES);
}

#[test]
fn dying_at_any_effect_of_subvolumes_is_recovered_from() {
    loops::dying_at_any_effect(&SENT);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    for scene in [&FILES, &SENT] {
        loops::a_signal_at_any_effect(scene);
    }
}
