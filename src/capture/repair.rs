//! What a killed `lvcreate` leaves, and how it is healed (all of it seen with lvm2 2.03.16 on Linux 6.1).
//!
//! - Between its suspend and its resume the origin stays suspended: every write to it blocks.
//!   For a classic snapshot it then has a second table, with which it must not be resumed; see [`resume`].
//! - Between the messages `create_snap` and `set_transaction_id` the pool's metadata in LVM are one
//!   transaction ahead of the kernel's, whose pool already knows the new device. From then on LVM refuses
//!   every change in that pool, also after a reboot.
//!
//! Only what the intent names is touched: its origin, its pool, its own device id. Anything else is
//! explained instead.

use std::time::Duration;

use crate::model::undo::VolumeSnapshot;
use crate::tools::dmsetup::{self, Device};

use super::{CaptureError, Context, lvm_seen, mismatch, run};

/// How often a suspended device is looked at before it counts as left behind: other people's LVM commands
/// suspend devices for moments, too.
const LOOKS: usize = 4;

/// How long between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(700);

/// Resumes the devices of the intent that stay suspended.
///
/// An `lvcreate` of a classic snapshot gives its origin a second table, which stands on a device that may not
/// have one yet: resumed with it, the origin answers every read and write with an error. So that table goes
/// first, and LVM makes a new one when it removes the snapshot.
pub(super) fn resume(cx: Context<'_>, intended: &VolumeSnapshot) -> Result<(), CaptureError> {
    let mut stuck = suspended(cx, intended)?;
    for _ in 1..LOOKS {
        if stuck.is_empty() {
            return Ok(());
        }
        cx.host.pause(BETWEEN_LOOKS);
        let now = suspended(cx, intended)?;
        stuck.retain(|device| now.contains(device));
    }
    for device in &stuck {
        if device.live && device.pending {
            run(cx.host, &dmsetup::clear(&device.name))?;
        }
        run(cx.host, &dmsetup::resume(&device.name))?;
    }
    let left = suspended(cx, intended)?;
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = left.iter().map(|device| device.name.as_str()).collect();
    Err(mismatch(format!(
        "{} stayed suspended, so whatever writes to it hangs: try `dmsetup resume`",
        names.join(", ")
    )))
}

/// The suspended devices that the intent is about, those below before those above: to resume one that stands
/// on a suspended one never ends.
fn suspended(cx: Context<'_>, intended: &VolumeSnapshot) -> Result<Vec<Device>, CaptureError> {
    let devices = devices(cx)?;
    let find = |name: String| {
        devices.iter().find(|device| device.name == name && device.suspended).cloned()
    };
    let device = |volume: &str| dmsetup::device_name(&intended.group, volume);
    let mut ours = Vec::new();
    if let Some(thin) = &intended.thin {
        for part in ["_tmeta", "_tdata"] {
            ours.push(device(&format!("{}{part}", thin.pool)));
        }
        ours.push(dmsetup::pool_name(&intended.group, &thin.pool));
        ours.push(device(&thin.pool));
    }
    ours.push(format!("{}-real", device(&intended.origin)));
    let mut snapshots = vec![intended.name.clone()];
    if devices.iter().any(|device| device.suspended) {
        // lvcreate suspends the other snapshots of a classic origin as well.
        let others = lvm_seen::volumes(cx)?.into_iter().filter(|volume| {
            volume.origin_uuid.as_ref() == Some(&intended.origin_uuid)
                && volume.group == intended.group
                && volume.name != intended.name
        });
        snapshots.extend(others.map(|volume| volume.name));
    }
    for part in ["-cow", ""] {
        ours.extend(snapshots.iter().map(|name| format!("{}{part}", device(name))));
    }
    ours.push(device(&intended.origin));
    Ok(ours.into_iter().filter_map(find).collect())
}

/// Removes the devices without any table by which they work that a killed `lvcreate` left of a classic
/// snapshot, after LVM has let go of it.
pub(super) fn sweep(cx: Context<'_>, intended: &VolumeSnapshot) -> Result<(), CaptureError> {
    if intended.thin.is_some() {
        return Ok(());
    }
    let device = |volume: &str| dmsetup::device_name(&intended.group, volume);
    let ours = [
        device(&intended.name),
        format!("{}-cow", device(&intended.name)),
        format!("{}-real", device(&intended.origin)),
    ];
    for left in devices(cx)? {
        if ours.contains(&left.name) && !left.live {
            run(cx.host, &dmsetup::remove(&left.name))?;
        }
    }
    Ok(())
}

fn devices(cx: Context<'_>) -> Result<Vec<Device>, CaptureError> {
    let listed = run(cx.host, &dmsetup::devices())?;
    let mut devices = dmsetup::parse_devices(&listed.stdout).map_err(mismatch)?;
    let resumed = cx.host.predicted(dmsetup::RESUMED);
    for device in devices.iter_mut().filter(|it| resumed.contains(&it.name.as_bytes().to_vec())) {
        device.suspended = false;
    }
    Ok(devices)
}

/// Brings a thin pool back into step, where it is our own half-made snapshot that put it out of step.
pub(super) fn transaction(cx: Context<'_>, intended: &VolumeSnapshot) -> Result<(), CaptureError> {
    let Some(thin) = &intended.thin else { return Ok(()) };
    let volumes = lvm_seen::volumes(cx)?;
    let Some(pool) = volumes.iter().find(|volume| volume.uuid == thin.pool_uuid) else {
        // The pool is gone, and everything that was in it; or its group is not here, and `lvm::remove` says so.
        return Ok(());
    };
    if pool.device.is_none() {
        // Not active: the kernel cannot be asked, and nothing can be half-made in it before it is.
        return Ok(());
    }
    let kernel = lvm_seen::pool(cx, &intended.group, &pool.name)?.transaction_id;
    let Some(metadata) = pool.transaction_id.filter(|id| *id != kernel) else { return Ok(()) };
    let Some(half_made) = lvm_seen::find(&volumes, intended, None) else {
        // LVM writes down a snapshot before it tells the kernel, so this one was never begun. Another one of
        // the same run may have put the pool out of step; its own undo heals that.
        return Ok(());
    };
    let ours = metadata == kernel + 1
        && kernel == thin.transaction_id
        && half_made.thin_id == Some(thin.device_id);
    if !ours {
        let name = format!("{}/{}", intended.group, pool.name);
        return Err(out_of_step(&name, Some(metadata), kernel));
    }
    let pool_device = dmsetup::pool_name(&intended.group, &pool.name);
    // It may not have come so far as to make the device; then there is none to forget, which is as good.
    match run(cx.host, &dmsetup::delete_thin(&pool_device, thin.device_id)) {
        Ok(_) | Err(CaptureError::Failed { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What to tell somebody whose pool is out of step for reasons that are not ours to mend.
pub(super) fn out_of_step(pool: &str, metadata: Option<u64>, kernel: u64) -> CaptureError {
    let metadata = metadata.map_or("unknown".into(), |id| id.to_string());
    CaptureError::Unfit {
        what: format!(
            "the thin pool {pool} is out of step: LVM's metadata are at transaction {metadata}, the kernel at {kernel}, so LVM refuses every change in it"
        ),
        hint: format!(
            "somebody's lvcreate was killed. Find the half-made volume (`lvs -a -o +thin_id,transaction_id {pool}`), make the kernel forget it with `dmsetup message POOL-tpool 0 \"delete THIN-ID\"`, then `lvremove` it; take a backup of /etc/lvm first"
        ),
    }
}
