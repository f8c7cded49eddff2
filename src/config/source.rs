//! The files as they were read, and places in them.

use std::path::PathBuf;

/// One configuration file, already read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it was read from; shown in problems.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// Bytes of one of the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index of the file.
    pub file: usize,
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}
