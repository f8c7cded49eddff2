//! `run`: all jobs, or the named ones.

use clap::Args;

use crate::model::report::RunReport;
use crate::pipeline;
use crate::pipeline::publish::publish;
use crate::pipeline::select;
use crate::pipeline::trust::refuse_unfit_run;
use crate::step::hook::VARIABLES;

use super::options::{Global, Verdict, Wanted};
use super::setup::{Setup, Use};
use super::{plan, render};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub struct RunArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Show what would be done, change nothing (the same as plan)
    #[arg(long)]
    dry_run: bool,
}

/// Which jobs run when, and what hooks find in their environment.
fn after_help() -> String {
    let mut text = String::from(
        "Jobs run one after another, or as many at the same time as parallel in [settings] says; no two are ever at work\non one target. The targets of a job get their copies one after another, or as many at the same time as\nparallel-targets says.\n\nA hook finds in its environment:\n",
    );
    for (name, says) in VARIABLES {
        text.push_str(&format!("  {name:<21} {says}\n"));
    }
    text
}

/// Runs the verb.
pub fn run(global: &Global, args: &RunArgs) -> Verdict {
    if args.dry_run {
        return plan::plan(global, &args.wanted);
    }
    let setup = Setup::new(global, Use::Change)?;
    let scope = args.wanted.scope();
    let jobs = select::jobs_to_run(&setup.config, &args.wanted.jobs, scope)?;
    refuse_unfit_run(setup.pipeline(), &jobs, scope.target)?;
    let mut report = pipeline::run::run(setup.pipeline(), &jobs, scope);
    for failure in publish(setup.pipeline(), &mut report) {
        render::say(&format!("stillpoint: {failure}"));
    }
    if global.json {
        render::json(&report)?;
    } else if !global.quiet || report.exit_code != Some(0) {
        render::text(&summary(&report))?;
    }
    Ok(report.troubles)
}

/// What a person reads last: one line per job and target, and the sum.
pub fn summary(report: &RunReport) -> String {
    let mut text = String::new();
    for job in &report.jobs {
        for target in &job.targets {
            let item = target.item.as_deref().map(|item| format!("/{item}")).unwrap_or_default();
            let copy = target.copy.as_deref().unwrap_or("no copy");
            text.push_str(&format!(
                "{}{item} → {}: {} ({copy})\n",
                job.name, target.target, target.outcome
            ));
        }
        if job.targets.is_empty() {
            text.push_str(&format!("{}: {}\n", job.name, job.outcome));
        }
    }
    let code = report.exit_code.unwrap_or_default();
    text.push_str(&format!("run {}: {} (exit code {code})\n", report.run_id, report.outcome));
    text
}
