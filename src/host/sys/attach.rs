//! The kernel's calls that mount by descriptor (fsopen(2), open_tree(2), move_mount(2); Linux 5.12): what is
//! mounted is held before it is anywhere, and lands on the very directory that is held, whatever its path leads
//! to by then.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::libc::{self, c_int, c_long, c_uint};

/// `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC` (linux/mount.h).
const CLOEXEC: c_uint = 1;
/// `enum fsconfig_command` (linux/mount.h).
const SET_FLAG: c_uint = 0;
const SET_STRING: c_uint = 1;
const CREATE: c_uint = 6;
/// `MOVE_MOUNT_F_EMPTY_PATH` and `MOVE_MOUNT_T_EMPTY_PATH` (linux/mount.h).
const FROM_ITSELF: c_uint = 0x04;
const TO_ITSELF: c_uint = 0x40;

const EMPTY: &CStr = c"";

/// How a file system is mounted.
pub(in crate::host) struct Options<'a> {
    /// `ext4`, `btrfs`, …
    pub kind: &'a str,
    /// The block device.
    pub device: &'a Path,
    /// Options of the file system itself, separated by commas.
    pub options: &'a str,
    /// Whether the file system itself is to be read-only, as far as nobody else has it mounted.
    pub read_only: bool,
    /// `MOUNT_ATTR_*`, of this mount alone.
    pub attributes: u64,
}

/// Mounts a file system nowhere: it is held by the answer alone, and unmounted with it.
///
/// # Errors
/// When the kernel refuses it, with what it says about it.
pub(in crate::host) fn file_system(wanted: &Options<'_>) -> io::Result<OwnedFd> {
    let context =
        call(&[libc::SYS_fsopen, address(&text(wanted.kind.as_bytes())?), CLOEXEC.into()])?;
    let set = |command: c_uint, key: &[u8], value: Option<&[u8]>| -> io::Result<()> {
        let (key, value) = (text(key)?, value.map(text).transpose()?);
        let value = value.as_deref().map_or(0, address);
        configure(&context, command, address(&key), value)
    };
    let configured = (|| {
        set(SET_STRING, b"source", Some(wanted.device.as_os_str().as_bytes()))?;
        if wanted.read_only {
            set(SET_FLAG, b"ro", None)?;
        }
        for option in wanted.options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some((key, value)) => set(SET_STRING, key.as_bytes(), Some(value.as_bytes()))?,
                None => set(SET_FLAG, option.as_bytes(), None)?,
            }
        }
        configure(&context, CREATE, 0, 0)
    })();
    configured.map_err(|error| explained(error, context.try_clone()))?;
    let attributes = c_long::try_from(wanted.attributes).map_err(io::Error::other)?;
    call(&[libc::SYS_fsmount, context.as_raw_fd().into(), CLOEXEC.into(), attributes])
}

/// What is at a held place, as a mount of its own that is nowhere yet; with what is mounted below it, if that
/// is asked for. `EINVAL` when it has been unmounted since it was opened.
///
/// # Errors
/// When the kernel refuses it.
pub(in crate::host) fn copy(of: impl AsFd, whole: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    flags |= libc::AT_EMPTY_PATH as c_uint;
    if whole {
        flags |= libc::AT_RECURSIVE as c_uint;
    }
    call(&[libc::SYS_open_tree, number(&of), address(EMPTY), flags.into()])
}

/// Makes a mount that is nowhere yet read-only; its other options stay.
///
/// # Errors
/// When the kernel refuses it.
pub(in crate::host) fn make_read_only(tree: impl AsFd) -> io::Result<()> {
    restrict(tree, libc::MOUNT_ATTR_RDONLY)
}

/// Gives a mount that is nowhere yet these `MOUNT_ATTR_*`; its other options stay.
///
/// # Errors
/// When the kernel refuses it.
pub(in crate::host) fn restrict(tree: impl AsFd, attributes: u64) -> io::Result<()> {
    let wanted =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (at, size) = (ptr::from_ref(&wanted) as c_long, size_of::<libc::mount_attr>() as c_long);
    let flags = libc::AT_EMPTY_PATH.into();
    done(&[libc::SYS_mount_setattr, number(&tree), address(EMPTY), flags, at, size])
}

/// Mounts a tree that is nowhere yet on a held place.
///
/// # Errors
/// When the kernel refuses it: the one is a directory and the other is not.
pub(in crate::host) fn attach(tree: impl AsFd, place: impl AsFd) -> io::Result<()> {
    let flags = (FROM_ITSELF | TO_ITSELF).into();
    let (from, to) = (number(&tree), number(&place));
    done(&[libc::SYS_move_mount, from, address(EMPTY), to, address(EMPTY), flags])
}

fn configure(context: &OwnedFd, command: c_uint, key: c_long, value: c_long) -> io::Result<()> {
    done(&[libc::SYS_fsconfig, context.as_raw_fd().into(), command.into(), key, value, 0])
}

/// The error with the kernel's own words, which lie in the context.
fn explained(error: io::Error, context: io::Result<OwnedFd>) -> io::Error {
    let mut said = [0; 512];
    let length = context.and_then(|context| io::Read::read(&mut File::from(context), &mut said));
    match length {
        // `e ` before an error, `w ` before a warning.
        Ok(length) if length > 2 => {
            let words = String::from_utf8_lossy(&said[2..length]).trim().to_owned();
            io::Error::new(error.kind(), format!("{error} ({words})"))
        }
        _ => error,
    }
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    Ok(CString::new(bytes)?)
}

fn address(text: &CStr) -> c_long {
    text.as_ptr() as c_long
}

fn number(held: &impl AsFd) -> c_long {
    held.as_fd().as_raw_fd().into()
}

/// A call that answers with a new descriptor.
fn call(words: &[c_long]) -> io::Result<OwnedFd> {
    let answer = c_int::try_from(raw(words)?).map_err(io::Error::other)?;
    #[expect(
        unsafe_code,
        reason = "the kernel has just made the descriptor, and nobody else has it"
    )]
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

fn done(words: &[c_long]) -> io::Result<()> {
    raw(words).map(|_| ())
}

/// One system call: its number and up to five arguments.
fn raw(words: &[c_long]) -> io::Result<c_long> {
    let word = |n: usize| words.get(n).copied().unwrap_or(0);
    #[expect(
        unsafe_code,
        reason = "numbers, and addresses of what the callers own until it is over; the kernel only reads them"
    )]
    let answer = unsafe { libc::syscall(word(0), word(1), word(2), word(3), word(4), word(5)) };
    Ok(nix::errno::Errno::result(answer)?)
}
