//! The kinds of capture: one more is a row in each of the two tables here, a variant of [`CaptureUndo`], and a file.

use crate::model::undo::CaptureUndo;

use super::give_back::GiveBack;
use super::offer::Offer;
use super::{btrfs, lvm, lvm_classic, lvm_thin, remount_readonly};

/// The providers, in the order in which they are asked, whether something is chosen by where it is mounted or by its
/// device. What is mounted from LVM need not be held by it.
pub(super) const OFFERS: &[Offer] =
    &[remount_readonly::offer, btrfs::offer, lvm_thin::offer, lvm_classic::offer, lvm::refuse];

/// What knows how to give a capture back: the one place that tells the kinds apart.
pub(super) fn give_back_of(undo: &CaptureUndo) -> &dyn GiveBack {
    match undo {
        CaptureUndo::RemoveSubvolume(snapshot) => snapshot,
        CaptureUndo::RemoveVolume(snapshot) => snapshot,
        CaptureUndo::RemountWritable(mount) => mount,
    }
}
