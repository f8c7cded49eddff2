//! The lines of a ledger, and what they say together.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::names::RunId;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::{ChildProcess, EntryId, Identity, Outstanding, Undo};
use crate::step::error::{StepError, write_hint};

/// The version of the ledger's format. Format 1 named every [`Undo`] by its kind alone, and knew nothing of what is kept;
/// it is read all the same.
pub(super) const FORMAT: u32 = 2;

/// One line of a ledger file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line {
    Begin { format: u32, run: RunId },
    Intend { entry: EntryId, undo: Undo },
    Made { entry: EntryId, identity: Identity },
    Settled { entry: EntryId },
    Promote { entry: EntryId, replaced: Vec<Replaced> },
    ChildStarted { child: ChildProcess },
    ChildEnded { pid: i32, start_time: u64 },
}

/// What was kept so far, and is to be released since something else is kept in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Replaced {
    pub entry: EntryId,
    pub undo: Undo,
    pub identity: Identity,
}

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The operating system refused.
    #[error("cannot {what} the ledger {}", path.shown())]
    Io {
        /// What was tried, a verb for the message.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A line in the middle cannot be read.
    #[error("line {line} of the ledger {} cannot be read", path.shown())]
    Unreadable {
        /// The ledger file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the system says.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by a later Stillpoint.
    #[error("the ledger {} has format {format}, which this version does not know", path.shown())]
    Newer {
        /// The ledger file.
        path: PathBuf,
        /// The format that the file says it has.
        format: u32,
    },
}

impl LedgerError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            LedgerError::Io { source, .. } => write_hint(source),
            LedgerError::Unreadable { .. } => None,
            LedgerError::Newer { .. } => Some("use the newer version of stillpoint that wrote it"),
        }
    }
}

impl From<LedgerError> for StepError {
    fn from(error: LedgerError) -> Self {
        Self::from_error(Trouble::Environment, &error, error.hint())
    }
}

/// What a ledger says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// The run; `None` when the crash came before the first line was complete.
    pub run: Option<RunId>,
    /// What must be released, newest first.
    pub outstanding: Vec<Outstanding>,
    /// Children that were not seen to end.
    pub children: Vec<ChildProcess>,
    /// All children, also those that were.
    pub started: Vec<ChildProcess>,
    /// The newest format that it says to have.
    pub(super) format: u32,
    pub(super) next: u64,
    /// Bytes of complete lines; a cut-off line behind them is overwritten by the next writer.
    pub(super) complete: u64,
}

/// What lines say; those of the ledger at this path.
///
/// # Errors
/// When a whole line cannot be read, or a later version wrote it.
pub(super) fn replay(path: &Path, bytes: &[u8]) -> Result<Replay, LedgerError> {
    let (mut run, mut newest) = (None, 0);
    let mut entries: BTreeMap<EntryId, Outstanding> = BTreeMap::new();
    let mut children: Vec<ChildProcess> = Vec::new();
    let mut started = Vec::new();
    let mut next = 0;
    let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    for (index, text) in bytes[..complete].split(|byte| *byte == b'\n').enumerate() {
        if text.is_empty() {
            continue;
        }
        let line = serde_json::from_slice(text).map_err(|source| LedgerError::Unreadable {
            path: path.to_owned(),
            line: index + 1,
            source,
        })?;
        match line {
            Line::Begin { format, .. } if format > FORMAT => {
                return Err(LedgerError::Newer { path: path.to_owned(), format });
            }
            Line::Begin { run: id, format } => (run, newest) = (Some(id), format),
            Line::Intend { entry, undo } => {
                next = entry.0 + 1;
                entries.insert(entry, Outstanding { entry, undo, identity: None });
            }
            Line::Made { entry, identity } => {
                if let Some(outstanding) = entries.get_mut(&entry) {
                    outstanding.identity = Some(identity);
                }
            }
            Line::Settled { entry } => {
                entries.remove(&entry);
            }
            Line::Promote { entry, replaced } => {
                entries.remove(&entry);
                for Replaced { entry, undo, identity } in replaced {
                    next = entry.0 + 1;
                    let identity = Some(identity);
                    entries.insert(entry, Outstanding { entry, undo, identity });
                }
            }
            Line::ChildStarted { child } => {
                started.push(child.clone());
                children.push(child);
            }
            Line::ChildEnded { pid, start_time } => {
                children.retain(|child| child.pid != pid || child.start_time != start_time);
            }
        }
    }
    let outstanding = entries.into_values().rev().collect();
    let (format, complete) = (newest, complete as u64);
    Ok(Replay { run, outstanding, children, started, format, next, complete })
}
