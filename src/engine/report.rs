//! What engines say they did or found. That it is so is for others to look.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::host::Subvolume;
use crate::model::bytes;
use crate::model::outcome::Outcome;
use crate::model::size::counted;

/// What a check of a new copy's contents found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentsCheck {
    /// The whole id of the copy that was checked.
    pub id: String,
    /// The expected paths that it does not hold.
    pub absent: Vec<PathBuf>,
}

/// What an engine said about a backup it made.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// [`Outcome::Ok`], [`Outcome::Warning`] or [`Outcome::Incomplete`]; a failure is an
    /// [`EngineError`](super::EngineError).
    pub outcome: Outcome,
    /// The id that the engine named: still to be looked for in the target.
    pub id: Option<String>,
    /// Bytes that were added to the target.
    pub bytes_new: Option<u64>,
    /// Bytes of the original data.
    pub size: Option<u64>,
    /// Number of files in the copy.
    pub files: Option<u64>,
    /// Files that changed or vanished while they were read.
    pub files_changed: u64,
    /// Paths that could not be read, at most the first hundred.
    pub unreadable: Vec<String>,
    /// How many could not be read in all.
    pub unreadable_count: u64,
    /// What the engine warned of besides, at most the first hundred.
    pub warnings: Vec<String>,
    /// Expected paths that were not stored, where the engine names what it stores; `None` where the copy has to be
    /// asked, see [`Engine::find_absent`](super::Engine::find_absent).
    pub absent: Option<Vec<PathBuf>>,
}

/// How much a copy would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes that would be sent, about.
    pub bytes: u64,
    /// The copy that it would be a difference to; `None`: all would be sent.
    pub based_on: Option<String>,
}

/// A copy that is a tree of its own on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCopy {
    /// Where it is.
    pub path: PathBuf,
    /// The subvolume that it is.
    pub found: Subvolume,
}

/// What it takes to receive a copy that lies elsewhere, with all that it is a difference to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetch {
    /// So many bytes come over the line at most, where the target says it.
    pub bytes: Option<u64>,
    /// So many are laid out at most, but for what compresses them, where the target says it.
    pub laid_out: Option<u64>,
}

/// What a look at a repository found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The engine's version, as it says it.
    pub version: String,
    /// The repository's own id.
    pub repository_id: Option<String>,
    /// The encryption mode, where the engine says it.
    pub encryption: Option<String>,
}

/// What `init` made, and what must be stored elsewhere for a bad day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// The repository's own id.
    pub repository_id: Option<String>,
    /// The exported key, for modes that have one. Together with the passphrase it opens the repository.
    pub key_export: Option<String>,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Files restored, where the engine says it.
    pub files: Option<u64>,
    /// Bytes restored, where the engine says it.
    pub bytes: Option<u64>,
    /// What it warned of: attributes that could not be set and the like.
    pub warnings: Vec<String>,
    /// What is worth knowing and no fault.
    pub notes: Vec<String>,
}

/// What a check or a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// What is damaged, in the engine's words; empty means that nothing was found.
    pub damage: Vec<String>,
    /// What was read: `structure`, `structure and 5% of the data`, …
    pub extent: String,
    /// How many copies there are by their records, where each line of the damage is of one of them.
    pub copies: Option<u64>,
    /// Why what was read proves less than that what was stored can be restored, where nothing more could be read.
    pub unverifiable: Option<String>,
    /// Nothing was read, so nothing was found either: a dry run only noted it.
    pub is_predicted: bool,
}

impl CheckReport {
    /// What was found in what was read.
    pub fn found(damage: Vec<String>, extent: String) -> Self {
        Self { damage, extent, ..Self::default() }
    }

    /// The same where each line of the damage is of one of so many copies.
    pub fn of_copies(damage: Vec<String>, extent: String, copies: usize) -> Self {
        Self { copies: u64::try_from(copies).ok(), ..Self::found(damage, extent) }
    }

    /// Where there is damage, and in how much of what was looked at.
    pub fn told(&self) -> String {
        let damaged = self.damage.len();
        match self.copies {
            // A part of the chain of one may be damaged twice.
            Some(all) if damaged as u64 <= all => {
                let are = if damaged == 1 { "is" } else { "are" };
                format!("{damaged} of {} {are} damaged", counted(all, "copy", "copies"))
            }
            Some(_) | None => format!("damage found in {}", self.extent),
        }
    }

    /// Whether it says that there is damage, or that there is none.
    pub fn proves_something(&self) -> bool {
        self.unverifiable.is_none() || !self.damage.is_empty()
    }

    /// That it was only noted.
    pub fn predicted() -> Self {
        Self { extent: "nothing (dry run)".into(), is_predicted: true, ..Self::default() }
    }
}

/// What a compaction freed, as far as it is known: an engine that did its work may still have freed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compacted {
    /// So much, in the engine's own words and rounding.
    Freed(String),
    /// Nothing: the repository only takes in.
    AppendOnly,
    /// Nothing was left to free: in such a repository a deletion frees its space by itself.
    NotNeeded,
    /// The engine named no space.
    Unknown,
    /// Nobody compacted: a dry run only noted it.
    Predicted,
}

/// One entry of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The absolute path as it was on the machine.
    pub path: PathBuf,
    /// `-` file, `d` directory, `l` link, or the engine's own letter.
    pub kind: char,
    /// Bytes; `None` for what has no size.
    pub size: Option<u64>,
    /// When it was last modified.
    pub modified: Option<DateTime<Utc>>,
    /// Permission bits, set-id and sticky ones included.
    pub mode: Option<u32>,
    /// Owner, by number.
    pub uid: Option<u32>,
    /// Group, by number.
    pub gid: Option<u32>,
    /// A number that all names of one file have and no other file has; `None` where it has but one name, or nobody says.
    pub shared: Option<u64>,
}

/// One difference between two copies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The path as it is in the copy.
    #[serde(flatten, serialize_with = "bytes::path")]
    pub path: PathBuf,
    /// How it differs.
    pub kind: ChangeKind,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// Only in the newer copy.
    Added,
    /// Only in the older copy.
    Removed,
    /// Its content differs.
    Modified,
    /// Only owner, mode, times or the like differ.
    Metadata,
    /// It is another sort of thing now.
    Type,
}

/// A copy of a snapshot of a subvolume, and what was sent for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentCopy {
    /// The copy's id.
    pub id: String,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// The UUID of the snapshot that was sent.
    pub uuid: String,
    /// The generation that it had.
    pub generation: u64,
}
