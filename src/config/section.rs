//! A table of the tree, for reading: gives a value, or nothing when it is absent or was refused.

use super::diagnostic::{Complaint, Notes};
use super::key::{Key, Keyed, Table as Shape};
use super::kind::Elements;
use super::source::Span;
use super::tree::{Entry, Table};

/// A table under its name.
#[derive(Debug, Clone)]
pub(super) struct Section<'t> {
    /// The table's key.
    pub key: &'t str,
    /// Where the key stands.
    pub at: Span,
    table: &'t Table,
}

impl<'t> Section<'t> {
    /// The table of an entry; `None` when the entry is none.
    pub fn of(entry: &'t Entry) -> Option<Self> {
        let table = entry.node.value.table()?;
        Some(Self { key: &entry.key, at: entry.at, table })
    }

    /// The whole tree.
    pub fn root(table: &'t Table) -> Self {
        Self { key: "", at: Span { file: 0, start: 0, end: 0 }, table }
    }

    fn entry(&self, key: &dyn Keyed) -> Option<&'t Entry> {
        self.table.get(key.key())
    }

    /// Whether the key is there at all, with whatever value.
    pub fn has(&self, key: &dyn Keyed) -> bool {
        self.entry(key).is_some()
    }

    /// Refuses each of these keys that is there: `KEY WHY`.
    pub fn refuse(&self, keys: &[&dyn Keyed], why: &str, notes: &mut Notes) {
        for key in keys.iter().copied().filter(|key| self.has(*key)) {
            notes.problem(self.key_at(key), Complaint::new(format!("{} {why}", key.key())));
        }
    }

    /// Where the key stands, or the table when it is absent.
    pub fn key_at(&self, key: &dyn Keyed) -> Span {
        self.entry(key).map_or(self.at, |entry| entry.at)
    }

    /// Where the value stands, or the table when it is absent.
    pub fn value_at(&self, key: &dyn Keyed) -> Span {
        self.entry(key).map_or(self.at, |entry| entry.node.at)
    }

    /// The value that stands here, if one does that can be read.
    pub fn given<T>(&self, key: &Key<T>) -> Option<T> {
        self.entry(key).and_then(|entry| key.read(&entry.node))
    }

    /// The value that holds: the one that stands here, else the default. A key with a default always has one.
    pub fn get<T>(&self, key: &Key<T>) -> Option<T> {
        self.given(key).or_else(|| key.of_default())
    }

    /// The readable elements of a list, each with its span; none when it is absent.
    pub fn list<T>(&self, key: &Key<Elements<T>>) -> Elements<T> {
        self.given(key).unwrap_or_default()
    }

    /// The readable elements of a list; none when it is absent.
    pub fn values<T>(&self, key: &Key<Elements<T>>) -> Vec<T> {
        self.list(key).into_iter().map(|(value, _)| value).collect()
    }

    /// Whether a list is there and has no elements, readable or not.
    pub fn is_empty_list(&self, key: &dyn Keyed) -> bool {
        self.entry(key).and_then(|entry| entry.node.value.list()).is_some_and(<[_]>::is_empty)
    }

    /// A table below this one.
    pub fn table(&self, key: &dyn Keyed) -> Option<Section<'t>> {
        self.entry(key).and_then(Section::of)
    }

    /// A table below this one; an empty one when it is absent, so that its defaults hold.
    pub fn part(&self, key: &dyn Keyed) -> Section<'t> {
        static EMPTY: Table = Table { entries: Vec::new() };
        self.table(key).unwrap_or(Self { key: key.key(), at: self.at, table: &EMPTY })
    }

    /// All entries, readable or not.
    pub fn entries(&self) -> &'t [Entry] {
        &self.table.entries
    }

    /// Those tables in it that are tables.
    pub fn tables(&self) -> Vec<Section<'t>> {
        self.table.entries.iter().filter_map(Section::of).collect()
    }

    /// Whether a table stands here under a key that is none: it has been reported as an unknown key, and is likely
    /// what seems to be missing.
    pub fn holds_misspelt_table(&self, shape: &Shape) -> bool {
        let is_known = |entry: &Entry| shape.items().any(|item| item.name() == entry.key);
        let mut tables = self.table.entries.iter().filter(|entry| Section::of(entry).is_some());
        tables.any(|entry| !is_known(entry))
    }
}
