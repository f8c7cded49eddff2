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
    /// Captures over the original paths, for the engine alone.
    pub view: PrivateView,
}
