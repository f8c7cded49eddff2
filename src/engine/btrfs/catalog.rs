//! What a target knows of its copies: a marker that says which target it is, and beside each copy a record that was
//! written when its data was on the disk.
//!
//! `btrfs receive` ends long before the data it wrote is anywhere: a subvolume may be read-only, carry the UUID of what
//! was sent, and hold empty files after a power cut. So a copy counts only with its record, which is written after the
//! file system was flushed, and only as long as the subvolume is the one that the record speaks of. All else in the
//! directory is an unfinished copy of ours (by its name and a dead run's), or none of our business.
//!
//! ```text
//! LOCATION/.stillpoint/target.json            which target this is; made by init
//! LOCATION/.stillpoint/copies/NAME.json       the record of the copy NAME
//! LOCATION/NAME                               the copy, a read-only subvolume
//! LOCATION/.incoming.NAME                     one that is being received
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::engine::{Context, EngineError};
use crate::host::{Action, PathKind, Subvolume, TrustKind, mount_of};
use crate::model::copy::{Copy, Series};
use crate::model::names::{HostName, JobName, MachineId, RunId};
use crate::model::shown::Show;

/// The format of both files.
const FORMAT: u32 = 1;

/// Our own directory in a target.
const OWN: &str = ".stillpoint";

/// What the name of a copy begins with while it is being received.
const INCOMING: &str = ".incoming.";

/// Which target it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// [`FORMAT`].
    pub format: u32,
    /// A random text that no other target has.
    pub id: String,
}

/// The record of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// The copy's name, which is its id.
    pub name: String,
    /// The UUID of the received subvolume.
    pub uuid: String,
    /// The UUID of the snapshot that was sent.
    pub sent: String,
    /// The generation that the snapshot had.
    pub generation: u64,
    /// The generation here in which the received subvolume was changed last, when it was whole.
    pub changed: u64,
    /// The UUID of the subvolume here that it is based on.
    pub parent: Option<String>,
    /// In whose name it was made.
    pub host: HostName,
    /// The job whose copy it is.
    pub job: JobName,
    /// The subvolume's path on that host.
    pub item: Option<String>,
    /// The run that made it.
    pub run: RunId,
    /// The machine that made it.
    pub machine: Option<MachineId>,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// Bytes of the stream.
    pub bytes: u64,
    /// How many names lead to what is no directory in it, where that is known.
    pub files: Option<u64>,
    /// Never to be pruned while this holds.
    pub pinned: bool,
    /// It is about to be deleted by us: when it is gone, so may this be. What is gone without that was taken away by
    /// somebody else, who may bring it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub going: bool,
}

impl Record {
    /// The series it belongs to.
    pub fn series(&self) -> Series {
        Series { host: self.host.clone(), job: self.job.clone(), item: self.item.clone() }
    }

    /// Whether a subvolume is the one that was recorded, and nobody has written to it since. What was made writable by
    /// btrfs-progs is no longer received as anything; whoever asks the kernel itself leaves all but the generation of the
    /// last change as it was.
    pub fn is_of(&self, found: &Subvolume) -> bool {
        found.read_only
            && found.uuid.as_ref() == Some(&self.uuid)
            && found.received_uuid.as_ref() == Some(&self.sent)
            && found.received == self.generation
            && found.changed == self.changed
    }

    /// The copy as it is listed.
    pub fn copy(&self) -> Copy {
        Copy {
            id: self.name.clone(),
            series: Some(self.series()),
            run: Some(self.run.clone()),
            time: self.time,
            files: self.files,
            pinned: self.pinned,
            machine: self.machine.clone(),
            ..Copy::default()
        }
    }
}

/// The records of copies, each with the subvolume; `None` for that where a dry run only predicts it.
pub(super) type Copies = Vec<(Record, Option<Subvolume>)>;

/// The catalog of a target that was found to be one.
pub(super) struct Catalog<'a> {
    pub cx: Context<'a>,
    /// The target's directory, without links.
    pub location: PathBuf,
    pub marker: Marker,
}

impl<'a> Catalog<'a> {
    /// Opens a target.
    ///
    /// # Errors
    /// When there is none at that place, or it lies on no btrfs since somebody has copied its files, or others may put there
    /// what they like.
    pub fn open(cx: Context<'a>, location: &Path) -> Result<Self, EngineError> {
        let location = cx.host.canonical(location);
        let marker = marker(cx, &location)?.ok_or_else(|| EngineError::RepositoryMissing {
            repository: location.shown().to_string(),
        })?;
        require_btrfs(cx, &location)?;
        let catalog = Self { cx, location, marker };
        // What a record says is believed, so nobody else may write one, nor move what it speaks of.
        for directory in [&catalog.location, &catalog.records()] {
            cx.host
                .check_trusted(directory, TrustKind::Directory)
                .map_err(EngineError::Untrusted)?;
        }
        Ok(catalog)
    }

    /// Refuses a place into which others can come. Whoever owns the root of a subvolume owns that of its copies as well,
    /// and as soon as he reaches one, the kernel lets him make it writable.
    ///
    /// # Errors
    /// When others can come there.
    pub fn require_closed(&self) -> Result<(), EngineError> {
        require_closed(self.cx, &self.location)
    }

    /// Makes one in a directory of a btrfs.
    ///
    /// # Errors
    /// When there is one, or no directory, or no btrfs, or others have access to it.
    pub fn make(cx: Context<'a>, location: &Path) -> Result<Self, EngineError> {
        let location = cx.host.canonical(location);
        let repository = location.shown().to_string();
        if cx.host.path_state(&location)?.is_none() {
            let what = format!(
                "there is no directory {repository}: make it, on the file system that is to hold the copies"
            );
            return Err(unfit(what));
        }
        if marker(cx, &location)?.is_some() {
            return Err(EngineError::RepositoryExists { repository });
        }
        require_btrfs(cx, &location)?;
        require_closed(cx, &location)?;
        cx.host.check_trusted(&location, TrustKind::Directory).map_err(EngineError::Untrusted)?;
        let id: String =
            (0..4).map(|_| format!("{:08x}", u32::from_be_bytes(cx.host.random()))).collect();
        let made = Self { cx, location, marker: Marker { format: FORMAT, id } };
        for directory in [made.own(), made.records()] {
            cx.host.act(&Action::EnsureDirectory { path: directory, mode: 0o700 })?;
        }
        made.write(&made.own().join("target.json"), &made.marker)?;
        Ok(made)
    }

    fn own(&self) -> PathBuf {
        self.location.join(OWN)
    }

    fn records(&self) -> PathBuf {
        self.own().join("copies")
    }

    /// Where a copy is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.location.join(name)
    }

    /// Where it is while it is being received, and the name that it has there.
    pub fn incoming(&self, name: &str) -> (PathBuf, String) {
        let incoming = format!("{INCOMING}{name}");
        (self.location.join(&incoming), incoming)
    }

    /// All copies that are there and what they were.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn copies(&self) -> Result<Copies, EngineError> {
        Ok(self.examine()?.0)
    }

    /// The same; and what is wrong with copies in whose place something else is by now, or whose record is damaged. That
    /// one is gone is for history to tell, which knows whether somebody deleted it.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn examine(&self) -> Result<(Copies, Vec<String>), EngineError> {
        let mut copies = Vec::new();
        let (records, mut damaged) = self.all_records()?;
        for text in &damaged {
            tracing::warn!("{text}, so that copy is not listed");
        }
        for record in records {
            let path = self.path(&record.name);
            match self.cx.host.subvolume(&path)? {
                Some(found) if record.is_of(&found) => copies.push((record, Some(found))),
                Some(_) => {
                    tracing::warn!(
                        "{} is not what was received there any more, so it is not listed as a copy",
                        path.shown()
                    );
                    damaged.push(format!("{} is not what was received there", record.name));
                }
                None if !self.cx.host.predicted(&prediction_about(&path)).is_empty() => {
                    copies.push((record, None));
                }
                None => {}
            }
        }
        Ok((copies, damaged))
    }

    /// Every record, also of what is gone; and what is wrong with those that cannot be read, which keep nobody from the
    /// other copies.
    fn all_records(&self) -> Result<(Vec<Record>, Vec<String>), EngineError> {
        let directory = self.records();
        let names: BTreeSet<_> =
            self.cx.host.names_in(&directory)?.unwrap_or_default().into_iter().collect();
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for name in names {
            // A record is written under another name first, which a power cut may leave.
            let Some(copy) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            if copy.starts_with('.') {
                continue;
            }
            let file = directory.join(&name);
            match record_in(self.cx, &file, copy) {
                Ok(record) => records.push(record),
                // Somebody has deleted the copy meanwhile.
                Err(_) if self.cx.host.path_state(&file)?.is_none() => {}
                Err(error) => {
                    damaged.push(format!("the record of {copy} cannot be read ({error})"))
                }
            }
        }
        Ok((records, damaged))
    }

    /// The names of copies that were not received to their end, each as it is there.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn unfinished(&self) -> Result<Vec<String>, EngineError> {
        let there = self.cx.host.nested_subvolumes(&self.location)?;
        let names = there.iter().filter(|path| path.parent() == Some(&self.location));
        let mut unfinished = Vec::new();
        for path in names {
            let name = path.file_name().and_then(OsStr::to_str);
            let Some(name) = name.filter(|name| finished_name(name).is_some()) else { continue };
            if self.cx.host.subvolume(path)?.is_some() {
                unfinished.push(name.to_owned());
            }
        }
        Ok(unfinished)
    }

    /// Writes the record of a copy.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn record(&self, record: &Record) -> Result<(), EngineError> {
        self.write(&self.record_of(&record.name), record)
    }

    /// Forgets a copy that came to nothing.
    ///
    /// # Errors
    /// When its record cannot be removed.
    pub fn forget(&self, name: &str) -> Result<(), EngineError> {
        self.cx.host.act(&Action::RemoveFile { path: self.record_of(name) })?;
        Ok(())
    }

    /// Forgets the copies that were deleted: just now, or by a run that a crash kept from forgetting them; and those of
    /// these names that never got theirs. Nothing that was deleted may come back after this, so [`Catalog::flush`] comes
    /// first.
    ///
    /// # Errors
    /// When a record cannot be read or removed.
    pub fn forget_deleted(&self, unfinished: &[&str]) -> Result<(), EngineError> {
        for record in self.all_records()?.0 {
            if !record.going && !unfinished.contains(&record.name.as_str()) {
                continue;
            }
            let path = self.path(&record.name);
            let (incoming, _) = self.incoming(&record.name);
            // In this order: one that just gets its name is at one of both.
            let is_there = self.cx.host.subvolume(&incoming)?.is_some()
                || self.cx.host.subvolume(&path)?.is_some()
                || !self.cx.host.predicted(&prediction_about(&path)).is_empty();
            if !is_there {
                self.forget(&record.name)?;
            }
        }
        Ok(())
    }

    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    /// When something of it was lost.
    pub fn flush(&self) -> Result<(), EngineError> {
        self.cx.host.act(&Action::FlushFileSystem { path: self.location.clone() })?;
        Ok(())
    }

    fn record_of(&self, name: &str) -> PathBuf {
        self.records().join(format!("{name}.json"))
    }

    fn write(&self, path: &Path, what: &impl Serialize) -> Result<(), EngineError> {
        let mut content =
            serde_json::to_vec_pretty(what).map_err(|error| broken(path, &error.to_string()))?;
        content.push(b'\n');
        let path = path.to_owned();
        self.cx.host.act(&Action::ReplaceFile { path, mode: 0o600, content })?;
        Ok(())
    }
}

impl Record {
    /// A record in the present format.
    pub const FORMAT: u32 = FORMAT;
}

/// The name that an unfinished copy would have had; `None` for anything else.
pub(super) fn finished_name(name: &str) -> Option<&str> {
    name.strip_prefix(INCOMING).filter(|name| !name.is_empty())
}

/// What a dry run files its prediction of a copy under; see [`Fact::about`](crate::host::Fact::about).
pub(super) fn prediction_about(path: &Path) -> String {
    format!("btrfs copy {}", path.shown())
}

fn require_btrfs(cx: Context<'_>, location: &Path) -> Result<(), EngineError> {
    if mount_of(&cx.host.mounts()?, location).is_some_and(|mount| mount.file_system == "btrfs") {
        return Ok(());
    }
    Err(unfit(format!("{} is on no btrfs, and only one can receive", location.shown())))
}

fn require_closed(cx: Context<'_>, location: &Path) -> Result<(), EngineError> {
    // The permission to go through a directory, of its group and of others.
    const OPEN: u32 = 0o011;
    match cx.host.path_state(location)? {
        Some(found) if found.mode & OPEN != 0 => Err(unfit(format!(
            "others can go into {0} (mode {1:04o}), and who owns a subvolume could make the copies of it writable — chmod go-rwx {0}",
            location.shown(),
            found.mode
        ))),
        Some(_) | None => Ok(()),
    }
}

fn marker(cx: Context<'_>, location: &Path) -> Result<Option<Marker>, EngineError> {
    let path = location.join(OWN).join("target.json");
    if cx.host.path_state(&path)?.is_none() {
        return Ok(None);
    }
    let marker: Marker = read(cx, &path)?;
    match marker.format {
        FORMAT => Ok(Some(marker)),
        _ => Err(broken(&path, "it was written by a newer version")),
    }
}

fn read<T: for<'d> Deserialize<'d>>(cx: Context<'_>, path: &Path) -> Result<T, EngineError> {
    let content = cx.host.read(path)?;
    serde_json::from_slice(&content).map_err(|error| broken(path, &error.to_string()))
}

fn record_in(cx: Context<'_>, file: &Path, copy: &str) -> Result<Record, EngineError> {
    // To read a pipe would be to wait for ever.
    if cx.host.path_state(file)?.is_some_and(|found| found.kind == PathKind::Other) {
        return Err(broken(file, "it is no file"));
    }
    let record: Record = read(cx, file)?;
    if record.name != copy || record.format != FORMAT {
        return Err(broken(file, "it is of another copy or format"));
    }
    Ok(record)
}

fn broken(path: &Path, what: &str) -> EngineError {
    let repository = path.shown().to_string();
    EngineError::Damaged { repository, detail: what.to_owned() }
}

fn unfit(what: String) -> EngineError {
    EngineError::Unsupported { engine: "btrfs".into(), what }
}
