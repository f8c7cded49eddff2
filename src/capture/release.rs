//! Releasing captures, whoever made them: after success, after an error and after a crash alike.

use std::time::Duration;

use crate::host::LockError;
use crate::model::undo::{CaptureUndo, Identity, Kept};

use super::kinds::releasable;
use super::{CaptureError, Context, Still, btrfs, lock};

/// Releases one capture. What is already gone is released. An exclusive capture (see
/// [`super::Provider::is_exclusive`]) must be released by [`release_held`] as long as its lock is held.
///
/// # Errors
/// When it could not be released, or must not be because it is not ours.
pub fn release(
    cx: Context<'_>,
    undo: &CaptureUndo,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    let wanted = releasable(undo).lock(cx);
    let _lock = wanted.map(|(key, wait)| lock(cx, &key, wait)).transpose()?;
    release_held(cx, undo, identity)
}

/// The same by somebody who holds the lock.
///
/// # Errors
/// See [`release`].
pub fn release_held(
    cx: Context<'_>,
    undo: &CaptureUndo,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    releasable(undo).release(cx, identity)
}

/// Whether these two are better released by [`release_together`], since each wait for the disk costs more than all
/// else.
pub fn go_together(one: &CaptureUndo, other: &CaptureUndo) -> bool {
    [one, other].iter().all(|undo| releasable(undo).snapshot().is_some())
}

/// Releases captures of which all [`go_together`], with one wait for the disk, and answers for each in the same order.
///
/// # Errors
/// When nothing is known of any of them; then none counts as released.
pub fn release_together(
    cx: Context<'_>,
    captures: &[(&CaptureUndo, Option<&Identity>)],
) -> Result<Vec<Result<(), CaptureError>>, CaptureError> {
    let mut snapshots = Vec::new();
    for (undo, identity) in captures {
        snapshots.extend(releasable(undo).snapshot().map(|snapshot| (snapshot, *identity)));
    }
    if snapshots.len() == captures.len() {
        return btrfs::remove(cx, &snapshots);
    }
    Ok(captures.iter().map(|(undo, identity)| release(cx, undo, *identity)).collect())
}

/// What holds still of a capture that an earlier run has kept; `None` when it is gone, or another one lies at its place.
/// A device may have to be activated first.
///
/// # Errors
/// When it cannot be known: the disk that it is on may not be here.
pub fn kept(cx: Context<'_>, kept: &Kept) -> Result<Option<Still>, CaptureError> {
    releasable(&kept.undo).still(cx, &kept.identity)
}

/// Whether a capture that an earlier run has kept is known to be on something that is not here now, such as a disk.
pub fn is_away(cx: Context<'_>, kept: &Kept) -> bool {
    releasable(&kept.undo).is_away(cx, &kept.identity)
}

/// Lets go on what a provider that was killed holds up: devices that `lvcreate` left suspended.
///
/// # Errors
/// When it cannot be known, or stays held up.
pub fn wake(cx: Context<'_>, undo: &CaptureUndo) -> Result<(), CaptureError> {
    let left = releasable(undo);
    // Whoever holds the lock may just be making a capture of its own, and has a device suspended for it.
    let lock = left.lock(cx).map(|(key, _)| lock(cx, &key, Duration::ZERO));
    if matches!(lock, Some(Err(LockError::Busy { .. }))) {
        return Ok(());
    }
    left.wake(cx)
}
