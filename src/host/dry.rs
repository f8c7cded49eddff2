//! The host of a dry run: looks at the real machine, and notes what would change instead of changing it.
//!
//! What a skipped command would have printed, and what would be true afterwards, comes with the command
//! ([`super::Prediction`]), so that the steps after it go the same way as in a real run; what an [`Action`] or a change
//! of a guest would leave is predicted here. So whoever looks at something that a dry run did not make finds it, and
//! nobody has to ask whether the run is a dry one. Where an answer was predicted and not given, it says so
//! ([`Completed::is_predicted`]).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};

use super::runner::lines::LineSplitter;
use super::{
    ActError, Action, Chained, ChildRecorder, CommandSpec, Completed, Effect, EnvValue, Exit,
    GuestChange, Held, HeldEnd, Host, Hypervisor, LockError, LockGuard, LockMode, MountEntry,
    PathState, Placed, Placement, PrivateView, RunError, Shield, StdoutMode, Stream, Subvolume,
    ThawGuard, Tool, TrustError, TrustKind, Watch, Way,
};
use crate::model::guest::GuestUuid;
use crate::model::shown::Show;
use crate::model::undo::{ChildProcess, Identity};

mod guests;
mod held;
mod planned;
mod predicted_state;

pub use planned::{PlannedCommand, PlannedEffect, PlannedVariable};
use predicted_state::PredictedState;

/// A host that changes nothing.
pub struct DryHost {
    inner: Arc<dyn Host>,
    noted: Mutex<Noted>,
    aside: Option<Aside>,
}

#[derive(Default)]
struct Noted {
    effects: Vec<PlannedEffect>,
    facts: HashMap<String, Vec<Vec<u8>>>,
    predicted_state: PredictedState,
    guests: HashMap<GuestUuid, Vec<GuestChange>>,
}

impl DryHost {
    /// Looks at `inner` and never changes it.
    pub fn new(inner: Arc<dyn Host>) -> Self {
        Self { inner, noted: Mutex::default(), aside: None }
    }

    /// Looks at `inner`, and what looking would leave behind below these directories, which do not exist yet, goes
    /// to one beside `beside` that ends with this host: an engine that lists a repository makes its cache.
    pub fn with_aside(self, directories: Vec<PathBuf>, beside: PathBuf) -> Self {
        Self { aside: Some(Aside { directories, beside, made: OnceLock::new() }), ..self }
    }

    /// The command with what it would write to such a directory sent aside.
    fn aside(&self, spec: &CommandSpec) -> Result<CommandSpec, RunError> {
        let mut spec = spec.clone();
        let Some(aside) = &self.aside else { return Ok(spec) };
        let failed =
            |command: String| move |source: std::io::Error| RunError::Spawn { command, source };
        for at in 0..spec.env.len() {
            let EnvValue::Plain(value) = &spec.env[at].1 else { continue };
            let value = Path::new(value);
            let Some(index) = aside.directories.iter().position(|known| value.starts_with(known))
            else {
                continue;
            };
            let below = value.strip_prefix(&aside.directories[index]).unwrap_or(value);
            let scratch = aside.scratch().map_err(failed(spec.display()))?;
            let moved = scratch.join(index.to_string()).join(below);
            spec.env[at].1 = EnvValue::Plain(moved.into());
        }
        Ok(spec)
    }

    /// What a real run would have done so far, in order.
    pub fn planned(&self) -> Vec<PlannedEffect> {
        self.noted().effects.clone()
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the effect with what would be true after it.
    fn note(&self, effect: PlannedEffect, specs: &[&CommandSpec]) {
        let mut noted = self.noted();
        noted.effects.push(effect);
        for fact in specs.iter().flat_map(|spec| &spec.prediction.facts) {
            noted.facts.entry(fact.about.clone()).or_default().push(fact.value.clone());
        }
    }
}

/// Where looks write that must leave nothing behind.
struct Aside {
    directories: Vec<PathBuf>,
    beside: PathBuf,
    made: OnceLock<PathBuf>,
}

impl Aside {
    /// The directory, ours alone; made when it is first needed.
    fn scratch(&self) -> std::io::Result<&Path> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanoseconds = now.map_or(0, |since| since.as_nanos());
        let name = format!("stillpoint-dry.{}.{nanoseconds:x}", std::process::id());
        let below = self.beside.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let make = |below: &Path| {
            let path = below.join(&name);
            DirBuilder::new().mode(0o700).create(&path).map(|()| path)
        };
        let path = make(below).or_else(|_| make(&std::env::temp_dir()))?;
        Ok(self.made.get_or_init(|| path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(made) = self.made.get() {
            // What stays there holds nothing of anybody.
            let _ = std::fs::remove_dir_all(made);
        }
    }
}

/// What the command would have answered, with the lines that the watcher would have seen.
fn predict(spec: &CommandSpec, watch: Watch<'_>) -> Completed {
    let mut lines = LineSplitter::default();
    let mut take = |line: &[u8]| watch(Stream::Out, line);
    if matches!(spec.stdout, StdoutMode::Whole | StdoutMode::Lines) {
        lines.push(&spec.prediction.stdout, &mut take);
        lines.finish(&mut take);
    }
    let whole = matches!(spec.stdout, StdoutMode::Whole | StdoutMode::Secret);
    Completed {
        stdout: if whole { spec.prediction.stdout.clone() } else { Vec::new() },
        ..unseen()
    }
}

/// How a process ends of which nothing is foretold.
fn unseen() -> Completed {
    Completed { is_predicted: true, ..Completed::ended(Exit::Code(0)) }
}

/// Holds nothing: a dry run must not keep a real one waiting.
struct NoLock;

impl LockGuard for NoLock {}

/// Guards nothing: in a dry run nothing freezes.
struct NoGuard;

impl ThawGuard for NoGuard {
    fn finish(self: Box<Self>) -> Result<bool, ActError> {
        Ok(false)
    }
}

impl Host for DryHost {
    fn run(&self, spec: &CommandSpec, watch: Watch<'_>) -> Result<Completed, RunError> {
        match spec.effect {
            Effect::Inspect => self.inner.run(&self.aside(spec)?, watch),
            Effect::Mutate => {
                self.note(PlannedEffect::Command(PlannedCommand::new(spec)), &[spec]);
                Ok(predict(spec, watch))
            }
        }
    }

    fn chain(
        &self,
        before: &[CommandSpec],
        last: &CommandSpec,
        watch: Watch<'_>,
    ) -> Result<Chained, RunError> {
        let mut members = before.iter().chain([last]);
        if members.all(|spec| spec.effect == Effect::Inspect) {
            let before: Vec<_> =
                before.iter().map(|spec| self.aside(spec)).collect::<Result<_, _>>()?;
            return self.inner.chain(&before, &self.aside(last)?, watch);
        }
        let specs: Vec<&CommandSpec> = before.iter().chain([last]).collect();
        self.note(PlannedEffect::of_chain(before, last), &specs);
        let before = vec![unseen(); before.len()];
        Ok(Chained { before, last: predict(last, watch), bytes: None })
    }

    fn hold(&self, specs: &[CommandSpec], end: HeldEnd) -> Result<Box<dyn Held + '_>, RunError> {
        Ok(self.held(specs, end))
    }

    fn hypervisor(&self) -> &dyn Hypervisor {
        self
    }

    fn act(&self, action: &Action) -> Result<Option<Identity>, ActError> {
        self.note(PlannedEffect::Action(action.summary()), &[]);
        Ok(self.noted().predicted_state.after(action, self.inner.as_ref()))
    }

    fn place(&self, placement: &Placement) -> Result<Placed, ActError> {
        let text =
            format!("move what was laid out into place below {}", placement.destination.shown());
        self.note(PlannedEffect::Action(text), &[]);
        Ok(Placed::default())
    }

    fn lock(
        &self,
        _path: &Path,
        _mode: LockMode,
        _wait: Duration,
        _holder: &str,
    ) -> Result<Box<dyn LockGuard>, LockError> {
        Ok(Box::new(NoLock))
    }

    fn thaw_guard(
        &self,
        _cgroups: &[PathBuf],
        _limit: Duration,
    ) -> Result<Box<dyn ThawGuard>, ActError> {
        Ok(Box::new(NoGuard))
    }

    fn path_state(&self, path: &Path) -> Result<Option<PathState>, ActError> {
        self.inner.path_state(path)
    }

    fn way_as_far(&self, path: &Path, may_look: &dyn Fn(&Path) -> bool) -> Result<Way, ActError> {
        self.inner.way_as_far(path, may_look)
    }

    fn names_in(&self, directory: &Path) -> Result<Option<Vec<OsString>>, ActError> {
        let mut names = self.inner.names_in(directory)?;
        if let Some(names) = &mut names {
            self.noted().predicted_state.names_in(directory, names);
        }
        Ok(names)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ActError> {
        match self.noted().predicted_state.file(path) {
            Some(Some(content)) => Ok(content),
            Some(None) | None => self.inner.read(path),
        }
    }

    fn is_mount_point(&self, path: &Path) -> Result<bool, ActError> {
        self.inner.is_mount_point(path)
    }

    fn mounts(&self) -> Result<Vec<MountEntry>, ActError> {
        let mut mounts = self.inner.mounts()?;
        self.noted().predicted_state.remount(&mut mounts);
        Ok(mounts)
    }

    fn subvolume(&self, root: &Path) -> Result<Option<Subvolume>, ActError> {
        let predicted = self.noted().predicted_state.subvolume(root);
        predicted.map_or_else(|| self.inner.subvolume(root), Ok)
    }

    fn subvolume_on(&self, device: &Path, path: &Path) -> Result<Option<Subvolume>, ActError> {
        let predicted = self.noted().predicted_state.subvolume_on(device, path);
        predicted.map_or_else(|| self.inner.subvolume_on(device, path), Ok)
    }

    fn subvolumes_on(&self, device: &Path) -> Result<Vec<(PathBuf, Subvolume)>, ActError> {
        self.inner.subvolumes_on(device)
    }

    /// Nothing of the view exists.
    fn without_a_place(&self, _view: &PrivateView) -> Result<Vec<PathBuf>, ActError> {
        Ok(Vec::new())
    }

    fn btrfs_on(&self, device: &Path) -> Result<Option<String>, ActError> {
        self.inner.btrfs_on(device)
    }

    fn nested_subvolumes(&self, above: &Path) -> Result<Vec<PathBuf>, ActError> {
        self.inner.nested_subvolumes(above)
    }

    fn received_as(&self, directory: &Path, uuid: [u8; 16]) -> Result<usize, ActError> {
        self.inner.received_as(directory, uuid)
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        self.inner.canonical(path)
    }

    fn find_program(&self, tool: &Tool) -> Result<PathBuf, RunError> {
        self.inner.find_program(tool)
    }

    fn free_space(&self, path: &Path) -> Result<u64, ActError> {
        self.inner.free_space(path)
    }

    fn total_space(&self, path: &Path) -> Result<u64, ActError> {
        self.inner.total_space(path)
    }

    fn free_files(&self, path: &Path) -> Result<Option<u64>, ActError> {
        self.inner.free_files(path)
    }

    fn try_room(&self, directory: &Path) -> Result<(), ActError> {
        self.inner.try_room(directory)
    }

    fn is_read_only(&self, path: &Path) -> Result<bool, ActError> {
        self.inner.is_read_only(path)
    }

    fn check_trusted(&self, path: &Path, kind: TrustKind) -> Result<(), TrustError> {
        self.inner.check_trusted(path, kind)
    }

    fn process(&self, pid: i32) -> Result<Option<ChildProcess>, ActError> {
        self.inner.process(pid)
    }

    fn gives_host_names(&self) -> bool {
        self.inner.gives_host_names()
    }

    fn environment(&self, name: &str) -> Option<OsString> {
        self.inner.environment(name)
    }

    fn now(&self) -> DateTime<Utc> {
        self.inner.now()
    }

    fn ahead_of_utc(&self, at: DateTime<Utc>) -> FixedOffset {
        self.inner.ahead_of_utc(at)
    }

    fn pause(&self, span: Duration) {
        self.inner.pause(span);
    }

    fn random(&self) -> [u8; 4] {
        self.inner.random()
    }

    fn stop_signal(&self) -> Option<i32> {
        self.inner.stop_signal()
    }

    fn shield(&self) -> Box<dyn Shield + '_> {
        self.inner.shield()
    }

    /// A dry run keeps no ledger, so nobody needs to know of its children.
    fn record_children(&self, _recorder: Option<Arc<dyn ChildRecorder>>) {}

    fn predicted(&self, about: &str) -> Vec<Vec<u8>> {
        self.noted().facts.get(about).cloned().unwrap_or_default()
    }

    fn is_dry(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sys::signals::StopFlag;
    use crate::host::system::SystemHost;
    use crate::host::{Access, Fact, FdStyle, PrivateMount, SecretFd, SubvolumeAction};
    use crate::model::secret::Secret;
    use crate::model::undo::ChildProcess;

    fn dry() -> DryHost {
        DryHost::new(Arc::new(SystemHost::stopped_by(Arc::new(StopFlag::default()))))
    }

    fn touch(path: &Path) -> CommandSpec {
        CommandSpec::new(Tool::Named("touch".into()), Effect::Mutate).arg(path)
    }

    #[test]
    fn nothing_changes_and_everything_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let dry = dry();
        let staging = dir.path().join("staging");
        let nothing = &mut |_: Stream, _: &[u8]| {};
        dry.run(&touch(&dir.path().join("a")), nothing).unwrap();
        let names = ["b", "c", "d"].map(|name| touch(&dir.path().join(name)));
        let chained = dry.chain(&names[..2], &names[2], nothing).unwrap();
        assert_eq!((chained.before.len(), chained.bytes), (2, None));
        let actions = [
            Action::CreateDirectory { path: staging.clone(), mode: 0o700 },
            Action::EnsureDirectory { path: staging.clone(), mode: 0o700 },
            Action::ReplaceFile { path: staging.clone(), mode: 0o600, content: b"x".to_vec() },
            Action::RemoveStaging { path: dir.path().to_owned(), identity: None },
            Action::Freeze { cgroup: staging.clone() },
            Action::Thaw { cgroup: staging.clone(), identity: None },
            Action::Unmount { path: staging.clone(), id: 1, device: (0, 1), subvolume: None },
            Action::StopProcess {
                child: ChildProcess {
                    pid: 1,
                    start_time: 1,
                    boot_id: "x".into(),
                    never_kill: false,
                    mark: None,
                },
                grace: Duration::ZERO,
            },
        ];
        for action in &actions {
            assert_eq!(dry.act(action).unwrap(), None);
        }
        let guard = dry.thaw_guard(std::slice::from_ref(&staging), Duration::from_secs(1)).unwrap();
        assert!(!guard.finish().unwrap());
        drop(dry.lock(&dir.path().join("lock"), LockMode::Exclusive, Duration::ZERO, "us"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(dry.planned().len(), 2 + actions.len());
        assert!(dry.is_dry());
    }

    #[test]
    fn inspections_run_and_predictions_are_answered() {
        let dry = dry();
        let echo =
            CommandSpec::new(Tool::Named("echo".into()), Effect::Inspect).arg("from the machine");
        let looked = dry.run(&echo, &mut |_, _| {}).unwrap();
        assert_eq!(looked.stdout, b"from the machine\n");
        assert_eq!(dry.planned(), []);
        let mut make = touch(Path::new("/x"));
        make.prediction.stdout = b"one\ntwo".to_vec();
        make.prediction.facts = vec![Fact { about: "copies".into(), value: b"new".to_vec() }];
        let mut lines = Vec::new();
        let made = dry.run(&make, &mut |stream, line| lines.push((stream, line.to_vec()))).unwrap();
        assert!(made.success());
        assert_eq!(made.stdout, b"one\ntwo");
        assert_eq!(lines, [(Stream::Out, b"one".to_vec()), (Stream::Out, b"two".to_vec())]);
        assert_eq!(dry.predicted("copies"), [b"new".to_vec()]);
        assert!(dry.predicted("others").is_empty());
    }

    #[test]
    fn a_chain_is_planned_as_one_and_run_when_it_only_looks() {
        let dry = dry();
        let named = |name: &str, effect| CommandSpec::new(Tool::Named(name.into()), effect);
        let words = |specs: &[CommandSpec]| {
            dry.chain(specs, &named("store", Effect::Mutate), &mut |_, _| {}).unwrap();
            let planned = dry.planned().pop().unwrap();
            let kind = serde_json::to_value(&planned).unwrap();
            let between = kind["pipe"]["between"].as_array().map(Vec::len);
            (planned.to_string(), between)
        };
        let [send, pack] = ["send", "pack"].map(|name| named(name, Effect::Inspect));
        assert_eq!(words(&[]), ("store".into(), None));
        assert_eq!(words(std::slice::from_ref(&send)), ("send\n| store".into(), None));
        assert_eq!(words(&[send, pack]), ("send\n| pack\n| store".into(), Some(1)));
        let looks = [named("echo", Effect::Inspect).arg("hello")];
        let seen = dry.chain(&looks, &named("cat", Effect::Inspect), &mut |_, _| {}).unwrap();
        assert_eq!((seen.last.stdout.as_slice(), seen.bytes), (&b"hello\n"[..], Some(6)));
        assert_eq!(dry.planned().len(), 3);
    }

    #[test]
    fn what_actions_would_leave_is_there_for_whoever_looks() {
        let dir = tempfile::tempdir().unwrap();
        let dry = dry();
        let device = || PathBuf::from("/dev/stillpoint-none");
        let origin = Subvolume {
            file_system: "fs".into(),
            id: Some(256),
            uuid: Some("origin".into()),
            parent_uuid: None,
            read_only: false,
            ..Subvolume::default()
        };
        let make = Action::Subvolume(SubvolumeAction::MakeSnapshot {
            device: device(),
            origin,
            path: "/data".into(),
            name: "snap".into(),
        });
        let made = dry.act(&make).unwrap();
        let found = dry.subvolume_on(&device(), Path::new("snap")).unwrap().unwrap();
        assert_eq!(made, found.uuid.clone().map(|uuid| Identity::Subvolume { uuid }));
        assert!(found.read_only && found.id.is_none());
        assert_eq!(found.parent_uuid.as_deref(), Some("origin"));
        let name = || "snap".to_owned();
        dry.act(&Action::Subvolume(SubvolumeAction::DeleteSnapshot {
            device: device(),
            name: name().into(),
            found,
        }))
        .unwrap();
        assert_eq!(dry.subvolume_on(&device(), Path::new("snap")).unwrap(), None);
        // Of others nothing is known: the machine is asked, and there is no such device.
        assert!(dry.subvolume_on(&device(), Path::new("other")).is_err());

        // A control group that is there; the real one of nobody.
        let group = || dir.path().to_owned();
        let frozen = dry.act(&Action::Freeze { cgroup: group() }).unwrap();
        assert_eq!(frozen, dry.path_state(dir.path()).unwrap().map(|state| state.identity));
        let thaw = Action::Thaw { cgroup: group(), identity: frozen.clone() };
        assert_eq!(dry.act(&thaw).unwrap(), frozen);
        assert_eq!(dry.act(&thaw).unwrap(), None, "it would run already");

        let top = |dry: &DryHost| dry.mounts().unwrap().pop().unwrap();
        let before = top(&dry);
        let remount = |read_only| Action::Remount {
            path: before.at.clone(),
            device: before.device,
            read_only,
        };
        dry.act(&remount(true)).unwrap();
        assert!(top(&dry).is_frozen_read_only());
        dry.act(&remount(false)).unwrap();
        assert!(!top(&dry).is_frozen_read_only());
        assert_eq!(dry.planned().len(), 7);
    }

    #[test]
    fn a_plan_names_secrets_and_shows_none() {
        let dry = dry();
        let mut spec = touch(Path::new("/x y")).env("BORG_REPO", "/repo");
        spec.env.push(("AWS_KEY".into(), EnvValue::Secret(Secret::new("canary-2"))));
        spec.secrets.push(SecretFd {
            variable: "BORG_PASSPHRASE_FD",
            style: FdStyle::Number,
            value: Secret::new("canary-3"),
        });
        spec.directory = Some("/work".into());
        spec.view.mounts = vec![
            PrivateMount::Bind { from: "/a".into(), at: "/b".into(), read_only: true },
            PrivateMount::Device {
                device: "/dev/vg/lv".into(),
                at: "/c".into(),
                file_system: "xfs".into(),
                options: "nouuid".into(),
                directory: None,
                access: Access::Read,
            },
        ];
        dry.run(&spec, &mut |_, _| {}).unwrap();
        let text = serde_json::to_string(&dry.planned()).unwrap();
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(
            text,
            r#"[{"command":{"command":"touch '/x y'","environment":[{"name":"BORG_REPO","value":"/repo"}],"secret_variables":["AWS_KEY","BORG_PASSPHRASE_FD"],"directory":"/work","sees":["/a read-only at /b","/dev/vg/lv (xfs, nouuid) read-only at /c"]}}]"#
        );
        assert_eq!(
            dry.planned()[0].to_string(),
            "touch '/x y'
  with BORG_REPO=/repo
  with AWS_KEY=***
  with BORG_PASSPHRASE_FD=***
  in /work
  seeing /a read-only at /b
  seeing /dev/vg/lv (xfs, nouuid) read-only at /c"
        );
    }
}
