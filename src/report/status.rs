//! `status`: per job, target and item, the last good copy, its age and what is due. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::closed;
use super::facts::{Facts, Slot, SlotFacts, TargetFacts, horizon};
use crate::history::{Closure, ClosureKind, MaintenanceKind, TrendPoint};
use crate::model::columns;
use crate::model::job::Config;
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::SCHEMA;
use crate::model::size::{self, counted};
use crate::model::span;
use crate::model::target::Target;

/// What `status --json` prints. The field names are a contract (schema 1); what is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusReport {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// One entry for each job, target and item, in the configuration's order.
    pub entries: Vec<StatusEntry>,
}

/// What one job keeps of one thing in one target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusEntry {
    /// The job.
    pub job: JobName,
    /// The target.
    pub target: TargetName,
    /// The stream, if the job has several things.
    pub item: Option<String>,
    /// The moment for which the last good copy stands; null when there is none.
    pub last_good: Option<DateTime<Utc>>,
    /// How old it is, in seconds.
    pub age_seconds: Option<u64>,
    /// How old it may get, in seconds.
    pub max_age_seconds: u64,
    /// Whether it is older, or there is none.
    pub stale: bool,
    /// How the last run that went there ended; null when none did.
    pub outcome: Option<Outcome>,
    /// When that run ended.
    pub last_run: Option<DateTime<Utc>>,
    /// What the target is due for.
    pub due: Vec<MaintenanceKind>,
    /// Why nothing is deleted or compacted in the target; null when nothing is in the way.
    pub closed: Option<String>,
    /// By what kinds of findings it is closed.
    #[serde(skip)]
    pub closures: Vec<Closure>,
    /// The last good copy's id.
    pub copy: Option<String>,
    /// Bytes of the original data in it.
    pub size: Option<u64>,
    /// Files in it.
    pub files: Option<u64>,
    /// Bytes that it added to the target.
    pub bytes_new: Option<u64>,
    /// The sizes of the last copies, oldest first.
    pub trend: Vec<TrendPoint>,
    /// How many copies are dated in the future: none of them is the last good one.
    pub in_the_future: u64,
    /// What the target itself lists, where nothing is recorded; null where it was not asked.
    pub listed: Option<Listed>,
}

/// What a target answered that was asked because nothing is recorded here.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Listed {
    /// How many copies of this it lists; null when it could not be listed.
    pub copies: Option<u64>,
    /// The moment for which the newest of them stands that is not dated in the future.
    pub newest: Option<DateTime<Utc>>,
    /// Why it could not be listed.
    pub error: Option<String>,
}

impl StatusEntry {
    /// Whether nothing is recorded of it: it never ran, or the record is lost.
    pub fn is_unrecorded(&self) -> bool {
        self.last_good.is_none() && self.outcome.is_none()
    }
}

impl StatusReport {
    /// Whether any entry is stale. Where there is none, nothing is protected, which is no better.
    pub fn is_stale(&self) -> bool {
        self.entries.is_empty() || self.entries.iter().any(|entry| entry.stale)
    }

    /// What the report means to whoever asks by exit code.
    pub fn troubles(&self) -> Vec<Trouble> {
        let kinds = || self.entries.iter().flat_map(|entry| &entry.closures).map(|c| c.kind);
        let mut troubles = Vec::new();
        if kinds().any(|kind| kind == ClosureKind::Damage) {
            troubles.push(Trouble::Damage);
        }
        if self.is_stale() || kinds().any(|kind| kind != ClosureKind::Damage) {
            troubles.push(Trouble::Incomplete);
        }
        troubles
    }
}

/// Answers for everything that the facts know of. `max_age` overrides what jobs and settings say.
///
/// A slot without any good copy is stale, however young the installation is: nobody noticing is the fear
/// that this verb is for.
pub fn status(
    config: &Config,
    facts: &Facts,
    now: DateTime<Utc>,
    max_age: Option<Duration>,
) -> StatusReport {
    let entries = facts
        .slots
        .iter()
        .map(|(slot, known)| {
            let job_age = config.job(&slot.job).and_then(|job| job.max_age);
            let max_age = max_age.or(job_age).unwrap_or(config.settings.max_age);
            let of_target = facts.targets.get(&slot.target);
            let target = config.target(&slot.target);
            let due = target.map(|target| due(target, of_target, now)).unwrap_or_default();
            let closures = of_target.map(|of| of.closures.clone()).unwrap_or_default();
            entry(slot.clone(), known, due, closures, now, max_age)
        })
        .collect();
    StatusReport { schema: SCHEMA, entries }
}

fn entry(
    slot: Slot,
    known: &SlotFacts,
    due: Vec<MaintenanceKind>,
    closures: Vec<Closure>,
    now: DateTime<Utc>,
    max_age: Duration,
) -> StatusEntry {
    // Within the slack, a copy from a clock slightly ahead is as fresh as can be.
    let good = known.last_good.as_ref().filter(|copy| copy.time <= horizon(now));
    let age = good.map(|copy| (now - copy.time).to_std().unwrap_or(Duration::ZERO));
    StatusEntry {
        job: slot.job,
        target: slot.target,
        item: slot.item,
        last_good: good.map(|copy| copy.time),
        age_seconds: age.map(|age| age.as_secs()),
        max_age_seconds: max_age.as_secs(),
        stale: age.is_none_or(|age| age > max_age),
        outcome: known.last_outcome.as_ref().map(|last| last.outcome.clone()),
        last_run: known.last_outcome.as_ref().map(|last| last.finished),
        due,
        closed: (!closures.is_empty()).then(|| closed::why(&closures)),
        closures,
        copy: good.map(|copy| copy.id.clone()),
        size: good.and_then(|copy| copy.size),
        files: good.and_then(|copy| copy.files),
        bytes_new: good.and_then(|copy| copy.bytes_new),
        trend: known.trend.clone(),
        in_the_future: known.in_the_future,
        listed: None,
    }
}

/// What a target is due for now: a check when the last one that found nothing is too long ago, compaction
/// when something was deleted since the last one and its own interval has passed.
pub fn due(
    target: &Target,
    known: Option<&TargetFacts>,
    now: DateTime<Utc>,
) -> Vec<MaintenanceKind> {
    let mut due = Vec::new();
    let checked = known.and_then(|known| known.checked);
    if target.check.as_ref().is_some_and(|policy| has_passed(checked, policy.every, now)) {
        due.push(MaintenanceKind::Check);
    }
    if let Some(known) = known
        && known.has_deletions
        && !target.append_only
        && target.compact_every.is_none_or(|every| has_passed(known.compacted, every, now))
    {
        due.push(MaintenanceKind::Compact);
    }
    due
}

/// Whether an interval has passed since then. What never happened is due, and so is what a wrong clock
/// has dated in the future.
pub fn has_passed(last: Option<DateTime<Utc>>, every: Duration, now: DateTime<Utc>) -> bool {
    let Some(last) = last else { return true };
    last > horizon(now) || (now - last).to_std().is_ok_and(|age| age >= every)
}

/// The report for people, one line for each entry. With `unicode`, arrows and a sparkline of the sizes;
/// without, the same in words.
pub fn text(report: &StatusReport, unicode: bool) -> String {
    let rows: Vec<[String; 4]> = report.entries.iter().map(|entry| row(entry, unicode)).collect();
    let mut text = columns::aligned(&rows);
    let mut told = BTreeSet::new();
    for entry in report.entries.iter().filter(|entry| !entry.closures.is_empty()) {
        if told.insert(&entry.target) {
            let why = closed::told(&entry.target, &entry.closures);
            let _ = writeln!(text, "target {} is closed: {why}", entry.target);
        }
    }
    text
}

/// Name, state, age, and the rest, which is not aligned.
fn row(entry: &StatusEntry, unicode: bool) -> [String; 4] {
    let arrow = if unicode { "→" } else { "->" };
    let item = entry.item.as_ref().map(|item| format!("[{item}]")).unwrap_or_default();
    let name = format!("{}{item} {arrow} {}", entry.job, entry.target);
    let any_listed = entry.listed.as_ref().is_some_and(|listed| listed.copies != Some(0));
    let nothing = if any_listed { "no record" } else { "never run" };
    let outcome = entry.outcome.as_ref().map_or(nothing, Outcome::word);
    let state = if entry.stale { "STALE" } else { outcome }.to_owned();
    let age = match entry.age_seconds {
        Some(seconds) => format!("{} ago", span::show(Duration::from_secs(seconds))),
        None => "no good copy".to_owned(),
    };
    let mut rest: Vec<String> = Vec::new();
    if let Some(size) = entry.size {
        rest.push(size::show(size));
    }
    rest.extend(trend(&entry.trend, unicode));
    if entry.stale && outcome != "ok" {
        let last = if entry.outcome.is_some() { "last run " } else { "" };
        rest.push(format!("{last}{outcome}"));
    }
    if !entry.closures.is_empty() {
        rest.push(format!("closed ({})", closed::kinds(&entry.closures)));
    }
    if entry.in_the_future > 0 {
        let copies = counted(entry.in_the_future, "copy", "copies");
        rest.push(format!("{copies} dated in the future, not counted"));
    }
    if let Some(listed) = &entry.listed {
        rest.push(answer(listed));
    }
    rest.extend(entry.due.iter().map(|due| format!("{due} due")));
    [name, state, age, rest.join("  ")]
}

/// What a target said that nothing is recorded of.
fn answer(listed: &Listed) -> String {
    match listed {
        Listed { error: Some(error), .. } => format!("the target could not be listed: {error}"),
        Listed { copies: None | Some(0), .. } => "the target lists none".to_owned(),
        Listed { copies: Some(copies), newest: Some(newest), .. } => format!(
            "the target lists {}, the newest of {}; nothing is recorded here of how they were made",
            counted(*copies, "copy", "copies"),
            newest.format("%Y-%m-%d %H:%M:%SZ")
        ),
        Listed { copies: Some(copies), newest: None, .. } => {
            format!("the target lists {}, dated in the future", counted(*copies, "copy", "copies"))
        }
    }
}

/// How the size has moved, from the copies whose size is known; nothing to tell from fewer than two.
fn trend(points: &[TrendPoint], unicode: bool) -> Option<String> {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let sizes: Vec<u64> = points.iter().filter_map(|point| point.size).collect();
    let (first, last) = (*sizes.first()?, *sizes.last()?);
    if sizes.len() < 2 {
        return None;
    }
    if !unicode {
        let percent = match first {
            0 => return None,
            first => (last as f64 - first as f64) / first as f64 * 100.0,
        };
        return Some(format!("{percent:+.0} % over {} copies", sizes.len()));
    }
    let highest = *sizes.iter().max()?;
    let lowest = *sizes.iter().min()?;
    // The scale spans at least a quarter of the size, so that noise does not look like drama.
    let span = (highest - lowest).max(highest / 4).max(1);
    let floor = highest.saturating_sub(span);
    let bar = |size: u64| {
        let level = (size.saturating_sub(floor)) as f64 / span as f64 * 7.0;
        BARS[(level.round() as usize).min(7)]
    };
    Some(sizes.into_iter().map(bar).collect())
}

#[cfg(test)]
mod tests;
