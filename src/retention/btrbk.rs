//! btrbk's schedule, for those who come from there: `semantics = "btrbk"`.
//!
//! What its `sub schedule` does (btrbk 0.32.5, /usr/bin/btrbk), step by step; `tests.rs` beside this has the same
//! calendars decided by btrbk itself. Its hours are those of the clock on the wall, subtracted as if no clock were ever
//! put forward or back. The first copy of a period stands for it, periods are counted back from now whether or not they
//! have a copy, and the longer ones choose among those that the shorter ones have chosen. A month begins with its first
//! day of the week that is asked for; the month that it is now does not, which makes the count of months and years uneven
//! by one at the edges, in btrbk as here.
//!
//! Our guards stay on top, and are the only difference: an incomplete copy stands for no period, one that is dated in the
//! future is left alone and stands for none either, and the newest good copy, pinned ones and what is not ours stay.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Datelike, FixedOffset, Timelike};

use crate::model::keep::{ALL, BtrbkSchedule, KeepPolicy, Period, PreserveMin};

/// Why btrbk preserves a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preserved {
    /// `preserve_min` says all of them.
    All,
    /// `preserve_min` says the latest.
    Latest,
    /// It is of a period that `preserve_min` covers, so many before this one.
    Minimum(Period, i64),
    /// It is the first of a period, so many before this one.
    First(Period, i64),
}

impl fmt::Display for Preserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |period: &Period| match period {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
            Period::Year => "year",
        };
        match self {
            Preserved::All => f.write_str("btrbk: all"),
            Preserved::Latest => f.write_str("btrbk: latest"),
            Preserved::Minimum(period, ago) => {
                write!(f, "btrbk: minimum, {} {ago} ago", word(period))
            }
            Preserved::First(period, ago) => {
                write!(f, "btrbk: first of its {}, {ago} ago", word(period))
            }
        }
    }
}

/// How many periods before now a copy was made.
struct Deltas {
    hours: i64,
    days: i64,
    weeks: i64,
    months: i64,
    years: i64,
}

impl Deltas {
    fn of(made: DateTime<FixedOffset>, now: DateTime<FixedOffset>, btrbk: &BtrbkSchedule) -> Self {
        let mut from_hour = i64::from(made.hour()) - i64::from(btrbk.hour_of_day);
        let weekday = made.weekday().num_days_from_sunday();
        let mut from_day = i64::from(weekday) - i64::from(btrbk.day_of_week);
        if from_hour < 0 {
            from_hour += 24;
            from_day -= 1;
        }
        if from_day < 0 {
            from_day += 7;
        }
        let (mut month, mut year) = (i64::from(made.month0()), i64::from(made.year()));
        if i64::from(made.day()) <= from_day {
            month -= 1;
            if month < 0 {
                month = 11;
                year -= 1;
            }
        }
        let hours = wall_hours(now) - wall_hours(made);
        // Division as perl's int() does it: towards zero.
        let days = (hours + from_hour) / 24;
        let years = i64::from(now.year()) - year;
        Self {
            hours,
            days,
            weeks: (days + from_day) / 7,
            months: years * 12 + i64::from(now.month0()) - month,
            years,
        }
    }

    fn in_periods(&self, period: Period) -> i64 {
        match period {
            Period::Hour => self.hours,
            Period::Day => self.days,
            Period::Week => self.weeks,
            Period::Month => self.months,
            Period::Year => self.years,
        }
    }
}

/// The hour that the clock on the wall shows, as a number.
fn wall_hours(time: DateTime<FixedOffset>) -> i64 {
    time.naive_local().and_utc().timestamp().div_euclid(3_600)
}

/// Why each of these copies is preserved, in btrbk's order: nothing for one that is not. They come oldest first, as the
/// local times at which they were made.
pub fn schedule(
    policy: &KeepPolicy,
    btrbk: &BtrbkSchedule,
    made: &[DateTime<FixedOffset>],
    now: DateTime<FixedOffset>,
) -> Vec<Vec<Preserved>> {
    let deltas: Vec<Deltas> = made.iter().map(|made| Deltas::of(*made, now, btrbk)).collect();
    let mut preserved: Vec<Vec<Preserved>> = vec![Vec::new(); made.len()];
    for (why, deltas) in preserved.iter_mut().zip(&deltas) {
        match btrbk.preserve_min {
            PreserveMin::All => why.push(Preserved::All),
            PreserveMin::Within(count, period) => {
                let ago = deltas.in_periods(period);
                if ago <= i64::from(count) {
                    why.push(Preserved::Minimum(period, ago));
                }
            }
            PreserveMin::No | PreserveMin::Latest => {}
        }
    }
    if btrbk.preserve_min == PreserveMin::Latest
        && let Some(latest) = preserved.last_mut()
    {
        latest.push(Preserved::Latest);
    }
    let counts = [
        (Period::Hour, policy.hourly),
        (Period::Day, policy.daily),
        (Period::Week, policy.weekly),
        (Period::Month, policy.monthly),
        (Period::Year, policy.yearly),
    ];
    // Each period chooses among those that the one before it chose; the longest ago come first.
    let mut chosen: Vec<usize> = (0..made.len()).collect();
    for (period, count) in counts {
        let mut first: BTreeMap<i64, usize> = BTreeMap::new();
        for index in chosen {
            first.entry(deltas[index].in_periods(period)).or_insert(index);
        }
        chosen = first.values().rev().copied().collect();
        let Some(count) = count.filter(|count| *count > 0) else { continue };
        for (ago, index) in first {
            if count == ALL || ago <= i64::from(count) {
                preserved[index].push(Preserved::First(period, ago));
            }
        }
    }
    preserved
}

#[cfg(test)]
mod tests;
