//! What each kind of capture answers when it is to be released.

use std::time::Duration;

use crate::model::undo::{Identity, SubvolumeSnapshot};

use super::{CaptureError, Context, Still};

/// How long the lock of a volume is waited for when something is released, whatever the settings say:
/// a snapshot that is left grows.
pub(super) const LOCK_WAIT_TO_RELEASE: Duration = Duration::from_secs(600);

/// How one kind of capture is released; beside the provider that makes it.
pub(super) trait Releasable {
    /// The lock that is needed, and how long it is waited for.
    fn lock(&self, _: Context<'_>) -> Option<(String, Duration)> {
        None
    }

    /// Releases it, under that lock. What is already gone is released.
    fn release(&self, cx: Context<'_>, identity: Option<&Identity>) -> Result<(), CaptureError>;

    /// What holds still of it, if it is there and the one that was made. Nothing does that is never kept.
    fn still(&self, _: Context<'_>, _: &Identity) -> Result<Option<Still>, CaptureError> {
        Ok(None)
    }

    /// Whether it is known to be on something that is not here now, where nothing can be released.
    fn is_away(&self, cx: Context<'_>, identity: &Identity) -> bool {
        matches!(self.still(cx, identity), Err(CaptureError::Unfit { .. }))
    }

    /// Lets go on what a provider that was killed holds up, so that the machine can be written to at all.
    fn wake(&self, _: Context<'_>) -> Result<(), CaptureError> {
        Ok(())
    }

    /// The snapshot of btrfs that it is. Several of them wait for the disk together.
    fn snapshot(&self) -> Option<&SubvolumeSnapshot> {
        None
    }
}
