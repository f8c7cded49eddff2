//! What to keep: the retention policy of a target, or of a job in a target.

use std::time::Duration;

use serde::Serialize;

use super::size::{bytes, whole_percent};

/// Which copies of a series stay. An empty policy keeps everything.
///
/// `last` … `yearly` count copies or periods of local time that have a copy; `within` keeps everything
/// younger; `tags` keeps copies that carry one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeepPolicy {
    /// The newest N copies.
    pub last: Option<u32>,
    /// One copy for each of the newest N hours that have one.
    pub hourly: Option<u32>,
    /// The same by day.
    pub daily: Option<u32>,
    /// The same by ISO week.
    pub weekly: Option<u32>,
    /// The same by month.
    pub monthly: Option<u32>,
    /// The same by year.
    pub yearly: Option<u32>,
    /// Every copy younger than this, counted back from the newest copy of the series.
    pub within: Option<Duration>,
    /// Every copy that carries one of these tags.
    pub tags: Vec<String>,
    /// Count as btrbk does; `None` is our own way.
    pub btrbk: Option<BtrbkSchedule>,
    /// How much space must stay free, whatever the rules keep.
    pub min_free: Option<MinFree>,
}

/// How much of a file system must stay free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinFree {
    /// So many percent of its size, 1 to 100.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

/// What a [`MinFree`] may be, for people.
pub const SHARE_OR_BYTES: &str =
    "\"1%\" to \"99%\", or bytes with their unit such as \"20G\" (K, M, G, T)";

impl MinFree {
    /// Reads one that is written as [`SHARE_OR_BYTES`] says; `None` when it is not.
    pub fn parse(text: &str) -> Option<MinFree> {
        let percent = whole_percent(text).filter(|percent| *percent < 100).map(MinFree::Percent);
        percent.or_else(|| bytes(text).map(MinFree::Bytes))
    }

    /// The bytes that it means in a file system of this size.
    pub fn of(self, size: u64) -> u64 {
        match self {
            MinFree::Bytes(bytes) => bytes,
            MinFree::Percent(percent) => {
                let part = u128::from(size) * u128::from(percent) / 100;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }
}

/// A number of periods that means all of them.
pub const ALL: u32 = u32::MAX;

/// What btrbk's schedule knows besides the numbers of its periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BtrbkSchedule {
    /// What stays whatever the numbers say.
    pub preserve_min: PreserveMin,
    /// The day with which weeks begin, and months and years with the first one in them; days from Sunday.
    pub day_of_week: u8,
    /// The hour with which days begin.
    pub hour_of_day: u8,
}

/// btrbk's `preserve_min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreserveMin {
    /// Nothing.
    No,
    /// The newest copy.
    Latest,
    /// Every copy.
    All,
    /// Every copy of this period and of so many before it.
    Within(u32, Period),
}

/// A period of btrbk's calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// `h`.
    Hour,
    /// `d`.
    Day,
    /// `w`.
    Week,
    /// `m`.
    Month,
    /// `y`.
    Year,
}

impl KeepPolicy {
    /// Whether the policy names no rule that keeps anything, in which case everything is kept.
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.into_iter().flatten().all(|count| count == 0)
            && self.within.is_none_or(|span| span.is_zero())
            && self.tags.is_empty()
            && self.btrbk.is_none_or(|btrbk| btrbk.preserve_min == PreserveMin::No)
    }
}
