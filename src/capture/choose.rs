//! Which provider holds which volume still.

use crate::host::{Access, MountEntry};
use crate::model::job::CapturePolicy;
use crate::model::shown::Show;
use crate::tools::lvm::{self, LogicalVolume};

use super::btrfs::Btrfs;
use super::lvm_classic::LvmClassic;
use super::lvm_thin::LvmThin;
use super::remount_readonly::RemountReadonly;
use super::survey::Volume;
use super::{CaptureError, Provider, Room, is_at_or_below, lvm_seen};

/// How one volume is read.
pub enum Choice {
    /// Held still by this provider.
    Held(Box<dyn Provider + Send + Sync>),
    /// It cannot change: its file system is read-only, and nobody else has it.
    Still,
    /// Live, because the configuration says so.
    LiveByWish,
    /// Live, because nothing can hold it still; the reason is for people.
    Live(String),
}

/// Chooses for every volume, in the same order. `programs` are what engines are started from: a volume that
/// holds one of them must let it be executed.
///
/// # Errors
/// When LVM cannot be asked although something is mounted from it.
pub fn choose(
    room: Room<'_>,
    policy: &CapturePolicy,
    volumes: &[Volume],
    programs: &[std::path::PathBuf],
) -> Result<Vec<Choice>, CaptureError> {
    let mapper = mapper_major(room);
    let on_mapper = |mount: &MountEntry| mapper == Some(mount.device.0);
    let wants_lvm =
        |volume: &&Volume| on_mapper(&volume.mount) && !is_at_or_below(&volume.at, &policy.live);
    let lvm_is_here = room.host.find_program(&lvm::list().tool).is_ok();
    let logical = if lvm_is_here && volumes.iter().find(wants_lvm).is_some() {
        lvm_seen::volumes(room)?
    } else {
        Vec::new()
    };
    Ok(volumes
        .iter()
        .map(|volume| {
            let access = access(volume, programs);
            choice(policy, volume, access, &logical, on_mapper(&volume.mount), lvm_is_here)
        })
        .collect())
}

fn choice(
    policy: &CapturePolicy,
    volume: &Volume,
    access: Access,
    logical: &[LogicalVolume],
    on_mapper: bool,
    lvm_is_here: bool,
) -> Choice {
    let mount = &volume.mount;
    if is_at_or_below(&volume.at, &policy.live) {
        return Choice::LiveByWish;
    }
    let at = volume.at.shown();
    // That it is read-only here says nothing of those who write to it there.
    if mount.is_changed_elsewhere() {
        return Choice::Live(format!(
            "nothing here can hold {at} still: what stands behind it ({} on {}) may change it at any time",
            mount.file_system,
            mount.source.shown()
        ));
    }
    if mount.is_frozen_read_only() {
        return Choice::Still;
    }
    // One file system of btrfs is mounted in many places, and a snapshot stops nobody.
    if policy.remount_readonly.contains(&mount.at) && mount.file_system != "btrfs" {
        return Choice::Held(Box::new(RemountReadonly { volume: volume.clone() }));
    }
    if mount.file_system == "btrfs" {
        return match (&volume.swap_file, volume.is_subvolume) {
            (Some(swap), _) => Choice::Live(format!(
                "btrfs makes no snapshot of {at} while the swap file {0} in it is in use: move it into a subvolume of its own, or switch it off meanwhile (before = [[\"swapoff\", \"{0}\"]], finally = [[\"swapon\", \"{0}\"]])",
                swap.shown()
            )),
            (None, false) => Choice::Live(format!(
                "{at} shows a directory inside a subvolume, of which btrfs makes no snapshot"
            )),
            (None, true) => Choice::Held(Box::new(Btrfs { volume: volume.clone(), access })),
        };
    }
    let origin = logical.iter().find(|origin| origin.device == Some(mount.device));
    match origin {
        Some(origin) if origin.segment_type == "thin" => Choice::Held(Box::new(LvmThin {
            volume: volume.clone(),
            origin: origin.clone(),
            limits: policy.thin,
            access,
        })),
        Some(origin) if takes_classic_snapshots(origin) => Choice::Held(Box::new(LvmClassic {
            volume: volume.clone(),
            origin: origin.clone(),
            size: policy.classic_size,
            access,
        })),
        Some(origin) => Choice::Live(format!(
            "{at} is on {}/{}, an LVM volume of type {}, of which no snapshot is made",
            origin.group, origin.name, origin.segment_type
        )),
        None if on_mapper && !lvm_is_here => {
            Choice::Live(format!("{at} is on {}, and lvm2 is not installed", mount.source.shown()))
        }
        None => Choice::Live(format!(
            "nothing can hold {at} still ({} on {})",
            mount.file_system,
            mount.source.shown()
        )),
    }
}

/// What `lvcreate --snapshot --size` takes (lvmthin(7), lvcreate(8)); a snapshot is no origin.
fn takes_classic_snapshots(volume: &LogicalVolume) -> bool {
    let kind = volume.segment_type.as_str();
    (kind == "linear" || kind == "striped" || kind == "mirror" || kind.starts_with("raid"))
        && !matches!(volume.attributes.as_bytes().first(), Some(b's' | b'S'))
}

/// What an engine may do with the view of a volume: where its own program, an interpreter or a library may
/// lie, it has to execute.
fn access(volume: &Volume, programs: &[std::path::PathBuf]) -> Access {
    const SYSTEM: &[&str] =
        &["/bin", "/lib", "/lib32", "/lib64", "/nix", "/opt", "/sbin", "/usr", "/usr/local"];
    let at = &volume.at;
    let holds = |path: &std::path::Path| path.starts_with(at);
    if SYSTEM.iter().any(|path| holds(path.as_ref()) || at.starts_with(path))
        || programs.iter().any(|path| holds(path))
    {
        Access::ReadAndExecute
    } else {
        Access::Read
    }
}

/// The major number of device-mapper's devices, from `/proc/devices` (proc(5)).
fn mapper_major(room: Room<'_>) -> Option<u32> {
    let table = room.host.read("/proc/devices".as_ref()).ok()?;
    String::from_utf8_lossy(&table).lines().find_map(|line| {
        let (major, name) = line.trim().split_once(' ')?;
        (name == "device-mapper").then(|| major.parse().ok())?
    })
}
