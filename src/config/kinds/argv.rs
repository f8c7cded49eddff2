//! Commands: a program with its arguments, and lists of them.

use serde_json::json;

use crate::config::diagnostic::Complaint;
use crate::config::kind::{Elements, Kind, Read, Say, Scalar, each, list, wrong_type};
use crate::config::source::Span;
use crate::config::tree::{Node, Value};

/// A program with its arguments.
pub const ARGV: Scalar<Vec<String>> = Scalar {
    read: argv,
    shown: "a list: a program and its arguments",
    schema: || json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
};

/// A list of [`ARGV`].
pub const ARGVS: Argvs = Argvs;

/// The kind of [`ARGVS`], which tells what to write instead of what people write first.
pub struct Argvs;

/// What the elements of the list are called.
const LISTS: &str = "lists, each a program and its arguments";

impl Kind<Elements<Vec<String>>> for Argvs {
    fn read(&self, node: &Node, say: Say<'_>) -> Option<Elements<Vec<String>>> {
        let complaint = match as_argvs(node) {
            Some(instead) => Complaint::new(format!("expected a list of {LISTS}"))
                .help(format!("write {instead}")),
            None => match list(node, LISTS) {
                Ok(nodes) => return Some(each(nodes, argv, say)),
                Err(complaint) => complaint,
            },
        };
        say(node, complaint);
        None
    }

    fn shown(&self) -> String {
        format!("a list of {LISTS}")
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "array", "items": ARGV.schema() })
    }
}

/// What to write instead of a command that was written as one string: the same words as a list, in TOML. `None`
/// when a shell would have made something else of the string, or no command comes of it.
fn as_argv(text: &str) -> Option<String> {
    const OF_SHELLS: &[char] = &[
        '\'', '"', '\\', '`', '$', '|', '&', ';', '<', '>', '(', ')', '*', '?', '[', '~', '#', '{',
    ];
    if text.contains(OF_SHELLS) || text.contains(char::is_control) {
        return None;
    }
    let words: Vec<Node> = (text.split_whitespace())
        .map(|word| Node { at: Span::default(), value: Value::Text(word.to_owned()) })
        .collect();
    let node = Node { at: Span::default(), value: Value::List(words) };
    argv(&node).ok().map(|_| node.to_toml())
}

/// What to write instead of a list of commands that is none: one string, or strings where lists belong.
fn as_argvs(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => as_argv(text).map(|argv| format!("[{argv}]")),
        Value::List(nodes) if !nodes.is_empty() => {
            let texts: Vec<&str> =
                nodes.iter().map(|node| node.value.text()).collect::<Option<_>>()?;
            if texts[0].contains(char::is_whitespace) {
                let argvs: Option<Vec<String>> = texts.into_iter().map(as_argv).collect();
                return argvs.map(|argvs| format!("[{}]", argvs.join(", ")));
            }
            argv(node).ok().map(|_| format!("[{}]", node.to_toml()))
        }
        Value::List(_)
        | Value::Whole(_)
        | Value::Flag(_)
        | Value::Float(_)
        | Value::Date(_)
        | Value::Table(_) => None,
    }
}

/// Adds what to write instead, or what a command looks like.
fn with_argv(complaint: Complaint, instead: Option<String>) -> Complaint {
    match instead {
        Some(instead) => complaint.help(format!("write {instead}")),
        None => complaint.help("there is no shell: write each argument as a string of its own"),
    }
}

/// A program with its arguments.
fn argv(node: &Node) -> Read<Vec<String>> {
    const EXPECTED: &str = "strings: a program and its arguments";
    let words = list(node, EXPECTED).map_err(|complaint| match node.value.text() {
        Some(text) => with_argv(complaint, as_argv(text)),
        None => complaint,
    })?;
    let argv: Vec<String> = words
        .iter()
        .map(|word| match word.value.text() {
            Some(text) if text.contains('\0') => {
                Err(Complaint::new("an argument cannot hold a NUL"))
            }
            Some(text) => Ok(text.to_owned()),
            None => wrong_type("a list of strings: a program and its arguments", word),
        })
        .collect::<Read<_>>()?;
    let Some(program) = argv.first() else {
        return Err(Complaint::new("the list is empty: it must name a program"));
    };
    if program.is_empty() || program.starts_with('-') {
        return Err(Complaint::new(format!("{program:?} is no program")));
    }
    if program.contains('/') && !program.starts_with('/') {
        return Err(Complaint::new(format!("{program:?} is not an absolute path")));
    }
    if argv.len() == 1 && program.contains(' ') {
        return Err(with_argv(
            Complaint::new(format!("no program is called {program:?}")),
            as_argv(program),
        ));
    }
    Ok(argv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::node_of;

    #[test]
    fn argv_names_a_program() {
        let read = |toml| argv(&node_of(toml).unwrap());
        assert_eq!(read("['sudo', '-u', 'x', '']").unwrap().len(), 4);
        for bad in ["[]", "['']", "['-x']", "['./x']", "['a b']", r#"["a", "\u0000"]"#, "['a', 1]"]
        {
            assert!(read(bad).is_err(), "{bad} was taken as a command");
        }
    }
}
