//! What a job left in its targets, for the report.

use crate::model::copy::Series;
use crate::model::job::Job;
use crate::model::outcome::Outcome;
use crate::model::report::TargetReport;
use crate::model::target::Target;
use crate::source::{series, series_of};
use crate::step::context::Pipeline;

use super::observe::Observation;
use super::prepare::Absences;

/// What a target of the job holds after it was served.
pub struct Served {
    /// What was seen in it.
    pub observation: Observation,
    /// The ids of the copies that retention deleted.
    pub deleted: Vec<String>,
}

/// What a job left in one target, of each of these series. `known` says how one ended that was to get no copy, if so.
pub fn report(
    pipeline: Pipeline<'_>,
    series: &[Series],
    target: &Target,
    known: &dyn Fn(&Series) -> Option<Outcome>,
    served: Option<&Served>,
) -> Vec<TargetReport> {
    let mut reports = Vec::new();
    for series in series {
        let observed = served.and_then(|served| {
            served.observation.observed.iter().find(|observed| observed.archived.series == *series)
        });
        let outcome = known(series).unwrap_or_else(|| without_copy(pipeline));
        let empty = TargetReport::without_copy(target.name.clone(), series.item.clone(), outcome);
        let Some(observed) = observed else {
            reports.push(empty);
            continue;
        };
        let said = &observed.archived.report;
        let deleted = served
            .map(|served| {
                let listed = |id: &&String| {
                    let of = served.observation.listing.iter().find(|copy| copy.id == **id);
                    of.and_then(|copy| copy.series.as_ref()) == Some(series)
                };
                served.deleted.iter().filter(listed).cloned().collect()
            })
            .unwrap_or_default();
        reports.push(TargetReport {
            outcome: said.outcome.clone(),
            copy: Some(observed.copy.id.clone()),
            bytes_new: said.bytes_new,
            size: observed.copy.size,
            files: observed.copy.files,
            files_changed: said.files_changed,
            unreadable: said.unreadable.clone(),
            unreadable_count: said.unreadable_count,
            deleted,
            ..empty
        });
    }
    reports
}

/// The same of a job that served none of these targets.
pub fn unserved(
    pipeline: Pipeline<'_>,
    job: &Job,
    targets: &[&Target],
    absent: &Absences,
) -> Vec<TargetReport> {
    // Where history does not tell the items, the job as a whole made no copy.
    let series = series(pipeline, job).unwrap_or_else(|_| vec![series_of(pipeline, job, None)]);
    let of_target = |target: &&Target| {
        let known = |_: &Series| absent.get(&target.name).cloned().map(Outcome::Skipped);
        report(pipeline, &series, target, &known, None)
    };
    targets.iter().flat_map(of_target).collect()
}

/// How something ended that was to make a copy and made none.
pub fn without_copy(pipeline: Pipeline<'_>) -> Outcome {
    match pipeline.host.stop_signal() {
        Some(_) => Outcome::Interrupted,
        None => Outcome::Failed,
    }
}
