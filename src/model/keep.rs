//! What to keep: the retention policy of a target, or of a job in a target.

use std::time::Duration;

use serde::Serialize;

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
}

impl KeepPolicy {
    /// Whether the policy names no rule that keeps anything, in which case everything is kept.
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.into_iter().flatten().all(|count| count == 0)
            && self.within.is_none_or(|span| span.is_zero())
            && self.tags.is_empty()
    }
}
