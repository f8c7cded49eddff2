//! `pin` and `unpin`: copies that no policy deletes.

use clap::Args;
use serde::Serialize;

use crate::model::names::{JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::pipeline::pin::{pin, word};
use crate::pipeline::query;
use crate::step::error::StepError;

use super::options::{Global, Verdict, job_name, target_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `pin` and `unpin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// The job whose copy is meant
    #[arg(value_name = "JOB", value_parser = job_name)]
    job: JobName,
    /// The copy: an id or a part of it, a run id, or latest
    #[arg(value_name = "COPY")]
    copy: String,
    /// The copy of this target
    #[arg(long, value_name = "TARGET", value_parser = target_name)]
    target: Option<TargetName>,
    /// The subvolume, by its path in the job, or the stream of a commands job; files for copies of files
    #[arg(long, value_name = "ITEM")]
    item: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    target: &'a TargetName,
    copy: &'a str,
    pinned: bool,
}

/// Runs either verb.
pub fn run(global: &Global, args: &PinArgs, pinned: bool) -> Verdict {
    let setup = Setup::new(global, Use::Change)?;
    let pipeline = setup.pipeline();
    let query = query::Query {
        job: &args.job,
        host: None,
        target: args.target.as_ref(),
        item: args.item.as_deref(),
    };
    let (engine, copy) = query::copy(pipeline, &query, &args.copy)?;
    let target = engine.target();
    let ours = setup.config.host_of(&args.job);
    if copy.series.as_ref().is_none_or(|of| of.host != *ours || of.job != args.job) {
        let text = format!(
            "{} is no copy of job {} on host {ours}, so it is not marked",
            copy.id, args.job
        );
        return Err(StepError::new(Trouble::Usage, text).into());
    }
    let (id, troubles) = setup.session(|cx| pin(cx, engine, &copy, pinned))?;
    if global.json {
        render::json(&Document { schema: SCHEMA, target: &target.name, copy: &id, pinned })?;
    } else {
        render::done(global, &format!("{id} in target {} is {}", target.name, word(pinned)))?;
    }
    Ok(troubles)
}
