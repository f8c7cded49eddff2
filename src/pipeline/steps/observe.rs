//! The second look: a copy exists when the target lists it, and not before.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::engine::{Engine, EngineError, Expected, Looked};
use crate::model::copy::{Copy, Recorded};
use crate::model::job::{Job, Source};
use crate::model::outcome::{Outcome, Trouble};
use crate::report::closed::told;
use crate::report::history::{Closure, CopyRecord};

use crate::pipeline::closed;
use crate::pipeline::context::RunContext;
use crate::pipeline::error::StepError;
use crate::pipeline::pin::mark_remembered;
use crate::pipeline::recorder::{Done, Recorder};

use super::archive::{Archived, not_held};
use super::replicate::Replicated;

/// A copy that was seen in the target. Only this lets retention run.
#[derive(Debug)]
pub struct Observed {
    /// What the engine had said.
    pub archived: Archived,
    /// What the target lists.
    pub copy: Copy,
}

/// What a target holds after the last write to it.
#[derive(Debug)]
pub struct Observation {
    /// Everything it lists, with what history knows.
    pub listing: Vec<Copy>,
    /// This run's copies, as listed.
    pub observed: Vec<Observed>,
    /// What an engine said it made and the target does not list.
    pub absent: Vec<Archived>,
    /// Why nothing may be deleted there, see [`closed`].
    pub closures: Vec<Closure>,
}

/// Lists the target once and finds this run's copies in it.
pub fn observe(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    engine: &dyn Engine,
    made: Replicated,
) -> Option<Observation> {
    let target = &engine.target().name;
    let mut observation = None;
    for failure in mark_remembered(cx, engine) {
        rec.warn(failure);
    }
    rec.step("observe", Some(target), None, |_| {
        let (listing, looks) = list_and_look(cx, engine, &made.archived);
        let listing = listing?;
        let (mut observed, mut absent) = (Vec::new(), Vec::new());
        for archived in made.archived {
            match listing.iter().find(|copy| is_it(cx, engine, &archived, copy)) {
                Some(copy) => observed.push(Observed { copy: copy.clone(), archived }),
                None => absent.push(archived),
            }
        }
        let missing: Vec<String> =
            absent.iter().map(|archived| archived.series.to_string()).collect();
        let closures = closed::examine(cx, engine, &listing)?;
        let found = observed.len();
        let listed = listing.len();
        let lacks = what_is_lacking(cx, job, looks, &mut observed);
        let seen = Observation { listing, observed, absent, closures };
        let closures = &observation.insert(seen).closures;
        if !missing.is_empty() {
            return Err(StepError::new(
                Trouble::JobFailed,
                format!(
                    "{} reported success, but the target lists no copy of {} by this run",
                    engine.target().engine_name(),
                    missing.join(", ")
                ),
            ));
        }
        let lists = if cx.host().is_dry() { "would list" } else { "lists" };
        let mut done = Done::ok(format!("the target {lists} {found} new of {listed}"));
        if !closures.is_empty() {
            let (outcome, trouble) = closed::judge(cx, closures);
            done = Done::with(
                outcome,
                trouble,
                format!("{}; {}", done.detail, told(target, closures)),
            );
        }
        let lacks = lacks?;
        if !lacks.is_empty() {
            let detail = format!("{}; {}", done.detail, lacks.join("; "));
            done = Done::with(Outcome::Incomplete, Trouble::Incomplete, detail);
        }
        Ok(((), done))
    });
    let mut observation = observation?;
    settle(cx, rec, engine, &observation);
    // In the order in which they were made.
    remember_caught_up(cx, rec, engine, &mut observation.listing, &made.caught_up, &made.before);
    for observed in &mut observation.observed {
        fill_in(observed, cx.host().now());
        remember(cx, rec, engine, observed);
    }
    Some(observation)
}

/// Forgets the attempts of this job's dead runs of which nothing is left in the target. The job's lock is ours, so
/// no other run of it is still at work.
fn settle(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    engine: &dyn Engine,
    observation: &Observation,
) {
    let seen = observation.observed.iter().map(|observed| &observed.archived);
    let Some(job) = seen.chain(&observation.absent).map(|made| &made.series.job).next() else {
        return;
    };
    let settled = cx.pipeline.remember(|history| {
        for attempt in history.attempts(&engine.target().name)? {
            let left = observation.listing.iter().any(|copy| {
                let is_its = copy.run.as_ref() == Some(&attempt.run)
                    && copy.series.as_ref() == Some(&attempt.series);
                is_its || attempt.name.is_some() && engine.unfinished(copy) == attempt.name
            });
            if attempt.series.job == *job && attempt.run != *cx.run && !left {
                history.settle_attempt(&attempt)?;
            }
        }
        Ok(())
    });
    if let Err(error) = settled {
        rec.warn(StepError::from(error).message);
    }
}

type Look = Result<Option<Looked>, EngineError>;

/// Lists the target, and looks into this run's copies meanwhile, where the engine did not say what it stored. An engine
/// starts slowly, and both only read.
fn list_and_look(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    archived: &[Archived],
) -> (Result<Vec<Copy>, StepError>, Vec<Look>) {
    let wanted: Vec<(&str, &[Expected])> = archived
        .iter()
        .filter(|archived| !archived.unspoken.is_empty())
        .filter_map(|archived| Some((archived.report.id.as_deref()?, &archived.unspoken[..])))
        .collect();
    if wanted.is_empty() {
        return (listing(cx, engine), Vec::new());
    }
    let context = cx.engine();
    let look = move || -> Vec<Look> {
        wanted.iter().map(|(id, expected)| engine.look_into(context, id, expected)).collect()
    };
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().spawn_scoped(scope, &look);
        let listing = listing(cx, engine);
        let looks = match spawned.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(looks)) => looks,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // There is no thread to be had: one after the other, then.
            Err(_) => look(),
        };
        (listing, looks)
    })
}

/// What the new copies lack of the job's paths, in words; it makes them incomplete.
///
/// # Errors
/// When one of them could not be looked into, or it was another one.
fn what_is_lacking(
    cx: RunContext<'_>,
    job: &Job,
    looks: Vec<Look>,
    observed: &mut [Observed],
) -> Result<Vec<String>, StepError> {
    let mut lacks = Vec::new();
    for look in looks {
        let Some(Looked { id, absent }) = look? else { continue };
        let Some(observed) = observed.iter_mut().find(|observed| observed.copy.id == id) else {
            continue;
        };
        let Source::Files(files) = &job.source else { continue };
        let report = &mut observed.archived.report;
        if !absent.is_empty() {
            report.outcome = report.outcome.clone().worst(Outcome::Incomplete);
        }
        lacks.extend(absent.iter().map(|path| not_held(cx, files, path)));
        report.absent = Some(absent);
    }
    let unseen = observed.iter().find(|observed| {
        !observed.archived.unspoken.is_empty() && observed.archived.report.absent.is_none()
    });
    match unseen {
        Some(unseen) => Err(StepError::new(
            Trouble::Warning,
            format!(
                "the copy {} was not looked into, so it may lack paths of the job",
                unseen.copy.id
            ),
        )),
        None => Ok(lacks),
    }
}

/// The target's copies, with what history knows of them; history learns which of its copies are gone.
///
/// # Errors
/// When the target cannot be listed completely.
pub fn listing(cx: RunContext<'_>, engine: &dyn Engine) -> Result<Vec<Copy>, StepError> {
    let name = &engine.target().name;
    let mut listing = engine.list(cx.engine()).map_err(|error| closed::noting(cx, name, error))?;
    let looked = closed::looked(cx, engine.target());
    let reconciled = cx.pipeline.remember(|history| {
        for id in history.reconcile(name, &listing, &looked)? {
            tracing::info!(target = %name, "copy {id} is no longer there");
        }
        Ok(())
    });
    if let Err(error) = reconciled {
        return Err(error.into());
    }
    if let Some(history) = cx.pipeline.history {
        history.enrich(name, &mut listing).map_err(StepError::from)?;
    }
    Ok(listing)
}

fn is_it(cx: RunContext<'_>, engine: &dyn Engine, archived: &Archived, copy: &Copy) -> bool {
    copy.series.as_ref() == Some(&archived.series)
        && copy.run.as_ref() == Some(cx.run)
        && engine.unfinished(copy).is_none()
        && archived.name.as_ref().is_none_or(|name| {
            // Another machine may have pinned it meanwhile.
            *name == copy.id || copy.original.as_ref() == Some(name)
        })
}

/// What the engine said of the copy, where the listing does not say it.
fn fill_in(observed: &mut Observed, now: DateTime<Utc>) {
    let report = &observed.archived.report;
    let copy = &mut observed.copy;
    copy.size = copy.size.or(report.size);
    copy.files = copy.files.or(report.files);
    copy.healthy = Some(report.outcome.is_healthy());
    copy.ours = true;
    // Its record is about to be written, and is the last one then.
    copy.recorded = Some(Recorded { order: i64::MAX, at: now });
}

/// Records the copies of earlier runs with which the target caught up: those that were not there before and say
/// that they are copies of what was handed over.
fn remember_caught_up(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    engine: &dyn Engine,
    listing: &mut [Copy],
    caught_up: &[Copy],
    before: &BTreeSet<String>,
) {
    for source in caught_up {
        let origin = source.original.as_deref().unwrap_or(&source.id);
        let is_it = |copy: &&mut Copy| {
            !before.contains(&copy.id)
                && (copy.original.as_deref() == Some(origin) || copy.id == source.id)
                && (&copy.series, &copy.run) == (&source.series, &source.run)
        };
        let Some(copy) = listing.iter_mut().find(is_it) else { continue };
        let Some((series, run)) = source.series.clone().zip(source.run.clone()) else { continue };
        copy.size = copy.size.or(source.size);
        copy.files = copy.files.or(source.files);
        copy.healthy = source.healthy;
        copy.ours = true;
        let now = cx.host().now();
        copy.recorded = Some(Recorded { order: i64::MAX - 1, at: now });
        let record = CopyRecord {
            run,
            target: engine.target().name.clone(),
            id: copy.id.clone(),
            series,
            time: copy.time,
            recorded: now,
            outcome: Outcome::Ok,
            size: copy.size,
            files: copy.files,
            bytes_new: None,
            files_changed: 0,
            unreadable: 0,
        };
        if let Err(error) = cx.pipeline.remember(|history| history.record_copy(&record)) {
            let error = StepError::from(error).message;
            rec.warn(format!("{error}; retention will leave the copy {} alone", record.id));
        }
    }
}

fn remember(cx: RunContext<'_>, rec: &mut Recorder<'_>, engine: &dyn Engine, observed: &Observed) {
    let report = &observed.archived.report;
    let record = CopyRecord {
        run: cx.run.clone(),
        target: engine.target().name.clone(),
        id: observed.copy.id.clone(),
        series: observed.archived.series.clone(),
        time: observed.copy.time,
        recorded: cx.host().now(),
        outcome: report.outcome.clone(),
        size: observed.copy.size,
        files: observed.copy.files,
        bytes_new: report.bytes_new,
        files_changed: report.files_changed,
        unreadable: report.unreadable_count,
    };
    if let Err(error) = cx.pipeline.remember(|history| history.record_copy(&record)) {
        let error = StepError::from(error);
        rec.warn(format!(
            "{}; the copy {} is in target {}, but retention will take it for an unfinished one when the next copy is made: pin it to keep it",
            error.message, record.id, record.target
        ));
    }
}
