//! How captures are released. The room that makes them (`capture`) is the one that carries these out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::bytes;

/// How to release one capture. One more kind is a variant here and its rows in `capture::kinds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureUndo {
    /// Delete a read-only btrfs snapshot.
    RemoveSubvolume(SubvolumeSnapshot),
    /// Remove an LVM snapshot, after repairing what a killed `lvcreate` may have left of it.
    RemoveVolume(VolumeSnapshot),
    /// Make a file system writable again.
    RemountWritable(ReadOnlyMount),
}

impl CaptureUndo {
    /// The LVM snapshot that it is about: each takes room in its group or pool from the next.
    pub fn volume(&self) -> Option<&VolumeSnapshot> {
        match self {
            CaptureUndo::RemoveVolume(snapshot) => Some(snapshot),
            CaptureUndo::RemoveSubvolume(_) | CaptureUndo::RemountWritable(_) => None,
        }
    }
}

impl From<SubvolumeSnapshot> for CaptureUndo {
    fn from(snapshot: SubvolumeSnapshot) -> Self {
        CaptureUndo::RemoveSubvolume(snapshot)
    }
}

impl From<VolumeSnapshot> for CaptureUndo {
    fn from(snapshot: VolumeSnapshot) -> Self {
        CaptureUndo::RemoveVolume(snapshot)
    }
}

impl From<ReadOnlyMount> for CaptureUndo {
    fn from(mount: ReadOnlyMount) -> Self {
        CaptureUndo::RemountWritable(mount)
    }
}

/// A btrfs snapshot, known before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SubvolumeSnapshot {
    /// The UUID of the file system. Ledgers of earlier versions do not say it.
    #[serde(default)]
    pub file_system: Option<String>,
    /// A device of the file system, by which its top-level subvolume can be mounted.
    #[serde(with = "bytes::exact")]
    pub device: PathBuf,
    /// Where the file system was mounted: devices change their names over a reboot, this does not.
    #[serde(with = "bytes::exact")]
    pub mounted_at: PathBuf,
    /// The snapshot's name in the top-level subvolume; holds the run id.
    pub name: String,
    /// The UUID of the subvolume it is a snapshot of.
    pub origin: String,
}

/// An LVM snapshot, known before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VolumeSnapshot {
    /// The name of its volume group.
    pub group: String,
    /// The group's UUID. Ledgers of earlier versions do not say it.
    #[serde(default)]
    pub group_uuid: Option<String>,
    /// The snapshot's name; holds the run id.
    pub name: String,
    /// The tag that is set by the same command that makes it.
    pub tag: String,
    /// The name of its origin.
    pub origin: String,
    /// The UUID of its origin.
    pub origin_uuid: String,
    /// In which pool it lies, if it is thin.
    pub thin: Option<ThinSnapshot>,
}

/// What a thin snapshot's pool was like just before it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ThinSnapshot {
    /// The pool's name.
    pub pool: String,
    /// The pool's UUID.
    pub pool_uuid: String,
    /// The device id that lvm2 gives the snapshot: the highest one in the pool, plus one.
    pub device_id: u64,
    /// The pool's transaction id before.
    pub transaction_id: u64,
}

/// A file system that is about to be made read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReadOnlyMount {
    /// Where it is mounted.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// Its device: major, minor. Another one at the same place is not ours.
    pub device: (u32, u32),
    /// The boot in which it was made read-only; in a later one it is as that boot mounted it.
    #[serde(alias = "boot_id")]
    pub boot_id: String,
}
