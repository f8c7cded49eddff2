//! Mutations of the machine that are not processes, as values, and why one of them or a question failed.

use std::path::PathBuf;
use std::time::Duration;

use super::subvolume_action::SubvolumeAction;
use super::sys::subvolumes::Subvolume;
use crate::model::shown::Show;
use crate::model::undo::{ChildProcess, Identity};

/// A mutation of the machine that is not a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Makes a directory (parents must exist). Answers with its identity; an existing one is an error.
    CreateDirectory {
        /// The absolute path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// Makes a directory and its missing parents. An existing one is fine.
    EnsureDirectory {
        /// The absolute path.
        path: PathBuf,
        /// Permission bits of what has to be made.
        mode: u32,
    },
    /// Replaces a file by write, fsync, rename, fsync of the directory.
    ReplaceFile {
        /// The absolute path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// The whole new content.
        content: Vec<u8>,
    },
    /// Removes a directory of ours with what is in it, if its identity is still the recorded one and
    /// nothing is mounted in it. Never follows a link or crosses a mount.
    RemoveStaging {
        /// The absolute path.
        path: PathBuf,
        /// What it must be; `None` when the crash came between intent and record: then it must be empty.
        identity: Option<Identity>,
    },
    /// Removes a file whose name alone says what it is and whose: the lock of an engine. A link is removed, not
    /// followed; one that is gone already is fine.
    RemoveFile {
        /// The absolute path.
        path: PathBuf,
    },
    /// Changes whether a mounted file system, with all its mounts, can be written. It is the one of this
    /// device or none: with another one at that place, nothing is done.
    Remount {
        /// Where it is mounted.
        path: PathBuf,
        /// Its device: major, minor.
        device: (u32, u32),
        /// Whether it is to be read-only.
        read_only: bool,
    },
    /// Makes, moves or deletes a subvolume of btrfs.
    Subvolume(SubvolumeAction),
    /// Waits until everything that was written to a file system by now, by whomever, is on its disk, and asks whether
    /// anything of it was lost: a received subvolume looks whole long before its data is anywhere.
    FlushFileSystem {
        /// A directory in it.
        path: PathBuf,
    },
    /// Freezes a control group: all processes in it and below it stand still. Answers with its identity.
    Freeze {
        /// The group's directory.
        cgroup: PathBuf,
    },
    /// Lets a control group run on. Answers with its identity if it was frozen until now; one that is gone,
    /// or has another identity, is left alone.
    Thaw {
        /// The group's directory.
        cgroup: PathBuf,
        /// What it must be; `None` when the crash came between intent and record.
        identity: Option<Identity>,
    },
    /// Shows a subvolume at another place as well, read-only and without devices and set-user-id programs, if it is still
    /// the one that was looked at. Answers with the mount's identity.
    Show {
        /// Where it lies.
        path: PathBuf,
        /// What was found there.
        found: Subvolume,
        /// The directory at which it is shown.
        at: PathBuf,
    },
    /// Unmounts a FUSE mount that nobody serves any more, or a subvolume that was shown, whoever still uses it. Answers
    /// with its identity if that was done: one that is served is somebody else's, and so is one of another number,
    /// device or subvolume.
    Unmount {
        /// Where it is mounted.
        path: PathBuf,
        /// Its number in mountinfo.
        id: u32,
        /// Its device: major, minor.
        device: (u32, u32),
        /// The UUID of the subvolume that is shown there; `None` of a FUSE mount.
        subvolume: Option<String>,
    },
    /// Stops a child of a dead run, its process group and its session, also when the child itself has ended:
    /// SIGTERM, and SIGKILL after `grace`. A process whose start time or boot differs is somebody else's and is
    /// left alone, and so is one that outlived the child without its mark.
    StopProcess {
        /// The recorded process.
        child: ChildProcess,
        /// How long it may take to end by itself.
        grace: Duration,
    },
}

impl Action {
    /// What it does, in one line for a plan or a log; a file's content is not shown.
    pub fn summary(&self) -> String {
        match self {
            Action::CreateDirectory { path, mode } => {
                format!("create the directory {} (mode {mode:04o})", path.shown())
            }
            Action::EnsureDirectory { path, mode } => {
                format!("create the directory {} if it is missing (mode {mode:04o})", path.shown())
            }
            Action::ReplaceFile { path, mode, content } => {
                format!("write {} ({} bytes, mode {mode:04o})", path.shown(), content.len())
            }
            Action::RemoveStaging { path, .. } => {
                format!("remove the staging directory {}", path.shown())
            }
            Action::RemoveFile { path } => format!("remove the file {}", path.shown()),
            Action::Remount { path, read_only, .. } => format!(
                "make the file system at {} {}",
                path.shown(),
                if *read_only { "read-only" } else { "writable again" }
            ),
            Action::Subvolume(action) => action.summary(),
            Action::FlushFileSystem { path } => {
                format!("wait until the file system at {} is on its disk", path.shown())
            }
            Action::Freeze { cgroup } => {
                format!("freeze the processes in the control group {}", cgroup.shown())
            }
            Action::Thaw { cgroup, .. } => {
                format!("let the processes in the control group {} run on", cgroup.shown())
            }
            Action::Show { path, at, .. } => {
                format!("show {} at {}", path.shown(), at.shown())
            }
            Action::Unmount { path, subvolume: None, .. } => {
                format!("unmount {}, which nobody serves any more", path.shown())
            }
            Action::Unmount { path, subvolume: Some(_), .. } => format!("unmount {}", path.shown()),
            Action::StopProcess { child, .. } => format!("stop the process group {}", child.pid),
        }
    }
}

/// Why an [`Action`] or a question failed.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The operating system refused.
    #[error("cannot {what} {}", path.shown())]
    Io {
        /// The verb: `create`, `replace`, `remove`, `read`.
        what: &'static str,
        /// The object.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The object there is not the one that was recorded, so it was left alone.
    #[error("{} is not the one that this run made, so it is left alone", path.shown())]
    NotOurs {
        /// The object.
        path: PathBuf,
    },
    /// Something is mounted in it.
    #[error("something is mounted at {}, so it is not removed", path.shown())]
    Mounted {
        /// The mount point.
        path: PathBuf,
    },
    /// We were told to stop in the midst of it. What was done by then is done.
    #[error("stopped because signal {signal} arrived")]
    Interrupted {
        /// The signal.
        signal: i32,
    },
    /// A process did not end.
    #[error("process {pid} of a dead run does not end")]
    StillRunning {
        /// Its number.
        pid: i32,
    },
    /// A control group holds a process without which no capture comes to its end. Nothing was done.
    #[error("the control group {} holds {process} ({pid}), without which no capture can be made, so it is not frozen", cgroup.shown())]
    NeededAwake {
        /// The group.
        cgroup: PathBuf,
        /// The process's name.
        process: String,
        /// Its number.
        pid: i32,
    },
    /// A control group was frozen before, by somebody else. Nothing was done.
    #[error("the control group {} is frozen already, and not by this run", cgroup.shown())]
    AlreadyFrozen {
        /// The group.
        cgroup: PathBuf,
    },
    /// Not all processes of a control group stopped; it was let go again.
    #[error("the processes in {} did not all freeze within {}s, so they were let go again", cgroup.shown(), after.as_secs())]
    DoesNotFreeze {
        /// The group.
        cgroup: PathBuf,
        /// How long they had.
        after: Duration,
    },
    /// The processes of a control group were told to run on, and do not.
    #[error("the processes in {} were told to run on, and do not", cgroup.shown())]
    DoesNotThaw {
        /// The group.
        cgroup: PathBuf,
    },
    /// The guard over frozen processes does not stand by, or did not end as it should.
    #[error("the guard over frozen processes failed: {reason}")]
    Guard {
        /// What it said.
        reason: String,
    },
}

impl ActError {
    /// What to do about it, when there is something to say beyond the error itself.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ActError::NeededAwake { .. } => {
                Some("name only groups that hold the writers in freeze-units")
            }
            ActError::AlreadyFrozen { .. } => {
                Some("let it go first (systemctl thaw UNIT), or take it out of freeze-units")
            }
            ActError::DoesNotFreeze { .. } => Some(
                "one of them waits for a disk or a server (ps shows it in state D): see what it waits for",
            ),
            ActError::DoesNotThaw { .. } => {
                Some("a control group above it may be frozen: look for a 1 in its cgroup.freeze")
            }
            ActError::Io { .. } if self.is_of_space() => Some(
                "there is no space on that file system, or its quota is used up: free some there",
            ),
            ActError::Io { .. }
            | ActError::NotOurs { .. }
            | ActError::Mounted { .. }
            | ActError::Interrupted { .. }
            | ActError::StillRunning { .. }
            | ActError::Guard { .. } => None,
        }
    }

    /// Whether it failed because there was no space.
    pub fn is_of_space(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let ActError::Io { source, .. } = self else { return false };
        matches!(source.kind(), StorageFull | QuotaExceeded)
    }
}
