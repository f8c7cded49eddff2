//! What captures use of btrfs, on one file system in memory: subvolumes that the machine sees, and snapshots in the
//! top-level subvolume, which only the calls on its device reach.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use stillpoint::host::Subvolume;

/// The device that the file system is on.
pub const DEVICE: &str = "/dev/sdb";

/// The UUID of the file system.
pub const FILE_SYSTEM: &str = "fs-uuid";

/// A snapshot in the top-level subvolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub id: u64,
    pub uuid: String,
    pub parent_uuid: String,
    pub read_only: bool,
    /// The generation in which it was changed last.
    pub changed: u64,
}

/// The file system.
#[derive(Debug, Clone, Default)]
pub struct FakeBtrfs {
    /// Subvolumes as the machine sees them, with their UUIDs.
    pub subvolumes: BTreeMap<PathBuf, String>,
    /// Which of them are nested in which other one.
    pub nested: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// What lies in the top-level subvolume, by name.
    pub top: BTreeMap<String, Snapshot>,
    /// Places that the snapshots around them do not have.
    pub misplaced: Vec<PathBuf>,
    /// The UUIDs of what snapshots were made of since the machine was made, or since this was emptied.
    pub origins: Vec<String>,
    /// What was deleted since the last commit: a power cut brings it back.
    uncommitted: BTreeMap<String, Snapshot>,
    made: u64,
}

impl FakeBtrfs {
    /// The subvolume at a path.
    pub fn at(&self, path: &Path) -> Option<Subvolume> {
        let uuid = self.subvolumes.get(path)?;
        Some(Subvolume {
            file_system: FILE_SYSTEM.into(),
            id: Some(id_of(uuid)),
            uuid: Some(uuid.clone()),
            parent_uuid: None,
            read_only: false,
            ..Subvolume::default()
        })
    }

    /// What lies at a name in the top-level subvolume.
    pub fn find(&self, device: &Path, name: &str) -> Option<Subvolume> {
        assert_eq!(device, Path::new(DEVICE));
        let found = self.top.get(name)?;
        Some(Subvolume {
            file_system: FILE_SYSTEM.into(),
            id: Some(found.id),
            uuid: Some(found.uuid.clone()),
            parent_uuid: Some(found.parent_uuid.clone()),
            read_only: found.read_only,
            changed: found.changed,
            ..Subvolume::default()
        })
    }

    /// Makes a snapshot of the subvolume that has this number and UUID, wherever it lies.
    ///
    /// # Errors
    /// `NotFound` when there is none; `AlreadyExists`.
    pub fn make(&mut self, device: &Path, origin: &Subvolume, name: &str) -> io::Result<String> {
        assert_eq!((device, origin.file_system.as_str()), (Path::new(DEVICE), FILE_SYSTEM));
        let is_it =
            |uuid: &&String| Some(id_of(uuid)) == origin.id && Some(*uuid) == origin.uuid.as_ref();
        let parent_uuid = self.subvolumes.values().find(is_it).cloned();
        let parent_uuid = parent_uuid.ok_or(io::ErrorKind::NotFound)?;
        if self.top.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.made += 1;
        self.origins.push(parent_uuid.clone());
        let uuid = format!("00000000-0000-0000-0000-{:012}", self.made);
        let snapshot = Snapshot {
            id: 1000 + self.made,
            uuid: uuid.clone(),
            parent_uuid,
            read_only: true,
            changed: 10 + self.made,
        };
        self.top.insert(name.to_owned(), snapshot);
        Ok(uuid)
    }

    /// Deletes what was found at a name. Answers whether it was still that.
    pub fn delete(&mut self, device: &Path, found: &Subvolume, name: &str) -> bool {
        let is_it = self.find(device, name).as_ref() == Some(found);
        if is_it && let Some(deleted) = self.top.remove(name) {
            self.uncommitted.insert(name.to_owned(), deleted);
        }
        is_it
    }

    /// Deletes for good what was deleted.
    pub fn commit(&mut self, device: &Path) {
        assert_eq!(device, Path::new(DEVICE));
        self.uncommitted.clear();
    }

    /// What a power cut does.
    pub fn reboot(&mut self) {
        self.top.append(&mut self.uncommitted);
    }
}

/// A number for a subvolume of the machine, the same for the same UUID.
fn id_of(uuid: &str) -> u64 {
    uuid.bytes().fold(256, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte))
}
