//! What is wrong with a configuration, shown where it stands.
//!
//! Every check leaves a note and goes on, so that one look at the file finds everything. A note holds
//! bytes of a file; a [`Problem`] holds the line and column that an editor can jump to.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::source::{SourceFile, Span};
use crate::model::job::Config;
use crate::model::near::nearest;
use crate::model::shown::{Show, is_hostile};

/// One thing that is wrong with, or odd about, a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file it stands in.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters (not bytes), counted from 1.
    pub column: usize,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The offending line.
    #[serde(skip)]
    excerpt: String,
    /// How many characters are marked from the column on.
    #[serde(skip)]
    marked: usize,
}

impl Problem {
    /// Finds line and column of a note.
    fn locate(note: Note, files: &[SourceFile]) -> Self {
        let (path, text) = match files.get(note.at.file) {
            Some(file) => (file.path.clone(), file.text.as_str()),
            None => (PathBuf::new(), ""),
        };
        // Offsets come from a parser; one that falls inside a character is moved to its first byte.
        let start = boundary(text, note.at.start);
        let end = boundary(text, note.at.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let before = text[line_start..start].trim_start_matches('\u{feff}');
        let marked = text[start..end.min(line_end)].trim_end_matches('\r').chars().count();
        Self {
            file: path,
            line: text[..start].matches('\n').count() + 1,
            column: before.chars().count() + 1,
            message: note.message,
            help: note.help,
            excerpt: line.trim_start_matches('\u{feff}').to_owned(),
            marked: marked.max(1),
        }
    }
}

/// The last character boundary at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A broken file may hold control characters, which a terminal would obey; names of it are in messages
        // and advice, too. One sign for one, so that the carets stay where they belong.
        let shown = |c: char| if is_hostile(c) && c != '\t' { '\u{fffd}' } else { c };
        let plain = |text: &str| text.chars().map(shown).collect::<String>();
        let (file, message) = (self.file.shown(), plain(&self.message));
        writeln!(f, "{file}:{}:{}: {message}", self.line, self.column)?;
        writeln!(f, "    {}", plain(&self.excerpt))?;
        // Tabs are repeated, so that the carets stand below what they mark at any tab width.
        let padding: String = (self.excerpt.chars())
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(f, "    {padding}{}", "^".repeat(self.marked))?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {}", plain(help)),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, in the order of files and lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Each problem, in the order of files and lines.
    pub fn list(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// What a single value has to be complained about, before it is known where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Complaint {
    /// A complaint without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    /// Adds advice.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// A complaint with the bytes it is about.
#[derive(Debug, Clone)]
struct Note {
    at: Span,
    message: String,
    help: Option<String>,
}

/// What is wrong with an exclude pattern, if something is: a lower-case fragment. The dialect belongs to those
/// who translate it for the engines.
pub type PatternFault = fn(&str) -> Option<String>;

/// Collects what the checks find.
#[derive(Debug)]
pub(super) struct Notes {
    /// What is wrong with an exclude pattern.
    pub pattern_fault: PatternFault,
    problems: Vec<Note>,
    warnings: Vec<Note>,
    /// A file could not be parsed at all, so that nothing can be said about what is missing.
    pub partial: bool,
}

impl Notes {
    /// Nothing found yet.
    pub fn new(pattern_fault: PatternFault) -> Self {
        Self { pattern_fault, problems: Vec::new(), warnings: Vec::new(), partial: false }
    }

    /// Something that makes the configuration invalid.
    pub fn problem(&mut self, at: Span, what: Complaint) {
        self.problems.push(Note { at, message: what.message, help: what.help });
    }

    /// What was read; else what makes the configuration invalid at its place.
    pub fn taken<T>(&mut self, at: Span, read: Result<T, Complaint>) -> Option<T> {
        read.map_err(|complaint| self.problem(at, complaint)).ok()
    }

    /// Something that is not there. Kept back while a file is unreadable: it may be in that one.
    pub fn missing(&mut self, at: Span, what: Complaint) {
        if !self.partial {
            self.problem(at, what);
        }
    }

    /// Something that is valid and yet likely not meant.
    pub fn warning(&mut self, at: Span, what: Complaint) {
        self.warnings.push(Note { at, message: what.message, help: what.help });
    }

    /// The configuration with its warnings, or everything that is wrong with it. `config` is `None`
    /// only when a problem was noted that left nothing to hand out.
    pub fn finish(
        self,
        files: &[SourceFile],
        config: Option<Config>,
    ) -> Result<(Config, Vec<Problem>), Problems> {
        let located = |mut notes: Vec<Note>| -> Vec<Problem> {
            notes.sort_by_key(|note| note.at);
            notes.into_iter().map(|note| Problem::locate(note, files)).collect()
        };
        match config {
            Some(config) if self.problems.is_empty() => Ok((config, located(self.warnings))),
            _ => Err(Problems(located(self.problems))),
        }
    }
}

/// `did you mean "…"?`, or the words there are.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if known.is_empty() => "none is defined".into(),
        None => format!("known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, start: usize, end: usize) -> Problem {
        let files = [SourceFile { path: "a.toml".into(), text: text.into() }];
        let note = Note { at: Span { file: 0, start, end }, message: "m".into(), help: None };
        Problem::locate(note, &files)
    }

    #[test]
    fn columns_count_characters() {
        let text = "# é\r\n\tä = \"größe\" # x\r\n";
        let start = text.find("größe").unwrap();
        let problem = show(text, start, start + "größe".len());
        assert_eq!((problem.line, problem.column), (2, 7));
        assert_eq!(problem.to_string(), "a.toml:2:7: m\n    \tä = \"größe\" # x\n    \t     ^^^^^");
    }

    #[test]
    fn a_span_over_several_lines_is_marked_on_the_first() {
        let text = "a = [\n1,\n]\n";
        assert_eq!(show(text, 4, 10).to_string(), "a.toml:1:5: m\n    a = [\n        ^");
    }

    #[test]
    fn offsets_outside_or_inside_a_character_do_no_harm() {
        assert_eq!((show("ä", 1, 1).line, show("ä", 1, 1).column), (1, 1));
        let end = show("a\n", 99, 100);
        assert_eq!((end.line, end.column), (2, 1));
        assert_eq!(show("\u{feff}x = 1", 3, 4).column, 1);
    }

    #[test]
    fn control_characters_are_not_printed() {
        assert!(!show("x\u{1b}[31m = 1", 0, 1).to_string().contains('\u{1b}'));
    }
}
