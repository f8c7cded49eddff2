//! Makes room in a target at the end of a run, when all of its jobs have had their turn: what goes is the oldest of all that
//! may go there, and not the history of whichever job was the first to find too little space.

use std::collections::BTreeSet;

use crate::model::copy::Series;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::{JobReport, TargetReport};
use crate::model::target::Target;

use super::prune::{Pruned, Request, Ruling, prune, scope};
use super::steps::space;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};
use crate::step::room::is_foretold;

/// Deletes beyond the policies of a target where space must stay free and is lacking, as `prune` does, and names what went
/// in the reports of its jobs. `has_deleted` says whether this run has deleted copies in it; answers whether it has now.
pub(super) fn make_room(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    target: &Target,
    has_deleted: bool,
    jobs: &mut [JobReport],
) -> bool {
    if target.append_only {
        return has_deleted;
    }
    match is_short(cx, target, has_deleted) {
        Ok(true) => {}
        Ok(false) => return has_deleted,
        Err(error) => {
            rec.warn(format!(
                "target {}: no room was made, since it is not known how much there is: {}",
                target.name, error.message
            ));
            return has_deleted;
        }
    }
    let mut gone = Vec::new();
    rec.step("retain", Some(&target.name), None, |_| {
        let request =
            Request { without_copy: without_copy(cx, target, jobs), ..Request::default() };
        let scope = scope(cx.config(), None, Some(&target.name), false)?;
        let pruned = prune(cx, &request, scope)?;
        let is_gone = |it: &&Ruling| pruned.deleted.contains(&it.copy);
        gone.extend(pruned.decisions.iter().filter(is_gone).cloned());
        Ok(((), done(cx, pruned)?))
    });
    for ruling in &gone {
        let job = jobs.iter_mut().find(|job| job.name == ruling.job);
        let mut reports = job.into_iter().flat_map(|job| &mut job.targets);
        if let Some(report) =
            reports.find(|it| (&it.target, &it.item) == (&ruling.target, &ruling.item))
        {
            report.deleted.push(ruling.copy.clone());
        }
    }
    has_deleted || !gone.is_empty()
}

/// Whether there is too little space when all has become free that this run deleted.
fn is_short(cx: RunContext<'_>, target: &Target, has_deleted: bool) -> Result<bool, StepError> {
    let engine = cx.pipeline.engine(target);
    if space::shortage(cx, engine)?.is_none() {
        return Ok(false);
    }
    if !has_deleted || is_foretold(cx.host()) {
        return Ok(true);
    }
    engine.await_freed(cx.engine())?;
    Ok(space::shortage(cx, engine)?.is_some())
}

/// The series of which this run was to make a copy in the target and made no good one. They lose nothing.
fn without_copy(cx: RunContext<'_>, target: &Target, jobs: &[JobReport]) -> BTreeSet<Series> {
    let is_bad = |it: &&TargetReport| {
        let is_excused = matches!(it.outcome, Outcome::Skipped(_));
        it.target == target.name && !it.outcome.is_healthy() && !is_excused
    };
    let of_job = |job: &JobReport| {
        let series = |it: &TargetReport| Series {
            host: cx.config().host_of(&job.name).clone(),
            job: job.name.clone(),
            item: it.item.clone(),
        };
        job.targets.iter().filter(is_bad).map(series).collect::<Vec<Series>>()
    };
    jobs.iter().flat_map(of_job).collect()
}

/// What is said of it.
fn done(cx: RunContext<'_>, pruned: Pruned) -> Result<Done, StepError> {
    let is_spare = |id: &&String| {
        pruned.decisions.iter().any(|it| it.copy == **id && it.reason == Pruned::FOR_SPACE)
    };
    let by_policy = pruned.deleted.iter().filter(|id| !is_spare(id)).count();
    let by_policy = (by_policy > 0)
        .then(|| format!("{by_policy} that no rule keeps {}deleted", cx.tense("", "would be ")));
    let said = by_policy.into_iter().chain(pruned.space).chain(pruned.refusals);
    let said = said.chain(pruned.failures).collect::<Vec<_>>().join("; ");
    let is_minor = |trouble: &&Trouble| matches!(trouble, Trouble::Warning | Trouble::Busy);
    if let Some(trouble) = pruned.troubles.iter().find(|trouble| !is_minor(trouble)) {
        return Err(StepError::new(*trouble, said));
    }
    match pruned.troubles.is_empty() {
        true => Ok(Done::ok(said)),
        false => Ok(Done::with(Outcome::Warning, Trouble::Warning, said)),
    }
}
