//! Calling borg: what opens a repository, a command from its start to its judgement, and reading where borg would
//! refuse.

use std::sync::atomic::Ordering;

use super::BorgEngine;
use super::classify::{Journal, fault};
use crate::engine::{Context, EngineError, OnProgress, secret, tell_read_only};
use crate::host::{CommandSpec, Completed, Stream};
use crate::model::event::Progress;
use crate::model::secret::Secret;
use crate::tools::borg::log::{Line, Message};
use crate::tools::borg::{Reading, Repository};

/// Takes each line of standard output; the error says what could not be read.
type OnLine<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

impl BorgEngine {
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
    pub(super) fn repository<'a>(&'a self, cx: Context<'a>) -> Result<Repository<'a>, EngineError> {
        let path = &self.target.repository;
        if path.contains(['{', '}']) || path.contains("::") {
            let what =
                format!("{path:?} holds braces or \"::\", which borg reads as its own signs");
            return Err(EngineError::unsupported(&self.target, &what));
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
    pub(super) fn ask(
        &self,
        cx: Context<'_>,
        spec: &CommandSpec,
    ) -> Result<Completed, EngineError> {
        self.run(cx, spec, &mut |_| {}, &mut |_| {})
    }

    /// Whether reading may be tried again without what stood in its way; a person is told.
    pub(super) fn relax(&self, error: &EngineError) -> bool {
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
    pub(super) fn run(
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
    pub(super) fn run_lines(
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

    pub(super) fn judge(
        &self,
        cx: Context<'_>,
        spec: &CommandSpec,
        completed: &Completed,
        journal: &Journal,
    ) -> Result<(), EngineError> {
        let fault = fault(&self.target.repository, || spec.display(), completed.exit, journal);
        fault.map_or(Ok(()), |error| Err(self.refined(cx, error)))
    }

    /// The failure, as the files of the repository tell it apart, where it is on this machine.
    fn refined(&self, cx: Context<'_>, error: EngineError) -> EngineError {
        let Some(path) = self.target.local.as_deref() else { return error };
        let there = |part: &str| cx.host.path_state(&path.join(part)).ok().flatten();
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
}

/// Gives a line to whom it concerns.
pub(super) fn hand_on(
    line: Option<Line>,
    on_warning: &mut dyn FnMut(&Message),
    progress: OnProgress<'_>,
) {
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
