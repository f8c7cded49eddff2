//! What another program received into a directory of copies, as it is told to a machine whose copy it may become.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::names::{CopyName, Item, SentUuid};
use crate::engine::{Foreign, TakeOver};
use crate::host::{Host, Subvolume};
use crate::model::copy::{CLOCK_SLACK, later};
use crate::model::names::{HostName, JobName};
use crate::tools::btrfs::dated::Dated;

/// One that was received whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Other {
    /// Its path below the directory.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// That of the subvolume there that it is based on.
    pub parent: Option<String>,
    /// That of the snapshot that was sent.
    pub sent: String,
    /// The generation that this had.
    pub generation: u64,
    /// When it was received.
    pub made: DateTime<Utc>,
    /// When it was taken, as a file beside it says.
    pub told: Option<DateTime<Utc>>,
}

/// One that is to become a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Its name.
    pub name: CopyName,
    /// Its UUID: it is this one, or another one has its name.
    pub uuid: SentUuid,
    /// That of the snapshot that was sent.
    pub sent: SentUuid,
    /// The generation that this had.
    pub generation: u64,
    /// The moment that it stands for.
    pub time: DateTime<Utc>,
    /// In whose name it is one.
    pub host: HostName,
    /// The job whose copy it is.
    pub job: JobName,
    /// The subvolume's path on that host.
    pub item: Item,
}

impl Other {
    /// One that lies there; `None` where it has no UUID, as no file system answers, or was not received whole.
    pub fn of(name: String, found: Subvolume, told: Option<DateTime<Utc>>) -> Option<Other> {
        Some(Other {
            name,
            uuid: found.uuid?,
            parent: found.parent_uuid,
            sent: found.received_uuid?,
            generation: found.received,
            made: found.made,
            told,
        })
    }

    /// As it is offered on this machine, whose clock tells which moment its name means.
    pub fn foreign(self, host: &dyn Host) -> Foreign {
        let Other { name, uuid, parent, sent, generation, made, told } = self;
        let (named, stem) = match around_a_snapshot(&name) {
            Some(around) => (told, Some(format!("{around}/snapshot"))),
            None => {
                let dated = Dated::read(&name);
                let named = dated.map(|dated| dated.moment(&|at| host.ahead_of_utc(at)));
                (named, dated.map(|dated| dated.stem.to_owned()))
            }
        };
        let time = named.filter(|named| is_possible(*named, made)).unwrap_or(made);
        let found = Subvolume {
            uuid: Some(uuid),
            parent_uuid: parent,
            received_uuid: Some(sent),
            received: generation,
            read_only: true,
            made,
            ..Subvolume::default()
        };
        Foreign { id: name, found, time, stem }
    }
}

impl Wanted {
    /// What a server is asked to take over; `None` where its name or UUIDs cannot be told to one.
    pub fn of(wanted: &TakeOver<'_>) -> Option<Wanted> {
        let TakeOver { foreign, series, pinned: _, proven: _ } = wanted;
        Some(Wanted {
            name: CopyName::new(&*foreign.id)?,
            uuid: SentUuid::new(foreign.found.uuid.clone()?)?,
            sent: SentUuid::new(foreign.found.received_uuid.clone()?)?,
            generation: foreign.found.received,
            time: foreign.time,
            host: series.host.clone(),
            job: series.job.clone(),
            item: Item::new(series.item.clone()?)?,
        })
    }

    /// The one that is meant, of those that are there, with the moment that it stands for.
    pub fn among(&self, there: &[Foreign]) -> Option<Foreign> {
        let is_it = |it: &&Foreign| {
            it.id == self.name.as_str()
                && it.found.uuid.as_deref() == Some(self.uuid.as_str())
                && it.found.is_received_as(self.sent.as_str(), self.generation)
        };
        let found = there.iter().find(is_it)?.clone();
        let time = if is_possible(self.time, found.found.made) { self.time } else { found.time };
        Some(Foreign { time, ..found })
    }
}

/// A copy is never newer than its reception, whatever its name says.
fn is_possible(time: DateTime<Utc>, made: DateTime<Utc>) -> bool {
    time <= later(made, CLOCK_SLACK)
}

/// What is around the numbered directory of one of snapper's, if it is one.
pub(super) fn around_a_snapshot(name: &str) -> Option<&str> {
    let at = name.strip_suffix("/snapshot")?;
    let (around, number) = at.rsplit_once('/').unwrap_or(("", at));
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(around)
}
