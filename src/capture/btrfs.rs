//! Read-only btrfs snapshots, in the top-level subvolume, where no source tree reaches.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::host::{Access, MountEntry};
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::model::undo::{Identity, SubvolumeSnapshot, Undo};
use crate::tools::btrfs::{self as tool, Subvolume};

use super::survey::{SNAPSHOT_PREFIX, Volume};
use super::{CaptureError, Made, Provider, Room, give_up_hint, mismatch, run, workplaces};

/// Snapshots of one subvolume.
#[derive(Debug)]
pub(super) struct Btrfs {
    /// The subvolume.
    pub volume: Volume,
    /// What an engine may do with the snapshot.
    pub access: Access,
}

impl Provider for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    /// Snapshots of btrfs do not disturb each other.
    fn lock_key(&self) -> Option<String> {
        None
    }

    fn promise(&self, room: Room<'_>, run: &RunId, earlier: &[Undo]) -> Result<Undo, CaptureError> {
        let Some(subvolume) = room.host.subvolume(&self.volume.at)? else {
            return Err(CaptureError::Gone { path: self.volume.at.clone() });
        };
        let origin = subvolume.uuid.ok_or_else(|| CaptureError::Unfit {
            what: format!("the subvolume at {} has no UUID", self.volume.at.shown()),
            hint: "its file system was made before Linux 3.12; read it live (capture = \"none\")"
                .into(),
        })?;
        let file_system = file_system_of(room, &self.volume.mount.at)?;
        Ok(Undo::RemoveSubvolume(SubvolumeSnapshot {
            file_system: Some(file_system),
            device: self.volume.mount.source.clone(),
            mounted_at: self.volume.mount.at.clone(),
            name: format!("{SNAPSHOT_PREFIX}{run}.{}", earlier.len()),
            origin,
        }))
    }

    fn make(&self, room: Room<'_>, promise: &Undo) -> Result<(), CaptureError> {
        let snapshot = promised(promise)?;
        let top = top(room);
        let spec = tool::snapshot(&snapshot.device, &top, &self.volume.at, &snapshot.name);
        run(room.host, &spec).map(|_| ())
    }

    fn look(&self, room: Room<'_>, promise: &Undo) -> Result<Made, CaptureError> {
        let snapshot = promised(promise)?;
        let identity = if room.host.is_dry() {
            None
        } else {
            let made = show(room, snapshot)?;
            if !made.read_only || made.parent_uuid.as_deref() != Some(&snapshot.origin) {
                return Err(mismatch(format!(
                    "{} is not a read-only snapshot of {}",
                    snapshot.name,
                    self.volume.at.shown()
                )));
            }
            let uuid =
                made.uuid.ok_or_else(|| mismatch(format!("{} has no UUID", snapshot.name)))?;
            Some(Identity::Subvolume { uuid })
        };
        Ok(Made {
            identity,
            mount: Some(tool::mount_of(
                &snapshot.device,
                &snapshot.name,
                &self.volume.at,
                self.access,
            )),
            about: format!("snapshot {} of {}", snapshot.name, self.volume.at.shown()),
        })
    }

    /// A snapshot of btrfs is as sound as its file system.
    fn examine(&self, _: Room<'_>, _: &Undo) -> Result<(), CaptureError> {
        Ok(())
    }

    fn is_watched(&self) -> bool {
        false
    }

    /// It takes space only as its origin changes, as any deleted file would that is still open.
    fn danger(&self, _: Room<'_>, _: &Undo) -> Result<Option<String>, CaptureError> {
        Ok(None)
    }
}

/// Where the commands see the top-level subvolume.
fn top(room: Room<'_>) -> PathBuf {
    let [_, part] = workplaces(room.settings);
    part
}

fn promised(promise: &Undo) -> Result<&SubvolumeSnapshot, CaptureError> {
    match promise {
        Undo::RemoveSubvolume(snapshot) => Ok(snapshot),
        _ => Err(mismatch("a btrfs snapshot was promised as something else")),
    }
}

fn show(room: Room<'_>, snapshot: &SubvolumeSnapshot) -> Result<Subvolume, CaptureError> {
    let spec = tool::show(&snapshot.device, &top(room), &snapshot.name);
    parse(&run(room.host, &spec)?.stdout)
}

/// The UUID of the file system that is mounted at a path, or lies on a device.
fn file_system_of(room: Room<'_>, place: &Path) -> Result<String, CaptureError> {
    let shown = run(room.host, &tool::show_file_system(place))?;
    tool::parse_file_system(&shown.stdout).map_err(mismatch)
}

/// A device by which the snapshot's file system can be reached now. Names of devices change over a reboot, and
/// another file system may be mounted in its place.
fn device_of(room: Room<'_>, snapshot: &SubvolumeSnapshot) -> Result<PathBuf, CaptureError> {
    let mounts = room.host.mounts()?;
    let mut mounts: Vec<&MountEntry> =
        mounts.iter().rev().filter(|entry| entry.file_system == "btrfs").collect();
    mounts.sort_by_key(|entry| entry.at != snapshot.mounted_at);
    let Some(wanted) = &snapshot.file_system else {
        // A ledger of a version that did not write it down.
        let found = mounts.iter().find(|entry| entry.at == snapshot.mounted_at);
        return Ok(found.map_or(&snapshot.device, |entry| &entry.source).clone());
    };
    let mut seen = BTreeSet::new();
    for entry in mounts {
        // One that is hidden or not answering is not the one; another mount of it, or the device, may be.
        if seen.insert(&entry.source)
            && file_system_of(room, &entry.at).is_ok_and(|found| found == *wanted)
        {
            return Ok(entry.source.clone());
        }
    }
    if file_system_of(room, &snapshot.device).is_ok_and(|found| found == *wanted) {
        return Ok(snapshot.device.clone());
    }
    Err(CaptureError::Unfit {
        what: format!(
            "the btrfs {wanted}, once at {}, is not here, and {} is still in it",
            snapshot.mounted_at.shown(),
            snapshot.name
        ),
        hint: give_up_hint(room, "mount it and run `stillpoint recover`"),
    })
}

fn parse(shown: &[u8]) -> Result<Subvolume, CaptureError> {
    tool::parse_show(shown).map_err(mismatch)
}

/// Deletes a snapshot if it is the one that was made.
pub(super) fn remove(
    room: Room<'_>,
    snapshot: &SubvolumeSnapshot,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    let mut snapshot = snapshot.clone();
    snapshot.device = device_of(room, &snapshot)?;
    let top = top(room);
    let delete = tool::delete(&snapshot.device, &top, &snapshot.name);
    if room.host.is_dry() {
        return run(room.host, &delete).map(|_| ());
    }
    if !exists(room, &snapshot)? {
        return Ok(());
    }
    let found = show(room, &snapshot)?;
    let is_ours = match identity {
        Some(Identity::Subvolume { uuid }) => found.uuid.as_ref() == Some(uuid),
        // The crash came between making it and noting its UUID. The name holds a random number that was
        // written down before.
        None => found.read_only && found.parent_uuid.as_deref() == Some(&snapshot.origin),
        Some(_) => false,
    };
    if !is_ours {
        return Err(CaptureError::NotOurs { what: format!("the subvolume {}", snapshot.name) });
    }
    run(room.host, &delete)?;
    if exists(room, &snapshot)? {
        return Err(mismatch(format!("{} is still there after it was deleted", snapshot.name)));
    }
    Ok(())
}

/// Whether there is a subvolume of this name in the top-level subvolume.
fn exists(room: Room<'_>, snapshot: &SubvolumeSnapshot) -> Result<bool, CaptureError> {
    let listed = run(room.host, &tool::list(&snapshot.device, &top(room)))?;
    let line_end = format!(" path {}", snapshot.name);
    Ok(String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.ends_with(&line_end)))
}
