//! Read-only btrfs snapshots, in the top-level subvolume, where no source tree reaches.
//!
//! A subvolume is known by its number and UUID from the survey on. Its owner may rename it, delete it, or put
//! something else in its place at any moment: a snapshot is then of the one that was found, or there is none. So
//! whatever a crash left under the name that a promise holds is a read-only snapshot of the promised origin, or
//! it is somebody else's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::host::{Access, ActError, Action, MountEntry, PrivateMount, Subvolume};
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::model::undo::{Identity, SubvolumeSnapshot, Undo};

use super::survey::{SNAPSHOT_PREFIX, Volume};
use super::{CaptureError, Made, Provider, Room, give_up_hint, mismatch};

/// Snapshots of one subvolume.
#[derive(Debug)]
pub(super) struct Btrfs {
    /// Where it was found, and which one.
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

    fn promise(&self, _: Room<'_>, run: &RunId, earlier: &[Undo]) -> Result<Undo, CaptureError> {
        let found = self.found()?;
        let origin = found.uuid.clone().ok_or_else(|| CaptureError::Unfit {
            what: format!("the subvolume at {} has no UUID", self.volume.at.shown()),
            hint: "its file system was made before Linux 3.12; read it live (capture = \"none\")"
                .into(),
        })?;
        Ok(Undo::RemoveSubvolume(SubvolumeSnapshot {
            file_system: Some(found.file_system.clone()),
            device: self.volume.mount.source.clone(),
            mounted_at: self.volume.mount.at.clone(),
            name: format!("{SNAPSHOT_PREFIX}{run}.{}", earlier.len()),
            origin,
        }))
    }

    fn make(&self, room: Room<'_>, promise: &Undo) -> Result<(), CaptureError> {
        let snapshot = promised(promise)?;
        let made = room.host.act(&Action::MakeSnapshot {
            device: snapshot.device.clone(),
            origin: self.found()?.clone(),
            path: self.volume.at.clone(),
            name: snapshot.name.clone(),
        });
        match made {
            Ok(_) => Ok(()),
            Err(ActError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(self.gone())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn look(&self, room: Room<'_>, promise: &Undo) -> Result<Made, CaptureError> {
        let snapshot = promised(promise)?;
        let made = room
            .host
            .subvolume_on(&snapshot.device, &snapshot.name)?
            .filter(|made| is_of(made, snapshot))
            .ok_or_else(|| {
                mismatch(format!(
                    "{} is not a read-only snapshot of {}",
                    snapshot.name,
                    self.volume.at.shown()
                ))
            })?;
        let uuid = made.uuid.ok_or_else(|| mismatch(format!("{} has no UUID", snapshot.name)))?;
        let identity = Some(Identity::Subvolume { uuid });
        // Not by its name, behind which another one may be by then; in a plan there is nothing else.
        let options = match made.id {
            Some(id) => format!("subvolid={id}"),
            None => format!("subvol=/{}", snapshot.name),
        };
        Ok(Made {
            identity,
            mount: Some(PrivateMount::Device {
                device: snapshot.device.clone(),
                at: self.volume.at.clone(),
                file_system: "btrfs".into(),
                options,
                directory: None,
                access: self.access,
            }),
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

impl Btrfs {
    /// The subvolume that the survey found.
    fn found(&self) -> Result<&Subvolume, CaptureError> {
        self.volume.subvolume.as_ref().ok_or_else(|| self.gone())
    }

    fn gone(&self) -> CaptureError {
        CaptureError::Gone { path: self.volume.at.clone() }
    }
}

/// Whether a subvolume is what the promise describes. The name, which holds a random number that was written down
/// before, is not enough: it can be read in the ledger of a run or in the list of subvolumes.
fn is_of(found: &Subvolume, promised: &SubvolumeSnapshot) -> bool {
    found.read_only && found.parent_uuid.as_deref() == Some(&promised.origin)
}

fn promised(promise: &Undo) -> Result<&SubvolumeSnapshot, CaptureError> {
    let Undo::RemoveSubvolume(snapshot) = promise else {
        return Err(mismatch("a btrfs snapshot was promised as something else"));
    };
    Ok(snapshot)
}

/// A device by which the snapshot's file system can be reached now. Names of devices change over a reboot, and
/// another file system may be mounted in its place.
fn device_of(
    room: Room<'_>,
    mounts: &[MountEntry],
    snapshot: &SubvolumeSnapshot,
) -> Result<PathBuf, CaptureError> {
    let mut mounts: Vec<&MountEntry> =
        mounts.iter().rev().filter(|entry| entry.file_system == "btrfs").collect();
    mounts.sort_by_key(|entry| entry.at != snapshot.mounted_at);
    let Some(wanted) = &snapshot.file_system else {
        // A ledger of a version that did not write it down.
        let found = mounts.iter().find(|entry| entry.at == snapshot.mounted_at);
        return Ok(found.map_or(&snapshot.device, |entry| &entry.source).clone());
    };
    let sources = mounts.iter().map(|entry| &entry.source).chain([&snapshot.device]);
    for device in sources {
        // One that does not answer is not the one; another device of it may be.
        if room.host.btrfs_on(device).is_ok_and(|found| found.as_ref() == Some(wanted)) {
            return Ok(device.clone());
        }
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

/// Deletes each snapshot that is the one that was made, and answers for each. They are gone for good, and so are
/// those that were not there any more: a run that was killed may have deleted them just before a power cut. To wait
/// for the disk is most of the work, and is done once.
///
/// # Errors
/// When nothing can be said of any of them.
pub(super) fn remove(
    room: Room<'_>,
    snapshots: &[(&SubvolumeSnapshot, Option<&Identity>)],
) -> Result<Vec<Result<(), CaptureError>>, CaptureError> {
    let mounts = room.host.mounts()?;
    let mut touched = BTreeSet::new();
    let mut removed = Vec::new();
    for (snapshot, identity) in snapshots {
        removed.push(device_of(room, &mounts, snapshot).and_then(|device| {
            remove_one(room, &device, snapshot, *identity)?;
            touched.insert((device, snapshot.file_system.clone()));
            Ok(())
        }));
    }
    for (device, file_system) in touched {
        room.host.act(&Action::CommitDeletions { device, file_system })?;
    }
    Ok(removed)
}

fn remove_one(
    room: Room<'_>,
    device: &Path,
    snapshot: &SubvolumeSnapshot,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    let (device, name) = (device.to_owned(), snapshot.name.clone());
    let Some(found) = room.host.subvolume_on(&device, &name)? else { return Ok(()) };
    let is_ours = match identity {
        Some(Identity::Subvolume { uuid }) => found.uuid.as_ref() == Some(uuid),
        // The crash came between making it and noting its UUID.
        None => is_of(&found, snapshot),
        Some(Identity::Inode { .. } | Identity::LogicalVolume { .. } | Identity::Mount { .. }) => {
            false
        }
    };
    if !is_ours {
        return Err(CaptureError::NotOurs { what: format!("the subvolume {name}") });
    }
    room.host.act(&Action::DeleteSnapshot { device, name, found })?;
    Ok(())
}
