//! borg 1.2 and 1.4 as an [`Engine`].
//!
//! An archive's name carries its series, time and run, so a listing alone says whose copy it is. borg writes
//! an archive even when every source was missing; such an archive is deleted again, by its exact name. A
//! stream whose producer fails leaves none, since borg is stopped before it sees the end of its input.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Deserialize;

use super::needs::of_target;
use super::{
    BackupReport, BackupRequest, Change, CheckReport, Claim, Compacted, Context, Engine,
    EngineError, Entry, Initialised, OnProgress, Probe, RestoreReport, RestoreRequest, secret,
    tell_read_only,
};
use crate::host::{CommandSpec, Completed, Stream, Tool};
use crate::model::copy::Copy;
use crate::model::event::Progress;
use crate::model::job::Settings;
use crate::model::names::RunId;
use crate::model::needs::{Needs, Network};
use crate::model::secret::Secret;
use crate::model::target::{BorgOptions, ReadData, Target};
use crate::tools::borg::log::freed_space;
use crate::tools::borg::log::{Line, Message};
use crate::tools::borg::output::{Listing, parse_listing, parse_machines, parse_version};
use crate::tools::borg::{
    MOUNT_SOURCE, PROGRAM, Reading, Repository, cache_directory, copies_of, name, state_directory,
};

use classify::{Journal, fault};

mod backup;
mod classify;
mod lock;
mod read;

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

/// Takes each line of standard output; the error says what could not be read.
type OnLine<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

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

    fn passphrase(&self, cx: Context<'_>) -> Result<Option<&Secret>, EngineError> {
        if self.passphrase.get().is_none() {
            let resolve = |source| secret::resolve(cx.host, source);
            let resolved = self.target.secret.as_ref().map(resolve).transpose()?;
            if resolved.as_ref().is_some_and(|secret| std::str::from_utf8(secret.reveal()).is_err())
            {
                let what = "it is not UTF-8, and borg takes no other passphrase from us".into();
                return Err(EngineError::Secret { what });
            }
            if let Some(key) = &self.borg.key_file {
                secret::check_private(cx.host, key)?;
            }
            // Another thread may have been first; both read the same.
            let _ = self.passphrase.set(resolved);
        }
        Ok(self.passphrase.get().and_then(Option::as_ref))
    }

    /// The repository with its passphrase, ready to build commands.
    fn repository<'a>(&'a self, cx: Context<'a>) -> Result<Repository<'a>, EngineError> {
        let path = &self.target.repository;
        if path.contains(['{', '}']) || path.contains("::") {
            return Err(EngineError::Unsupported {
                engine: "borg".into(),
                what: format!("{path:?} holds braces or \"::\", which borg reads as its own signs"),
            });
        }
        let repository = Repository {
            target: &self.target,
            borg: &self.borg,
            settings: cx.settings,
            passphrase: self.passphrase(cx)?,
            temporary: cx.temporary,
            lock_wait: cx.lock_wait,
            run: cx.run,
            reading: Reading::default(),
        };
        if cx.is_read_only(&self.target) {
            self.relax(&EngineError::ReadOnly { repository: path.clone() });
        }
        let (unlocked, moved) =
            (self.unlocked.load(Ordering::Relaxed), self.moved.load(Ordering::Relaxed));
        Ok(Repository { reading: Reading { unlocked, moved }, ..repository })
    }

    /// Runs a command of which nobody watches the lines.
    fn ask(&self, cx: Context<'_>, spec: &CommandSpec) -> Result<Completed, EngineError> {
        self.run(cx, spec, &mut |_| {}, &mut |_| {})
    }

    /// Whether reading may be tried again without what stood in its way; a person is told.
    fn relax(&self, error: &EngineError) -> bool {
        let name = &self.target.name;
        let repository = &self.target.repository;
        if matches!(error, EngineError::ReadOnly { .. })
            && !self.unlocked.swap(true, Ordering::Relaxed)
        {
            tell_read_only(&self.target, repository);
            return true;
        }
        if matches!(error, EngineError::Moved { .. }) && !self.moved.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "target {name}: borg remembers the repository {repository} at another place; its copies are read all the same, and nothing is stored there until `stillpoint init --moved {name}` confirms the place"
            );
            return true;
        }
        false
    }

    /// Runs a command; an error of borg is an error here, warnings go to `on_warning`.
    fn run(
        &self,
        cx: Context<'_>,
        spec: &CommandSpec,
        on_warning: &mut dyn FnMut(&Message),
        progress: OnProgress<'_>,
    ) -> Result<Completed, EngineError> {
        let mut journal = Journal::default();
        let completed = cx.host.run(spec, &mut |stream, line| {
            if stream == Stream::Err {
                hand_on(journal.take(line), on_warning, progress);
            }
        })?;
        self.judge(cx, spec, &completed, &journal)?;
        Ok(completed)
    }

    /// Runs a command that answers line by line.
    fn run_lines(
        &self,
        cx: Context<'_>,
        spec: &CommandSpec,
        on_line: OnLine<'_>,
    ) -> Result<(), EngineError> {
        let mut journal = Journal::default();
        let mut broken = None;
        let completed = cx.host.run(spec, &mut |stream, line| match stream {
            Stream::Err => {
                journal.take(line);
            }
            Stream::Out | Stream::ProducerErr if line.is_empty() || broken.is_some() => {}
            Stream::Out | Stream::ProducerErr => broken = on_line(line).err(),
        })?;
        self.judge(cx, spec, &completed, &journal)?;
        match broken {
            Some(what) => Err(EngineError::Output { engine: "borg", what }),
            None => Ok(()),
        }
    }

    fn judge(
        &self,
        cx: Context<'_>,
        spec: &CommandSpec,
        completed: &Completed,
        journal: &Journal,
    ) -> Result<(), EngineError> {
        let fault = fault(&self.target.repository, || spec.display(), completed.exit, journal);
        fault.map_or(Ok(()), |error| Err(self.looked_at(cx, error)))
    }

    /// Whether the repository's own configuration says that nothing is ever removed; borg then ends well and gives
    /// nothing back. Of a repository elsewhere it is not known.
    fn is_append_only(&self, cx: Context<'_>) -> bool {
        let config = self.target.local.as_deref().map(|path| cx.host.read(&path.join("config")));
        let Some(Ok(config)) = config else { return false };
        String::from_utf8_lossy(&config).lines().any(|line| {
            let words = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            words == Some(("append_only", "1"))
        })
    }

    /// The failure, as a look at the repository itself has it, where it is on this machine.
    fn looked_at(&self, cx: Context<'_>, error: EngineError) -> EngineError {
        let Some(path) = self.target.local.as_deref() else { return error };
        let there = |part: &str| cx.host.look(&path.join(part)).ok().flatten();
        match error {
            EngineError::Locked { repository, .. } if cx.is_read_only(&self.target) => {
                EngineError::ReadOnly { repository }
            }
            // What `init` left without an end holds no segment of any data.
            EngineError::Unfinished { repository, detail }
                if there("data").is_some_and(|data| !data.empty) =>
            {
                EngineError::Damaged { repository, detail }
            }
            // Whatever borg made of files that are not its own.
            _ if there("keys").is_some()
                && there("snapshots").is_some()
                && there("README").is_none() =>
            {
                let repository = self.target.repository.clone();
                EngineError::OtherEngine { repository, wanted: "borg", found: "restic" }
            }
            error => error,
        }
    }

    /// Looks at the repository under another host id, by which borg takes away the locks that bear it and whose
    /// processes are no more.
    fn look_as(&self, cx: Context<'_>, owner: &str) -> Result<(), EngineError> {
        let spec = self.repository(cx)?.list(true).env("BORG_HOST_ID", owner);
        self.ask(cx, &spec).map(drop)
    }

    fn listing(&self, cx: Context<'_>, only_newest: bool) -> Result<Listing, EngineError> {
        let list = || -> Result<Completed, EngineError> {
            let spec = self.repository(cx)?.list(only_newest);
            self.ask(cx, &spec)
        };
        let completed = loop {
            match list() {
                Err(error) if self.relax(&error) => {}
                listed => break listed?,
            }
        };
        let listing = parse_listing(&completed.stdout)
            .map_err(|what| EngineError::Output { engine: "borg", what })?;
        let id = listing.repository_id.clone();
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        Ok(listing)
    }
}

/// Gives a line to whom it concerns.
fn hand_on(line: Option<Line>, on_warning: &mut dyn FnMut(&Message), progress: OnProgress<'_>) {
    match line {
        Some(Line::Message(message)) => on_warning(&message),
        Some(Line::Archiving { bytes, files, path }) => progress(Progress {
            bytes_done: Some(bytes),
            bytes_total: None,
            files_done: Some(files),
            current: Some(path),
        }),
        Some(Line::Working { operation, current, total, message }) => {
            // Only extraction counts bytes; the other verbs count segments, objects or archives.
            let bytes = operation == "extract";
            progress(Progress {
                bytes_done: current.filter(|_| bytes),
                bytes_total: total.filter(|total| bytes && *total > 0),
                files_done: None,
                current: Some(message),
            });
        }
        // Of interest to a backup alone, which takes them before.
        Some(Line::Item { .. } | Line::Other | Line::Text(_)) | None => {}
    }
}

/// A predicted change of the list, as the command builders state it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Predicted {
    Add(String),
    Gone(String),
}

/// A listed archive as a copy. A checkpoint has the run that left it and no series, so that nothing takes
/// it for a copy of the series. Each answers to the name that it has with its pin, and to that without.
fn copy(archive: &str, time: chrono::DateTime<chrono::Utc>) -> Copy {
    let unpinned = name::unpinned_name(archive);
    let ours = name::parse_archive_name(unpinned.unwrap_or(archive));
    let left_by: Option<RunId> =
        name::finished_name(archive).and_then(name::parse_archive_name).map(|(_, _, run)| run);
    let (series, time, run) = match ours {
        Some((series, time, run)) => (Some(series), time, Some(run)),
        None => (None, time, left_by),
    };
    Copy {
        id: archive.to_owned(),
        series,
        run,
        time,
        pinned: unpinned.is_some(),
        original: unpinned.map(str::to_owned),
        aliases: match unpinned {
            Some(_) => Vec::new(),
            None => vec![name::pinned_name(archive)],
        },
        ..Copy::default()
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

    fn mount_source(&self) -> Option<&'static str> {
        Some(MOUNT_SOURCE)
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
        let listing = self.listing(cx, false)?;
        let mut copies: Vec<Copy> =
            listing.archives.iter().map(|archive| copy(&archive.name, archive.time)).collect();
        for value in cx.host.predicted(&copies_of(&self.target.repository)) {
            let predicted = serde_json::from_slice(&value).map_err(|error| {
                EngineError::Output { engine: "borg", what: format!("a prediction: {error}") }
            })?;
            match predicted {
                Predicted::Add(name) => copies.push(copy(&name, cx.host.now())),
                Predicted::Gone(name) => copies.retain(|copy| copy.id != name),
            }
        }
        Ok(copies)
    }

    fn read_machines(&self, cx: Context<'_>, copies: &mut [Copy]) -> Result<(), EngineError> {
        let spec = self.repository(cx)?.list_comments();
        let completed = self.ask(cx, &spec)?;
        let broken = |what| EngineError::Output { engine: "borg", what };
        let made_by = parse_machines(&completed.stdout).map_err(broken)?;
        for copy in copies {
            copy.machine = made_by.get(&copy.id).cloned();
        }
        Ok(())
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
        let spec = self.repository(cx)?.compact();
        let mut journal = Journal::default();
        let mut freed = None;
        let completed = cx.host.run(&spec, &mut |stream, line| {
            if stream == Stream::Err {
                freed = freed.take().or_else(|| freed_space(line));
                hand_on(journal.take(line), &mut |_| {}, progress);
            }
        })?;
        self.judge(cx, &spec, &completed, &journal)?;
        Ok(match freed {
            _ if completed.is_predicted => Compacted::Predicted,
            Some(freed) => Compacted::Freed(freed),
            None if self.is_append_only(cx) => Compacted::AppendOnly,
            None => Compacted::Unknown,
        })
    }

    fn check(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        let spec = self.repository(cx)?.check(read_data == ReadData::All);
        // borg's check always reads every segment and its checksums; only decrypting can be left out.
        let extent = match read_data {
            ReadData::None => "structure and checksums".to_owned(),
            ReadData::Percent(share) => format!(
                "structure and checksums (borg cannot decrypt a share of the data, so not the {share}% asked for)"
            ),
            ReadData::All => "structure and all data".to_owned(),
        };
        self.examine(cx, &spec, extent, progress)
    }

    fn verify(&self, cx: Context<'_>, copy: &Copy) -> Result<CheckReport, EngineError> {
        let spec = self.repository(cx)?.verify(&copy.id);
        let extent = format!("all data of {}", copy.id);
        let mut report = self.examine(cx, &spec, extent, &mut |_| {})?;
        if report.damage.is_empty() && !report.is_predicted {
            report.damage = self.links_without_a_file(cx, copy)?;
        }
        Ok(report)
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
