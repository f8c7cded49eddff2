//! A run: its jobs in turn, then what their targets need, then the record of it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::history::room;
use crate::host::ActError;
use crate::model::event::Event;
use crate::model::job::{Job, Scope};
use crate::model::names::{RunId, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::RunReport;
use crate::model::shown::Show;

use super::job::not_begun;
use super::make_room::make_room;
use super::session::{LedgerDirectory, session};
use super::steps::maintain::maintain;
use super::turns::run_jobs;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;
use crate::step::kept;
use crate::step::recorder::Recorder;

/// Runs jobs and answers with the record. Nothing that goes wrong is an error here: it is in the record.
pub fn run(pipeline: Pipeline<'_>, jobs: &[&Job], scope: Scope<'_>) -> RunReport {
    let run = RunId::from_bytes(pipeline.host.random());
    let clock = Instant::now();
    pipeline.observer.on(&Event::RunStarted {
        run: run.clone(),
        jobs: jobs.iter().map(|job| job.name.clone()).collect(),
    });
    let mut report = RunReport::begun(run.clone(), pipeline.host.now());
    let ended = room_for_records(pipeline).and_then(|()| {
        session(pipeline, &run, LedgerDirectory::State, |cx| {
            carry_out(cx, jobs, scope, &mut report)
        })
    });
    let maintained = match ended {
        Ok((maintained, cleanup)) => {
            for line in cleanup.recovered {
                note(pipeline, &mut report, line);
            }
            for left in cleanup.leftovers {
                report.troubles.push(left.trouble);
                note(pipeline, &mut report, left.message);
            }
            maintained
        }
        Err(StepError { trouble, message }) => {
            report.troubles.push(trouble);
            note(pipeline, &mut report, message);
            Outcome::Failed
        }
    };
    // Where nothing could be begun, no job is missing from the record either.
    let told = report.jobs.len();
    report.jobs.extend(jobs.iter().skip(told).map(|job| not_begun(pipeline, job, scope)));
    report.troubles.extend(pipeline.host.stop_signal().map(Trouble::Signal));
    report.outcome = outcome(&report, maintained);
    report.settle_exit_code();
    report.finished = pipeline.host.now();
    if let Err(error) = pipeline.remember(|history| history.record_run(&report)) {
        report.warned();
        note(pipeline, &mut report, StepError::from(error).message);
    }
    let (outcome, elapsed) = (report.outcome.clone(), clock.elapsed());
    pipeline.observer.on(&Event::RunFinished { run, outcome, elapsed });
    report
}

/// The jobs, then what their targets need, one target after another. Answers how the latter ended.
fn carry_out(
    cx: RunContext<'_>,
    jobs: &[&Job],
    scope: Scope<'_>,
    report: &mut RunReport,
) -> Outcome {
    let mut served: BTreeMap<TargetName, bool> = BTreeMap::new();
    for (job, result) in jobs.iter().zip(run_jobs(cx, jobs, scope)) {
        let Some(result) = result else {
            report.jobs.push(not_begun(cx.pipeline, job, scope));
            continue;
        };
        report.jobs.push(result.report);
        report.troubles.extend(result.troubles);
        report.warnings.extend(result.warnings);
        for (target, deleted) in result.served {
            *served.entry(target).or_default() |= deleted;
        }
    }
    let mut rec = Recorder::new(cx.pipeline.observer, None);
    if cx.host().stop_signal().is_none() {
        kept::tell_of_unnamed(cx, &mut rec);
    }
    for target in &cx.config().targets {
        let Some(deleted) = served.get(&target.name) else { continue };
        if cx.host().stop_signal().is_none() {
            let deleted = make_room(cx, &mut rec, target, *deleted, &mut report.jobs);
            maintain(cx, &mut rec, cx.pipeline.engine(target), deleted);
        }
    }
    let outcome = rec.outcome();
    report.maintenance = rec.steps;
    report.troubles.extend(rec.troubles);
    report.warnings.extend(rec.warnings);
    outcome
}

/// The worst of the jobs' outcomes and of the maintenance's.
fn outcome(report: &RunReport, maintained: Outcome) -> Outcome {
    if report.troubles.iter().any(|trouble| matches!(trouble, Trouble::Signal(_))) {
        return Outcome::Interrupted;
    }
    // One job that a hook left out does not make the run a skipped one; all of them do.
    let is_skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(_));
    let all_skipped = report.jobs.iter().all(|job| is_skipped(&job.outcome));
    let worst = report
        .jobs
        .iter()
        .filter(|job| all_skipped || !is_skipped(&job.outcome))
        .fold(maintained, |worst, job| worst.worst(job.outcome.clone()));
    match worst {
        Outcome::Ok if report.troubles.contains(&Trouble::Cleanup) => Outcome::Warning,
        worst => worst,
    }
}

/// Refuses to begin where the copies could be made and nothing of them be recorded any more: retention would take
/// them for unfinished ones.
fn room_for_records(pipeline: Pipeline<'_>) -> Result<(), StepError> {
    let host = pipeline.host;
    // Stays: a plan writes none, and is wanted on a full disk too.
    if host.is_dry() {
        return Ok(());
    }
    let state = &pipeline.config.settings.state_dir;
    let unfit = |error: ActError| StepError { trouble: Trouble::Environment, ..error.into() };
    let free = host.free_space(state).map_err(unfit)?;
    let files = host.free_files(state).map_err(unfit)?;
    let Some(lacks) = room::lacks(free, files) else { return Ok(()) };
    let text = format!(
        "the disk of the state directory {} has {lacks} for its ledger and records, so nothing was started — free some space there",
        state.shown()
    );
    Err(StepError::new(Trouble::Environment, text))
}

fn note(pipeline: Pipeline<'_>, report: &mut RunReport, text: String) {
    pipeline.observer.on(&Event::Note { job: None, warning: true, text: text.clone() });
    report.warnings.push(text);
}
