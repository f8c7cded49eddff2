//! What outlives the process and must be released, as values that survive it.
//!
//! An [`Undo`] is written to the ledger and fsynced *before* the effect it undoes, so that a crash at any
//! point leaves a record. Undoing is idempotent: what is already gone counts as released, and that is
//! decided by looking, never by an error text. Intents are written through the [`Ledger`] trait; the
//! pipeline owns the file and hands each undo back to the room that knows how to carry it out.
//!
//! Not everything is released: a capture may be kept as the base of the next run ([`Ledger::promote`]), and then it is
//! the base before it that is released.
//!
//! A path is bytes: one that is not UTF-8 is written by them ([`super::bytes::exact`]), and all others as ever.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bytes;
use super::names::JobName;

mod capture;
mod engine;

pub use capture::{
    CaptureUndo, FarSnapshot, ReadOnlyMount, SubvolumeSnapshot, ThinSnapshot, VolumeSnapshot,
};
pub use engine::{EngineLock, EngineUndo, ServedMount};

/// How to release one thing, by the room that wrote it and knows how to carry it out: one more kind is a variant of
/// its room's, which the one `match` there must name. Rooms are told apart in `pipeline::undo` and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", from = "Written")]
pub enum Undo {
    /// A capture.
    Capture(CaptureUndo),
    /// What an engine leaves in the open.
    Engine(EngineUndo),
    /// A hook that is yet to run, which may undo what another hook did.
    Hook(PendingHook),
    /// A staging directory of a run.
    Staging(StagingDirectory),
    /// Delete a subvolume that waits to take another one's place.
    Waiting(WaitingSubvolume),
    /// Let the processes of a control group run on.
    Thaw(FrozenGroup),
}

/// An [`Undo`] as ledgers have it: by rooms, or, in format 1, by its kind alone.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Written {
    Capture(CaptureUndo),
    Engine(EngineUndo),
    #[serde(alias = "run-hook")]
    Hook(PendingHook),
    #[serde(alias = "remove-staging")]
    Staging(StagingDirectory),
    Waiting(WaitingSubvolume),
    Thaw(FrozenGroup),
    // Format 1 had these beside each other.
    RemoveSubvolume(SubvolumeSnapshot),
    RemoveVolume(VolumeSnapshot),
    RemountWritable(ReadOnlyMount),
    ReleaseEngineLock(EngineLock),
    Unmount(ServedMount),
}

impl From<Written> for Undo {
    fn from(written: Written) -> Self {
        match written {
            Written::Capture(undo) => undo.into(),
            Written::Engine(undo) => undo.into(),
            Written::Hook(hook) => hook.into(),
            Written::Staging(directory) => directory.into(),
            Written::Waiting(subvolume) => subvolume.into(),
            Written::Thaw(group) => group.into(),
            Written::RemoveSubvolume(snapshot) => CaptureUndo::from(snapshot).into(),
            Written::RemoveVolume(snapshot) => CaptureUndo::from(snapshot).into(),
            Written::RemountWritable(mount) => CaptureUndo::from(mount).into(),
            Written::ReleaseEngineLock(lock) => EngineUndo::from(lock).into(),
            Written::Unmount(mount) => EngineUndo::from(mount).into(),
        }
    }
}

impl From<CaptureUndo> for Undo {
    fn from(undo: CaptureUndo) -> Self {
        Undo::Capture(undo)
    }
}

impl From<EngineUndo> for Undo {
    fn from(undo: EngineUndo) -> Self {
        Undo::Engine(undo)
    }
}

impl From<PendingHook> for Undo {
    fn from(hook: PendingHook) -> Self {
        Undo::Hook(hook)
    }
}

impl From<StagingDirectory> for Undo {
    fn from(directory: StagingDirectory) -> Self {
        Undo::Staging(directory)
    }
}

impl From<WaitingSubvolume> for Undo {
    fn from(subvolume: WaitingSubvolume) -> Self {
        Undo::Waiting(subvolume)
    }
}

impl From<FrozenGroup> for Undo {
    fn from(group: FrozenGroup) -> Self {
        Undo::Thaw(group)
    }
}

/// A staging directory of a run, which is removed with what engines left in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StagingDirectory {
    /// Where it is. The name holds the run id, but that is not what proves it ours: see [`Identity`].
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// Whether btrfs subvolumes are made in it: a power cut would bring back all that was in them, also when they were
    /// moved away, so it is gone only when that is on the disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub subvolumes: bool,
    /// Where the file system is mounted that it is on: while nothing is mounted there, that it is not found does not mean
    /// that it is gone.
    #[serde(with = "bytes::exact", default = "root", skip_serializing_if = "is_root")]
    pub mounted_at: PathBuf,
}

impl StagingDirectory {
    /// One for files alone, which is always within reach.
    pub fn new(path: PathBuf) -> Self {
        StagingDirectory { path, subvolumes: false, mounted_at: root() }
    }
}

fn root() -> PathBuf {
    PathBuf::from("/")
}

fn is_root(path: &Path) -> bool {
    path == Path::new("/")
}

/// A subvolume that a restore puts beside the one whose place it is to take: both then change places in one step, so
/// that afterwards another one lies there, which is nobody's to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WaitingSubvolume {
    /// The UUID of the file system.
    pub file_system: String,
    /// A device of it.
    #[serde(with = "bytes::exact")]
    pub device: PathBuf,
    /// Where it waits, from the top-level subvolume on.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// Its UUID.
    pub uuid: String,
}

/// A control group whose processes are about to be frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FrozenGroup {
    /// The group's directory.
    #[serde(with = "bytes::exact")]
    pub cgroup: PathBuf,
}

/// A hook that runs whatever happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PendingHook {
    /// When. Ledgers of the first versions, which held no others than `finally`, do not say it.
    #[serde(default, alias = "promise")]
    pub kind: HookKind,
    /// The job that the hook belongs to.
    pub job: JobName,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// A kind of hooks that run whatever happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookKind {
    /// At the end of the job.
    #[default]
    Finally,
    /// As soon as the captures are made.
    Resume,
}

impl HookKind {
    /// The hooks' key in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            HookKind::Finally => "finally",
            HookKind::Resume => "resume",
        }
    }
}

/// What proves that an object is the one that was made: recorded after the effect, checked before the undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// A file or directory, by device and inode.
    Inode {
        /// `st_dev`.
        device: u64,
        /// `st_ino`.
        inode: u64,
    },
    /// A directory that may be there after a reboot still, which gives devices other numbers: by inode, and the moment at
    /// which it was made.
    Directory {
        /// `st_dev`, which counts where the file system knows no such moment.
        device: u64,
        /// `st_ino`.
        inode: u64,
        /// `stx_btime`, in nanoseconds since 1970.
        born: Option<u64>,
    },
    /// A btrfs subvolume, by UUID.
    Subvolume {
        /// As `btrfs subvolume show` prints it.
        uuid: String,
    },
    /// A logical volume, by UUID.
    LogicalVolume {
        /// As `lvs -o lv_uuid` prints it.
        uuid: String,
    },
    /// A mount, by its number and its device. The kernel gives both away again once it is unmounted.
    Mount {
        /// The first field of its line in mountinfo.
        id: u32,
        /// Major, minor.
        device: (u32, u32),
    },
}

impl Identity {
    /// Whether what was found in this very boot is what was made.
    pub fn is(&self, found: &Identity) -> bool {
        match (self, found) {
            (
                Identity::Directory { device, inode, .. },
                Identity::Inode { device: its_device, inode: its_inode },
            ) => (device, inode) == (its_device, its_inode),
            (made, found) => made == found,
        }
    }
}

/// A capture that is kept beyond its run, as the base of the next one: how it is released in the end, and what proves
/// it the one. No ledger holds it; whoever keeps it writes this down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kept {
    /// How it is released.
    pub undo: CaptureUndo,
    /// What it must be then.
    pub identity: Identity,
}

/// The number of one entry in a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId(pub u64);

/// A process that a run started, by what tells it from a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChildProcess {
    /// Its number, which is also its process group's.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks after boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// It must come to its own end, because killing it does harm: the tools of LVM and device-mapper.
    #[serde(default)]
    pub never_kill: bool,
    /// What it, and whatever it starts, has in its environment as [`CHILD_MARK`]: by this a process of its group
    /// is known when it is gone itself. Ledgers of earlier versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// The environment variable that holds a child's mark, a random text.
pub const CHILD_MARK: &str = "STILLPOINT_CHILD";

impl ChildProcess {
    /// Whether both are the same process.
    pub fn is_same(&self, other: &ChildProcess) -> bool {
        (self.pid, self.start_time, &self.boot_id) == (other.pid, other.start_time, &other.boot_id)
    }
}

/// Something a run acquired and has not released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// Its number in the ledger.
    pub entry: EntryId,
    /// How to release it.
    pub undo: Undo,
    /// What proves it ours; absent when the crash came before it was recorded.
    pub identity: Option<Identity>,
}

impl Outstanding {
    /// The capture that it is, if it is one, with what proves it ours.
    pub fn capture(&self) -> Option<(&CaptureUndo, Option<&Identity>)> {
        match &self.undo {
            Undo::Capture(undo) => Some((undo, self.identity.as_ref())),
            Undo::Engine(_)
            | Undo::Hook(_)
            | Undo::Staging(_)
            | Undo::Waiting(_)
            | Undo::Thaw(_) => None,
        }
    }
}

/// The durable list of what a run has acquired and must release.
pub trait Ledger: Send + Sync {
    /// Records, durably and with one wait for the disk, that the effects which these reverse are about to happen.
    /// Answers with the number of each, in the same order.
    ///
    /// # Errors
    /// When the records cannot be made durable; then none of the effects must happen.
    fn intend_all(&self, undos: &[Undo]) -> io::Result<Vec<EntryId>>;

    /// Records the identities of what was made, in the same way.
    ///
    /// # Errors
    /// When the records cannot be made durable. The intents stand, so nothing is lost.
    fn made_all(&self, made: &[(EntryId, Identity)]) -> io::Result<()>;

    /// Records, in the same way, that things have been released (or never came to be). Whatever would bring one of
    /// them back after a power cut must be out of the way by then.
    ///
    /// # Errors
    /// When the records cannot be made durable; recover will find the things gone and say so.
    fn settled_all(&self, entries: &[EntryId]) -> io::Result<()>;

    /// Records, durably and as one, that what an entry holds is kept on purpose beyond the run, and that what it replaces,
    /// of which no ledger had an entry, is about to be released. From then on the first is never released for this
    /// entry, and the others are until that is done. Answers with their numbers, in the same order.
    ///
    /// # Errors
    /// When the record cannot be made durable; then nothing of it holds, and nothing must be released.
    fn promote(&self, entry: EntryId, replaced: &[(Undo, Identity)]) -> io::Result<Vec<EntryId>>;

    /// [`Ledger::intend_all`] for one effect.
    ///
    /// # Errors
    /// When the record cannot be made durable; then the effect must not happen.
    fn intend(&self, undo: Undo) -> io::Result<EntryId> {
        let entries = self.intend_all(&[undo])?;
        entries.first().copied().ok_or_else(|| io::Error::other("the ledger gave it no number"))
    }

    /// [`Ledger::made_all`] for one thing.
    ///
    /// # Errors
    /// When the record cannot be made durable. The intent stands, so nothing is lost.
    fn made(&self, entry: EntryId, identity: Identity) -> io::Result<()> {
        self.made_all(&[(entry, identity)])
    }

    /// [`Ledger::settled_all`] for one thing.
    ///
    /// # Errors
    /// When the record cannot be made durable; recover will find it gone and say so.
    fn settled(&self, entry: EntryId) -> io::Result<()> {
        self.settled_all(&[entry])
    }

    /// Every process that the run has started, also those that have ended.
    ///
    /// # Errors
    /// When the record of them cannot be read.
    fn children(&self) -> io::Result<Vec<ChildProcess>>;
}

#[cfg(test)]
mod tests;
