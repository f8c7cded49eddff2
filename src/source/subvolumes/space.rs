//! Makes room where the snapshots are, beyond the job's policy: oldest first, one by one, until there is as much as must
//! stay free.

use std::path::Path;

use crate::engine::btrfs::await_freed;
use crate::history::{History, KeptCapture};
use crate::host::{Action, Shortage, shortage};
use crate::model::job::{Job, SubvolumesSource};
use crate::model::keep::{KeepPolicy, MinFree};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::retention::{self, Expendable};
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::kept as step_kept;
use crate::step::recorder::{Done, Recorder};
use crate::step::room::is_foretold;
use crate::tools::btrfs::PROGRAM;

use super::kept;

/// Makes room after a run that did well. A bad one may be why there are no newer snapshots.
pub(super) fn make_room(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    source: &SubvolumesSource,
) {
    let Some(policy) = &job.keep_snapshots else { return };
    let (Some(min_free), Some(history)) = (policy.min_free, cx.pipeline.history) else { return };
    if !rec.outcome().is_healthy() || cx.host().stop_signal().is_some() {
        return;
    }
    let made =
        expendable(cx, job, policy, history).and_then(|may_go| match is_foretold(cx.host()) {
            true => foretell(cx, rec, source, min_free, &may_go),
            false => release(cx, rec, source, min_free, &may_go),
        });
    if let Err(error) = made {
        rec.warn(error.message);
    }
}

/// The snapshots that only the job's rules keep, oldest first.
fn expendable(
    cx: RunContext<'_>,
    job: &Job,
    policy: &KeepPolicy,
    history: &History,
) -> Result<Vec<KeptCapture>, StepError> {
    let kept = history.kept(&job.name)?;
    let needed = kept::needed(cx, job, history, &kept)?;
    let may_go = retention::expendable(&kept::plan(cx, policy, &kept), &needed);
    let found = |it: &Expendable| kept.iter().find(|kept| kept::name(kept) == it.id).cloned();
    Ok(may_go.iter().filter_map(found).filter(|kept| kept::is_here(cx, kept)).collect())
}

fn release(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    source: &SubvolumesSource,
    min_free: MinFree,
    may_go: &[KeptCapture],
) -> Result<(), StepError> {
    for kept in may_go {
        let Some(place) = kept.series.item.as_deref().map(Path::new) else { continue };
        // Another one may be on a file system that has room.
        if cx.host().stop_signal().is_some() || lacking(cx, place, min_free)?.is_none() {
            continue;
        }
        let troubles = rec.troubles.len();
        step_kept::release(cx, rec, std::slice::from_ref(kept), "snapshot for space");
        if rec.troubles.len() > troubles {
            return Ok(());
        }
    }
    for place in &source.paths {
        if let Some(lack) = lacking(cx, place, min_free)? {
            rec.warn(format!("{}: {lack}, and no snapshot may go for it", place.shown()));
        }
    }
    Ok(())
}

/// What is lacking when all has become free that was deleted.
fn lacking(
    cx: RunContext<'_>,
    place: &Path,
    min_free: MinFree,
) -> Result<Option<Shortage>, StepError> {
    if shortage(cx.host(), place, min_free)?.is_none() {
        return Ok(None);
    }
    await_freed(cx.host(), &PROGRAM, place, |spec, completed| {
        let text =
            format!("{} failed ({}): {}", spec.display(), completed.exit, completed.last_words(3));
        StepError::new(Trouble::Warning, text)
    })?;
    cx.host().act(&Action::FlushFileSystem { path: place.to_owned() })?;
    Ok(shortage(cx.host(), place, min_free)?)
}

/// Nobody knows beforehand what a snapshot takes up alone.
fn foretell(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    source: &SubvolumesSource,
    min_free: MinFree,
    may_go: &[KeptCapture],
) -> Result<(), StepError> {
    for place in &source.paths {
        let Some(lack) = shortage(cx.host(), place, min_free)? else { continue };
        let count =
            may_go.iter().filter(|kept| kept.series.item.as_deref().map(Path::new) == Some(place));
        let text = format!(
            "{}: {lack}: up to {} would be released for space, oldest first, until there is enough",
            place.shown(),
            count.count()
        );
        rec.step("release", None, None, |_| Ok(((), Done::ok(text))));
    }
    Ok(())
}
