//! What is told of a target in which nothing is deleted or compacted.

use crate::history::{Closure, ClosureKind};
use crate::model::copy::abridged;
use crate::model::names::TargetName;

/// What is told of a closed target, with what to do about it.
pub fn told(target: &TargetName, closures: &[Closure]) -> String {
    format!("{}; {}", why(closures), remedy(target, closures))
}

/// Why a target is closed.
pub fn why(closures: &[Closure]) -> String {
    let of = |kind| closures.iter().filter(move |closure: &&Closure| closure.kind == kind);
    let mut parts = Vec::new();
    for closure in of(ClosureKind::Replaced) {
        parts.push(format!("another repository is there: {}", closure.detail));
    }
    let gone: Vec<String> = of(ClosureKind::Gone).map(|closure| closure.subject.clone()).collect();
    if !gone.is_empty() {
        let copies = if gone.len() == 1 { "good copy is" } else { "good copies are" };
        let which = abridged(&gone);
        parts.push(format!(
            "{} {copies} missing that this machine did not delete ({which})",
            gone.len()
        ));
    }
    if let Some(first) = of(ClosureKind::Damage).next() {
        let since = first.since.format("%Y-%m-%d %H:%MZ");
        let further = of(ClosureKind::Damage).count() - 1;
        let also = match further {
            0 => String::new(),
            1 => ", and once since".into(),
            _ => format!(", and {further} times since"),
        };
        parts.push(format!("damage was found at {since}{also}: {}", first.detail));
    }
    parts.join("; ")
}

/// The same in a word for each kind.
pub fn kinds(closures: &[Closure]) -> String {
    let mut kinds: Vec<ClosureKind> = closures.iter().map(|closure| closure.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.into_iter().map(ClosureKind::word).collect::<Vec<_>>().join(", ")
}

fn remedy(target: &TargetName, closures: &[Closure]) -> String {
    let accept = format!("run `stillpoint prune --accept --target {target}`");
    let is_damage = |closure: &Closure| closure.kind == ClosureKind::Damage;
    let until = if closures.iter().all(is_damage) {
        format!("`stillpoint check --read-data --target {target}` finds none, or you {accept}")
    } else {
        format!("you have found out why and {accept}")
    };
    format!("nothing is deleted or compacted in target {target} until {until}")
}
