//! Giving captures back, whoever made them: after success, after an error and after a crash alike.

use std::time::Duration;

use crate::host::LockError;
use crate::model::undo::{CaptureUndo, Identity, Kept};

use super::kinds::give_back_of;
use super::{CaptureError, Context, Still, btrfs, lock};

/// Gives back one capture. What is already gone is given back. An exclusive capture (see
/// [`super::Provider::is_exclusive`]) must be given back by [`give_back_held`] as long as its lock is held.
///
/// # Errors
/// When it could not be given back, or must not be because it is not ours.
pub fn give_back(
    cx: Context<'_>,
    undo: &CaptureUndo,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    let wanted = give_back_of(undo).lock(cx);
    let _lock = wanted.map(|(key, wait)| lock(cx, &key, wait)).transpose()?;
    give_back_held(cx, undo, identity)
}

/// The same by somebody who holds the lock.
///
/// # Errors
/// See [`give_back`].
pub fn give_back_held(
    cx: Context<'_>,
    undo: &CaptureUndo,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    give_back_of(undo).give_back(cx, identity)
}

/// Whether these two are better given back by [`give_back_together`], since each wait for the disk costs more than all
/// else.
pub fn go_together(one: &CaptureUndo, other: &CaptureUndo) -> bool {
    [one, other].iter().all(|undo| give_back_of(undo).snapshot().is_some())
}

/// Gives back captures of which all [`go_together`], with one wait for the disk, and answers for each in the same order.
///
/// # Errors
/// When nothing is known of any of them; then none counts as given back.
pub fn give_back_together(
    cx: Context<'_>,
    captures: &[(&CaptureUndo, Option<&Identity>)],
) -> Result<Vec<Result<(), CaptureError>>, CaptureError> {
    let mut snapshots = Vec::new();
    for (undo, identity) in captures {
        snapshots.extend(give_back_of(undo).snapshot().map(|snapshot| (snapshot, *identity)));
    }
    if snapshots.len() == captures.len() {
        return btrfs::remove(cx, &snapshots);
    }
    Ok(captures.iter().map(|(undo, identity)| give_back(cx, undo, *identity)).collect())
}

/// What holds still of a capture that an earlier run has kept; `None` when it is gone, or another one lies at its place.
/// A device may have to be activated first.
///
/// # Errors
/// When it cannot be known: the disk that it is on may not be here.
pub fn kept(cx: Context<'_>, kept: &Kept) -> Result<Option<Still>, CaptureError> {
    give_back_of(&kept.undo).still(cx, &kept.identity)
}

/// Lets go on what a provider that was killed holds up: devices that `lvcreate` left suspended.
///
/// # Errors
/// When it cannot be known, or stays held up.
pub fn wake(cx: Context<'_>, undo: &CaptureUndo) -> Result<(), CaptureError> {
    let left = give_back_of(undo);
    // Whoever holds the lock may just be making a capture of its own, and has a device suspended for it.
    let lock = left.lock(cx).map(|(key, _)| lock(cx, &key, Duration::ZERO));
    if matches!(lock, Some(Err(LockError::Busy { .. }))) {
        return Ok(());
    }
    left.wake(cx)
}
