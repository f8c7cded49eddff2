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
use super::steps::observe::{Observation, observe};
use super::steps::replicate::{Replicated, replicate};
use super::steps::retain::retain;
use super::steps::target::{lock_for_writing, require_mount};
use crate::source::files::hold::{Captured, capture, release};
use crate::step::context::{Pipeline, RunContext, series_of};
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
    let mut targets = Vec::new();
    let mut served = BTreeMap::new();
    let mut volumes = Vec::new();
    let skipped = carry_out(cx, &mut rec, job, only, &mut volumes, &mut targets, &mut served);

    let interrupted = cx.host().stop_signal();
    if let Some(signal) = interrupted {
        rec.troubles.push(Trouble::Signal(signal));
    }
    let mut outcome = targets.iter().fold(rec.outcome(), |worst, t| worst.worst(t.outcome.clone()));
    if interrupted.is_some() {
        outcome = Outcome::Interrupted;
    } else if let Some(reason) = &skipped
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
            reason: skipped,
            elapsed,
            steps: rec.steps,
            captures: volumes,
            targets,
        },
        troubles: rec.troubles,
        warnings: rec.warnings,
        served,
    }
}

/// The story itself. Answers with the reason when a hook asked to leave the job out.
fn carry_out(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    only: Option<&TargetName>,
    volumes: &mut Vec<VolumeReport>,
    reports: &mut Vec<TargetReport>,
    served: &mut BTreeMap<TargetName, bool>,
) -> Option<String> {
    let targets = targets_of(cx.config(), job, only);

    // 1. Locks, before anything is changed: the job's, then those of its targets, always in one order.
    let job_lock = rec.step("lock", None, None, |_| {
        let wait = cx.config().settings.lock_wait;
        Ok((cx.pipeline.lock_job(cx.run, &job.name, wait)?, Done::ok("held")))
    });
    let Some(_job_lock) = job_lock else {
        // No hook either: the run that holds the lock is between its own.
        reports.extend(unserved(cx.pipeline, job, &targets));
        return None;
    };
    let mut locks = lock_targets(cx, rec, &targets);
    if locks.is_empty() {
        reports.extend(unserved(cx.pipeline, job, &targets));
        // Nothing was begun, so there is nothing for `finally`; that the job failed must still be told.
        hook::after(cx, rec, job);
        return None;
    }

    // 2. What the hooks change is promised back before they run.
    let promised = match job.hooks.finally.is_empty() {
        true => Some(Vec::new()),
        false => rec.step("promise", None, None, |_| {
            Ok((hook::promise_finally(cx, job)?, Done::ok(hook::in_ledger(cx, "finally hooks"))))
        }),
    };
    let Some(promised) = promised else {
        reports.extend(unserved(cx.pipeline, job, &targets));
        hook::after(cx, rec, job);
        return None;
    };
    let verdict = hook::before(cx, rec, job);
    let skipped = match verdict {
        Some(Verdict::Skip(reason)) => Some(reason),
        Some(Verdict::Proceed) => {
            // 3. Hold the source still, and copy it to every target.
            let held = capture(cx, rec, job, &targets).map(|captured| {
                volumes.clone_from(&captured.volumes);
                let direct = targets.iter().copied().filter(|target| target.copy_from.is_none());
                let archived: Vec<(&Target, Vec<Archived>)> = captured.watched(cx, || {
                    direct
                        .filter(|target| locks.contains_key(&target.name))
                        .map(|target| (target, archive_all(cx, rec, job, &captured, target)))
                        .collect()
                });
                // 4. The source is free from here on; then the copies are looked for and the policy applied.
                release(cx, rec, captured);
                let mut held = BTreeMap::new();
                for (target, archived) in archived {
                    let engine = cx.pipeline.engine(&target.name);
                    let Some((engine, lock)) = engine.zip(locks.get_mut(&target.name)) else {
                        continue;
                    };
                    let made = Replicated::made_here(archived);
                    if let Some(result) = finish(cx, rec, job, engine, made, lock) {
                        held.insert(&target.name, result);
                    }
                }
                held
            });
            // 5. Targets that are filled from another target.
            let mut held = held.unwrap_or_default();
            for target in targets.iter().copied() {
                let Some(from) = target.copy_from.as_ref() else { continue };
                if let Some(result) =
                    serve_from(cx, rec, job, target, held.get(from), from, &mut locks)
                {
                    held.insert(&target.name, result);
                }
            }
            for target in &targets {
                reports.extend(report(cx.pipeline, job, target, held.get(&target.name)));
            }
            served.extend(
                held.iter().map(|(name, held)| ((*name).clone(), !held.deleted.is_empty())),
            );
            None
        }
        None => {
            reports.extend(unserved(cx.pipeline, job, &targets));
            None
        }
    };

    // 6. Whatever happened, the hooks have the last word.
    if skipped.is_none() {
        hook::after(cx, rec, job);
    }
    hook::finally(cx, rec, &promised);
    skipped
}

/// Locks every target that can be had. One that is busy or not mounted does not stop the others.
fn lock_targets<'a>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    targets: &[&'a Target],
) -> Locks<'a> {
    let mut sorted: Vec<&Target> = targets.to_vec();
    let runtime = &cx.config().settings.runtime_dir;
    sorted.sort_by_key(|target| super::steps::target::lock_path(cx.host(), runtime, target));
    let mut locks = Locks::new();
    let mut paths: BTreeMap<PathBuf, &TargetName> = BTreeMap::new();
    for target in sorted {
        let path = super::steps::target::lock_path(cx.host(), runtime, target);
        let twin = *paths.entry(path).or_insert(&target.name);
        let lock = rec.step("prepare", Some(&target.name), None, |_| {
            if *twin != target.name {
                // Waiting for its lock would be waiting for ourselves.
                let text = format!(
                    "targets {twin} and {} mean the same repository, so this job would go there twice — take one of them from its targets",
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

/// Backs up to one target.
fn archive_all(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    captured: &Captured<'_>,
    target: &Target,
) -> Vec<Archived> {
    let mut archived = Vec::new();
    let Some(engine) = cx.pipeline.engine(&target.name) else { return archived };
    for series in series_of(cx.config(), job) {
        if cx.host().stop_signal().is_some() {
            break;
        }
        archived.extend(archive(cx, rec, captured, engine, &series, moment(cx, target, &series)));
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
    let engine = cx.pipeline.engine(&target.name)?;
    let lock = locks.get_mut(&target.name)?;
    if cx.host().stop_signal().is_some() {
        return None;
    }
    let Some((source, source_engine)) = source.zip(cx.pipeline.engine(from)) else {
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
    for observed in &observation.observed {
        // The gate judges by what this run knows of its copy.
        if let Some(listed) =
            observation.listing.iter_mut().find(|copy| copy.id == observed.copy.id)
        {
            *listed = observed.copy.clone();
        }
    }
    doubtful::tell(cx, rec, job, engine, &observation.listing);
    let good: Vec<(&Series, &Copy)> = observation
        .observed
        .iter()
        .filter(|observed| observed.archived.report.outcome.is_healthy())
        .map(|observed| (&observed.archived.series, &observed.copy))
        .collect();
    let deleted = if cx.host().stop_signal().is_none() {
        let policy = cx.config().keep(job, engine.target());
        retain(cx, rec, engine, job, &observation, &good, policy, lock)
    } else {
        Vec::new()
    };
    // Whoever waits for this repository need not wait for the rest of the job.
    lock.take();
    Some(Served { observation, deleted })
}

fn report(
    pipeline: Pipeline<'_>,
    job: &Job,
    target: &Target,
    served: Option<&Served>,
) -> Vec<TargetReport> {
    let mut reports = Vec::new();
    for series in series_of(pipeline.config, job) {
        let observed = served.and_then(|served| {
            served.observation.observed.iter().find(|observed| observed.archived.series == series)
        });
        let empty = TargetReport {
            target: target.name.clone(),
            item: series.item.clone(),
            outcome: Outcome::Failed,
            copy: None,
            bytes_new: None,
            size: None,
            files: None,
            files_changed: 0,
            unreadable: Vec::new(),
            unreadable_count: 0,
            deleted: Vec::new(),
        };
        let Some(observed) = observed else {
            reports.push(TargetReport { outcome: without_copy(pipeline), ..empty });
            continue;
        };
        let said = &observed.archived.report;
        let deleted = served
            .map(|served| {
                let listed = |id: &&String| {
                    let of = served.observation.listing.iter().find(|copy| copy.id == **id);
                    of.and_then(|copy| copy.series.as_ref()) == Some(&series)
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
    targets.iter().flat_map(|target| report(pipeline, job, target, None)).collect()
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
