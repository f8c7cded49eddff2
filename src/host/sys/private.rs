//! The private mount namespace of one thread, and what a process sees in it.
//!
//! The namespace is a *slave* of the host's: an unmount on the host still reaches it, so that no file system
//! stays pinned, while nothing mounted in it is ever seen outside. It ends with its last process, so there is
//! nothing to unmount after a crash.
//!
//! Everything that a view shows of the host is opened before the first mount is made, because a mount may
//! hide it: the engine's cache below a captured path is one example, `/proc` below a captured root another.
//!
//! Neither what is shown nor the place at which it is shown is ever reached through a link: both paths were
//! found without one, and whoever owns a directory on the way may have put one there since.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MntFlags, umount2};

use super::namespace::{because, detach};
use super::{attach, mounts, straight};
use crate::host::{Access, PrivateMount, PrivateView};
use crate::model::shown::Show;

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
    put_together(view, &mut |_, error| Err(error))
}

/// Puts a view together in a namespace that ends at once. Answers with the places at which a device cannot be
/// shown, because there is no such directory in what is shown around it.
///
/// # Errors
/// When something else is in the way.
pub(in crate::host) fn rehearse(view: &PrivateView) -> io::Result<Vec<PathBuf>> {
    std::thread::scope(|scope| {
        let rehearsal = scope.spawn(|| {
            let mut missing = Vec::new();
            put_together(view, &mut |at, error| {
                if !straight::is_elsewhere(&error) {
                    return Err(error);
                }
                missing.push(at.to_owned());
                Ok(())
            })?;
            Ok(missing)
        });
        rehearsal.join().map_err(|_| io::Error::other("the thread that rehearses it panicked"))?
    })
}

/// Puts a view together for the calling thread. `not_placed` is told of every device that does not find its place.
fn put_together(
    view: &PrivateView,
    not_placed: &mut dyn FnMut(&Path, io::Error) -> io::Result<()>,
) -> io::Result<()> {
    detach()?;
    let mounted = mounts::mount_points()?;
    let open = |mount| open_source(mount, &mounted);
    let sources = view.mounts.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    // Held, because what is mounted may hide their paths.
    let workplace = |name: &str| {
        let path = view.workplace.join(name);
        straight::open(&path, OFlag::O_PATH).map_err(|error| {
            because(format!("cannot open {} to mount captures there", path.shown()), &error)
        })
    };
    let part = match view.workplace.as_os_str().is_empty() {
        true => None,
        false => Some(workplace(PART)?),
    };
    let mut places = match view.mounts.iter().any(|mount| mount.at() == Path::new("/")) {
        true => Places::InNewRoot { bare: workplace(ROOT)?, root: None },
        false => Places::AsTheyAre,
    };
    for (mount, source) in view.mounts.iter().zip(sources) {
        match (mount, source) {
            (PrivateMount::Bind { read_only, .. }, Some(source)) => {
                show(&source, mount, &mut places, *read_only)?;
            }
            (PrivateMount::Mounted { .. }, Some(source)) => {
                show_if_mounted(&source, mount, &mut places)?;
            }
            (PrivateMount::Unlinked { at, .. }, Some(source)) => {
                show_unlinked(&source, at, &mut places)
                    .map_err(|error| not_shown(mount, &error))?;
            }
            (
                PrivateMount::Bind { .. }
                | PrivateMount::Mounted { .. }
                | PrivateMount::Unlinked { .. },
                None,
            ) => {}
            (PrivateMount::Device { .. }, _) => {
                let tree = device_tree(mount, part.as_ref())?;
                if let Err(error) = places.mount(tree, mount.at()) {
                    not_placed(mount.at(), error).map_err(|error| not_shown(mount, &error))?;
                }
            }
        }
    }
    match places {
        Places::AsTheyAre => Ok(()),
        Places::InNewRoot { root, .. } => take_root(root.as_ref()),
    }
}

/// Where the paths of a view are.
enum Places {
    /// In the root that the thread has.
    AsTheyAre,
    /// In a root that is put together first.
    InNewRoot {
        /// The empty directory that it is mounted on.
        bare: File,
        /// What is mounted there.
        root: Option<OwnedFd>,
    },
}

impl Places {
    /// Mounts a tree at a path.
    fn mount(&mut self, tree: OwnedFd, at: &Path) -> io::Result<()> {
        match self {
            Places::AsTheyAre => attach::attach(&tree, straight::open(at, OFlag::O_PATH)?),
            Places::InNewRoot { bare, root } => {
                let below = at.strip_prefix("/").unwrap_or(at);
                match root {
                    Some(root) => {
                        attach::attach(&tree, straight::open_beneath(root, below, OFlag::O_PATH)?)?;
                    }
                    None => attach::attach(&tree, bare)?,
                }
                // It is found by its mount, and not by the directory that is below that.
                if below.as_os_str().is_empty() {
                    *root = Some(tree);
                }
                Ok(())
            }
        }
    }
}

/// What is shown of the host, held by descriptor, which leads to it whatever is mounted over its path later.
/// `mounted` are the host's mount points.
fn open_source(mount: &PrivateMount, mounted: &[PathBuf]) -> io::Result<Option<File>> {
    match mount {
        PrivateMount::Bind { from, .. } | PrivateMount::Unlinked { from, .. } => {
            held(from).map(Some).map_err(|error| unseen(from, &error))
        }
        // The directory that a mount leaves behind belongs to what is around it, which is captured.
        PrivateMount::Mounted { at } if mounted.contains(at) => match held(at) {
            Ok(held) => Ok(Some(held)),
            Err(error) if straight::is_elsewhere(&error) => Ok(None),
            Err(error) => Err(unseen(at, &error)),
        },
        PrivateMount::Mounted { .. } | PrivateMount::Device { .. } => Ok(None),
    }
}

/// A path, held by a descriptor that does nothing but lead to it.
fn held(path: &Path) -> io::Result<File> {
    straight::open(path, OFlag::O_PATH)
}

fn unseen(path: &Path, error: &io::Error) -> io::Error {
    because(format!("cannot open {} to show it", path.shown()), error)
}

fn show(
    source: &File,
    wanted: &PrivateMount,
    places: &mut Places,
    read_only: bool,
) -> io::Result<()> {
    mount_copy(source, wanted.at(), places, read_only).map_err(|error| not_shown(wanted, &error))
}

fn mount_copy(source: &File, at: &Path, places: &mut Places, read_only: bool) -> io::Result<()> {
    let tree = attach::copy(source, !read_only)?;
    if read_only {
        attach::make_read_only(&tree)?;
    }
    places.mount(tree, at)
}

/// Shows something at a place where the kernel then follows no symbolic link in it.
fn show_unlinked(source: &File, at: &Path, places: &mut Places) -> io::Result<()> {
    let tree = attach::copy(source, false)?;
    attach::restrict(&tree, libc::MOUNT_ATTR_NOSYMFOLLOW).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => {
            because("this kernel cannot keep links from being followed, Linux 5.14 can", &error)
        }
        _ => error,
    })?;
    places.mount(tree, at)
}

/// Shows what was mounted when it was opened, unless the captured directory is of a moment when nothing was
/// mounted in it, or it has been unmounted since: then the kernel does not show it again (EINVAL).
fn show_if_mounted(source: &File, wanted: &PrivateMount, places: &mut Places) -> io::Result<()> {
    match mount_copy(source, wanted.at(), places, false) {
        Err(error) if straight::is_elsewhere(&error) => Ok(()),
        Err(error)
            if error.kind() == io::ErrorKind::InvalidInput
                && !mounts::mount_points()?.iter().any(|mounted| mounted == wanted.at()) =>
        {
            Ok(())
        }
        shown => shown.map_err(|error| not_shown(wanted, &error)),
    }
}

fn not_shown(wanted: &PrivateMount, error: &io::Error) -> io::Error {
    because(format!("cannot show {}", wanted.at().shown()), error)
}

/// What is shown of a device, mounted nowhere yet; `part` is where the whole is mounted while a directory of
/// it is taken out.
fn device_tree(wanted: &PrivateMount, part: Option<&File>) -> io::Result<OwnedFd> {
    let PrivateMount::Device { device, file_system, options, directory, access, .. } = wanted
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let refused = |error| {
        let what = format!(
            "cannot mount {} ({file_system}, {options}) at {}",
            device.shown(),
            wanted.at().shown()
        );
        because(what, &error)
    };
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    match access {
        Access::Read => attributes |= libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC,
        Access::ReadAndExecute => attributes |= libc::MOUNT_ATTR_RDONLY,
    }
    let wanted =
        attach::Options { kind: file_system, device, options, read_only: true, attributes };
    let whole = attach::file_system(&wanted).map_err(refused)?;
    let Some(directory) = directory else { return Ok(whole) };
    let part = part.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)).map_err(refused)?;
    directory_of(&whole, part, directory).map_err(refused)
}

/// One directory of a file system. The kernel copies only what is mounted somewhere.
fn directory_of(whole: &OwnedFd, part: &File, directory: &Path) -> io::Result<OwnedFd> {
    attach::attach(whole, part)?;
    let below = directory.strip_prefix("/").unwrap_or(directory);
    let tree = straight::open_beneath(whole, below, OFlag::O_PATH)
        .and_then(|directory| attach::copy(directory, false));
    // By descriptor, because what is mounted may hide the workplace itself.
    let at = format!("/proc/thread-self/fd/{}", whole.as_raw_fd());
    umount2(at.as_str(), MntFlags::MNT_DETACH)?;
    tree
}

/// Makes what was put together the root, and lets go of the old one.
fn take_root(root: Option<&OwnedFd>) -> io::Result<()> {
    let refused =
        |error: nix::Error| because("cannot make the captured root the root", &error.into());
    let root = root.ok_or_else(|| refused(nix::Error::ENOENT))?;
    nix::unistd::fchdir(root).map_err(refused)?;
    // The old root comes to lie on top of the new one and is then detached; no directory is needed for it.
    nix::unistd::pivot_root(".", ".").map_err(refused)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(refused)?;
    nix::unistd::chdir("/").map_err(refused)
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};

    use super::*;

    #[test]
    fn what_is_unmounted_while_the_view_is_made_is_left_out() {
        if !crate::host::sys::may_as_root("private mounts") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let (from, root) = (real.join("from"), real.join("root"));
        let at = root.join(from.strip_prefix("/").unwrap());
        for path in [&from, &at] {
            std::fs::create_dir_all(path).unwrap();
        }
        let wanted = PrivateMount::Mounted { at: from.clone() };
        // The namespace ends with its thread.
        let result = std::thread::spawn(move || {
            detach().unwrap();
            mount(Some("test"), &from, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            let source = held(&from).unwrap();
            let held_root = || straight::open(&root, OFlag::O_PATH).unwrap();
            let mut places =
                Places::InNewRoot { bare: held_root(), root: Some(held_root().into()) };
            show_if_mounted(&source, &wanted, &mut places).unwrap();
            let was_shown = mounts::mount_points().unwrap().contains(&at);
            for path in [&at, &from] {
                umount2(path, MntFlags::MNT_DETACH).unwrap();
            }
            let gone = show_if_mounted(&source, &wanted, &mut places);
            // What cannot be shown for another reason is an error.
            mount(Some("test"), &from, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            let refused = show_if_mounted(&source, &wanted, &mut places);
            (was_shown, gone.is_ok(), refused.is_err())
        });
        assert_eq!(result.join().unwrap(), (true, true, true));
    }

    #[test]
    fn a_link_in_the_place_of_what_was_found_is_never_followed() {
        if !crate::host::sys::may_as_root("private mounts") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        for name in ["mine", "theirs/deep", "user"] {
            std::fs::create_dir_all(real.join(name)).unwrap();
        }
        std::fs::write(real.join("theirs/secret"), "secret").unwrap();
        std::os::unix::fs::symlink(real.join("theirs"), real.join("user/link")).unwrap();
        let bind = |from: &str, at: &str| PrivateMount::Bind {
            from: real.join(from),
            at: real.join(at),
            read_only: true,
        };
        let entered = |mount: PrivateMount| {
            let view = PrivateView { mounts: vec![mount], ..PrivateView::default() };
            std::thread::spawn(move || enter(&view).map_err(|error| error.to_string()))
                .join()
                .unwrap()
        };
        assert_eq!(entered(bind("mine", "theirs")), Ok(()));
        for (from, at) in [
            ("mine", "user/link"),
            ("mine", "user/link/deep"),
            ("user/link", "mine"),
            ("user/link/deep", "mine"),
        ] {
            let refused = entered(bind(from, at)).unwrap_err();
            assert!(refused.contains("user/link"), "{from} at {at}: {refused}");
        }
        // What nobody reads is left out.
        let mounted = |at: &str| PrivateMount::Mounted { at: real.join(at) };
        assert_eq!(entered(mounted("user/link")), Ok(()));
    }
}
