//! The private mount namespace of one thread, and what a process sees in it.
//!
//! The namespace is a *slave* of the host's: an unmount on the host still reaches it, so that no file system
//! stays pinned, while nothing mounted in it is ever seen outside. It ends with its last process, so there is
//! nothing to unmount after a crash.
//!
//! Everything that a view shows of the host is opened before the first mount is made, because a mount may
//! hide it: the engine's cache below a captured path is one example, `/proc` below a captured root another.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::mounts;
use crate::host::{Access, PrivateMount, PrivateView};
use crate::model::shown::Show;

const NONE: Option<&str> = None;

/// The directory of a workplace in which a new root is put together.
pub const ROOT: &str = "root";

/// The directory of a workplace at which each device is mounted before it is shown at its place.
pub const PART: &str = "part";

/// Moves the calling *thread* into a mount namespace of its own and puts the view together there.
///
/// A writable bind brings along what is mounted below its source (`/dev` with `/dev/pts`); a read-only one
/// does not, because the kernel makes only its top read-only. Mount options of the source stay.
///
/// # Errors
/// With the mount that was refused in the text. The thread must end then, without starting anything.
pub(in crate::host) fn enter(view: &PrivateView) -> io::Result<()> {
    detach()?;
    let mounted = mounts::mount_points()?;
    let open = |mount| open_source(mount, &mounted);
    let sources = view.mounts.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    let root = view.workplace.join(ROOT);
    let new_root = view.mounts.iter().any(|mount| mount.at() == Path::new("/"));
    for (mount, source) in view.mounts.iter().zip(&sources) {
        let at = if new_root { below(&root, mount.at()) } else { mount.at().to_owned() };
        match (mount, source) {
            (PrivateMount::Bind { read_only, .. }, Some(source)) => {
                show(source, mount, &at, *read_only)?;
            }
            (PrivateMount::Mounted { .. }, Some(source)) => {
                show_if_mounted(source, mount, &at)?;
            }
            (PrivateMount::Bind { .. } | PrivateMount::Mounted { .. }, None) => {}
            (PrivateMount::Device { .. }, _) => mount_device(mount, &at, &view.workplace)?,
        }
    }
    if new_root { take_root(&root) } else { Ok(()) }
}

/// Moves the calling *thread* into a mount namespace of its own, a slave of the host's.
///
/// # Errors
/// When the kernel refuses either.
pub(super) fn detach() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|error| because("cannot make a private mount namespace", error))?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .map_err(|error| because("cannot detach the mounts from the host's", error))
}

/// What is shown of the host, held by descriptor, which leads to it whatever is mounted over its path later.
/// `mounted` are the host's mount points.
fn open_source(mount: &PrivateMount, mounted: &[PathBuf]) -> io::Result<Option<File>> {
    match mount {
        PrivateMount::Bind { from, .. } => held(from).map(Some),
        // The directory that a mount leaves behind belongs to what is around it, which is captured.
        PrivateMount::Mounted { at } if mounted.contains(at) => unless_absent(held(at)),
        PrivateMount::Mounted { .. } | PrivateMount::Device { .. } => Ok(None),
    }
}

/// `None` where the path of something that may be absent is.
fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if mounts::is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A path, held by a descriptor that does nothing but lead to it.
fn held(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open {} to show it: {error}", path.shown()))
    })
}

fn by_descriptor(file: &File) -> String {
    format!("/proc/thread-self/fd/{}", file.as_raw_fd())
}

fn show(source: &File, wanted: &PrivateMount, at: &Path, read_only: bool) -> io::Result<()> {
    let from = by_descriptor(source);
    let depth = if read_only { MsFlags::empty() } else { MsFlags::MS_REC };
    mount(Some(from.as_str()), at, NONE, MsFlags::MS_BIND | depth, NONE)
        .map_err(|error| because(&format!("cannot show {}", wanted.at().shown()), error))?;
    if read_only {
        let flags =
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | options_in_force(at)?;
        mount(NONE, at, NONE, flags, NONE).map_err(|error| {
            because(&format!("cannot make {} read-only", wanted.at().shown()), error)
        })?;
    }
    Ok(())
}

/// Shows what was mounted when it was opened, unless the captured directory is of a moment when nothing was
/// mounted in it, or it has been unmounted since: then the kernel does not show it again (EINVAL).
fn show_if_mounted(source: &File, wanted: &PrivateMount, at: &Path) -> io::Result<()> {
    match show(source, wanted, at, false) {
        Err(error) if mounts::is_absent(&error) => Ok(()),
        Err(error)
            if error.kind() == io::ErrorKind::InvalidInput
                && !mounts::mount_points()?.iter().any(|mounted| mounted == wanted.at()) =>
        {
            Ok(())
        }
        shown => shown,
    }
}

fn mount_device(wanted: &PrivateMount, at: &Path, workplace: &Path) -> io::Result<()> {
    let PrivateMount::Device { device, file_system, options, directory, access, .. } = wanted
    else {
        return Ok(());
    };
    let refused = |error| {
        let what = format!(
            "cannot mount {} ({file_system}, {options}) at {}",
            device.shown(),
            wanted.at().shown()
        );
        because(&what, error)
    };
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    match access {
        Access::Read => flags |= MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC,
        Access::ReadAndExecute => flags |= MsFlags::MS_RDONLY,
        Access::Write => {}
    }
    let options = Some(options.as_str()).filter(|options| !options.is_empty());
    if workplace.as_os_str().is_empty() {
        return mount(Some(device), at, Some(file_system.as_str()), flags, options)
            .map_err(refused);
    }
    // Not at its place at once: the kernel refuses a file system over a mount of the same one, which every
    // subvolume of a btrfs is.
    let part = workplace.join(PART);
    mount(Some(device), &part, Some(file_system.as_str()), flags, options).map_err(refused)?;
    let shown = directory.as_ref().map_or_else(|| part.clone(), |path| below(&part, path));
    // By descriptor, because what is mounted next may hide the workplace itself.
    let whole = held(&part)?;
    mount(Some(&shown), at, NONE, MsFlags::MS_BIND, NONE).map_err(refused)?;
    umount2(by_descriptor(&whole).as_str(), MntFlags::MNT_DETACH).map_err(refused)
}

/// Makes what was put together at `workplace` the root, and lets go of the old one.
fn take_root(workplace: &Path) -> io::Result<()> {
    let refused = |error| because("cannot make the captured root the root", error);
    nix::unistd::chdir(workplace).map_err(refused)?;
    // The old root comes to lie on top of the new one and is then detached; no directory is needed for it.
    nix::unistd::pivot_root(".", ".").map_err(refused)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(refused)?;
    nix::unistd::chdir("/").map_err(refused)
}

fn below(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path.strip_prefix("/").unwrap_or(path))
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

    #[test]
    fn what_is_unmounted_while_the_view_is_made_is_left_out() {
        if !crate::host::sys::may_as_root("private mounts") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (from, at) = (dir.path().join("from"), dir.path().join("at"));
        for path in [&from, &at] {
            std::fs::create_dir(path).unwrap();
        }
        let wanted = PrivateMount::Mounted { at: from.clone() };
        // The namespace ends with its thread.
        let result = std::thread::spawn(move || {
            detach().unwrap();
            mount(Some("test"), &from, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
            let source = held(&from).unwrap();
            show_if_mounted(&source, &wanted, &at).unwrap();
            let was_shown = mounts::mount_points().unwrap().contains(&at);
            for path in [&at, &from] {
                umount2(path, MntFlags::MNT_DETACH).unwrap();
            }
            let gone = show_if_mounted(&source, &wanted, &at);
            // What cannot be shown for another reason is an error.
            mount(Some("test"), &from, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
            let refused = show_if_mounted(&source, &wanted, &at);
            (was_shown, gone.is_ok(), refused.is_err())
        });
        assert_eq!(result.join().unwrap(), (true, true, true));
    }
}
