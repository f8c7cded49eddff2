//! What another machine says of itself, when it is asked to send: it must not be what something else here is.

use super::catalog::Catalog;
use crate::engine::EngineError;

/// Refuses what claims to be another copy, or a subvolume in the directory: `btrfs receive` would take it for that, and receive
/// differences to that as differences to this.
pub(super) fn refuse_claimed(
    catalog: &Catalog<'_>,
    name: &str,
    sent: &str,
) -> Result<(), EngineError> {
    let (records, _) = catalog.all_records()?;
    let mut is_claimed = records.iter().any(|record| record.name != name && record.claims(sent));
    for found in catalog.place.subvolumes(&catalog.place.nested()?)?.into_iter().flatten() {
        let uuids = [found.uuid, found.received_uuid];
        is_claimed |= uuids.iter().flatten().any(|uuid| uuid == sent);
    }
    match is_claimed {
        false => Ok(()),
        true => Err(EngineError::Output {
            engine: "btrfs",
            what: format!(
                "{sent} is the UUID of another copy already, so nothing is received as that"
            ),
        }),
    }
}
