//! `estimate`: a job is held still as for a run, its targets say how much a copy would take, and it is let go.

use crate::engine::{Estimate, Input};
use crate::model::event::Progress;
use crate::model::job::Job;
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::target::Target;

use super::absent;
use crate::source::{Due, HeldBatch, Item};
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};

/// What one target would get of one item.
#[derive(Debug)]
pub struct Estimated {
    /// The target.
    pub target: TargetName,
    /// The item; `None` where the job is one thing as a whole.
    pub item: Item,
    /// How much that would be.
    pub estimate: Estimate,
}

/// What came of it.
#[derive(Debug)]
pub struct Estimates {
    /// Those that are known.
    pub known: Vec<Estimated>,
    /// What went wrong with the others, and with letting go.
    pub troubles: Vec<Trouble>,
}

/// Tells how much the next run of a job would store. Its hooks are not run.
///
/// # Errors
/// When none of the targets can tell such a thing, or the job runs just now.
pub fn estimate(
    cx: RunContext<'_>,
    job: &Job,
    only: Option<&TargetName>,
) -> Result<Estimates, StepError> {
    let wanted = |name: &&TargetName| only.is_none_or(|only| *name == only);
    let targets = job.targets.iter().filter(wanted).filter_map(|name| cx.config().target(name));
    let targets: Vec<&Target> =
        targets.filter(|target| cx.pipeline.engine(target).can_estimate()).collect();
    if targets.is_empty() {
        let text = format!(
            "no target of job {} can tell beforehand how much a copy would take; those of btrfs can",
            job.name
        );
        return Err(StepError::new(Trouble::Usage, text));
    }
    // A run would take the captures of this one for its own predecessors.
    let _lock = cx.pipeline.lock_job(cx.run, &job.name, cx.config().settings.lock_wait)?;
    let mut rec = Recorder::new(cx.pipeline.observer, Some(job.name.clone()));
    let (targets, absent): (Vec<&Target>, Vec<&Target>) =
        targets.into_iter().partition(|target| absent::absence(cx.pipeline, target).is_none());
    for target in absent {
        // Nobody waits for one that was not asked for.
        if only.is_some() {
            absent::require(cx.pipeline, target)?;
        }
        rec.say(false, format!("target {} is absent, so it cannot tell", target.name));
    }
    if targets.is_empty() {
        return Ok(Estimates { known: Vec::new(), troubles: rec.troubles });
    }
    let source = cx.pipeline.source(job);
    let mut known = Vec::new();
    for items in source.batches(source.items(cx.host())?) {
        let Some(held) = source.hold(cx, &mut rec, &items, &targets) else { continue };
        for target in &targets {
            for item in &items {
                let input = next_input(cx, &mut rec, held.as_ref(), item, target);
                let Some(input) = input else { continue };
                let told = rec.step("estimate", Some(&target.name), item.as_deref(), |_| {
                    cx.unless_stopped()?;
                    absent::require(cx.pipeline, target)?;
                    let estimate = cx.pipeline.engine(target).estimate(cx.engine(), &input)?;
                    Ok((estimate, Done::ok("told")))
                });
                known.extend(told.map(|estimate| Estimated {
                    target: target.name.clone(),
                    item: item.clone(),
                    estimate,
                }));
            }
        }
        held.discard(cx, &mut rec);
    }
    Ok(Estimates { known, troubles: rec.troubles })
}

/// What the next run would give a target of an item: of several snapshots the newest, which differs in about as much as all of
/// them together.
fn next_input(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    held: &dyn HeldBatch,
    item: &Item,
    target: &Target,
) -> Option<Input> {
    match held.due(cx, item, target) {
        Ok(Due::Now) => held.input(cx, item, target),
        Ok(Due::These { snapshots, .. }) => {
            held.input_of(cx, item, target, &snapshots.last()?.uuid)
        }
        Ok(Due::Nothing { why, lacks: _ }) => {
            rec.say(false, format!("target {}: {why}", target.name));
            None
        }
        Err(error) => {
            let failed = |_: &mut dyn FnMut(Progress)| Err::<((), Done), _>(error);
            rec.step("estimate", Some(&target.name), item.as_deref(), failed);
            None
        }
    }
}
