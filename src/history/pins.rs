//! Copies that are pinned here, until their mark is in the repository.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::columns::Timestamp;
use super::{History, HistoryError};
use crate::model::names::TargetName;

impl History {
    /// Remembers that a copy is pinned, until its mark is in the repository. Pinning it again changes nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pin(
        &self,
        target: &TargetName,
        id: &str,
        since: DateTime<Utc>,
    ) -> Result<(), HistoryError> {
        self.sql("pin a copy", |connection| {
            connection.execute(
                "INSERT INTO pin (target, id, since) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![target.as_str(), id, Timestamp(since)],
            )?;
            Ok(())
        })
    }

    /// Takes the pin of a copy away that answers to any of these ids, or had another one before. Answers whether
    /// there was one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn unpin(&self, target: &TargetName, ids: &[&str]) -> Result<bool, HistoryError> {
        self.at_once("unpin a copy", |connection| {
            let mut removed = 0;
            for id in ids {
                removed += connection.execute(
                    "DELETE FROM pin WHERE target = ?1 AND (id = ?2 OR EXISTS (
                         SELECT 1 FROM copy WHERE copy.target = ?1 AND ?2 IN (copy.id, copy.first_id)
                             AND pin.id IN (copy.id, copy.first_id)))",
                    params![target.as_str(), id],
                )?;
            }
            Ok(removed > 0)
        })
    }

    /// The ids of a target's copies that are pinned here, and whose mark was not yet seen in the repository.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn pins(&self, target: &TargetName) -> Result<BTreeSet<String>, HistoryError> {
        self.sql("read the pins", |connection| {
            connection
                .prepare("SELECT id FROM pin WHERE target = ?1")?
                .query_map([target.as_str()], |row| row.get(0))?
                .collect()
        })
    }
}
