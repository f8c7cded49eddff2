//! Owner, mode, times and extended attributes of a directory, from one descriptor to another; and the latter of anything.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

/// What a list of names may say that is removed where the model lacks it: access that it does not grant.
const ACLS: [&CStr; 2] = [c"system.posix_acl_access", c"system.posix_acl_default"];

/// Asks for something whose size is not known before, until it fits.
fn sized(mut ask: impl FnMut(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let size = usize::try_from(Errno::result(ask(std::ptr::null_mut(), 0))?).unwrap_or(0);
        let mut buffer = vec![0; size];
        match Errno::result(ask(buffer.as_mut_ptr(), size)) {
            Ok(filled) => {
                buffer.truncate(usize::try_from(filled).unwrap_or(0));
                return Ok(buffer);
            }
            // It has grown meanwhile.
            Err(Errno::ERANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn names(of: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let list = sized(|buffer, size| {
        #[expect(unsafe_code, reason = "writes at most `size` bytes to the buffer of that size")]
        unsafe {
            libc::flistxattr(of.as_raw_fd(), buffer.cast(), size)
        }
    });
    match list {
        Ok(list) => Ok(list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .filter_map(|name| CString::new(name).ok())
            .collect()),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn value(of: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    sized(|buffer, size| {
        #[expect(unsafe_code, reason = "writes at most `size` bytes to the buffer of that size")]
        unsafe {
            libc::fgetxattr(of.as_raw_fd(), name.as_ptr(), buffer.cast(), size)
        }
    })
}

/// All extended attributes of what lies at a path, of a link itself: their names and values.
///
/// # Errors
/// When they cannot be read.
pub fn extended_attributes(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let list = sized(|buffer, size| {
        #[expect(unsafe_code, reason = "writes at most `size` bytes to the buffer of that size")]
        unsafe {
            libc::llistxattr(path.as_ptr(), buffer.cast(), size)
        }
    });
    let list = match list {
        Ok(list) => list,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let with_value = |name: &[u8]| {
        let text = CString::new(name)?;
        let value = sized(|buffer, size| {
            #[expect(
                unsafe_code,
                reason = "writes at most `size` bytes to the buffer of that size"
            )]
            unsafe {
                libc::lgetxattr(path.as_ptr(), text.as_ptr(), buffer.cast(), size)
            }
        })?;
        Ok((OsStr::from_bytes(name).to_owned(), value))
    };
    names.map(with_value).collect()
}

fn set(of: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    #[expect(unsafe_code, reason = "reads exactly the bytes of the value")]
    let answer = unsafe {
        libc::fsetxattr(of.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(answer).map(drop).map_err(io::Error::from)
}

fn remove(of: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    #[expect(unsafe_code, reason = "takes a name that ends with a zero byte")]
    let answer = unsafe { libc::fremovexattr(of.as_raw_fd(), name.as_ptr()) };
    Errno::result(answer).map(drop).map_err(io::Error::from)
}

/// What keeps everybody, root included, from changing an entry of a directory, or the directory itself where the
/// name is empty: the attribute's name, and its letter in chattr(1).
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn seal(
    directory: BorrowedFd<'_>,
    name: &OsStr,
) -> io::Result<Option<(&'static str, char)>> {
    let name = CString::new(name.as_bytes())?;
    #[expect(unsafe_code, reason = "a structure of numbers, which may all be zero")]
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    #[expect(
        unsafe_code,
        reason = "takes a name that ends with a zero byte and fills the structure"
    )]
    let answer =
        unsafe { libc::statx(directory.as_raw_fd(), name.as_ptr(), flags, 0, &raw mut found) };
    Errno::result(answer)?;
    let has = |bit: libc::c_int| found.stx_attributes & bit as u64 != 0;
    Ok(match (has(libc::STATX_ATTR_IMMUTABLE), has(libc::STATX_ATTR_APPEND)) {
        (true, _) => Some(("immutable", 'i')),
        (false, true) => Some(("append-only", 'a')),
        (false, false) => None,
    })
}

/// Makes a directory's owner, mode, extended attributes and times those of another one, of which `wanted` was true
/// before its entries were moved away. What is the same already is not set, so that who may not set it need not.
///
/// # Errors
/// When the kernel refuses one of them; those before it are set.
pub(super) fn copy(from: impl AsFd, wanted: &FileStat, to: impl AsFd) -> io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let found = fstat(to)?;
    if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid) {
        fchown(to, Some(Uid::from_raw(wanted.st_uid)), Some(Gid::from_raw(wanted.st_gid)))?;
    }
    let (new, old) = (names(from)?, names(to)?);
    for name in &new {
        let value = value(from, name)?;
        let is_there = old.contains(name) && self::value(to, name).is_ok_and(|old| old == value);
        if !is_there {
            set(to, name, &value)?;
        }
    }
    for acl in ACLS.iter().filter(|acl| {
        let has = |list: &[CString]| list.iter().any(|name| name.as_c_str() == **acl);
        has(&old) && !has(&new)
    }) {
        remove(to, acl)?;
    }
    // After the owner, whose change takes bits away, and the list, which changes those of the group.
    if wanted.st_mode != fstat(to)?.st_mode {
        fchmod(to, Mode::from_bits_truncate(wanted.st_mode & 0o7777))?;
    }
    futimens(
        to,
        &TimeSpec::new(wanted.st_atime, wanted.st_atime_nsec),
        &TimeSpec::new(wanted.st_mtime, wanted.st_mtime_nsec),
    )?;
    Ok(())
}
