//! What must hold for every history and every policy.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::tests::berlin;
use super::*;
use crate::model::copy::{Copy, Recorded, Series};
use crate::model::keep::{BtrbkSchedule, KeepPolicy, Period, PreserveMin};
use crate::model::names::{HostName, JobName};
use crate::model::natural::Natural;

fn now() -> DateTime<Utc> {
    "2026-02-01T12:00:00Z".parse().unwrap()
}

fn series(item: u8) -> Series {
    Series {
        host: HostName::new("web1").unwrap(),
        job: JobName::new("dumps").unwrap(),
        item: Some(item.to_string()),
    }
}

prop_compose! {
    /// Minutes and half hours, so that copies meet in one period and in one moment; some in the future.
    fn a_copy()(
        half_hours in -40_000_i64..40,
        minutes in 0_i64..3,
        item in prop_oneof![6 => Just(Some(0_u8)), 2 => Just(Some(1)), 1 => Just(None)],
        healthy in prop_oneof![6 => Just(Some(true)), 2 => Just(Some(false)), 1 => Just(None)],
        pinned in prop::bool::weighted(0.05),
        ours in prop::bool::weighted(0.85),
        recorded_at in prop::option::weighted(0.7, (0_i64..1_000, -20_i64..200)),
        tag in prop_oneof![12 => Just(None), 1 => Just(Some("protected")), 1 => Just(Some("release"))],
    ) -> Copy {
        let time = now() + TimeDelta::minutes(half_hours * 30 + minutes);
        let recorded = |(order, later)| Recorded { order, at: time + TimeDelta::minutes(later) };
        Copy {
            id: String::new(),
            series: item.map(series),
            run: None,
            time,
            ours,
            recorded: recorded_at.map(recorded),
            size: None,
            files: None,
            tags: tag.into_iter().map(str::to_owned).collect(),
            pinned,
            healthy,
            ..Copy::default()
        }
    }
}

fn copies() -> impl Strategy<Value = Vec<Copy>> {
    prop::collection::vec(a_copy(), 0..60).prop_map(|mut copies| {
        for (number, copy) in copies.iter_mut().enumerate() {
            copy.id = format!("{number:02}");
        }
        copies
    })
}

/// Copies of which many are differences to another one.
fn chained() -> impl Strategy<Value = Vec<Copy>> {
    let bases = prop::collection::vec(prop::option::weighted(0.7, 0_usize..60), 60);
    (copies(), bases).prop_map(|(mut copies, bases)| {
        for (number, copy) in copies.iter_mut().enumerate() {
            // Every one of them leads to one that is none in the end.
            copy.based_on = bases[number].filter(|base| *base < number).map(|n| format!("{n:02}"));
        }
        copies
    })
}

fn count() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(0)), 4 => (1_u32..8).prop_map(Some)]
}

prop_compose! {
    fn a_policy()(
        counts in prop::array::uniform6(count()),
        hours in prop::option::weighted(0.3, 0_u64..2_000),
        release in prop::bool::weighted(0.3),
        btrbk in prop::option::weighted(0.3, (0_u8..7, 0_u8..24, 0_u32..4)),
    ) -> KeepPolicy {
        let [last, hourly, daily, weekly, monthly, yearly] = counts;
        let within = hours.map(|hours| Duration::from_secs(hours * 3_600));
        let tags = if release { vec!["release".to_owned()] } else { Vec::new() };
        let btrbk = btrbk.map(|(day_of_week, hour_of_day, days)| BtrbkSchedule {
            preserve_min: PreserveMin::Within(days, Period::Day),
            day_of_week,
            hour_of_day,
        });
        KeepPolicy { last, hourly, daily, weekly, monthly, yearly, within, tags, btrbk, min_free: None }
    }
}

/// A good copy of now.
fn new_copy() -> Copy {
    Copy {
        id: String::new(),
        series: Some(series(0)),
        run: None,
        time: now(),
        size: None,
        files: None,
        tags: Vec::new(),
        pinned: false,
        healthy: Some(true),
        ours: true,
        ..Copy::default()
    }
}

fn is_future(copy: &Copy) -> bool {
    let made = copy.recorded.map_or(now(), |recorded| recorded.at.min(now()));
    copy.time > made + TimeDelta::minutes(5)
}

fn newest_good(copies: &[Copy], item: u8) -> Option<&Copy> {
    copies
        .iter()
        .filter(|copy| copy.ours && copy.series == Some(series(item)) && !is_future(copy))
        .filter(|copy| copy.healthy != Some(false))
        .max_by_key(|copy| (copy.time, copy.id.clone()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_is_ours_and_not_needed(copies in copies(), policy in a_policy()) {
        let plan = plan(&policy, &copies, now(), &Guards::default(), &berlin);
        let all: BTreeSet<&str> = copies.iter().map(|copy| copy.id.as_str()).collect();
        let decided: Vec<&str> = plan.decisions.iter().map(|d| d.id.as_str()).collect();
        prop_assert_eq!(decided.len(), copies.len());
        prop_assert_eq!(decided.into_iter().collect::<BTreeSet<_>>(), all);

        let gone: BTreeSet<String> = plan.deletions().into_iter().collect();
        for decision in &plan.decisions {
            prop_assert_eq!(gone.contains(&decision.id), matches!(decision.verdict, Verdict::Delete(_)));
            if let Verdict::Keep(reasons) = &decision.verdict {
                prop_assert!(!reasons.is_empty());
            }
        }
        for copy in &copies {
            let untouchable = copy.series.is_none()
                || !copy.ours
                || is_future(copy)
                || copy.pinned
                || copy.tags.iter().any(|tag| tag == "protected" || policy.tags.contains(tag));
            prop_assert!(!(untouchable && gone.contains(&copy.id)), "{:?}", copy);
        }
        for item in 0..2 {
            if let Some(newest) = newest_good(&copies, item) {
                prop_assert!(!gone.contains(&newest.id));
            }
        }
        let by_moment =
            plan.decisions.is_sorted_by_key(|it| Reverse((it.time, Natural(&it.id))));
        prop_assert!(by_moment);
    }

    #[test]
    fn a_lack_of_space_takes_nothing_that_more_than_a_rule_keeps(
        copies in copies(),
        policy in a_policy(),
        needed in prop::collection::btree_set(0_usize..60, 0..10),
    ) {
        let plan = plan(&policy, &copies, now(), &Guards::default(), &berlin);
        let needed: BTreeSet<String> = needed.into_iter().map(|n| format!("{n:02}")).collect();
        let may_go = expendable(&plan, &needed);
        prop_assert!(may_go.is_sorted());
        let gone = plan.deletions();
        for Expendable { id, .. } in &may_go {
            let copy = copies.iter().find(|copy| copy.id == *id).unwrap();
            prop_assert!(copy.ours && copy.series.is_some() && !copy.pinned && !is_future(copy));
            prop_assert!(!copy.tags.iter().any(|tag| tag == "protected" || policy.tags.contains(tag)));
            prop_assert!(!needed.contains(id) && !gone.contains(id));
        }
        for item in 0..2 {
            if let Some(newest) = newest_good(&copies, item) {
                prop_assert!(may_go.iter().all(|it| it.id != newest.id));
            }
        }
    }

    #[test]
    fn a_lack_of_space_never_takes_what_a_copy_that_is_there_is_a_difference_to(
        copies in chained(),
        policy in a_policy(),
        needed in prop::collection::btree_set(0_usize..60, 0..3),
    ) {
        let plan = plan(&policy, &copies, now(), &Guards::default(), &berlin);
        let needed: BTreeSet<String> = needed.into_iter().map(|n| format!("{n:02}")).collect();
        let may_go = expendable(&plan, &needed);
        let mut there: BTreeSet<&str> = copies.iter().map(|copy| copy.id.as_str()).collect();
        let gone = plan.deletions();
        there.retain(|id| gone.iter().all(|gone| gone != id));
        for Expendable { id, .. } in &may_go {
            prop_assert!(there.remove(id.as_str()));
            let lacks = |copy: &&Copy| copy.based_on.as_ref().is_some_and(|base| base == id);
            let dependent = copies.iter().filter(lacks).find(|copy| there.contains(copy.id.as_str()));
            prop_assert!(dependent.is_none(), "{} goes before {:?}", id, dependent);
        }
    }

    #[test]
    fn a_second_plan_deletes_nothing(copies in copies(), policy in a_policy()) {
        let gone = plan(&policy, &copies, now(), &Guards::default(), &berlin).deletions();
        let survivors: Vec<Copy> =
            copies.into_iter().filter(|copy| !gone.contains(&copy.id)).collect();
        let again = plan(&policy, &survivors, now(), &Guards::default(), &berlin).deletions();
        prop_assert_eq!(again, Vec::<String>::new());
    }

    #[test]
    fn the_order_of_the_listing_does_not_matter(
        (listed, shuffled) in copies().prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
        policy in a_policy(),
    ) {
        let guards = Guards::default();
        prop_assert_eq!(
            plan(&policy, &listed, now(), &guards, &berlin),
            plan(&policy, &shuffled, now(), &guards, &berlin)
        );
    }

    #[test]
    fn a_counted_rule_keeps_as_many_good_copies_as_it_says(copies in copies(), n in 1_u32..8) {
        let policy = KeepPolicy { last: Some(n), ..KeepPolicy::default() };
        let gone = plan(&policy, &copies, now(), &Guards::default(), &berlin).deletions();
        for item in 0..2 {
            let good = |copy: &&Copy| {
                copy.ours
                    && copy.series == Some(series(item))
                    && !is_future(copy)
                    && copy.healthy != Some(false)
            };
            let before = copies.iter().filter(good).count();
            let after = copies.iter().filter(good).filter(|c| !gone.contains(&c.id)).count();
            prop_assert!(after >= before.min(n as usize));
        }
    }

    #[test]
    fn a_bad_or_foreign_or_future_copy_changes_nothing_for_the_good_ones(
        copies in copies(),
        policy in a_policy(),
    ) {
        // `within` counts from the newest copy, bad or not, so it is left out here.
        let policy = KeepPolicy { within: None, ..policy };
        let is_good = |copy: &Copy| {
            copy.ours && copy.series.is_some() && !is_future(copy) && copy.healthy != Some(false)
        };
        let good: Vec<Copy> = copies.iter().filter(|copy| is_good(copy)).cloned().collect();
        let alone = plan(&policy, &good, now(), &Guards::default(), &berlin).deletions();
        let among: Vec<String> = plan(&policy, &copies, now(), &Guards::default(), &berlin)
            .deletions()
            .into_iter()
            .filter(|id| good.iter().any(|copy| copy.id == *id))
            .collect();
        prop_assert_eq!(alone, among);
    }

    #[test]
    fn nobody_elses_copies_and_none_of_the_future_decide_about_ours(
        copies in copies(),
        others in copies(),
        ahead in 6_i64..100_000_000,
        policy in a_policy(),
    ) {
        let guards = Guards::default();
        let ours: Vec<Copy> =
            copies.into_iter().filter(|copy| copy.ours && copy.series.is_some()).collect();
        let theirs = others.into_iter().enumerate().map(|(number, copy)| {
            let id = format!("other {number}");
            // Half of them are forged under our names and dates, half are ours and of a clock that was ahead.
            match number % 2 {
                0 => Copy { id, ours: false, ..copy },
                _ => Copy { id, time: now() + TimeDelta::minutes(ahead), ours: true, ..copy },
            }
        });
        let all: Vec<Copy> = ours.iter().cloned().chain(theirs).collect();
        let (alone, among) =
            (plan(&policy, &ours, now(), &guards, &berlin), plan(&policy, &all, now(), &guards, &berlin));
        prop_assert_eq!(alone.deletions(), among.deletions());
        let newest = newest_good(&ours, 0);
        let asked = Evidence {
            series: &series(0),
            copy: newest,
            last_good: None,
            last_run: None,
            now: now(),
            within: policy.within,
            accepted_before: None,
            accepted: false,
            closed: None,
        };
        prop_assert_eq!(gate(&asked, &alone, &guards), gate(&asked, &among, &guards));
    }

    #[test]
    fn the_good_copy_that_was_made_last_stays_whatever_it_is_dated(
        copies in copies(),
        policy in a_policy(),
    ) {
        let gone = plan(&policy, &copies, now(), &Guards::default(), &berlin).deletions();
        let last = copies
            .iter()
            .filter(|copy| copy.ours && copy.series == Some(series(0)) && !is_future(copy))
            .filter(|copy| copy.healthy != Some(false) && copy.recorded.is_some())
            .max_by_key(|copy| copy.recorded.map(|recorded| recorded.order));
        let is_alone = |last: &Copy| {
            copies.iter().all(|copy| {
                copy.id == last.id
                    || copy.recorded.is_some_and(|one| Some(one.order) != last.recorded.map(|r| r.order))
            })
        };
        if let Some(last) = last.filter(|last| is_alone(last)) {
            prop_assert!(!gone.contains(&last.id));
        }
    }

    #[test]
    fn a_leap_of_the_clock_costs_nothing_that_within_kept(
        copies in copies(),
        policy in a_policy(),
        days in 100_i64..5_000,
        runs in 1_i64..4,
    ) {
        let guards = Guards::default();
        let old: Vec<Copy> = copies
            .into_iter()
            .filter(|copy| copy.series == Some(series(0)) && !is_future(copy))
            .collect();
        let kept: BTreeSet<String> = plan(&policy, &old, now(), &guards, &berlin)
            .decisions
            .into_iter()
            .filter(|decision| match &decision.verdict {
                Verdict::Keep(why) => why.iter().any(|why| matches!(why, Reason::Within(_))),
                _ => false,
            })
            .map(|decision| decision.id)
            .collect();
        let mut all = old;
        for run in 0..runs {
            let time = now() + TimeDelta::days(days + run);
            all.push(Copy { id: format!("new {run}"), time, ..new_copy() });
        }
        let newest = all[all.len() - 1].clone();
        let plan = plan(&policy, &all, newest.time, &guards, &berlin);
        let costs = plan.deletions().iter().any(|id| kept.contains(id));
        let asked = Evidence {
            series: &series(0),
            copy: Some(&newest),
            last_good: None,
            last_run: None,
            now: newest.time,
            within: policy.within,
            accepted_before: None,
            closed: None,
            accepted: false,
        };
        prop_assert!(!costs || gate(&asked, &plan, &guards).is_err());
        let accepted_before = Some(newest.time);
        prop_assert_eq!(gate(&Evidence { accepted_before, ..asked }, &plan, &guards), Ok(()));
    }
}
