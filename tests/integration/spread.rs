//! Several targets of a job at the same time: what overlaps and what must not, whatever goes wrong with any of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use stillpoint::engine::Engines;
use stillpoint::host::dry::DryHost;
use stillpoint::model::event::{Event, Observer, StepPlace};
use stillpoint::model::job::{Config, Scope};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::StepReport;
use stillpoint::pipeline::run::run;
use stillpoint::step::context::Pipeline;

use crate::captures::{self, QUIET, mount};
use crate::configured::configured;
use crate::existing::{all_of, tool_makes};
use crate::faults::{self, Bench, Scene};
use crate::loops;
use crate::parallel::{self, Happened, Together, watched};
use crate::support::fake_host::{Fault, World};
use crate::support::fake_store::{FakeStore, SCRATCH};
use crate::{served, stored_streams, subvolumes};

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
const SENT: Scene = Scene {
    config: sent,
    world: pools,
    kept: 8,
    // Where nothing can be shared, each is sent to alone.
    tried_again: |what| what.contains("share-stream"),
    ..faults::LIVE
};

/// The same, and one of the two is on another machine.
const FAR: Scene = Scene { config: far, world: far_world, ..SENT };

/// All snapshots of another program that came since the last one, to one btrfs each: on one, the copies of the other target
/// would be found as well.
const ALL: Scene = Scene {
    config: |state| all_of(far(state)),
    world: || {
        let mut world = far_world();
        tool_makes(&mut world);
        world
    },
    ..FAR
};

/// The same to a directory of stored streams and to one of subvolumes, so that both always get the very same.
const STORED: Scene = Scene {
    config: |state| stored(state, "part-size = 0"),
    world: || {
        let mut world = pools();
        world.mounts.push(mount((0, 42), SCRATCH, "btrfs", "/dev/sdd"));
        world.store = FakeStore::made();
        world
    },
    ..SENT
};

/// The same, where all is stored in parts each time.
const PARTED: Scene = Scene {
    config: |state| stored(state, "part-size = 1\nfull-every = '1s'"),
    tried_again: |_| false,
    ..STORED
};

fn stored(state: &Path, how: &str) -> Config {
    let directory = stored_streams::DIRECTORY;
    let table = format!(
        "keep.last = 2\n[targets.archive.streams]\n{directory}\n{how}\n[targets.pool]\nkeep.last = 2\nbtrfs.location = '/pool/one'"
    );
    let text = subvolumes::text(state, "archive", &table);
    configured(&with(
        2,
        &text.replace(r#"targets = ["archive"]"#, r#"targets = ["archive", "pool"]"#),
    ))
}

fn files(state: &Path) -> Config {
    let table = format!("[jobs.host.files]\n{}", parallel::FILES);
    let text = faults::text(state, &table, QUIET);
    at_once(2, &text.replace(r#"targets = ["usb"]"#, r#"targets = ["usb", "box"]"#))
}

fn sent(state: &Path) -> Config {
    limited(state, 2)
}

fn limited(state: &Path, targets: u32) -> Config {
    to(state, targets, "/pool/one")
}

fn far(state: &Path) -> Config {
    to(state, 2, "ssh://root@nas/pool")
}

fn far_world() -> World {
    World { server: served::world().server, ..pools() }
}

/// Two targets, of which so many are served at the same time; the first one is there.
fn to(state: &Path, targets: u32, location: &str) -> Config {
    let table = format!(
        "keep.last = 2\nbtrfs.location = '{location}'\n[targets.other]\nkeep.last = 2\nbtrfs.location = '/pool/two'"
    );
    let table = table.as_str();
    let text = subvolumes::text(state, "pool", table);
    configured(&with(
        targets,
        &text.replace(r#"targets = ["pool"]"#, r#"targets = ["pool", "other"]"#),
    ))
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

/// Notes the most targets that were served at once, and all that were. These wait for each other.
struct AtWork {
    together: &'static [&'static str],
    begun: Happened,
    seen: Mutex<(BTreeSet<String>, usize, BTreeSet<String>)>,
}

impl Observer for AtWork {
    fn on(&self, event: &Event) {
        match event {
            Event::StepStarted { place } => {
                let Some(target) = stores(place) else { return };
                let mut seen = self.seen.lock().unwrap();
                let (at_work, most, all) = &mut *seen;
                at_work.insert(target.clone());
                *most = (*most).max(at_work.len());
                all.insert(target.clone());
                drop(seen);
                if self.together.contains(&target.as_str()) {
                    self.begun.note(target);
                    self.begun.wait_for(self.together);
                }
            }
            Event::StepFinished { place, .. } => {
                let Some(target) = stores(place) else { return };
                assert!(self.seen.lock().unwrap().0.remove(&target));
            }
            _ => {}
        }
    }
}

const NAMES: [&str; 5] = ["usb", "a", "b", "c", "d"];

#[test]
fn as_many_are_served_as_may_be_and_no_more() {
    for (config, together) in [
        ((|state: &Path| live(state, &NAMES, 1)) as fn(&Path) -> Config, &NAMES[..1]),
        (|state: &Path| live(state, &NAMES, 2), &NAMES[..2]),
        (|state: &Path| live(state, &NAMES, 16), &NAMES[..]),
    ] {
        let engines = crate::support::fake_vault::vaults;
        let bench = Bench::of(&Scene { config, engines, ..faults::LIVE });
        let observer = AtWork { together, begun: Happened::default(), seen: Mutex::default() };
        let report = watched(&bench, &observer);
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        let (at_work, most, all) = observer.seen.into_inner().unwrap();
        assert_eq!((at_work.len(), all.len()), (0, NAMES.len()));
        assert_eq!(most, together.len());
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
    /// Two threads would tell it in any order.
    struct OneThread(ThreadId);

    impl Observer for OneThread {
        fn on(&self, _: &Event) {
            assert_eq!(thread::current().id(), self.0);
        }
    }

    for scene in [&FILES, &SENT] {
        let bench = Bench::with_history_of(scene);
        let dry = DryHost::new(Arc::new(bench.host.clone()));
        let observer = OneThread(thread::current().id());
        let pipeline = Pipeline { host: &dry, observer: &observer, ..bench.pipeline() };
        let jobs: Vec<_> = bench.config.jobs.iter().collect();
        let report = run(pipeline, &jobs, Scope::default());
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        let names: Vec<_> = bench.config.jobs[0].targets.iter().map(ToString::to_string).collect();
        let stored = report.jobs[0].steps.iter().filter(|step| step.step == "backup");
        let mut stored: Vec<_> =
            stored.map(|step| step.target.as_ref().unwrap().to_string()).collect();
        stored.dedup();
        assert_eq!(stored, names);
        assert!(dry.planned().iter().all(|effect| !effect.to_string().contains("share-stream")));
    }
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    for scene in [&FILES, &SENT, &FAR, &PARTED] {
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
fn dying_at_any_effect_of_subvolumes_that_go_far_is_recovered_from() {
    loops::dying_at_any_effect(&FAR);
}

#[test]
fn dying_at_any_effect_of_subvolumes_that_are_stored_in_parts_is_recovered_from() {
    loops::dying_at_any_effect(&PARTED);
}

/// No chain ends, so each run leaves more copies than the one before it.
#[test]
fn whatever_happens_to_a_shared_stream_that_is_stored_the_next_run_is_whole() {
    let effects_of = |bench: &Bench| bench.host.world().effects.clone();
    let seed = Bench::of(&STORED);
    seed.run();
    let effects = effects_of(&seed);
    let shared = effects.iter().filter(|effect| effect.contains("share-stream")).count();
    assert_eq!((shared, seed.host.taken()), (2, 4), "{effects:#?}");
    for (n, what) in effects.iter().enumerate() {
        let run = |bench: &Bench| (bench.run(), effects_of(bench));
        loops::any_fault_at(
            || Bench::of(&STORED),
            n,
            what,
            run,
            |bench, fault, said, after| {
                if let Some((report, effects)) = said {
                    // Which one it was depends on who was first.
                    let is_made_up_for =
                        matches!(fault, Fault::Fail(n) if (STORED.tried_again)(&effects[n]));
                    let is_told = !report.troubles.is_empty();
                    assert!(is_told || is_made_up_for, "{after} went unnoticed: {effects:#?}");
                }
                let report = bench.run();
                assert_eq!(report.outcome, Outcome::Ok, "{after}: {report:#?}");
                bench.assert_released(after);
                let world = bench.host.world();
                let there = world.copies();
                let made = report.jobs[0].targets.iter().filter_map(|it| it.copy.as_ref());
                let made = made.filter(|copy| there.contains(copy)).count();
                assert_eq!(made, 4, "{after}: two subvolumes, two targets: {report:#?}");
                assert_eq!(world.store.strays(), [] as [String; 0], "{after}");
                assert_eq!(world.pool.orphans().len(), 0, "{after}");
                drop(world);
                assert_eq!(stored_streams::damage(bench), [] as [String; 0], "{after}");
            },
        );
    }
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    for scene in [&FILES, &SENT, &FAR, &PARTED] {
        loops::a_signal_at_any_effect(scene);
    }
}

#[test]
fn what_both_would_send_is_shared_and_nothing_else() {
    let bench = Bench::of(&SENT);
    for run in 1..=2 {
        assert_eq!(bench.run().outcome, Outcome::Ok);
        assert_eq!(bench.host.taken(), 4 * run, "two subvolumes, and two targets of each");
    }
    // One lacks what the other one has a difference to.
    let lost = |path: &PathBuf| path.starts_with("/pool/two");
    bench.host.world().pool.subvolumes.retain(|path, _| !lost(path));
    bench.run();
    assert_eq!(bench.host.taken(), 8);
    let one = Bench::of(&Scene { config: |state| limited(state, 1), ..SENT });
    assert_eq!(one.run().outcome, Outcome::Ok);
    assert_eq!(one.host.taken(), 0, "one after another");
}

#[test]
fn a_stream_that_is_stored_as_one_is_shared_and_one_in_parts_has_its_own_sender() {
    for (scene, taken) in [(&STORED, 4), (&PARTED, 0)] {
        let bench = Bench::of(scene);
        for run in 1..=2 {
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
            assert_eq!(bench.host.taken(), taken * run);
        }
        let parts =
            bench.host.world().store.objects.keys().filter(|it| it.contains(".000001")).count();
        assert_eq!(parts > 0, taken == 0, "whether there are parts");
    }
}

#[test]
fn nobody_waits_for_who_stores_parts() {
    /// When the first target is at work, it goes on only when the other one has its copy.
    #[derive(Default)]
    struct PartsLast(Happened);

    impl Observer for PartsLast {
        fn on(&self, event: &Event) {
            match event {
                Event::StepFinished { place, .. } => {
                    stores(place).into_iter().for_each(|target| self.0.note(target));
                }
                Event::Progress { place, .. } if stores(place).as_deref() == Some("archive") => {
                    self.0.wait_for(&["pool"]);
                }
                _ => {}
            }
        }
    }

    let bench = Bench::of(&PARTED);
    let report = watched(&bench, &PartsLast::default());
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
}

#[test]
fn each_snapshot_of_an_item_is_shared() {
    let bench = Bench::of(&ALL);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(bench.host.taken(), 4, "two subvolumes, and two targets of each");
    for _ in 0..3 {
        tool_makes(&mut bench.host.world());
    }
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.host.taken(), 4 + 3 * 4, "{report:#?}");
}

#[test]
fn who_keeps_the_other_one_waiting_is_sent_to_alone() {
    let bench = Bench::with_history_of(&SENT);
    bench.host.drops.store(true, Ordering::Relaxed);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let stored = report.jobs[0].steps.iter().filter(|step| step.step == "backup");
    let alone = stored.filter(|step| step.detail.contains("for this target alone"));
    assert_eq!(alone.count(), 1, "{report:#?}");
    bench.assert_released("one that was dropped");
    bench.assert_mended("one that was dropped");
}

#[test]
fn what_is_left_of_it_on_a_server_is_waited_for_as_long_as_anything_may_stand_still() {
    /// Nothing may stand still for longer than a minute.
    fn soon_still(state: &Path) -> Config {
        let mut config = far(state);
        for target in &mut config.targets {
            target.stall_timeout = Duration::from_secs(60);
        }
        config
    }

    let scene = Scene { config: soon_still, ..FAR };
    let seed = Bench::with_history_of(&scene);
    for (held_for, outcome) in [(3, Outcome::Ok), (1000, Outcome::Failed)] {
        let bench = seed.duplicate(&scene);
        bench.host.drops.store(true, Ordering::Relaxed);
        served::at_server(&bench, |server| server.held_for = held_for);
        let report = bench.run();
        let of = |name: &str| -> Vec<_> {
            let targets = report.jobs[0].targets.iter();
            targets.filter(|it| it.target.as_str() == name).map(|it| &it.outcome).collect()
        };
        assert_eq!(of("pool")[0], &outcome, "{report:#?}");
        assert_eq!(of("other"), [&Outcome::Ok; 2], "{report:#?}");
        // Why it was sent once more is told, whatever came of it.
        let is_of_it = |step: &&StepReport| {
            step.step == "backup" && step.detail.contains("other targets waited for it")
        };
        let told: Vec<_> = report.jobs[0].steps.iter().filter(is_of_it).collect();
        let [told] = &told[..] else { panic!("{report:#?}") };
        let is_locked = told.detail.contains("somebody else has it");
        assert_eq!((&told.outcome, is_locked), (&outcome, outcome == Outcome::Failed));
        served::at_server(&bench, |server| server.held_for = 0);
        bench.assert_released("a lock that is held there");
        bench.assert_mended("a lock that is held there");
    }
    // One that shared nothing does not wait for anybody.
    let alone = Bench::with_history_of(&served::SENT);
    served::at_server(&alone, |server| server.held_for = 1);
    assert_eq!(alone.run().outcome, Outcome::Failed);
}

#[test]
fn whatever_happens_when_one_keeps_the_other_waiting_is_recovered_from() {
    let seed = Bench::with_history_of(&SENT);
    let dropping = || {
        let bench = seed.duplicate(&SENT);
        bench.host.drops.store(true, Ordering::Relaxed);
        bench
    };
    let bench = dropping();
    bench.run();
    let effects = bench.host.world().effects.clone();
    let sent = effects.iter().filter(|effect| effect.contains("receive")).count();
    assert_eq!(sent, 4, "{effects:?}");
    // Whether the second item is shared depends on who is faster; where it is not, nothing shares it.
    let shared = effects.iter().filter(|effect| effect.contains("share-stream")).count();
    let certain = effects.len() + 1 - shared;
    for (n, what) in effects.iter().enumerate().take(certain) {
        let run = |bench: &Bench| (bench.run(), bench.host.world().effects.clone());
        loops::any_fault_at(dropping, n, what, run, |bench, fault, said, after| {
            if let Some((report, effects)) = said {
                // Which one it was depends on who was first.
                let is_made_up_for =
                    matches!(fault, Fault::Fail(n) if (SENT.tried_again)(&effects[n]));
                let is_told = !report.troubles.is_empty();
                assert!(is_told || is_made_up_for, "{after} went unnoticed: {effects:#?}");
            }
            bench.host.drops.store(false, Ordering::Relaxed);
            bench.assert_mended(after);
        });
    }
}
