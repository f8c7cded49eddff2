//! What another machine says of itself, when it sends or is asked to send: it must not be what something else here is.
//! `btrfs receive` would take it for that, and receive differences to that as differences to this; and the machine that sent
//! the other one would take it for its own. Every snapshot has a UUID of its own.

use std::path::Path;

use super::catalog::{Catalog, OWN};
use crate::engine::EngineError;

/// Whether the record of another copy than the one of this name has this UUID already.
///
/// # Errors
/// When the records cannot be read.
pub(super) fn is_claimed(
    catalog: &Catalog<'_>,
    name: &str,
    sent: &str,
) -> Result<bool, EngineError> {
    let (records, _) = catalog.all_records()?;
    Ok(records.iter().any(|record| record.name != name && record.claims(sent)))
}

/// Whether a subvolume below a directory of copies of this machine, however deep, is that or was received as it. What lies
/// in another such directory below it is that one's affair: one source may have both as targets.
///
/// # Errors
/// When the file system does not answer.
pub(super) fn is_here(catalog: &Catalog<'_>, sent: &str) -> Result<bool, EngineError> {
    let host = catalog.cx.host;
    for path in host.nested_subvolumes(&catalog.location)? {
        let found = host.subvolume(&path)?.unwrap_or_default();
        let uuids = [found.uuid, found.received_uuid];
        if uuids.iter().flatten().any(|uuid| uuid == sent) && !is_anothers(catalog, &path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a path lies in another directory of copies below that of a catalog.
fn is_anothers(catalog: &Catalog<'_>, path: &Path) -> Result<bool, EngineError> {
    let above = path.ancestors().skip(1).take_while(|above| *above != catalog.location);
    for directory in above {
        if catalog.cx.host.path_state(&directory.join(OWN))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
