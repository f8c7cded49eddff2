//! `diff`: what changed between two copies, or between a copy and the machine as it is now.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::{Change, ChangeKind, Engine, Entry};
use crate::model::copy::Copy;
use crate::model::event::Event;
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::engine_lock::bracketed;
use super::query::{self, Query};
use super::select;

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub enum Pair<'a> {
    /// Two copies in one target: ids, run ids or `latest`.
    Copies {
        /// The one before the newer, in its series, when it is not named.
        older: Option<&'a str>,
        /// The copy whose target is searched for the older one.
        newer: &'a str,
    },
    /// A copy, and the machine as it is.
    Live {
        /// An id, a run id or `latest`.
        copy: &'a str,
    },
}

/// The machine as it is, where otherwise the id of a copy stands.
pub const LIVE: &str = "live";

/// What was compared, and what differs.
#[derive(Debug)]
pub struct Comparison {
    /// The target that holds the copies.
    pub target: TargetName,
    /// The id of the older copy.
    pub older: String,
    /// The id of the newer copy, or [`LIVE`].
    pub newer: String,
    /// What differs, in the order of the paths.
    pub changes: Vec<Change>,
}

/// Compares two copies of a job, or one with the machine.
///
/// # Errors
/// When a copy is not there, or cannot be read.
pub fn diff(
    cx: RunContext<'_>,
    query: &Query<'_>,
    pair: Pair<'_>,
) -> Result<Comparison, StepError> {
    let mut changes = Vec::new();
    let mut each = |change| changes.push(change);
    let (engine, older, newer) = match pair {
        Pair::Live { copy } => {
            let (engine, copy) = query::copy(cx.pipeline, query, copy)?;
            let instead = "compare it with another copy, or restore it to a directory with --to";
            query::refuse_elsewhere(cx.config(), query, &copy, instead)?;
            against_live(cx, engine, &copy, &mut each)?;
            (engine, copy.id, LIVE.to_owned())
        }
        Pair::Copies { older, newer } => {
            let (engine, older, newer) = match older {
                Some(older) => query::pair(cx.pipeline, query, older, newer)?,
                None => {
                    let (engine, newer) = query::copy(cx.pipeline, query, newer)?;
                    (engine, before(cx, engine, &newer)?, newer)
                }
            };
            bracketed(cx, engine, |engine, context| {
                engine.diff(context, &older, &newer, &mut each)
            })?;
            (engine, older.id, newer.id)
        }
    };
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Comparison { target: engine.target().name.clone(), older, newer, changes })
}

/// The copy of the same series before this one. One that cannot be trusted is passed over, and named, as long as there is
/// another.
fn before(cx: RunContext<'_>, engine: &dyn Engine, newer: &Copy) -> Result<Copy, StepError> {
    let mut copies = select::finished_copies(cx.pipeline, engine)?;
    copies.retain(|copy| {
        copy.series.is_some()
            && copy.series == newer.series
            && copy.ours == newer.ours
            && copy.id != newer.id
            && newer.is_newer_than(copy)
    });
    let is_any_good = copies.iter().any(Copy::may_be_good);
    let older = copies
        .iter()
        .filter(|copy| copy.may_be_good() || !is_any_good)
        .reduce(|last, copy| if copy.is_newer_than(last) { copy } else { last });
    let Some(older) = older else {
        let text = format!("there is no copy before {} to compare it with", newer.id);
        return Err(StepError::new(Trouble::JobFailed, text));
    };
    for passed in copies.iter().filter(|copy| copy.is_newer_than(older)) {
        let why = passed.fault().unwrap_or_default();
        let text = format!("not used as the older copy ({why}): {} — name it to use it", passed.id);
        cx.pipeline.observer.on(&Event::Note { job: None, warning: true, text });
    }
    Ok(older.clone())
}

/// What the machine no longer has as the copy has it. Compares kind, size, modification time, permissions and
/// owners; contents and extended attributes are not read.
fn against_live(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    each: &mut dyn FnMut(Change),
) -> Result<(), StepError> {
    let mut compared = |entry: Entry| {
        if let Some(kind) = compare(&entry) {
            each(Change { path: entry.path, kind });
        }
    };
    bracketed(cx, engine, |engine, context| engine.contents(context, copy, &mut compared))
}

fn compare(entry: &Entry) -> Option<ChangeKind> {
    let Some(live) = found_live(&entry.path).and_then(|path| std::fs::symlink_metadata(path).ok())
    else {
        return Some(ChangeKind::Removed);
    };
    let kind = match live.file_type() {
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        kind if kind.is_file() => '-',
        _ => return None,
    };
    if "-dl".contains(entry.kind) && kind != entry.kind {
        return Some(ChangeKind::Type);
    }
    let is_file = kind == '-';
    if is_file && entry.size.is_some_and(|size| size != live.size()) {
        return Some(ChangeKind::Modified);
    }
    // Engines keep at least microseconds; a second apart is another write on every file system.
    let moved = entry.modified.is_some_and(|modified| modified.timestamp() != live.mtime());
    if moved {
        return Some(if is_file { ChangeKind::Modified } else { ChangeKind::Metadata });
    }
    let differs = |known: Option<u32>, now: u32| known.is_some_and(|known| known != now);
    // A link has no permissions of its own.
    let mode = kind != 'l' && differs(entry.mode, live.mode() & 0o7777);
    (mode || differs(entry.uid, live.uid()) || differs(entry.gid, live.gid()))
        .then_some(ChangeKind::Metadata)
}

/// The path on the machine. Engines list a byte that is not UTF-8 as `?` (borg) or U+FFFD (restic), so a name
/// with one that is not there as it is written is looked for among those that would be listed so.
fn found_live(path: &Path) -> Option<PathBuf> {
    if std::fs::symlink_metadata(path).is_ok() {
        return Some(path.to_owned());
    }
    if !path.to_string_lossy().contains(['?', '\u{fffd}']) {
        return None;
    }
    let parent = found_live(path.parent()?)?;
    let name = path.file_name()?.to_string_lossy();
    let listed = |entry: &std::fs::DirEntry| {
        let live = entry.file_name();
        ["?", "\u{fffd}"].iter().any(|mark| {
            let chunks = live.as_bytes().utf8_chunks();
            let text: String = chunks
                .flat_map(|part| [part.valid().to_owned(), mark.repeat(part.invalid().len())])
                .collect();
            text == name
        })
    };
    let found = std::fs::read_dir(parent).ok()?.filter_map(Result::ok).find(listed)?;
    Some(found.path())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_name_that_engines_cannot_spell_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join(OsStr::from_bytes(b"d\xfe"));
        std::fs::create_dir(&below).unwrap();
        let real = below.join(OsStr::from_bytes(b"a\xff\xfeb"));
        std::fs::write(&real, "x").unwrap();
        for name in ["d?/a??b", "d\u{fffd}/a\u{fffd}\u{fffd}b"] {
            assert_eq!(found_live(&dir.path().join(name)), Some(real.clone()), "{name}");
        }
        for name in ["d?/a?b", "d?/a??c", "dx/a??b", "d?/ab"] {
            assert_eq!(found_live(&dir.path().join(name)), None, "{name}");
        }
    }
}
