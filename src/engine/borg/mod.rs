//! borg 1.2 and 1.4 as an [`Engine`].
//!
//! An archive's name carries its series, time and run, so a listing alone says whose copy it is. borg writes
//! an archive even when every source was missing; such an archive is deleted again, by its exact name. A
//! stream whose producer fails leaves none, since borg is stopped before it sees the end of its input.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::needs::of_target;
use super::{
    BackupReport, BackupRequest, Change, CheckReport, Claim, Compacted, Context, Engine,
    EngineError, Entry, Initialised, OnProgress, Probe, RestoreReport, RestoreRequest,
};
use crate::host::{CommandSpec, Tool};
use crate::model::copy::Copy;
use crate::model::job::Settings;
use crate::model::needs::{Needs, Network};
use crate::model::secret::Secret;
use crate::model::target::{BorgOptions, ReadData, Target};
use crate::tools::borg::output::{fuse_missing, parse_version};
use crate::tools::borg::{MOUNT_SOURCE, PROGRAM, cache_directory, name, state_directory};
use crate::tools::fuse;

mod backup;
mod call;
mod classify;
mod list;
mod lock;
mod read;
mod upkeep;

/// A borg repository.
pub struct BorgEngine {
    target: Target,
    borg: BorgOptions,
    // Asked for once per process: a command may be slow, or count how often it is asked.
    passphrase: OnceLock<Option<Secret>>,
    // Every listing names the repository.
    listed: Mutex<Option<String>>,
    // What reading has to do without; told once.
    unlocked: AtomicBool,
    moved: AtomicBool,
}

impl BorgEngine {
    /// The engine for a target, with what borg alone understands of it.
    pub fn new(target: &Target, options: &BorgOptions) -> BorgEngine {
        BorgEngine {
            target: target.clone(),
            borg: options.clone(),
            passphrase: OnceLock::new(),
            listed: Mutex::default(),
            unlocked: AtomicBool::new(false),
            moved: AtomicBool::new(false),
        }
    }
}

impl Engine for BorgEngine {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> Tool {
        PROGRAM.or(self.target.program.as_ref())
    }

    fn own_directories(&self, settings: &Settings) -> Vec<PathBuf> {
        vec![cache_directory(settings), state_directory(settings)]
    }

    fn is_written_alone(&self) -> bool {
        true
    }

    fn live_places(&self, settings: &Settings) -> Vec<PathBuf> {
        // Only what borg writes there: history and the ledger belong into the copy as they were.
        let state = state_directory(settings);
        self.target.local.iter().cloned().chain([state]).collect()
    }

    /// borg reads all segments with their checksums in any case; only how long it reads can be bounded.
    fn reads_shares(&self) -> bool {
        false
    }

    fn takes_locks(&self) -> bool {
        true
    }

    fn mount_source(&self) -> Option<&'static str> {
        Some(MOUNT_SOURCE)
    }

    fn missing_for_mount(&self, said: &str) -> Option<&'static str> {
        fuse_missing(said).or_else(|| fuse::missing(said))
    }

    fn needs(&self) -> Needs {
        of_target(&self.target).and(Needs {
            reads: self.borg.key_file.clone().into_iter().collect(),
            // borg's host id comes from the network card. Without a socket to ask for it, it is random, and borg no
            // longer recognises its own stale locks.
            network: Network::Addresses,
            ..Needs::default()
        })
    }

    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError> {
        let repository = self.repository(cx)?;
        let made = self.ask(cx, &repository.init())?;
        if made.is_predicted {
            return Ok(Initialised { repository_id: None, key_export: None });
        }
        let id = self.listing(cx, true)?.repository_id;
        let key_export = if self.borg.encryption == "none" {
            None
        } else {
            let exported = self.ask(cx, &repository.export_key())?;
            let text = String::from_utf8(exported.stdout).ok();
            let key = text.filter(|text| text.starts_with("BORG_KEY ")).ok_or_else(|| {
                EngineError::Output { engine: "borg", what: "the exported key".into() }
            })?;
            Some(key)
        };
        Ok(Initialised { repository_id: Some(id), key_export })
    }

    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError> {
        let repository = self.repository(cx)?;
        let asked = self.ask(cx, &repository.version())?;
        let version = parse_version(&asked.stdout).ok_or_else(|| EngineError::Output {
            engine: "borg",
            what: format!("the version: {}", String::from_utf8_lossy(&asked.stdout)),
        })?;
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
        // borg 2 is another program with another command line; 1.1 lacks `compact`.
        if !matches!((numbers.next(), numbers.next()), (Some(Some(1)), Some(Some(minor))) if minor >= 2)
        {
            return Err(EngineError::Unsupported {
                engine: format!("borg {version}"),
                what: "borg 1.2 or 1.4 is needed".into(),
            });
        }
        let listing = self.listing(cx, true)?;
        // Good enough to read is not good enough for a run.
        let repository = || self.target.repository.clone();
        if self.moved.load(Ordering::Relaxed) {
            let detail = "borg remembers another place".into();
            return Err(EngineError::Moved { repository: repository(), detail });
        }
        if self.unlocked.load(Ordering::Relaxed) {
            return Err(EngineError::ReadOnly { repository: repository() });
        }
        Ok(Probe {
            version,
            repository_id: Some(listing.repository_id),
            encryption: listing.encryption,
        })
    }

    fn listed_repository(&self) -> Option<String> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn accept_place(&self, cx: Context<'_>) -> Result<(), EngineError> {
        let spec = self.repository(cx)?.accept_place();
        self.ask(cx, &spec).map(drop)
    }

    fn list(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        self.copies(cx)
    }

    fn read_machines(&self, cx: Context<'_>, copies: &mut [Copy]) -> Result<(), EngineError> {
        self.makers(cx, copies)
    }

    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        self.make(cx, request, progress)
    }

    fn name_for(&self, request: &BackupRequest) -> Option<String> {
        Some(name::archive_name(&request.series, request.time, &request.run))
    }

    fn unfinished(&self, copy: &Copy) -> Option<String> {
        name::finished_name(&copy.id).map(str::to_owned)
    }

    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError> {
        // Without a name, `borg delete` would mean the whole repository.
        if ids.is_empty() {
            return Ok(());
        }
        // A name that is not there any more is a warning, and what was wanted.
        let spec = self.repository(cx)?.delete(ids);
        self.ask(cx, &spec).map(drop)
    }

    fn compact(&self, cx: Context<'_>, progress: OnProgress<'_>) -> Result<Compacted, EngineError> {
        self.free_space(cx, progress)
    }

    fn check(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        self.check_all(cx, read_data, progress)
    }

    fn verify(&self, cx: Context<'_>, copy: &Copy) -> Result<CheckReport, EngineError> {
        self.read_back(cx, copy)
    }

    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        progress: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        self.extract(cx, request, progress)
    }

    fn stream(&self, cx: Context<'_>, copy: &Copy, path: &Path) -> Result<(), EngineError> {
        self.to_stdout(cx, copy, path)
    }

    fn mount(&self, cx: Context<'_>, copy: &Copy, at: &Path) -> Result<CommandSpec, EngineError> {
        Ok(self.repository(cx)?.mount(&copy.id, at))
    }

    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        self.entries(cx, copy, each)
    }

    fn diff(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError> {
        self.differences(cx, older, newer, each)
    }

    fn set_pin(&self, cx: Context<'_>, copy: &Copy, pinned: bool) -> Result<String, EngineError> {
        let name = if pinned {
            name::pinned_name(&copy.id)
        } else {
            name::unpinned_name(&copy.id).unwrap_or(&copy.id).to_owned()
        };
        if name != copy.id {
            let spec = self.repository(cx)?.rename(&copy.id, &name);
            self.ask(cx, &spec)?;
        }
        Ok(name)
    }

    fn lock_owner(&self, cx: Context<'_>) -> Option<String> {
        cx.run.map(|run| crate::tools::borg::lock::owner(&cx.settings.host, run))
    }

    fn release_dead_lock(&self, cx: Context<'_>, claim: Claim<'_>) -> Result<(), EngineError> {
        self.release_dead(cx, claim)
    }
}

#[cfg(test)]
mod tests;
