//! Restoring from a restic snapshot.
//!
//! restic ends with status 1 for a file that is lost and for an owner that could not be set, and with 0 when
//! nothing matched what was asked for. So each error line is read, and each path that was asked for is
//! looked at afterwards.

use std::path::{Path, PathBuf};

use super::browse;
use super::session::{KEPT, Session, as_progress, broken, exact, unsupported};
use crate::engine::{EngineError, OnProgress, RestoreReport, RestoreRequest};
use crate::host::{CommandSpec, Completed, Exit};
use crate::model::shown::Show;
use crate::tools::restic::command;
use crate::tools::restic::message::{self, Line, RestoreSummary};

pub(super) fn restore(
    session: &Session<'_>,
    request: &RestoreRequest,
    progress: OnProgress<'_>,
) -> Result<RestoreReport, EngineError> {
    let version = session.access.version;
    let preview = request.dry_run && version.previews_restore();
    refuse(session, request, preview)?;
    let id = exact(&request.copy.id)?;
    let everything = request.paths.is_empty() || request.paths.iter().any(|p| p == Path::new("/"));
    let paths = if everything { &[][..] } else { &request.paths[..] };
    let wanted = wanted(session, request, paths)?;
    let mut spec = command::restore(&session.access, id, paths, &request.to, preview);
    spec.confinement = request.confined_to(&[
        Some(session.cx.settings.cache_dir.clone()),
        session.access.temporary.clone(),
        session.local.map(Path::to_owned),
    ]);
    let mut journal = Journal::default();
    let completed = session.cx.host.run(&spec, &mut |_, line| {
        journal.take(message::line(line), &request.to, &mut *progress)
    })?;
    if let Some(error) = journal.failure(session, &spec, &completed) {
        return Err(request.judged(session.cx.host, error, journal.is_full));
    }
    // What nobody wrote cannot be there.
    let written = !preview && !completed.is_predicted;
    for wanted in wanted.iter().filter(|_| written) {
        verify_restored(session, &spec, id, wanted)?;
    }
    journal.report(session)
}

/// Refuses what this restic cannot do. `preview`: it can pretend, and is to.
fn refuse(
    session: &Session<'_>,
    request: &RestoreRequest,
    preview: bool,
) -> Result<(), EngineError> {
    let version = session.access.version;
    // Stays: whether anything would be written must be known before the command is handed on, and only a dry host
    // notes it; so there the older restic need not be able to pretend.
    if request.dry_run && !preview && !session.cx.host.is_dry() {
        return Err(unsupported(version, "a restore that writes nothing needs restic 0.17".into()));
    }
    if request.owners_by_name {
        return Err(unsupported(version, "it restores owners by number only".into()));
    }
    match request.paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => {
            Err(unsupported(version, format!("{} is not an absolute path", path.shown())))
        }
        None => Ok(()),
    }
}

/// The paths that a snapshot was made of.
pub(super) fn sources(session: &Session<'_>, id: &str) -> Result<Vec<PathBuf>, EngineError> {
    #[derive(serde::Deserialize)]
    struct Snapshot {
        id: String,
        paths: Vec<PathBuf>,
    }
    let completed = session.run(&command::snapshots(&session.access).arg(exact(id)?))?;
    let snapshots: Vec<Snapshot> = serde_json::from_slice(&completed.stdout)
        .map_err(|error| broken(format!("the paths of a snapshot: {error}")))?;
    let found = snapshots.into_iter().find(|snapshot| snapshot.id == id);
    found.map(|snapshot| snapshot.paths).ok_or_else(|| broken(format!("there is no snapshot {id}")))
}

/// Streams one file; see [`crate::engine::Engine::stream`].
pub(super) fn stream(session: &Session<'_>, id: &str, path: &Path) -> Result<(), EngineError> {
    session.run(&command::dump(&session.access, exact(id)?, path)).map(drop)
}

/// A path that was asked for.
struct Wanted<'a> {
    /// As it is in the copy.
    path: &'a Path,
    /// Where it is to be.
    at: PathBuf,
    /// Whether something was there before; then its presence afterwards proves nothing.
    was_there: bool,
}

/// Where each of these paths is to be, and what is there before anything is written.
fn wanted<'a>(
    session: &Session<'_>,
    request: &RestoreRequest,
    paths: &'a [PathBuf],
) -> Result<Vec<Wanted<'a>>, EngineError> {
    let each = paths.iter().map(|path| {
        let at = request.place_of(path);
        let was_there = session.cx.host.path_state(&at)?.is_some();
        Ok(Wanted { path, at, was_there })
    });
    each.collect()
}

/// A path that is not there afterwards was not in the copy, or is a link that leads nowhere from here.
fn verify_restored(
    session: &Session<'_>,
    spec: &CommandSpec,
    id: &str,
    wanted: &Wanted<'_>,
) -> Result<(), EngineError> {
    let is_there = session.cx.host.path_state(&wanted.at)?.is_some();
    if is_there && !wanted.was_there {
        return Ok(());
    }
    let detail = match browse::kind_at(session, id, wanted.path)? {
        Some('l') => return Ok(()),
        Some(_) if is_there => return Ok(()),
        Some(_) => format!("{} was not restored", wanted.path.shown()),
        None => format!("{} is not in the copy", wanted.path.shown()),
    };
    Err(session.failed(spec, detail))
}

/// restic's own count, from `Fatal: There were 2 errors`.
fn count_of_errors(stderr: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(stderr);
    let (_, rest) = text.rsplit_once("There were ")?;
    rest.split(' ').next()?.parse().ok()
}

/// What restic said while it restored.
#[derive(Default)]
struct Journal {
    /// Errors after which data is missing.
    lost: u64,
    first_lost: Option<String>,
    /// Whether one of them is that there is no space. Only the end of a message counts: before it is a path.
    is_full: bool,
    /// Errors after which only an attribute is.
    attributes: Vec<String>,
    attributes_count: u64,
    summary: Option<Result<RestoreSummary, serde_json::Error>>,
}

impl Journal {
    /// Takes one line; `to` is the directory that restic restores to.
    fn take(&mut self, line: Line, to: &Path, progress: OnProgress<'_>) {
        match line {
            Line::Status(status) => progress(as_progress(status)),
            Line::Summary(value) => self.summary = Some(serde_json::from_value(value)),
            Line::Problem(problem) => {
                let attribute = is_about_attributes(&problem.message);
                let text = match problem.item {
                    Some(item) if !problem.message.contains(&item) => {
                        format!("{item}: {}", problem.message)
                    }
                    _ => problem.message,
                };
                self.problem(attribute, text);
            }
            Line::Text(text) => {
                if let Some(problem) = text.strip_prefix("ignoring error for ") {
                    let attribute = line_is_about_attributes(problem, to);
                    self.problem(attribute, problem.to_owned());
                }
            }
            Line::ExitError { .. } | Line::Other(_) | Line::Empty => {}
        }
    }

    /// Why the restore failed, if it did. That only attributes could not be set is no failure, when restic counts no more
    /// errors than those.
    fn failure(
        &self,
        session: &Session<'_>,
        spec: &CommandSpec,
        completed: &Completed,
    ) -> Option<EngineError> {
        let only_attributes = completed.exit == Exit::Code(1)
            && self.lost == 0
            && !self.attributes.is_empty()
            && count_of_errors(&completed.stderr_tail) == Some(self.attributes_count);
        if !completed.success() && !only_attributes {
            return Some(session.failure(spec, completed));
        }
        let first = || session.redact(self.first_lost.as_deref().unwrap_or_default());
        let detail = match self.lost {
            0 => return None,
            1 => format!("a file was not restored: {}", first()),
            lost => format!("{lost} files were not restored, the first of them: {}", first()),
        };
        Some(session.failed(spec, detail))
    }

    /// What a restore that did not fail did.
    fn report(self, session: &Session<'_>) -> Result<RestoreReport, EngineError> {
        let version = session.access.version;
        let summary: Option<RestoreSummary> = self
            .summary
            .transpose()
            .map_err(|error| broken(format!("a restore summary that cannot be read: {error}")))?;
        Ok(RestoreReport {
            files: summary.as_ref().and_then(|summary| summary.files_restored),
            bytes: summary.as_ref().and_then(|summary| summary.bytes_restored),
            warnings: self.attributes.iter().map(|text| session.redact(text)).collect(),
            notes: match version.restores_holes() {
                true => Vec::new(),
                false => vec![format!(
                    "restic {version} writes the holes of sparse files as zeros, so these take their whole size now; restic 0.15 and later keeps them"
                )],
            },
        })
    }

    fn problem(&mut self, attribute: bool, text: String) {
        if attribute {
            self.attributes_count += 1;
            if self.attributes.len() < KEPT {
                self.attributes.push(text);
            }
        } else {
            self.lost += 1;
            self.is_full |= text.ends_with(": no space left on device");
            self.first_lost.get_or_insert(text);
        }
    }
}

/// The system calls with which restic sets what is not content: owner, mode, times, extended attributes.
/// The path follows.
const CALLS: [&str; 6] =
    ["lchown ", "chmod ", "fchmodat ", "utimensat ", "xattr.LSet ", "xattr.Set "];

/// What restic, in one version or another, puts before the name of a call or instead of it.
const HEADINGS: [&str; 5] =
    ["Lchown: ", "Chmod: ", "UtimesNano", "Setxattr: ", "failed to restore timestamp of "];

/// The reasons for which the times of a file that is there cannot be set. Lines about times name no place.
const REFUSALS: [&str; 4] = [
    "operation not permitted",
    "permission denied",
    "operation not supported",
    "read-only file system",
];

/// Whether a message says that something was not set which is not content. Only its beginning counts: any
/// word may be in the path that follows. A call that finds no file tells of content that is not there.
fn is_about_attributes(message: &str) -> bool {
    CALLS.iter().chain(&HEADINGS).any(|start| message.starts_with(start))
        && !message.ends_with("no such file or directory")
}

/// The same for a line of text, `PATH: MESSAGE`, as restic prints them before 0.17.
///
/// Since `: ` may be in a path too, the message must name the very place that belongs to the path before it, or
/// be one of the few that name none. What cannot be told apart so is taken for content.
fn line_is_about_attributes(line: &str, to: &Path) -> bool {
    line.match_indices(": ").any(|(at, separator)| {
        let (item, message) = (&line[..at], &line[at + separator.len()..]);
        let place = to.join(item.trim_start_matches('/'));
        if let Some(reason) = message.strip_prefix("UtimesNano: ") {
            return REFUSALS.contains(&reason);
        }
        let wrapped = ["Lchown: ", "Chmod: "].iter().find_map(|name| message.strip_prefix(name));
        let call = wrapped.unwrap_or(message);
        is_about_attributes(message)
            && CALLS
                .iter()
                .find_map(|name| call.strip_prefix(name))
                .and_then(|rest| rest.strip_prefix(place.to_str()?))
                .is_some_and(|rest| rest.starts_with([':', ' ']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_told_from_content() {
        for attribute in [
            "lchown /to/x: operation not permitted",
            "Lchown: lchown /to/x: invalid argument",
            "chmod /to/x: operation not permitted",
            "xattr.LSet /to/x user.a: operation not supported",
            "xattr.Set /to/x user.a: operation not supported",
            "failed to restore timestamp of \"/to/x\": operation not permitted",
        ] {
            assert!(is_about_attributes(attribute), "{attribute}");
        }
        for content in [
            "open /to/x: permission denied",
            "decrypting blob <data/1> failed: ciphertext verification failed",
            // What stands in a path says nothing.
            "open /to/man2/fchmodat.2.gz: no space left on device",
            "open /to/a: chmod /to/a: permission denied",
            "write /to/man2/utimensat lchown chmod : no space left on device",
            // There is no file whose owner could be set.
            "lchown /to/x: no such file or directory",
        ] {
            assert!(!is_about_attributes(content), "{content}");
        }
    }

    #[test]
    fn in_a_line_of_text_the_path_comes_first_and_may_hold_anything() {
        // As restic 0.14 prints them.
        for attribute in [
            "/src/man2: Lchown: lchown /to/src/man2: invalid argument",
            "/src/man2/fchmodat.2.gz: Lchown: lchown /to/src/man2/fchmodat.2.gz: invalid argument",
            "/src/a: chmod b/f: Lchown: lchown /to/src/a: chmod b/f: invalid argument",
            "/src/su: Chmod: chmod /to/src/su: operation not permitted",
            "/src/big: xattr.Set /to/src/big user.a: operation not supported",
        ] {
            assert!(line_is_about_attributes(attribute, Path::new("/to")), "{attribute}");
            assert!(line_is_about_attributes(attribute, Path::new("/to/")), "{attribute}");
            // Another place than the one that belongs to the path.
            assert!(!line_is_about_attributes(attribute, Path::new("/t")), "{attribute}");
        }
        let times = "/src/a: UtimesNano: operation not permitted";
        assert!(line_is_about_attributes(times, Path::new("/to")));
        for content in [
            "/src/man2/fchmodat.2.gz: nonce is invalid",
            "/src/x: Chmod: nonce is invalid",
            "/src/a: chmod b/f: nonce is invalid",
            "/src/x: lchown : nonce is invalid",
            "/src/a: chmod b: open /to/src/a: chmod b: permission denied",
            "/src/x: UtimesNano: nonce is invalid",
            "/src/x: Lchown: lchown /to/src/x: no such file or directory",
            "nonce is invalid",
        ] {
            assert!(!line_is_about_attributes(content, Path::new("/to")), "{content}");
        }
    }

    #[test]
    fn reads_its_count_of_errors() {
        assert_eq!(count_of_errors(b"Fatal: There were 2 errors\n\n"), Some(2));
        assert_eq!(
            count_of_errors(br#"{"code":1,"message":"Fatal: There were 12 errors\n"}"#),
            Some(12)
        );
        assert_eq!(count_of_errors(b"Fatal: x"), None);
    }
}
