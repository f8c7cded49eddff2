//! The names of a subvolume and what they lead to, as a chain of streams makes them: a whole one, and differences to it.
//!
//! Nothing is received for that. It holds every name, and no data: files are told apart by a number that they get when they
//! are made, and another one with each stream that writes to them.

use std::collections::btree_map::Iter;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::changes::{Difference, Differing};
use super::edits::{Edit, Edited, Time};
use crate::model::shown::Show;

/// The longest path, in bytes (`PATH_MAX` of Linux).
const LONGEST_PATH: usize = 4096;
/// The longest name, in bytes (`NAME_MAX`).
const LONGEST_NAME: usize = 255;

const ROOT: u64 = 0;

/// Why a stream cannot be received: it does something to what is not there, or not as it needs it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {}: {what}", path.shown())]
pub struct NamesError {
    /// Where in the stream.
    pub at: u64,
    /// The path below the subvolume.
    pub path: PathBuf,
    /// What is wrong.
    pub what: &'static str,
}

/// What names lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `-` file, `d` directory, `l` link, `p` pipe, `s` socket, `b` and `c` devices.
    pub kind: char,
    /// Permission bits, set-id and sticky ones included.
    pub mode: u32,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// The length of a file.
    pub size: u64,
    /// When its content was last changed, if that was told.
    pub modified: Option<Time>,
    /// When anything of it was, if that was told.
    changed: Option<Time>,
    device: u64,
    target: PathBuf,
    attributes: Vec<(u64, u64)>,
    names: u32,
    /// Another one with all that may have changed its content.
    content: u64,
    entries: Entries,
}

impl Node {
    /// As btrfs receive makes it, before anything more is told.
    fn new(kind: char, mode: u32, content: u64) -> Self {
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            modified: None,
            changed: None,
            device: 0,
            target: PathBuf::new(),
            attributes: Vec::new(),
            names: 1,
            content,
            entries: Entries::new(),
        }
    }

    /// How it differs from what was there before. `related`: whether both were made by the same streams up to some point.
    fn differs(&self, before: &Node, related: bool) -> Differs {
        let is_file = self.kind == '-';
        let is_another = self.kind != before.kind
            || self.target != before.target
            || self.device != before.device;
        let is_written = match related {
            true => self.content != before.content,
            false => (self.size, self.modified) != (before.size, before.modified),
        };
        if is_another || is_file && is_written {
            return Differs::As(Difference::Modified);
        }
        let told = |it: &Node| (it.mode, it.uid, it.gid);
        if told(self) != told(before) || self.attributes != before.attributes {
            return Differs::As(Difference::Metadata);
        }
        if self.modified != before.modified {
            return match self.kind {
                'd' => Differs::InTimesOfEntries,
                _ => Differs::As(Difference::Metadata),
            };
        }
        // Something of it was changed, and it may be the content: whoever sets a time back hides that.
        let is_doubtful = !related && is_file && self.names == before.names;
        match is_doubtful && self.changed != before.changed {
            true => Differs::As(Difference::Modified),
            false => Differs::Not,
        }
    }
}

/// The names in a directory, each with the number of what it leads to.
type Entries = BTreeMap<Box<[u8]>, u64>;

/// A directory that a walk is in, and the names that are yet to come.
type Open<'n> = (PathBuf, Iter<'n, Box<[u8]>, u64>);

/// Whether something differs.
enum Differs {
    Not,
    As(Difference),
    /// In the time alone that a directory gets with each entry that comes or goes.
    InTimesOfEntries,
}

/// All names of a subvolume.
#[derive(Debug, Clone)]
pub struct Names {
    nodes: HashMap<u64, Node>,
    next: u64,
}

impl Default for Names {
    fn default() -> Self {
        Self { nodes: [(ROOT, Node::new('d', 0o755, ROOT))].into(), next: ROOT + 1 }
    }
}

impl Names {
    /// Carries out an edit.
    ///
    /// # Errors
    /// When it cannot be done to what is there.
    pub fn take(&mut self, edited: &Edited) -> Result<(), NamesError> {
        let Edited { at, path, edit } = edited;
        self.carry_out(path, edit).map_err(|what| NamesError { at: *at, path: path.clone(), what })
    }

    /// Has what is made from now on be told apart from all that is in others.
    pub fn after(self, others: &Names) -> Names {
        Names { next: self.next.max(others.next), ..self }
    }

    fn carry_out(&mut self, path: &Path, edit: &Edit) -> Result<(), &'static str> {
        match edit {
            Edit::Make { kind, device } => {
                let mode = match kind {
                    'd' => 0o700,
                    'b' | 'c' => 0,
                    _ => 0o600,
                };
                self.make(path, |content| Node {
                    device: *device,
                    ..Node::new(*kind, mode, content)
                })
            }
            Edit::Symlink(target) => {
                let target = target.clone();
                self.make(path, |content| Node { target, ..Node::new('l', 0o777, content) })
            }
            Edit::Link(to) => self.link(path, to),
            Edit::Rename(to) => self.rename(path, to),
            Edit::Unlink => self.remove(path, false),
            Edit::Rmdir => self.remove(path, true),
            Edit::Resize(size) => {
                let file = self.file(path)?;
                if self.nodes.get(&file).is_some_and(|file| file.size != *size) {
                    self.write(file, |_| *size);
                }
                Ok(())
            }
            Edit::Write(end) => {
                let file = self.file(path)?;
                self.write(file, |size| size.max(*end));
                Ok(())
            }
            Edit::Mode(_) | Edit::Owner(..) | Edit::Times { .. } | Edit::Attribute(..) => {
                let node = self.find(path).and_then(|id| self.nodes.get_mut(&id)).ok_or(ABSENT)?;
                describe(node, edit)
            }
        }
    }

    /// What a path leads to. Nothing is behind a link.
    fn find(&self, path: &Path) -> Option<u64> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() {
            return Some(ROOT);
        }
        bytes.split(|byte| *byte == b'/').try_fold(ROOT, |directory, name| {
            self.nodes.get(&directory)?.entries.get(name).copied()
        })
    }

    fn file(&self, path: &Path) -> Result<u64, &'static str> {
        let id = self.find(path).ok_or(ABSENT)?;
        let is_file = self.nodes.get(&id).is_some_and(|node| node.kind == '-');
        is_file.then_some(id).ok_or("it is no file")
    }

    fn write(&mut self, file: u64, size: impl Fn(u64) -> u64) {
        let content = self.number();
        if let Some(file) = self.nodes.get_mut(&file) {
            (file.size, file.content) = (size(file.size), content);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The directory and the name that a path is made of.
    fn place<'p>(&self, path: &'p Path) -> Result<(u64, &'p [u8]), &'static str> {
        let bytes = path.as_os_str().as_bytes();
        let at = bytes.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match at {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&[][..], bytes),
        };
        if matches!(name, b"" | b"." | b"..") || name.contains(&0) || at == Some(0) {
            return Err("it is no path below the subvolume");
        }
        if name.len() > LONGEST_NAME || bytes.len() > LONGEST_PATH {
            return Err("its name is longer than any that a file system takes");
        }
        let directory = self.find(Path::new(OsStr::from_bytes(above)));
        let is_one = |id: &u64| self.nodes.get(id).is_some_and(|node| node.kind == 'd');
        directory.filter(is_one).map(|id| (id, name)).ok_or("the directory it is in is not there")
    }

    fn enter(&mut self, path: &Path, id: u64) -> Result<(), &'static str> {
        let (directory, name) = self.place(path)?;
        let directory = self.nodes.get_mut(&directory).ok_or(ABSENT)?;
        directory.entries.insert(name.into(), id);
        Ok(())
    }

    /// Takes a name away, and leaves alone what it leads to.
    fn leave(&mut self, path: &Path) -> Result<u64, &'static str> {
        let (directory, name) = self.place(path)?;
        self.nodes.get_mut(&directory).and_then(|it| it.entries.remove(name)).ok_or(ABSENT)
    }

    fn make(&mut self, path: &Path, node: impl FnOnce(u64) -> Node) -> Result<(), &'static str> {
        self.refuse_existing(path)?;
        self.place(path)?;
        let id = self.number();
        self.nodes.insert(id, node(id));
        self.enter(path, id)
    }

    fn refuse_existing(&self, path: &Path) -> Result<(), &'static str> {
        self.find(path).map_or(Ok(()), |_| Err("something is there already"))
    }

    fn link(&mut self, path: &Path, to: &Path) -> Result<(), &'static str> {
        self.refuse_existing(path)?;
        let id = self.find(to).ok_or("what it is to be another name of is not there")?;
        self.place(path)?;
        let node = self.nodes.get_mut(&id).filter(|node| node.kind != 'd');
        let node = node.ok_or("a directory has one name alone")?;
        node.names = node.names.saturating_add(1);
        self.enter(path, id)
    }

    /// As rename(2) does it.
    fn rename(&mut self, path: &Path, to: &Path) -> Result<(), &'static str> {
        let id = self.find(path).ok_or(ABSENT)?;
        self.place(path)?;
        self.place(to)?;
        // Paths of bytes that were looked up name by name, so this is not about anything but names.
        if to != path && to.starts_with(path) {
            return Err("it cannot be moved into itself");
        }
        match self.find(to) {
            Some(other) if other == id => return Ok(()),
            Some(other) => {
                let is_directory = |id| self.nodes.get(&id).is_some_and(|node| node.kind == 'd');
                if is_directory(id) != is_directory(other) {
                    return Err("something of another kind is where it is moved to");
                }
                self.remove(to, is_directory(other))?;
            }
            None => {}
        }
        self.leave(path)?;
        self.enter(to, id)
    }

    fn remove(&mut self, path: &Path, is_directory: bool) -> Result<(), &'static str> {
        let id = self.find(path).ok_or(ABSENT)?;
        let node = self.nodes.get_mut(&id).ok_or(ABSENT)?;
        if (node.kind == 'd') != is_directory {
            return Err("it is of another kind than what is taken away");
        }
        if !node.entries.is_empty() {
            return Err("the directory is not empty");
        }
        self.leave(path)?;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.names -= 1;
            if node.names == 0 {
                self.nodes.remove(&id);
            }
        }
        Ok(())
    }

    /// Everything, from the root on, by path.
    pub fn walk(&self) -> Walk<'_> {
        let root = self.nodes.get(&ROOT).map(|root| (PathBuf::new(), root));
        Walk { names: self, next: root, open: Vec::new() }
    }

    /// How this differs from what was before. `related`: whether both were made by the same streams up to some point;
    /// where they were not, a file is another one if its length or times are.
    ///
    /// # Errors
    /// When a path is longer than any may be.
    pub fn differences(&self, before: &Names, related: bool) -> Result<Vec<Differing>, NamesError> {
        let (mut told, mut times) = (Vec::new(), Vec::new());
        let (mut older, mut newer) = (before.walk(), self.walk());
        let (mut was, mut is) = (older.step()?, newer.step()?);
        loop {
            let (path, how) = match (was.take(), is.take()) {
                (None, None) => break,
                (Some((path, _)), None) => (path, Differs::As(Difference::Removed)),
                (None, Some((path, _))) => (path, Differs::As(Difference::Added)),
                (Some((path, _)), Some(later)) if path < later.0 => {
                    is = Some(later);
                    (path, Differs::As(Difference::Removed))
                }
                (Some(later), Some((path, _))) if path < later.0 => {
                    was = Some(later);
                    (path, Differs::As(Difference::Added))
                }
                (Some((path, old)), Some((_, new))) => (path, new.differs(old, related)),
            };
            match how {
                Differs::As(how) => told.push(Differing { path, how }),
                Differs::InTimesOfEntries => times.push(path),
                Differs::Not => {}
            }
            was = was.map_or_else(|| older.step(), |it| Ok(Some(it)))?;
            is = is.map_or_else(|| newer.step(), |it| Ok(Some(it)))?;
        }
        let changed: HashSet<PathBuf> =
            told.iter().filter_map(|it| it.path.parent()).map(Path::to_owned).collect();
        let alone = times.into_iter().filter(|path| !changed.contains(path));
        told.extend(alone.map(|path| Differing { path, how: Difference::Metadata }));
        told.sort_by(|one, next| one.path.cmp(&next.path));
        Ok(told)
    }
}

const ABSENT: &str = "it is not there";

fn describe(node: &mut Node, edit: &Edit) -> Result<(), &'static str> {
    match edit {
        Edit::Mode(_) if node.kind == 'l' => return Err("a link has no mode"),
        Edit::Mode(mode) => node.mode = *mode,
        Edit::Owner(uid, gid) => {
            (node.uid, node.gid) = (*uid, *gid);
            // The kernel takes these from whatever gets an owner, but for directories.
            if node.kind != 'd' && node.kind != 'l' {
                let lost = if node.mode & 0o010 == 0 { 0o4000 } else { 0o6000 };
                node.mode &= !lost;
            }
        }
        Edit::Times { modified, changed } => {
            (node.modified, node.changed) = (Some(*modified), Some(*changed));
        }
        Edit::Attribute(name, value) => {
            let at = node.attributes.binary_search_by_key(name, |(name, _)| *name);
            match (at, value) {
                (Ok(at), Some(value)) => node.attributes[at].1 = *value,
                (Err(at), Some(value)) => node.attributes.insert(at, (*name, *value)),
                (Ok(at), None) => drop(node.attributes.remove(at)),
                (Err(_), None) => return Err("it has no such attribute"),
            }
        }
        Edit::Make { .. }
        | Edit::Symlink(_)
        | Edit::Link(_)
        | Edit::Rename(_)
        | Edit::Unlink
        | Edit::Rmdir
        | Edit::Resize(_)
        | Edit::Write(_) => {}
    }
    Ok(())
}

/// A walk over all names.
#[derive(Debug)]
pub struct Walk<'n> {
    names: &'n Names,
    next: Option<(PathBuf, &'n Node)>,
    open: Vec<Open<'n>>,
}

impl<'n> Walk<'n> {
    /// The next name, and what it leads to; `None` at the end.
    ///
    /// # Errors
    /// When its path is longer than any may be.
    pub fn step(&mut self) -> Result<Option<(PathBuf, &'n Node)>, NamesError> {
        let found = self.next.take().or_else(|| self.behind());
        if let Some((path, node)) = &found {
            if path.as_os_str().len() > LONGEST_PATH {
                let what = "it is longer than any path";
                return Err(NamesError { at: 0, path: path.clone(), what });
            }
            if node.kind == 'd' {
                self.open.push((path.clone(), node.entries.iter()));
            }
        }
        Ok(found)
    }

    fn behind(&mut self) -> Option<(PathBuf, &'n Node)> {
        loop {
            let (directory, entries) = self.open.last_mut()?;
            let Some((name, id)) = entries.next() else {
                self.open.pop();
                continue;
            };
            let path = directory.join(OsStr::from_bytes(name));
            if let Some(node) = self.names.nodes.get(id) {
                return Some((path, node));
            }
        }
    }
}
