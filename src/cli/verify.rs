//! `verify`: reads one copy back whole, as a restore would.

use clap::Args;
use serde::Serialize;

use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::SCHEMA;
use crate::pipeline::select;
use crate::pipeline::steps::maintain::judge;
use crate::pipeline::verify::verify;
use crate::step::error::StepError;

use super::options::{CopyOptions, Global, Verdict, job_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The job whose copy to read
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// The copy: an id or a part of it, a run id, or latest
    #[arg(value_name = "COPY", default_value = "latest")]
    copy: String,
    #[command(flatten)]
    of: CopyOptions,
    /// Show what would be read, read nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    job: &'a JobName,
    target: &'a TargetName,
    copy: &'a str,
    outcome: Option<Outcome>,
    extent: Option<&'a str>,
    damage: &'a [String],
}

/// Runs the verb.
pub fn run(global: &Global, args: &VerifyArgs) -> Verdict {
    let setup = Setup::new(
        global,
        if args.dry_run { Use::Look } else { Use::ReadBack { dry_run: false } },
    )?;
    let pipeline = setup.pipeline();
    let query = args.of.query(&args.job);
    if args.dry_run {
        let (engine, copy) = select::copy(pipeline, &query, &args.copy)?;
        let target = &engine.target().name;
        if global.json {
            render::json(&Document {
                schema: SCHEMA,
                job: &args.job,
                target,
                copy: &copy.id,
                outcome: None,
                extent: None,
                damage: &[],
            })?;
        } else {
            render::text(&format!("would read {} in target {target}", copy.id))?;
        }
        return Ok(Vec::new());
    }
    let mut done = None;
    let mut troubles = setup.session(|cx| {
        let (engine, copy) = select::copy(pipeline, &query, &args.copy)?;
        let (read, unwritten) = verify(cx, engine, &copy)?;
        done = Some((&engine.target().name, copy, read));
        Ok(unwritten.map(unrecorded).into_iter().collect())
    })?;
    let Some((target, copy, report)) = done else { return Ok(troubles) };
    let done = judge(&report);
    troubles.extend(done.trouble);
    if global.json {
        render::json(&Document {
            schema: SCHEMA,
            job: &args.job,
            target,
            copy: &copy.id,
            outcome: Some(done.outcome),
            extent: Some(&report.extent),
            damage: &report.damage,
        })?;
    } else if !global.quiet || !troubles.is_empty() {
        render::text(&format!("{} in target {target}: {}", copy.id, done.detail))?;
    }
    Ok(troubles)
}

/// What was found stands, and is not recorded.
fn unrecorded(error: StepError) -> Trouble {
    render::say(&format!("warning: {error}; what verify found is not recorded"));
    Trouble::Warning
}
