//! What a target knows of one copy.

use serde::{Deserialize, Serialize};

use super::place::is_untold;
use crate::engine::Fetch;
use crate::engine::helped;
use crate::engine::made::Made;
use crate::host::Subvolume;
use crate::model::copy::Copy;

/// How a copy is none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It is the subvolume that was received, and somebody has changed it.
    Changed,
    /// Another subvolume is in its place.
    Another,
    /// Its record cannot be read.
    Unread,
}

/// The record of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`Record::FORMAT`].
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
    /// Whose it is.
    #[serde(flatten)]
    pub made: Made,
    /// Bytes that were sent, in the last of all sessions that it took; `None` where another program received it.
    pub bytes: Option<u64>,
    /// How long the whole stream is at most when nothing is compressed in it, as it is sent back; `None` where that is not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<u64>,
    /// How many names lead to what is no directory in it, where that is known.
    pub files: Option<u64>,
    /// Never to be pruned while this holds.
    pub pinned: bool,
    /// Another program received it, and nobody has compared it with what was sent: a power cut may have emptied its files,
    /// so no difference is based on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// It is about to be deleted by us: when it is gone, so may this be. What is gone without that was taken away by
    /// somebody else, who may bring it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub going: bool,
}

impl helped::Base for Record {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Record {
    /// The format of records, and of the marker beside them.
    pub const FORMAT: u32 = 1;

    /// Whether a subvolume is the one that was recorded, and nobody has written to it since. What was made writable by
    /// btrfs-progs is no longer received as anything; whoever asks the kernel itself leaves all but the generation of the
    /// last change as it was.
    pub fn is_of(&self, found: &Subvolume) -> bool {
        found.uuid.as_ref() == Some(&self.uuid)
            && found.is_received_as(&self.sent, self.generation)
            && found.changed == self.changed
    }

    /// Whether a subvolume is the one that was recorded, and it is not known whether somebody has written to it since.
    pub fn seems(&self, found: &Subvolume) -> bool {
        is_untold(found) && self.is_of(&Subvolume { changed: self.changed, ..found.clone() })
    }

    /// How the copy is none any more, where this subvolume is in its place; `None`: it is one, or seems to be. None but the
    /// one that was recorded has its UUID, whatever somebody has made of it since.
    pub fn how(&self, found: &Subvolume) -> Option<How> {
        if self.is_of(found) || self.seems(found) {
            return None;
        }
        match found.uuid.as_ref() == Some(&self.uuid) {
            true => Some(How::Changed),
            false => Some(How::Another),
        }
    }

    /// Whether it says that it is this, or of this: whatever else bears the UUID could be taken for it.
    pub fn claims(&self, uuid: &str) -> bool {
        self.sent == uuid || self.uuid == uuid
    }

    /// What it takes to receive one of these whole. It is at most as long as the whole one and all differences after that
    /// together, if all of them are there still.
    pub fn fetch(records: &[Self], id: &str) -> Fetch {
        let Some(mut record) = records.iter().find(|it| it.name == id) else {
            return Fetch::default();
        };
        let mut bytes = record.stream;
        // No record is asked twice, whatever they say of each other.
        for _ in records {
            let Some(parent) = &record.parent else {
                return Fetch { bytes, laid_out: bytes };
            };
            let Some(before) = records.iter().find(|it| it.uuid == *parent) else { break };
            bytes = bytes.zip(before.stream).and_then(|(all, more)| all.checked_add(more));
            record = before;
        }
        Fetch::default()
    }

    /// The copy as it is listed.
    pub fn copy(&self) -> Copy {
        let Record { files, pinned, unproven, .. } = *self;
        Copy { files, pinned, unproven, ..self.made.copy(&self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::{HostName, JobName, RunId};

    fn record(name: &str, parent: Option<&str>, stream: Option<u64>) -> Record {
        Record {
            format: Record::FORMAT,
            name: name.into(),
            uuid: format!("{name}-uuid"),
            sent: "sent".into(),
            generation: 1,
            changed: 1,
            parent: parent.map(|parent| format!("{parent}-uuid")),
            made: Made {
                host: HostName::new("web1").unwrap(),
                job: JobName::new("home").unwrap(),
                item: Some("/home".into()),
                run: RunId::from_bytes([1; 4]),
                machine: None,
                time: chrono::DateTime::UNIX_EPOCH,
            },
            // As many as were sent last, if it was resumed.
            bytes: Some(1),
            stream,
            files: None,
            pinned: false,
            unproven: false,
            going: false,
        }
    }

    #[test]
    fn what_is_fetched_is_known_as_far_as_all_differences_are() {
        let records = [
            record("whole", None, Some(100)),
            record("second", Some("whole"), Some(10)),
            record("third", Some("second"), Some(1)),
            record("alone", Some("gone"), Some(5)),
            record("untold", Some("whole"), None),
            record("one", Some("other"), Some(1)),
            record("other", Some("one"), Some(1)),
        ];
        let of = |name: &str| Record::fetch(&records, name);
        assert_eq!(of("whole"), Fetch { bytes: Some(100), laid_out: Some(100) });
        assert_eq!(of("third"), Fetch { bytes: Some(111), laid_out: Some(111) });
        for name in ["alone", "untold", "one", "nowhere"] {
            assert_eq!(of(name).bytes, None, "{name}");
        }
    }
}
