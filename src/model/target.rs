//! A target, resolved: where copies go and by which engine.

use std::path::PathBuf;
use std::time::Duration;

use super::keep::KeepPolicy;
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
    Btrfs,
}

impl EngineConfig {
    /// What restic alone understands; `None` when it is another engine's.
    pub fn restic(&self) -> Option<&ResticOptions> {
        match self {
            EngineConfig::Restic(options) => Some(options),
            EngineConfig::Borg(_) | EngineConfig::Btrfs => None,
        }
    }

    /// The key that chose it: `borg`, `restic` or `btrfs`.
    pub fn name(&self) -> &'static str {
        match self {
            EngineConfig::Borg(_) => "borg",
            EngineConfig::Restic(_) => "restic",
            EngineConfig::Btrfs => "btrfs",
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
