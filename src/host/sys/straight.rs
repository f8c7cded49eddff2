//! Paths that are walked without following any link: whoever owns a directory may put a link in the place of
//! anything in it at any moment, and a path that was found earlier would lead elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Opens a path that has no link in it. Where somebody put one, it fails with `ELOOP`.
///
/// # Errors
/// When something on the way is a link, or the path cannot be opened.
pub(in crate::host) fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    let root = File::open("/")?;
    open_beneath(&root, path.strip_prefix("/").unwrap_or(path), flags)
}

/// Opens what lies at a relative path beneath a directory, with no link in it and never outside of it; the
/// directory itself when the path is empty.
///
/// # Errors
/// See [`open`].
pub(in crate::host) fn open_beneath(
    directory: impl AsFd,
    path: &Path,
    flags: OFlag,
) -> io::Result<File> {
    walk(directory, path, flags, ResolveFlag::empty())
}

/// The same without leaving the mount that holds the directory: `EXDEV` where something else is mounted.
///
/// # Errors
/// See [`open`].
pub(in crate::host) fn open_within(
    directory: impl AsFd,
    path: &Path,
    flags: OFlag,
) -> io::Result<File> {
    walk(directory, path, flags, ResolveFlag::RESOLVE_NO_XDEV)
}

fn walk(directory: impl AsFd, path: &Path, flags: OFlag, more: ResolveFlag) -> io::Result<File> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | more,
    );
    // The kernel says EAGAIN when somebody renames something meanwhile and it cannot tell whether a `..` left
    // the directory (openat2(2)). Our paths have none, but a mount may come in between.
    loop {
        match openat2(directory.as_fd(), path, how) {
            Ok(opened) => return Ok(opened.into()),
            Err(nix::errno::Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the error says that there is nothing at the path.
pub(in crate::host) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether the error says that no such thing is there, or only behind a link that somebody put there.
pub(in crate::host) fn is_elsewhere(error: &io::Error) -> bool {
    is_absent(error) || error.raw_os_error() == Some(nix::libc::ELOOP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_is_followed_anywhere_and_nothing_outside_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("a/b")).unwrap();
        symlink(real.join("a"), real.join("link")).unwrap();
        symlink("b", real.join("a/last")).unwrap();
        let path_only = OFlag::O_PATH;
        assert!(open(&real.join("a/b"), path_only).is_ok());
        for path in ["link/b", "a/last", "absent/b"] {
            assert!(is_elsewhere(&open(&real.join(path), path_only).unwrap_err()), "{path}");
        }
        let a = open(&real.join("a"), path_only).unwrap();
        assert!(open_beneath(&a, Path::new(""), path_only).is_ok());
        assert!(open_beneath(&a, Path::new("b"), path_only).is_ok());
        assert!(open_beneath(&a, Path::new("../a"), path_only).is_err());
        assert!(open_beneath(&a, Path::new("/etc"), path_only).is_err());
    }
}
