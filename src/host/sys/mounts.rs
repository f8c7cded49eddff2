//! Mount points, free space, and the private mount namespace of one thread.
//!
//! The namespace is a *slave* of the host's: an unmount on the host still reaches it, so that no file system
//! stays pinned, while nothing mounted in it is ever seen outside. It ends with its last process.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::host::PrivateBind;

/// All mount points that the calling thread sees, in the kernel's order.
///
/// # Errors
/// When the table cannot be read or has a line that is not in the format of proc(5).
pub fn mount_points() -> io::Result<Vec<PathBuf>> {
    parse_mount_points(&std::fs::read("/proc/thread-self/mountinfo")?)
}

/// The mount points (field 5) of a `/proc/PID/mountinfo`, with the octal escapes of blanks undone.
///
/// # Errors
/// When a line has fewer fields than proc(5) says, or an escape that is not one.
pub fn parse_mount_points(table: &[u8]) -> io::Result<Vec<PathBuf>> {
    table
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let field = line.split(|&byte| byte == b' ').nth(4);
            field.and_then(unescape).filter(|path| path.is_absolute()).ok_or_else(|| {
                io::Error::other(format!(
                    "not a line of mountinfo: {}",
                    String::from_utf8_lossy(line)
                ))
            })
        })
        .collect()
}

/// Undoes `\040` and its like; `None` when a backslash is not followed by three octal digits.
fn unescape(field: &[u8]) -> Option<PathBuf> {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            path.push(byte);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..3)?).ok()?;
        path.push(u8::from_str_radix(digits, 8).ok()?);
        rest = &after[3..];
    }
    Some(OsString::from_vec(path).into())
}

/// Whether something is mounted exactly at `path` (bind mounts count). A path that is not there is none.
///
/// # Errors
/// When the path or the table cannot be looked at.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    match path.canonicalize() {
        Ok(path) => Ok(mount_points()?.contains(&path)),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first mount point at or below `path`, which must be canonical.
///
/// # Errors
/// When the table cannot be read.
pub fn mounted_below(path: &Path) -> io::Result<Option<PathBuf>> {
    Ok(mount_points()?.into_iter().find(|at| at.starts_with(path)))
}

/// Whether the error says that there is nothing at the path.
pub(in crate::host) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Bytes that an unprivileged writer may still use in the file system at `path`, which must exist. What
/// only root may use is left out, since filling it is what stops a machine.
///
/// # Errors
/// When the file system cannot be asked.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let answer = statvfs(path)?;
    // The types are narrower than u64 on 32-bit machines.
    #[allow(clippy::useless_conversion)]
    let (blocks, size) = (u64::from(answer.blocks_available()), u64::from(answer.fragment_size()));
    Ok(blocks.saturating_mul(size))
}

/// Moves the calling *thread* into a mount namespace of its own and makes the binds there, in order.
///
/// A writable bind brings along what is mounted below its source (`/dev` with `/dev/pts`); a read-only one
/// does not, because the kernel makes only its top read-only. Mount options of the source stay.
///
/// # Errors
/// With the mount that was refused in the text. The thread must end then, without starting anything.
pub(in crate::host) fn enter_private_namespace(binds: &[PrivateBind]) -> io::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|error| because("cannot make a private mount namespace", error))?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(|error| because("cannot detach the mounts from the host's", error))?;
    for bind in binds {
        let depth = if bind.read_only { MsFlags::empty() } else { MsFlags::MS_REC };
        mount(Some(&bind.from), &bind.at, none, MsFlags::MS_BIND | depth, none).map_err(
            |error| {
                let what = format!("cannot show {} at {}", bind.from.display(), bind.at.display());
                because(&what, error)
            },
        )?;
        if bind.read_only {
            let flags = MsFlags::MS_BIND
                | MsFlags::MS_REMOUNT
                | MsFlags::MS_RDONLY
                | options_in_force(&bind.at)?;
            mount(none, &bind.at, none, flags, none).map_err(|error| {
                because(&format!("cannot make {} read-only", bind.at.display()), error)
            })?;
        }
    }
    Ok(())
}

/// The options of the mount at `path` that a remount would otherwise drop.
fn options_in_force(path: &Path) -> io::Result<MsFlags> {
    let flags = statvfs(path)?.flags();
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    Ok(pairs
        .iter()
        .filter(|(there, _)| flags.contains(*there))
        .fold(MsFlags::empty(), |sum, (_, option)| sum | *option))
}

fn because(what: &str, error: nix::Error) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid - proc proc rw
97 22 0:44 /@home /srv/with\\040blank\\134and\\012line rw,relatime shared:7 master:2 - btrfs /dev/sdb rw
";

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let points = parse_mount_points(TABLE.as_bytes()).unwrap();
        let expected = ["/", "/proc", "/srv/with blank\\and\nline"];
        assert_eq!(points, expected.map(PathBuf::from));
    }

    #[test]
    fn a_line_that_is_none_is_an_error() {
        for table in ["22 1 8:1 /\n", "22 1 8:1 / /a\\04 rw\n", "22 1 8:1 / relative rw\n"] {
            assert!(parse_mount_points(table.as_bytes()).is_err(), "{table}");
        }
    }

    #[test]
    fn the_root_and_proc_are_mount_points_and_a_new_directory_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(dir.path()).unwrap());
        assert!(!is_mount_point(&dir.path().join("absent")).unwrap());
        assert!(free_space(dir.path()).unwrap() > 0);
    }
}
