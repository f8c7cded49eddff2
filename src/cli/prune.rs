//! `prune`: deletes what the policy does not keep, or the copies named, by exact id.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::model::names::TargetName;
use crate::model::report::SCHEMA;
use crate::pipeline::prune::{Request, Ruling, prune, scope};

use super::options::{Global, Selection, Verdict};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    selection: Selection,
    /// Delete exactly these copies of one target instead of asking the policy; the id of a run means all that
    /// it made
    #[arg(value_name = "COPY", conflicts_with_all = ["before", "between"])]
    copies: Vec<String>,
    /// Delete the copies before this time (2026-11-21 or 2026-11-21T02:03:04Z)
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "job")]
    before: Option<DateTime<Utc>>,
    /// Delete the copies between two times
    #[arg(long, value_names = ["TIME", "TIME"], num_args = 2, value_parser = moment, conflicts_with = "before", requires = "job")]
    between: Option<Vec<DateTime<Utc>>>,
    /// You have checked the copies: delete although one has no record or shrank, or the clock went back or leapt
    #[arg(long)]
    accept: bool,
    /// Show exactly what would be deleted, delete nothing
    #[arg(long)]
    dry_run: bool,
}

impl PruneArgs {
    fn request(&self) -> Request {
        Request {
            copies: self.copies.clone(),
            before: self.before,
            between: self.between.as_ref().map(|span| (span[0], span[1])),
            accept: self.accept,
            named: self.selection.target.is_some(),
            ..Request::default()
        }
    }
}

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc));
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S")
        .ok()
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
    naive.map(|time| time.and_utc()).ok_or_else(|| {
        format!("expected a time in UTC such as 2026-11-21 or 2026-11-21T02:03:04Z, not {text:?}")
    })
}

#[derive(Debug, Serialize)]
struct Document {
    schema: u32,
    dry_run: bool,
    decisions: Vec<Ruling>,
    deleted: Vec<String>,
    refusals: Vec<String>,
    /// What was done, or would be, where space must stay free.
    space: Vec<String>,
    /// Targets that were left out, being absent as they may be.
    absent: Vec<Absent>,
}

#[derive(Debug, Serialize)]
struct Absent {
    target: TargetName,
    reason: String,
}

/// Runs the verb.
pub fn run(global: &Global, args: &PruneArgs) -> Verdict {
    let setup = Setup::new(global, if args.dry_run { Use::Plan } else { Use::Change })?;
    let (job, target) = (args.selection.job.as_ref(), args.selection.target.as_ref());
    let scope = scope(&setup.config, job, target, args.accept)?;
    let (pruned, mut troubles) = setup.session(|cx| prune(cx, &args.request(), scope))?;
    for failure in &pruned.failures {
        render::say(&format!("stillpoint: {failure}"));
    }
    troubles.extend(pruned.troubles);
    let document = Document {
        schema: SCHEMA,
        dry_run: args.dry_run,
        decisions: pruned.decisions,
        deleted: pruned.deleted,
        refusals: pruned.refusals,
        space: pruned.space,
        absent: (pruned.absent.into_iter())
            .map(|(target, reason)| Absent { target, reason })
            .collect(),
    };
    if global.json {
        render::json(&document)?;
    } else {
        told(&document, args.dry_run || !global.quiet)?;
    }
    Ok(troubles)
}

/// What a person reads: each decision with its reason, what was refused, and the sum.
fn told(document: &Document, is_told: bool) -> anyhow::Result<()> {
    let row = |row: &Ruling| {
        let item = row.item.as_ref().map(|item| format!("/{item}")).unwrap_or_default();
        vec![
            match (row.delete, row.if_needed) {
                (true, _) => "delete",
                (false, true) => "keep?",
                (false, false) => "keep",
            }
            .into(),
            row.target.to_string(),
            format!("{}{item}", row.job),
            row.copy.clone(),
            row.reason.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = document.decisions.iter().map(row).collect();
    if !rows.is_empty() && is_told {
        render::text(&render::table(&["", "TARGET", "JOB", "COPY", "REASON"], &rows))?;
    }
    for line in document.space.iter().filter(|_| is_told) {
        render::text(line)?;
    }
    for Absent { target, reason } in &document.absent {
        render::say(&format!("target {target} is skipped: {reason}"));
    }
    for refusal in &document.refusals {
        render::say(&format!("warning: {refusal}"));
    }
    if !is_told {
        return Ok(());
    }
    let count = document.decisions.iter().filter(|row| row.delete).count();
    render::text(&match document.dry_run {
        true => format!("{count} would be deleted"),
        false => format!("{} deleted", document.deleted.len()),
    })
}
