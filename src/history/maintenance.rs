//! What was done to a target as a whole: checks, compaction, deletions.

use std::fmt;

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::columns::{Timestamp, Word};
use super::{History, HistoryError};
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::Outcome;

/// The kinds of maintenance whose last time matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaintenanceKind {
    /// The repository was checked. Healthy only if nothing was found.
    Check,
    /// Space was freed.
    Compact,
    /// Copies were deleted. Recorded only when at least one was.
    Prune,
    /// A person accepted the copies of the job that the detail names (`prune --accept`).
    Accept,
}

impl MaintenanceKind {
    /// The word used in history, JSON and metrics.
    pub fn word(self) -> &'static str {
        match self {
            MaintenanceKind::Check => "check",
            MaintenanceKind::Compact => "compact",
            MaintenanceKind::Prune => "prune",
            MaintenanceKind::Accept => "accept",
        }
    }
}

impl fmt::Display for MaintenanceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One piece of maintenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// Of which target.
    pub target: TargetName,
    /// What was done: checked, compacted or pruned.
    pub kind: MaintenanceKind,
    /// How it ended.
    pub outcome: Outcome,
    /// What was done or found.
    pub detail: String,
    /// When it ended.
    pub time: DateTime<Utc>,
}

impl History {
    /// Records a piece of maintenance.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_maintenance(&self, done: &Maintenance) -> Result<(), HistoryError> {
        self.sql("record maintenance", |connection| {
            connection.execute(
                "INSERT INTO maintenance (target, kind, outcome, detail, time)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    done.target.as_str(),
                    done.kind.word(),
                    Word(done.outcome.clone()),
                    done.detail,
                    Timestamp(done.time)
                ],
            )?;
            Ok(())
        })
    }

    /// What was recorded last of this kind that ended well: a check that failed or found damage does not
    /// count as one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_good_maintenance(
        &self,
        target: &TargetName,
        kind: MaintenanceKind,
    ) -> Result<Option<Maintenance>, HistoryError> {
        self.sql("read the maintenance", |connection| {
            let mut statement = connection.prepare(
                "SELECT outcome, detail, time FROM maintenance WHERE target = ?1 AND kind = ?2
                 ORDER BY sequence DESC",
            )?;
            let mut rows = statement.query(params![target.as_str(), kind.word()])?;
            while let Some(row) = rows.next()? {
                let outcome = row.get::<_, Word>("outcome")?.0;
                if outcome.is_healthy() {
                    return Ok(Some(Maintenance {
                        target: target.clone(),
                        kind,
                        outcome,
                        detail: row.get("detail")?,
                        time: row.get::<_, Timestamp>("time")?.0,
                    }));
                }
            }
            Ok(None)
        })
    }

    /// When a person last accepted the copies of this job in this target.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn last_accepted(
        &self,
        target: &TargetName,
        job: &JobName,
    ) -> Result<Option<DateTime<Utc>>, HistoryError> {
        self.sql("read the maintenance", |connection| {
            connection
                .query_row(
                    "SELECT time FROM maintenance WHERE target = ?1 AND kind = 'accept' AND detail = ?2
                     ORDER BY sequence DESC LIMIT 1",
                    params![target.as_str(), job.as_str()],
                    |row| Ok(row.get::<_, Timestamp>("time")?.0),
                )
                .optional()
        })
    }

    /// Whether copies were deleted after space was last freed. A target that was never compacted
    /// counts from its first deletion.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn has_deletions_to_compact(&self, target: &TargetName) -> Result<bool, HistoryError> {
        self.sql("read the maintenance", |connection| {
            connection
                .query_row(
                    "SELECT 1 FROM maintenance WHERE target = ?1 AND kind = 'prune' AND sequence > (
                         SELECT COALESCE(MAX(sequence), 0) FROM maintenance
                         WHERE target = ?1 AND kind = 'compact' AND outcome IN ('ok', 'warning'))
                     LIMIT 1",
                    [target.as_str()],
                    |_| Ok(()),
                )
                .optional()
                .map(|found| found.is_some())
        })
    }
}
