//! The one door to the machine.
//!
//! Everything that Stillpoint does to the machine, or learns from it, is a value that goes through
//! [`Host`]: processes as [`CommandSpec`], other effects as [`Action`], what is done to guests of the hypervisor as
//! [`GuestCall`], questions as methods such as [`Host::path_state`].
//! Behind the door stands one of
//!
//! - [`system::SystemHost`]: the real machine;
//! - [`dry::DryHost`]: answers questions, runs [`Effect::Inspect`] commands, and notes every
//!   [`Effect::Mutate`], [`Action`] and [`GuestCall`] instead of carrying it out;
//! - the tests' scripted and fake hosts.
//!
//! So "a dry run changes nothing" and "fail the n-th effect" are properties of the door, not of each step.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};

pub use crate::lock::{LockError, LockMode};
use crate::model::undo::{ChildProcess, Identity};

mod action;
mod btrfs_device;
pub mod dry;
pub mod guard;
mod held;
mod hypervisor;
mod pipe_end;
mod placement;
mod run_error;
pub mod runner;
mod secret_fd;
mod shortage;
pub mod spec;
mod subvolume_action;
pub mod sys;
pub mod system;
mod view;

pub use action::{ActError, Action};
pub use btrfs_device::device_of_btrfs;
pub use held::{Held, HeldEnd};
pub use hypervisor::{
    BackupDisk, BlockJob, Checkpoint, Definition, FreezeState, Guest, GuestCall, GuestChange,
    GuestJob, GuestState, Hypervisor, HypervisorError, NoHypervisor, OffReason, Overlay,
    PauseReason, ShutdownBy,
};
pub use pipe_end::PipeEnd;
pub use placement::{Confinement, InUse, Placed, Placement, Refused, Staged};
pub use run_error::RunError;
pub use secret_fd::{FdStyle, SecretFd};
pub use shortage::{Shortage, shortage};
pub use subvolume_action::{Located, SubvolumeAction};
pub use sys::attributes::extended_attributes;
pub use sys::inherited::{end_by_broken_pipe, pipe as inherited_pipe};
pub use sys::mounts::{MountEntry, mount_of};
pub use sys::subvolumes::{Subvolume, uuid_text};
pub use sys::trusted::{TrustError, TrustKind};
pub use sys::way::Way;

pub use spec::{
    CommandSpec, Completed, Effect, EnvValue, Exit, Fact, HELPER_LIMIT, Input, Judge,
    LONGEST_HOST_NAME, Prediction, StdoutMode, Stream, Tool, Watch,
};
pub use view::{Access, Halt, PrivateMount, PrivateView};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathState {
    /// Directory, file or something else (symbolic links are followed).
    pub kind: PathKind,
    /// Device and inode.
    pub identity: Identity,
    /// For a directory: whether it has no entry, or only the `lost+found` of a new file system.
    pub empty: bool,
    /// The size in bytes.
    pub size: u64,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// What sort of thing is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A device, pipe or socket.
    Other,
}

/// A held lock; dropping it lets go. It dies with the process, whatever happens.
pub trait LockGuard: Send + Sync {}

/// Stands by to let control groups go. Dropping it ends it, which thaws them; it does the same by itself when
/// we die or when its limit comes.
pub trait ThawGuard: Send {
    /// Ends it and waits for that. Answers whether its limit had come before.
    ///
    /// # Errors
    /// [`ActError::Guard`] when it was not there any more, or could not thaw a group.
    fn finish(self: Box<Self>) -> Result<bool, ActError>;
}

/// While it lives, the flush of a directory tells whatever was lost; see [`Host::watch_writes`].
pub trait WriteWatch {}

impl WriteWatch for () {}

/// How a chain of processes ended, each of which reads what the one before it writes.
#[derive(Debug)]
pub struct Chained {
    /// All but the last, in order. The chain did what it should only when every one of them ended well.
    pub before: Vec<Completed>,
    /// The one at the end. When any before it failed or wrote nothing, this one was stopped before it saw the end
    /// of its input.
    pub last: Completed,
    /// Bytes that the last one took; `None` when it was not run.
    pub bytes: Option<u64>,
}

impl Chained {
    /// The first before the last that did not end well: it failed, or it was stopped because another one did.
    pub fn failed_before(&self) -> Option<&Completed> {
        self.before.iter().find(|completed| !completed.success())
    }
}

/// The machine.
pub trait Host: Send + Sync {
    /// Runs a process to its end, handing every line to `watch` as it arrives.
    ///
    /// # Errors
    /// See [`RunError`]; an unwelcome exit status is not one of them.
    fn run(&self, spec: &CommandSpec, watch: Watch<'_>) -> Result<Completed, RunError>;

    /// Runs any number of processes, the standard output of each being the standard input of the next.
    ///
    /// Each sees the end of its input only after the one before it has seen the end of its own, has exited with
    /// success and has written something; otherwise it is stopped first. So the last one cannot complete a torn
    /// copy, nor one of nothing, whichever of the others fails. Lines of the last one's output and of everybody's
    /// standard error go to `watch`. All are stopped when one is; they stall only together.
    ///
    /// # Errors
    /// See [`RunError`].
    fn chain(
        &self,
        before: &[CommandSpec],
        last: &CommandSpec,
        watch: Watch<'_>,
    ) -> Result<Chained, RunError>;

    /// Whether an end of a pipe can be passed to a process; see [`CommandSpec::passed`].
    fn passes_pipes(&self) -> bool {
        false
    }

    /// Starts processes, joined as those of a chain, and holds them at one end of a pipe: others have the other end in turns.
    /// So what takes long to make is made once, and becomes several things that are each whole by themselves, and the
    /// other way round.
    ///
    /// # Errors
    /// See [`RunError`].
    fn hold(&self, specs: &[CommandSpec], end: HeldEnd) -> Result<Box<dyn Held + '_>, RunError> {
        let _ = end;
        let command = specs.first().map(CommandSpec::display).unwrap_or_default();
        Err(RunError::Io { command, source: std::io::ErrorKind::Unsupported.into() })
    }

    /// The hypervisor, by this very door: what is asked of it and done to it is counted and noted as all else is.
    fn hypervisor(&self) -> &dyn Hypervisor;

    /// Carries out a mutation that is not a process. Answers with the identity of what was made, if
    /// something was made.
    ///
    /// # Errors
    /// See [`ActError`].
    fn act(&self, action: &Action) -> Result<Option<Identity>, ActError>;

    /// Moves what was laid out into place; see [`Placement`].
    ///
    /// # Errors
    /// [`ActError::Interrupted`] when we were told to stop: what was moved by then stays. Anything else: nothing
    /// was moved.
    fn place(&self, placement: &Placement) -> Result<Placed, ActError>;

    /// Whether a process can be kept from writing where it should not; see [`Confinement`]. Not everybody may,
    /// nor in every container.
    fn may_confine(&self) -> bool {
        true
    }

    /// Takes a lock file, waiting at most `wait`, but for another thread of ours as long as that holds it. `holder` is written into it for others to read.
    ///
    /// # Errors
    /// See [`LockError`].
    fn lock(
        &self,
        path: &Path,
        mode: LockMode,
        wait: Duration,
        holder: &str,
    ) -> Result<Box<dyn LockGuard>, LockError>;

    /// Starts a guard that lets the control groups go after `limit` (in whole seconds), or when we are gone.
    /// It stands by when this answers; freeze only then.
    ///
    /// # Errors
    /// [`ActError::Guard`] when there is none.
    fn thaw_guard(
        &self,
        cgroups: &[PathBuf],
        limit: Duration,
    ) -> Result<Box<dyn ThawGuard>, ActError>;

    /// Sees to it that the flush of the file system that holds a directory ([`Action::FlushFileSystem`] of this very path)
    /// tells whatever is lost from now on. The kernel tells a loss to each descriptor that is open then, and once; to one that
    /// is opened when another one has been told, it tells nothing. As long as the answer lives, the file system is in use.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn watch_writes(&self, directory: &Path) -> Result<Box<dyn WriteWatch + '_>, ActError> {
        let _ = directory;
        Ok(Box::new(()))
    }

    /// What is at a path; `None` when nothing is.
    ///
    /// # Errors
    /// When the path cannot be looked at, which is different from nothing being there.
    fn path_state(&self, path: &Path) -> Result<Option<PathState>, ActError>;

    /// How a path leads to what it leads to, if it does.
    ///
    /// # Errors
    /// When something on the way cannot be looked at, which is different from nothing being there.
    fn way(&self, path: &Path) -> Result<Way, ActError> {
        self.way_as_far(path, &|_| true)
    }

    /// The same as far as each name on the way may be looked at, of which it is asked before: a look at what a
    /// server holds that is gone may never come back.
    ///
    /// # Errors
    /// See [`Host::way`].
    fn way_as_far(&self, path: &Path, may_look: &dyn Fn(&Path) -> bool) -> Result<Way, ActError> {
        let end = match path.ancestors().all(may_look) {
            true => self.path_state(path)?.map(|found| found.identity),
            false => None,
        };
        Ok(Way { links: Vec::new(), end })
    }

    /// The names in a directory, in no order that matters; `None` when there is no such directory.
    ///
    /// # Errors
    /// When it cannot be read.
    fn names_in(&self, directory: &Path) -> Result<Option<Vec<OsString>>, ActError>;

    /// The content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path) -> Result<Vec<u8>, ActError>;

    /// The name of this boot: no other one has it, nor had it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn boot_id(&self) -> Result<String, ActError> {
        let id = self.read(Path::new(sys::process::BOOT_ID))?;
        Ok(String::from_utf8_lossy(&id).trim().to_owned())
    }

    /// Whether a file system is mounted exactly there.
    ///
    /// # Errors
    /// When the mount table cannot be read.
    fn is_mount_point(&self, path: &Path) -> Result<bool, ActError>;

    /// All mounts that we see, in the kernel's order.
    ///
    /// # Errors
    /// When the mount table cannot be read.
    fn mounts(&self) -> Result<Vec<MountEntry>, ActError>;

    /// The btrfs subvolume whose root directory is `root`; `None` when no subvolume's root is there any more, or only
    /// behind a link.
    ///
    /// # Errors
    /// When the file system does not answer.
    fn subvolume(&self, root: &Path) -> Result<Option<Subvolume>, ActError>;

    /// The subvolume that a path of a btrfs lies in, or whose root it is; `None` when it is on none.
    ///
    /// # Errors
    /// When one above it cannot be looked at.
    fn subvolume_around(&self, path: &Path) -> Result<Option<Subvolume>, ActError> {
        for above in path.ancestors() {
            if let Some(found) = self.subvolume(above)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The subvolume at a path from the top-level subvolume on of the btrfs on a device; `None` when there is none, or only
    /// behind a link.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn subvolume_on(&self, device: &Path, path: &Path) -> Result<Option<Subvolume>, ActError>;

    /// All subvolumes of the btrfs on a device, with their paths in the top-level one. One that is deleted or moved
    /// meanwhile may be left out.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn subvolumes_on(&self, device: &Path) -> Result<Vec<(PathBuf, Subvolume)>, ActError>;

    /// The places of a view's devices at which they cannot be shown: in what is shown around them there is no such
    /// directory, or only behind a link.
    ///
    /// # Errors
    /// When the view cannot be put together for another reason.
    fn without_a_place(&self, view: &PrivateView) -> Result<Vec<PathBuf>, ActError>;

    /// The UUID of the btrfs on a device; `None` when there is no such device, or no btrfs on it.
    ///
    /// # Errors
    /// When the device cannot be read.
    fn btrfs_on(&self, device: &Path) -> Result<Option<String>, ActError>;

    /// The subvolumes below a directory of a btrfs that lie in the same subvolume as that. One that is deleted
    /// meanwhile is left out.
    ///
    /// # Errors
    /// When the file system does not answer.
    fn nested_subvolumes(&self, above: &Path) -> Result<Vec<PathBuf>, ActError>;

    /// How many subvolumes of the btrfs that holds a directory were received as what has this UUID, wherever they lie.
    ///
    /// # Errors
    /// When the file system does not answer, as to somebody who is not root.
    fn received_as(&self, directory: &Path, uuid: [u8; 16]) -> Result<usize, ActError>;

    /// The path without links or dots, if it exists; otherwise the longest existing part resolved.
    fn canonical(&self, path: &Path) -> PathBuf;

    /// The program's full path, if it is on this machine.
    ///
    /// # Errors
    /// [`RunError::NotFound`] or [`RunError::Unsafe`].
    fn find_program(&self, tool: &Tool) -> Result<PathBuf, RunError>;

    /// Bytes that are free to us in the file system that holds the path.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn free_space(&self, path: &Path) -> Result<u64, ActError>;

    /// How large the file system is that holds the path, in bytes.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn total_space(&self, path: &Path) -> Result<u64, ActError>;

    /// How many files can still be made in the file system that holds the path; `None` where it makes them as they
    /// are needed.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn free_files(&self, _path: &Path) -> Result<Option<u64>, ActError> {
        Ok(None)
    }

    /// Tries whether a directory, or what there is on the way to it, takes in the files that an engine writes to
    /// work. Nothing is left behind.
    ///
    /// # Errors
    /// Why it does not.
    fn try_room(&self, directory: &Path) -> Result<(), ActError>;

    /// Whether the file system that holds the path, or would hold it, cannot be written to.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn is_read_only(&self, path: &Path) -> Result<bool, ActError>;

    /// Checks that nobody but root and us may change what is at the path, nor read a secret.
    ///
    /// # Errors
    /// See [`TrustError`].
    fn check_trusted(&self, path: &Path, kind: TrustKind) -> Result<(), TrustError>;

    /// The process of this number that runs now; `None` when none does. One that has died and only waits to be
    /// reaped does not.
    ///
    /// # Errors
    /// When the table of processes cannot be read.
    fn process(&self, pid: i32) -> Result<Option<ChildProcess>, ActError>;

    /// Whether a process may be given a host name of its own ([`CommandSpec::host_name`]).
    fn gives_host_names(&self) -> bool;

    /// The value of one of our own environment variables (`CREDENTIALS_DIRECTORY` and the like).
    fn environment(&self, name: &str) -> Option<OsString>;

    /// The time.
    fn now(&self) -> DateTime<Utc>;

    /// How far the machine's local time is ahead of UTC at a moment, whatever zone a shell has: by `/etc/localtime`;
    /// by nothing where there is none.
    fn ahead_of_utc(&self, at: DateTime<Utc>) -> FixedOffset;

    /// Waits, for something outside to come about. A machine that exists in memory only need not.
    fn pause(&self, span: Duration) {
        std::thread::sleep(span);
    }

    /// Random bytes for a run id.
    fn random(&self) -> [u8; 4];

    /// The signal that told us to stop, if one did.
    fn stop_signal(&self) -> Option<i32>;

    /// Lets the signal that arrived no longer stop children of this thread: for hooks and undos that must still run.
    /// Answers a guard; a second signal during it is kept.
    fn shield(&self) -> Box<dyn Shield + '_>;

    /// Tells the recorder of every child that starts and ends, so that the ledger can name them.
    fn record_children(&self, recorder: Option<std::sync::Arc<dyn ChildRecorder>>);

    /// What skipped mutations would have made, for `about`; nothing on a real machine.
    fn predicted(&self, about: &str) -> Vec<Vec<u8>>;

    /// Whether mutations are only noted. Who looks at what one would have made need not ask: it is answered as if it
    /// were there. A test counts who asks all the same.
    fn is_dry(&self) -> bool;
}

/// While it lives, children of the thread that asked for it run although a stop signal has arrived.
pub trait Shield {}

/// Is told of children as they come and go.
pub trait ChildRecorder: Send + Sync {
    /// A child was started.
    fn started(&self, child: &ChildProcess);
    /// It has ended and was waited for.
    fn ended(&self, child: &ChildProcess);
}
