//! `check` and `compact`: what belongs to targets, on request.

use clap::Args;
use serde::Serialize;

use crate::model::names::TargetName;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::{SCHEMA, StepReport};
use crate::model::target::{ReadData, Target};
use crate::pipeline::select;
use crate::pipeline::steps::maintain::{self, WhenBusy};
use crate::pipeline::steps::target::require_mount;
use crate::step::recorder::Recorder;

use super::setup::{Setup, Use};
use super::{Global, Selection, Verdict, render};

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

/// How much to read; a type of its own, since clap wants one that can be cloned and parsed.
#[derive(Debug, Clone, Copy)]
struct Share(ReadData);

fn share(text: &str) -> Result<Share, String> {
    let percent: f64 = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("expected a share such as 5%, not {text:?}"))?;
    if !(percent > 0.0 && percent <= 100.0) {
        return Err(format!("a share is above 0% and at most 100%, not {text}"));
    }
    Ok(Share(if percent == 100.0 { ReadData::All } else { ReadData::Percent(percent) }))
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
    carry_out(global, &args.selection, how, |cx, rec, target, damage| {
        let Some(engine) = cx.pipeline.engine(&target.name) else { return };
        let configured = target.check.as_ref().map_or(ReadData::None, |check| check.read_data);
        let extent = args.read_data.map_or(configured, |share| share.0);
        if let Some(report) = maintain::check(cx, rec, engine, extent, WhenBusy::Fail)
            && !report.damage.is_empty()
        {
            damage.push(Damage { target: target.name.clone(), found: report.damage });
        }
    })
}

/// Runs `compact`.
pub fn compact(global: &Global, args: &CompactArgs) -> Verdict {
    let how = if args.dry_run { Use::Plan } else { Use::Change };
    carry_out(global, &args.selection, how, |cx, rec, target, _| {
        if target.append_only {
            rec.say(true, format!("target {} is append-only: it is never compacted", target.name));
            return;
        }
        if let Some(engine) = cx.pipeline.engine(&target.name) {
            maintain::compact(cx, rec, engine, WhenBusy::Fail);
        }
    })
}

type Work<'w> = &'w mut dyn FnMut(
    crate::step::context::RunContext<'_>,
    &mut Recorder<'_>,
    &Target,
    &mut Vec<Damage>,
);

fn carry_out(
    global: &Global,
    selection: &Selection,
    how: Use,
    mut work: impl FnMut(
        crate::step::context::RunContext<'_>,
        &mut Recorder<'_>,
        &Target,
        &mut Vec<Damage>,
    ),
) -> Verdict {
    let work: Work<'_> = &mut work;
    let mut setup = Setup::new(global, how)?;
    let dry_run = setup.dry.is_some();
    if dry_run {
        // What would be told as it happens did not happen.
        setup = setup.quietly();
    }
    let job = selection.job.as_ref().map(|name| select::job(&setup.config, name)).transpose()?;
    let targets = select::targets(&setup.config, job, selection.target.as_ref())?;
    let mut document = Document {
        schema: SCHEMA,
        outcome: Outcome::Ok,
        steps: Vec::new(),
        damage: Vec::new(),
        planned: Vec::new(),
    };
    let troubles = setup.session(|cx| {
        let mut rec = Recorder::new(cx.pipeline.observer, None);
        for target in targets {
            if let Some(signal) = cx.host().stop_signal() {
                rec.troubles.push(Trouble::Signal(signal));
                break;
            }
            let mounted = rec.step("prepare", Some(&target.name), None, |_| {
                require_mount(cx.host(), target)?;
                Ok(((), crate::step::recorder::Done::ok("ready")))
            });
            if mounted.is_some() {
                work(cx, &mut rec, target, &mut document.damage);
            }
        }
        document.outcome = rec.outcome();
        document.steps = rec.steps;
        Ok(rec.troubles)
    })?;
    if let Some(error) = setup.unrecorded() {
        render::say(&format!("warning: {error}; that the targets were checked is not recorded"));
    }
    if let Some(dry) = &setup.dry {
        document.planned = dry.planned().iter().map(ToString::to_string).collect();
    }
    if global.json {
        render::json(&document)?;
        return Ok(troubles);
    }
    for line in &document.planned {
        render::text(line)?;
    }
    let told = |step: &&StepReport| {
        let fine = step.outcome == Outcome::Ok && global.quiet;
        (step.step != "prepare" || (dry_run && step.outcome != Outcome::Ok)) && !fine
    };
    for step in document.steps.iter().filter(told) {
        let target = step.target.as_ref().map(ToString::to_string).unwrap_or_default();
        let said = match step.outcome {
            // A prediction, not a result: it says what it would do.
            Outcome::Ok if dry_run => step.detail.clone(),
            _ => format!("{} ({})", step.outcome, step.detail),
        };
        render::text(&format!("{} {target}: {said}", step.step))?;
    }
    Ok(troubles)
}
