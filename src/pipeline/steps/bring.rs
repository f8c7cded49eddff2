//! Brings a target what it is to get of an item: a copy of what is held still, or of snapshots that were there before.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use crate::engine::{BackupRequest, Engine, Input, Seat};
use crate::model::copy::{CLOCK_SLACK, Series};
use crate::model::event::Progress;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::target::Target;

use crate::pipeline::engine_lock::bracketed;
use crate::source::{Due, DueSnapshot, Item, series_of};
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};

use super::archive::{Archived, Batch, archive, request};
use super::go_on::{begun, go_on};
use super::observe::{Replicated, observe};

/// What a target got of an item.
pub enum Brought {
    /// A copy, which is to be looked for. Those that came before it were seen.
    Copy(Box<Archived>),
    /// Nothing, since it has all there is; and how good that is.
    UpToDate(Outcome),
    /// Nothing; the record says why.
    Nothing,
}

/// Brings a target what it is to get of one item.
pub fn bring(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    batch: Batch<'_>,
    target: &Target,
    item: &Item,
) -> Brought {
    let engine = cx.pipeline.engine(target);
    let series = series_of(cx.pipeline, batch.job, item.clone());
    let archived = match batch.held.due(cx, item, target) {
        Ok(Due::Now) => make(cx, rec, batch, engine, &series),
        Ok(Due::These { snapshots, remark }) => {
            if let Some(remark) = remark {
                rec.say(true, format!("target {}, {series}: {remark}", target.name));
            }
            send(cx, rec, batch, engine, &series, snapshots.into())
        }
        Ok(Due::Nothing { why, lacks }) => {
            let done = match lacks {
                None => Done::skipped(why),
                Some(lacks) => {
                    let detail = format!("{why}, but {lacks}");
                    Done::with(Outcome::Incomplete, Trouble::Incomplete, detail)
                }
            };
            let outcome = done.outcome.clone();
            rec.step("backup", Some(&target.name), item.as_deref(), |_| Ok(((), done)));
            return Brought::UpToDate(outcome);
        }
        Err(error) => {
            not_brought(rec, target, &series, error);
            None
        }
    };
    archived.map_or(Brought::Nothing, |archived| Brought::Copy(Box::new(archived)))
}

fn not_brought(rec: &mut Recorder<'_>, target: &Target, series: &Series, error: StepError) {
    let failed = |_: &mut dyn FnMut(Progress)| Err::<((), Done), _>(error);
    rec.step("backup", Some(&target.name), series.item.as_deref(), failed);
}

/// Makes a copy of what is held still just now.
fn make(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    batch: Batch<'_>,
    engine: &dyn Engine,
    series: &Series,
) -> Option<Archived> {
    if !go_on(cx, rec, batch, engine, series) {
        return None;
    }
    let target = engine.target();
    let input = batch.held.input(cx, &series.item, target)?;
    let time = moment(cx, target, series, cx.host().now());
    let request = request(cx, rec, series, time, input);
    archive(cx, rec, batch, engine, &request)
}

/// Sends snapshots that were there before, each as a difference to the one before it. Answers with the last one; the others
/// have been seen in the target by then.
fn send(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    batch: Batch<'_>,
    engine: &dyn Engine,
    series: &Series,
    mut due: VecDeque<DueSnapshot>,
) -> Option<Archived> {
    let target = engine.target();
    let begun = begun(cx, rec, batch, engine, series)?;
    let of_begun = begun.as_ref().and_then(|request| match &request.input {
        Input::Subvolume(still) => Some(still.snapshot.uuid.clone()),
        Input::Tree { .. } | Input::Stream { .. } => None,
    });
    if let (Some(uuid), Some(request)) = (&of_begun, &begun) {
        begin_with(&mut due, uuid, request);
    }
    let (mut last, mut seen) = (None, None);
    while let Some(DueSnapshot { uuid, run, made }) = due.pop_front() {
        if let Some(made) = last.take() {
            let mut found = observe(cx, rec, batch.job, engine, Replicated::made_here(vec![made]))?;
            seen = Some(found.observed.pop()?.archived);
            if cx.host().stop_signal().is_some() {
                return None;
            }
        }
        let request = match &begun {
            Some(begun) if of_begun.as_ref() == Some(&uuid) => begun.clone(),
            Some(_) | None => {
                let of = RunContext { run: run.as_ref().unwrap_or(cx.run), ..cx };
                let input = batch.held.input_of(cx, &series.item, target, &uuid);
                let Some(input) = input else {
                    let text = format!("the snapshot {uuid} is not there any more");
                    not_brought(rec, target, series, StepError::new(Trouble::JobFailed, text));
                    return seen;
                };
                request(of, rec, series, moment(cx, target, series, made), input)
            }
        };
        last = archive(cx, rec, batch, engine, &request);
        cx.seat.into_iter().for_each(Seat::at_the_next);
        if last.is_none() {
            if cx.host().stop_signal().is_some() {
                return None;
            }
            // What was interrupted is gone on with the next time: another one would take its part away.
            if may_be_gone_on_with(cx, engine, &request) {
                return seen;
            }
            // One that cannot be sent does not keep the newest one back, in which those in between are.
            due = due.pop_back().into_iter().collect();
        }
    }
    // Where no more had room, retention may make some.
    last.or(seen)
}

/// Has the snapshot come first of which so much is there already: newer ones may have come since, and an older one would take
/// its part away.
fn begin_with(due: &mut VecDeque<DueSnapshot>, uuid: &str, request: &BackupRequest) {
    match due.iter().position(|due| due.uuid == uuid) {
        Some(at) => drop(due.drain(..at)),
        None => due.push_front(DueSnapshot {
            uuid: uuid.to_owned(),
            run: Some(request.run.clone()),
            made: request.time,
        }),
    }
}

/// Whether the target has a part of what could not be sent to its end, or does not tell.
fn may_be_gone_on_with(cx: RunContext<'_>, engine: &dyn Engine, request: &BackupRequest) -> bool {
    let has_begun = || bracketed(cx, engine, |engine, context| engine.has_begun(context, request));
    engine.resumes() && has_begun().unwrap_or(true)
}

/// The moment that a new copy stands for, of what was held still at this one: a second after the last copy if that was made
/// in this very second, or ahead of it because the clock was set back a little. Copies' times are whole seconds, and
/// which of two is the newer must not be left to chance.
fn moment(
    cx: RunContext<'_>,
    target: &Target,
    series: &Series,
    made: DateTime<Utc>,
) -> DateTime<Utc> {
    let now = cx.host().now();
    let made = made.min(now);
    // What is further ahead is in the future to retention, which leaves it alone.
    let latest = now + CLOCK_SLACK - TimeDelta::seconds(1);
    let last = cx
        .pipeline
        .history
        .and_then(|history| history.last_time(&target.name, series, latest).ok().flatten());
    match last {
        Some(last) if last.timestamp() >= made.timestamp() => last + TimeDelta::seconds(1),
        _ => made,
    }
}
