//! Making a restic snapshot, and judging what restic said about it.
//!
//! restic's exit status tells "could not read a file" (3) from success, but neither tells a file that went
//! away from one that was refused, nor, before 0.19, knows that a whole source is missing. So each source is
//! looked at before, and each error line is read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::list::{Predicted, Prediction, predicted_id};
use super::session::{KEPT, Session, as_progress, broken, unsupported};
use crate::engine::{BackupReport, BackupRequest, EngineError, Input, OnProgress};
use crate::host::{CommandSpec, Completed, Exit, PrivateMount, Stream};
use crate::model::outcome::Outcome;
use crate::model::shown::{self, Show};
use crate::tools::restic::command::{self, Identity};
use crate::tools::restic::failure;
use crate::tools::restic::message::{self, BackupSummary, Line, Problem};
use crate::tools::restic::tags;

/// The exit status of a snapshot that lacks something.
const INCOMPLETE: i32 = 3;

pub(super) fn backup(
    session: &Session<'_>,
    request: &BackupRequest,
    progress: OnProgress<'_>,
) -> Result<BackupReport, EngineError> {
    let mut tags = tags::of(&request.series, &request.run);
    tags.extend(request.machine.as_ref().map(tags::of_machine));
    let identity = Identity { host: request.series.host.as_str(), tags: &tags, time: request.time };
    match &request.input {
        Input::Tree { tree, expected: _ } => {
            let mut journal = Journal::of_sources(session, &tree.paths, &tree.view.mounts)?;
            let mut spec = command::backup_tree(&session.access, &identity, tree);
            predict(session, &mut spec, request, &tags);
            let completed = session.cx.host.run(&spec, &mut |stream, line| {
                journal.take(session, stream, line, &mut *progress);
            })?;
            journal.report(session, &spec, &completed)
        }
        Input::Subvolume(_) => {
            Err(unsupported(session.access.version, "it stores no subvolume as it is".into()))
        }
        Input::Stream { producer, file_name } => {
            if file_name.is_empty() || file_name.contains('/') {
                let what = format!("{file_name:?} is not a plain file name");
                return Err(unsupported(session.access.version, what));
            }
            let mut spec = command::backup_stream(&session.access, &identity, file_name);
            predict(session, &mut spec, request, &tags);
            let mut journal = Journal::default();
            let before = std::slice::from_ref(&**producer);
            let chained = session.cx.host.chain(before, &spec, &mut |stream, line| {
                journal.take(session, stream, line, &mut *progress);
            })?;
            if let Some(produced) = chained.failed_before() {
                if restic_failed_first(produced, &chained.last) {
                    return Err(session.failure(&spec, &chained.last));
                }
                return Err(EngineError::Producer {
                    command: producer.display(),
                    exit: produced.exit.to_string(),
                    stderr_tail: produced.last_lines(5),
                });
            }
            let Completed { exit, stderr_tail, .. } = &chained.last;
            // Otherwise restic failed by itself, before it could have read anything.
            let has_its_say = exit.is_own_failure() && !failure::was_stopped(*exit, stderr_tail);
            if chained.bytes == Some(0) && !has_its_say {
                return Err(EngineError::EmptyStream { command: producer.display() });
            }
            journal.report(session, &spec, &chained.last)
        }
    }
}

/// Whether the producer only lost its reader: then restic is the cause. A restic that was stopped because
/// the producer failed says so itself.
fn restic_failed_first(produced: &Completed, restic: &Completed) -> bool {
    // What a producer without a reader dies of: its own write, or the host, which has no use for it.
    const SIGPIPE: i32 = 13;
    const SIGTERM: i32 = 15;
    const SIGKILL: i32 = 9;
    match restic.exit {
        Exit::Code(0) => false,
        Exit::Code(_) => !failure::was_stopped(restic.exit, &restic.stderr_tail),
        // The kernel, when memory is short.
        Exit::Signal(SIGKILL) => matches!(produced.exit, Exit::Signal(SIGPIPE | SIGTERM)),
        Exit::Signal(_) => false,
    }
}

fn predict(
    session: &Session<'_>,
    spec: &mut CommandSpec,
    request: &BackupRequest,
    tags: &[String],
) {
    let id = predicted_id(&request.series, &request.run);
    spec.prediction.stdout =
        format!("{{\"message_type\":\"summary\",\"snapshot_id\":\"{id}\",\"dry_run\":true}}\n")
            .into_bytes();
    let predicted = Predicted {
        id,
        time: request.time,
        hostname: request.series.host.to_string(),
        tags: tags.to_vec(),
        original: None,
    };
    spec.prediction.facts = vec![Prediction::Added(predicted).fact(session)];
}

/// Everything that was said during one backup.
#[derive(Default)]
struct Journal<'a> {
    sources: &'a [PathBuf],
    /// What only restic sees mounted.
    mounts: &'a [PrivateMount],
    /// Sources that are not there, each once.
    missing: BTreeSet<PathBuf>,
    unreadable: Vec<String>,
    unreadable_count: u64,
    vanished: u64,
    warnings: Vec<String>,
    /// Errors of the estimating scan: the archiver meets the same file and has the last word.
    scanned: Vec<Problem>,
    archived: BTreeSet<String>,
    summary: Option<Result<BackupSummary, String>>,
}

impl<'a> Journal<'a> {
    /// Looks at every source, where restic will see it.
    fn of_sources(
        session: &Session<'_>,
        paths: &'a [PathBuf],
        mounts: &'a [PrivateMount],
    ) -> Result<Self, EngineError> {
        let mut journal = Self { sources: paths, mounts, ..Self::default() };
        for path in paths {
            // A captured source was looked at just before it was captured.
            let Some(seen) = seen(path, mounts) else { continue };
            match session.cx.host.path_state(&seen) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    journal.missing.insert(path.clone());
                }
                Err(error) => journal.add_unreadable(format!("{}: {error}", path.shown())),
            }
        }
        if journal.missing.len() == paths.iter().collect::<BTreeSet<_>>().len() {
            let names: Vec<String> = paths.iter().map(|path| path.shown().to_string()).collect();
            let detail = if names.is_empty() {
                "no path was given".into()
            } else {
                format!(
                    "{} {} not there",
                    names.join(", "),
                    if names.len() == 1 { "is" } else { "are" }
                )
            };
            return Err(EngineError::NoSource { detail });
        }
        Ok(journal)
    }

    fn add_unreadable(&mut self, text: String) {
        self.unreadable_count += 1;
        if self.unreadable.len() < KEPT {
            self.unreadable.push(shown::text(&text));
        }
    }

    fn add_warning(&mut self, text: String) {
        if self.warnings.len() < KEPT {
            self.warnings.push(shown::text(&text));
        }
    }

    fn take(
        &mut self,
        session: &Session<'_>,
        stream: Stream,
        bytes: &[u8],
        progress: OnProgress<'_>,
    ) {
        if stream == Stream::ProducerErr {
            return;
        }
        // What restic prints beside its JSON holds names as they are, and a line break in one makes a line of its own. So
        // nothing counts but where restic says it: results on standard output, what went wrong on standard error.
        match (message::line(bytes), stream) {
            (Line::Status(status), Stream::Out) => progress(as_progress(status)),
            (Line::Summary(value), Stream::Out) => {
                self.summary = Some(message::backup_summary(value));
            }
            (line, _) => self.take_trouble(session, line),
        }
    }

    fn take_trouble(&mut self, session: &Session<'_>, line: Line) {
        match line {
            Line::Problem(problem) if problem.during.as_deref() == Some("scan") => {
                if self.scanned.len() < KEPT {
                    self.scanned.push(problem);
                }
            }
            Line::Problem(problem) => self.problem(session, problem),
            Line::Text(text) => match message::missing_source(&text) {
                // Only what is not there is believed to be missing.
                Some(path) if self.is_gone(session, path) => {
                    self.missing.insert(path.into());
                }
                Some(_) => self.add_warning(text),
                None if message::is_routine(&text) => {}
                None => self.add_warning(text),
            },
            Line::Status(_)
            | Line::Summary(_)
            | Line::ExitError { .. }
            | Line::Other(_)
            | Line::Empty => {}
        }
    }

    fn problem(&mut self, session: &Session<'_>, mut problem: Problem) {
        let item = problem.item.clone().unwrap_or_default();
        problem.vanished |= problem.mute && self.is_gone(session, &item);
        let is_source = self.sources.iter().any(|source| source.as_os_str() == item.as_str());
        if problem.vanished && is_source {
            self.missing.insert(item.into());
            return;
        }
        if problem.vanished {
            self.vanished += 1;
        } else if item.is_empty() || problem.message.contains(&item) {
            self.add_unreadable(problem.message);
        } else {
            self.add_unreadable(format!("{item}: {}", problem.message));
        }
        if self.archived.len() < KEPT {
            self.archived.insert(item);
        }
    }

    /// Whether a file that restic could not read, and did not say why, is no longer there. Before 0.17.1 that
    /// happens to a file that goes away between its opening and the reading of its attributes. Anything in
    /// doubt counts as there: a name that restic could not spell, one that only restic can look up.
    fn is_gone(&self, session: &Session<'_>, item: &str) -> bool {
        let path = Path::new(item);
        if !path.is_absolute() || item.contains(char::REPLACEMENT_CHARACTER) {
            return false;
        }
        seen(path, self.mounts)
            .is_some_and(|seen| matches!(session.cx.host.path_state(&seen), Ok(None)))
    }

    fn report(
        mut self,
        session: &Session<'_>,
        spec: &CommandSpec,
        completed: &Completed,
    ) -> Result<BackupReport, EngineError> {
        let incomplete_said = match completed.exit {
            Exit::Code(0) => false,
            Exit::Code(INCOMPLETE) => true,
            Exit::Code(_) | Exit::Signal(_) => return Err(session.failure(spec, completed)),
        };
        let summary = self
            .summary
            .take()
            .unwrap_or_else(|| Err(format!("no summary from `{}`", spec.display())))
            .map_err(broken)?;
        for problem in std::mem::take(&mut self.scanned) {
            let known = problem.item.as_ref().is_some_and(|item| self.archived.contains(item));
            if !problem.vanished && !known {
                self.add_warning(problem.message);
            }
        }
        for path in std::mem::take(&mut self.missing) {
            self.add_unreadable(format!("{} is not there", path.shown()));
        }
        let unexplained = incomplete_said && self.unreadable_count == 0 && self.vanished == 0;
        if unexplained {
            self.add_warning("restic could not read everything and did not say what".into());
        }
        let outcome = if self.unreadable_count > 0 || unexplained {
            Outcome::Incomplete
        } else if self.warnings.is_empty() {
            Outcome::Ok
        } else {
            Outcome::Warning
        };
        Ok(BackupReport {
            outcome,
            id: Some(summary.snapshot_id),
            bytes_new: summary.data_added_packed.or(summary.data_added),
            size: summary.total_bytes_processed,
            files: summary.total_files_processed,
            files_changed: self.vanished,
            unreadable: self.unreadable.iter().map(|text| session.redact(text)).collect(),
            unreadable_count: self.unreadable_count,
            warnings: self.warnings.iter().map(|text| session.redact(text)).collect(),
            // Nobody can look into a copy that nobody made.
            absent: completed.is_predicted.then(Vec::new),
        })
    }
}

/// Where on the machine that is which restic will see at `path`: inside what is bound over it, if something
/// is; the deepest mount wins. `None`: in a device that only restic will see mounted.
fn seen(path: &Path, mounts: &[PrivateMount]) -> Option<PathBuf> {
    let deepest = mounts
        .iter()
        .filter(|mount| path.starts_with(mount.at()))
        .max_by_key(|mount| mount.at().components().count());
    match deepest {
        None => Some(path.to_owned()),
        Some(PrivateMount::Device { .. }) => None,
        Some(PrivateMount::Mounted { .. } | PrivateMount::Unlinked { .. }) => Some(path.to_owned()),
        Some(PrivateMount::Bind { from, at, .. }) => {
            let rest = path.strip_prefix(at).ok()?;
            Some(if rest.as_os_str().is_empty() { from.clone() } else { from.join(rest) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_looked_at_where_restic_sees_it() {
        let bind = |from: &str, at: &str| PrivateMount::Bind {
            from: from.into(),
            at: at.into(),
            read_only: true,
        };
        let device = PrivateMount::Device {
            device: "/dev/vg/srv".into(),
            at: "/srv".into(),
            file_system: "ext4".into(),
            options: String::new(),
            directory: None,
            access: crate::host::Access::Read,
        };
        let mounts = [bind("/run/cap/root", "/"), bind("/run/cap/home", "/home"), device];
        let look = |path: &str| seen(Path::new(path), &mounts).map(|path| path.shown().to_string());
        assert_eq!(look("/etc/x").as_deref(), Some("/run/cap/root/etc/x"));
        assert_eq!(look("/home").as_deref(), Some("/run/cap/home"));
        assert_eq!(look("/home/me").as_deref(), Some("/run/cap/home/me"));
        assert_eq!(look("/homes").as_deref(), Some("/run/cap/root/homes"));
        assert_eq!(look("/srv/www"), None);
        assert_eq!(seen(Path::new("/x"), &[]).as_deref(), Some(Path::new("/x")));
    }
}
