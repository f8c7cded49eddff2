//! What goes wrong in a run that reads its files live, by the loops of [`crate::loops`] and one by one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stillpoint::engine::{Engines, engines};
use stillpoint::history::{FILE_NAME, History, KeptCapture, Maintenance, MaintenanceKind};
use stillpoint::host::dry::DryHost;
use stillpoint::host::{Host, LockMode};
use stillpoint::model::event::{Event, Observer};
use stillpoint::model::job::{Config, Hooks, Job, Scope, Source};
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::names::{JobName, RunId, TargetName};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::RunReport;
use stillpoint::model::target::{CheckPolicy, ReadData};
use stillpoint::model::undo::{
    EngineLock, EngineUndo, HookKind, Identity, Ledger, PendingHook, StagingDirectory,
};
use stillpoint::pipeline::identity;
use stillpoint::pipeline::ledger::FileLedger;
use stillpoint::pipeline::recover::{give_up, recover};
use stillpoint::pipeline::run::run;
use stillpoint::pipeline::session::{LedgerDirectory, session};
use stillpoint::source::{self, Sources};
use stillpoint::step::context::{Pipeline, RunContext};

use crate::configured::configured;
use crate::loops;
use crate::support::fake_btrfs::FakeBtrfs;
use crate::support::fake_host::{FakeHost, Fault, Past, World};

pub struct Nobody;

impl Observer for Nobody {
    fn on(&self, _: &Event) {}
}

pub fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub fn config(state: &Path) -> Config {
    configured(&text(state, "[jobs.host.files]\npaths = ['/data']\ncapture = 'none'", ""))
}

/// One job on a borg target, with hooks: `source` is its table, `hooks` are those it has besides.
pub fn text(state: &Path, source: &str, hooks: &str) -> String {
    format!(
        r#"
[settings]
state-dir = "{}"
lock-wait = "0s"
max-age = "24h"
[targets.usb.keep]
last = 2
[targets.usb.borg]
repository = "/repo"
encryption = "none"
stall-timeout = "1m"
[jobs.host]
targets = ["usb"]
{source}
[jobs.host.hooks]
before = [["/hook", "stop"]]
after = [["/hook", "after"]]
on-failure = [["/hook", "on-failure"]]
finally = [["/hook", "start"]]
{hooks}
"#,
        state.display()
    )
}

/// Does something in a session, as a verb does.
pub fn in_a_session<T>(pipeline: Pipeline<'_>, work: impl FnOnce(RunContext<'_>) -> T) -> T {
    let run = RunId::parse("00000abc").unwrap();
    session(pipeline, &run, LedgerDirectory::State, work).unwrap().0
}

/// A machine, and a job on it.
pub struct Scene {
    /// The configuration, whose state is in this directory.
    pub config: fn(&Path) -> Config,
    /// The machine before the first run.
    pub world: fn() -> World,
    /// What its job protects.
    pub sources: &'static Sources,
    /// The engines of its targets.
    pub engines: fn(&Config) -> Engines,
    /// How many copies the policy keeps, of all items together.
    pub kept: usize,
    /// Effects that are tried again, so that a single failure of them does no harm.
    pub tried_again: fn(&str) -> bool,
}

/// Files that are read live, and a service that hooks stop and start.
pub const LIVE: Scene = Scene {
    config,
    world: World::new,
    sources: &source::of,
    engines,
    kept: 2,
    tried_again: |_| false,
};

/// A directory whose files need not reach a disk to be synced: hundreds of runs would wait for it.
fn room() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// A machine with its state directory and everything that a run needs.
pub struct Bench {
    pub host: FakeHost,
    pub config: Config,
    pub engines: Engines,
    pub sources: &'static Sources,
    pub history: History,
    pub state: tempfile::TempDir,
    kept: usize,
}

impl Bench {
    pub fn new() -> Self {
        Self::of(&LIVE)
    }

    pub fn of(scene: &Scene) -> Self {
        Self::at(scene, (scene.world)(), room())
    }

    fn at(scene: &Scene, world: World, state: tempfile::TempDir) -> Self {
        let config = (scene.config)(state.path());
        let engines = (scene.engines)(&config);
        let history = History::open(&state.path().join("history.sqlite")).unwrap();
        let host = FakeHost::over(world);
        assert_eq!(identity::settle(&host, &history).unwrap(), None);
        let Scene { sources, kept, .. } = *scene;
        Self { host, config, engines, sources, history, state, kept }
    }

    fn keeping(policy: KeepPolicy) -> Self {
        let mut bench = Self::new();
        bench.config.targets[0].keep = Some(policy);
        bench.engines = engines(&bench.config);
        bench
    }

    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline {
            host: &self.host,
            config: &self.config,
            engines: &self.engines,
            sources: self.sources,
            history: Some(&self.history),
            observer: &Nobody,
        }
    }

    pub fn run(&self) -> RunReport {
        self.run_by(self.pipeline())
    }

    /// A dry run of the same: what it says, and every effect that it would have.
    pub fn plan(&self) -> (RunReport, Vec<String>) {
        let dry = DryHost::new(Arc::new(self.host.clone()));
        let report = self.run_by(Pipeline { host: &dry, ..self.pipeline() });
        (report, dry.planned().iter().map(ToString::to_string).collect())
    }

    /// The effects that a dry run foretells, which goes well and has none itself, on this machine or on another one.
    #[track_caller]
    pub fn only_planned(&self) -> Vec<String> {
        let clear = |world: &mut World| {
            world.effects.clear();
            world.server.iter_mut().for_each(|server| server.world.effects.clear());
        };
        clear(&mut self.host.world());
        let (report, planned) = self.plan();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        let world = self.host.world();
        assert_eq!(world.effects, [] as [String; 0]);
        let there = world.server.iter().flat_map(|server| &server.world.effects);
        assert_eq!(there.collect::<Vec<_>>(), [] as [&String; 0]);
        drop(world);
        assert_eq!(self.ledgers(), [] as [PathBuf; 0]);
        planned
    }

    fn run_by(&self, pipeline: Pipeline<'_>) -> RunReport {
        run(pipeline, &self.config.jobs.iter().collect::<Vec<_>>(), Scope::default())
    }

    pub fn ledgers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.state.path().join("ledger")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Three good copies of each item have been made, of which the policy kept what it keeps.
    pub fn with_history() -> Self {
        Self::with_history_of(&LIVE)
    }

    pub fn with_history_of(scene: &Scene) -> Self {
        let bench = Self::of(scene);
        for _ in 0..3 {
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        }
        assert_eq!(bench.host.world().copies().len(), scene.kept);
        bench.host.arm(Fault::None);
        bench
    }

    /// Another machine in the same state, and another state directory with the same content.
    pub fn duplicate(&self, scene: &Scene) -> Self {
        let world = self.host.world().clone();
        let state = room();
        for file in fs::read_dir(self.state.path()).unwrap().map(Result::unwrap) {
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), state.path().join(file.file_name())).unwrap();
            }
        }
        Self::at(scene, world, state)
    }

    /// The machine as it was at a moment, with its state directory.
    pub fn as_of(&self, scene: &Scene, moment: &Past) -> Self {
        let state = room();
        for (name, content) in &moment.files {
            fs::write(state.path().join(name), content).unwrap();
        }
        Self::at(scene, moment.world.clone(), state)
    }

    /// The newest copy; whatever happens, it must survive.
    pub fn newest(&self) -> String {
        self.host.world().copies().pop().unwrap()
    }

    /// Nothing is held, nothing is down.
    #[track_caller]
    pub fn assert_released(&self, after: &str) {
        let mut world = self.host.world();
        let kept = self.history.kept(&self.config.jobs[0].name).unwrap();
        if !kept.is_empty() {
            // Those that are written down, and no others.
            let is_there = |kept: &&KeptCapture| {
                let undo = serde_json::to_value(&kept.kept.undo).unwrap();
                let far = world.server.as_ref().map(|server| &server.world.btrfs);
                let is_on = |btrfs: Option<&FakeBtrfs>, kind: &str| {
                    let name = undo[kind]["name"].as_str();
                    btrfs.zip(name).is_some_and(|(btrfs, name)| btrfs.top.contains_key(name))
                };
                is_on(Some(&world.btrfs), "remove-subvolume") || is_on(far, "remove-far-subvolume")
            };
            let count = kept.iter().filter(is_there).count();
            world.bases = count;
        }
        let held = world.held();
        drop(world);
        assert_eq!(held, Vec::<String>::new(), "{after}");
        assert_eq!(self.ledgers(), Vec::<PathBuf>::new(), "{after}: a ledger is left");
    }

    /// A person has looked at the copies.
    pub fn accept(&self) {
        self.history
            .record_maintenance(&Maintenance {
                target: self.config.targets[0].name.clone(),
                kind: MaintenanceKind::Accept,
                outcome: Outcome::Ok,
                detail: "host".into(),
                time: self.host.now(),
            })
            .unwrap();
    }

    /// The next run, without any help, is good and leaves what the policy keeps.
    #[track_caller]
    pub fn assert_mended(&self, after: &str) {
        self.host.arm(Fault::None);
        let report = self.run();
        assert_eq!(report.outcome, Outcome::Ok, "{after}: {report:#?}");
        self.assert_released(after);
        let kept = self.host.world().copies().len();
        assert_eq!(kept, self.kept, "{after}: the policy keeps so many");
        // A check would hold them to be lost.
        let orphans = self.host.world().pool.orphans().len();
        assert_eq!(orphans, 0, "{after}: records of copies that are gone");
    }
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    loops::failing_any_effect(&LIVE);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&LIVE);
}

#[test]
fn a_ledger_cut_off_after_any_line_is_recovered_from() {
    loops::cutting_the_ledger(&LIVE);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&LIVE);
}

#[test]
fn failing_any_effect_of_giving_up_hooks_is_recovered_from() {
    loops::failing_any_effect_of_giving_up_hooks(&LIVE);
}

#[test]
fn a_hook_in_the_ledger_that_never_succeeds_can_be_given_up() {
    let mut bench = Bench::with_history();
    bench.host.arm(Fault::None);
    let good = std::mem::take(&mut bench.config.jobs[0].hooks);
    let broken = vec![argv(&["/hook", "broken"])];
    bench.config.jobs[0].hooks = Hooks { finally: broken, ..good.clone() };
    let report = bench.run();
    let run = loops::dead_run(&bench).unwrap();
    assert_eq!(run, report.run_id);
    // The configuration is mended, and what the ledger holds stays.
    bench.config.jobs[0].hooks = good;
    for _ in 0..2 {
        let report = bench.run();
        let told = report.warnings.join("\n");
        assert!(told.contains(&format!("left by run {run}: the finally hook")), "{told}");
        assert!(told.contains(&format!("`stillpoint recover --give-up {run}`")), "{told}");
    }
    let held = recover(bench.pipeline()).unwrap().failures;
    assert!(held[0].message.contains(&format!("--give-up {run}`")), "{held:?}");

    let typo = RunId::parse("0badc0de").unwrap();
    let error = give_up(bench.pipeline(), &typo).unwrap_err();
    assert_eq!(error.trouble, Trouble::Usage);
    assert!(error.message.ends_with(run.as_str()), "{error}");
    // Nobody else's hook is given up with it.
    let other = RunId::parse("0000ffff").unwrap();
    let hook = PendingHook {
        kind: HookKind::Finally,
        job: bench.config.jobs[0].name.clone(),
        argv: argv(&["/hook", "start"]),
        timeout: None,
    };
    drop(
        FileLedger::begin(&bench.state.path().join("ledger"), &other).unwrap().intend(hook.into()),
    );
    bench.host.world().hooks.clear();
    let recovery = give_up(bench.pipeline(), &run).unwrap();
    assert_eq!(recovery.failures, []);
    assert_eq!(bench.host.world().hooks, ["start"]);
    let told = format!("gave up the finally hook /hook broken of job host, which run {run} left");
    assert!(recovery.done.iter().any(|line| line.starts_with(&told)), "{recovery:?}");
    bench.assert_mended("giving up a hook");
    assert!(give_up(bench.pipeline(), &run).is_err(), "its ledger is gone");
}

#[test]
fn a_directory_on_a_disk_that_is_away_waits_until_it_is_back() {
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    let dead = RunId::parse("0badc0de").unwrap();
    let path = PathBuf::from("/mnt/usb/stage");
    let staging = StagingDirectory { mounted_at: "/mnt/usb".into(), ..StagingDirectory::new(path) };
    let ledger = FileLedger::begin(&bench.state.path().join("ledger"), &dead).unwrap();
    let entry = ledger.intend(staging.clone().into()).unwrap();
    let identity = Identity::Directory { device: 1, inode: 2, born: Some(3) };
    ledger.made(entry, identity).unwrap();
    // Of one that was never made, nothing is there.
    let never = StagingDirectory { path: "/mnt/usb/never".into(), ..staging };
    ledger.intend(never.into()).unwrap();
    drop(ledger);
    bench.host.world().unmounted.insert("/mnt/usb".into());
    let recovery = recover(bench.pipeline()).unwrap();
    assert_eq!(recovery.failures, []);
    let [waiting] = recovery.waiting.as_slice() else { panic!("{recovery:#?}") };
    assert!(waiting.message.contains("what was mounted at /mnt/usb"), "{waiting}");
    assert!(waiting.message.contains("recover --give-up 0badc0de"), "{waiting}");
    bench.host.world().unmounted.clear();
    let recovery = recover(bench.pipeline()).unwrap();
    assert_eq!((recovery.failures, recovery.waiting), (vec![], vec![]));
    bench.assert_mended("the disk's return");
}

#[test]
fn a_lock_of_a_target_that_is_not_configured_any_more_waits_for_a_person() {
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    let dead = RunId::parse("0badc0de").unwrap();
    let lock = EngineLock {
        target: TargetName::new("gone").unwrap(),
        owner: Some("web1.stillpoint-0badc0de".into()),
    };
    let staging = StagingDirectory::new("/var/cache/stillpoint/tmp/0badc0de".into());
    let ledger = FileLedger::begin(&bench.state.path().join("ledger"), &dead).unwrap();
    ledger.intend(EngineUndo::from(lock).into()).unwrap();
    ledger.intend(staging.into()).unwrap();
    drop(ledger);
    // Every run tells of it, and is as good as it is.
    for _ in 0..2 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        let recovery = recover(bench.pipeline()).unwrap();
        assert_eq!(recovery.failures, []);
        let [waiting] = recovery.waiting.as_slice() else { panic!("{recovery:#?}") };
        assert!(waiting.message.contains("target gone"), "{waiting}");
        assert!(waiting.message.contains("recover --give-up 0badc0de"), "{waiting}");
    }
    let recovery = give_up(bench.pipeline(), &dead).unwrap();
    assert_eq!((recovery.failures, recovery.waiting), (vec![], vec![]));
    assert!(
        recovery.done[0].starts_with("gave up the lock that run 0badc0de"),
        "{:?}",
        recovery.done
    );
    bench.assert_released("giving up a lock");
}

#[test]
fn a_ledger_that_cannot_be_understood_is_told_and_stays() {
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    let directory = bench.state.path().join("ledger");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("0badc0de");
    let intent = r#"{"intend":{"entry":0,"undo":{"remove-staging":{"path":"/x"}}}}"#;
    let newer = r#"{"begin":{"format":9,"run":"0badc0de"}}"#;
    for text in [format!("{intent}\n"), format!("{newer}\n"), "not a ledger\n".to_owned()] {
        fs::write(&path, &text).unwrap();
        let recovery = recover(bench.pipeline()).unwrap();
        let [failure] = recovery.failures.as_slice() else { panic!("{text}: {recovery:#?}") };
        assert_eq!(failure.trouble, Trouble::Cleanup, "{failure}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    // A line that was cut off names nothing that was done.
    fs::write(&path, &newer[..20]).unwrap();
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    assert!(!path.exists());
}

#[test]
fn a_hook_in_the_ledger_waits_for_the_run_that_has_the_job() {
    let bench = Bench::with_history();
    let dead = RunId::parse("0badc0de").unwrap();
    let hook = PendingHook {
        kind: HookKind::Finally,
        job: bench.config.jobs[0].name.clone(),
        argv: argv(&["/hook", "start"]),
        timeout: None,
    };
    let ledger = FileLedger::begin(&bench.state.path().join("ledger"), &dead).unwrap();
    ledger.intend(hook.into()).unwrap();
    drop(ledger);
    bench.host.world().hooks.clear();

    // A live run has stopped the service that the hook would start.
    let path = bench.config.settings.runtime_dir.join("locks/job-host.lock");
    let held = bench.host.lock(&path, LockMode::Exclusive, Duration::ZERO, "another").unwrap();
    let recovery = recover(bench.pipeline()).unwrap();
    let [failure] = recovery.failures.as_slice() else { panic!("{recovery:#?}") };
    let told = "left by run 0badc0de: the finally hook of job host has to wait: another run holds";
    assert!(failure.message.starts_with(told), "{failure}");
    assert_eq!(failure.trouble, Trouble::Cleanup);
    assert_eq!(bench.host.world().hooks, Vec::<String>::new());
    assert_eq!(bench.ledgers().len(), 1, "the ledger still holds it");

    drop(held);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    assert_eq!(bench.host.world().hooks, ["start"]);
    bench.assert_mended("a hook that had to wait");
}

#[test]
fn a_copy_that_history_does_not_learn_of_is_a_warning() {
    for (table, told) in
        [("copy", "is in target usb, but"), ("attempt", "cannot record an attempt")]
    {
        let bench = Bench::with_history();
        let file = rusqlite::Connection::open(bench.state.path().join(FILE_NAME)).unwrap();
        let full = "SELECT RAISE(FAIL, 'no space for this')";
        file.execute_batch(&format!(
            "CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN {full}; END"
        ))
        .unwrap();
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Warning, "{table}: {report:#?}");
        assert_eq!(report.troubles, [Trouble::Warning], "{table}");
        let warnings = report.warnings.join("\n");
        assert!(warnings.contains(told) && warnings.contains("no space for this"), "{warnings}");
        assert_eq!(bench.host.world().borg.archives.len(), 2, "{table}: the policy keeps two");
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
    bench.accept();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.host.world().borg.archives.len(), 2);
}

#[test]
fn the_new_copy_stays_when_the_clock_was_set_back_a_little() {
    let bench = Bench::keeping(KeepPolicy { last: Some(1), ..KeepPolicy::default() });
    for _ in 0..3 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        let made = report.jobs[0].targets[0].copy.clone().unwrap();
        let held: Vec<String> = bench.host.world().borg.archives.keys().cloned().collect();
        assert_eq!(held, [made], "{report:#?}");
        bench.host.world().ticks -= 120;
    }
}

#[test]
fn a_clock_that_leapt_waits_for_a_person() {
    let within = Some(Duration::from_secs(30 * 86_400));
    let bench = Bench::keeping(KeepPolicy { within, ..KeepPolicy::default() });
    for _ in 0..3 {
        assert_eq!(bench.run().outcome, Outcome::Ok);
    }
    bench.host.world().ticks += 3_650 * 86_400;
    // The second run under that clock looks like any other to the first.
    for held in [4, 5] {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
        let retain = report.jobs[0].steps.iter().find(|step| step.step == "retain").unwrap();
        let told = "3 of its copies would go only by their age";
        assert!(retain.detail.contains(told), "{retain:?}");
        assert_eq!(bench.host.world().borg.archives.len(), held, "nothing was deleted");
    }
    bench.accept();
    for held in [3, 4] {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        assert_eq!(bench.host.world().borg.archives.len(), held);
    }
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
        bench.assert_released(path);
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
    bench.config.targets[0].require_mount = Some("/unmounted".into());
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
    let report = run(pipeline, &[&bench.config.jobs[0]], Scope::default());
    assert!(report.jobs[0].steps.iter().all(|step| step.outcome == Outcome::Ok), "{report:#?}");
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert_eq!(bench.host.world().hooks, ["stop", "on-failure", "start"]);
}

#[test]
fn a_job_that_a_stopped_run_did_not_come_to_is_in_its_record() {
    let bench = Bench::new();
    bench.host.world().signal = Some(15);
    let later = Job { name: JobName::new("later").unwrap(), ..bench.config.jobs[0].clone() };
    let report = run(bench.pipeline(), &[&bench.config.jobs[0], &later], Scope::default());
    for (job, name) in report.jobs.iter().zip(["host", "later"]) {
        assert_eq!((job.name.as_str(), &job.outcome), (name, &Outcome::Interrupted));
        assert_eq!(job.targets.len(), 1);
        assert_eq!(job.targets[0].outcome, Outcome::Interrupted);
    }
    assert_eq!(report.jobs.len(), 2);
    assert!(bench.host.world().borg.archives.is_empty());
    // Where not even the record of the run can be begun, its jobs have failed.
    let bench = Bench::new();
    bench.host.arm(Fault::Fail(0));
    let report = run(bench.pipeline(), &[&bench.config.jobs[0], &later], Scope::default());
    let outcomes: Vec<_> = report.jobs.iter().map(|job| job.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Failed], "{report:#?}");
}

#[test]
fn two_targets_that_mean_one_repository_do_not_wait_for_each_other() {
    let mut bench = Bench::new();
    let mut second = bench.config.targets[0].clone();
    second.name = TargetName::new("usc").unwrap();
    bench.config.jobs[0].targets.push(second.name.clone());
    bench.config.targets.push(second);
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
    let (planned_report, planned) = bench.plan();
    assert_eq!(planned_report.outcome, Outcome::Ok, "{planned_report:#?}");
    assert_eq!(bench.host.world().effects, Vec::<String>::new(), "a dry run has no effect");
    assert_eq!(bench.ledgers(), Vec::<PathBuf>::new());
    let planned: Vec<String> =
        planned.iter().map(|effect| timeless(effect.lines().next().unwrap_or_default())).collect();

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
