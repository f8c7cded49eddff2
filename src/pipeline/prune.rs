//! `prune`: deletes what the policy does not keep, or the copies that a person named, by exact id. What goes in
//! a target is decided on a listing that was made under the target's lock, and deleted under the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Engine;
use crate::history::{Closure, Maintenance, MaintenanceKind};
use crate::model::copy::{CLOCK_SLACK, Copy, Series};
use crate::model::job::{Config, Job};
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::target::Target;
use crate::report::closed::told;
use crate::retention::{self, Decision, Verdict};

mod changed;
mod told;

pub use told::{Pruned, Request, Ruling};

use super::absent::{self, Presence};
use super::alias::Ids;
use super::closed;
use super::pin::mark_remembered;
use super::select;
use super::steps::observe::listing;
use super::steps::retain::{self, Question};
use super::steps::space::{self, Spare};
use super::steps::target::lock_for_deleting;
use crate::step::context::RunContext;
use crate::step::error::StepError;

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
    if let Some(why) = absence(cx, request, target)? {
        pruned.absent.push((target.name.clone(), why));
        return Ok(());
    }
    let _lock = lock_for_deleting(cx.pipeline, cx.run, target)?;
    Ids::of(cx.pipeline).refuse_second(target, &[])?;
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
    prune_locked(cx, request, engine, jobs, (&copies, &closures), pruned)
}

/// The same where the target is locked and looked through: what it lists, and what closes it.
fn prune_locked(
    cx: RunContext<'_>,
    request: &Request,
    engine: &dyn Engine,
    jobs: &[&Job],
    (copies, closures): (&[Copy], &[Closure]),
    pruned: &mut Pruned,
) -> Result<(), StepError> {
    let target = engine.target();
    let its = |copies: &[Copy]| of_jobs(cx, engine, jobs, copies).cloned().collect();
    if changed::delete_named(cx, request, engine, &its, (copies, closures), pruned)? {
        return Ok(());
    }
    pruned.answered.extend(answered(cx, request, engine, jobs, copies)?);
    let mut ids = Vec::new();
    if !closures.is_empty() {
        pruned.refusals.push(told(&target.name, closures));
    }
    let mut spare = Spare::default();
    let mut judge =
        Judge { cx, request, engine, copies, closures, ids: &mut ids, spare: &mut spare, pruned };
    judge.jobs(jobs)?;
    spare.expendable.sort();
    for (base, needed_by) in retain::spare_needed(copies, &mut ids) {
        pruned.spare(target, &base, &needed_by);
    }
    // What a refusal spares stays in the table as what it is: kept.
    if !ids.is_empty() {
        pruned.deleted.extend(retain::delete(cx, engine, &ids)?);
    }
    if request.is_choice() {
        return Ok(());
    }
    make_room(cx, engine, &spare, !ids.is_empty(), pruned)
}

/// Why a target is passed over that may be away.
///
/// # Errors
/// When it is away and must not be, or that is not known.
fn absence(
    cx: RunContext<'_>,
    request: &Request,
    target: &Target,
) -> Result<Option<String>, StepError> {
    match absent::look(cx.pipeline, target)? {
        Presence::Here => Ok(None),
        // A person may say that it is this target's.
        Presence::Unknown(_) if request.accept => Ok(None),
        Presence::Unknown(error) => Err(error),
        Presence::Absent(why) if request.named => Err(absent::told(target, &why)),
        Presence::Absent(why) => Ok(Some(why)),
    }
}

/// Those of the names that a person gave which mean a copy of this target.
///
/// # Errors
/// When one of them means several.
fn answered(
    cx: RunContext<'_>,
    request: &Request,
    engine: &dyn Engine,
    jobs: &[&Job],
    copies: &[Copy],
) -> Result<Vec<String>, StepError> {
    let mut answered = Vec::new();
    for wanted in &request.copies {
        let mut found = of_jobs(cx, engine, jobs, copies);
        if one_meaning(wanted, &mut found, engine.target())? {
            answered.push(wanted.clone());
        }
    }
    Ok(answered)
}

/// Deletes beyond the policies where space must stay free and is lacking.
fn make_room(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    spare: &Spare,
    has_deleted: bool,
    pruned: &mut Pruned,
) -> Result<(), StepError> {
    let target = &engine.target().name;
    let mut delete = |ids: &[String]| {
        let deleted = retain::delete(cx, engine, ids)?;
        pruned.deleted.extend(deleted.iter().cloned());
        Ok(deleted)
    };
    let room = space::make_room(cx, engine, spare, has_deleted, &mut delete)?;
    for ruling in pruned.decisions.iter_mut().filter(|ruling| ruling.target == *target) {
        let may_go = spare.expendable.iter().any(|it| it.id == ruling.copy);
        if room.deleted.contains(&ruling.copy) {
            ruling.delete = true;
            ruling.reason = Pruned::FOR_SPACE.into();
        } else if room.is_foretold && may_go {
            ruling.if_needed = true;
            ruling.reason = format!("{}; space, if needed", ruling.reason);
        }
    }
    let told = room.told.map(|told| format!("target {target}: {told}"));
    if room.is_lacking {
        pruned.refusals.extend(told);
    } else {
        pruned.space.extend(told);
    }
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
        let listed = match absent::look(cx.pipeline, target) {
            Ok(Presence::Here) => engine.list(cx.engine()).map_err(StepError::from),
            Ok(Presence::Absent(why)) => {
                pruned.absent.push((target.name.clone(), why));
                return false;
            }
            Ok(Presence::Unknown(error)) | Err(error) => Err(error),
        };
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
            Err(StepError::new(Trouble::Usage, text))
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
    let series: BTreeSet<Option<&Series>> = found.iter().map(|copy| copy.series.as_ref()).collect();
    // One run may have sent several snapshots of one stream.
    if found.len() > 1
        && (series.len() < found.len() || !found.iter().all(|copy| copy.is_exactly(wanted)))
    {
        let ids: Vec<&str> = found.iter().map(|copy| copy.id.as_str()).collect();
        let text = format!(
            "{wanted} is ambiguous in target {}, so nothing was deleted there: {} — name more of the id",
            target.name,
            ids.join(", ")
        );
        return Err(StepError::new(Trouble::Usage, text));
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
    let host = cx.config().host_of(&job.name);
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
    /// What may go for space.
    spare: &'a mut Spare,
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
                newest: copy.filter(|_| !request.without_copy.contains(series)),
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
                    if_needed: false,
                    reason: reason(decision, copies),
                });
            }
        }
        // What closes the target was told once.
        self.pruned.refusals.extend(decided.refusals.into_iter().filter(|_| closures.is_empty()));
        self.spare.expendable.extend(decided.spare.expendable);
        self.spare.held_back.extend(decided.spare.held_back);
        self.ids.extend(decided.ids);
        Ok(())
    }

    /// Copies that a person named, by id or by time. Pinned ones and the last good one of a series stay even so.
    fn by_choice(&mut self, job: &Job) {
        let Self { cx, request, engine, copies, closures, .. } = *self;
        let good = retain::good_copies(cx, of_series(cx, engine, job, copies));
        // The one that is dated last and the one that was made last: a clock may have been behind.
        let last_good = |series: &Series, id: &str| {
            let copies = good.get(series).map_or(&[][..], Vec::as_slice);
            let dated = copies.iter().max_by_key(|copy| copy.moment());
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
            if spared.is_none() {
                self.ids.push(copy.id.clone());
            }
            self.pruned.rule(engine.target(), (copy, series), reason, spared);
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
