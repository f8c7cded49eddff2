//! Hands the still view to an engine.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::engine::{BackupReport, BackupRequest, Engine, Expected, Input, OnProgress, Seat};
use crate::history::Attempt;
use crate::model::copy::{Copy, Series};
use crate::model::event::Progress;
use crate::model::job::Job;
use crate::model::names::RunId;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::size;

use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::identity;
use crate::source::{HeldBatch, Item, Source};
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};

/// Items that are held still together.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// The job that protects them.
    pub job: &'a Job,
    /// What that protects.
    pub source: &'a dyn Source,
    /// The items.
    pub items: &'a [Item],
    /// What holds them still.
    pub held: &'a dyn HeldBatch,
}

/// A copy that an engine says it made. Only this can be looked for in the target.
#[derive(Debug)]
pub struct Archived {
    /// The series it belongs to.
    pub series: Series,
    /// The run whose copy it is: an earlier one, where that has begun it or held still what it is of.
    pub run: RunId,
    /// What the engine said.
    pub report: BackupReport,
    /// What it must hold and the engine did not speak of, for a look into the copy.
    pub(super) unspoken: Vec<Expected>,
    /// By what it is known in the target's listing.
    pub(super) known_by: KnownBy,
}

/// By what a new copy is known in a listing. Its series and run are not enough: both can be seen in the target while
/// the run is at work, and whoever else writes there can mark what he adds with them.
#[derive(Debug)]
pub(super) enum KnownBy {
    /// The id that we chose for it.
    Name(String),
    /// The id, or how it begins, that the engine said.
    Said(String),
    /// That it was not there before, and says that it is a copy of this one in another target.
    CopyOf(Box<Copy>),
}

/// What is asked for of a copy of a series.
pub fn request(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    series: &Series,
    time: DateTime<Utc>,
    input: Input,
) -> BackupRequest {
    let machine = identity::of(cx.pipeline).unwrap_or_else(|error| {
        rec.warn(StepError::from(error).message);
        None
    });
    BackupRequest { series: series.clone(), run: cx.run.clone(), machine, time, input }
}

/// Makes a copy of one series in one target.
pub fn archive(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    batch: Batch<'_>,
    engine: &dyn Engine,
    request: &BackupRequest,
) -> Option<Archived> {
    let target = &engine.target().name;
    let series = &request.series;
    let name = engine.name_for(request);
    let snapshot = match &request.input {
        Input::Subvolume(still) => Some(still.snapshot.uuid.clone()),
        Input::Tree { .. } | Input::Stream { .. } => None,
    };
    let attempt = Attempt {
        run: request.run.clone(),
        target: target.clone(),
        series: series.clone(),
        name: name.clone(),
        started: cx.host().now(),
        time: request.time,
        snapshot,
    };
    if let Err(error) = cx.pipeline.remember(|history| history.record_attempt(&attempt)) {
        rec.warn(StepError::from(error).message);
    }
    let report = rec.step("backup", Some(target), series.item.as_deref(), |progress| {
        let total = how_much(cx, engine, &request.input);
        let progress: OnProgress<'_> = &mut |it| {
            progress(Progress { bytes_total: it.bytes_total.or(total), ..it });
        };
        let made = back_up(cx, engine, request, progress);
        let mut report = made.map_err(|error| batch.held.judged(cx, &request.input, error))?;
        batch.held.still_holds(cx)?;
        let done = judge(cx, batch.source, batch.held.gaps(&series.item), &mut report);
        Ok((report, done))
    })?;
    let unspoken = match &request.input {
        Input::Tree { expected, .. } if report.absent.is_none() => expected.clone(),
        Input::Tree { .. } | Input::Stream { .. } | Input::Subvolume(_) => Vec::new(),
    };
    let known_by = match (name, &report.id) {
        (Some(name), _) => KnownBy::Name(name),
        (None, said) => KnownBy::Said(said.clone().unwrap_or_default()),
    };
    let (series, run) = (series.clone(), request.run.clone());
    Some(Archived { series, run, report, unspoken, known_by })
}

/// Has an engine make a copy; once more for itself where it was not to blame that it could not share with others.
fn back_up(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    request: &BackupRequest,
    progress: OnProgress<'_>,
) -> Result<BackupReport, StepError> {
    let made = bracketed(cx, engine, |engine, cx| engine.backup(cx, request, progress));
    let is_to_try_alone = |_: &StepError| cx.seat.is_some_and(Seat::is_to_try_alone);
    let Some(first) = made.as_ref().err().filter(|error| is_to_try_alone(error)) else {
        return made;
    };
    match back_up_alone(cx, engine, request, progress) {
        Ok(mut report) => {
            let why = format!("sent once more, for this target alone: {}", first.message);
            report.warnings.push(why);
            Ok(report)
        }
        Err(StepError { trouble, message }) => {
            let first = &first.message;
            let message =
                format!("{message}; before that, sent together with other targets: {first}");
            Err(StepError { trouble, message })
        }
    }
}

/// Has an engine make a copy for itself, when an attempt to share with others was given up.
fn back_up_alone(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    request: &BackupRequest,
    progress: OnProgress<'_>,
) -> Result<BackupReport, StepError> {
    let alone = RunContext { seat: None, ..cx };
    let mut waited = Duration::ZERO;
    loop {
        cx.unless_stopped()?;
        let begun = Instant::now();
        let made = bracketed(alone, engine, |engine, cx| engine.backup(cx, request, progress));
        // What is left of that attempt on another machine has the lock there for as long as it hangs. Without the others,
        // it would not have been given up yet.
        let is_held = |error: &StepError| error.trouble == Trouble::Busy;
        if !made.as_ref().is_err_and(is_held) || waited >= engine.target().stall_timeout {
            return made;
        }
        cx.host().pause(BETWEEN_TRIES);
        waited += begun.elapsed().max(BETWEEN_TRIES);
    }
}

/// How long we wait before we ask again, where one says so at once.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// How many bytes there are to go, where somebody wants to see that and the engine can tell beforehand.
fn how_much(cx: RunContext<'_>, engine: &dyn Engine, input: &Input) -> Option<u64> {
    if !engine.can_estimate() || !cx.pipeline.observer.shows_progress() {
        return None;
    }
    // Stays: there is no snapshot that could be measured.
    if cx.host().is_dry() {
        return None;
    }
    match engine.estimate(cx.engine(), input) {
        Ok(estimate) => Some(estimate.bytes),
        Err(error) => {
            tracing::debug!(%error, "it is not known how much there is to go");
            None
        }
    }
}

/// What the engine's report and the look at the source mean together.
fn judge(
    cx: RunContext<'_>,
    source: &dyn Source,
    gaps: &[String],
    report: &mut BackupReport,
) -> Done {
    let mut detail = summary(report);
    let mut outcome = report.outcome.clone();
    if !gaps.is_empty() {
        outcome = outcome.worst(Outcome::Incomplete);
        detail = format!("{detail}; not in it: {}", gaps.join(", "));
    }
    if report.unreadable_count > 0 {
        let first: Vec<&str> = report.unreadable.iter().take(5).map(String::as_str).collect();
        let more = report.unreadable_count.saturating_sub(first.len() as u64);
        detail =
            format!("{detail}; {} not readable: {}", report.unreadable_count, first.join(", "));
        if more > 0 {
            detail = format!("{detail} and {more} more");
        }
    }
    for path in report.absent.iter().flatten() {
        outcome = outcome.worst(Outcome::Incomplete);
        detail = format!("{detail}; {}", source.not_held(cx.host(), path));
    }
    if source.holds_nothing(report) {
        outcome = outcome.worst(Outcome::Incomplete);
        detail =
            format!("{detail}; nothing is in it: check the paths, the excludes and the commands");
    }
    if !report.warnings.is_empty() {
        detail = format!("{detail}; {}", report.warnings.join("; "));
    }
    report.outcome = outcome.clone();
    match outcome {
        Outcome::Ok => Done::ok(detail),
        Outcome::Warning => Done::with(outcome, Trouble::Warning, detail),
        Outcome::Incomplete | Outcome::Failed | Outcome::Skipped(_) | Outcome::Interrupted => {
            Done::with(outcome, Trouble::Incomplete, detail)
        }
    }
}

fn summary(report: &BackupReport) -> String {
    let mut parts = Vec::new();
    if let Some(files) = report.files {
        parts.push(size::counted(files, "file", "files"));
    }
    parts.extend(report.size.map(size::show));
    parts.extend(report.bytes_new.map(|bytes| format!("{} new", size::show(bytes))));
    if report.files_changed > 0 {
        parts.push(format!("{} changed while being read", report.files_changed));
    }
    if parts.is_empty() { "the engine gave no figures".into() } else { parts.join(", ") }
}
