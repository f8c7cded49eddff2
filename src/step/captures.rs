//! Captures in a run: their locks, their place in the ledger, and what becomes of them in the end: released, or kept.
//!
//! A source finds its providers, and between [`intend`] and [`verify`] has each capture made when it is time for that.

use std::collections::BTreeSet;

use crate::capture::{self, Capture, Made, Provider};
use crate::host::LockGuard;
use crate::model::outcome::Trouble;
use crate::model::undo::{EntryId, Kept, Outstanding};

use super::context::RunContext;
use super::error::{StepError, ledger_error};
use super::release::release_all;

/// One capture that the ledger holds.
pub struct Held {
    /// What makes it.
    pub provider: Box<dyn Provider>,
    /// The capture.
    pub capture: Box<dyn Capture>,
    /// What it is, as soon as it is verified.
    pub made: Option<Made>,
    entry: EntryId,
}

/// The locks of captures.
#[derive(Default)]
pub struct Locks {
    /// Those that keep what is intended possible, and are needed no longer when it is made.
    pub until_made: Vec<Box<dyn LockGuard>>,
    /// Those of exclusive captures.
    pub until_released: Vec<Box<dyn LockGuard>>,
}

/// Takes the locks that keep what is intended possible until it is made.
///
/// All runs take them in one order, and those first that are held until everything is released: whoever
/// releases a volume takes its group's lock while it still holds them, and whoever waits for one of them keeps
/// nobody from a group meanwhile.
///
/// # Errors
/// When somebody else holds one for too long.
pub fn lock<'p>(
    cx: RunContext<'_>,
    providers: impl Iterator<Item = &'p dyn Provider>,
) -> Result<Locks, StepError> {
    // `false` comes before `true`.
    let keys: BTreeSet<(bool, String)> = providers
        .filter_map(|provider| Some((!provider.is_exclusive(), provider.lock_key()?)))
        .collect();
    let mut locks = Locks::default();
    for (is_until_made, key) in keys {
        let guard = capture::lock(cx.capture(), &key, cx.config().settings.lock_wait)?;
        match is_until_made {
            true => locks.until_made.push(guard),
            false => locks.until_released.push(guard),
        }
    }
    Ok(locks)
}

/// Writes every intent to the ledger, together. Answers in the same order.
///
/// # Errors
/// When the ledger cannot be written; then none of them must be made.
pub fn intend(
    cx: RunContext<'_>,
    intended: Vec<(Box<dyn Provider>, Box<dyn Capture>)>,
) -> Result<Vec<Held>, StepError> {
    let undos: Vec<_> = intended.iter().map(|(_, capture)| capture.undo().into()).collect();
    let entries = cx.ledger.intend_all(&undos).map_err(ledger_error)?;
    let held = |(entry, (provider, capture))| Held { provider, capture, made: None, entry };
    Ok(entries.into_iter().zip(intended).map(held).collect())
}

/// Looks whether every capture is what was intended, and writes down what proves it ours.
///
/// # Errors
/// When one is not, or the ledger cannot be written.
pub fn verify<'h>(
    cx: RunContext<'_>,
    held: impl Iterator<Item = &'h mut Held>,
) -> Result<(), StepError> {
    let mut identities = Vec::new();
    let mut verified = Ok(());
    for held in held {
        match held.capture.verify(cx.capture()) {
            Ok(made) => {
                identities.extend(made.identity.clone().map(|identity| (held.entry, identity)));
                held.made = Some(made);
            }
            Err(error) => {
                verified = Err(error);
                break;
            }
        }
    }
    // Also of those before one that is not as it should be.
    cx.ledger.made_all(&identities).map_err(ledger_error)?;
    Ok(verified?)
}

impl Held {
    /// Lets go of what was not made after all, under the lock that it needs.
    ///
    /// # Errors
    /// When something was made, and cannot be released.
    pub fn forget(&self, cx: RunContext<'_>) -> Result<(), StepError> {
        capture::release_held(cx.capture(), &self.capture.undo(), None)?;
        cx.ledger.settled(self.entry).map_err(ledger_error)
    }

    /// Keeps it beyond the run, as the base of the next one, and releases the bases that it replaces. The ledger records
    /// that as one exchange: at no moment there are both to be released, or none. What nothing proves to be the one is
    /// not kept, but released with the ledger.
    ///
    /// Before this is called, whoever looks for the base later has it written down beside those that it replaces
    /// ([`Held::to_keep`]): a crash on the way leaves one of them, and [`capture::kept`] says which is there.
    ///
    /// # Errors
    /// When the exchange cannot be recorded: then nothing has changed, and the ledger holds it as before. When a base
    /// that it replaces could not be released: then that is tried again by the next run.
    pub fn keep(&self, cx: RunContext<'_>, replaced: &[Kept]) -> Result<(), StepError> {
        if self.to_keep().is_none() {
            return Ok(());
        }
        let replaced: Vec<_> =
            replaced.iter().map(|kept| (kept.undo.clone().into(), kept.identity.clone())).collect();
        let entries = cx.ledger.promote(self.entry, &replaced).map_err(ledger_error)?;
        let old = entries.into_iter().zip(replaced);
        let old: Vec<Outstanding> = old
            .map(|(entry, (undo, identity))| Outstanding { entry, undo, identity: Some(identity) })
            .collect();
        all_or_left(release_entries(cx, &old, &BTreeSet::new()))
    }

    /// How it is known once it is kept. `None` until it is verified, and where nothing proves it the one.
    pub fn to_keep(&self) -> Option<Kept> {
        let identity = self.made.as_ref()?.identity.clone()?;
        Some(Kept { undo: self.capture.undo(), identity })
    }

    /// The same as the ledger has it.
    fn outstanding(self) -> Outstanding {
        let identity = self.made.and_then(|made| made.identity);
        Outstanding { entry: self.entry, undo: self.capture.undo().into(), identity }
    }
}

/// Releases captures, in this order. What cannot be released stays in the ledger.
///
/// # Errors
/// When one could not be released.
pub fn release(cx: RunContext<'_>, held: Vec<Held>) -> Result<(), StepError> {
    // Who waits for an exclusive capture must not get it before it is released.
    let is_exclusive = |held: &&Held| held.provider.is_exclusive();
    let locked = held.iter().filter(is_exclusive).map(|held| held.entry).collect();
    let held: Vec<Outstanding> = held.into_iter().map(Held::outstanding).collect();
    all_or_left(release_entries(cx, &held, &locked))
}

/// Releases what a ledger holds of captures. `locked` are those whose lock we hold. Answers with what failed.
fn release_entries(
    cx: RunContext<'_>,
    held: &[Outstanding],
    locked: &BTreeSet<EntryId>,
) -> Vec<String> {
    let one = |held: &Outstanding| match held.capture() {
        Some((undo, identity)) if locked.contains(&held.entry) => {
            Ok(capture::release_held(cx.capture(), undo, identity)?)
        }
        Some((undo, identity)) => Ok(capture::release(cx.capture(), undo, identity)?),
        // To settle what was not released would be to forget it.
        None => Err(StepError::new(Trouble::Unexpected, "what is held is no capture")),
    };
    let failures = release_all(cx.capture(), cx.ledger, held, &one);
    failures.into_iter().map(|(_, error)| error.message).collect()
}

fn all_or_left(failures: Vec<String>) -> Result<(), StepError> {
    match failures.is_empty() {
        true => Ok(()),
        false => Err(StepError::new(Trouble::Cleanup, failures.join("; "))),
    }
}
