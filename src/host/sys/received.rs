//! Subvolumes that were received into a directory: made durable, named and deleted there.
//!
//! The way to the directory is the administrator's; in it, a subvolume is known by its number and UUID.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nix::unistd::syncfs;

use super::snapshots::{delete_in, delete_whole_in, is_same, make_in, subvolume_at};
use super::straight;
use super::subvolumes::{self, Subvolume};
use crate::host::WriteWatch;

/// Writes out the file system that holds a directory, by a descriptor that was open before what counts was written; else by a
/// new one.
///
/// # Errors
/// When something of what was written to it since is lost (since Linux 5.8), or it cannot be written out.
pub(in crate::host) fn flush(path: &Path, opened: Option<&File>) -> io::Result<()> {
    match opened {
        Some(opened) => Ok(syncfs(opened)?),
        None => Ok(syncfs(&open(path)?)?),
    }
}

/// Directories whose file systems are written to, each with the descriptor by which it is told what was lost there.
#[derive(Default)]
pub(in crate::host) struct Watched(Mutex<HashMap<PathBuf, Weak<File>>>);

/// A watch over one of them: the descriptor, which is closed with the last one.
pub(in crate::host) struct Watch(#[expect(dead_code, reason = "held open")] Arc<File>);

impl WriteWatch for Watch {}

impl Watched {
    /// Begins to watch, or goes on with it.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub(in crate::host) fn watch(&self, path: &Path) -> io::Result<Watch> {
        let mut watched = self.held();
        watched.retain(|_, file| file.strong_count() > 0);
        if let Some(file) = watched.get(path).and_then(Weak::upgrade) {
            return Ok(Watch(file));
        }
        let file = Arc::new(open(path)?);
        watched.insert(path.to_owned(), Arc::downgrade(&file));
        Ok(Watch(file))
    }

    /// The descriptor of a directory that is watched.
    pub(in crate::host) fn of(&self, path: &Path) -> Option<Arc<File>> {
        self.held().get(path).and_then(Weak::upgrade)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renames a subvolume within its directory, if it is still the one that was found. Answers whether it was.
///
/// # Errors
/// `AlreadyExists` when something has that name; or when the kernel refuses it.
pub(in crate::host) fn rename(path: &Path, found: &Subvolume, to: &str) -> io::Result<bool> {
    let (directory, name) = above(path)?;
    if to.is_empty() || to == "." || to == ".." || to.contains(['/', '\0']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !subvolume_at(&directory, name)?.is_some_and(|there| is_same(&there, found)) {
        return Ok(false);
    }
    renameat2(&directory, name, &directory, to, RenameFlags::RENAME_NOREPLACE)?;
    directory.sync_all()?;
    Ok(subvolume_at(&directory, to.as_ref())?.is_some_and(|there| is_same(&there, found)))
}

/// Deletes a subvolume, if it is still the one that was found. Answers whether it was.
///
/// # Errors
/// When the kernel refuses it, or it is still there afterwards.
pub(in crate::host) fn delete(path: &Path, found: &Subvolume) -> io::Result<bool> {
    let (directory, name) = above(path)?;
    delete_in(&directory, found, name)
}

/// Makes a writable snapshot of a subvolume, if that is still the one that was found; `None` when it is not.
///
/// # Errors
/// `AlreadyExists` when something is there; or when the kernel refuses it.
pub(in crate::host) fn writable(
    path: &Path,
    found: &Subvolume,
    at: &Path,
) -> io::Result<Option<Subvolume>> {
    let source = open(path)?;
    if !subvolumes::of(&source)?.is_some_and(|there| is_same(&there, found)) {
        return Ok(None);
    }
    let (directory, name) = above(at)?;
    make_in(&directory, name, &source, 0).map(Some)
}

/// Deletes a subvolume in a held directory of ours, with those that lie in it. Answers whether there was one.
///
/// # Errors
/// When the kernel refuses it.
pub(in crate::host) fn delete_whole(directory: &File, name: &OsStr) -> io::Result<bool> {
    let Some(found) = subvolume_at(directory, name)? else { return Ok(false) };
    delete_whole_in(directory, &found, name)
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

/// The directory that holds the last name of a path, and that name.
fn above(path: &Path) -> io::Result<(File, &OsStr)> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok((open(above)?, name))
}

fn open(directory: &Path) -> io::Result<File> {
    straight::open(directory, DIRECTORY)
}
