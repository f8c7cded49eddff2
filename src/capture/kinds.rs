//! The kinds of capture: one more is a row in each of the two tables here, a variant of [`CaptureUndo`], and a file.

use crate::model::undo::CaptureUndo;

use super::offer::Offer;
use super::releasable::Releasable;
use super::{btrfs, lvm, lvm_classic, lvm_thin, remount_readonly};

/// The providers, in the order in which they are asked, whether something is chosen by where it is mounted or by its
/// device. What is mounted from LVM need not be held by it.
pub(super) const OFFERS: &[Offer] =
    &[remount_readonly::offer, btrfs::offer, lvm_thin::offer, lvm_classic::offer, lvm::refuse];

/// What knows how to release a capture: the one place that tells the kinds apart.
pub(super) fn releasable(undo: &CaptureUndo) -> &dyn Releasable {
    match undo {
        CaptureUndo::RemoveSubvolume(snapshot) => snapshot,
        CaptureUndo::RemoveVolume(snapshot) => snapshot,
        CaptureUndo::RemountWritable(mount) => mount,
        CaptureUndo::RemoveFarSubvolume(snapshot) => snapshot,
    }
}
