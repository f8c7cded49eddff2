//! `prune`: deletes what the policy does not keep, or the copies that a person named, by exact id. What goes in
//! a target is decided on a listing that was made under the target's lock, and deleted under the same.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::engine::Engine;
use crate::history::{Closure, Maintenance, MaintenanceKind};
use crate::model::copy::{CLOCK_SLACK, Copy, Series};
use crate::model::job::{Config, Job};
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::target::Target;
use crate::report::closed::told;
use crate::retention::{self, Decision, Verdict};

use super::closed;
use super::pin::mark_remembered;
use super::select;
use super::steps::observe::listing;
use super::steps::retain::{self, Question};
use super::steps::target::{lock_for_deleting, require_mount};
use crate::step::context::RunContext;
use crate::step::error::StepError;

/// What a person asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Exactly these copies, by id, the beginning of one, or a run's id.
    pub copies: Vec<String>,
    /// Those that stand for a moment before this one.
    pub before: Option<DateTime<Utc>>,
    /// Those that stand for a moment between these two.
    pub between: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// A person has checked what a refusal names.
    pub accept: bool,
}

impl Request {
    /// Whether the person chose, and not the policy.
    fn is_choice(&self) -> bool {
        !self.copies.is_empty() || self.before.is_some() || self.between.is_some()
    }

    fn is_chosen_by_time(&self, copy: &Copy) -> bool {
        self.before.is_some_and(|before| copy.time < before)
            || self.between.is_some_and(|(from, until)| from <= copy.time && copy.time <= until)
    }
}

/// What happens to one copy. The names are a contract.
#[derive(Debug, Clone, Serialize)]
pub struct Ruling {
    /// Where it is.
    pub target: TargetName,
    /// Whose it is.
    pub job: JobName,
    /// The stream, guest or volume.
    pub item: Option<String>,
    /// The id of the copy.
    pub copy: String,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// Whether it goes.
    pub delete: bool,
    /// The rule that keeps it, or why it is no longer needed.
    pub reason: String,
}

/// What was decided and done.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The verdict on every copy that was asked about.
    pub decisions: Vec<Ruling>,
    /// Exact ids that are gone.
    pub deleted: Vec<String>,
    /// Why something was left alone that would have gone.
    pub refusals: Vec<String>,
    /// What could not be done, in sentences.
    pub failures: Vec<String>,
    /// Everything that went wrong, by kind.
    pub troubles: Vec<Trouble>,
    /// Which of the texts that a person typed named a copy somewhere.
    answered: BTreeSet<String>,
}

impl Pruned {
    /// What went wrong with one target; the others are served all the same.
    fn failed(&mut self, target: &Target, error: &StepError) {
        self.failures.push(format!("target {}: {error}", target.name));
        self.troubles.push(error.trouble);
    }
}

/// The targets that are pruned, each with the jobs for whose copies: of this job, in this target, or all.
///
/// # Errors
/// When there is none of that name.
pub fn scope<'a>(
    config: &'a Config,
    job: Option<&JobName>,
    target: Option<&TargetName>,
    accept: bool,
) -> Result<Vec<(&'a Target, Vec<&'a Job>)>, StepError> {
    let jobs: Vec<&Job> = match job {
        Some(name) => vec![select::job(config, name)?],
        None => config.jobs.iter().collect(),
    };
    let of = job.and(jobs.first().copied());
    let mut scope = Vec::new();
    for pruned in select::targets(config, of, target)? {
        let its: Vec<&Job> =
            jobs.iter().copied().filter(|job| job.targets.contains(&pruned.name)).collect();
        // What closes a target may be older than the last job that listed it.
        if !its.is_empty() || accept && target.is_some() {
            scope.push((pruned, its));
        }
    }
    Ok(scope)
}

/// Prunes targets, each for the jobs beside it.
///
/// # Errors
/// When a text that a person typed means copies in several targets. Nothing was deleted then.
pub fn prune<'a>(
    cx: RunContext<'a>,
    request: &Request,
    mut targets: Vec<(&'a Target, Vec<&'a Job>)>,
) -> Result<Pruned, StepError> {
    let mut pruned = Pruned::default();
    if targets.len() > 1 && !request.copies.is_empty() {
        one_target(cx, &request.copies, &mut targets, &mut pruned)?;
    }
    for (target, jobs) in targets {
        if let Some(signal) = cx.host().stop_signal() {
            pruned.troubles.push(Trouble::Signal(signal));
            break;
        }
        if let Err(error) = prune_target(cx, request, target, &jobs, &mut pruned) {
            pruned.failed(target, &error);
        }
    }
    for wanted in request.copies.iter().filter(|wanted| !pruned.answered.contains(*wanted)) {
        pruned.failures.push(format!(
            "no target that could be read lists a copy {wanted} of these jobs — see `stillpoint list`"
        ));
        pruned.troubles.push(Trouble::JobFailed);
    }
    if !pruned.refusals.is_empty() {
        pruned.troubles.push(Trouble::Warning);
    }
    Ok(pruned)
}

fn prune_target(
    cx: RunContext<'_>,
    request: &Request,
    target: &Target,
    jobs: &[&Job],
    pruned: &mut Pruned,
) -> Result<(), StepError> {
    if target.append_only && !request.accept {
        pruned.refusals.push(append_only(target));
        return Ok(());
    }
    require_mount(cx.host(), target)?;
    let _lock = lock_for_deleting(cx.pipeline, cx.run, target)?;
    let engine = cx.pipeline.engine(target);
    if !target.append_only {
        pruned.refusals.extend(mark_remembered(cx, engine));
    }
    let copies = listing(cx, engine)?;
    let mut closures = closed::examine(cx, engine, &copies)?;
    if request.accept {
        closed::accept(cx, engine, &closures)?;
        // That a person's word was taken is all there is to do.
        if target.append_only {
            if closures.is_empty() || request.is_choice() {
                pruned.refusals.push(append_only(target));
            }
            return Ok(());
        }
        closures.clear();
    }
    for wanted in &request.copies {
        let mut found = of_jobs(cx, engine, jobs, &copies);
        if one_meaning(wanted, &mut found, target)? {
            pruned.answered.insert(wanted.clone());
        }
    }
    let mut ids = Vec::new();
    if !closures.is_empty() {
        pruned.refusals.push(told(&target.name, &closures));
    }
    let mut judge =
        Judge { cx, request, engine, copies: &copies, closures: &closures, ids: &mut ids, pruned };
    judge.jobs(jobs)?;
    // What a refusal spares stays in the table as what it is: kept.
    if ids.is_empty() {
        return Ok(());
    }
    let deleted = retain::delete(cx, engine, &ids)?;
    pruned.deleted.extend(deleted);
    Ok(())
}

fn append_only(target: &Target) -> String {
    format!("target {} is append-only: nothing is deleted there", target.name)
}

/// Notes what a person accepted.
fn record(cx: RunContext<'_>, target: &Target, detail: String) -> Result<(), StepError> {
    let done = Maintenance {
        target: target.name.clone(),
        kind: MaintenanceKind::Accept,
        outcome: Outcome::Ok,
        detail,
        time: cx.host().now(),
    };
    cx.pipeline
        .remember(|history| history.record_maintenance(&done))
        .map_err(|error| StepError { trouble: Trouble::Warning, ..error.into() })
}

/// Makes sure that each text a person typed names copies in one target only, unless it is a run's id, which means
/// all that the run made. A copy of a copy answers to the id of the first one too, and it is often the second
/// that must outlive it.
///
/// A target that cannot be read now is told and taken from the list: what would go there was not seen.
fn one_target(
    cx: RunContext<'_>,
    copies: &[String],
    targets: &mut Vec<(&Target, Vec<&Job>)>,
    pruned: &mut Pruned,
) -> Result<(), StepError> {
    let mut found: BTreeMap<&str, (Vec<&str>, bool)> = BTreeMap::new();
    targets.retain(|(target, jobs)| {
        if target.append_only {
            return true;
        }
        let engine = cx.pipeline.engine(target);
        let listed = require_mount(cx.host(), target).and_then(|()| Ok(engine.list(cx.engine())?));
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                pruned.failed(target, &error);
                return false;
            }
        };
        for wanted in copies {
            let mut named = of_jobs(cx, engine, jobs, &listed)
                .filter(|copy| copy.answers_to(wanted))
                .peekable();
            if named.peek().is_none() {
                continue;
            }
            let (names, by_run) = found.entry(wanted).or_insert((Vec::new(), true));
            names.push(target.name.as_str());
            *by_run &=
                named.all(|copy| copy.run.as_ref().is_some_and(|run| run.as_str() == wanted));
        }
        true
    });
    match found.iter().find(|(_, (names, by_run))| names.len() > 1 && !by_run) {
        Some((wanted, (names, _))) => {
            let text = format!(
                "{wanted} names copies in several targets, so nothing was deleted: {} — choose one with --target",
                names.join(", ")
            );
            Err(StepError::new(Trouble::Configuration, text))
        }
        None => Ok(()),
    }
}

/// Whether a text that a person typed names copies here. The beginning of an id must name a single one: what
/// is deleted was meant. A run id means all that the run made, one for each stream.
fn one_meaning(
    wanted: &str,
    copies: &mut dyn Iterator<Item = &Copy>,
    target: &Target,
) -> Result<bool, StepError> {
    let found: Vec<&Copy> = copies.filter(|copy| copy.answers_to(wanted)).collect();
    if found.len() > 1 && !found.iter().all(|copy| copy.is_exactly(wanted)) {
        let ids: Vec<&str> = found.iter().map(|copy| copy.id.as_str()).collect();
        let text = format!(
            "{wanted} is ambiguous in target {}, so nothing was deleted there: {} — name more of the id",
            target.name,
            ids.join(", ")
        );
        return Err(StepError::new(Trouble::Configuration, text));
    }
    Ok(!found.is_empty())
}

/// The copies under the names of this host and the job, whoever made them.
fn of_series<'a>(
    cx: RunContext<'a>,
    engine: &'a dyn Engine,
    job: &'a Job,
    copies: &'a [Copy],
) -> impl Iterator<Item = (&'a Copy, &'a Series)> {
    let host = &cx.config().settings.host;
    copies
        .iter()
        .filter(|copy| engine.unfinished(copy).is_none())
        .filter_map(|copy| Some((copy, copy.series.as_ref()?)))
        .filter(move |(_, series)| series.job == job.name && series.host == *host)
}

/// The same of several jobs.
fn of_jobs<'a>(
    cx: RunContext<'a>,
    engine: &'a dyn Engine,
    jobs: &'a [&'a Job],
    copies: &'a [Copy],
) -> impl Iterator<Item = &'a Copy> {
    jobs.iter().flat_map(move |job| of_series(cx, engine, job, copies)).map(|(copy, _)| copy)
}

/// What was found in a target under its lock, and what is decided about it, one job after the other.
struct Judge<'a> {
    cx: RunContext<'a>,
    request: &'a Request,
    engine: &'a dyn Engine,
    copies: &'a [Copy],
    closures: &'a [Closure],
    /// What is to be deleted.
    ids: &'a mut Vec<String>,
    pruned: &'a mut Pruned,
}

impl Judge<'_> {
    fn jobs(&mut self, jobs: &[&Job]) -> Result<(), StepError> {
        for job in jobs {
            if self.request.is_choice() {
                self.by_choice(job);
                continue;
            }
            self.by_policy(job)?;
            if self.request.accept {
                record(self.cx, self.engine.target(), job.name.to_string())?;
            }
        }
        Ok(())
    }

    /// Copies of the job that its policy does not keep.
    fn by_policy(&mut self, job: &Job) -> Result<(), StepError> {
        let Self { cx, request, engine, copies, closures, .. } = *self;
        let policy = cx.config().keep(job, engine.target());
        let now = cx.host().now();
        let mut newest: BTreeMap<&Series, Option<&Copy>> = BTreeMap::new();
        for (copy, series) in of_series(cx, engine, job, copies) {
            let slot = newest.entry(series).or_default();
            let counts = copy.ours && !copy.is_in_the_future(now, CLOCK_SLACK);
            if counts && slot.is_none_or(|slot| copy.is_newer_than(slot)) {
                *slot = Some(copy);
            }
        }
        let questions: Vec<Question<'_>> = newest
            .iter()
            .map(|(series, copy)| Question {
                series,
                policy,
                newest: *copy,
                max_shrink_percent: job.max_shrink_percent,
                accepted: request.accept,
            })
            .collect();
        let decided = retain::decide(cx, copies, engine, closures, &questions)?;
        for (series, plan) in &decided.plans {
            for decision in &plan.decisions {
                self.pruned.decisions.push(Ruling {
                    target: engine.target().name.clone(),
                    job: series.job.clone(),
                    item: series.item.clone(),
                    copy: decision.id.clone(),
                    time: decision.time,
                    delete: decided.ids.contains(&decision.id),
                    reason: reason(decision, copies),
                });
            }
        }
        // What closes the target was told once.
        self.pruned.refusals.extend(decided.refusals.into_iter().filter(|_| closures.is_empty()));
        self.ids.extend(decided.ids);
        Ok(())
    }

    /// Copies that a person named, by id or by time. Pinned ones and the last good one of a series stay even so.
    fn by_choice(&mut self, job: &Job) {
        let Self { cx, request, engine, copies, closures, .. } = *self;
        let good = good_copies(cx, of_series(cx, engine, job, copies));
        // The one that is dated last and the one that was made last: a clock may have been behind.
        let last_good = |series: &Series, id: &str| {
            let copies = good.get(series).map_or(&[][..], Vec::as_slice);
            let dated = copies.iter().max_by_key(|copy| (copy.time, &copy.id));
            let made = retention::last_good(copies.iter().copied());
            dated.is_some_and(|copy| copy.id == id) || made.is_some_and(|copy| copy.id == id)
        };
        for (copy, series) in of_series(cx, engine, job, copies) {
            let by_name = request.copies.iter().find(|wanted| copy.answers_to(wanted));
            let reason = match by_name {
                Some(wanted) => format!("named: {wanted}"),
                None if request.is_chosen_by_time(copy) => "chosen by time".to_owned(),
                None => continue,
            };
            let spared = if !copy.ours {
                Some("neither made nor adopted by this machine (`stillpoint adopt` takes it)")
            } else if copy.pinned {
                Some("pinned")
            } else if last_good(series, &copy.id) {
                Some("the last good copy")
            } else if closures.is_empty() {
                None
            } else {
                Some("in a closed target")
            };
            if let Some(spared) = spared {
                self.pruned.refusals.push(format!("{} is {spared}, so it is not deleted", copy.id));
            } else {
                self.ids.push(copy.id.clone());
            }
            self.pruned.decisions.push(Ruling {
                target: engine.target().name.clone(),
                job: series.job.clone(),
                item: series.item.clone(),
                copy: copy.id.clone(),
                time: copy.time,
                delete: spared.is_none(),
                reason: spared.map_or(reason, str::to_owned),
            });
        }
    }
}

/// Why, and for somebody else's copy, whose it says it is.
fn reason(decision: &Decision, copies: &[Copy]) -> String {
    let copy = copies.iter().find(|copy| copy.id == decision.id);
    match copy.and_then(|copy| copy.machine.as_ref()) {
        Some(machine) if decision.verdict == Verdict::Foreign => {
            format!("{}, marked as of machine {machine}", decision.verdict)
        }
        _ => decision.verdict.to_string(),
    }
}

/// The copies of each series of which one must stay whatever a person chooses: the good ones of ours, without those
/// of the future.
fn good_copies<'c>(
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
