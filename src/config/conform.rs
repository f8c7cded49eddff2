//! Holds the tree against the declared shape: unknown keys, wrong types, values that are none.
//!
//! It looks at every key of every file and never stops, so that ten mistakes are ten problems. What
//! passes here can be read without complaint by `resolve`, which only judges what values mean together.

use super::diagnostic::{Complaint, Notes, suggest};
use super::file::{FILE, Key, Kind, Names};
use super::tree::{Entry, Node, Table, Value, bare};
use super::value;
use crate::model::names::{HostName, JobName, TargetName};
use crate::model::near::nearest;

/// Checks the whole tree.
pub(super) fn conform(root: &Table, notes: &mut Notes) {
    table(root, FILE, "", notes);
}

fn table(table: &Table, keys: &'static [Key], name: &str, notes: &mut Notes) {
    for entry in &table.entries {
        match keys.iter().find(|key| key.name == entry.key) {
            Some(key) => check(entry, key, name, notes),
            None => notes.problem(entry.at, unknown(entry, keys, name)),
        }
    }
}

fn unknown(entry: &Entry, keys: &[Key], name: &str) -> Complaint {
    let word = entry.key.as_str();
    let place = if name.is_empty() { String::new() } else { format!(" in [{name}]") };
    // What this version would refuse is no advice.
    let names: Vec<&str> = keys.iter().filter(|key| is_served(key)).map(|key| key.name).collect();
    let help = match (nearest(word, names.iter().copied()), home(FILE, "", word)) {
        (None, Some(home)) => format!("it belongs in [{home}]"),
        _ => suggest(word, &names),
    };
    Complaint::new(format!("unknown key {word:?}{place}")).help(help)
}

fn is_served(key: &Key) -> bool {
    !matches!(key.kind, Kind::Later(_))
}

/// The first table that has a key of this name.
fn home(keys: &[Key], name: &str, word: &str) -> Option<String> {
    if !name.is_empty() && keys.iter().any(|key| key.name == word && is_served(key)) {
        return Some(name.to_owned());
    }
    keys.iter().find_map(|key| match key.kind {
        Kind::Table(keys) => home(keys, &dotted(name, key.name), word),
        Kind::Named(_, keys) => home(keys, &format!("{}.NAME", dotted(name, key.name)), word),
        _ => None,
    })
}

/// The name of a table in a table.
pub(super) fn dotted(parent: &str, key: &str) -> String {
    if parent.is_empty() { bare(key) } else { format!("{parent}.{}", bare(key)) }
}

fn check(entry: &Entry, key: &Key, parent: &str, notes: &mut Notes) {
    let node = &entry.node;
    let name = dotted(parent, key.name);
    let mut say = |node: &Node, complaint: Complaint| {
        let message = format!("{}: {}", key.name, complaint.message);
        notes.problem(node.at, Complaint { message, ..complaint });
    };
    let mut one = |result: Result<(), Complaint>| {
        if let Err(complaint) = result {
            say(node, complaint);
        }
    };
    match key.kind {
        Kind::Text => one(value::text(node).map(drop)),
        Kind::Host => one(value::line(node).and_then(|text| match HostName::new(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(Complaint::new(error.to_string())),
        })),
        Kind::FileName => one(value::file_name(node).map(drop)),
        Kind::Whole(least) => one(value::whole(node, least).map(drop)),
        Kind::Flag => one(value::flag(node).map(drop)),
        Kind::Span => one(value::span(node).map(drop)),
        Kind::LongSpan => one(value::long_span(node).map(drop)),
        Kind::Path => one(value::path(node).map(drop)),
        Kind::Argv => one(value::argv(node).map(drop)),
        Kind::Word(words) => one(value::word(node, words).map(drop)),
        Kind::BorgCompression => one(value::borg_compression(node).map(drop)),
        Kind::BorgFilesCache => one(value::borg_files_cache(node).map(drop)),
        Kind::Shrink => one(value::shrink(node).map(drop)),
        Kind::Share => one(value::share(node).map(drop)),
        Kind::Percent => one(value::percentage(node).map(drop)),
        Kind::SnapshotSize => one(value::snapshot_size(node).map(drop)),
        Kind::Texts => each(node, "strings", |node| value::text(node).map(drop), say),
        Kind::Patterns => each(node, "strings", |node| value::pattern(node).map(drop), say),
        Kind::Paths => each(node, "absolute paths", |node| value::path(node).map(drop), say),
        Kind::Argvs => match value::as_argvs(node) {
            Some(instead) => say(
                node,
                Complaint::new("expected a list of lists, each a program and its arguments")
                    .help(format!("write {instead}")),
            ),
            None => each(
                node,
                "lists, each a program and its arguments",
                |node| value::argv(node).map(drop),
                say,
            ),
        },
        Kind::Later(what) => notes.problem(
            entry.at,
            Complaint::new(format!("this version of Stillpoint cannot {what} yet")),
        ),
        Kind::Table(keys) => {
            if let Some(found) = as_table(node, &name, notes) {
                table(found, keys, &name, notes);
            }
        }
        Kind::Named(what, keys) => {
            let Some(found) = as_table(node, &name, notes) else { return };
            for entry in &found.entries {
                if let Err(message) = name_fits(what, &entry.key) {
                    notes.problem(entry.at, Complaint::new(message));
                }
                let name = dotted(&name, &entry.key);
                if let Some(found) = as_table(&entry.node, &name, notes) {
                    table(found, keys, &name, notes);
                }
            }
        }
    }
}

fn each(
    node: &Node,
    of: &str,
    read: impl Fn(&Node) -> Result<(), Complaint>,
    mut say: impl FnMut(&Node, Complaint),
) {
    match value::list(node, of) {
        // What would be refused as an element is not proposed as one.
        Err(complaint) if matches!(node.value, Value::Text(_)) && read(node).is_ok() => {
            say(node, complaint.help(format!("write [{}]", node.to_toml())));
        }
        Err(complaint) => say(node, complaint),
        Ok(nodes) => {
            for node in nodes {
                if let Err(complaint) = read(node) {
                    say(node, complaint);
                }
            }
        }
    }
}

fn as_table<'t>(node: &'t Node, name: &str, notes: &mut Notes) -> Option<&'t Table> {
    match &node.value {
        Value::Table(table) => Some(table),
        _ => {
            let message = format!("expected the table [{name}], found {}", node.type_name());
            notes.problem(node.at, Complaint::new(message));
            None
        }
    }
}

fn name_fits(what: Names, name: &str) -> Result<(), String> {
    match what {
        Names::Target => TargetName::new(name).map(drop).map_err(|error| error.to_string()),
        Names::Job => JobName::new(name).map(drop).map_err(|error| error.to_string()),
        Names::Item => value::item_name(name).map_err(|complaint| complaint.message),
        // Whether it is the name of a target is known only when all targets are.
        Names::Reference => Ok(()),
    }
}
