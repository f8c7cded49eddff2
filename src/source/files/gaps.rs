//! The look at a source before anything reads it: engines differ in what a missing or empty one means to
//! them, and restic before 0.19 calls it success.

use std::path::{Path, PathBuf};

use crate::config::excluded;
use crate::host::{Host, PathKind};
use crate::model::job::FilesSource;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::shown::{self, Show};

use crate::step::error::StepError;
use crate::step::recorder::Done;

use super::preflight::shown as listed;
use super::roots::{Roots, tag_in};

/// Why a path of a job is not copied as it was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Gap {
    /// Nothing is there.
    #[error("does not exist")]
    Missing,
    /// A directory with nothing in it.
    #[error("is empty")]
    Empty,
    /// A link, by what it leads to.
    #[error("is a symbolic link, of which only the link itself would be stored: name {} instead", .0.shown())]
    Link(PathBuf),
    /// The same directory as another path, or as something in it.
    #[error("is another name of {}, and the copy holds it under that name alone: take one of the two from paths", .0.shown())]
    Alias(PathBuf),
    /// The job's own patterns cover it.
    #[error("is taken away whole by the job's own exclude patterns")]
    Excluded,
    /// A tag in it keeps its content out.
    #[error("holds {}, so the job leaves out what is in it", shown::text(.0))]
    Tagged(String),
}

impl Gap {
    /// What to do about it, if the error does not say it.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Gap::Missing | Gap::Empty => {
                Some("is a file system not mounted? (allow-empty = true accepts empty directories)")
            }
            Gap::Excluded => Some("change exclude, or take the path from paths"),
            Gap::Tagged(_) => {
                Some("take the file away, or change exclude-caches and exclude-if-present")
            }
            Gap::Link(_) | Gap::Alias(_) => None,
        }
    }
}

/// What came of comparing a job's paths, which not every one of them needs.
pub(super) type Compared = Result<Roots, StepError>;

/// Looks at one path of a job, of which all were compared.
///
/// # Errors
/// When it cannot be looked at, or compared.
pub(super) fn gap(
    host: &dyn Host,
    files: &FilesSource,
    compared: &Compared,
    path: &Path,
) -> Result<Option<Gap>, StepError> {
    let Some(state) = host.path_state(path)? else { return Ok(Some(Gap::Missing)) };
    // What a link leads to may be empty, but it is not what would be stored.
    if is_link(host, path) {
        return Ok(Some(Gap::Link(host.canonical(path))));
    }
    if excluded(path, &files.exclude) {
        return Ok(Some(Gap::Excluded));
    }
    let roots = compared.as_ref().map_err(Clone::clone)?;
    if let Some((_, name)) = roots.aliases.iter().find(|(alias, _)| alias == path) {
        return Ok(Some(Gap::Alias(name.clone())));
    }
    if state.kind == PathKind::Directory
        && let Some(tag) = tag_in(host, files, path)?
    {
        return Ok(Some(Gap::Tagged(tag)));
    }
    let is_empty = state.kind == PathKind::Directory && state.empty && !files.allow_empty;
    Ok(is_empty.then_some(Gap::Empty))
}

/// Finds the paths of a job that are missing, empty or only a link. Answers with each in words.
///
/// # Errors
/// When there is nothing to back up at all, or a path cannot be read.
pub(super) fn find_gaps(
    host: &dyn Host,
    files: &FilesSource,
    compared: &Compared,
) -> Result<(Vec<String>, Done), StepError> {
    let mut gaps = Vec::new();
    let mut hint = None;
    for path in &files.paths {
        if let Some(gap) = gap(host, files, compared, path)? {
            hint = hint.or(gap.hint());
            gaps.push(format!("{} {gap}", path.shown()));
        }
    }
    if gaps.len() == files.paths.len() {
        let hint = hint.map(|hint| format!(" — {hint}")).unwrap_or_default();
        let message = format!("there is nothing to back up: {}{hint}", gaps.join(", "));
        return Err(StepError::new(Trouble::JobFailed, message));
    }
    let done = if gaps.is_empty() {
        Done::ok(listed(&files.paths))
    } else {
        Done::with(Outcome::Incomplete, Trouble::Incomplete, gaps.join(", "))
    };
    Ok((gaps, done))
}

/// Whether the last part of a path is a link: engines follow those before it, and store that one.
fn is_link(host: &dyn Host, path: &Path) -> bool {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
    host.canonical(path) != host.canonical(parent).join(name)
}
