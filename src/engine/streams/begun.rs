//! Copies that are still being stored: the parts from which a transfer goes on that was interrupted.
//!
//! A part counts when it is stored for good and the record of them says so, which is written anew with each of them. It is
//! no copy and no base of any, only the beginning of the one whose name it bears.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, parsed, text};
use super::record::{BEGUN, Base, RECORD, Record, name_of_object, object_of, part_of};
use crate::engine::EngineError;
use crate::engine::made::Made;
use crate::tools::btrfs::parts::Mark;
use crate::tools::object::Digest;

/// The format of a record.
const FORMAT: u32 = 1;

/// The record of the parts of a copy that are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// [`FORMAT`].
    pub format: u32,
    /// The name that the copy gets when it is whole.
    pub name: String,
    /// The UUID of the snapshot that is sent.
    pub sent: String,
    /// The generation that the snapshot has.
    pub generation: u64,
    /// What it is a difference to; `None`: it stands alone.
    pub base: Option<Base>,
    /// Whose it is.
    #[serde(flatten)]
    pub made: Made,
    /// They are compressed.
    pub compressed: bool,
    /// They are encrypted to these; see [`Record`](super::record::Record).
    pub recipients: Option<String>,
    /// So many bytes of the stream make a part.
    pub every: u64,
    /// What is stored, in order.
    pub parts: Vec<Digest>,
    /// Where the last of them ends.
    pub mark: Mark,
}

impl Begun {
    /// A record in the present format.
    pub const FORMAT: u32 = FORMAT;

    fn is_of(&self, name: &str) -> bool {
        self.format == FORMAT
            && self.name == name
            && self.made.name() == name
            && self.made.is_plain()
            && (self.every > 0 && self.mark.is_one())
            && self.parts.len() == self.mark.part as usize + 1
    }

    fn stored(&self) -> impl Iterator<Item = (String, &Digest)> {
        let object = object_of(&self.name, self.compressed, self.recipients.is_some());
        let parts = self.parts.iter().enumerate();
        parts.map(move |(n, stored)| (part_of(&object, n), stored))
    }

    /// Its objects: itself, and the parts.
    pub fn objects(&self) -> BTreeSet<String> {
        let own = format!("{}{BEGUN}", self.name);
        self.stored().map(|(object, _)| object).chain([own]).collect()
    }
}

impl Catalog<'_> {
    /// The parts from which the transfer of a copy can go on. A record that cannot be read, or speaks of what is not there,
    /// is none.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn begun(&self, name: &str) -> Result<Option<Begun>, EngineError> {
        let object = format!("{name}{BEGUN}");
        if !self.has(&object) || self.is_whole(name) {
            return Ok(None);
        }
        let content = match self.store.read(&object) {
            Ok(content) => content,
            // Somebody has removed it meanwhile.
            Err(_) if !self.store.names()?.contains(&object) => return Ok(None),
            Err(error) => return Err(error),
        };
        let begun = match parsed::<Begun>(&content) {
            Ok(begun) if begun.is_of(name) => begun,
            Ok(_) => return Ok(None),
            Err(error) => {
                tracing::warn!(%error, "what was stored of {name} is of no use");
                return Ok(None);
            }
        };
        for (object, stored) in begun.stored() {
            let length = self.store.length(&object)?;
            if !self.has(&object) || length.is_some_and(|length| length != stored.bytes) {
                return Ok(None);
            }
        }
        Ok(Some(begun))
    }

    /// Records the parts that are stored.
    ///
    /// # Errors
    /// When that cannot be stored.
    pub fn record_parts(&self, begun: &Begun) -> Result<(), EngineError> {
        self.store.write(&format!("{}{BEGUN}", begun.name), text(begun)?)
    }

    /// Forgets what was recorded of the parts of these copies, which have records of their own now.
    ///
    /// # Errors
    /// When that cannot be removed.
    pub fn forget_parts(&self, of: impl Fn(&Record) -> bool) -> Result<(), EngineError> {
        let begun = |record: &Record| format!("{}{BEGUN}", record.name);
        let mut forgotten = self.records().filter(|it| of(it)).map(begun).filter(|it| self.has(it));
        forgotten.try_for_each(|object| self.store.remove(&object))
    }

    /// The same of one that has just got it.
    ///
    /// # Errors
    /// When that cannot be removed.
    pub fn forget_parts_of(&self, begun: &Begun) -> Result<(), EngineError> {
        self.store.remove(&format!("{}{BEGUN}", begun.name))
    }

    /// Takes back what was stored of a copy whose making failed, but for what stays to be gone on with. A record goes
    /// before what it speaks of.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn take_back(&self, name: &str, stays: Option<&Begun>) -> Result<(), EngineError> {
        let names = self.store.names()?;
        let kept: BTreeSet<String> = stays.map(Begun::objects).unwrap_or_default();
        let records = [RECORD, BEGUN].map(|ending| format!("{name}{ending}"));
        let objects = names.iter().filter(|object| name_of_object(object) == Some(name));
        for object in records.iter().filter(|it| names.contains(*it)).chain(objects) {
            if !kept.contains(object) {
                self.store.remove(object)?;
            }
        }
        Ok(())
    }
}
