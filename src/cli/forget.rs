//! `forget-target`: gives up a target whose disk is lost.

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::model::names::TargetName;
use crate::model::report::SCHEMA;
use crate::model::size::counted;
use crate::pipeline::forget::{Loss, forget, look};

use super::confirm::{Consent, confirm};
use super::options::{Global, Verdict, target_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `forget-target`.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The target; while it is still in the configuration, its disk must be away
    #[arg(value_name = "TARGET", value_parser = target_name)]
    target: TargetName,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show what would be given up, change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    dry_run: bool,
    target: &'a TargetName,
    /// Recorded copies that do not count any more.
    copies: usize,
    /// The moment for which the newest of them stands.
    newest: Option<DateTime<Utc>>,
    /// Ids of copies that were pinned in history alone.
    pins: &'a [String],
    /// Snapshots on this machine that the next run releases.
    snapshots: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    job: &'a str,
    item: Option<&'a str>,
    run: &'a str,
}

/// Runs the verb.
pub fn run(global: &Global, args: &ForgetArgs) -> Verdict {
    let setup = Setup::new(global, if args.dry_run { Use::Plan } else { Use::Change })?;
    let (pipeline, target) = (setup.pipeline(), &args.target);
    let loss = look(pipeline, target)?;
    let is_silent = global.quiet && args.yes;
    if !(global.json || is_silent) {
        render::text(&shown(target, &loss))?;
    }
    if !args.dry_run {
        let unasked = format!(
            "nothing was forgotten: no copy in target {target} would count any more — if its disk is lost for good, use --yes"
        );
        let question = format!("No copy in target {target} will count any more. Forget it?");
        confirm(args.yes, Consent::Letter, &question, &unasked, "nothing was forgotten")?;
        forget(pipeline, target)?;
    }
    if global.json {
        render::json(&document(args, &loss))?;
    } else if args.dry_run {
        render::text(&format!("target {target} would be forgotten"))?;
    } else {
        let configured = match setup.config.target(target) {
            Some(_) => {
                "; it is still in the configuration: take it out, or `stillpoint init` it on another disk"
            }
            None => "",
        };
        render::done(global, &format!("target {target} is forgotten{configured}"))?;
    }
    Ok(Vec::new())
}

fn document<'a>(args: &'a ForgetArgs, loss: &'a Loss) -> Document<'a> {
    let row = |kept: &'a crate::history::KeptCapture| Row {
        job: kept.series.job.as_str(),
        item: kept.series.item.as_deref(),
        run: kept.run.as_str(),
    };
    Document {
        schema: SCHEMA,
        dry_run: args.dry_run,
        target: &args.target,
        copies: loss.copies.len(),
        newest: loss.copies.first().map(|copy| copy.time),
        pins: &loss.pins,
        snapshots: loss.snapshots.iter().map(row).collect(),
    }
}

fn shown(target: &TargetName, loss: &Loss) -> String {
    let copies = counted(loss.copies.len() as u64, "copy", "copies");
    let newest = loss.copies.first().map_or_else(String::new, |copy| {
        format!(", the newest of {}", copy.time.format("%Y-%m-%d %H:%M:%SZ"))
    });
    let mut text = format!("target {target}: {copies} recorded{newest}\n");
    for kept in &loss.snapshots {
        text.push_str(&format!(
            "  the snapshot of {} by run {} stays for it alone: the next run releases it\n",
            kept.series, kept.run
        ));
    }
    for id in &loss.pins {
        text.push_str(&format!("  the pin of {id}, which history alone holds\n"));
    }
    text
}
