//! The counted rules: which period a moment falls into.

use std::fmt;

use chrono::{DateTime, Datelike, FixedOffset};

use crate::model::keep::KeepPolicy;

/// The tag that protects a copy from every policy, in whichever repository it is.
pub const PROTECTED_TAG: &str = "protected";

/// A rule that keeps a number of copies, at most one for each of its periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every copy is a period of its own.
    Last,
    /// The clock hour.
    Hourly,
    /// The calendar day.
    Daily,
    /// The ISO week, Monday to Sunday.
    Weekly,
    /// The calendar month.
    Monthly,
    /// The calendar year.
    Yearly,
}

impl Rule {
    /// All rules, shortest period first.
    pub const ALL: [Rule; 6] =
        [Rule::Last, Rule::Hourly, Rule::Daily, Rule::Weekly, Rule::Monthly, Rule::Yearly];

    /// How many periods the policy asks for; `None` when it does not ask, which is what zero means too.
    pub fn count(self, policy: &KeepPolicy) -> Option<u32> {
        let count = match self {
            Rule::Last => policy.last,
            Rule::Hourly => policy.hourly,
            Rule::Daily => policy.daily,
            Rule::Weekly => policy.weekly,
            Rule::Monthly => policy.monthly,
            Rule::Yearly => policy.yearly,
        };
        count.filter(|count| *count > 0)
    }

    /// Numbers for the period of local time that holds the moment: equal for two moments exactly when they share it.
    /// `None` for [`Rule::Last`], whose periods hold one copy each.
    pub(super) fn period(self, time: DateTime<FixedOffset>) -> Option<(i64, i32)> {
        let ahead = time.offset().local_minus_utc();
        let clock = time.timestamp() + i64::from(ahead);
        let days = clock.div_euclid(86_400);
        let number = match self {
            Rule::Last => return None,
            // When clocks are put back an hour comes twice, and the second one is another hour.
            Rule::Hourly => return Some((clock.div_euclid(3_600), ahead)),
            Rule::Daily => days,
            // 1 January 1970 was a Thursday, the fourth day of its week.
            Rule::Weekly => (days + 3).div_euclid(7),
            Rule::Monthly => i64::from(time.year()) * 12 + i64::from(time.month0()),
            Rule::Yearly => i64::from(time.year()),
        };
        Some((number, 0))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Last => "last",
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(rule: Rule, one: &str, other: &str) -> bool {
        let period = |text: &str| rule.period(text.parse().unwrap());
        period(one) == period(other)
    }

    #[test]
    fn periods_end_where_the_calendar_says() {
        assert!(same(Rule::Hourly, "2026-03-01T10:00:00Z", "2026-03-01T10:59:59.999Z"));
        assert!(!same(Rule::Hourly, "2026-03-01T10:59:59Z", "2026-03-01T11:00:00Z"));
        assert!(!same(Rule::Hourly, "2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z"));
        assert!(!same(Rule::Daily, "2026-03-01T23:59:59Z", "2026-03-02T00:00:00Z"));
        assert!(same(Rule::Monthly, "2026-02-01T00:00:00Z", "2026-02-28T23:59:59Z"));
        assert!(!same(Rule::Monthly, "2025-02-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        assert!(!same(Rule::Yearly, "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z"));
        // Before 1970, division must still round down.
        assert!(!same(Rule::Daily, "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"));
    }

    #[test]
    fn weeks_are_those_of_iso_8601() {
        // Every day of eleven years, against the calendar's own week numbers.
        let mut day: DateTime<FixedOffset> = "1968-01-01T12:00:00Z".parse().unwrap();
        for _ in 0..4_000 {
            let next = day + chrono::TimeDelta::days(1);
            let by_calendar = day.iso_week() == next.iso_week();
            assert_eq!(Rule::Weekly.period(day) == Rule::Weekly.period(next), by_calendar, "{day}");
            day = next;
        }
    }
}
