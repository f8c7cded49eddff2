//! Snapshots that stay: the newest one of which each target has a copy, and those that the job wants to keep here.

use std::collections::BTreeSet;
use std::path::Path;

use crate::capture::{self, CaptureError, Still};
use crate::engine::Snapshot;
use crate::history::{History, KeptCapture};
use crate::model::copy::{CLOCK_SLACK, Copy, Series, later};
use crate::model::job::Job;
use crate::retention::{self, Guards};
use crate::step::captures::{self, Held};
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::kept;
use crate::step::recorder::{Done, Recorder};
use crate::step::source::series_of;

use super::fit::Fit;

/// A snapshot as whoever sends it sees it, who sees the top-level subvolume at `top`.
pub(super) fn seen(still: &Still, top: &Path) -> Option<Snapshot> {
    match still {
        Still::Subvolume { name, found, .. } => Some(Snapshot {
            path: top.join(name),
            uuid: found.uuid.clone()?,
            generation: found.changed,
        }),
        Still::Path(_) | Still::Device(_) => None,
    }
}

/// The earlier snapshots of a subvolume, the newest first, as they are [`seen`]: those that are there and what they were.
///
/// # Errors
/// When history or the file system cannot be asked.
pub(super) fn of_item(
    cx: RunContext<'_>,
    job: &Job,
    item: &str,
    fit: &Fit,
    top: &Path,
) -> Result<Vec<Snapshot>, StepError> {
    let Some(history) = cx.pipeline.history else { return Ok(Vec::new()) };
    let origin = fit.volume.subvolume.as_ref().and_then(|it| it.uuid.as_ref());
    // One of another subvolume that was at this path is no base: a difference to it would be a full one. And whoever made
    // it writable may have changed it.
    let is_of_it = |still: &Still| match still {
        Still::Subvolume { found, .. } => found.read_only && found.parent_uuid.as_ref() == origin,
        Still::Path(_) | Still::Device(_) => false,
    };
    let mut earlier = Vec::new();
    for kept in history.kept(&job.name)?.into_iter().rev() {
        if kept.series.item.as_deref() != Some(item) {
            continue;
        }
        match capture::kept(cx.capture(), &kept.kept) {
            Ok(still) => {
                let still = still.filter(is_of_it);
                earlier.extend(still.and_then(|still| seen(&still, top)));
            }
            // Another disk may have taken the place of the one that it is on, for good.
            Err(error) if is_away(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(earlier)
}

/// Has this run's snapshots stay, whichever targets took them: that is not recorded yet, and [`release_unneeded`] decides
/// by it. What cannot be recorded is released.
pub(super) fn keep(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    made: Vec<(String, Held)>,
) {
    let _shield = cx.host().shield();
    let now = cx.host().now();
    let recorded: Vec<KeptCapture> = made
        .iter()
        .filter_map(|(item, held)| {
            let series = series_of(cx.pipeline, job, Some(item.clone()));
            Some(KeptCapture { series, run: cx.run.clone(), kept: held.to_keep()?, made: now })
        })
        .collect();
    if let Err(error) = cx.pipeline.remember(|history| history.record_kept(&recorded)) {
        rec.warn(StepError::from(error).message);
        return release(cx, rec, made.into_iter().map(|(_, held)| held).collect());
    }
    rec.step("keep", None, None, |_| {
        for (_, held) in made {
            held.keep(cx, &[])?;
        }
        let text = cx.tense("kept for the next time", "would be kept for the next time");
        Ok(((), Done::ok(format!("{} {text}", recorded.len()))))
    });
}

/// Releases snapshots of this run.
pub(super) fn release(cx: RunContext<'_>, rec: &mut Recorder<'_>, held: Vec<Held>) {
    if held.is_empty() {
        return;
    }
    let _shield = cx.host().shield();
    let count = held.len();
    rec.step("release", None, None, |_| {
        captures::release(cx, held).map(|()| ((), Done::ok(format!("{count} released"))))
    });
}

/// Releases the snapshots that nobody needs any more, neither the job's own policy nor a target: a target needs the one of
/// which it has its last good copy. One that is away keeps its own for as long as that takes. History says which target has
/// which, so this comes after the copies of the run are recorded ([`crate::step::context::Source::settle`]).
pub(super) fn release_unneeded(cx: RunContext<'_>, rec: &mut Recorder<'_>, job: &Job) {
    let Some(history) = cx.pipeline.history else { return };
    match unneeded(cx, job, history) {
        Ok(unneeded) => kept::release(cx, rec, &unneeded, "earlier"),
        Err(error) => rec.warn(error.message),
    }
}

fn unneeded(
    cx: RunContext<'_>,
    job: &Job,
    history: &History,
) -> Result<Vec<KeptCapture>, StepError> {
    let kept = history.kept(&job.name)?;
    // What is dated further ahead is no last one to anybody.
    let until = later(cx.host().now(), CLOCK_SLACK);
    let mut needed = BTreeSet::new();
    let all: BTreeSet<&Series> = kept.iter().map(|kept| &kept.series).collect();
    for series in all {
        for target in &job.targets {
            let last = history.last_good_until(target, series, until)?;
            needed.extend(last.map(|last| (series.clone(), last.run)));
        }
    }
    // What this run made may not have been recorded as a copy anywhere yet, or by nobody: it is the next base.
    let is_needed = |kept: &KeptCapture| {
        kept.run == *cx.run || needed.contains(&(kept.series.clone(), kept.run.clone()))
    };
    let staying = staying(cx, job, &kept);
    let unneeded = kept.iter().filter(|kept| !is_needed(kept) && !staying.contains(&name(kept)));
    // One on a disk that is not here takes up no space here. It is released when the disk is back, if ever.
    let is_here = |kept: &&KeptCapture| {
        !capture::kept(cx.capture(), &kept.kept).is_err_and(|it| is_away(&it))
    };
    Ok(unneeded.filter(is_here).cloned().collect())
}

/// Whether a capture cannot be found because the file system that it is on is not here.
fn is_away(error: &CaptureError) -> bool {
    matches!(error, CaptureError::Unfit { .. })
}

/// The snapshots that stay because the job says so.
fn staying(cx: RunContext<'_>, job: &Job, kept: &[KeptCapture]) -> BTreeSet<String> {
    let Some(policy) = &job.keep_snapshots else { return BTreeSet::new() };
    let snapshot = |kept: &KeptCapture| Copy {
        id: name(kept),
        series: Some(kept.series.clone()),
        time: kept.made,
        ours: true,
        ..Copy::default()
    };
    let snapshots: Vec<Copy> = kept.iter().map(snapshot).collect();
    let host = cx.host();
    let plan = retention::plan(policy, &snapshots, host.now(), &Guards::default(), &|at| {
        host.ahead_of_utc(at)
    });
    let going: BTreeSet<String> = plan.deletions().into_iter().collect();
    snapshots.into_iter().map(|it| it.id).filter(|id| !going.contains(id)).collect()
}

/// What tells a snapshot from all others of the job.
fn name(kept: &KeptCapture) -> String {
    format!("{}/{}", kept.series, kept.run)
}
