//! Classic LVM snapshots: they take a part of the group, and break when their origin overwrites more than
//! that part holds. A broken one may be read without any error, so it is looked at after reading.

use crate::model::job::ClassicSize;
use crate::model::names::RunId;
use crate::model::size;
use crate::model::undo::{CaptureUndo, VolumeSnapshot};
use crate::tools::dmsetup;
use crate::tools::lvm::LogicalVolume;

use super::offer::{Choice, Wanted};
use super::{Capture, CaptureError, Context, Made, Provider, lvm, lvm_seen, run};

/// Snapshots of one linear, striped or mirrored volume.
#[derive(Debug)]
struct LvmClassic {
    /// The volume that is captured.
    origin: LogicalVolume,
    /// How much the snapshot can take in.
    size: ClassicSize,
}

/// Offers to hold a volume still of which `lvcreate --snapshot --size` makes snapshots (lvmthin(7), lvcreate(8)); a
/// snapshot is no origin.
pub(super) fn offer(wanted: &Wanted<'_>) -> Option<Choice> {
    let origin = wanted.logical?;
    let kind = origin.segment_type.as_str();
    let takes_snapshots =
        (kind == "linear" || kind == "striped" || kind == "mirror" || kind.starts_with("raid"))
            && !matches!(origin.attributes.as_bytes().first(), Some(b's' | b'S'));
    let size = wanted.policy.classic_size;
    takes_snapshots.then(|| Choice::Held(Box::new(LvmClassic { origin: origin.clone(), size })))
}

impl Provider for LvmClassic {
    fn name(&self) -> &'static str {
        "lvm-classic"
    }

    fn lock_key(&self) -> Option<String> {
        Some(lvm::lock_key(&self.origin.group))
    }

    fn intend(
        &self,
        cx: Context<'_>,
        run: &RunId,
        earlier: &[CaptureUndo],
    ) -> Result<Box<dyn Capture>, CaptureError> {
        let volumes = lvm_seen::volumes(cx)?;
        let origin = lvm::again(&volumes, &self.origin)?;
        let wanted = self.bytes(&origin);
        // What this run takes from the group before is not gone from it yet.
        let taken: u64 = lvm::among(earlier)
            .filter(|snapshot| snapshot.thin.is_none() && snapshot.group == origin.group)
            .filter_map(|snapshot| {
                volumes.iter().find(|volume| volume.uuid == snapshot.origin_uuid)
            })
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
        Ok(Box::new(Intended {
            // As the volume was when it was chosen.
            size: self.bytes(&self.origin),
            snapshot: lvm::intend(run, (&volumes, earlier), origin, None),
        }))
    }
}

/// A snapshot, from the intent on.
struct Intended {
    /// Bytes that it can take in.
    size: u64,
    snapshot: VolumeSnapshot,
}

impl Capture for Intended {
    fn undo(&self) -> CaptureUndo {
        self.snapshot.clone().into()
    }

    fn make(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        lvm::make(cx, &self.snapshot, Some(self.size))
    }

    fn verify(&self, cx: Context<'_>) -> Result<Made, CaptureError> {
        lvm::verify(cx, &self.snapshot)
    }

    fn still_holds(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        let snapshot = &self.snapshot;
        let volumes = lvm_seen::volumes(cx)?;
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
    fn danger(&self, cx: Context<'_>) -> Result<Option<String>, CaptureError> {
        let snapshot = &self.snapshot;
        let device = dmsetup::device_name(&snapshot.group, &snapshot.name);
        let status = run(cx.host, &dmsetup::status(&device))?;
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

fn overflowed(snapshot: &VolumeSnapshot) -> String {
    format!(
        "the snapshot {} of {}/{} overflowed: more was written to its origin than it can take in",
        snapshot.name, snapshot.group, snapshot.origin
    )
}
