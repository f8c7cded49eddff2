//! What a difference is made to.

use super::record::Record;
use crate::engine::{SentCopy, SentFrom, Snapshot, StillSubvolume};
use crate::host::spec::quote;

/// What a difference is made against: a snapshot here and what it became there.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub sent: &'a Snapshot,
    pub received: &'a Record,
}

impl<'a> Base<'a> {
    /// The newest of the earlier snapshots of which there is a copy that is known to be ours.
    pub fn newest(
        still: &'a StillSubvolume,
        there: impl Iterator<Item = &'a Record> + Clone,
    ) -> Option<Base<'a>> {
        let there = there.filter(|record| still.ours.contains(&record.name));
        Base::newest_of_all(still, there)
    }

    /// The same in a directory of this machine, which is closed to everybody but root: where history was lost, and with it
    /// what is ours, the records there are believed. Another machine, which sends of itself, tells the UUIDs of its snapshots as
    /// it likes, also those of what others sent: it is never told what else there is.
    pub fn newest_here(
        still: &'a StillSubvolume,
        there: impl Iterator<Item = &'a Record> + Clone,
    ) -> Option<Base<'a>> {
        match &still.from {
            SentFrom::Here(_) if still.ours.is_empty() => Base::newest_of_all(still, there),
            SentFrom::Here(_) | SentFrom::There(_) => Base::newest(still, there),
        }
    }

    fn newest_of_all(
        still: &'a StillSubvolume,
        there: impl Iterator<Item = &'a Record> + Clone,
    ) -> Option<Base<'a>> {
        still.earlier.iter().find_map(|sent| {
            let is_of = |record: &&Record| {
                !record.unproven && sent.was_sent_as(&record.sent, record.generation)
            };
            let received = there.clone().find(is_of)?;
            Some(Base { sent, received })
        })
    }
}

impl Record {
    /// What was sent for it.
    pub fn of(&self) -> SentCopy {
        let (id, uuid) = (self.name.clone(), self.sent.clone());
        SentCopy { id, time: self.made.time, uuid, generation: self.generation }
    }
}

/// The copy that would be a newer base if it was proven whole.
pub(super) fn unproven_since<'a>(
    still: &StillSubvolume,
    base: Option<Base<'_>>,
    there: impl Iterator<Item = &'a Record> + Clone,
) -> Option<&'a Record> {
    let newer = still.earlier.iter().take_while(|it| base.is_none_or(|base| **it != *base.sent));
    let is_of = |sent: &Snapshot, record: &Record| {
        record.unproven && sent.was_sent_as(&record.sent, record.generation)
    };
    newer.into_iter().find_map(|sent| there.clone().find(|record| is_of(sent, record)))
}

/// What is said of it.
pub(super) fn told_of(record: &Record) -> String {
    format!(
        "more was sent than what changed since {0}: another program received that one, and nobody has compared it with its snapshot (`stillpoint verify {1} -- {2}` does)",
        record.name,
        record.made.job,
        quote(&record.name)
    )
}
