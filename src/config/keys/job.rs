//! `[jobs.NAME]`: what to protect, where it goes, and what runs around it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::hooks::{self, HOOKS};
use super::keep::{self, OF_JOB as KEEP, OF_SNAPSHOTS as KEEP_SNAPSHOTS};
use super::source::{ReadSource, Trees};
use crate::config::diagnostic::{Complaint, Notes, suggest};
use crate::config::key::{Item, Key, Keyed, Names, Start, Table};
use crate::config::kind::{Elements, Read, Scalar, wrong_type};
use crate::config::kinds::{LONG_SPAN, TEXTS};
use crate::config::pairing::PAIRINGS;
use crate::config::section::Section;
use crate::config::source::Span;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::config::tree::{Node, bare};
use crate::model::job::{Job, Source};
use crate::model::keep::KeepPolicy;
use crate::model::names::{JobName, TargetName};
use crate::model::size::whole_percent;

/// The tables, by name.
pub const JOB: Table = Table {
    name: "jobs",
    says: "What to protect, by name",
    start: Start::on(
        "jobs.system",
        "--- Jobs: what to protect ------------------------------------------------------------------------------\n\n",
    ),
    variants: || PAIRINGS.iter().map(|pairing| pairing.item()).collect(),
    items: &[&[
        Item::Value(&TARGETS),
        // Whether it is the name of a target is known only when all targets are.
        Item::Named(&KEEP, Names { word: "TARGET", fits: |_| Ok(()) }),
        Item::Table(&KEEP_SNAPSHOTS),
        Item::Table(&HOOKS),
        Item::Value(&MAX_SHRINK),
        Item::Value(&MAX_AGE),
    ]],
};

const TARGETS: Key<Elements<String>> = Key::new("targets", &TEXTS)
    .says("Where it goes, in this order")
    .on("['disk']")
    .prose("In this order.");

const MAX_SHRINK: Key<u8> = Key::new(
    "max-shrink",
    &Scalar {
        read: shrink,
        shown: "a percentage or \"off\"",
        schema: || json!({ "type": "string", "pattern": "^([0-9]+%|off)$" }),
    },
)
.says("Refuse to delete old copies when the new one is smaller than the last good one by more than this; or \"off\"")
.default("'50%'")
.told();

const MAX_AGE: Key<Duration> = Key::new("max-age", &LONG_SPAN)
    .says("Overrides the setting of the same name")
    .example("'30h'")
    .told();

/// A job with what the checks between targets and jobs need.
pub struct ReadJob {
    /// Where its table begins.
    pub at: Span,
    /// The job itself.
    pub job: Job,
    /// Each target it lists that exists, with the span of the mention.
    pub targets: Elements<TargetName>,
    /// The trees that it reads.
    pub trees: Trees,
}

/// Reads one job; `None` when it has no name or source to speak of, which has then been noted.
/// `defined` are the targets that exist, readable or not.
pub fn read(section: &Section<'_>, defined: &[&str], notes: &mut Notes) -> Option<ReadJob> {
    let targets = read_targets(section, defined, notes);
    let hooks = section.table(&HOOKS);
    let source = read_source(section, hooks.as_ref(), notes);
    let hooks = hooks.map(|hooks| hooks::read(&hooks, notes)).unwrap_or_default();
    let keep = read_keeps(section, &targets, defined, notes);
    let keep_snapshots = section.table(&KEEP_SNAPSHOTS).map(|keep| keep::read(&keep, notes));
    let ReadSource { source, trees } = source?;
    if keep_snapshots.is_some() && !source.keeps_snapshots() {
        let message = match &source {
            Source::Subvolumes(_) => {
                "this job makes no snapshots that could be kept: it sends existing ones".to_owned()
            }
            Source::Files(_) | Source::Commands(_) => {
                format!("a job of {} keeps no snapshots on this machine", source.kind())
            }
        };
        notes.problem(section.key_at(&KEEP_SNAPSHOTS), Complaint::new(message));
    }
    let keeps_free = keep_snapshots.as_ref().is_some_and(|keep| keep.min_free.is_some());
    if let Some(host) = source.host().filter(|_| keeps_free) {
        let message =
            format!("how much space is free on {host} is not known here: leave out min-free");
        notes.problem(section.key_at(&KEEP_SNAPSHOTS), Complaint::new(message));
    }
    let job = Job {
        name: JobName::new(section.key).ok()?,
        targets: targets.iter().map(|(name, _)| name.clone()).collect(),
        source,
        keep,
        keep_snapshots,
        hooks,
        max_shrink_percent: section.get(&MAX_SHRINK)?,
        max_age: section.get(&MAX_AGE),
    };
    Some(ReadJob { at: section.at, job, targets, trees })
}

/// The first source that can be read. All are read, so that the problems of all show.
fn read_source(
    section: &Section<'_>,
    hooks: Option<&Section<'_>>,
    notes: &mut Notes,
) -> Option<ReadSource> {
    let mut named: Vec<Item> =
        PAIRINGS.iter().map(|pairing| pairing.item()).filter(|kind| section.has(kind)).collect();
    named.sort_by_key(|kind| section.key_at(kind));
    if named.is_empty() {
        no_source(section, notes);
    }
    for second in named.iter().skip(1) {
        let first = named[0].name();
        let complaint = Complaint::new(format!("a job has one source, and {first:?} is another"))
            .help("make it a job of its own");
        notes.problem(section.key_at(second), complaint);
    }
    let mut first = None;
    let mut judged = false;
    for kind in PAIRINGS.iter().filter_map(|pairing| pairing.served()) {
        let Some(table) = section.table(&kind.item) else { continue };
        if !judged {
            (kind.judge_hooks)(&table, hooks, notes);
            judged = true;
        }
        let read = (kind.read)(&table, notes);
        first = first.or(read);
    }
    first
}

fn no_source(section: &Section<'_>, notes: &mut Notes) {
    if section.holds_misspelt_table(&JOB) {
        return;
    }
    let name = bare(section.key);
    let tables: Vec<String> = (PAIRINGS.iter().filter_map(|pairing| pairing.served()))
        .map(|kind| format!("[jobs.{name}.{}{}]", kind.item.name(), kind.item.placeholder()))
        .collect();
    let message = format!("the job {:?} does not say what to protect", section.key);
    let complaint = Complaint::new(message).help(format!("add {}", tables.join(" or ")));
    notes.missing(section.at, complaint);
}

fn read_targets(
    section: &Section<'_>,
    defined: &[&str],
    notes: &mut Notes,
) -> Elements<TargetName> {
    if !section.has(&TARGETS) {
        let message = format!("the job {:?} names no targets", section.key);
        let help = format!("add {} = [\"…\"]", TARGETS.key());
        notes.missing(section.at, Complaint::new(message).help(help));
    } else if section.is_empty_list(&TARGETS) {
        let complaint = Complaint::new("the list of targets is empty: the job would go nowhere");
        notes.problem(section.value_at(&TARGETS), complaint);
    }
    let mut targets: Elements<TargetName> = Vec::new();
    for (name, at) in section.list(&TARGETS) {
        if !defined.contains(&name.as_str()) {
            let complaint = Complaint::new(format!("no target is called {name:?}"));
            notes.missing(at, complaint.help(suggest(&name, defined)));
        } else if targets.iter().any(|(earlier, _)| earlier.as_str() == name) {
            notes.problem(at, Complaint::new(format!("the target {name:?} is listed twice")));
        } else if let Ok(name) = TargetName::new(name) {
            targets.push((name, at));
        }
    }
    targets
}

fn read_keeps(
    section: &Section<'_>,
    targets: &[(TargetName, Span)],
    defined: &[&str],
    notes: &mut Notes,
) -> BTreeMap<TargetName, KeepPolicy> {
    let mut keeps = BTreeMap::new();
    let Some(table) = section.table(&KEEP) else { return keeps };
    for entry in table.entries() {
        let name = entry.key.as_str();
        if !defined.contains(&name) {
            let complaint = Complaint::new(format!("no target is called {name:?}"));
            let help = match keep::has(name) {
                true => format!(
                    "a job's rules stand under a target: [jobs.{}.keep.TARGET]",
                    bare(section.key)
                ),
                false => suggest(name, defined),
            };
            notes.missing(entry.at, complaint.help(help));
        } else if !targets.iter().any(|(target, _)| target.as_str() == name) {
            let message = format!("this job does not go to the target {name:?}");
            notes.missing(entry.at, Complaint::new(message));
        }
        let Some(policy) = Section::of(entry).map(|keep| keep::read(&keep, notes)) else {
            continue;
        };
        if let Ok(name) = TargetName::new(name) {
            keeps.insert(name, policy);
        }
    }
    keeps
}

/// By how much a copy may shrink, in percent; 100 is `"off"`.
fn shrink(node: &Node) -> Read<u8> {
    const EXPECTED: &str = "\"1%\" to \"100%\" or \"off\"";
    let Some(text) = node.value.text() else { return wrong_type(EXPECTED, node) };
    if text == "off" {
        return Ok(100);
    }
    whole_percent(text).ok_or_else(|| Complaint::new(format!("expected {EXPECTED}, not {text:?}")))
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "jobs.NAME",
    file: "TARGET [targets.u.restic]\nrepository='/u'\npassword-file='/p'\n[jobs.j]\nfiles.paths=['/a']\nKEY",
    rows: &[
        ("targets", "targets=['t']", "targets=['u', 't']"),
        ("max-shrink", "targets=['t']", "targets=['t']\nmax-shrink='off'"),
        ("max-age", "targets=['t']", "targets=['t']\nmax-age='1h'"),
    ],
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::node_of;

    #[test]
    fn limits_of_shrinking() {
        let shrink = |toml| shrink(&node_of(toml).unwrap());
        assert_eq!(shrink("'50%'").unwrap(), 50);
        assert_eq!(shrink("'off'").unwrap(), 100);
        for bad in ["'0%'", "'101%'", "'+5%'", "'%'", "50", "'999999%'", "'5.5%'"] {
            assert!(shrink(bad).is_err(), "{bad} was taken as a limit");
        }
    }
}
