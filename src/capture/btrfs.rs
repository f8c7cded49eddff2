//! Read-only btrfs snapshots, in the top-level subvolume, where no source tree reaches.
//!
//! A subvolume is known by its number and UUID from the survey on. Its owner may rename it, delete it, or put
//! something else in its place at any moment: a snapshot is then of the one that was found, or there is none. So
//! whatever a crash left under the name that an intent holds is a read-only snapshot of the intended origin, or
//! it is somebody else's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::host::{ActError, Action, MountEntry, Subvolume, SubvolumeAction, device_of_btrfs};
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::model::undo::{CaptureUndo, Identity, SubvolumeSnapshot};

use super::offer::{Choice, Wanted};
use super::releasable::Releasable;
use super::survey::{SNAPSHOT_PREFIX, Volume};
use super::{Capture, CaptureError, Context, Made, Provider, Still, give_up_hint, mismatch};

/// Snapshots of one subvolume.
#[derive(Debug)]
struct Btrfs {
    /// Where it was found, and which one.
    volume: Volume,
}

/// What holds a subvolume still that is known to be one.
pub fn of_subvolume(volume: &Volume) -> Box<dyn Provider> {
    Box::new(Btrfs { volume: volume.clone() })
}

/// Offers to hold a subvolume still.
pub(super) fn offer(wanted: &Wanted<'_>) -> Option<Choice> {
    let volume = wanted.volume.filter(|volume| volume.mount.file_system == "btrfs")?;
    let at = volume.at.shown();
    Some(match (&volume.swap_file, volume.is_subvolume) {
        (Some(swap), _) => Choice::Live(swapped_to(&volume.at, swap)),
        (None, false) => Choice::Live(format!(
            "{at} shows a directory inside a subvolume, of which btrfs makes no snapshot"
        )),
        (None, true) => Choice::Held(of_subvolume(volume)),
    })
}

/// Why there is no snapshot of a subvolume that the kernel swaps to.
pub fn swapped_to(at: &Path, swap: &Path) -> String {
    format!(
        "btrfs makes no snapshot of {at} while the swap file {0} in it is in use: move it into a subvolume of its own, or switch it off meanwhile (before = [[\"swapoff\", \"{0}\"]], finally = [[\"swapon\", \"{0}\"]])",
        swap.shown(),
        at = at.shown()
    )
}

impl Provider for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    /// Snapshots of btrfs do not disturb each other.
    fn lock_key(&self) -> Option<String> {
        None
    }

    fn intend(
        &self,
        cx: Context<'_>,
        run: &RunId,
        earlier: &[CaptureUndo],
    ) -> Result<Box<dyn Capture>, CaptureError> {
        let at = &self.volume.at;
        let found = self.volume.subvolume.clone().ok_or_else(|| gone(at))?;
        let origin = found.uuid.clone().ok_or_else(|| CaptureError::Unfit {
            what: format!("the subvolume at {} has no UUID", at.shown()),
            hint: "its file system was made before Linux 3.12; read it live (capture = \"none\")"
                .into(),
        })?;
        let device = self.volume.mount.source.clone();
        let snapshot = SubvolumeSnapshot {
            file_system: Some(found.file_system.clone()),
            name: free_name(cx, &device, run, earlier),
            device,
            mounted_at: self.volume.mount.at.clone(),
            origin,
        };
        Ok(Box::new(Intended { at: at.clone(), found, snapshot }))
    }
}

/// A name that no snapshot has or is to have: those that an earlier job of the run made may be there still, and stay.
fn free_name(cx: Context<'_>, device: &Path, run: &RunId, earlier: &[CaptureUndo]) -> String {
    let is_taken = |name: &str| {
        let mut intended = earlier.iter().filter_map(CaptureUndo::subvolume);
        let is_intended = intended.any(|snapshot| snapshot.name == name);
        // Where that cannot be told, to make it tells it.
        is_intended || matches!(cx.host.subvolume_on(device, name.as_ref()), Ok(Some(_)))
    };
    let mut number = earlier.len();
    loop {
        let name = format!("{SNAPSHOT_PREFIX}{run}.{number}");
        if !is_taken(&name) {
            return name;
        }
        number += 1;
    }
}

/// A snapshot, from the intent on.
struct Intended {
    /// Where its origin was found.
    at: PathBuf,
    /// The subvolume that it is a snapshot of.
    found: Subvolume,
    snapshot: SubvolumeSnapshot,
}

impl Capture for Intended {
    fn undo(&self) -> CaptureUndo {
        self.snapshot.clone().into()
    }

    fn make(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        let made = cx.host.act(&Action::Subvolume(SubvolumeAction::MakeSnapshot {
            device: self.snapshot.device.clone(),
            origin: self.found.clone(),
            path: self.at.clone(),
            name: self.snapshot.name.clone(),
        }));
        match made {
            Ok(_) => Ok(()),
            Err(ActError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(gone(&self.at))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn verify(&self, cx: Context<'_>) -> Result<Made, CaptureError> {
        let SubvolumeSnapshot { device, name, .. } = &self.snapshot;
        let made = cx
            .host
            .subvolume_on(device, name.as_ref())?
            .filter(|made| is_of(made, &self.snapshot))
            .ok_or_else(|| {
                mismatch(format!("{name} is not a read-only snapshot of {}", self.at.shown()))
            })?;
        let uuid = made.uuid.clone().ok_or_else(|| mismatch(format!("{name} has no UUID")))?;
        Ok(Made {
            still: Still::Subvolume { device: device.clone(), name: name.clone(), found: made },
            identity: Some(Identity::Subvolume { uuid }),
            about: format!("snapshot {name} of {}", self.at.shown()),
        })
    }

    /// A snapshot of btrfs is as sound as its file system, and takes space only as its origin changes, as any deleted
    /// file would that is still open.
    fn still_holds(&self, _: Context<'_>) -> Result<(), CaptureError> {
        Ok(())
    }
}

fn gone(at: &Path) -> CaptureError {
    CaptureError::Gone { path: at.to_owned() }
}

impl Releasable for SubvolumeSnapshot {
    fn release(&self, cx: Context<'_>, identity: Option<&Identity>) -> Result<(), CaptureError> {
        remove(cx, &[(self, identity)])?.into_iter().collect()
    }

    fn still(&self, cx: Context<'_>, identity: &Identity) -> Result<Option<Still>, CaptureError> {
        let device = device_of(cx, &cx.host.mounts()?, self).map_err(of_what_is_kept)?;
        let found = cx.host.subvolume_on(&device, self.name.as_ref())?;
        let found = found.filter(|found| is_identical(found, identity));
        let name = self.name.clone();
        Ok(found.map(|found| Still::Subvolume { device, name, found }))
    }

    fn snapshot(&self) -> Option<&SubvolumeSnapshot> {
        Some(self)
    }
}

/// No ledger holds what is kept.
fn of_what_is_kept(error: CaptureError) -> CaptureError {
    match error {
        CaptureError::Unfit { what, .. } => {
            let hint = "mount it; until then what is kept there can be neither used nor released";
            CaptureError::Unfit { what, hint: hint.into() }
        }
        error => error,
    }
}

/// Whether a subvolume is what was intended. The name, which holds a random number that was written down
/// before, is not enough: it can be read in the ledger of a run or in the list of subvolumes.
fn is_of(found: &Subvolume, intended: &SubvolumeSnapshot) -> bool {
    found.read_only && found.parent_uuid.as_deref() == Some(&intended.origin)
}

/// Whether a subvolume is the one that was made.
pub(super) fn is_identical(found: &Subvolume, identity: &Identity) -> bool {
    match identity {
        Identity::Subvolume { uuid } => found.uuid.as_ref() == Some(uuid),
        Identity::Inode { .. }
        | Identity::Directory { .. }
        | Identity::LogicalVolume { .. }
        | Identity::Mount { .. } => false,
    }
}

/// A device by which the snapshot's file system can be reached now.
fn device_of(
    cx: Context<'_>,
    mounts: &[MountEntry],
    snapshot: &SubvolumeSnapshot,
) -> Result<PathBuf, CaptureError> {
    let at = snapshot.mounted_at.as_path();
    let Some(wanted) = &snapshot.file_system else {
        // A ledger of a version that did not write it down.
        let found = mounts.iter().rfind(|entry| entry.file_system == "btrfs" && entry.at == at);
        return Ok(found.map_or(&snapshot.device, |entry| &entry.source).clone());
    };
    let found = device_of_btrfs(cx.host, mounts, wanted, Some(at), &snapshot.device);
    found.ok_or_else(|| CaptureError::Unfit {
        what: format!(
            "the btrfs {wanted}, once at {}, is not here, and {} is still in it",
            at.shown(),
            snapshot.name
        ),
        hint: give_up_hint(cx, "mount it and run `stillpoint recover`"),
    })
}

/// Deletes each snapshot that is the one that was made, and answers for each. They are gone for good, and so are
/// those that were not there any more: a run that was killed may have deleted them just before a power cut. To wait
/// for the disk is most of the work, and is done once.
///
/// # Errors
/// When nothing can be said of any of them.
pub(super) fn remove(
    cx: Context<'_>,
    snapshots: &[(&SubvolumeSnapshot, Option<&Identity>)],
) -> Result<Vec<Result<(), CaptureError>>, CaptureError> {
    let mounts = cx.host.mounts()?;
    let mut touched = BTreeSet::new();
    let mut removed = Vec::new();
    for (snapshot, identity) in snapshots {
        removed.push(device_of(cx, &mounts, snapshot).and_then(|device| {
            remove_one(cx, &device, snapshot, *identity)?;
            touched.insert((device, snapshot.file_system.clone()));
            Ok(())
        }));
    }
    for (device, file_system) in touched {
        cx.host
            .act(&Action::Subvolume(SubvolumeAction::CommitDeletions { device, file_system }))?;
    }
    Ok(removed)
}

fn remove_one(
    cx: Context<'_>,
    device: &Path,
    snapshot: &SubvolumeSnapshot,
    identity: Option<&Identity>,
) -> Result<(), CaptureError> {
    let (device, name) = (device.to_owned(), PathBuf::from(&snapshot.name));
    let Some(found) = cx.host.subvolume_on(&device, &name)? else { return Ok(()) };
    let is_ours = match identity {
        Some(identity) => is_identical(&found, identity),
        // The crash came between making it and noting its UUID.
        None => is_of(&found, snapshot),
    };
    if !is_ours {
        return Err(CaptureError::NotOurs { what: format!("the subvolume {}", snapshot.name) });
    }
    cx.host.act(&Action::Subvolume(SubvolumeAction::DeleteSnapshot { device, name, found }))?;
    Ok(())
}
