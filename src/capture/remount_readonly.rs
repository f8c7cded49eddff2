//! Plain file systems that cannot be captured, made read-only while they are read (`/boot`).
//!
//! The super options say whether nobody can write; a mount that is `ro` by itself says nothing of the others.

use std::io::ErrorKind;
use std::path::Path;

use crate::host::{ActError, Action, MountEntry};
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::model::undo::Undo;

use super::survey::Volume;
use super::{CaptureError, Made, Provider, Room, mismatch};

/// One mounted file system.
#[derive(Debug)]
pub(super) struct RemountReadonly {
    /// Which.
    pub volume: Volume,
}

impl Provider for RemountReadonly {
    fn name(&self) -> &'static str {
        "remount-readonly"
    }

    fn lock_key(&self) -> Option<String> {
        Some(lock_key(self.volume.mount.device))
    }

    /// Two runs cannot both give back what one of them took.
    fn is_exclusive(&self) -> bool {
        true
    }

    fn promise(&self, room: Room<'_>, _: &RunId, _: &[Undo]) -> Result<Undo, CaptureError> {
        Ok(Undo::RemountWritable {
            path: self.volume.mount.at.clone(),
            device: self.volume.mount.device,
            boot_id: room.host.boot_id()?,
        })
    }

    fn make(&self, room: Room<'_>, promise: &Undo) -> Result<(), CaptureError> {
        let (path, device) = promised(promise)?;
        let remount = Action::Remount { path: path.to_owned(), device, read_only: true };
        match room.host.act(&remount) {
            Ok(_) => Ok(()),
            Err(ActError::Io { source, .. }) if source.kind() == ErrorKind::ResourceBusy => {
                Err(CaptureError::Unfit {
                    what: format!(
                        "{} cannot be made read-only: something writes to it or has a file open for writing",
                        path.shown()
                    ),
                    hint: format!(
                        "see what with `fuser -vm {0}`, stop it in the hook before, or name {0} in live instead",
                        path.shown()
                    ),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn look(&self, room: Room<'_>, promise: &Undo) -> Result<Made, CaptureError> {
        self.examine(room, promise)?;
        let about = format!("{} is read-only", self.volume.mount.at.shown());
        Ok(Made { identity: None, mount: None, about })
    }

    fn examine(&self, room: Room<'_>, promise: &Undo) -> Result<(), CaptureError> {
        let (path, device) = promised(promise)?;
        let mounts = room.host.mounts()?;
        let found = mounts.iter().rfind(|entry| entry.at == path && entry.device == device);
        if found.is_some_and(|entry| entry.is_frozen_read_only()) {
            return Ok(());
        }
        Err(CaptureError::Broken {
            what: format!("{} did not stay read-only while it was read", path.shown()),
            hint: "see who remounted or unmounted it; the next run reads it again".into(),
        })
    }

    fn is_watched(&self) -> bool {
        false
    }

    fn danger(&self, _: Room<'_>, _: &Undo) -> Result<Option<String>, CaptureError> {
        Ok(None)
    }
}

/// What was promised to be made writable again.
fn promised(promise: &Undo) -> Result<(&Path, (u32, u32)), CaptureError> {
    let Undo::RemountWritable { path, device, .. } = promise else {
        return Err(mismatch("a remount was promised as something else"));
    };
    Ok((path, *device))
}

/// Whether file systems that were found read-only, and so were not captured, are so after reading: another
/// run may have made them read-only for its own reading.
///
/// # Errors
/// When one is not: it was read live, at least in part.
pub fn stayed_read_only(room: Room<'_>, found: &[MountEntry]) -> Result<(), CaptureError> {
    if found.is_empty() {
        return Ok(());
    }
    let mounts = room.host.mounts()?;
    for was in found {
        let now = mounts.iter().rfind(|now| now.at == was.at);
        if !now.is_some_and(|now| now.device == was.device && now.is_frozen_read_only()) {
            return Err(CaptureError::Broken {
                what: format!("{} was read-only, and no longer is after reading", was.at.shown()),
                hint: "if another job makes it read-only, run this one again".into(),
            });
        }
    }
    Ok(())
}

/// The lock of one file system.
pub(super) fn lock_key((major, minor): (u32, u32)) -> String {
    format!("remount-{major}-{minor}")
}

/// Makes it writable again, if it is still the one.
pub(super) fn undo(
    room: Room<'_>,
    path: &Path,
    device: (u32, u32),
    boot: &str,
) -> Result<(), CaptureError> {
    if boot != room.host.boot_id()? {
        return Ok(());
    }
    room.host.act(&Action::Remount { path: path.to_owned(), device, read_only: false })?;
    Ok(())
}
