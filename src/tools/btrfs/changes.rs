//! What differs between two snapshots, read from the stream that turns one into the other.
//!
//! The kernel makes everything new under a name of its own at the top (`o257-7-0`) and renames it into place, moves what
//! is in the way aside in the same manner, and tells the times of every directory whose entries changed. What is left of
//! all that in the end is the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::stream::{Command, StreamError, attribute, kind};
use crate::model::bytes;

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    /// It is new.
    Added,
    /// It is gone. What is in a directory that is gone or was moved is not told one by one.
    Removed,
    /// Its content changed, or something else is at its place.
    Modified,
    /// Only its owner, mode, times or attributes changed.
    Metadata,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    /// The path below the root of the subvolume; empty: the root.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// How it differs.
    pub how: Difference,
}

/// Gathers the differences.
#[derive(Debug, Default)]
pub struct Changes {
    told: BTreeMap<Vec<u8>, Difference>,
    /// Paths of which the times were told.
    times: BTreeSet<Vec<u8>>,
    /// Where directories are now, and where they were: what is in them is taken away there after it was moved.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Changes {
    /// Takes a command.
    ///
    /// # Errors
    /// When it lacks what it should have.
    pub fn take(&mut self, command: Command<'_>) -> Result<(), StreamError> {
        let path = || command.attribute(attribute::PATH).map(<[u8]>::to_vec);
        match command.kind {
            // They name the subvolume, and nothing in it.
            kind::SUBVOLUME | kind::SNAPSHOT | kind::END => {}
            kind::RENAME => {
                let to = command.attribute(attribute::PATH_TO)?.to_vec();
                self.rename(command.attribute(attribute::PATH)?, to);
            }
            kind::DIRECTORY | kind::LINK => self.add(path()?),
            made if kind::MADE.contains(&made) => self.add(path()?),
            kind::UNLINK | kind::RMDIR => self.remove(path()?),
            kind::UTIMES => drop(self.times.insert(path()?)),
            content if kind::CONTENT.contains(&content) => {
                self.change(path()?, Difference::Modified);
            }
            // What is left sets an owner, a mode or attributes; a decoder lets no other kind through.
            _ => self.change(path()?, Difference::Metadata),
        }
        Ok(())
    }

    /// All differences, by path.
    pub fn into_all(mut self) -> Vec<Differing> {
        for path in std::mem::take(&mut self.times) {
            // Of a directory, the times change with every entry.
            if !self.told.contains_key(&path) && !self.has_entries_in(&path) {
                self.told.insert(path, Difference::Metadata);
            }
        }
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        self.told.into_iter().map(|(bytes, how)| Differing { path: path(bytes), how }).collect()
    }

    fn has_entries_in(&self, directory: &[u8]) -> bool {
        let start = match directory {
            [] => 0,
            _ => directory.len() + 1,
        };
        self.inside(directory).any(|path| path.len() > start && !path[start..].contains(&b'/'))
    }

    /// What is told of anything in a directory, at whatever depth; it lies together.
    fn inside(&self, directory: &[u8]) -> impl Iterator<Item = &Vec<u8>> {
        let prefix = match directory {
            [] => Vec::new(),
            _ => [directory, b"/"].concat(),
        };
        let all = self.told.range(prefix.clone()..);
        all.map(|(path, _)| path).take_while(move |path| path.starts_with(&prefix))
    }

    fn add(&mut self, path: Vec<u8>) {
        let how = match self.told.get(&path) {
            Some(Difference::Removed) => Difference::Modified,
            _ => Difference::Added,
        };
        self.told.insert(path, how);
    }

    fn remove(&mut self, path: Vec<u8>) {
        match self.told.get(&path) {
            // It was never there, but for the time that this took.
            Some(Difference::Added) => self.told.remove(&path),
            _ => self.told.insert(self.original(path), Difference::Removed),
        };
    }

    /// Where something was that is in a directory which was moved since.
    fn original(&self, path: Vec<u8>) -> Vec<u8> {
        let moved = self.moved.iter().rev().find_map(|(now, before)| {
            let rest = path.strip_prefix(now.as_slice())?;
            rest.starts_with(b"/").then(|| [before, rest].concat())
        });
        moved.unwrap_or(path)
    }

    fn change(&mut self, path: Vec<u8>, how: Difference) {
        match self.told.get(&path) {
            Some(Difference::Added | Difference::Modified) => {}
            Some(Difference::Metadata | Difference::Removed) | None => {
                self.told.insert(path, how);
            }
        }
    }

    fn rename(&mut self, from: &[u8], to: Vec<u8>) {
        // What was in a directory that is made under another name is told by that name; but what is gone, by its old one.
        let is_gone = |path: &Vec<u8>| self.told.get(path) == Some(&Difference::Removed);
        let inside: Vec<Vec<u8>> =
            self.inside(from).filter(|path| !is_gone(path)).cloned().collect();
        let there = |path: &[u8]| [to.as_slice(), &path[from.len()..]].concat();
        for path in inside {
            if let Some(how) = self.told.remove(&path) {
                self.told.insert(there(&path), how);
            }
        }
        let is_in = |path: &&Vec<u8>| {
            path.strip_prefix(from).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let timed: Vec<Vec<u8>> = self.times.iter().filter(is_in).cloned().collect();
        for path in timed {
            self.times.remove(&path);
            self.times.insert(there(&path));
        }
        if self.told.get(from) != Some(&Difference::Added) {
            self.moved.push((to.clone(), self.original(from.to_vec())));
        }
        self.remove(from.to_vec());
        self.add(to);
    }
}
