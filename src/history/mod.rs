//! What Stillpoint remembers: runs, attempts, copies, pins and maintenance, in one SQLite file.
//!
//! The targets hold the truth about which copies exist; history holds what they cannot say: how a copy was
//! made, how large it was, that it is pinned, and which attempts never became a copy. Losing the file loses
//! no copy. It is private to root (0600), since paths and errors stand in it.

use std::collections::BTreeSet;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::names::TargetName;
use crate::model::shown::Show;

use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

mod attempts;
mod closures;
mod columns;
mod copies;
mod forgotten;
mod kept;
mod listing;
mod machine;
mod maintenance;
mod pins;
pub mod room;
mod runs;
mod schema;
#[cfg(test)]
mod tests;

pub use attempts::Attempt;
pub use closures::{Closure, ClosureKind, Extent};
pub use copies::{CopyRecord, TrendPoint};
pub use kept::KeptCapture;
pub use listing::ListedBy;
pub use machine::{Adopted, Fingerprint, Settled};
pub use maintenance::{Maintenance, MaintenanceKind};
pub use runs::{LastOutcome, RunSummary, StepTime};

/// The name of the history file in the state directory.
pub const FILE_NAME: &str = "history.sqlite";

/// How long to wait for another run that is writing; its transactions take milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// After how many pages of 4 KiB the write-ahead log is merged, which bounds the room that it takes.
const LOG_PAGES: u32 = 64;

/// Why history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be made or its permissions cannot be set.
    #[error("cannot open the history {}", path.shown())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite or the file system said.
        #[source]
        source: io::Error,
    },
    /// SQLite refused, or a value in the file cannot be read.
    #[error("cannot {doing} in the history {}", path.shown())]
    Database {
        /// The file.
        path: PathBuf,
        /// What was tried: `read the copies` and the like.
        doing: &'static str,
        /// What SQLite or the file system said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by another version of Stillpoint.
    #[error(
        "the history {} has format {found}, and this version reads format {known}", path.shown()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The format of this version.
        known: u32,
    },
}

impl HistoryError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            HistoryError::Open { .. } => "check that the state directory exists and is writable",
            HistoryError::Database { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    "nothing is wrong with it: another program has it open and writes (a backup of it, an sqlite3 shell), so wait for that to end, or end it"
                }
                Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
                    "see whether the disk of the state directory is full (then free some space) or failing"
                }
                Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
                    "see that root may write to the file and its directory, and that their disk is not mounted read-only"
                }
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    "it is damaged: move it away, and a new one starts empty; no copy is lost, pins are in the repositories, and `stillpoint adopt` takes the copies over"
                }
                _ => {
                    "look at the file with `sqlite3 FILE 'pragma integrity_check'`: only if that finds damage, move it away, and a new one starts empty"
                }
            },
            HistoryError::Version { found, known, .. } if found > known => {
                "use the newer version of stillpoint that wrote it"
            }
            HistoryError::Version { .. } => "run a job once: that brings the file up to date",
        }
    }

    /// Whether another program merely has the file locked.
    pub fn is_busy(&self) -> bool {
        use ErrorCode::{DatabaseBusy, DatabaseLocked};
        match self {
            HistoryError::Database { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
            }
            HistoryError::Open { .. } | HistoryError::Version { .. } => false,
        }
    }
}

/// The open history file.
///
/// All times that go in come from the caller; nothing here reads a clock.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    /// One job of a run after another: what each asks takes milliseconds.
    connection: Mutex<Connection>,
    writable: bool,
    /// Read only, and made on another machine: none of the recorded copies is ours.
    disowned: AtomicBool,
    /// What a dry run would have deleted: the target and the id.
    foreseen: Mutex<BTreeSet<(TargetName, String)>>,
}

impl History {
    /// Opens the history for reading and writing. A missing file is made (0600), an older one is brought
    /// up to date.
    ///
    /// # Errors
    /// When the file cannot be opened or made, or comes from a newer version.
    pub fn open(path: &Path) -> Result<History, HistoryError> {
        History::open_within(path, PATIENCE)
    }

    /// The same, waiting no longer than this for another program that has it locked.
    ///
    /// # Errors
    /// See [`History::open`].
    pub fn open_within(path: &Path, patience: Duration) -> Result<History, HistoryError> {
        let refused = |source| HistoryError::Open { path: path.to_owned(), source };
        // SQLite gives its side files the permissions of the main file, so it must be private first.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(refused)?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(refused)?;
        drop(file);

        let mut history = History::connect(path, path, true)?;
        history.sql("prepare", |connection| {
            connection.busy_timeout(patience.min(PATIENCE))?;
            // What is recorded at a time is little, and the room for it is looked for beforehand.
            connection.pragma_update_and_check(
                None,
                "wal_autocheckpoint",
                LOG_PAGES,
                |_| Ok(()),
            )?;
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            // A record must outlive a power cut: pins and attempts are relied upon later.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)
        })?;
        history.upgrade()?;
        Ok(history)
    }

    /// Opens an existing history for reading only; `None` when there is none yet. For `status` and for dry
    /// runs: when it is closed, the directory is as it was.
    ///
    /// The connection itself may write, because a reader that may not would leave SQLite's side files
    /// behind; `query_only` refuses every statement that changes something. On a full or read-only disk even a
    /// reader cannot make those side files. If there are none, nobody has the file open, and it is read without them.
    ///
    /// # Errors
    /// When the file cannot be opened or was written by another version.
    pub fn open_existing(path: &Path) -> Result<Option<History>, HistoryError> {
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(source) => return Err(HistoryError::Open { path: path.to_owned(), source }),
        }
        match History::read(path, path) {
            Err(HistoryError::Database { source, .. })
                if may_want_side_files(&source) && !has_unmerged(path) =>
            {
                History::read(path, &immutable(path))
            }
            read => read,
        }
    }

    fn read(path: &Path, name: &Path) -> Result<Option<History>, HistoryError> {
        let history = History::connect(path, name, false)?;
        history.sql("prepare", |connection| connection.pragma_update(None, "query_only", true))?;
        match history.version()? {
            // Made, but a crash came before its tables: nothing is remembered.
            0 => Ok(None),
            found if found == schema::FORMAT => Ok(Some(history)),
            found if found < schema::FORMAT => history.brought_up_to_date().map(Some),
            found => Err(history.other_version(found)),
        }
    }

    /// A history of an earlier format, as it will be read when something is recorded in it: the file stays as it
    /// is, and the steps are taken in memory.
    fn brought_up_to_date(self) -> Result<History, HistoryError> {
        let copied = self.sql("read an earlier format", |connection| {
            let mut memory = Connection::open_in_memory()?;
            Backup::new(connection, &mut memory)?.run_to_completion(i32::MAX, PATIENCE, None)?;
            Ok(memory)
        })?;
        let mut history = History { connection: Mutex::new(copied), ..self };
        history.upgrade()?;
        history.sql("prepare", |connection| connection.pragma_update(None, "query_only", true))?;
        Ok(history)
    }

    /// Whether something can be recorded in it.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    fn connect(path: &Path, name: &Path, writable: bool) -> Result<History, HistoryError> {
        let refused =
            |source| HistoryError::Database { path: path.to_owned(), doing: "open", source };
        if name == path {
            side_files_fit(path).map_err(refused)?;
        }
        // A path of ours is absolute, so only `immutable` makes a URI.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(name, flags).map_err(refused)?;
        connection.busy_timeout(PATIENCE).map_err(refused)?;
        Ok(History {
            path: path.to_owned(),
            connection: Mutex::new(connection),
            writable,
            disowned: AtomicBool::new(false),
            foreseen: Mutex::default(),
        })
    }

    /// Takes the steps that the file lacks, all or none of them.
    fn upgrade(&mut self) -> Result<(), HistoryError> {
        let path = self.path.clone();
        let refused = |source| HistoryError::Database {
            path: path.clone(),
            doing: "set up the tables",
            source,
        };
        let transaction = self
            .connection
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(refused)?;
        let found = version_of(&transaction).map_err(refused)?;
        let Some(missing) = schema::STEPS.get(found as usize..) else {
            drop(transaction);
            return Err(self.other_version(found));
        };
        for step in missing {
            transaction.execute_batch(step).map_err(refused)?;
        }
        transaction.pragma_update(None, "user_version", schema::FORMAT).map_err(refused)?;
        transaction.commit().map_err(refused)
    }

    fn version(&self) -> Result<u32, HistoryError> {
        self.sql("read the format", version_of)
    }

    fn other_version(&self, found: u32) -> HistoryError {
        HistoryError::Version { path: self.path.clone(), found, known: schema::FORMAT }
    }

    /// Whether none of the recorded copies is ours.
    fn is_disowned(&self) -> bool {
        self.disowned.load(Ordering::SeqCst)
    }

    /// What a dry run would have deleted.
    fn foreseen(&self) -> MutexGuard<'_, BTreeSet<(TargetName, String)>> {
        self.foreseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the database, and says what was tried when that fails.
    fn sql<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, HistoryError> {
        // A panic in a transaction has rolled that back.
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection).map_err(|source| HistoryError::Database {
            path: self.path.clone(),
            doing,
            source,
        })
    }

    /// The same, in one transaction: all of it is recorded or nothing.
    fn at_once<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, HistoryError> {
        self.sql(doing, |connection| {
            let transaction = connection.unchecked_transaction()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }
}

/// Refuses to open a database whose side files are still to be made where there is no room for them. SQLite touches
/// one byte in every 4 KiB of the mapped one: with smaller blocks (a small ext4) the rest has no room, and to use
/// it then ends the process (SIGBUS).
fn side_files_fit(path: &Path) -> rusqlite::Result<()> {
    let mut index = path.as_os_str().to_owned();
    index.push("-shm");
    let directory = path.parent().unwrap_or(Path::new("/"));
    if room::is_too_full(directory) && !Path::new(&index).exists() {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let text = "there is no room for what SQLite keeps beside it";
        return Err(rusqlite::Error::SqliteFailure(full, Some(text.into())));
    }
    Ok(())
}

/// Whether a record may lie in the write-ahead log, or somebody is writing one.
fn has_unmerged(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    match Path::new(&log).metadata() {
        Ok(found) => found.len() > 0,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The name by which SQLite opens a file that does not change, without a lock or a side file.
fn immutable(path: &Path) -> PathBuf {
    let mut name = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                name.push(char::from(*byte));
            }
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    name.push_str("?immutable=1");
    name.into()
}

/// Whether it may be that SQLite could not make its side files.
fn may_want_side_files(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
    is_for_want_of_room(error) || matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly))
}

/// Whether it may be that nothing could be written. A full disk shows as an input or output error too, where
/// SQLite makes its side files.
fn is_for_want_of_room(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DiskFull, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DiskFull | SystemIoFailure))
}

fn version_of(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
