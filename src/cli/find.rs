//! `find`: the versions of a file across copies.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::engine::Entry;
use crate::model::bytes;
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::size;
use crate::model::target::Target;
use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::select;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::list::targets;
use super::options::{Global, Selection, Verdict};
use super::render;
use super::setup::{Setup, Use};
use super::unreadable::Unreadable;

/// Arguments of `find`.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// A path, a name, or a pattern with * ? and [ ]; without a slash it is compared with names
    #[arg(value_name = "PATTERN")]
    pattern: String,
    #[command(flatten)]
    selection: Selection,
    /// Show every copy that has the file, not only those in which it changed
    #[arg(long)]
    all: bool,
}

/// One version of one file.
#[derive(Debug, Clone, Serialize)]
struct Version {
    #[serde(flatten, serialize_with = "bytes::path")]
    path: PathBuf,
    kind: char,
    size: Option<u64>,
    modified: Option<DateTime<Utc>>,
    target: TargetName,
    copy: String,
    time: DateTime<Utc>,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    versions: Vec<Version>,
    /// What could not be looked through, and why: versions in it are missing above.
    unreadable: Vec<Unreadable>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &FindArgs) -> Verdict {
    let pattern = glob::Pattern::new(&args.pattern).map_err(|error| {
        let text = format!("{} is not a pattern: {error}", args.pattern);
        StepError::new(Trouble::Configuration, text)
    })?;
    let setup = Setup::new(global, Use::ReadBack { dry_run: false })?;
    let mut document = Document { schema: SCHEMA, versions: Vec::new(), unreadable: Vec::new() };
    let targets = targets(&setup.config, &args.selection)?;
    let troubles = setup.session(|cx| {
        let mut troubles = Vec::new();
        for target in targets {
            troubles.extend(look_through(cx, args, &pattern, target, &mut document)?);
        }
        Ok(troubles)
    })?;
    if global.json {
        render::json(&document)?;
    } else if document.versions.is_empty() {
        let place = if troubles.is_empty() { "" } else { " in what could be read" };
        render::text(&format!("nothing matches {}{place}", args.pattern))?;
    } else {
        let rows: Vec<Vec<String>> = document
            .versions
            .iter()
            .map(|version| {
                vec![
                    version.path.shown().to_string(),
                    render::or_dash(version.size.map(size::show)),
                    render::or_dash(version.modified.map(|time| time.format("%Y-%m-%d %H:%M:%SZ"))),
                    version.target.to_string(),
                    version.copy.chars().take(60).collect(),
                ]
            })
            .collect();
        render::text(&render::table(
            &["PATH", "SIZE", "MODIFIED", "TARGET", "FIRST IN COPY"],
            &rows,
        ))?;
    }
    Ok(troubles)
}

/// Looks through the copies of a target. Answers with what was wrong with those that could not be read.
fn look_through(
    cx: RunContext<'_>,
    args: &FindArgs,
    pattern: &glob::Pattern,
    target: &Target,
    document: &mut Document,
) -> Result<Vec<Trouble>, StepError> {
    let job = args.selection.job.as_ref();
    let by_path = args.pattern.contains('/');
    let mut troubles = Vec::new();
    let engine = cx.pipeline.engine(target);
    let copies = match select::all_copies(cx.pipeline, engine) {
        Ok(copies) => copies,
        Err(error) => {
            troubles.push(error.trouble);
            document.unreadable.push(Unreadable::tell(&target.name, None, error));
            return Ok(troubles);
        }
    };
    let mut last: BTreeMap<PathBuf, (Option<u64>, Option<DateTime<Utc>>)> = BTreeMap::new();
    for copy in copies {
        let wanted =
            copy.series.as_ref().is_some_and(|series| job.is_none_or(|job| series.job == *job));
        if !wanted || engine.unfinished(&copy).is_some() {
            continue;
        }
        let versions = &mut document.versions;
        let mut each = |entry: Entry| {
            let name = entry.path.file_name().unwrap_or(entry.path.as_os_str());
            let hit = if by_path {
                pattern.matches_path(&entry.path)
            } else {
                pattern.matches(&name.to_string_lossy())
            };
            if !hit {
                return;
            }
            let state = (entry.size, entry.modified);
            let same = last.insert(entry.path.clone(), state) == Some(state);
            if args.all || !same {
                versions.push(Version {
                    path: entry.path,
                    kind: entry.kind,
                    size: entry.size,
                    modified: entry.modified,
                    target: target.name.clone(),
                    copy: copy.id.clone(),
                    time: copy.time,
                });
            }
        };
        let read =
            bracketed(cx, engine, |engine, context| engine.contents(context, &copy, &mut each));
        if let Err(error) = read {
            if matches!(error.trouble, Trouble::Signal(_)) {
                return Err(error);
            }
            troubles.push(error.trouble);
            document.unreadable.push(Unreadable::tell(&target.name, Some(copy.id), error));
        }
    }
    Ok(troubles)
}
