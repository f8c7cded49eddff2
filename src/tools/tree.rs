//! What of the machine an engine is told to read.

use std::path::PathBuf;

use crate::host::PrivateView;

/// Files and directories to back up.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Absolute paths, none of which lies in another one.
    pub paths: Vec<PathBuf>,
    /// Exclude patterns in restic's dialect.
    pub exclude: Vec<String>,
    /// Skip the content of directories that hold a `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Skip the content of directories that hold a file of one of these names.
    pub exclude_if_present: Vec<String>,
    /// Do not cross into other file systems.
    pub one_file_system: bool,
    /// Cut files into blocks of so many bytes instead of where their content suggests it: for images of volumes, in which
    /// content stays at its place, so that a small random write stays a small change. A power of two, from 64 bytes to
    /// 8 MiB. borg does so from 1.2 on; restic has nothing of the kind and cuts as it always does.
    pub block_size: Option<u32>,
    /// Captures over the original paths, for the engine alone.
    pub view: PrivateView,
}
