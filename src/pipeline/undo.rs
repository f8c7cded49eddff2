//! The one interpreter of [`Undo`]: after an error in the same run, and after a crash in a later one.

use std::time::Duration;

use crate::capture;
use crate::host::{Action, LockGuard};
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::undo::{Identity, Ledger, Outstanding, Undo};

use super::engine_lock;
use super::ledger::FileLedger;
use super::mount;
use crate::step::context::Pipeline;
use crate::step::error::StepError;
use crate::step::hook;
use crate::step::release::give_back_all;

/// Gives one thing back. Idempotent: what is already gone is success, decided by looking.
///
/// # Errors
/// When it could not be given back; the caller leaves it in the ledger.
pub fn give_back(
    pipeline: Pipeline<'_>,
    run: &RunId,
    ledger: &dyn Ledger,
    undo: &Undo,
    identity: Option<&Identity>,
) -> Result<(), StepError> {
    match undo {
        Undo::RemoveStaging { path } => {
            pipeline
                .host
                .act(&Action::RemoveStaging { path: path.clone(), identity: identity.cloned() })?;
            Ok(())
        }
        Undo::RunHook { promise, job, argv, timeout } => {
            let moment = hook::Moment::promised(*promise, job, run);
            hook::run_one(pipeline.host, argv, *timeout, &moment).map(|_| ())
        }
        Undo::ReleaseEngineLock { target, owner } => {
            engine_lock::release(pipeline, ledger, target, owner.as_deref())
        }
        Undo::RemoveSubvolume(_) | Undo::RemoveVolume(_) | Undo::RemountWritable { .. } => {
            Ok(capture::give_back(pipeline.room(), undo, identity)?)
        }
        Undo::Unmount(promised) => mount::unmount(pipeline.host, promised, identity),
        Undo::Thaw { cgroup } => {
            pipeline
                .host
                .act(&Action::Thaw { cgroup: cgroup.clone(), identity: identity.cloned() })?;
            Ok(())
        }
    }
}

/// Gives back everything a ledger holds, newest first, never stopping at a failure. Answers with what
/// failed; that stays in the ledger.
pub fn unwind(
    pipeline: Pipeline<'_>,
    run: &RunId,
    ledger: &FileLedger,
    outstanding: &[Outstanding],
) -> Vec<StepError> {
    // What a signal stopped must still be given back.
    let _shield = pipeline.host.shield();
    let one = |Outstanding { undo, identity, .. }: &Outstanding| {
        let _lock = permit(pipeline, run, undo)?;
        give_back(pipeline, run, ledger, undo, identity.as_ref())
    };
    let mut failures = Vec::new();
    for (undo, error) in give_back_all(pipeline.room(), ledger, outstanding, &one) {
        let mut failure = left(Some(run), &error.message);
        if let Undo::RunHook { .. } = undo {
            failure.message += &format!(", and `stillpoint recover --give-up {run}` gives it up");
        }
        failures.push(failure);
    }
    failures
}

/// Whether a thing may be given back now. A hook runs under its job's lock, which no live run of that job gives
/// away between its own hooks: a `finally` would start the database that the live run has just stopped.
fn permit(
    pipeline: Pipeline<'_>,
    run: &RunId,
    undo: &Undo,
) -> Result<Option<Box<dyn LockGuard>>, StepError> {
    let Undo::RunHook { promise, job, .. } = undo else { return Ok(None) };
    match pipeline.lock_job(run, job, Duration::ZERO) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) => Err(StepError::new(
            Trouble::Cleanup,
            format!(
                "the {} hook of job {job} has to wait: {}",
                promise.name(),
                StepError::from(error).message
            ),
        )),
    }
}

/// Something that could not be given back, of which run, and what becomes of it.
pub(super) fn left(run: Option<&RunId>, why: &str) -> StepError {
    let of = run.map(|run| format!("left by run {run}: ")).unwrap_or_default();
    let message = format!("{of}{why}; the next run or `stillpoint recover` tries again");
    StepError::new(Trouble::Cleanup, message)
}
