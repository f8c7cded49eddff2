//! Whose state directory this is.
//!
//! The identity is random and made once, in one transaction with the first record of the machine that it was made
//! on. When that machine is not this one any more, the directory was cloned or moved: it gets a new identity, and
//! what is recorded until then is somebody else's, who may still be at work. It is not guessed which of two clones is
//! the original: both ends of a mistake are safe, since what is not ours is left alone until a person adopts it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::columns::{Count, Name, Timestamp};
use super::copies::followed;
use super::{History, HistoryError};
use crate::model::copy::Series;
use crate::model::names::{MachineId, RunId, TargetName};

/// A copy that this machine takes for its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Where it is.
    pub target: TargetName,
    /// Its id there.
    pub id: String,
    /// The id that it had first, if that was another one.
    pub original: Option<String>,
    /// The run that made it, zeros if no run of ours did.
    pub run: RunId,
    /// The series that it belongs to from now on.
    pub series: Series,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// Bytes of the original data.
    pub size: Option<u64>,
    /// Number of files.
    pub files: Option<u64>,
    /// A person says that it is whole; see [`History::prove`].
    pub proven: bool,
}

/// By what a machine is known from its clones. What cannot be read is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// The installation: `/etc/machine-id`. Proper cloning makes it anew.
    pub installation: Option<String>,
    /// The hardware, or what passes for it: the product UUID of the firmware. A hypervisor makes it anew for a clone
    /// whose disk is the same byte for byte.
    pub hardware: Option<String>,
}

impl Fingerprint {
    /// Whether nothing that is known of both differs.
    fn agrees_with(&self, other: &Fingerprint) -> bool {
        let agree = |one: &Option<String>, two: &Option<String>| {
            one.as_ref().zip(two.as_ref()).is_none_or(|(one, two)| one == two)
        };
        agree(&self.installation, &other.installation) && agree(&self.hardware, &other.hardware)
    }
}

/// What became of the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is that of earlier runs.
    Known,
    /// There was none, or there would be none in what is only read.
    New,
    /// This is another machine than before; so many recorded copies are not ours any more.
    Moved(u64),
}

impl History {
    /// The identity of this state directory; `None` before it was settled.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn machine(&self) -> Result<Option<MachineId>, HistoryError> {
        if self.is_disowned() {
            return Ok(None);
        }
        let last = self.sql("read the machine's identity", last_machine)?;
        Ok(last.map(|(id, _)| id))
    }

    /// Makes sure that this state directory has an identity and still belongs to the machine that it was made on;
    /// `new` is what it gets if not. A history that is only read stays as it is, and answers from then on as one that
    /// was settled would.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn settle_machine(
        &self,
        seen: &Fingerprint,
        new: &MachineId,
    ) -> Result<Settled, HistoryError> {
        let last = self.sql("read the machine's identity", last_machine)?;
        let moved = match last {
            Some((_, known)) if known.agrees_with(seen) => return Ok(Settled::Known),
            known => known.is_some(),
        };
        if !self.writable {
            self.disowned.store(moved, Ordering::SeqCst);
            return Ok(if moved { Settled::Moved(self.count_ours()?) } else { Settled::New });
        }
        self.at_once("settle the machine's identity", |connection| {
            connection.execute(
                "INSERT INTO machine (id, installation, hardware) VALUES (?1, ?2, ?3)",
                params![new.as_str(), seen.installation, seen.hardware],
            )?;
            if !moved {
                return Ok(Settled::New);
            }
            connection.execute("DELETE FROM attempt", [])?;
            let left =
                connection.execute("UPDATE copy SET ours = 0 WHERE ours AND NOT deleted", [])?;
            Ok(Settled::Moved(left as u64))
        })
    }

    /// Records that copies are this machine's from now on, all of them or none. What is recorded of their making
    /// stays; of what is not, nothing is known. `listed` are the ids that the target lists now: the record of one of
    /// them stays its own, whatever another copy says that it was.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn adopt(
        &self,
        copies: &[Adopted],
        listed: &BTreeSet<String>,
        now: DateTime<Utc>,
    ) -> Result<(), HistoryError> {
        self.at_once("adopt copies", |connection| {
            for copy in copies {
                let Series { host, job, item } = &copy.series;
                // A record may know it by an earlier id.
                let mut earlier = earlier_ids(connection, copy)?;
                earlier.retain(|id| !listed.contains(id));
                if let [earlier] = earlier.as_slice() {
                    followed(connection, &copy.target, earlier, &copy.id)?;
                }
                connection.execute(
                    "INSERT INTO copy (target, id, first_id, run, host, job, item, time, recorded, outcome,
                                       size, files, files_changed, unreadable, adopted, unseen, proven)
                     VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'ok', ?9, ?10, 0, 0, ?8, 1, ?11)
                     ON CONFLICT (target, id) DO UPDATE SET
                         host = excluded.host, job = excluded.job, item = excluded.item,
                         ours = 1, adopted = excluded.adopted, deleted = 0,
                         proven = excluded.proven",
                    params![
                        copy.target.as_str(),
                        copy.id,
                        copy.run.as_str(),
                        host.as_str(),
                        job.as_str(),
                        item,
                        Timestamp(copy.time),
                        Timestamp(now),
                        copy.size.map(Count),
                        copy.files.map(Count),
                        copy.proven,
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// Records of a copy that all of it was compared with what was sent: a difference may be based on it, whoever made it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prove(&self, target: &TargetName, id: &str) -> Result<(), HistoryError> {
        self.sql("record what was proven", |connection| {
            connection.execute(
                "UPDATE copy SET proven = 1 WHERE target = ?1 AND id = ?2",
                [target.as_str(), id],
            )?;
            Ok(())
        })
    }

    fn count_ours(&self) -> Result<u64, HistoryError> {
        self.sql("count the copies", |connection| {
            let count: i64 = connection.query_row(
                "SELECT COUNT(*) FROM copy WHERE ours AND NOT deleted",
                [],
                |row| row.get(0),
            )?;
            Ok(count.unsigned_abs())
        })
    }
}

/// The ids of the records that an adopted copy may be an earlier version of; none when it has a record itself.
fn earlier_ids(connection: &Connection, copy: &Adopted) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT id FROM copy WHERE target = ?1 AND ?3 IN (id, first_id)
                 AND NOT EXISTS (SELECT 1 FROM copy WHERE target = ?1 AND id = ?2)",
        )?
        .query_map(params![copy.target.as_str(), copy.id, copy.original], |row| row.get(0))?
        .collect()
}

fn last_machine(connection: &Connection) -> rusqlite::Result<Option<(MachineId, Fingerprint)>> {
    connection
        .query_row(
            "SELECT id, installation, hardware FROM machine ORDER BY sequence DESC LIMIT 1",
            [],
            |row| {
                let seen = Fingerprint {
                    installation: row.get("installation")?,
                    hardware: row.get("hardware")?,
                };
                Ok((row.get::<_, Name<MachineId>>("id")?.0, seen))
            },
        )
        .optional()
}
