//! A subvolume that is shown at another place as well, in the namespace that we are in.
//!
//! Nobody can write through that mount, so nobody who owns what is in it can make the subvolume writable.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MntFlags, umount2};

use super::mounts::{mount_number, mount_table};
use super::snapshots::is_same;
use super::subvolumes::Subvolume;
use super::{attach, straight, subvolumes};

/// Shows a subvolume at a directory. Answers with the mount's number and device; `None` when it is not the one any more
/// that was found.
///
/// # Errors
/// When the kernel refuses it.
pub(in crate::host) fn show(
    path: &Path,
    found: &Subvolume,
    at: &Path,
) -> io::Result<Option<(u32, (u32, u32))>> {
    let held = straight::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    if !subvolumes::of(&held)?.is_some_and(|there| is_same(&there, found)) {
        return Ok(None);
    }
    let tree = attach::copy(&held, false)?;
    attach::restrict(
        &tree,
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
    )?;
    attach::attach(&tree, straight::open(at, OFlag::O_PATH)?)?;
    let number = mount_number(&tree)?;
    let entry = mount_table()?.into_iter().find(|entry| Some(entry.id) == number);
    let entry = entry.ok_or_else(|| io::Error::other("it was unmounted again at once"))?;
    Ok(Some((entry.id, entry.device)))
}

/// Takes away the mount of this number, device and subvolume, whoever still uses it, if it is what one reaches at the
/// path. Answers whether that was done.
///
/// # Errors
/// When it cannot be looked at or unmounted.
pub(in crate::host) fn hide(
    path: &Path,
    id: u32,
    device: (u32, u32),
    uuid: &str,
) -> io::Result<bool> {
    let held: File = match straight::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(held) => held,
        Err(error) if straight::is_absent(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    // From here on the number is not given away.
    let is_it = mount_number(&held)? == Some(id)
        && mount_table()?.iter().any(|entry| (entry.id, entry.device) == (id, device))
        && subvolumes::of(&held)?.is_some_and(|there| there.uuid.as_deref() == Some(uuid));
    if is_it {
        let place = format!("/proc/thread-self/fd/{}", held.as_raw_fd());
        umount2(place.as_str(), MntFlags::MNT_DETACH)?;
    }
    Ok(is_it)
}
