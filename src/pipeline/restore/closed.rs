//! Places below a destination that take nothing in: why, and what to do about it.

use std::path::Path;

use crate::capture::survey::mount_of;
use crate::host::spec::quote;
use crate::host::{ActError, Host, MountEntry};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::step::error::StepError;

/// Why nothing can be stored in the directory, which may yet have to be made; `None` while nothing speaks against
/// it.
pub(super) fn why(host: &dyn Host, mounts: &[MountEntry], at: &Path) -> Option<String> {
    let around = mount_of(mounts, at);
    let place = around.map_or(at, |mount| mount.at.as_path());
    let (shown, word) = (place.shown(), quote(place));
    if let Some(mount) = around {
        // Of those, `/dev` alone takes files, until the machine is switched off.
        if mount.is_made_up() && mount.file_system != "devtmpfs" {
            return Some(format!(
                "what is in {shown} ({}) is made up by the kernel, so nothing can be stored there — restore to a directory on a disk with --to",
                mount.file_system
            ));
        }
        if mount.is_closed_to_root() {
            return Some(format!(
                "the FUSE file system that is mounted at {shown} lets in nobody but its user — unmount it (umount {word}) and restore again"
            ));
        }
    }
    match host.is_read_only(at) {
        Ok(false) => {}
        Ok(true) => {
            return Some(format!(
                "the file system that is mounted at {shown} is read-only — make it writable (mount -o remount,rw {word}) and restore again, or restore to another directory with --to"
            ));
        }
        Err(error) => return Some(by(at, error)),
    }
    let is_btrfs = around.is_some_and(|mount| mount.file_system == "btrfs");
    match is_btrfs.then(|| host.subvolume(at)) {
        Some(Ok(Some(subvolume))) if subvolume.read_only => Some(format!(
            "the btrfs subvolume at {} is read-only — if it is no snapshot that is to stay as it is, make it writable (btrfs property set {} ro false) and restore again",
            at.shown(),
            quote(at)
        )),
        // Whether it takes something is found out when a directory is made in it.
        Some(Ok(_) | Err(_)) | None => None,
    }
}

/// The same, where it was found out by trying.
pub(super) fn by(at: &Path, error: ActError) -> String {
    let cause = match error {
        ActError::Io { source, .. } => source.to_string(),
        error => StepError::from_error(Trouble::Environment, &error, error.hint()).message,
    };
    format!(
        "nothing can be stored at {}: {cause} — mend that and restore again, or restore to another directory with --to",
        at.shown()
    )
}
