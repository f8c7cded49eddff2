//! restic 0.14 to 0.19 as an [`Engine`].
//!
//! A snapshot carries its series and run in tags, so a listing alone says whose copy it is. What differs
//! between versions is in `tools::restic`; here an answer becomes a report or an error. Three things that
//! restic calls success are not: a source that is not there (before 0.19), `ls` of a snapshot that is not
//! there (0.14), and a comparison in which a directory could not be read (all). Success of `forget`, `copy`
//! and `backup` is for the caller to see in a listing.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::needs::of_target;
use super::{
    BackupReport, BackupRequest, Change, CheckReport, Claim, Compacted, ContentsCheck, Context,
    Engine, EngineError, Entry, Expected, Initialised, OnProgress, Probe, RestoreReport,
    RestoreRequest, tell_read_only,
};
use crate::host::{CommandSpec, Tool};
use crate::model::copy::Copy;
use crate::model::job::Settings;
use crate::model::needs::Needs;
use crate::model::target::{ReadData, ResticOptions, Target};
use crate::tools::restic::message;
use crate::tools::restic::{
    Access, MOUNT_SOURCE, OLDEST, PROGRAM, Repository, Version, cache_directory, command, tags,
};

mod backup;
mod browse;
mod check;
mod list;
mod lock;
mod restore;
mod session;
mod transfer;

use session::{IDS_AT_ONCE, Session, broken, credentials, exact, unsupported};

/// A restic repository.
pub struct ResticEngine {
    target: Target,
    restic: ResticOptions,
    source: Option<Target>,
    // Asked for once per process: a password command may be slow or count how often it is asked, and
    // restic takes its time to start.
    version: OnceLock<Version>,
    repository: OnceLock<Repository>,
    // That the repository cannot be written to was told.
    told: AtomicBool,
}

impl ResticEngine {
    /// The engine for a target, with what restic alone understands of it. `copy_source` is the target that its
    /// `copy-from` names; `init` takes over its chunker parameters.
    pub fn new(
        target: &Target,
        options: &ResticOptions,
        copy_source: Option<&Target>,
    ) -> ResticEngine {
        ResticEngine {
            target: target.clone(),
            restic: options.clone(),
            source: copy_source.cloned(),
            version: OnceLock::new(),
            repository: OnceLock::new(),
            told: AtomicBool::new(false),
        }
    }

    fn version(&self, cx: Context<'_>) -> Result<Version, EngineError> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let spec = command::version(&self.program());
        let completed = cx.host.run(&spec, &mut |_, _| {})?;
        let text = String::from_utf8_lossy(&completed.stdout);
        let version = Version::parse(&text).filter(|_| completed.success()).ok_or_else(|| {
            broken(format!("expected `restic X.Y.Z …` from `{}`, found {text:?}", spec.display()))
        })?;
        if version < OLDEST {
            return Err(unsupported(version, format!("it is older than {OLDEST}")));
        }
        // Another thread may have been first; both asked the same program.
        let _ = self.version.set(version);
        Ok(version)
    }

    /// This repository, open to commands.
    fn open<'a>(&'a self, cx: Context<'a>) -> Result<Session<'a>, EngineError> {
        let version = self.version(cx)?;
        if self.repository.get().is_none() {
            let repository = credentials(cx, version, &self.target)?;
            let _ = self.repository.set(repository);
        }
        let Some(repository) = self.repository.get() else {
            return Err(broken("lost the credentials".into()));
        };
        let access = Access {
            program: self.program(),
            version,
            repository: repository.clone(),
            cache: cache_directory(cx.settings),
            temporary: cx.temporary.map(Path::to_owned),
            lock_wait: cx.lock_wait,
            stall_limit: self.target.stall_timeout,
            compression: self.restic.compression.clone(),
            upload_limit_kib: self.target.upload_limit_kib,
            lock_owner: self.lock_owner(cx),
            unlocked: cx.is_read_only(&self.target),
        };
        if access.unlocked && !self.told.swap(true, Ordering::Relaxed) {
            tell_read_only(&self.target, &access.repository.shown());
        }
        let local = self.target.local.as_deref();
        Ok(Session { cx, access, source: None, local })
    }
}

impl Engine for ResticEngine {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> Tool {
        PROGRAM.or(self.target.program.as_ref())
    }

    fn own_directories(&self, settings: &Settings) -> Vec<PathBuf> {
        vec![cache_directory(settings)]
    }

    fn takes_locks(&self) -> bool {
        true
    }

    fn mount_source(&self) -> Option<&'static str> {
        Some(MOUNT_SOURCE)
    }

    fn needs(&self) -> Needs {
        of_target(&self.target).and(Needs {
            reads: self.restic.environment_file.clone().into_iter().collect(),
            // rclone stores renewed tokens wherever its configuration is.
            foreign_programs: self.target.repository.starts_with("rclone:"),
            ..Needs::default()
        })
    }

    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError> {
        let session = self.open(cx)?;
        let open = |source| credentials(cx, session.access.version, source);
        let source = self.source.as_ref().map(open).transpose()?;
        if transfer::init(session, source)?.is_predicted {
            return Ok(Initialised { repository_id: None, key_export: None });
        }
        // Looking is both the proof and, on 0.14, the only way to the whole id. restic keeps its keys in the
        // repository: there is nothing to export.
        let probe = self.probe(cx)?;
        Ok(Initialised { repository_id: probe.repository_id, key_export: None })
    }

    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError> {
        let session = self.open(cx)?;
        let completed = session.run(&command::cat_config(&session.access))?;
        let config: message::RepositoryConfig = serde_json::from_slice(&completed.stdout)
            .map_err(|error| broken(format!("a configuration that cannot be read: {error}")))?;
        Ok(Probe {
            version: session.access.version.to_string(),
            repository_id: Some(config.id),
            encryption: None,
        })
    }

    fn list(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        list::list(&self.open(cx)?)
    }

    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        backup::backup(&self.open(cx)?, request, progress)
    }

    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError> {
        for id in ids {
            exact(id)?;
        }
        let session = self.open(cx)?;
        for ids in ids.chunks(IDS_AT_ONCE) {
            let mut spec = command::forget(&session.access, ids);
            spec.prediction.facts =
                ids.iter().map(|id| list::Prediction::Gone(id.clone()).fact(&session)).collect();
            session.run(&spec)?;
        }
        Ok(())
    }

    fn compact(&self, cx: Context<'_>, progress: OnProgress<'_>) -> Result<Compacted, EngineError> {
        let session = self.open(cx)?;
        let mut freed = None;
        let completed = session.run_text(&command::prune(&session.access), &mut |line| {
            freed = line.current.as_deref().and_then(message::pruned).or(freed.take());
            progress(line);
        })?;
        if completed.is_predicted {
            return Ok(Compacted::Predicted);
        }
        Ok(freed.map_or(Compacted::Unknown, Compacted::Freed))
    }

    fn check(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        check::check(&self.open(cx)?, read_data, progress)
    }

    fn verify(&self, cx: Context<'_>, copy: &Copy) -> Result<CheckReport, EngineError> {
        check::verify(&self.open(cx)?, copy)
    }

    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        progress: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        restore::restore(&self.open(cx)?, request, progress)
    }

    fn sources(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<Vec<PathBuf>>, EngineError> {
        restore::sources(&self.open(cx)?, &copy.id).map(Some)
    }

    fn stream(&self, cx: Context<'_>, copy: &Copy, path: &Path) -> Result<(), EngineError> {
        restore::stream(&self.open(cx)?, &copy.id, path)
    }

    /// The copy is then at `at/SHORT`, with the first eight digits of its id; there may be other
    /// directories beside it when the copy is not one of ours.
    fn mount(&self, cx: Context<'_>, copy: &Copy, at: &Path) -> Result<CommandSpec, EngineError> {
        let session = self.open(cx)?;
        // What was adopted is marked with another series, if with any.
        let marked = copy.series.as_ref().filter(|_| !copy.adopted);
        let host = marked.map(|series| series.host.as_str());
        let tags = match (marked, &copy.run) {
            (Some(series), Some(run)) => tags::of(series, run),
            _ => Vec::new(),
        };
        Ok(command::mount(&session.access, host, &tags, at))
    }

    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        browse::contents(&self.open(cx)?, &copy.id, each)
    }

    fn find_absent(
        &self,
        cx: Context<'_>,
        id: &str,
        expected: &[Expected],
    ) -> Result<Option<ContentsCheck>, EngineError> {
        browse::find_absent(&self.open(cx)?, id, expected).map(Some)
    }

    fn diff(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError> {
        browse::diff(&self.open(cx)?, &older.id, &newer.id, each)
    }

    fn set_pin(&self, cx: Context<'_>, copy: &Copy, pinned: bool) -> Result<String, EngineError> {
        transfer::set_pin(&self.open(cx)?, copy, pinned)
    }

    fn copy_from(
        &self,
        cx: Context<'_>,
        source: &dyn Engine,
        copies: &[&Copy],
        progress: OnProgress<'_>,
    ) -> Result<(), EngineError> {
        transfer::copy_from(self.open(cx)?, &self.target.name, source, copies, progress)
    }

    fn lock_owner(&self, cx: Context<'_>) -> Option<String> {
        let run = cx.run.filter(|_| cx.host.gives_host_names())?;
        Some(lock::owner(&cx.settings.host, run))
    }

    /// Needed after a clean stop too: a restic that is told to stop in the first 200 ms of its lock, in which
    /// it looks for other locks, leaves it behind.
    fn release_dead_lock(&self, cx: Context<'_>, claim: Claim<'_>) -> Result<(), EngineError> {
        lock::release_dead(&self.open(cx)?, claim)
    }
}

#[cfg(test)]
mod tests;
