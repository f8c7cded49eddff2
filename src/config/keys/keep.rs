//! `[targets.NAME.keep]` and `[jobs.NAME.keep.TARGET]`: which copies stay.

use std::time::Duration;

use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Start, Table, no_variants};
use crate::config::kind::Elements;
use crate::config::kinds::{LONG_SPAN, TEXTS, Whole};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::keep::KeepPolicy;

/// The table of a target.
pub const OF_TARGET: Table = Table {
    name: "keep",
    says: "Which copies stay; without this table all of them do",
    start: Start::on(
        "targets.disk.keep",
        "Which copies stay; without this table all of them do. The newest copy always stays. Hours, days, weeks (from Monday),\n\
         months and years are those of the machine's time zone (/etc/localtime; TZ is not asked).",
    ),
    variants: no_variants,
    items: &[PERIODS, &[Item::Value(&TAGS)]],
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
    items: &[PERIODS],
};

const PERIODS: &[Item] = &[
    Item::Value(&LAST),
    Item::Value(&HOURLY),
    Item::Value(&DAILY),
    Item::Value(&WEEKLY),
    Item::Value(&MONTHLY),
    Item::Value(&YEARLY),
    Item::Value(&WITHIN),
];

const LAST: Key<u32> = Key::new("last", &Whole(0)).says("The newest copies").on("3");

const HOURLY: Key<u32> = Key::new("hourly", &Whole(0))
    .says("One copy for each of so many hours of local time")
    .example("24");

const DAILY: Key<u32> =
    Key::new("daily", &Whole(0)).says("One copy for each of so many days of local time").on("7");

const WEEKLY: Key<u32> =
    Key::new("weekly", &Whole(0)).says("One copy for each of so many weeks of local time").on("4");

const MONTHLY: Key<u32> = Key::new("monthly", &Whole(0))
    .says("One copy for each of so many months of local time")
    .on("6");

const YEARLY: Key<u32> = Key::new("yearly", &Whole(0))
    .says("One copy for each of so many years of local time")
    .example("2");

const WITHIN: Key<Duration> = Key::new("within", &LONG_SPAN)
    .says("Everything younger than this, counted back from the newest copy")
    .example("'2d'")
    .told();

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
    let policy = KeepPolicy {
        last: section.get(&LAST),
        hourly: section.get(&HOURLY),
        daily: section.get(&DAILY),
        weekly: section.get(&WEEKLY),
        monthly: section.get(&MONTHLY),
        yearly: section.get(&YEARLY),
        within: section.get(&WITHIN),
        tags: section.values(&TAGS),
    };
    // What could not be read is a problem of its own and may well keep something.
    let unreadable = counts.iter().any(|key| section.has(*key) && section.get(key).is_none())
        || section.has(&WITHIN) && policy.within.is_none();
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
    Effects { table: "jobs.NAME.keep.NAME", file: "[jobs.j.keep.t]\nKEY\nTARGET JOB", rows: ROWS },
];
