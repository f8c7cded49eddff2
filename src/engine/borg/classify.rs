//! What borg's words mean: warnings of a backup or a restore as an outcome, errors as an [`EngineError`].
//!
//! The set of messages decides, by class where borg names one (1.4) and by `[Errno N]` where it does not
//! (1.2). The exit status only adds what no message said: several different warnings share the status 1,
//! and a check that finds damage ends with 1 as well.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use crate::engine::EngineError;
use crate::host::Exit;
use crate::model::outcome::Outcome;
use crate::model::shown::{self, Show};
use crate::tools::borg::log::{
    Level, Line, Message, end_of_trace, errno, is_no_space, parse_line, path_of,
};

/// How many lines of a kind are kept; the rest is counted.
pub(super) const KEPT: usize = 100;

/// How many lines of plain text are kept, the last ones.
const KEPT_TEXT: usize = 10;

/// `ENOENT`.
const NOT_FOUND: i32 = 2;
/// `EPERM` and `EOPNOTSUPP`: what a file system says to an attribute that it does not have.
const NO_SUCH_ATTRIBUTE: [i32; 2] = [1, 95];
/// `EROFS`, as borg puts it into the message about its lock, the only path in which is the repository's.
const READ_ONLY: &str = "([Errno 30] ";

/// What borg said on standard error, apart from progress and warnings.
#[derive(Default)]
pub(super) struct Journal {
    /// Messages of level ERROR and above; at most [`KEPT`].
    pub(super) errors: Vec<Message>,
    /// The last lines that are not JSON, or come from the remote side.
    pub(super) text: VecDeque<String>,
    /// The first line that could not be read.
    pub(super) unreadable_line: Option<String>,
}

impl Journal {
    /// Takes one line, and hands on what is not kept here: warnings and progress.
    pub(super) fn take(&mut self, line: &[u8]) -> Option<Line> {
        match parse_line(line) {
            Ok(Line::Message(message)) if message.level >= Level::Error => {
                if self.errors.len() < KEPT {
                    self.errors.push(message);
                }
            }
            Ok(Line::Message(message)) if message.level < Level::Warning => {}
            Ok(Line::Text(text)) => self.keep_text(text),
            Ok(Line::Other) => {}
            Ok(line) => {
                // What ssh says comes as a warning without a class.
                if let Line::Message(message) = &line
                    && message.text.starts_with("Remote: ")
                {
                    self.keep_text(message.text.clone());
                }
                return Some(line);
            }
            Err(why) => {
                self.unreadable_line.get_or_insert(why);
            }
        }
        None
    }

    fn keep_text(&mut self, text: String) {
        if !text.trim().is_empty() {
            if self.text.len() == KEPT_TEXT {
                self.text.pop_front();
            }
            self.text.push_back(text);
        }
    }

    /// The error that speaks for the others: the first one of a class, else the first one.
    fn leading(&self) -> Option<&Message> {
        self.errors.iter().find(|error| error.id.is_some()).or(self.errors.first())
    }

    /// Whether it says that there is no space where the repository is, be it the words of a remote side.
    fn is_no_space(&self) -> bool {
        self.errors.iter().any(Message::is_no_space)
            || self.text.iter().any(|text| is_no_space(text))
    }

    /// The failure, in words.
    fn detail(&self) -> String {
        let mut lines = Vec::new();
        if let Some(leading) = self.leading() {
            if leading.id.as_deref() != Some("Exception") {
                lines.push(leading.text.trim().to_owned());
            }
            // An unforeseen exception says what it is only in the last line of its trace.
            let ends = self.errors.iter().filter_map(|error| end_of_trace(&error.text));
            lines.extend(ends.map(str::to_owned));
            lines.dedup();
        }
        if lines.is_empty() || leading_is_connection(self.leading()) {
            lines.extend(self.text.iter().rev().take(3).rev().cloned());
        }
        if lines.is_empty() {
            return "it gave no reason".into();
        }
        lines.truncate(5);
        lines.join("; ")
    }
}

fn leading_is_connection(leading: Option<&Message>) -> bool {
    leading.and_then(|m| m.id.as_deref()).is_some_and(|id| id.starts_with("Connection"))
}

/// Whether this exit status says that borg failed: 2 to 99 are its errors, 100 to 127 its warnings, and from
/// 128 on a signal ended it.
fn is_failure(exit: Exit) -> bool {
    !matches!(exit, Exit::Code(0 | 1 | 100..=127))
}

/// What a failure of borg is about.
enum Cause {
    Missing,
    Exists,
    WrongPassphrase,
    NoPassphrase,
    NoKey,
    Locked,
    Full,
    Unreachable,
    Moved,
    Unfinished,
    Refused,
    Cache,
    Damage,
}

/// The failure of a command, if it failed. Warnings are not failures.
pub(super) fn fault(
    repository: &str,
    command: impl FnOnce() -> String,
    exit: Exit,
    journal: &Journal,
) -> Option<EngineError> {
    if journal.errors.is_empty() && !is_failure(exit) {
        return journal
            .unreadable_line
            .clone()
            .map(|what| EngineError::Output { engine: "borg", what });
    }
    let repository = repository.to_owned();
    let detail = journal.detail();
    let id = journal.leading().and_then(|error| error.id.as_deref());
    if !journal.is_no_space() && id == Some("LockFailed") && detail.contains(READ_ONLY) {
        return Some(EngineError::ReadOnly { repository });
    }
    // The class decides; the status stands in where borg named none.
    let cause = match (id, exit) {
        _ if journal.is_no_space() => Some(Cause::Full),
        (Some(id), _) => cause_of_class(id),
        (None, Exit::Code(code)) => cause_of_status(code),
        (None, Exit::Signal(_)) => None,
    };
    Some(match cause {
        Some(Cause::Missing) => EngineError::RepositoryMissing { repository },
        Some(Cause::Exists) => EngineError::RepositoryExists { repository },
        Some(Cause::WrongPassphrase) => EngineError::WrongPassphrase { repository },
        Some(Cause::NoPassphrase) => EngineError::Secret {
            what: format!("the repository {repository} needs one and none is configured"),
        },
        Some(Cause::NoKey) => EngineError::KeyMissing {
            repository,
            remedy: "set key-file, or import the exported key with `borg key import`",
        },
        Some(Cause::Locked) => EngineError::Locked { repository, detail },
        Some(Cause::Full) => EngineError::Full { repository, detail },
        Some(Cause::Unreachable) => EngineError::Unreachable { repository, detail },
        Some(Cause::Moved) => EngineError::Moved { repository, detail },
        Some(Cause::Unfinished) => EngineError::Unfinished { repository, detail },
        Some(Cause::Refused) => EngineError::Refused { engine: "borg", repository, detail },
        Some(Cause::Cache) => EngineError::CacheDamaged { engine: "borg", detail },
        Some(Cause::Damage) => EngineError::Damaged { repository, detail },
        None => EngineError::Failed { command: command(), exit: exit.to_string(), detail },
    })
}

/// What an error of this class is about, where a remedy of its own belongs to it.
fn cause_of_class(id: &str) -> Option<Cause> {
    Some(match id {
        "Repository.DoesNotExist" | "Repository.InvalidRepository" => Cause::Missing,
        "Repository.AlreadyExists" => Cause::Exists,
        "PassphraseWrong" | "PasswordRetriesExceeded" => Cause::WrongPassphrase,
        "NoPassphraseFailure" => Cause::NoPassphrase,
        "KeyfileNotFoundError"
        | "KeyfileInvalidError"
        | "KeyfileMismatchError"
        | "RepoKeyNotFoundError" => Cause::NoKey,
        "LockTimeout" | "LockError" | "LockErrorT" | "LockFailed" => Cause::Locked,
        "Repository.InsufficientFreeSpaceError" | "Repository.StorageQuotaExceeded" => Cause::Full,
        "ConnectionClosed" | "ConnectionClosedWithHint" | "ConnectionBrokenWithHint" => {
            Cause::Unreachable
        }
        "Cache.RepositoryAccessAborted" => Cause::Moved,
        "NoManifestError" => Cause::Unfinished,
        "Cache.CacheInitAbortedError"
        | "Cache.EncryptionMethodMismatch"
        | "Cache.RepositoryIDNotUnique"
        | "Cache.RepositoryReplay" => Cause::Refused,
        // Of borg's own files, only those of its caches are guarded so: it makes its index of a repository anew.
        "FileIntegrityError" => Cause::Cache,
        id if is_damage(id) => Cause::Damage,
        _ => return None,
    })
}

/// The same for an exit status; the numbers are those of borg 1.4's documentation.
fn cause_of_status(code: i32) -> Option<Cause> {
    Some(match code {
        13 | 15 => Cause::Missing,
        10 => Cause::Exists,
        52 | 53 => Cause::WrongPassphrase,
        50 => Cause::NoPassphrase,
        40 | 41 | 42 | 44 => Cause::NoKey,
        70..=73 => Cause::Locked,
        14 | 20 => Cause::Full,
        80 | 81 | 87 => Cause::Unreachable,
        62 => Cause::Moved,
        26 => Cause::Unfinished,
        60 | 61 | 63 | 64 => Cause::Refused,
        91 => Cause::Cache,
        12 | 17 | 90 | 92 | 95..=99 => Cause::Damage,
        _ => return None,
    })
}

/// Whether an error of this class means that stored data is not what it was.
fn is_damage(id: &str) -> bool {
    // The classes about a missing or wrong authentication tag are kinds of IntegrityError.
    id.ends_with("IntegrityError")
        || id.contains("TAM")
        || matches!(
            id,
            "DecompressionError" | "Repository.CheckNeeded" | "Repository.ObjectNotFound"
        )
}

/// What a warning of a backup means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The file changed or vanished while it was read.
    Changed,
    /// It is not there.
    Absent,
    /// It could not be read.
    Unreadable,
    /// Something else, which somebody should read.
    Odd,
    /// It says nothing about the copy: borg's cache, a lock that was waited for, a remote side's greeting.
    Aside,
    /// What the first backup of every series says.
    Usual,
}

fn meaning(message: &Message) -> Meaning {
    let text = message.text.as_str();
    match (message.id.as_deref(), message.logger.as_str()) {
        (Some("FileChangedWarning" | "BackupRaceConditionError"), _) => Meaning::Changed,
        (Some("BackupFileNotFoundError"), _) => Meaning::Absent,
        (Some("IncludePatternNeverMatchedWarning"), _) => Meaning::Unreadable,
        (Some(id), _) if id.starts_with("Backup") => Meaning::Unreadable,
        _ if text.starts_with("Remote: ") => Meaning::Aside,
        // Each series has a files cache of its own, which is not there before the first backup.
        (_, "borg.cache")
            if text.starts_with("Continuing without files cache")
                || text.starts_with("The files cache can't be read. [[Errno 2]") =>
        {
            Meaning::Usual
        }
        (_, "borg.cache" | "borg.locking") => Meaning::Aside,
        // borg 1.2 names no classes. Only its archiver speaks of the files that it reads.
        // A path stands before its words, and may read like them.
        (_, "borg.archiver")
            if text.ends_with(": file changed while we backed it up")
                || text.ends_with(" changed (race condition), skipping file") =>
        {
            Meaning::Changed
        }
        (_, "borg.archiver") => match errno(text) {
            Some(NOT_FOUND) => Meaning::Absent,
            Some(_) => Meaning::Unreadable,
            None => Meaning::Odd,
        },
        _ => Meaning::Odd,
    }
}

/// Whether borg shows this path as that text; what is not UTF-8 it shows as `?`, or as it is.
pub(super) fn shown_as(path: &Path, text: &str) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    if std::str::from_utf8(bytes).is_ok() {
        return text.as_bytes() == bytes;
    }
    let questioned: String = bytes
        .utf8_chunks()
        .map(|chunk| format!("{}{}", chunk.valid(), "?".repeat(chunk.invalid().len())))
        .collect();
    text == questioned || text == String::from_utf8_lossy(bytes)
}

/// The warnings of one backup, read one by one; memory does not grow with their number.
pub(super) struct BackupWarnings<'a> {
    /// The paths that were asked for.
    roots: &'a [PathBuf],
    /// Roots that could not be read, and whether they are absent.
    failed_roots: BTreeMap<&'a Path, bool>,
    /// Files that changed or vanished.
    pub(super) changed: u64,
    /// What could not be read; at most [`KEPT`].
    pub(super) unreadable: Vec<String>,
    /// How many could not be read.
    pub(super) unreadable_count: u64,
    /// What else was said; at most [`KEPT`].
    pub(super) warnings: Vec<String>,
    /// Whether one of them concerns the copy.
    odd: bool,
    /// What said that the repository is full.
    full: Option<String>,
}

impl<'a> BackupWarnings<'a> {
    pub(super) fn new(roots: &'a [PathBuf]) -> Self {
        Self {
            roots,
            failed_roots: BTreeMap::new(),
            changed: 0,
            unreadable: Vec::new(),
            unreadable_count: 0,
            warnings: Vec::new(),
            odd: false,
            full: None,
        }
    }

    /// The failure that these warnings are, if the disk below the repository is full: reading a source
    /// never says so.
    pub(super) fn failure(&self, repository: &str) -> Option<EngineError> {
        let detail = self.full.clone()?;
        Some(EngineError::Full { repository: repository.to_owned(), detail })
    }

    /// Takes one warning.
    pub(super) fn take(&mut self, message: &Message) {
        if message.is_no_space() {
            self.full.get_or_insert_with(|| message.text.clone());
            return;
        }
        let (long, short) = path_of(&message.text);
        let mut root = self.roots.iter().find(|root| shown_as(root, short));
        if root.is_none() {
            root = self.roots.iter().find(|root| shown_as(root, long));
        }
        match (meaning(message), root) {
            (Meaning::Changed, _) | (Meaning::Absent, None) => self.changed += 1,
            (Meaning::Absent, Some(root)) => {
                self.failed_roots.insert(root, true);
                self.cannot_read(format!("{}: does not exist", root.shown()));
            }
            (Meaning::Unreadable, root) => {
                if let Some(root) = root {
                    self.failed_roots.entry(root).or_insert(false);
                }
                self.cannot_read(message.text.clone());
            }
            (Meaning::Odd, _) => {
                self.odd = true;
                self.also(message.text.clone());
            }
            (Meaning::Aside, _) => self.also(message.text.clone()),
            (Meaning::Usual, _) => {}
        }
    }

    fn cannot_read(&mut self, what: String) {
        self.unreadable_count += 1;
        if self.unreadable.len() < KEPT {
            self.unreadable.push(shown::text(&what));
        }
    }

    fn also(&mut self, text: String) {
        if self.warnings.len() < KEPT {
            self.warnings.push(shown::text(&text));
        }
    }

    /// Whether no root could be read at all, given the number of files in the archive.
    pub(super) fn nothing_was_read(&self, files: u64) -> bool {
        !self.roots.is_empty()
            && self.failed_roots.len() == self.roots.len()
            && (files == 0 || self.failed_roots.values().all(|absent| *absent))
    }

    /// How the backup ended. A warning status that no message explains is taken for the worst it can be.
    pub(super) fn outcome(&mut self, exit: Exit) -> Outcome {
        let silent = self.changed == 0 && self.unreadable_count == 0 && !self.odd;
        if silent && exit != Exit::Code(0) {
            self.also(format!("borg ended with {exit} and did not say why"));
            return Outcome::Incomplete;
        }
        if self.unreadable_count > 0 {
            Outcome::Incomplete
        } else if self.odd {
            Outcome::Warning
        } else {
            Outcome::Ok
        }
    }
}

/// What a warning of a restore means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RestoreWarning {
    /// Stored data is damaged.
    Damage,
    /// A file or a named path was not restored, or not as it was stored.
    NotRestored,
    /// An attribute was not set, or the like.
    Minor,
}

/// Classifies a warning of a restore.
pub(super) fn restore_warning(message: &Message) -> RestoreWarning {
    let text = message.text.as_str();
    // A path stands before these words, and may read like them.
    let end = |words: &str| text.rsplit_once(words).map(|(_, end)| end);
    let figures = |end: &str| end.chars().all(|c| c.is_ascii_digit() || ", chunksize".contains(c));
    if end(": File has damaged (all-zero) chunks. ").is_some_and(|end| !end.contains(':'))
        || end(": Size inconsistency detected: size ").is_some_and(figures)
    {
        return RestoreWarning::Damage;
    }
    if text.starts_with("Include pattern ") && text.ends_with(" never matched.") {
        return RestoreWarning::NotRestored;
    }
    let Some(number) = errno(text) else {
        let about_a_file = message.id.as_deref().is_some_and(|id| id.starts_with("Backup"));
        return if about_a_file { RestoreWarning::NotRestored } else { RestoreWarning::Minor };
    };
    let at = |what: &str| path_of(text).0.ends_with(what);
    let only_attributes =
        at(": attrs") || (at(": truncate_and_attrs") && NO_SUCH_ATTRIBUTE.contains(&number));
    if only_attributes { RestoreWarning::Minor } else { RestoreWarning::NotRestored }
}
