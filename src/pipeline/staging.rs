//! Directories of a run's own, which go with the run.

use std::path::{Path, PathBuf};

use crate::host::{ActError, Action, Host};
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::undo::{Identity, Ledger, StagingDirectory};

use crate::step::context::Pipeline;
use crate::step::error::{StepError, ledger_error};

/// Makes the run's own directory, through the ledger like everything that outlives the process.
///
/// # Errors
/// When it cannot be made or written down.
pub(super) fn stage(
    pipeline: Pipeline<'_>,
    run: &RunId,
    ledger: &dyn Ledger,
    below: &Path,
) -> Result<PathBuf, StepError> {
    let path = below.join(run.as_str());
    match try_own_directory(pipeline, ledger, &path)? {
        Ok(_) => Ok(path),
        Err(error) => Err(StepError::from_error(Trouble::Environment, &error, None)),
    }
}

/// Makes a directory of the run's, which goes with the run. Answers with its identity; a dry host makes none. That it
/// cannot be made is the inner error, for who knows what to do then.
///
/// # Errors
/// When it cannot be written down.
pub(super) fn try_own_directory(
    pipeline: Pipeline<'_>,
    ledger: &dyn Ledger,
    path: &Path,
) -> Result<Result<Option<Identity>, ActError>, StepError> {
    let path = path.to_owned();
    let directory = StagingDirectory { path: path.clone() };
    let entry = ledger.intend(directory.into()).map_err(ledger_error)?;
    let identity = match pipeline.host.act(&Action::CreateDirectory { path, mode: 0o700 }) {
        Ok(identity) => identity,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(identity) = &identity {
        ledger.made(entry, identity.clone()).map_err(ledger_error)?;
    }
    Ok(Ok(identity))
}

/// Removes a directory of a run's that a ledger holds, with all that is in it.
///
/// # Errors
/// When it cannot be removed, or is not the one that was made.
pub(super) fn remove(
    host: &dyn Host,
    directory: &StagingDirectory,
    identity: Option<&Identity>,
) -> Result<(), StepError> {
    let (path, identity) = (directory.path.clone(), identity.cloned());
    host.act(&Action::RemoveStaging { path, identity })?;
    Ok(())
}
