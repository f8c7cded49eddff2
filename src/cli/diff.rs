//! `diff`: what changed between two copies, or between a copy and the machine as it is now.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::engine::{Change, ChangeKind, Engine, Entry};
use crate::model::copy::Copy;
use crate::model::names::JobName;
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::size;
use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::select;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::options::{CopyOptions, Global, Verdict, job_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The job whose copies to compare
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// The older copy; the one before the newer when it is not named
    #[arg(value_name = "A")]
    older: Option<String>,
    /// The newer copy (default: latest), or live for the machine as it is: then kind, size, time, permissions
    /// and owners are compared, and files that are new since A are not looked for
    #[arg(value_name = "B|live")]
    newer: Option<String>,
    #[command(flatten)]
    of: CopyOptions,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    target: String,
    older: String,
    newer: String,
    changes: Vec<Change>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &DiffArgs) -> Verdict {
    let setup = Setup::new(global, Use::ReadBack { dry_run: false })?;
    let mut changes = Vec::new();
    let mut compared = None;
    let troubles = setup.session(|cx| {
        compared = Some(compare_copies(cx, args, &mut |change| changes.push(change))?);
        Ok(Vec::new())
    })?;
    let Some([target, older, newer]) = compared else { return Ok(troubles) };
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    if global.json {
        render::json(&Document { schema: SCHEMA, target, older, newer, changes })?;
        return Ok(troubles);
    }
    render::text(&format!(
        "{older} → {newer} in target {target}: {}",
        size::counted(changes.len() as u64, "change", "changes")
    ))?;
    for change in &changes {
        let sign = match change.kind {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Modified => 'M',
            ChangeKind::Metadata => 'm',
            ChangeKind::Type => 'T',
        };
        render::text(&format!("{sign} {}", change.path.shown()))?;
    }
    Ok(troubles)
}

/// Compares what is asked for. Answers with the target, the older and the newer.
fn compare_copies(
    cx: RunContext<'_>,
    args: &DiffArgs,
    each: &mut dyn FnMut(Change),
) -> Result<[String; 3], StepError> {
    let query = args.of.query(&args.job);
    let live = args.newer.as_deref() == Some("live");
    let wanted = if live { args.older.as_deref() } else { args.newer.as_deref() };
    let (engine, newer) = select::copy(cx.pipeline, &query, wanted.unwrap_or("latest"))?;
    let target = &engine.target().name;
    if live {
        against_live(cx, engine, &newer, each)?;
        return Ok([target.to_string(), newer.id, "live".to_owned()]);
    }
    let older = match &args.older {
        Some(older) => {
            let there = select::Query { target: Some(target), ..query };
            select::copy(cx.pipeline, &there, older)?.1
        }
        None => before(cx, engine, &newer)?,
    };
    bracketed(cx, engine, |engine, context| engine.diff(context, &older, &newer, each))?;
    Ok([target.to_string(), older.id, newer.id])
}

/// The copy of the same series before this one.
fn before(cx: RunContext<'_>, engine: &dyn Engine, newer: &Copy) -> Result<Copy, StepError> {
    let copies = select::all_copies(cx.pipeline, engine)?;
    let older = copies
        .into_iter()
        .filter(|copy| copy.series.is_some() && copy.series == newer.series)
        .filter(|copy| copy.ours == newer.ours && copy.id != newer.id)
        .filter(|copy| newer.is_newer_than(copy))
        .reduce(|last, copy| if copy.is_newer_than(&last) { copy } else { last });
    older.ok_or_else(|| {
        let text = format!("there is no copy before {} to compare it with", newer.id);
        StepError::new(Trouble::JobFailed, text)
    })
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
