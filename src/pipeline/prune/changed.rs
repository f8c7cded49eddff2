//! Copies that somebody has changed since they were made: no listing has them, and no policy decides about them.

use std::path::Path;

use crate::engine::{Changed, Engine};
use crate::history::{Closure, ClosureKind, Maintenance, MaintenanceKind};
use crate::model::copy::Copy;
use crate::model::outcome::{Outcome, Trouble};
use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::staging::refuse_seen;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::told::{Pruned, Request};

/// Deletes those that a person named, in a target that was named as well: by its whole id, for nobody has seen it in a list,
/// and the good copy of that name in another target must stay. Damage that closes the target keeps nobody from it: it may
/// be this one. Answers whether all that was named was such.
///
/// # Errors
/// When the target cannot be looked at, or one that was deleted is still there.
pub(super) fn delete_named(
    cx: RunContext<'_>,
    request: &Request,
    engine: &dyn Engine,
    of_jobs: &dyn Fn(&[Copy]) -> Vec<Copy>,
    (copies, closures): (&[Copy], &[Closure]),
    pruned: &mut Pruned,
) -> Result<bool, StepError> {
    let is_listed = |wanted: &&String| copies.iter().any(|copy| copy.answers_to(wanted));
    let named: Vec<&String> = request.copies.iter().filter(|it| !is_listed(it)).collect();
    let Some(known) = engine.changed().filter(|_| request.named && !named.is_empty()) else {
        return Ok(false);
    };
    let target = engine.target();
    let mut changed = known.copies(cx.engine())?;
    if let Some(history) = cx.pipeline.history {
        history.enrich(&target.name, &mut changed)?;
    }
    let is_replaced = closures.iter().any(|closure| closure.kind == ClosureKind::Replaced);
    let mut found = of_jobs(&changed);
    found.retain(|copy| named.iter().any(|wanted| **wanted == copy.id));
    for copy in &found {
        pruned.answered.insert(copy.id.clone());
        let spared = if !copy.ours {
            Some("neither made nor adopted by this machine")
        } else if copy.pinned {
            Some("pinned")
        } else if is_replaced {
            Some("in another repository than was known")
        } else {
            None
        };
        if let Some(series) = &copy.series {
            pruned.rule(target, (copy, series), "named, and changed by somebody".into(), spared);
        }
        if spared.is_none() {
            delete(cx, (engine, known), &copy.id, closures)?;
            pruned.deleted.push(copy.id.clone());
        }
    }
    Ok(found.len() == request.copies.len())
}

/// Deletes one, and looks whether it is gone. That good copies are missing is not said of it any more.
fn delete(
    cx: RunContext<'_>,
    (engine, known): (&dyn Engine, &dyn Changed),
    id: &String,
    closures: &[Closure],
) -> Result<(), StepError> {
    let target = &engine.target().name;
    // Whoever made it writable may be at work in it: an id is where it lies, or the name that a mount of it shows.
    refuse_seen(cx.host(), Path::new(id))?;
    bracketed(cx, engine, |_, context| known.delete(context, id))?;
    if known.copies(cx.engine())?.iter().any(|copy| copy.id == *id) {
        let text = format!("{id} is still there although it was said to be deleted");
        return Err(StepError::new(Trouble::JobFailed, text));
    }
    let done = Maintenance {
        target: target.clone(),
        kind: MaintenanceKind::Prune,
        outcome: Outcome::Ok,
        detail: format!("{id} deleted, which somebody had changed"),
        time: cx.host().now(),
    };
    let is_of_it = |it: &&Closure| it.kind == ClosureKind::Gone && it.subject == *id;
    cx.pipeline
        .remember(|history| {
            history.forget_copies(target, std::slice::from_ref(id))?;
            closures.iter().filter(is_of_it).try_for_each(|closure| history.reopen(closure))?;
            history.record_maintenance(&done)
        })
        .map_err(|error| StepError { trouble: Trouble::Warning, ..error.into() })
}
