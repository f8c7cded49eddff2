//! What closes retention and compaction in a target, and which repository it was last.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use super::columns::{Name, Timestamp};
use super::{History, HistoryError};
use crate::model::names::{RunId, TargetName};

/// What closes a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClosureKind {
    /// Stored data is damaged.
    Damage,
    /// A good copy is missing that this machine did not delete.
    Gone,
    /// The repository has another id than before.
    Replaced,
}

impl ClosureKind {
    const ALL: [ClosureKind; 3] = [ClosureKind::Damage, ClosureKind::Gone, ClosureKind::Replaced];

    /// The word used in history and JSON.
    pub fn word(self) -> &'static str {
        match self {
            ClosureKind::Damage => "damage",
            ClosureKind::Gone => "gone",
            ClosureKind::Replaced => "replaced",
        }
    }
}

impl fmt::Display for ClosureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How much was read when damage was found. A clean look of at least this extent takes it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// One copy.
    Copy,
    /// The structure of the repository.
    Structure,
    /// A share of the data, which is another one each time.
    Share,
    /// All data.
    All,
}

impl Extent {
    const ALL: [Extent; 4] = [Extent::Copy, Extent::Structure, Extent::Share, Extent::All];

    fn word(self) -> &'static str {
        match self {
            Extent::Copy => "copy",
            Extent::Structure => "structure",
            Extent::Share => "share",
            Extent::All => "all",
        }
    }

    /// Whether a clean look of this extent says that damage found by one of the `other` extent is there no more.
    /// Only all that there is clears what is not known.
    pub fn clears(self, other: Option<Extent>) -> bool {
        match self {
            Extent::All => true,
            Extent::Structure | Extent::Share => other == Some(Extent::Structure),
            Extent::Copy => false,
        }
    }
}

/// One reason why nothing is deleted or compacted in a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// The target.
    pub target: TargetName,
    /// What it is.
    pub kind: ClosureKind,
    /// The copy that is gone or that was verified, the id of the repository that is there now, or nothing.
    pub subject: String,
    /// For damage, how much had been read.
    pub extent: Option<Extent>,
    /// What was found, in a sentence's end.
    pub detail: String,
    /// The run that found it.
    pub run: RunId,
    /// When it was found first.
    pub since: DateTime<Utc>,
}

fn closure(row: &Row<'_>) -> rusqlite::Result<Closure> {
    let word: String = row.get("kind")?;
    let kind = ClosureKind::ALL.into_iter().find(|kind| kind.word() == word);
    let extent: Option<String> = row.get("extent")?;
    let extent = extent.and_then(|word| Extent::ALL.into_iter().find(|e| e.word() == word));
    Ok(Closure {
        target: row.get::<_, Name<_>>("target")?.0,
        // What a later version closes is closed here too.
        kind: kind.unwrap_or(ClosureKind::Damage),
        subject: row.get("subject")?,
        extent,
        detail: row.get("detail")?,
        run: row.get::<_, Name<_>>("run")?.0,
        since: row.get::<_, Timestamp>("since")?.0,
    })
}

/// Records one, on a connection that may be in a transaction. What is known already keeps its time and finder.
pub(super) fn close(connection: &rusqlite::Connection, found: &Closure) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO closure (target, kind, subject, extent, detail, run, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (target, kind, subject) DO UPDATE SET
                 extent = excluded.extent, detail = excluded.detail",
            params![
                found.target.as_str(),
                found.kind.word(),
                found.subject,
                found.extent.map(Extent::word),
                found.detail,
                found.run.as_str(),
                Timestamp(found.since)
            ],
        )
        .map(drop)
}

/// The copies that are missed in a target, by the ids that they had.
pub(super) fn gone(
    connection: &rusqlite::Connection,
    target: &TargetName,
) -> rusqlite::Result<BTreeSet<String>> {
    connection
        .prepare("SELECT subject FROM closure WHERE target = ?1 AND kind = 'gone'")?
        .query_map([target.as_str()], |row| row.get(0))?
        .collect()
}

/// A copy that was gone is there again.
pub(super) fn is_back(
    connection: &rusqlite::Connection,
    target: &TargetName,
    id: &str,
) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM closure WHERE target = ?1 AND kind = 'gone' AND subject = ?2",
            params![target.as_str(), id],
        )
        .map(drop)
}

impl History {
    /// What closes a target, in the order in which it was found.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn closures(&self, target: &TargetName) -> Result<Vec<Closure>, HistoryError> {
        self.sql("read what closes a target", |connection| {
            connection
                .prepare(
                    "SELECT target, kind, subject, extent, detail, run, since FROM closure
                     WHERE target = ?1 ORDER BY sequence",
                )?
                .query_map([target.as_str()], closure)?
                .collect()
        })
    }

    /// Records what closes a target. Damage that was found before by reading more stays as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn close(&self, found: &Closure) -> Result<(), HistoryError> {
        let known = self.closures(&found.target)?;
        let is_it = |known: &&Closure| known.kind == found.kind && known.subject == found.subject;
        let extent = known.iter().find(is_it).and_then(|known| known.extent).max(found.extent);
        let found = Closure { extent, ..found.clone() };
        self.sql("record what closes a target", |connection| close(connection, &found))
    }

    /// Takes back one reason for which a target is closed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn reopen(&self, closure: &Closure) -> Result<(), HistoryError> {
        self.sql("open a target again", |connection| {
            connection.execute(
                "DELETE FROM closure WHERE target = ?1 AND kind = ?2 AND subject = ?3",
                params![closure.target.as_str(), closure.kind.word(), closure.subject],
            )?;
            Ok(())
        })
    }

    /// The id of the repository that a target was when it was first seen, or when a person last accepted it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn repository(&self, target: &TargetName) -> Result<Option<String>, HistoryError> {
        self.sql("read the repository's id", |connection| {
            connection
                .query_row(
                    "SELECT id FROM repository WHERE target = ?1",
                    [target.as_str()],
                    |row| row.get(0),
                )
                .optional()
        })
    }

    /// Remembers which repository a target is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember_repository(
        &self,
        target: &TargetName,
        id: &str,
        since: DateTime<Utc>,
    ) -> Result<(), HistoryError> {
        self.sql("remember the repository's id", |connection| {
            connection.execute(
                "INSERT INTO repository (target, id, since) VALUES (?1, ?2, ?3)
                 ON CONFLICT (target) DO UPDATE SET id = excluded.id, since = excluded.since",
                params![target.as_str(), id, Timestamp(since)],
            )?;
            Ok(())
        })
    }

    /// Says before copies are deleted that they will be, so that their absence surprises nobody, whatever comes
    /// between. It is taken back when a listing shows them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn expect_gone(&self, target: &TargetName, ids: &[String]) -> Result<(), HistoryError> {
        self.at_once("record what is to be deleted", |connection| {
            for id in ids {
                connection.execute(
                    "UPDATE copy SET leaving = 1 WHERE target = ?1 AND id = ?2",
                    params![target.as_str(), id],
                )?;
            }
            Ok(())
        })
    }
}
