//! Plain file systems that cannot be captured, made read-only while they are read (`/boot`).
//!
//! The super options say whether nobody can write; a mount that is `ro` by itself says nothing of the others.

use std::io::ErrorKind;
use std::time::Duration;

use crate::host::{ActError, Action, MountEntry};
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::model::undo::{CaptureUndo, Identity, ReadOnlyMount};

use super::offer::{Choice, Wanted};
use super::releasable::Releasable;
use super::{Capture, CaptureError, Context, Made, Provider, Still};

/// One mounted file system.
#[derive(Debug)]
struct RemountReadonly {
    mount: MountEntry,
}

/// Offers to hold a file system still that the configuration names. One of btrfs is mounted in many places, and a
/// snapshot stops nobody.
pub(super) fn offer(wanted: &Wanted<'_>) -> Option<Choice> {
    let mount = &wanted.volume?.mount;
    let is_named = wanted.policy.remount_readonly.contains(&mount.at);
    (is_named && mount.file_system != "btrfs")
        .then(|| Choice::Held(Box::new(RemountReadonly { mount: mount.clone() })))
}

impl Provider for RemountReadonly {
    fn name(&self) -> &'static str {
        "remount-readonly"
    }

    fn lock_key(&self) -> Option<String> {
        Some(lock_key(self.mount.device))
    }

    /// Two runs cannot both release what one of them took.
    fn is_exclusive(&self) -> bool {
        true
    }

    fn intend(
        &self,
        cx: Context<'_>,
        _: &RunId,
        _: &[CaptureUndo],
    ) -> Result<Box<dyn Capture>, CaptureError> {
        let MountEntry { at, device, .. } = &self.mount;
        let mount =
            ReadOnlyMount { path: at.clone(), device: *device, boot_id: cx.host.boot_id()? };
        Ok(Box::new(Intended { mount }))
    }
}

/// A remount, from the intent on.
struct Intended {
    mount: ReadOnlyMount,
}

impl Capture for Intended {
    fn undo(&self) -> CaptureUndo {
        self.mount.clone().into()
    }

    fn make(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        let ReadOnlyMount { path, device, .. } = &self.mount;
        let remount = Action::Remount { path: path.clone(), device: *device, read_only: true };
        match cx.host.act(&remount) {
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

    fn verify(&self, cx: Context<'_>) -> Result<Made, CaptureError> {
        self.still_holds(cx)?;
        let path = &self.mount.path;
        let about = format!("{} is read-only", path.shown());
        Ok(Made { still: Still::Path(path.clone()), identity: None, about })
    }

    fn still_holds(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        let ReadOnlyMount { path, device, .. } = &self.mount;
        let mounts = cx.host.mounts()?;
        let found = mounts.iter().rfind(|entry| entry.at == *path && entry.device == *device);
        if found.is_some_and(|entry| entry.is_frozen_read_only()) {
            return Ok(());
        }
        Err(CaptureError::Broken {
            what: format!("{} did not stay read-only while it was read", path.shown()),
            hint: "see who remounted or unmounted it; the next run reads it again".into(),
        })
    }
}

/// Whether file systems that were found read-only, and so were not captured, are so after reading: another
/// run may have made them read-only for its own reading.
///
/// # Errors
/// When one is not: it was read live, at least in part.
pub fn stayed_read_only(cx: Context<'_>, found: &[MountEntry]) -> Result<(), CaptureError> {
    if found.is_empty() {
        return Ok(());
    }
    let mounts = cx.host.mounts()?;
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
fn lock_key((major, minor): (u32, u32)) -> String {
    format!("remount-{major}-{minor}")
}

impl Releasable for ReadOnlyMount {
    /// Held by whoever reads it now, for as long as that takes.
    fn lock(&self, cx: Context<'_>) -> Option<(String, Duration)> {
        Some((lock_key(self.device), cx.settings.lock_wait))
    }

    /// Makes it writable again, if it is still the one.
    fn release(&self, cx: Context<'_>, _: Option<&Identity>) -> Result<(), CaptureError> {
        let ReadOnlyMount { path, device, boot_id } = self;
        if *boot_id == cx.host.boot_id()? {
            let (path, device) = (path.clone(), *device);
            cx.host.act(&Action::Remount { path, device, read_only: false })?;
        }
        Ok(())
    }
}
