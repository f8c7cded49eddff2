//! Names and texts of other people, made fit to be read: the one place that escapes for terminals, logs and reports.
//!
//! A file name holds any byte but `/` and NUL, and belongs to whoever made the file. A terminal obeys what it is
//! shown, a line break passes for another line, and marks of writing direction reorder what is around them. So a path
//! is never formatted by `Path::display` (clippy refuses it): `path.shown()` is the way, and what an engine said goes
//! through [`text`] or [`lines`]. In JSON the bytes stand beside, see [`super::bytes`].

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes for people: valid UTF-8 as it is, control characters and marks of direction as escapes (`\n`, `\u{1b}`),
/// everything else as `\xNN`.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                write_one(f, character)?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Shows names to people.
pub trait Show {
    /// The name, fit for a terminal.
    fn shown(&self) -> Shown<'_>;
}

impl Show for Path {
    fn shown(&self) -> Shown<'_> {
        Shown(self.as_os_str().as_bytes())
    }
}

impl Show for OsStr {
    fn shown(&self) -> Shown<'_> {
        Shown(self.as_bytes())
    }
}

/// Text on one line, escaped.
pub fn text(text: &str) -> String {
    Shown(text.as_bytes()).to_string()
}

/// Text whose line breaks and tabs are meant; the rest is escaped.
pub fn lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            // Writing to a string does not fail.
            other => drop(write_one(&mut shown, other)),
        }
    }
    shown
}

/// Whether a terminal or a reader would take this character for something else than a sign: controls, line and
/// paragraph separators, and what turns the direction of writing (UAX #9) or is invisible.
pub fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

fn write_one(f: &mut impl fmt::Write, character: char) -> fmt::Result {
    if is_hostile(character) {
        write!(f, "{}", character.escape_default())
    } else {
        f.write_char(character)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let name = OsStr::from_bytes(b"a\x1b[2J\nb\xe9\xff \xe2\x80\xaetxt");
        assert_eq!(name.shown().to_string(), "a\\u{1b}[2J\\nb\\xe9\\xff \\u{202e}txt");
        assert_eq!(Path::new("/srv/Größe 1").shown().to_string(), "/srv/Größe 1");
        assert_eq!(lines("one\ttwo\nthree\r\u{9b}"), "one\ttwo\nthree\\r\\u{9b}");
    }

    proptest! {
        #[test]
        fn no_name_reaches_a_terminal_as_more_than_signs(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let shown = OsStr::from_bytes(&bytes).shown().to_string();
            prop_assert!(!shown.chars().any(is_hostile), "{shown:?}");
            // What needs no escape stays as it is.
            if let Ok(text) = std::str::from_utf8(&bytes)
                && !text.chars().any(is_hostile)
            {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
