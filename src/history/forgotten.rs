//! Targets that were given up: a disk that is lost holds no copy that anybody should count on.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::columns::{Name, Timestamp};
use super::{History, HistoryError};
use crate::model::names::TargetName;

impl History {
    /// Every target of which something is recorded that [`History::forget_target`] would give up.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn known_targets(&self) -> Result<BTreeSet<TargetName>, HistoryError> {
        self.sql("read the targets", |connection| {
            connection
                .prepare(
                    "SELECT target FROM copy WHERE NOT deleted UNION SELECT target FROM repository
                     UNION SELECT target FROM closure UNION SELECT target FROM pin
                     UNION SELECT target FROM attempt",
                )?
                .query_map([], |row| Ok(row.get::<_, Name<_>>("target")?.0))?
                .collect()
        })
    }

    /// Gives up a target, as a whole or not at all: its copies count as deleted from `now` on, marked as given up with
    /// it; which repository it was, what closes it, the pins that are recorded here alone and the attempts to make
    /// copies there and what was done there are forgotten. A listing that shows a copy again takes that back for it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget_target(
        &self,
        target: &TargetName,
        now: DateTime<Utc>,
    ) -> Result<(), HistoryError> {
        self.at_once("forget a target", |connection| {
            connection.execute(
                "UPDATE copy SET deleted = 1, leaving = 0, forgotten = ?2
                 WHERE target = ?1 AND NOT deleted",
                params![target.as_str(), Timestamp(now)],
            )?;
            for table in ["repository", "closure", "pin", "attempt", "maintenance"] {
                connection.execute(
                    &format!("DELETE FROM {table} WHERE target = ?1"),
                    [target.as_str()],
                )?;
            }
            Ok(())
        })
    }

    /// When the copies of a target were given up, and how many of them no listing has shown since.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn forgotten(
        &self,
        target: &TargetName,
    ) -> Result<Option<(DateTime<Utc>, u64)>, HistoryError> {
        self.sql("read the forgotten copies", |connection| {
            connection.query_row(
                "SELECT MAX(forgotten) AS since, COUNT(*) AS count FROM copy
                 WHERE target = ?1 AND deleted AND forgotten IS NOT NULL",
                [target.as_str()],
                |row| {
                    let since = row.get::<_, Option<Timestamp>>("since")?;
                    let count: i64 = row.get("count")?;
                    Ok(since.map(|since| (since.0, count.unsigned_abs())))
                },
            )
        })
    }
}
