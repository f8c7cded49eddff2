//! Classic LVM snapshots: they take a part of the group, and break when their origin overwrites more than
//! that part holds. A broken one may be read without any error, so it is looked at after reading.

use crate::host::Access;
use crate::model::job::ClassicSize;
use crate::model::names::RunId;
use crate::model::size;
use crate::model::undo::{Undo, VolumeSnapshot};
use crate::tools::dmsetup;
use crate::tools::lvm::LogicalVolume;

use super::survey::Volume;
use super::{CaptureError, Made, Provider, Room, lvm, lvm_seen, run};

/// Snapshots of one linear, striped or mirrored volume.
#[derive(Debug)]
pub(super) struct LvmClassic {
    /// What is mounted.
    pub volume: Volume,
    /// The volume it is mounted from.
    pub origin: LogicalVolume,
    /// How much the snapshot can take in.
    pub size: ClassicSize,
    /// What an engine may do with the snapshot.
    pub access: Access,
}

impl Provider for LvmClassic {
    fn name(&self) -> &'static str {
        "lvm-classic"
    }

    fn lock_key(&self) -> Option<String> {
        Some(lvm::lock_key(&self.origin.group))
    }

    fn promise(&self, room: Room<'_>, run: &RunId, earlier: &[Undo]) -> Result<Undo, CaptureError> {
        let volumes = lvm_seen::volumes(room)?;
        let origin = lvm::again(&volumes, &self.origin)?;
        let wanted = self.bytes(&origin);
        // What this run takes from the group before is not gone from it yet.
        let taken: u64 = earlier
            .iter()
            .filter_map(|undo| classic_origin(undo, &origin.group))
            .filter_map(|uuid| volumes.iter().find(|volume| volume.uuid == *uuid))
            .map(|volume| self.bytes(volume))
            .sum();
        if wanted + taken > origin.group_free {
            return Err(CaptureError::Unfit {
                what: format!(
                    "the volume group {} has {} left{}, and a snapshot of {} takes {}",
                    origin.group,
                    size::show(origin.group_free),
                    match taken {
                        0 => String::new(),
                        taken => format!(" ({} of it for the others)", size::show(taken)),
                    },
                    origin.name,
                    size::show(wanted)
                ),
                hint: "extend the group, or set a smaller size under [jobs.NAME.files.lvm-classic]"
                    .into(),
            });
        }
        Ok(lvm::promise(run, earlier.len(), origin, None))
    }

    fn make(&self, room: Room<'_>, promise: &Undo) -> Result<(), CaptureError> {
        lvm::make(room, lvm::promised(promise)?, Some(self.bytes(&self.origin)))
    }

    fn look(&self, room: Room<'_>, promise: &Undo) -> Result<Made, CaptureError> {
        lvm::look(room, lvm::promised(promise)?, &self.volume, self.access)
    }

    fn examine(&self, room: Room<'_>, promise: &Undo) -> Result<(), CaptureError> {
        let snapshot = lvm::promised(promise)?;
        let volumes = lvm_seen::volumes(room)?;
        let what = match lvm_seen::find(&volumes, snapshot, None) {
            None => format!("the snapshot {} went away while it was read", snapshot.name),
            Some(found) if found.is_overflowed() => overflowed(snapshot),
            Some(_) => return Ok(()),
        };
        let hint =
            "set a larger size under [jobs.NAME.files.lvm-classic], or run when less is written";
        Err(CaptureError::Broken { what, hint: hint.into() })
    }

    fn is_watched(&self) -> bool {
        true
    }

    /// Nothing but the copy is in danger; but from an overflowed snapshot there is nothing left to read.
    fn danger(&self, room: Room<'_>, promise: &Undo) -> Result<Option<String>, CaptureError> {
        let snapshot = lvm::promised(promise)?;
        let device = dmsetup::device_name(&snapshot.group, &snapshot.name);
        let status = run(room.host, &dmsetup::status(&device))?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        // The words of the kernel's dm-snap.c in the place of the figures.
        let broken = ["Invalid", "Overflow"].iter().any(|word| status.contains(word));
        Ok(broken.then(|| overflowed(snapshot)))
    }
}

impl LvmClassic {
    /// Whole extents; never more than a snapshot of everything needs, which LVM would not allocate anyway.
    fn bytes(&self, origin: &LogicalVolume) -> u64 {
        let wanted = match self.size {
            ClassicSize::Percent(percent) => origin.size / 100 * u64::from(percent),
            ClassicSize::Bytes(bytes) => bytes,
        };
        // A snapshot that can take in all of its origin also has to say where each chunk lies.
        let everything = origin.size + origin.size / 100 + 4 * origin.extent;
        let extents = wanted.clamp(1, everything).div_ceil(origin.extent.max(1));
        extents * origin.extent
    }
}

/// The UUID of the volume of which a classic snapshot is promised in this group.
fn classic_origin<'u>(undo: &'u Undo, group: &str) -> Option<&'u String> {
    let Undo::RemoveVolume(VolumeSnapshot { thin: None, group: of, origin_uuid, .. }) = undo else {
        return None;
    };
    (of == group).then_some(origin_uuid)
}

fn overflowed(snapshot: &VolumeSnapshot) -> String {
    format!(
        "the snapshot {} of {}/{} overflowed: more was written to its origin than it can take in",
        snapshot.name, snapshot.group, snapshot.origin
    )
}
