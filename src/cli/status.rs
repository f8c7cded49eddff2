//! `status`: what an administrator looks at in the morning.

use std::time::Duration;

use clap::Args;

use crate::model::names::JobName;
use crate::model::span;
use crate::pipeline;
use crate::pipeline::select;
use crate::report::status;

use super::options::{Global, Verdict, job_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only these jobs
    #[arg(value_name = "JOB", value_parser = job_name)]
    jobs: Vec<JobName>,
    /// How old the last good copy may be, such as 26h, instead of what the configuration says
    #[arg(long, value_name = "AGE", value_parser = span::parse)]
    max_age: Option<Duration>,
}

/// Runs the verb. What it says comes from history; only a target of which nothing is recorded is asked itself.
pub fn run(global: &Global, args: &StatusArgs) -> Verdict {
    let setup = Setup::new(global, Use::Report)?;
    let jobs = select::jobs(&setup.config, &args.jobs)?;
    let report = pipeline::status::status(setup.pipeline(), &jobs, args.max_age)?;
    if global.json {
        render::json(&report)?;
    } else {
        // Every locale that a machine of today has draws these; a dumb terminal does not.
        let unicode = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        render::text(&status::text(&report, unicode))?;
    }
    if report.entries.is_empty() {
        render::say(
            "stillpoint: the configuration names no job, so nothing is protected — see `stillpoint generate config`",
        );
    }
    Ok(report.troubles())
}
