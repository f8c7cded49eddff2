//! Fills a target that takes no direct backups, by copying from another one after the source is released.

use crate::engine::{BackupReport, Engine};
use crate::model::copy::{Copy, Series};
use crate::model::outcome::Outcome;

use crate::pipeline::context::RunContext;
use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::recorder::{Done, Recorder};

use super::archive::Archived;
use super::observe::{Observed, listing};

/// Copies what this run made, and what earlier runs made since the target last got anything, so that a
/// target that was away catches up. Answers with what must now be seen there.
pub fn replicate(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    engine: &dyn Engine,
    source: &dyn Engine,
    held: &[Copy],
    made: &[Observed],
) -> Option<Vec<Archived>> {
    let target = &engine.target().name;
    rec.step("copy", Some(target), None, |progress| {
        let there = listing(cx, engine)?;
        let mut ids = Vec::new();
        for observed in made {
            for copy in due(held, &there, &observed.archived.series, &observed.copy) {
                ids.push(copy.id.clone());
            }
        }
        let count = ids.len();
        if count > 0 {
            bracketed(cx, engine, |engine| engine.copy_from(cx.engine(), source, &ids, progress))?;
        }
        let archived = made.iter().map(copied).collect();
        let from = &source.target().name;
        Ok((archived, Done::ok(format!("{count} copied from {from}"))))
    })
}

/// The copies of a series that the other target lacks: this run's, and those newer than its newest.
fn due<'a>(held: &'a [Copy], there: &[Copy], series: &Series, new: &'a Copy) -> Vec<&'a Copy> {
    let same = |copy: &&Copy| copy.series.as_ref() == Some(series);
    let newest = there.iter().filter(same).map(|copy| copy.time).max();
    let mut due: Vec<&Copy> = held
        .iter()
        .filter(same)
        .filter(|copy| {
            copy.healthy != Some(false) && newest.is_some_and(|newest| copy.time > newest)
        })
        .filter(|copy| !there.iter().any(|other| same(&other) && other.run == copy.run))
        .filter(|copy| copy.id != new.id)
        .collect();
    due.push(new);
    due.sort_by_key(|copy| copy.time);
    due
}

/// What the copy must be in the other target: the same data, of the same series and run.
fn copied(observed: &Observed) -> Archived {
    let original = &observed.archived.report;
    Archived {
        series: observed.archived.series.clone(),
        name: None,
        report: BackupReport {
            outcome: if original.outcome.is_healthy() {
                Outcome::Ok
            } else {
                original.outcome.clone()
            },
            id: None,
            bytes_new: None,
            size: observed.copy.size,
            files: observed.copy.files,
            files_changed: original.files_changed,
            unreadable: original.unreadable.clone(),
            unreadable_count: original.unreadable_count,
            warnings: Vec::new(),
        },
    }
}
