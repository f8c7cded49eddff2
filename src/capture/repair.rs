//! What a killed `lvcreate` leaves, and how it is healed (all of it seen with lvm2 2.03.16 on Linux 6.1).
//!
//! - Between its suspend and its resume the origin stays suspended: every write to it blocks.
//! - Between the messages `create_snap` and `set_transaction_id` the pool's metadata in LVM are one
//!   transaction ahead of the kernel's, whose pool already knows the new device. From then on LVM refuses
//!   every change in that pool, also after a reboot.
//!
//! Only what the promise names is touched: its origin, its pool, its own device id. Anything else is
//! explained instead.

use std::time::Duration;

use crate::model::undo::VolumeSnapshot;
use crate::tools::dmsetup;

use super::{CaptureError, Room, lvm, lvm_thin, mismatch, run};

/// How often a suspended device is looked at before it counts as left behind: other people's LVM commands
/// suspend devices for moments, too.
const LOOKS: usize = 4;

/// How long between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(700);

/// Resumes the devices of the promise that stay suspended.
pub(super) fn resume(room: Room<'_>, promised: &VolumeSnapshot) -> Result<(), CaptureError> {
    let mut stuck = suspended(room, promised)?;
    for _ in 1..LOOKS {
        if stuck.is_empty() {
            return Ok(());
        }
        room.host.pause(BETWEEN_LOOKS);
        let now = suspended(room, promised)?;
        stuck.retain(|name| now.contains(name));
    }
    for device in &stuck {
        run(room.host, &dmsetup::resume(device))?;
    }
    let left = suspended(room, promised)?;
    if room.host.is_dry() || left.is_empty() {
        return Ok(());
    }
    Err(mismatch(format!(
        "{} stayed suspended, so whatever writes to it hangs: try `dmsetup resume`",
        left.join(", ")
    )))
}

/// The suspended devices that the promise is about, those below before those above.
fn suspended(room: Room<'_>, promised: &VolumeSnapshot) -> Result<Vec<String>, CaptureError> {
    let listed = run(room.host, &dmsetup::suspended())?;
    let suspended = dmsetup::parse_suspended(&listed.stdout).map_err(mismatch)?;
    let device = |volume: &str| dmsetup::device_name(&promised.group, volume);
    let mut ours = Vec::new();
    if let Some(thin) = &promised.thin {
        for part in ["_tmeta", "_tdata"] {
            ours.push(device(&format!("{}{part}", thin.pool)));
        }
        ours.push(dmsetup::pool_name(&promised.group, &thin.pool));
        ours.push(device(&thin.pool));
    }
    for volume in [&promised.origin, &promised.name] {
        for part in ["-real", "-cow", ""] {
            ours.push(format!("{}{part}", device(volume)));
        }
    }
    Ok(ours.into_iter().filter(|name| suspended.contains(name)).collect())
}

/// Brings a thin pool back into step, where it is our own half-made snapshot that put it out of step.
pub(super) fn transaction(room: Room<'_>, promised: &VolumeSnapshot) -> Result<(), CaptureError> {
    let Some(thin) = &promised.thin else { return Ok(()) };
    let volumes = lvm::volumes(room)?;
    let Some(pool) = volumes.iter().find(|volume| volume.uuid == thin.pool_uuid) else {
        // The pool is gone, and everything that was in it.
        return Ok(());
    };
    if pool.device.is_none() {
        // Not active: the kernel cannot be asked, and nothing can be half-made in it before it is.
        return Ok(());
    }
    let kernel = lvm_thin::status(room, &promised.group, &pool.name)?.transaction_id;
    let Some(metadata) = pool.transaction_id.filter(|id| *id != kernel) else { return Ok(()) };
    let Some(half_made) = lvm::find(&volumes, promised, None) else {
        // LVM writes down a snapshot before it tells the kernel, so this one was never begun. Another one of
        // the same run may have put the pool out of step; its own promise heals that.
        return Ok(());
    };
    let ours = metadata == kernel + 1
        && kernel == thin.transaction_id
        && half_made.thin_id == Some(thin.device_id);
    if !ours {
        let name = format!("{}/{}", promised.group, pool.name);
        return Err(out_of_step(&name, Some(metadata), kernel));
    }
    let pool_device = dmsetup::pool_name(&promised.group, &pool.name);
    // It may not have come so far as to make the device; then there is none to forget, which is as good.
    match run(room.host, &dmsetup::delete_thin(&pool_device, thin.device_id)) {
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
