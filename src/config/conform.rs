//! Holds the tree against the declared keys: unknown keys, wrong types, values that are none.
//!
//! It looks at every key of every file and never stops, so that ten mistakes are ten problems. What
//! passes here can be read without complaint, by the same readers; `keys` and `resolve` only judge what values
//! mean together.

use super::diagnostic::{Complaint, Notes, suggest};
use super::key::{Item, Table};
use super::keys::root::FILE;
use super::tree::{Entry, Node, Table as Tree, bare};
use crate::model::near::nearest;

/// Checks the whole tree.
pub(super) fn conform(root: &Tree, notes: &mut Notes) {
    table(root, &FILE, "", notes);
}

fn table(found: &Tree, declared: &Table, name: &str, notes: &mut Notes) {
    for entry in &found.entries {
        match declared.items().find(|item| item.name() == entry.key) {
            Some(item) => check(entry, item, name, notes),
            None => notes.problem(entry.at, unknown(entry, declared, name)),
        }
    }
}

fn unknown(entry: &Entry, declared: &Table, name: &str) -> Complaint {
    let word = entry.key.as_str();
    let place = if name.is_empty() { String::new() } else { format!(" in [{name}]") };
    // What this version would refuse is no advice.
    let names: Vec<&str> =
        declared.items().filter(Item::is_served).map(|item| item.name()).collect();
    let help = match (nearest(word, names.iter().copied()), home(&FILE, "", word)) {
        (None, Some(home)) => format!("it belongs in [{home}]"),
        _ => suggest(word, &names),
    };
    Complaint::new(format!("unknown key {word:?}{place}")).help(help)
}

/// The first table that has a key of this name.
fn home(table: &Table, name: &str, word: &str) -> Option<String> {
    if !name.is_empty() && table.serves(word) {
        return Some(name.to_owned());
    }
    table.items().find_map(|item| match item {
        Item::Table(table) => home(table, &dotted(name, table.name), word),
        Item::Named(table, _) => home(table, &format!("{}.NAME", dotted(name, table.name)), word),
        Item::Value(_) | Item::Later(..) => None,
    })
}

/// The name of a table in a table.
pub(super) fn dotted(parent: &str, key: &str) -> String {
    let key = bare(key);
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

fn check(entry: &Entry, item: Item, parent: &str, notes: &mut Notes) {
    let node = &entry.node;
    let name = dotted(parent, item.name());
    match item {
        Item::Value(key) => key.check(node, &mut |node, complaint| {
            let message = format!("{}: {}", item.name(), complaint.message);
            notes.problem(node.at, Complaint { message, ..complaint });
        }),
        Item::Later(_, what) => notes.problem(
            entry.at,
            Complaint::new(format!("this version of Stillpoint cannot {what} yet")),
        ),
        Item::Table(declared) => {
            if let Some(found) = as_table(node, &name, notes) {
                table(found, declared, &name, notes);
            }
        }
        Item::Named(declared, names) => {
            let Some(found) = as_table(node, &name, notes) else { return };
            for entry in &found.entries {
                if let Err(message) = (names.fits)(&entry.key) {
                    notes.problem(entry.at, Complaint::new(message));
                }
                let name = dotted(&name, &entry.key);
                if let Some(found) = as_table(&entry.node, &name, notes) {
                    table(found, declared, &name, notes);
                }
            }
        }
    }
}

fn as_table<'t>(node: &'t Node, name: &str, notes: &mut Notes) -> Option<&'t Tree> {
    let table = node.value.table();
    if table.is_none() {
        let message = format!("expected the table [{name}], found {}", node.type_name());
        notes.problem(node.at, Complaint::new(message));
    }
    table
}
