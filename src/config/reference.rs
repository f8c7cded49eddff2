//! The declared keys for people who look one up: the manual page's list.

use super::conform::dotted;
use super::key::{Item, Table, node_of};
use super::keys::root::FILE;

/// A table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableReference {
    /// Its name in the file: `targets.NAME.borg`.
    pub name: String,
    /// What it is for.
    pub says: &'static str,
    /// The keys in it that hold values.
    pub keys: Vec<KeyReference>,
}

/// A key that holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyReference {
    /// The key.
    pub name: &'static str,
    /// What it holds: `a length of time`.
    pub holds: String,
    /// What holds where the file says nothing, in TOML; `None` where nothing does.
    pub default: Option<String>,
    /// What it says.
    pub says: &'static str,
}

/// Every table that this version serves, with its keys, in the order in which they are declared.
pub fn reference() -> Vec<TableReference> {
    let mut found = Vec::new();
    below(&FILE, "", &mut found);
    found
}

fn below(declared: &Table, name: &str, found: &mut Vec<TableReference>) {
    for item in declared.items() {
        match item {
            Item::Table(table) | Item::Named(table, _) => {
                let name = format!("{}{}", dotted(name, item.name()), item.placeholder());
                let keys = table.items().filter_map(key).collect();
                found.push(TableReference { name: name.clone(), says: table.says, keys });
                below(table, &name, found);
            }
            Item::Value(_) | Item::Later(..) => {}
        }
    }
}

fn key(item: Item) -> Option<KeyReference> {
    match item {
        Item::Value(key) => {
            let about = key.about();
            Some(KeyReference {
                name: about.name,
                holds: key.shown(),
                default: about.default.and_then(node_of).map(|node| node.to_toml()),
                says: about.says,
            })
        }
        Item::Table(_) | Item::Named(..) | Item::Later(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_called_as_in_the_file_and_keys_have_their_defaults() {
        let tables = reference();
        let table = |name: &str| tables.iter().find(|table| table.name == name).unwrap();
        let keys = &table("targets.NAME.borg").keys;
        let key = keys.iter().find(|key| key.name == "stall-timeout").unwrap();
        assert_eq!(key.default.as_deref(), Some("\"30m\""));
        assert_eq!(key.holds, "a length of time");
        assert!(table("jobs.NAME.keep.TARGET").keys.len() > 5);
        assert!(tables.iter().all(|table| !table.name.contains("machines")));
    }
}
