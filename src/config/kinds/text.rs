//! Texts: plain ones, names, paths and patterns.

use std::path::{Component, Path, PathBuf};

use serde_json::json;

use crate::config::diagnostic::Complaint;
use crate::config::kind::{List, Read, Scalar, wrong_type};
use crate::config::tree::Node;
use crate::model::names::HostName;

fn text_schema() -> serde_json::Value {
    json!({ "type": "string", "minLength": 1 })
}

/// A string that is safe as an operand: not empty, no control characters, no `-` first.
pub const TEXT: Scalar<String> =
    Scalar { read: |node| text(node).map(str::to_owned), shown: "a string", schema: text_schema };

/// A host name.
pub const HOST: Scalar<HostName> = Scalar { read: host, shown: "a host name", schema: text_schema };

/// A file name without directories.
pub const FILE_NAME: Scalar<String> =
    Scalar { read: file_name, shown: "a file name", schema: text_schema };

/// An absolute path.
pub const PATH: Scalar<PathBuf> = Scalar {
    read: path,
    shown: "an absolute path",
    schema: || json!({ "type": "string", "pattern": "^/" }),
};

/// An exclude pattern or the like, which may start with `-`.
pub const PATTERN: Scalar<String> = Scalar {
    read: |node| pattern(node).map(str::to_owned),
    shown: "a pattern",
    schema: text_schema,
};

/// A list of [`TEXT`].
pub const TEXTS: List<String> = List { of: &TEXT, called: "strings" };

/// A list of [`PATTERN`].
pub const PATTERNS: List<String> = List { of: &PATTERN, called: "strings" };

/// A list of [`PATH`].
pub const PATHS: List<PathBuf> = List { of: &PATH, called: "absolute paths" };

/// Any string without control characters.
fn line(node: &Node) -> Read<&str> {
    let Some(text) = node.value.text() else { return wrong_type("a string", node) };
    match text.chars().find(|c| c.is_control()) {
        Some(found) => Err(Complaint::new(format!("cannot hold the control character {found:?}"))),
        None if text.is_empty() => Err(Complaint::new("cannot be empty")),
        None => Ok(text),
    }
}

/// A string that no program takes for an option.
pub fn text(node: &Node) -> Read<&str> {
    let text = line(node)?;
    if text.starts_with('-') {
        return Err(Complaint::new(format!(
            "{text:?} cannot start with '-': it would be taken for an option"
        )));
    }
    Ok(text)
}

/// A string that is the name of a file, without directories.
fn file_name(node: &Node) -> Read<String> {
    let name = text(node)?;
    if name.contains('/') || name == "." || name == ".." {
        return Err(Complaint::new(format!(
            "{name:?} is no file name: it cannot hold a directory"
        )));
    }
    Ok(name.to_owned())
}

fn host(node: &Node) -> Read<HostName> {
    HostName::new(line(node)?).map_err(|error| Complaint::new(error.to_string()))
}

/// An absolute path, without `.` components and doubled or trailing slashes.
fn path(node: &Node) -> Read<PathBuf> {
    let text = text(node)?;
    let path = Path::new(text);
    if !path.is_absolute() {
        let complaint = Complaint::new(format!("{text:?} is not an absolute path"));
        return Err(if text.starts_with('~') {
            complaint.help("write the home directory out; there is no shell that would")
        } else {
            complaint
        });
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Complaint::new(format!("{text:?} cannot hold \"..\": write the real path")));
    }
    match shell_variable(text) {
        Some(variable) => {
            Err(Complaint::new(format!("{text:?} holds {variable:?}, and there is no shell"))
                .help("write out what it stands for"))
        }
        None => Ok(path.components().collect()),
    }
}

/// An exclude pattern or the like, which may start with `-`.
fn pattern(node: &Node) -> Read<&str> {
    let text = line(node)?;
    if text == "~" || text.starts_with("~/") {
        let complaint =
            Complaint::new(format!("{text:?} means no home directory: there is no shell"));
        return Err(complaint.help(format!(
            "write the directory out, or /home/*{} for everybody's; [~] is a tilde",
            &text[1..]
        )));
    }
    match shell_variable(text) {
        Some(variable) => {
            Err(Complaint::new(format!("{text:?} holds {variable:?}, and there is no shell"))
                .help("write out what it stands for; [$] is a dollar"))
        }
        None => Ok(text),
    }
}

/// What a shell would replace in the text: `${…}`, or one of the variables that people think of. Other names
/// with a dollar are names (`$RECYCLE.BIN`).
fn shell_variable(text: &str) -> Option<&str> {
    const KNOWN: &[&str] = &["HOME", "USER", "LOGNAME", "HOSTNAME", "PWD", "TMPDIR"];
    text.match_indices('$').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        if rest.starts_with('{') {
            return rest.find('}').map(|end| &text[at..at + end + 2]);
        }
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())];
        let known = KNOWN.contains(&name) || name.starts_with("XDG_");
        known.then(|| &text[at..at + 1 + name.len()])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::node_of;

    #[test]
    fn paths_are_absolute_and_clean() {
        let read = |toml| path(&node_of(toml).unwrap());
        assert_eq!(read("'/a//b/./c/'").unwrap().as_os_str(), "/a/b/c");
        assert_eq!(read("'/'").unwrap().as_os_str(), "/");
        for bad in ["''", "'a'", "'./a'", "'~/a'", "'/a/../b'", "'-/a'", r#""/a\nb""#, "3"] {
            assert!(read(bad).is_err(), "{bad} was taken as a path");
        }
    }
}
