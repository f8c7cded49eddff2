//! What captures use of btrfs, on one file system in memory: subvolumes that the machine sees, and snapshots in the
//! top-level subvolume, which only the calls on its device reach.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
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
    /// The generation in which it was made.
    pub made_in: u64,
    pub made: DateTime<Utc>,
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
    /// Somebody makes what differences are made to writable while it is sent, changes it and makes it read-only again.
    pub bases_change: bool,
    /// What was deleted since the last commit: a power cut brings it back.
    uncommitted: BTreeMap<String, Snapshot>,
    made: u64,
    /// How many snapshots there is room for; there is no end of it by default.
    pub room: Option<u64>,
    /// Snapshots that were deleted and take up their room still.
    unfreed: u64,
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
            made_in: found.made_in,
            made: found.made,
            ..Subvolume::default()
        })
    }

    /// The snapshot that whoever sees the top-level subvolume somewhere sees at a path.
    pub fn seen(&self, path: &Path) -> &Snapshot {
        let mut there = self.top.iter();
        there.find(|(name, _)| path.ends_with(name)).expect("a snapshot that is there").1
    }

    /// All that lies in the top-level subvolume, by name.
    pub fn all(&self, device: &Path) -> Vec<(PathBuf, Subvolume)> {
        let names = self.top.keys();
        names.filter_map(|name| Some((name.into(), self.find(device, name)?))).collect()
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
            made_in: 10 + self.made,
            made: self.moment(),
        };
        self.top.insert(name.to_owned(), snapshot);
        Ok(uuid)
    }

    /// Makes a snapshot that another program makes. Answers with its UUID and generation.
    pub fn somebody_elses(&mut self, name: &str, origin: &str) -> (String, u64) {
        let uuid = format!("00000000-0000-0000-0003-{:012}", self.top.len());
        let snapshot = Snapshot {
            id: 3000 + self.top.len() as u64,
            uuid: uuid.clone(),
            parent_uuid: origin.to_owned(),
            read_only: true,
            changed: 5 + self.top.len() as u64,
            made_in: 5 + self.top.len() as u64,
            made: self.moment(),
        };
        let generation = snapshot.changed;
        self.top.insert(name.to_owned(), snapshot);
        (uuid, generation)
    }

    /// Makes a snapshot now, as another program does that runs beside us. Nothing was changed since the one before it.
    pub fn another_tool_makes(&mut self, path: &str, origin: &str) {
        self.made += 1;
        let changed = self.top.values().map(|there| there.changed).max().unwrap_or(10);
        let snapshot = Snapshot {
            id: 1000 + self.made,
            uuid: format!("00000000-0000-0000-0004-{:012}", self.made),
            parent_uuid: origin.to_owned(),
            read_only: true,
            changed,
            made_in: 10 + self.made,
            made: self.moment(),
        };
        self.top.insert(path.to_owned(), snapshot);
    }

    /// A second for each two snapshots.
    fn moment(&self) -> DateTime<Utc> {
        let second = TimeDelta::seconds(self.made as i64 / 2);
        Utc.with_ymd_and_hms(2026, 11, 21, 2, 0, 0).unwrap() + second
    }

    /// The names of the snapshots that no other program makes.
    pub fn ours(&self) -> impl Iterator<Item = &String> {
        let ours = self.top.iter().filter(|(_, there)| !there.uuid.contains("-0004-"));
        ours.map(|(name, _)| name)
    }

    /// Deletes what was found at a name. Answers whether it was still that.
    pub fn delete(&mut self, device: &Path, found: &Subvolume, name: &str) -> bool {
        let is_it = self.find(device, name).as_ref() == Some(found);
        if is_it && let Some(deleted) = self.top.remove(name) {
            self.uncommitted.insert(name.to_owned(), deleted);
            self.unfreed += 1;
        }
        is_it
    }

    /// Bytes that are free. A snapshot takes a hundred.
    pub fn free(&self) -> u64 {
        let taken = self.top.len() as u64 + self.unfreed;
        self.room.map_or(1 << 40, |room| room.saturating_sub(taken) * 100)
    }

    /// What was deleted takes up no room any more.
    pub fn clean(&mut self) {
        self.unfreed = 0;
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
pub fn id_of(uuid: &str) -> u64 {
    uuid.bytes().fold(256, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte))
}
