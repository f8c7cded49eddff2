//! A copy that is a subvolume of this machine: nobody need serve it, it is shown where it is wanted.

use std::time::Duration;

use crate::engine::LocalCopy;
use crate::host::{ActError, Action};
use crate::model::undo::{EngineUndo, Identity, ServedMount};
use crate::step::context::RunContext;
use crate::step::error::{StepError, ledger_error};

/// How often it is looked whether somebody has unmounted it.
const INTERVAL: Duration = Duration::from_millis(250);

/// Shows a copy until somebody unmounts it or a signal comes. What is left of it then goes with the run.
///
/// # Errors
/// When it cannot be shown; [`crate::model::outcome::Trouble::Signal`] is the usual end.
pub(super) fn show(
    cx: RunContext<'_>,
    local: LocalCopy,
    intended: ServedMount,
    ready: &(dyn Fn() + Sync),
) -> Result<(), StepError> {
    let host = cx.host();
    let at = intended.path.clone();
    let entry = cx.ledger.intend(EngineUndo::from(intended).into()).map_err(ledger_error)?;
    let LocalCopy { path, found } = local;
    // A dry host makes none.
    let Some(identity) = host.act(&Action::Show { path, found, at })? else { return Ok(()) };
    cx.ledger.made(entry, identity.clone()).map_err(ledger_error)?;
    ready();
    loop {
        if let Some(signal) = host.stop_signal() {
            return Err(ActError::Interrupted { signal }.into());
        }
        let is_ours = |id, device| identity == Identity::Mount { id, device };
        if !host.mounts()?.iter().any(|entry| is_ours(entry.id, entry.device)) {
            return Ok(());
        }
        host.pause(INTERVAL);
    }
}
