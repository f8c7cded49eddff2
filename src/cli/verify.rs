//! `verify`: compares one copy with what it is of, or reads it back whole, as a restore would.

use clap::Args;
use serde::Serialize;

use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::SCHEMA;
use crate::pipeline::query;
use crate::pipeline::steps::maintain::{SHOWN, judge};
use crate::pipeline::verify::{Verified, verify};

use super::options::{CopyOptions, Global, OPENS_SESSION, Share, Verdict, job_name, share};
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
    /// Compare names and attributes with the snapshot that was sent, where that is still kept, and the content of this share
    /// of the files (copies of subvolumes, also on a server whose key may restore; all by default). Stored streams are
    /// compared as a whole, by the hash of what was sent
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_value = "100%", default_missing_value = "100%", value_parser = share)]
    read_data: Share,
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
    /// `ok`, `failed`, or `unverifiable`: it can be read, and there is nothing to compare it with.
    verdict: Option<&'a str>,
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
    let (verified, mut troubles) =
        setup.session(|cx| verify(cx, &query, &args.copy, args.read_data.0))?;
    let Verified { target, copy, report, verdict, unrecorded } = &verified;
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
            verdict: Some(verdict.name()),
            extent: Some(&report.extent),
            damage: &report.damage,
        })?;
    } else if !global.quiet || !troubles.is_empty() {
        render::text(&format!("{copy} in target {target}: {}", done.detail))?;
        // The first ones are in the line above.
        for damage in report.damage.iter().skip(SHOWN) {
            render::text(&format!("  {damage}"))?;
        }
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
            verdict: None,
            extent: None,
            damage: &[],
        })?;
    } else {
        render::text(&format!("would read {} in target {target}", copy.id))?;
    }
    Ok(Vec::new())
}
