//! A target, resolved: where copies go and by which engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bytes;
use super::keep::{KeepPolicy, MinFree};
use super::names::TargetName;

/// Where copies go, by which engine, and what happens to them there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The key of `[targets.NAME]`.
    pub name: TargetName,
    /// The repository as the engine is told it.
    pub repository: String,
    /// The directory of a repository on this machine; `None` when it is elsewhere.
    pub local: Option<PathBuf>,
    /// Where the passphrase comes from; `None` only where the engine needs none.
    pub secret: Option<SecretSource>,
    /// A directory that must be a mount point before anything is written.
    pub require_mount: Option<PathBuf>,
    /// What a run makes of it while its disk is away.
    pub when_absent: WhenAbsent,
    /// The engine's program on this machine, instead of the one on the fixed path.
    pub program: Option<PathBuf>,
    /// The target from which this one is filled, if it is not backed up to directly.
    pub copy_from: Option<TargetName>,
    /// How much the engine may send, KiB per second.
    pub upload_limit_kib: Option<u32>,
    /// How long nothing may move before the engine is stopped.
    pub stall_timeout: Duration,
    /// The engine, and what it alone understands.
    pub engine: EngineConfig,
    /// Retention; `None` keeps everything.
    pub keep: Option<KeepPolicy>,
    /// Regular checks; `None` means only on request.
    pub check: Option<CheckPolicy>,
    /// How often space that deletions left is freed (`borg compact`, `restic prune`).
    /// `None`: after each run that deleted something.
    pub compact_every: Option<Duration>,
    /// No verb ever deletes, prunes or compacts here.
    pub append_only: bool,
}

/// The engine of a target, with what it alone understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineConfig {
    /// `[targets.NAME.borg]`.
    Borg(BorgOptions),
    /// `[targets.NAME.restic]`.
    Restic(ResticOptions),
    /// `[targets.NAME.btrfs]`.
    Btrfs(BtrfsOptions),
    /// `[targets.NAME.streams]`.
    Streams(StreamsOptions),
}

impl Target {
    /// A directory of subvolumes that is served to other machines, whose targets have names and policies.
    pub fn of_served(directory: &Path, stall_timeout: Duration) -> Target {
        Target {
            name: TargetName::of_served(),
            repository: directory.to_string_lossy().into_owned(),
            local: Some(directory.to_owned()),
            secret: None,
            require_mount: None,
            program: None,
            copy_from: None,
            upload_limit_kib: None,
            stall_timeout,
            engine: EngineConfig::Btrfs(BtrfsOptions::default()),
            keep: None,
            check: None,
            compact_every: None,
            append_only: false,
            when_absent: WhenAbsent::Fail,
        }
    }

    /// How much space must stay free where it is.
    pub fn min_free(&self) -> Option<MinFree> {
        self.keep.as_ref().and_then(|keep| keep.min_free)
    }

    /// So many bytes of a subvolume that is sent there make a part with which an interrupted transfer goes on; `None`: it
    /// begins again.
    pub fn part_size(&self) -> Option<u64> {
        match &self.engine {
            EngineConfig::Btrfs(options) => options.part_size,
            EngineConfig::Streams(options) => options.part_size,
            EngineConfig::Borg(_) | EngineConfig::Restic(_) => None,
        }
    }

    /// The machine on which btrfs-progs alone receive what is sent there, if it is such a target.
    pub fn bare_server(&self) -> Option<&Server> {
        match &self.engine {
            EngineConfig::Btrfs(options) => {
                let is_bare = |it: &&Server| matches!(it.side, RemoteSide::BtrfsProgs { .. });
                options.server.as_ref().filter(is_bare)
            }
            EngineConfig::Borg(_) | EngineConfig::Restic(_) | EngineConfig::Streams(_) => None,
        }
    }

    /// Whether another target takes turns with it at one place, as disks do that are carried away one after the other.
    pub fn takes_turns_with(&self, other: &Target) -> bool {
        self.name != other.name
            && self.local.is_some()
            && self.local == other.local
            && [self, other].iter().all(|target| target.when_absent == WhenAbsent::Skip)
    }
}

impl EngineConfig {
    /// Whether what is deleted frees its space by itself. Others share data between copies and free it when they are
    /// compacted, so that nobody can tell by a deletion what it is good for.
    pub fn frees_by_itself(&self) -> bool {
        match self {
            EngineConfig::Btrfs(_) | EngineConfig::Streams(_) => true,
            EngineConfig::Borg(_) | EngineConfig::Restic(_) => false,
        }
    }

    /// What restic alone understands; `None` when it is another engine's.
    pub fn restic(&self) -> Option<&ResticOptions> {
        match self {
            EngineConfig::Restic(options) => Some(options),
            EngineConfig::Borg(_) | EngineConfig::Btrfs(_) | EngineConfig::Streams(_) => None,
        }
    }

    /// The key that chose it: `borg`, `restic`, `btrfs` or `streams`.
    pub fn name(&self) -> &'static str {
        match self {
            EngineConfig::Borg(_) => "borg",
            EngineConfig::Restic(_) => "restic",
            EngineConfig::Btrfs(_) => "btrfs",
            EngineConfig::Streams(_) => "streams",
        }
    }
}

/// What `[targets.NAME.borg]` says that other engines do not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BorgOptions {
    /// `BORG_KEY_FILE`, for keyfile repositories.
    pub key_file: Option<PathBuf>,
    /// The mode for `init`, as `borg init --encryption` names it.
    pub encryption: String,
    /// `--compression`.
    pub compression: Option<String>,
    /// `--files-cache`.
    pub files_cache: Option<String>,
    /// The borg program on the other side (`BORG_REMOTE_PATH`).
    pub remote_program: Option<String>,
    /// ssh and its options (`BORG_RSH`); each element must hold no white space.
    pub ssh_command: Vec<String>,
}

/// What `[targets.NAME.restic]` says that other engines do not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResticOptions {
    /// `KEY=value` lines for the backend (`AWS_SECRET_ACCESS_KEY` and the like).
    pub environment_file: Option<PathBuf>,
    /// `--compression` (restic 0.14 and later).
    pub compression: Option<String>,
}

/// What a run makes of a target whose disk is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenAbsent {
    /// It fails.
    #[default]
    Fail,
    /// It goes on without it: how old its last copy is gets the alarm.
    Skip,
}

/// What `[targets.NAME.streams]` says that other engines do not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsOptions {
    /// What stores and reads objects; `None` where they are files of a directory, [`Target::local`].
    pub commands: Option<StoreCommands>,
    /// `KEY=value` lines for those commands.
    pub environment_file: Option<PathBuf>,
    /// The level at which zstd compresses; `None`: not at all.
    pub compression: Option<u8>,
    /// Those to whom age encrypts, a line each; `None`: nothing is encrypted.
    pub recipients_file: Option<PathBuf>,
    /// The key of one of them, which reading copies back takes.
    pub identity_file: Option<PathBuf>,
    /// How old the whole copy at the beginning of a chain may become before the next one is made.
    pub full_every: Duration,
    /// A directory of a btrfs, in which copies are received to be read.
    pub scratch: Option<PathBuf>,
    /// So many bytes of a stream are stored by themselves, and an interrupted transfer goes on behind them; `None`: it begins
    /// again.
    pub part_size: Option<u64>,
}

/// Programs with their arguments, in which `{name}` stands for the name of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCommands {
    /// Stores its standard input as an object, in the place of one of that name.
    pub put: Vec<String>,
    /// Writes an object to its standard output.
    pub get: Vec<String>,
    /// Writes the names of all objects to its standard output, a line each.
    pub list: Vec<String>,
    /// Deletes an object.
    pub delete: Vec<String>,
}

/// What `[targets.NAME.btrfs]` says that other engines do not understand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BtrfsOptions {
    /// The machine that takes the copies; `None`: this one.
    pub server: Option<Server>,
    /// What is compressed is taken over as it is, where both sides can.
    pub compressed_data: bool,
    /// So many bytes make a part with which an interrupted transfer goes on; `None`: it begins again.
    pub part_size: Option<u64>,
}

/// What another machine has that takes copies of this one, or whose subvolumes are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteSide {
    /// Stillpoint, which answers there.
    Stillpoint,
    /// btrfs-progs and the coreutils.
    BtrfsProgs {
        /// Whether they are run by sudo.
        sudo: bool,
    },
}

/// Another machine, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Server {
    /// `user@host`, or the host alone.
    pub login: String,
    /// Its port, if that is not the one ssh takes by itself.
    pub port: Option<u16>,
    /// The directory there.
    #[serde(with = "bytes::exact")]
    pub directory: PathBuf,
    /// ssh and its options; empty: ssh without any.
    pub ssh_command: Vec<String>,
    /// What is there.
    pub side: RemoteSide,
    /// Its program there: Stillpoint or btrfs.
    pub program: String,
}

/// Where a passphrase comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The content of a file, without its last line break.
    File(PathBuf),
    /// The standard output of a command (argv, no shell), without its last line break.
    Command(Vec<String>),
    /// A systemd credential: `$CREDENTIALS_DIRECTORY/NAME`, else `systemd-creds decrypt`.
    Credential(String),
}

/// `[targets.NAME.check]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPolicy {
    /// How long after the last check the next one is due.
    pub every: Duration,
    /// How much of the data is read back.
    pub read_data: ReadData,
}

/// How much stored data a check reads and verifies, beyond the structure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadData {
    /// The structure alone.
    None,
    /// A share in percent, above 0 and at most 100. borg cannot read a share: it bounds the time instead.
    Percent(f64),
    /// All data is read back.
    All,
}

impl Eq for ReadData {}

impl ReadData {
    /// The share of the data, in percent.
    pub fn percent(self) -> f64 {
        match self {
            ReadData::None => 0.0,
            ReadData::Percent(share) => share,
            ReadData::All => 100.0,
        }
    }
}
