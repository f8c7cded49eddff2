//! Applies the policy: decided by `retention`, carried out by exact id, proven by a listing.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::engine::Engine;
use crate::history::{Closure, Maintenance, MaintenanceKind};
use crate::host::LockGuard;
use crate::model::copy::{CLOCK_SLACK, Copy, Series, abridged};
use crate::model::job::Job;
use crate::model::keep::KeepPolicy;
use crate::model::outcome::{Outcome, Trouble};
use crate::report::closed::kinds;
use crate::retention::{self, Evidence, Guards, Plan, Refusal};

use crate::pipeline::closed;
use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::pin::find_again;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};

use super::observe::{Observation, know, listing};
use super::space::Spare;
use super::target::lock_for_deleting;

/// What retention is to decide for one series.
pub struct Question<'a> {
    /// The series that is judged.
    pub series: &'a Series,
    /// What to keep; `None` keeps everything.
    pub policy: Option<&'a KeepPolicy>,
    /// The copy whose health decides whether anything may be deleted.
    pub newest: Option<&'a Copy>,
    /// How much smaller than the last good copy that one may be, in percent.
    pub max_shrink_percent: u8,
    /// A person has checked what a refusal names (`--accept`).
    pub accepted: bool,
}

/// What is to be deleted in a target, and why nothing is where nothing is.
#[derive(Debug, Default)]
pub struct Decided {
    /// The ids of the copies to delete, as the target lists them.
    pub ids: Vec<String>,
    /// The plan of each series, for people.
    pub plans: Vec<(Series, Plan)>,
    /// Why a series was left alone although its policy would delete.
    pub refusals: Vec<String>,
    /// What may go beyond the policy where space must stay free and is lacking.
    pub spare: Spare,
}

/// Decides for several series of one target, which `closures` may close. Changes nothing.
///
/// # Errors
/// When history cannot be read: without it the gate cannot judge.
pub fn decide(
    cx: RunContext<'_>,
    copies: &[Copy],
    engine: &dyn Engine,
    closures: &[Closure],
    questions: &[Question<'_>],
) -> Result<Decided, StepError> {
    let target = &engine.target().name;
    let last_run = match cx.pipeline.history {
        Some(history) => history.newest_time()?,
        None => None,
    };
    // Why in full was told where the target was listed.
    let closed = (!closures.is_empty()).then(|| {
        format!("target {target} is closed ({}), see `stillpoint status`", kinds(closures))
    });
    let circumstances = Circumstances { cx, engine, last_run, closed };
    let mut decided = Decided::default();
    let minds_space = engine.target().min_free().is_some();
    let all = KeepPolicy::default();
    for question in questions {
        let Some(policy) = question.policy.or(minds_space.then_some(&all)) else { continue };
        let finished: Vec<&Copy> = copies
            .iter()
            .filter(|copy| copy.series.as_ref() == Some(question.series))
            .filter(|copy| engine.unfinished(copy).is_none())
            .collect();
        let (plan, verdict) = circumstances.decide(question, policy, &finished)?;
        let deletions = plan.deletions();
        match verdict {
            Ok(()) => {
                if minds_space {
                    let bases = circumstances.bases(question.series, &finished)?;
                    decided.spare.expendable.extend(retention::expendable(&plan, &bases));
                }
                decided.ids.extend(deletions);
            }
            Err(refusal) if !deletions.is_empty() => decided.refusals.push(refusal.told()),
            Err(refusal) if minds_space => decided.spare.held_back.push(refusal.told()),
            Err(_) => {}
        }
        decided.plans.push((question.series.clone(), plan));
    }
    Ok(decided)
}

/// What holds for every series of a target while it is decided about them.
struct Circumstances<'a> {
    cx: RunContext<'a>,
    engine: &'a dyn Engine,
    /// When the newest run that history knows began.
    last_run: Option<DateTime<Utc>>,
    /// Why nothing is deleted in the target.
    closed: Option<String>,
}

impl Circumstances<'_> {
    /// The newest copy of the series of whose snapshot there is still one here: the next difference is based on it.
    fn bases(&self, series: &Series, finished: &[&Copy]) -> Result<BTreeSet<String>, StepError> {
        let Some(history) = self.cx.pipeline.history else { return Ok(BTreeSet::new()) };
        let kept = history.kept(&series.job)?;
        let is_base = |copy: &&&Copy| {
            kept.iter().any(|kept| kept.series == *series && Some(&kept.run) == copy.run.as_ref())
        };
        let newest = finished.iter().filter(is_base).max_by_key(|copy| copy.moment());
        Ok(newest.map(|copy| copy.id.clone()).into_iter().collect())
    }

    /// What the policy deletes of one series, and whether the evidence allows it.
    fn decide(
        &self,
        question: &Question<'_>,
        policy: &KeepPolicy,
        finished: &[&Copy],
    ) -> Result<(Plan, Result<(), Refusal>), StepError> {
        let host = self.cx.host();
        let now = host.now();
        let guards =
            Guards { max_shrink_percent: question.max_shrink_percent, ..Guards::default() };
        let plan = retention::plan(policy, finished, now, &guards, &|at| host.ahead_of_utc(at));
        let accepted_before = match self.cx.pipeline.history {
            Some(history) => {
                history.last_accepted(&self.engine.target().name, &question.series.job)?
            }
            None => None,
        };
        let earlier = earlier_good(finished, question.newest, now, &guards);
        let evidence = Evidence {
            series: question.series,
            copy: question.newest,
            last_good: retention::baseline(&earlier, accepted_before, &guards),
            last_run: self.last_run,
            now,
            // btrbk's periods are counted from now, so a leap of the clock takes all that is older.
            within: policy.within.or(policy.btrbk.map(|_| guards.clock_leap)),
            accepted_before,
            closed: self.closed.as_deref(),
            accepted: question.accepted,
        };
        let verdict = retention::gate(&evidence, &plan, &guards);
        Ok((plan, verdict))
    }
}

/// The good copies of ours that the newest one may be compared with.
fn earlier_good<'a>(
    finished: &[&'a Copy],
    newest: Option<&Copy>,
    now: DateTime<Utc>,
    guards: &Guards,
) -> Vec<&'a Copy> {
    let is_earlier = |copy: &&Copy| {
        // Two runs may fall into one second, which is as fine as a copy's time is.
        newest.is_none_or(|newest| copy.time <= newest.time && copy.id != newest.id)
    };
    finished
        .iter()
        .copied()
        .filter(|copy| copy.ours && copy.may_be_good())
        .filter(|copy| !copy.is_in_the_future(now, guards.clock_slack))
        .filter(is_earlier)
        .collect()
}

/// Half-made copies of these series that earlier, dead runs of a job left in the target: by the exact names that history
/// recorded before they were begun.
///
/// They are swept only after a good copy, since until then the engine resumes from what they hold.
///
/// # Errors
/// When history cannot be read.
pub fn unfinished(
    cx: RunContext<'_>,
    copies: &[Copy],
    engine: &dyn Engine,
    of: &[&Series],
) -> Result<Vec<String>, StepError> {
    let Some(history) = cx.pipeline.history else { return Ok(Vec::new()) };
    let attempts = history.attempts(&engine.target().name).map_err(StepError::from)?;
    // The job's lock is ours, so any other run of it that left something is dead.
    let ours: BTreeSet<&str> = attempts
        .iter()
        .filter(|attempt| of.contains(&&attempt.series) && attempt.run != *cx.run)
        .filter_map(|attempt| attempt.name.as_deref())
        .collect();
    Ok(copies
        .iter()
        .filter(|copy| engine.unfinished(copy).is_some_and(|name| ours.contains(name.as_str())))
        .map(|copy| copy.id.clone())
        .collect())
}

/// The copies of each series of which one must stay whatever a person chooses: the good ones of ours, without those
/// of the future.
pub fn good_copies<'c>(
    cx: RunContext<'_>,
    copies: impl Iterator<Item = (&'c Copy, &'c Series)>,
) -> BTreeMap<&'c Series, Vec<&'c Copy>> {
    let now = cx.host().now();
    let mut good: BTreeMap<&Series, Vec<&Copy>> = BTreeMap::new();
    for (copy, series) in copies.filter(|(copy, _)| copy.ours && copy.may_be_good()) {
        good.entry(series).or_default().push(copy);
    }
    for copies in good.values_mut() {
        // Where all of them are in the future, it is now that the clock is wrong.
        let is_past = |copy: &&Copy| !copy.is_in_the_future(now, CLOCK_SLACK);
        if copies.iter().any(is_past) {
            copies.retain(is_past);
        }
    }
    good
}

/// Takes out of what is to be deleted whatever a copy that stays is a difference to, and answers with each of those and
/// the copy that needs it. The copies are all that the target lists.
pub fn spare_needed(copies: &[Copy], ids: &mut Vec<String>) -> Vec<(String, String)> {
    let bases: BTreeMap<&str, &str> = (copies.iter())
        .filter_map(|copy| Some((copy.id.as_str(), copy.based_on.as_deref()?)))
        .collect();
    let mut goes: BTreeSet<String> = ids.iter().cloned().collect();
    let mut spared = Vec::new();
    for copy in copies {
        let mut at = copy.id.as_str();
        // What stays by now has spared what it needs, or will when its turn comes; so no circle is walked twice.
        while !goes.contains(at)
            && let Some(base) = bases.get(at)
            && goes.remove(*base)
        {
            spared.push(((*base).to_owned(), at.to_owned()));
            at = base;
        }
    }
    ids.retain(|id| goes.contains(id));
    spared
}

/// Deletes copies by exact id and proves by a new listing that they are gone. Answers with those that are: one
/// that another machine has pinned meanwhile has another id by now, and stays.
///
/// The caller holds the target's lock for deleting, and has decided under it.
///
/// # Errors
/// When the engine fails, or says it succeeded and the target still lists one.
pub fn delete(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    ids: &[String],
) -> Result<Vec<String>, StepError> {
    match (cx.pipeline.kept_history(), cx.pipeline.history) {
        (Some(history), _) => history.expect_gone(&engine.target().name, ids)?,
        (None, Some(history)) => history.foresee_gone(&engine.target().name, ids),
        (None, None) => {}
    }
    bracketed(cx, engine, |engine, context| engine.delete(context, ids))?;
    let after = listing(cx, engine)?;
    let is_left = |id: &&String| after.iter().any(|copy| copy.id == **id);
    let was_pinned =
        |id: &String| after.iter().any(|copy| copy.pinned && copy.original.as_ref() == Some(id));
    let (left, gone): (Vec<&String>, Vec<&String>) = ids.iter().partition(is_left);
    let gone: Vec<String> = gone.into_iter().filter(|id| !was_pinned(id)).cloned().collect();
    let target = &engine.target().name;
    let done = Maintenance {
        target: target.clone(),
        kind: MaintenanceKind::Prune,
        outcome: Outcome::Ok,
        detail: format!("{} deleted", gone.len()),
        time: cx.host().now(),
    };
    cx.pipeline
        .remember(|history| {
            history.forget_copies(target, &gone)?;
            if gone.is_empty() { Ok(()) } else { history.record_maintenance(&done) }
        })
        .map_err(|error| StepError { trouble: Trouble::Warning, ..error.into() })?;
    if left.is_empty() {
        return Ok(gone);
    }
    let left: Vec<&str> = left.into_iter().map(String::as_str).collect();
    Err(StepError::new(
        Trouble::JobFailed,
        format!(
            "the target still lists {} although {} said they were deleted",
            left.join(", "),
            engine.target().engine.name()
        ),
    ))
}

/// What one job wants of retention in one target.
pub struct JobRetention<'a> {
    /// The target's engine.
    pub engine: &'a dyn Engine,
    /// The job whose policy is applied.
    pub job: &'a Job,
    /// This run's good copies. Only their series are decided about.
    pub good: &'a [(&'a Series, &'a Copy)],
    /// What to keep; `None` keeps everything.
    pub policy: Option<&'a KeepPolicy>,
}

/// The retention step of a job in a target. Answers with the ids that are gone.
pub fn retain(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    wanted: &JobRetention<'_>,
    observation: &Observation,
    lock: &mut Option<Box<dyn LockGuard>>,
) -> Vec<String> {
    let JobRetention { engine, good, policy, .. } = *wanted;
    let target = engine.target();
    let copies = &observation.listing;
    let is_unfinished = |copy: &Copy| engine.unfinished(copy).is_some();
    let has_work = policy.is_some() || copies.iter().any(is_unfinished);
    let mut gone = Vec::new();
    if target.append_only || good.is_empty() || !has_work {
        return gone;
    }
    rec.step("retain", Some(&target.name), None, |_| {
        let mut decided = wanted.decide(cx, copies, &observation.closures, good)?;
        if !decided.ids.is_empty() && !engine.is_written_alone() {
            decided = match wanted.decide_alone(cx, lock) {
                // The copy is made; what should go can go next time.
                Err(error) if error.trouble == Trouble::Busy => {
                    let detail = format!("deletion is postponed: {}", error.message);
                    return Ok(((), Done::with(Outcome::Warning, Trouble::Warning, detail)));
                }
                decided => decided?,
            };
        }
        if !decided.ids.is_empty() {
            gone = delete(cx, engine, &decided.ids)?;
        }
        Ok(((), wanted.summary(cx, copies, &gone, &decided.refusals)))
    });
    gone
}

impl JobRetention<'_> {
    /// Decides about the job's copies: by its policy, and about what dead runs left half-made.
    fn decide(
        &self,
        cx: RunContext<'_>,
        copies: &[Copy],
        closures: &[Closure],
        good: &[(&Series, &Copy)],
    ) -> Result<Decided, StepError> {
        let question = |&(series, copy)| Question {
            series,
            policy: self.policy,
            newest: Some(copy),
            max_shrink_percent: self.job.max_shrink_percent,
            accepted: false,
        };
        let questions: Vec<Question<'_>> = good.iter().map(question).collect();
        let mut decided = decide(cx, copies, self.engine, closures, &questions)?;
        if closures.is_empty() {
            let series: Vec<&Series> = good.iter().map(|(series, _)| *series).collect();
            decided.ids.extend(unfinished(cx, copies, self.engine, &series)?);
        }
        Ok(decided)
    }

    /// Decides once more, with nobody else at the target. The old lock goes first, or two runs that both hold a shared
    /// one would wait for each other; so others may have come in between.
    fn decide_alone(
        &self,
        cx: RunContext<'_>,
        lock: &mut Option<Box<dyn LockGuard>>,
    ) -> Result<Decided, StepError> {
        lock.take();
        *lock = Some(lock_for_deleting(cx.pipeline, cx.run, self.engine.target())?);
        let mut copies = listing(cx, self.engine)?;
        know(&mut copies, self.good.iter().map(|(_, copy)| *copy));
        let good = found_again(self.good, &copies);
        let good: Vec<(&Series, &Copy)> = good.iter().map(|(s, copy)| (*s, copy)).collect();
        let closures = closed::examine(cx, self.engine, &copies)?;
        self.decide(cx, &copies, &closures, &good)
    }

    /// What is said of the step.
    fn summary(
        &self,
        cx: RunContext<'_>,
        copies: &[Copy],
        gone: &[String],
        refusals: &[String],
    ) -> Done {
        let host = cx.config().host_of(&self.job.name);
        let is_of_job = |copy: &&Copy| {
            copy.series.as_ref().is_some_and(|s| s.job == self.job.name && s.host == *host)
        };
        let (kept, others): (Vec<&Copy>, Vec<&Copy>) =
            copies.iter().filter(is_of_job).partition(|copy| copy.ours);
        let kept = kept.len().saturating_sub(gone.len());
        let mut detail = match gone.len() {
            0 => format!("nothing to delete, {kept} kept"),
            count => {
                let would = cx.tense("", "would be ");
                format!("{count} {would}deleted ({}), {kept} kept", abridged(gone))
            }
        };
        if !others.is_empty() {
            detail = format!(
                "{detail}; {} that this machine neither made nor adopted left alone",
                others.len()
            );
        }
        if refusals.is_empty() {
            return Done::ok(detail);
        }
        let detail = format!("{detail}; {}", refusals.join("; "));
        Done::with(Outcome::Warning, Trouble::Warning, detail)
    }
}

/// This run's copies in a later listing: a pin may have given them another id. What is not there any more is left
/// out, and so is its series.
fn found_again<'a>(good: &[(&'a Series, &Copy)], copies: &[Copy]) -> Vec<(&'a Series, Copy)> {
    good.iter()
        .filter_map(|(series, copy)| {
            let now = find_again(copies, copy)?;
            let listed = (*copy).clone();
            Some((*series, Copy { id: now.id.clone(), pinned: now.pinned, ..listed }))
        })
        .collect()
}
