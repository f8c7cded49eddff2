//! What history and a listing of a target tell each other.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};

use super::columns::Word;
use super::copies::known;
use super::{History, HistoryError};
use crate::model::copy::Copy;
use crate::model::names::TargetName;
use crate::model::outcome::Outcome;

impl History {
    /// Lets history agree with a complete listing of the target: recorded copies that are not in it are
    /// marked as deleted, those that are in it as there. Answers with the ids that have newly gone, which
    /// somebody else has deleted. Pins are left alone.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn reconcile(
        &self,
        target: &TargetName,
        listed: &[Copy],
    ) -> Result<Vec<String>, HistoryError> {
        let present: BTreeSet<&str> = listed
            .iter()
            .flat_map(|copy| [Some(copy.id.as_str()), copy.original.as_deref()])
            .flatten()
            .collect();
        self.at_once("reconcile the copies", |connection| {
            let mut gone = Vec::new();
            for row in remembered(connection, target)? {
                let is_there =
                    present.contains(row.id.as_str()) || present.contains(row.first_id.as_str());
                if is_there == row.deleted {
                    connection.execute(
                        "UPDATE copy SET deleted = ?3 WHERE target = ?1 AND id = ?2",
                        params![target.as_str(), row.id, !is_there],
                    )?;
                    if !is_there {
                        gone.push(row.id);
                    }
                }
            }
            Ok(gone)
        })
    }

    /// Fills in what the target does not know about its copies: size, files and health from their records,
    /// and the pins. A record is found by the copy's id or by the id it had before its tags changed. What
    /// the target does know is left as it is.
    ///
    /// A copy that a run set out to make and never saw in the target again (it died, or its engine failed
    /// after all) is not healthy, whatever the target lists.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn enrich(&self, target: &TargetName, copies: &mut [Copy]) -> Result<(), HistoryError> {
        let records = self.sql("read the copies", |connection| remembered(connection, target))?;
        let pins = self.pins(target)?;
        let attempts = self.attempts(target)?;
        // First ids come first, so that a present id wins where one copy's new id is another's old one.
        let by_id: BTreeMap<&str, &Remembered> = records
            .iter()
            .map(|record| (record.first_id.as_str(), record))
            .chain(records.iter().map(|record| (record.id.as_str(), record)))
            .collect();
        for copy in copies {
            let record = by_id
                .get(copy.id.as_str())
                .or_else(|| copy.original.as_deref().and_then(|original| by_id.get(original)));
            if let Some(record) = record {
                copy.size = copy.size.or(record.size);
                copy.files = copy.files.or(record.files);
                copy.healthy = copy.healthy.or(Some(record.outcome.is_healthy()));
                copy.pinned |= pins.contains(&record.id) || pins.contains(&record.first_id);
            } else if attempts.iter().any(|attempt| {
                Some(&attempt.run) == copy.run.as_ref()
                    && Some(&attempt.series) == copy.series.as_ref()
            }) {
                copy.healthy = Some(false);
            }
            copy.pinned |= pins.contains(&copy.id)
                || copy.original.as_ref().is_some_and(|original| pins.contains(original));
        }
        Ok(())
    }
}

/// What is needed to recognise a copy in a listing and to tell about it.
struct Remembered {
    id: String,
    first_id: String,
    outcome: Outcome,
    size: Option<u64>,
    files: Option<u64>,
    deleted: bool,
}

/// Every copy that a target ever had.
fn remembered(connection: &Connection, target: &TargetName) -> rusqlite::Result<Vec<Remembered>> {
    connection
        .prepare("SELECT id, first_id, outcome, size, files, deleted FROM copy WHERE target = ?1")?
        .query_map([target.as_str()], |row| {
            Ok(Remembered {
                id: row.get("id")?,
                first_id: row.get("first_id")?,
                outcome: row.get::<_, Word>("outcome")?.0,
                size: known(row, "size")?,
                files: known(row, "files")?,
                deleted: row.get("deleted")?,
            })
        })?
        .collect()
}
