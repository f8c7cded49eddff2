//! `verify`: reads one copy back whole, as a restore would.

use clap::Args;
use serde::Serialize;

use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::SCHEMA;
use crate::pipeline::query;
use crate::pipeline::steps::maintain::judge;
use crate::pipeline::verify::{Verified, verify};

use super::options::{CopyOptions, Global, OPENS_SESSION, Verdict, job_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = OPENS_SESSION)]
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
    if args.dry_run {
        return show_choice(global, args);
    }
    let setup = Setup::new(global, Use::ReadBack { dry_run: false })?;
    let query = args.of.query(&args.job);
    let (verified, mut troubles) = setup.session(|cx| verify(cx, &query, &args.copy))?;
    let Verified { target, copy, report, unrecorded } = &verified;
    if let Some(error) = unrecorded {
        // What was found stands all the same.
        render::say(&format!("warning: {error}; what verify found is not recorded"));
        troubles.push(Trouble::Warning);
    }
    let done = judge(report);
    troubles.extend(done.trouble);
    if global.json {
        render::json(&Document {
            schema: SCHEMA,
            job: &args.job,
            target,
            copy,
            outcome: Some(done.outcome),
            extent: Some(&report.extent),
            damage: &report.damage,
        })?;
    } else if !global.quiet || !troubles.is_empty() {
        render::text(&format!("{copy} in target {target}: {}", done.detail))?;
    }
    Ok(troubles)
}

/// Shows which copy would be read.
fn show_choice(global: &Global, args: &VerifyArgs) -> Verdict {
    let setup = Setup::new(global, Use::Inspect)?;
    let (engine, copy) = query::copy(setup.pipeline(), &args.of.query(&args.job), &args.copy)?;
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
    Ok(Vec::new())
}
