//! A [`Host`] in memory. What a power cut would destroy (locks, children) is lost with it; what it would
//! leave (directories, a stopped service, archives) stays in the [`World`], which outlives it.
//!
//! Every effect counts, and the n-th can be made to fail, or the power be cut just before or after it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use stillpoint::host::{
    ActError, Action, ChildRecorder, CommandSpec, Completed, Effect, Exit, Host, LockError,
    LockGuard, LockMode, MountEntry, PathKind, PathState, Piped, RunError, Shield, Stream,
    ThawGuard, Tool, Watch,
};
use stillpoint::model::undo::Identity;

use super::fake_borg::FakeBorg;

/// What happens at the n-th effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It fails and changes nothing.
    Fail(usize),
    /// The power is cut before it.
    CutBefore(usize),
    /// The power is cut after it.
    CutAfter(usize),
    /// SIGTERM arrives while it runs: a process is stopped, an action is completed.
    Signal(usize),
}

/// Unwinds the stack as a power cut would end the process.
pub struct PowerCut;

/// What stays when the power goes.
#[derive(Debug, Default)]
pub struct World {
    /// The repository.
    pub borg: FakeBorg,
    /// Directories below the cache directory, with their inode.
    pub staging: BTreeMap<PathBuf, u64>,
    /// Whether the service that the `before` hook stops is running.
    pub service_up: bool,
    /// How often hooks ran, by their first argument.
    pub hooks: Vec<String>,
    /// Effects so far.
    pub effects: Vec<String>,
    /// What is to go wrong.
    pub fault: Option<Fault>,
    /// Locks that are held, with how many holders.
    locks: BTreeSet<PathBuf>,
    /// What is mounted.
    pub mounts: Vec<MountEntry>,
    /// Control groups that are frozen. A boot makes them anew, so a power cut thaws them.
    pub frozen: BTreeSet<PathBuf>,
    /// Whether the guard's limit comes while it stands.
    pub guard_fires: bool,
    inodes: u64,
    ticks: i64,
    /// The signal that arrived.
    pub signal: Option<i32>,
    draws: u32,
}

/// A machine over a world.
#[derive(Clone)]
pub struct FakeHost {
    pub world: Arc<Mutex<World>>,
}

struct Held(Arc<Mutex<World>>, PathBuf);

impl LockGuard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        let mut world = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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

struct Open;

impl Shield for Open {}

impl FakeHost {
    /// A machine whose service runs and whose repository is empty.
    pub fn new() -> Self {
        let world = World {
            service_up: true,
            borg: FakeBorg { files: 100, ..FakeBorg::default() },
            ..World::default()
        };
        Self { world: Arc::new(Mutex::new(world)) }
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
    }

    /// Counts an effect and carries it out, or not. `None`: it is to fail.
    fn effect<T>(&self, what: String, work: impl FnOnce(&mut World) -> T) -> Option<T> {
        let mut world = self.world();
        let number = world.effects.len();
        world.effects.push(what);
        match world.fault {
            Some(Fault::Fail(n)) if n == number => None,
            Some(Fault::CutBefore(n)) if n == number => {
                world.frozen.clear();
                drop(world);
                std::panic::panic_any(PowerCut)
            }
            Some(Fault::CutAfter(n)) if n == number => {
                work(&mut world);
                world.frozen.clear();
                drop(world);
                std::panic::panic_any(PowerCut)
            }
            Some(Fault::Signal(n)) if n == number => {
                world.signal = Some(15);
                Some(work(&mut world))
            }
            _ => Some(work(&mut world)),
        }
    }
}

impl Host for FakeHost {
    fn run(&self, spec: &CommandSpec, watch: Watch<'_>) -> Result<Completed, RunError> {
        let name = spec.tool.name();
        let completed = |exit, stdout: String, stderr: String| Completed {
            exit,
            stdout: stdout.into_bytes(),
            stderr_tail: stderr.into_bytes(),
            elapsed: Duration::ZERO,
        };
        if name == "borg" {
            let answer = if spec.effect == Effect::Inspect {
                self.world().borg.answer(spec)
            } else {
                let before = self.world().signal;
                let answer = self.effect(spec.display(), |world| world.borg.answer(spec));
                if before.is_none() && self.world().signal.is_some() {
                    return Err(RunError::Interrupted { command: spec.display(), signal: 15 });
                }
                answer.unwrap_or_else(|| FakeBorg::failure("Error", "injected", 2))
            };
            for line in &answer.stderr {
                watch(Stream::Err, line.as_bytes());
            }
            return Ok(completed(answer.exit, answer.stdout, answer.stderr.join("\n")));
        }
        if name == "systemctl" {
            let unit = spec.args.last().unwrap().value().to_string_lossy().into_owned();
            let (state, group) = match unit.as_str() {
                "stopped.service" => ("loaded", String::new()),
                "typo.service" => ("not-found", String::new()),
                unit => ("loaded", format!("/system.slice/{unit}")),
            };
            let said = format!("LoadState={state}\nControlGroup={group}\n");
            return Ok(completed(Exit::Code(0), said, String::new()));
        }
        let word = spec.args.first().map(|arg| arg.value().to_string_lossy().into_owned());
        let word = word.unwrap_or_default();
        let done = self.effect(format!("{name} {word}"), |world| {
            world.hooks.push(word.clone());
            match word.as_str() {
                "stop" => world.service_up = false,
                "start" => world.service_up = true,
                _ => {}
            }
        });
        let exit = if done.is_some() { Exit::Code(0) } else { Exit::Code(1) };
        Ok(completed(exit, String::new(), String::new()))
    }

    fn pipe(&self, _: &CommandSpec, _: &CommandSpec, _: Watch<'_>) -> Result<Piped, RunError> {
        panic!("the fake host has no pipes")
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
            Action::ReplaceFile { path, .. } => {
                self.effect(format!("replace {}", path.display()), |_| ())
                    .ok_or_else(|| failed(path))?;
                Ok(None)
            }
            Action::Freeze { cgroup } => {
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
                self.effect(format!("remount {}", path.display()), |world| {
                    for mount in &mut world.mounts {
                        if mount.at == *path && mount.device == *device {
                            mount.super_options = if *read_only { "ro" } else { "rw" }.into();
                        }
                    }
                })
                .ok_or_else(|| failed(path))?;
                Ok(None)
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

    fn lock(
        &self,
        path: &Path,
        _: LockMode,
        _: Duration,
        _: &str,
    ) -> Result<Box<dyn LockGuard>, LockError> {
        if !self.world().locks.insert(path.to_owned()) {
            return Err(LockError::Busy { path: path.to_owned(), holder: None });
        }
        Ok(Box::new(Held(Arc::clone(&self.world), path.to_owned())))
    }

    fn thaw_guard(&self, cgroups: &[PathBuf], _: Duration) -> Result<Box<dyn ThawGuard>, ActError> {
        self.effect("guard".into(), |_| ())
            .ok_or_else(|| ActError::Guard { reason: "injected".into() })?;
        Ok(Box::new(Guard { world: Arc::clone(&self.world), groups: cgroups.to_vec() }))
    }

    fn look(&self, path: &Path) -> Result<Option<PathState>, ActError> {
        if path.starts_with("/missing") {
            return Ok(None);
        }
        Ok(Some(PathState {
            kind: PathKind::Directory,
            identity: Identity::Inode { device: 1, inode: 1 },
            empty: path.starts_with("/empty"),
            size: 0,
            uid: 0,
            gid: 0,
            mode: 0o755,
        }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ActError> {
        panic!("the fake host has no file {}", path.display())
    }

    fn is_mount_point(&self, path: &Path) -> Result<bool, ActError> {
        Ok(!path.starts_with("/unmounted"))
    }

    fn mounts(&self) -> Result<Vec<MountEntry>, ActError> {
        Ok(self.world().mounts.clone())
    }

    fn nested_subvolumes(&self, _: &Path) -> Result<Vec<PathBuf>, ActError> {
        Ok(Vec::new())
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn find_program(&self, tool: &Tool) -> Result<PathBuf, RunError> {
        Ok(PathBuf::from("/usr/bin").join(tool.name()))
    }

    fn free_space(&self, _: &Path) -> Result<u64, ActError> {
        Ok(1 << 40)
    }

    fn environment(&self, _: &str) -> Option<OsString> {
        None
    }

    fn now(&self) -> DateTime<Utc> {
        let mut world = self.world();
        world.ticks += 1;
        Utc.with_ymd_and_hms(2026, 11, 21, 3, 0, 0).unwrap() + TimeDelta::seconds(world.ticks)
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
        Box::new(Open)
    }

    fn record_children(&self, _: Option<Arc<dyn ChildRecorder>>) {}

    fn predicted(&self, _: &str) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn is_dry(&self) -> bool {
        false
    }
}
