//! How a snapshot is sent: as a difference or as a whole, and from its beginning or behind what is there.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::StreamsEngine;
use super::begun::Begun;
use super::catalog::Catalog;
use super::record::{Base, Record, object_of, part_of};
use crate::engine::{BackupRequest, EngineError, Snapshot, StillSubvolume, helped};

/// How many differences are made one to another before all is sent anew: each has to be there, and be read, to restore the
/// last.
const LONGEST_CHAIN: usize = 100;

/// What a difference is made against: a snapshot here, and the copy of it there.
pub(super) struct Earlier<'a> {
    pub snapshot: &'a Snapshot,
    pub record: &'a Record,
}

impl helped::Base for Earlier<'_> {
    fn name(&self) -> &str {
        &self.record.name
    }
}

impl Earlier<'_> {
    /// As a record names it.
    pub fn as_base(&self) -> Base {
        Base { name: self.record.name.clone(), sent: self.record.sent.clone() }
    }
}

/// One copy on its way.
pub(super) struct Transfer<'a> {
    pub engine: &'a StreamsEngine,
    pub catalog: &'a Catalog<'a>,
    pub still: &'a StillSubvolume,
    pub request: &'a BackupRequest,
    pub name: String,
    pub recipients: Option<String>,
}

impl<'a> Transfer<'a> {
    /// The object of so many parts before it.
    pub fn object(&self, part: usize) -> String {
        let is_compressed = self.engine.options.compression.is_some();
        part_of(&object_of(&self.name, is_compressed, self.recipients.is_some()), part)
    }

    /// What a difference can be made against, of the copies that may be it.
    pub fn base(&self, may_be: impl Fn(&Record) -> bool) -> Option<Earlier<'a>> {
        let (catalog, still, request) = (self.catalog, self.still, self.request);
        let base = still.earlier.iter().find_map(|snapshot| {
            let record = catalog.records().find(|record| {
                snapshot.was_sent_as(&record.sent, record.generation)
                    // Whoever can write there may have put his own beside it.
                    && still.ours.contains(&record.name)
                    && record.made.series() == request.series
                    // What others added for it is for them to go on with.
                    && record.made.machine == request.machine
                    && !catalog.is_predicted(record)
                    && may_be(record)
            })?;
            Some(Earlier { snapshot, record })
        });
        base.filter(|base| {
            // Whoever can read only what is encrypted now could not read what the difference is made to.
            base.record.recipients == self.recipients && self.may_go_on_with(base.record)
        })
    }

    /// Whether another difference may be made to a copy.
    fn may_go_on_with(&self, record: &Record) -> bool {
        let Some(chain) = self.catalog.chain(&record.name) else { return false };
        // What is a difference to damage cannot be restored either.
        let is_sound = !chain.iter().any(|link| self.catalog.is_damaged(&link.name));
        let (every, now) = (self.engine.options.full_every, self.request.time);
        let is_young = chain.first().is_some_and(|first| is_within(every, first.made.time, now));
        is_sound && is_young && chain.len() <= LONGEST_CHAIN
    }

    /// What the rest is a difference to, like the parts.
    pub fn base_of(&self, begun: &Begun) -> Option<Earlier<'a>> {
        let base = begun.base.as_ref()?;
        self.base(|record| record.name == base.name && record.sent == base.sent)
    }

    /// The parts of a copy of this snapshot behind which the transfer can go on.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub fn begun(&self) -> Result<Option<Begun>, EngineError> {
        if self.engine.target.part_size().is_none() {
            return Ok(None);
        }
        let begun = self.catalog.begun(&self.name)?.filter(|begun| {
            self.still.snapshot.was_sent_as(&begun.sent, begun.generation)
                // All parts are opened in the same way, by the same people.
                && begun.compressed == self.engine.options.compression.is_some()
                && begun.recipients == self.recipients
                && begun.made.series() == self.request.series
                && begun.made.machine == self.request.machine
                && (begun.base.is_none() || self.base_of(begun).is_some())
        });
        Ok(begun)
    }
}

/// Whether so much time has not yet passed.
fn is_within(span: Duration, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
    // A clock that went back says nothing of how old anything is.
    (to - from).to_std().is_ok_and(|age| age < span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_ages_by_its_beginning() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let (from, to) = (at("2026-11-01T00:00:00Z"), at("2026-11-27T00:00:00Z"));
        assert!(is_within(days(27), from, to));
        assert!(!is_within(days(26), from, to));
        assert!(!is_within(days(26), to, from), "made after now");
    }
}
