//! A process that can write where it is to write, and nowhere else.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};

use super::namespace::{because, detach};
use super::{mounts, place, straight};
use crate::host::Confinement;
use crate::model::shown::Show;

const NONE: Option<&str> = None;

/// `MS_NOSYMFOLLOW` (Linux 5.10), which older kernels pass over.
const NO_LINKS: MsFlags = MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW);

/// Moves the calling *thread* into a mount namespace of its own in which only the named directories can be
/// written.
///
/// # Errors
/// With the step that was refused in the text. The thread must end then, without starting anything.
pub(in crate::host) fn enter(confinement: &Confinement) -> io::Result<()> {
    detach()?;
    // Everything is opened before it is made read-only: a descriptor leads to the very directory that was looked
    // at, whatever its path leads to by then.
    let mut staged = Vec::new();
    for wanted in &confinement.staged {
        let directory = place::open_identical(&wanted.path, &wanted.identity)
            .map_err(|error| because(format!("cannot open {}", wanted.path.shown()), &error))?;
        staged.push((directory, wanted.at.as_path()));
    }
    let writable = writable(&confinement.writable)?;
    read_only().map_err(|error| because("cannot make the file systems read-only", &error))?;
    for (directory, at) in &writable {
        show(directory, at, MsFlags::empty())?;
    }
    for (number, (directory, at)) in staged.iter().enumerate() {
        // The first one's place is ours; those of the others lie in it, where nothing else is yet.
        if number > 0 {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(at)
                .map_err(|error| because(format!("cannot make {}", at.shown()), &error))?;
        }
        show(directory, at, NO_LINKS | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    }
    Ok(())
}

/// Whether the kernel lets us have a mount namespace of our own. In a container it may not.
pub(in crate::host) fn is_allowed() -> bool {
    std::thread::spawn(|| detach().is_ok()).join().unwrap_or(false)
}

/// Those directories that are there and can be written now, none that lies in another one.
fn writable(wanted: &[PathBuf]) -> io::Result<Vec<(File, &Path)>> {
    let mut paths: Vec<&Path> = wanted.iter().map(PathBuf::as_path).collect();
    paths.sort();
    paths.dedup_by(|path, above| path.starts_with(above));
    let mut opened = Vec::new();
    for path in paths {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let directory = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(directory) => directory,
            Err(error) if straight::is_absent(&error) => continue,
            Err(error) => return Err(because(format!("cannot open {}", path.shown()), &error)),
        };
        if !fstatvfs(&directory)?.flags().contains(FsFlags::ST_RDONLY) {
            opened.push((directory, path));
        }
    }
    Ok(opened)
}

/// Makes every mount of this namespace read-only.
fn read_only() -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    #[expect(unsafe_code, reason = "the call reads a structure of the size that it is told")]
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    match Errno::result(answer) {
        // Before Linux 5.12.
        Err(Errno::ENOSYS) => one_by_one(),
        answer => Ok(answer.map(drop)?),
    }
}

fn one_by_one() -> io::Result<()> {
    for entry in mounts::mount_table()? {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        match mount(NONE, &entry.at, NONE, flags | mounts::flags_of(&entry.options), NONE) {
            Ok(()) => {}
            // Another one hides it.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {}
            Err(error) => return Err(because(entry.at.shown(), &error.into())),
        }
    }
    Ok(())
}

/// Shows a directory at a path, writable.
fn show(directory: &File, at: &Path, options: MsFlags) -> io::Result<()> {
    let refused = |error: Errno| because(format!("cannot show {}", at.shown()), &error.into());
    let from = format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
    mount(Some(from.as_str()), at, NONE, MsFlags::MS_BIND, NONE).map_err(refused)?;
    let kept = options_in_force(at)?;
    mount(NONE, at, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | kept | options, NONE)
        .map_err(refused)
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
