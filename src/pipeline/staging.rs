//! Directories of a run's own, which go with the run.

use std::path::{Path, PathBuf};

use crate::host::{ActError, Action, Host, MountEntry, mount_of};
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
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
    match try_own_directory(pipeline, ledger, StagingDirectory::new(path.clone()))? {
        Ok(_) => Ok(path),
        Err(error) => Err(StepError::from_error(Trouble::Environment, &error, None)),
    }
}

/// Makes a directory of the run's, which goes with the run. Answers with its identity; a dry host makes none. That it cannot
/// be made is the inner error, for who knows what to do then.
///
/// # Errors
/// When it cannot be written down.
pub(super) fn try_own_directory(
    pipeline: Pipeline<'_>,
    ledger: &dyn Ledger,
    directory: StagingDirectory,
) -> Result<Result<Option<Identity>, ActError>, StepError> {
    let path = directory.path.clone();
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

/// A new directory on a file system that may be away later.
///
/// # Errors
/// When the mounts cannot be read.
pub(super) fn elsewhere(host: &dyn Host, path: &Path) -> Result<StagingDirectory, StepError> {
    let mounts = host.mounts()?;
    let around = mount_of(&mounts, &host.canonical(path.parent().unwrap_or(path)));
    let new = StagingDirectory::new(path.to_owned());
    Ok(match around {
        Some(mount) => StagingDirectory { mounted_at: mount.at.clone(), ..new },
        None => new,
    })
}

/// Where a directory is that was made and cannot be found, because what it is on is not mounted, in words.
pub(super) fn out_of_reach(
    host: &dyn Host,
    directory: &StagingDirectory,
    identity: Option<&Identity>,
) -> Option<String> {
    let StagingDirectory { path, mounted_at: at, subvolumes: _ } = directory;
    let is_out = identity.is_some()
        && matches!(host.path_state(path), Ok(None))
        && matches!(host.is_mount_point(at), Ok(false));
    let (path, at) = (path.shown(), at.shown());
    is_out.then(|| format!("{path}, on what was mounted at {at} and is not now"))
}

/// Refuses to take away what somebody sees elsewhere: its mount would be left, of which nobody could tell any more what it
/// showed. The name holds a run's id, by which the table of mounts tells it.
///
/// # Errors
/// When it is.
pub(super) fn refuse_seen(host: &dyn Host, directory: &Path) -> Result<(), StepError> {
    let Some(name) = directory.file_name() else { return Ok(()) };
    let shows = |mount: &&MountEntry| {
        mount.file_system == "btrfs" && mount.root.components().any(|it| it.as_os_str() == name)
    };
    let Some(mount) = host.mounts()?.iter().find(shows).map(|mount| mount.at.clone()) else {
        return Ok(());
    };
    let (directory, at) = (directory.shown(), mount.shown());
    let text = format!("what lies in {directory} is still mounted at {at} — unmount that first");
    Err(StepError::new(Trouble::Cleanup, text))
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
    if let Some(place) = out_of_reach(host, directory, identity) {
        let text = format!("a directory cannot be removed: {place}");
        return Err(StepError::new(Trouble::Cleanup, text));
    }
    if directory.subvolumes {
        refuse_seen(host, &directory.path)?;
    }
    let (path, identity) = (directory.path.clone(), identity.cloned());
    host.act(&Action::RemoveStaging { path, identity })?;
    if directory.subvolumes
        && let Some(above) = directory.path.parent()
        && host.path_state(above)?.is_some()
    {
        host.act(&Action::FlushFileSystem { path: above.to_owned() })?;
    }
    Ok(())
}
