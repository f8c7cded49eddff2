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

/// Gathers the differences. Paths are told as they are at that moment of the stream, and lead to what was somewhere else
/// before; so what is gone is known by where it was, and all else by where it is.
#[derive(Debug, Default)]
pub struct Changes {
    /// What is told of a path, by where it is now.
    told: BTreeMap<Vec<u8>, Told>,
    /// Where something was that is not there any more.
    gone: BTreeSet<Vec<u8>>,
    /// Paths of which the times were told.
    times: BTreeMap<Vec<u8>, ()>,
    /// Where something was that was moved, and what is in it, by where it is now; `None`: a directory that is new.
    places: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// What is told of a path.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// It was made there or moved there.
    came: bool,
    /// How it was changed.
    changed: Option<Difference>,
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
            kind::DIRECTORY => {
                self.places.insert(path()?, None);
                self.add(path()?);
            }
            kind::LINK => self.add(path()?),
            made if kind::MADE.contains(&made) => self.add(path()?),
            kind::UNLINK | kind::RMDIR => self.remove(&path()?),
            kind::UTIMES => drop(self.times.insert(path()?, ())),
            content if kind::CONTENT.contains(&content) => {
                self.change(path()?, Difference::Modified);
            }
            // What is left sets an owner, a mode or attributes; a decoder lets no other kind through.
            _ => self.change(path()?, Difference::Metadata),
        }
        Ok(())
    }

    /// All differences, by path.
    pub fn into_all(self) -> Vec<Differing> {
        let removed = self.gone.iter().map(|path| (path.clone(), Difference::Removed));
        let mut all: BTreeMap<Vec<u8>, Difference> = removed.collect();
        for (path, told) in &self.told {
            let came = self.has_come(path, *told);
            let how = match (came, all.contains_key(path)) {
                (true, true) => Some(Difference::Modified),
                (true, false) => Some(Difference::Added),
                (false, _) => told.changed,
            };
            all.extend(how.map(|how| (path.clone(), how)));
        }
        for path in self.times.into_keys() {
            // Of a directory, the times change with every entry.
            if !all.contains_key(&path) && !has_entries_in(&all, &path) {
                all.insert(path, Difference::Metadata);
            }
        }
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        all.into_iter().map(|(bytes, how)| Differing { path: path(bytes), how }).collect()
    }

    /// Whether something is at a path that was not there: it may have been moved away, and back.
    fn has_come(&self, path: &[u8], told: Told) -> bool {
        let is_home = || self.places.get(path).is_some_and(|was| was.as_deref() == Some(path));
        told.came && !is_home()
    }

    /// Where something was; `None` where it is new.
    fn before(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut around = path.len();
        loop {
            if let Some(was) = self.places.get(&path[..around]) {
                return was.as_ref().map(|was| [was, &path[around..]].concat());
            }
            match path[..around].iter().rposition(|byte| *byte == b'/') {
                Some(at) => around = at,
                None => return Some(path.to_vec()),
            }
        }
    }

    fn add(&mut self, path: Vec<u8>) {
        self.told.insert(path, Told { came: true, changed: None });
    }

    fn remove(&mut self, path: &[u8]) {
        let was = self.before(path);
        let told = self.told.get(path).copied().unwrap_or_default();
        // What was made or moved here is gone from no place where it was before; that was noted when it left it.
        if !self.has_come(path, told) {
            self.gone.extend(was);
        }
        self.told.remove(path);
        self.times.remove(path);
        self.places.remove(path);
    }

    fn change(&mut self, path: Vec<u8>, how: Difference) {
        let changed = &mut self.told.entry(path).or_default().changed;
        if *changed != Some(Difference::Modified) {
            *changed = Some(how);
        }
    }

    fn rename(&mut self, from: &[u8], to: Vec<u8>) {
        let was = self.before(from);
        let told = self.told.remove(from).unwrap_or_default();
        // What was moved has a place; a directory that was made has one as well.
        let is_new_file = told.came && !self.places.contains_key(from);
        if !self.has_come(from, told) {
            self.gone.extend(was.clone());
        }
        self.places.remove(from);
        move_inside(&mut self.told, from, &to);
        move_inside(&mut self.places, from, &to);
        move_inside(&mut self.times, from, &to);
        if self.times.remove(from).is_some() {
            self.times.insert(to.clone(), ());
        }
        if was.as_ref() == Some(&to) {
            self.gone.remove(&to);
        }
        match is_new_file {
            true => drop(self.places.remove(&to)),
            false => drop(self.places.insert(to.clone(), was)),
        }
        self.told.insert(to, Told { came: true, ..told });
    }
}

/// Has all in a directory that was moved be known by where it is now.
fn move_inside<T>(map: &mut BTreeMap<Vec<u8>, T>, from: &[u8], to: &[u8]) {
    let paths: Vec<Vec<u8>> = inside(map, &[from, b"/"].concat()).cloned().collect();
    for path in paths {
        if let Some(it) = map.remove(&path) {
            map.insert([to, &path[from.len()..]].concat(), it);
        }
    }
}

/// Whether anything is told of what is in a directory itself.
fn has_entries_in(all: &BTreeMap<Vec<u8>, Difference>, directory: &[u8]) -> bool {
    let prefix = match directory {
        [] => Vec::new(),
        _ => [directory, b"/"].concat(),
    };
    inside(all, &prefix)
        .any(|path| path.len() > prefix.len() && !path[prefix.len()..].contains(&b'/'))
}

/// The paths that begin so; they lie together.
fn inside<'m, T>(
    map: &'m BTreeMap<Vec<u8>, T>,
    prefix: &[u8],
) -> impl Iterator<Item = &'m Vec<u8>> {
    let all = map.range(prefix.to_vec()..).map(|(path, _)| path);
    all.take_while(move |path| path.starts_with(prefix))
}
