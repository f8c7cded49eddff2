//! Subvolumes that are sent to another btrfs, by the loops of [`crate::loops`]: whatever happens, no copy is listed whose
//! data is on no disk, none is a difference to such a one, and one snapshot stays.

use std::path::Path;
use std::sync::Arc;

use stillpoint::host::dry::DryHost;
use stillpoint::model::job::Config;
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::outcome::Outcome;
use stillpoint::pipeline::run::run;
use stillpoint::step::context::Pipeline;

use crate::captures::mount;
use crate::configured::configured;
use crate::faults::{Bench, LIVE, Scene};
use crate::loops;
use crate::support::fake_btrfs;
use crate::support::fake_host::World;
use crate::support::fake_pool::FakePool;

/// Two subvolumes, sent to one directory.
pub const SENT: Scene = Scene { config, world, kept: 4, ..LIVE };

fn config(state: &Path) -> Config {
    configured(&format!(
        r#"
[settings]
state-dir = "{}"
lock-wait = "0s"
[targets.pool.keep]
last = 2
[targets.pool.btrfs]
location = "/pool"
[jobs.host]
targets = ["pool"]
[jobs.host.subvolumes]
paths = ["/home", "/srv"]
[jobs.host.hooks]
before = [["/hook", "stop"]]
finally = [["/hook", "start"]]
"#,
        state.display()
    ))
}

fn world() -> World {
    let mut world = World::new();
    world.mounts = vec![
        mount((8, 1), "/", "ext4", "/dev/sda1"),
        mount((0, 40), "/home", "btrfs", fake_btrfs::DEVICE),
        mount((0, 41), "/srv", "btrfs", fake_btrfs::DEVICE),
        mount((0, 50), "/pool", "btrfs", "/dev/sdc"),
    ];
    for at in ["/home", "/srv"] {
        world.btrfs.subvolumes.insert(at.into(), format!("{at}-uuid"));
    }
    let marker = br#"{"format": 1, "id": "0123456789abcdef"}"#;
    world.pool.write(&FakePool::own().join("target.json"), marker);
    world
}

#[test]
fn only_what_is_needed_stays() {
    let bench = Bench::with_history_of(&SENT);
    assert_eq!(bench.host.world().btrfs.top.len(), 2, "one of each");
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.host.world().btrfs.top.len(), 2);
    bench.assert_released("a run");
}

#[test]
fn snapshots_stay_as_the_job_says() {
    let config = |state: &Path| {
        let mut config = config(state);
        config.jobs[0].keep_snapshots = Some(KeepPolicy { last: Some(3), ..KeepPolicy::default() });
        config
    };
    let bench = Bench::of(&Scene { config, ..SENT });
    for run in 1..=5 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        assert_eq!(bench.host.world().btrfs.top.len(), 2 * run.min(3), "after run {run}");
        bench.assert_released("a run");
    }
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&SENT);
    for wanted in [
        "make the btrfs snapshot",
        "btrfs receive",
        "wait until the file system at /pool",
        "replace /pool/.stillpoint/copies/",
        "rename the subvolume",
        "delete the subvolume",
        "remove /pool/.stillpoint/copies/",
        "delete the btrfs snapshot",
    ] {
        assert!(effects.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
    loops::failing_any_effect(&SENT);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&SENT);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&SENT);
}

#[test]
fn failing_any_effect_of_a_recovery_is_recovered_from() {
    loops::failing_any_effect_of_a_recovery(&SENT);
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_it_would_do() {
    let bench = Bench::with_history_of(&SENT);
    bench.host.world().effects.clear();
    let dry = DryHost::new(Arc::new(bench.host.clone()));
    let pipeline = Pipeline { host: &dry, ..bench.pipeline() };
    let jobs: Vec<_> = bench.config.jobs.iter().collect();
    let report = run(pipeline, &jobs, None);
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.host.world().effects, [] as [String; 0]);
    let planned: Vec<String> = dry.planned().iter().map(ToString::to_string).collect();
    let sent: Vec<&String> = planned.iter().filter(|it| it.contains("btrfs receive")).collect();
    assert_eq!(sent.len(), 2, "{planned:#?}");
    assert!(sent.iter().all(|it| it.contains("--known-as")), "differences: {sent:#?}");
    let deleted = planned.iter().filter(|it| it.starts_with("delete the subvolume")).count();
    assert_eq!(deleted, 2, "the oldest of each: {planned:#?}");
}
