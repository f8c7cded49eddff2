//! What is done to subvolumes of btrfs, as values.

use std::path::PathBuf;

use super::sys::subvolumes::Subvolume;
use crate::model::shown::Show;

/// Something that is done to a subvolume of btrfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubvolumeAction {
    /// Makes a read-only btrfs snapshot in the top-level subvolume. Answers with its identity. Whatever lies at
    /// the origin's path by then, it is a snapshot of this subvolume or there is none.
    MakeSnapshot {
        /// The block device of the file system.
        device: PathBuf,
        /// The subvolume that it is made of.
        origin: Subvolume,
        /// Where that was found; for people.
        path: PathBuf,
        /// The snapshot's name.
        name: String,
    },
    /// Deletes a btrfs subvolume by its path from the top-level one on, if it is still the one that was looked at. A
    /// power cut brings it back unless [`SubvolumeAction::CommitDeletions`] came in between.
    DeleteSnapshot {
        /// The block device of the file system.
        device: PathBuf,
        /// Its path, or the name of a snapshot in the top-level subvolume.
        name: PathBuf,
        /// What was found there.
        found: Subvolume,
    },
    /// Deletes a btrfs subvolume by its path from the top-level one on with all that lie in it, if it is still the one that
    /// was looked at. A power cut brings back some of them unless [`SubvolumeAction::CommitDeletions`] comes in between.
    DeleteWhole {
        /// The block device of the file system.
        device: PathBuf,
        /// Its path.
        path: PathBuf,
        /// What was found there.
        found: Subvolume,
    },
    /// Waits until a power cut cannot bring back what was deleted from a btrfs by now, by whomever.
    CommitDeletions {
        /// A block device of the file system.
        device: PathBuf,
        /// The UUID of the file system: with another one there, nothing is known of this one. `None` where nobody
        /// wrote it down.
        file_system: Option<String>,
    },
    /// Gives a subvolume another name in the directory in which it lies, if it is still the one that was looked at.
    /// Whatever has that name already stays.
    RenameSubvolume {
        /// Where it is.
        path: PathBuf,
        /// Its new name.
        name: String,
        /// What was found there.
        found: Subvolume,
    },
    /// Deletes a subvolume, if it is still the one that was looked at. A power cut brings it back unless
    /// [`FlushFileSystem`](super::Action::FlushFileSystem) comes in between.
    DeleteSubvolume {
        /// Where it is.
        path: PathBuf,
        /// What was found there.
        found: Subvolume,
    },
    /// Makes a writable snapshot of a subvolume, if that is still the one that was looked at, which forgets what it was
    /// received as. Answers with the identity of what was made.
    MakeWritable {
        /// Where the subvolume is.
        path: PathBuf,
        /// What was found there.
        found: Subvolume,
        /// Where the snapshot is to be; nothing is there.
        at: PathBuf,
    },
    /// Moves a subvolume to another place in its file system, if it is still the one that was looked at. Whatever is there
    /// already stays.
    MoveSubvolume {
        /// The block device of the file system.
        device: PathBuf,
        /// Its path, from the top-level subvolume on.
        from: PathBuf,
        /// What was found there.
        found: Subvolume,
        /// The new one.
        to: PathBuf,
    },
    /// Has two subvolumes change their places in one step, if both are still what was looked at.
    ExchangeSubvolumes {
        /// The block device of the file system.
        device: PathBuf,
        /// The one.
        one: Box<Located>,
        /// The other.
        other: Box<Located>,
    },
}

/// A subvolume at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its path, from the top-level subvolume on.
    pub path: PathBuf,
    /// What was found there.
    pub found: Subvolume,
}

impl SubvolumeAction {
    /// What it does, in one line for a plan or a log.
    pub(super) fn summary(&self) -> String {
        match self {
            SubvolumeAction::MakeSnapshot { device, path, name, .. } => {
                format!("make the btrfs snapshot {name} of {} on {}", path.shown(), device.shown())
            }
            SubvolumeAction::DeleteSnapshot { device, name, .. } => {
                format!("delete the btrfs snapshot {} on {}", name.shown(), device.shown())
            }
            SubvolumeAction::DeleteWhole { device, path, .. } => {
                format!(
                    "delete the subvolume {} on {} and what lies in it",
                    path.shown(),
                    device.shown()
                )
            }
            SubvolumeAction::CommitDeletions { device, .. } => {
                format!(
                    "wait until what was deleted from the btrfs on {} is gone for good",
                    device.shown()
                )
            }
            SubvolumeAction::RenameSubvolume { path, name, .. } => {
                format!("rename the subvolume {} to {name}", path.shown())
            }
            SubvolumeAction::DeleteSubvolume { path, .. } => {
                format!("delete the subvolume {}", path.shown())
            }
            SubvolumeAction::MakeWritable { path, at, .. } => {
                format!("make the writable snapshot {} of {}", at.shown(), path.shown())
            }
            SubvolumeAction::MoveSubvolume { device, from, to, .. } => format!(
                "move the subvolume {} on {} to {}",
                from.shown(),
                device.shown(),
                to.shown()
            ),
            SubvolumeAction::ExchangeSubvolumes { device, one, other } => format!(
                "exchange the subvolumes {} and {} on {}",
                one.path.shown(),
                other.path.shown(),
                device.shown()
            ),
        }
    }
}
