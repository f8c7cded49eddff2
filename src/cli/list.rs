//! `list`: copies, as the targets list them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::model::names::{JobName, MachineId, RunId, TargetName};
use crate::model::report::SCHEMA;
use crate::model::size;
use crate::pipeline::list::{Listed, list};
use crate::pipeline::select::Unread;

use super::options::{Global, Selection, Verdict};
use super::setup::{Setup, Use};
use super::{render, unread};

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    selection: Selection,
    /// List also what others made in the same repository, and unfinished copies
    #[arg(long)]
    all: bool,
}

/// One copy in the JSON document; the names are a contract.
#[derive(Debug, Serialize)]
struct Row<'a> {
    job: Option<&'a JobName>,
    item: Option<&'a str>,
    host: Option<&'a str>,
    target: &'a TargetName,
    id: &'a str,
    run: Option<&'a str>,
    time: DateTime<Utc>,
    size: Option<u64>,
    files: Option<u64>,
    tags: &'a [String],
    pinned: bool,
    healthy: Option<bool>,
    /// Another program made it, and nobody has compared it with what it is of.
    unproven: bool,
    /// It, or what it is a difference to, was found damaged when that was read last.
    damaged: bool,
    finished: bool,
    /// The machine whose mark it carries, where the listing says it.
    machine: Option<&'a MachineId>,
    /// Whether history says that this machine made or adopted it.
    ours: bool,
    in_the_future: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    copies: Vec<Row<'a>>,
    /// Targets that could not be listed, and why: their copies are missing above.
    unreadable: Vec<unread::Row<'a>>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &ListArgs) -> Verdict {
    let setup = Setup::new(global, Use::Inspect)?;
    let (job, target) = (args.selection.job.as_ref(), args.selection.target.as_ref());
    let listing = list(setup.pipeline(), job, target, args.all)?;
    for (target, why) in &listing.closed {
        render::say(&format!("warning: target {target} is closed: {why}"));
    }
    unread::warn(&listing.unread);
    let copies: Vec<Row<'_>> = listing.copies.iter().map(row).collect();
    if global.json {
        let unreadable = unread::rows(&listing.unread);
        render::json(&Document { schema: SCHEMA, copies, unreadable })?;
    } else {
        render::text(&table(&copies))?;
    }
    Ok(listing.unread.iter().filter_map(Unread::trouble).collect())
}

fn row(listed: &Listed) -> Row<'_> {
    let Listed { target, copy, finished, in_the_future } = listed;
    let series = copy.series.as_ref();
    Row {
        job: series.map(|series| &series.job),
        item: series.and_then(|series| series.item.as_deref()),
        host: series.map(|series| series.host.as_str()),
        target,
        id: &copy.id,
        run: copy.run.as_ref().map(RunId::as_str),
        time: copy.time,
        size: copy.size,
        files: copy.files,
        tags: &copy.tags,
        pinned: copy.pinned,
        healthy: copy.healthy,
        unproven: copy.unproven,
        damaged: copy.damaged,
        finished: *finished,
        machine: copy.machine.as_ref(),
        ours: copy.ours,
        in_the_future: *in_the_future,
    }
}

fn table(rows: &[Row<'_>]) -> String {
    if rows.is_empty() {
        return "no copies\n".into();
    }
    let hosts: BTreeSet<&str> = rows.iter().filter_map(|row| row.host).collect();
    let with_hosts = hosts.len() > 1;
    // Without any record there is no telling, and every line would say so.
    let any_ours = rows.iter().any(|row| row.ours);
    let cells = |row: &Row<'_>| {
        let job = row.job.map(|job| match row.item {
            Some(item) => format!("{job}/{item}"),
            None => job.to_string(),
        });
        let hexadecimal = row.id.len() == 64 && row.id.bytes().all(|b| b.is_ascii_hexdigit());
        let mut cells = vec![
            render::or_dash(job),
            row.target.to_string(),
            if hexadecimal { &row.id[..12] } else { row.id }.to_owned(),
            row.time.format("%Y-%m-%d %H:%M:%SZ").to_string(),
            render::or_dash(row.size.map(size::show)),
            render::or_dash(row.files),
            notes(row, any_ours).join(","),
        ];
        if with_hosts {
            cells.insert(1, render::or_dash(row.host));
        }
        cells
    };
    let mut header = vec!["JOB", "TARGET", "COPY", "TIME", "SIZE", "FILES", "NOTES"];
    if with_hosts {
        header.insert(1, "HOST");
    }
    render::table(&header, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// What else there is to say of a copy. Whose it is can be told where history knows `any_ours`.
fn notes(row: &Row<'_>, any_ours: bool) -> Vec<String> {
    let mut notes = row.tags.to_vec();
    let is_foreign = any_ours && !row.ours && row.job.is_some() && row.finished;
    for (is_so, note) in [
        (row.pinned, "pinned"),
        (row.healthy == Some(false), "incomplete"),
        (row.damaged, "damaged"),
        (row.unproven, "unproven"),
        (!row.finished, "unfinished"),
        (row.in_the_future, "in the future"),
        (is_foreign, "not this machine's"),
    ] {
        notes.extend(is_so.then(|| note.to_owned()));
    }
    notes
}
