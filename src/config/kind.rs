//! What a key can hold: how a value is read, and how people and editors are told what it is.
//!
//! A kind has one reader. It serves the check of the whole file, the reading into the model and the defaults, so
//! that what is accepted, what is read and what is documented cannot differ.

use serde_json::json;

use super::diagnostic::{Complaint, suggest};
use super::source::Span;
use super::tree::Node;

/// A value, or what is wrong with it.
pub type Read<T> = Result<T, Complaint>;

/// Takes a complaint and the node that it is about.
pub type Say<'a> = &'a mut dyn FnMut(&Node, Complaint);

/// What a key holds.
pub trait Kind<T> {
    /// The value of a node, as far as it is one; everything else is told.
    fn read(&self, node: &Node, say: Say<'_>) -> Option<T>;
    /// What it is, for people: `an absolute path`.
    fn shown(&self) -> String;
    /// What it is, for editors: a JSON schema.
    fn schema(&self) -> serde_json::Value;
}

/// A value that is taken or refused as a whole.
pub struct Scalar<T: 'static> {
    /// The reader.
    pub read: fn(&Node) -> Read<T>,
    /// What it is, for people.
    pub shown: &'static str,
    /// The schema.
    pub schema: fn() -> serde_json::Value,
}

impl<T> Kind<T> for Scalar<T> {
    fn read(&self, node: &Node, say: Say<'_>) -> Option<T> {
        told((self.read)(node), node, say)
    }

    fn shown(&self) -> String {
        self.shown.to_owned()
    }

    fn schema(&self) -> serde_json::Value {
        (self.schema)()
    }
}

/// One of some words, each of which stands for a value.
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy> Kind<T> for Choice<T> {
    fn read(&self, node: &Node, say: Say<'_>) -> Option<T> {
        let words: Vec<&'static str> = self.0.iter().map(|(word, _)| *word).collect();
        let word = told(word(node, &words), node, say)?;
        self.0.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }

    fn shown(&self) -> String {
        quoted(self.0.iter().map(|(word, _)| *word))
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "enum": self.0.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
    }
}

/// One of some words, which stands for itself.
pub struct Word(pub &'static [&'static str]);

impl Kind<String> for Word {
    fn read(&self, node: &Node, say: Say<'_>) -> Option<String> {
        told(word(node, self.0), node, say).map(str::to_owned)
    }

    fn shown(&self) -> String {
        quoted(self.0.iter().copied())
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "enum": self.0 })
    }
}

fn quoted<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

fn word(node: &Node, words: &[&'static str]) -> Read<&'static str> {
    let expected = || quoted(words.iter().copied());
    let Some(text) = node.value.text() else {
        return wrong_type(&format!("one of {}", expected()), node);
    };
    match words.iter().find(|word| **word == text) {
        Some(word) => Ok(word),
        None => Err(Complaint::new(format!("expected one of {}, not {text:?}", expected()))
            .help(suggest(text, words))),
    }
}

/// A list. Elements that are refused are told one by one, and the others count.
pub struct List<T: 'static> {
    /// What an element is.
    pub of: &'static Scalar<T>,
    /// What the elements are called.
    pub called: &'static str,
}

/// The elements of a list that could be read, each with its span.
pub type Elements<T> = Vec<(T, Span)>;

impl<T> Kind<Elements<T>> for List<T> {
    fn read(&self, node: &Node, say: Say<'_>) -> Option<Elements<T>> {
        match list(node, self.called) {
            Ok(nodes) => Some(each(nodes, self.of.read, say)),
            Err(complaint) => {
                let alone = node.value.text().is_some() && (self.of.read)(node).is_ok();
                // What would be refused as an element is not proposed as one.
                let complaint = match alone {
                    true => complaint.help(format!("write [{}]", node.to_toml())),
                    false => complaint,
                };
                say(node, complaint);
                None
            }
        }
    }

    fn shown(&self) -> String {
        format!("a list of {}", self.called)
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "array", "items": self.of.schema() })
    }
}

/// The elements that can be read; the others are told.
pub fn each<T>(nodes: &[Node], read: impl Fn(&Node) -> Read<T>, say: Say<'_>) -> Elements<T> {
    let value = |node: &Node| Some((told(read(node), node, say)?, node.at));
    nodes.iter().filter_map(value).collect()
}

/// The elements of an array.
pub fn list<'t>(node: &'t Node, of: &str) -> Read<&'t [Node]> {
    node.value.list().map_or_else(|| wrong_type(&format!("a list of {of}"), node), Ok)
}

/// Refuses a node for what it is.
pub fn wrong_type<T>(expected: &str, node: &Node) -> Read<T> {
    Err(Complaint::new(format!("expected {expected}, found {}", node.type_name())))
}

/// What was read; else what is wrong with the node is said.
pub fn told<T>(read: Read<T>, node: &Node, say: Say<'_>) -> Option<T> {
    read.map_err(|complaint| say(node, complaint)).ok()
}
