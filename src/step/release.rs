//! Releasing what a ledger holds, and letting the ledger go of it: at the end of a step, of a run, and after a crash.

use crate::capture;
use crate::model::undo::{Ledger, Outstanding, Undo};

use super::error::{StepError, ledger_error};

/// Releases what a ledger holds, in this order, never stopping at a failure, and settles it. Answers with what failed;
/// that stays in the ledger. `one` releases a single thing; captures that follow each other and [`capture::go_together`]
/// are released at once.
pub fn release_all<'o>(
    cx: capture::Context<'_>,
    ledger: &dyn Ledger,
    outstanding: &'o [Outstanding],
    one: &dyn Fn(&Outstanding) -> Result<(), StepError>,
) -> Vec<(&'o Undo, StepError)> {
    let mut failures = Vec::new();
    let together = |one: &Outstanding, other: &Outstanding| match (one.capture(), other.capture()) {
        (Some((one, _)), Some((other, _))) => capture::go_together(one, other),
        (None, _) | (_, None) => false,
    };
    for group in outstanding.chunk_by(together) {
        let given = match group {
            [alone] => Ok(vec![one(alone)]),
            several => {
                let captures: Vec<_> = several.iter().filter_map(Outstanding::capture).collect();
                capture::release_together(cx, &captures).map(|each| {
                    each.into_iter().map(|one| one.map_err(StepError::from)).collect::<Vec<_>>()
                })
            }
        };
        let mut gone = Vec::new();
        let settled = given.map_err(StepError::from).and_then(|given| {
            for (Outstanding { entry, undo, .. }, result) in group.iter().zip(given) {
                match result {
                    Ok(()) => gone.push(*entry),
                    Err(error) => failures.push((undo, error)),
                }
            }
            ledger.settled_all(&gone).map_err(ledger_error)
        });
        // Nothing of the group is settled, and it is said once.
        if let (Err(error), Some(first)) = (settled, group.first()) {
            failures.push((&first.undo, error));
        }
    }
    failures
}
