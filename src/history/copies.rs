//! Copies that were seen in their targets.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Row, params};

use super::columns::{Count, Name, Timestamp, Word};
use super::{History, HistoryError};
use crate::model::copy::{CLOCK_SLACK, Series, later};
use crate::model::names::{RunId, TargetName};
use crate::model::outcome::Outcome;

/// A copy that was seen in its target after it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRecord {
    /// The run that made it.
    pub run: RunId,
    /// Where it is.
    pub target: TargetName,
    /// Its id there.
    pub id: String,
    /// What it is a copy of.
    pub series: Series,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// When it was recorded.
    pub recorded: DateTime<Utc>,
    /// How its making ended.
    pub outcome: Outcome,
    /// Bytes of the original data.
    pub size: Option<u64>,
    /// Number of files.
    pub files: Option<u64>,
    /// Bytes that it added to the target.
    pub bytes_new: Option<u64>,
    /// Files that changed or vanished while they were read.
    pub files_changed: u64,
    /// Paths that could not be read.
    pub unreadable: u64,
}

/// How large one copy of a series was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TrendPoint {
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// Bytes of the original data.
    pub size: Option<u64>,
    /// Number of files.
    pub files: Option<u64>,
    /// Bytes that it added to the target.
    pub bytes_new: Option<u64>,
}

const COPY_COLUMNS: &str = "run, target, id, host, job, item, time, recorded, outcome, size, files, \
                            bytes_new, files_changed, unreadable";

pub(super) fn series(row: &Row<'_>) -> rusqlite::Result<Series> {
    Ok(Series {
        host: row.get::<_, Name<_>>("host")?.0,
        job: row.get::<_, Name<_>>("job")?.0,
        item: row.get("item")?,
    })
}

pub(super) fn known(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<Count>>(column)?.map(|count| count.0))
}

fn copy(row: &Row<'_>) -> rusqlite::Result<CopyRecord> {
    Ok(CopyRecord {
        run: row.get::<_, Name<_>>("run")?.0,
        target: row.get::<_, Name<_>>("target")?.0,
        id: row.get("id")?,
        series: series(row)?,
        time: row.get::<_, Timestamp>("time")?.0,
        recorded: row.get::<_, Timestamp>("recorded")?.0,
        outcome: row.get::<_, Word>("outcome")?.0,
        size: known(row, "size")?,
        files: known(row, "files")?,
        bytes_new: known(row, "bytes_new")?,
        files_changed: row.get::<_, Count>("files_changed")?.0,
        unreadable: row.get::<_, Count>("unreadable")?.0,
    })
}

/// Gives the record of a copy another id, and keeps the old one as one by which it was known.
pub(super) fn followed(
    connection: &Connection,
    target: &TargetName,
    old: &str,
    new: &str,
) -> rusqlite::Result<()> {
    let key = params![target.as_str(), old, new];
    connection.execute("UPDATE copy SET id = ?3 WHERE target = ?1 AND id = ?2", key)?;
    connection.execute("UPDATE former_id SET now = ?3 WHERE target = ?1 AND now = ?2", key)?;
    connection.execute(
        "INSERT INTO former_id (target, id, now) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET now = excluded.now",
        key,
    )?;
    // A borg archive gets the name back that it had.
    connection.execute(
        "DELETE FROM former_id WHERE target = ?1 AND id = ?2",
        params![target.as_str(), new],
    )?;
    Ok(())
}

impl History {
    /// Records a copy that the target lists. Recording it again replaces what was
    /// recorded.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_copy(&self, copy: &CopyRecord) -> Result<(), HistoryError> {
        self.sql("record a copy", |connection| {
            connection.execute(
                "INSERT INTO copy (target, id, first_id, run, host, job, item, time, recorded, outcome,
                                   size, files, bytes_new, files_changed, unreadable)
                 VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
                 ON CONFLICT (target, id) DO UPDATE SET
                     run = excluded.run, host = excluded.host, job = excluded.job,
                     item = excluded.item, time = excluded.time, recorded = excluded.recorded,
                     outcome = excluded.outcome, size = excluded.size, files = excluded.files,
                     bytes_new = excluded.bytes_new, files_changed = excluded.files_changed,
                     unreadable = excluded.unreadable, deleted = 0, ours = 1, adopted = NULL,
                     unseen = 0",
                params![
                    copy.target.as_str(),
                    copy.id,
                    copy.run.as_str(),
                    copy.series.host.as_str(),
                    copy.series.job.as_str(),
                    copy.series.item,
                    Timestamp(copy.time),
                    Timestamp(copy.recorded),
                    Word(copy.outcome.clone()),
                    copy.size.map(Count),
                    copy.files.map(Count),
                    copy.bytes_new.map(Count),
                    Count(copy.files_changed),
                    Count(copy.unreadable),
                ],
            )?;
            Ok(())
        })
    }

    /// The recorded copies of a target that are not known to be deleted, newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn copies(&self, target: &TargetName) -> Result<Vec<CopyRecord>, HistoryError> {
        self.sql("read the copies", |connection| {
            connection
                .prepare(&format!(
                    "SELECT {COPY_COLUMNS} FROM copy WHERE target = ?1 AND NOT deleted
                     ORDER BY time DESC, id DESC"
                ))?
                .query_map([target.as_str()], copy)?
                .collect()
        })
    }

    /// The ids of the copies of a series that this machine made itself and that are not known to be deleted. What a person
    /// adopted is one of them when it is proven: otherwise, that somebody made it elsewhere is all that is known.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn made_here(
        &self,
        target: &TargetName,
        series: &Series,
    ) -> Result<BTreeSet<String>, HistoryError> {
        self.ours(target, series, "adopted IS NULL OR proven")
    }

    /// The ids of all copies of a series that this machine made or a person adopted, and that are not known to be deleted.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn held(
        &self,
        target: &TargetName,
        series: &Series,
    ) -> Result<BTreeSet<String>, HistoryError> {
        self.ours(target, series, "TRUE")
    }

    fn ours(
        &self,
        target: &TargetName,
        series: &Series,
        condition: &str,
    ) -> Result<BTreeSet<String>, HistoryError> {
        if self.is_disowned() {
            return Ok(BTreeSet::new());
        }
        self.sql("read the copies", |connection| {
            let Series { host, job, item } = series;
            connection
                .prepare(&format!(
                    "SELECT id FROM copy
                     WHERE target = ?1 AND host = ?2 AND job = ?3 AND item IS ?4 AND NOT deleted
                         AND ours AND ({condition})"
                ))?
                .query_map(params![target.as_str(), host.as_str(), job.as_str(), item], |row| {
                    row.get("id")
                })?
                .collect()
        })
    }

    /// The latest moment not after `latest` for which a copy of ours of a series stands, be it deleted by now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_time(
        &self,
        target: &TargetName,
        series: &Series,
        latest: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, HistoryError> {
        self.sql("read the last time", |connection| {
            let Series { host, job, item } = series;
            let time: Option<Timestamp> = connection.query_row(
                "SELECT max(time) FROM copy
                 WHERE target = ?1 AND host = ?2 AND job = ?3 AND item IS ?4 AND ours
                     AND time <= ?5",
                params![target.as_str(), host.as_str(), job.as_str(), item, Timestamp(latest)],
                |row| row.get(0),
            )?;
            Ok(time.map(|time| time.0))
        })
    }

    /// The newest good copy of a series that is not known to be deleted and stands for a moment not after
    /// `latest`: a copy that a wrong clock has dated ahead must not look fresh for years. Nor does one count
    /// that is dated after its own record, that another machine made, or of whose making nothing is known
    /// because it was adopted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_good_until(
        &self,
        target: &TargetName,
        series: &Series,
        latest: DateTime<Utc>,
    ) -> Result<Option<CopyRecord>, HistoryError> {
        self.sql("read the last good copy", |connection| {
            let mut statement = connection.prepare(&format!(
                "SELECT {COPY_COLUMNS} FROM copy
                 WHERE target = ?1 AND host = ?2 AND job = ?3 AND item IS ?4 AND NOT deleted
                     AND ours AND NOT unseen
                 ORDER BY time DESC, id DESC"
            ))?;
            let mut rows = statement.query(params![
                target.as_str(),
                series.host.as_str(),
                series.job.as_str(),
                series.item
            ])?;
            while let Some(row) = rows.next()? {
                let record = copy(row)?;
                let is_believable = record.time <= latest.min(later(record.recorded, CLOCK_SLACK));
                if record.outcome.is_healthy() && is_believable && !self.is_disowned() {
                    return Ok(Some(record));
                }
            }
            Ok(None)
        })
    }

    /// How many copies of a series [`History::last_good_until`] does not count because of their date.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn in_the_future(
        &self,
        target: &TargetName,
        series: &Series,
        latest: DateTime<Utc>,
    ) -> Result<u64, HistoryError> {
        self.sql("read the copies", |connection| {
            let mut statement = connection.prepare(
                "SELECT time, recorded FROM copy
                 WHERE target = ?1 AND host = ?2 AND job = ?3 AND item IS ?4 AND NOT deleted
                     AND ours AND NOT unseen",
            )?;
            let Series { host, job, item } = series;
            let mut rows =
                statement.query(params![target.as_str(), host.as_str(), job.as_str(), item])?;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                let (time, recorded) =
                    (row.get::<_, Timestamp>("time")?.0, row.get::<_, Timestamp>("recorded")?.0);
                count += u64::from(time > latest.min(later(recorded, CLOCK_SLACK)));
            }
            Ok(if self.is_disowned() { 0 } else { count })
        })
    }

    /// The sizes of the last `count` copies of a series, oldest first, deleted ones among them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn trend(
        &self,
        target: &TargetName,
        series: &Series,
        count: usize,
    ) -> Result<Vec<TrendPoint>, HistoryError> {
        self.sql("read the trend", |connection| {
            let mut points: Vec<TrendPoint> = connection
                .prepare(
                    "SELECT time, size, files, bytes_new FROM copy
                     WHERE target = ?1 AND host = ?2 AND job = ?3 AND item IS ?4
                     ORDER BY sequence DESC LIMIT ?5",
                )?
                .query_map(
                    params![
                        target.as_str(),
                        series.host.as_str(),
                        series.job.as_str(),
                        series.item,
                        i64::try_from(count).unwrap_or(i64::MAX)
                    ],
                    |row| {
                        Ok(TrendPoint {
                            time: row.get::<_, Timestamp>("time")?.0,
                            size: known(row, "size")?,
                            files: known(row, "files")?,
                            bytes_new: known(row, "bytes_new")?,
                        })
                    },
                )?
                .collect::<rusqlite::Result<_>>()?;
            points.reverse();
            Ok(points)
        })
    }

    /// Marks copies as deleted; their sizes are still part of the trend. Their pins go, too.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget_copies(&self, target: &TargetName, ids: &[String]) -> Result<(), HistoryError> {
        self.at_once("forget copies", |connection| {
            for id in ids {
                let key = params![target.as_str(), id];
                connection.execute(
                    "UPDATE copy SET deleted = 1, leaving = 0 WHERE target = ?1 AND id = ?2",
                    key,
                )?;
                connection.execute("DELETE FROM pin WHERE target = ?1 AND id = ?2", key)?;
                connection.execute("DELETE FROM former_id WHERE target = ?1 AND now = ?2", key)?;
            }
            Ok(())
        })
    }

    /// A copy's id has changed (restic gives a new one when tags change): its record and its pin follow, and it
    /// answers to the old id too.
    ///
    /// # Errors
    /// When it cannot be written, also when the new id is another recorded copy.
    pub fn follow(&self, target: &TargetName, old: &str, new: &str) -> Result<(), HistoryError> {
        self.at_once("follow a copy", |connection| {
            followed(connection, target, old, new)?;
            let key = params![target.as_str(), old, new];
            connection
                .execute("UPDATE OR REPLACE pin SET id = ?3 WHERE target = ?1 AND id = ?2", key)?;
            Ok(())
        })
    }
}
