//! How keys and tables of the configuration are declared. The declarations themselves are in `keys`, one file a table.
//!
//! From a declaration come the check of the file, the reading of the value and of its default, the suggestions for
//! misspelt keys, the commented start file, the JSON schema and the manual page.

use super::kind::{Kind, Say};
use super::tree::{Node, Table as Tree};

/// A key that holds a value.
pub struct Key<T: 'static> {
    about: About,
    kind: &'static dyn Kind<T>,
}

/// What is told of a key.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The key, kebab-case.
    pub name: &'static str,
    /// What it says, in one line.
    pub says: &'static str,
    /// What holds where the file says nothing, in TOML.
    pub default: Option<&'static str>,
    /// What the start file shows.
    pub sample: Sample,
    /// What the start file says above it.
    pub prose: Prose,
}

/// The line of a key in the start file.
#[derive(Debug, Clone, Copy)]
pub enum Sample {
    /// The default, switched off; no line without a default. Prose can tell of the key.
    Default,
    /// This TOML, switched off.
    Off(&'static str),
    /// This TOML.
    On(&'static str),
    /// No line: prose tells of the key.
    Hidden,
}

/// The comment above a key in the start file.
#[derive(Debug, Clone, Copy)]
pub enum Prose {
    /// None: the name and what stands above it are enough.
    Silent,
    /// What the key says.
    Says,
    /// These lines.
    Text(&'static str),
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> Key<T> {
    /// A key of that name and kind.
    pub const fn new(name: &'static str, kind: &'static dyn Kind<T>) -> Self {
        let (sample, prose) = (Sample::Default, Prose::Silent);
        Self { about: About { name, says: "", default: None, sample, prose }, kind }
    }

    /// What it says, in one line: a sentence without its full stop.
    pub const fn says(mut self, says: &'static str) -> Self {
        self.about.says = says;
        self
    }

    /// What holds where the file says nothing, in TOML.
    pub const fn default(mut self, toml: &'static str) -> Self {
        self.about.default = Some(toml);
        self
    }

    /// What the start file shows, in TOML, switched off.
    pub const fn example(mut self, toml: &'static str) -> Self {
        self.about.sample = Sample::Off(toml);
        self
    }

    /// What the start file says, in TOML, switched on.
    pub const fn on(mut self, toml: &'static str) -> Self {
        self.about.sample = Sample::On(toml);
        self
    }

    /// The start file has no line for it.
    pub const fn hidden(mut self) -> Self {
        self.about.sample = Sample::Hidden;
        self
    }

    /// The start file says above it what the key says.
    pub const fn told(mut self) -> Self {
        self.about.prose = Prose::Says;
        self
    }

    /// The start file says this above it.
    pub const fn prose(mut self, lines: &'static str) -> Self {
        self.about.prose = Prose::Text(lines);
        self
    }

    /// The value of a node, as far as it is one.
    pub fn read(&self, node: &Node) -> Option<T> {
        self.kind.read(node, &mut |_, _| {})
    }

    /// What holds where the file says nothing.
    pub fn of_default(&self) -> Option<T> {
        self.read(&node_of(self.about.default?)?)
    }
}

/// A key, whatever it holds.
pub trait AnyKey {
    /// What is told of it.
    fn about(&self) -> &About;
    /// Says what is wrong with a value.
    fn check(&self, node: &Node, say: Say<'_>);
    /// What it holds, for people.
    fn shown(&self) -> String;
    /// What it holds, for editors.
    fn schema(&self) -> serde_json::Value;
}

impl<T> AnyKey for Key<T> {
    fn about(&self) -> &About {
        &self.about
    }

    fn check(&self, node: &Node, say: Say<'_>) {
        self.kind.read(node, say);
    }

    fn shown(&self) -> String {
        self.kind.shown()
    }

    fn schema(&self) -> serde_json::Value {
        self.kind.schema()
    }
}

/// A value in TOML, as it would stand in a file.
pub fn node_of(toml: &str) -> Option<Node> {
    let mut table = Tree::parse(0, &format!("value = {toml}")).ok()?;
    table.entries.pop().map(|entry| entry.node)
}

/// A table with its keys.
pub struct Table {
    /// The key, kebab-case.
    pub name: &'static str,
    /// What it says, in one line.
    pub says: &'static str,
    /// Where it stands in the start file.
    pub start: Start,
    /// What chooses the variant of a thing, such as a target's engine: one of these is in the table.
    pub variants: fn() -> Vec<Item>,
    /// What may stand in it besides, in groups that are declared together.
    pub items: &'static [&'static [Item]],
}

impl Table {
    /// Everything that may stand in it.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        (self.variants)().into_iter().chain(self.items.iter().copied().flatten().copied())
    }

    /// Whether this version serves a key of that name in it.
    pub fn serves(&self, name: &str) -> bool {
        self.items().any(|item| item.name() == name && item.is_served())
    }
}

/// A table without variants.
pub fn no_variants() -> Vec<Item> {
    Vec::new()
}

/// A table in the start file.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// The lines above it; each becomes a comment, and those that begin with `#` stay as they are.
    pub lead: &'static str,
    /// Its header, such as `targets.disk.borg`; without one the lead is everything.
    pub header: Option<&'static str>,
    /// Whether it is switched on.
    pub on: bool,
}

impl Start {
    /// A table that is switched on.
    pub const fn on(header: &'static str, lead: &'static str) -> Self {
        Self { lead, header: Some(header), on: true }
    }

    /// A table that is switched off.
    pub const fn off(header: &'static str, lead: &'static str) -> Self {
        Self { lead, header: Some(header), on: false }
    }

    /// Only these lines.
    pub const fn lines(lead: &'static str) -> Self {
        Self { lead, header: None, on: true }
    }
}

/// What may stand in a table.
#[derive(Clone, Copy)]
pub enum Item {
    /// A value.
    Value(&'static dyn AnyKey),
    /// A table.
    Table(&'static Table),
    /// A table of tables, whose keys are names.
    Named(&'static Table, Names),
    /// Known, but not in this version: the name, and what completes "this version of Stillpoint cannot … yet".
    Later(&'static str, &'static str),
}

/// The names in an [`Item::Named`].
#[derive(Clone, Copy)]
pub struct Names {
    /// What stands for a name where the table is spoken of.
    pub word: &'static str,
    /// Says why a text is no such name.
    pub fits: fn(&str) -> Result<(), String>,
}

impl Item {
    /// The key.
    pub fn name(&self) -> &'static str {
        match self {
            Item::Value(key) => key.about().name,
            Item::Table(table) | Item::Named(table, _) => table.name,
            Item::Later(name, _) => name,
        }
    }

    /// What follows the key where the table is spoken of: what stands for the names in it.
    pub fn placeholder(&self) -> String {
        match self {
            Item::Named(_, names) => format!(".{}", names.word),
            Item::Value(_) | Item::Table(_) | Item::Later(..) => String::new(),
        }
    }

    /// Whether this version serves it.
    pub fn is_served(&self) -> bool {
        match self {
            Item::Value(_) | Item::Table(_) | Item::Named(..) => true,
            Item::Later(..) => false,
        }
    }
}

/// Something with a key.
pub trait Keyed {
    /// The key.
    fn key(&self) -> &'static str;
}

impl<T> Keyed for Key<T> {
    fn key(&self) -> &'static str {
        self.about.name
    }
}

impl Keyed for Table {
    fn key(&self) -> &'static str {
        self.name
    }
}

impl Keyed for Item {
    fn key(&self) -> &'static str {
        self.name()
    }
}
