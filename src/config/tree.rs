//! The files as one tree of values, each with the bytes it came from.
//!
//! serde stops at the first mistake and forgets where values stood, so the files are parsed into this
//! tree first. Drop-ins are merged here, by table key: tables join, everything else is replaced.

use toml::de::{DeTable, DeValue};

use super::diagnostic::Complaint;
use super::source::Span;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The value's bytes.
    pub at: Span,
    /// The value.
    pub value: Value,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A string.
    Text(String),
    /// An integer; one that no 128 bits hold is the nearest that they do.
    Whole(i128),
    /// A boolean.
    Flag(bool),
    /// A float, as written.
    Float(String),
    /// A date or time, as written.
    Date(String),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

impl Value {
    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Whole(_)
            | Value::Flag(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::List(_)
            | Value::Table(_) => None,
        }
    }

    /// The elements, if it is an array.
    pub fn list(&self) -> Option<&[Node]> {
        match self {
            Value::List(nodes) => Some(nodes),
            Value::Text(_)
            | Value::Whole(_)
            | Value::Flag(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::Table(_) => None,
        }
    }

    /// The table, if it is one.
    pub fn table(&self) -> Option<&Table> {
        match self {
            Value::Table(table) => Some(table),
            Value::Text(_)
            | Value::Whole(_)
            | Value::Flag(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::List(_) => None,
        }
    }
}

impl Node {
    /// The type, with its article, for messages.
    pub fn type_name(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "a string",
            Value::Whole(_) => "an integer",
            Value::Flag(_) => "a boolean",
            Value::Float(_) => "a float",
            Value::Date(_) => "a date",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// The value as TOML on one line.
    pub fn to_toml(&self) -> String {
        match &self.value {
            Value::Text(text) => toml::Value::String(text.clone()).to_string(),
            Value::Whole(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::Float(text) | Value::Date(text) => text.clone(),
            Value::List(nodes) => {
                let items: Vec<String> = nodes.iter().map(Node::to_toml).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Table(table) => {
                let items: Vec<String> = (table.entries.iter())
                    .map(|entry| format!("{} = {}", bare(&entry.key), entry.node.to_toml()))
                    .collect();
                format!("{{ {} }}", items.join(", "))
            }
        }
    }

    fn read(file: usize, node: &toml::Spanned<DeValue<'_>>) -> Self {
        let value = match node.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let negative = number.as_str().starts_with('-');
                let nearest = if negative { i128::MIN } else { i128::MAX };
                let read = i128::from_str_radix(number.as_str(), number.radix());
                Value::Whole(read.unwrap_or(nearest))
            }
            DeValue::Float(number) => Value::Float(number.to_string()),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(nodes) => {
                Value::List(nodes.iter().map(|node| Node::read(file, node)).collect())
            }
            DeValue::Table(table) => Value::Table(Table::read(file, table)),
        };
        Self { at: span_in(file, node.span()), value }
    }
}

/// A key, where it stands, and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// The key's bytes, in the file that gave the value.
    pub at: Span,
    /// The value.
    pub node: Node,
}

impl Entry {
    /// Where the entry is first named: `[a.b]` names `a` before a later `[a]` does.
    fn first_byte(&self) -> usize {
        let entries = self.node.value.table().map_or(&[][..], |table| &table.entries);
        let below = entries.iter().map(Entry::first_byte).min();
        below.map_or(self.at.start, |below| below.min(self.at.start))
    }
}

/// A table, in the order in which the files name its keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// The entries; no key occurs twice.
    pub entries: Vec<Entry>,
}

impl Table {
    /// Reads one file.
    ///
    /// # Errors
    /// Where the text is no TOML, and why.
    pub fn parse(file: usize, text: &str) -> Result<Self, (Span, Complaint)> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Table::read(file, table.get_ref())),
            Err(error) => {
                let at = span_in(file, error.span().unwrap_or_default());
                Err((at, Complaint::new(format!("not valid TOML: {}", error.message()))))
            }
        }
    }

    /// The entry of that key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Lays a later file over this one: tables join key by key, everything else is replaced.
    pub fn merge(&mut self, later: Table) {
        for entry in later.entries {
            let Some(mine) = self.entries.iter_mut().find(|mine| mine.key == entry.key) else {
                self.entries.push(entry);
                continue;
            };
            match (&mut mine.node.value, entry.node.value) {
                (Value::Table(mine), Value::Table(later)) => mine.merge(later),
                (_, value) => {
                    mine.at = entry.at;
                    mine.node = Node { at: entry.node.at, value };
                }
            }
        }
    }

    fn read(file: usize, table: &DeTable<'_>) -> Self {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, node)| Entry {
                key: key.get_ref().to_string(),
                at: span_in(file, key.span()),
                node: Node::read(file, node),
            })
            .collect();
        // The parser sorts by name, people by importance.
        entries.sort_by_cached_key(Entry::first_byte);
        Self { entries }
    }
}

fn span_in(file: usize, span: std::ops::Range<usize>) -> Span {
    Span { file, start: span.start, end: span.end }
}

/// A key as it stands in TOML: quoted where it must be.
pub(super) fn bare(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(plain) {
        key.to_owned()
    } else {
        toml::Value::String(key.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_files() {
        let table = Table::parse(0, "[z]\n[b.y]\n[a]\n[b]\nq = 1\n").unwrap();
        let keys: Vec<&str> = table.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["z", "b", "a"]);
    }

    #[test]
    fn later_wins_by_key_and_lists_replace() {
        let mut table = Table::parse(0, "[a]\nx = 1\ny = [1, 2]\nz = 'k'\n").unwrap();
        table.merge(Table::parse(1, "[a]\ny = [3]\nw = true\n").unwrap());
        let a = &table.get("a").unwrap().node;
        assert_eq!(a.to_toml(), r#"{ x = 1, y = [3], z = "k", w = true }"#);
        let Value::Table(a) = &a.value else { panic!("a is a table") };
        assert_eq!(a.get("x").unwrap().at.file, 0);
        assert_eq!(a.get("y").unwrap().at.file, 1);
        assert_eq!(a.get("y").unwrap().node.at.file, 1);
    }

    #[test]
    fn integers_of_every_radix_and_size() {
        let table = Table::parse(0, "a = 0xff\nb = 1_000\nc = -7\nd = 9e1\ne = +3").unwrap();
        let shown: Vec<String> = table.entries.iter().map(|e| e.node.to_toml()).collect();
        assert_eq!(shown, ["255", "1000", "-7", "9e1", "3"]);
        let huge = Table::parse(0, &format!("a = {}", "9".repeat(60))).unwrap();
        assert!(matches!(huge.entries[0].node.value, Value::Whole(i128::MAX)));
    }
}
