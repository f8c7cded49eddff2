//! What writes and reads copies: borg and restic behind one trait.
//!
//! An engine turns a request into commands for the host, classifies what the program said by its message
//! ids (never by an exit status alone, see `facts` in each engine's own file), and reports. It decides no
//! policy: what to keep, when to check and whether a run was good belong to the layers above. That a copy
//! exists is not believed because [`Engine::backup`] returned, but because [`Engine::list`] shows it.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::host::{ActError, CommandSpec, Confinement, Host, Tool};
use crate::model::bytes;
use crate::model::copy::{Copy, Series};
use crate::model::event::Progress;
use crate::model::job::Settings;
use crate::model::names::{MachineId, RunId};
use crate::model::needs::Needs;
use crate::model::outcome::Outcome;
use crate::model::target::{ReadData, Target};
use crate::model::undo::ChildProcess;
use crate::tools::Tree;

pub mod borg;
mod error;
mod kinds;
mod needs;
pub mod restic;
#[cfg(test)]
pub(crate) mod scripted;
pub mod secret;

pub use error::EngineError;
pub use kinds::{Engines, engine, engines};

/// What every engine call gets from the run.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The machine.
    pub host: &'a dyn Host,
    /// The settings; engines use the directories and the host name.
    pub settings: &'a Settings,
    /// Where children put temporary files (`TMPDIR`); the engine's own default when absent.
    pub temporary: Option<&'a std::path::Path>,
    /// How long the engine waits for its own lock.
    pub lock_wait: Duration,
    /// The run whose ledger knows of the locks that the engine takes, which bear its name; `None` where no ledger does.
    pub run: Option<&'a RunId>,
}

/// What a ledger knows of the lock that an engine of its run may have left in a repository.
///
/// A lock is ours only by the name it bears, which holds the run's id: another container or machine may have our
/// host name, and its process our process's number. It is released only when the process that the lock names is
/// proven dead: no process of that number runs, or one that is another by start time or boot than any that the
/// run has started.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The name that locks of the run bear; `None` when nothing tells them from others'.
    pub owner: Option<&'a str>,
    /// Every process that the run has started.
    pub children: &'a [ChildProcess],
}

impl Claim<'_> {
    /// Whether the process of this number that a lock of the run names is proven dead.
    ///
    /// # Errors
    /// When the table of processes cannot be read.
    pub fn is_dead(&self, host: &dyn Host, pid: i32) -> Result<bool, ActError> {
        let Some(found) = host.process(pid)? else { return Ok(true) };
        let earlier_boot = self.children.iter().all(|child| child.boot_id != found.boot_id);
        if earlier_boot {
            return Ok(!self.children.is_empty());
        }
        // Of a process that the ledger does not name (an engine's own child) nothing is known.
        let mut same_number = self.children.iter().filter(|child| child.pid == pid).peekable();
        Ok(same_number.peek().is_some() && !same_number.any(|child| child.is_same(&found)))
    }
}

/// What to back up, and as what.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The series the copy belongs to.
    pub series: Series,
    /// The run that makes it.
    pub run: RunId,
    /// The machine that makes it, for the copy to carry; see [`MachineId`].
    pub machine: Option<MachineId>,
    /// The moment the copy stands for; part of a borg archive's name.
    pub time: DateTime<Utc>,
    /// The data.
    pub input: Input,
}

/// Where the data comes from.
#[derive(Debug, Clone)]
pub enum Input {
    /// Files and directories, read by the engine itself.
    Tree {
        /// What is read.
        tree: Tree,
        /// What the copy must hold: these, and what lies in them and is named by the job as well.
        expected: Vec<Expected>,
    },
    /// The standard output of a command, stored as one file. If the command fails, no copy may result.
    Stream {
        /// The command.
        producer: Box<CommandSpec>,
        /// The file's name in the copy.
        file_name: String,
    },
}

/// A path that a copy must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The path.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// What a look into a new copy found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The whole id of the copy that was looked into.
    pub id: String,
    /// What of that which was expected it does not hold.
    pub absent: Vec<PathBuf>,
}

/// What an engine said about a backup it made.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// [`Outcome::Ok`], [`Outcome::Warning`] or [`Outcome::Incomplete`]; a failure is an [`EngineError`].
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
    /// looked into, see [`Engine::look_into`].
    pub absent: Option<Vec<PathBuf>>,
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

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The copy.
    pub copy: Copy,
    /// Paths inside the copy, absolute as they were; empty means everything.
    pub paths: Vec<PathBuf>,
    /// Directories above those paths that the copy holds: laid out with the owner and mode that they have there.
    pub above: Vec<PathBuf>,
    /// The directory below which the original paths are laid out, as the engine sees it.
    pub to: PathBuf,
    /// Owners by name, not by number.
    pub owners_by_name: bool,
    /// Where alone the engine may write.
    pub confinement: Option<Confinement>,
    /// Write nothing.
    pub dry_run: bool,
}

impl RestoreRequest {
    /// A request for all of a copy, with owners by number, by an engine that is not kept from anything.
    pub fn new(copy: Copy, to: PathBuf) -> Self {
        Self {
            copy,
            paths: Vec::new(),
            above: Vec::new(),
            to,
            owners_by_name: false,
            confinement: None,
            dry_run: false,
        }
    }

    /// Where the machine finds what the engine lays out for this path of the copy.
    pub(crate) fn place_of(&self, path: &std::path::Path) -> PathBuf {
        let seen: PathBuf =
            self.to.join(path.strip_prefix("/").unwrap_or(path)).components().collect();
        self.confinement.as_ref().map_or_else(|| seen.clone(), |confined| confined.outside(&seen))
    }

    /// The confinement, with what the engine writes besides.
    pub(crate) fn confined_to(&self, writable: &[Option<PathBuf>]) -> Option<Confinement> {
        let mut confinement = self.confinement.clone()?;
        confinement.writable.extend(writable.iter().flatten().cloned());
        Some(confinement)
    }

    /// A failure that is one of the place which is written to: where the engine said so of a file (`said`), or
    /// there is no space left there and the engine did not say whose it lacked.
    pub(crate) fn judged(&self, host: &dyn Host, error: EngineError, said: bool) -> EngineError {
        let (EngineError::Full { detail, .. } | EngineError::Failed { detail, .. }) = &error else {
            return error;
        };
        let is_full = matches!(error, EngineError::Full { .. });
        let to = self.place_of(std::path::Path::new("/"));
        let is_exhausted = || host.free_space(&to).is_ok_and(|free| free < EXHAUSTED);
        match said || (is_full && is_exhausted()) {
            true => EngineError::DestinationFull { detail: detail.clone(), to },
            false => error,
        }
    }
}

/// With less than this, in bytes, a file system is taken for full by whom somebody told that one is.
const EXHAUSTED: u64 = 1 << 20;

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
    /// Nothing was read, so nothing was found either: a dry run only noted it.
    pub is_predicted: bool,
}

impl CheckReport {
    /// What was found in what was read.
    pub fn found(damage: Vec<String>, extent: String) -> Self {
        Self { damage, extent, is_predicted: false }
    }

    /// That it was only noted.
    pub fn predicted() -> Self {
        Self { damage: Vec::new(), extent: "nothing (dry run)".into(), is_predicted: true }
    }
}

/// What a compaction gave back, as far as it is known: an engine that did its work may still have given nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compacted {
    /// So much, in the engine's own words and rounding.
    Freed(String),
    /// Nothing: the repository only takes in.
    AppendOnly,
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
}

/// One difference between two copies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The path.
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

/// Takes progress as it comes.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress);

/// One repository, spoken to through the program that made it.
pub trait Engine: Send + Sync {
    /// The target it serves.
    fn target(&self) -> &Target;

    /// Its program on this machine.
    fn program(&self) -> Tool;

    /// Whether nobody else may be at the repository while a copy is made.
    fn is_written_alone(&self) -> bool {
        false
    }

    /// Directories that it writes to while it reads a source, besides the cache: where a capture covers one, it must
    /// see the live one.
    fn live_places(&self, settings: &Settings) -> Vec<PathBuf> {
        let _ = settings;
        self.target().local.iter().cloned().collect()
    }

    /// Whether a check can read a share of the data.
    fn reads_shares(&self) -> bool {
        true
    }

    /// What [`Engine::mount`] calls the source of its mounts.
    fn mount_source(&self) -> &'static str;

    /// What it needs of the machine: to reach the repository, to open it, and for its own program.
    fn needs(&self) -> Needs {
        needs::of_target(self.target())
    }

    /// Creates the repository. Refuses one that exists.
    ///
    /// # Errors
    /// [`EngineError::RepositoryExists`] and the general ones.
    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError>;

    /// Looks whether the repository is there and the passphrase opens it. Changes nothing.
    ///
    /// # Errors
    /// What stands in the way.
    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError>;

    /// The id of the repository that was listed last, where a listing tells it; [`Engine::probe`] asks for it
    /// otherwise.
    fn listed_repository(&self) -> Option<String> {
        None
    }

    /// Has the engine take the repository for the one it knows, although it is at another place now. What an engine
    /// that remembers no places does: nothing.
    ///
    /// # Errors
    /// When the repository cannot be opened.
    fn accept_place(&self, cx: Context<'_>) -> Result<(), EngineError> {
        let _ = cx;
        Ok(())
    }

    /// Lists every copy in the repository, other people's and unfinished ones included
    /// (see [`Engine::unfinished`]).
    ///
    /// # Errors
    /// When the listing is not complete: a line that cannot be read is an error, never left out.
    fn list(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError>;

    /// Fills in which machines the copies say made them, where [`Engine::list`] does not tell. It costs another
    /// look into every copy, so it is for who asks.
    ///
    /// # Errors
    /// When the engine could not carry it out.
    fn read_machines(&self, _cx: Context<'_>, _copies: &mut [Copy]) -> Result<(), EngineError> {
        Ok(())
    }

    /// Makes a copy.
    ///
    /// # Errors
    /// When no copy was made, or none that may be trusted.
    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError>;

    /// The name or id under which [`Engine::backup`] will store this request, where the engine lets us
    /// choose it (borg).
    fn name_for(&self, request: &BackupRequest) -> Option<String>;

    /// Whether a listed copy is a half-made one of a run that was cut off (a borg checkpoint), and the name
    /// that the finished one would have had.
    fn unfinished(&self, copy: &Copy) -> Option<String>;

    /// Deletes copies by exact id. That they are gone is for the caller to see in a listing.
    ///
    /// # Errors
    /// When the engine could not carry it out.
    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError>;

    /// Gives back the space that deletions left.
    ///
    /// # Errors
    /// When the engine could not carry it out.
    fn compact(&self, cx: Context<'_>, progress: OnProgress<'_>) -> Result<Compacted, EngineError>;

    /// Checks the whole repository.
    ///
    /// # Errors
    /// When the check could not be carried out: not the same as damage, which is in the report.
    fn check(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError>;

    /// Reads one whole copy back, as a restore would, and throws it away.
    ///
    /// # Errors
    /// When it could not be tried: not the same as damage, which is in the report.
    fn verify(&self, cx: Context<'_>, copy: &Copy) -> Result<CheckReport, EngineError>;

    /// Restores.
    ///
    /// # Errors
    /// When something was not restored.
    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        progress: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError>;

    /// The paths of which a copy was made, where the repository says it. `None`: the copy lists them and what is
    /// below them, and nothing above them.
    ///
    /// # Errors
    /// When the repository cannot be asked.
    fn sources(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<Vec<PathBuf>>, EngineError>;

    /// Writes the content of one file of a copy to our own standard output.
    ///
    /// # Errors
    /// When it was not written whole.
    fn stream(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        path: &std::path::Path,
    ) -> Result<(), EngineError>;

    /// The command that serves a copy as a file system at a directory, in the foreground until stopped.
    ///
    /// # Errors
    /// When the passphrase cannot be had.
    fn mount(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        at: &std::path::Path,
    ) -> Result<CommandSpec, EngineError>;

    /// Hands every entry of a copy to `each`, in the engine's order; nothing is collected.
    ///
    /// # Errors
    /// When the listing is not complete.
    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError>;

    /// Looks for expected paths in a copy, named by its id or, where the engine says no more of a new one, the
    /// beginning of it. `None`: this engine says what is missing while it stores.
    ///
    /// # Errors
    /// When the copy cannot be looked into.
    fn look_into(
        &self,
        _cx: Context<'_>,
        _id: &str,
        _expected: &[Expected],
    ) -> Result<Option<Looked>, EngineError> {
        Ok(None)
    }

    /// Hands every difference between two copies to `each`.
    ///
    /// # Errors
    /// When the comparison is not complete.
    fn diff(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError>;

    /// Marks a copy, as [`Engine::list`] gave it, in the repository as never to be pruned, or takes the mark
    /// away. Answers with the copy's id after that, which is another one with borg (the mark is in the name)
    /// and with restic (it is a tag, and tags are part of a snapshot's identity).
    ///
    /// # Errors
    /// When the engine could not carry it out.
    fn set_pin(&self, cx: Context<'_>, copy: &Copy, pinned: bool) -> Result<String, EngineError>;

    /// Copies these copies, as the other one lists them, from a repository of the same engine into this one.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where the engine cannot, and the general ones.
    fn copy_from(
        &self,
        cx: Context<'_>,
        source: &dyn Engine,
        copies: &[&Copy],
        progress: OnProgress<'_>,
    ) -> Result<(), EngineError>;

    /// The name that the locks of the context's run bear, and no others; `None` when nothing tells them from
    /// others'. It is known before the lock is taken, for the ledger.
    fn lock_owner(&self, cx: Context<'_>) -> Option<String>;

    /// Releases the locks that a run left and whose processes are proven dead, and nobody else's. They are gone
    /// when this succeeds: it has looked.
    ///
    /// # Errors
    /// When the engine could not carry it out, or not without taking somebody else's lock with it.
    fn release_dead_lock(&self, cx: Context<'_>, claim: Claim<'_>) -> Result<(), EngineError>;
}
