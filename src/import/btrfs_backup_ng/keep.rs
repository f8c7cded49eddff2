//! How long btrfs-backup-ng keeps what: a policy for all, one for a volume, and one for its snapshots or a target, of which
//! the narrower says what differs from the wider.

use super::super::draft::{Pair, quoted};
use super::section::Section;

/// The keys of a policy, how many it keeps where it does not say so, and how long each period is at least.
const COUNTS: [(&str, i64, u64); 5] = [
    ("hourly", 24, 3_600),
    ("daily", 7, DAY),
    ("weekly", 4, 7 * DAY),
    ("monthly", 12, 28 * DAY),
    ("yearly", 0, 365 * DAY),
];

const DAY: u64 = 86_400;

/// All keys of a policy.
const KEYS: &[&str] = &["min", "keep", "hourly", "daily", "weekly", "monthly", "yearly"];

/// The longest time that can be said, in days.
const LONGEST: u64 = 36_500;

/// What stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Policy {
    /// Everything.
    All,
    /// What these keys say.
    Keys(Vec<Pair>),
}

impl Policy {
    /// The policy that the narrowest of these tables has, the widest first.
    pub fn of(scopes: &[Section<'_>], notes: &mut Vec<String>) -> Self {
        match read(scopes, notes) {
            Ok(policy) => policy,
            Err(what) => {
                notes.push(format!("retention {what}: cannot be read, so all of it stays"));
                Policy::All
            }
        }
    }

    /// Of copies, all stay where there is no policy.
    pub fn of_copies(&self) -> Vec<Pair> {
        match self {
            Policy::All => Vec::new(),
            Policy::Keys(keys) => keys.clone(),
        }
    }

    /// Of snapshots, only what the next difference needs stays where there is no policy.
    pub fn of_snapshots(&self) -> Vec<Pair> {
        match self {
            Policy::All => vec![("semantics", quoted("btrbk")), ("preserve-min", quoted("all"))],
            Policy::Keys(keys) => keys.clone(),
        }
    }
}

/// Tells of what such a table says that is not read, and of what it leaves to a wider one.
pub(super) fn told(own: Section<'_>, wider: &[Section<'_>], notes: &mut Vec<String>) {
    own.told(KEYS, notes);
    let says = |scope: &Section<'_>, key: &str| scope.value(key).is_some();
    let inherited: Vec<&str> = KEYS
        .iter()
        .copied()
        .filter(|key| !says(&own, key) && wider.iter().any(|scope| says(scope, key)))
        .collect();
    if own.table.is_some() && !inherited.is_empty() {
        notes.push(format!(
            "{} of its retention: as the wider one says, which is how versions from 0.9.7 on read it; before, it was the default",
            inherited.join(", ")
        ));
    }
}

/// What stays, or which key cannot be read, as it is written.
fn read(scopes: &[Section<'_>], notes: &mut Vec<String>) -> Result<Policy, String> {
    let minimum = match narrowest(scopes, "min") {
        None => "1d".to_owned(),
        Some(scope) => scope.text_of("min").ok_or_else(|| scope.says("min"))?,
    };
    let Age { span, seconds } = match age(&minimum).ok_or_else(|| format!("min = {minimum:?}"))? {
        Some(age) => age,
        None => return Ok(Policy::All),
    };
    let newest = count(scopes, "keep", 0)?;
    let mut keys: Vec<Pair> =
        (seconds > 0).then(|| ("within", quoted(&span))).into_iter().collect();
    if newest > 0 {
        keys.push(("last", newest.to_string()));
        if COUNTS.iter().any(|(key, ..)| narrowest(scopes, key).is_some()) {
            notes.push(format!("retention keep = {newest}: hourly to yearly mean nothing beside it, and are left out"));
        }
        return Ok(Policy::Keys(keys));
    }
    let mut counts = Vec::new();
    for (key, default, period) in COUNTS {
        counts.push((key, count(scopes, key, default)?, period));
    }
    // It takes that for a mistake, refuses to carry it out, and keeps everything until somebody forces it.
    if seconds <= DAY && counts.iter().all(|(_, count, _)| *count == 0) {
        notes.push(format!(
            "retention that keeps nothing beyond min = {minimum:?}: btrfs-backup-ng refuses to carry that out, so all of it stays — say what is to stay in keep"
        ));
        return Ok(Policy::All);
    }
    for (key, count, period) in counts {
        // There it begins where the age ends, here with the newest: so many periods may have copies within that age alone.
        let within = if seconds > 0 { seconds.div_ceil(period) + 1 } else { 0 };
        let more = within.cast_signed();
        keys.extend((count > 0).then(|| (key, (count + more).to_string())));
    }
    Ok(Policy::Keys(keys))
}

/// The narrowest table that says this.
fn narrowest<'s, 't>(scopes: &'s [Section<'t>], key: &str) -> Option<&'s Section<'t>> {
    scopes.iter().rev().find(|scope| scope.value(key).is_some())
}

fn count(scopes: &[Section<'_>], key: &str, default: i64) -> Result<i64, String> {
    let Some(scope) = narrowest(scopes, key) else { return Ok(default) };
    scope.whole(key).filter(|count| (0..=LARGEST).contains(count)).ok_or_else(|| scope.says(key))
}

/// The largest number of copies or periods that can be said.
const LARGEST: i64 = 1 << 31;

/// The age up to which everything stays.
struct Age {
    span: String,
    seconds: u64,
}

/// Reads such an age, as ours no shorter than the longest that it may be: months and years are those of the calendar.
/// `Some(None)` where everything stays, however old.
fn age(text: &str) -> Option<Option<Age>> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("all") {
        return Some(None);
    }
    let unit = text.chars().last()?;
    let count: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
    let (unit, of_these, seconds) = match unit {
        's' => ("s", 1, 1),
        'm' => ("m", 1, 60),
        'h' => ("h", 1, 3_600),
        'd' => ("d", 1, DAY),
        'w' => ("w", 1, 7 * DAY),
        'M' => ("d", 31, DAY),
        'y' => ("d", 366, DAY),
        _ => return None,
    };
    let count = count.saturating_mul(of_these);
    let seconds = count.saturating_mul(seconds);
    let age = Age { span: format!("{count}{unit}"), seconds };
    Some((seconds <= LONGEST * DAY).then_some(age))
}
