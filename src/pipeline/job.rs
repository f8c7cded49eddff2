//! One job, from its lock to its last hook. Read it top to bottom.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::engine::Engine;
use crate::host::LockGuard;
use crate::model::copy::{CLOCK_SLACK, Copy, Series};
use crate::model::event::Event;
use crate::model::job::{Config, Job};
use crate::model::names::TargetName;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::{JobReport, TargetReport, VolumeReport};
use crate::model::target::Target;

use super::steps::archive::{Archived, archive};
use super::steps::doubtful;
use super::steps::observe::{Observation, Replicated, know, observe};
use super::steps::replicate::replicate;
use super::steps::retain::{JobRetention, retain};
use super::steps::target::{lock_for_writing, lock_path, require_mount};
use crate::source::{HeldBatch, Item, Source, series, series_of};
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;
use crate::step::hook::{self, Verdict};
use crate::step::recorder::{Done, Recorder};

/// What a job did, and what the run must know of it.
pub struct JobResult {
    /// For the report.
    pub report: JobReport,
    /// What went wrong.
    pub troubles: Vec<Trouble>,
    /// What somebody should read.
    pub warnings: Vec<String>,
    /// The targets that took a copy, and whether something was deleted in them.
    pub served: BTreeMap<TargetName, bool>,
}

/// What a job gathers besides its steps.
#[derive(Default)]
struct Gathered {
    /// Why a hook asked to leave the job out.
    skipped: Option<String>,
    captures: Vec<VolumeReport>,
    targets: Vec<TargetReport>,
    served: BTreeMap<TargetName, bool>,
}

/// Items that are held still together.
#[derive(Clone, Copy)]
struct Batch<'a> {
    job: &'a Job,
    source: &'a dyn Source,
    items: &'a [Item],
    held: &'a dyn HeldBatch,
}

/// What a target of the job holds after it was served.
struct Served {
    observation: Observation,
    deleted: Vec<String>,
}

type Locks<'a> = BTreeMap<&'a TargetName, Option<Box<dyn LockGuard>>>;

/// Runs one job.
pub fn run_job(cx: RunContext<'_>, job: &Job, only: Option<&TargetName>) -> JobResult {
    let started = Instant::now();
    cx.pipeline.observer.on(&Event::JobStarted { job: job.name.clone() });
    let mut rec = Recorder::new(cx.pipeline.observer, Some(job.name.clone()));
    let gathered = carry_out(cx, &mut rec, job, &targets_of(cx.config(), job, only));

    let interrupted = cx.host().stop_signal();
    if let Some(signal) = interrupted {
        rec.troubles.push(Trouble::Signal(signal));
    }
    let targets = &gathered.targets;
    let mut outcome = targets.iter().fold(rec.outcome(), |worst, t| worst.worst(t.outcome.clone()));
    if interrupted.is_some() {
        outcome = Outcome::Interrupted;
    } else if let Some(reason) = &gathered.skipped
        && outcome == Outcome::Ok
    {
        outcome = Outcome::Skipped(reason.clone());
    }
    let elapsed = started.elapsed();
    cx.pipeline.observer.on(&Event::JobFinished {
        job: job.name.clone(),
        outcome: outcome.clone(),
        elapsed,
    });
    JobResult {
        report: JobReport {
            name: job.name.clone(),
            outcome,
            reason: gathered.skipped,
            elapsed,
            steps: rec.steps,
            captures: gathered.captures,
            targets: gathered.targets,
        },
        troubles: rec.troubles,
        warnings: rec.warnings,
        served: gathered.served,
    }
}

/// The story itself.
fn carry_out(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    targets: &[&Target],
) -> Gathered {
    let unserved =
        || Gathered { targets: unserved(cx.pipeline, job, targets), ..Gathered::default() };
    // 1. Locks, before anything is changed: the job's, then those of its targets, always in one order.
    let job_lock = rec.step("lock", None, None, |_| {
        let wait = cx.config().settings.lock_wait;
        Ok((cx.pipeline.lock_job(cx.run, &job.name, wait)?, Done::ok("held")))
    });
    let Some(_job_lock) = job_lock else {
        // No hook either: the run that holds the lock is between its own.
        return unserved();
    };
    let mut locks = lock_targets(cx, rec, targets);
    if locks.is_empty() {
        // Nothing was begun, so there is nothing for `finally`; that the job failed must still be told.
        hook::after(cx, rec, job);
        return unserved();
    }

    // 2. The ledger holds what undoes the hooks before they run.
    let held = match job.hooks.finally.is_empty() {
        true => Some(Vec::new()),
        false => rec.step("intend", None, None, |_| {
            Ok((hook::intend_finally(cx, job)?, Done::ok(hook::in_ledger(cx, "finally hooks"))))
        }),
    };
    let Some(held) = held else {
        hook::after(cx, rec, job);
        return unserved();
    };

    // 3. The copies.
    let gathered = match hook::before(cx, rec, job) {
        Some(Verdict::Skip(reason)) => Gathered { skipped: Some(reason), ..Gathered::default() },
        Some(Verdict::Proceed) => serve(cx, rec, job, targets, &mut locks),
        None => unserved(),
    };

    // 4. Whatever happened, the hooks have the last word.
    if gathered.skipped.is_none() {
        hook::after(cx, rec, job);
    }
    hook::finally(cx, rec, &held);
    gathered
}

/// Brings what the job protects to every target.
fn serve(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    targets: &[&Target],
    locks: &mut Locks<'_>,
) -> Gathered {
    let source = cx.pipeline.source(job);
    let Some(batches) = batches(cx, rec, job, source.as_ref()) else {
        return Gathered { targets: unserved(cx.pipeline, job, targets), ..Gathered::default() };
    };
    // 1. Batch by batch: hold it still, copy it to every target that engines write to directly, let it go.
    let is_direct =
        |target: &&&Target| target.copy_from.is_none() && locks.contains_key(&target.name);
    let direct: Vec<&Target> = targets.iter().filter(is_direct).copied().collect();
    let mut gathered = Gathered::default();
    let mut archived: BTreeMap<&TargetName, Vec<Archived>> = BTreeMap::new();
    for items in &batches {
        if cx.host().stop_signal().is_some() {
            break;
        }
        // One that cannot be held has said so, and keeps no other from its turn.
        let Some(held) = source.hold(cx, rec, items, targets) else { continue };
        gathered.captures.extend_from_slice(held.volumes());
        let batch = Batch { job, source: source.as_ref(), items, held: held.as_ref() };
        held.watch(cx, &mut || {
            for target in &direct {
                let made = archive_batch(cx, rec, batch, target);
                archived.entry(&target.name).or_default().extend(made);
            }
        });
        held.release(cx, rec);
    }
    // 2. The source is free from here on; the copies are looked for and the policy applied, once for each target.
    let mut served: BTreeMap<&TargetName, Served> = BTreeMap::new();
    for target in &direct {
        let engine = cx.pipeline.engine(target);
        let Some(lock) = locks.get_mut(&target.name) else { continue };
        let made = Replicated::made_here(archived.remove(&target.name).unwrap_or_default());
        served.extend(finish(cx, rec, job, engine, made, lock).map(|held| (&target.name, held)));
    }
    // 3. Targets that are filled from another target.
    for target in targets {
        let Some(from) = &target.copy_from else { continue };
        let filled = serve_from(cx, rec, job, target, served.get(from), from, locks);
        served.extend(filled.map(|held| (&target.name, held)));
    }
    source.settle(cx, rec);
    let series: Vec<Series> =
        batches.concat().into_iter().map(|item| series_of(cx.pipeline, job, item)).collect();
    for target in targets {
        gathered.targets.extend(report(cx.pipeline, &series, target, served.get(&target.name)));
    }
    gathered.served =
        served.iter().map(|(name, held)| ((*name).clone(), !held.deleted.is_empty())).collect();
    gathered
}

/// The items that the source has now, as they are held still together. History learns of them where the configuration
/// does not say them.
fn batches(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    source: &dyn Source,
) -> Option<Vec<Vec<Item>>> {
    if let Some(items) = source.declared() {
        return Some(source.batches(items));
    }
    let items = rec.step("items", None, None, |_| {
        let items = source.items(cx.host())?;
        if items.is_empty() {
            let text = format!("there is nothing to back up: the job finds no {}", source.kind());
            return Err(StepError::new(Trouble::JobFailed, text));
        }
        let done = Done::ok(names(&items).join(", "));
        Ok((items, done))
    })?;
    let now = cx.host().now();
    let recorded =
        cx.pipeline.remember(|history| history.record_items(&job.name, &names(&items), now));
    if let Err(error) = recorded {
        rec.warn(StepError::from(error).message);
    }
    Some(source.batches(items))
}

fn names(items: &[Item]) -> Vec<&str> {
    items.iter().flatten().map(String::as_str).collect()
}

/// Locks every target that can be had. One that is busy or not mounted does not stop the others.
fn lock_targets<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    targets: &[&'a Target],
) -> Locks<'a> {
    let runtime = &cx.config().settings.runtime_dir;
    let mut sorted: Vec<(PathBuf, &Target)> =
        targets.iter().map(|target| (lock_path(cx.host(), runtime, target), *target)).collect();
    sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut locks = Locks::new();
    let mut paths: BTreeMap<PathBuf, &TargetName> = BTreeMap::new();
    for (path, target) in sorted {
        let first = *paths.entry(path).or_insert(&target.name);
        let lock = rec.step("prepare", Some(&target.name), None, |_| {
            if *first != target.name {
                // Waiting for its lock would be waiting for ourselves.
                let text = format!(
                    "targets {first} and {} mean the same repository, so this job would go there twice — take one of them from its targets",
                    target.name
                );
                return Err(StepError::new(Trouble::Configuration, text));
            }
            require_mount(cx.host(), target)?;
            Ok((lock_for_writing(cx.pipeline, cx.run, target)?, Done::ok("ready")))
        });
        if let Some(lock) = lock {
            locks.insert(&target.name, Some(lock));
        }
        if cx.host().stop_signal().is_some() {
            return Locks::new();
        }
    }
    locks
}

/// Copies the items of a batch to one target.
fn archive_batch(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    batch: Batch<'_>,
    target: &Target,
) -> Vec<Archived> {
    let mut archived = Vec::new();
    let engine = cx.pipeline.engine(target);
    for item in batch.items {
        if cx.host().stop_signal().is_some() {
            break;
        }
        let series = series_of(cx.pipeline, batch.job, item.clone());
        let time = moment(cx, target, &series);
        archived.extend(archive(cx, rec, batch.source, batch.held, engine, &series, time));
    }
    archived
}

/// The moment that a new copy stands for: now, or a second after the last copy if that was made in this
/// very second, or ahead of it because the clock was set back a little. Copies' times are whole seconds, and
/// which of two is the newer must not be left to chance.
fn moment(cx: RunContext<'_>, target: &Target, series: &Series) -> DateTime<Utc> {
    let now = cx.host().now();
    // What is further ahead is in the future to retention, which leaves it alone.
    let latest = now + CLOCK_SLACK - TimeDelta::seconds(1);
    let last = cx
        .pipeline
        .history
        .and_then(|history| history.last_good_until(&target.name, series, latest).ok().flatten());
    match last {
        Some(last) if last.time.timestamp() >= now.timestamp() => last.time + TimeDelta::seconds(1),
        _ => now,
    }
}

/// The same for a target that is filled from another one.
fn serve_from(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    target: &Target,
    source: Option<&Served>,
    from: &TargetName,
    locks: &mut Locks<'_>,
) -> Option<Served> {
    let engine = cx.pipeline.engine(target);
    let lock = locks.get_mut(&target.name)?;
    if cx.host().stop_signal().is_some() {
        return None;
    }
    let Some((source, source_engine)) = source.zip(cx.pipeline.engine_named(from)) else {
        rec.step("copy", Some(&target.name), None, |_| -> Result<((), Done), StepError> {
            let text = format!(
                "there is nothing new in target {from} to copy from — it is filled when {from} takes a copy in the same run, so run the job without --target and see why {from} took none"
            );
            Err(StepError::new(Trouble::JobFailed, text))
        });
        return None;
    };
    let Observation { listing, observed, .. } = &source.observation;
    // Retention may have deleted some of them since they were listed.
    let held: Vec<Copy> =
        listing.iter().filter(|copy| !source.deleted.contains(&copy.id)).cloned().collect();
    let replicated = replicate(cx, rec, engine, source_engine, &held, observed)?;
    finish(cx, rec, job, engine, replicated, lock)
}

/// Looks at the target a second time, then applies the policy to what is healthy.
fn finish(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    engine: &dyn Engine,
    made: Replicated,
    lock: &mut Option<Box<dyn LockGuard>>,
) -> Option<Served> {
    if made.archived.is_empty() {
        return None;
    }
    let mut observation = observe(cx, rec, job, engine, made)?;
    let Observation { listing, observed, .. } = &mut observation;
    know(listing, observed.iter().map(|observed| &observed.copy));
    doubtful::tell(cx, rec, job, engine, &observation.listing);
    let good: Vec<(&Series, &Copy)> = observation
        .observed
        .iter()
        .filter(|observed| observed.archived.report.outcome.is_healthy())
        .map(|observed| (&observed.archived.series, &observed.copy))
        .collect();
    let deleted = if cx.host().stop_signal().is_none() {
        let policy = cx.config().keep(job, engine.target());
        let wanted = JobRetention { engine, job, good: &good, policy };
        retain(cx, rec, &wanted, &observation, lock)
    } else {
        Vec::new()
    };
    // Whoever waits for this repository need not wait for the rest of the job.
    lock.take();
    Some(Served { observation, deleted })
}

fn report(
    pipeline: Pipeline<'_>,
    series: &[Series],
    target: &Target,
    served: Option<&Served>,
) -> Vec<TargetReport> {
    let mut reports = Vec::new();
    for series in series {
        let observed = served.and_then(|served| {
            served.observation.observed.iter().find(|observed| observed.archived.series == *series)
        });
        let empty = TargetReport::without_copy(
            target.name.clone(),
            series.item.clone(),
            without_copy(pipeline),
        );
        let Some(observed) = observed else {
            reports.push(empty);
            continue;
        };
        let said = &observed.archived.report;
        let deleted = served
            .map(|served| {
                let listed = |id: &&String| {
                    let of = served.observation.listing.iter().find(|copy| copy.id == **id);
                    of.and_then(|copy| copy.series.as_ref()) == Some(series)
                };
                served.deleted.iter().filter(listed).cloned().collect()
            })
            .unwrap_or_default();
        reports.push(TargetReport {
            outcome: said.outcome.clone(),
            copy: Some(observed.copy.id.clone()),
            bytes_new: said.bytes_new,
            size: observed.copy.size,
            files: observed.copy.files,
            files_changed: said.files_changed,
            unreadable: said.unreadable.clone(),
            unreadable_count: said.unreadable_count,
            deleted,
            ..empty
        });
    }
    reports
}

fn unserved(pipeline: Pipeline<'_>, job: &Job, targets: &[&Target]) -> Vec<TargetReport> {
    // Where history does not tell the items, the job as a whole made no copy.
    let series = series(pipeline, job).unwrap_or_else(|_| vec![series_of(pipeline, job, None)]);
    targets.iter().flat_map(|target| report(pipeline, &series, target, None)).collect()
}

/// How something ended that was to make a copy and made none.
fn without_copy(pipeline: Pipeline<'_>) -> Outcome {
    match pipeline.host.stop_signal() {
        Some(_) => Outcome::Interrupted,
        None => Outcome::Failed,
    }
}

/// The record of a job that the run did not come to.
pub fn not_begun(pipeline: Pipeline<'_>, job: &Job, only: Option<&TargetName>) -> JobReport {
    let targets = targets_of(pipeline.config, job, only);
    JobReport {
        name: job.name.clone(),
        outcome: without_copy(pipeline),
        reason: Some("the run ended before it was begun".into()),
        elapsed: Duration::ZERO,
        steps: Vec::new(),
        captures: Vec::new(),
        targets: unserved(pipeline, job, &targets),
    }
}

/// The targets that a run serves, of those that the job has.
fn targets_of<'a>(config: &'a Config, job: &'a Job, only: Option<&TargetName>) -> Vec<&'a Target> {
    let wanted = |name: &&TargetName| only.is_none_or(|only| *name == only);
    job.targets.iter().filter(wanted).filter_map(|name| config.target(name)).collect()
}
