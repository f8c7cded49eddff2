//! What history and a listing of a target tell each other.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::closures::{self, Closure, ClosureKind};
use super::columns::{Timestamp, Word};
use super::copies::{followed, known, series};
use super::{History, HistoryError};
use crate::model::copy::{Copy, Recorded, Series};
use crate::model::names::{RunId, TargetName};
use crate::model::outcome::Outcome;

/// In which run a target was listed, and when.
#[derive(Debug, Clone, Copy)]
pub struct ListedBy<'a> {
    /// The run.
    pub run: &'a RunId,
    /// The time.
    pub now: DateTime<Utc>,
    /// Whether copies are deleted there by somebody else on purpose (an append-only target, which its server
    /// prunes): then copies that go are as it should be, as long as one of those that were there before is left.
    pub others_delete: bool,
}

impl History {
    /// Lets history agree with a complete listing of the target: recorded copies that are not in it are
    /// marked as deleted, those that are in it as there. Good ones that are gone and that nobody here set out to
    /// delete close the target, and open it again when they are back. Answers with the ids that have newly
    /// gone. Pins are left alone.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn reconcile(
        &self,
        target: &TargetName,
        listed: &[Copy],
        by: &ListedBy<'_>,
    ) -> Result<Vec<String>, HistoryError> {
        let present = present(listed);
        self.at_once("reconcile the copies", |connection| {
            let mut gone = Vec::new();
            let rows = remembered(connection, target)?;
            for closure in vanished(target, &rows, &present, by) {
                closures::close(connection, &closure)?;
            }
            let taken: BTreeSet<String> = rows.iter().map(|row| row.id.clone()).collect();
            let missed = closures::gone(connection, target)?;
            for mut row in rows {
                let is_there = row.is_in(&present);
                let known_as = row.id.clone();
                // A crash came between a pin, which gives a copy another id, and its record.
                if let Some(now) = row.moved_to(listed).filter(|id| !taken.contains(*id)) {
                    followed(connection, target, &row.id, now)?;
                    row.id = now.to_owned();
                }
                // It may have been missed by any id that it ever had here.
                for id in [&known_as, &row.id, &row.first_id] {
                    if is_there && missed.contains(id) {
                        closures::is_back(connection, target, id)?;
                    }
                }
                if is_there != row.deleted && !row.leaving {
                    continue;
                }
                connection.execute(
                    "UPDATE copy SET deleted = ?3, leaving = 0, forgotten = NULL
                     WHERE target = ?1 AND id = ?2",
                    params![target.as_str(), row.id, !is_there],
                )?;
                if !is_there && !row.leaving {
                    gone.push(row.id);
                }
            }
            Ok(gone)
        })
    }

    /// The good copies that a complete listing lacks and that nobody here set out to delete: what
    /// [`History::reconcile`] would record of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn vanished(
        &self,
        target: &TargetName,
        listed: &[Copy],
        by: &ListedBy<'_>,
    ) -> Result<Vec<Closure>, HistoryError> {
        let rows = self.sql("read the copies", |connection| remembered(connection, target))?;
        let mut vanished = vanished(target, &rows, &present(listed), by);
        let foreseen = self.foreseen();
        vanished.retain(|closure| !foreseen.contains(&(target.clone(), closure.subject.clone())));
        Ok(vanished)
    }

    /// The same as [`History::expect_gone`] for a dry run, which records nothing: the copies are missing from what it
    /// lists from now on, and that surprises nobody either.
    pub fn foresee_gone(&self, target: &TargetName, ids: &[String]) {
        let foreseen = ids.iter().map(|id| (target.clone(), id.clone()));
        self.foreseen().extend(foreseen);
    }

    /// Fills in what the target does not know about its copies: size, files and health from their records,
    /// the pins, the ids that they had, and whose they are. A record is found by the copy's id or by the id it had before its tags changed. What
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
        let former = self.sql("read former ids", |connection| former_ids(connection, target))?;
        // First ids come first, so that a present id wins where one copy's new id is another's old one.
        let by_id: BTreeMap<&str, &Remembered> = records
            .iter()
            .map(|record| (record.first_id.as_str(), record))
            .chain(records.iter().map(|record| (record.id.as_str(), record)))
            .collect();
        let mut claims: BTreeMap<&str, usize> = BTreeMap::new();
        for copy in copies.iter() {
            let ids = [Some(copy.id.as_str()), copy.original.as_deref()];
            let known = ids.into_iter().flatten().find_map(|id| by_id.get(id));
            // The record's own copy counts for more than all that claim to be it.
            if let Some(record) = known {
                *claims.entry(record.id.as_str()).or_default() +=
                    if copy.id == record.id { copies.len() + 1 } else { 1 };
            }
        }
        for copy in copies {
            if let Some(former) = former.get(&copy.id) {
                copy.aliases.extend(former.iter().cloned());
            }
            let record = by_id
                .get(copy.id.as_str())
                .or_else(|| copy.original.as_deref().and_then(|original| by_id.get(original)))
                // Anybody can write an original into what he adds. It is believed while the record's own copy is
                // not there and nobody else claims to be it.
                .filter(|record| {
                    copy.id == record.id || claims.get(record.id.as_str()) == Some(&1)
                });
            if let Some(record) = record {
                copy.size = copy.size.or(record.size);
                copy.files = copy.files.or(record.files);
                copy.pinned |= pins.contains(&record.id) || pins.contains(&record.first_id);
                copy.ours = record.ours && !self.is_disowned();
                if record.adopted {
                    copy.adopt(record.series.clone());
                }
                if !record.unseen {
                    copy.healthy = copy.healthy.or(Some(record.outcome.is_healthy()));
                    copy.recorded = Some(record.recorded);
                }
            } else if attempts.iter().any(|attempt| {
                Some(&attempt.run) == copy.run.as_ref()
                    && Some(&attempt.series) == copy.series.as_ref()
            }) {
                copy.healthy = Some(false);
                copy.ours = !self.is_disowned();
            }
            copy.pinned |= pins.contains(&copy.id)
                || copy.original.as_ref().is_some_and(|original| pins.contains(original));
        }
        Ok(())
    }
}

/// The ids that copies had before, by the one that they have.
fn former_ids(
    connection: &Connection,
    target: &TargetName,
) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
    let mut former: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut statement = connection.prepare("SELECT now, id FROM former_id WHERE target = ?1")?;
    let mut rows = statement.query([target.as_str()])?;
    while let Some(row) = rows.next()? {
        former.entry(row.get("now")?).or_default().push(row.get("id")?);
    }
    Ok(former)
}

/// The ids that a listing shows, former ones among them.
fn present(listed: &[Copy]) -> BTreeSet<&str> {
    listed
        .iter()
        .flat_map(|copy| [Some(copy.id.as_str()), copy.original.as_deref()])
        .flatten()
        .collect()
}

fn vanished(
    target: &TargetName,
    rows: &[Remembered],
    present: &BTreeSet<&str>,
    by: &ListedBy<'_>,
) -> Vec<Closure> {
    let is_missed = |row: &&Remembered| {
        // What a clone or its original does with its copies is its own affair.
        row.ours && row.outcome.is_healthy() && !row.deleted && !row.leaving && !row.is_in(present)
    };
    let is_left = |row: &Remembered| {
        row.outcome.is_healthy() && row.is_in(present) && row.run != by.run.as_str()
    };
    if by.others_delete && rows.iter().any(is_left) {
        return Vec::new();
    }
    let closure = |row: &Remembered| Closure {
        target: target.clone(),
        kind: ClosureKind::Gone,
        subject: row.id.clone(),
        extent: None,
        detail: format!("of run {}", row.run),
        run: by.run.clone(),
        since: by.now,
    };
    rows.iter().filter(is_missed).map(closure).collect()
}

/// What is needed to recognise a copy in a listing and to tell about it.
struct Remembered {
    id: String,
    first_id: String,
    run: String,
    outcome: Outcome,
    size: Option<u64>,
    files: Option<u64>,
    deleted: bool,
    leaving: bool,
    ours: bool,
    adopted: bool,
    unseen: bool,
    series: Series,
    recorded: Recorded,
}

impl Remembered {
    /// The id that the copy has now, when it is another one than recorded and only one listed copy can be it.
    fn moved_to<'a>(&self, listed: &'a [Copy]) -> Option<&'a str> {
        if listed.iter().any(|copy| copy.id == self.id) {
            return None;
        }
        let was = |id: &str| id == self.id || id == self.first_id;
        let mut claimants = listed.iter().filter(|copy| {
            (was(&copy.id) || copy.original.as_deref().is_some_and(was))
                && copy.run.as_ref().is_some_and(|run| run.as_str() == self.run)
        });
        let only = claimants.next().filter(|_| claimants.next().is_none())?;
        Some(&only.id)
    }

    fn is_in(&self, present: &BTreeSet<&str>) -> bool {
        present.contains(self.id.as_str()) || present.contains(self.first_id.as_str())
    }
}

/// Every copy that a target ever had.
fn remembered(connection: &Connection, target: &TargetName) -> rusqlite::Result<Vec<Remembered>> {
    connection
        .prepare(
            "SELECT id, first_id, run, host, job, item, outcome, size, files, deleted, leaving, ours,
                    adopted IS NOT NULL AS is_adopted, unseen, sequence, recorded
             FROM copy WHERE target = ?1",
        )?
        .query_map([target.as_str()], |row| {
            Ok(Remembered {
                id: row.get("id")?,
                first_id: row.get("first_id")?,
                run: row.get("run")?,
                outcome: row.get::<_, Word>("outcome")?.0,
                size: known(row, "size")?,
                files: known(row, "files")?,
                deleted: row.get("deleted")?,
                leaving: row.get("leaving")?,
                ours: row.get("ours")?,
                adopted: row.get("is_adopted")?,
                unseen: row.get("unseen")?,
                series: series(row)?,
                recorded: Recorded {
                    order: row.get("sequence")?,
                    at: row.get::<_, Timestamp>("recorded")?.0,
                },
            })
        })?
        .collect()
}
