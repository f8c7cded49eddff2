//! Snapshots that stay: the newest one of which each target has a copy, and those that the job wants to keep here.

use std::collections::BTreeSet;

use crate::capture::{self, CaptureError, Still};
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

/// An earlier snapshot that is still there.
pub(super) struct Earlier {
    /// Its name in the top-level subvolume.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The generation in which it was changed last.
    pub generation: u64,
}

/// The earlier snapshots of a subvolume, the newest first: those that are there and what they were.
///
/// # Errors
/// When history or the file system cannot be asked.
pub(super) fn of_item(
    cx: RunContext<'_>,
    job: &Job,
    item: &str,
    fit: &Fit,
) -> Result<Vec<Earlier>, StepError> {
    let Some(history) = cx.pipeline.history else { return Ok(Vec::new()) };
    let origin = fit.volume.subvolume.as_ref().and_then(|it| it.uuid.as_ref());
    let mut found = Vec::new();
    for kept in history.kept(&job.name)?.into_iter().rev() {
        if kept.series.item.as_deref() != Some(item) {
            continue;
        }
        // Another disk may have taken the place of the one that it is on, for good.
        if is_away(cx, &kept) {
            continue;
        }
        let Some(Still::Subvolume { device, name, .. }) = capture::kept(cx.capture(), &kept.kept)?
        else {
            continue;
        };
        // One of another subvolume that was at this path is no base: a difference to it would be a full one. And whoever
        // made it writable may have changed it.
        let there = cx.host().subvolume_on(&device, &name)?;
        let there = there.filter(|it| it.read_only && it.parent_uuid.as_ref() == origin);
        let known = there.and_then(|it| Some((it.uuid?, it.changed)));
        found.extend(known.map(|(uuid, generation)| Earlier { name, uuid, generation }));
    }
    Ok(found)
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
    Ok(unneeded.filter(|kept| !is_away(cx, kept)).cloned().collect())
}

/// Whether the file system that a snapshot is on is not here.
fn is_away(cx: RunContext<'_>, kept: &KeptCapture) -> bool {
    matches!(capture::kept(cx.capture(), &kept.kept), Err(CaptureError::Unfit { .. }))
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
