//! A kind of source: what every one has, and what reading one gives.

use std::path::PathBuf;

use crate::config::diagnostic::Notes;
use crate::config::key::Item;
use crate::config::section::Section;
use crate::config::source::Span;
use crate::model::job::Source;

/// A kind of source: its keys, and who reads and judges them.
pub struct SourceKind {
    /// `[jobs.NAME.KIND]`.
    pub item: Item,
    /// Reads the table.
    pub read: fn(&Section<'_>, &mut Notes) -> Option<ReadSource>,
    /// Judges the table and the job's hooks together.
    pub judge_hooks: fn(&Section<'_>, Option<&Section<'_>>, &mut Notes),
}

/// What the table of a source says.
pub struct ReadSource {
    /// What to protect.
    pub source: Source,
    /// The trees that are read, in which a repository must not lie.
    pub trees: Trees,
}

/// Trees of files that a job reads.
#[derive(Debug, Default)]
pub struct Trees {
    /// Their roots, each with its span.
    pub paths: Vec<(PathBuf, Span)>,
    /// What in them is not read.
    pub exclude: Vec<String>,
    /// What is mounted in them is not read.
    pub one_file_system: bool,
}
