//! Values as unit files want them: escaped for the place where they stand (systemd.syntax(7), systemd.unit(5)).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `%` begins a specifier in a unit file and is doubled to stand for itself.
pub(super) fn specifiers(value: &str) -> String {
    value.replace('%', "%%")
}

/// Whether a path can stand in a list of paths: there, unlike in a command line, systemd knows no escape
/// for control characters or bytes that are not UTF-8.
pub(super) fn listable(path: &Path) -> bool {
    path.to_str().is_some_and(|path| !path.chars().any(char::is_control))
}

/// A path as one word of a list of paths.
pub(super) fn listed(path: &Path) -> String {
    quoted(&specifiers(&path.to_string_lossy()))
}

/// A path as one word of a command line: there, `$` is doubled too, and any byte can be written.
pub(super) fn executed(path: &Path) -> String {
    let mut word = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '"' => word.extend(['\\', c]),
                '%' | '$' => word.extend([c, c]),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        word.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => word.push(c),
            }
        }
        for byte in chunk.invalid() {
            word.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if plain(&word) { word } else { format!("\"{word}\"") }
}

fn quoted(word: &str) -> String {
    if plain(word) {
        word.to_owned()
    } else {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Whether a word needs no quotes.
fn plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.@%:+,$".contains(c))
}
