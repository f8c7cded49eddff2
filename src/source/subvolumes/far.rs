//! How snapshots on another machine are reached that stay: as the configuration says it now.

use crate::model::job::{Job, SubvolumesSource};
use crate::model::undo::Kept;
use crate::step::context::RunContext;
use crate::step::error::StepError;

/// A capture that stays, as it is reached now: a key, a port or a name may be another one than when it was made.
pub(super) fn reached(source: &SubvolumesSource, kept: &Kept) -> Kept {
    let reached = kept.undo.far().zip(source.from.as_ref());
    match reached.and_then(|(snapshot, from)| snapshot.reached_by(&from.host, &from.server)) {
        Some(snapshot) => Kept { undo: snapshot.into(), ..kept.clone() },
        None => kept.clone(),
    }
}

/// Writes that down for whoever releases it, who knows of no job.
///
/// # Errors
/// When history cannot be read or written.
pub(super) fn note_way(
    cx: RunContext<'_>,
    job: &Job,
    source: &SubvolumesSource,
) -> Result<(), StepError> {
    let Some(history) = cx.pipeline.history.filter(|_| source.from.is_some()) else {
        return Ok(());
    };
    for kept in history.kept(&job.name)? {
        let now = reached(source, &kept.kept);
        if now != kept.kept {
            cx.pipeline.remember(|history| history.replace_kept(&kept.kept.undo, &now.undo))?;
        }
    }
    Ok(())
}
