//! Thin LVM snapshots: they take no space when they are made, and all of what their origin overwrites later.
//!
//! So the pool must have room before, and is watched while the snapshot lives: production goes before backup.

use crate::model::job::ThinLimits;
use crate::model::names::RunId;
use crate::model::undo::{CaptureUndo, ThinSnapshot, VolumeSnapshot};
use crate::tools::dmsetup::PoolStatus;
use crate::tools::lvm::LogicalVolume;

use super::offer::{Choice, Wanted};
use super::{Capture, CaptureError, Context, Made, Provider, lvm, lvm_seen, mismatch, repair};

/// When a snapshot is given up for the sake of its pool, in hundredths of a percent of the data. At 100 %
/// writers block, and get errors a minute later.
const TOO_FULL_DATA: u32 = 9_500;

/// The same for the metadata, which are harder to repair than to spare.
const TOO_FULL_METADATA: u32 = 9_000;

/// Snapshots of one thin volume.
#[derive(Debug)]
struct LvmThin {
    /// The volume that is captured.
    origin: LogicalVolume,
    /// When the pool is too full.
    limits: ThinLimits,
}

/// Offers to hold a thin volume still.
pub(super) fn offer(wanted: &Wanted<'_>) -> Option<Choice> {
    let origin = wanted.logical.filter(|origin| origin.segment_type == "thin")?;
    Some(Choice::Held(Box::new(LvmThin { origin: origin.clone(), limits: wanted.policy.thin })))
}

impl Provider for LvmThin {
    fn name(&self) -> &'static str {
        "lvm-thin"
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
        let (Some(pool_uuid), Some(pool)) = (&origin.pool_uuid, &origin.pool) else {
            return Err(mismatch(format!("{}/{} is in no pool", origin.group, origin.name)));
        };
        let row = volumes
            .iter()
            .find(|volume| volume.uuid == *pool_uuid)
            .ok_or_else(|| mismatch(format!("lvs does not list the pool {pool}")))?;
        let status = lvm_seen::pool(cx, &origin.group, pool)?;
        self.refuse_unfit(row, &status)?;
        let highest = volumes
            .iter()
            .filter(|volume| volume.pool_uuid.as_ref() == Some(pool_uuid))
            .filter_map(|volume| volume.thin_id)
            .max()
            .ok_or_else(|| mismatch(format!("lvs names no device in the pool {pool}")))?;
        // Each snapshot in the pool is one transaction and one device.
        let is_in_it = |thin: &ThinSnapshot| thin.pool_uuid == *pool_uuid;
        let before = lvm::among(earlier)
            .filter(|one| one.thin.as_ref().is_some_and(is_in_it))
            .count() as u64;
        let thin = ThinSnapshot {
            pool: pool.clone(),
            pool_uuid: pool_uuid.clone(),
            device_id: highest + 1 + before,
            transaction_id: status.transaction_id + before,
        };
        Ok(Box::new(Intended {
            snapshot: lvm::intend(run, (&volumes, earlier), origin, Some(thin)),
        }))
    }
}

/// A snapshot, from the intent on.
struct Intended {
    snapshot: VolumeSnapshot,
}

impl Capture for Intended {
    fn undo(&self) -> CaptureUndo {
        self.snapshot.clone().into()
    }

    fn make(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        lvm::make(cx, &self.snapshot, None)
    }

    fn verify(&self, cx: Context<'_>) -> Result<Made, CaptureError> {
        lvm::verify(cx, &self.snapshot)
    }

    fn still_holds(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        let snapshot = &self.snapshot;
        let volumes = lvm_seen::volumes(cx)?;
        let broken = |what: String| {
            let hint = "look at `lvs -a` and the kernel log; the next run makes a new snapshot";
            Err(CaptureError::Broken { what, hint: hint.into() })
        };
        match lvm_seen::find(&volumes, snapshot, None) {
            None => broken(format!("the snapshot {} went away while it was read", snapshot.name)),
            Some(found) => match found.ailment() {
                Some(ailment) => broken(format!("the snapshot {} broke: {ailment}", snapshot.name)),
                None => Ok(()),
            },
        }
    }

    fn is_watched(&self) -> bool {
        true
    }

    fn danger(&self, cx: Context<'_>) -> Result<Option<String>, CaptureError> {
        let Some(thin) = &self.snapshot.thin else { return Ok(None) };
        let status = lvm_seen::pool(cx, &self.snapshot.group, &thin.pool)?;
        let full = status.data_used >= TOO_FULL_DATA
            || status.metadata_used >= TOO_FULL_METADATA
            || status.mode != "rw";
        Ok(full.then(|| {
            format!(
                "the thin pool {}/{} is running full ({}, mode {}), so its snapshot is given up",
                self.snapshot.group,
                thin.pool,
                fullness(&status),
                status.mode
            )
        }))
    }
}

impl LvmThin {
    fn refuse_unfit(&self, pool: &LogicalVolume, status: &PoolStatus) -> Result<(), CaptureError> {
        let name = format!("{}/{}", pool.group, pool.name);
        if pool.transaction_id.is_some_and(|id| id != status.transaction_id) {
            return Err(repair::out_of_step(&name, pool.transaction_id, status.transaction_id));
        }
        let unfit = |what: String, hint: &str| Err(CaptureError::Unfit { what, hint: hint.into() });
        if let Some(ailment) = pool.ailment() {
            return unfit(
                format!("the thin pool {name} is not well: {ailment}"),
                "repair it first",
            );
        }
        if status.mode != "rw" || status.needs_check {
            return unfit(
                format!("the thin pool {name} cannot be written (mode {})", status.mode),
                "free space in it, or repair it with lvconvert --repair",
            );
        }
        if status.data_used > u32::from(self.limits.data_percent) * 100
            || status.metadata_used > u32::from(self.limits.metadata_percent) * 100
        {
            return unfit(
                format!("the thin pool {name} is too full for a snapshot ({})", fullness(status)),
                "extend it (lvextend, lvextend --poolmetadatasize), or raise max-data and max-metadata",
            );
        }
        Ok(())
    }
}

fn fullness(status: &PoolStatus) -> String {
    let percent = |hundredths: u32| format!("{}.{:02} %", hundredths / 100, hundredths % 100);
    format!("data {}, metadata {}", percent(status.data_used), percent(status.metadata_used))
}
