//! `[targets.NAME.keep]` and `[jobs.NAME.keep.TARGET]`: which copies stay.

use std::time::Duration;

use serde_json::json;

use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Start, Table, no_variants};
use crate::config::kind::{Choice, Elements, Kind, Read, Say, Scalar, wrong_type};
use crate::config::kinds::{LONG_SPAN, TEXTS, Whole};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::config::tree::Node;
use crate::model::keep::{
    ALL, BtrbkSchedule, KeepPolicy, MinFree, Period, PreserveMin, SHARE_OR_BYTES,
};

/// The table of a target.
pub const OF_TARGET: Table = Table {
    name: "keep",
    says: "Which copies stay; without this table all of them do",
    start: Start::on(
        "targets.disk.keep",
        "Which copies stay; without this table all of them do. The newest copy always stays. Hours, days, weeks (from Monday),\n\
         months and years are those of the machine's time zone (/etc/localtime; TZ is not asked). \"*\" is all of them.\n\
         For a schedule from btrbk: semantics = \"btrbk\", with preserve-min (\"no\", \"latest\", \"all\" or such as \"2d\"),\n\
         preserve-day-of-week (\"sunday\") and preserve-hour-of-day (0).\n\
         For a btrfs: min-free = \"10%\" or \"20G\": the oldest go beyond the rules until there is so much space.",
    ),
    variants: no_variants,
    items: &[PERIODS, &[Item::Value(&TAGS), Item::Value(&MIN_FREE)]],
};

/// The tables of a job, one for each target.
pub const OF_JOB: Table = Table {
    name: "keep",
    says: "Overrides a target's keep for this job",
    start: Start::lines(
        "Retention of this job in one target, instead of the target's own.\n\
         #[jobs.system.keep.disk]\n\
         #daily = 14",
    ),
    variants: no_variants,
    items: &[PERIODS, &[Item::Value(&TAGS)]],
};

/// The table of the snapshots that a job keeps on this machine.
pub const OF_SNAPSHOTS: Table = Table {
    name: "keep-snapshots",
    says: "Which snapshots of subvolumes stay on this machine, besides those that the next differences need",
    start: Start::lines(
        "Which snapshots of subvolumes stay on this machine, besides those that the next differences need.\n\
         #[jobs.home.keep-snapshots]\n\
         #hourly = 24",
    ),
    variants: no_variants,
    items: &[PERIODS, &[Item::Value(&MIN_FREE)]],
};

const PERIODS: &[Item] = &[
    Item::Value(&LAST),
    Item::Value(&HOURLY),
    Item::Value(&DAILY),
    Item::Value(&WEEKLY),
    Item::Value(&MONTHLY),
    Item::Value(&YEARLY),
    Item::Value(&WITHIN),
    Item::Value(&SEMANTICS),
    Item::Value(&PRESERVE_MIN),
    Item::Value(&DAY_OF_WEEK),
    Item::Value(&HOUR_OF_DAY),
];

const LAST: Key<u32> = Key::new("last", &Whole(0)).says("The newest copies").on("3");

const HOURLY: Key<u32> = Key::new("hourly", &Periods)
    .says("One copy for each of so many hours of local time")
    .example("24");

const DAILY: Key<u32> =
    Key::new("daily", &Periods).says("One copy for each of so many days of local time").on("7");

const WEEKLY: Key<u32> =
    Key::new("weekly", &Periods).says("One copy for each of so many weeks of local time").on("4");

const MONTHLY: Key<u32> =
    Key::new("monthly", &Periods).says("One copy for each of so many months of local time").on("6");

const YEARLY: Key<u32> = Key::new("yearly", &Periods)
    .says("One copy for each of so many years of local time")
    .example("2");

const WITHIN: Key<Duration> = Key::new("within", &LONG_SPAN)
    .says("Everything younger than this, counted back from the newest copy")
    .example("'2d'")
    .told();

/// For what frees its space when it is deleted.
pub const MIN_FREE: Key<MinFree> = Key::new(
    "min-free",
    &Scalar {
        read: min_free,
        shown: "a percentage or bytes with their unit",
        schema: || json!({ "type": "string", "pattern": "^[0-9]+[%KMGT]$" }),
    },
)
.says("Space that stays free: beyond the rules the oldest go, one by one, until there is so much; for btrfs")
.hidden();

fn min_free(node: &Node) -> Read<MinFree> {
    let Some(text) = node.value.text() else { return wrong_type(SHARE_OR_BYTES, node) };
    MinFree::parse(text)
        .ok_or_else(|| Complaint::new(format!("expected {SHARE_OR_BYTES}, not {text:?}")))
}

const SEMANTICS: Key<bool> =
    Key::new("semantics", &Choice(&[("stillpoint", false), ("btrbk", true)]))
        .says("How periods are counted: in our own way, or as btrbk does")
        .default("'stillpoint'")
        .hidden();

const PRESERVE_MIN: Key<PreserveMin> = Key::new(
    "preserve-min",
    &Scalar {
        read: preserve_min,
        shown: "no, latest, all, or a number of hours, days, weeks, months or years such as 2d",
        schema: || json!({ "type": "string", "pattern": "^(no|latest|all|[0-9]+[hdwmy])$" }),
    },
)
.says("btrbk's preserve_min: what stays whatever the numbers say; with its semantics it must be there")
.hidden();

const DAY_OF_WEEK: Key<u8> = Key::new(
    "preserve-day-of-week",
    &Choice(&[
        ("sunday", 0),
        ("monday", 1),
        ("tuesday", 2),
        ("wednesday", 3),
        ("thursday", 4),
        ("friday", 5),
        ("saturday", 6),
    ]),
)
.says("btrbk's preserve_day_of_week: with which day weeks, months and years begin")
.default("'sunday'")
.hidden();

const HOUR_OF_DAY: Key<u32> = Key::new("preserve-hour-of-day", &Whole(0))
    .says("btrbk's preserve_hour_of_day: with which hour days begin")
    .default("0")
    .hidden();

/// A number of periods, or all of them.
struct Periods;

impl Kind<u32> for Periods {
    fn read(&self, node: &Node, say: Say<'_>) -> Option<u32> {
        match node.value.text() {
            Some("*") => Some(ALL),
            Some(_) | None => Whole(0).read(node, say),
        }
    }

    fn shown(&self) -> String {
        format!("{} or \"*\" for all", Whole(0).shown())
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "anyOf": [Whole(0).schema(), { "const": "*" }] })
    }
}

fn preserve_min(node: &Node) -> Read<PreserveMin> {
    const EXPECTED: &str = "\"no\", \"latest\", \"all\" or a number with h, d, w, m or y";
    let Some(text) = node.value.text() else { return wrong_type(EXPECTED, node) };
    let period = |unit| match unit {
        'h' => Some(Period::Hour),
        'd' => Some(Period::Day),
        'w' => Some(Period::Week),
        'm' => Some(Period::Month),
        'y' => Some(Period::Year),
        _ => None,
    };
    let counted = || {
        let unit = text.chars().last()?;
        let digits = text.strip_suffix(unit).filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?;
        Some(PreserveMin::Within(digits.parse().ok()?, period(unit)?))
    };
    let found = match text {
        "no" => Some(PreserveMin::No),
        "latest" => Some(PreserveMin::Latest),
        "all" => Some(PreserveMin::All),
        _ => counted(),
    };
    found.ok_or_else(|| Complaint::new(format!("expected {EXPECTED}, not {text:?}")))
}

/// What only one way of counting knows is refused in the other.
fn read_btrbk(section: &Section<'_>, notes: &mut Notes) -> Option<BtrbkSchedule> {
    let is_btrbk = section.get(&SEMANTICS)?;
    if !is_btrbk {
        let why = "means nothing without semantics = \"btrbk\"";
        section.refuse(&[&PRESERVE_MIN, &DAY_OF_WEEK, &HOUR_OF_DAY], why, notes);
        return None;
    }
    section.refuse(&[&LAST, &WITHIN], "means nothing to btrbk: see preserve-min", notes);
    if !section.has(&PRESERVE_MIN) {
        let complaint = Complaint::new("semantics = \"btrbk\" needs preserve-min").help(
            "what btrbk takes it for where it is left out is \"all\", with which everything stays",
        );
        notes.missing(section.key_at(&SEMANTICS), complaint);
    }
    let hour = section.get(&HOUR_OF_DAY)?;
    if hour > 23 {
        notes
            .problem(section.value_at(&HOUR_OF_DAY), Complaint::new("a day has the hours 0 to 23"));
    }
    Some(BtrbkSchedule {
        preserve_min: section.get(&PRESERVE_MIN)?,
        day_of_week: section.get(&DAY_OF_WEEK)?,
        hour_of_day: u8::try_from(hour).ok()?,
    })
}

const TAGS: Key<Elements<String>> = Key::new("tags", &TEXTS)
    .says("Every copy that carries one of these tags")
    .example("['before-upgrade']")
    .told();

/// Whether a key of that name stands in the table.
pub fn has(name: &str) -> bool {
    OF_TARGET.serves(name)
}

/// Reads the table.
pub fn read(section: &Section<'_>, notes: &mut Notes) -> KeepPolicy {
    let counts = [&LAST, &HOURLY, &DAILY, &WEEKLY, &MONTHLY, &YEARLY];
    for (tag, at) in section.list(&TAGS) {
        if tag.contains(',') {
            notes.problem(at, Complaint::new("a tag cannot hold a comma: restic splits there"));
        }
    }
    let btrbk = read_btrbk(section, notes);
    let policy = KeepPolicy {
        last: section.get(&LAST),
        hourly: section.get(&HOURLY),
        daily: section.get(&DAILY),
        weekly: section.get(&WEEKLY),
        monthly: section.get(&MONTHLY),
        yearly: section.get(&YEARLY),
        within: section.get(&WITHIN),
        tags: section.values(&TAGS),
        btrbk,
        min_free: section.given(&MIN_FREE),
    };
    // What could not be read is a problem of its own and may well keep something.
    let unreadable = counts.iter().any(|key| section.has(*key) && section.get(key).is_none())
        || section.has(&WITHIN) && policy.within.is_none()
        || section.get(&SEMANTICS) == Some(true) && policy.btrbk.is_none()
        // Everything stays as long as there is room.
        || section.has(&MIN_FREE);
    if policy.is_empty() && !unreadable && !section.entries().is_empty() {
        let complaint = Complaint::new("this policy would keep nothing")
            .help("leave the table out to keep everything");
        notes.problem(section.at, complaint);
    }
    policy
}

/// What a change of each key changes, in either table.
#[cfg(test)]
const ROWS: &[(&str, &str, &str)] = &[
    ("last", "", "last=1"),
    ("hourly", "", "hourly=1"),
    ("daily", "", "daily=1"),
    ("weekly", "", "weekly=1"),
    ("monthly", "", "monthly=1"),
    ("yearly", "", "yearly=1"),
    ("within", "", "within='1d'"),
    ("semantics", "daily=1", "daily=1\nsemantics='btrbk'\npreserve-min='no'"),
    (
        "preserve-min",
        "semantics='btrbk'\npreserve-min='all'",
        "semantics='btrbk'\npreserve-min='2d'",
    ),
    (
        "preserve-day-of-week",
        "semantics='btrbk'\npreserve-min='all'",
        "semantics='btrbk'\npreserve-min='all'\npreserve-day-of-week='monday'",
    ),
    (
        "preserve-hour-of-day",
        "semantics='btrbk'\npreserve-min='all'",
        "semantics='btrbk'\npreserve-min='all'\npreserve-hour-of-day=5",
    ),
    ("tags", "", "tags=['a']"),
];

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[
    Effects { table: "targets.NAME.keep", file: "[targets.t.keep]\nKEY\nTARGET JOB", rows: ROWS },
    Effects {
        table: "jobs.NAME.keep-snapshots",
        file: "[targets.t.btrfs]\nlocation='/r'\n[jobs.j]\ntargets=['t']\nsubvolumes.paths=['/a']\n[jobs.j.keep-snapshots]\nKEY\n",
        rows: ROWS.split_at(ROWS.len() - 1).0,
    },
    Effects {
        table: "targets.NAME.keep",
        file: "[targets.t.btrfs]\nlocation='/r'\n[targets.t.keep]\nKEY\n[jobs.j]\ntargets=['t']\nsubvolumes.paths=['/a']\n",
        rows: &[("min-free", "", "min-free='10%'")],
    },
    Effects {
        table: "jobs.NAME.keep-snapshots",
        file: "[targets.t.btrfs]\nlocation='/r'\n[jobs.j]\ntargets=['t']\nsubvolumes.paths=['/a']\n[jobs.j.keep-snapshots]\nKEY\n",
        rows: &[("min-free", "", "min-free='20G'")],
    },
    Effects { table: "jobs.NAME.keep.NAME", file: "[jobs.j.keep.t]\nKEY\nTARGET JOB", rows: ROWS },
];
