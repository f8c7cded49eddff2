//! `list`: copies, as the targets list them.

use crate::model::copy::{CLOCK_SLACK, Copy};
use crate::model::names::{JobName, TargetName};
use crate::report::closed::told;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::closed;
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
    for of in select::targets_to_read(pipeline.config, job, target)? {
        let engine = pipeline.engine(of);
        let copies = match select::all_copies(pipeline, engine) {
            Ok(copies) => copies,
            Err(error) => {
                listing.unread.push(Unread::target(pipeline, of, target, error));
                continue;
            }
        };
        let target = &of.name;
        let closures = closed::known(pipeline, target)?;
        if !closures.is_empty() {
            listing.closed.push((target.clone(), told(target, &closures)));
        }
        for copy in copies {
            let finished = engine.unfinished(&copy).is_none();
            if all || finished && select::is_of(&copy, job) {
                let in_the_future = copy.is_in_the_future(now, CLOCK_SLACK);
                let target = target.clone();
                listing.copies.push(Listed { target, copy, finished, in_the_future });
            }
        }
    }
    Ok(listing)
}
