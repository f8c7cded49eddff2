//! The files as they were read, and spans in them.

use std::path::PathBuf;

/// One configuration file, already read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it was read from; shown in problems.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// A range of bytes in one of the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// Index of the file.
    pub file: usize,
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}
