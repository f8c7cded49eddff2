//! `status`: what history says, and the targets themselves where it says nothing: after the loss of the state directory,
//! "never run" would be no answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::HistoryError;
use crate::model::copy::{CLOCK_SLACK, Copy, Series};
use crate::model::job::Job;
use crate::model::names::TargetName;
use crate::report::facts::Facts;
use crate::report::status::{self, Listed, StatusReport};
use crate::source::all_series;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::select;

/// The report on these jobs. `max_age` overrides what jobs and settings say.
///
/// # Errors
/// When history cannot be read. A target that cannot be listed is told in its entries.
pub fn status(
    pipeline: Pipeline<'_>,
    jobs: &[&Job],
    max_age: Option<Duration>,
) -> Result<StatusReport, StepError> {
    let (mut report, _) = recorded(pipeline, max_age)?;
    report.entries.retain(|entry| jobs.iter().any(|job| job.name == entry.job));
    ask_targets(pipeline, &mut report);
    Ok(report)
}

/// The report on all jobs as far as history knows, and the facts that it is made of.
///
/// # Errors
/// When history cannot be read.
pub fn recorded(
    pipeline: Pipeline<'_>,
    max_age: Option<Duration>,
) -> Result<(StatusReport, Facts), HistoryError> {
    let now = pipeline.host.now();
    let series = all_series(pipeline)?;
    let facts = Facts::gather(pipeline.history, pipeline.config, &series, now)?;
    Ok((status::status(pipeline.config, &facts, now, max_age), facts))
}

/// Asks each target once of which an entry is unrecorded. Engines start slowly, so nobody else is asked.
fn ask_targets(pipeline: Pipeline<'_>, report: &mut StatusReport) {
    let mut answers: BTreeMap<TargetName, Result<Vec<Copy>, String>> = BTreeMap::new();
    for entry in report.entries.iter_mut().filter(|entry| entry.is_unrecorded()) {
        let answer = answers.entry(entry.target.clone()).or_insert_with(|| {
            let target = select::target(pipeline.config, &entry.target);
            let engine = pipeline.engine(target.map_err(|error| error.message)?);
            select::finished_copies(pipeline, engine).map_err(|error| error.message)
        });
        let series = Series {
            host: pipeline.config.host_of(&entry.job).clone(),
            job: entry.job.clone(),
            item: entry.item.clone(),
        };
        // Of a job whose items are not known, whatever item it is of is one.
        let job = pipeline.config.job(&entry.job);
        let any_item = entry.item.is_none()
            && job.is_some_and(|job| pipeline.source(job).declared().is_none());
        let is_meant = |of: &Series| {
            of == &series || any_item && (&of.host, &of.job) == (&series.host, &series.job)
        };
        entry.listed = Some(match answer {
            Err(error) => Listed { error: Some(error.clone()), ..Listed::default() },
            Ok(copies) => summary(pipeline, copies, &is_meant),
        });
    }
}

fn summary(pipeline: Pipeline<'_>, copies: &[Copy], is_meant: &dyn Fn(&Series) -> bool) -> Listed {
    let now = pipeline.host.now();
    let of_series: Vec<&Copy> =
        copies.iter().filter(|copy| copy.series.as_ref().is_some_and(is_meant)).collect();
    let newest = of_series
        .iter()
        .filter(|copy| !copy.is_in_the_future(now, CLOCK_SLACK))
        .map(|copy| copy.time)
        .max();
    Listed { copies: Some(of_series.len() as u64), newest, error: None }
}
