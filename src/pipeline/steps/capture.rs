//! How the source is held still, and the look at it before anything reads it.
//!
//! This version has no provider yet: `auto` finds none and says so, and `required` is refused by the
//! configuration. A source is still looked at first, since engines differ in what a missing or empty one
//! means to them, and restic before 0.19 calls it success.

use std::path::PathBuf;

use crate::host::{PathKind, PrivateView};
use crate::model::job::{CaptureMode, FilesSource, Job, Source};
use crate::model::outcome::{Outcome, Trouble};

use crate::pipeline::context::RunContext;
use crate::pipeline::error::StepError;
use crate::pipeline::recorder::{Done, Recorder};

/// A source that was looked at and, where a provider exists, is held still. Only this can be archived.
#[derive(Debug)]
pub struct Captured<'a> {
    pub(super) source: &'a Source,
    pub(super) view: PrivateView,
    /// What is missing or empty; a copy of the rest is incomplete.
    pub(super) gaps: Vec<String>,
}

/// Looks at the source and holds it still.
pub fn capture<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &'a Job,
) -> Option<Captured<'a>> {
    match &job.source {
        Source::Commands(_) => {
            Some(Captured { source: &job.source, view: PrivateView::default(), gaps: Vec::new() })
        }
        Source::Files(files) => {
            if files.capture.mode == CaptureMode::Auto {
                rec.say(
                    true,
                    "no capture provider fits, so files are read live: what changes meanwhile is counted (capture = \"none\" accepts this silently)",
                );
            }
            let gaps = rec.step("source", None, None, |_| look(cx, files))?;
            Some(Captured { source: &job.source, view: PrivateView::default(), gaps })
        }
    }
}

fn look(cx: RunContext<'_>, files: &FilesSource) -> Result<(Vec<String>, Done), StepError> {
    let mut gaps = Vec::new();
    let mut usable = 0;
    for path in &files.paths {
        match cx.host().look(path)? {
            None => gaps.push(format!("{} does not exist", path.display())),
            Some(state)
                if state.kind == PathKind::Directory && state.empty && !files.allow_empty =>
            {
                gaps.push(format!("{} is empty", path.display()));
            }
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

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
