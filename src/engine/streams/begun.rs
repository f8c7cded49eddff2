//! Copies that are still being stored: the parts from which a transfer goes on that was interrupted.
//!
//! A part counts when it is stored for good and the record of them says so, which is written anew with each of them. It is
//! no copy and no base of any, only the beginning of the one whose name it bears.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, compact, parsed};
use super::record::{BEGUN, Base, RECORD, Record, name_of_object, object_of, part_of};
use crate::engine::EngineError;
use crate::engine::made::Made;
use crate::tools::btrfs::parts::Mark;
use crate::tools::object::Digest;

/// The record of the parts of a copy that are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// [`Begun::FORMAT`].
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
    /// How many of them, from the first on, were read back by a later run and found to be what was stored.
    pub read_back: usize,
    /// What is stored, in order.
    pub parts: Vec<Part>,
    /// Whether it says of more of them than are to be gone on with.
    #[serde(skip)]
    pub is_cut: bool,
}

/// A part that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// What it is.
    pub stored: Digest,
    /// Where it ends.
    pub mark: Mark,
}

impl Begun {
    /// The present format.
    pub const FORMAT: u32 = 1;

    fn is_of(&self, name: &str) -> bool {
        let ends = self.parts.iter().map(|part| &part.mark).zip(0..);
        self.format == Self::FORMAT
            && self.name == name
            && self.made.name() == name
            && self.made.is_plain()
            && (self.every > 0 && self.read_back <= self.parts.len())
            && ends.into_iter().all(|(mark, number)| mark.is_one() && mark.part == number)
    }

    /// Each part, with the object that holds it.
    fn stored(&self) -> impl Iterator<Item = (String, &Digest)> {
        let object = object_of(&self.name, self.compressed, self.recipients.is_some());
        let parts = self.parts.iter().enumerate();
        parts.map(move |(n, part)| (part_of(&object, n), &part.stored))
    }

    /// Its objects: itself, and the parts.
    fn objects(&self) -> BTreeSet<String> {
        let own = format!("{}{BEGUN}", self.name);
        self.stored().map(|(object, _)| object).chain([own]).collect()
    }

    /// Leaves out all from the first one on that is not what was stored.
    fn cut(&mut self, parts: usize) {
        self.is_cut |= parts < self.parts.len();
        self.parts.truncate(parts);
        self.read_back = self.read_back.min(parts);
    }
}

impl Catalog<'_> {
    /// The parts from which the transfer of a copy can go on: those before the first that is not there. A record that cannot
    /// be read is none.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn begun(&self, name: &str) -> Result<Option<Begun>, EngineError> {
        let object = format!("{name}{BEGUN}");
        if !self.has(&object) || self.is_whole(name) {
            return Ok(None);
        }
        let Some(content) = self.store.read_listed(&object)? else { return Ok(None) };
        let mut begun = match content.and_then(|content| parsed::<Begun>(&content)) {
            Ok(begun) if begun.is_of(name) => begun,
            Ok(_) => return Ok(None),
            // A file that cannot be read keeps nobody from beginning again.
            Err(error) => {
                tracing::warn!(%error, "what was stored of {name} is of no use");
                return Ok(None);
            }
        };
        let mut sound = 0;
        for (object, stored) in begun.stored() {
            let length = self.store.length(&object)?;
            if !self.has(&object) || length.is_some_and(|length| length != stored.bytes) {
                break;
            }
            sound += 1;
        }
        begun.cut(sound);
        Ok(Some(begun).filter(|begun| !begun.parts.is_empty()))
    }

    /// The same parts, before anything is stored behind them: a command that ended well may have stored what a power cut took
    /// away, so those that no later run has seen yet are read back. What is gone on with is recorded before anything else
    /// gets the name of a part that is left out.
    ///
    /// # Errors
    /// When they cannot be read, or that not be recorded.
    pub fn proven(
        &self,
        mut begun: Begun,
        each: &mut dyn FnMut(&str),
    ) -> Result<Option<Begun>, EngineError> {
        // A plan reads nothing of what may be very long: it would go on with them.
        if self.store.cx.host.is_dry() {
            return Ok(Some(begun));
        }
        let before = begun.read_back;
        if !self.store.tells_lengths() {
            let unseen: Vec<(String, Digest)> =
                begun.stored().skip(before).map(|(object, it)| (object, it.clone())).collect();
            for (n, (object, stored)) in unseen.iter().enumerate() {
                each(object);
                if let Some(what) = self.store.compare(object, stored)? {
                    tracing::warn!("{what}, so the transfer goes on before that part");
                    begun.cut(before + n);
                    break;
                }
                begun.read_back = before + n + 1;
            }
        }
        if begun.parts.is_empty() {
            return Ok(None);
        }
        if begun.is_cut || begun.read_back > before {
            self.record_parts(&begun)?;
        }
        Ok(Some(begun))
    }

    /// Records the parts that are stored.
    ///
    /// # Errors
    /// When that cannot be stored.
    pub fn record_parts(&self, begun: &Begun) -> Result<(), EngineError> {
        self.store.write(&format!("{}{BEGUN}", begun.name), compact(begun)?)
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
