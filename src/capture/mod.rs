//! How a source is held still: what must be captured, by which provider, what engines then see, and how all
//! of it is released.
//!
//! [`survey`] finds the volumes below a job's paths; [`choose`] finds a [`Provider`] for each of them, or for a block
//! device that is named. It says what it intends to make, a [`Capture`], whose undo is written to the ledger before it is
//! made; it is verified, read, and asked after reading whether it held. [`view`] says what an engine sees of it: the
//! captures over the original paths, in a mount namespace of its own. [`release`] undoes it, after success, after an
//! error and after a crash alike; it decides by looking at what is there.
//!
//! Nothing is mounted outside an engine's own namespace, so there is no mount to release.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::spec::words;
use crate::host::sys::private;
use crate::host::{
    ActError, CommandSpec, Completed, Host, LockError, LockGuard, LockMode, RunError, Subvolume,
};
use crate::model::job::Settings;
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::model::target::Server;
use crate::model::undo::{CaptureUndo, Identity};

mod btrfs;
mod choose;
pub mod far;
mod kinds;
mod lvm;
mod lvm_classic;
mod lvm_seen;
mod lvm_thin;
mod offer;
mod releasable;
mod release;
mod remount_readonly;
mod repair;
mod silent;
pub mod survey;
#[cfg(test)]
mod tests;
pub mod view;

pub use btrfs::{of_subvolume, swapped_to};
pub use choose::{choose, choose_device};
pub use offer::Choice;
pub use release::{go_together, is_away, kept, release, release_held, release_together, wake};
pub use remount_readonly::stayed_read_only;
pub use silent::Silent;

/// What captures are made and released with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The machine that captures are made on.
    pub host: &'a dyn Host,
    /// Where locks and the private mount point lie, and how long a lock is waited for.
    pub settings: &'a Settings,
    /// The machines that have given no answer to the same job; `None`: each is asked each time.
    pub silent: Option<&'a Silent>,
}

/// Something that can hold one thing still.
pub trait Provider: Send + Sync {
    /// `btrfs`, `lvm-thin`, `lvm-classic` or `remount-readonly`.
    fn name(&self) -> &'static str;

    /// Which lock keeps what is intended possible until the capture is made, if one has to.
    fn lock_key(&self) -> Option<String>;

    /// Whether nobody else may capture the same thing as long as this capture lasts.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// What is captured if that happens now. Changes nothing. `earlier` is what this run will have made by then.
    ///
    /// # Errors
    /// When the capture cannot be made: no space, a pool that is too full or not in order, or a volume that is
    /// no longer there.
    fn intend(
        &self,
        cx: Context<'_>,
        run: &RunId,
        earlier: &[CaptureUndo],
    ) -> Result<Box<dyn Capture>, CaptureError>;
}

/// One capture, from the intent to make it until it is released by what its [`Capture::undo`] says.
pub trait Capture: Send + Sync {
    /// How to release it. This is in the ledger before it is made.
    fn undo(&self) -> CaptureUndo;

    /// Makes it. Writers may be standing still meanwhile, so it does nothing else.
    ///
    /// # Errors
    /// When it was not made; the intent stands. [`CaptureError::Unfit`]: nothing was done.
    fn make(&self, cx: Context<'_>) -> Result<(), CaptureError>;

    /// Looks whether what was made is what was intended.
    ///
    /// # Errors
    /// When it is not; the intent stands.
    fn verify(&self, cx: Context<'_>) -> Result<Made, CaptureError>;

    /// Whether it still holds what it held when it was made, asked after reading.
    ///
    /// # Errors
    /// When it does not: what was read from it is worth nothing.
    fn still_holds(&self, cx: Context<'_>) -> Result<(), CaptureError>;

    /// Whether it has to be watched while it is read; see [`Capture::danger`].
    fn is_watched(&self) -> bool {
        false
    }

    /// Why reading must stop at once for the sake of the machine, if it must.
    ///
    /// # Errors
    /// When it cannot be known.
    fn danger(&self, _: Context<'_>) -> Result<Option<String>, CaptureError> {
        Ok(None)
    }
}

/// A capture that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What holds still.
    pub still: Still,
    /// What proves it ours; `None` where there is nothing to prove, and on a dry host.
    pub identity: Option<Identity>,
    /// One line about it.
    pub about: String,
}

/// What holds still, for whoever reads it: as files ([`view::mount`]), block by block, or as a subvolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Still {
    /// A path, which is read where it is.
    Path(PathBuf),
    /// A block device.
    Device(PathBuf),
    /// A read-only subvolume of btrfs.
    Subvolume {
        /// A device of its file system.
        device: PathBuf,
        /// Its name in the top-level subvolume.
        name: String,
        /// What was found there. It is mounted by its number, since another one may lie at the name by then.
        found: Subvolume,
    },
    /// A read-only subvolume of a btrfs of another machine.
    Far {
        /// How that is reached.
        server: Server,
        /// Where it is there, in a directory that only root can change.
        path: PathBuf,
        /// What was found there.
        found: Subvolume,
    },
}

/// Why something could not be held still, or not be released.
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
    /// Another machine cannot be asked: the line to it broke, or never came about.
    #[error("{what}")]
    Unreached {
        /// What ssh said, and of which machine.
        what: String,
        /// What to do about it.
        hint: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A subvolume was deleted after it was found.
    #[error("the subvolume {} was deleted before it could be captured", path.shown())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// A tool failed.
    #[error("{command} failed ({exit}): {}", words(stderr_tail))]
    Failed {
        /// The command as it was run, secrets masked.
        command: String,
        /// How it ended.
        exit: String,
        /// The last lines of its standard error.
        stderr_tail: String,
    },
    /// A tool said something that was not understood, or the machine is not as it said.
    #[error("{what}")]
    Mismatch {
        /// What was expected, and what was found instead.
        what: String,
    },
    /// A capture did not last until it was read.
    #[error("{what}")]
    Broken {
        /// What became of the capture.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// What is there under a name of ours is not what was made.
    #[error("{what} is not the one that this run made, so it is left alone")]
    NotOurs {
        /// The snapshot, volume or subvolume that is there.
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

/// What it takes to ask a machine for every path of a job that does not answer.
const LONG: Duration = Duration::from_secs(5);

impl CaptureError {
    /// Whether another machine gave no answer, so that the next question to it would wait as long. One that says at once that
    /// it takes nobody now may take the next.
    pub fn is_unanswered(&self) -> bool {
        match self {
            CaptureError::Unreached { waited, .. } => *waited >= LONG,
            error => matches!(
                error,
                CaptureError::Run(RunError::TimedOut { .. } | RunError::Stalled { .. })
            ),
        }
    }

    /// What to do about it, if there is something to say beyond the error itself.
    pub fn hint(&self) -> Option<&str> {
        match self {
            CaptureError::Unfit { hint, .. }
            | CaptureError::Unreached { hint, .. }
            | CaptureError::Broken { hint, .. } => Some(hint),
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

/// Takes the lock around making and releasing captures of the same kind of thing: LVM changes a whole
/// group at a time, and a group that another run is about to change looks half-made.
///
/// # Errors
/// See [`LockError`].
pub fn lock(cx: Context<'_>, key: &str, wait: Duration) -> Result<Box<dyn LockGuard>, LockError> {
    let path = cx.settings.runtime_dir.join("locks").join(format!("capture-{key}.lock"));
    cx.host.lock(&path, LockMode::Exclusive, wait, "a run that makes or releases a capture")
}

/// The name of the directory in which views are put together.
const WORKPLACE: &str = "mnt";

/// The directory in which views are put together; see [`crate::host::PrivateView::workplace`]. No link is followed
/// there, so one on the way to it is resolved here: `runtime-dir` may well lie below `/var/run`.
pub fn workplace(cx: Context<'_>) -> PathBuf {
    cx.host.canonical(&cx.settings.runtime_dir.join(WORKPLACE))
}

/// An empty directory at which one thing can be mounted for a process that needs no view besides.
pub fn bare_workplace(cx: Context<'_>) -> PathBuf {
    workplace(cx).join(private::PART)
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
        stderr_tail: completed.last_words(5),
    })
}

/// What to do about a snapshot in something that is not here now, and may never be again.
fn give_up_hint(cx: Context<'_>, remedy: &str) -> String {
    let ledgers = cx.settings.state_dir.join("ledger");
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
