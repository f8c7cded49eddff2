//! Snapshots in the top-level subvolume of a btrfs, made and deleted by the kernel's own calls on descriptors
//! (linux/btrfs.h, since 5.7), and subvolumes anywhere below it, moved by those of all file systems.
//!
//! The file system is mounted nowhere for that (see [`attach`]), so nobody else comes near it, and there is nothing to
//! unmount. A subvolume is reached by its number and known by its UUID: whatever its owner has put at its path by
//! then has no part in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nix::libc;

use super::subvolumes::{self, Subvolume, TOP};
use super::{attach, straight};
use crate::host::Located;
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

/// The subvolume at a path from the top-level subvolume on of the btrfs on a device; `None` when there is none.
///
/// # Errors
/// When the file system cannot be asked.
pub(in crate::host) fn find(device: &Path, path: &Path) -> io::Result<Option<Subvolume>> {
    subvolume_at(&root_of(device, TOP, false)?, path.as_os_str())
}

/// All subvolumes of the btrfs on a device, with their paths in the top-level one; see [`subvolumes::all_beneath`].
///
/// # Errors
/// When the file system cannot be asked.
pub(in crate::host) fn all(device: &Path) -> io::Result<Vec<(PathBuf, Subvolume)>> {
    subvolumes::all_beneath(&root_of(device, TOP, false)?)
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
    make_in(&top, name.as_ref(), &source(device, origin)?, READ_ONLY)
}

/// Makes a snapshot of a held subvolume in a held directory. Answers with what was made.
pub(super) fn make_in(
    directory: &File,
    name: &OsStr,
    source: &File,
    flags: u64,
) -> io::Result<Subvolume> {
    if name.len() >= NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut wanted = arguments(flags);
    wanted.descriptor = source.as_raw_fd().into();
    wanted.what[..name.len()].copy_from_slice(name.as_bytes());
    #[expect(unsafe_code, reason = "the structure is the one that this call reads")]
    unsafe { calls::create(directory.as_raw_fd(), &raw const *wanted) }?;
    subvolume_at(directory, name)?
        .ok_or_else(|| io::Error::other("the kernel took the request and made none"))
}

/// Deletes a subvolume if it is still the one that was found at a path from the top-level subvolume on. Answers whether
/// it was. Only after [`commit`] it cannot come back.
///
/// # Errors
/// When the kernel refuses it, or it is still there afterwards.
pub(in crate::host) fn delete(device: &Path, found: &Subvolume, path: &Path) -> io::Result<bool> {
    let top = root_of(device, TOP, true)?;
    match above(&top, path) {
        Ok((directory, name)) => delete_in(&directory, found, name),
        Err(error) if straight::is_elsewhere(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The same, with all subvolumes that lie in it: before it, since the kernel deletes none that holds another one.
///
/// # Errors
/// When the kernel refuses one of them, or one is still there afterwards.
pub(in crate::host) fn delete_whole(
    device: &Path,
    found: &Subvolume,
    path: &Path,
) -> io::Result<bool> {
    let top = root_of(device, TOP, true)?;
    match above(&top, path) {
        Ok((directory, name)) => delete_whole_in(&directory, found, name),
        Err(error) if straight::is_elsewhere(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The same of a subvolume in a held directory.
pub(super) fn delete_whole_in(
    directory: &File,
    found: &Subvolume,
    name: &OsStr,
) -> io::Result<bool> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let root = match straight::open_beneath(directory, Path::new(name), flags) {
        Ok(root) => root,
        Err(error) if straight::is_elsewhere(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    // By what is held, so that nothing goes that lies in another one at this name.
    if !subvolumes::of(&root)?.is_some_and(|there| is_same(&there, found)) {
        return Ok(false);
    }
    for path in subvolumes::nested_in(&root)? {
        let (directory, name) = above(&root, &path)?;
        if let Some(nested) = subvolume_at(&directory, name)? {
            delete_whole_in(&directory, &nested, name)?;
        }
    }
    delete_in(directory, found, name)
}

/// Moves a subvolume to another place, if it is still the one that was found. Answers whether it was. Both paths are
/// from the top-level subvolume on.
///
/// # Errors
/// `AlreadyExists` when something is there; or when the kernel refuses it.
pub(in crate::host) fn relocate(
    device: &Path,
    (from, found): (&Path, &Subvolume),
    to: &Path,
) -> io::Result<bool> {
    let top = root_of(device, TOP, true)?;
    is_on(&top, device, &found.file_system)?;
    let (old, old_name) = above(&top, from)?;
    let (new, new_name) = above(&top, to)?;
    if !is_at(&old, old_name, found)? {
        return Ok(false);
    }
    renameat2(&old, old_name, &new, new_name, RenameFlags::RENAME_NOREPLACE)?;
    is_at(&new, new_name, found)
}

/// Has two subvolumes change their places, if both are still what was found. Answers whether they were.
///
/// # Errors
/// When the kernel refuses it.
pub(in crate::host) fn exchange(device: &Path, one: &Located, other: &Located) -> io::Result<bool> {
    let top = root_of(device, TOP, true)?;
    is_on(&top, device, &one.found.file_system)?;
    let (first, first_name) = above(&top, &one.path)?;
    let (second, second_name) = above(&top, &other.path)?;
    let are_at = |first_one: &Subvolume, second_one: &Subvolume| -> io::Result<bool> {
        Ok(is_at(&first, first_name, first_one)? && is_at(&second, second_name, second_one)?)
    };
    if !are_at(&one.found, &other.found)? {
        return Ok(false);
    }
    renameat2(&first, first_name, &second, second_name, RenameFlags::RENAME_EXCHANGE)?;
    are_at(&other.found, &one.found)
}

/// The directory that holds the last name of a path from the top-level subvolume on, and that name.
fn above<'p>(top: &File, path: &'p Path) -> io::Result<(File, &'p OsStr)> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let above = path.parent().unwrap_or(Path::new(""));
    Ok((straight::open_beneath(top, above, flags)?, name))
}

/// Whether a subvolume is the one that was found.
fn is_at(directory: &File, name: &OsStr, found: &Subvolume) -> io::Result<bool> {
    Ok(subvolume_at(directory, name)?.is_some_and(|there| is_same(&there, found)))
}

/// The same of a subvolume in a held directory.
pub(super) fn delete_in(directory: &File, found: &Subvolume, name: &OsStr) -> io::Result<bool> {
    if !is_at(directory, name, found)? {
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
