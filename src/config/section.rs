//! A table of the tree, for reading: gives a value, or nothing when it is absent or was refused.

use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::Complaint;
use super::source::Place;
use super::tree::{Entry, Node, Table, Value};
use super::value;

/// A table under its name.
#[derive(Debug, Clone)]
pub(super) struct Section<'t> {
    /// The table's key.
    pub key: &'t str,
    /// Where the key stands.
    pub at: Place,
    table: &'t Table,
}

impl<'t> Section<'t> {
    /// The table of an entry; `None` when the entry is none.
    pub fn of(entry: &'t Entry) -> Option<Self> {
        match &entry.node.value {
            Value::Table(table) => Some(Self { key: &entry.key, at: entry.at, table }),
            _ => None,
        }
    }

    /// The whole tree.
    pub fn root(table: &'t Table) -> Self {
        Self { key: "", at: Place { file: 0, start: 0, end: 0 }, table }
    }

    /// Whether the key is there at all, with whatever value.
    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Where the key stands, or the table when it is absent.
    pub fn key_at(&self, key: &str) -> Place {
        self.table.get(key).map_or(self.at, |entry| entry.at)
    }

    /// Where the value stands, or the table when it is absent.
    pub fn value_at(&self, key: &str) -> Place {
        self.table.get(key).map_or(self.at, |entry| entry.node.at)
    }

    /// A value by its reader.
    pub fn get<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'t Node) -> Result<T, Complaint>,
    ) -> Option<T> {
        self.table.get(key).and_then(|entry| read(&entry.node).ok())
    }

    /// A string.
    pub fn text(&self, key: &str) -> Option<String> {
        self.get(key, value::text).map(str::to_owned)
    }

    /// An absolute path.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.get(key, value::path)
    }

    /// A length of time.
    pub fn span(&self, key: &str) -> Option<Duration> {
        self.get(key, value::span)
    }

    /// A boolean that is false when absent.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key, value::flag).unwrap_or(false)
    }

    /// A whole number.
    pub fn whole(&self, key: &str) -> Option<u32> {
        self.get(key, |node| value::whole(node, 0))
    }

    /// The readable elements of a list, each with its place; empty when absent.
    pub fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&'t Node) -> Result<T, Complaint>,
    ) -> Vec<(T, Place)> {
        let nodes = self.get(key, |node| value::list(node, "")).unwrap_or_default();
        nodes.iter().filter_map(|node| Some((read(node).ok()?, node.at))).collect()
    }

    /// A table below this one.
    pub fn table(&self, key: &str) -> Option<Section<'t>> {
        self.table.get(key).and_then(Section::of)
    }

    /// All entries, readable or not.
    pub fn entries(&self) -> &'t [Entry] {
        &self.table.entries
    }

    /// Those tables below the key that are tables.
    pub fn tables(&self, key: &str) -> Vec<Section<'t>> {
        let Some(section) = self.table(key) else { return Vec::new() };
        section.table.entries.iter().filter_map(Section::of).collect()
    }
}
