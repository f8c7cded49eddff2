//! Releases what dead runs hold. Harmless when nothing is.

use std::path::{Path, PathBuf};

use crate::capture;
use crate::host::{Action, Host};
use crate::model::job::Settings;
use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::size::counted;
use crate::model::undo::{Ledger, Outstanding};

use super::ledger::{self, FileLedger, Replay};
use super::undo::{self, Prospect};
use crate::capture::Silent;
use crate::step::context::{CHILD_GRACE, Pipeline};
use crate::step::error::{StepError, ledger_error};

/// Where ledgers lie.
pub(super) fn durable_ledgers(settings: &Settings) -> PathBuf {
    settings.state_dir.join("ledger")
}

/// Where ledgers lie, until a reboot, of what was read back while the state directory could not be written.
pub(super) fn volatile_ledgers(settings: &Settings) -> PathBuf {
    settings.runtime_dir.join("ledger")
}

/// What a recovery did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// One line for each thing that was released or stopped.
    pub done: Vec<String>,
    /// What could not be released; it stays in its ledger.
    pub failures: Vec<StepError>,
    /// What nobody can release any more, since the configuration does not name its target; it stays until a
    /// person gives it up or the target is back, and keeps no other job from being well.
    pub waiting: Vec<StepError>,
    /// Whether what is on other machines is left to another recovery.
    pub(super) is_here_alone: bool,
    /// Those that gave no answer.
    pub(super) silent: Silent,
}

/// Lets devices go on that a dead run's `lvcreate` left suspended. Writes nothing: until it is done, whatever
/// writes to them hangs, and the ledger and history may lie there. So it comes before everything else.
/// What it cannot do, [`recover`] tries again and tells.
pub fn wake(host: &dyn Host, settings: &Settings) {
    let Ok(ledgers) = ledger::ledgers(&durable_ledgers(settings)) else { return };
    for replay in ledgers.iter().filter_map(|path| FileLedger::peek(path)) {
        for child in replay.children.iter().filter(|child| child.never_kill) {
            // Which may just be about to let them go on by itself.
            let _ = host.act(&Action::StopProcess { child: child.clone(), grace: CHILD_GRACE });
        }
        for (undo, _) in replay.outstanding.iter().filter_map(Outstanding::capture) {
            if let Err(error) =
                capture::wake(capture::Context { host, settings, silent: None }, undo)
            {
                tracing::warn!(%error, "cannot look for suspended devices");
            }
        }
    }
}

/// Goes through the ledgers of dead runs: stops their surviving children first, then releases what they
/// held, newest first.
///
/// # Errors
/// When the ledgers cannot be listed. What cannot be released is in the answer instead.
pub fn recover(pipeline: Pipeline<'_>) -> Result<Recovery, StepError> {
    recover_but(pipeline, Recovery::default(), None)
}

/// The same, but what is on another machine is left to whoever makes copies: that machine may keep us waiting, and whoever reads
/// copies may need them since it is not well.
///
/// # Errors
/// As [`recover`].
pub fn recover_here(pipeline: Pipeline<'_>) -> Result<Recovery, StepError> {
    recover_but(pipeline, Recovery { is_here_alone: true, ..Recovery::default() }, None)
}

/// The same, but what can never be released of one dead run is given up: the hooks that its ledger holds, which are not
/// run, snapshots on machines that it pulled from, and the locks in repositories that the configuration names no more. They would be tried for ever otherwise,
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
            Trouble::Usage,
            format!("there is no dead run {run} — {known}"),
        ));
    }
    recover_but(pipeline, Recovery::default(), Some(run))
}

fn recover_but(
    pipeline: Pipeline<'_>,
    mut recovery: Recovery,
    given_up: Option<&RunId>,
) -> Result<Recovery, StepError> {
    let settings = &pipeline.config.settings;
    let mut ledgers = Vec::new();
    for directory in [durable_ledgers(settings), volatile_ledgers(settings)] {
        ledger::sweep_drafts(&directory)?;
        ledgers.extend(ledger::ledgers(&directory)?);
    }
    for path in ledgers {
        match FileLedger::adopt(&path) {
            Ok(Some((ledger, replay))) => match replay.run.clone() {
                Some(run) => {
                    recovery.of_run(pipeline, &run, ledger, replay, given_up == Some(&run))
                }
                None => recovery.of_nobody(pipeline, &path, ledger, &replay),
            },
            // Its run is alive, or has ended.
            Ok(None) => {}
            Err(error) => {
                let hint = "look at it, release by hand what it names, then remove it";
                recovery.failures.push(StepError::from_error(Trouble::Cleanup, &error, Some(hint)));
            }
        }
    }
    Ok(recovery)
}

impl Recovery {
    /// Releases what a dead run holds.
    fn of_run(
        &mut self,
        pipeline: Pipeline<'_>,
        run: &RunId,
        ledger: FileLedger,
        replay: Replay,
        is_given_up: bool,
    ) {
        // Releasing a directory or a lock that a survivor still uses would harm what it does.
        if !self.stop_children(pipeline, &replay) {
            return;
        }
        let before = self.failures.len();
        let mut outstanding = replay.outstanding;
        let all = outstanding.len();
        outstanding.retain(|held| {
            let far = held.capture().and_then(|(undo, _)| undo.far());
            !self.is_here_alone || far.is_none()
        });
        let is_left = outstanding.len() < all;
        outstanding.retain(|held| {
            let prospect = undo::prospect(pipeline, &held.undo, held.identity.as_ref());
            match is_given_up {
                true => !self.let_go(run, &ledger, held, prospect),
                false => !self.waits(run, prospect),
            }
        });
        self.failures.extend(undo::unwind(pipeline, run, &ledger, &outstanding, &self.silent));
        if self.failures.len() == before && !is_left {
            let entries = counted(outstanding.len() as u64, "entry", "entries");
            self.done.push(format!("released what run {run} left behind ({entries})"));
        }
        self.failures.extend(ledger.close().err().map(StepError::from));
    }

    /// What to do about a ledger that does not say of which run it is: the crash came before its first line, or
    /// somebody else wrote it.
    fn of_nobody(
        &mut self,
        pipeline: Pipeline<'_>,
        path: &Path,
        ledger: FileLedger,
        replay: &Replay,
    ) {
        self.stop_children(pipeline, replay);
        if replay.outstanding.is_empty() && replay.children.is_empty() {
            self.failures.extend(ledger.close().err().map(StepError::from));
            return;
        }
        let text = format!(
            "the ledger {} does not say of which run it is, so nothing that it names was released — look at it, release by hand what it names, then remove it",
            path.shown()
        );
        self.failures.push(StepError::new(Trouble::Cleanup, text));
    }

    /// Stops what a dead run has started and is still there. Answers whether all of it has gone.
    fn stop_children(&mut self, pipeline: Pipeline<'_>, replay: &Replay) -> bool {
        let before = self.failures.len();
        for child in &replay.children {
            let stop = Action::StopProcess { child: child.clone(), grace: CHILD_GRACE };
            if let Err(error) = pipeline.host.act(&stop) {
                let error = StepError::from(error);
                self.failures.push(undo::left(replay.run.as_ref(), &error.message));
            }
        }
        self.failures.len() == before
    }

    /// Tells of a thing that waits for a person. Answers whether it does.
    fn waits(&mut self, run: &RunId, prospect: Prospect) -> bool {
        match prospect {
            Prospect::OutOfReach { what, place } => {
                let gives_up = undo::gives_up(run);
                let text = format!("run {run} may have left a {what} in {place} — {gives_up}");
                self.waiting.push(StepError::new(Trouble::Cleanup, text));
                true
            }
            Prospect::TriedAgain | Prospect::MayBeGivenUp { .. } => false,
        }
    }

    /// Settles what can never be released, without doing anything about it. Answers whether it was such a thing: one
    /// that could not be settled must not be tried either.
    fn let_go(
        &mut self,
        run: &RunId,
        ledger: &FileLedger,
        held: &Outstanding,
        prospect: Prospect,
    ) -> bool {
        let told = match prospect {
            Prospect::TriedAgain => return false,
            Prospect::MayBeGivenUp { what, stays } => {
                format!("gave up {what}, which run {run} left: {stays}")
            }
            Prospect::OutOfReach { what, place } => {
                format!("gave up the {what} that run {run} may have left in {place}")
            }
        };
        match ledger.settled(held.entry).map_err(ledger_error) {
            Ok(()) => self.done.push(told),
            Err(error) => self.failures.push(undo::left(Some(run), &error.message)),
        }
        true
    }
}
