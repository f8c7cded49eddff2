//! How a source is held still: what must be captured, by which provider, what engines then see, and how all
//! of it is given back.
//!
//! [`survey`] finds the volumes below a job's paths; [`choose`] finds a provider for each; the pipeline then
//! takes each [`Provider`]'s promise, writes it to the ledger, lets it make the capture, and after reading
//! asks whether it held. [`view`] says what an engine sees: the captures over the original paths, in a mount
//! namespace of its own. [`give_back`] undoes a promise, after success, after an error and after a crash
//! alike; it decides by looking at what is there.
//!
//! Nothing is mounted outside an engine's own namespace, so there is no mount to give back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::sys::private;
use crate::host::{
    ActError, CommandSpec, Completed, Host, LockError, LockGuard, LockMode, PrivateMount, RunError,
};
use crate::model::job::Settings;
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::model::undo::{Identity, Undo};

mod btrfs;
mod choose;
mod lvm;
mod lvm_classic;
mod lvm_seen;
mod lvm_thin;
mod release;
mod remount_readonly;
mod repair;
pub mod survey;
#[cfg(test)]
mod tests;
pub mod view;

pub use choose::{Choice, choose};
pub use release::{give_back, give_back_held, give_back_snapshots, wake};
pub use remount_readonly::stayed_read_only;

/// What providers get from the run.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// The machine.
    pub host: &'a dyn Host,
    /// Where locks and the private mount point lie, and how long a lock is waited for.
    pub settings: &'a Settings,
}

/// Something that can hold one volume still.
pub trait Provider {
    /// `btrfs`, `lvm-thin`, `lvm-classic` or `remount-readonly`.
    fn name(&self) -> &'static str;

    /// Which lock keeps the promise true until the capture is made, if one has to.
    fn lock_key(&self) -> Option<String>;

    /// Whether nobody else may capture the volume as long as this capture lasts.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// What will have to be given back if the capture is made now. Changes nothing. `earlier` are the
    /// promises of this run that will be kept first.
    ///
    /// # Errors
    /// When the capture cannot be made: no space, a pool that is too full or not in order, or a volume that is
    /// no longer there.
    fn promise(&self, room: Room<'_>, run: &RunId, earlier: &[Undo]) -> Result<Undo, CaptureError>;

    /// Makes what was promised. Writers may be standing still meanwhile, so it does nothing else.
    ///
    /// # Errors
    /// When it was not made; the promise stands. [`CaptureError::Unfit`]: nothing was done.
    fn make(&self, room: Room<'_>, promise: &Undo) -> Result<(), CaptureError>;

    /// Looks at what was made.
    ///
    /// # Errors
    /// When it is not what was promised; the promise stands.
    fn look(&self, room: Room<'_>, promise: &Undo) -> Result<Made, CaptureError>;

    /// Whether the capture still holds what it held when it was made, asked after reading.
    ///
    /// # Errors
    /// When it does not: what was read from it is worth nothing.
    fn examine(&self, room: Room<'_>, promise: &Undo) -> Result<(), CaptureError>;

    /// Whether it has to be watched while it is read; see [`Provider::danger`].
    fn is_watched(&self) -> bool;

    /// Why reading must stop at once for the sake of the machine, if it must.
    ///
    /// # Errors
    /// When it cannot be known.
    fn danger(&self, room: Room<'_>, promise: &Undo) -> Result<Option<String>, CaptureError>;
}

/// A capture that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What proves it ours; `None` on a dry host.
    pub identity: Option<Identity>,
    /// How an engine sees it at the original path; `None` when the path itself holds still.
    pub mount: Option<PrivateMount>,
    /// One line about it.
    pub about: String,
}

/// Why something could not be held still, or not be given back.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The machine is not in a state in which a capture may be made.
    #[error("{what}")]
    Unfit {
        /// What is in the way.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A subvolume was deleted after it was found.
    #[error("the subvolume {} was deleted before it could be captured", path.shown())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// A tool failed.
    #[error("{command} failed ({exit}): {stderr_tail}")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        exit: String,
        /// The last lines of its standard error.
        stderr_tail: String,
    },
    /// A tool said something that was not understood, or the machine is not as it said.
    #[error("{what}")]
    Mismatch {
        /// What.
        what: String,
    },
    /// A capture did not last until it was read.
    #[error("{what}")]
    Broken {
        /// What happened.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// What is there under a name of ours is not what was made.
    #[error("{what} is not the one that this run made, so it is left alone")]
    NotOurs {
        /// The object.
        what: String,
    },
    /// A tool could not be run to its end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The operating system refused.
    #[error(transparent)]
    Act(#[from] ActError),
    /// Another run makes or releases a capture of the same volume.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl CaptureError {
    /// What to do about it, if there is something to say beyond the error itself.
    pub fn hint(&self) -> Option<&str> {
        match self {
            CaptureError::Unfit { hint, .. } | CaptureError::Broken { hint, .. } => Some(hint),
            CaptureError::Gone { .. } => Some("the next run captures what is there then"),
            CaptureError::Run(error) => error.hint(),
            CaptureError::Act(error) => error.hint(),
            CaptureError::Failed { .. }
            | CaptureError::Mismatch { .. }
            | CaptureError::NotOurs { .. }
            | CaptureError::Lock(_) => None,
        }
    }
}

/// Takes the lock around making and giving back captures of the same kind of thing: LVM changes a whole
/// group at a time, and a group that another run is about to change looks half-made.
///
/// # Errors
/// See [`LockError`].
pub fn lock(room: Room<'_>, key: &str, wait: Duration) -> Result<Box<dyn LockGuard>, LockError> {
    let path = room.settings.runtime_dir.join("locks").join(format!("capture-{key}.lock"));
    room.host.lock(&path, LockMode::Exclusive, wait, "a run that makes or releases a capture")
}

/// The name of the directory in which views are put together.
const WORKPLACE: &str = "mnt";

/// The directory in which views are put together; see [`crate::host::PrivateView::workplace`]. No link is followed
/// there, so one on the way to it is resolved here: `runtime-dir` may well lie below `/var/run`.
pub fn workplace(room: Room<'_>) -> PathBuf {
    room.host.canonical(&room.settings.runtime_dir.join(WORKPLACE))
}

/// The directories that must exist for it, and stay empty: mounts in them are seen by one process each.
pub fn workplaces(settings: &Settings) -> [PathBuf; 2] {
    let workplace = settings.runtime_dir.join(WORKPLACE);
    [private::ROOT, private::PART].map(|name| workplace.join(name))
}

/// Runs a command that must succeed.
fn run(host: &dyn Host, spec: &CommandSpec) -> Result<Completed, CaptureError> {
    let completed = host.run(spec, &mut |_, _| {})?;
    if completed.success() {
        return Ok(completed);
    }
    Err(CaptureError::Failed {
        command: spec.display(),
        exit: completed.exit.to_string(),
        stderr_tail: completed.last_lines(5),
    })
}

/// What to do about a snapshot in something that is not here now, and may never be again.
fn give_up_hint(room: Room<'_>, remedy: &str) -> String {
    let ledgers = room.settings.state_dir.join("ledger");
    let ledgers = ledgers.shown();
    format!("{remedy}; if it is gone for ever, remove the run's ledger in {ledgers}")
}

fn mismatch(what: impl Into<String>) -> CaptureError {
    CaptureError::Mismatch { what: what.into() }
}

/// Whether a path lies on the same or a deeper level.
fn is_at_or_below(path: &Path, any: &[PathBuf]) -> bool {
    any.iter().any(|above| path.starts_with(above))
}
