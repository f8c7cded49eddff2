//! The one interpreter of [`Undo`]: after an error in the same run, and after a crash in a later one. It tells rooms
//! apart, and each room knows its own kinds.

use crate::capture::{self, Silent};
use crate::host::LockGuard;
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::undo::{CaptureUndo, Identity, Ledger, Outstanding, Undo};
use crate::source::files::quiesce;

use super::ledger::FileLedger;
use super::{engine_undo, staging, waiting};
use crate::step::context::Pipeline;
use crate::step::error::StepError;
use crate::step::hook;
use crate::step::release::release_all;

/// Releases one thing. Idempotent: what is already gone is success, decided by looking.
///
/// # Errors
/// When it could not be released; the caller leaves it in the ledger.
pub fn release(
    pipeline: Pipeline<'_>,
    run: &RunId,
    ledger: &dyn Ledger,
    (undo, identity): (&Undo, Option<&Identity>),
    silent: &Silent,
) -> Result<(), StepError> {
    match undo {
        Undo::Capture(undo) => {
            let undo = reached_now(pipeline, undo);
            let cx = capture::Context { silent: Some(silent), ..pipeline.capture_context() };
            Ok(capture::release(cx, &undo, identity)?)
        }
        Undo::Engine(undo) => engine_undo::release(pipeline, ledger, undo, identity),
        Undo::Hook(hook) => hook::run_pending(pipeline.host, run, hook),
        Undo::Staging(directory) => staging::remove(pipeline.host, directory, identity),
        Undo::Waiting(subvolume) => waiting::remove(pipeline.host, subvolume),
        Undo::Thaw(group) => quiesce::release(pipeline.host, group, identity),
    }
}

/// A capture as it is reached now: a machine from which a job pulls as that job says it.
fn reached_now(pipeline: Pipeline<'_>, undo: &CaptureUndo) -> CaptureUndo {
    let Some(snapshot) = undo.far() else { return undo.clone() };
    let mut ways = pipeline.config.jobs.iter().filter_map(|job| job.source.far_machine());
    let now = ways.find_map(|way| {
        let is_same = way.server.directory == snapshot.server.directory;
        snapshot.reached_by(&way.host, &way.server).filter(|_| is_same)
    });
    now.map_or_else(|| undo.clone(), CaptureUndo::from)
}

/// What has to be held while a thing is released, where that may not happen at any time.
fn permit(
    pipeline: Pipeline<'_>,
    run: &RunId,
    undo: &Undo,
) -> Result<Option<Box<dyn LockGuard>>, StepError> {
    match undo {
        Undo::Hook(hook) => hook::permit(pipeline, run, hook).map(Some),
        Undo::Capture(_)
        | Undo::Engine(_)
        | Undo::Staging(_)
        | Undo::Waiting(_)
        | Undo::Thaw(_) => Ok(None),
    }
}

/// What can be done about a thing that cannot be released.
pub(super) enum Prospect {
    /// It is tried again.
    TriedAgain,
    /// It is tried again, and a person may give it up.
    MayBeGivenUp {
        /// What it is, in words.
        what: String,
        /// What becomes of it then, in words.
        stays: &'static str,
    },
    /// It cannot even be tried, until a person gives it up or the configuration names what it is about.
    OutOfReach {
        /// What it is, in a word.
        what: &'static str,
        /// Where it is, in words.
        place: String,
    },
}

/// What can be done about a thing that a run holds.
pub(super) fn prospect(
    pipeline: Pipeline<'_>,
    undo: &Undo,
    identity: Option<&Identity>,
) -> Prospect {
    match undo {
        Undo::Hook(hook) => {
            let (kind, argv, job) = (hook.kind.name(), hook.argv.join(" "), &hook.job);
            let what = format!("the {kind} hook {argv} of job {job}");
            Prospect::MayBeGivenUp { what, stays: "it was not run" }
        }
        Undo::Capture(undo) => match undo.far() {
            // That machine may never be back.
            Some(snapshot) => Prospect::MayBeGivenUp {
                what: format!("the snapshot {} on {}", snapshot.name, snapshot.server.login),
                stays: "it may be there still",
            },
            None => Prospect::TriedAgain,
        },
        Undo::Engine(undo) => match engine_undo::out_of_reach(pipeline, undo) {
            Some(target) => Prospect::OutOfReach {
                what: "lock",
                place: format!(
                    "the repository of target {target}, which the configuration does not name any more"
                ),
            },
            None => Prospect::TriedAgain,
        },
        Undo::Staging(directory) => {
            match staging::out_of_reach(pipeline.host, directory, identity) {
                Some(place) => Prospect::OutOfReach { what: "directory", place },
                None => Prospect::TriedAgain,
            }
        }
        Undo::Waiting(_) | Undo::Thaw(_) => Prospect::TriedAgain,
    }
}

/// Releases everything a ledger holds, newest first, never stopping at a failure. Answers with what
/// failed; that stays in the ledger.
pub fn unwind(
    pipeline: Pipeline<'_>,
    run: &RunId,
    ledger: &FileLedger,
    outstanding: &[Outstanding],
    silent: &Silent,
) -> Vec<StepError> {
    // What a signal stopped must still be released.
    let _shield = pipeline.host.shield();
    let one = |Outstanding { undo, identity, .. }: &Outstanding| {
        let _lock = permit(pipeline, run, undo)?;
        release(pipeline, run, ledger, (undo, identity.as_ref()), silent)
    };
    let mut failures = Vec::new();
    for (undo, error) in release_all(pipeline.capture_context(), ledger, outstanding, &one) {
        let mut failure = left(Some(run), &error.message);
        if let Prospect::MayBeGivenUp { .. } = prospect(pipeline, undo, None) {
            failure.message += &format!(", and {}", gives_up(run));
        }
        failures.push(failure);
    }
    failures
}

/// How a person gives up what a run holds.
pub(super) fn gives_up(run: &RunId) -> String {
    format!("`stillpoint recover --give-up {run}` gives it up")
}

/// Something that could not be released, of which run, and what becomes of it.
pub(super) fn left(run: Option<&RunId>, why: &str) -> StepError {
    let of = run.map(|run| format!("left by run {run}: ")).unwrap_or_default();
    let message = format!("{of}{why}; the next run or `stillpoint recover` tries again");
    StepError::new(Trouble::Cleanup, message)
}
