//! What LVM and the kernel say of the volumes that are there.

use crate::model::undo::{Identity, VolumeSnapshot};
use crate::tools::dmsetup::{self, PoolStatus};
use crate::tools::lvm::{self as tool, LogicalVolume};

use super::{CaptureError, Context, mismatch, run};

/// All volumes of the machine, as they are or, in a dry run, as they would be.
pub(super) fn volumes(cx: Context<'_>) -> Result<Vec<LogicalVolume>, CaptureError> {
    let mut volumes = tool::parse(&run(cx.host, &tool::list())?.stdout).map_err(mismatch)?;
    for change in cx.host.predicted(tool::SNAPSHOTS) {
        tool::apply_prediction(&mut volumes, &change).map_err(mismatch)?;
    }
    Ok(volumes)
}

/// The snapshot among all volumes: by its UUID, or by its name where none is known.
pub(super) fn find<'v>(
    volumes: &'v [LogicalVolume],
    intended: &VolumeSnapshot,
    identity: Option<&Identity>,
) -> Option<&'v LogicalVolume> {
    volumes.iter().find(|volume| match identity {
        Some(Identity::LogicalVolume { uuid }) => volume.uuid == *uuid,
        None => volume.group == intended.group && volume.name == intended.name,
        // No volume was ever known by it.
        Some(
            Identity::Inode { .. }
            | Identity::Directory { .. }
            | Identity::Subvolume { .. }
            | Identity::Mount { .. },
        ) => false,
    })
}

/// The pool as the kernel sees it.
pub(super) fn pool(cx: Context<'_>, group: &str, pool: &str) -> Result<PoolStatus, CaptureError> {
    let device = dmsetup::pool_name(group, pool);
    dmsetup::parse_pool(&run(cx.host, &dmsetup::status(&device))?.stdout).map_err(mismatch)
}
