//! A directory of another btrfs that receives subvolumes, in memory: what is not on the disk yet is emptied by a power
//! cut, and what was deleted is there again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use stillpoint::host::{CommandSpec, Exit, Subvolume};
use stillpoint::tools::btrfs::command::Told;

use super::fake_borg::Answer;
use super::fake_btrfs::FakeBtrfs;

/// Where it is.
pub const LOCATION: &str = "/pool";

/// The UUID of its file system.
const FILE_SYSTEM: &str = "pool-fs-uuid";

/// A received subvolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    id: u64,
    uuid: String,
    /// What was sent.
    sent: String,
    /// The generation that it had.
    generation: u64,
    parent: Option<String>,
    /// The generation in which it was changed last.
    pub changed: u64,
    /// Its data is on the disk.
    is_durable: bool,
    /// It looks whole and is empty.
    is_emptied: bool,
}

/// The directory.
#[derive(Debug, Clone, Default)]
pub struct FakePool {
    pub subvolumes: BTreeMap<PathBuf, Received>,
    uncommitted: BTreeMap<PathBuf, Received>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    made: u64,
}

impl FakePool {
    /// Whether something is a part of it.
    pub fn holds(path: &Path) -> bool {
        path.starts_with(LOCATION)
    }

    /// Our own directory in it.
    pub fn own() -> PathBuf {
        Path::new(LOCATION).join(".stillpoint")
    }

    /// Receives what a snapshot's sender sends, through the stage between them.
    pub fn receive(&mut self, source: &FakeBtrfs, chain: &[&CommandSpec]) -> Vec<Answer> {
        let [send, stage, _] = chain else { panic!("a chain of {}", chain.len()) };
        let snapshot = send.args.last().map(Path::new).unwrap();
        let snapshot = &source.top[snapshot.file_name().unwrap().to_str().unwrap()];
        let (sent, generation) = (&snapshot.uuid, snapshot.changed);
        assert_eq!(option(stage, "--uuid").as_deref(), Some(sent.as_str()));
        let parent = option(stage, "--known-as");
        assert_eq!(parent.is_some(), option(send, "-p").is_some());
        let base = self.subvolumes.values().find(|there| Some(&there.uuid) == parent.as_ref());
        assert_eq!(base.is_some(), parent.is_some(), "a difference to what is not there");
        assert!(base.is_none_or(|base| !base.is_emptied), "a difference to what is empty");
        // A difference names nothing new.
        let named = if parent.is_some() { 0 } else { 5 };
        let at = Path::new(LOCATION).join(option(stage, "--name").unwrap());
        self.made += 1;
        let received = Received {
            id: 2000 + self.made,
            uuid: format!("00000000-0000-0000-0001-{:012}", self.made),
            sent: sent.clone(),
            generation,
            parent,
            changed: 100 + self.made,
            is_durable: false,
            is_emptied: false,
        };
        assert_eq!(self.subvolumes.insert(at, received), None, "two of one name");
        let told =
            Told { bytes: 100, commands: 9, named, generation, whole: true, ..Told::default() };
        let said = [Vec::new(), vec![serde_json::to_string(&told).unwrap()], Vec::new()];
        let answer = |stderr| Answer { exit: Exit::Code(0), stdout: String::new(), stderr };
        said.map(answer).into()
    }

    /// The records of copies that are not there.
    pub fn orphans(&self) -> Vec<&PathBuf> {
        let records = self.files.keys().filter(|path| {
            path.parent() == Some(&Self::own().join("copies"))
                && path.extension().is_some_and(|it| it == "json")
        });
        let copy = |record: &Path| Path::new(LOCATION).join(record.file_stem().unwrap());
        records.filter(|record| !self.subvolumes.contains_key(&copy(record))).collect()
    }

    /// The subvolume at a path.
    pub fn at(&self, path: &Path) -> Option<Subvolume> {
        let found = self.subvolumes.get(path)?;
        Some(Subvolume {
            file_system: FILE_SYSTEM.into(),
            id: Some(found.id),
            uuid: Some(found.uuid.clone()),
            parent_uuid: found.parent.clone(),
            read_only: true,
            received_uuid: Some(found.sent.clone()),
            changed: found.changed,
            received: found.generation,
        })
    }

    /// All subvolumes in it.
    pub fn nested(&self) -> Vec<PathBuf> {
        self.subvolumes.keys().cloned().collect()
    }

    /// The copies that have their final names.
    pub fn copies(&self) -> impl Iterator<Item = String> {
        let names = self.subvolumes.keys().filter_map(|path| path.file_name()?.to_str());
        names.filter(|name| !name.starts_with('.')).map(str::to_owned)
    }

    /// Those of them that a power cut emptied.
    pub fn emptied(&self) -> impl Iterator<Item = String> {
        let emptied = |name: &String| self.subvolumes[&Path::new(LOCATION).join(name)].is_emptied;
        self.copies().filter(emptied)
    }

    /// Renames what was found. Answers whether it was still that.
    pub fn rename(&mut self, path: &Path, found: &Subvolume, name: &str) -> bool {
        let is_it = self.at(path).as_ref() == Some(found);
        if is_it && let Some(there) = self.subvolumes.remove(path) {
            assert!(there.is_durable, "it has no name before it is on the disk");
            assert_eq!(self.subvolumes.insert(path.with_file_name(name), there), None);
        }
        is_it
    }

    /// Deletes what was found. Answers whether it was still that.
    pub fn delete(&mut self, path: &Path, found: &Subvolume) -> bool {
        let is_it = self.at(path).as_ref() == Some(found);
        if is_it && let Some(deleted) = self.subvolumes.remove(path) {
            self.uncommitted.insert(path.to_owned(), deleted);
        }
        is_it
    }

    /// Everything is on the disk.
    pub fn flush(&mut self) {
        self.subvolumes.values_mut().for_each(|there| there.is_durable = true);
        self.uncommitted.clear();
    }

    /// What a power cut does.
    pub fn reboot(&mut self) {
        self.subvolumes.append(&mut self.uncommitted);
        for there in self.subvolumes.values_mut().filter(|there| !there.is_durable) {
            there.is_emptied = true;
            there.is_durable = true;
        }
    }

    /// Replaces a file, or makes it.
    pub fn write(&mut self, path: &Path, content: &[u8]) {
        self.files.insert(path.to_owned(), content.to_owned());
    }

    /// Removes a file, if it is there.
    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// A file, if it is there.
    pub fn file(&self, path: &Path) -> Option<&Vec<u8>> {
        self.files.get(path)
    }

    /// The names in a directory.
    pub fn names_in(&self, directory: &Path) -> Vec<OsString> {
        let here = self.files.keys().filter(|path| path.parent() == Some(directory));
        here.filter_map(|path| Some(path.file_name()?.to_owned())).collect()
    }
}

/// What follows an option.
fn option(spec: &CommandSpec, name: &str) -> Option<String> {
    let at = spec.args.iter().position(|arg| arg == name)?;
    Some(spec.args[at + 1].to_str().unwrap().to_owned())
}
