//! Making an archive: of a tree, or of what a command prints.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::BorgEngine;
use super::call::hand_on;
use super::classify::{BackupWarnings, Journal, shown_as};
use crate::engine::{
    BackupReport, BackupRequest, Context, Engine, EngineError, Expected, Input, OnProgress,
};
use crate::host::{CommandSpec, Completed, Exit, Stream};
use crate::tools::borg::log::{Line, Message};
use crate::tools::borg::output::{Statistics, parse_created};
use crate::tools::borg::{Marks, name};

impl BorgEngine {
    /// Makes an archive; see [`Engine::backup`].
    pub(super) fn make(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let repository = self.repository(cx)?;
        let series = &request.series;
        let archive = name::archive_name(series, request.time, &request.run);
        let marks = Marks { series, run: &request.run, machine: request.machine.as_ref() };
        match &request.input {
            Input::Tree { tree, expected } => {
                let spec = repository
                    .create_tree(&marks, &archive, tree)
                    .map_err(|error| EngineError::unsupported(&self.target, &error.to_string()))?;
                self.make_of_tree(cx, archive, &spec, &tree.paths, expected, progress)
            }
            Input::Subvolume(_) => {
                Err(EngineError::unsupported(&self.target, "store a subvolume as it is"))
            }
            Input::Stream { producer, file_name } => {
                let spec = repository.create_stream(&marks, &archive, file_name);
                self.make_of_stream(cx, archive, producer, &spec, progress)
            }
        }
    }

    fn make_of_tree(
        &self,
        cx: Context<'_>,
        archive: String,
        spec: &CommandSpec,
        paths: &[PathBuf],
        expected: &[Expected],
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let mut read = BackupWarnings::new(paths);
        let mut stored = Stored::new(expected);
        let mut journal = Journal::default();
        let completed = cx.host.run(spec, &mut |stream, line| {
            if stream != Stream::Err {
                return;
            }
            match journal.take(line) {
                Some(Line::Item { status, path }) => stored.take(status, path),
                line => hand_on(line, &mut |warning| read.take(warning), progress),
            }
        });
        read.failure(&self.target.repository).map_or(Ok(()), Err)?;
        let completed = completed?;
        self.judge(cx, spec, &completed, &journal)?;
        let absent = if completed.is_predicted { Vec::new() } else { stored.absent() };
        self.report(cx, archive, &completed, read, absent)
    }

    fn make_of_stream(
        &self,
        cx: Context<'_>,
        archive: String,
        producer: &CommandSpec,
        spec: &CommandSpec,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let mut journal = Journal::default();
        let mut read = BackupWarnings::new(&[]);
        let before = std::slice::from_ref(producer);
        let chained = cx.host.chain(before, spec, &mut |stream, line| {
            if stream == Stream::Err {
                hand_on(journal.take(line), &mut |warning| read.take(warning), progress);
            }
        })?;
        read.failure(&self.target.repository).map_or(Ok(()), Err)?;
        // When borg died first, the producer only lost its reader: borg's own words come first then.
        let borg_died = journal.errors.iter().any(|error| !is_our_stop(error))
            || matches!(chained.last.exit, Exit::Code(2..=99));
        if let Some(produced) = chained.failed_before().filter(|_| !borg_died) {
            return Err(EngineError::Producer {
                command: producer.display(),
                exit: produced.exit.to_string(),
                stderr_tail: produced.last_lines(5),
            });
        }
        if chained.bytes == Some(0) && !borg_died {
            return Err(EngineError::EmptyStream { command: producer.display() });
        }
        self.judge(cx, spec, &chained.last, &journal)?;
        self.report(cx, archive, &chained.last, read, Vec::new())
    }

    /// Deletes the archive that borg made of nothing, and looks whether it is gone.
    fn discard_empty(&self, cx: Context<'_>, archive: &str) -> Result<(), EngineError> {
        self.delete(cx, &[archive.to_owned()])?;
        if self.listing(cx, false)?.archives.iter().any(|listed| listed.name == archive) {
            return Err(EngineError::Output {
                engine: "borg",
                what: format!("the archive {archive} is still listed after it was deleted"),
            });
        }
        Ok(())
    }

    fn report(
        &self,
        cx: Context<'_>,
        archive: String,
        completed: &Completed,
        mut read: BackupWarnings<'_>,
        absent: Vec<PathBuf>,
    ) -> Result<BackupReport, EngineError> {
        let Statistics { original_size, deduplicated_size, nfiles } =
            parse_created(&completed.stdout)
                .map_err(|what| EngineError::Output { engine: "borg", what })?;
        if read.nothing_was_read(nfiles) {
            let mut detail = read.unreadable.join("; ");
            if let Err(error) = self.discard_empty(cx, &archive) {
                detail = format!(
                    "{detail}; and the empty archive {archive} could not be deleted: {error}"
                );
            }
            return Err(EngineError::NoSource { detail });
        }
        let known = !completed.is_predicted;
        Ok(BackupReport {
            outcome: read.outcome(completed.exit),
            id: Some(archive),
            bytes_new: known.then_some(deduplicated_size),
            size: known.then_some(original_size),
            files: known.then_some(nfiles),
            files_changed: read.changed,
            unreadable: read.unreadable,
            unreadable_count: read.unreadable_count,
            warnings: read.warnings,
            absent: Some(absent),
        })
    }
}

/// What borg said of the paths that the archive must hold.
struct Stored<'a> {
    expected: &'a [Expected],
    /// Of these, the directories that were stored.
    directories: BTreeSet<usize>,
    /// What was left out and is, or is above, an expected path.
    left_out: Vec<String>,
}

impl<'a> Stored<'a> {
    fn new(expected: &'a [Expected]) -> Self {
        Self { expected, directories: BTreeSet::new(), left_out: Vec::new() }
    }

    fn take(&mut self, status: char, path: String) {
        if status == 'd' {
            let of = self.expected.iter().position(|one| shown_as(&one.path, &path));
            self.directories.extend(of);
        } else if status == 'x' && self.expected.iter().any(|one| is_at_or_above(&path, &one.path))
        {
            self.left_out.push(path);
        }
    }

    /// A directory is in the archive when borg says so; anything else when it did not say that it was left out (that
    /// it could not be read is a warning).
    fn absent(&self) -> Vec<PathBuf> {
        let is_absent = |(at, one): &(usize, &Expected)| match one.is_directory {
            true => !self.directories.contains(at),
            false => self.left_out.iter().any(|path| is_at_or_above(path, &one.path)),
        };
        let absent = self.expected.iter().enumerate().filter(is_absent);
        absent.map(|(_, one)| one.path.clone()).collect()
    }
}

/// Whether a path, as borg shows it, is this one or above it.
fn is_at_or_above(shown: &str, path: &Path) -> bool {
    path.ancestors().any(|part| shown_as(part, shown))
}

/// Whether this is what borg says when it is stopped.
fn is_our_stop(error: &Message) -> bool {
    error.id.as_deref() == Some("Signal.SIGTERM") || error.text.starts_with("Got Ctrl-C")
}
