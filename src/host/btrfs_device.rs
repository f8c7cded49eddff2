//! By which device a btrfs is reached.

use std::path::{Path, PathBuf};

use super::{Host, MountEntry};

/// A device by which the btrfs of this UUID can be reached now; `None` when it is not here. What is mounted `at` a place is
/// asked first, and the device by which it was `known` last. Names of devices change over a reboot, and another file
/// system may be mounted in its place.
pub fn device_of_btrfs(
    host: &dyn Host,
    mounts: &[MountEntry],
    file_system: &str,
    at: Option<&Path>,
    known: &Path,
) -> Option<PathBuf> {
    let mut mounts: Vec<&MountEntry> =
        mounts.iter().rev().filter(|entry| entry.file_system == "btrfs").collect();
    mounts.sort_by_key(|entry| Some(entry.at.as_path()) != at);
    let mut devices = mounts.iter().map(|entry| entry.source.as_path()).chain([known]);
    // One that does not answer is not the one; another device of it may be.
    let is_it = |device: &&Path| {
        host.btrfs_on(device).is_ok_and(|found| found.as_deref() == Some(file_system))
    };
    devices.find(is_it).map(Path::to_owned)
}
