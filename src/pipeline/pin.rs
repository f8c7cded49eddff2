//! `pin` and `unpin`: the mark in the repository that keeps a copy whatever the policy says.
//!
//! The mark outlives this machine. borg has it in the archive's name and restic in a tag; setting it gives the
//! copy another id with both, which its record in history follows. Until the mark is seen in the repository a
//! row in history stands for it, so that a crash at any point leaves the copy protected. The released version
//! had nothing but that row for borg; [`mark_remembered`] gives such copies their mark.

use crate::engine::Engine;
use crate::model::copy::{Copy, abridged};
use crate::model::outcome::Trouble;

use super::absent;
use super::engine_lock::bracketed;
use super::steps::target::lock_for_deleting;
use crate::step::context::RunContext;
use crate::step::error::StepError;

/// Pins a copy or takes its pin away. Answers with the copy's id after that, as the target lists it.
///
/// # Errors
/// When the copy is not there any more, or the target does not show it as it should be afterwards.
pub fn pin(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    chosen: &Copy,
    pinned: bool,
) -> Result<String, StepError> {
    let target = engine.target();
    absent::require(cx.pipeline, target)?;
    // Whoever deletes decides and deletes under this lock.
    let _lock = lock_for_deleting(cx.pipeline, cx.run, target)?;
    // It was chosen without the lock, and may have gone since.
    let listed = engine.list(cx.engine())?;
    let Some(copy) = find_again(&listed, chosen) else {
        let text = format!(
            "the copy {} is no longer in target {}, or not the only one that claims to be it: it was changed or deleted meanwhile — see `stillpoint list`",
            chosen.id, target.name
        );
        return Err(StepError::new(Trouble::JobFailed, text));
    };
    if !pinned {
        cx.pipeline.remember(|history| history.unpin(&target.name, &names(copy)).map(drop))?;
    }
    set(cx, engine, &listed, copy, pinned).map_err(|error| {
        match pinned && !matches!(error.trouble, Trouble::Signal(_)) {
            true => remembered(cx, error),
            false => error,
        }
    })
}

/// Gives the pins that only history knows their mark in the repository. Answers with what could not be done; the
/// copies are kept all the same as long as history is there. The target's lock is held by the caller.
pub fn mark_remembered(cx: RunContext<'_>, engine: &dyn Engine) -> Vec<String> {
    let target = engine.target();
    let Some(history) = cx.pipeline.kept_history() else { return Vec::new() };
    let only_here = |error: StepError| {
        format!(
            "{error}; pins of target {} are recorded only in this machine's history",
            target.name
        )
    };
    let remembered = match history.pins(&target.name) {
        Ok(remembered) if remembered.is_empty() => return Vec::new(),
        Ok(remembered) => remembered,
        Err(error) => return vec![only_here(error.into())],
    };
    let listed = match engine.list(cx.engine()) {
        Ok(listed) => listed,
        Err(error) => return vec![only_here(error.into())],
    };
    // What claims to have had another's id is not meant as long as that one is there.
    let is_there = |id: &str| listed.iter().any(|copy| copy.id == id);
    let meant = |copy: &&Copy| {
        let was = copy.original.as_deref().filter(|id| !is_there(id));
        remembered.contains(&copy.id) || was.is_some_and(|id| remembered.contains(id))
    };
    let mut failures = Vec::new();
    for copy in listed.iter().filter(meant) {
        failures.extend(set(cx, engine, &listed, copy, true).err().map(only_here));
    }
    failures
}

/// Sets or removes the mark of a listed copy, and looks whether it is so. Its record goes to nothing that was listed
/// before: anybody can add what claims to be it.
fn set(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    before: &[Copy],
    copy: &Copy,
    pinned: bool,
) -> Result<String, StepError> {
    let target = &engine.target().name;
    if pinned {
        // It is protected from here on, whatever comes between.
        cx.pipeline.remember(|history| history.pin(target, &copy.id, cx.host().now()))?;
    }
    let said = bracketed(cx, engine, |engine, context| engine.set_pin(context, copy, pinned));
    if let Err(error @ StepError { trouble: Trouble::Signal(_), .. }) = said {
        return Err(error);
    }
    // Believed when the listing shows it, and not otherwise: an append-only repository takes a tag on, but
    // refuses to let the copy without it go.
    let after = engine.list(cx.engine())?;
    let was_there = |id: &str| before.iter().any(|copy| copy.id == id);
    let found: Vec<&Copy> = after
        .iter()
        .filter(|now| is_same(now, copy) && (now.id == copy.id || !was_there(&now.id)))
        .collect();
    let marked: Vec<&Copy> = found.iter().copied().filter(|now| now.pinned == pinned).collect();
    let is_so = pinned || found.iter().all(|now| !now.pinned);
    let now = match marked.as_slice() {
        [now] if is_so => *now,
        [] | [_] => {
            let text = format!("target {target} does not show {} as {}", copy.id, word(pinned));
            return Err(said.err().unwrap_or_else(|| StepError::new(Trouble::JobFailed, text)));
        }
        several => {
            let ids: Vec<String> = several.iter().map(|now| now.id.clone()).collect();
            let text = format!(
                "{} in target {target} each claim to be {} as {}, and only one can be it — see `stillpoint list`",
                abridged(&ids),
                copy.id,
                word(pinned)
            );
            return Err(StepError::new(Trouble::JobFailed, text));
        }
    };
    cx.pipeline.remember(|history| {
        if now.id != copy.id {
            history.follow(target, &copy.id, &now.id)?;
        }
        history
            .unpin(target, &names(copy))
            .and_then(|_| history.unpin(target, &names(now)))
            .map(drop)
    })?;
    Ok(now.id.clone())
}

/// What is said where a copy could not be marked: history protects it until it is.
fn remembered(cx: RunContext<'_>, error: StepError) -> StepError {
    if cx.pipeline.kept_history().is_none() {
        return error;
    }
    let message = format!(
        "{}; until it can be marked there, which each run and prune tries again, this machine's own record keeps it from being pruned here (`stillpoint unpin` takes that back)",
        error.message
    );
    StepError { message, ..error }
}

/// The ids that a copy answers to as a whole.
fn names(copy: &Copy) -> Vec<&str> {
    [Some(copy.id.as_str()), copy.original.as_deref()].into_iter().flatten().collect()
}

/// A copy in a later listing: under the id that it had or, where only one can be it, under another.
pub(super) fn find_again<'a>(listed: &'a [Copy], before: &Copy) -> Option<&'a Copy> {
    listed.iter().find(|now| now.id == before.id).or_else(|| {
        let mut same = listed.iter().filter(|now| is_same(now, before));
        same.next().filter(|_| same.next().is_none())
    })
}

/// Whether two listings show one copy, under whichever id. What is in the repository says so, and may lie.
fn is_same(now: &Copy, before: &Copy) -> bool {
    let first = |copy: &Copy| copy.original.clone().unwrap_or_else(|| copy.id.clone());
    now.id == before.id
        || (first(now) == first(before) && now.run == before.run && now.series == before.series)
}

/// How a copy is called that is pinned, or is not.
pub fn word(pinned: bool) -> &'static str {
    if pinned { "pinned" } else { "not pinned" }
}
