//! Goes on with a copy that an earlier run began and did not get to the end of.

use crate::engine::{BackupRequest, Engine};
use crate::model::copy::Series;

use crate::pipeline::engine_lock::bracketed;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};

use super::archive::{Batch, archive, request};
use super::observe::{Replicated, observe};

/// Finishes the copy of a series that the last run which tried left begun in a target: it becomes one of that run and its
/// time, and what the next is a difference to. Answers whether this run may make its own; while another one waits to be
/// finished, that would begin from nothing.
pub fn go_on(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    batch: Batch<'_>,
    engine: &dyn Engine,
    series: &Series,
) -> bool {
    let request = match begun(cx, rec, batch, engine, series) {
        Some(Some(request)) => request,
        Some(None) => return true,
        None => return false,
    };
    let Some(archived) = archive(cx, rec, batch, engine, &request) else {
        return false;
    };
    let seen = observe(cx, rec, batch.job, engine, Replicated::made_here(vec![archived]));
    seen.is_some_and(|seen| !seen.observed.is_empty()) && cx.host().stop_signal().is_none()
}

/// What the last run that tried asked for, if there is a part of it in the target with which to go on; `None` when the target
/// does not tell.
pub fn begun(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    batch: Batch<'_>,
    engine: &dyn Engine,
    series: &Series,
) -> Option<Option<BackupRequest>> {
    if !engine.resumes() {
        return Some(None);
    }
    let request = match asked_for(cx, rec, batch, engine, series) {
        Ok(Some(request)) => request,
        Ok(None) => return Some(None),
        Err(error) => {
            rec.warn(error.message);
            return Some(None);
        }
    };
    let (run, target) = (&request.run, &engine.target().name);
    let is_there = rec.step("resume", Some(target), series.item.as_deref(), |_| {
        let is_there =
            bracketed(cx, engine, |engine, context| engine.has_begun(context, &request))?;
        let done = match is_there {
            true => format!("goes on with the copy that run {run} began"),
            false => format!("nothing is there to go on with of what run {run} began"),
        };
        Ok((is_there, Done::ok(done)))
    })?;
    Some(is_there.then_some(request))
}

/// What the run asked for that tried last, if its snapshot is there still.
fn asked_for(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    batch: Batch<'_>,
    engine: &dyn Engine,
    series: &Series,
) -> Result<Option<BackupRequest>, StepError> {
    let target = engine.target();
    let Some(history) = cx.pipeline.history else { return Ok(None) };
    let attempt = history.unfinished_attempt(&target.name, series, cx.host().now())?;
    let Some(attempt) = attempt.filter(|attempt| attempt.run != *cx.run) else { return Ok(None) };
    let Some(uuid) = &attempt.snapshot else { return Ok(None) };
    let input = batch.held.input_of(cx, &series.item, target, uuid);
    let Some(input) = input else { return Ok(None) };
    let of_then = RunContext { run: &attempt.run, ..cx };
    Ok(Some(request(of_then, rec, series, attempt.time, input)))
}
