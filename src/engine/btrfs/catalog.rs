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
//! LOCATION/.stillpoint/copies/NAME.json       the record of the copy NAME, in which %2f stands for / and %25 for %
//! LOCATION/NAME                               the copy, a read-only subvolume
//! LOCATION/.incoming.NAME                     one that is being received
//! ```
//!
//! One that is received in parts has more names, and a record of its own meanwhile (parts.rs).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file_name::{draft_of, escaped, unescaped};
use super::place::{Place, WORKED_ON, is_untold, unfit};
use super::record::{How, Record};
use crate::engine::made::Marker;
use crate::engine::{Context, EngineError};
use crate::host::Subvolume;
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::tools::btrfs::parts::of_part;

/// Our own directory in a target.
pub(super) const OWN: &str = ".stillpoint";

/// The file in it that says which target it is.
const MARKER: &str = "target.json";

/// The directory in it with the records of copies.
const RECORDS: &str = "copies";

/// What the name of a copy begins with while it is being received.
const INCOMING: &str = ".incoming.";

/// The records of copies, each with the subvolume; `None` for that where a dry run only predicts it.
pub(super) type Copies = Vec<(Record, Option<Subvolume>)>;

/// The records of those that are there and what was received. What a dry run only predicts is no base of anything, nor is
/// what may have been changed.
pub(super) fn there(copies: &Copies) -> impl Iterator<Item = &Record> + Clone {
    let is_known = |found: &Subvolume| !is_untold(found);
    copies.iter().filter(move |(_, found)| found.as_ref().is_some_and(is_known)).map(|(it, _)| it)
}

/// What is wrong with a copy.
pub(super) struct Wrong {
    /// Its name.
    pub copy: String,
    /// In words.
    pub what: String,
    pub how: How,
}

/// How whoever reads of a copy that is none any more can delete it.
#[derive(Debug, Clone, Copy)]
pub(super) enum WayOut {
    /// By our verb.
    Verb,
    /// By hand, on the machine where it lies.
    ByHand,
}

/// The catalog of a target that was found to be one.
pub(super) struct Catalog<'a> {
    pub cx: Context<'a>,
    /// Where the target's directory is.
    pub place: Box<dyn Place + 'a>,
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
    pub fn open(cx: Context<'a>, place: Box<dyn Place + 'a>) -> Result<Self, EngineError> {
        let location = place.directory().to_owned();
        let own = location.join(OWN);
        place.look_ahead(&own.join(MARKER), &own.join(RECORDS))?;
        let marker = marker(&*place)?
            .ok_or_else(|| EngineError::RepositoryMissing { repository: place.name() })?;
        place.require_btrfs()?;
        let catalog = Self { cx, place, location, marker };
        // What a record says is believed, so nobody else may write one, nor move what it speaks of.
        for directory in [&catalog.location, &catalog.records()] {
            catalog.place.require_trusted(directory)?;
        }
        Ok(catalog)
    }

    /// Makes one in a directory of a btrfs.
    ///
    /// # Errors
    /// When there is one, or no directory, or no btrfs, or others have access to it.
    pub fn make(cx: Context<'a>, place: Box<dyn Place + 'a>) -> Result<Self, EngineError> {
        let location = place.directory().to_owned();
        let repository = place.name();
        if !place.is_there(&location)? {
            let what = format!(
                "there is no directory {repository}: make it, on the file system that is to hold the copies"
            );
            return Err(unfit(what));
        }
        if marker(&*place)?.is_some() {
            return Err(EngineError::RepositoryExists { repository });
        }
        place.require_btrfs()?;
        place.require_closed()?;
        place.require_new()?;
        place.require_trusted(&location)?;
        let made = Self { cx, place, location, marker: Marker::new(cx.host, Record::FORMAT) };
        for directory in [made.own(), made.records()] {
            made.place.make_directory(&directory)?;
        }
        made.write(&made.own().join(MARKER), &made.marker)?;
        Ok(made)
    }

    /// Our own directory.
    pub fn own(&self) -> PathBuf {
        self.location.join(OWN)
    }

    fn records(&self) -> PathBuf {
        self.own().join(RECORDS)
    }

    /// Where a copy is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.location.join(name)
    }

    /// Where it is while it is being received, and the name that it has there.
    pub fn incoming(&self, name: &str) -> (PathBuf, String) {
        let incoming = incoming_name(name);
        (self.location.join(&incoming), incoming)
    }

    /// What whoever answers for other machines holds while it changes something.
    pub fn lock(&self) -> PathBuf {
        self.own().join("serve.lock")
    }

    /// Whether a new copy cannot have this name: something has it, or another one had it, whose record would be written over.
    /// Of this very one, there may be a record already, which a crash kept from its name.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn is_taken(&self, name: &str, run: &RunId, sent: &str) -> Result<bool, EngineError> {
        if self.place.is_there(&self.path(name))? {
            return Ok(true);
        }
        let file = self.record_of(name);
        if !self.place.is_there(&file)? {
            return Ok(false);
        }
        match self.read::<Record>(&file) {
            Ok(record) => Ok(record.made.run != *run || record.sent != sent),
            Err(EngineError::Damaged { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a record of this name, also of what is gone or is not what it was.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn is_recorded(&self, name: &str) -> Result<bool, EngineError> {
        self.place.is_there(&self.record_of(name))
    }

    /// Whether there is a subvolume that has this name or is about to get it. In this order: one that just gets its name is
    /// at one of both.
    fn is_at_either(&self, name: &str) -> Result<bool, EngineError> {
        let found = self.place.subvolumes(&[self.incoming(name).0, self.path(name)])?;
        Ok(found.iter().any(Option::is_some))
    }

    /// The subvolume at a path in the directory, if there is one.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn subvolume(&self, path: &Path) -> Result<Option<Subvolume>, EngineError> {
        let mut found = self.place.subvolumes(&[path.to_owned()])?;
        Ok(found.pop().flatten())
    }

    /// The same, with the generation of its last change.
    ///
    /// # Errors
    /// When that cannot be told now, too: there is no copy then.
    pub fn known_subvolume(&self, path: &Path) -> Result<Option<Subvolume>, EngineError> {
        match self.subvolume(path)? {
            Some(found) if is_untold(&found) => Err(EngineError::Refused {
                engine: "btrfs",
                repository: self.place.name(),
                detail: format!("{}: {WORKED_ON}", path.shown()),
            }),
            found => Ok(found),
        }
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
    pub fn examine(&self) -> Result<(Copies, Vec<Wrong>), EngineError> {
        let mut copies = Vec::new();
        let (records, mut damaged) = self.all_records()?;
        for Wrong { what, .. } in &damaged {
            tracing::warn!("{what}, so that copy is not listed");
        }
        let paths: Vec<PathBuf> = records.iter().map(|record| self.path(&record.name)).collect();
        let found = self.place.subvolumes(&paths)?;
        for ((record, path), found) in records.into_iter().zip(paths).zip(found) {
            let Some(found) = found else {
                let about = prediction_about(&path);
                if !record.going && !self.cx.host.predicted(&about).is_empty() {
                    copies.push((record, None));
                }
                continue;
            };
            let Some(how) = record.how(&found) else {
                copies.push((record, Some(found)));
                continue;
            };
            tracing::warn!(
                "{} is not what was received there any more, so it is not listed as a copy",
                path.shown()
            );
            let what = format!("{} is not what was received there", record.name);
            damaged.push(Wrong { copy: record.name, what, how });
        }
        Ok((copies, damaged))
    }

    /// Every record, also of what is gone; and what is wrong with those that cannot be read, which keep nobody from the
    /// other copies.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn all_records(&self) -> Result<(Vec<Record>, Vec<Wrong>), EngineError> {
        let directory = self.records();
        let names = self.place.names(&directory)?;
        // A record is written under another name first, which a power cut may leave.
        let copies = names.iter().filter_map(|name| {
            let copy = name.to_str()?.strip_suffix(".json")?;
            (!copy.starts_with('.')).then(|| unescaped(copy))
        });
        let copies: Vec<String> = copies.collect();
        let files: Vec<PathBuf> = copies.iter().map(|copy| self.record_of(copy)).collect();
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for ((copy, file), content) in copies.iter().zip(&files).zip(self.place.read(&files)?) {
            match content.and_then(|content| record_in(file, &content, copy)) {
                Ok(record) => records.push(record),
                // Somebody has deleted the copy meanwhile.
                Err(_) if !self.place.is_there(file)? => {}
                Err(error @ EngineError::Damaged { .. }) => {
                    let what = format!("the record of {copy} cannot be read ({error})");
                    damaged.push(Wrong { copy: copy.clone(), what, how: How::Unread });
                }
                // It says nothing of the record that it could not be fetched.
                Err(error) => return Err(error),
            }
        }
        Ok((records, damaged))
    }

    /// The names of copies that were not received to their end, each as it is there.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn unfinished(&self) -> Result<Vec<String>, EngineError> {
        let mut there = self.place.nested()?;
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        there.retain(|path| name(path).is_some_and(|name| finished_name(&name).is_some()));
        let found = self.place.subvolumes(&there)?;
        let still = there.iter().zip(found).filter(|(_, found)| found.is_some());
        Ok(still.filter_map(|(path, _)| name(path)).collect())
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
        self.place.remove(&self.record_of(name))
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
            let is_there = self.is_at_either(&record.name)?
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
        self.place.flush()?;
        if let Err(error) = self.remove_drafts() {
            tracing::warn!(%error, "what a power cut left of records stays");
        }
        Ok(())
    }

    /// Removes what is left of files of ours that were being written when the power went, or the line was cut. One that is
    /// just being written for the first time is of a copy that has not got its name yet; one of a part, of a copy that is
    /// being received.
    fn remove_drafts(&self) -> Result<(), EngineError> {
        let (records, parts) = (self.records(), self.records_of_parts());
        for draft in self.place.drafts(&[self.own(), records.clone(), parts.clone()])? {
            let name = draft.file_name().and_then(OsStr::to_str);
            let Some(copy) = name.and_then(draft_of).map(unescaped) else { continue };
            let is_left = match draft.parent() {
                Some(directory) if directory == records => {
                    self.is_recorded(&copy)? || !self.is_at_either(&copy)?
                }
                Some(directory) if directory == parts => {
                    self.left(&[], |name| name == copy)?.is_empty()
                }
                // Our own directory has been complete since it was made.
                Some(_) | None => true,
            };
            if is_left {
                self.place.remove(&draft)?;
            }
        }
        Ok(())
    }

    /// Where the record of a copy is.
    pub fn record_of(&self, name: &str) -> PathBuf {
        self.records().join(format!("{}.json", escaped(name)))
    }

    /// Reads a file of ours.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read<T: for<'d> Deserialize<'d>>(&self, path: &Path) -> Result<T, EngineError> {
        let content = self.place.read(&[path.to_owned()])?.pop().transpose()?;
        parsed(path, &content.unwrap_or_default())
    }

    /// Writes a file of ours.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn write(&self, path: &Path, what: &impl Serialize) -> Result<(), EngineError> {
        let mut content =
            serde_json::to_vec_pretty(what).map_err(|error| broken(path, &error.to_string()))?;
        content.push(b'\n');
        self.place.write(path, content)
    }
}

/// The name that an unfinished copy would have had, or one of which this is a part; `None` for anything else.
pub(super) fn finished_name(name: &str) -> Option<&str> {
    let name = name.strip_prefix(INCOMING).filter(|name| !name.is_empty())?;
    Some(of_part(name).map_or(name, |(copy, _)| copy))
}

/// The name that a copy has while it is being received.
pub(super) fn incoming_name(name: &str) -> String {
    format!("{INCOMING}{name}")
}

/// What a dry run files its prediction of a copy under; see [`Fact::about`](crate::host::Fact::about).
pub(super) fn prediction_about(path: &Path) -> String {
    format!("btrfs copy {}", path.shown())
}

fn marker(place: &dyn Place) -> Result<Option<Marker>, EngineError> {
    let path = place.directory().join(OWN).join(MARKER);
    if !place.is_there(&path)? {
        return Ok(None);
    }
    let content = place.read(std::slice::from_ref(&path))?.pop().transpose()?;
    let marker: Marker = parsed(&path, &content.unwrap_or_default())?;
    match marker.format {
        Record::FORMAT => Ok(Some(marker)),
        _ => Err(broken(&path, "it was written by a newer version")),
    }
}

fn parsed<T: for<'d> Deserialize<'d>>(path: &Path, content: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(content).map_err(|error| broken(path, &error.to_string()))
}

fn record_in(file: &Path, content: &[u8], copy: &str) -> Result<Record, EngineError> {
    let record: Record = parsed(file, content)?;
    if record.name != copy || record.format != Record::FORMAT {
        return Err(broken(file, "it is of another copy or format"));
    }
    Ok(record)
}

fn broken(path: &Path, what: &str) -> EngineError {
    let repository = path.shown().to_string();
    EngineError::Damaged { repository, detail: what.to_owned() }
}
