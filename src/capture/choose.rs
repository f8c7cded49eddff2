//! Which provider holds what still.

use std::path::Path;

use crate::host::MountEntry;
use crate::model::job::CapturePolicy;
use crate::model::shown::Show;
use crate::tools::dmsetup;
use crate::tools::lvm::{self as tool, LogicalVolume};

use super::kinds::OFFERS;
use super::offer::{Choice, Wanted};
use super::survey::Volume;
use super::{CaptureError, Context, is_at_or_below, lvm_seen};

/// Chooses for every volume, in the same order.
///
/// # Errors
/// When LVM cannot be asked although something is mounted from it.
pub fn choose(
    cx: Context<'_>,
    policy: &CapturePolicy,
    volumes: &[Volume],
) -> Result<Vec<Choice>, CaptureError> {
    let mapper = mapper_major(cx);
    let on_mapper = |mount: &MountEntry| mapper == Some(mount.device.0);
    let wants_lvm =
        |volume: &&Volume| on_mapper(&volume.mount) && !is_at_or_below(&volume.at, &policy.live);
    let lvm_is_here = cx.host.find_program(&tool::list().tool).is_ok();
    let logical = if lvm_is_here && volumes.iter().find(wants_lvm).is_some() {
        lvm_seen::volumes(cx)?
    } else {
        Vec::new()
    };
    let choice = |volume: &Volume| {
        let device = Some(volume.mount.device);
        let logical = logical.iter().find(|origin| origin.device == device);
        let wanted = Wanted { at: &volume.at, volume: Some(volume), logical, policy };
        by_mount(&wanted, &volume.mount).unwrap_or_else(|| {
            let (at, source) = (volume.at.shown(), volume.mount.source.shown());
            Choice::Live(match on_mapper(&volume.mount) && !lvm_is_here {
                true => format!("{at} is on {source}, and lvm2 is not installed"),
                false => {
                    let file_system = &volume.mount.file_system;
                    format!("nothing can hold {at} still ({file_system} on {source})")
                }
            })
        })
    };
    Ok(volumes.iter().map(choice).collect())
}

/// Chooses for what is mounted, if there is a choice.
fn by_mount(wanted: &Wanted<'_>, mount: &MountEntry) -> Option<Choice> {
    if is_at_or_below(wanted.at, &wanted.policy.live) {
        return Some(Choice::LiveByWish);
    }
    // That it is read-only here says nothing of those who write to it there.
    if mount.is_changed_elsewhere() {
        return Some(Choice::Live(format!(
            "nothing here can hold {} still: what stands behind it ({} on {}) may change it at any time",
            wanted.at.shown(),
            mount.file_system,
            mount.source.shown()
        )));
    }
    if mount.is_frozen_read_only() {
        return Some(Choice::Still);
    }
    offered(wanted)
}

/// Chooses for a block device, which is an LVM volume by any of its names: `GROUP/NAME`, `/dev/GROUP/NAME`,
/// `/dev/mapper/…`.
///
/// # Errors
/// When LVM cannot be asked.
pub fn choose_device(
    cx: Context<'_>,
    policy: &CapturePolicy,
    device: &Path,
) -> Result<Choice, CaptureError> {
    let volumes = lvm_seen::volumes(cx)?;
    let logical = volumes.iter().find(|volume| is_named(volume, device));
    let wanted = Wanted { at: device, volume: None, logical, policy };
    Ok(offered(&wanted).unwrap_or_else(|| {
        Choice::Live(format!("nothing can hold {} still: it is no LVM volume", device.shown()))
    }))
}

fn offered(wanted: &Wanted<'_>) -> Option<Choice> {
    OFFERS.iter().find_map(|offer| offer(wanted))
}

/// Whether a volume has this name.
fn is_named(volume: &LogicalVolume, name: &Path) -> bool {
    let LogicalVolume { group, name: own, .. } = volume;
    let mapped = dmsetup::device_name(group, own);
    name == Path::new(&format!("{group}/{own}"))
        || name == Path::new(&format!("/dev/{group}/{own}"))
        || name == Path::new(&format!("/dev/mapper/{mapped}"))
}

/// The major number of device-mapper's devices, from `/proc/devices` (proc(5)).
fn mapper_major(cx: Context<'_>) -> Option<u32> {
    let table = cx.host.read("/proc/devices".as_ref()).ok()?;
    String::from_utf8_lossy(&table).lines().find_map(|line| {
        let (major, name) = line.trim().split_once(' ')?;
        (name == "device-mapper").then(|| major.parse().ok())?
    })
}
