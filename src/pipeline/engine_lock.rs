//! The lock that an engine takes in a repository, in the ledger: its name is written down before it is taken.

use std::time::Duration;

use crate::engine::{Claim, Context, Engine, EngineError};
use crate::model::outcome::Trouble;
use crate::model::undo::{EngineLock, EngineUndo, Ledger};

use super::closed;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::{StepError, ledger_error};

/// Runs an engine call that takes the repository's lock, with that lock in the ledger: if the engine dies
/// on the way, its own lock is released, by us or by recover. Only the context that the call is handed has the engine
/// give its lock a name of the run's, so that no lock of that name is unknown to the ledger.
///
/// A volatile ledger does not outlive a reboot, a dry run has none, and a lock outlives both. So there the lock gets
/// no name of its own, and the engine's own rule takes it away.
///
/// # Errors
/// As the call, or when the ledger cannot be written.
pub fn bracketed<T>(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    call: impl FnOnce(&dyn Engine, Context<'_>) -> Result<T, EngineError>,
) -> Result<T, StepError> {
    bracketed_with(cx, engine, &[], call)
}

/// The same for a call that takes the locks of other repositories too.
///
/// # Errors
/// See [`bracketed`].
pub fn bracketed_with<T>(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    others: &[&dyn Engine],
    call: impl FnOnce(&dyn Engine, Context<'_>) -> Result<T, EngineError>,
) -> Result<T, StepError> {
    let told = |error| closed::noting(cx, &engine.target().name, error);
    if !cx.durable {
        return call(engine, cx.engine()).map_err(told);
    }
    let context = Context { run: Some(cx.run), ..cx.engine() };
    let mut intended = Vec::new();
    for locked in [engine].iter().chain(others).filter(|engine| engine.takes_locks()) {
        let target = locked.target().name.clone();
        let lock = EngineLock { target, owner: locked.lock_owner(context) };
        let undo = EngineUndo::from(lock.clone());
        let entry = cx.ledger.intend(undo.into()).map_err(ledger_error)?;
        intended.push((*locked, entry, lock));
    }
    let result = call(engine, context);
    let mut unsettled = None;
    for (locked, entry, lock) in intended {
        if released(cx, locked, &lock, result.as_ref().err()) {
            unsettled = cx.ledger.settled(entry).map_err(ledger_error).err().or(unsettled);
        }
    }
    match (result, unsettled) {
        (Ok(_), Some(error)) => Err(error),
        (result, _) => result.map_err(told),
    }
}

/// Whether nothing of a call's lock is left. If something may be, it stays in the ledger, and the failure that brought
/// us here is the one to report.
fn released(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    lock: &EngineLock,
    failure: Option<&EngineError>,
) -> bool {
    if let Some(EngineError::Locked { .. }) = failure {
        // A look takes no lock that the ledger knows. One that a power cut ended leaves borg's own under the
        // machine's name, which borg itself takes away when the next look comes; so the next run finds it gone.
        let context = Context { lock_wait: Duration::ZERO, ..cx.pipeline.engine_context() };
        if let Err(error) = engine.list(context) {
            tracing::debug!(%error, "the repository stays locked");
        }
    }
    if !failure.is_some_and(may_leave_a_lock) {
        return true;
    }
    let _shield = cx.host().shield();
    match release(cx.pipeline, cx.ledger, lock) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(target = %engine.target().name, "cannot release the engine's lock: {}", error.message);
            false
        }
    }
}

/// Whether the engine may have left its lock behind when this was its end.
fn may_leave_a_lock(error: &EngineError) -> bool {
    match error {
        // Said before a lock is taken, or, by borg, when it has given its own back: it speaks last.
        EngineError::RepositoryMissing { .. }
        | EngineError::RepositoryExists { .. }
        | EngineError::WrongPassphrase { .. }
        | EngineError::KeyMissing { .. }
        | EngineError::Secret { .. }
        | EngineError::Untrusted(_)
        | EngineError::OtherEngine { .. }
        | EngineError::NoSource { .. }
        | EngineError::Denied { .. }
        | EngineError::InUse { .. }
        | EngineError::Unsupported { .. } => false,
        // The engine was stopped, lost the repository, or said nothing that can be relied on.
        EngineError::Locked { .. }
        | EngineError::Full { .. }
        | EngineError::DestinationFull { .. }
        | EngineError::PlaceFull { .. }
        | EngineError::Unreachable { .. }
        | EngineError::Damaged { .. }
        | EngineError::DamagedBetween { .. }
        | EngineError::Refused { .. }
        | EngineError::ReadOnly { .. }
        | EngineError::Moved { .. }
        | EngineError::Unfinished { .. }
        | EngineError::CacheDamaged { .. }
        | EngineError::Sender { .. }
        | EngineError::Producer { .. }
        | EngineError::EmptyStream { .. }
        | EngineError::Output { .. }
        | EngineError::Failed { .. }
        | EngineError::Run(_)
        | EngineError::Act(_) => true,
    }
}

/// Releases what a run left in the repository of a target.
///
/// # Errors
/// When the configuration does not name the target any more, or a lock that is or may be of the run stays.
pub fn release(
    pipeline: Pipeline<'_>,
    ledger: &dyn Ledger,
    lock: &EngineLock,
) -> Result<(), StepError> {
    let target = &lock.target;
    let Some(engine) = pipeline.engine_named(target) else {
        return Err(StepError::new(
            Trouble::Cleanup,
            format!(
                "a run left a lock in the repository of target {target}, which the configuration no longer names"
            ),
        ));
    };
    let children = ledger.children().map_err(ledger_error)?;
    let claim = Claim { owner: lock.owner.as_deref(), children: &children };
    Ok(engine.release_dead_lock(pipeline.engine_context(), claim)?)
}
