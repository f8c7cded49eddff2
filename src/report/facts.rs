//! What `status` and the metrics need to know, read from history in one go.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::history::{
    Closure, CopyRecord, History, HistoryError, LastOutcome, MaintenanceKind, RunSummary, StepTime,
    TrendPoint,
};
use crate::model::copy::{CLOCK_SLACK, Series, later};
use crate::model::job::{Config, Source};
use crate::model::names::{JobName, TargetName};

/// How many copies a trend looks back.
const TREND_LENGTH: usize = 14;

/// One line of `status`: what one job keeps of one thing in one target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The job.
    pub job: JobName,
    /// The target.
    pub target: TargetName,
    /// The stream, if the job has several things.
    pub item: Option<String>,
}

/// The slots of a configuration, in the file's order.
pub fn slots(config: &Config) -> Vec<Slot> {
    let mut slots = Vec::new();
    for job in &config.jobs {
        let items: Vec<Option<String>> = match &job.source {
            Source::Files(_) => vec![None],
            Source::Commands(commands) => {
                commands.iter().map(|command| Some(command.item.clone())).collect()
            }
        };
        for target in &job.targets {
            slots.extend(items.iter().map(|item| Slot {
                job: job.name.clone(),
                target: target.clone(),
                item: item.clone(),
            }));
        }
    }
    slots
}

/// What is remembered about one slot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SlotFacts {
    /// The newest good copy that is not dated in the future.
    pub last_good: Option<CopyRecord>,
    /// How the last run that went there ended.
    pub last_outcome: Option<LastOutcome>,
    /// The sizes of the last copies, oldest first.
    pub trend: Vec<TrendPoint>,
    /// How many copies are dated in the future, so that they do not count.
    pub in_the_future: u64,
}

/// What is remembered about one target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetFacts {
    /// When the last check that found nothing ended.
    pub checked: Option<DateTime<Utc>>,
    /// When space was last given back.
    pub compacted: Option<DateTime<Utc>>,
    /// Whether copies were deleted since then.
    pub has_deletions: bool,
    /// Why nothing is deleted or compacted there.
    pub closures: Vec<Closure>,
    /// The maintenance steps of the last run that had some.
    pub steps: Vec<StepTime>,
}

impl TargetFacts {
    /// Reads what there is to know of a target.
    ///
    /// # Errors
    /// When history cannot be read.
    pub fn gather(history: &History, target: &TargetName) -> Result<TargetFacts, HistoryError> {
        let ended = |kind| -> Result<Option<DateTime<Utc>>, HistoryError> {
            Ok(history.last_good_maintenance(target, kind)?.map(|done| done.time))
        };
        Ok(TargetFacts {
            checked: ended(MaintenanceKind::Check)?,
            compacted: ended(MaintenanceKind::Compact)?,
            has_deletions: history.has_deletions_to_compact(target)?,
            closures: history.closures(target)?,
            steps: history.maintenance_steps(target)?,
        })
    }
}

/// What history says about everything in the configuration. What is not in it is not known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// By slot.
    pub slots: BTreeMap<Slot, SlotFacts>,
    /// By target.
    pub targets: BTreeMap<TargetName, TargetFacts>,
    /// The steps of the last run of each job.
    pub steps: BTreeMap<JobName, Vec<StepTime>>,
    /// The run that was recorded last.
    pub last_run: Option<RunSummary>,
}

impl Facts {
    /// Reads what there is to know. Without a history, nothing is.
    ///
    /// # Errors
    /// When history cannot be read.
    pub fn gather(
        history: Option<&History>,
        config: &Config,
        now: DateTime<Utc>,
    ) -> Result<Facts, HistoryError> {
        let Some(history) = history else { return Ok(Facts::default()) };
        let mut facts = Facts { last_run: history.last_run()?, ..Facts::default() };
        for slot in slots(config) {
            let series = Series {
                host: config.settings.host.clone(),
                job: slot.job.clone(),
                item: slot.item.clone(),
            };
            let known = SlotFacts {
                last_good: history.last_good_until(&slot.target, &series, horizon(now))?,
                last_outcome: history.last_outcome(
                    &slot.job,
                    &slot.target,
                    slot.item.as_deref(),
                )?,
                trend: history.trend(&slot.target, &series, TREND_LENGTH)?,
                in_the_future: history.in_the_future(&slot.target, &series, horizon(now))?,
            };
            facts.slots.insert(slot, known);
        }
        for target in &config.targets {
            facts.targets.insert(target.name.clone(), TargetFacts::gather(history, &target.name)?);
        }
        for job in &config.jobs {
            facts.steps.insert(job.name.clone(), history.job_steps(&job.name)?);
        }
        Ok(facts)
    }
}

/// The latest moment that is not the future.
pub(super) fn horizon(now: DateTime<Utc>) -> DateTime<Utc> {
    later(now, CLOCK_SLACK)
}
