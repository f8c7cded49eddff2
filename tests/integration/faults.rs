//! The three loops: fail the n-th effect, cut the power before and after it, truncate the ledger after every
//! line. After each, `recover` and one more run must leave the machine as it should be: nothing held, the
//! service up, every earlier copy there, and exactly the copies that the policy keeps.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stillpoint::host::dry::DryHost;
use stillpoint::host::{Host, LockMode};
use stillpoint::model::event::{Event, Observer};
use stillpoint::model::job::{CapturePolicy, Config, FilesSource, Hooks, Job, Settings, Source};
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::names::{HostName, JobName, TargetName};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::RunReport;
use stillpoint::model::target::{BorgTarget, CheckPolicy, EngineConfig, ReadData, Target};
use stillpoint::pipeline::context::{Engines, Pipeline, engines};
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::run::run;
use stillpoint::report::history::{History, Maintenance, MaintenanceKind};

use crate::support::fake_host::{FakeHost, Fault, PowerCut};

pub struct Nobody;

impl Observer for Nobody {
    fn on(&self, _: &Event) {}
}

pub fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub fn config(state: &Path) -> Config {
    let target = TargetName::new("usb").unwrap();
    Config {
        settings: Settings {
            host: HostName::new("web1").unwrap(),
            state_dir: state.to_owned(),
            runtime_dir: "/run/stillpoint".into(),
            cache_dir: "/var/cache/stillpoint".into(),
            lock_wait: Duration::ZERO,
            metrics_file: None,
            max_age: Duration::from_secs(86_400),
        },
        targets: vec![Target {
            name: target.clone(),
            engine: EngineConfig::Borg(BorgTarget {
                repository: "/repo".into(),
                passphrase: None,
                key_file: None,
                encryption: "none".into(),
                compression: None,
                files_cache: None,
                require_mount: None,
                program: None,
                remote_program: None,
                ssh_command: Vec::new(),
                upload_limit_kib: None,
                stall_timeout: Duration::from_secs(60),
            }),
            keep: Some(KeepPolicy { last: Some(2), ..KeepPolicy::default() }),
            check: None,
            compact_every: None,
            append_only: false,
        }],
        jobs: vec![Job {
            name: JobName::new("host").unwrap(),
            targets: vec![target],
            source: Source::Files(FilesSource {
                paths: vec!["/data".into()],
                exclude: Vec::new(),
                exclude_caches: false,
                exclude_if_present: Vec::new(),
                one_file_system: false,
                capture: CapturePolicy::live(),
                allow_empty: false,
            }),
            keep: BTreeMap::new(),
            hooks: Hooks {
                before: vec![argv(&["/hook", "stop"])],
                quiesce: Vec::new(),
                resume: Vec::new(),
                after: vec![argv(&["/hook", "after"])],
                on_failure: vec![argv(&["/hook", "on-failure"])],
                finally: vec![argv(&["/hook", "start"])],
                timeout: None,
            },
            max_shrink_percent: 50,
            max_age: None,
        }],
        files: Vec::new(),
    }
}

/// A machine with its state directory and everything that a run needs.
pub struct Bench {
    pub host: FakeHost,
    pub config: Config,
    engines: Engines,
    history: History,
    state: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let config = config(state.path());
        let engines = engines(&config);
        let history = History::open(&state.path().join("history.sqlite")).unwrap();
        Self { host: FakeHost::new(), config, engines, history, state }
    }

    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline {
            host: &self.host,
            config: &self.config,
            engines: &self.engines,
            history: Some(&self.history),
            observer: &Nobody,
        }
    }

    pub fn run(&self) -> RunReport {
        run(self.pipeline(), &self.config.jobs.iter().collect::<Vec<_>>(), None)
    }

    pub fn ledgers(&self) -> Vec<std::path::PathBuf> {
        let Ok(entries) = fs::read_dir(self.state.path().join("ledger")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Three good copies have been made, of which the policy kept two.
    fn with_history() -> Self {
        let bench = Self::new();
        for _ in 0..3 {
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        }
        assert_eq!(bench.host.world().borg.archives.len(), 2);
        bench
    }

    /// Nothing is held, nothing is down.
    fn assert_given_back(&self, after: &str) {
        let world = self.host.world();
        assert!(world.staging.is_empty(), "{after}: staging left: {:?}", world.staging);
        assert!(world.service_up, "{after}: the service is down; hooks: {:?}", world.hooks);
        drop(world);
        assert_eq!(self.ledgers(), Vec::<std::path::PathBuf>::new(), "{after}: a ledger is left");
    }

    /// The next run, without any help, is good and leaves what the policy keeps.
    fn assert_mended(&self, after: &str) {
        self.host.arm(Fault::None);
        let report = self.run();
        assert_eq!(report.outcome, Outcome::Ok, "{after}: {report:#?}");
        self.assert_given_back(after);
        let kept = self.host.world().borg.archives.len();
        assert_eq!(kept, 2, "{after}: the policy keeps two");
    }
}

/// How many effects a run has.
fn effects() -> usize {
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    bench.run();
    let effects = bench.host.world().effects.clone();
    assert!(effects.len() >= 7, "hooks, staging, create, delete, compact: {effects:?}");
    effects.len()
}

/// The two newest copies before the fault; at least the newest must survive whatever happens.
fn newest(bench: &Bench) -> String {
    let world = bench.host.world();
    // Names sort by time here: same job, same host.
    world.borg.archives.keys().next_back().unwrap().clone()
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    for n in 0..effects() {
        let bench = Bench::with_history();
        let survivor = newest(&bench);
        bench.host.arm(Fault::Fail(n));
        let report = bench.run();
        let what = bench.host.world().effects[n].clone();
        let after = format!("failing effect {n} ({what})");
        assert_ne!(report.outcome, Outcome::Ok, "{after} went unnoticed");
        assert!(!report.troubles.is_empty(), "{after} has no exit code");
        assert!(bench.host.world().borg.archives.contains_key(&survivor), "{after} lost a copy");
        // A failed undo stays in the ledger; then recover gives it back.
        bench.host.arm(Fault::None);
        let recovery = recover(bench.pipeline()).unwrap();
        assert_eq!(recovery.failures, [], "{after}");
        bench.assert_given_back(&after);
        bench.assert_mended(&after);
    }
}

#[test]
fn a_power_cut_at_any_effect_is_recovered_from() {
    let faults = (0..effects()).flat_map(|n| [Fault::CutBefore(n), Fault::CutAfter(n)]);
    for fault in faults {
        for recover_first in [true, false] {
            let bench = Bench::with_history();
            let survivor = newest(&bench);
            bench.host.arm(fault);
            let cut = catch_unwind(AssertUnwindSafe(|| bench.run())).map(|report| report.outcome);
            let payload = cut.expect_err("the power was cut");
            assert!(payload.is::<PowerCut>(), "{fault:?}: a panic of another kind");
            let after = format!("{fault:?}, recover first: {recover_first}");
            assert!(
                bench.host.world().borg.archives.contains_key(&survivor),
                "{after} lost a copy"
            );
            if recover_first {
                bench.host.arm(Fault::None);
                let recovery = recover(bench.pipeline()).unwrap();
                assert_eq!(recovery.failures, [], "{after}");
                bench.assert_given_back(&after);
                // Harmless when nothing is held.
                assert_eq!(recover(bench.pipeline()).unwrap().done, Vec::<String>::new());
            }
            bench.assert_mended(&after);
        }
    }
}

#[test]
fn a_ledger_cut_off_after_any_line_is_recovered_from() {
    // A run that dies at its last effect has the longest ledger.
    let last = effects() - 1;
    let bench = Bench::with_history();
    bench.host.arm(Fault::CutBefore(last));
    let died = catch_unwind(AssertUnwindSafe(|| bench.run().outcome));
    assert!(died.is_err());
    let whole = fs::read(&bench.ledgers()[0]).unwrap();
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines >= 5, "{}", String::from_utf8_lossy(&whole));
    for keep in 0..=lines {
        for torn in [false, true] {
            let bench = Bench::with_history();
            bench.host.arm(Fault::None);
            let mut cut: Vec<u8> = whole
                .split_inclusive(|byte| *byte == b'\n')
                .take(keep)
                .flatten()
                .copied()
                .collect();
            if torn {
                cut.extend_from_slice(b"{\"intend\":{\"ent");
            }
            let path = bench.state.path().join("ledger").join("0000ffff");
            fs::write(&path, &cut).unwrap();
            let recovery = recover(bench.pipeline()).unwrap();
            assert_eq!(recovery.failures, [], "{keep} lines, torn: {torn}");
            bench.assert_mended(&format!("{keep} lines, torn: {torn}"));
        }
    }
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    for n in 0..effects() {
        let bench = Bench::with_history();
        let survivor = newest(&bench);
        bench.host.arm(Fault::Signal(n));
        let report = bench.run();
        let after = format!("SIGTERM at effect {n} ({})", bench.host.world().effects[n]);
        assert_eq!(report.outcome, Outcome::Interrupted, "{after}");
        assert!(report.troubles.contains(&Trouble::Signal(15)), "{after}");
        assert!(bench.host.world().borg.archives.contains_key(&survivor), "{after} lost a copy");
        bench.assert_given_back(&after);
        bench.assert_mended(&after);
    }
}

#[test]
fn a_green_run_that_stored_nothing_is_not_green() {
    // borg says that it made the archive, and the target does not list it.
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    bench.host.world().borg.forgetful = true;
    let before = bench.host.world().borg.archives.clone();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert_eq!(bench.host.world().borg.archives, before, "nothing may be deleted on a bad run");
    assert!(report.jobs[0].targets[0].copy.is_none());
}

#[test]
fn retention_does_not_follow_a_copy_that_shrank() {
    let bench = Bench::with_history();
    bench.host.world().borg.files = 3;
    bench.host.arm(Fault::None);
    let report = bench.run();
    assert_eq!(bench.host.world().borg.archives.len(), 3, "nothing was deleted");
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert!(report.troubles.contains(&Trouble::Warning));
    // The second night is as small as the first, which proves nothing.
    let report = bench.run();
    assert_eq!(bench.host.world().borg.archives.len(), 4, "nothing was deleted");
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    // A person has looked.
    bench
        .history
        .record_maintenance(&Maintenance {
            target: bench.config.targets[0].name.clone(),
            kind: MaintenanceKind::Accept,
            outcome: Outcome::Ok,
            detail: "host".into(),
            time: bench.host.now(),
        })
        .unwrap();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.host.world().borg.archives.len(), 2);
}

#[test]
fn a_missing_or_empty_source_fails_before_anything_is_stored() {
    for path in ["/missing", "/empty"] {
        let mut bench = Bench::with_history();
        let before = bench.host.world().borg.archives.clone();
        let Source::Files(files) = &mut bench.config.jobs[0].source else { unreachable!() };
        files.paths = vec![path.into()];
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Failed, "{path}");
        assert_eq!(report.troubles, [Trouble::JobFailed], "{path}");
        assert_eq!(bench.host.world().borg.archives, before, "{path}");
        bench.assert_given_back(path);
    }
}

#[test]
fn one_missing_source_of_two_is_incomplete_and_retention_waits() {
    let mut bench = Bench::with_history();
    let Source::Files(files) = &mut bench.config.jobs[0].source else { unreachable!() };
    files.paths = vec!["/data".into(), "/missing".into()];
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Incomplete, "{report:#?}");
    assert!(report.troubles.iter().all(|trouble| *trouble == Trouble::Incomplete));
    assert_eq!(bench.host.world().borg.archives.len(), 3, "nothing was deleted");
}

#[test]
fn an_unmounted_target_is_refused_before_the_source_is_touched_and_the_failure_is_told() {
    let mut bench = Bench::new();
    let EngineConfig::Borg(borg) = &mut bench.config.targets[0].engine else { unreachable!() };
    borg.require_mount = Some("/unmounted".into());
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Environment]);
    assert_eq!(
        bench.host.world().hooks,
        ["on-failure"],
        "nothing was stopped, so nothing is started"
    );
    assert!(bench.host.world().borg.archives.is_empty());
    assert_eq!(report.jobs[0].targets.len(), 1, "every target is in the report");
}

#[test]
fn a_busy_job_reports_its_targets_and_runs_no_hook() {
    let bench = Bench::new();
    bench.host.arm(Fault::None);
    let path = bench.config.settings.runtime_dir.join("locks/job-host.lock");
    let _held = bench.host.lock(&path, LockMode::Exclusive, Duration::ZERO, "another").unwrap();
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Busy]);
    assert_eq!(report.jobs[0].targets.len(), 1, "every target is in the report");
    assert_eq!(report.jobs[0].targets[0].outcome, Outcome::Failed);
    assert_eq!(bench.host.world().hooks, Vec::<String>::new(), "the other run is between its own");
}

#[test]
fn a_signal_that_fails_no_step_is_not_a_success_to_the_hooks() {
    struct Signaller<'a>(&'a FakeHost);
    impl Observer for Signaller<'_> {
        fn on(&self, event: &Event) {
            if matches!(event, Event::StepFinished { place, .. } if place.step == "observe") {
                self.0.world().signal = Some(15);
            }
        }
    }
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    bench.host.world().hooks.clear();
    let signaller = Signaller(&bench.host);
    let pipeline = Pipeline { observer: &signaller, ..bench.pipeline() };
    let report = run(pipeline, &[&bench.config.jobs[0]], None);
    assert!(report.jobs[0].steps.iter().all(|step| step.outcome == Outcome::Ok), "{report:#?}");
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert_eq!(bench.host.world().hooks, ["stop", "on-failure", "start"]);
}

#[test]
fn two_targets_that_mean_one_repository_do_not_wait_for_each_other() {
    let mut bench = Bench::new();
    let mut twin = bench.config.targets[0].clone();
    twin.name = TargetName::new("usc").unwrap();
    bench.config.jobs[0].targets.push(twin.name.clone());
    bench.config.targets.push(twin);
    bench.engines = engines(&bench.config);
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Configuration], "{report:#?}");
    let outcomes: Vec<_> =
        report.jobs[0].targets.iter().map(|target| target.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Failed], "the first is served");
}

/// What differs from run to run in the name of an archive.
fn timeless(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("host@web1.") {
        let end = at + "host@web1.".len();
        out.push_str(&rest[..end]);
        rest = rest[end..].get("20261121T030000Z.00000000".len()..).unwrap_or("");
    }
    out + rest
}

#[test]
fn a_plan_shows_what_the_run_does_and_does_none_of_it() {
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    let dry = DryHost::new(Arc::new(bench.host.clone()));
    let pipeline = Pipeline { host: &dry, ..bench.pipeline() };
    let planned_report = run(pipeline, &bench.config.jobs.iter().collect::<Vec<_>>(), None);
    assert_eq!(planned_report.outcome, Outcome::Ok, "{planned_report:#?}");
    assert_eq!(bench.host.world().effects, Vec::<String>::new(), "a dry run has no effect");
    assert_eq!(bench.ledgers(), Vec::<std::path::PathBuf>::new());
    let planned: Vec<String> = dry
        .planned()
        .iter()
        .map(|effect| timeless(effect.to_string().lines().next().unwrap_or_default()))
        .collect();

    let report = bench.run();
    let done: Vec<String> = bench
        .host
        .world()
        .effects
        .iter()
        .map(|effect| timeless(effect))
        // The run's own directory is no part of the plan.
        .filter(|effect| !effect.contains("/var/cache/stillpoint/tmp/"))
        .collect();
    let masked = |list: Vec<String>, run: &str| -> Vec<String> {
        list.into_iter().map(|line| line.replace(run, "RUN")).collect()
    };
    assert_eq!(
        masked(planned, planned_report.run_id.as_str()),
        masked(done, report.run_id.as_str()),
        "the plan is what the run does"
    );
}

#[test]
fn a_check_recorded_by_a_clock_that_was_ahead_does_not_put_off_the_next_for_years() {
    let mut bench = Bench::new();
    bench.config.targets[0].check =
        Some(CheckPolicy { every: Duration::from_secs(86_400), read_data: ReadData::None });
    bench.engines = engines(&bench.config);
    let ahead = bench.host.now() + chrono::TimeDelta::days(400);
    let record = Maintenance {
        target: bench.config.targets[0].name.clone(),
        kind: MaintenanceKind::Check,
        outcome: Outcome::Ok,
        detail: String::new(),
        time: ahead,
    };
    bench.history.record_maintenance(&record).unwrap();
    let report = bench.run();
    assert!(report.maintenance.iter().any(|step| step.step == "check"), "{report:#?}");
}
