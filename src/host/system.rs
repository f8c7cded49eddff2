//! The real machine: processes by the runner, everything else by the file system and `/proc`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Offset, Utc};

use super::runner::{self, Runner};
use super::sys::received::Watched;
use super::sys::signals::{self, StopFlag};
use super::sys::{
    cgroup, confine, identity_of, mounts, place, private, process, room, snapshots, straight,
    subvolumes, trusted, way, zone,
};
use super::{
    ActError, Action, Chained, ChildRecorder, CommandSpec, Completed, Held, HeldEnd, Host,
    Hypervisor, LockError, LockGuard, LockMode, MountEntry, NoHypervisor, PathKind, PathState,
    Placed, Placement, PrivateView, RunError, Shield, Subvolume, ThawGuard, Tool, TrustError,
    TrustKind, Watch, Way, WriteWatch,
};
use crate::lock;
use crate::model::shown::Show;
use crate::model::undo::{ChildProcess, Identity};

mod actions;

/// The machine we run on.
pub struct SystemHost {
    runner: Runner,
    /// What is started as a thaw guard.
    guard_program: PathBuf,
    hypervisor: Box<dyn Hypervisor + Send + Sync>,
    watched: Watched,
    /// Read once: what a run decides twice, it decides alike.
    zone: OnceLock<tz::TimeZone>,
}

impl SystemHost {
    /// The machine. From now on SIGINT, SIGQUIT, SIGTERM and SIGHUP no longer end the process: children are stopped
    /// and the caller unwinds.
    ///
    /// # Errors
    /// When `/proc` is not mounted, or the signal handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        process::require_proc()?;
        Ok(Self::stopped_by(signals::listen()?))
    }

    /// The machine, stopping its children when the flag is raised, by whomever.
    pub fn stopped_by(stop: Arc<StopFlag>) -> Self {
        // The kernel's own link to this very program, also when its file has been replaced meanwhile.
        Self {
            runner: Runner::new(stop),
            guard_program: "/proc/self/exe".into(),
            hypervisor: Box::new(NoHypervisor),
            watched: Watched::default(),
            zone: OnceLock::new(),
        }
    }

    /// The same with a hypervisor. Without one, every call to it says that this build has none.
    #[must_use]
    pub fn with_hypervisor(self, hypervisor: Box<dyn Hypervisor + Send + Sync>) -> Self {
        Self { hypervisor, ..self }
    }

    /// The same with another program as its thaw guard: the caller may not be Stillpoint itself.
    #[must_use]
    pub fn with_guard_program(self, program: PathBuf) -> Self {
        Self { guard_program: program, ..self }
    }
}

/// What there is of a path.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"))
}

impl LockGuard for lock::Lock {}

impl Host for SystemHost {
    fn run(&self, spec: &CommandSpec, watch: Watch<'_>) -> Result<Completed, RunError> {
        self.runner.run(spec, watch)
    }

    fn chain(
        &self,
        before: &[CommandSpec],
        last: &CommandSpec,
        watch: Watch<'_>,
    ) -> Result<Chained, RunError> {
        self.runner.chain(before, last, watch)
    }

    fn passes_pipes(&self) -> bool {
        true
    }

    fn hold(&self, specs: &[CommandSpec], end: HeldEnd) -> Result<Box<dyn Held + '_>, RunError> {
        Ok(Box::new(self.runner.hold(specs, end)?))
    }

    fn hypervisor(&self) -> &dyn Hypervisor {
        &*self.hypervisor
    }

    fn act(&self, action: &Action) -> Result<Option<Identity>, ActError> {
        tracing::debug!(action = %action.summary(), "acting");
        actions::carry_out(action, &self.watched)
    }

    fn watch_writes(&self, directory: &Path) -> Result<Box<dyn WriteWatch + '_>, ActError> {
        let watch = self.watched.watch(directory).map_err(|source| ActError::Io {
            what: "open",
            path: directory.into(),
            source,
        })?;
        Ok(Box::new(watch))
    }

    fn place(&self, placement: &Placement) -> Result<Placed, ActError> {
        tracing::debug!(destination = %placement.destination.shown(), "moving into place");
        let placed = place::place(placement, &mut || match self.runner.stopping() {
            Some(_) => Err(io::ErrorKind::Interrupted.into()),
            None => Ok(()),
        });
        placed.map_err(|source| match self.runner.stopping() {
            Some(signal) if source.kind() == io::ErrorKind::Interrupted => {
                ActError::Interrupted { signal }
            }
            _ => ActError::Io { what: "restore to", path: placement.destination.clone(), source },
        })
    }

    fn may_confine(&self) -> bool {
        confine::is_allowed()
    }

    fn lock(
        &self,
        path: &Path,
        mode: LockMode,
        wait: Duration,
        holder: &str,
    ) -> Result<Box<dyn LockGuard>, LockError> {
        let lock = lock::acquire(path, mode, wait, holder, &|| self.runner.stopping())?;
        Ok(Box::new(lock))
    }

    fn thaw_guard(
        &self,
        cgroups: &[PathBuf],
        limit: Duration,
    ) -> Result<Box<dyn ThawGuard>, ActError> {
        tracing::debug!(groups = cgroups.len(), ?limit, "standing guard");
        // It would let go what somebody else has stopped. A group that cannot be looked at, it refuses itself.
        if let Some(cgroup) =
            cgroups.iter().find(|group| matches!(cgroup::stands_still(group), Ok(true)))
        {
            return Err(ActError::AlreadyFrozen { cgroup: cgroup.clone() });
        }
        runner::guard::start(&self.guard_program, cgroups, limit)
    }

    fn path_state(&self, path: &Path) -> Result<Option<PathState>, ActError> {
        let failed = |source| ActError::Io { what: "look at", path: path.to_owned(), source };
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if straight::is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let kind = if found.is_dir() {
            PathKind::Directory
        } else if found.is_file() {
            PathKind::File
        } else {
            PathKind::Other
        };
        let empty = kind == PathKind::Directory && is_empty(path).map_err(failed)?;
        Ok(Some(PathState {
            kind,
            identity: identity_of(&found),
            empty,
            size: found.len(),
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode() & 0o7777,
        }))
    }

    fn way_as_far(&self, path: &Path, may_look: &dyn Fn(&Path) -> bool) -> Result<Way, ActError> {
        way::way(path, may_look).map_err(|source| ActError::Io {
            what: "look at",
            path: path.to_owned(),
            source,
        })
    }

    fn names_in(&self, directory: &Path) -> Result<Option<Vec<OsString>>, ActError> {
        let failed = |source| ActError::Io { what: "list", path: directory.to_owned(), source };
        match fs::read_dir(directory) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.file_name()).map_err(failed))
                .collect::<Result<_, _>>()
                .map(Some),
            Err(error) if straight::is_absent(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ActError> {
        fs::read(path).map_err(|source| ActError::Io { what: "read", path: path.into(), source })
    }

    fn is_mount_point(&self, path: &Path) -> Result<bool, ActError> {
        mounts::is_mount_point(path).map_err(|source| ActError::Io {
            what: "look for a mount at",
            path: path.into(),
            source,
        })
    }

    fn mounts(&self) -> Result<Vec<MountEntry>, ActError> {
        mounts::mount_table().map_err(|source| ActError::Io {
            what: "read",
            path: "/proc/self/mountinfo".into(),
            source,
        })
    }

    fn subvolume(&self, root: &Path) -> Result<Option<Subvolume>, ActError> {
        subvolumes::at(root).map_err(|source| ActError::Io {
            what: "ask for the subvolume at",
            path: root.into(),
            source,
        })
    }

    fn subvolume_on(&self, device: &Path, path: &Path) -> Result<Option<Subvolume>, ActError> {
        snapshots::find(device, path).map_err(|source| ActError::Io {
            what: "look for a snapshot on",
            path: device.into(),
            source,
        })
    }

    fn subvolumes_on(&self, device: &Path) -> Result<Vec<(PathBuf, Subvolume)>, ActError> {
        snapshots::all(device).map_err(|source| ActError::Io {
            what: "list the subvolumes on",
            path: device.into(),
            source,
        })
    }

    fn without_a_place(&self, view: &PrivateView) -> Result<Vec<PathBuf>, ActError> {
        private::rehearse(view).map_err(|source| ActError::Io {
            what: "put together what an engine is to see in",
            path: view.workplace.clone(),
            source,
        })
    }

    fn btrfs_on(&self, device: &Path) -> Result<Option<String>, ActError> {
        subvolumes::file_system_on(device).map_err(|source| ActError::Io {
            what: "read",
            path: device.into(),
            source,
        })
    }

    fn nested_subvolumes(&self, above: &Path) -> Result<Vec<PathBuf>, ActError> {
        subvolumes::nested(above).map_err(|source| ActError::Io {
            what: "list the subvolumes in",
            path: above.into(),
            source,
        })
    }

    fn received_as(&self, directory: &Path, uuid: [u8; 16]) -> Result<usize, ActError> {
        subvolumes::received_as(directory, uuid).map_err(|source| ActError::Io {
            what: "look for what was received on the file system of",
            path: directory.into(),
            source,
        })
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        canonical(path)
    }

    fn find_program(&self, tool: &Tool) -> Result<PathBuf, RunError> {
        runner::find_program(tool)
    }

    fn free_space(&self, path: &Path) -> Result<u64, ActError> {
        mounts::free_space(existing(path)).map_err(|source| ActError::Io {
            what: "ask for the free space at",
            path: path.into(),
            source,
        })
    }

    fn total_space(&self, path: &Path) -> Result<u64, ActError> {
        mounts::total_space(existing(path)).map_err(|source| ActError::Io {
            what: "ask for the size of the file system at",
            path: path.into(),
            source,
        })
    }

    fn free_files(&self, path: &Path) -> Result<Option<u64>, ActError> {
        mounts::free_files(existing(path)).map_err(|source| ActError::Io {
            what: "ask for the free inodes at",
            path: path.into(),
            source,
        })
    }

    fn try_room(&self, directory: &Path) -> Result<(), ActError> {
        room::try_room(existing(directory)).map_err(|source| ActError::Io {
            what: "write below",
            path: directory.into(),
            source,
        })
    }

    fn is_read_only(&self, path: &Path) -> Result<bool, ActError> {
        mounts::is_read_only(existing(path)).map_err(|source| ActError::Io {
            what: "ask the file system of",
            path: path.into(),
            source,
        })
    }

    fn check_trusted(&self, path: &Path, kind: TrustKind) -> Result<(), TrustError> {
        trusted::check_trusted(path, kind).map(drop)
    }

    fn process(&self, pid: i32) -> Result<Option<ChildProcess>, ActError> {
        let failed =
            |source| ActError::Io { what: "look for a process in", path: "/proc".into(), source };
        match process::stat(pid).map_err(failed)? {
            Some(found) if found.is_alive() => process::identify(pid).map_err(failed),
            Some(_) | None => Ok(None),
        }
    }

    fn gives_host_names(&self) -> bool {
        runner::gives_host_names()
    }

    fn environment(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn ahead_of_utc(&self, at: DateTime<Utc>) -> FixedOffset {
        let zone = self.zone.get_or_init(|| zone::read(Path::new(zone::FILE)));
        let ahead = FixedOffset::east_opt(zone::ahead_of_utc(zone, at.timestamp()));
        ahead.unwrap_or_else(|| Utc.fix())
    }

    fn random(&self) -> [u8; 4] {
        let mut bytes = [0; 4];
        if getrandom::fill(&mut bytes).is_err() {
            // Only a run id depends on it, which must differ from others of the same second.
            bytes = (Utc::now().timestamp_subsec_nanos() ^ std::process::id()).to_be_bytes();
        }
        bytes
    }

    fn stop_signal(&self) -> Option<i32> {
        self.runner.stop_signal()
    }

    fn shield(&self) -> Box<dyn Shield + '_> {
        Box::new(self.runner.shield())
    }

    fn record_children(&self, recorder: Option<Arc<dyn ChildRecorder>>) {
        self.runner.record_children(recorder);
    }

    fn predicted(&self, _about: &str) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn is_dry(&self) -> bool {
        false
    }
}

/// Whether a directory has nothing in it, or only the `lost+found` that mkfs puts there.
fn is_empty(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != "lost+found" || !entry.file_type()?.is_dir() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The path with links and dots resolved as far as it exists; dots in the rest are resolved by their text,
/// since nothing there can be a link.
fn canonical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(whole) = absolute.canonicalize() {
        return whole;
    }
    let mut resolved = PathBuf::from("/");
    let mut exists = true;
    for component in absolute.components() {
        match component {
            std::path::Component::ParentDir => {
                resolved.pop();
            }
            std::path::Component::Normal(name) => {
                resolved.push(name);
                // A step is resolved at once, so that a `..` after it leaves what the link leads to.
                match resolved.canonicalize() {
                    Ok(path) if exists => resolved = path,
                    _ => exists = false,
                }
            }
            _ => {}
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> SystemHost {
        SystemHost::stopped_by(Arc::new(StopFlag::default()))
    }

    #[test]
    fn a_look_tells_absent_from_unreadable_and_empty_from_full() {
        let dir = tempfile::tempdir().unwrap();
        let host = host();
        let state = host.path_state(dir.path()).unwrap().unwrap();
        assert_eq!((state.kind, state.empty), (PathKind::Directory, true));
        let file = dir.path().join("file");
        fs::write(&file, "four").unwrap();
        assert!(!host.path_state(dir.path()).unwrap().unwrap().empty);
        let state = host.path_state(&file).unwrap().unwrap();
        assert_eq!((state.kind, state.size, state.empty), (PathKind::File, 4, false));
        assert_eq!(host.path_state(&dir.path().join("absent")).unwrap(), None);
        assert_eq!(host.path_state(&file.join("below")).unwrap(), None);
        assert_eq!(host.path_state(Path::new("/dev/null")).unwrap().unwrap().kind, PathKind::Other);
        let round = dir.path().join("round");
        std::os::unix::fs::symlink(&round, &round).unwrap();
        assert!(host.path_state(&round).is_err());
    }

    #[test]
    fn the_canonical_path_resolves_what_exists() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real/inner");
        fs::create_dir_all(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert_eq!(canonical(&dir.path().join("link/a/../b/./c")), real.join("b/c"));
        assert_eq!(canonical(&dir.path().join("link/..")), real.parent().unwrap());
        assert_eq!(canonical(Path::new("/no-such/../tmp-x")), Path::new("/tmp-x"));
        assert!(host().free_space(&real.join("not/yet")).unwrap() > 0);
    }

    #[test]
    fn a_shield_lets_locks_be_waited_for_after_a_signal() {
        let stop = Arc::new(StopFlag::default());
        let host = SystemHost::stopped_by(Arc::clone(&stop));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let take = || host.lock(&path, LockMode::Exclusive, Duration::ZERO, "us");
        stop.raise(15);
        assert!(matches!(take(), Err(LockError::Interrupted { signal: 15 })));
        let shield = host.shield();
        // It is that of one thread: what another job does is stopped.
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| take().err()).join().unwrap());
        assert!(matches!(elsewhere, Some(LockError::Interrupted { signal: 15 })));
        let held = take().unwrap();
        assert!(matches!(take(), Err(LockError::Busy { .. })));
        drop((held, shield));
        assert!(matches!(take(), Err(LockError::Interrupted { signal: 15 })));
        assert_eq!(host.stop_signal(), Some(15));
    }
}
