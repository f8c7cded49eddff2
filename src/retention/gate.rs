//! The gate: whether what a plan says may be carried out now.
//!
//! Retention after a bad backup is how good copies are lost, so nothing is deleted unless the copy that
//! was just made (or, for a `prune` on its own, the newest recorded one) is good and not suspiciously small,
//! and the clock has neither gone backwards nor leapt.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::guards::Guards;
use super::plan::{Decision, Plan, Verdict};
use crate::model::copy::{Copy, Series, later};

/// How large a copy is. What is not known is not compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// Number of files.
    pub files: Option<u64>,
    /// Bytes of the original data.
    pub size: Option<u64>,
}

impl Measure {
    /// Whether anything is known of it.
    pub fn is_known(&self) -> bool {
        self.files.is_some() || self.size.is_some()
    }
}

impl From<&Copy> for Measure {
    fn from(copy: &Copy) -> Self {
        Measure { files: copy.files, size: copy.size }
    }
}

/// The last good copy before a new one, to which it is compared: a copy that had itself shrunk too much does
/// not count until a person has accepted it, or a second bad night would do what the first was kept from.
///
/// `earlier` are the good copies before the new one in any order; `accepted` is when a person last said
/// `--accept`: the newest copy of that time counts whatever it lacks. Nothing known in the answer means that
/// the history of the oldest copies is lost, and that nobody has accepted the newer ones since.
pub fn baseline(
    earlier: &[&Copy],
    accepted: Option<DateTime<Utc>>,
    guards: &Guards,
) -> Option<Measure> {
    let mut sorted = earlier.to_vec();
    sorted.sort_by_key(|copy| copy.time);
    let seen = sorted.iter().rposition(|copy| accepted.is_some_and(|at| copy.time <= at));
    let mut trusted = sorted[seen.unwrap_or(0)..].iter().map(|copy| Measure::from(*copy));
    let mut first = trusted.next()?;
    if seen.is_some() && !first.is_known() {
        // A person vouched for it, so what follows it may be believed.
        first = trusted.find(|now| now.is_known())?;
    }
    Some(trusted.fold(first, |before, now| {
        if !before.is_known() || first_shrunk(before, now, guards).is_some() {
            before
        } else {
            Measure { files: now.files.or(before.files), size: now.size.or(before.size) }
        }
    }))
}

/// What the gate judges by.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The series that the plan is about.
    pub series: &'a Series,
    /// The copy that this run made of it; for a `prune` on its own, its newest recorded copy.
    pub copy: Option<&'a Copy>,
    /// The last good copy before that one; `None` when there was none, nothing known in it when its record
    /// is lost (see [`baseline`]).
    pub last_good: Option<Measure>,
    /// When the run that was recorded last ended.
    pub last_run: Option<DateTime<Utc>>,
    /// The time.
    pub now: DateTime<Utc>,
    /// The span of the policy by which the plan was made.
    pub within: Option<Duration>,
    /// Why nothing may be deleted in the whole target: damage, copies that vanished, another repository. With what
    /// to do about it.
    pub closed: Option<&'a str>,
    /// When a person last accepted the copies of this job (an earlier `--accept`).
    pub accepted_before: Option<DateTime<Utc>>,
    /// A person accepts everything except an unhealthy or missing copy (`--accept`).
    pub accepted: bool,
}

/// Why retention does not run now. Nothing was deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no copy to judge by.
    #[error("nothing of {series} is deleted, because there is no new copy of it")]
    NoCopy {
        /// The series.
        series: Box<Series>,
    },
    /// The newest copy lacks something.
    #[error("nothing of {series} is deleted, because its newest copy {id} is not healthy")]
    Unhealthy {
        /// The series.
        series: Box<Series>,
        /// The copy.
        id: String,
    },
    /// The target is closed.
    #[error("nothing of {series} is deleted, because {why}")]
    Closed {
        /// The series.
        series: Box<Series>,
        /// Why, and until when.
        why: String,
    },
    /// Nothing is recorded about the newest copy.
    #[error(
        "nothing of {series} is deleted, because there is no record of how its newest copy {id} was made"
    )]
    Unrecorded {
        /// The series.
        series: Box<Series>,
        /// The copy.
        id: String,
    },
    /// The newest copy is much smaller than the last good one.
    #[error(
        "nothing of {series} is deleted, because its newest copy {id} has {now} {what} where the last good one had {before}"
    )]
    Shrunk {
        /// The series.
        series: Box<Series>,
        /// The copy.
        id: String,
        /// `files` or `bytes`.
        what: &'static str,
        /// How many the last good copy has.
        before: u64,
        /// How many the newest has.
        now: u64,
    },
    /// There are earlier copies, and no record of how large they are.
    #[error(
        "nothing of {series} is deleted, because no record is left of how large its earlier copies are, to compare its newest copy {id} with"
    )]
    Unmeasured {
        /// The series.
        series: Box<Series>,
        /// The newest copy.
        id: String,
    },
    /// The clock shows an earlier time than the last run recorded.
    #[error(
        "nothing of {series} is deleted, because the clock shows {now} and the last run ended at {last_run}"
    )]
    ClockWentBack {
        /// The series.
        series: Box<Series>,
        /// What the clock shows.
        now: DateTime<Utc>,
        /// When the last run ended.
        last_run: DateTime<Utc>,
    },
    /// The new copy is not the newest by its date, and would go itself.
    #[error(
        "nothing of {series} is deleted, because the copy {id} that was just made is dated before another and would go itself"
    )]
    Backdated {
        /// The series.
        series: Box<Series>,
        /// The copy.
        id: String,
    },
    /// The copies before a long time without any would go because `within` counts back from those after it.
    #[error(
        "nothing of {series} is deleted, because {losing} of its copies would go only by their age, and none was made between {before} and {after}: the clock may be wrong"
    )]
    ClockLeapt {
        /// The series.
        series: Box<Series>,
        /// How many would go that `within` kept until then.
        losing: usize,
        /// The last copy before the leap.
        before: DateTime<Utc>,
        /// The first copy after it.
        after: DateTime<Utc>,
    },
}

impl Refusal {
    /// What is told of it, with what to do about it.
    pub fn told(&self) -> String {
        match self.hint() {
            "" => self.to_string(),
            hint => format!("{self} — {hint}"),
        }
    }

    /// What to do about it; nothing where the refusal itself says it.
    pub fn hint(&self) -> &'static str {
        match self {
            Refusal::Closed { .. } => "",
            Refusal::NoCopy { .. } => "run the job; retention follows a good copy",
            Refusal::Unhealthy { .. } => {
                "see what the copy lacks (`stillpoint status`), fix that and run the job again"
            }
            Refusal::Unrecorded { .. } => {
                "run the job, or look at the plan (`stillpoint prune --dry-run`) and repeat with --accept"
            }
            Refusal::Shrunk { .. } => {
                "check that all sources are mounted and filled; if so much is really gone, repeat with `stillpoint prune --accept` or raise max-shrink"
            }
            Refusal::Unmeasured { .. } => {
                "the earlier ones were adopted: see that the newest copy holds all that it should (`stillpoint list`, `diff`), then run `stillpoint prune --accept` once"
            }
            Refusal::ClockWentBack { .. } | Refusal::Backdated { .. } => {
                "set the clock right; the next run after that deletes again"
            }
            Refusal::ClockLeapt { .. } => {
                "if the clock is wrong, set it right; if no copy was made for so long, look at the plan (`stillpoint prune --dry-run`) and run `stillpoint prune --accept` once"
            }
        }
    }
}

/// Whether a plan may be carried out.
///
/// # Errors
/// A [`Refusal`] that says which condition does not hold; the first that applies, the weightiest first.
pub fn gate(evidence: &Evidence<'_>, plan: &Plan, guards: &Guards) -> Result<(), Refusal> {
    let series = || Box::new(evidence.series.clone());
    let Some(copy) = evidence.copy else { return Err(Refusal::NoCopy { series: series() }) };
    if !copy.may_be_good() {
        return Err(Refusal::Unhealthy { series: series(), id: copy.id.clone() });
    }
    if evidence.accepted {
        return Ok(());
    }
    if let Some(why) = evidence.closed {
        return Err(Refusal::Closed { series: series(), why: why.to_owned() });
    }
    if copy.healthy.is_none() {
        return Err(Refusal::Unrecorded { series: series(), id: copy.id.clone() });
    }
    if let Some(last_run) = evidence.last_run
        && later(evidence.now, guards.clock_slack) < last_run
    {
        return Err(Refusal::ClockWentBack { series: series(), now: evidence.now, last_run });
    }
    if plan.deletions().contains(&copy.id) {
        return Err(Refusal::Backdated { series: series(), id: copy.id.clone() });
    }
    if let Some((before, after, losing)) = leap(evidence, plan, guards) {
        return Err(Refusal::ClockLeapt { series: series(), losing, before, after });
    }
    // The machine that was installed anew has no history, and its sources may still be empty.
    if guards.max_shrink_percent < 100
        && evidence.last_good.is_some_and(|before| !before.is_known())
    {
        return Err(Refusal::Unmeasured { series: series(), id: copy.id.clone() });
    }
    if let Some(before) = evidence.last_good
        && let Some((what, before, now)) = first_shrunk(before, Measure::from(copy), guards)
    {
        let id = copy.id.clone();
        return Err(Refusal::Shrunk { series: series(), id, what, before, now });
    }
    Ok(())
}

/// A time without copies that is too long to be believed: the copies at its two ends, and how many the plan
/// deletes of those that `within` would keep if it counted from the earlier one.
///
/// The last run's time would not do: after one run under a wrong clock, the next seems to follow it well. The
/// copies still show the leap then; and once a person has accepted what came after it, it is no question
/// any more.
fn leap(
    evidence: &Evidence<'_>,
    plan: &Plan,
    guards: &Guards,
) -> Option<(DateTime<Utc>, DateTime<Utc>, usize)> {
    let within = evidence.within.filter(|span| !span.is_zero())?;
    let bound = within.max(guards.clock_leap);
    let counted: Vec<&Decision> = plan
        .decisions
        .iter()
        .filter(|decision| !matches!(decision.verdict, Verdict::Foreign | Verdict::Future))
        .collect();
    let leaps = (1..counted.len()).filter_map(|end| {
        let (after, before) = (counted[end - 1].time, counted[end].time);
        if later(before, bound) >= after
            || evidence.accepted_before.is_some_and(|accepted_before| accepted_before >= after)
        {
            return None;
        }
        let losing = counted[end..]
            .iter()
            .filter(|decision| later(decision.time, within) >= before)
            .filter(|decision| matches!(decision.verdict, Verdict::Delete(_)))
            .count();
        (losing > 0).then_some((before, after, losing))
    });
    leaps.max_by_key(|(_, _, losing)| *losing)
}

/// The first figure that fell too far: its name, before and now. What is not known did not fall.
fn first_shrunk(
    before: Measure,
    now: Measure,
    guards: &Guards,
) -> Option<(&'static str, u64, u64)> {
    [("files", before.files, now.files), ("bytes", before.size, now.size)].into_iter().find_map(
        |(what, before, now)| {
            let (before, now) = before.zip(now)?;
            shrank(before, now, guards.max_shrink_percent).then_some((what, before, now))
        },
    )
}

/// Whether a count fell by more than so many percent. Nothing can fall by more than 100.
fn shrank(before: u64, now: u64, percent: u8) -> bool {
    let lost = u128::from(before.saturating_sub(now));
    lost * 100 > u128::from(before) * u128::from(percent)
}
