//! What engines are asked for: a copy of something, or something of a copy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::host::{CommandSpec, Confinement, Host, PrivateView};
use crate::model::copy::{Copy, Series};
use crate::model::names::{MachineId, RunId};
use crate::model::target::Server;
use crate::tools::Tree;

use super::error::EngineError;

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
    /// What is stored.
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
        /// The command whose standard output is stored.
        producer: Box<CommandSpec>,
        /// The file's name in the copy.
        file_name: String,
    },
    /// A snapshot of a btrfs subvolume, taken over as it is.
    Subvolume(Box<StillSubvolume>),
}

/// A snapshot of a btrfs subvolume, and the earlier ones of which a target may have a copy.
#[derive(Debug, Clone)]
pub struct StillSubvolume {
    /// The read-only snapshot.
    pub snapshot: Snapshot,
    /// Earlier snapshots of the same subvolume that are still there, the newest first.
    pub earlier: Vec<Snapshot>,
    /// The ids of the copies of it in the target that this machine made, as its own history says, which nobody else can
    /// write: what a target says of its copies may have been put there with a stolen key.
    pub ours: BTreeSet<String>,
    /// Where they all are.
    pub from: SentFrom,
}

/// Where snapshots are that are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentFrom {
    /// On this machine, where whoever sends them sees them so.
    Here(PrivateView),
    /// On another one, of which btrfs-progs are asked to send them.
    There(Server),
}

/// A read-only snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it is seen.
    pub path: PathBuf,
    /// Its UUID.
    pub uuid: String,
    /// The generation of its file system in which it was changed last: when it was made, or somebody has meddled with it.
    pub generation: u64,
}

impl Snapshot {
    /// Whether it is still what was sent as this. Somebody may have made it writable, changed it and made it read-only
    /// again.
    pub(crate) fn was_sent_as(&self, uuid: &str, generation: u64) -> bool {
        self.uuid == uuid && self.generation == generation
    }
}

/// A path that a copy must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The path as the engine sees it.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The copy that is restored from.
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
    /// Whether only what would be restored is told.
    pub dry_run: bool,
}

/// A copy that is to be restored as a subvolume.
#[derive(Debug)]
pub struct AsSubvolume<'a> {
    /// The copy.
    pub copy: &'a Copy,
    /// The directory of a btrfs in which it comes to lie, empty but for what was restored before.
    pub into: &'a Path,
    /// Its name there.
    pub name: &'a str,
    /// Where alone the engine may write: that directory, first of all.
    pub confinement: Option<Confinement>,
    /// Whether it is received as nothing that was ever sent: as long as it lies there, nobody takes it for a copy.
    pub nameless: bool,
    /// So many bytes stay free there, for what else is on that file system; `None`: it may take all.
    pub leave_free: Option<u64>,
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
    pub(crate) fn place_of(&self, path: &Path) -> PathBuf {
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
        let to = self.place_of(Path::new("/"));
        let is_exhausted = || host.free_space(&to).is_ok_and(|free| free < EXHAUSTED);
        match said || (is_full && is_exhausted()) {
            true => EngineError::DestinationFull { detail: detail.clone(), to },
            false => error,
        }
    }
}

/// With less than this, in bytes, a file system is taken for full by whom somebody told that one is.
const EXHAUSTED: u64 = 1 << 20;
