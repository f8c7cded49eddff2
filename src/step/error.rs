//! Why a step failed, in the one shape that reports and exit codes are made from.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use nix::libc;

use crate::capture::CaptureError;
use crate::engine::EngineError;
use crate::history::HistoryError;
use crate::host::sys::process::is_root;
use crate::host::{ActError, LockError, RunError};
use crate::model::outcome::{Outcome, Trouble};

/// What to do when only root may.
const AS_ROOT: &str = "run it as root";

fn is_permission(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)))
}

/// A failed step: what it means for the run, and what to tell a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// The kind of trouble.
    pub trouble: Trouble,
    /// What failed, with its causes, and what to do about it.
    pub message: String,
}

impl StepError {
    /// A failure in words of our own.
    pub fn new(trouble: Trouble, message: impl Into<String>) -> Self {
        Self { trouble, message: message.into() }
    }

    /// A failure from an error value and, if there is one, what to do about it.
    pub fn from_error(trouble: Trouble, error: &(dyn Error + 'static), hint: Option<&str>) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        let mut is_denied = is_permission(error);
        while let Some(error) = cause {
            let _ = write!(message, ": {error}");
            is_denied |= is_permission(error);
            cause = error.source();
        }
        if let Some(hint) = hint {
            let _ = write!(message, " — {hint}");
        }
        if is_denied && !is_root() {
            return Self::needs_root(trouble, message);
        }
        Self { trouble, message }
    }

    /// What root could have done, and we are not root: that is what is wrong, whatever it kept us from.
    fn needs_root(trouble: Trouble, mut message: String) -> Self {
        if !message.contains(AS_ROOT) {
            let _ = write!(message, " — {AS_ROOT}");
        }
        let trouble = match trouble {
            Trouble::Unexpected | Trouble::Configuration | Trouble::JobFailed => {
                Trouble::Environment
            }
            Trouble::Signal(_)
            | Trouble::Usage
            | Trouble::Environment
            | Trouble::Damage
            | Trouble::Busy
            | Trouble::Incomplete
            | Trouble::Cleanup
            | Trouble::Warning => trouble,
        };
        Self { trouble, message }
    }

    /// The outcome that the step has.
    pub fn outcome(&self) -> Outcome {
        match self.trouble {
            Trouble::Signal(_) => Outcome::Interrupted,
            Trouble::Incomplete => Outcome::Incomplete,
            Trouble::Warning | Trouble::Cleanup => Outcome::Warning,
            Trouble::Unexpected
            | Trouble::Usage
            | Trouble::Configuration
            | Trouble::Environment
            | Trouble::JobFailed
            | Trouble::Damage
            | Trouble::Busy => Outcome::Failed,
        }
    }
}

/// What to do when the ledger cannot be written.
pub fn write_hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space there, or set state-dir to another disk")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("make its file system writable, or set state-dir to another disk")
        }
        io::ErrorKind::PermissionDenied => Some("run it as root, or set state-dir"),
        _ => None,
    }
}

/// A ledger that cannot be written: what it should hold must not happen.
pub fn ledger_error(error: io::Error) -> StepError {
    let hint = write_hint(&error).map(|hint| format!(" — {hint}")).unwrap_or_default();
    StepError::new(Trouble::Environment, format!("cannot write to the ledger: {error}{hint}"))
}

impl From<EngineError> for StepError {
    fn from(error: EngineError) -> Self {
        let mut step = Self::from_error(error.trouble(), &error, None);
        if let EngineError::Producer { stderr_tail, .. }
        | EngineError::Run(
            RunError::Stalled { stderr_tail, .. } | RunError::TimedOut { stderr_tail, .. },
        ) = &error
            && let tail = stderr_tail.trim()
            && !tail.is_empty()
        {
            let _ = write!(step.message, ": {tail}");
        }
        if let Some(hint) = error.hint() {
            let _ = write!(step.message, " — {hint}");
        }
        step
    }
}

impl From<RunError> for StepError {
    fn from(error: RunError) -> Self {
        Self::from(EngineError::from(error))
    }
}

impl From<ActError> for StepError {
    fn from(error: ActError) -> Self {
        let trouble = match &error {
            ActError::Interrupted { signal } => Trouble::Signal(*signal),
            ActError::Io { .. }
            | ActError::NotOurs { .. }
            | ActError::Mounted { .. }
            | ActError::StillRunning { .. }
            | ActError::NeededAwake { .. }
            | ActError::AlreadyFrozen { .. }
            | ActError::DoesNotFreeze { .. }
            | ActError::DoesNotThaw { .. }
            | ActError::Guard { .. } => Trouble::JobFailed,
        };
        Self::from_error(trouble, &error, error.hint())
    }
}

impl From<LockError> for StepError {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Busy { .. } => Self::from_error(
                Trouble::Busy,
                &error,
                Some("wait for that run to end, or raise lock-wait"),
            ),
            LockError::Interrupted { signal } => {
                Self::from_error(Trouble::Signal(*signal), &error, None)
            }
            LockError::Io { .. } => Self::from_error(Trouble::Environment, &error, None),
        }
    }
}

impl From<CaptureError> for StepError {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::Run(error) => error.into(),
            CaptureError::Act(error) => error.into(),
            CaptureError::Lock(error) => error.into(),
            CaptureError::Unfit { .. } | CaptureError::Gone { .. } => {
                Self::from_error(Trouble::Environment, &error, error.hint())
            }
            CaptureError::Failed { .. }
            | CaptureError::Unreached { .. }
            | CaptureError::Mismatch { .. }
            | CaptureError::Broken { .. }
            | CaptureError::NotOurs { .. } => {
                Self::from_error(Trouble::JobFailed, &error, error.hint())
            }
        }
    }
}

impl From<HistoryError> for StepError {
    fn from(error: HistoryError) -> Self {
        let trouble = if error.is_busy() { Trouble::Busy } else { Trouble::Environment };
        Self::from_error(trouble, &error, Some(error.hint()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_root_may_do_is_an_unfit_environment() {
        let error = StepError::needs_root(Trouble::Configuration, "cannot read /x: denied".into());
        assert_eq!(error.trouble, Trouble::Environment);
        assert_eq!(error.message, "cannot read /x: denied — run it as root");
        let said = format!("denied — {AS_ROOT}, or set state-dir");
        let error = StepError::needs_root(Trouble::Damage, said.clone());
        assert_eq!((error.trouble, error.message), (Trouble::Damage, said));
        assert!(is_permission(&io::Error::from_raw_os_error(libc::EACCES)));
        assert!(!is_permission(&io::Error::from_raw_os_error(libc::ENOENT)));
    }
}
