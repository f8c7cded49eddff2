//! What belongs to a target and not to a job: freeing space, and checking. Once per run, when due.

use crate::engine::{CheckReport, Compacted, Engine};
use crate::history::{Maintenance, MaintenanceKind};
use crate::model::names::TargetName;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::StepReport;
use crate::model::target::ReadData;
use crate::report::closed::told;
use crate::report::facts::TargetFacts;
use crate::report::status::due;

use crate::pipeline::closed;
use crate::pipeline::engine_lock::bracketed;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::recorder::{Done, Recorder};

use super::target::lock_for_deleting;

/// What to make of a target that somebody else is using.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    /// It was asked for, and could not be done.
    Fail,
    /// It is part of a run whose copies are made: a warning, and it stays due.
    PutOff,
}

/// Checks and compacts a target where that is due. `deleted` says whether this run deleted copies in it. The check
/// comes first: what it finds closes the target to compaction.
pub fn maintain(cx: RunContext<'_>, rec: &mut Recorder<'_>, engine: &dyn Engine, deleted: bool) {
    let target = engine.target();
    // Unknown is due: one check too many harms nobody.
    let known = cx.pipeline.history.and_then(|h| TargetFacts::gather(h, &target.name).ok());
    let mut known = known.unwrap_or_default();
    // A dry run records nothing of what it would delete.
    known.has_deletions |= deleted;
    let due = due(target, Some(&known), cx.host().now());
    if let Some(check) = target.check.as_ref().filter(|_| due.contains(&MaintenanceKind::Check)) {
        self::check(cx, rec, engine, check.read_data, WhenBusy::PutOff);
    }
    if due.contains(&MaintenanceKind::Compact) && cx.host().stop_signal().is_none() {
        self::compact(cx, rec, engine, WhenBusy::PutOff);
    }
}

/// Frees the space that deletions left in a target.
pub fn compact(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    engine: &dyn Engine,
    when_busy: WhenBusy,
) -> Option<()> {
    let target = engine.target();
    let done = rec.step("compact", Some(&target.name), None, |progress| {
        // Under the lock: somebody's check may find damage while this waits for it.
        let _lock = match lock_for_deleting(cx.pipeline, cx.run, target) {
            Ok(lock) => lock,
            Err(error) => return put_off(error, when_busy).map(|done| ((), done)),
        };
        let closures = closed::known(cx.pipeline, &target.name)?;
        if !closures.is_empty() {
            let text = format!("not compacted: {}", told(&target.name, &closures));
            return match when_busy {
                // The run has told it where it listed the target.
                WhenBusy::PutOff => Ok(((), Done::skipped(text))),
                WhenBusy::Fail => Err(StepError::new(closed::trouble(&closures), text)),
            };
        }
        let compacted = bracketed(cx, engine, |engine, context| engine.compact(context, progress));
        compacted
            .map(|compacted| ((), freed(&compacted)))
            .or_else(|error| put_off(error, when_busy).map(|done| ((), done)))
    });
    remember(cx, rec, &target.name, MaintenanceKind::Compact);
    done
}

/// Checks the repository of a target.
pub fn check(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    engine: &dyn Engine,
    read_data: ReadData,
    when_busy: WhenBusy,
) -> Option<CheckReport> {
    let target = engine.target();
    let report = rec.step("check", Some(&target.name), None, |progress| {
        // Held until what was found is recorded: whoever compacts or deletes next must see it.
        let _lock = match lock_for_deleting(cx.pipeline, cx.run, target) {
            Ok(lock) => lock,
            Err(error) => return put_off(error, when_busy).map(|done| (None, done)),
        };
        let checked =
            bracketed(cx, engine, |engine, context| engine.check(context, read_data, progress));
        match checked {
            Ok(report) if report.is_predicted => {
                Ok((None, Done::ok(format!("would check {}", would_read(read_data)))))
            }
            Ok(report) => {
                let mut done = judge(&report);
                // What could not be read as a restore would read it clears nothing.
                if report.proves_something()
                    && let Err(error) = closed::after_check(cx, engine, read_data, &report.damage)
                {
                    done.detail = format!("{}; {error}", done.detail);
                    done.outcome = done.outcome.worst(Outcome::Warning);
                    done.trouble = done.trouble.or(Some(Trouble::Warning));
                }
                Ok((Some(report), done))
            }
            Err(error) => put_off(error, when_busy).map(|done| (None, done)),
        }
    });
    remember(cx, rec, &target.name, MaintenanceKind::Check);
    report.flatten()
}

/// What a check would read, in words.
fn would_read(read_data: ReadData) -> String {
    match read_data {
        ReadData::None => "the structure".into(),
        ReadData::Percent(share) => format!("the structure and {share}% of the data"),
        ReadData::All => "the structure and all data".into(),
    }
}

/// What a compaction did, as far as it is known.
fn freed(compacted: &Compacted) -> Done {
    match compacted {
        Compacted::Predicted => Done::ok("would free the space of deleted copies"),
        Compacted::Freed(space) => Done::ok(format!("{space} freed")),
        Compacted::NotNeeded => Done::ok("nothing to compact: what is deleted frees its space at once"),
        Compacted::Unknown => Done::ok("compacted; the engine named no space that became free"),
        Compacted::AppendOnly => Done::with(
            Outcome::Warning,
            Trouble::Warning,
            "no space became free: the repository is append-only — set append-only = true for the target, or compact it where it is not".to_owned(),
        ),
    }
}

/// A busy target in a run is no failure of the run.
fn put_off(error: StepError, when_busy: WhenBusy) -> Result<Done, StepError> {
    if when_busy == WhenBusy::PutOff && error.trouble == Trouble::Busy {
        let detail = format!("put off: {}", error.message);
        return Ok(Done::with(Outcome::Warning, Trouble::Warning, detail));
    }
    Err(error)
}

/// How much of the damage is told in one line.
pub const SHOWN: usize = 5;

/// What a check's report means: damage is a failure, whatever else happened.
pub fn judge(report: &CheckReport) -> Done {
    if report.damage.is_empty() {
        let detail = format!("no damage found in {}", report.extent);
        match &report.unverifiable {
            None => Done::ok(detail),
            Some(why) => Done::with(Outcome::Warning, Trouble::Warning, format!("{detail}; {why}")),
        }
    } else {
        let shown: Vec<&str> = report.damage.iter().take(SHOWN).map(String::as_str).collect();
        Done::with(
            Outcome::Failed,
            Trouble::Damage,
            format!("{}: {}{}", report.told(), shown.join("; "), before_repair(report)),
        )
    }
}

/// What was looked at, where that is not said yet, and what is to be done before anything else is.
fn before_repair(report: &CheckReport) -> String {
    match report.copies {
        Some(_) => format!(
            "; looked at {} — copy what may still be of use before you delete or repair anything",
            report.extent
        ),
        None => " — delete nothing; copy the repository if you can before you repair it".into(),
    }
}

/// Notes how the step that `rec` recorded last went.
fn remember(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    target: &TargetName,
    kind: MaintenanceKind,
) {
    // What was put off has not been done, and stays due.
    let is_done =
        |step: &&StepReport| !matches!(step.outcome, Outcome::Warning | Outcome::Skipped(_));
    let Some(step) = rec.steps.last().filter(is_done) else { return };
    let done = Maintenance {
        target: target.clone(),
        kind,
        outcome: step.outcome.clone(),
        detail: step.detail.clone(),
        time: cx.host().now(),
    };
    let noted = cx.pipeline.remember(|history| history.record_maintenance(&done));
    if let Err(error) = noted {
        rec.say(true, StepError::from(error).message);
    }
}
