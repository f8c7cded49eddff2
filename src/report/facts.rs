//! What `status` and the metrics need to know, read from history in one go.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::history::{
    Closure, CopyRecord, History, HistoryError, LastOutcome, MaintenanceKind, StepTime, TrendPoint,
};
use crate::model::copy::{CLOCK_SLACK, Series, later};
use crate::model::job::Config;
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

impl SlotFacts {
    fn gather(
        history: &History,
        slot: &Slot,
        series: &Series,
        now: DateTime<Utc>,
    ) -> Result<SlotFacts, HistoryError> {
        let Slot { job, target, item } = slot;
        Ok(SlotFacts {
            last_good: history.last_good_until(target, series, horizon(now))?,
            last_outcome: history.last_outcome(job, target, item.as_deref())?,
            trend: history.trend(target, series, TREND_LENGTH)?,
            in_the_future: history.in_the_future(target, series, horizon(now))?,
        })
    }
}

/// What is remembered about one target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetFacts {
    /// When the last check that found nothing ended.
    pub checked: Option<DateTime<Utc>>,
    /// When space was last freed.
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
    /// Every slot there is, in the configuration's order.
    pub slots: Vec<(Slot, SlotFacts)>,
    /// By target.
    pub targets: BTreeMap<TargetName, TargetFacts>,
    /// The steps of the last run of each job.
    pub steps: BTreeMap<JobName, Vec<StepTime>>,
}

impl Facts {
    /// Reads what there is to know of these series, which are all that the jobs of the configuration fill. Without a
    /// history, nothing is known but what there is.
    ///
    /// # Errors
    /// When history cannot be read.
    pub fn gather(
        history: Option<&History>,
        config: &Config,
        series: &[Series],
        now: DateTime<Utc>,
    ) -> Result<Facts, HistoryError> {
        let mut facts = Facts::default();
        for job in &config.jobs {
            for target in &job.targets {
                for series in series.iter().filter(|series| series.job == job.name) {
                    let slot = Slot {
                        job: job.name.clone(),
                        target: target.clone(),
                        item: series.item.clone(),
                    };
                    let known =
                        history.map(|history| SlotFacts::gather(history, &slot, series, now));
                    facts.slots.push((slot, known.transpose()?.unwrap_or_default()));
                }
            }
        }
        let Some(history) = history else { return Ok(facts) };
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
