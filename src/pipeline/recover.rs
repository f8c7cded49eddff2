//! Gives back what dead runs hold. Harmless when nothing is.

use crate::capture::{self, Room};
use crate::host::{Action, Host};
use crate::model::job::Settings;
use crate::model::outcome::Trouble;
use crate::model::undo::Undo;

use super::context::{CHILD_GRACE, Pipeline};
use super::error::StepError;
use super::ledger::{self, FileLedger};
use super::undo;

/// What a recovery did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// One line for each thing that was given back or stopped.
    pub done: Vec<String>,
    /// What could not be given back; it stays in its ledger.
    pub failures: Vec<StepError>,
}

/// Lets devices go on that a dead run's `lvcreate` left suspended. Writes nothing: until it is done, whatever
/// writes to them hangs, and the ledger and history may lie there. So it comes before everything else.
/// What it cannot do, [`recover`] tries again and tells.
pub fn wake(host: &dyn Host, settings: &Settings) {
    let Ok(ledgers) = ledger::ledgers(&settings.state_dir.join("ledger")) else { return };
    for replay in ledgers.iter().filter_map(|path| FileLedger::peek(path)) {
        let snapshots =
            replay.outstanding.iter().filter_map(|outstanding| match &outstanding.undo {
                Undo::RemoveVolume(snapshot) => Some(snapshot),
                _ => None,
            });
        for child in replay.children.iter().filter(|child| child.never_kill) {
            // Which may just be about to let them go on by itself.
            let _ = host.act(&Action::StopProcess { child: child.clone(), grace: CHILD_GRACE });
        }
        for snapshot in snapshots {
            if let Err(error) = capture::wake(Room { host, settings }, snapshot) {
                tracing::warn!(%error, "cannot look for suspended devices");
            }
        }
    }
}

/// Goes through the ledgers of dead runs: stops their surviving children first, then gives back what they
/// held, newest first.
///
/// # Errors
/// When the ledgers cannot be listed. What cannot be given back is in the answer instead.
pub fn recover(pipeline: Pipeline<'_>) -> Result<Recovery, StepError> {
    let directory = pipeline.config.settings.state_dir.join("ledger");
    let mut recovery = Recovery::default();
    ledger::sweep_drafts(&directory)?;
    for path in ledger::ledgers(&directory)? {
        let (ledger, replay) = match FileLedger::adopt(&path) {
            Ok(Some(adopted)) => adopted,
            Ok(None) => continue,
            Err(error) => {
                let hint = "look at it, give back by hand what it names, then remove it";
                recovery.failures.push(StepError::from_error(Trouble::Cleanup, &error, Some(hint)));
                continue;
            }
        };
        let mut children_gone = true;
        for child in &replay.children {
            match pipeline
                .host
                .act(&Action::StopProcess { child: child.clone(), grace: CHILD_GRACE })
            {
                Ok(_) => {}
                Err(error) => {
                    children_gone = false;
                    recovery.failures.push(StepError::from_error(Trouble::Cleanup, &error, None));
                }
            }
        }
        // Giving back a directory or a lock that a survivor still uses would harm what it does.
        let Some(run) = replay.run.as_ref().filter(|_| children_gone) else {
            if replay.run.is_none() {
                recovery.failures.extend(ledger.close().err().map(StepError::from));
            }
            continue;
        };
        let before = recovery.failures.len();
        recovery.failures.extend(undo::unwind(pipeline, run, &ledger, &replay.outstanding));
        if recovery.failures.len() == before {
            recovery.done.push(format!(
                "gave back what run {run} held ({} {})",
                replay.outstanding.len(),
                if replay.outstanding.len() == 1 { "entry" } else { "entries" }
            ));
        }
        recovery.failures.extend(ledger.close().err().map(StepError::from));
    }
    Ok(recovery)
}
