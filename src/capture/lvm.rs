//! What the two kinds of LVM snapshot share: looking, showing to an engine, removing.

use std::time::Duration;

use crate::host::{Access, PrivateMount};
use crate::model::names::RunId;
use crate::model::undo::{Identity, ThinSnapshot, Undo, VolumeSnapshot};
use crate::tools::dmsetup;
use crate::tools::lvm::{self as tool, LogicalVolume};

use super::lvm_seen::{find, volumes};
use super::survey::Volume;
use super::{CaptureError, Made, Room, give_up_hint, mismatch, repair, run};

/// How often a snapshot that is still in use is tried again: udev looks into every new device, and an engine's
/// last child may be a moment behind.
const TRIES: usize = 20;

/// How long between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(300);

/// The volume as it is now, in case it was renamed, resized or removed since it was chosen.
pub(super) fn again(
    volumes: &[LogicalVolume],
    chosen: &LogicalVolume,
) -> Result<LogicalVolume, CaptureError> {
    volumes.iter().find(|volume| volume.uuid == chosen.uuid).cloned().ok_or_else(|| {
        mismatch(format!("the volume {}/{} is no longer there", chosen.group, chosen.name))
    })
}

/// The lock of a volume group: LVM changes a whole group at a time.
pub(super) fn lock_key(group: &str) -> String {
    format!("lvm-{group}")
}

/// Promises the snapshot of a volume that the run makes after so many others.
pub(super) fn promise(
    run: &RunId,
    number: usize,
    origin: LogicalVolume,
    thin: Option<ThinSnapshot>,
) -> Undo {
    Undo::RemoveVolume(VolumeSnapshot {
        // The udev rule in packaging/ knows them by the first part of the name.
        name: format!("stillpoint.{run}.{number}"),
        // The tag ties it to its run.
        tag: format!("{}.run={run}", tool::TAG),
        group: origin.group,
        group_uuid: Some(origin.group_uuid),
        origin: origin.name,
        origin_uuid: origin.uuid,
        thin,
    })
}

/// The promise of an LVM snapshot.
pub(super) fn promised(promise: &Undo) -> Result<&VolumeSnapshot, CaptureError> {
    let Undo::RemoveVolume(snapshot) = promise else {
        return Err(mismatch("an LVM snapshot was promised as something else"));
    };
    Ok(snapshot)
}

/// Makes a snapshot.
pub(super) fn make(
    room: Room<'_>,
    promised: &VolumeSnapshot,
    size: Option<u64>,
) -> Result<(), CaptureError> {
    run(room.host, &tool::snapshot(promised, size)).map(|_| ())
}

/// Looks whether a snapshot is what was promised, and says how it is seen.
pub(super) fn look(
    room: Room<'_>,
    promised: &VolumeSnapshot,
    volume: &Volume,
    access: Access,
) -> Result<Made, CaptureError> {
    let volumes = volumes(room)?;
    let made = find(&volumes, promised, None)
        .ok_or_else(|| mismatch(format!("lvcreate made no {}", promised.name)))?;
    if !is_of(made, promised) {
        return Err(mismatch(format!(
            "{}/{} is not the snapshot of {} that was asked for",
            promised.group, promised.name, promised.origin
        )));
    }
    let identity = Some(Identity::LogicalVolume { uuid: made.uuid.clone() });
    let file_system = volume.mount.file_system.clone();
    // A second XFS of the same UUID is refused otherwise.
    let options = if file_system == "xfs" { "nouuid" } else { "" };
    let root = &volume.mount.root;
    Ok(Made {
        identity,
        mount: Some(PrivateMount::Device {
            device: format!(
                "/dev/mapper/{}",
                dmsetup::device_name(&promised.group, &promised.name)
            )
            .into(),
            at: volume.at.clone(),
            file_system,
            options: options.into(),
            directory: (root.as_os_str() != "/").then(|| root.clone()),
            access,
        }),
        about: format!("snapshot {} of {}/{}", promised.name, promised.group, promised.origin),
    })
}

/// Whether LVM sees the group of the promise. One without any volume looks as if it were not there.
fn group_is_here(volumes: &[LogicalVolume], promised: &VolumeSnapshot) -> bool {
    volumes.iter().any(|volume| {
        volume.group == promised.group
            && promised.group_uuid.as_ref().is_none_or(|uuid| volume.group_uuid == *uuid)
    })
}

/// A group that is away: on a disk that is not plugged in, not decrypted, not logged in to.
fn not_here(room: Room<'_>, promised: &VolumeSnapshot) -> CaptureError {
    let uuid = promised.group_uuid.as_ref().map(|uuid| format!(" ({uuid})")).unwrap_or_default();
    CaptureError::Unfit {
        what: format!(
            "the volume group {}{uuid} is not here, and {} may still be in it",
            promised.group, promised.name
        ),
        hint: give_up_hint(room, "attach it and run `stillpoint recover`"),
    }
}

/// Whether a volume is what the promise describes.
fn is_of(volume: &LogicalVolume, promised: &VolumeSnapshot) -> bool {
    let tagged = |wanted: &str| volume.tags.iter().any(|tag| tag == wanted);
    tagged(tool::TAG)
        && tagged(&promised.tag)
        && volume.group == promised.group
        // A snapshot that lvcreate was killed over may not be tied to its origin yet.
        && volume.origin_uuid.as_ref().is_none_or(|origin| *origin == promised.origin_uuid)
}

/// Repairs what a killed `lvcreate` left of it, and removes the snapshot if it is the one that was made.
pub(super) fn remove(
    room: Room<'_>,
    promised: &VolumeSnapshot,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    repair::resume(room, promised)?;
    repair::transaction(room, promised)?;
    let mut last = None;
    for attempt in 0..TRIES {
        let volumes = volumes(room)?;
        let Some(found) = find(&volumes, promised, identity) else {
            // LVM says nothing of a group whose disks it does not see.
            if !group_is_here(&volumes, promised) {
                return Err(not_here(room, promised));
            }
            return repair::sweep(room, promised);
        };
        if !is_of(found, promised) {
            let what = format!("the volume {}/{}", found.group, found.name);
            return Err(CaptureError::NotOurs { what });
        }
        if attempt > 0 {
            room.host.pause(BETWEEN_TRIES);
        }
        let removed = run(room.host, &tool::remove(promised, Some(&found.uuid)));
        match removed {
            Ok(_) => last = None,
            Err(error @ CaptureError::Failed { .. }) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        mismatch(format!(
            "{}/{} is still there after it was removed",
            promised.group, promised.name
        ))
    }))
}
