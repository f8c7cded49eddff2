//! The planner: a verdict with its reasons for each copy.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};

use super::btrbk::{self, Preserved};
use super::guards::Guards;
use super::rules::{PROTECTED_TAG, Rule};
use crate::model::copy::{Copy, Series};
use crate::model::keep::{ALL, BtrbkSchedule, KeepPolicy};
use crate::model::span;

/// Why a copy is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The policy has no rule.
    NoPolicy,
    /// It is the newest good copy of its series.
    NewestGood,
    /// It is pinned.
    Pinned,
    /// It carries this tag, which the policy names or which always protects.
    Tagged(String),
    /// It is younger than this, counted from the newest copy.
    Within(Duration),
    /// It is incomplete, but nothing newer is good.
    NewerThanGood,
    /// It was found damaged when it was last read. The next time it may be read better, and most of what it holds may be
    /// there: a person says when it goes.
    Damaged,
    /// A copy that stays is a difference to it, or to one that is.
    NeededBy(String),
    /// btrbk's schedule preserves it.
    Btrbk(Preserved),
    /// It fills a slot of a counted rule.
    Counted {
        /// The rule.
        rule: Rule,
        /// Which slot, from 1.
        number: u32,
        /// How many the policy asks for.
        of: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoPolicy => f.write_str("no policy"),
            Reason::NewestGood => f.write_str("newest good copy"),
            Reason::Pinned => f.write_str("pinned"),
            Reason::Tagged(tag) => write!(f, "tag {tag}"),
            Reason::Within(span) => write!(f, "within {}", span::show(*span)),
            Reason::NewerThanGood => f.write_str("incomplete, but newer than any good copy"),
            Reason::Damaged => f.write_str("found damaged, until a person names it"),
            Reason::NeededBy(id) => write!(f, "needed by {id}"),
            Reason::Btrbk(preserved) => write!(f, "{preserved}"),
            Reason::Counted { rule, number, of: ALL } => write!(f, "{rule} {number}"),
            Reason::Counted { rule, number, of } => write!(f, "{rule} {number} of {of}"),
        }
    }
}

/// Why a copy may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unneeded {
    /// No rule of the policy keeps it.
    NoRule,
    /// It is incomplete, and a newer copy is good.
    Unhealthy,
}

impl fmt::Display for Unneeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unneeded::NoRule => "no rule keeps it",
            Unneeded::Unhealthy => "unhealthy, and a newer copy is good",
        })
    }
}

/// What happens to a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for these reasons (at least one).
    Keep(Vec<Reason>),
    /// It goes.
    Delete(Unneeded),
    /// This machine neither made nor adopted it: neither counted nor touched.
    Foreign,
    /// It is dated in the future: neither counted nor touched, and to be reported.
    Future,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Keep(reasons) => {
                f.write_str("keep (")?;
                for (index, reason) in reasons.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{reason}")?;
                }
                f.write_str(")")
            }
            Verdict::Delete(why) => write!(f, "delete ({why})"),
            Verdict::Foreign => f.write_str("untouched (this machine neither made nor adopted it)"),
            Verdict::Future => f.write_str("untouched (dated in the future)"),
        }
    }
}

/// The verdict on one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The copy's id.
    pub id: String,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// The copy to which it is a difference.
    pub based_on: Option<String>,
    /// What happens to it.
    pub verdict: Verdict,
}

/// One decision for each copy, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The decisions, by time and then id, newest first.
    pub decisions: Vec<Decision>,
}

impl Plan {
    /// The exact ids that go, newest first.
    ///
    /// An id that a faulty listing shows twice goes only if nothing wants to keep it.
    pub fn deletions(&self) -> Vec<String> {
        let staying: BTreeSet<&str> = self
            .decisions
            .iter()
            .filter(|decision| !matches!(decision.verdict, Verdict::Delete(_)))
            .map(|decision| decision.id.as_str())
            .collect();
        let mut seen = BTreeSet::new();
        self.decisions
            .iter()
            .map(|decision| decision.id.as_str())
            .filter(|id| !staying.contains(id) && seen.insert(*id))
            .map(str::to_owned)
            .collect()
    }

    /// Copies that are dated in the future, for a warning: the clock is or was wrong, here or elsewhere.
    pub fn in_the_future(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|decision| decision.verdict == Verdict::Future)
    }
}

/// Decides about the copies of one series; see the module for what the rules mean.
///
/// `ahead` says how far local time is ahead of UTC at a moment, for the periods of the calendar. The order of `copies`
/// does not matter. Should they belong to several series after all, each is decided
/// on its own, so that one can never push out another.
pub fn plan<C: Borrow<Copy>>(
    policy: &KeepPolicy,
    copies: &[C],
    now: DateTime<Utc>,
    guards: &Guards,
    ahead: &dyn Fn(DateTime<Utc>) -> FixedOffset,
) -> Plan {
    let mut sorted: Vec<&Copy> = copies.iter().map(Borrow::borrow).collect();
    sorted.sort_by(|one, other| newest_first(one, other));

    let mut decided: Vec<(&Copy, Verdict)> = Vec::with_capacity(sorted.len());
    let mut groups: BTreeMap<&Series, Vec<&Copy>> = BTreeMap::new();
    for copy in sorted {
        match &copy.series {
            None => decided.push((copy, Verdict::Foreign)),
            Some(_) if !copy.ours => decided.push((copy, Verdict::Foreign)),
            Some(_) if copy.is_in_the_future(now, guards.clock_slack) => {
                decided.push((copy, Verdict::Future));
            }
            Some(series) => groups.entry(series).or_default().push(copy),
        }
    }
    for members in groups.into_values() {
        let verdicts = decide(policy, &members, now, ahead);
        decided.extend(members.into_iter().zip(verdicts));
    }
    keep_what_is_needed(&mut decided);
    decided.sort_by(|(one, _), (other, _)| newest_first(one, other));
    let decisions = decided
        .into_iter()
        .map(|(copy, verdict)| Decision {
            id: copy.id.clone(),
            time: copy.time,
            based_on: copy.based_on.clone(),
            verdict,
        })
        .collect();
    Plan { decisions }
}

/// Keeps what copies that stay are differences to, whatever keeps them.
fn keep_what_is_needed(decided: &mut [(&Copy, Verdict)]) {
    let places: BTreeMap<&str, usize> =
        (decided.iter().enumerate()).map(|(place, (copy, _))| (copy.id.as_str(), place)).collect();
    for place in 0..decided.len() {
        let mut at = place;
        // What stays by now has kept what it needs, or will when its turn comes; so no circle is walked twice.
        while !matches!(decided[at].1, Verdict::Delete(_)) {
            let (copy, _) = &decided[at];
            let Some(&base) = copy.based_on.as_deref().and_then(|base| places.get(base)) else {
                break;
            };
            if !matches!(decided[base].1, Verdict::Delete(_)) {
                break;
            }
            decided[base].1 = Verdict::Keep(vec![Reason::NeededBy(copy.id.clone())]);
            at = base;
        }
    }
}

/// By time, and by id where two copies stand for the same moment.
fn newest_first(one: &Copy, other: &Copy) -> std::cmp::Ordering {
    other.moment().cmp(&one.moment())
}

/// The good copy that was made last, which need not be the one that is dated last: a clock may have been behind.
/// The copies must hold none that is dated in the future.
pub fn last_good<'a>(copies: impl Iterator<Item = &'a Copy>) -> Option<&'a Copy> {
    copies
        .filter(|copy| copy.may_be_good())
        .reduce(|last, copy| if copy.is_newer_than(last) { copy } else { last })
}

/// The verdicts on the copies of one series, which come newest first and hold none from the future.
fn decide(
    policy: &KeepPolicy,
    members: &[&Copy],
    now: DateTime<Utc>,
    ahead: &dyn Fn(DateTime<Utc>) -> FixedOffset,
) -> Vec<Verdict> {
    let within = policy.within.filter(|span| !span.is_zero());
    // What no policy can take away comes first, so that it is the first reason a person reads.
    let mut reasons = lasting(policy, members);
    let clock = |copy: &&Copy| copy.time.with_timezone(&ahead(copy.time));
    let local: Vec<DateTime<FixedOffset>> = members.iter().map(clock).collect();
    if let Some(schedule) = &policy.btrbk {
        let now = now.with_timezone(&ahead(now));
        as_btrbk(policy, schedule, members, (&local, now), &mut reasons);
    } else {
        for rule in Rule::ALL {
            if let Some(count) = rule.count(policy) {
                count_slots(rule, count, members, &local, &mut reasons);
            }
        }
    }
    if let (Some(span), Some(newest)) = (within, members.first()) {
        for (copy, why) in members.iter().zip(&mut reasons) {
            // Times run from new to old, so the difference is never negative; one that a standard
            // duration cannot hold does not exist between two chrono times.
            if (newest.time - copy.time).to_std().is_ok_and(|age| age <= span) {
                why.push(Reason::Within(span));
            }
        }
    }
    members
        .iter()
        .zip(reasons)
        .map(|(copy, why)| match (why.is_empty(), copy.may_be_good()) {
            (false, _) => Verdict::Keep(why),
            (true, true) => Verdict::Delete(Unneeded::NoRule),
            (true, false) => Verdict::Delete(Unneeded::Unhealthy),
        })
        .collect()
}

/// Why each copy stays whatever the rules say.
fn lasting(policy: &KeepPolicy, members: &[&Copy]) -> Vec<Vec<Reason>> {
    let newest_good = members.iter().position(|copy| copy.may_be_good());
    let last_good = last_good(members.iter().copied());
    let reasons = |(index, copy): (usize, &&Copy)| {
        let mut why = Vec::new();
        if copy.pinned {
            why.push(Reason::Pinned);
        }
        let tag = copy.tags.iter().find(|tag| *tag == PROTECTED_TAG || policy.tags.contains(tag));
        if let Some(tag) = tag {
            why.push(Reason::Tagged(tag.clone()));
        }
        if copy.damaged {
            why.push(Reason::Damaged);
        }
        if newest_good == Some(index) || last_good.is_some_and(|last| last.id == copy.id) {
            why.push(Reason::NewestGood);
        }
        if newest_good.is_none_or(|newest| index < newest) && !copy.damaged {
            why.push(Reason::NewerThanGood);
        }
        if policy.is_empty() {
            why.push(Reason::NoPolicy);
        }
        why
    };
    members.iter().enumerate().map(reasons).collect()
}

/// Has btrbk's schedule decide about the good copies. `clock` is their local times, and now.
fn as_btrbk(
    policy: &KeepPolicy,
    schedule: &BtrbkSchedule,
    members: &[&Copy],
    (local, now): (&[DateTime<FixedOffset>], DateTime<FixedOffset>),
    reasons: &mut [Vec<Reason>],
) {
    let good = |index: &usize| members[*index].may_be_good();
    let oldest_first: Vec<usize> = (0..members.len()).rev().filter(good).collect();
    let made: Vec<DateTime<FixedOffset>> = oldest_first.iter().map(|index| local[*index]).collect();
    let preserved = btrbk::schedule(policy, schedule, &made, now);
    for (index, why) in oldest_first.into_iter().zip(preserved) {
        reasons[index].extend(why.into_iter().map(Reason::Btrbk));
    }
}

/// Gives the slots of a counted rule to the newest good copy of each period, until they are used up. `local` are the
/// copies' times.
fn count_slots(
    rule: Rule,
    count: u32,
    members: &[&Copy],
    local: &[DateTime<FixedOffset>],
    reasons: &mut [Vec<Reason>],
) {
    let mut number = 0;
    // Not only the last one: clocks that are put back over midnight enter a day twice.
    let mut filled = BTreeSet::new();
    for ((copy, time), why) in members.iter().zip(local).zip(reasons) {
        if number == count {
            break;
        }
        if !copy.may_be_good() || rule.period(*time).is_some_and(|period| !filled.insert(period)) {
            continue;
        }
        number += 1;
        why.push(Reason::Counted { rule, number, of: count });
    }
}
