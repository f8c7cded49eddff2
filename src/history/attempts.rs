//! Copies that runs set out to make.

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Row, params};

use super::columns::{Name, Timestamp};
use super::copies::series;
use super::{History, HistoryError};
use crate::model::copy::Series;
use crate::model::names::{RunId, TargetName};

/// A copy that a run set out to make. It is recorded before the engine starts, so that what a crash left
/// in the target can be told from what is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// Where the copy was to go.
    pub target: TargetName,
    /// What it was to be a copy of.
    pub series: Series,
    /// The copy's name, where it is chosen beforehand (borg).
    pub name: Option<String>,
    /// When the engine was about to start.
    pub started: DateTime<Utc>,
    /// The moment for which the copy was to stand.
    pub time: DateTime<Utc>,
    /// The UUID of the snapshot that was to be sent, where one is.
    pub snapshot: Option<String>,
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        run: row.get::<_, Name<_>>("run")?.0,
        target: row.get::<_, Name<_>>("target")?.0,
        series: series(row)?,
        name: row.get("name")?,
        started: row.get::<_, Timestamp>("started")?.0,
        time: row.get::<_, Timestamp>("time")?.0,
        snapshot: row.get("snapshot")?,
    })
}

/// How long it is tried to finish what an attempt began. It holds space on both sides, and whatever keeps it from its end
/// keeps newer copies back as well.
pub const GOES_ON_FOR: TimeDelta = TimeDelta::days(30);

impl History {
    /// Records that a copy is about to be made.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_attempt(&self, attempt: &Attempt) -> Result<(), HistoryError> {
        self.sql("record an attempt", |connection| {
            connection.execute(
                "INSERT INTO attempt (run, target, host, job, item, name, started, time, snapshot)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    attempt.run.as_str(),
                    attempt.target.as_str(),
                    attempt.series.host.as_str(),
                    attempt.series.job.as_str(),
                    attempt.series.item,
                    attempt.name,
                    Timestamp(attempt.started),
                    Timestamp(attempt.time),
                    attempt.snapshot,
                ],
            )?;
            Ok(())
        })
    }

    /// Attempts for this target that no copy followed, in the order of recording. The attempt of a run
    /// that is still at work is among them. A run may make several copies of a series, each by an attempt of its own.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn attempts(&self, target: &TargetName) -> Result<Vec<Attempt>, HistoryError> {
        self.sql("read the attempts", |connection| {
            connection
                .prepare(
                    "SELECT run, target, host, job, item, name, started,
                            COALESCE(time, started) AS time, snapshot
                     FROM attempt
                     WHERE target = ?1 AND NOT EXISTS (
                         SELECT 1 FROM copy
                         WHERE copy.target = attempt.target AND copy.run = attempt.run
                           AND copy.host = attempt.host AND copy.job = attempt.job
                           AND copy.item IS attempt.item
                           AND COALESCE(attempt.name IN (copy.first_id, copy.id), TRUE))
                     ORDER BY sequence",
                )?
                .query_map([target.as_str()], attempt)?
                .collect()
        })
    }

    /// The one of those of a series that may be gone on with at this moment: no good copy came after it, and it is not older
    /// than [`GOES_ON_FOR`].
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn unfinished_attempt(
        &self,
        target: &TargetName,
        series: &Series,
        now: DateTime<Utc>,
    ) -> Result<Option<Attempt>, HistoryError> {
        let last = self.last_good_until(target, series, DateTime::<Utc>::MAX_UTC)?;
        let is_overtaken = |it: &Attempt| last.as_ref().is_some_and(|last| last.time > it.time);
        let mut attempts = self.attempts(target)?;
        attempts.retain(|it| it.series == *series);
        let Some(attempt) = attempts.last() else { return Ok(None) };
        // Each time that it is gone on with is an attempt of its own.
        let of_it = attempts.iter().filter(|it| it.name == attempt.name && it.run == attempt.run);
        let begun = of_it.map(|it| it.started).min().unwrap_or(attempt.started);
        let may_go_on = now - begun <= GOES_ON_FOR && !is_overtaken(attempt);
        Ok(may_go_on.then(|| attempt.clone()))
    }

    /// Forgets an attempt, once it is known that nothing of it is left in the target.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn settle_attempt(&self, attempt: &Attempt) -> Result<(), HistoryError> {
        let Series { host, job, item } = &attempt.series;
        self.sql("settle an attempt", |connection| {
            connection.execute(
                "DELETE FROM attempt WHERE target = ?1 AND run = ?2 AND host = ?3 AND job = ?4
                     AND item IS ?5 AND name IS ?6",
                params![
                    attempt.target.as_str(),
                    attempt.run.as_str(),
                    host.as_str(),
                    job.as_str(),
                    item,
                    attempt.name
                ],
            )?;
            Ok(())
        })
    }
}
