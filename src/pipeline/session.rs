//! The frame around everything that changes something: what dead runs left is given back first, the ledger
//! is open while it lasts, and whatever it acquired is given back at the end.

use std::path::PathBuf;
use std::sync::Arc;

use crate::capture::workplaces;
use crate::host::Action;
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::undo::{ChildProcess, Ledger, Undo};
use crate::tools::borg::state_directory;

use super::context::{Pipeline, RunContext};
use super::error::{StepError, ledger_error};
use super::ledger::{FileLedger, NoLedger};
use super::recover::recover;
use super::undo::unwind;

/// What a session brought besides its result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// What was given back for dead runs.
    pub recovered: Vec<String>,
    /// What could not be given back, of dead runs or of this one.
    pub leftovers: Vec<StepError>,
}

/// Hands children to the ledger as they come and go. A type of its own, since the host keeps it shared.
struct Children(Arc<FileLedger>);

impl crate::host::ChildRecorder for Children {
    fn started(&self, child: &ChildProcess) {
        self.0.started(child);
    }

    fn ended(&self, child: &ChildProcess) {
        self.0.ended(child);
    }
}

/// Runs `work` in such a frame. A dry host gets neither ledger nor recovery nor a directory.
///
/// # Errors
/// When the ledger cannot be begun: then nothing was done.
pub fn session<T>(
    pipeline: Pipeline<'_>,
    run: &RunId,
    work: impl FnOnce(RunContext<'_>) -> T,
) -> Result<(T, Frame), StepError> {
    if pipeline.host.is_dry() {
        let cx = RunContext { pipeline, run, ledger: &NoLedger, staging: None };
        return Ok((work(cx), Frame::default()));
    }
    let settings = &pipeline.config.settings;
    let [root, part] = workplaces(settings);
    for (path, mode) in [
        (root, 0o700),
        (part, 0o700),
        (settings.state_dir.clone(), 0o700),
        // A place for it in the snapshot; see `steps::capture`.
        (state_directory(settings), 0o700),
        (settings.runtime_dir.clone(), 0o700),
        (settings.runtime_dir.join("locks"), 0o700),
        (settings.cache_dir.clone(), 0o700),
        (settings.cache_dir.join("tmp"), 0o700),
    ] {
        pipeline
            .host
            .act(&Action::EnsureDirectory { path, mode })
            .map_err(|error| StepError::from_error(Trouble::Environment, &error, None))?;
    }
    let recovery = recover(pipeline)?;
    let mut frame = Frame { recovered: recovery.done, leftovers: recovery.failures };

    let ledger = Arc::new(FileLedger::begin(&settings.state_dir.join("ledger"), run)?);
    pipeline.host.record_children(Some(Arc::new(Children(Arc::clone(&ledger)))));
    let staging = stage(pipeline, run, ledger.as_ref());
    let result = staging.map(|staging| {
        work(RunContext { pipeline, run, ledger: ledger.as_ref(), staging: Some(&staging) })
    });
    pipeline.host.record_children(None);

    match ledger.replay() {
        Ok(replay) => frame.leftovers.extend(unwind(pipeline, run, &ledger, &replay.outstanding)),
        Err(error) => {
            frame.leftovers.push(StepError { trouble: Trouble::Cleanup, ..StepError::from(error) })
        }
    }
    // The host let go of its share above, so this is the last one.
    if let Some(ledger) = Arc::into_inner(ledger)
        && let Err(error) = ledger.close()
    {
        frame.leftovers.push(StepError { trouble: Trouble::Cleanup, ..StepError::from(error) });
    }
    Ok((result?, frame))
}

/// Makes the run's own directory, through the ledger like everything that outlives the process.
fn stage(pipeline: Pipeline<'_>, run: &RunId, ledger: &dyn Ledger) -> Result<PathBuf, StepError> {
    let path = pipeline.config.settings.cache_dir.join("tmp").join(run.as_str());
    let entry = ledger.intend(Undo::RemoveStaging { path: path.clone() }).map_err(ledger_error)?;
    let identity = pipeline
        .host
        .act(&Action::CreateDirectory { path: path.clone(), mode: 0o700 })
        .map_err(|error| StepError::from_error(Trouble::Environment, &error, None))?;
    if let Some(identity) = identity {
        ledger.made(entry, identity).map_err(ledger_error)?;
    }
    Ok(path)
}
