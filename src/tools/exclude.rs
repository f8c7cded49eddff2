//! The exclude dialect: restic's patterns, translated for borg.
//!
//! A pattern is cut at its slashes; each part matches one whole path component as Go's `filepath.Match` does
//! (`*`, `?`, `[a-z]`, `[^a]`, `\`); a part `**` stands for any number of components, none included. A pattern
//! with a leading slash matches from the root, any other one at every depth. Whatever lies below a match is
//! excluded with it. A slash at the end, doubled slashes and `.` parts mean nothing. borg gets a regular
//! expression in Python's syntax, searched in the path without its leading slash.
//! `tests/real/excludes.rs` holds both engines against each other.

use std::iter::Peekable;
use std::str::Chars;

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExcludeError {
    /// Nothing would be left to back up, or nothing was written.
    #[error("the exclude pattern {pattern:?} names no path")]
    Empty {
        /// The pattern as the configuration has it.
        pattern: String,
    },
    /// Negated patterns: the engines disagree about what they bring back.
    #[error("the exclude pattern {pattern:?} is negated, which not every engine can do")]
    Negated {
        /// The pattern as the configuration has it.
        pattern: String,
    },
    /// A part `..`, which no absolute path holds.
    #[error("the exclude pattern {pattern:?} holds \"..\"")]
    Parent {
        /// The pattern as the configuration has it.
        pattern: String,
    },
    /// More than two parts `**`.
    #[error("the exclude pattern {pattern:?} holds \"**\" more than twice")]
    TooManyDoubleStars {
        /// The pattern as the configuration has it.
        pattern: String,
    },
    /// A class or an escape that does not end, or an empty class.
    #[error("the exclude pattern {pattern:?} is malformed: {what}")]
    Malformed {
        /// The pattern as the configuration has it.
        pattern: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// What is wrong with a pattern, if it cannot mean the same to every engine.
pub fn pattern_fault(pattern: &str) -> Option<String> {
    to_borg(pattern).err().map(|error| error.to_string())
}

/// One part of a pattern, between slashes.
enum Part {
    /// `**`.
    Any,
    /// A regular expression for one component.
    One(String),
}

/// Translates one pattern into a borg pattern, prefix `re:` included.
///
/// # Errors
/// When the pattern means nothing or cannot be said in borg's terms; nothing is approximated.
pub fn to_borg(pattern: &str) -> Result<String, ExcludeError> {
    let named = || pattern.to_owned();
    if pattern.starts_with('!') {
        return Err(ExcludeError::Negated { pattern: named() });
    }
    let absolute = pattern.starts_with('/');
    let mut parts = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(ExcludeError::Parent { pattern: named() }),
            "**" => parts.push(Part::Any),
            text => parts.push(Part::One(
                component(text)
                    .map_err(|what| ExcludeError::Malformed { pattern: named(), what })?,
            )),
        }
    }
    if parts.is_empty() {
        return Err(ExcludeError::Empty { pattern: named() });
    }
    let stars: Vec<usize> = parts
        .iter()
        .enumerate()
        .filter_map(|(at, part)| matches!(part, Part::Any).then_some(at))
        .collect();
    let body = match stars.as_slice() {
        [] | [_] => join(&parts, None),
        // restic expands the first `**` only as far as one component is left for the second. A relative
        // pattern always has the root to spare; an absolute one needs the second `**` to match something,
        // or something below the match.
        [_, second] if absolute => {
            format!(
                "(?:{}|{})",
                join(&parts, Some((*second, true))),
                join(&parts, Some((*second, false)))
            )
        }
        [_, _] => join(&parts, None),
        _ => return Err(ExcludeError::TooManyDoubleStars { pattern: named() }),
    };
    Ok(format!("re:{}{body}", if absolute { r"\A" } else { r"(?:\A|/)" }))
}

/// Joins the parts. `second` names a `**` that must match at least one component (`true`), or none while
/// something must follow below the match (`false`).
fn join(parts: &[Part], second: Option<(usize, bool)>) -> String {
    /// Any number of whole components, each with its slash.
    const ANY: &str = "(?:[^/]+/)*";
    let mut regex = String::new();
    let mut after_component = false;
    for (at, part) in parts.iter().enumerate() {
        let demanded = second.filter(|(which, _)| *which == at).map(|(_, some)| some);
        match (part, demanded) {
            (Part::One(component), _) => {
                if after_component {
                    regex.push('/');
                }
                regex.push_str(component);
                after_component = true;
            }
            (Part::Any, Some(false)) => {}
            (Part::Any, demanded) => {
                // A `**` at the end may match nothing, and all that lies below is excluded anyway.
                let last = at + 1 == parts.len();
                if after_component && !(last && demanded.is_none()) {
                    regex.push('/');
                }
                if demanded.is_some() {
                    regex.push_str("[^/]+/");
                }
                if !last {
                    regex.push_str(ANY);
                    after_component = false;
                } else if demanded.is_some() {
                    // The component that was demanded ends where the path may end.
                    regex.truncate(regex.len() - 1);
                    after_component = true;
                }
            }
        }
    }
    match second {
        Some((_, false)) if after_component => regex.push('/'),
        _ if after_component => regex.push_str(r"(?:/|\Z)"),
        _ => {}
    }
    regex
}

/// Translates one part into a regular expression for one component.
fn component(text: &str) -> Result<String, &'static str> {
    let mut regex = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => class(&mut chars, &mut regex)?,
            '\\' => literal(&mut regex, chars.next().ok_or("a backslash at the end of a part")?),
            other => literal(&mut regex, other),
        }
    }
    Ok(regex)
}

/// Translates a class; the opening bracket has been taken.
fn class(chars: &mut Peekable<Chars<'_>>, regex: &mut String) -> Result<(), &'static str> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut members = String::new();
    let mut count = 0;
    loop {
        if count > 0 && chars.next_if_eq(&']').is_some() {
            break;
        }
        let low = member(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { member(chars)? } else { low };
        count += 1;
        // A range that runs backwards matches nothing there and is an error in Python.
        if low <= high {
            literal(&mut members, low);
            if low < high {
                members.push('-');
                literal(&mut members, high);
            }
        }
    }
    match (negated, members.is_empty()) {
        (false, false) => regex.push_str(&format!("(?!/)[{members}]")),
        (true, false) => regex.push_str(&format!("(?!/)[^{members}]")),
        (true, true) => regex.push_str("[^/]"),
        (false, true) => regex.push_str("(?!)"),
    }
    Ok(())
}

/// Takes one end of a range.
fn member(chars: &mut Peekable<Chars<'_>>) -> Result<char, &'static str> {
    match chars.next() {
        None => Err("a class that does not end"),
        Some('-' | ']') => Err("a class with '-' or ']' where a character is expected"),
        Some('\\') => chars.next().ok_or("a backslash at the end of a part"),
        Some(other) => Ok(other),
    }
}

/// Appends a character that stands for itself in a regular expression, inside a class or outside.
fn literal(regex: &mut String, char: char) {
    if char.is_ascii() && !char.is_ascii_alphanumeric() {
        regex.push('\\');
    }
    regex.push(char);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn borg(pattern: &str) -> String {
        to_borg(pattern).unwrap()
    }

    #[test]
    fn relative_patterns_match_at_any_depth_and_absolute_ones_from_the_root() {
        assert_eq!(borg("cache"), r"re:(?:\A|/)cache(?:/|\Z)");
        assert_eq!(borg("/var//./cache/"), r"re:\Avar/cache(?:/|\Z)");
        assert_eq!(borg("*.o"), r"re:(?:\A|/)[^/]*\.o(?:/|\Z)");
    }

    #[test]
    fn double_stars_stand_for_any_number_of_components() {
        assert_eq!(borg("a/**/b"), r"re:(?:\A|/)a/(?:[^/]+/)*b(?:/|\Z)");
        assert_eq!(borg("/a/**"), r"re:\Aa(?:/|\Z)");
        assert_eq!(borg("**/b"), r"re:(?:\A|/)(?:[^/]+/)*b(?:/|\Z)");
        assert_eq!(borg("a**b"), r"re:(?:\A|/)a[^/]*[^/]*b(?:/|\Z)");
        assert_eq!(
            borg("/a/**/b/**/c"),
            r"re:\A(?:a/(?:[^/]+/)*b/[^/]+/(?:[^/]+/)*c(?:/|\Z)|a/(?:[^/]+/)*b/c/)"
        );
        assert_eq!(borg("/a/**/b/**"), r"re:\A(?:a/(?:[^/]+/)*b/[^/]+(?:/|\Z)|a/(?:[^/]+/)*b/)");
    }

    #[test]
    fn classes_and_escapes() {
        assert_eq!(borg(r"[a-c]\*"), r"re:(?:\A|/)(?!/)[a-c]\*(?:/|\Z)");
        assert_eq!(borg("[^a]"), r"re:(?:\A|/)(?!/)[^a](?:/|\Z)");
        assert_eq!(borg("[!a]"), r"re:(?:\A|/)(?!/)[\!a](?:/|\Z)");
        assert_eq!(borg("[z-a]"), r"re:(?:\A|/)(?!)(?:/|\Z)");
        assert_eq!(borg("a b$"), r"re:(?:\A|/)a\ b\$(?:/|\Z)");
    }

    #[test]
    fn what_cannot_be_translated_is_refused() {
        for (pattern, named) in [
            ("", "names no path"),
            ("/", "names no path"),
            ("./", "names no path"),
            ("!keep", "negated"),
            ("a/../b", "holds \"..\""),
            ("a/**/b/**/c/**/d", "more than twice"),
            ("[a", "does not end"),
            ("[]a]", "where a character"),
            ("[-a]", "where a character"),
            ("a\\", "backslash"),
            ("[a/b]", "does not end"),
        ] {
            let error = to_borg(pattern).unwrap_err().to_string();
            assert!(error.contains(named), "{pattern:?}: {error}");
        }
    }
}
