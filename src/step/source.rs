//! What a job protects, as a run sees it. Each kind is a room of [`source`](crate::source), which finds the one of a job.

use crate::history::HistoryError;
use crate::model::copy::Series;
use crate::model::job::Job;

use super::context::Pipeline;

pub use super::context::{
    Due, DueSnapshot, Findings, HeldBatch, Item, ItemSnapshot, Source, Sources,
};

/// The series that a job fills, as far as that is known without asking the machine: those of its declared items, else
/// of those that its last run found. Of a job of which no item is known there is one without an item, so that it is
/// never missing where all jobs are told of.
///
/// # Errors
/// When history cannot be read.
pub fn series(pipeline: Pipeline<'_>, job: &Job) -> Result<Vec<Series>, HistoryError> {
    let items = match (pipeline.source(job).declared(), pipeline.history) {
        (Some(items), _) => items,
        (None, Some(history)) => history.items(&job.name)?.into_iter().map(Some).collect(),
        (None, None) => Vec::new(),
    };
    let items = if items.is_empty() { vec![None] } else { items };
    Ok(items.into_iter().map(|item| series_of(pipeline, job, item)).collect())
}

/// The same of all jobs, in the configuration's order.
///
/// # Errors
/// When history cannot be read.
pub fn all_series(pipeline: Pipeline<'_>) -> Result<Vec<Series>, HistoryError> {
    let each: Result<Vec<_>, _> =
        pipeline.config.jobs.iter().map(|job| series(pipeline, job)).collect();
    Ok(each?.concat())
}

/// The series of one item.
pub fn series_of(pipeline: Pipeline<'_>, job: &Job, item: Item) -> Series {
    Series { host: pipeline.config.host_of(&job.name).clone(), job: job.name.clone(), item }
}
