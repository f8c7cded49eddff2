//! What a job protects, as a run sees it. Each kind is a room of [`source`](crate::source), which finds the one of a job.

use std::path::Path;

use crate::engine::{BackupReport, Input};
use crate::history::HistoryError;
use crate::host::Host;
use crate::model::copy::Series;
use crate::model::job::Job;
use crate::model::needs::Needs;
use crate::model::report::VolumeReport;
use crate::model::shown::Show;
use crate::model::target::Target;

use super::context::{Pipeline, RunContext};
use super::error::StepError;
use super::recorder::Recorder;

/// The name of one thing that has copies of its own: a command, a guest. `None` where a source is one thing as a whole.
pub type Item = Option<String>;

/// Finds the source of a job.
pub type Sources = dyn Fn(&Job) -> Box<dyn Source + '_>;

/// What was looked at, each with what came of it.
pub type Findings = Vec<(String, Result<String, StepError>)>;

/// What a job protects.
pub trait Source {
    /// The key that chose it, such as `files`.
    fn kind(&self) -> &'static str;

    /// Its items, where the configuration alone says them; `None` where only the machine knows.
    fn declared(&self) -> Option<Vec<Item>>;

    /// The items that there are now.
    ///
    /// # Errors
    /// When the machine cannot tell.
    fn items(&self, host: &dyn Host) -> Result<Vec<Item>, StepError>;

    /// Which of these items are held still together, in the order in which that happens. Each is in one batch.
    fn batches(&self, items: Vec<Item>) -> Vec<Vec<Item>> {
        vec![items]
    }

    /// Holds a batch still, for the engines of these targets. `None` when it cannot be held: the record says why, and
    /// nothing of it is held any more.
    fn hold<'s>(
        &'s self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        batch: &[Item],
        targets: &[&Target],
    ) -> Option<Box<dyn HeldBatch + 's>>;

    /// Whether a copy that an engine reports so holds nothing, and should.
    fn holds_nothing(&self, report: &BackupReport) -> bool;

    /// What to say of a path that a new copy was to hold and does not.
    fn not_held(&self, _: &dyn Host, path: &Path) -> String {
        format!("{}, a path of the job, is not in the copy", path.shown())
    }

    /// The programs that it starts beside engines, each with the item that it is for.
    fn programs(&self) -> Vec<(String, &[String])> {
        Vec::new()
    }

    /// What it needs of the machine.
    fn needs(&self) -> Needs;

    /// What a run to these targets would find in its way: what was looked at, and what came of it. Changes nothing.
    fn preflight(&self, pipeline: Pipeline<'_>, targets: &[&Target]) -> Findings;
}

/// Items that are held still together, until they are released.
pub trait HeldBatch {
    /// What the engine of a target gets to read of an item. `None` when the item is not in this batch.
    fn input(&self, cx: RunContext<'_>, item: &Item, target: &Target) -> Option<Input>;

    /// What of it is missing and will be in no copy, in words; copies of the rest are incomplete.
    fn gaps(&self) -> &[String];

    /// How each volume of it is read, for the report.
    fn volumes(&self) -> &[VolumeReport];

    /// Whether it is still what it was when it was held, asked after reading.
    ///
    /// # Errors
    /// When it is not: what was read from it is worth nothing.
    fn examine(&self, cx: RunContext<'_>) -> Result<(), StepError>;

    /// Calls `read`, in which engines read, while somebody watches over what holding it does to the machine.
    fn watch(&self, cx: RunContext<'_>, read: &mut dyn FnMut());

    /// Lets it go. What cannot be given back is in the record, and stays in the ledger.
    fn release(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>);
}

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
    Series { host: pipeline.config.settings.host.clone(), job: job.name.clone(), item }
}
