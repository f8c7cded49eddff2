//! A subvolume that waits beside another one to take its place.

use std::path::PathBuf;

use crate::host::{Action, Host, SubvolumeAction, device_of_btrfs};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::WaitingSubvolume;

use crate::step::error::StepError;

/// Deletes what waits. Where the two have changed places, the other one lies there, and stays.
///
/// # Errors
/// When it cannot be looked at or deleted.
pub(super) fn remove(host: &dyn Host, waiting: &WaitingSubvolume) -> Result<(), StepError> {
    let device = device_of(host, waiting)?;
    let path = waiting.path.clone();
    let found = host.subvolume_on(&device, &path)?;
    if let Some(found) = found.filter(|found| found.uuid.as_ref() == Some(&waiting.uuid)) {
        let device = device.clone();
        host.act(&Action::Subvolume(SubvolumeAction::DeleteWhole { device, path, found }))?;
    }
    // Also where it is gone: a power cut could have it wait there again.
    let file_system = Some(waiting.file_system.clone());
    host.act(&Action::Subvolume(SubvolumeAction::CommitDeletions { device, file_system }))?;
    Ok(())
}

/// A device of its file system.
fn device_of(host: &dyn Host, waiting: &WaitingSubvolume) -> Result<PathBuf, StepError> {
    let (wanted, known) = (&waiting.file_system, &waiting.device);
    device_of_btrfs(host, &host.mounts()?, wanted, None, known).ok_or_else(|| {
        let text = format!(
            "the btrfs {} is not here, and {} may be in it — mount it and run `stillpoint recover`",
            waiting.file_system,
            waiting.path.shown()
        );
        StepError::new(Trouble::Cleanup, text)
    })
}
