//! Whose copies these are: the machine's own identity, and what it is known by from its clones.

use std::path::Path;

use crate::history::{Fingerprint, History, HistoryError, Settled};
use crate::host::Host;
use crate::model::names::MachineId;
use crate::model::size::counted;

use crate::step::context::Pipeline;

/// The installation's identity; see `machine-id(5)`. It stays in the history, which only root can read.
const INSTALLATION: &str = "/etc/machine-id";

/// The firmware's name for the machine (SMBIOS product UUID); containers see their host's, and some machines have
/// none.
const HARDWARE: &str = "/sys/class/dmi/id/product_uuid";

/// Makes sure that the state directory has an identity and still belongs to this machine. Answers with what a
/// person must know.
///
/// # Errors
/// When history cannot be read or written.
pub fn settle(host: &dyn Host, history: &History) -> Result<Option<String>, HistoryError> {
    let seen = Fingerprint {
        installation: first_line(host, INSTALLATION),
        hardware: first_line(host, HARDWARE),
    };
    Ok(match history.settle_machine(&seen, &draw(host))? {
        Settled::Known | Settled::New => None,
        Settled::Moved(copies) => Some(format!(
            "the state directory was made on another machine (the machine id or the firmware's id is another one), so this one gets an identity of its own, and retention leaves to the other one what is recorded until now ({}) — if that one is gone, run `stillpoint adopt TARGET`",
            counted(copies, "copy", "copies")
        )),
    })
}

fn draw(host: &dyn Host) -> MachineId {
    let (one, two) = (host.random(), host.random());
    MachineId::from_bytes([one[0], one[1], one[2], one[3], two[0], two[1], two[2], two[3]])
}

fn first_line(host: &dyn Host, path: &str) -> Option<String> {
    let content = host.read(Path::new(path)).ok()?;
    let line = String::from_utf8(content).ok()?.lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

/// The identity that new copies carry. A dry run on a machine that has none yet shows one that is drawn for it.
///
/// # Errors
/// When history cannot be read.
pub fn of(pipeline: Pipeline<'_>) -> Result<Option<MachineId>, HistoryError> {
    match pipeline.history.map(History::machine).transpose()?.flatten() {
        // Stays: what a run would have drawn and written before it is written by nobody.
        None if pipeline.host.is_dry() => Ok(Some(draw(pipeline.host))),
        known => Ok(known),
    }
}
