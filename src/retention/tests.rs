//! What each rule keeps, what the gate refuses, and the differences that the module's page lists.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, Offset, TimeDelta, Utc, Weekday};

use super::*;
use crate::model::copy::{Copy, Series};
use crate::model::keep::KeepPolicy;
use crate::model::names::{HostName, JobName};

const DAY: Duration = Duration::from_secs(86_400);

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn utc(_: DateTime<Utc>) -> FixedOffset {
    Utc.fix()
}

/// Central European time: clocks are put forward and back at 01:00 UTC of the last Sunday of March and October.
pub(super) fn berlin(time: DateTime<Utc>) -> FixedOffset {
    let change = |month| {
        let mut days = (25..=31).filter_map(|day| NaiveDate::from_ymd_opt(time.year(), month, day));
        let last = days.find(|day| day.weekday() == Weekday::Sun).unwrap();
        last.and_hms_opt(1, 0, 0).unwrap().and_utc()
    };
    let is_summer = (change(3)..change(10)).contains(&time);
    FixedOffset::east_opt(if is_summer { 7_200 } else { 3_600 }).unwrap()
}

/// Newfoundland in 2010: clocks were put back from 00:01 on 7 November to 23:01 on the 6th.
fn newfoundland(time: DateTime<Utc>) -> FixedOffset {
    let is_summer = time < at("2010-11-07T02:31:00Z");
    FixedOffset::west_opt(if is_summer { 9_000 } else { 12_600 }).unwrap()
}

fn series() -> Series {
    Series { host: HostName::new("web1").unwrap(), job: JobName::new("etc").unwrap(), item: None }
}

/// A good copy, called after its time without the year and separators it does not need.
fn good(time: &str) -> Copy {
    Copy {
        id: time.to_owned(),
        series: Some(series()),
        run: None,
        time: at(&format!("{time}:00Z")),
        size: Some(1_000),
        files: Some(100),
        tags: Vec::new(),
        pinned: false,
        healthy: Some(true),
        ours: true,
        ..Copy::default()
    }
}

fn bad(time: &str) -> Copy {
    Copy { healthy: Some(false), ..good(time) }
}

fn now() -> DateTime<Utc> {
    at("2026-02-01T12:00:00Z")
}

fn deleted(policy: &KeepPolicy, copies: &[Copy]) -> Vec<String> {
    plan(policy, copies, now(), &Guards::default(), &utc).deletions()
}

fn kept(policy: &KeepPolicy, copies: &[Copy]) -> Vec<String> {
    let plan = plan(policy, copies, now(), &Guards::default(), &utc);
    plan.decisions
        .into_iter()
        .filter(|decision| matches!(decision.verdict, Verdict::Keep(_)))
        .map(|decision| decision.id)
        .collect()
}

fn daily(count: u32) -> KeepPolicy {
    KeepPolicy { daily: Some(count), ..KeepPolicy::default() }
}

/// The plan as a person reads it.
fn table(policy: &KeepPolicy, copies: &[Copy]) -> String {
    plan(policy, copies, now(), &Guards::default(), &utc)
        .decisions
        .iter()
        .map(|decision| format!("{} {}\n", decision.id, decision.verdict))
        .collect()
}

/// Morning and evening of the first four days of January 2026, a Thursday to a Sunday.
fn four_days() -> Vec<Copy> {
    ["01", "02", "03", "04"]
        .iter()
        .flat_map(|day| ["08:00", "20:00"].map(|hour| good(&format!("2026-01-{day}T{hour}"))))
        .collect()
}

#[test]
fn what_a_copy_that_stays_is_a_difference_to_stays_as_well() {
    let policy = KeepPolicy { last: Some(1), ..KeepPolicy::default() };
    let on = |time: &str, base: &str| Copy { based_on: Some(base.into()), ..good(time) };
    let mut copies = vec![
        good("2026-01-01T08:00"),
        on("2026-01-02T08:00", "2026-01-01T08:00"),
        on("2026-01-03T08:00", "2026-01-02T08:00"),
        // Nothing that stays is based on these.
        on("2026-01-04T08:00", "2026-01-03T08:00"),
        on("2026-01-05T08:00", "2026-01-04T08:00"),
        on("2026-01-06T08:00", "2026-01-03T08:00"),
    ];
    insta::assert_snapshot!(table(&policy, &copies), @"
    2026-01-06T08:00 keep (newest good copy, last 1 of 1)
    2026-01-05T08:00 delete (no rule keeps it)
    2026-01-04T08:00 delete (no rule keeps it)
    2026-01-03T08:00 keep (needed by 2026-01-06T08:00)
    2026-01-02T08:00 keep (needed by 2026-01-03T08:00)
    2026-01-01T08:00 keep (needed by 2026-01-02T08:00)
    ");
    // Whose copy it is that stays does not matter, nor that a listing is nonsense.
    copies[4].ours = false;
    copies[3].based_on = Some("2026-01-05T08:00".into());
    copies[2].based_on = Some("gone".into());
    insta::assert_snapshot!(table(&policy, &copies), @"
    2026-01-06T08:00 keep (newest good copy, last 1 of 1)
    2026-01-05T08:00 untouched (this machine neither made nor adopted it)
    2026-01-04T08:00 keep (needed by 2026-01-05T08:00)
    2026-01-03T08:00 keep (needed by 2026-01-06T08:00)
    2026-01-02T08:00 delete (no rule keeps it)
    2026-01-01T08:00 delete (no rule keeps it)
    ");
}

#[test]
fn each_copy_says_why() {
    let policy = KeepPolicy {
        last: Some(1),
        daily: Some(3),
        weekly: Some(4),
        within: Some(12 * Duration::from_secs(3_600)),
        ..KeepPolicy::default()
    };
    let mut copies = four_days();
    copies[0].pinned = true;
    copies[1].tags = vec!["monday".into(), "protected".into()];
    copies.push(bad("2026-01-05T01:00"));
    copies.push(bad("2026-01-02T12:00"));
    copies.push(good("2026-02-01T12:06"));
    copies.push(Copy { series: None, ..good("2026-01-04T10:00") });
    insta::assert_snapshot!(table(&policy, &copies), @"
    2026-02-01T12:06 untouched (dated in the future)
    2026-01-05T01:00 keep (incomplete, but newer than any good copy, within 12h)
    2026-01-04T20:00 keep (newest good copy, last 1 of 1, daily 1 of 3, weekly 1 of 4, within 12h)
    2026-01-04T10:00 untouched (this machine neither made nor adopted it)
    2026-01-04T08:00 delete (no rule keeps it)
    2026-01-03T20:00 keep (daily 2 of 3)
    2026-01-03T08:00 delete (no rule keeps it)
    2026-01-02T20:00 keep (daily 3 of 3)
    2026-01-02T12:00 delete (unhealthy, and a newer copy is good)
    2026-01-02T08:00 delete (no rule keeps it)
    2026-01-01T20:00 keep (tag protected)
    2026-01-01T08:00 keep (pinned)
    ");
}

#[test]
fn every_period_rule_keeps_the_newest_of_each_period() {
    let times = [
        "2024-12-31T23:00",
        "2025-12-29T10:00",
        "2025-12-31T10:00",
        "2026-01-01T09:10",
        "2026-01-01T09:50",
        "2026-01-01T10:00",
    ];
    let copies = times.map(good);
    let none = KeepPolicy::default();
    let table = [
        (KeepPolicy { last: Some(2), ..none.clone() }, vec![5, 4]),
        (KeepPolicy { hourly: Some(3), ..none.clone() }, vec![5, 4, 2]),
        (KeepPolicy { daily: Some(3), ..none.clone() }, vec![5, 2, 1]),
        // 29 December 2025 and 1 January 2026 are in the same ISO week, and so are not 2024's last days.
        (KeepPolicy { weekly: Some(9), ..none.clone() }, vec![5, 0]),
        (KeepPolicy { monthly: Some(2), ..none.clone() }, vec![5, 2]),
        (KeepPolicy { yearly: Some(3), ..none.clone() }, vec![5, 2, 0]),
        (KeepPolicy { within: Some(2 * DAY), ..none.clone() }, vec![5, 4, 3, 2]),
        (KeepPolicy { within: Some(Duration::MAX), ..none }, vec![5, 4, 3, 2, 1, 0]),
    ];
    for (policy, expected) in table {
        let expected: Vec<&str> = expected.into_iter().map(|index| times[index]).collect();
        assert_eq!(kept(&policy, &copies), expected, "{policy:?}");
    }
}

#[test]
fn within_includes_its_edge() {
    let copies = [good("2026-01-01T08:00"), good("2026-01-01T07:59"), good("2026-01-02T08:00")];
    let policy = KeepPolicy { within: Some(DAY), ..KeepPolicy::default() };
    assert_eq!(deleted(&policy, &copies), ["2026-01-01T07:59"]);
}

#[test]
fn a_tag_of_the_policy_keeps_and_does_not_fill_a_slot() {
    let mut copies = four_days();
    copies[0].tags = vec!["release".into()];
    let policy = KeepPolicy { last: Some(1), tags: vec!["release".into()], ..daily(0) };
    assert_eq!(kept(&policy, &copies), ["2026-01-04T20:00", "2026-01-01T08:00"]);
}

#[test]
fn zero_is_no_rule() {
    let zeros = KeepPolicy {
        last: Some(0),
        hourly: Some(0),
        daily: Some(0),
        weekly: Some(0),
        monthly: Some(0),
        yearly: Some(0),
        within: Some(Duration::ZERO),
        tags: Vec::new(),
        btrbk: None,
        min_free: None,
    };
    assert_eq!(deleted(&zeros, &four_days()), [""; 0]);
}

#[test]
fn an_incomplete_copy_lives_until_a_good_one_follows() {
    let mut copies =
        vec![good("2026-01-01T08:00"), bad("2026-01-02T08:00"), bad("2026-01-03T08:00")];
    let policy = KeepPolicy { last: Some(1), ..KeepPolicy::default() };
    assert_eq!(deleted(&policy, &copies), [""; 0]);
    copies.push(good("2026-01-04T08:00"));
    assert_eq!(
        deleted(&policy, &copies),
        ["2026-01-03T08:00", "2026-01-02T08:00", "2026-01-01T08:00"]
    );
    // A series that was never good keeps all it has.
    let never = [bad("2026-01-02T08:00"), bad("2026-01-03T08:00")];
    assert_eq!(deleted(&policy, &never), [""; 0]);
}

#[test]
fn a_copy_without_a_record_counts_as_good() {
    let unrecorded = Copy { healthy: None, ..good("2026-01-02T08:00") };
    assert_eq!(deleted(&daily(1), &[good("2026-01-01T08:00"), unrecorded]), ["2026-01-01T08:00"]);
}

#[test]
fn copies_of_one_moment_are_ordered_by_id() {
    let one = Copy { id: "a".into(), ..good("2026-01-01T08:00") };
    let other = Copy { id: "b".into(), ..good("2026-01-01T08:00") };
    let policy = KeepPolicy { last: Some(1), ..KeepPolicy::default() };
    assert_eq!(deleted(&policy, &[one.clone(), other.clone()]), ["a"]);
    assert_eq!(deleted(&policy, &[other, one]), ["a"]);
}

#[test]
fn an_id_that_is_listed_twice_is_deleted_only_if_both_may_go() {
    let mut twice = good("2026-01-03T08:00");
    twice.id = "2026-01-01T08:00".into();
    let policy = KeepPolicy { last: Some(1), ..KeepPolicy::default() };
    assert_eq!(deleted(&policy, &[good("2026-01-01T08:00"), twice.clone()]), [""; 0]);
    let newest = good("2026-01-04T08:00");
    assert_eq!(deleted(&policy, &[good("2026-01-01T08:00"), twice, newest]), ["2026-01-01T08:00"]);
}

#[test]
fn the_clock_may_be_five_minutes_off() {
    let copies = [good("2026-02-01T12:05"), good("2026-02-01T12:06"), good("2026-01-01T08:00")];
    let plan = plan(&daily(1), &copies, now(), &Guards::default(), &utc);
    assert_eq!(
        plan.in_the_future().map(|d| d.id.as_str()).collect::<Vec<_>>(),
        ["2026-02-01T12:06"]
    );
    assert_eq!(plan.deletions(), ["2026-01-01T08:00"]);
}

#[test]
fn each_series_is_decided_on_its_own() {
    let item = |item: &str, time: &str| Copy {
        series: Some(Series { item: Some(item.into()), ..series() }),
        ..good(time)
    };
    let copies = [
        item("a", "2026-01-01T08:00"),
        item("b", "2026-01-03T08:00"),
        item("a", "2026-01-02T08:00"),
        Copy { series: None, ..good("2026-01-04T08:00") },
    ];
    // One policy for both: each keeps its own newest.
    assert_eq!(deleted(&daily(1), &copies), ["2026-01-01T08:00"]);
}

// The differences from borg and restic, by their number on the module's page.

#[test]
fn difference_1_rules_count_on_their_own() {
    let policy = KeepPolicy { weekly: Some(2), ..daily(2) };
    let mut copies = four_days();
    copies.push(good("2025-12-20T08:00"));
    copies.push(good("2025-12-10T08:00"));
    // borg 1.2.4 would also keep 2025-12-10: there, the week of the daily ones is not counted again.
    assert_eq!(
        kept(&policy, &copies),
        ["2026-01-04T20:00", "2026-01-03T20:00", "2025-12-20T08:00"]
    );
}

#[test]
fn difference_2_the_oldest_is_no_stand_in() {
    // borg 1.2.4 keeps 2026-01-01T08:00 too, as `daily[oldest] #5`.
    assert_eq!(
        kept(&daily(9), &four_days()),
        ["2026-01-04T20:00", "2026-01-03T20:00", "2026-01-02T20:00", "2026-01-01T20:00"]
    );
}

#[test]
fn difference_3_the_hour_that_comes_twice_is_two_hours() {
    // 02:30 in summer time, and 02:30 once more in winter time.
    let copies = ["2025-10-26T00:30", "2025-10-26T01:30"].map(good);
    let hourly = KeepPolicy { hourly: Some(5), ..KeepPolicy::default() };
    assert_eq!(kept_in(berlin, &hourly, &copies).len(), 2);
}

#[test]
fn difference_4_incomplete_copies_fill_no_slot() {
    let copies = [good("2026-01-03T08:00"), good("2026-01-02T08:00"), bad("2026-01-04T08:00")];
    assert_eq!(kept(&daily(1), &copies), ["2026-01-04T08:00", "2026-01-03T08:00"]);
    let by_number = KeepPolicy { last: Some(1), ..KeepPolicy::default() };
    assert_eq!(kept(&by_number, &copies), ["2026-01-04T08:00", "2026-01-03T08:00"]);
}

#[test]
fn difference_5_and_6_within_counts_from_the_newest_which_always_stays() {
    // The machine has been off for four weeks; borg counts from now and deletes everything.
    let policy = KeepPolicy { within: Some(2 * DAY), ..KeepPolicy::default() };
    assert_eq!(
        deleted(&policy, &four_days()),
        ["2026-01-02T08:00", "2026-01-01T20:00", "2026-01-01T08:00"]
    );
    let tags = KeepPolicy { tags: vec!["none has it".into()], ..KeepPolicy::default() };
    assert_eq!(kept(&tags, &four_days()), ["2026-01-04T20:00"]);
}

#[test]
fn difference_7_the_future_pushes_nothing_out() {
    let mut copies = four_days();
    for year in 2027..2040 {
        copies.push(good(&format!("{year}-01-01T08:00")));
    }
    assert_eq!(kept(&daily(2), &copies), ["2026-01-04T20:00", "2026-01-03T20:00"]);
    assert!(deleted(&daily(2), &copies).iter().all(|id| id.starts_with("2026")));
}

#[test]
fn difference_8_nothing_foreign_is_counted_or_deleted() {
    let mut copies = four_days();
    copies.push(Copy { series: None, ..good("2026-01-05T08:00") });
    copies.push(Copy { series: None, ..good("2025-01-05T08:00") });
    assert_eq!(kept(&daily(1), &copies), ["2026-01-04T20:00"]);
    assert!(!deleted(&daily(1), &copies).contains(&"2025-01-05T08:00".to_owned()));
}

#[test]
fn difference_9_hosts_and_items_do_not_share_slots() {
    let other = Series { host: HostName::new("web2").unwrap(), ..series() };
    let mut copies = four_days();
    copies.push(Copy { series: Some(other), ..good("2026-01-05T08:00") });
    assert_eq!(kept(&daily(1), &copies), ["2026-01-05T08:00", "2026-01-04T20:00"]);
}

#[test]
fn difference_10_an_empty_policy_keeps_everything() {
    assert_eq!(deleted(&KeepPolicy::default(), &four_days()), [""; 0]);
    assert!(
        table(&KeepPolicy::default(), &[bad("2026-01-01T08:00"), good("2026-01-02T08:00")])
            .contains("2026-01-01T08:00 keep (no policy)")
    );
}

#[test]
fn what_was_found_damaged_stays_until_a_person_says_so_and_fills_no_slot() {
    let damaged = |time| Copy { damaged: true, ..good(time) };
    let policy = KeepPolicy { daily: Some(1), ..KeepPolicy::default() };
    let copies = [
        good("2026-01-01T08:00"),
        damaged("2026-01-02T08:00"),
        good("2026-01-03T08:00"),
        damaged("2026-01-04T08:00"),
    ];
    let told = table(&policy, &copies);
    for kept in ["2026-01-02T08:00", "2026-01-04T08:00"] {
        assert!(
            told.contains(&format!("{kept} keep (found damaged, until a person names it)")),
            "{told}"
        );
    }
    assert!(told.contains("2026-01-03T08:00 keep (newest good copy, daily 1 of 1)"), "{told}");
    assert!(told.contains("2026-01-01T08:00 delete"), "{told}");
    let plan = plan(&policy, &copies, now(), &Guards::default(), &utc);
    let ids: Vec<String> =
        expendable(&plan, &BTreeSet::new()).into_iter().map(|it| it.id).collect();
    assert_eq!(ids, [] as [String; 0], "nor for lack of space");
}

// The gate.

fn evidence<'a>(series: &'a Series, copy: &'a Copy) -> Evidence<'a> {
    Evidence {
        series,
        copy: Some(copy),
        last_good: Some(Measure { files: Some(100), size: Some(1_000) }),
        last_run: Some(now() - TimeDelta::hours(24)),
        now: now(),
        within: None,
        accepted_before: None,
        closed: None,
        accepted: false,
    }
}

#[test]
fn only_a_good_copy_opens_the_gate() {
    let series = series();
    let guards = Guards::default();
    let plan = Plan::default();
    let copy = good("2026-02-01T11:00");
    let asked = evidence(&series, &copy);
    assert_eq!(gate(&asked, &plan, &guards), Ok(()));

    let incomplete = bad("2026-02-01T11:00");
    let damaged = Copy { damaged: true, ..copy.clone() };
    for no_good in [&incomplete, &damaged] {
        let refused = gate(&Evidence { copy: Some(no_good), ..asked }, &plan, &guards);
        assert!(matches!(refused, Err(Refusal::Unhealthy { .. })));
    }
    let refused = gate(&Evidence { copy: None, ..asked }, &plan, &guards);
    assert!(matches!(refused, Err(Refusal::NoCopy { .. })));
    // Nobody can accept what is not there or not whole.
    for copy in [None, Some(&incomplete)] {
        assert!(gate(&Evidence { copy, accepted: true, ..asked }, &plan, &guards).is_err());
    }

    // What is wrong with the target as a whole weighs more than what is with the copy, and can be accepted.
    let closed = Evidence { closed: Some("damage was found; nothing is deleted"), ..asked };
    let refused = gate(&closed, &plan, &guards).unwrap_err();
    assert!(matches!(refused, Refusal::Closed { .. }));
    insta::assert_snapshot!(refused.told(), @"nothing of etc@web1 is deleted, because damage was found; nothing is deleted");
    assert_eq!(gate(&Evidence { accepted: true, ..closed }, &plan, &guards), Ok(()));

    let unrecorded = Copy { healthy: None, ..copy.clone() };
    let asked = Evidence { copy: Some(&unrecorded), ..asked };
    assert!(matches!(gate(&asked, &plan, &guards), Err(Refusal::Unrecorded { .. })));
    assert_eq!(gate(&Evidence { accepted: true, ..asked }, &plan, &guards), Ok(()));
}

#[test]
fn a_copy_that_shrank_closes_it() {
    let series = series();
    let guards = Guards { max_shrink_percent: 50, ..Guards::default() };
    let allowed = |files: Option<u64>, size: Option<u64>, guards: &Guards| {
        let copy = Copy { files, size, ..good("2026-02-01T11:00") };
        gate(&evidence(&series, &copy), &Plan::default(), guards).is_ok()
    };
    assert!(allowed(Some(50), Some(500), &guards), "half is not more than half");
    assert!(!allowed(Some(49), Some(1_000), &guards));
    assert!(!allowed(Some(100), Some(499), &guards));
    assert!(!allowed(Some(0), Some(0), &guards));
    assert!(allowed(Some(1_000), Some(u64::MAX), &guards), "growth is welcome");
    assert!(allowed(None, None, &guards), "what is not known is not compared");
    assert!(!allowed(None, Some(1), &guards));
    let off = Guards { max_shrink_percent: 100, ..guards };
    assert!(allowed(Some(0), Some(0), &off));
    let strict = Guards { max_shrink_percent: 0, ..guards };
    assert!(allowed(Some(100), Some(1_000), &strict));
    assert!(!allowed(Some(99), Some(1_000), &strict));

    let empty = Copy { files: Some(0), ..good("2026-02-01T11:00") };
    let refusal = gate(&evidence(&series, &empty), &Plan::default(), &guards).unwrap_err();
    insta::assert_snapshot!(refusal, @"nothing of etc@web1 is deleted, because its newest copy 2026-02-01T11:00 has 0 files where the last good one had 100");
    // The first copy of all has nothing to be compared with.
    let first = Evidence { last_good: None, ..evidence(&series, &empty) };
    assert_eq!(gate(&first, &Plan::default(), &guards), Ok(()));
}

#[test]
fn a_clock_that_went_back_closes_it() {
    let series = series();
    let copy = good("2026-02-01T11:00");
    let with = |ahead: TimeDelta, accepted: bool| {
        let last_run = Some(now() + ahead);
        let asked = Evidence { last_run, accepted, ..evidence(&series, &copy) };
        gate(&asked, &Plan::default(), &Guards::default())
    };
    assert_eq!(with(TimeDelta::minutes(5), false), Ok(()));
    let refused = with(TimeDelta::seconds(301), false);
    assert!(matches!(refused, Err(Refusal::ClockWentBack { .. })), "{refused:?}");
    assert_eq!(with(TimeDelta::days(3_650), true), Ok(()));
}

#[test]
fn a_clock_that_leapt_closes_it_until_somebody_has_looked() {
    let series = series();
    let within = Duration::from_secs(30 * 86_400);
    let policy = KeepPolicy { within: Some(within), ..KeepPolicy::default() };
    let later = |days: i64| now() + TimeDelta::days(days);
    let asked = |new: &[Copy], policy: &KeepPolicy, accepted_before: Option<DateTime<Utc>>| {
        let copies: Vec<Copy> = four_days().into_iter().chain(new.iter().cloned()).collect();
        let now = new.last().unwrap().time;
        let guards = Guards::default();
        let plan = plan(policy, &copies, now, &guards, &utc);
        let last_run = (new.len() > 1).then(|| new[0].time);
        let evidence = evidence(&series, new.last().unwrap());
        let evidence = Evidence {
            last_run,
            now,
            within: policy.within,
            accepted_before,
            last_good: None,
            ..evidence
        };
        gate(&evidence, &plan, &guards)
    };
    let on = |day: i64| Copy { id: format!("{day}"), time: later(day), ..good("2026-02-01T12:00") };
    // A machine that was off for two months, and one whose clock is ten years ahead.
    assert_eq!(asked(&[on(60)], &policy, None), Ok(()));
    let refusal = asked(&[on(3_650)], &policy, None).unwrap_err();
    insta::assert_snapshot!(refusal, @"nothing of etc@web1 is deleted, because 8 of its copies would go only by their age, and none was made between 2026-01-04 20:00:00 UTC and 2036-01-30 12:00:00 UTC: the clock may be wrong");
    // The second run under that clock, and one under a clock that has leapt again.
    for new in [[on(3_650), on(3_651)], [on(3_650), on(7_300)]] {
        let refused = asked(&new, &policy, None);
        assert!(matches!(refused, Err(Refusal::ClockLeapt { losing: 8, .. })), "{refused:?}");
    }
    // A person who looked before the leap has not seen it; one who looked after it has.
    let new = [on(3_650), on(3_651)];
    assert!(asked(&new, &policy, Some(now())).is_err());
    assert_eq!(asked(&new, &policy, Some(on(3_650).time)), Ok(()));
    // What counted rules keep is safe from the clock, and what they let go is no question of age.
    let kept = KeepPolicy { last: Some(20), ..policy.clone() };
    assert_eq!(asked(&[on(3_650)], &kept, None), Ok(()));
    assert_eq!(asked(&[on(3_650)], &KeepPolicy { within: None, ..daily(2) }, None), Ok(()));
    let some = KeepPolicy { last: Some(6), ..policy };
    let refused = asked(&[on(3_650)], &some, None);
    assert!(matches!(refused, Err(Refusal::ClockLeapt { losing: 3, .. })), "{refused:?}");
    // Who keeps for years may pause for one.
    let years = KeepPolicy { within: Some(within * 24), ..KeepPolicy::default() };
    assert_eq!(asked(&[on(400)], &years, None), Ok(()));
}

#[test]
fn a_new_copy_that_would_go_itself_closes_it() {
    // The clock was set back by less than the slack between two runs.
    let series = series();
    let (older, newer) = (good("2026-02-01T11:58"), good("2026-02-01T12:02"));
    let policy = KeepPolicy { last: Some(1), ..KeepPolicy::default() };
    let plan = plan(&policy, &[older.clone(), newer.clone()], now(), &Guards::default(), &utc);
    let judge = |made: &Copy| gate(&evidence(&series, made), &plan, &Guards::default());
    assert!(matches!(judge(&older), Err(Refusal::Backdated { .. })), "{:?}", judge(&older));
    assert_eq!(judge(&newer), Ok(()));
}

#[test]
fn copies_of_unknown_size_are_no_baseline_until_somebody_accepted_one() {
    let guards = Guards::default();
    let measured = |time: &str, files: Option<u64>| Copy { files, size: None, ..good(time) };
    let old = measured("2026-01-01T08:00", None);
    let empty = measured("2026-01-02T08:00", Some(1));
    let full = measured("2026-01-03T08:00", Some(100));
    let files = |copies: &[&Copy], accepted: Option<DateTime<Utc>>| {
        baseline(copies, accepted, &guards).map(|measure| measure.files)
    };
    assert_eq!(files(&[], None), None);
    assert_eq!(files(&[&old], None), Some(None));
    // The first night after the loss must not become the measure of the second.
    assert_eq!(files(&[&old, &empty], None), Some(None));
    assert_eq!(files(&[&old, &empty], Some(empty.time)), Some(Some(1)));
    assert_eq!(files(&[&old, &full], Some(old.time)), Some(Some(100)));
    assert_eq!(files(&[&old], Some(old.time)), None);
    // One gap in the record does not make the guard forget.
    let gap = measured("2026-01-04T08:00", None);
    assert_eq!(files(&[&full, &gap], None), Some(Some(100)));

    let series = series();
    let copy = good("2026-02-01T11:00");
    let unknown = Measure { files: None, size: None };
    let asked = Evidence { last_good: Some(unknown), ..evidence(&series, &copy) };
    let refusal = gate(&asked, &Plan::default(), &guards).unwrap_err();
    assert!(matches!(refusal, Refusal::Unmeasured { .. }), "{refusal}");
    assert_eq!(gate(&Evidence { accepted: true, ..asked }, &Plan::default(), &guards), Ok(()));
    let off = Guards { max_shrink_percent: 100, ..guards };
    assert_eq!(gate(&asked, &Plan::default(), &off), Ok(()));
}

/// What a policy keeps in a time zone, of good copies called after their UTC.
fn kept_in(
    zone: fn(DateTime<Utc>) -> FixedOffset,
    policy: &KeepPolicy,
    copies: &[Copy],
) -> Vec<String> {
    let decided = plan(policy, copies, now(), &Guards::default(), &zone).decisions;
    let kept = decided.into_iter().filter(|one| matches!(one.verdict, Verdict::Keep(_)));
    kept.map(|one| one.id).collect()
}

/// A good copy of every full hour from one moment to another.
fn hours(from: &str, to: &str) -> Vec<Copy> {
    let (mut hour, end) = (at(from), at(to));
    let mut copies = Vec::new();
    while hour < end {
        copies.push(good(&hour.format("%Y-%m-%dT%H:%M").to_string()));
        hour += TimeDelta::hours(1);
    }
    copies
}

#[test]
fn a_day_begins_at_the_local_midnight() {
    let copies = ["2026-01-10T22:30", "2026-01-10T23:30"].map(good);
    assert_eq!(kept_in(berlin, &daily(2), &copies).len(), 2);
    assert_eq!(kept_in(utc, &daily(2), &copies), ["2026-01-10T23:30"]);
    // In summer two hours before that of UTC.
    let copies = ["2025-07-10T21:30", "2025-07-10T22:30"].map(good);
    assert_eq!(kept_in(berlin, &daily(2), &copies).len(), 2);
    // A week, a month and a year as well.
    let copies = ["2025-11-30T22:30", "2025-11-30T23:30"].map(good);
    for policy in [
        KeepPolicy { weekly: Some(2), ..KeepPolicy::default() },
        KeepPolicy { monthly: Some(2), ..KeepPolicy::default() },
    ] {
        assert_eq!(kept_in(berlin, &policy, &copies).len(), 2, "{policy:?}");
        assert_eq!(kept_in(utc, &policy, &copies).len(), 1, "{policy:?}");
    }
    // The year of UTC ends an hour later.
    let copies = ["2025-12-31T22:30", "2025-12-31T23:30"].map(good);
    let yearly = KeepPolicy { yearly: Some(2), ..KeepPolicy::default() };
    assert_eq!(kept_in(berlin, &yearly, &copies).len(), 2);
}

#[test]
fn no_copy_is_lost_when_clocks_change() {
    // Three days around each change: one has 25 hours, the other one 23.
    for (from, to, days) in [
        (
            "2025-10-24T22:00:00Z",
            "2025-10-27T23:00:00Z",
            ["2025-10-27", "2025-10-26", "2025-10-25"],
        ),
        (
            "2025-03-28T23:00:00Z",
            "2025-03-31T22:00:00Z",
            ["2025-03-31", "2025-03-30", "2025-03-29"],
        ),
    ] {
        let copies = hours(from, to);
        let all = copies.len();
        let hourly = |count| KeepPolicy { hourly: Some(count), ..KeepPolicy::default() };
        let count = u32::try_from(all).unwrap();
        assert_eq!(kept_in(berlin, &hourly(count), &copies).len(), all, "{from}");
        assert_eq!(kept_in(berlin, &hourly(count - 1), &copies).len(), all - 1, "{from}");
        let kept = kept_in(berlin, &daily(10), &copies);
        let local = |id: &String| {
            let time = at(&format!("{id}:00Z"));
            time.with_timezone(&berlin(time)).format("%Y-%m-%d %H").to_string()
        };
        let kept: Vec<String> = kept.iter().map(local).collect();
        assert_eq!(kept, days.map(|day| format!("{day} 23")), "{from}");
    }
}

#[test]
fn clocks_that_are_put_back_over_midnight_use_no_slot_twice() {
    let mut copies: Vec<Copy> =
        ["2010-11-06T01:00", "2010-11-07T02:00", "2010-11-07T03:00", "2010-11-07T04:00"]
            .map(good)
            .into();
    // Half a minute past midnight, before midnight comes once more.
    copies.push(Copy { time: at("2010-11-07T02:30:30Z"), ..good("2010-11-07T02:30") });
    let kept = kept_in(newfoundland, &daily(3), &copies);
    // The 7th, the 6th, and the 5th.
    assert_eq!(kept, ["2010-11-07T04:00", "2010-11-07T03:00", "2010-11-06T01:00"]);
}
