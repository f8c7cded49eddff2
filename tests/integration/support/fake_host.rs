//! A [`Host`] in memory. What a power cut would destroy (locks, children, frozen groups) is lost with it; what
//! it would leave (directories, a stopped service, archives, snapshots) stays in the [`World`], which outlives
//! it. When only our process dies, the machine stays as it is: read-only remounts, suspended devices.
//!
//! Every effect counts, and the n-th can be made to fail, or be the last one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Offset, TimeDelta, TimeZone, Utc};
use stillpoint::host::{
    ActError, Action, Chained, ChildRecorder, CommandSpec, Completed, Effect, Exit, Host,
    Hypervisor, LockError, LockGuard, LockMode, MountEntry, PathKind, PathState, Placed, Placement,
    PrivateView, RunError, Shield, StdoutMode, Stream, Subvolume, ThawGuard, Tool, TrustError,
    TrustKind, Watch, mount_of,
};
use stillpoint::model::shown::Show;
use stillpoint::model::undo::{ChildProcess, Identity};

use super::fake_borg::Answer;
use super::fake_btrfs;
use super::fake_lvm::Stage;
use super::fake_pool::FakePool;
pub use super::world::{Fault, World};
use super::world::{LOCKED, carry_out, injected, lock_of};

/// Unwinds the stack as a power cut would end the process.
pub struct PowerCut;

/// A machine over a world.
#[derive(Clone)]
pub struct FakeHost {
    pub world: Arc<Mutex<World>>,
    /// How many shields keep a signal from stopping children.
    shields: Arc<AtomicUsize>,
    /// The directory of ledgers, and the world after each effect with how many lines they had by then.
    pub chronicle: Arc<Mutex<Option<Chronicle>>>,
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

struct Held(FakeHost, PathBuf);

impl LockGuard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.tell(&self.1, false);
        self.0.world().locks.remove(&self.1);
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

struct Raised(Arc<AtomicUsize>);

impl Shield for Raised {}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeHost {
    /// A machine as it is in this world.
    pub fn over(world: World) -> Self {
        Self {
            world: Arc::new(Mutex::new(world)),
            shields: Arc::default(),
            chronicle: Arc::default(),
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
        world.locks.clear();
        world.asked.clear();
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
            drop(world);
            std::panic::panic_any(PowerCut)
        }
        drop(world);
        self.note();
        done
    }

    /// Has the chronicle hold this moment.
    fn note(&self) {
        if let Some(chronicle) = &mut *self.chronicle.lock().unwrap() {
            chronicle.note(&self.world());
        }
    }

    /// The signal that stops children now.
    fn stopping(&self) -> Option<i32> {
        self.world().signal.filter(|_| self.shields.load(Ordering::SeqCst) == 0)
    }

    /// borg serves a copy until a person unmounts it, who does so as soon as it is said to be there.
    fn serve(&self, spec: &CommandSpec) -> Result<Completed, RunError> {
        let (command, at) = (spec.display(), PathBuf::from(spec.args.last().unwrap()));
        let ended = |exit| Completed {
            is_predicted: false,
            exit,
            stdout: Vec::new(),
            stderr_tail: Vec::new(),
            elapsed: Duration::ZERO,
        };
        let mounted = self.effect(command.clone(), |world| world.serve(&at));
        if let Some(signal) = self.stopping() {
            return Err(RunError::Interrupted { command, signal });
        }
        if mounted.is_none() {
            return Ok(ended(Exit::Code(2)));
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
        if let Some(signal) = self.stopping() {
            return Err(RunError::Interrupted { command, signal });
        }
        Ok(ended(if left.is_some() { Exit::Code(0) } else { Exit::Signal(9) }))
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
}

fn completed(answer: Answer) -> Completed {
    Completed {
        is_predicted: false,
        exit: answer.exit,
        stdout: answer.stdout.into_bytes(),
        stderr_tail: answer.stderr.join("\n").into_bytes(),
        elapsed: Duration::ZERO,
    }
}

impl Host for FakeHost {
    fn run(&self, spec: &CommandSpec, watch: Watch<'_>) -> Result<Completed, RunError> {
        let command = spec.display();
        if let Some(reason) = spec.view.halt.reason() {
            return Err(RunError::Halted { command, reason: reason.to_owned() });
        }
        if let Some(signal) = self.stopping() {
            return Err(RunError::Interrupted { command, signal });
        }
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
            if let Some(signal) = self.stopping() {
                return Err(RunError::Interrupted { command, signal });
            }
            answer.unwrap_or_else(|| injected(&spec.tool))
        };
        if spec.stdout == StdoutMode::Lines {
            for line in answer.stdout.lines() {
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
        let command = last.display();
        if let Some(signal) = self.stopping() {
            return Err(RunError::Interrupted { command, signal });
        }
        let members = || before.iter().chain([last]);
        let answers = self.effect(command.clone(), |world| {
            if last.args.first().is_some_and(|verb| verb == "receive") {
                let World { pool, btrfs, .. } = world;
                return pool.receive(btrfs, &members().collect::<Vec<_>>());
            }
            members().map(|spec| carry_out(world, spec)).collect::<Vec<_>>()
        });
        if let Some(signal) = self.stopping() {
            return Err(RunError::Interrupted { command, signal });
        }
        let answers =
            answers.unwrap_or_else(|| members().map(|spec| injected(&spec.tool)).collect());
        let mut ended: Vec<Completed> = answers.into_iter().map(completed).collect();
        let last = ended.pop().unwrap();
        for line in last.stderr_tail.split(|byte| *byte == b'\n') {
            watch(Stream::Err, line);
        }
        Ok(Chained { before: ended, last, bytes: Some(1) })
    }

    fn hypervisor(&self) -> &dyn Hypervisor {
        self
    }

    fn act(&self, action: &Action) -> Result<Option<Identity>, ActError> {
        let failed = |path: &Path| ActError::Io {
            what: "change",
            path: path.to_owned(),
            source: std::io::Error::other("injected"),
        };
        match action {
            // The session's own directories are made anew by every run; they are no acquisition.
            Action::EnsureDirectory { .. } | Action::StopProcess { .. } => Ok(None),
            Action::RemoveFile { path } => self
                .effect(format!("remove {}", path.display()), |world| {
                    world.engine_locks.remove(path);
                    world.pool.remove(path);
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
                Ok(Some(Identity::Inode { device: 1, inode }))
            }
            Action::ReplaceFile { path, content, .. } => {
                self.effect(format!("replace {}", path.display()), |world| {
                    if FakePool::holds(path) {
                        world.pool.write(path, content);
                    } else {
                        world.files.insert(path.clone(), content.clone());
                    }
                })
                .ok_or_else(|| failed(path))?;
                Ok(None)
            }
            Action::MakeSnapshot { device, origin, path, name } => {
                let made = self
                    .effect(action.summary(), |world| world.btrfs.make(device, origin, name))
                    .ok_or_else(|| failed(path))?;
                let uuid = made.map_err(|source| ActError::Io {
                    what: "make a snapshot of",
                    path: path.clone(),
                    source,
                })?;
                Ok(Some(Identity::Subvolume { uuid }))
            }
            Action::DeleteSnapshot { device, name, found } => {
                let deleted = self
                    .effect(action.summary(), |world| world.btrfs.delete(device, found, name))
                    .ok_or_else(|| failed(Path::new(name)))?;
                if deleted { Ok(None) } else { Err(ActError::NotOurs { path: name.into() }) }
            }
            Action::CommitDeletions { device, file_system } => {
                assert_eq!(file_system.as_deref(), Some(fake_btrfs::FILE_SYSTEM));
                self.effect(action.summary(), |world| world.btrfs.commit(device))
                    .ok_or_else(|| failed(device))?;
                Ok(None)
            }
            Action::FlushFileSystem { path } => {
                self.effect(action.summary(), |world| world.pool.flush())
                    .ok_or_else(|| failed(path))?;
                Ok(None)
            }
            Action::RenameSubvolume { path, name, found } => {
                let renamed = self
                    .effect(action.summary(), |world| world.pool.rename(path, found, name))
                    .ok_or_else(|| failed(path))?;
                if renamed { Ok(None) } else { Err(ActError::NotOurs { path: path.clone() }) }
            }
            Action::DeleteSubvolume { path, found } => {
                let deleted = self
                    .effect(action.summary(), |world| world.pool.delete(path, found))
                    .ok_or_else(|| failed(path))?;
                if deleted { Ok(None) } else { Err(ActError::NotOurs { path: path.clone() }) }
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
            Action::Unmount { path, id, device } => {
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
                    let found = world.staging.get(path).copied();
                    match (found, identity) {
                        (None, _) => true,
                        (Some(inode), Some(Identity::Inode { inode: ours, .. }))
                            if inode == *ours =>
                        {
                            world.staging.remove(path);
                            true
                        }
                        // Made, but the record of its identity was cut off: it is still empty.
                        (Some(_), None) => {
                            world.staging.remove(path);
                            true
                        }
                        (Some(_), Some(_)) => false,
                    }
                });
                match removed {
                    None => Err(failed(path)),
                    Some(true) => Ok(None),
                    Some(false) => Err(ActError::NotOurs { path: path.clone() }),
                }
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
        if !self.world().locks.insert(path.to_owned()) {
            return Err(LockError::Busy { path: path.to_owned(), holder: None });
        }
        self.tell(path, true);
        Ok(Box::new(Held(self.clone(), path.to_owned())))
    }

    fn thaw_guard(&self, cgroups: &[PathBuf], _: Duration) -> Result<Box<dyn ThawGuard>, ActError> {
        self.effect("guard".into(), |_| ())
            .ok_or_else(|| ActError::Guard { reason: "injected".into() })?;
        Ok(Box::new(Guard { world: Arc::clone(&self.world), groups: cgroups.to_vec() }))
    }

    fn path_state(&self, path: &Path) -> Result<Option<PathState>, ActError> {
        if path.starts_with("/missing") {
            return Ok(None);
        }
        let world = self.world();
        if path.starts_with(FakePool::own()) && world.pool.file(path).is_none() {
            return Ok(None);
        }
        if world.silent.as_ref().is_some_and(|silent| path.starts_with(silent)) {
            panic!("a look at {} never comes back", path.display());
        }
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
            kind: PathKind::Directory,
            identity: Identity::Inode { device, inode },
            empty: path.starts_with("/empty"),
            size: 0,
            uid: 0,
            gid: 0,
            mode: if FakePool::holds(path) { 0o700 } else { 0o755 },
        }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ActError> {
        let world = self.world();
        if let Some(content) = world.files.get(path).or_else(|| world.pool.file(path)) {
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
        Ok(!path.starts_with("/unmounted"))
    }

    fn mounts(&self) -> Result<Vec<MountEntry>, ActError> {
        Ok(self.world().mounts.clone())
    }

    fn subvolume(&self, root: &Path) -> Result<Option<Subvolume>, ActError> {
        let world = self.world();
        Ok(world.btrfs.at(root).or_else(|| world.pool.at(root)))
    }

    fn subvolume_on(&self, device: &Path, name: &str) -> Result<Option<Subvolume>, ActError> {
        Ok(self.world().btrfs.find(device, name))
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
        Ok(world.btrfs.nested.get(root).cloned().unwrap_or_default())
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn find_program(&self, tool: &Tool) -> Result<PathBuf, RunError> {
        Ok(PathBuf::from("/usr/bin").join(tool.name()))
    }

    fn free_space(&self, _: &Path) -> Result<u64, ActError> {
        Ok(self.world().state_disk.map_or(1 << 40, |(bytes, _)| bytes))
    }

    fn free_files(&self, _: &Path) -> Result<Option<u64>, ActError> {
        Ok(self.world().state_disk.and_then(|(_, files)| files))
    }

    fn names_in(&self, directory: &Path) -> Result<Option<Vec<OsString>>, ActError> {
        if FakePool::holds(directory) {
            return Ok(Some(self.world().pool.names_in(directory)));
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
        self.shields.fetch_add(1, Ordering::SeqCst);
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
