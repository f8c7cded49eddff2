//! `find`: the versions of a file across copies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use glob::{Pattern, PatternError};
use serde::Serialize;

use crate::engine::{Engine, Entry};
use crate::model::bytes;
use crate::model::copy::Copy;
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::engine_lock::bracketed;
use super::select::{self, Unread};

/// What to look for, and in which copies.
#[derive(Debug)]
pub struct Search<'a> {
    /// What names or paths have to match.
    pub pattern: FilePattern,
    /// Only copies of this job.
    pub job: Option<&'a JobName>,
    /// Only copies in this target.
    pub target: Option<&'a TargetName>,
    /// Every copy that has the file, not only those in which it changed.
    pub every_copy: bool,
}

/// A pattern with `*`, `?` and `[ ]`: with a slash in it compared with whole paths, else with names.
#[derive(Debug)]
pub struct FilePattern {
    pattern: Pattern,
    of_paths: bool,
}

impl FilePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Ok(Self { pattern: Pattern::new(text)?, of_paths: text.contains('/') })
    }

    fn matches(&self, path: &Path) -> bool {
        if self.of_paths {
            return self.pattern.matches_path(path);
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        self.pattern.matches(&name.to_string_lossy())
    }
}

/// One version of one file.
#[derive(Debug, Clone, Serialize)]
pub struct Version {
    /// The file's path when the copy was made.
    #[serde(flatten, serialize_with = "bytes::path")]
    pub path: PathBuf,
    /// `-` for a file, `d` for a directory, `l` for a symbolic link; see [`Entry::kind`].
    pub kind: char,
    /// In bytes, where the engine lists it.
    pub size: Option<u64>,
    /// When the file was last written, where the engine lists it.
    pub modified: Option<DateTime<Utc>>,
    /// The target that holds the copy.
    pub target: TargetName,
    /// The id of the copy: the first with this version, or each one when every copy is asked for.
    pub copy: String,
    /// When the copy was made.
    pub time: DateTime<Utc>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The versions, by target and then from the oldest copy on.
    pub versions: Vec<Version>,
    /// What could not be read: versions in it are missing.
    pub unread: Vec<Unread>,
}

/// Searches the copies. A target or a copy that cannot be read is noted, and the search goes on without it.
///
/// # Errors
/// When a name is unknown, or a signal ends the search.
pub fn find(cx: RunContext<'_>, search: &Search<'_>) -> Result<Found, StepError> {
    let mut found = Found::default();
    for target in select::targets_to_read(cx.config(), search.job, search.target)? {
        let engine = cx.pipeline.engine(target);
        match select::finished_copies(cx.pipeline, engine) {
            Ok(copies) => search_target(cx, search, engine, &copies, &mut found)?,
            Err(error) => {
                found.unread.push(Unread::target(cx.pipeline, target, search.target, error));
            }
        }
    }
    Ok(found)
}

/// Searches those of a target's copies that are asked for.
fn search_target(
    cx: RunContext<'_>,
    search: &Search<'_>,
    engine: &dyn Engine,
    copies: &[Copy],
    found: &mut Found,
) -> Result<(), StepError> {
    let target = &engine.target().name;
    let mut last_state = BTreeMap::new();
    for copy in copies.iter().filter(|copy| select::is_of(copy, search.job)) {
        let mut each = |entry: Entry| {
            if !search.pattern.matches(&entry.path) {
                return;
            }
            let state = (entry.size, entry.modified);
            let is_unchanged = last_state.insert(entry.path.clone(), state) == Some(state);
            if search.every_copy || !is_unchanged {
                found.versions.push(version(entry, copy, target));
            }
        };
        let read =
            bracketed(cx, engine, |engine, context| engine.contents(context, copy, &mut each));
        match read {
            Ok(()) => {}
            Err(error) if matches!(error.trouble, Trouble::Signal(_)) => return Err(error),
            Err(error) => {
                let (target, copy) = (target.clone(), Some(copy.id.clone()));
                found.unread.push(Unread { target, copy, error, is_excused: false });
            }
        }
    }
    Ok(())
}

fn version(entry: Entry, copy: &Copy, target: &TargetName) -> Version {
    Version {
        path: entry.path,
        kind: entry.kind,
        size: entry.size,
        modified: entry.modified,
        target: target.clone(),
        copy: copy.id.clone(),
        time: copy.time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_with_a_slash_is_compared_with_paths_and_another_one_with_names() {
        let matches =
            |pattern: &str, path: &str| FilePattern::new(pattern).unwrap().matches(Path::new(path));
        assert!(matches("*.conf", "/etc/a.conf") && matches("/etc/*", "/etc/a.conf"));
        assert!(!matches("etc", "/etc/a.conf") && !matches("/srv/*", "/etc/a.conf"));
        assert!(FilePattern::new("a***").is_err());
    }
}
