//! Fills a target that takes no direct backups, by copying from another one after the source is released.

use crate::engine::{BackupReport, Engine};
use crate::model::copy::{Copy, Series};
use crate::model::outcome::Outcome;

use crate::pipeline::engine_lock::bracketed_with;
use crate::step::context::RunContext;
use crate::step::recorder::{Done, Recorder};

use super::archive::{Archived, KnownBy};
use super::observe::{Observed, Replicated, listing};

/// Copies what this run made, and what earlier runs made since the target last got anything, so that a
/// target that was away catches up. Answers with what must now be seen there.
pub fn replicate(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    engine: &dyn Engine,
    source: &dyn Engine,
    held: &[Copy],
    made: &[Observed],
) -> Option<Replicated> {
    let target = &engine.target().name;
    rec.step("copy", Some(target), None, |progress| {
        let there = listing(cx, engine)?;
        let (mut lacking, mut caught_up) = (Vec::new(), Vec::new());
        for observed in made {
            for copy in due(held, &there, &observed.archived.series, &observed.copy) {
                lacking.push(copy);
                if copy.id != observed.copy.id {
                    caught_up.push(copy.clone());
                }
            }
        }
        let count = lacking.len();
        if count > 0 {
            // One process, which locks both repositories under one name.
            bracketed_with(cx, engine, &[source], |engine, context| {
                engine.copy_from(context, source, &lacking, progress)
            })?;
        }
        let archived = made.iter().map(copied).collect();
        let before = there.into_iter().map(|copy| copy.id).collect();
        let from = &source.target().name;
        Ok((
            Replicated { archived, caught_up, before },
            Done::ok(format!("{count} copied from {from}")),
        ))
    })
}

/// The copies of a series that the other target lacks: this run's, and those newer than its newest.
fn due<'a>(held: &'a [Copy], there: &[Copy], series: &Series, new: &'a Copy) -> Vec<&'a Copy> {
    let same = |copy: &&Copy| copy.series.as_ref() == Some(series);
    // What others put there says nothing about what of ours is there.
    let there: Vec<&Copy> = there.iter().filter(|copy| copy.ours).collect();
    let newest = there.iter().copied().filter(same).map(|copy| copy.time).max();
    let mut due: Vec<&Copy> = held
        .iter()
        .filter(same)
        .filter(|copy| {
            copy.recorded.is_some()
                && copy.may_be_good()
                && newest.is_some_and(|newest| copy.time > newest)
        })
        .filter(|copy| !there.iter().any(|other| same(other) && other.run == copy.run))
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
        run: observed.archived.run.clone(),
        known_by: KnownBy::CopyOf(Box::new(observed.copy.clone())),
        unspoken: Vec::new(),
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
            absent: Some(Vec::new()),
        },
    }
}
