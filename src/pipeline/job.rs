//! One job, from its lock to its last hook. Read it top to bottom.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::capture::Silent;
use crate::engine::Engine;
use crate::host::LockGuard;
use crate::model::copy::{Copy, Series};
use crate::model::event::Event;
use crate::model::job::{Config, Job, Part, Scope};
use crate::model::names::TargetName;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::{JobReport, TargetReport, VolumeReport};
use crate::model::target::Target;

use super::steps::archive::Batch;
use super::steps::doubtful;
use super::steps::observe::{Observation, Replicated, know, observe};
use super::steps::prepare::{Absences, Locks, Looked, lock_targets, look_for};
use super::steps::replicate::replicate;
use super::steps::retain::{JobRetention, retain};
use super::steps::served::{Served, report, unserved, without_copy};
use super::steps::spread::Spread;
use crate::source::{Item, Source, series_of};
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;
use crate::step::hook::{self, Held, Verdict};
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
    /// Why there is no copy although nothing failed: a hook asked to leave the job out, or its targets are away.
    skipped: Option<String>,
    /// A target has all there is.
    is_up_to_date: bool,
    captures: Vec<VolumeReport>,
    targets: Vec<TargetReport>,
    served: BTreeMap<TargetName, bool>,
}

impl Gathered {
    /// Why there is no copy although all went well, if so.
    fn without_copy(&self, part: Part) -> Option<String> {
        if part == Part::Snapshots {
            return Some("only snapshots were asked for, and no copy".to_owned());
        }
        let is_skipped = |target: &TargetReport| matches!(target.outcome, Outcome::Skipped(_));
        if self.targets.is_empty() || !self.targets.iter().all(is_skipped) {
            return None;
        }
        Some(match self.is_up_to_date {
            true => "there is nothing new for the targets that are here".to_owned(),
            false => "every target is absent: there is a snapshot, and no copy".to_owned(),
        })
    }

    /// What there is where nothing was made.
    fn without_copies(targets: Vec<TargetReport>) -> Self {
        Self { targets, ..Self::default() }
    }
}

/// Runs one job.
pub fn run_job(cx: RunContext<'_>, job: &Job, scope: Scope<'_>) -> JobResult {
    let started = Instant::now();
    cx.pipeline.observer.on(&Event::JobStarted { job: job.name.clone() });
    let mut rec = Recorder::new(cx.pipeline.observer, Some(job.name.clone()));
    // One that hangs holds a lock of the targets up once, not for each path.
    let silent = Silent::default();
    let cx = RunContext { silent: Some(&silent), ..cx };
    let gathered = carry_out(cx, &mut rec, job, scope.part, &targets_of(cx.config(), job, scope));

    let interrupted = cx.host().stop_signal();
    if let Some(signal) = interrupted {
        rec.troubles.push(Trouble::Signal(signal));
    }
    let targets = &gathered.targets;
    // A target that is away does not make the job a skipped one; all of them do.
    let served = targets.iter().filter(|target| !matches!(target.outcome, Outcome::Skipped(_)));
    let mut outcome = served.fold(rec.outcome(), |worst, t| worst.worst(t.outcome.clone()));
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
            part: scope.part,
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
    part: Part,
    targets: &[&Target],
) -> Gathered {
    let unserved =
        |absent: &Absences| Gathered::without_copies(unserved(cx.pipeline, job, targets, absent));
    // 1. Locks, before anything is changed: the job's, then those of its targets, always in one order.
    let job_lock = rec.step("lock", None, None, |_| {
        let wait = cx.config().settings.lock_wait;
        Ok((cx.pipeline.lock_job(cx.run, &job.name, wait)?, Done::ok("held")))
    });
    let Some(_job_lock) = job_lock else {
        // No hook either: the run that holds the lock is between its own.
        return unserved(&Absences::new());
    };
    let Looked { wanted, absent } = look_for(cx, rec, targets);
    let are_away = wanted.is_empty() && !absent.is_empty();
    let makes_snapshots = part != Part::Transfer && cx.pipeline.source(job).keeps_snapshots();
    if are_away && !makes_snapshots {
        // No hook has anything to prepare for.
        let skipped = Some("every target is absent".to_owned());
        return Gathered { skipped, ..unserved(&absent) };
    }
    let mut locks = lock_targets(cx, rec, wanted);
    if locks.is_empty() && !are_away && part != Part::Snapshots {
        // Nothing was begun, so there is nothing for `finally`; that the job failed must still be told.
        hook::after(cx, rec, job, None);
        return unserved(&absent);
    }

    // 2. The ledger holds what undoes the hooks before they run.
    let Some(held) = intend_last_words(cx, rec, job) else {
        hook::after(cx, rec, job, None);
        return unserved(&absent);
    };

    // 3. The copies.
    let mut gathered = match hook::before(cx, rec, job) {
        Some(Verdict::Skip(reason)) => Gathered { skipped: Some(reason), ..Gathered::default() },
        Some(Verdict::Proceed) => serve(cx, rec, (job, part), targets, &absent, &mut locks),
        None => unserved(&absent),
    };

    // 4. Whatever happened, the hooks have the last word. A job that made nothing but snapshots is no good one to them.
    let is_asked_to_skip = gathered.skipped.is_some();
    if !is_asked_to_skip && rec.outcome() == Outcome::Ok {
        gathered.skipped = gathered.without_copy(part);
    }
    let skipped = gathered.skipped.as_deref();
    if !is_asked_to_skip {
        hook::after(cx, rec, job, skipped);
    }
    hook::finally(cx, rec, &held, skipped);
    gathered
}

/// Notes in the ledger what undoes the hooks.
fn intend_last_words(cx: RunContext<'_>, rec: &mut Recorder<'_>, job: &Job) -> Option<Vec<Held>> {
    if job.hooks.finally.is_empty() {
        return Some(Vec::new());
    }
    rec.step("intend", None, None, |_| {
        Ok((hook::intend_finally(cx, job)?, Done::ok(hook::in_ledger(cx, "finally hooks"))))
    })
}

/// Brings what the job protects to every target.
fn serve(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    (job, part): (&Job, Part),
    targets: &[&Target],
    absent: &Absences,
    locks: &mut Locks<'_>,
) -> Gathered {
    let source = cx.pipeline.source(job);
    let Some(batches) = batches(cx, rec, job, source.as_ref()) else {
        return Gathered::without_copies(unserved(cx.pipeline, job, targets, absent));
    };
    // 1. What engines write to directly.
    let is_direct =
        |target: &&&Target| target.copy_from.is_none() && locks.contains_key(&target.name);
    let direct: Vec<&Target> = targets.iter().filter(is_direct).copied().collect();
    let whole = (job, part, source.as_ref());
    let (captures, Spread { mut archived, up_to_date }) =
        store(cx, rec, whole, &batches, (targets, &direct));
    let mut gathered = Gathered { captures, ..Gathered::default() };
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
    gathered.is_up_to_date = !up_to_date.is_empty();
    let series: Vec<Series> =
        batches.concat().into_iter().map(|item| series_of(cx.pipeline, job, item)).collect();
    for target in targets {
        let served = served.get(&target.name);
        let known = |series: &Series| {
            let is_absent = absent.get(&target.name).cloned().map(Outcome::Skipped);
            is_absent.or_else(|| up_to_date.get(&(&target.name, series.clone())).cloned())
        };
        gathered.targets.extend(report(cx.pipeline, &series, target, &known, served));
    }
    gathered.served =
        served.iter().map(|(name, held)| ((*name).clone(), !held.deleted.is_empty())).collect();
    gathered
}

/// Batch by batch: holds it still for all targets, copies it to those that engines write to directly, lets it go.
fn store<'t>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    (job, part, source): (&Job, Part, &dyn Source),
    batches: &[Vec<Item>],
    (targets, direct): (&[&Target], &[&'t Target]),
) -> (Vec<VolumeReport>, Spread<'t>) {
    let (mut captures, mut spread) = (Vec::new(), Spread::default());
    for items in batches {
        if cx.host().stop_signal().is_some() {
            break;
        }
        // One that cannot be held has said so, and keeps no other from its turn.
        let alone = cx.hold_alone();
        let held = match part {
            Part::Whole | Part::Snapshots => source.hold(cx, rec, items, targets),
            Part::Transfer => source.hold_kept(cx, rec, items),
        };
        drop(alone);
        let Some(held) = held else { continue };
        captures.extend_from_slice(held.volumes());
        let batch = Batch { job, source, items, held: held.as_ref() };
        held.watch(cx, &mut || spread.add(cx, rec, batch, direct));
        held.release(cx, rec);
    }
    (captures, spread)
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

/// The record of a job that the run did not come to.
pub fn not_begun(pipeline: Pipeline<'_>, job: &Job, scope: Scope<'_>) -> JobReport {
    let targets = targets_of(pipeline.config, job, scope);
    JobReport {
        name: job.name.clone(),
        outcome: without_copy(pipeline),
        reason: Some("the run ended before it was begun".to_owned()),
        part: scope.part,
        elapsed: Duration::ZERO,
        steps: Vec::new(),
        captures: Vec::new(),
        targets: unserved(pipeline, job, &targets, &Absences::new()),
    }
}

/// The targets that a run serves, of those that the job has.
pub(super) fn targets_of<'a>(
    config: &'a Config,
    job: &'a Job,
    scope: Scope<'_>,
) -> Vec<&'a Target> {
    if scope.part == Part::Snapshots {
        return Vec::new();
    }
    let wanted = |name: &&TargetName| scope.target.is_none_or(|only| *name == only);
    job.targets.iter().filter(wanted).filter_map(|name| config.target(name)).collect()
}
