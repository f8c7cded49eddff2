//! `list`: copies, as the targets list them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::model::copy::{CLOCK_SLACK, Copy};
use crate::model::job::Config;
use crate::model::names::{JobName, MachineId, TargetName};
use crate::model::report::SCHEMA;
use crate::model::size;
use crate::model::target::Target;
use crate::pipeline::select;
use crate::report::closed::told;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::options::{Global, Selection, Verdict};
use super::render;
use super::setup::{Setup, Use};
use super::unreadable::Unreadable;

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    selection: Selection,
    /// List what others made in the same repository too, and unfinished copies
    #[arg(long)]
    all: bool,
}

/// One copy in the JSON document; the names are a contract.
#[derive(Debug, Serialize)]
struct Row {
    job: Option<JobName>,
    item: Option<String>,
    host: Option<String>,
    target: TargetName,
    id: String,
    run: Option<String>,
    time: DateTime<Utc>,
    size: Option<u64>,
    files: Option<u64>,
    tags: Vec<String>,
    pinned: bool,
    healthy: Option<bool>,
    finished: bool,
    /// The machine whose mark it carries, where the listing says it.
    machine: Option<MachineId>,
    /// Whether history says that this machine made or adopted it.
    ours: bool,
    in_the_future: bool,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    copies: Vec<Row>,
    /// Targets that could not be listed, and why: their copies are missing above.
    unreadable: Vec<Unreadable>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &ListArgs) -> Verdict {
    let setup = Setup::new(global, Use::Look)?;
    let pipeline = setup.pipeline();
    let job = args.selection.job.as_ref();
    let targets = targets(&setup.config, &args.selection)?;
    let now = setup.host.now();
    let mut document = Document { schema: SCHEMA, copies: Vec::new(), unreadable: Vec::new() };
    let mut troubles = Vec::new();
    for target in targets {
        let engine = pipeline.engine(target);
        match select::all_copies(pipeline, engine) {
            Ok(copies) => {
                warn_if_closed(pipeline, target)?;
                for copy in copies {
                    let finished = engine.unfinished(&copy).is_none();
                    let ours = copy
                        .series
                        .as_ref()
                        .is_some_and(|series| job.is_none_or(|job| series.job == *job));
                    if args.all || (ours && finished) {
                        document.copies.push(row(&target.name, copy, finished, now));
                    }
                }
            }
            Err(error) => {
                troubles.push(error.trouble);
                document.unreadable.push(Unreadable::tell(&target.name, None, error));
            }
        }
    }
    if global.json {
        render::json(&document)?;
    } else {
        render::text(&shown(&document.copies))?;
    }
    Ok(troubles)
}

/// Says why nothing is deleted in a target, as far as it was found before.
fn warn_if_closed(pipeline: Pipeline<'_>, target: &Target) -> Result<(), StepError> {
    let Some(history) = pipeline.history else { return Ok(()) };
    let closures = history.closures(&target.name)?;
    if !closures.is_empty() {
        let why = told(&target.name, &closures);
        render::say(&format!("warning: target {} is closed: {why}", target.name));
    }
    Ok(())
}

/// The targets that a selection means; a job that is not in the configuration (any more) is found in the one named.
pub fn targets<'a>(
    config: &'a Config,
    selection: &Selection,
) -> Result<Vec<&'a Target>, StepError> {
    match &selection.job {
        Some(job) => select::targets_of(config, job, selection.target.as_ref()),
        None => select::targets(config, None, selection.target.as_ref()),
    }
}

fn row(target: &TargetName, copy: Copy, finished: bool, now: DateTime<Utc>) -> Row {
    let in_the_future = copy.is_in_the_future(now, CLOCK_SLACK);
    let series = copy.series;
    Row {
        job: series.as_ref().map(|series| series.job.clone()),
        item: series.as_ref().and_then(|series| series.item.clone()),
        host: series.as_ref().map(|series| series.host.to_string()),
        target: target.clone(),
        id: copy.id,
        run: copy.run.map(String::from),
        time: copy.time,
        size: copy.size,
        files: copy.files,
        tags: copy.tags,
        pinned: copy.pinned,
        healthy: copy.healthy,
        finished,
        machine: copy.machine,
        ours: copy.ours,
        in_the_future,
    }
}

fn shown(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no copies\n".into();
    }
    let hosts: BTreeSet<&str> = rows.iter().filter_map(|row| row.host.as_deref()).collect();
    let with_hosts = hosts.len() > 1;
    // Without any record there is no telling, and every line would say so.
    let any_ours = rows.iter().any(|row| row.ours);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let job = row.job.as_ref().map(|job| match &row.item {
                Some(item) => format!("{job}/{item}"),
                None => job.to_string(),
            });
            let hexadecimal = row.id.len() == 64 && row.id.bytes().all(|b| b.is_ascii_hexdigit());
            let mut notes = row.tags.clone();
            if row.pinned {
                notes.push("pinned".into());
            }
            if row.healthy == Some(false) {
                notes.push("incomplete".into());
            }
            if !row.finished {
                notes.push("unfinished".into());
            }
            if row.in_the_future {
                notes.push("in the future".into());
            }
            if any_ours && !row.ours && row.job.is_some() && row.finished {
                notes.push("not this machine's".into());
            }
            let mut cells = vec![
                render::or_dash(job),
                row.target.to_string(),
                if hexadecimal { row.id[..12].to_owned() } else { row.id.clone() },
                row.time.format("%Y-%m-%d %H:%M:%SZ").to_string(),
                render::or_dash(row.size.map(size::show)),
                render::or_dash(row.files),
                notes.join(","),
            ];
            if with_hosts {
                cells.insert(1, render::or_dash(row.host.as_deref()));
            }
            cells
        })
        .collect();
    let mut header = vec!["JOB", "TARGET", "COPY", "TIME", "SIZE", "FILES", "NOTES"];
    if with_hosts {
        header.insert(1, "HOST");
    }
    render::table(&header, &cells)
}
