//! How snapshots on another machine are reached that stay: as the configuration says it now.

use crate::model::job::Job;
use crate::model::undo::Kept;
use crate::step::context::RunContext;
use crate::step::error::StepError;

/// A capture that stays, as it is reached now: a key, a port or a name may be another one than when it was made. `None`
/// where it is on a machine from which the job pulled before, and does no more: that may be gone for good.
pub(super) fn reached(job: &Job, kept: &Kept) -> Option<Kept> {
    let Some(snapshot) = kept.undo.far() else { return Some(kept.clone()) };
    let from = job.source.far_machine()?;
    let snapshot = snapshot.reached_by(&from.host, &from.server)?;
    Some(Kept { undo: snapshot.into(), ..kept.clone() })
}

/// Writes that down for whoever releases it, who knows of no job.
///
/// # Errors
/// When history cannot be read or written.
pub(super) fn note_way(cx: RunContext<'_>, job: &Job) -> Result<(), StepError> {
    let is_far = job.source.far_machine().is_some();
    let Some(history) = cx.pipeline.history.filter(|_| is_far) else { return Ok(()) };
    for kept in history.kept(&job.name)? {
        let Some(now) = reached(job, &kept.kept) else { continue };
        if now != kept.kept {
            cx.pipeline.remember(|history| history.replace_kept(&kept.kept.undo, &now.undo))?;
        }
    }
    Ok(())
}
