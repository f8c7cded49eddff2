//! `check` and `compact`: maintenance of targets, on request.

use clap::Args;
use serde::Serialize;

use crate::model::names::TargetName;
use crate::model::outcome::Outcome;
use crate::model::report::{SCHEMA, StepReport};
use crate::pipeline::maintenance::{Work, maintain};
use crate::pipeline::select;

use super::options::{Global, Selection, Share, Verdict, share};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    selection: Selection,
    /// Read all data back, or a share such as 5%; without it the target's own setting counts
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "100%", value_parser = share)]
    read_data: Option<Share>,
    /// Show what would be done, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `compact`.
#[derive(Debug, Args)]
pub struct CompactArgs {
    #[command(flatten)]
    selection: Selection,
    /// Show what would be done, change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    outcome: Outcome,
    steps: Vec<StepReport>,
    damage: Vec<Damage>,
    planned: Vec<String>,
}

#[derive(Serialize)]
struct Damage {
    target: TargetName,
    found: Vec<String>,
}

/// Runs `check`.
pub fn run(global: &Global, args: &CheckArgs) -> Verdict {
    let how = Use::ReadBack { dry_run: args.dry_run };
    let work = Work::Check(args.read_data.map(|share| share.0));
    carry_out(global, &args.selection, how, work)
}

/// Runs `compact`.
pub fn compact(global: &Global, args: &CompactArgs) -> Verdict {
    let how = if args.dry_run { Use::Plan } else { Use::Change };
    carry_out(global, &args.selection, how, Work::Compact)
}

fn carry_out(global: &Global, selection: &Selection, how: Use, work: Work) -> Verdict {
    let mut setup = Setup::new(global, how)?;
    let dry_run = setup.dry.is_some();
    if dry_run {
        // What would be told as it happens did not happen.
        setup = setup.without_progress();
    }
    let job = selection.job.as_ref().map(|name| select::job(&setup.config, name)).transpose()?;
    let targets = select::targets(&setup.config, job, selection.target.as_ref())?;
    let is_named = selection.target.is_some();
    let (done, mut troubles) = setup.session(|cx| Ok(maintain(cx, &targets, work, is_named)))?;
    troubles.extend(done.troubles);
    if let Some(error) = setup.unrecorded() {
        render::say(&format!("warning: {error}; the check of the targets is not recorded"));
    }
    let planned = setup.dry.iter().flat_map(|dry| dry.planned());
    let document = Document {
        schema: SCHEMA,
        outcome: done.outcome,
        steps: done.steps,
        damage: done.damage.into_iter().map(|(target, found)| Damage { target, found }).collect(),
        planned: planned.map(|effect| effect.to_string()).collect(),
    };
    if global.json {
        render::json(&document)?;
    } else {
        told(&document, dry_run, global.quiet)?;
    }
    Ok(troubles)
}

fn told(document: &Document, dry_run: bool, quiet: bool) -> anyhow::Result<()> {
    for line in &document.planned {
        render::text(line)?;
    }
    let is_told = |step: &&StepReport| {
        let fine = step.outcome == Outcome::Ok && quiet;
        // Preparing a target is told as it happens, but in a dry run it does not happen.
        (step.step != "prepare" || dry_run && step.outcome != Outcome::Ok) && !fine
    };
    for step in document.steps.iter().filter(is_told) {
        let target = step.target.as_ref().map(ToString::to_string).unwrap_or_default();
        let said = if dry_run && step.outcome == Outcome::Ok {
            // A prediction, not a result: it says what it would do.
            step.detail.clone()
        } else {
            format!("{} ({})", step.outcome, step.detail)
        };
        render::text(&format!("{} {target}: {said}", step.step))?;
    }
    Ok(())
}
