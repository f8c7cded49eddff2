//! Gives back what dead runs hold. Harmless when nothing is.

use crate::host::Action;
use crate::model::outcome::Trouble;

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
