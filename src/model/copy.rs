//! A copy: one restorable point in a target, and the series it belongs to.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::names::{HostName, JobName, MachineId, RunId};
use super::natural::Natural;

/// How far apart two clocks, or two readings of one, may be before they disagree.
pub const CLOCK_SLACK: Duration = Duration::from_secs(5 * 60);

/// What retention groups by: the copies of one thing on one host.
///
/// `item` is the guest, volume or stream inside a job; a `files` job has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Series {
    /// The host in whose name the copy was made.
    pub host: HostName,
    /// The job that makes its copies.
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Other ids by which a person may know it: what a pin has made of its id or would, as far as the engine or
    /// history can tell.
    pub aliases: Vec<String>,
    /// The id of the copy in the same target that it is a difference to, and without which it is nothing.
    pub based_on: Option<String>,
    /// Another program made it, and nobody has compared it with what it is of: it may look whole and hold empty files.
    pub unproven: bool,
    /// It, or what it is a difference to, was found damaged when that was read last, and the target says so.
    pub damaged: bool,
    /// What Stillpoint recorded about its making; `None` when there is no record.
    pub healthy: Option<bool>,
    /// The machine whose mark it carries, where the listing says it (restic). Marks can be forged.
    pub machine: Option<MachineId>,
    /// History says that this machine made it or adopted it: only then may it fill a slot or be deleted.
    pub ours: bool,
    /// A person has adopted it: the series is the one that it was adopted into, not what it is marked with.
    pub adopted: bool,
    /// Its making here, as history recorded it; `None` also for adopted copies.
    pub recorded: Option<Recorded>,
}

/// What the record of a copy says of when it was made, whatever the clock showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the order in which copies were recorded.
    pub order: i64,
    /// When it was recorded: its making was over by then.
    pub at: DateTime<Utc>,
}

impl Copy {
    /// Whether it is dated later than its making can have ended: later than its record or, if there is none,
    /// than now. A clock that was ahead, or a forged date, must not make it the latest for years.
    pub fn is_in_the_future(&self, now: DateTime<Utc>, slack: Duration) -> bool {
        let bound = self.recorded.map_or(now, |recorded| recorded.at.min(now));
        self.time > later(bound, slack)
    }

    /// Whether it was made after the other one: by the order of recording where both were recorded here, since
    /// a clock may have been behind; else by what they are dated.
    pub fn is_newer_than(&self, other: &Copy) -> bool {
        match (self.recorded, other.recorded) {
            (Some(one), Some(two)) => one.order > two.order,
            (_, None) | (None, _) => self.moment() > other.moment(),
        }
    }

    /// Where it stands among others by what they say of themselves: by its time, and of several of one second by its id.
    pub fn moment(&self) -> (DateTime<Utc>, Natural<'_>) {
        (self.time, Natural(&self.id))
    }

    /// Takes it into a series of ours, whatever its own marks say.
    pub fn adopt(&mut self, series: Series) {
        self.series = Some(series);
        self.adopted = true;
    }

    /// Whether nothing is known against it. One without a record counts as good.
    pub fn may_be_good(&self) -> bool {
        self.fault().is_none()
    }

    /// What is known against it, if anything is.
    pub fn fault(&self) -> Option<&'static str> {
        if self.damaged {
            return Some("found damaged when it was last read");
        }
        (self.healthy == Some(false)).then_some("incomplete: its run did not store all")
    }

    /// Whether `text`, as a person typed it, names this copy: a whole id that it has or had, or at least six
    /// leading characters of one, or its run id.
    pub fn answers_to(&self, text: &str) -> bool {
        self.is_exactly(text) || (text.len() >= 6 && self.ids().any(|id| id.starts_with(text)))
    }

    /// Whether `text` is a whole id that it has or had, or its run id.
    pub fn is_exactly(&self, text: &str) -> bool {
        self.ids().any(|id| id == text) || self.run.as_ref().is_some_and(|run| run.as_str() == text)
    }

    /// Its id, and those that it had or would have.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.iter().map(String::as_str);
        [Some(self.id.as_str()), self.original.as_deref()].into_iter().flatten().chain(aliases)
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

/// A moment so long before this one, or the earliest of all.
pub fn earlier(moment: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(span)
        .ok()
        .and_then(|span| moment.checked_sub_signed(span))
        .unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// A moment that is `span` later, or the last one there is.
pub fn later(moment: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(span)
        .ok()
        .and_then(|span| moment.checked_add_signed(span))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
