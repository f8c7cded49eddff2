//! Captures that stay on purpose: what the next run's are compared with.

use chrono::{DateTime, Utc};
use rusqlite::{Row, params};

use super::columns::{Json, Name, Timestamp};
use super::copies::series;
use super::{History, HistoryError};
use crate::model::copy::Series;
use crate::model::names::{JobName, RunId};
use crate::model::undo::{CaptureUndo, Kept};

/// A capture that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCapture {
    /// What it is a capture of.
    pub series: Series,
    /// The run that made it, whose copies are of it.
    pub run: RunId,
    /// The capture.
    pub kept: Kept,
    /// When it was made.
    pub made: DateTime<Utc>,
}

impl History {
    /// Records captures that stay, all or none. One that is recorded already stays as it is.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn record_kept(&self, kept: &[KeptCapture]) -> Result<(), HistoryError> {
        self.at_once("record captures that stay", |connection| {
            for capture in kept {
                connection.execute(
                    "INSERT INTO kept (host, job, item, run, undo, identity, made)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (undo) DO NOTHING",
                    params![
                        capture.series.host.as_str(),
                        capture.series.job.as_str(),
                        capture.series.item,
                        capture.run.as_str(),
                        Json(&capture.kept.undo),
                        Json(&capture.kept.identity),
                        Timestamp(capture.made),
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// The captures that stay of a job, of all its items, in the order in which they were recorded.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn kept(&self, job: &JobName) -> Result<Vec<KeptCapture>, HistoryError> {
        self.kept_where("job = ?1", &[job.as_str()])
    }

    /// The captures that stay, of all jobs that there ever were.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn all_kept(&self) -> Result<Vec<KeptCapture>, HistoryError> {
        self.kept_where("TRUE", &[])
    }

    fn kept_where(
        &self,
        condition: &str,
        values: &[&str],
    ) -> Result<Vec<KeptCapture>, HistoryError> {
        self.sql("read the captures that stay", |connection| {
            connection
                .prepare(&format!(
                    "SELECT host, job, item, run, undo, identity, made FROM kept
                     WHERE {condition} ORDER BY sequence"
                ))?
                .query_map(rusqlite::params_from_iter(values), read)?
                .collect()
        })
    }

    /// Has a capture that stays be released in another way from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace_kept(&self, undo: &CaptureUndo, by: &CaptureUndo) -> Result<(), HistoryError> {
        self.sql("note how a capture is released", |connection| {
            let words = params![Json(undo), Json(by)];
            connection.execute("UPDATE kept SET undo = ?2 WHERE undo = ?1", words)?;
            Ok(())
        })
    }

    /// Forgets a capture that is released.
    ///
    /// # Errors
    /// When it cannot be written: it is found gone the next time.
    pub fn forget_kept(&self, undo: &CaptureUndo) -> Result<(), HistoryError> {
        self.sql("forget a capture", |connection| {
            connection.execute("DELETE FROM kept WHERE undo = ?1", [Json(undo)])?;
            Ok(())
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<KeptCapture> {
    Ok(KeptCapture {
        series: series(row)?,
        run: row.get::<_, Name<_>>("run")?.0,
        kept: Kept {
            undo: row.get::<_, Json<_>>("undo")?.0,
            identity: row.get::<_, Json<_>>("identity")?.0,
        },
        made: row.get::<_, Timestamp>("made")?.0,
    })
}
