//! What files of all programs have: lines, values in quotes, and what is wrong with one.

use std::fmt;

/// A file that is no configuration of that program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Failed {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Answers with the content of a file of this machine; with nothing where there is none.
pub type Look<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// A value without the quotes around it.
pub(super) fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

/// A line of a file that is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line<'t> {
    /// Its number, counted from 1.
    pub number: usize,
    /// What stands there, without a comment.
    pub text: &'t str,
    /// The value in it.
    pub value: &'t str,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {}", self.number, self.text)
    }
}

/// The lines of a file with their numbers.
pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line))
}
