//! How what engines leave in the open is released. `pipeline::engine_undo` carries these out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::bytes;
use super::super::names::TargetName;

/// How to release one thing that an engine has left. One more kind is a variant here and an arm in
/// `pipeline::engine_undo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineUndo {
    /// Release the lock that an engine of this run may have left in a repository, if its process is
    /// proven dead. Never anybody else's lock.
    ReleaseLock(EngineLock),
    /// Unmount a copy that an engine served as a file system, or that was shown where it lies. The end of neither
    /// unmounts it.
    Unmount(ServedMount),
}

impl From<EngineLock> for EngineUndo {
    fn from(lock: EngineLock) -> Self {
        EngineUndo::ReleaseLock(lock)
    }
}

impl From<ServedMount> for EngineUndo {
    fn from(mount: ServedMount) -> Self {
        EngineUndo::Unmount(mount)
    }
}

/// A lock that an engine is about to take in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EngineLock {
    /// The target whose repository it is.
    pub target: TargetName,
    /// The name that the lock bears, which no other machine, container or run gives to its own. Absent in
    /// ledgers of earlier versions, and where locks cannot be given a name: then no lock can be proven ours.
    #[serde(default)]
    pub owner: Option<String>,
}

/// A mount of a copy that is about to be made: by an engine's FUSE program, or of the subvolume that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServedMount {
    /// Where, without links.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// What the engine calls the source of its mounts; nothing of a subvolume.
    pub source: String,
    /// The UUID of the subvolume that is shown there. `None`: a program serves the mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subvolume: Option<String>,
    /// The mounts that were there before, by their numbers: none of them is ours.
    pub before: Vec<u32>,
    /// The boot in which it was made; in a later one it is gone.
    pub boot_id: String,
}
