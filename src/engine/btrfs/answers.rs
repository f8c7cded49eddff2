//! What a server answers, and why nothing came of a request.

use serde::{Deserialize, Serialize};

use super::names::CopyName;
use super::others::Other;
use super::record::Record;
use crate::engine::EngineError;
use crate::host::RunError;
use crate::tools::btrfs::parts::Mark;
use crate::tools::told;

/// The version of requests and answers.
pub(super) const VERSION: u32 = 1;

/// That a directory takes copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Which target it is.
    pub id: String,
    /// The version of btrfs-progs, where it was asked for.
    pub version: Option<String>,
}

/// The copies of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    /// Which target it is.
    pub id: String,
    /// All that are there and what they were.
    pub copies: Vec<Record>,
    /// Whether what is compressed may be sent as it is.
    #[serde(default)]
    pub takes_compressed: bool,
    /// What is there of copies that are not whole, and can be gone on with; `None` from a server of a version that keeps
    /// no parts.
    #[serde(default)]
    pub parts: Option<Vec<Begun>>,
    /// Whether it tells what a copy holds ([`Printed::Manifest`]).
    #[serde(default)]
    pub describes: bool,
    /// Whether it has what other programs received become copies ([`Ask::Others`]).
    #[serde(default)]
    pub adopts: bool,
}

/// A part of a copy that a server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The name that the copy gets.
    pub copy: String,
    /// The UUID of the snapshot that is sent.
    pub sent: String,
    /// The generation that it has.
    pub generation: u64,
    /// The copy to which it is the difference.
    pub base: Option<String>,
    /// So many bytes make a part.
    pub part_size: u64,
    /// Where it ends.
    pub mark: Mark,
}

/// A copy that was received, is on the disk and has its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub name: CopyName,
    pub bytes: Option<u64>,
    pub files: Option<u64>,
    /// What could not be removed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
}

/// What other programs have received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Others {
    /// What can become a copy.
    pub fit: Vec<Other>,
    /// What cannot, and why, in words.
    pub unfit: Vec<String>,
}

/// What is a copy now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Adopted {
    pub copies: Vec<CopyName>,
}

/// That it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checked {
    pub damage: Vec<String>,
    pub unverifiable: Option<String>,
    pub extent: String,
    /// How many copies there are; not told by those who did not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u64>,
}

/// Why nothing came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It is no request.
    #[error("{0}")]
    NoRequest(String),
    /// It is one of another version than this.
    #[error("requests of version {0} are answered here, and no others")]
    Version(u32),
    /// The key does not let it be done.
    #[error("{0}")]
    NotAllowed(String),
    /// There is no directory of copies.
    #[error("there is no directory of copies")]
    Missing,
    /// There is one already.
    #[error("there is a directory of copies already")]
    Exists,
    /// No space is left.
    #[error("no space is left: {0}")]
    Full(String),
    /// What is there is damaged.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Somebody else is at it.
    #[error("locked: {0}")]
    Locked(String),
    /// It is unfit for it.
    #[error("{0}")]
    Unfit(String),
    /// There is no such thing in the copy.
    #[error("{0}")]
    NoSource(String),
    /// What is there is not the beginning of what is sent, or is gone; it may be taken from its beginning.
    #[error("{0}")]
    Differs(String),
    /// The difference could not be received; everything may be.
    #[error("the difference was not taken: {0}")]
    Difference(String),
    /// Any other failure.
    #[error("{0}")]
    Failed(String),
}

/// A refusal as it is written: told from every other line by the name of its one field.
#[derive(Serialize, Deserialize)]
struct Refused {
    refusal: Refusal,
}

impl Refusal {
    /// The line that says it, in printable ASCII alone: whatever makes text fit for a terminal on its way leaves it as it
    /// is.
    pub fn line(&self) -> String {
        let refused = Refused { refusal: self.clone() };
        let json = serde_json::to_string(&refused).unwrap_or_else(|error| error.to_string());
        let mut line = String::with_capacity(json.len());
        for character in json.chars() {
            match character {
                ' '..='~' => line.push(character),
                // Outside of a text, JSON has no such characters.
                other => {
                    let units = other
                        .encode_utf16(&mut [0; 2])
                        .iter()
                        .map(|it| format!("\\u{it:04x}"))
                        .collect::<String>();
                    line.push_str(&units);
                }
            }
        }
        line
    }

    /// The last that was written among other lines.
    pub(super) fn last(stderr: &[u8]) -> Option<Refusal> {
        told::last(stderr).map(|Refused { refusal }| refusal)
    }

    /// What is said of a failure of the engine on the server.
    pub(super) fn of(error: &EngineError) -> Refusal {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(why) = cause {
            text.push_str(&format!(": {why}"));
            cause = why.source();
        }
        let with_hint = match error.hint() {
            Some(hint) => format!("{text} — {hint}"),
            None => text.clone(),
        };
        match error {
            EngineError::RepositoryMissing { .. } => Refusal::Missing,
            EngineError::RepositoryExists { .. } => Refusal::Exists,
            EngineError::Full { detail, .. }
            | EngineError::DestinationFull { detail, .. }
            | EngineError::PlaceFull { detail, .. } => Refusal::Full(detail.clone()),
            EngineError::Act(error) if error.is_of_space() => Refusal::Full(text),
            EngineError::Damaged { detail, .. } => Refusal::Damaged(detail.clone()),
            EngineError::Locked { detail, .. } => Refusal::Locked(detail.clone()),
            EngineError::NoSource { detail } => Refusal::NoSource(detail.clone()),
            EngineError::Unsupported { what, .. } => Refusal::Unfit(what.clone()),
            EngineError::Untrusted(_)
            | EngineError::ReadOnly { .. }
            | EngineError::Run(RunError::NotFound { .. } | RunError::Unsafe { .. }) => {
                Refusal::Unfit(with_hint)
            }
            EngineError::WrongPassphrase { .. }
            | EngineError::KeyMissing { .. }
            | EngineError::Secret { .. }
            | EngineError::OtherEngine { .. }
            | EngineError::Moved { .. }
            | EngineError::Unfinished { .. }
            | EngineError::Unreachable { .. }
            | EngineError::CacheDamaged { .. }
            | EngineError::DamagedBetween { .. }
            | EngineError::Refused { .. }
            | EngineError::Denied { .. }
            | EngineError::Sender { .. }
            | EngineError::InUse { .. }
            | EngineError::Producer { .. }
            | EngineError::EmptyStream { .. }
            | EngineError::Output { .. }
            | EngineError::Failed { .. }
            | EngineError::Run(_)
            | EngineError::Act(_) => Refusal::Failed(text),
        }
    }

    /// What it is to the client of a repository.
    pub(super) fn into_error(self, repository: &str) -> EngineError {
        let repository = repository.to_owned();
        let unfit =
            |what| EngineError::Unsupported { engine: format!("Stillpoint at {repository}"), what };
        match self {
            Refusal::Missing => EngineError::RepositoryMissing { repository },
            Refusal::Exists => EngineError::RepositoryExists { repository },
            Refusal::Full(detail) => EngineError::Full { repository, detail },
            Refusal::Damaged(detail) => EngineError::Damaged { repository, detail },
            Refusal::Locked(detail) => EngineError::Locked { repository, detail },
            Refusal::NoSource(detail) => EngineError::NoSource { detail },
            Refusal::NotAllowed(detail) => EngineError::Denied { repository, detail },
            Refusal::Version(there) => unfit(format!(
                "requests of version {VERSION}: it answers those of version {there} — bring both sides to one version"
            )),
            Refusal::Unfit(what) => unfit(what),
            Refusal::NoRequest(detail)
            | Refusal::Differs(detail)
            | Refusal::Difference(detail)
            | Refusal::Failed(detail) => EngineError::Failed {
                command: "stillpoint serve".into(),
                exit: format!("at {repository}"),
                detail,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ActError;

    #[test]
    fn a_refusal_is_found_among_other_lines_and_keeps_its_meaning() {
        let refusal = Refusal::Full("ERROR: no space".into());
        let said = format!("{{\"bytes\":1}}\n{}\n", refusal.line());
        assert_eq!(Refusal::last(said.as_bytes()), Some(refusal));
        assert_eq!(Refusal::last(b"tar: refusal\n"), None);
        // What a terminal must not be shown is in it as a text, also where it is made fit for one.
        let refusal = Refusal::Difference("/srv/\u{200e}ä\u{7f}\u{1b}\n\u{1f600}\\ \"x\"".into());
        let said = crate::model::shown::lines(&refusal.line());
        assert_eq!(said, refusal.line());
        assert_eq!(Refusal::last(said.as_bytes()), Some(refusal));
        let there = |error: &EngineError| Refusal::of(error).into_error("ssh://nas/srv");
        let repository = || "/srv".to_owned();
        let full = EngineError::Full { repository: repository(), detail: "x".into() };
        assert!(matches!(there(&full), EngineError::Full { .. }));
        let missing = EngineError::RepositoryMissing { repository: repository() };
        assert!(there(&missing).to_string().contains("ssh://nas/srv"));
        let damaged = EngineError::Damaged { repository: repository(), detail: "x".into() };
        assert_eq!(there(&damaged).trouble(), damaged.trouble());
        let source = std::io::ErrorKind::StorageFull.into();
        let act = ActError::Io { what: "replace", path: "/srv/x".into(), source };
        let act = EngineError::Act(act);
        // What the engine said and what the system said is one thing to whoever reads it, here and there.
        assert!(act.is_of_space() && act.hint().unwrap().contains("no space"), "{act}");
        assert!(matches!(there(&act), EngineError::Full { .. }));
        let denied = Refusal::NotAllowed("this key may not delete".into()).into_error("r");
        assert!(denied.hint().unwrap().contains("append-only"), "{denied}");
    }
}
