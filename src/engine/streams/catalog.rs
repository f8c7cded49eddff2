//! What a target knows of its copies. A copy is an object that holds a stream, and a record that is stored when that is
//! there for good: the record makes the copy, and never changes.
//!
//! ```text
//! target.json                    which target this is; made by init
//! NAME.btrfs[.zst][.age]         a stream, or the first part of it
//! NAME.btrfs[.zst][.age].NNNNNN  its other parts, from 000001 on
//! NAME.json                      its record
//! NAME.begun                     which parts are there of a stream that is still being stored
//! NAME.pin                       it is never to be pruned
//! NAME.damaged                   its stream is not what was stored, so nothing new may be a difference to it
//! NAME.gone                      it is being deleted: it is none any more, whatever of it is still there
//! ```
//!
//! A stream without a record was not stored to its end, nor was one whose record breaks off: commands may leave half of it. All other objects are none of our business.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::record::{BEGUN, RECORD, Record, Stored, name_of_object, name_of_unfinished, named};
use super::store::Store;
use crate::engine::EngineError;
use crate::engine::made::Marker;
use crate::model::copy::Copy;

/// The format of a target.
const FORMAT: u32 = 1;

/// The object that says which target it is.
const MARKER: &str = "target.json";

const PIN: &str = ".pin";
const DAMAGED: &str = ".damaged";
const GONE: &str = ".gone";

/// Records that were read already. They never change, and to read one may be a call over a network.
pub(super) type Known = Mutex<BTreeMap<String, Record>>;

/// The catalog of a target that was found to be one.
pub(super) struct Catalog<'a> {
    pub store: Store<'a>,
    pub marker: Marker,
    names: BTreeSet<String>,
    records: BTreeMap<String, Record>,
    /// The names of those whose record breaks off.
    torn: BTreeSet<String>,
    damage: Vec<Damage>,
}

/// That a copy is none that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// The copy's name.
    pub name: String,
    /// What is wrong.
    pub what: String,
}

/// How a stream is damaged, by which it is known what refutes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// What is stored is not what was stored.
    Stored,
    /// What it holds is not what was sent, whatever is stored; also where a mark does not say how, as those of before and those
    /// that cannot be read.
    Within,
}

impl Harm {
    fn text(self) -> &'static str {
        match self {
            Harm::Stored => "damaged as stored\n",
            Harm::Within => "damaged within\n",
        }
    }
}

impl<'a> Catalog<'a> {
    /// Opens a target and reads all records, but for those that are known.
    ///
    /// # Errors
    /// When it is none, or cannot be looked at.
    pub fn open(store: Store<'a>, repository: &str, known: &Known) -> Result<Self, EngineError> {
        let names = store.names()?;
        if !names.contains(MARKER) {
            let repository = repository.to_owned();
            return Err(EngineError::RepositoryMissing { repository });
        }
        let marker: Marker = parsed(&store.read(MARKER)?)
            .map_err(|what| store.damaged(format!("{MARKER} cannot be read ({what})")))?;
        if marker.format != FORMAT {
            return Err(store.damaged(format!("{MARKER} was written by a newer version")));
        }
        let (records, torn, damage) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let mut catalog = Self { store, marker, names, records, torn, damage };
        catalog.read_records(known)?;
        Ok(catalog)
    }

    /// Makes one where there is none.
    ///
    /// # Errors
    /// When there is one, or nothing can be stored.
    pub fn make(store: &Store<'_>, repository: &str) -> Result<Marker, EngineError> {
        store.require()?;
        if store.names()?.contains(MARKER) {
            return Err(EngineError::RepositoryExists { repository: repository.to_owned() });
        }
        let marker = Marker::new(store.cx.host, FORMAT);
        store.write(MARKER, text(&marker)?)?;
        let is_there = store.names()?.contains(MARKER);
        match is_there && parsed(&store.read(MARKER)?).as_ref() == Ok(&marker) {
            true => Ok(marker),
            false => Err(store.damaged(format!("{MARKER} was stored, and does not come back"))),
        }
    }

    fn read_records(&mut self, known: &Known) -> Result<(), EngineError> {
        let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.retain(|name, _| self.names.contains(&format!("{name}{RECORD}")));
        let (mut damage, mut torn) = (Vec::new(), BTreeSet::new());
        let of = |name: &str, what| Damage { name: name.to_owned(), what };
        for object in &self.names {
            let Some(name) = named(object, RECORD) else { continue };
            if self.is_gone(name) {
                continue;
            }
            if known.contains_key(name) {
                continue;
            }
            let Some(content) = self.store.read_listed(object)? else { continue };
            let unread = |why: &dyn Display| of(name, format!("{object} cannot be read ({why})"));
            // One file that cannot be read keeps nobody from the other copies.
            match content.map(|content| serde_json::from_slice::<Record>(&content)) {
                Ok(Ok(record)) if record.is_of(name) => {
                    known.insert(name.to_owned(), record);
                }
                Ok(Ok(_)) => {
                    damage.push(of(name, format!("{object} is of another copy or format")));
                }
                Ok(Err(error)) if error.is_eof() => {
                    torn.insert(name.to_owned());
                }
                Ok(Err(error)) => damage.push(unread(&error)),
                Err(why) => damage.push(unread(&why)),
            }
        }
        let mut records = BTreeMap::new();
        for (name, record) in known.iter().filter(|(name, _)| !self.is_gone(name)) {
            match self.fault(record)? {
                None => drop(records.insert(name.clone(), record.clone())),
                Some(fault) => damage.push(of(name, fault)),
            }
        }
        (self.records, self.torn, self.damage) = (records, torn, damage);
        self.drop_broken_chains();
        for Damage { what, .. } in &self.damage {
            tracing::warn!("{what}, so that copy is not listed");
        }
        Ok(())
    }

    /// What is wrong with the objects of a record, as far as that is seen without reading them.
    fn fault(&self, record: &Record) -> Result<Option<String>, EngineError> {
        for (object, stored) in record.objects() {
            if !self.names.contains(&object) {
                let what = format!("{object} is not there, and {} is recorded", record.name);
                return Ok(Some(what));
            }
            let length = self.store.length(&object)?;
            let other = length.filter(|it| *it != stored.bytes && !self.is_predicted(record));
            if let Some(length) = other {
                let what = format!("{object} has {length} bytes, and {} were stored", stored.bytes);
                return Ok(Some(what));
            }
        }
        Ok(None)
    }

    /// Whether a dry run only predicts it: nothing was stored, and nobody knows how much it will be.
    pub fn is_predicted(&self, record: &Record) -> bool {
        record.stored.objects().iter().all(|stored| stored.bytes == 0)
    }

    /// What is a difference to what is not there cannot be received.
    fn drop_broken_chains(&mut self) {
        let broken: Vec<String> = (self.records.values())
            .filter(|record| self.chain(&record.name).is_none())
            .map(|record| record.name.clone())
            .collect();
        for name in broken {
            self.records.remove(&name);
            let what = format!("{name} is a difference, and not all that it is based on is there");
            self.damage.push(Damage { name, what });
        }
    }

    fn is_gone(&self, name: &str) -> bool {
        self.names.contains(&format!("{name}{GONE}"))
    }

    /// The records of the copies that are there.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The record of a copy that is there.
    pub fn record(&self, name: &str) -> Option<&Record> {
        self.records.get(name)
    }

    /// What is wrong with others, and how a person gets rid of them: without its record, what is left of a copy is
    /// a stream that was not stored to its end, which the next good one removes.
    pub fn damage(&self) -> Vec<String> {
        let told = |Damage { name, what }: &Damage| {
            let record = self.store.removal_by_hand(&format!("{name}{RECORD}"));
            format!("{what} (if it is beyond repair, remove its record: {record})")
        };
        self.damage.iter().map(told).collect()
    }

    /// What has to be received for a copy, one after the other; `None` where not all of it is there.
    pub fn chain(&self, name: &str) -> Option<Vec<&Record>> {
        let mut chain = vec![self.records.get(name)?];
        while let Some(base) = chain.last().and_then(|record| record.base.as_ref()) {
            let is_base =
                |it: &&Record| it.sent == base.sent && it.made.series() == chain[0].made.series();
            let record = self.records.get(&base.name).filter(is_base)?;
            if chain.len() > self.records.len() {
                return None;
            }
            chain.push(record);
        }
        chain.reverse();
        Some(chain)
    }

    /// The copy as it is listed.
    pub fn copy(&self, record: &Record) -> Copy {
        Copy {
            files: record.files,
            pinned: self.names.contains(&format!("{}{PIN}", record.name)),
            based_on: record.base.as_ref().map(|base| base.name.clone()),
            damaged: self
                .chain(&record.name)
                .is_none_or(|chain| chain.iter().any(|link| self.is_damaged(&link.name))),
            ..record.made.copy(&record.name)
        }
    }

    /// Whether a copy of this name was made to its end.
    pub fn is_whole(&self, name: &str) -> bool {
        self.names.contains(&format!("{name}{RECORD}")) && !self.torn.contains(name)
    }

    fn is_unfinished(&self, name: &str) -> bool {
        !self.is_whole(name) && !self.is_gone(name)
    }

    /// The copies that were not stored to their end, each with the first of its objects.
    pub fn unfinished(&self) -> BTreeMap<&str, &str> {
        let mut unfinished = BTreeMap::new();
        for object in &self.names {
            if let Some(name) = name_of_unfinished(object).filter(|it| self.is_unfinished(it)) {
                unfinished.entry(name).or_insert(object.as_str());
            }
        }
        unfinished
    }

    /// Whether there is an object of this name, as far as was seen when the target was opened.
    pub fn has(&self, object: &str) -> bool {
        self.names.contains(object)
    }

    /// The first of these objects that is not there now, as long as it is said to be: where nobody tells lengths, they are
    /// listed once.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub fn missing(
        &self,
        objects: impl Iterator<Item = (String, u64)>,
    ) -> Result<Option<String>, EngineError> {
        let mut listed = None;
        for (object, length) in objects {
            let is_there = match (self.store.length(&object)?, &mut listed) {
                (Some(found), _) => found == length,
                (None, Some(names)) => BTreeSet::contains(names, &object),
                (None, listed) => listed.insert(self.store.names()?).contains(&object),
            };
            if !is_there {
                return Ok(Some(object));
            }
        }
        Ok(None)
    }

    /// Stores the record of a copy, which makes it one.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub fn add(&self, record: &Record) -> Result<(), EngineError> {
        let content = match &record.stored {
            Stored::Whole(_) => text(record)?,
            Stored::Parts(_) => compact(record)?,
        };
        self.store.write(&format!("{}{RECORD}", record.name), content)
    }

    /// Marks a copy as never to be pruned, or takes the mark away.
    ///
    /// # Errors
    /// When that cannot be stored.
    pub fn pin(&self, name: &str, pinned: bool) -> Result<(), EngineError> {
        let pin = format!("{name}{PIN}");
        match pinned {
            true => self.store.write(&pin, "pinned\n".into()),
            false if self.names.contains(&pin) => self.store.remove(&pin),
            false => Ok(()),
        }
    }

    /// Whether the stream of a copy was found damaged when it was read last.
    pub fn is_damaged(&self, name: &str) -> bool {
        self.names.contains(&format!("{name}{DAMAGED}"))
    }

    /// How the stream of a copy was found damaged, if it was.
    pub fn mark(&self, name: &str) -> Option<Harm> {
        if !self.is_damaged(name) {
            return None;
        }
        let content = self.store.read(&format!("{name}{DAMAGED}"));
        let is_stored = content.is_ok_and(|content| content == Harm::Stored.text().as_bytes());
        Some(if is_stored { Harm::Stored } else { Harm::Within })
    }

    /// Marks the stream of a copy as damaged. What it was found to hold stays said, whatever becomes of its bytes.
    ///
    /// # Errors
    /// When that cannot be stored.
    pub fn mark_damaged(&self, name: &str, harm: Harm) -> Result<(), EngineError> {
        match self.mark(name) {
            Some(known) if known == harm || known == Harm::Within => Ok(()),
            Some(_) | None => self.store.write(&format!("{name}{DAMAGED}"), harm.text().into()),
        }
    }

    /// Takes that mark away, if there is one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn mark_sound(&self, name: &str) -> Result<(), EngineError> {
        match self.is_damaged(name) {
            true => self.store.remove(&format!("{name}{DAMAGED}")),
            false => Ok(()),
        }
    }

    /// The name of the copy that was not stored to its end, if that is what this is an object of.
    pub fn name_of_unfinished<'o>(&self, object: &'o str) -> Option<&'o str> {
        let name = name_of_unfinished(object).filter(|_| self.names.contains(object));
        name.filter(|name| self.is_unfinished(name))
    }

    /// Removes all objects of a copy that was not stored to its end, and before those what there is of records of it.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_unfinished(&mut self, name: &str) -> Result<(), EngineError> {
        if self.torn.contains(name) {
            self.remove(&format!("{name}{RECORD}"))?;
        }
        self.remove(&format!("{name}{BEGUN}"))?;
        let begin_so = self.names.range(name.to_owned()..).take_while(|it| it.starts_with(name));
        let objects: Vec<String> =
            begin_so.filter(|it| name_of_object(it) == Some(name)).cloned().collect();
        objects.iter().try_for_each(|object| self.remove(object))
    }

    /// Removes an object that was there, once.
    fn remove(&mut self, object: &str) -> Result<(), EngineError> {
        if self.names.contains(object) {
            self.store.remove(object)?;
            self.names.remove(object);
        }
        Ok(())
    }

    /// Deletes copies, and what earlier deletions left. Each is none any more before anything of it goes, and what is a
    /// difference before what it is one to: wherever it breaks off, all that is still there can be restored.
    ///
    /// # Errors
    /// When something cannot be removed; a later call goes on with it.
    pub fn delete(&mut self, names: &[&str]) -> Result<(), EngineError> {
        let mut names = names.to_vec();
        names.sort_by_key(|name| Reverse(self.chain(name).map_or(0, |chain| chain.len())));
        for name in names {
            let gone = format!("{name}{GONE}");
            self.store.write(&gone, "deleted\n".into())?;
            self.names.insert(gone);
        }
        let gone: Vec<String> =
            self.names.iter().filter_map(|it| named(it, GONE)).map(str::to_owned).collect();
        for name in &gone {
            let is_of_it = |object: &&String| {
                name_of_object(object) == Some(name)
                    || [RECORD, BEGUN, PIN, DAMAGED]
                        .iter()
                        .any(|ending| named(object, ending) == Some(name))
            };
            for object in self.names.iter().filter(is_of_it) {
                self.store.remove(object)?;
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        // Until it is gone for good, a power cut brings back the copy and must find the mark.
        self.store.flush()?;
        gone.iter().try_for_each(|name| self.store.remove(&format!("{name}{GONE}")))
    }
}

pub(super) fn parsed<T: for<'d> Deserialize<'d>>(content: &[u8]) -> Result<T, String> {
    serde_json::from_slice(content).map_err(|error| error.to_string())
}

/// As people like to read it.
fn text(what: &impl Serialize) -> Result<String, EngineError> {
    line_of(serde_json::to_string_pretty(what))
}

/// The same of what may be long.
pub(super) fn compact(what: &impl Serialize) -> Result<String, EngineError> {
    line_of(serde_json::to_string(what))
}

fn line_of(text: serde_json::Result<String>) -> Result<String, EngineError> {
    let text =
        text.map_err(|error| EngineError::Output { engine: "streams", what: error.to_string() })?;
    Ok(text + "\n")
}
