//! What engines of a run leave in the open, and how it is released.

use crate::model::names::TargetName;
use crate::model::undo::{EngineLock, EngineUndo, Identity, Ledger};

use super::{engine_lock, mount};
use crate::step::context::Pipeline;
use crate::step::error::StepError;

/// Releases one thing that an engine left.
///
/// # Errors
/// When it could not be released.
pub(super) fn release(
    pipeline: Pipeline<'_>,
    ledger: &dyn Ledger,
    undo: &EngineUndo,
    identity: Option<&Identity>,
) -> Result<(), StepError> {
    match undo {
        EngineUndo::ReleaseLock(lock) => engine_lock::release(pipeline, ledger, lock),
        EngineUndo::Unmount(mount) => mount::unmount(pipeline.host, mount, identity),
    }
}

/// The target of a lock that nobody can look at, since the configuration does not name it.
pub(super) fn out_of_reach<'u>(
    pipeline: Pipeline<'_>,
    undo: &'u EngineUndo,
) -> Option<&'u TargetName> {
    match undo {
        EngineUndo::ReleaseLock(EngineLock { target, .. }) => {
            pipeline.engine_named(target).is_none().then_some(target)
        }
        EngineUndo::Unmount(_) => None,
    }
}
