//! What every engine call gets.

use std::time::Duration;

use super::Seat;
use super::error::EngineError;
use crate::host::Host;
use crate::model::job::Settings;
use crate::model::names::RunId;
use crate::model::target::Target;

/// What every engine call gets from the run.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The machine that everything is done on.
    pub host: &'a dyn Host,
    /// The settings; engines use the directories and the host name.
    pub settings: &'a Settings,
    /// Where children put temporary files (`TMPDIR`); the engine's own default when absent.
    pub temporary: Option<&'a std::path::Path>,
    /// How long the engine waits for its own lock.
    pub lock_wait: Duration,
    /// The run whose ledger knows of the locks that the engine takes, which bear its name; `None` where no ledger does.
    pub run: Option<&'a RunId>,
    /// Where targets that are at work at the same time share what they send; `None`: it sends for itself.
    pub seat: Option<&'a Seat<'a>>,
}

impl Context<'_> {
    /// Refuses a repository in which nothing can be stored, before anything is read for it.
    ///
    /// # Errors
    /// When its file system is mounted read-only.
    pub(super) fn refuse_read_only(&self, target: &Target) -> Result<(), EngineError> {
        match self.is_read_only(target) {
            true => Err(EngineError::ReadOnly { repository: target.repository.clone() }),
            false => Ok(()),
        }
    }

    /// Whether the repository of a target lies on a file system here that is mounted read-only.
    pub(super) fn is_read_only(&self, target: &Target) -> bool {
        let path = target.local.as_deref();
        path.is_some_and(|path| self.host.is_read_only(path).unwrap_or(false))
    }
}
