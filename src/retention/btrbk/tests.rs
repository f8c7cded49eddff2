//! What the real tests show on random calendars, in a few that a person can follow; and what holds on top of it.

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::retention::tests::berlin;

fn local(text: &str) -> DateTime<FixedOffset> {
    let utc: DateTime<Utc> = text.parse().unwrap();
    utc.with_timezone(&berlin(utc))
}

const PLAIN: BtrbkSchedule =
    BtrbkSchedule { preserve_min: PreserveMin::No, day_of_week: 0, hour_of_day: 0 };

/// What is preserved of copies made at these times, by the last reason of each.
fn preserved(policy: &KeepPolicy, btrbk: &BtrbkSchedule, made: &[&str], now: &str) -> Vec<String> {
    let made: Vec<_> = made.iter().map(|made| local(made)).collect();
    let why = schedule(policy, btrbk, &made, local(now));
    why.iter().map(|why| why.last().map_or("-".into(), ToString::to_string)).collect()
}

#[test]
fn the_first_of_a_day_stands_for_it_and_days_without_one_count() {
    let policy = KeepPolicy { daily: Some(2), ..KeepPolicy::default() };
    let made = [
        "2026-01-05T08:00:00Z",
        "2026-01-07T08:00:00Z",
        "2026-01-07T20:00:00Z",
        "2026-01-09T08:00:00Z",
    ];
    assert_eq!(
        preserved(&policy, &PLAIN, &made, "2026-01-09T12:00:00Z"),
        ["-", "btrbk: first of its day, 2 ago", "-", "btrbk: first of its day, 0 ago"]
    );
}

#[test]
fn hours_are_those_of_the_wall_when_clocks_are_put_back() {
    let policy = KeepPolicy { hourly: Some(1), ..KeepPolicy::default() };
    // Both are made at 02:30 by the clock on the wall.
    let made = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"];
    assert_eq!(
        preserved(&policy, &PLAIN, &made, "2026-10-25T02:30:00Z"),
        ["btrbk: first of its hour, 1 ago", "-"]
    );
}

#[test]
fn a_month_begins_with_its_first_day_of_the_week_that_is_asked_for() {
    let policy = KeepPolicy { monthly: Some(ALL), ..KeepPolicy::default() };
    // 2026-03-01 is a Sunday: with Monday, it belongs to February.
    let made = ["2026-02-02T12:00:00Z", "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z"];
    let now = "2026-03-10T12:00:00Z";
    let monday = BtrbkSchedule { day_of_week: 1, ..PLAIN };
    assert_eq!(
        preserved(&policy, &monday, &made, now),
        ["btrbk: first of its month, 1 ago", "-", "btrbk: first of its month, 0 ago"]
    );
    assert_eq!(
        preserved(&policy, &PLAIN, &made, now),
        ["btrbk: first of its month, 1 ago", "btrbk: first of its month, 0 ago", "-"]
    );
}

#[test]
fn a_minimum_covers_this_period_and_so_many_before_it() {
    let within =
        |count, period| BtrbkSchedule { preserve_min: PreserveMin::Within(count, period), ..PLAIN };
    let none = KeepPolicy::default();
    let made = ["2026-01-06T23:00:00Z", "2026-01-07T23:30:00Z", "2026-01-08T10:00:00Z"];
    let kept = |btrbk: &BtrbkSchedule| {
        let all = preserved(&none, btrbk, &made, "2026-01-09T12:00:00Z");
        all.iter().filter(|why| *why != "-").count()
    };
    // 23:30 in UTC is the next day in Berlin.
    assert_eq!(kept(&within(1, Period::Day)), 2);
    assert_eq!(kept(&within(2, Period::Day)), 3);
    assert_eq!(kept(&within(0, Period::Hour)), 0);
    assert_eq!(kept(&BtrbkSchedule { preserve_min: PreserveMin::Latest, ..PLAIN }), 1);
    assert_eq!(kept(&BtrbkSchedule { preserve_min: PreserveMin::All, ..PLAIN }), 3);
    assert_eq!(kept(&PLAIN), 0);
}

proptest! {
    /// Larger numbers never keep less, and each longer period chooses among what the shorter one has chosen.
    #[test]
    fn more_keeps_more(
        hours in prop::collection::btree_set(0_i64..20_000, 0..40),
        counts in prop::array::uniform5(0_u32..6),
        day_of_week in 0_u8..7,
        hour_of_day in 0_u8..24,
    ) {
        let now = local("2026-04-01T10:30:00Z");
        let made: Vec<_> =
            hours.iter().rev().map(|hours| now - chrono::TimeDelta::hours(*hours)).collect();
        let btrbk = BtrbkSchedule { day_of_week, hour_of_day, ..PLAIN };
        let with = |more: u32| {
            let [hourly, daily, weekly, monthly, yearly] = counts.map(|count| Some(count + more));
            let policy =
                KeepPolicy { hourly, daily, weekly, monthly, yearly, ..KeepPolicy::default() };
            schedule(&policy, &btrbk, &made, now)
        };
        for (less, more) in with(0).iter().zip(with(1)) {
            prop_assert!(less.is_empty() || !more.is_empty());
        }
        // With all of everything, who stands for a longer period stands for the shorter ones.
        let [hourly, daily, weekly, monthly, yearly] = [Some(ALL); 5];
        let all = KeepPolicy { hourly, daily, weekly, monthly, yearly, ..KeepPolicy::default() };
        for why in schedule(&all, &btrbk, &made, now) {
            let periods: Vec<Period> = why.iter().map(|why| match why {
                Preserved::First(period, _) => *period,
                other => panic!("{other}"),
            }).collect();
            let order = [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year];
            prop_assert_eq!(&periods[..], &order[..periods.len()]);
        }
    }
}
