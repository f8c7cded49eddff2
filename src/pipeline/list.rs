//! `list`: copies, as the targets list them.

use crate::model::copy::{CLOCK_SLACK, Copy};
use crate::model::names::{JobName, TargetName};
use crate::report::closed::told;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::select::{self, Unread};

/// One copy as its target lists it.
#[derive(Debug)]
pub struct Listed {
    /// The target that lists the copy.
    pub target: TargetName,
    /// The copy, with what history knows of it.
    pub copy: Copy,
    /// Whether the engine finished it.
    pub finished: bool,
    /// Whether it is dated later than the clock's slack allows.
    pub in_the_future: bool,
}

/// What the targets list.
#[derive(Debug, Default)]
pub struct Listing {
    /// The copies, by target and then from the oldest on.
    pub copies: Vec<Listed>,
    /// Targets in which nothing is deleted, each with the reason.
    pub closed: Vec<(TargetName, String)>,
    /// Targets that could not be listed.
    pub unread: Vec<Unread>,
}

/// Lists finished copies of jobs. `all` adds what others made in the same repository, and unfinished ones.
///
/// # Errors
/// When a name is unknown, or history cannot be read.
pub fn list(
    pipeline: Pipeline<'_>,
    job: Option<&JobName>,
    target: Option<&TargetName>,
    all: bool,
) -> Result<Listing, StepError> {
    let now = pipeline.host.now();
    let mut listing = Listing::default();
    for target in select::targets_to_read(pipeline.config, job, target)? {
        let (target, engine) = (&target.name, pipeline.engine(target));
        let copies = match select::all_copies(pipeline, engine) {
            Ok(copies) => copies,
            Err(error) => {
                listing.unread.push(Unread { target: target.clone(), copy: None, error });
                continue;
            }
        };
        let why = why_closed(pipeline, target)?;
        listing.closed.extend(why.map(|why| (target.clone(), why)));
        for copy in copies {
            let finished = engine.unfinished(&copy).is_none();
            let series = copy.series.as_ref();
            let is_asked_for =
                series.is_some_and(|series| job.is_none_or(|job| series.job == *job)) && finished;
            if all || is_asked_for {
                let in_the_future = copy.is_in_the_future(now, CLOCK_SLACK);
                let target = target.clone();
                listing.copies.push(Listed { target, copy, finished, in_the_future });
            }
        }
    }
    Ok(listing)
}

/// Why nothing is deleted in a target, as far as history knows.
fn why_closed(pipeline: Pipeline<'_>, target: &TargetName) -> Result<Option<String>, StepError> {
    let Some(history) = pipeline.history else { return Ok(None) };
    let closures = history.closures(target)?;
    Ok((!closures.is_empty()).then(|| told(target, &closures)))
}
