//! What the two kinds of LVM snapshot share: making, verifying, removing.

use std::time::Duration;

use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::model::undo::{CaptureUndo, Identity, ThinSnapshot, VolumeSnapshot};
use crate::tools::dmsetup;
use crate::tools::lvm::{self as tool, LogicalVolume};

use super::lvm_seen::{find, volumes};
use super::offer::{Choice, Wanted};
use super::releasable::{LOCK_WAIT_TO_RELEASE, Releasable};
use super::{CaptureError, Context, Made, Still, give_up_hint, mismatch, repair, run};

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

/// The snapshot of a volume that the run makes after these others of the same job. Its name is one that no volume of the
/// group has: what another job of the run reads may be there still.
pub(super) fn intend(
    run: &RunId,
    (volumes, earlier): (&[LogicalVolume], &[CaptureUndo]),
    origin: LogicalVolume,
    thin: Option<ThinSnapshot>,
) -> VolumeSnapshot {
    // The udev rule in packaging/ knows them by the first part of the name.
    let name = |number: usize| format!("stillpoint.{run}.{number}");
    let is_free = |name: &String| {
        let is_there = volumes.iter().any(|it| it.group == origin.group && it.name == *name);
        !is_there && among(earlier).all(|intended| intended.name != *name)
    };
    let mut number = earlier.len();
    while !is_free(&name(number)) {
        number += 1;
    }
    VolumeSnapshot {
        name: name(number),
        // The tag ties it to its run.
        tag: format!("{}.run={run}", tool::TAG),
        group: origin.group,
        group_uuid: Some(origin.group_uuid),
        origin: origin.name,
        origin_uuid: origin.uuid,
        thin,
    }
}

/// The LVM snapshots among what this run will have made.
pub(super) fn among(earlier: &[CaptureUndo]) -> impl Iterator<Item = &VolumeSnapshot> {
    earlier.iter().filter_map(CaptureUndo::volume)
}

/// Why nothing can hold a volume still that is of none of the types of which snapshots are made.
pub(super) fn refuse(wanted: &Wanted<'_>) -> Option<Choice> {
    let origin = wanted.logical?;
    Some(Choice::Live(format!(
        "{} is on {}/{}, an LVM volume of type {}, of which no snapshot is made",
        wanted.at.shown(),
        origin.group,
        origin.name,
        origin.segment_type
    )))
}

/// Makes a snapshot.
pub(super) fn make(
    cx: Context<'_>,
    intended: &VolumeSnapshot,
    size: Option<u64>,
) -> Result<(), CaptureError> {
    run(cx.host, &tool::snapshot(intended, size)).map(|_| ())
}

/// Looks whether a snapshot is what was intended.
pub(super) fn verify(cx: Context<'_>, intended: &VolumeSnapshot) -> Result<Made, CaptureError> {
    let volumes = volumes(cx)?;
    let made = find(&volumes, intended, None)
        .ok_or_else(|| mismatch(format!("lvcreate made no {}", intended.name)))?;
    if !is_of(made, intended) {
        return Err(mismatch(format!(
            "{}/{} is not the snapshot of {} that was asked for",
            intended.group, intended.name, intended.origin
        )));
    }
    Ok(Made {
        still: device(made),
        identity: Some(Identity::LogicalVolume { uuid: made.uuid.clone() }),
        about: format!("snapshot {} of {}/{}", intended.name, intended.group, intended.origin),
    })
}

/// The device of a volume.
fn device(volume: &LogicalVolume) -> Still {
    let name = dmsetup::device_name(&volume.group, &volume.name);
    Still::Device(format!("/dev/mapper/{name}").into())
}

/// Whether LVM sees the group of a snapshot. One without any volume looks as if it were not there.
fn group_is_here(volumes: &[LogicalVolume], intended: &VolumeSnapshot) -> bool {
    volumes.iter().any(|volume| {
        volume.group == intended.group
            && intended.group_uuid.as_ref().is_none_or(|uuid| volume.group_uuid == *uuid)
    })
}

/// A group that is away: on a disk that is not plugged in, not decrypted, not logged in to.
fn not_here(cx: Context<'_>, intended: &VolumeSnapshot) -> CaptureError {
    let uuid = intended.group_uuid.as_ref().map(|uuid| format!(" ({uuid})")).unwrap_or_default();
    CaptureError::Unfit {
        what: format!(
            "the volume group {}{uuid} is not here, and {} may still be in it",
            intended.group, intended.name
        ),
        hint: give_up_hint(cx, "attach it and run `stillpoint recover`"),
    }
}

/// Whether a volume is what was intended.
fn is_of(volume: &LogicalVolume, intended: &VolumeSnapshot) -> bool {
    let tagged = |wanted: &str| volume.tags.iter().any(|tag| tag == wanted);
    tagged(tool::TAG)
        && tagged(&intended.tag)
        && volume.group == intended.group
        // A snapshot that lvcreate was killed over may not be tied to its origin yet.
        && volume.origin_uuid.as_ref().is_none_or(|origin| *origin == intended.origin_uuid)
}

impl Releasable for VolumeSnapshot {
    fn lock(&self, _: Context<'_>) -> Option<(String, Duration)> {
        Some((lock_key(&self.group), LOCK_WAIT_TO_RELEASE))
    }

    fn release(&self, cx: Context<'_>, identity: Option<&Identity>) -> Result<(), CaptureError> {
        remove(cx, self, identity)
    }

    fn still(&self, cx: Context<'_>, identity: &Identity) -> Result<Option<Still>, CaptureError> {
        Ok(find(&volumes(cx)?, self, Some(identity)).map(device))
    }

    fn wake(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        repair::resume(cx, self)
    }
}

/// Repairs what a killed `lvcreate` left of it, and removes the snapshot if it is the one that was made.
fn remove(
    cx: Context<'_>,
    intended: &VolumeSnapshot,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    repair::resume(cx, intended)?;
    repair::transaction(cx, intended)?;
    let mut last = None;
    for attempt in 0..TRIES {
        let volumes = volumes(cx)?;
        let Some(found) = find(&volumes, intended, identity) else {
            // LVM says nothing of a group whose disks it does not see.
            if !group_is_here(&volumes, intended) {
                return Err(not_here(cx, intended));
            }
            return repair::sweep(cx, intended);
        };
        if !is_of(found, intended) {
            let what = format!("the volume {}/{}", found.group, found.name);
            return Err(CaptureError::NotOurs { what });
        }
        if attempt > 0 {
            cx.host.pause(BETWEEN_TRIES);
        }
        let removed = run(cx.host, &tool::remove(intended, Some(&found.uuid)));
        match removed {
            Ok(_) => last = None,
            Err(error @ CaptureError::Failed { .. }) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        mismatch(format!(
            "{}/{} is still there after it was removed",
            intended.group, intended.name
        ))
    }))
}
