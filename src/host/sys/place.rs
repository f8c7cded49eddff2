//! Moving what was laid out into place, by descriptors from one name to the next.
//!
//! A name below a destination may be changed by its owner at any moment: a directory becomes a link to another
//! one. So no path is ever resolved here. Each directory is opened by its name in the one above, never through a
//! link (`openat2`), and what happens then happens relative to that descriptor. Whoever moves it meanwhile moves
//! our work with it, within what was his to move.
//!
//! An entry replaces what has its name by one `rename`; a directory and something else change places by one
//! exchange. Between any two calls, each name leads to the old or to the new.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{
    AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, readlinkat, renameat,
    renameat2,
};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::syncfs;

use super::{attributes, identity_of_made, is_identical};
use crate::host::spec::quote;
use crate::host::{Placed, Placement, Refused};
use crate::model::shown::Show;
use crate::model::undo::Identity;

/// How many refused entries are kept; the rest is counted.
const KEPT: usize = 100;

/// How often an entry is looked at again that changed between the look and the move.
const TRIES: u32 = 5;

/// Asked before each change. An error of the kind `Interrupted` ends everything there; any other one is the
/// failure of that change.
pub(in crate::host) type Step<'a> = &'a mut dyn FnMut() -> io::Result<()>;

/// Opens a directory that must be this one, with no link as its last name.
///
/// # Errors
/// When it cannot be opened, or is another one.
pub(in crate::host) fn open_identical(path: &Path, identity: &Identity) -> io::Result<File> {
    let directory =
        File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)?;
    if is_identical(identity, &directory.metadata()?) {
        return Ok(directory);
    }
    let text = format!("{} is not the directory any more that it was", path.shown());
    Err(io::Error::other(text))
}

/// Opens a directory by its name in another one, never through a link.
fn open_directory(above: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    open_beneath(&above, Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

fn open_beneath(above: &impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match openat2(above, path, OpenHow::new().flags(flags).resolve(resolve)) {
        // Before Linux 5.6. One name at a time, it comes to the same.
        Err(Errno::ENOSYS) => {
            let mut found: Option<OwnedFd> = None;
            let mut names = path.components().peekable();
            while let Some(Component::Normal(name)) = names.next() {
                let last = names.peek().is_none();
                let on_the_way = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
                let flags = if last { flags } else { on_the_way | OFlag::O_CLOEXEC };
                found = Some(match &found {
                    Some(above) => openat(above, name, flags, Mode::empty())?,
                    None => openat(above, name, flags, Mode::empty())?,
                });
            }
            found.ok_or(Errno::EINVAL)
        }
        opened => opened,
    }
}

/// What is at a name; `None` when nothing is.
fn stat(above: impl AsFd, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(above, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_directory(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode & libc::S_IFMT) == SFlag::S_IFDIR
}

/// Whether both directories have a link of that name to the same path.
fn is_same_link(one: impl AsFd, other: impl AsFd, name: &OsStr) -> bool {
    match (readlinkat(one, name), readlinkat(other, name)) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// The names in a held directory.
///
/// # Errors
/// When one of them cannot be read: then none is told.
pub(in crate::host) fn names_in(directory: impl AsFd) -> io::Result<Vec<OsString>> {
    let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// What is in a name's way, in words.
fn kind_of(found: &FileStat) -> &'static str {
    match SFlag::from_bits_truncate(found.st_mode & libc::S_IFMT) {
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFREG => "a file",
        SFlag::S_IFIFO => "a pipe",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    }
}

/// Carries out a placement; see [`Placement`].
///
/// # Errors
/// When it could not begin: a directory is not the one that it was, what was laid out cannot be made durable. And
/// of the kind `Interrupted` when `step` ended it: what was moved by then stays.
pub(in crate::host) fn place(placement: &Placement, step: Step<'_>) -> io::Result<Placed> {
    let destination = open_identical(&placement.destination, &placement.identity)?;
    let staged = placement
        .staged
        .iter()
        .map(|staged| Ok((staged.at.as_path(), open_identical(&staged.path, &staged.identity)?)))
        .collect::<io::Result<Vec<_>>>()?;
    // Before a name leads to it, what it leads to must be on the disk.
    for (_, directory) in &staged {
        syncfs(directory)?;
    }
    let mut mover = Mover { placement, staged: &staged, step, placed: Placed::default() };
    if let Some((_, base)) = staged.iter().find(|(at, _)| at.as_os_str().is_empty()) {
        mover.directory(base, &destination, Path::new(""))?;
    }
    let mut placed = mover.placed;
    for path in placement.named.iter().filter(|path| !path.as_os_str().is_empty()) {
        let is_passed_over = placed.passed_over.iter().any(|left| path.starts_with(&left.path));
        if !is_passed_over && open_beneath(&destination, path, OFlag::O_PATH).is_err() {
            placed.missing.push(path.clone());
        }
    }
    syncfs(&destination)?;
    for (_, directory) in &staged {
        syncfs(directory)?;
    }
    Ok(placed)
}

struct Mover<'a> {
    placement: &'a Placement,
    staged: &'a [(&'a Path, File)],
    step: Step<'a>,
    placed: Placed,
}

/// How one try to put an entry into place ended.
enum Tried {
    /// It is done, or left to the entries in it.
    Done,
    /// It is a directory on both sides: what is in it comes next, or has come.
    Merge,
    /// It cannot be, for this reason.
    Refused(String),
    /// What is there is in use, as this.
    PassedOver(String),
}

impl Mover<'_> {
    /// Moves everything in one staged directory into one that exists.
    fn directory(&mut self, from: impl AsFd, to: impl AsFd, path: &Path) -> io::Result<()> {
        let (from, to) = (from.as_fd(), to.as_fd());
        let names = match names_in(from) {
            Ok(names) => names,
            Err(error) => {
                self.refuse(path, error.to_string());
                return Ok(());
            }
        };
        for name in names {
            let path = path.join(&name);
            for left in (0..TRIES).rev() {
                let tried = match self.entry(from, to, &name, &path) {
                    Ok(Tried::Merge) => self.merge(from, to, &name, &path),
                    tried => tried,
                };
                match tried {
                    Ok(Tried::Done | Tried::Merge) => self.placed.entries += 1,
                    Ok(Tried::Refused(reason)) => self.refuse(&path, reason),
                    Ok(Tried::PassedOver(what)) => {
                        self.placed.passed_over.push(Refused { path: path.clone(), reason: what });
                    }
                    // It is another thing than it was a moment ago.
                    Err(error) if is_changed(&error) && left > 0 => continue,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                    Err(error) => {
                        let reason = self.reason(to, &name, &path, &error);
                        self.refuse(&path, reason);
                    }
                }
                break;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: impl AsFd,
        to: impl AsFd,
        name: &OsStr,
        path: &Path,
    ) -> io::Result<Tried> {
        let Some(new) = stat(&from, name)? else {
            return Ok(Tried::Refused("it went away while it was moved".into()));
        };
        let old = stat(&to, name)?;
        if let Some(what) = old.as_ref().and_then(|old| self.in_use(old))
            && !is_same_link(&from, &to, name)
        {
            // A link stays, and so does all that it leads to; what the copy has below its name is lost to it.
            let is_way_to_more =
                is_directory(&new) && old.as_ref().is_some_and(|old| !is_directory(old));
            return Ok(match is_way_to_more {
                true => Tried::Refused(format!(
                    "it is {what}, which is in use and is not followed, and the copy has a directory there — restore that to another directory with --to"
                )),
                false => Tried::PassedOver(what),
            });
        }
        let is_named = self.is_named(path);
        match (is_directory(&new), &old) {
            (true, Some(old)) if is_directory(old) => return Ok(Tried::Merge),
            (true, Some(old)) if !is_named => {
                return Ok(Tried::Refused(format!(
                    "{} is there where the copy has a directory, and it is not followed",
                    kind_of(old)
                )));
            }
            (true, Some(_)) => {
                (self.step)()?;
                exchange(&from, &to, name)?;
            }
            (false, Some(old)) if is_directory(old) => {
                if !self.clear(&from, &to, name)? {
                    return Ok(Tried::Refused(
                        "a directory with something in it is there where the copy has none; move it away first"
                            .into(),
                    ));
                }
            }
            (true, None) => {
                (self.step)()?;
                into_nothing(&from, &to, name)?;
            }
            (false, Some(_) | None) => {
                (self.step)()?;
                renameat(&from, name, &to, name)?;
            }
        }
        Ok(Tried::Done)
    }

    /// Puts something in the place of an empty directory. Answers whether it was empty.
    fn clear(&mut self, from: impl AsFd, to: impl AsFd, name: &OsStr) -> io::Result<bool> {
        if !names_in(open_directory(&to, name)?)?.is_empty() {
            return Ok(false);
        }
        (self.step)()?;
        exchange(&from, &to, name)?;
        // Something may have come into it meanwhile. It is with us now, and belongs back.
        if names_in(open_directory(&from, name)?)?.is_empty() {
            return Ok(true);
        }
        exchange(&from, &to, name)?;
        Ok(false)
    }

    fn merge(
        &mut self,
        from: impl AsFd,
        to: impl AsFd,
        name: &OsStr,
        path: &Path,
    ) -> io::Result<Tried> {
        let laid_out = open_directory(&from, name)?;
        let there = open_directory(&to, name)?;
        let is = fstat(&there)?;
        // It is held now, and may be another one than was looked at.
        if let Some(what) = self.in_use(&is) {
            return Ok(Tried::PassedOver(what));
        }
        let own = self.staged.iter().find(|(at, _)| *at == path);
        for (_, staged) in self.staged {
            let staged = staged.metadata()?;
            if (staged.dev(), staged.ino()) == (is.st_dev, is.st_ino) {
                return Err(io::Error::other("it has the name of a directory that is ours"));
            }
        }
        if let Some((_, staged)) = own {
            let wanted = fstat(staged)?;
            self.directory(staged, &there, path)?;
            self.adopt(staged, &wanted, &there, path)?;
            return Ok(Tried::Merge);
        }
        // The directory that a mount hides is not the one that the copy speaks of, and nothing can be moved
        // across: what is in it is refused one by one.
        let is_elsewhere =
            self.placement.mounted.iter().any(|at| at == path) || is.st_dev != fstat(&to)?.st_dev;
        // Their times change when what is in them goes.
        let wanted = fstat(&laid_out)?;
        self.directory(&laid_out, &there, path)?;
        if is_elsewhere {
            return Ok(Tried::Merge);
        }
        // Where nothing of what is in it can be, it does not change either.
        if let Some(why) = self.closed(path).filter(|_| self.is_named(path)) {
            return Ok(Tried::Refused(why.to_owned()));
        }
        self.adopt(&laid_out, &wanted, &there, path)?;
        Ok(Tried::Merge)
    }

    /// Gives a directory that the copy names the owner, mode and so on that it has there.
    fn adopt(
        &mut self,
        from: impl AsFd,
        wanted: &FileStat,
        to: impl AsFd,
        path: &Path,
    ) -> io::Result<()> {
        if self.is_named(path) {
            (self.step)()?;
            attributes::copy(from, wanted, to)?;
        }
        Ok(())
    }

    /// What something that was found is to this program, if it is in use.
    fn in_use(&self, found: &FileStat) -> Option<String> {
        let found = Identity::Inode { device: found.st_dev, inode: found.st_ino };
        let in_use = self.placement.in_use.iter().find(|held| held.identity == found);
        in_use.map(|held| held.what.clone())
    }

    fn is_named(&self, path: &Path) -> bool {
        let named = &self.placement.named;
        named.is_empty() || named.iter().any(|named| path.starts_with(named))
    }

    /// Why an entry stays what it is, and what to do about it.
    fn reason(&self, to: BorrowedFd<'_>, name: &OsStr, path: &Path, error: &io::Error) -> String {
        if let Some(closed) = self.closed(path) {
            return closed.to_owned();
        }
        let at = self.placement.destination.join(path);
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBUSY) => {
                format!("it is a mount point — unmount it (umount {}) and restore again", quote(at))
            }
            Some(Errno::EXDEV) => {
                "another file system is mounted there, which was not foreseen — restore again".into()
            }
            Some(Errno::EINVAL) => {
                "it is another sort of thing there, and this file system cannot exchange the two; move it away first"
                    .into()
            }
            Some(Errno::EPERM) => match sealed(to, name, &at) {
                Some((what, command)) => format!("{what} — say {command} and restore again"),
                None => format!("{error} — if it is a swap file in use, say swapoff first"),
            },
            _ => error.to_string(),
        }
    }

    /// Why nothing can be stored where an entry belongs, if that is known.
    fn closed(&self, path: &Path) -> Option<&str> {
        let of = |at: &Path| self.placement.closed.iter().find(|closed| closed.path == at);
        let around = self.placement.mounted.iter().filter(|at| path != *at && path.starts_with(at));
        let around = around.max_by_key(|at| at.components().count());
        let closed = of(path).or_else(|| of(around.map_or(Path::new(""), PathBuf::as_path)))?;
        Some(&closed.reason)
    }

    fn refuse(&mut self, path: &Path, reason: String) {
        self.placed.refused_count += 1;
        if self.placed.refused.len() < KEPT {
            self.placed.refused.push(Refused { path: path.to_owned(), reason });
        }
    }
}

/// Whether the error says that there is another thing now than there was when it was looked at.
fn is_changed(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(
        number,
        Some(
            Errno::EEXIST
                | Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::EISDIR
                | Errno::ELOOP
                | Errno::ENOTEMPTY
        )
    )
}

/// Which attribute (chattr(1)) of an entry, or of the directory that it is in, keeps everybody from changing it,
/// and the command that takes it away.
fn sealed(directory: BorrowedFd<'_>, name: &OsStr, at: &Path) -> Option<(String, String)> {
    let above = at.parent().unwrap_or(at);
    for (name, at, whose) in [(name, at, "it"), (OsStr::new(""), above, "its directory")] {
        let seal = attributes::seal(directory, name).ok().flatten();
        if let Some((word, letter)) = seal {
            return Some((format!("{whose} is {word}"), format!("chattr -{letter} {}", quote(at))));
        }
    }
    None
}

fn exchange(from: impl AsFd, to: impl AsFd, name: &OsStr) -> nix::Result<()> {
    renameat2(from, name, to, name, RenameFlags::RENAME_EXCHANGE)
}

/// Moves a directory to a name at which nothing is.
fn into_nothing(from: impl AsFd, to: impl AsFd, name: &OsStr) -> nix::Result<()> {
    match renameat2(&from, name, &to, name, RenameFlags::RENAME_NOREPLACE) {
        // A file system that does not know the flag. Only an empty directory could be lost by it.
        Err(Errno::EINVAL) => renameat(from, name, to, name),
        moved => moved,
    }
}

/// Makes a directory in one that others may be able to write to, and answers with what it is.
///
/// # Errors
/// When there is something of that name already, or somebody puts something else there while it is made.
pub(in crate::host) fn create(path: &Path, mode: u32) -> io::Result<Identity> {
    let (above, name) = above(path)?;
    // Nobody else gets in before it has its mode, which is not for the process's umask to decide.
    nix::sys::stat::mkdirat(&above, name, Mode::from_bits_truncate(mode & 0o700))?;
    let made = File::from(open_directory(&above, name)?);
    let found = made.metadata()?;
    if found.uid() != nix::unistd::geteuid().as_raw() || !names_in(&made)?.is_empty() {
        let text = "somebody put something else in its place while it was made";
        return Err(io::Error::other(text));
    }
    nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(mode))?;
    Ok(identity_of_made(&found))
}

/// The directory that holds the last name of a path, and that name.
fn above(path: &Path) -> io::Result<(File, &OsStr)> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let above =
        File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(above)?;
    Ok((above, name))
}

#[cfg(test)]
mod tests;
