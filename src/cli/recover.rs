//! `recover`: releases what crashed runs left behind.

use clap::Args;
use serde::Serialize;

use crate::capture::workplaces;
use crate::host::Action;
use crate::model::names::RunId;
use crate::model::report::SCHEMA;
use crate::pipeline;
use crate::step::error::StepError;

use super::options::{Global, Verdict};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Give up what can never be released of this crashed run and would be tried forever: its pending hooks, which
    /// are not run, and locks of targets that are no longer configured. Do by hand what they had to do; everything
    /// else is released
    #[arg(long, alias = "give-up-hooks", value_name = "RUN", value_parser = run_id)]
    give_up: Option<RunId>,
}

fn run_id(text: &str) -> Result<RunId, String> {
    RunId::try_from(text.to_owned())
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    done: Vec<String>,
    failures: Vec<String>,
}

/// Runs the verb.
pub fn run(global: &Global, args: &RecoverArgs) -> Verdict {
    let setup = Setup::new(global, Use::Recover)?;
    let settings = &setup.config.settings;
    let locks = settings.runtime_dir.join("locks");
    // After a reboot there is nothing in /run, and what is released needs all of it.
    for path in [settings.runtime_dir.clone(), locks].into_iter().chain(workplaces(settings)) {
        setup.host.act(&Action::EnsureDirectory { path, mode: 0o700 }).map_err(StepError::from)?;
    }
    let recovery = match &args.give_up {
        None => pipeline::recover::recover(setup.pipeline())?,
        Some(run) => pipeline::recover::give_up(setup.pipeline(), run)?,
    };
    let mut recovery = recovery;
    recovery.failures.append(&mut recovery.waiting);
    let troubles: Vec<_> = recovery.failures.iter().map(|failure| failure.trouble).collect();
    let document = Document {
        schema: SCHEMA,
        done: recovery.done,
        failures: recovery.failures.into_iter().map(|failure| failure.message).collect(),
    };
    if global.json {
        render::json(&document)?;
        return Ok(troubles);
    }
    for line in &document.done {
        render::text(line)?;
    }
    for line in &document.failures {
        render::say(&format!("stillpoint: {line}"));
    }
    if document.done.is_empty() && document.failures.is_empty() && !global.quiet {
        render::text("nothing to release")?;
    }
    Ok(troubles)
}
