//! A target, resolved: where copies go and by which engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keep::KeepPolicy;
use super::names::TargetName;

/// Where copies go, by which engine, and what happens to them there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The key of `[targets.NAME]`.
    pub name: TargetName,
    /// The engine and what only it understands.
    pub engine: EngineConfig,
    /// Retention; `None` keeps everything.
    pub keep: Option<KeepPolicy>,
    /// Regular checks; `None` means only on request.
    pub check: Option<CheckPolicy>,
    /// How often space that deletions left is given back (`borg compact`, `restic prune`).
    /// `None`: after each run that deleted something.
    pub compact_every: Option<Duration>,
    /// No verb ever deletes, prunes or compacts here.
    pub append_only: bool,
}

impl Target {
    /// The repository as the engine is told it.
    pub fn repository(&self) -> &str {
        match &self.engine {
            EngineConfig::Borg(borg) => &borg.repository,
            EngineConfig::Restic(restic) => &restic.repository,
        }
    }

    /// The directory of a repository on this machine.
    pub fn local_repository(&self) -> Option<&Path> {
        let path = match &self.engine {
            // Both take a path with or without their scheme for it.
            EngineConfig::Borg(borg) => {
                borg.repository.strip_prefix("file://").unwrap_or(&borg.repository)
            }
            EngineConfig::Restic(restic) => {
                restic.repository.strip_prefix("local:").unwrap_or(&restic.repository)
            }
        };
        path.starts_with('/').then(|| Path::new(path))
    }

    /// A directory that must be a mount point before anything is written.
    pub fn require_mount(&self) -> Option<&PathBuf> {
        match &self.engine {
            EngineConfig::Borg(borg) => borg.require_mount.as_ref(),
            EngineConfig::Restic(restic) => restic.require_mount.as_ref(),
        }
    }

    /// Where the passphrase comes from.
    pub fn secret(&self) -> Option<&SecretSource> {
        match &self.engine {
            EngineConfig::Borg(borg) => borg.passphrase.as_ref(),
            EngineConfig::Restic(restic) => restic.password.as_ref(),
        }
    }

    /// The target from which this one is filled by `restic copy`, if it is not backed up to directly.
    pub fn copy_from(&self) -> Option<&TargetName> {
        match &self.engine {
            EngineConfig::Borg(_) => None,
            EngineConfig::Restic(restic) => restic.copy_from.as_ref(),
        }
    }

    /// `borg` or `restic`.
    pub fn engine_name(&self) -> &'static str {
        match &self.engine {
            EngineConfig::Borg(_) => "borg",
            EngineConfig::Restic(_) => "restic",
        }
    }
}

/// The engine of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineConfig {
    /// `[targets.NAME.borg]`.
    Borg(BorgTarget),
    /// `[targets.NAME.restic]`.
    Restic(ResticTarget),
}

/// `[targets.NAME.borg]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BorgTarget {
    /// An absolute path or `ssh://user@host:port/path`.
    pub repository: String,
    /// Where the passphrase comes from; `None` only with `encryption = "none"` or authenticated modes without one.
    pub passphrase: Option<SecretSource>,
    /// `BORG_KEY_FILE`, for keyfile repositories.
    pub key_file: Option<PathBuf>,
    /// The mode for `init`, as `borg init --encryption` names it.
    pub encryption: String,
    /// `--compression`.
    pub compression: Option<String>,
    /// `--files-cache`.
    pub files_cache: Option<String>,
    /// A directory that must be a mount point.
    pub require_mount: Option<PathBuf>,
    /// The borg program on this machine, instead of the one on the fixed path.
    pub program: Option<PathBuf>,
    /// The borg program on the other side (`BORG_REMOTE_PATH`).
    pub remote_program: Option<String>,
    /// ssh and its options (`BORG_RSH`); each element must hold no white space.
    pub ssh_command: Vec<String>,
    /// `--upload-ratelimit`, KiB/s.
    pub upload_limit_kib: Option<u32>,
    /// How long nothing may move before the engine is stopped.
    pub stall_timeout: Duration,
}

/// `[targets.NAME.restic]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResticTarget {
    /// Any restic repository, handed through untouched.
    pub repository: String,
    /// Where the password comes from.
    pub password: Option<SecretSource>,
    /// `KEY=value` lines for the backend (`AWS_SECRET_ACCESS_KEY` and the like).
    pub environment_file: Option<PathBuf>,
    /// Filled by `restic copy` from this target.
    pub copy_from: Option<TargetName>,
    /// `--compression` (restic 0.14 and later).
    pub compression: Option<String>,
    /// A directory that must be a mount point.
    pub require_mount: Option<PathBuf>,
    /// The restic program, instead of the one on the fixed path.
    pub program: Option<PathBuf>,
    /// `--limit-upload`, KiB/s.
    pub upload_limit_kib: Option<u32>,
    /// How long nothing may move before the engine is stopped.
    pub stall_timeout: Duration,
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
    /// Everything.
    All,
}

impl Eq for ReadData {}
