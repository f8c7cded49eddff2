//! How a step, a job or a run ended, and what that means to whoever started it.

use std::fmt;

use serde::{Serialize, Serializer};

/// How a step, a target, a job or a run ended. The order is from best to worst; a fold keeps the worst.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Done, and seen to be done.
    Ok,
    /// Not done on purpose; the reason is for people.
    Skipped(String),
    /// Done, with something that somebody should read.
    Warning,
    /// A copy exists but lacks something that was asked for.
    Incomplete,
    /// Not done: an error ended it.
    Failed,
    /// Stopped by a signal and unwound.
    Interrupted,
}

impl Outcome {
    /// The word used in JSON, history, metrics and on the terminal.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Skipped(_) => "skipped",
            Outcome::Warning => "warning",
            Outcome::Incomplete => "incomplete",
            Outcome::Failed => "failed",
            Outcome::Interrupted => "interrupted",
        }
    }

    /// The worse of two.
    #[must_use]
    pub fn worst(self, other: Outcome) -> Outcome {
        self.max(other)
    }

    /// Whether a copy that ended so may count as good: retention runs only on such a run.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Outcome::Ok | Outcome::Warning)
    }

    /// Reads the word back, as history stores it.
    pub fn from_word(word: &str) -> Option<Outcome> {
        Some(match word {
            "ok" => Outcome::Ok,
            "skipped" => Outcome::Skipped(String::new()),
            "warning" => Outcome::Warning,
            "incomplete" => Outcome::Incomplete,
            "failed" => Outcome::Failed,
            "interrupted" => Outcome::Interrupted,
            _ => return None,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Skipped(reason) if !reason.is_empty() => write!(f, "skipped ({reason})"),
            other => f.write_str(other.word()),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// What kind of trouble a run met. The worst of them decides the exit code, see [`super::exit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Stopped by this signal number.
    Signal(i32),
    /// A defect or a state nobody foresaw.
    Unexpected,
    /// The words of the command line make no sense, mean several things, or were not confirmed; nothing was changed.
    Usage,
    /// The configuration is invalid.
    Configuration,
    /// The machine lacks a tool, a privilege or a mounted target.
    Environment,
    /// A job could not do its work.
    JobFailed,
    /// Stored data is damaged.
    Damage,
    /// Another run or another program holds a lock.
    Busy,
    /// A copy lacks something, the last good copy is too old, or copies are missing that this machine did not delete.
    Incomplete,
    /// Copies were made; something could not be released yet.
    Cleanup,
    /// Copies were made, with warnings.
    Warning,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_outcome_wins() {
        assert_eq!(Outcome::Ok.worst(Outcome::Failed), Outcome::Failed);
        assert_eq!(Outcome::Failed.worst(Outcome::Ok), Outcome::Failed);
        assert_eq!(Outcome::Warning.worst(Outcome::Incomplete), Outcome::Incomplete);
        assert_eq!(Outcome::Failed.worst(Outcome::Interrupted), Outcome::Interrupted);
        let skipped = Outcome::Skipped("hook said so".into());
        assert_eq!(Outcome::Ok.worst(skipped.clone()), skipped);
    }

    #[test]
    fn words_round_trip() {
        for word in ["ok", "skipped", "warning", "incomplete", "failed", "interrupted"] {
            assert_eq!(Outcome::from_word(word).unwrap().word(), word);
        }
        assert_eq!(Outcome::from_word("fine"), None);
    }
}
