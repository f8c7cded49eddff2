//! `find`: the versions of a file across copies.

use clap::Args;
use serde::Serialize;

use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::size;
use crate::pipeline::find::{FilePattern, Search, Version, find};
use crate::pipeline::select::{self, Unread};
use crate::step::error::StepError;

use super::options::{Global, OPENS_SESSION, Selection, Verdict};
use super::setup::{Setup, Use};
use super::unread::Row;
use super::{render, unread};

/// Arguments of `find`.
#[derive(Debug, Args)]
#[command(after_help = OPENS_SESSION)]
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

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    versions: &'a [Version],
    /// What could not be read, and why: versions in it are missing above.
    unreadable: Vec<Row<'a>>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &FindArgs) -> Verdict {
    let pattern = FilePattern::new(&args.pattern).map_err(|error| {
        let text = format!("{} is not a pattern: {error}", args.pattern);
        StepError::new(Trouble::Usage, text)
    })?;
    let setup = Setup::new(global, Use::ReadBack { dry_run: false })?;
    let (job, target) = (args.selection.job.as_ref(), args.selection.target.as_ref());
    // A name that is unknown is told before anything is opened.
    select::targets_to_read(&setup.config, job, target)?;
    let search = Search { pattern, job, target, every_copy: args.all };
    let (found, mut troubles) = setup.session(|cx| find(cx, &search))?;
    troubles.extend(found.unread.iter().filter_map(Unread::trouble));
    unread::warn(&found.unread);
    if global.json {
        let unreadable = unread::rows(&found.unread);
        render::json(&Document { schema: SCHEMA, versions: &found.versions, unreadable })?;
    } else if found.versions.is_empty() {
        let place = if found.unread.is_empty() { "" } else { " in what could be read" };
        render::text(&format!("nothing matches {}{place}", args.pattern))?;
    } else {
        render::text(&table(&found.versions))?;
    }
    Ok(troubles)
}

fn table(versions: &[Version]) -> String {
    let row = |version: &Version| {
        vec![
            version.path.shown().to_string(),
            render::or_dash(version.size.map(size::show)),
            render::or_dash(version.modified.map(|time| time.format("%Y-%m-%d %H:%M:%SZ"))),
            version.target.to_string(),
            version.copy.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = versions.iter().map(row).collect();
    render::table(&["PATH", "SIZE", "MODIFIED", "TARGET", "FIRST IN COPY"], &rows)
}
