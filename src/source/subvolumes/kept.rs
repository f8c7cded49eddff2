//! Snapshots that stay: the newest one of which each target has a copy, and those that the job wants to keep here.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::capture::survey::is_snapshot_of_ours;
use crate::capture::{self, CaptureError, Still};
use crate::engine::Snapshot;
use crate::history::{History, KeptCapture};
use crate::host::Subvolume;
use crate::model::copy::{CLOCK_SLACK, Copy, Series, later};
use crate::model::job::Job;
use crate::model::keep::KeepPolicy;
use crate::model::names::RunId;
use crate::model::target::Target;
use crate::model::undo::Identity;
use crate::retention::{self, Guards, Plan};
use crate::step::captures::{self, Held};
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::kept;
use crate::step::recorder::{Done, Recorder};
use crate::step::source::series_of;

use super::far;
use super::fit::Fit;
use super::here::{OnDevices, is_snapshot_of};

/// A snapshot as whoever sends it sees it, who sees the top-level subvolume at `top`.
pub(super) fn seen(still: &Still, top: &Path) -> Option<Snapshot> {
    match still {
        Still::Subvolume { name, found, .. } => Some(Snapshot {
            path: top.join(name),
            uuid: found.uuid.clone()?,
            generation: found.changed,
        }),
        Still::Far { path, found, .. } => Some(Snapshot {
            path: path.clone(),
            uuid: found.uuid.clone()?,
            generation: found.changed,
        }),
        Still::Path(_) | Still::Device(_) => None,
    }
}

/// A snapshot that is there.
pub(super) struct There {
    /// As it is [`seen`].
    pub snapshot: Snapshot,
    /// Its path, from the top-level subvolume on; on another machine, from the root.
    pub path: PathBuf,
    /// The subvolume.
    pub found: Subvolume,
    /// The run of the job that made it and keeps it; `None`: it is nobody's of ours.
    pub run: Option<RunId>,
}

impl There {
    /// One that the job keeps.
    fn kept(still: Still, run: &RunId, top: &Path) -> Option<Self> {
        let snapshot = seen(&still, top)?;
        let (path, found) = match still {
            Still::Subvolume { name, found, .. } => (name.into(), found),
            Still::Far { path, found, .. } => (path, found),
            Still::Path(_) | Still::Device(_) => return None,
        };
        Some(Self { snapshot, path, found, run: Some(run.clone()) })
    }

    /// One that is nobody's of ours.
    fn of_others(path: PathBuf, found: Subvolume, top: &Path) -> Option<Self> {
        let uuid = found.uuid.clone()?;
        let snapshot = Snapshot { path: top.join(&path), uuid, generation: found.changed };
        Some(Self { snapshot, path, found, run: None })
    }
}

/// In what generation each was changed last is nothing to go by: of what did not change since the last snapshot, the next
/// has the same.
fn newest_first(there: &mut [There]) {
    there.sort_by_key(|it| Reverse((it.found.made_in, it.found.id)));
}

/// What is there of earlier snapshots, looked at once for all subvolumes of a job.
pub(super) struct Earlier<'a> {
    cx: RunContext<'a>,
    /// Those that history knows, of all jobs.
    kept: Vec<KeptCapture>,
    on: OnDevices,
}

impl<'a> Earlier<'a> {
    /// `None` without history: what another job keeps could not be told from what is nobody's.
    ///
    /// # Errors
    /// When history cannot be asked.
    pub fn look(cx: RunContext<'a>) -> Result<Option<Self>, StepError> {
        let Some(history) = cx.pipeline.history else { return Ok(None) };
        Ok(Some(Self { cx, kept: history.all_kept()?, on: OnDevices::default() }))
    }

    /// The same without history as well: what is called like ours is left out then.
    ///
    /// # Errors
    /// When history cannot be asked.
    pub fn look_at_all(cx: RunContext<'a>) -> Result<Self, StepError> {
        let blind = Self { cx, kept: Vec::new(), on: OnDevices::default() };
        Ok(Self::look(cx)?.unwrap_or(blind))
    }

    /// The earlier snapshots of a subvolume, the newest first: those that the job keeps, which are there and what they were,
    /// and those that are nobody's of ours.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn of_item(
        &mut self,
        job: &Job,
        item: &str,
        fit: &Fit,
        top: &Path,
    ) -> Result<Vec<There>, StepError> {
        let origin = fit.origin.uuid();
        let is_of_it = |still: &Still| match still {
            Still::Subvolume { found, .. } | Still::Far { found, .. } => {
                is_snapshot_of(found, origin)
            }
            Still::Path(_) | Still::Device(_) => false,
        };
        let (mut earlier, mut known) = (Vec::new(), BTreeSet::new());
        for kept in &self.kept {
            if let Identity::Subvolume { uuid } = &kept.kept.identity {
                known.insert(uuid.clone());
            }
            if kept.series.job != job.name || kept.series.item.as_deref() != Some(item) {
                continue;
            }
            let Some(now) = far::reached(job, &kept.kept) else { continue };
            match capture::kept(self.cx.capture(), &now) {
                Ok(still) => {
                    let still = still.filter(is_of_it);
                    earlier.extend(still.and_then(|it| There::kept(it, &kept.run, top)));
                }
                // Another disk may have taken the place of the one that it is on, for good.
                Err(CaptureError::Unfit { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Another tool's, or ours of a history that was lost: a base like any other, which nobody of ours deletes. What
        // another job keeps may be deleted at any moment. On another machine, those that history knows are the only ones.
        if let Some(device) = fit.origin.device() {
            earlier.extend(self.others(device, origin, &known, top));
        }
        newest_first(&mut earlier);
        Ok(earlier)
    }

    /// All subvolumes of a file system.
    pub fn all_on(&mut self, device: &Path) -> &[(PathBuf, Subvolume)] {
        self.on.all(self.cx.host(), device)
    }

    fn others(
        &mut self,
        device: &Path,
        origin: Option<&String>,
        known: &BTreeSet<String>,
        top: &Path,
    ) -> Vec<There> {
        let all = self.on.snapshots_of(self.cx.host(), device, origin);
        let is_blind = self.cx.pipeline.history.is_none();
        let is_known = |(path, it): &&(PathBuf, Subvolume)| {
            it.uuid.as_ref().is_some_and(|uuid| known.contains(uuid))
                || is_blind && is_snapshot_of_ours(Path::new(""), path)
        };
        let others = all.filter(|it| !is_known(it));
        others
            .filter_map(|(path, found)| There::of_others(path.clone(), found.clone(), top))
            .collect()
    }
}

/// The copies of a subvolume in a target that are known to be ours: none, where history cannot be asked, so that all is sent.
pub(super) fn made_here(
    cx: RunContext<'_>,
    job: &Job,
    item: &str,
    target: &Target,
) -> BTreeSet<String> {
    let Some(history) = cx.pipeline.history else { return BTreeSet::new() };
    let series = series_of(cx.pipeline, job, Some(item.to_owned()));
    history.made_here(&target.name, &series).unwrap_or_else(|error| {
        tracing::warn!(%error, "all is sent, since it is not known which copies are ours");
        BTreeSet::new()
    })
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
    let items = || made.iter().map(|(item, held)| (&**item, held));
    if let Err(error) = record(cx, job, items()) {
        rec.warn(error.message);
        return release(cx, rec, made.into_iter().map(|(_, held)| held).collect());
    }
    rec.step("keep", None, None, |_| {
        for (_, held) in items() {
            held.keep(cx, &[])?;
        }
        let text = cx.tense("kept for the next time", "would be kept for the next time");
        Ok(((), Done::ok(format!("{} {text}", made.len()))))
    });
}

/// The same, without a word.
///
/// # Errors
/// When it cannot be recorded, or let out of the ledger: whatever is in the ledger still is released with it.
pub(super) fn try_to_keep<'h>(
    cx: RunContext<'_>,
    job: &Job,
    made: impl Iterator<Item = (&'h str, &'h Held)> + Clone,
) -> Result<(), StepError> {
    let _shield = cx.host().shield();
    record(cx, job, made.clone())?;
    made.into_iter().try_for_each(|(_, held)| held.keep(cx, &[]))
}

fn record<'h>(
    cx: RunContext<'_>,
    job: &Job,
    made: impl Iterator<Item = (&'h str, &'h Held)>,
) -> Result<(), StepError> {
    let now = cx.host().now();
    let kept = made.filter_map(|(item, held)| {
        let series = series_of(cx.pipeline, job, Some(item.to_owned()));
        Some(KeptCapture { series, run: cx.run.clone(), kept: held.to_keep()?, made: now })
    });
    let kept: Vec<KeptCapture> = kept.collect();
    Ok(cx.pipeline.remember(|history| history.record_kept(&kept))?)
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

/// Releases those of runs that were killed before they had made a copy of them, and that no target has in part: where every
/// run is killed, none comes to its end, where that is done of all.
pub(super) fn release_of_killed(cx: RunContext<'_>, rec: &mut Recorder<'_>, job: &Job) {
    let Some(history) = cx.pipeline.history else { return };
    let of_killed = || -> Result<Vec<KeptCapture>, StepError> {
        let mut left = unneeded(cx, job, history)?;
        if left.is_empty() {
            return Ok(left);
        }
        for target in &job.targets {
            let copies = history.copies(target)?;
            left.retain(|kept| {
                !copies.iter().any(|copy| copy.run == kept.run && copy.series == kept.series)
            });
        }
        Ok(left)
    };
    match of_killed() {
        Ok(left) => kept::release(cx, rec, &left, "of runs that were killed"),
        Err(error) => rec.warn(error.message),
    }
}

fn unneeded(
    cx: RunContext<'_>,
    job: &Job,
    history: &History,
) -> Result<Vec<KeptCapture>, StepError> {
    let mut kept = history.kept(&job.name)?;
    kept.retain(|it| far::reached(job, &it.kept).is_some());
    let needed = needed(cx, job, history, &kept)?;
    let going: BTreeSet<String> = match &job.keep_snapshots {
        Some(policy) => plan(cx, policy, &kept).deletions().into_iter().collect(),
        None => kept.iter().map(name).collect(),
    };
    let unneeded = kept.into_iter().filter(|kept| {
        going.contains(&name(kept)) && !needed.contains(&name(kept)) && is_here(cx, kept)
    });
    Ok(unneeded.collect())
}

/// The names of those that are the next base of something: of each target, the one of which it has its last good copy, and
/// the one that it may have in part; and what this run made, which may not have been recorded as a copy anywhere yet, or by nobody.
///
/// # Errors
/// When history cannot be read.
pub(super) fn needed(
    cx: RunContext<'_>,
    job: &Job,
    history: &History,
    kept: &[KeptCapture],
) -> Result<BTreeSet<String>, StepError> {
    // What is dated further ahead is no last one to anybody.
    let until = later(cx.host().now(), CLOCK_SLACK);
    let mut needed = BTreeSet::new();
    let all: BTreeSet<&Series> = kept.iter().map(|kept| &kept.series).collect();
    for series in all {
        for target in &job.targets {
            let last = history.last_good_until(target, series, until)?;
            needed.extend(last.map(|last| (series.clone(), last.run)));
            // What the target has a part of, it goes on with.
            if cx.pipeline.engine_named(target).is_some_and(|engine| engine.resumes()) {
                let begun = history.unfinished_attempt(target, series, cx.host().now())?;
                needed.extend(begun.map(|begun| (series.clone(), begun.run)));
            }
        }
    }
    let is_needed = |kept: &&KeptCapture| {
        kept.run == *cx.run || needed.contains(&(kept.series.clone(), kept.run.clone()))
    };
    Ok(kept.iter().filter(is_needed).map(name).collect())
}

/// Whether the disk is here that it is on. One that is not takes up no space here, and is released when the disk is back,
/// if ever.
pub(super) fn is_here(cx: RunContext<'_>, kept: &KeptCapture) -> bool {
    !capture::is_away(cx.capture(), &kept.kept)
}

/// What the job's own policy says of its snapshots, each by its [`name`].
pub(super) fn plan(cx: RunContext<'_>, policy: &KeepPolicy, kept: &[KeptCapture]) -> Plan {
    let snapshot = |kept: &KeptCapture| Copy {
        id: name(kept),
        series: Some(kept.series.clone()),
        time: kept.made,
        ours: true,
        ..Copy::default()
    };
    let snapshots: Vec<Copy> = kept.iter().map(snapshot).collect();
    let host = cx.host();
    let ahead = |at| host.ahead_of_utc(at);
    retention::plan(policy, &snapshots, host.now(), &Guards::default(), &ahead)
}

/// What tells a snapshot from all others of the job.
pub(super) fn name(kept: &KeptCapture) -> String {
    format!("{}/{}", kept.series, kept.run)
}
