//! What may go beyond the policy where space is lacking: pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::plan::{Decision, Plan, Reason, Verdict};

/// A copy that may go for space. Those that sort first go first: the oldest, except that what is a difference to another
/// copy goes before that one, whose age counts for both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expendable {
    /// The moment of the oldest copy that goes with it sooner or later.
    oldest: DateTime<Utc>,
    /// The id of that one.
    root: String,
    /// How many differences it is away from it.
    depth: Reverse<usize>,
    time: DateTime<Utc>,
    /// The copy's id.
    pub id: String,
}

/// Of the copies that a plan keeps, those that only its rules keep: a lack of space weighs more. What is pinned or tagged,
/// the newest good copy, what is newer than it, what was found damaged, what `needed` names, and whatever one of these is a
/// difference to stay. In the order in which they go.
pub fn expendable(plan: &Plan, needed: &BTreeSet<String>) -> Vec<Expendable> {
    let copies: BTreeMap<&str, &Decision> =
        plan.decisions.iter().map(|decision| (decision.id.as_str(), decision)).collect();
    let base = |id: &str| copies.get(id).and_then(|copy| copy.based_on.as_deref());
    // An id that a faulty listing shows twice goes only if nothing else wants to keep it.
    let mut staying: BTreeSet<&str> = BTreeSet::new();
    for decision in &plan.decisions {
        let goes_by_policy = matches!(decision.verdict, Verdict::Delete(_));
        let stays = !goes_by_policy && !may_go(&decision.verdict) || needed.contains(&decision.id);
        let mut at = stays.then_some(decision.id.as_str());
        // What stays by now has kept what it needs; so no circle is walked twice.
        while let Some(id) = at.filter(|id| staying.insert(id)) {
            at = base(id);
        }
    }
    let goes = |id: &str| {
        !staying.contains(id) && copies.get(id).is_some_and(|copy| may_go(&copy.verdict))
    };
    let mut expendable = BTreeMap::new();
    for decision in plan.decisions.iter().filter(|decision| goes(&decision.id)) {
        let (mut root, mut seen) = (decision.id.as_str(), BTreeSet::new());
        while seen.insert(root)
            && let Some(next) = base(root).filter(|next| goes(next))
        {
            root = next;
        }
        let found = Expendable {
            oldest: copies[root].time,
            root: root.to_owned(),
            depth: Reverse(seen.len()),
            time: decision.time,
            id: decision.id.clone(),
        };
        expendable.insert(decision.id.as_str(), found);
    }
    let mut expendable: Vec<Expendable> = expendable.into_values().collect();
    expendable.sort();
    expendable
}

/// Whether nothing but rules keeps a copy.
fn may_go(verdict: &Verdict) -> bool {
    let is_rule = |reason: &Reason| match reason {
        Reason::NoPolicy | Reason::Within(_) | Reason::Btrbk(_) | Reason::Counted { .. } => true,
        Reason::NewestGood
        | Reason::Pinned
        | Reason::Tagged(_)
        | Reason::NewerThanGood
        | Reason::Damaged
        | Reason::NeededBy(_) => false,
    };
    match verdict {
        Verdict::Keep(reasons) => reasons.iter().all(is_rule),
        // A deletion has its reason already.
        Verdict::Delete(_) | Verdict::Foreign | Verdict::Future => false,
    }
}
