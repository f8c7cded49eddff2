//! Parts of copies that are still being received: what a transfer that was interrupted goes on from.
//!
//! A part counts as a copy does: with a record that was written when its data was on the disk, and only as long as the
//! subvolume is the one that the record speaks of. It is no copy and no base of any, only the beginning of the one whose
//! name it bears.
//!
//! ```text
//! LOCATION/.stillpoint/parts/NAME.json        the record of the last part of NAME that is on the disk
//! LOCATION/.incoming.NAME.partN               a part, a read-only subvolume once it is whole
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, finished_name};
use super::record::Record;
use crate::engine::EngineError;
use crate::engine::helped::Failure;
use crate::engine::made::Made;
use crate::host::Subvolume;
use crate::model::shown::Show;
use crate::tools::btrfs::command::Told;
use crate::tools::btrfs::parts::{Cut, Mark, part_name};

/// The format of a record.
const FORMAT: u32 = 1;

/// The record of the last part of a copy that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// [`FORMAT`].
    pub format: u32,
    /// The name that the copy gets when it is whole.
    pub copy: String,
    /// Whose it is.
    #[serde(flatten)]
    pub made: Made,
    /// The UUID of the snapshot that is sent.
    pub sent: String,
    /// The generation that the snapshot has.
    pub generation: u64,
    /// The UUID of the subvolume here to which it is sent as a difference.
    pub base: Option<String>,
    /// So many bytes make a part.
    pub every: u64,
    /// Where it ends.
    pub mark: Mark,
    /// The UUID of the part.
    pub uuid: String,
    /// What it was received as.
    pub claimed: String,
    /// The generation here in which it was changed last, when it was whole.
    pub changed: u64,
    /// Names that were given in it to what is no directory.
    pub named: u64,
    /// Names that were taken away from it.
    pub unnamed: u64,
    /// By how many bytes at most it would be longer without compression, where that is known.
    #[serde(default)]
    pub unpacked: Option<u64>,
}

impl Part {
    /// That of a copy of which there is none yet.
    pub fn none(copy: &str, made: &Made, sent: &str, generation: u64, every: u64) -> Part {
        Part {
            format: FORMAT,
            copy: copy.to_owned(),
            made: made.clone(),
            sent: sent.to_owned(),
            generation,
            base: None,
            every,
            mark: Mark { part: 0, offset: 0, digest: String::new() },
            uuid: String::new(),
            claimed: String::new(),
            changed: 0,
            named: 0,
            unnamed: 0,
            unpacked: Some(0),
        }
    }

    fn is_of(&self, found: &Subvolume) -> bool {
        found.uuid.as_ref() == Some(&self.uuid)
            && found.is_received_as(&self.claimed, self.generation)
            && found.changed == self.changed
    }
}

/// A subvolume in a target, as it was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub path: PathBuf,
    pub found: Subvolume,
}

impl Catalog<'_> {
    /// The directory with the records of parts.
    pub(super) fn records_of_parts(&self) -> PathBuf {
        self.own().join("parts")
    }

    fn record_of_part(&self, copy: &str) -> PathBuf {
        self.records_of_parts().join(format!("{copy}.json"))
    }

    /// Where a part of a copy is.
    fn part(&self, copy: &str, number: u32) -> PathBuf {
        self.location.join(part_name(&self.incoming(copy).1, number))
    }

    /// The parts from which a transfer can go on. A record that cannot be read, or speaks of what is not there, is none.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn parts(&self) -> Result<Vec<Part>, EngineError> {
        let mut parts = Vec::new();
        for copy in self.parted()? {
            if let Some((part, _)) = self.part_of(&copy)? {
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// The names of the copies of which there are records of parts.
    fn parted(&self) -> Result<Vec<String>, EngineError> {
        let names = self.place.names(&self.records_of_parts())?;
        let copy = |name: &str| Some(name.strip_suffix(".json")?.to_owned());
        let copies = names.iter().filter_map(|name| copy(name.to_str()?));
        Ok(copies.filter(|copy| !copy.starts_with('.')).collect())
    }

    /// The part from which the transfer of a copy can go on.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn part_of(&self, copy: &str) -> Result<Option<(Part, Found)>, EngineError> {
        let file = self.record_of_part(copy);
        if !self.place.is_there(&file)? {
            return Ok(None);
        }
        let part: Part = match self.read(&file) {
            Ok(part) => part,
            Err(error @ EngineError::Damaged { .. }) => {
                tracing::warn!(%error, "what was received of {copy} is of no use");
                return Ok(None);
            }
            // Somebody has removed it meanwhile.
            Err(_) if !self.place.is_there(&file)? => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = self.part(copy, part.mark.part);
        let found = self.known_subvolume(&path)?.filter(|found| part.is_of(found));
        let is_sound = part.format == FORMAT
            && part.copy == copy
            && part.mark.is_one()
            && (part.every > 0 && part.mark.part < u32::MAX);
        Ok(found.filter(|_| is_sound).map(|found| (part, Found { path, found })))
    }

    /// What is left of transfers: everything that has not got its name yet and whose name this is asked of, without the
    /// parts that stay. By their names there.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn left(
        &self,
        stay: &[Part],
        is_meant: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, EngineError> {
        let places = stay.iter().map(|part| self.part(&part.copy, part.mark.part));
        let places: BTreeSet<PathBuf> = places.collect();
        let mut left = self.unfinished()?;
        left.retain(|name| {
            let is_meant = finished_name(name).is_some_and(&is_meant);
            is_meant && !places.contains(&self.location.join(name))
        });
        Ok(left)
    }

    /// Forgets the parts that are gone. Nothing that was deleted may come back after this, so [`Catalog::flush`] comes
    /// first.
    ///
    /// # Errors
    /// When a record cannot be removed.
    pub fn forget_parts(&self) -> Result<(), EngineError> {
        for copy in self.parted()? {
            if self.part_of(&copy)?.is_none() {
                self.place.remove(&self.record_of_part(&copy))?;
            }
        }
        Ok(())
    }
}

/// Sees to the parts of a copy while they are received: the last one that is on the disk has a record, and those before it
/// are deleted.
pub(super) struct Parting<'t> {
    catalog: &'t Catalog<'t>,
    /// What is recorded of a part, as far as all are alike.
    draft: Part,
    /// Those that have ended, of which nobody has seen yet that they were received.
    cuts: VecDeque<Cut>,
    /// The UUID of the subvolume of which the next one must be a snapshot.
    parent: Option<String>,
    /// The last that has a record.
    recorded: Option<(Part, Found)>,
    /// The last of all, which has none.
    last: Option<Found>,
    /// Why the last look could not be made, and how many lines are still to pass before the next one.
    unseen: Option<(EngineError, u32)>,
    trouble: Option<Trouble>,
}

/// Why parts are of no use.
pub(super) enum Trouble {
    /// One is not what was sent.
    Mistaken(EngineError),
    /// Something failed.
    Failed(EngineError),
}

impl Trouble {
    /// The failure that it is for a transfer with this base.
    pub fn of(self, base: Option<&Record>) -> Failure {
        match self {
            Trouble::Mistaken(error) => Failure::of(base, error),
            Trouble::Failed(error) => Failure::Other(error),
        }
    }
}

/// So many lines of a stage, about one a second, pass until a look is made again that could not be made.
const PATIENCE: u32 = 30;

impl<'t> Parting<'t> {
    /// Begins behind a part, or with what the first one is based on.
    pub fn begin(
        catalog: &'t Catalog<'t>,
        draft: Part,
        base: Option<&str>,
        behind: Option<(Part, Found)>,
    ) -> Self {
        let parent = behind.as_ref().map(|(part, _)| &*part.uuid).or(base).map(str::to_owned);
        let draft = match &behind {
            Some((part, _)) => part.clone(),
            None => Part { base: base.map(str::to_owned), ..draft },
        };
        let (cuts, last, unseen, trouble) = (VecDeque::new(), None, None, None);
        Self { catalog, draft, cuts, parent, recorded: behind, last, unseen, trouble }
    }

    /// Takes a line that a stage tells.
    pub fn hear(&mut self, line: &[u8]) {
        self.cuts.extend(Cut::read(line));
        match &mut self.unseen {
            Some((_, lines @ 1..)) => *lines -= 1,
            Some(_) | None => self.advance(),
        }
    }

    /// Why nothing more is recorded, in words.
    pub fn trouble(&self) -> Option<String> {
        let (Trouble::Mistaken(error) | Trouble::Failed(error)) = self.trouble.as_ref()?;
        Some(error.to_string())
    }

    /// The same, after which nothing is seen to any more.
    pub fn take_trouble(&mut self) -> Option<Trouble> {
        let trouble = self.trouble.take()?;
        // Of what was lost, a file system tells once: it must not be asked again.
        self.cuts.clear();
        Some(trouble)
    }

    /// Sees to what has been received by now. After a trouble nothing more is recorded.
    fn advance(&mut self) {
        while self.trouble.is_none() && !self.cuts.is_empty() {
            match self.see_to_one() {
                Ok(true) => {}
                Ok(false) => return,
                Err(trouble) => self.trouble = Some(trouble),
            }
        }
    }

    /// Whether the next part was received by now; then it is seen to.
    fn see_to_one(&mut self) -> Result<bool, Trouble> {
        let Some(cut) = self.cuts.front() else { return Ok(false) };
        let path = self.catalog.part(&self.draft.copy, cut.mark.part);
        let there = match self.catalog.subvolume(&path) {
            // Nothing was changed, and the stream flows by another line.
            Err(error @ (EngineError::Unreachable { .. } | EngineError::Run(_))) => {
                self.unseen = Some((error, PATIENCE));
                return Ok(false);
            }
            there => there.map_err(Trouble::Failed)?,
        };
        self.unseen = None;
        let is_whole = |it: &Subvolume| it.is_received_as(&cut.uuid, self.draft.generation);
        let Some(found) = there.filter(is_whole) else { return Ok(false) };
        if found.parent_uuid != self.parent {
            let what = format!("{} is not what was sent: {found:?}", path.shown());
            return Err(Trouble::Mistaken(EngineError::Output { engine: "btrfs", what }));
        }
        self.parent = found.uuid.clone();
        let Some(cut) = self.cuts.pop_front() else { return Ok(false) };
        let found = Found { path, found };
        match cut.last {
            true => self.last = Some(found),
            false => self.record(cut, found).map_err(Trouble::Failed)?,
        }
        Ok(true)
    }

    /// Records a part when it is on the disk, in the place of the one before it.
    fn record(&mut self, cut: Cut, Found { path, found }: Found) -> Result<(), EngineError> {
        let catalog = self.catalog;
        catalog.flush()?;
        // What was written out meanwhile has changed it.
        let is_it = |there: &Subvolume| there.uuid == found.uuid && there.id == found.id;
        let found = catalog.known_subvolume(&path)?.filter(is_it).unwrap_or(found);
        let part = Part {
            uuid: found.uuid.clone().unwrap_or_default(),
            claimed: cut.uuid,
            changed: found.changed,
            named: self.draft.named + cut.named,
            unnamed: self.draft.unnamed + cut.unnamed,
            unpacked: self.draft.unpacked.and_then(|before| before.checked_add(cut.unpacked)),
            mark: cut.mark,
            ..self.draft.clone()
        };
        catalog.place.make_directory(&catalog.records_of_parts())?;
        catalog.write(&catalog.record_of_part(&part.copy), &part)?;
        let before = self.recorded.replace((part, Found { path, found }));
        if let Some((_, Found { path, found })) = before {
            catalog.place.delete(&path, found)?;
        }
        Ok(())
    }

    /// Ends: with the UUID of the subvolume of which the whole one must be a snapshot, and what is to be deleted when that
    /// has its name.
    ///
    /// # Errors
    /// Why the parts are of no use.
    pub fn finish(&mut self) -> Result<Ended, Trouble> {
        self.advance();
        if let Some(trouble) = self.take_trouble() {
            return Err(trouble);
        }
        if let Some((error, _)) = self.unseen.take() {
            return Err(Trouble::Failed(error));
        }
        if let Some(cut) = self.cuts.front() {
            let path = self.catalog.part(&self.draft.copy, cut.mark.part);
            let what = format!("{} was not received", path.shown());
            return Err(Trouble::Failed(EngineError::Output { engine: "btrfs", what }));
        }
        let recorded = self.recorded.as_ref().map(|(_, found)| found.clone());
        let parts = recorded.into_iter().chain(self.last.take()).collect();
        Ok(Ended { parent: self.parent.clone(), parts, before: self.draft.clone() })
    }

    /// The last part that is on the disk, after everything has ended, however.
    pub fn stays(&mut self) -> Option<Part> {
        self.advance();
        self.recorded.as_ref().map(|(part, _)| part.clone())
    }
}

/// What parts came to.
pub(super) struct Ended {
    /// The UUID of what the whole one is a snapshot of.
    pub parent: Option<String>,
    /// What is needed no longer when it has its name.
    pub parts: Vec<Found>,
    /// What was there before; nothing, if that is all of it.
    pub before: Part,
}

impl Ended {
    /// What passed, and the names in what was there before.
    pub fn told(&self, told: Told) -> Told {
        let Part { named, unnamed, .. } = self.before;
        Told { named: told.named + named, unnamed: told.unnamed + unnamed, ..told }
    }

    /// How long the whole stream is at most when it is sent back, where that is known.
    pub fn stream(&self, told: &Told) -> Option<u64> {
        let Part { unpacked, ref mark, .. } = self.before;
        let parts = [told.bytes, told.unpacked, mark.offset, unpacked?];
        parts.into_iter().try_fold(0_u64, u64::checked_add)
    }
}
