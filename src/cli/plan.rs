//! `plan`: the same code as `run` on a machine that only notes what it is told to change.

use std::sync::{Arc, Mutex};

use clap::Args;
use serde::Serialize;

use crate::host::dry::{DryHost, PlannedEffect};
use crate::model::event::{Event, Observer, StepPlace};
use crate::model::names::{JobName, TargetName};
use crate::model::report::{RunReport, SCHEMA};
use crate::pipeline;
use crate::pipeline::select;
use crate::pipeline::trust::refuse_unfit_run;

use super::options::{Global, Verdict, Wanted};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    wanted: Wanted,
}

/// What one step would do.
#[derive(Debug, Clone, Serialize)]
struct PlannedStep {
    job: Option<JobName>,
    target: Option<TargetName>,
    item: Option<String>,
    step: &'static str,
    outcome: &'static str,
    detail: String,
    effects: Vec<PlannedEffect>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    dry_run: bool,
    steps: &'a [PlannedStep],
    #[serde(rename = "run")]
    report: &'a RunReport,
}

/// Assigns what the dry machine noted to the step in which it was noted.
struct StepEffects {
    dry: Arc<DryHost>,
    steps: Arc<Mutex<(usize, Vec<PlannedStep>)>>,
}

impl Observer for StepEffects {
    fn on(&self, event: &Event) {
        let Event::StepFinished { place, outcome, detail, .. } = event else { return };
        let mut state = self.steps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let effects: Vec<PlannedEffect> = self.dry.planned().into_iter().skip(state.0).collect();
        state.0 += effects.len();
        let StepPlace { job, target, item, step } = place.clone();
        state.1.push(PlannedStep {
            job,
            target,
            item,
            step,
            outcome: outcome.word(),
            detail: detail.clone(),
            effects,
        });
    }
}

/// Runs the verb.
pub fn run(global: &Global, args: &PlanArgs) -> Verdict {
    plan(global, &args.wanted)
}

/// Shows what `run` would do with these jobs.
pub fn plan(global: &Global, wanted: &Wanted) -> Verdict {
    let mut setup = Setup::new(global, Use::Plan)?.without_progress();
    let steps = Arc::new(Mutex::new((0, Vec::new())));
    if let Some(dry) = setup.dry.clone() {
        setup.watch(Box::new(StepEffects { dry, steps: Arc::clone(&steps) }));
    }
    let scope = wanted.scope();
    let jobs = select::jobs_to_run(&setup.config, &wanted.jobs, scope)?;
    refuse_unfit_run(setup.pipeline(), &jobs, scope.target)?;
    let report = pipeline::run::run(setup.pipeline(), &jobs, scope);
    let steps = steps.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone();
    if global.json {
        render::json(&Document { schema: SCHEMA, dry_run: true, steps: &steps, report: &report })?;
    } else {
        render::text(&shown(&steps, &report))?;
    }
    Ok(report.troubles)
}

fn shown(steps: &[PlannedStep], report: &RunReport) -> String {
    let mut text = String::from("Nothing is changed. A run would do this:\n");
    let mut last_job: Option<&JobName> = None;
    for step in steps {
        if step.job.as_ref() != last_job {
            let heading = step
                .job
                .as_ref()
                .map_or("targets, after the jobs".into(), |job| format!("job {job}"));
            text.push_str(&format!("\n{heading}\n"));
            last_job = step.job.as_ref();
        }
        let target = step.target.as_ref().map(|target| format!(" {target}")).unwrap_or_default();
        let item = step.item.as_ref().map(|item| format!("/{item}")).unwrap_or_default();
        let marker =
            if step.outcome == "ok" { String::new() } else { format!(" [{}]", step.outcome) };
        let detail = render::hanging(&step.detail, "    ");
        text.push_str(&format!("  {}{target}{item}{marker}: {detail}\n", step.step));
        for effect in &step.effects {
            for line in effect.to_string().lines() {
                text.push_str(&format!("      {line}\n"));
            }
        }
    }
    for warning in &report.warnings {
        text.push_str(&format!("\nwarning: {}\n", render::hanging(warning, "  ")));
    }
    text
}
