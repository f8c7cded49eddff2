//! How captures are released. The room that makes them (`capture`) is the one that carries these out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::bytes;
use super::super::names::HostName;
use super::super::target::Server;

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
    /// Delete a read-only btrfs snapshot on another machine.
    RemoveFarSubvolume(FarSnapshot),
}

impl CaptureUndo {
    /// The btrfs snapshot that it is about: no other one can have its name.
    pub fn subvolume(&self) -> Option<&SubvolumeSnapshot> {
        match self {
            CaptureUndo::RemoveSubvolume(snapshot) => Some(snapshot),
            CaptureUndo::RemoveVolume(_)
            | CaptureUndo::RemountWritable(_)
            | CaptureUndo::RemoveFarSubvolume(_) => None,
        }
    }

    /// The snapshot on another machine that it is about.
    pub fn far(&self) -> Option<&FarSnapshot> {
        match self {
            CaptureUndo::RemoveFarSubvolume(snapshot) => Some(snapshot),
            CaptureUndo::RemoveSubvolume(_)
            | CaptureUndo::RemoveVolume(_)
            | CaptureUndo::RemountWritable(_) => None,
        }
    }

    /// The LVM snapshot that it is about: each takes room in its group or pool from the next.
    pub fn volume(&self) -> Option<&VolumeSnapshot> {
        match self {
            CaptureUndo::RemoveVolume(snapshot) => Some(snapshot),
            CaptureUndo::RemoveSubvolume(_)
            | CaptureUndo::RemountWritable(_)
            | CaptureUndo::RemoveFarSubvolume(_) => None,
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

impl From<FarSnapshot> for CaptureUndo {
    fn from(snapshot: FarSnapshot) -> Self {
        CaptureUndo::RemoveFarSubvolume(snapshot)
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

/// A btrfs snapshot on another machine, known before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FarSnapshot {
    /// The name of that machine.
    pub host: HostName,
    /// How that machine is reached, and the directory there in which the snapshot is.
    pub server: Server,
    /// The number of the file system and the subvolume that the directory is in: with another one there, nothing is known of the snapshot.
    pub file_system: u64,
    /// The same of the directory above it: with another one there, nothing is known of a directory that is missing.
    pub above: u64,
    /// The name of its own directory in that; holds the run id.
    pub name: String,
    /// The UUID of the subvolume it is a snapshot of.
    pub origin: String,
}

impl FarSnapshot {
    /// The same snapshot, where its machine is reached in another way than when it was made.
    /// `None`: that is the way to another machine.
    pub fn reached_by(&self, host: &HostName, server: &Server) -> Option<FarSnapshot> {
        let directory = self.server.directory.clone();
        let server = Server { directory, ..server.clone() };
        (*host == self.host).then(|| FarSnapshot { server, ..self.clone() })
    }

    /// The directory of that machine that it alone is in.
    pub fn place(&self) -> PathBuf {
        self.server.directory.join(&self.name)
    }

    /// Where it is, on that machine.
    pub fn path(&self) -> PathBuf {
        self.place().join("snapshot")
    }
}
