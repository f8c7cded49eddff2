//! A [`Host`] in memory. What a power cut would destroy (locks, children, frozen groups) is lost with it; what
//! it would leave (directories, a stopped service, archives, snapshots) stays in the [`World`], which outlives
//! it. When only our process dies, the machine stays as it is: read-only remounts, suspended devices.
//!
//! Every effect counts, and the n-th can be made to fail, or be the last one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Offset, TimeDelta, TimeZone, Utc};
use stillpoint::host::{
    ActError, Action, Chained, ChildRecorder, CommandSpec, Completed, Effect, Exit, Held, HeldEnd,
    Host, Hypervisor, Input, LockError, LockGuard, LockMode, MountEntry, PathKind, PathState,
    PipeEnd, Placed, Placement, PrivateView, RunError, Shield, StdoutMode, Stream, Subvolume,
    SubvolumeAction, ThawGuard, Tool, TrustError, TrustKind, Watch, mount_of, uuid_text,
};
use stillpoint::model::shown::Show;
use stillpoint::model::undo::{ChildProcess, Identity};
use stillpoint::tools::btrfs::shared::{Dropped, SHARE, TORN};

use super::fake_borg::Answer;
use super::fake_btrfs;
use super::fake_held::FakeHeld;
use super::fake_lvm::Stage;
use super::fake_pool::{FakePool, option};
use super::fake_server::IN_VAIN;
use super::fake_store::{self, FakeStore};
use super::fake_tree::FakeTree;
pub use super::world::{Fault, World};
use super::world::{LOCKED, SHOWN, carry_out, carry_out_chain, injected, lock_of, receive_torn};

/// Unwinds the stack as a power cut would end the process.
pub struct PowerCut;

/// The end of a pipe that is written to, and what is sent through it.
type Shared = (File, Option<CommandSpec>);

/// The end of a pipe, as the child has it that it is for.
fn end_of_child(end: &PipeEnd) -> File {
    File::from(end.take().unwrap())
}

/// What both ends of a pipe have in common.
fn pipe_of(end: &File) -> u64 {
    end.metadata().unwrap().ino()
}

/// A machine over a world.
#[derive(Clone)]
pub struct FakeHost {
    pub world: Arc<Mutex<World>>,
    /// How many shields keep a signal from stopping children of a thread.
    shields: Arc<Mutex<HashMap<ThreadId, usize>>>,
    /// Which thread holds a lock.
    holders: Arc<Mutex<HashMap<PathBuf, ThreadId>>>,
    /// The directory of ledgers, and the world after each effect with how many lines they had by then.
    pub chronicle: Arc<Mutex<Option<Chronicle>>>,
    /// What is sent for several, by the pipes that share it; `None`: what was to share it has failed.
    shared: Arc<Mutex<Vec<Shared>>>,
    /// The first one that takes what is shared next keeps the others waiting.
    pub drops: Arc<AtomicBool>,
    /// Told of each lock that is taken, and that is about to be let go.
    pub on_lock: Arc<Mutex<Option<OnLock>>>,
}

/// Who is told of a lock, and whether it is taken.
pub type OnLock = Box<dyn FnMut(&Path, bool) + Send>;

/// How the world and the files of the state directory were when the ledger had so many lines.
pub struct Chronicle {
    pub ledgers: PathBuf,
    pub past: Vec<Past>,
}

/// One moment.
#[derive(Clone)]
pub struct Past {
    pub lines: usize,
    pub world: World,
    /// History, which is written as durably as the ledger.
    pub files: Vec<(OsString, Vec<u8>)>,
}

impl Chronicle {
    fn note(&mut self, world: &World) {
        let Ok(files) = std::fs::read_dir(&self.ledgers) else { return };
        let lines = |path: PathBuf| std::fs::read_to_string(path).unwrap().lines().count();
        let lines = files.map(|file| lines(file.unwrap().path())).sum();
        let beside = std::fs::read_dir(self.ledgers.parent().unwrap()).unwrap().map(Result::unwrap);
        let files = beside
            .filter(|file| file.file_type().unwrap().is_file())
            .map(|file| (file.file_name(), std::fs::read(file.path()).unwrap()))
            .collect();
        self.past.push(Past { lines, world: world.clone(), files });
    }
}

struct HeldLock(FakeHost, PathBuf);

impl LockGuard for HeldLock {}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.0.tell(&self.1, false);
        let mut world = self.0.world();
        self.0.holders.lock().unwrap().remove(&self.1);
        world.locks.remove(&self.1);
    }
}

/// Thaws when it is dropped.
struct Guard {
    world: Arc<Mutex<World>>,
    groups: Vec<PathBuf>,
}

impl ThawGuard for Guard {
    fn finish(self: Box<Self>) -> Result<bool, ActError> {
        let world = self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(world.guard_fires)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut world = self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        world.frozen.retain(|group| !self.groups.contains(group));
    }
}

struct Raised(Arc<Mutex<HashMap<ThreadId, usize>>>);

impl Shield for Raised {}

impl Drop for Raised {
    fn drop(&mut self) {
        let us = std::thread::current().id();
        *self.0.lock().unwrap().get_mut(&us).expect("whoever raised it takes it down") -= 1;
    }
}

impl FakeHost {
    /// A machine as it is in this world.
    pub fn over(world: World) -> Self {
        Self {
            world: Arc::new(Mutex::new(world)),
            shields: Arc::default(),
            holders: Arc::default(),
            chronicle: Arc::default(),
            shared: Arc::default(),
            drops: Arc::default(),
            on_lock: Arc::default(),
        }
    }

    fn tell(&self, lock: &Path, taken: bool) {
        if let Some(told) = self.on_lock.lock().unwrap().as_mut() {
            told(lock, taken);
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sets what goes wrong, counted from now on; the signal of an earlier run is forgotten.
    pub fn arm(&self, fault: Fault) {
        let mut world = self.world();
        world.effects.clear();
        world.fault = Some(fault);
        world.signal = None;
        world.died = None;
        world.locks.clear();
        self.holders.lock().unwrap().clear();
        world.asked.clear();
    }

    /// No other thread of ours goes on when one has died by a fault.
    pub(super) fn alive(&self) {
        if self.world().died.is_some_and(|died| died != std::thread::current().id()) {
            std::panic::panic_any(PowerCut)
        }
    }

    /// Counts an effect and carries it out, or not. `None`: it is to fail.
    pub(super) fn effect<T>(&self, what: String, work: impl FnOnce(&mut World) -> T) -> Option<T> {
        self.effect_in_parts(what, work, |_, _| panic!("nothing comes between the parts of this"))
    }

    /// The same for something that can be left half done.
    fn effect_in_parts<T>(
        &self,
        what: String,
        work: impl FnOnce(&mut World) -> T,
        half: impl FnOnce(&mut World, Stage),
    ) -> Option<T> {
        self.alive();
        let mut world = self.world();
        let number = world.effects.len();
        world.effects.push(what);
        let mut dies = true;
        let done = match world.fault {
            Some(Fault::Fail(n)) if n == number => return None,
            Some(Fault::CutBefore(n) | Fault::KillBefore(n)) if n == number => None,
            Some(Fault::CutAfter(n) | Fault::KillAfter(n)) if n == number => {
                work(&mut world);
                None
            }
            Some(Fault::CutInside(n, stage) | Fault::KillInside(n, stage)) if n == number => {
                half(&mut world, stage);
                None
            }
            Some(Fault::Signal(n)) if n == number => {
                dies = false;
                world.signal = Some(15);
                Some(work(&mut world))
            }
            _ => {
                dies = false;
                Some(work(&mut world))
            }
        };
        if dies {
            if matches!(
                world.fault,
                Some(Fault::CutBefore(_) | Fault::CutAfter(_) | Fault::CutInside(..))
            ) {
                world.reboot();
            }
            world.died = Some(std::thread::current().id());
            drop(world);
            std::panic::panic_any(PowerCut)
        }
        drop(world);
        self.note();
        done
    }

    /// How often something took what was sent for several.
    pub fn taken(&self) -> usize {
        self.shared.lock().unwrap().len()
    }

    /// The sender that is shared by what takes what is shared, if that is; anything else is what it is.
    fn sender_of(&self, first: &CommandSpec) -> Result<Option<CommandSpec>, RunError> {
        let Input::Pipe(end) = &first.input else { return Ok(Some(first.clone())) };
        let end = end_of_child(end);
        for _ in 0..60_000 {
            self.alive();
            self.refuse_when_stopped(first)?;
            if let Some(reason) = first.view.halt.reason() {
                let reason = reason.to_owned();
                return Err(RunError::Halted { command: first.display(), reason });
            }
            let shared = self.shared.lock().unwrap();
            if let Some((_, send)) = shared.iter().find(|(to, _)| pipe_of(to) == pipe_of(&end)) {
                return Ok(send.clone());
            }
            drop(shared);
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nobody shares what {} takes", first.display())
    }

    /// Has the chronicle hold this moment.
    fn note(&self) {
        if let Some(chronicle) = &mut *self.chronicle.lock().unwrap() {
            chronicle.note(&self.world());
        }
    }

    /// The signal that stops children now.
    fn stopping(&self) -> Option<i32> {
        let shields = self.shields.lock().unwrap();
        let times = shields.get(&std::thread::current().id()).copied().unwrap_or_default();
        self.world().signal.filter(|_| times == 0)
    }

    /// What is asked to stop begins nothing, and does not tell how it ended.
    pub(super) fn refuse_when_stopped(&self, spec: &CommandSpec) -> Result<(), RunError> {
        match self.stopping() {
            Some(signal) => Err(RunError::Interrupted { command: spec.display(), signal }),
            None => Ok(()),
        }
    }

    /// borg serves a copy until a person unmounts it, who does so as soon as it is said to be there.
    fn serve(&self, spec: &CommandSpec) -> Result<Completed, RunError> {
        let at = PathBuf::from(spec.args.last().unwrap());
        let mounted = self.effect(spec.display(), |world| world.serve(&at));
        self.refuse_when_stopped(spec)?;
        if mounted.is_none() {
            return Ok(Completed::ended(Exit::Code(2)));
        }
        for _ in 0..1_000 {
            if self.world().is_told {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(self.world().is_told, "nobody said that it is there");
        // If that fails, the engine is killed.
        let left = self.effect("a person unmounts it".into(), |world| world.unmount(&at));
        self.refuse_when_stopped(spec)?;
        Ok(Completed::ended(if left.is_some() { Exit::Code(0) } else { Exit::Signal(9) }))
    }

    /// borg reads until the watch stops it; it is given half a minute.
    fn read_forever(&self, spec: &CommandSpec) -> RunError {
        for _ in 0..3_000 {
            if let Some(reason) = spec.view.halt.reason() {
                let reason = reason.to_owned();
                return RunError::Halted { command: spec.display(), reason };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nobody stopped {}", spec.display())
    }

    /// What is done to subvolumes.
    fn act_on_subvolume(
        &self,
        action: &SubvolumeAction,
        summary: String,
    ) -> Result<Option<Identity>, ActError> {
        match action {
            SubvolumeAction::MakeSnapshot { device, origin, path, name } => {
                let made = self.effect(summary, |world| world.btrfs.make(device, origin, name));
                let uuid = made
                    .ok_or_else(|| failed(path))?
                    .map_err(refused("make a snapshot of", path))?;
                Ok(Some(Identity::Subvolume { uuid }))
            }
            SubvolumeAction::DeleteSnapshot { device, name, found } => {
                let at = name.to_str().unwrap();
                let done = self.effect(summary, |world| world.btrfs.delete(device, found, at));
                if_it_was_that(done, name)
            }
            SubvolumeAction::DeleteWhole { path, found, .. } => {
                let done = self.effect(summary, |world| world.tree.delete_whole(path, found));
                if_it_was_that(done, path)
            }
            SubvolumeAction::CommitDeletions { device, file_system } => {
                assert_eq!(file_system.as_deref(), Some(fake_btrfs::FILE_SYSTEM));
                let done = self.effect(summary, |world| {
                    world.btrfs.commit(device);
                    world.tree.commit();
                    true
                });
                if_it_was_that(done, device)
            }
            SubvolumeAction::RenameSubvolume { path, name, found } => {
                let done = self.effect(summary, |world| world.pool.rename(path, found, name));
                if_it_was_that(done, path)
            }
            SubvolumeAction::DeleteSubvolume { path, found } => {
                let done = self.effect(summary, |world| match FakeTree::from_top(path) {
                    Some(path) => world.tree.delete(&path, found),
                    None => Ok(world.pool.delete(path, found) || world.store.delete(path, found)),
                });
                if_it_was_that(done.transpose().map_err(refused("delete", path))?, path)
            }
            SubvolumeAction::MakeWritable { path, found, at } => {
                let made = self.effect(summary, |world| world.tree.make_writable(path, found, at));
                let made = made
                    .ok_or_else(|| failed(path))?
                    .map_err(refused("make a snapshot of", path))?;
                let uuid = made.ok_or_else(|| ActError::NotOurs { path: path.clone() })?;
                Ok(Some(Identity::Subvolume { uuid }))
            }
            SubvolumeAction::MoveSubvolume { from, found, to, .. } => {
                let done = self.effect(summary, |world| world.tree.relocate(from, found, to));
                if_it_was_that(done, from)
            }
            SubvolumeAction::ExchangeSubvolumes { one, other, .. } => {
                let done = self.effect(summary, |world| world.tree.exchange(one, other));
                if_it_was_that(done, &one.path)
            }
        }
    }
}

fn failed(path: &Path) -> ActError {
    refused("change", path)(std::io::Error::other("injected"))
}

fn refused(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ActError {
    let path = path.to_owned();
    move |source| ActError::Io { what, path, source }
}

/// What an effect says of what was found at a path: whether it was still that, or that it failed.
fn if_it_was_that(done: Option<bool>, path: &Path) -> Result<Option<Identity>, ActError> {
    match done {
        None => Err(failed(path)),
        Some(true) => Ok(None),
        Some(false) => Err(ActError::NotOurs { path: path.to_owned() }),
    }
}

/// Whether nothing is at a path of which some part of the machine knows what is there.
fn is_missing(world: &World, path: &Path) -> bool {
    let is_of_pool = FakePool::is_own(path) && world.pool.file(path).is_none();
    let is_called_like_a_copy =
        path.file_name().is_some_and(|name| name.to_string_lossy().contains('@'));
    let is_no_copy = FakePool::holds(path)
        && !FakePool::is_own(path)
        && is_called_like_a_copy
        && !world.pool.subvolumes.keys().any(|there| there.starts_with(path));
    let is_of_store = FakeStore::holds(path)
        && path != Path::new(fake_store::LOCATION)
        && world.store.file(path).is_none();
    // In what is put together in a staging directory there is nothing but what was put there.
    let in_made = path.ancestors().skip(1).any(|above| above.ends_with("made"));
    let is_put_there = world.tree.taken.as_ref().is_some_and(|name| path.ends_with(name))
        || FakeTree::from_top(path).is_some_and(|it| world.tree.nodes.contains_key(&it));
    let in_staging = FakeStore::is_scratch(path) && path.to_str().unwrap().contains(".stillpoint-");
    let is_unpacked = world.staging.contains_key(path)
        || world.store.received.keys().any(|it| path.starts_with(it));
    let is_away = world.unmounted.iter().any(|at| path != at && path.starts_with(at));
    path.starts_with("/missing")
        || path.ends_with("missing")
        || is_of_pool
        || is_no_copy
        || is_of_store
        || in_made && !is_put_there
        || in_staging && !is_unpacked
        || is_away
}

/// Whether something is, or lies in, a directory of ours that goes again.
fn is_staging(path: &Path) -> bool {
    path.to_str().unwrap().contains(".stillpoint-")
}

/// Linux takes no longer argument (`MAX_ARG_STRLEN`).
pub(super) fn assert_fits(spec: &CommandSpec) {
    let longest = spec.args.iter().map(|arg| arg.len() + 1).max().unwrap_or_default();
    assert!(longest <= 128 << 10, "an argument of {longest} bytes");
}

pub(super) fn completed(answer: Answer) -> Completed {
    Completed {
        stdout: answer.stdout,
        stderr_tail: answer.stderr.join("\n").into_bytes(),
        elapsed: match answer.stderr.iter().any(|line| line.contains(IN_VAIN)) {
            true => Duration::from_secs(30),
            false => Duration::ZERO,
        },
        ..Completed::ended(answer.exit)
    }
}

/// What comes of those who take what nobody shares any more.
fn torn(before: &[CommandSpec], last: &CommandSpec) -> Chained {
    let told = Answer { exit: Exit::Code(1), ..Answer::told(vec![TORN.to_owned()]) };
    let stopped = |spec: &CommandSpec| {
        // That is how it ends when it is asked to.
        let exit = if spec.tool.name() == "ssh" { Exit::Code(255) } else { Exit::Signal(15) };
        let answer = Answer { exit, ..Answer::good("") };
        Completed { dismissed: true, ..completed(answer) }
    };
    let others = before.iter().skip(1).map(stopped);
    let before = std::iter::once(completed(told)).chain(others).collect();
    Chained { before, last: stopped(last), bytes: Some(1) }
}

impl Host for FakeHost {
    fn run(&self, spec: &CommandSpec, watch: Watch<'_>) -> Result<Completed, RunError> {
        self.alive();
        let command = spec.display();
        if let Some(reason) = spec.view.halt.reason() {
            return Err(RunError::Halted { command, reason: reason.to_owned() });
        }
        self.refuse_when_stopped(spec)?;
        assert_fits(spec);
        let answer = if spec.effect == Effect::Inspect {
            carry_out(&mut self.world(), spec)
        } else {
            let is_reading = spec.tool.name() == "borg"
                && spec.args.iter().any(|arg| arg.as_encoded_bytes() == b"create");
            if is_reading {
                self.world().seen = spec.view.mounts.clone();
            }
            let meanwhile = self.world().while_reading.filter(|_| is_reading);
            if let Some(meanwhile) = meanwhile {
                meanwhile(&mut self.world());
            }
            if is_reading && self.world().reads_forever {
                return Err(self.read_forever(spec));
            }
            if spec.args.iter().any(|arg| arg == "mount") {
                return self.serve(spec);
            }
            let lock = lock_of(spec);
            self.world().engine_locks.extend(lock.clone());
            let answer = self.effect_in_parts(
                command.clone(),
                |world| carry_out(world, spec),
                |world, stage| world.lvm.half_create(spec, stage),
            );
            // Whoever dies here dies with its lock.
            self.world().engine_locks.retain(|held| Some(held) != lock.as_ref());
            self.note();
            // It was asked to stop; whether it was done by then, nobody knows.
            self.refuse_when_stopped(spec)?;
            answer.unwrap_or_else(|| injected(&spec.tool))
        };
        if spec.stdout == StdoutMode::Lines {
            for line in String::from_utf8_lossy(&answer.stdout).lines() {
                watch(Stream::Out, line.as_bytes());
            }
        }
        for line in &answer.stderr {
            watch(Stream::Err, line.as_bytes());
        }
        Ok(completed(answer))
    }

    /// One effect: what it does is done when the last one has seen the end.
    fn chain(
        &self,
        before: &[CommandSpec],
        last: &CommandSpec,
        watch: Watch<'_>,
    ) -> Result<Chained, RunError> {
        self.alive();
        let command = last.display();
        self.refuse_when_stopped(last)?;
        if last.args.first().is_some_and(|verb| verb == SHARE) {
            if self.drops.swap(false, Ordering::Relaxed) {
                let dropped = serde_json::to_string(&Dropped { dropped: 0 }).unwrap();
                watch(Stream::Err, dropped.as_bytes());
            }
            let is_shared = self.effect(command.clone(), |_| ()).is_some();
            // What comes of it is done by those who take it.
            let sender = is_shared.then(|| before[0].clone());
            let shared = last.passed.iter().map(|end| (end_of_child(end), sender.clone()));
            self.shared.lock().unwrap().extend(shared);
            self.refuse_when_stopped(last)?;
            let [sent, shared] = match is_shared {
                true => [Answer::good(""), Answer::good("")],
                false => {
                    [Answer { exit: Exit::Signal(13), ..Answer::good("") }, injected(&last.tool)]
                }
            };
            let before = vec![completed(sent)];
            return Ok(Chained { before, last: completed(shared), bytes: Some(1) });
        }
        let shared = before.first().map(|first| self.sender_of(first)).transpose()?;
        if shared == Some(None) {
            return Ok(torn(before, last));
        }
        let before: Vec<CommandSpec> =
            shared.flatten().into_iter().chain(before.iter().skip(1).cloned()).collect();
        let members: Vec<&CommandSpec> = before.iter().chain([last]).collect();
        members.iter().for_each(|spec| assert_fits(spec));
        let answers = self.effect(command.clone(), |world| carry_out_chain(world, &members));
        self.refuse_when_stopped(last)?;
        if answers.is_none() && FakeStore::takes(last) {
            self.world().store.tear(&members);
        }
        let is_parted = members.iter().any(|it| option(it, "--part-seed").is_some());
        let answers = answers.or_else(|| {
            let world = &mut *self.world();
            is_parted.then(|| receive_torn(world, &members))
        });
        let answers =
            answers.unwrap_or_else(|| members.iter().map(|spec| injected(&spec.tool)).collect());
        let told = answers.iter().take(before.len()).flat_map(|answer| answer.stderr.clone());
        for line in told.collect::<Vec<_>>() {
            watch(Stream::ProducerErr, line.as_bytes());
        }
        if let Some(reason) = members.iter().find_map(|spec| spec.view.halt.reason()) {
            return Err(RunError::Halted { command, reason: reason.to_owned() });
        }
        let mut ended: Vec<Completed> = answers.into_iter().map(completed).collect();
        let last = ended.pop().unwrap();
        for line in last.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            watch(Stream::Out, line);
        }
        for line in last.stderr_tail.split(|byte| *byte == b'\n') {
            watch(Stream::Err, line);
        }
        Ok(Chained { before: ended, last, bytes: Some(1) })
    }

    fn passes_pipes(&self) -> bool {
        true
    }

    fn hold(&self, specs: &[CommandSpec], end: HeldEnd) -> Result<Box<dyn Held + '_>, RunError> {
        self.alive();
        self.refuse_when_stopped(&specs[0])?;
        Ok(Box::new(FakeHeld::new(self, specs, end)))
    }

    fn hypervisor(&self) -> &dyn Hypervisor {
        self
    }

    fn act(&self, action: &Action) -> Result<Option<Identity>, ActError> {
        match action {
            // The session's own directories are made anew by every run; they are no acquisition.
            Action::EnsureDirectory { .. } | Action::StopProcess { .. } => Ok(None),
            Action::RemoveFile { path } => self
                .effect(format!("remove {}", path.display()), |world| {
                    world.engine_locks.remove(path);
                    world.pool.remove(path);
                    world.store.remove(path);
                    None
                })
                .ok_or_else(|| failed(path)),
            Action::CreateDirectory { path, .. } => {
                let made = self.effect(format!("create {}", path.display()), |world| {
                    world.inodes += 1;
                    let inode = world.inodes;
                    world.staging.insert(path.clone(), inode);
                    inode
                });
                let inode = made.ok_or_else(|| failed(path))?;
                Ok(Some(Identity::Directory { device: 1, inode, born: Some(inode) }))
            }
            Action::ReplaceFile { path, content, .. } => {
                self.effect(format!("replace {}", path.display()), |world| {
                    if FakePool::holds(path) {
                        world.pool.write(path, content);
                    } else if FakeStore::holds(path) {
                        world.store.write(path, content);
                    } else {
                        world.files.insert(path.clone(), content.clone());
                    }
                })
                .ok_or_else(|| failed(path))?;
                Ok(None)
            }
            Action::Subvolume(done) => self.act_on_subvolume(done, action.summary()),
            Action::FlushFileSystem { path } => {
                let flushed = self.effect(action.summary(), |world| {
                    if is_staging(path) {
                        world.tree.free = world.tree.left.take().or(world.tree.free);
                    }
                    if FakeTree::from_top(path).is_some() {
                        return world.tree.flush();
                    }
                    world.pool.flush();
                    world.store.flush();
                });
                flushed.ok_or_else(|| failed(path))?;
                Ok(None)
            }
            Action::Freeze { cgroup } => {
                let takes = self.world().freezing_takes;
                std::thread::sleep(takes);
                self.effect(format!("freeze {}", cgroup.display()), |world| {
                    world.frozen.insert(cgroup.clone())
                })
                .ok_or_else(|| failed(cgroup))?;
                Ok(Some(Identity::Inode { device: 2, inode: 1 }))
            }
            Action::Thaw { cgroup, .. } => {
                let was_frozen = self
                    .effect(format!("thaw {}", cgroup.display()), |world| {
                        world.frozen.remove(cgroup) && !world.guard_fires
                    })
                    .ok_or_else(|| failed(cgroup))?;
                Ok(was_frozen.then_some(Identity::Inode { device: 2, inode: 1 }))
            }
            Action::Remount { path, device, read_only } => {
                if *read_only && self.world().busy.remove(path) {
                    let source = std::io::ErrorKind::ResourceBusy.into();
                    return Err(ActError::Io { what: "remount", path: path.clone(), source });
                }
                self.effect(action.summary(), |world| {
                    let World { mounts, remounted, .. } = world;
                    let top = mounts.iter_mut().rfind(|mount| mount.at == *path);
                    if let Some(mount) = top.filter(|mount| mount.device == *device) {
                        mount.super_options = if *read_only { "ro" } else { "rw" }.into();
                        remounted.insert(path.clone());
                    }
                })
                .ok_or_else(|| failed(path))?;
                Ok(None)
            }
            Action::Show { path, found, at } => {
                let shown = self.effect(action.summary(), |world| {
                    let there = world.pool.at(path).or_else(|| world.tree.at(path));
                    let there = there.or_else(|| world.store.received.get(path).cloned());
                    let is_it = there.as_ref() == Some(found);
                    is_it.then(|| world.show(path, at))
                });
                let shown = shown.ok_or_else(|| failed(path))?;
                let (id, device) = shown.ok_or_else(|| ActError::NotOurs { path: path.clone() })?;
                Ok(Some(Identity::Mount { id, device }))
            }
            Action::Unmount { path, id, device, .. } => {
                let unmounted = self.effect(action.summary(), |world| {
                    let served = world.mounts.len();
                    world.mounts.retain(|mount| {
                        (mount.id, mount.device, &mount.at) != (*id, *device, path)
                    });
                    world.mounts.len() < served
                });
                let unmounted = unmounted.ok_or_else(|| failed(path))?;
                Ok(unmounted.then_some(Identity::Mount { id: *id, device: *device }))
            }
            Action::RemoveStaging { path, identity } => {
                let removed = self.effect(format!("remove {}", path.display()), |world| {
                    let Some(inode) = world.staging.get(path).copied() else { return true };
                    let is_empty = !world.store.received.keys().any(|it| it.starts_with(path));
                    let goes = match identity {
                        Some(Identity::Directory { inode: ours, .. }) => inode == *ours,
                        Some(_) => false,
                        // Made, but the record of its identity was cut off: it is still empty.
                        None => is_empty,
                    };
                    if goes {
                        world.staging.remove(path);
                        world.tree.remove_staging(path, inode);
                        world.store.remove_staging(path, inode);
                    }
                    goes
                });
                if_it_was_that(removed, path)
            }
        }
    }

    fn place(&self, placement: &Placement) -> Result<Placed, ActError> {
        let path = placement.destination.clone();
        self.effect(format!("place {}", path.shown()), |_| ()).ok_or_else(|| ActError::Io {
            what: "restore to",
            path,
            source: std::io::Error::other("injected"),
        })?;
        Ok(Placed { entries: 1, ..Placed::default() })
    }

    fn lock(
        &self,
        path: &Path,
        _: LockMode,
        _: Duration,
        _: &str,
    ) -> Result<Box<dyn LockGuard>, LockError> {
        self.world().asked.push(path.to_owned());
        let us = std::thread::current().id();
        loop {
            self.alive();
            let mut world = self.world();
            let mut holders = self.holders.lock().unwrap();
            if world.locks.insert(path.to_owned()) {
                holders.insert(path.to_owned(), us);
                break;
            }
            // Another thread of ours is waited for.
            if holders.get(path).is_none_or(|holder| *holder == us) {
                return Err(LockError::Busy { path: path.to_owned(), holder: None });
            }
            drop((world, holders));
            if let Some(signal) = self.stopping() {
                return Err(LockError::Interrupted { signal });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.tell(path, true);
        Ok(Box::new(HeldLock(self.clone(), path.to_owned())))
    }

    fn thaw_guard(&self, cgroups: &[PathBuf], _: Duration) -> Result<Box<dyn ThawGuard>, ActError> {
        self.effect("guard".into(), |_| ())
            .ok_or_else(|| ActError::Guard { reason: "injected".into() })?;
        Ok(Box::new(Guard { world: Arc::clone(&self.world), groups: cgroups.to_vec() }))
    }

    fn path_state(&self, path: &Path) -> Result<Option<PathState>, ActError> {
        self.alive();
        let world = self.world();
        if is_missing(&world, path) {
            return Ok(None);
        }
        if world.silent.as_ref().is_some_and(|silent| path.starts_with(silent)) {
            panic!("a look at {} never comes back", path.display());
        }
        let stored = world.store.file(path).map(Vec::len);
        let unpacked = world.staging.get(path).copied().filter(|_| is_staging(path));
        // The root of every btrfs subvolume has this inode.
        let is_root = world.btrfs.subvolumes.contains_key(path);
        // Everything else is something of its own.
        let own = path.as_os_str().as_encoded_bytes().iter();
        let own = own.fold(1 << 20, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(*byte));
        let inode = if is_root { 256 } else { own };
        let around = mount_of(&world.mounts, path);
        let mounted = around.map_or(1, |mount| u64::from(mount.device.0 * 1000 + mount.device.1));
        // Each subvolume has a device number of its own.
        let device = if is_root { own } else { mounted };
        Ok(Some(PathState {
            kind: if stored.is_some() { PathKind::File } else { PathKind::Directory },
            identity: match unpacked {
                Some(inode) => Identity::Inode { device: 1, inode },
                None => Identity::Inode { device, inode },
            },
            empty: path.starts_with("/empty"),
            size: stored.unwrap_or_default() as u64,
            uid: 0,
            gid: 0,
            mode: if FakePool::holds(path) || unpacked.is_some() { 0o700 } else { 0o755 },
        }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ActError> {
        let world = self.world();
        if world.store.unreadable.contains(path) {
            let source = std::io::Error::from_raw_os_error(5);
            return Err(ActError::Io { what: "read", path: path.to_owned(), source });
        }
        if let Some(content) = world
            .files
            .get(path)
            .or_else(|| world.pool.file(path))
            .or_else(|| world.store.file(path))
        {
            return Ok(content.clone());
        }
        let text = match path.to_str() {
            Some("/proc/devices") => {
                "Character devices:\n  1 mem\n\nBlock devices:\n  8 sd\n253 device-mapper\n".into()
            }
            Some("/proc/swaps") => {
                let lines = world
                    .swap_files
                    .iter()
                    .map(|path| format!("{}  file\t\t1048572\t0\t-2\n", path.display()));
                format!("Filename\t\tType\t\tSize\tUsed\tPriority\n{}", lines.collect::<String>())
            }
            Some("/sys/fs/btrfs/features/send_stream_version") => "1\n".into(),
            Some("/etc/fstab") => String::new(),
            Some("/etc/machine-id") => "0123456789abcdef0123456789abcdef\n".into(),
            Some("/sys/class/dmi/id/product_uuid") => {
                "01234567-89ab-cdef-0123-456789abcdef\n".into()
            }
            Some("/proc/sys/kernel/random/boot_id") => format!("boot-{}\n", world.boots),
            Some("/databases") => world.databases.join("\n"),
            Some("/repo/config") => "[repository]\nappend_only = 0\n".into(),
            _ => panic!("the fake host has no file {}", path.display()),
        };
        Ok(text.into_bytes())
    }

    fn is_mount_point(&self, path: &Path) -> Result<bool, ActError> {
        Ok(!path.starts_with("/unmounted") && !self.world().unmounted.contains(path))
    }

    fn mounts(&self) -> Result<Vec<MountEntry>, ActError> {
        Ok(self.world().mounts.clone())
    }

    fn subvolume(&self, root: &Path) -> Result<Option<Subvolume>, ActError> {
        self.alive();
        let world = self.world();
        let received = || world.store.received.get(root).cloned();
        if world.tree.read_only.as_deref() == Some(root) {
            return Ok(Some(Subvolume { read_only: true, ..Subvolume::default() }));
        }
        let found = world.btrfs.at(root).or_else(|| world.tree.at(root));
        Ok(found.or_else(|| world.pool.at(root)).or_else(received))
    }

    fn subvolume_on(&self, device: &Path, path: &Path) -> Result<Option<Subvolume>, ActError> {
        let world = self.world();
        Ok(world.tree.find(path).or_else(|| world.btrfs.find(device, path.to_str().unwrap())))
    }

    fn subvolumes_on(&self, device: &Path) -> Result<Vec<(PathBuf, Subvolume)>, ActError> {
        Ok(self.world().btrfs.all(device))
    }

    fn btrfs_on(&self, device: &Path) -> Result<Option<String>, ActError> {
        let is_it = device == Path::new(fake_btrfs::DEVICE);
        Ok(is_it.then(|| fake_btrfs::FILE_SYSTEM.to_owned()))
    }

    fn without_a_place(&self, view: &PrivateView) -> Result<Vec<PathBuf>, ActError> {
        let misplaced = self.world().btrfs.misplaced.clone();
        let is_shown = |at: &PathBuf| view.mounts.iter().any(|mount| mount.at() == at);
        Ok(misplaced.into_iter().filter(is_shown).collect())
    }

    fn nested_subvolumes(&self, root: &Path) -> Result<Vec<PathBuf>, ActError> {
        let world = self.world();
        if FakePool::holds(root) {
            return Ok(world.pool.nested());
        }
        if FakeStore::is_scratch(root) {
            let nested = world.store.received.keys().filter(|path| path.starts_with(root));
            return Ok(nested.cloned().collect());
        }
        if world.staging.contains_key(root) {
            return Ok(world.tree.nested(root));
        }
        let mut nested = world.btrfs.nested.get(root).cloned().unwrap_or_default();
        nested.extend(world.tree.nested(root).into_iter().filter(|path| is_staging(path)));
        Ok(nested)
    }

    fn received_as(&self, directory: &Path, uuid: [u8; 16]) -> Result<usize, ActError> {
        assert!(FakePool::holds(directory), "{directory:?} holds no copies");
        Ok(self.world().pool.received_as(&uuid_text(uuid)))
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn find_program(&self, tool: &Tool) -> Result<PathBuf, RunError> {
        Ok(PathBuf::from("/usr/bin").join(tool.name()))
    }

    fn free_space(&self, path: &Path) -> Result<u64, ActError> {
        let world = self.world();
        if FakePool::holds(path) {
            return Ok(world.pool.free());
        }
        if let Some(free) = world.tree.free.filter(|_| is_staging(path)) {
            return Ok(free);
        }
        if world.btrfs.subvolumes.contains_key(path) {
            return Ok(world.btrfs.free());
        }
        Ok(world.state_disk.map_or(1 << 40, |(bytes, _)| bytes))
    }

    fn total_space(&self, _: &Path) -> Result<u64, ActError> {
        Ok(1000)
    }

    fn free_files(&self, _: &Path) -> Result<Option<u64>, ActError> {
        Ok(self.world().state_disk.and_then(|(_, files)| files))
    }

    fn names_in(&self, directory: &Path) -> Result<Option<Vec<OsString>>, ActError> {
        if FakePool::holds(directory) {
            return Ok(Some(self.world().pool.names_in(directory)));
        }
        if FakeStore::holds(directory) {
            return Ok(Some(self.world().store.names()));
        }
        if directory != Path::new(LOCKED) {
            return Ok(None);
        }
        let world = self.world();
        let names = world.engine_locks.iter().filter_map(|path| path.file_name());
        Ok(Some(names.map(ToOwned::to_owned).collect()))
    }

    fn try_room(&self, _: &Path) -> Result<(), ActError> {
        Ok(())
    }

    fn is_read_only(&self, path: &Path) -> Result<bool, ActError> {
        let world = self.world();
        let around = mount_of(&world.mounts, path);
        Ok(around.is_some_and(MountEntry::is_frozen_read_only))
    }

    fn check_trusted(&self, _: &Path, _: TrustKind) -> Result<(), TrustError> {
        Ok(())
    }

    fn process(&self, _: i32) -> Result<Option<ChildProcess>, ActError> {
        Ok(None)
    }

    fn gives_host_names(&self) -> bool {
        true
    }

    fn environment(&self, _: &str) -> Option<OsString> {
        None
    }

    fn now(&self) -> DateTime<Utc> {
        let mut world = self.world();
        world.ticks += 1;
        Utc.with_ymd_and_hms(2026, 11, 21, 3, 0, 0).unwrap() + TimeDelta::seconds(world.ticks)
    }

    fn ahead_of_utc(&self, _: DateTime<Utc>) -> FixedOffset {
        Utc.fix()
    }

    fn pause(&self, span: Duration) {
        let shown = self.world().mounts.iter().find(|mount| mount.options == SHOWN).cloned();
        if let Some(shown) = shown.filter(|_| self.world().is_told) {
            // A person looks around in it, and is through.
            self.effect("a person unmounts it".into(), |world| world.unmount(&shown.at));
        }
        let mut world = self.world();
        world.waited += span;
        if let Some(meanwhile) = world.while_waiting {
            meanwhile(&mut world);
        }
    }

    fn random(&self) -> [u8; 4] {
        let mut world = self.world();
        world.draws += 1;
        world.draws.to_be_bytes()
    }

    fn stop_signal(&self) -> Option<i32> {
        self.world().signal
    }

    fn shield(&self) -> Box<dyn Shield + '_> {
        let us = std::thread::current().id();
        *self.shields.lock().unwrap().entry(us).or_default() += 1;
        Box::new(Raised(Arc::clone(&self.shields)))
    }

    fn record_children(&self, _: Option<Arc<dyn ChildRecorder>>) {}

    fn predicted(&self, _: &str) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn is_dry(&self) -> bool {
        false
    }
}
