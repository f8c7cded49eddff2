//! A host for the engines' unit tests: it answers commands in the order of a script, notes what was asked,
//! and panics on anything that the script does not foresee.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Offset, TimeZone, Utc};

use crate::host::{
    ActError, Action, Chained, ChildRecorder, CommandSpec, Completed, Effect, Exit, Host,
    LockError, LockGuard, LockMode, PathKind, PathState, PrivateView, RunError, Shield, StdoutMode,
    Stream, Subvolume, Tool, TrustError, TrustKind, Watch,
};
use crate::model::shown::Show;
use crate::model::undo::{ChildProcess, Identity};

/// What one process says and how it ends.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) exit: Exit,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(code: i32, stdout: &str, stderr: &str) -> Self {
        Self { exit: Exit::Code(code), stdout: stdout.into(), stderr: stderr.into() }
    }

    /// A recorded answer: `tests/fixtures/VERSION/CASE.{out,err,rc}`.
    pub(crate) fn fixture(version: &str, case: &str) -> Self {
        let base = format!("{}/tests/fixtures/{version}/{case}", env!("CARGO_MANIFEST_DIR"));
        let read = |end: &str| std::fs::read(format!("{base}.{end}")).unwrap();
        let code = String::from_utf8(read("rc")).unwrap().trim().parse().unwrap();
        Self { exit: Exit::Code(code), stdout: read("out"), stderr: read("err") }
    }

    fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        bytes
            .strip_suffix(b"\n")
            .into_iter()
            .chain((!bytes.ends_with(b"\n")).then_some(bytes))
            .filter(|text| !text.is_empty())
            .flat_map(|text| text.split(|byte| *byte == b'\n'))
    }

    fn complete(
        &self,
        spec: &CommandSpec,
        out: Stream,
        err: Stream,
        watch: Watch<'_>,
    ) -> Completed {
        if out == Stream::Out && spec.stdout != StdoutMode::Secret {
            Self::lines(&self.stdout).for_each(|line| watch(out, line));
        }
        Self::lines(&self.stderr).for_each(|line| watch(err, line));
        let whole = matches!(spec.stdout, StdoutMode::Whole | StdoutMode::Secret);
        Completed {
            stdout: if whole { self.stdout.clone() } else { Vec::new() },
            stderr_tail: self.stderr.clone(),
            ..Completed::ended(self.exit)
        }
    }
}

/// The host.
#[derive(Default)]
pub(crate) struct ScriptedHost {
    pub(crate) answers: Mutex<VecDeque<Answer>>,
    pub(crate) asked: Mutex<Vec<CommandSpec>>,
    pub(crate) files: HashMap<PathBuf, Vec<u8>>,
    pub(crate) environment: HashMap<String, OsString>,
    /// What [`Host::path_state`] finds; nothing when absent.
    pub(crate) present: Option<Vec<PathBuf>>,
    /// The processes that run.
    pub(crate) running: Vec<ChildProcess>,
    /// What was done that is no process.
    pub(crate) acted: Mutex<Vec<Action>>,
    /// Bytes that are free everywhere, if it is not plenty.
    pub(crate) free: Option<u64>,
    /// Whether every file system is read-only.
    pub(crate) read_only: bool,
    /// Secrets that others may read.
    pub(crate) untrusted: Vec<PathBuf>,
    /// When set, mutations are answered with their prediction.
    pub(crate) dry: bool,
    facts: Mutex<Vec<(String, Vec<u8>)>>,
}

impl ScriptedHost {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() }
    }

    /// The commands so far, as a person would type them.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(CommandSpec::display).collect()
    }

    fn predicts(&self, spec: &CommandSpec) -> bool {
        self.dry && spec.effect == Effect::Mutate
    }

    fn next(&self, spec: &CommandSpec) -> Answer {
        self.asked.lock().unwrap().push(spec.clone());
        if self.predicts(spec) {
            let facts = spec.prediction.facts.iter();
            self.facts
                .lock()
                .unwrap()
                .extend(facts.map(|fact| (fact.about.clone(), fact.value.clone())));
            return Answer {
                exit: Exit::Code(0),
                stdout: spec.prediction.stdout.clone(),
                stderr: Vec::new(),
            };
        }
        let next = self.answers.lock().unwrap().pop_front();
        next.unwrap_or_else(|| panic!("not in the script: {}", spec.display()))
    }
}

impl Host for ScriptedHost {
    fn run(&self, spec: &CommandSpec, watch: Watch<'_>) -> Result<Completed, RunError> {
        let completed = self.next(spec).complete(spec, Stream::Out, Stream::Err, watch);
        Ok(Completed { is_predicted: self.predicts(spec), ..completed })
    }

    fn chain(
        &self,
        before: &[CommandSpec],
        last: &CommandSpec,
        watch: Watch<'_>,
    ) -> Result<Chained, RunError> {
        let mut bytes = 0;
        let mut written = |spec: &CommandSpec| {
            let said = self.next(spec);
            bytes = said.stdout.len() as u64;
            let err = Stream::ProducerErr;
            let completed = said.complete(spec, err, err, &mut *watch);
            Completed { stdout: Vec::new(), is_predicted: self.predicts(spec), ..completed }
        };
        let before = before.iter().map(&mut written).collect();
        let read = self.next(last).complete(last, Stream::Out, Stream::Err, watch);
        let read = Completed { is_predicted: self.predicts(last), ..read };
        Ok(Chained { before, last: read, bytes: (!self.dry).then_some(bytes) })
    }

    fn hypervisor(&self) -> &dyn crate::host::Hypervisor {
        unreachable!("an engine does not ask for guests")
    }

    fn act(&self, action: &Action) -> Result<Option<Identity>, ActError> {
        let Action::RemoveFile { .. } = action else { panic!("not in the script: {action:?}") };
        self.acted.lock().unwrap().push(action.clone());
        Ok(None)
    }

    fn place(&self, placement: &crate::host::Placement) -> Result<crate::host::Placed, ActError> {
        panic!("not in the script: {placement:?}")
    }

    fn lock(
        &self,
        path: &Path,
        _mode: LockMode,
        _wait: Duration,
        _holder: &str,
    ) -> Result<Box<dyn LockGuard>, LockError> {
        panic!("not in the script: a lock on {}", path.shown())
    }

    fn thaw_guard(
        &self,
        _cgroups: &[PathBuf],
        _limit: Duration,
    ) -> Result<Box<dyn crate::host::ThawGuard>, ActError> {
        panic!("not in the script: a thaw guard")
    }

    fn path_state(&self, path: &Path) -> Result<Option<PathState>, ActError> {
        let Some(present) = &self.present else { return Ok(None) };
        Ok(present.iter().any(|known| known == path).then_some(PathState {
            kind: PathKind::Directory,
            identity: Identity::Inode { device: 1, inode: 2 },
            empty: false,
            size: 0,
            uid: 0,
            gid: 0,
            mode: 0o755,
        }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ActError> {
        self.files.get(path).cloned().ok_or_else(|| ActError::Io {
            what: "read",
            path: path.to_owned(),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })
    }

    fn is_mount_point(&self, path: &Path) -> Result<bool, ActError> {
        panic!("not in the script: whether {} is a mount point", path.shown())
    }

    fn mounts(&self) -> Result<Vec<crate::host::MountEntry>, ActError> {
        unreachable!("an engine does not ask what is mounted")
    }

    fn subvolume(&self, _: &Path) -> Result<Option<Subvolume>, ActError> {
        unreachable!("an engine does not ask for subvolumes")
    }

    fn subvolume_on(&self, _: &Path, _: &Path) -> Result<Option<Subvolume>, ActError> {
        unreachable!("engines look for no snapshot")
    }

    fn subvolumes_on(&self, _: &Path) -> Result<Vec<(PathBuf, Subvolume)>, ActError> {
        unreachable!("engines look at no device")
    }

    fn without_a_place(&self, _: &PrivateView) -> Result<Vec<PathBuf>, ActError> {
        unreachable!("engines put no view together")
    }

    fn btrfs_on(&self, _: &Path) -> Result<Option<String>, ActError> {
        unreachable!("engines look at no device")
    }

    fn nested_subvolumes(&self, _: &Path) -> Result<Vec<PathBuf>, ActError> {
        unreachable!("an engine does not ask for subvolumes")
    }

    fn received_as(&self, _: &Path, _: [u8; 16]) -> Result<usize, ActError> {
        unreachable!("an engine does not ask for subvolumes")
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn find_program(&self, tool: &Tool) -> Result<PathBuf, RunError> {
        panic!("not in the script: where {} is", tool.name())
    }

    fn total_space(&self, _: &Path) -> Result<u64, ActError> {
        Ok(1 << 40)
    }

    fn free_space(&self, _: &Path) -> Result<u64, ActError> {
        Ok(self.free.unwrap_or(1 << 40))
    }

    fn names_in(&self, directory: &Path) -> Result<Option<Vec<OsString>>, ActError> {
        let removed = self.acted.lock().unwrap();
        let is_left = |path: &&PathBuf| {
            !removed
                .iter()
                .any(|action| matches!(action, Action::RemoveFile { path: gone } if gone == *path))
        };
        let names: Vec<OsString> = self
            .files
            .keys()
            .filter(is_left)
            .filter_map(|path| path.strip_prefix(directory).ok()?.components().next())
            .map(|name| name.as_os_str().to_owned())
            .collect();
        Ok((!names.is_empty()).then_some(names))
    }

    fn try_room(&self, directory: &Path) -> Result<(), ActError> {
        panic!("not in the script: room at {}", directory.shown())
    }

    fn is_read_only(&self, _: &Path) -> Result<bool, ActError> {
        Ok(self.read_only)
    }

    fn check_trusted(&self, path: &Path, _: TrustKind) -> Result<(), TrustError> {
        match self.untrusted.iter().any(|known| known == path) {
            true => Err(TrustError::Readable { path: path.into(), mode: 0o644 }),
            false => Ok(()),
        }
    }

    fn process(&self, pid: i32) -> Result<Option<ChildProcess>, ActError> {
        Ok(self.running.iter().find(|process| process.pid == pid).cloned())
    }

    fn gives_host_names(&self) -> bool {
        true
    }

    fn pause(&self, _: Duration) {}

    fn environment(&self, name: &str) -> Option<OsString> {
        self.environment.get(name).cloned()
    }

    fn now(&self) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
    }

    fn ahead_of_utc(&self, _: DateTime<Utc>) -> FixedOffset {
        Utc.fix()
    }

    fn random(&self) -> [u8; 4] {
        [1, 2, 3, 4]
    }

    fn stop_signal(&self) -> Option<i32> {
        None
    }

    fn shield(&self) -> Box<dyn Shield + '_> {
        panic!("not in the script: a shield")
    }

    fn record_children(&self, _recorder: Option<Arc<dyn ChildRecorder>>) {}

    fn predicted(&self, about: &str) -> Vec<Vec<u8>> {
        let facts = self.facts.lock().unwrap();
        facts
            .iter()
            .filter(|(subject, _)| subject == about)
            .map(|(_, value)| value.clone())
            .collect()
    }

    fn is_dry(&self) -> bool {
        self.dry
    }
}
