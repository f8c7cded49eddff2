//! What outlives the process and must be given back, as values that survive it.
//!
//! An [`Undo`] is written to the ledger and fsynced *before* the effect it undoes, so that a crash at any
//! point leaves a record. Undoing is idempotent: what is already gone counts as given back, and that is
//! decided by looking, never by an error text. Providers write intents through the [`Ledger`] trait; the
//! pipeline owns the file and hands each undo back to the code that knows how to carry it out.
//!
//! A path is bytes: one that is not UTF-8 is written by them ([`super::bytes::exact`]), and all others as ever.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bytes;
use super::names::{JobName, TargetName};

/// How to give back one thing. Adding a kind of effect to Stillpoint means adding a variant here, and a
/// line in every fault loop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// Remove a staging directory of a run, with what engines left in it.
    RemoveStaging {
        /// Where it is. The name holds the run id, but that is not what proves it ours: see [`Identity`].
        #[serde(with = "bytes::exact")]
        path: PathBuf,
    },
    /// Run a hook that a job promised, which may undo what another hook did.
    RunHook {
        /// Which hook it is. Ledgers of earlier versions, which promised no others, do not say it.
        #[serde(default)]
        promise: Promise,
        /// The job.
        job: JobName,
        /// The program and its arguments.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Option<Duration>,
    },
    /// Release the lock that an engine of this run may have left in a repository, if its process is
    /// proven dead. Never anybody else's lock.
    ReleaseEngineLock {
        /// The target whose repository it is.
        target: TargetName,
        /// The name that the lock bears, which no other machine, container or run gives to its own. Absent in
        /// ledgers of earlier versions, and where locks cannot be given a name: then no lock can be proven ours.
        #[serde(default)]
        owner: Option<String>,
    },
    /// Delete a read-only btrfs snapshot.
    RemoveSubvolume(SubvolumeSnapshot),
    /// Remove an LVM snapshot, after repairing what a killed `lvcreate` may have left of it.
    RemoveVolume(VolumeSnapshot),
    /// Make a file system writable again.
    RemountWritable {
        /// Where it is mounted.
        #[serde(with = "bytes::exact")]
        path: PathBuf,
        /// Its device: major, minor. Another one at the same place is not ours.
        device: (u32, u32),
        /// The boot in which it was made read-only; in a later one it is as that boot mounted it.
        boot_id: String,
    },
    /// Let the processes of a control group run on.
    Thaw {
        /// The group's directory.
        #[serde(with = "bytes::exact")]
        cgroup: PathBuf,
    },
    /// Unmount a copy that an engine served as a file system. Its end does not unmount it.
    Unmount(ServedMount),
}

/// A FUSE mount that an engine is about to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServedMount {
    /// Where, without links.
    #[serde(with = "bytes::exact")]
    pub path: PathBuf,
    /// What the engine calls the source of its mounts.
    pub source: String,
    /// The mounts that were there before, by their numbers: none of them is ours.
    pub before: Vec<u32>,
    /// The boot in which it was made; in a later one it is gone.
    pub boot_id: String,
}

/// A kind of hooks that run whatever happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// At the end of the job.
    #[default]
    Finally,
    /// As soon as the captures are made.
    Resume,
}

impl Promise {
    /// The hooks' key in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Promise::Finally => "finally",
            Promise::Resume => "resume",
        }
    }
}

/// A btrfs snapshot, known before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SubvolumeSnapshot {
    /// The UUID of the file system. Ledgers of earlier versions do not say it.
    #[serde(default)]
    pub file_system: Option<String>,
    /// A device of the file system, by which its top-level subvolume can be mounted.
    #[serde(with = "bytes::exact")]
    pub device: PathBuf,
    /// Where the file system was mounted: devices change their names over a reboot, this does not.
    #[serde(with = "bytes::exact")]
    pub mounted_at: PathBuf,
    /// The snapshot's name in the top-level subvolume; holds the run id.
    pub name: String,
    /// The UUID of the subvolume it is a snapshot of.
    pub origin: String,
}

/// An LVM snapshot, known before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VolumeSnapshot {
    /// Volume group.
    pub group: String,
    /// The group's UUID. Ledgers of earlier versions do not say it.
    #[serde(default)]
    pub group_uuid: Option<String>,
    /// The snapshot's name; holds the run id.
    pub name: String,
    /// The tag that is set by the same command that makes it.
    pub tag: String,
    /// The name of its origin.
    pub origin: String,
    /// The UUID of its origin.
    pub origin_uuid: String,
    /// In which pool it lies, if it is thin.
    pub thin: Option<ThinSnapshot>,
}

/// What a thin snapshot's pool was like just before it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ThinSnapshot {
    /// The pool's name.
    pub pool: String,
    /// The pool's UUID.
    pub pool_uuid: String,
    /// The device id that lvm2 gives the snapshot: the highest one in the pool, plus one.
    pub device_id: u64,
    /// The pool's transaction id before.
    pub transaction_id: u64,
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

/// Something a run acquired and has not given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// Its number in the ledger.
    pub entry: EntryId,
    /// How to give it back.
    pub undo: Undo,
    /// What proves it ours; absent when the crash came before it was recorded.
    pub identity: Option<Identity>,
}

impl Outstanding {
    /// The btrfs snapshot that it is, if it is one.
    pub fn snapshot(&self) -> Option<(&SubvolumeSnapshot, Option<&Identity>)> {
        match &self.undo {
            Undo::RemoveSubvolume(snapshot) => Some((snapshot, self.identity.as_ref())),
            Undo::RemoveStaging { .. }
            | Undo::RunHook { .. }
            | Undo::ReleaseEngineLock { .. }
            | Undo::RemoveVolume(_)
            | Undo::RemountWritable { .. }
            | Undo::Thaw { .. }
            | Undo::Unmount(_) => None,
        }
    }
}

/// The durable list of what a run has acquired and must give back.
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

    /// Records, in the same way, that things have been given back (or never came to be). Whatever would bring one of
    /// them back after a power cut must be out of the way by then.
    ///
    /// # Errors
    /// When the records cannot be made durable; recover will find the things gone and say so.
    fn settled_all(&self, entries: &[EntryId]) -> io::Result<()>;

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
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn paths_of_any_bytes_are_written_and_read_back() {
        let path = PathBuf::from(OsString::from_vec(b"/home/caf\xe9\n/x".to_vec()));
        let undos = [
            Undo::RemoveStaging { path: path.clone() },
            Undo::RemoveSubvolume(SubvolumeSnapshot {
                file_system: None,
                device: "/dev/sdb".into(),
                mounted_at: path.clone(),
                name: ".stillpoint.0a1b2c3d.0".into(),
                origin: "uuid".into(),
            }),
            Undo::RemountWritable { path: path.clone(), device: (8, 1), boot_id: "boot".into() },
            Undo::Thaw { cgroup: path.clone() },
            Undo::Unmount(ServedMount {
                path,
                source: "borgfs".into(),
                before: vec![31],
                boot_id: "boot".into(),
            }),
        ];
        for undo in undos {
            let written = serde_json::to_string(&undo).unwrap();
            assert_eq!(serde_json::from_str::<Undo>(&written).unwrap(), undo, "{written}");
        }
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let old = r#"{"remove-subvolume":{"device":"/dev/sdb","mounted-at":"/home","name":".stillpoint.0a1b2c3d.0","origin":"uuid"}}"#;
        let Undo::RemoveSubvolume(snapshot) = serde_json::from_str(old).unwrap() else {
            panic!("another kind")
        };
        assert_eq!((snapshot.file_system, snapshot.mounted_at), (None, PathBuf::from("/home")));
        let old = r#"{"remove-staging":{"path":"/var/cache/stillpoint/tmp/0a1b2c3d"}}"#;
        assert!(serde_json::from_str::<Undo>(old).is_ok());
    }
}
