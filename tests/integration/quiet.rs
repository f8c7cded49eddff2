//! Writers that stand still while captures are made: they do in the moment that counts, and they run on after
//! it, whichever effect fails, whenever a signal arrives or the power goes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stillpoint::host::dry::DryHost;
use stillpoint::host::{Host, MountEntry};
use stillpoint::model::job::{CapturePolicy, Hooks, Job, Source};
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::Outcome;
use stillpoint::model::report::StepReport;
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::session::{LedgerDirectory, session};
use stillpoint::source::files::quiesce::while_quiesced;
use stillpoint::step::context::Pipeline;
use stillpoint::step::recorder::Recorder;

use crate::configured::configured;
use crate::faults::{Bench, Nobody};
use crate::loops::unless_we_die;
use crate::support::fake_host::Fault;

fn policy(job: &Job) -> &CapturePolicy {
    let Source::Files(files) = &job.source else { panic!("files") };
    &files.capture
}

/// What came of it.
struct Came {
    /// Whether there are captures, and whether the writers stood still when they were made.
    made: Option<bool>,
    /// Whether the captures were begun at all.
    begun: bool,
    steps: Vec<StepReport>,
}

impl Came {
    fn step(&self, name: &str) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.step == name)
    }

    fn detail(&self, name: &str) -> &str {
        &self.step(name).unwrap_or_else(|| panic!("no step {name}")).detail
    }
}

/// A machine with two writers: a service that hooks stop and start, and units that are frozen.
fn bench(units: &[&str]) -> Bench {
    let mut bench = Bench::new();
    bench.host.world().mounts.push(MountEntry {
        id: 1,
        device: (0, 26),
        root: "/".into(),
        at: "/sys/fs/cgroup".into(),
        options: "rw".into(),
        file_system: "cgroup2".into(),
        source: "cgroup2".into(),
        super_options: "rw".into(),
    });
    bench.config.jobs = configured(&format!(
        r#"
[targets.usb.borg]
repository = "/repo"
encryption = "none"
[jobs.host]
targets = ["usb"]
files = {{ paths = ["/data"], freeze-units = {units:?} }}
[jobs.host.hooks]
quiesce = [["/hook", "stop"]]
resume = [["/hook", "start"], ["/hook", "tell"]]
"#
    ))
    .jobs;
    bench
}

const UNITS: &[&str] = &["a.service", "/system.slice/b.service"];

fn groups() -> Vec<PathBuf> {
    ["a", "b"].map(|name| format!("/sys/fs/cgroup/system.slice/{name}.service").into()).into()
}

/// Makes one capture, for which a hook stands, while the writers stand still.
fn capture(bench: &Bench, pipeline: Pipeline<'_>) -> Came {
    let run = RunId::from_bytes(bench.host.random());
    let mut begun = false;
    let (came, _) = session(pipeline, &run, LedgerDirectory::State, |cx| {
        let job = &bench.config.jobs[0];
        let mut rec = Recorder::new(&Nobody, Some(job.name.clone()));
        let made = while_quiesced(cx, &mut rec, job, policy(job), |_| {
            begun = true;
            let world = bench.host.world();
            Some(!world.service_up && world.frozen.iter().eq(groups().iter()))
        });
        (made, rec.steps)
    })
    .unwrap_or_else(|_| (Default::default(), Default::default()));
    Came { made: came.0, begun, steps: came.1 }
}

fn assert_running(bench: &Bench, after: &str) {
    let world = bench.host.world();
    assert!(world.frozen.is_empty(), "{after}: frozen: {:?}", world.frozen);
    assert!(world.service_up, "{after}: the service is down");
    drop(world);
    assert_eq!(bench.ledgers(), [] as [PathBuf; 0], "{after}");
}

fn effects() -> Vec<String> {
    let bench = bench(UNITS);
    let came = capture(&bench, bench.pipeline());
    assert_eq!(came.made, Some(true));
    assert_running(&bench, "a good run");
    let effects = bench.host.world().effects.clone();
    let of_ours = |effect: &&String| !effect.contains("/var/cache");
    let words: Vec<&str> = effects.iter().filter(of_ours).map(String::as_str).collect();
    assert_eq!(
        words,
        [
            "/hook stop",
            "guard",
            "freeze /sys/fs/cgroup/system.slice/a.service",
            "freeze /sys/fs/cgroup/system.slice/b.service",
            "thaw /sys/fs/cgroup/system.slice/b.service",
            "thaw /sys/fs/cgroup/system.slice/a.service",
            "/hook start",
            "/hook tell",
        ]
    );
    effects
}

#[test]
fn failing_any_effect_lets_the_writers_go_on() {
    for (n, effect) in effects().iter().enumerate() {
        let bench = bench(UNITS);
        bench.host.arm(Fault::Fail(n));
        let came = capture(&bench, bench.pipeline());
        let after = format!("failing effect {n} ({effect})");
        assert_ne!(came.made, Some(false), "{after}: captures without stillness");
        // What comes before the captures prevents them; what comes after does not spoil them.
        let before = ["create", "/hook stop", "guard", "freeze"];
        let expected = !before.iter().any(|word| effect.starts_with(word));
        assert_eq!(came.made.is_some(), expected, "{after}");
        assert_eq!(came.begun, expected, "{after}");
        bench.host.arm(Fault::None);
        assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
        assert_running(&bench, &after);
        let noticed = came.steps.iter().any(|step| step.outcome != Outcome::Ok);
        assert!(noticed || effect.contains("/var/cache"), "{after} went unnoticed");
    }
}

#[test]
fn a_signal_at_any_effect_lets_the_writers_go_on() {
    for (n, effect) in effects().iter().enumerate() {
        let bench = bench(UNITS);
        bench.host.arm(Fault::Signal(n));
        let came = capture(&bench, bench.pipeline());
        let after = format!("a signal at effect {n} ({effect})");
        assert_ne!(came.made, Some(false), "{after}: captures without stillness");
        let late = effect.starts_with("thaw") || effect.contains("/hook start");
        assert!(!late || came.made.is_some(), "{after}: good captures are thrown away");
        assert_running(&bench, &after);
    }
}

#[test]
fn a_power_cut_at_any_effect_lets_the_writers_go_on() {
    for (n, effect) in effects().iter().enumerate() {
        for fault in [Fault::CutBefore(n), Fault::CutAfter(n)] {
            let bench = bench(UNITS);
            bench.host.arm(fault);
            let came = unless_we_die(|| capture(&bench, bench.pipeline()));
            let after = format!("{fault:?} ({effect})");
            assert!(came.is_none(), "{after}: it lived on");
            bench.host.arm(Fault::None);
            assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
            assert_running(&bench, &after);
        }
    }
}

#[test]
fn a_panic_while_captures_are_made_thaws_at_once() {
    let bench = bench(UNITS);
    let run = RunId::from_bytes([1; 4]);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        session(bench.pipeline(), &run, LedgerDirectory::State, |cx| {
            let mut rec = Recorder::new(&Nobody, None);
            let job = &bench.config.jobs[0];
            while_quiesced(cx, &mut rec, job, policy(job), |_| -> Option<()> { panic!("a bug") })
        })
    }));
    assert!(panicked.is_err());
    assert!(bench.host.world().frozen.is_empty(), "before anybody recovers");
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    assert_running(&bench, "a panic");
}

#[test]
fn captures_that_took_longer_than_the_limit_do_not_count() {
    let bench = bench(UNITS);
    bench.host.world().guard_fires = true;
    let came = capture(&bench, bench.pipeline());
    assert!(came.begun && came.made.is_none());
    let thaw = came.step("thaw").unwrap();
    assert_eq!(thaw.outcome, Outcome::Failed);
    assert!(thaw.detail.contains("raise freeze-limit"), "{}", thaw.detail);
    assert_eq!(came.step("resume").unwrap().outcome, Outcome::Ok);
    assert_running(&bench, "the limit");
}

#[test]
fn nothing_is_frozen_nor_captured_when_the_guard_has_gone() {
    for units in [UNITS, &UNITS[..1]] {
        let mut bench = bench(units);
        bench.host.world().freezing_takes = Duration::from_millis(50);
        let Source::Files(files) = &mut bench.config.jobs[0].source else { unreachable!() };
        files.capture.freeze_limit = Duration::from_millis(40);
        let came = capture(&bench, bench.pipeline());
        assert!(!came.begun && came.made.is_none());
        let freeze = came.step("freeze").unwrap();
        assert_eq!(freeze.outcome, Outcome::Failed);
        assert!(freeze.detail.contains("raise freeze-limit"), "{}", freeze.detail);
        let frozen = |effect: &&String| effect.starts_with("freeze");
        assert_eq!(bench.host.world().effects.iter().filter(frozen).count(), 1, "{units:?}");
        assert_eq!(came.step("resume").unwrap().outcome, Outcome::Ok);
        assert_running(&bench, "the limit");
    }
}

#[test]
fn captures_during_which_somebody_else_thawed_do_not_count() {
    let bench = bench(UNITS);
    let run = RunId::from_bytes([1; 4]);
    let ((made, detail), _) = session(bench.pipeline(), &run, LedgerDirectory::State, |cx| {
        let mut rec = Recorder::new(&Nobody, None);
        let job = &bench.config.jobs[0];
        let made = while_quiesced(cx, &mut rec, job, policy(job), |_| {
            bench.host.world().frozen.remove(&groups()[0]);
            Some(())
        });
        let thaw = rec.steps.iter().find(|step| step.step == "thaw").unwrap();
        assert_eq!(thaw.outcome, Outcome::Failed);
        (made, thaw.detail.clone())
    })
    .unwrap();
    assert_eq!(made, None);
    assert!(detail.contains("a.service did not stay frozen"), "{detail}");
    assert!(!detail.contains("b.service"), "{detail}");
    assert_running(&bench, "somebody else");
}

#[test]
fn what_is_not_running_is_told_and_a_name_that_nobody_knows_is_a_warning() {
    let bench = bench(&["stopped.service"]);
    let came = capture(&bench, bench.pipeline());
    assert!(came.begun);
    let writers = came.step("writers").unwrap();
    assert_eq!(writers.outcome, Outcome::Ok);
    assert_eq!(writers.detail, "nothing to freeze; not running: stopped.service");

    // A control group is gone when its unit stops, but so is one that never was.
    let bench = self::bench(&["stopped.service", "/missing/x"]);
    // The fake machine has nothing below a hierarchy of this name.
    bench.host.world().mounts[0].at = "/missing".into();
    let came = capture(&bench, bench.pipeline());
    assert!(came.begun);
    let writers = came.step("writers").unwrap();
    assert_eq!(writers.outcome, Outcome::Warning);
    assert!(
        writers
            .detail
            .contains("not running: stopped.service; there is no control group /missing/x"),
        "{}",
        writers.detail
    );
    assert!(came.step("freeze").is_none() && came.step("thaw").is_none());

    let bench = self::bench(&["typo.service", "a.service"]);
    let came = capture(&bench, bench.pipeline());
    assert_eq!(came.step("writers").unwrap().outcome, Outcome::Warning);
    assert_eq!(
        came.detail("writers"),
        "1 control group to freeze; systemd knows no unit typo.service — check freeze-units"
    );
    assert!(came.detail("freeze").starts_with(groups()[0].to_str().unwrap()));
}

#[test]
fn who_wants_one_moment_must_name_who_writes() {
    for (unit, told) in [
        ("typo.service", "systemd knows no unit typo.service"),
        ("no-process.service", "active without a process of its own: no-process.service"),
    ] {
        let mut bench = bench(&[unit]);
        let came = capture(&bench, bench.pipeline());
        assert_eq!(came.step("writers").unwrap().outcome, Outcome::Warning, "{unit}");
        let Source::Files(files) = &mut bench.config.jobs[0].source else { unreachable!() };
        files.capture.consistent = true;
        let came = capture(&bench, bench.pipeline());
        assert!(!came.begun, "{unit}");
        assert_eq!(came.step("writers").unwrap().outcome, Outcome::Failed);
        assert!(came.detail("writers").contains(told), "{}", came.detail("writers"));
    }
}

#[test]
fn a_group_below_another_one_is_not_frozen_twice() {
    let bench = bench(&["/system.slice/a.service", "/system.slice", "/system.slicer", "b.service"]);
    let came = capture(&bench, bench.pipeline());
    assert_eq!(
        came.detail("freeze"),
        "/sys/fs/cgroup/system.slice, /sys/fs/cgroup/system.slicer (for 10s at most)"
    );
}

#[test]
fn without_control_groups_nobody_is_disturbed() {
    let bench = bench(UNITS);
    bench.host.world().mounts.clear();
    let came = capture(&bench, bench.pipeline());
    assert!(!came.begun);
    assert!(came.detail("writers").contains("hooks quiesce and resume"));
    assert_eq!(bench.host.world().hooks, [] as [&str; 0]);
}

#[test]
fn a_job_that_names_no_writers_has_no_such_steps() {
    let mut bench = bench(&[]);
    bench.config.jobs[0].hooks = Hooks::default();
    let came = capture(&bench, bench.pipeline());
    assert!(came.begun && came.steps.is_empty());
}

#[test]
fn a_dry_run_shows_it_all_and_disturbs_nobody() {
    let bench = bench(UNITS);
    let dry = Arc::new(DryHost::new(Arc::new(bench.host.clone())));
    let host: &dyn Host = dry.as_ref();
    let came = capture(&bench, Pipeline { host, ..bench.pipeline() });
    assert_eq!(came.made, Some(false), "nothing stood still");
    assert!(came.steps.iter().all(|step| step.outcome == Outcome::Ok));
    assert_eq!(bench.host.world().effects, [] as [&str; 0]);
    let planned: Vec<String> = dry.planned().iter().map(ToString::to_string).collect();
    let hooks = |word: &str| planned.iter().any(|line| line.starts_with(&format!("/hook {word}")));
    assert!(hooks("stop") && hooks("start"), "{planned:#?}");
    for group in groups() {
        let about = |line: &&String| line.contains(Path::new(&group).to_str().unwrap());
        assert_eq!(planned.iter().filter(about).count(), 2, "{planned:#?}");
    }
}
