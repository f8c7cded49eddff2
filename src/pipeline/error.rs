//! Why a step failed, in the one shape that reports and exit codes are made from.

use std::error::Error;
use std::fmt::Write as _;

use crate::capture::CaptureError;
use crate::engine::EngineError;
use crate::host::{ActError, LockError, RunError};
use crate::model::outcome::{Outcome, Trouble};
use crate::report::history::HistoryError;

use super::ledger::{LedgerError, write_hint};

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
    pub fn from_error(trouble: Trouble, error: &dyn Error, hint: Option<&str>) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(message, ": {error}");
            cause = error.source();
        }
        if let Some(hint) = hint {
            let _ = write!(message, " — {hint}");
        }
        Self { trouble, message }
    }

    /// The outcome that the step has.
    pub fn outcome(&self) -> Outcome {
        match self.trouble {
            Trouble::Signal(_) => Outcome::Interrupted,
            Trouble::Incomplete => Outcome::Incomplete,
            Trouble::Warning | Trouble::Cleanup => Outcome::Warning,
            Trouble::Unexpected
            | Trouble::Configuration
            | Trouble::Environment
            | Trouble::JobFailed
            | Trouble::Damage
            | Trouble::Busy => Outcome::Failed,
        }
    }
}

/// A ledger that cannot be written: what it should hold must not happen.
pub(super) fn ledger_error(error: std::io::Error) -> StepError {
    let hint = write_hint(&error).map(|hint| format!(" — {hint}")).unwrap_or_default();
    StepError::new(Trouble::Environment, format!("cannot write to the ledger: {error}{hint}"))
}

impl From<EngineError> for StepError {
    fn from(error: EngineError) -> Self {
        let mut step = Self::from_error(error.trouble(), &error, None);
        let tail = match &error {
            EngineError::Producer { stderr_tail, .. }
            | EngineError::Run(
                RunError::Stalled { stderr_tail, .. } | RunError::TimedOut { stderr_tail, .. },
            ) => stderr_tail.trim(),
            _ => "",
        };
        if !tail.is_empty() {
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
        Self::from_error(Trouble::JobFailed, &error, error.hint())
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
        Self::from_error(Trouble::Environment, &error, Some(error.hint()))
    }
}

impl From<LedgerError> for StepError {
    fn from(error: LedgerError) -> Self {
        Self::from_error(Trouble::Environment, &error, error.hint())
    }
}
