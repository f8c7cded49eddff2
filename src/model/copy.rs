//! A copy: one restorable point in a target, and the series it belongs to.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::names::{HostName, JobName, RunId};

/// What retention groups by: the copies of one thing on one host.
///
/// `item` is the guest, volume or stream inside a job; a `files` job has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Series {
    /// The host in whose name the copy was made.
    pub host: HostName,
    /// The job.
    pub job: JobName,
    /// The stream, guest or volume, if the job has several.
    pub item: Option<String>,
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.job, self.host)?;
        if let Some(item) = &self.item {
            write!(f, "/{item}")?;
        }
        Ok(())
    }
}

/// One restorable point as a target lists it, enriched from history where the target does not know.
///
/// What is not known is `None`, never zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// How the engine names it and how it is deleted: a borg archive name, a restic snapshot id (64 digits).
    pub id: String,
    /// The series, if the copy was made by Stillpoint (or carries its marks); `None` is somebody else's.
    pub series: Option<Series>,
    /// The run that made it.
    pub run: Option<RunId>,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// Bytes of the original data.
    pub size: Option<u64>,
    /// Number of files.
    pub files: Option<u64>,
    /// The engine's tags, without those that encode the series.
    pub tags: Vec<String>,
    /// Never to be pruned while this holds. The mark is in the repository (restic: the tag `protected`; borg: the
    /// end of the archive's name); a pin of the time when borg copies had none is in history.
    pub pinned: bool,
    /// The id of which this copy is a re-tagged or copied version (restic `original`), or the name that a
    /// pinned borg archive has without its pin.
    pub original: Option<String>,
    /// What Stillpoint recorded about its making; `None` when there is no record.
    pub healthy: Option<bool>,
}

impl Copy {
    /// Whether `text`, as a person typed it, names this copy: the whole id, or at least six leading
    /// characters of it, or its run id.
    pub fn answers_to(&self, text: &str) -> bool {
        self.id == text
            || (text.len() >= 6 && self.id.starts_with(text))
            || self.run.as_ref().is_some_and(|run| run.as_str() == text)
            || self
                .original
                .as_deref()
                .is_some_and(|o| o == text || (text.len() >= 6 && o.starts_with(text)))
    }
}

/// The first few ids, for one line.
pub fn abridged(ids: &[String]) -> String {
    const SHOWN: usize = 3;
    let short = |id: &String| {
        let hexadecimal = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hexadecimal { id[..8].to_owned() } else { id.clone() }
    };
    let mut text = ids.iter().take(SHOWN).map(short).collect::<Vec<_>>().join(", ");
    if ids.len() > SHOWN {
        text.push_str(&format!(" and {} more", ids.len() - SHOWN));
    }
    text
}
