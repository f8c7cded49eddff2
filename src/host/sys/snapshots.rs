//! Read-only snapshots in the top-level subvolume of a btrfs, made and deleted by the kernel's own calls on
//! descriptors (linux/btrfs.h, since 5.7).
//!
//! The file system is mounted nowhere for that (see [`attach`]), so nobody else comes near it, and there is nothing to
//! unmount. A subvolume is reached by its number and known by its UUID: whatever its owner has put at its path by
//! then has no part in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::libc;

use super::subvolumes::{self, Subvolume, TOP};
use super::{attach, straight};
use crate::model::shown::Show;

/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1 << 1;
/// `BTRFS_SUBVOL_SPEC_BY_ID`.
const BY_ID: u64 = 1 << 4;
/// `BTRFS_SUBVOL_NAME_MAX` + 1.
const NAME: usize = 4040;

/// How often a subvolume is looked for that is renamed over and over: the kernel turns its number into a path, and
/// refuses what it finds there when it is another one by then.
const TRIES: usize = 10;

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct Arguments {
    descriptor: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    /// A name, or the number of a subvolume.
    what: [u8; NAME],
}

/// The calls. They only read the structure that they are given, whose size is part of their number.
mod calls {
    nix::ioctl_write_ptr!(create, 0x94, 23, super::Arguments);
    nix::ioctl_write_ptr!(destroy, 0x94, 63, super::Arguments);
    nix::ioctl_read!(start_sync, 0x94, 24, u64);
    nix::ioctl_write_ptr!(wait_sync, 0x94, 22, u64);
}

/// The subvolume `name` in the top-level subvolume of the btrfs on a device; `None` when there is none.
///
/// # Errors
/// When the file system cannot be asked.
pub(in crate::host) fn find(device: &Path, name: &str) -> io::Result<Option<Subvolume>> {
    subvolume_at(&root_of(device, TOP, false)?, name.as_ref())
}

/// Makes a read-only snapshot of `origin` as `name` in the top-level subvolume of its file system, which lies on
/// `device`. Answers with what was made.
///
/// # Errors
/// `NotFound` when the subvolume is not there any more; otherwise when the kernel refuses it, when the device holds
/// another file system, or when there is such a name already.
pub(in crate::host) fn make(
    device: &Path,
    origin: &Subvolume,
    name: &str,
) -> io::Result<Subvolume> {
    if name.is_empty() || name.len() >= NAME || name.contains(['/', '\0']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // That the device is not there says nothing of the subvolume.
    let top = root_of(device, TOP, true)
        .map_err(|error| io::Error::other(format!("{}: {error}", device.shown())))?;
    is_on(&top, device, &origin.file_system)?;
    let source = source(device, origin)?;
    let mut wanted = arguments(READ_ONLY);
    wanted.descriptor = source.as_raw_fd().into();
    wanted.what[..name.len()].copy_from_slice(name.as_bytes());
    #[expect(unsafe_code, reason = "the structure is the one that this call reads")]
    unsafe { calls::create(top.as_raw_fd(), &raw const *wanted) }?;
    subvolume_at(&top, name.as_ref())?
        .ok_or_else(|| io::Error::other("the kernel took the request and made none"))
}

/// Deletes a subvolume if it is still the one that was found as `name` in the top-level subvolume. Answers whether it
/// was. Only after [`commit`] it cannot come back.
///
/// # Errors
/// When the kernel refuses it, or it is still there afterwards.
pub(in crate::host) fn delete(device: &Path, found: &Subvolume, name: &str) -> io::Result<bool> {
    delete_in(&root_of(device, TOP, true)?, found, name.as_ref())
}

/// The same of a subvolume in a held directory.
pub(super) fn delete_in(directory: &File, found: &Subvolume, name: &OsStr) -> io::Result<bool> {
    if !subvolume_at(directory, name)?.is_some_and(|there| is_same(&there, found)) {
        return Ok(false);
    }
    let mut wanted = arguments(BY_ID);
    let id = number_of(found)?;
    wanted.what[..size_of::<u64>()].copy_from_slice(&id.to_ne_bytes());
    #[expect(unsafe_code, reason = "the structure is the one that this call reads")]
    unsafe { calls::destroy(directory.as_raw_fd(), &raw const *wanted) }?;
    match subvolume_at(directory, name)? {
        Some(there) if is_same(&there, found) => {
            Err(io::Error::other("the kernel took the request and did not carry it out"))
        }
        _ => Ok(true),
    }
}

/// Whether both are one subvolume, whatever has become of it.
pub(super) fn is_same(one: &Subvolume, other: &Subvolume) -> bool {
    (&one.file_system, one.id, &one.uuid) == (&other.file_system, other.id, &other.uuid)
}

/// Waits until everything that was deleted from the btrfs `file_system` by now, by whomever, is deleted on its disk.
///
/// # Errors
/// When that is not known: the disk does not take it, or the device holds another file system.
pub(in crate::host) fn commit(device: &Path, file_system: Option<&str>) -> io::Result<()> {
    // What can be written nowhere has nothing to wait for, and can be asked as well.
    let top = root_of(device, TOP, false)?;
    if let Some(wanted) = file_system {
        is_on(&top, device, wanted)?;
    }
    let mut transaction = 0;
    #[expect(unsafe_code, reason = "the number is what these calls write and read")]
    unsafe {
        calls::start_sync(top.as_raw_fd(), &raw mut transaction)?;
        calls::wait_sync(top.as_raw_fd(), &raw const transaction)?;
    }
    Ok(())
}

/// Refuses a device that holds another file system than this one.
fn is_on(top: &File, device: &Path, wanted: &str) -> io::Result<()> {
    let found = subvolumes::file_system_of(top)?;
    if found == wanted {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} holds the btrfs {found} now, and not {wanted}",
        device.shown()
    )))
}

/// The number of a subvolume that is there.
fn number_of(found: &Subvolume) -> io::Result<u64> {
    found.id.ok_or_else(|| io::Error::other("it was only predicted"))
}

fn arguments(flags: u64) -> Box<Arguments> {
    Box::new(Arguments { descriptor: 0, transaction: 0, flags, unused: [0; 4], what: [0; NAME] })
}

/// The root directory of the subvolume, held.
fn source(device: &Path, origin: &Subvolume) -> io::Result<File> {
    for _ in 0..TRIES {
        let root = match root_of(device, number_of(origin)?, false) {
            Ok(root) => root,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        match subvolumes::of(&root)? {
            Some(found) if (found.id, &found.uuid) == (origin.id, &origin.uuid) => return Ok(root),
            Some(_) | None => {}
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// What the kernel says of a number of which there is no subvolume, or which it cannot follow: `EINVAL` when another
/// one lies at the path that it found for it.
fn is_gone(error: &io::Error) -> bool {
    straight::is_elsewhere(error) || error.raw_os_error() == Some(libc::EINVAL)
}

/// The root directory of a subvolume by its number, mounted nowhere.
fn root_of(device: &Path, id: u64, writable: bool) -> io::Result<File> {
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if !writable {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    let mounted = attach::file_system(&attach::Options {
        kind: "btrfs",
        device,
        options: &format!("subvolid={id}"),
        // If nobody else has it mounted, to look at it must not change it.
        read_only: !writable,
        attributes,
    })?;
    straight::open_beneath(&mounted, Path::new(""), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// The subvolume at a name in a held directory.
pub(super) fn subvolume_at(directory: &File, name: &OsStr) -> io::Result<Option<Subvolume>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    match straight::open_beneath(directory, Path::new(name), flags) {
        Ok(root) => subvolumes::of(&root),
        Err(error) if straight::is_elsewhere(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_as_large_as_the_kernel_says() {
        assert_eq!(size_of::<Arguments>(), 4096);
        assert_eq!(std::mem::offset_of!(Arguments, what), 56);
    }
}
