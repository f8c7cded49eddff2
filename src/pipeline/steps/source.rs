//! The look at a source before anything reads it: engines differ in what a missing or empty one means to
//! them, and restic before 0.19 calls it success.

use std::path::Path;

use crate::host::{Host, PathKind};
use crate::model::job::FilesSource;
use crate::model::outcome::{Outcome, Trouble};

use crate::pipeline::error::StepError;
use crate::pipeline::recorder::Done;

use super::foresee::shown;

/// Looks at every path of a job. Answers with what is missing, empty or only a link.
///
/// # Errors
/// When there is nothing to back up at all, or a path cannot be looked at.
pub(super) fn look(host: &dyn Host, files: &FilesSource) -> Result<(Vec<String>, Done), StepError> {
    let mut gaps = Vec::new();
    let mut usable = 0;
    for path in &files.paths {
        match host.look(path)? {
            None => gaps.push(format!("{} does not exist", path.display())),
            Some(state)
                if state.kind == PathKind::Directory && state.empty && !files.allow_empty =>
            {
                gaps.push(format!("{} is empty", path.display()));
            }
            Some(_) if is_link(host, path) => gaps.push(format!(
                "{} is a symbolic link, of which only the link itself would be stored: name {} instead",
                path.display(),
                host.canonical(path).display()
            )),
            Some(_) => usable += 1,
        }
    }
    if usable == 0 {
        return Err(StepError::new(
            Trouble::JobFailed,
            format!(
                "there is nothing to back up: {} — is a file system not mounted? (allow-empty = true accepts empty directories)",
                gaps.join(", ")
            ),
        ));
    }
    let done = if gaps.is_empty() {
        Done::ok(shown(&files.paths))
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
