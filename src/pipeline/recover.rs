//! Gives back what dead runs hold. Harmless when nothing is.

use std::path::PathBuf;

use crate::capture::{self, Room};
use crate::host::{Action, Host};
use crate::model::job::Settings;
use crate::model::names::{RunId, TargetName};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::size::counted;
use crate::model::undo::{Ledger, Outstanding, Undo};

use super::ledger::{self, FileLedger};
use super::undo;
use crate::step::context::{CHILD_GRACE, Pipeline};
use crate::step::error::{StepError, ledger_error};

/// Where ledgers lie.
pub(super) fn durable_ledgers(settings: &Settings) -> PathBuf {
    settings.state_dir.join("ledger")
}

/// Where ledgers lie of what was read back while the state directory could not be written.
pub(super) fn makeshift_ledgers(settings: &Settings) -> PathBuf {
    settings.runtime_dir.join("ledger")
}

/// What a recovery did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// One line for each thing that was given back or stopped.
    pub done: Vec<String>,
    /// What could not be given back; it stays in its ledger.
    pub failures: Vec<StepError>,
    /// What nobody can give back any more, since the configuration does not name its target; it stays until a
    /// person gives it up or the target is back, and keeps no other job from being well.
    pub waiting: Vec<StepError>,
}

/// Lets devices go on that a dead run's `lvcreate` left suspended. Writes nothing: until it is done, whatever
/// writes to them hangs, and the ledger and history may lie there. So it comes before everything else.
/// What it cannot do, [`recover`] tries again and tells.
pub fn wake(host: &dyn Host, settings: &Settings) {
    let Ok(ledgers) = ledger::ledgers(&durable_ledgers(settings)) else { return };
    for replay in ledgers.iter().filter_map(|path| FileLedger::peek(path)) {
        let snapshots = replay.outstanding.iter().filter_map(|outstanding| {
            let Undo::RemoveVolume(snapshot) = &outstanding.undo else { return None };
            Some(snapshot)
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
    recover_but(pipeline, None)
}

/// The same, but what can never be given back of one dead run is given up: the hooks that it promised, which are not
/// run, and the locks in repositories that the configuration names no more. They would be tried for ever otherwise,
/// and what was to be done is for a person to see to.
///
/// # Errors
/// When there is no such dead run; then nothing was done. And as [`recover`].
pub fn give_up(pipeline: Pipeline<'_>, run: &RunId) -> Result<Recovery, StepError> {
    let mut dead: Vec<String> = ledger::ledgers(&durable_ledgers(&pipeline.config.settings))?
        .iter()
        .filter_map(|path| FileLedger::peek(path)?.run)
        .map(|run| run.to_string())
        .collect();
    dead.sort();
    if dead.iter().all(|dead| dead != run.as_str()) {
        let known = match dead.is_empty() {
            true => "no dead run holds anything".to_owned(),
            false => format!("these hold something: {}", dead.join(", ")),
        };
        return Err(StepError::new(
            Trouble::Configuration,
            format!("there is no dead run {run} — {known}"),
        ));
    }
    recover_but(pipeline, Some(run))
}

fn recover_but(pipeline: Pipeline<'_>, given_up: Option<&RunId>) -> Result<Recovery, StepError> {
    let settings = &pipeline.config.settings;
    let mut recovery = Recovery::default();
    let mut ledgers = Vec::new();
    for directory in [durable_ledgers(settings), makeshift_ledgers(settings)] {
        ledger::sweep_drafts(&directory)?;
        ledgers.extend(ledger::ledgers(&directory)?);
    }
    for path in ledgers {
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
                    let error = StepError::from(error);
                    recovery.failures.push(undo::left(replay.run.as_ref(), &error.message));
                }
            }
        }
        if replay.run.is_none() && !(replay.outstanding.is_empty() && replay.children.is_empty()) {
            let text = format!(
                "the ledger {} does not say of which run it is, so nothing that it names was given back — look at it, give back by hand what it names, then remove it",
                path.shown()
            );
            recovery.failures.push(StepError::new(Trouble::Cleanup, text));
            continue;
        }
        // Giving back a directory or a lock that a survivor still uses would harm what it does.
        let Some(run) = replay.run.as_ref().filter(|_| children_gone) else {
            if replay.run.is_none() {
                recovery.failures.extend(ledger.close().err().map(StepError::from));
            }
            continue;
        };
        let before = recovery.failures.len();
        let mut outstanding = replay.outstanding;
        if given_up == Some(run) {
            outstanding.retain(|promised| !let_go(pipeline, run, &ledger, promised, &mut recovery));
        }
        outstanding.retain(|promised| match out_of_reach(pipeline, &promised.undo) {
            None => true,
            Some(target) => {
                recovery.waiting.push(StepError::new(
                    Trouble::Cleanup,
                    format!(
                        "run {run} may have left a lock in the repository of target {target}, which the configuration does not name any more — `stillpoint recover --give-up {run}` gives it up"
                    ),
                ));
                false
            }
        });
        recovery.failures.extend(undo::unwind(pipeline, run, &ledger, &outstanding));
        if recovery.failures.len() == before {
            recovery.done.push(format!(
                "gave back what run {run} held ({})",
                counted(outstanding.len() as u64, "entry", "entries")
            ));
        }
        recovery.failures.extend(ledger.close().err().map(StepError::from));
    }
    Ok(recovery)
}

/// The target of a lock that nobody can look at, since the configuration does not name it.
fn out_of_reach<'u>(pipeline: Pipeline<'_>, undo: &'u Undo) -> Option<&'u TargetName> {
    let Undo::ReleaseEngineLock { target, .. } = undo else { return None };
    pipeline.engine_named(target).is_none().then_some(target)
}

/// Settles what can never be given back, without doing anything about it. Answers whether it was such a thing: one
/// that could not be settled must not be tried either.
fn let_go(
    pipeline: Pipeline<'_>,
    run: &RunId,
    ledger: &FileLedger,
    promised: &Outstanding,
    recovery: &mut Recovery,
) -> bool {
    let what = match &promised.undo {
        Undo::RunHook { promise, job, argv, .. } => format!(
            "gave up the {} hook {} of job {job}, which run {run} promised: it was not run",
            promise.name(),
            argv.join(" ")
        ),
        undo => match out_of_reach(pipeline, undo) {
            Some(target) => format!(
                "gave up the lock that run {run} may have left in the repository of target {target}"
            ),
            None => return false,
        },
    };
    match ledger.settled(promised.entry).map_err(ledger_error) {
        Ok(()) => recovery.done.push(what),
        Err(error) => recovery.failures.push(undo::left(Some(run), &error.message)),
    }
    true
}
