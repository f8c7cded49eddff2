//! A walk over a tree in the order of its paths, with all that can be said of each entry.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::host::extended_attributes;
use crate::model::shown::Show;
use crate::tools::manifest::Described;
use crate::tools::object::Digesting;

use super::piped;

/// The inode by which a snapshot shows another subvolume that lay there: an empty directory, which nobody sends.
const SHADOW_OF_A_SUBVOLUME: u64 = 2;

/// A walk. What is another file system or subvolume is not entered; symbolic links are not followed. It holds the names
/// of the directories that it is in, and of the files with several names those that it has not met all of.
pub struct Walk<'a> {
    root: &'a Path,
    /// What every hash begins with.
    seed: u64,
    device: u64,
    /// The directories that it is in, each with the names that are yet to come, the next one last.
    open: Vec<(PathBuf, Vec<OsString>)>,
    /// The first path and how many more there are, of files that have several.
    met: HashMap<u64, (PathBuf, u64)>,
    is_begun: bool,
    /// Of the entry that was come to last.
    path: PathBuf,
}

impl<'a> Walk<'a> {
    /// A walk over a tree, in which every hash begins with a number.
    ///
    /// # Errors
    /// When there is none.
    pub fn over(root: &'a Path, seed: u64) -> anyhow::Result<Self> {
        let device = look(root)?.dev();
        Ok(Self {
            root,
            seed,
            device,
            open: Vec::new(),
            met: HashMap::new(),
            is_begun: false,
            path: PathBuf::new(),
        })
    }

    /// The path of the entry that was come to last, also when it could not be looked at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next entry, without its content; `None` at the end.
    ///
    /// # Errors
    /// When it cannot be looked at. The next call goes on behind it, and does not enter it.
    pub fn next(&mut self) -> anyhow::Result<Option<Described>> {
        if !self.is_begun {
            self.is_begun = true;
            let found = look(self.root)?;
            return self.entry(PathBuf::new(), &found).map(Some);
        }
        while let Some((directory, names)) = self.open.last_mut() {
            let Some(name) = names.pop() else {
                self.open.pop();
                continue;
            };
            let path = directory.join(name);
            self.path.clone_from(&path);
            let found = look(&self.root.join(&path))?;
            if found.is_dir() && found.ino() == SHADOW_OF_A_SUBVOLUME {
                continue;
            }
            return self.entry(path, &found).map(Some);
        }
        Ok(None)
    }

    fn entry(&mut self, path: PathBuf, found: &Metadata) -> anyhow::Result<Described> {
        let at = self.at(&path);
        if found.is_dir() && found.dev() == self.device {
            let mut names = names_in(&at)?;
            names.reverse();
            self.open.push((path.clone(), names));
        }
        let kind = kind_of(found);
        let target = match kind {
            'l' => std::fs::read_link(&at)
                .with_context(|| format!("cannot read the link {}", at.shown()))?,
            _ => PathBuf::new(),
        };
        Ok(Described {
            kind,
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            modified: (found.mtime(), found.mtime_nsec()),
            size: (kind == '-').then(|| found.size()),
            device: ['b', 'c'].contains(&kind).then(|| found.rdev()),
            target,
            same_as: self.same_as(&path, found),
            attributes: self.attributes(&at)?,
            content: None,
            path,
        })
    }

    /// Where a file was met before, by another name.
    fn same_as(&mut self, path: &Path, found: &Metadata) -> PathBuf {
        if found.is_dir() || found.nlink() < 2 {
            return PathBuf::new();
        }
        let Some((first, left)) = self.met.get_mut(&found.ino()) else {
            self.met.insert(found.ino(), (path.to_owned(), found.nlink() - 1));
            return PathBuf::new();
        };
        *left -= 1;
        let first = first.clone();
        if self.met.get(&found.ino()).is_some_and(|(_, left)| *left == 0) {
            self.met.remove(&found.ino());
        }
        first
    }

    /// The content of a file of the tree, as SHA-256 of the seed and it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn content(&self, path: &Path) -> anyhow::Result<String> {
        let at = self.at(path);
        let cannot = || cannot_read(&at);
        let (file, mut read) = (File::open(&at).with_context(cannot)?, self.digesting());
        piped::each_piece_of(file, |piece| {
            read.take(piece);
            Ok(())
        })
        .with_context(cannot)?;
        Ok(read.finish().sha256)
    }

    fn attributes(&self, at: &Path) -> anyhow::Result<Option<String>> {
        let mut all = extended_attributes(at)
            .with_context(|| format!("cannot read the extended attributes of {}", at.shown()))?;
        if all.is_empty() {
            return Ok(None);
        }
        all.sort();
        let mut read = self.digesting();
        for (name, value) in all {
            for part in [name.as_bytes(), &value] {
                read.take(&part.len().to_be_bytes());
                read.take(part);
            }
        }
        Ok(Some(read.finish().sha256))
    }

    fn digesting(&self) -> Digesting {
        let mut read = Digesting::default();
        read.take(&self.seed.to_be_bytes());
        read
    }

    fn at(&self, path: &Path) -> PathBuf {
        // Joined with nothing, it would end in a slash, and a link would be followed.
        if path.as_os_str().is_empty() { self.root.to_owned() } else { self.root.join(path) }
    }
}

/// What an entry is; a link is not followed.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn look(at: &Path) -> anyhow::Result<Metadata> {
    std::fs::symlink_metadata(at).with_context(|| format!("cannot look at {}", at.shown()))
}

/// The names in a directory, in their order.
///
/// # Errors
/// When it cannot be read.
pub(super) fn names_in(at: &Path) -> anyhow::Result<Vec<OsString>> {
    let mut names: Vec<_> = std::fs::read_dir(at)
        .and_then(|all| all.map(|entry| entry.map(|entry| entry.file_name())).collect())
        .with_context(|| cannot_read(at))?;
    names.sort();
    Ok(names)
}

/// What is said of a directory or a file that cannot be read.
pub(super) fn cannot_read(at: &Path) -> String {
    format!("cannot read {}", at.shown())
}

/// The letter that a kind of entries is told by.
pub(super) fn kind_of(found: &Metadata) -> char {
    let kind = found.file_type();
    match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_block_device() => 'b',
        () if kind.is_char_device() => 'c',
        () => '-',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let of = |path: &str| kind_of(&std::fs::symlink_metadata(Path::new(path)).unwrap());
        assert_eq!((of("/"), of("/proc/self/exe"), of("/dev/null")), ('d', 'l', 'c'));
        assert_eq!(of("/proc/version"), '-');
    }

    #[test]
    fn paths_come_in_their_order_and_links_are_known() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x", "a/y/z", "a.b", "b"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "one").unwrap();
        }
        std::fs::hard_link(dir.path().join("a/x"), dir.path().join("c")).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("d")).unwrap();
        let mut walk = Walk::over(dir.path(), 7).unwrap();
        let mut all = Vec::new();
        while let Some(entry) = walk.next().unwrap() {
            all.push(entry);
        }
        let paths: Vec<&str> = all.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["", "a", "a/x", "a/y", "a/y/z", "a.b", "b", "c", "d"]);
        assert!(all.is_sorted_by(|one, next| one.path < next.path), "as paths are compared");
        assert_eq!(all[7].same_as, Path::new("a/x"));
        assert_eq!((all[8].kind, all[8].target.as_path()), ('l', Path::new("/nowhere")));
        assert!(walk.met.is_empty());
        let one = crate::tools::object::Digest::of(b"\0\0\0\0\0\0\0\x07one").sha256;
        assert_eq!(walk.content(Path::new("a/x")).unwrap(), one);
    }
}
