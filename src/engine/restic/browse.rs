//! Looking into restic snapshots: what one holds, and how two differ.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::session::{Session, broken, exact};
use crate::engine::{Change, ChangeKind, ContentsCheck, EngineError, Entry, Expected};
use crate::host::Stream;
use crate::tools::restic::command;
use crate::tools::restic::message::{self, Compared, Line, Listed, Node};

pub(super) fn contents(
    session: &Session<'_>,
    id: &str,
    each: &mut dyn FnMut(Entry),
) -> Result<(), EngineError> {
    entries(session, exact(id)?, &[], each)?;
    Ok(())
}

/// Looks for paths in a new snapshot, of which restic 0.14 says only the first digits of its id. Each directory costs
/// the names in it; nothing else is walked.
pub(super) fn find_absent(
    session: &Session<'_>,
    id: &str,
    expected: &[Expected],
) -> Result<ContentsCheck, EngineError> {
    if id.len() < 8 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(broken(format!("expected a snapshot id, found {id:?}")));
    }
    let paths: Vec<&Path> = expected.iter().map(|one| one.path.as_path()).collect();
    let mut names: Vec<(String, &Path)> = paths.iter().map(|path| (shown(path), *path)).collect();
    // The root is no entry of its own.
    names.retain(|(_, path)| *path != Path::new("/"));
    let id = entries(session, id, &paths, &mut |entry| {
        names.retain(|(shown, path)| entry.path != *path && entry.path != Path::new(shown));
    })?;
    Ok(ContentsCheck { id, absent: names.into_iter().map(|(_, path)| path.to_owned()).collect() })
}

/// The entries of a snapshot: all, or those of some paths and what lies directly in them. Answers with its id.
fn entries(
    session: &Session<'_>,
    id: &str,
    paths: &[&Path],
    each: &mut dyn FnMut(Entry),
) -> Result<String, EngineError> {
    let spec = command::ls(&session.access, id, paths);
    let mut named = None;
    let mut wrong = None;
    let completed = session.cx.host.run(&spec, &mut |stream, line| {
        if stream != Stream::Out || line.trim_ascii().is_empty() || wrong.is_some() {
            return;
        }
        match message::listed(line) {
            Ok(Listed::Snapshot(id)) => named = Some(id),
            Ok(Listed::Node(node)) => each(as_entry(node)),
            Err(what) => wrong = Some(what),
        }
    })?;
    if !completed.success() {
        return Err(session.failure(&spec, &completed));
    }
    if let Some(what) = wrong {
        return Err(broken(what));
    }
    // restic 0.14 ends well when there is no such snapshot, having listed nothing.
    match named {
        Some(named) if named.starts_with(id) => Ok(named),
        Some(named) => Err(broken(format!("expected a listing of {id}, found one of {named}"))),
        None => Err(session.failed(&spec, format!("there is no snapshot {id}"))),
    }
}

/// What a snapshot has at exactly this path: the letter of [`Entry::kind`], or `None`.
pub(super) fn kind_at(
    session: &Session<'_>,
    id: &str,
    path: &Path,
) -> Result<Option<char>, EngineError> {
    let mut found = None;
    let shown = shown(path);
    entries(session, exact(id)?, &[path], &mut |entry| {
        if entry.path == path || entry.path == Path::new(&shown) {
            found = Some(entry.kind);
        }
    })?;
    Ok(found)
}

/// The path as restic's JSON has it: each byte that is not UTF-8 as U+FFFD.
fn shown(path: &Path) -> String {
    let chunks = path.as_os_str().as_bytes().utf8_chunks();
    chunks
        .map(|chunk| format!("{}{}", chunk.valid(), "\u{fffd}".repeat(chunk.invalid().len())))
        .collect()
}

fn as_entry(node: Node) -> Entry {
    let kind = match node.kind.as_str() {
        "file" => '-',
        "dir" => 'd',
        "symlink" => 'l',
        "dev" => 'b',
        "chardev" => 'c',
        "fifo" => 'p',
        "socket" => 's',
        _ => '?',
    };
    let mode = node.permissions();
    let Node { path, size, mtime, uid, gid, .. } = node;
    Entry { path, kind, size, modified: mtime, mode, uid, gid, shared: None }
}

pub(super) fn diff(
    session: &Session<'_>,
    older: &str,
    newer: &str,
    each: &mut dyn FnMut(Change),
) -> Result<(), EngineError> {
    let spec = command::diff(&session.access, exact(older)?, exact(newer)?);
    let mut ended = false;
    let mut wrong = None;
    let mut unread = None;
    let completed = session.cx.host.run(&spec, &mut |stream, line| {
        if stream == Stream::Err {
            // A directory that cannot be loaded is left out, and the exit status is 0 all the same.
            match message::line(line) {
                Line::Text(text) if text.starts_with("error: ") => unread = Some(text),
                Line::Problem(problem) => unread = Some(problem.message),
                Line::Text(_)
                | Line::Status(_)
                | Line::Summary(_)
                | Line::ExitError { .. }
                | Line::Other(_)
                | Line::Empty => {}
            }
            return;
        }
        if line.trim_ascii().is_empty() || wrong.is_some() {
            return;
        }
        match message::compared(line).and_then(|compared| match compared {
            Compared::End => Ok(None),
            Compared::Change(path, letters) => Ok(Some(Change { kind: kind(&letters)?, path })),
        }) {
            Ok(Some(change)) => each(change),
            Ok(None) => ended = true,
            Err(what) => wrong = Some(what),
        }
    })?;
    if !completed.success() {
        return Err(session.failure(&spec, &completed));
    }
    if let Some(text) = unread {
        let detail = session.redact(&text);
        return Err(EngineError::Damaged { repository: session.shown(), detail });
    }
    match wrong {
        Some(what) => Err(broken(what)),
        None if !ended => {
            Err(broken(format!("no end of the comparison from `{}`", spec.display())))
        }
        None => Ok(()),
    }
}

/// restic gives several letters at once; the one that says most counts. `?` stands beside `M` where the
/// content changed and the times did not.
fn kind(letters: &str) -> Result<ChangeKind, String> {
    const KINDS: [(char, ChangeKind); 6] = [
        ('+', ChangeKind::Added),
        ('-', ChangeKind::Removed),
        ('T', ChangeKind::Type),
        ('M', ChangeKind::Modified),
        ('?', ChangeKind::Modified),
        ('U', ChangeKind::Metadata),
    ];
    KINDS
        .iter()
        .find(|(letter, _)| letters.contains(*letter))
        .map(|(_, kind)| *kind)
        .ok_or_else(|| format!("a difference of the sort {letters:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_letter_counts() {
        for (letters, expected) in [
            ("+", ChangeKind::Added),
            ("-", ChangeKind::Removed),
            ("TU", ChangeKind::Type),
            ("MU", ChangeKind::Modified),
            ("M?", ChangeKind::Modified),
            ("U", ChangeKind::Metadata),
        ] {
            assert_eq!(kind(letters), Ok(expected));
        }
        assert!(kind("").is_err());
        assert!(kind("X").is_err());
    }
}
