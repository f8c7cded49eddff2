//! A kind of source: what every one has, and what reading one gives.

use std::path::PathBuf;

use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed};
use crate::config::kind::Elements;
use crate::config::section::Section;
use crate::config::source::Span;
use crate::model::job::Source;
use crate::model::shown::Show;

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
    /// What in them is not read: patterns.
    pub exclude: Vec<String>,
    /// The key that says so.
    pub excluded_by: &'static str,
    /// What is mounted in them is not read.
    pub one_file_system: bool,
}

/// Reads the paths that a source protects, of which there must be one, and each once.
pub fn read_paths(
    section: &Section<'_>,
    key: &Key<Elements<PathBuf>>,
    notes: &mut Notes,
) -> Elements<PathBuf> {
    if !section.has(key) {
        let complaint = Complaint::new(format!("{} names no paths", section.key))
            .help(format!("add {} = [\"/…\"]", key.key()));
        notes.missing(section.at, complaint);
    } else if section.is_empty_list(key) {
        let complaint = Complaint::new("the list of paths is empty: nothing would be protected");
        notes.problem(section.value_at(key), complaint);
    }
    let paths = section.list(key);
    for (n, (path, at)) in paths.iter().enumerate() {
        if paths[..n].iter().any(|(earlier, _)| earlier == path) {
            let message = format!("the path {} is listed twice", path.shown());
            notes.problem(*at, Complaint::new(message));
        }
    }
    paths
}
