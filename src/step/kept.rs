//! Captures that stayed beyond their run, and are needed no longer.

use crate::capture::{self, CaptureError, Still};
use crate::history::KeptCapture;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::shown::Show;

use super::context::RunContext;
use super::error::StepError;
use super::recorder::{Done, Recorder};
use super::source::all_series;

/// Releases captures, and forgets them. `which` says of what kind they are.
pub fn release(cx: RunContext<'_>, rec: &mut Recorder<'_>, kept: &[KeptCapture], which: &str) {
    if kept.is_empty() {
        return;
    }
    let _shield = cx.host().shield();
    rec.step("release", None, None, |_| {
        let captures: Vec<_> =
            kept.iter().map(|kept| (&kept.kept.undo, Some(&kept.kept.identity))).collect();
        let mut away = Vec::new();
        let (count, failures) = match capture::release_together(cx.capture(), &captures) {
            Ok(results) => {
                let mut failures = Vec::new();
                for (kept, result) in kept.iter().zip(results) {
                    match result {
                        // The machine may have got another disk for good, so that is no trouble of each night.
                        Err(error @ CaptureError::Unfit { .. })
                            if kept.kept.undo.far().is_some() =>
                        {
                            away.push(error.to_string());
                        }
                        result => {
                            failures.extend(forget(cx, kept, result).err().map(|it| it.message));
                        }
                    }
                }
                (kept.len() - failures.len() - away.len(), failures)
            }
            // Nothing is known of any of them.
            Err(error) => (0, vec![StepError::from(error).message]),
        };
        let done = format!("{count} {which} {}", cx.tense("released", "would be released"));
        let done = std::iter::once(done).chain(away).collect::<Vec<_>>().join("; ");
        if failures.is_empty() {
            return Ok(((), Done::ok(done)));
        }
        let said = format!("{done}; {}", failures.join("; "));
        Ok(((), Done::with(Outcome::Warning, Trouble::Warning, said)))
    });
}

/// Forgets a capture whose release had this result.
fn forget(
    cx: RunContext<'_>,
    kept: &KeptCapture,
    result: Result<(), CaptureError>,
) -> Result<(), StepError> {
    match result {
        // What has its name and is not it was put there by somebody else, who has taken it away.
        Ok(()) | Err(CaptureError::NotOurs { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(cx.pipeline.remember(|history| history.forget_kept(&kept.kept.undo))?)
}

/// Tells of those of what no job names any more: of a job that is gone or has another name, of a path or a host name that
/// the configuration does not say now. Nobody else would, and they fill up the disk; but a job may have kept them for their
/// own sake, so they are a person's to delete. What is on a disk that is not here is nobody's trouble.
pub fn tell_of_unnamed(cx: RunContext<'_>, rec: &mut Recorder<'_>) {
    let Some(history) = cx.pipeline.history else { return };
    let unnamed = history.all_kept().and_then(|mut kept| {
        // What jobs name is asked only where there is something to compare it with.
        if !kept.is_empty() {
            let named = all_series(cx.pipeline)?;
            kept.retain(|kept| !named.contains(&kept.series));
        }
        Ok(kept)
    });
    let unnamed = match unnamed {
        Ok(unnamed) => unnamed,
        Err(error) => return rec.warn(StepError::from(error).message),
    };
    for kept in unnamed {
        match capture::kept(cx.capture(), &kept.kept) {
            Ok(Some(Still::Subvolume { device, name, .. })) => rec.warn(format!(
                "the snapshot {name} in the top-level subvolume of {} is of {}, which no job names any more: delete it (btrfs subvolume delete), or name that again",
                device.shown(),
                kept.series,
            )),
            Ok(Some(Still::Far { server, path, .. })) => rec.warn(format!(
                "the snapshot {} on {} is of {}, which no job names any more: delete it there (btrfs subvolume delete), or name that again",
                path.shown(),
                server.login,
                kept.series,
            )),
            Ok(Some(Still::Path(_) | Still::Device(_))) | Err(_) => {}
            Ok(None) => {
                let forgotten = cx.pipeline.remember(|history| history.forget_kept(&kept.kept.undo));
                if let Err(error) = forgotten {
                    rec.warn(StepError::from(error).message);
                }
            }
        }
    }
}
