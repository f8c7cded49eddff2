//! Giving captures back, whoever made them: after success, after an error and after a crash alike.

use std::time::Duration;

use crate::host::LockError;
use crate::model::undo::{Identity, SubvolumeSnapshot, Undo, VolumeSnapshot};

use super::{CaptureError, Room, btrfs, lock, lvm, mismatch, remount_readonly, repair};

/// How long the lock of a volume is waited for when something is given back, whatever the settings say:
/// a snapshot that is left grows.
const LOCK_WAIT_TO_GIVE_BACK: Duration = Duration::from_secs(600);

/// Gives back one capture. What is already gone is given back. An exclusive capture (see
/// [`super::Provider::is_exclusive`]) must be given back by [`give_back_held`] as long as its lock is held.
///
/// # Errors
/// When it could not be given back, or must not be because it is not ours.
pub fn give_back(
    room: Room<'_>,
    undo: &Undo,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    let _lock = match undo {
        Undo::RemoveVolume(snapshot) => {
            Some(lock(room, &lvm::lock_key(&snapshot.group), LOCK_WAIT_TO_GIVE_BACK)?)
        }
        // Held by whoever reads it now, for as long as that takes.
        Undo::RemountWritable { device, .. } => {
            Some(lock(room, &remount_readonly::lock_key(*device), room.settings.lock_wait)?)
        }
        Undo::RemoveSubvolume(_)
        | Undo::RemoveStaging { .. }
        | Undo::RunHook { .. }
        | Undo::ReleaseEngineLock { .. }
        | Undo::Thaw { .. }
        | Undo::Unmount(_) => None,
    };
    give_back_held(room, undo, identity)
}

/// Gives back several btrfs snapshots with one wait for the disk, and answers for each in the same order.
///
/// # Errors
/// When nothing is known of any of them; then none counts as given back.
pub fn give_back_snapshots(
    room: Room<'_>,
    snapshots: &[(&SubvolumeSnapshot, Option<&Identity>)],
) -> Result<Vec<Result<(), CaptureError>>, CaptureError> {
    btrfs::remove(room, snapshots)
}

/// The same by somebody who holds the lock.
///
/// # Errors
/// See [`give_back`].
pub fn give_back_held(
    room: Room<'_>,
    undo: &Undo,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    match undo {
        Undo::RemoveSubvolume(snapshot) => {
            btrfs::remove(room, &[(snapshot, identity)])?.into_iter().collect()
        }
        Undo::RemoveVolume(snapshot) => lvm::remove(room, snapshot, identity),
        Undo::RemountWritable { path, device, boot_id } => {
            remount_readonly::undo(room, path, *device, boot_id)
        }
        // To settle what was not given back would be to forget it.
        Undo::RemoveStaging { .. }
        | Undo::RunHook { .. }
        | Undo::ReleaseEngineLock { .. }
        | Undo::Thaw { .. }
        | Undo::Unmount(_) => Err(mismatch("what is to be given back is no capture")),
    }
}

/// Lets the devices go on that a killed `lvcreate` left suspended.
///
/// # Errors
/// When device-mapper cannot be asked, or a device stays suspended.
pub fn wake(room: Room<'_>, snapshot: &VolumeSnapshot) -> Result<(), CaptureError> {
    // Whoever holds the lock may just be making a snapshot of its own, and has a device suspended for it.
    let lock = lock(room, &lvm::lock_key(&snapshot.group), Duration::ZERO);
    if matches!(lock, Err(LockError::Busy { .. })) {
        return Ok(());
    }
    repair::resume(room, snapshot)
}
