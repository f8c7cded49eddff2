//! A copy exists when the target lists it, and not before.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::engine::{ContentsCheck, Engine, EngineError, Expected};
use crate::history::{Closure, CopyRecord};
use crate::model::copy::{Copy, Recorded, abridged};
use crate::model::job::Job;
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::report::closed::told;

use crate::pipeline::closed;
use crate::pipeline::pin::mark_remembered;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};

use super::archive::{Archived, KnownBy};

/// A copy that was seen in the target. Only this lets retention run.
#[derive(Debug)]
pub struct Observed {
    /// What the engine had said.
    pub archived: Archived,
    /// What the target lists.
    pub copy: Copy,
}

/// What must now be seen in a target that was filled from another one.
pub struct Replicated {
    /// This run's copies.
    pub archived: Vec<Archived>,
    /// Copies of earlier runs with which the target caught up, as the other target has them.
    pub caught_up: Vec<Copy>,
    /// What was there before, by id.
    pub before: BTreeSet<String>,
}

impl Replicated {
    /// What an engine made itself: there is nothing to catch up with.
    pub fn made_here(archived: Vec<Archived>) -> Self {
        Self { archived, caught_up: Vec::new(), before: BTreeSet::new() }
    }
}

/// What a target holds after the last write to it.
#[derive(Debug)]
pub struct Observation {
    /// Everything it lists, with what history knows.
    pub listing: Vec<Copy>,
    /// This run's copies, as listed.
    pub observed: Vec<Observed>,
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
        let (listing, contents) = list_and_read_contents(cx, engine, &made.archived);
        let mut listing = listing?;
        let (mut observed, missing) = find_all(engine, made.archived, &listing, &made.before);
        disown(engine, &mut listing, &observed);
        let closures = closed::examine(cx, engine, &listing)?;
        let lists = cx.tense("lists", "would list");
        let done =
            Done::ok(format!("the target {lists} {} new of {}", observed.len(), listing.len()));
        let (lacks, failed) = what_is_lacking(cx, engine, job, contents, &mut observed);
        let seen = Observation { listing, observed, closures };
        let closures = &observation.insert(seen).closures;
        if !missing.is_empty() {
            let (name, missing) = (engine.target().engine.name(), missing.join("; "));
            let text = format!("{name} reported success, but {missing}");
            return Err(StepError::new(Trouble::JobFailed, text));
        }
        let done = with_findings(cx, target, done, closures, &lacks);
        match failed {
            Some(error) => {
                let message = format!("{}; {}", done.detail, error.message);
                Err(StepError { message, ..error })
            }
            None => Ok(((), done)),
        }
    });
    let mut observation = observation?;
    settle(cx, rec, engine, &job.name, &observation.listing);
    // In the order in which they were made.
    remember_caught_up(cx, rec, engine, &mut observation.listing, &made.caught_up, &made.before);
    for observed in &mut observation.observed {
        fill_in(observed, cx.host().now());
        remember(cx, rec, engine, observed);
    }
    Some(observation)
}

/// Finds all copies that this run made, and says why others are missing.
fn find_all(
    engine: &dyn Engine,
    archived: Vec<Archived>,
    listing: &[Copy],
    before: &BTreeSet<String>,
) -> (Vec<Observed>, Vec<String>) {
    let (mut observed, mut missing) = (Vec::new(), Vec::new());
    for archived in archived {
        match find(engine, &archived, listing, before) {
            Ok(copy) => observed.push(Observed { copy: copy.clone(), archived }),
            Err(why) => missing.push(why),
        }
    }
    (observed, missing)
}

/// The step with what was found besides: why the target is closed, and what the copies lack.
fn with_findings(
    cx: RunContext<'_>,
    target: &TargetName,
    mut done: Done,
    closures: &[Closure],
    lacks: &[String],
) -> Done {
    if !closures.is_empty() {
        let (outcome, trouble) = closed::judge(cx, closures);
        let detail = format!("{}; {}", done.detail, told(target, closures));
        done = Done::with(outcome, trouble, detail);
    }
    if !lacks.is_empty() {
        let detail = format!("{}; {}", done.detail, lacks.join("; "));
        done = Done::with(Outcome::Incomplete, Trouble::Incomplete, detail);
    }
    done
}

/// Forgets the attempts of this job's dead runs of which nothing is left in the target. The job's lock is ours, so
/// no other run of it is still at work.
fn settle(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    engine: &dyn Engine,
    job: &JobName,
    listing: &[Copy],
) {
    let settled = cx.pipeline.remember(|history| {
        for attempt in history.attempts(&engine.target().name)? {
            let left = listing.iter().any(|copy| {
                let is_its = copy.run.as_ref() == Some(&attempt.run)
                    && copy.series.as_ref() == Some(&attempt.series)
                    && attempt.name.as_ref().is_none_or(|name| copy.is_exactly(name));
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

/// What a copy was read to hold; `None` where the engine has no need to be asked.
type Contents = Result<Option<ContentsCheck>, EngineError>;

/// Lists the target, and reads the contents of this run's copies meanwhile, where the engine did not say what it stored.
/// An engine starts slowly, and both only read.
fn list_and_read_contents(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    archived: &[Archived],
) -> (Result<Vec<Copy>, StepError>, Vec<Contents>) {
    let wanted: Vec<(&str, &[Expected])> = archived
        .iter()
        .filter(|archived| !archived.unspoken.is_empty())
        .filter_map(|archived| Some((archived.report.id.as_deref()?, &archived.unspoken[..])))
        .collect();
    if wanted.is_empty() {
        return (listing(cx, engine), Vec::new());
    }
    let context = cx.engine();
    let read = move || -> Vec<Contents> {
        wanted.iter().map(|(id, expected)| engine.find_absent(context, id, expected)).collect()
    };
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().spawn_scoped(scope, &read);
        let listing = listing(cx, engine);
        let contents = match spawned.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(checks)) => checks,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // There is no thread to be had: one after the other, then.
            Err(_) => read(),
        };
        (listing, contents)
    })
}

/// What the new copies lack of the job's paths, in words, and why one could not be read. What lacks something is
/// incomplete, and so is what could not be read: it may hold nothing, and must not make room for itself.
fn what_is_lacking(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    job: &Job,
    contents: Vec<Contents>,
    observed: &mut [Observed],
) -> (Vec<String>, Option<StepError>) {
    let source = cx.pipeline.source(job);
    let (mut lacks, mut failed) = (Vec::new(), None);
    for read in contents {
        let ContentsCheck { id, absent } = match read {
            Ok(Some(check)) => check,
            Ok(None) => continue,
            Err(error) => {
                let error = closed::noting(cx, &engine.target().name, error);
                failed.get_or_insert(error);
                continue;
            }
        };
        let Some(observed) = observed.iter_mut().find(|observed| observed.copy.id == id) else {
            continue;
        };
        let report = &mut observed.archived.report;
        if !absent.is_empty() {
            report.outcome = report.outcome.clone().worst(Outcome::Incomplete);
        }
        lacks.extend(absent.iter().map(|path| source.not_held(cx.host(), path)));
        report.absent = Some(absent);
    }
    for Observed { archived, copy } in observed {
        let report = &mut archived.report;
        if archived.unspoken.is_empty() || report.absent.is_some() {
            continue;
        }
        report.outcome = report.outcome.clone().worst(Outcome::Incomplete);
        lacks.push(format!(
            "the contents of the copy {} were not read, so it may lack paths of the job",
            copy.id
        ));
    }
    (lacks, failed)
}

/// The target's copies, with what history knows of them; history learns which of its copies are gone.
///
/// # Errors
/// When the target cannot be listed completely.
pub fn listing(cx: RunContext<'_>, engine: &dyn Engine) -> Result<Vec<Copy>, StepError> {
    let name = &engine.target().name;
    let mut listing = engine.list(cx.engine()).map_err(|error| closed::noting(cx, name, error))?;
    let by = closed::listed_by(cx, engine.target());
    let reconciled = cx.pipeline.remember(|history| {
        for id in history.reconcile(name, &listing, &by)? {
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

/// Puts what a run knows of its copies in the place of what a listing says of them, for the gate to judge by: history may
/// not have been told, as in a dry run. A pin is as it is listed.
pub fn know<'c>(listing: &mut [Copy], known: impl Iterator<Item = &'c Copy>) {
    for copy in known {
        if let Some(listed) = listing.iter_mut().find(|listed| listed.id == copy.id) {
            *listed = Copy { pinned: listed.pinned, ..copy.clone() };
        }
    }
}

/// The listed copy that an engine said it made: the one of its id or, where another machine has pinned it meanwhile,
/// the one that had that id first.
///
/// # Errors
/// When there is none or several, in a sentence's end.
fn find<'a>(
    engine: &dyn Engine,
    archived: &Archived,
    listing: &'a [Copy],
    before: &BTreeSet<String>,
) -> Result<&'a Copy, String> {
    let marked: Vec<&Copy> = listing
        .iter()
        .filter(|copy| copy.series.as_ref() == Some(&archived.series))
        .filter(|copy| copy.run.as_ref() == Some(&archived.run))
        .filter(|copy| engine.unfinished(copy).is_none())
        .collect();
    let those = |is_it: &dyn Fn(&Copy) -> bool| -> Vec<&'a Copy> {
        marked.iter().copied().filter(|copy| is_it(copy)).collect()
    };
    let first =
        |copy: &Copy, is_it: &dyn Fn(&str) -> bool| copy.original.as_deref().is_some_and(is_it);
    let found = match &archived.known_by {
        KnownBy::Name(name) => {
            let is_it = |id: &str| id == name;
            or_else(those(&|copy| is_it(&copy.id)), || those(&|copy| first(copy, &is_it)))
        }
        KnownBy::Said(said) => {
            // Some versions say no more than how it begins.
            let is_it = |id: &str| !said.is_empty() && id.starts_with(said.as_str());
            or_else(those(&|copy| is_it(&copy.id)), || those(&|copy| first(copy, &is_it)))
        }
        KnownBy::CopyOf(source) => those(&|copy| is_copy_of(copy, source, before)),
    };
    match found.as_slice() {
        [copy] => Ok(*copy),
        [] if marked.is_empty() => {
            Err(format!("the target lists no copy of {} by this run", archived.series))
        }
        [] => Err(format!(
            "the target lists no copy of {} by this run that is the one it made ({} bears its marks)",
            archived.series,
            abridged(&marked.iter().map(|copy| copy.id.clone()).collect::<Vec<_>>())
        )),
        several => Err(format!(
            "the target lists {} copies of {} that claim to be the one of this run: {}",
            several.len(),
            archived.series,
            abridged(&several.iter().map(|copy| copy.id.clone()).collect::<Vec<_>>())
        )),
    }
}

fn or_else<T>(first: Vec<T>, second: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if first.is_empty() { second() } else { first }
}

/// Whether a copy is what became of one that another target holds.
fn is_copy_of(copy: &Copy, source: &Copy, before: &BTreeSet<String>) -> bool {
    let origin = source.original.as_deref().unwrap_or(&source.id);
    !before.contains(&copy.id)
        && (copy.original.as_deref() == Some(origin) || copy.id == source.id)
        && (&copy.series, &copy.run) == (&source.series, &source.run)
}

/// What bears a run's marks beside the copies that it made was added by somebody else. Those that it made before are
/// recorded.
fn disown(engine: &dyn Engine, listing: &mut [Copy], observed: &[Observed]) {
    for copy in listing.iter_mut().filter(|copy| copy.recorded.is_none()) {
        let is_made = observed.iter().any(|made| made.copy.id == copy.id);
        let has_its_marks = |Observed { archived, .. }: &Observed| {
            (copy.series.as_ref(), copy.run.as_ref())
                == (Some(&archived.series), Some(&archived.run))
        };
        if !is_made && observed.iter().any(has_its_marks) && engine.unfinished(copy).is_none() {
            copy.ours = false;
        }
    }
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
        let mut found = listing.iter_mut().filter(|copy| is_copy_of(copy, source, before));
        let Some(copy) = found.next() else { continue };
        if let Some(other) = found.next() {
            rec.warn(format!(
                "{} and {} both claim to be a copy of {}; retention will leave them alone",
                copy.id, other.id, source.id
            ));
            continue;
        }
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
        run: observed.archived.run.clone(),
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
            "{}; the copy {} is in target {}, but retention will treat it as unfinished when the next copy is made: pin it to keep it",
            error.message, record.id, record.target
        ));
    }
}
