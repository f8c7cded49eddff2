//! Giving back what a ledger holds, and letting the ledger go of it: at the end of a step, of a run, and after a crash.

use crate::capture::{self, Room};
use crate::model::undo::{Ledger, Outstanding, Undo};

use super::error::{StepError, ledger_error};

/// Gives back what a ledger holds, in this order, never stopping at a failure, and settles it. Answers with what failed;
/// that stays in the ledger. `one` gives back a single thing; snapshots of btrfs that follow each other are given back
/// together, since each wait for the disk costs more than all else.
pub fn give_back_all<'o>(
    room: Room<'_>,
    ledger: &dyn Ledger,
    outstanding: &'o [Outstanding],
    one: &dyn Fn(&Outstanding) -> Result<(), StepError>,
) -> Vec<(&'o Undo, StepError)> {
    let mut failures = Vec::new();
    let are_snapshots =
        |one: &Outstanding, other: &Outstanding| one.snapshot().and(other.snapshot()).is_some();
    for group in outstanding.chunk_by(are_snapshots) {
        let snapshots: Vec<_> = group.iter().filter_map(Outstanding::snapshot).collect();
        let given = match snapshots.is_empty() {
            true => Ok(group.iter().map(one).collect()),
            false => capture::give_back_snapshots(room, &snapshots).map(|each| {
                each.into_iter().map(|one| one.map_err(StepError::from)).collect::<Vec<_>>()
            }),
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
