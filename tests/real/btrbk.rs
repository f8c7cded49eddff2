//! btrbk's schedule as btrbk itself decides it: its own `sub schedule`, on random calendars, against ours.
//!
//! Compared is, for every copy, the reason that btrbk gave last: the rule and how many periods ago. What we keep beyond
//! that is the newest copy alone. How far local time is ahead at each moment comes from btrbk's side, so that it is the
//! schedule that is compared and not the zone's history.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, Utc};
use stillpoint::model::copy::{Copy, Series};
use stillpoint::model::keep::{ALL, BtrbkSchedule, KeepPolicy, Period, PreserveMin};
use stillpoint::model::names::{HostName, JobName};
use stillpoint::retention::{Guards, Preserved, Reason, Verdict, plan};

use crate::bench_machine::{answers, command};

const DAYS: [&str; 7] =
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const PERIODS: [(Period, char); 5] = [
    (Period::Hour, 'h'),
    (Period::Day, 'd'),
    (Period::Week, 'w'),
    (Period::Month, 'm'),
    (Period::Year, 'y'),
];

/// Numbers that are the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

struct Calendar {
    now: i64,
    times: Vec<i64>,
    policy: KeepPolicy,
}

/// Hours, days or weeks apart, with slips; around the days on which clocks are changed as often as anywhere.
fn calendar(dice: &mut Dice) -> Calendar {
    const HOUR: u64 = 3_600;
    let year = 1_546_300_800 + dice.roll(11) * 31_557_600;
    let season = [0, 66, 80, 85, 120, 297, 300, 304, 308, 364][dice.roll(10) as usize];
    let now = (year + season * 24 * HOUR + dice.roll(9 * 24 * HOUR)) as i64;
    let mut at = now - dice.roll(3 * HOUR) as i64;
    let mut times = vec![at];
    for _ in 0..dice.roll(70) {
        let step = [HOUR / 2, HOUR, 6 * HOUR, 24 * HOUR, 7 * 24 * HOUR, 40 * 24 * HOUR];
        let step = step[dice.roll(6) as usize];
        at -= (step - step / 3 + dice.roll(step)) as i64;
        times.push(at);
    }
    times.reverse();
    let mut count = || match dice.roll(6) {
        0 => None,
        1 => Some(0),
        2 => Some(ALL),
        _ => Some(dice.roll(12) as u32),
    };
    let [hourly, daily, weekly, monthly, yearly] = [(); 5].map(|()| count());
    let preserve_min = match dice.roll(6) {
        0 => PreserveMin::Latest,
        1 if dice.roll(8) == 0 => PreserveMin::All,
        1 | 2 => PreserveMin::No,
        _ => {
            let (period, _) = PERIODS[dice.roll(5) as usize];
            PreserveMin::Within(dice.roll(4) as u32, period)
        }
    };
    let hours = [0, 0, 5, 23, dice.roll(24)];
    let btrbk = BtrbkSchedule {
        preserve_min,
        day_of_week: dice.roll(7) as u8,
        hour_of_day: hours[dice.roll(5) as usize] as u8,
    };
    let mut policy = KeepPolicy {
        hourly,
        daily,
        weekly,
        monthly,
        yearly,
        btrbk: Some(btrbk),
        ..KeepPolicy::default()
    };
    // To keep nothing is refused in the configuration.
    if policy.is_empty() {
        policy.weekly = Some(1);
    }
    Calendar { now, times, policy }
}

impl Calendar {
    /// As the perl program beside this reads it.
    fn line(&self) -> String {
        let btrbk = self.policy.btrbk.unwrap();
        let minimum = match btrbk.preserve_min {
            PreserveMin::No => "no".to_owned(),
            PreserveMin::Latest => "latest".to_owned(),
            PreserveMin::All => "all".to_owned(),
            PreserveMin::Within(count, period) => {
                let (_, unit) = PERIODS.iter().find(|(known, _)| *known == period).unwrap();
                format!("{count}{unit}")
            }
        };
        let count = |count: Option<u32>| match count {
            None => "0".to_owned(),
            Some(ALL) => "all".to_owned(),
            Some(count) => count.to_string(),
        };
        let KeepPolicy { hourly, daily, weekly, monthly, yearly, .. } = self.policy;
        let counts = [hourly, daily, weekly, monthly, yearly].map(count).join(" ");
        let times: Vec<String> = self.times.iter().map(i64::to_string).collect();
        let day = DAYS[usize::from(btrbk.day_of_week)];
        let hour = btrbk.hour_of_day;
        format!("{} {minimum} {day} {hour} {counts} {}\n", self.now, times.join(" "))
    }

    /// Our reasons, and whether each copy stays, given how far local time is ahead at each moment.
    fn ours(&self, ahead: &BTreeMap<i64, i32>) -> Vec<(String, bool)> {
        let series = Series {
            host: HostName::new("web1").unwrap(),
            job: JobName::new("home").unwrap(),
            item: None,
        };
        let moment = |at: i64| DateTime::<Utc>::from_timestamp(at, 0).unwrap();
        let copy = |at: &i64| Copy {
            id: at.to_string(),
            series: Some(series.clone()),
            time: moment(*at),
            ours: true,
            ..Copy::default()
        };
        let copies: Vec<Copy> = self.times.iter().map(copy).collect();
        let local = |at: DateTime<Utc>| FixedOffset::east_opt(ahead[&at.timestamp()]).unwrap();
        let plan = plan(&self.policy, &copies, moment(self.now), &Guards::default(), &local);
        let said = |verdict: &Verdict| match verdict {
            Verdict::Keep(reasons) => {
                let preserved = reasons.iter().rev().find_map(|reason| match reason {
                    Reason::Btrbk(preserved) => Some(word(*preserved)),
                    _ => None,
                });
                (preserved.unwrap_or_default(), true)
            }
            Verdict::Delete(_) => (String::new(), false),
            Verdict::Foreign | Verdict::Future => panic!("{verdict:?}"),
        };
        plan.decisions.iter().rev().map(|decision| said(&decision.verdict)).collect()
    }
}

/// A reason of ours, shortened as [`shortened`] does it with one of btrbk's.
fn word(preserved: Preserved) -> String {
    let rule = |period| match period {
        Period::Hour => "hourly",
        Period::Day => "daily",
        Period::Week => "weekly",
        Period::Month => "monthly",
        Period::Year => "yearly",
    };
    match preserved {
        Preserved::All => "min all".into(),
        Preserved::Latest => "min latest".into(),
        Preserved::Minimum(_, ago) => format!("min {ago}"),
        Preserved::First(period, ago) => format!("{} {ago}", rule(period)),
    }
}

/// `preserve_daily:_first_of_day,_3_days_ago` → `daily 3`.
fn shortened(said: &str) -> String {
    let Some((rule, rest)) = said.strip_prefix("preserve_").and_then(|it| it.split_once(":_"))
    else {
        assert_eq!(said, "", "a reason that nobody thought of");
        return String::new();
    };
    if !rest.contains("s_ago") {
        return format!("{rule} {rest}");
    }
    let (before, _) = rest.split_once("s_ago").unwrap();
    let number = before.rsplit(['_', '(']).nth(1).unwrap();
    format!("{rule} {}", number.parse::<i64>().unwrap())
}

fn agree(zone: &str, seed: u64) {
    let mut dice = Dice(seed);
    let calendars: Vec<Calendar> = (0..400).map(|_| calendar(&mut dice)).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/btrbk_schedule.pl");
    let lines = calendars.iter().map(Calendar::line).collect();
    let answers = answers(command("perl").arg(script).env("TZ", zone), lines);
    let (mut offsets, mut rules) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
    for (calendar, answer) in calendars.iter().zip(&answers) {
        let mut words = answer.split(' ');
        let mut ahead: BTreeMap<i64, i32> = BTreeMap::new();
        ahead.insert(calendar.now, words.next().unwrap().parse().unwrap());
        let mut theirs = Vec::new();
        for (at, word) in calendar.times.iter().zip(words) {
            let (offset, said) = word.split_once('=').unwrap();
            ahead.insert(*at, offset.parse().unwrap());
            theirs.push(shortened(said));
        }
        let ours = calendar.ours(&ahead);
        let reasons: Vec<&str> = ours.iter().map(|(reason, _)| reason.as_str()).collect();
        assert_eq!(reasons, theirs, "{zone}: {}", calendar.line());
        // The newest copy stays whatever btrbk says, and nothing else.
        for (n, (reason, stays)) in ours.iter().enumerate() {
            let is_newest = n + 1 == ours.len();
            assert_eq!(*stays, is_newest || !reason.is_empty(), "{zone}: {}", calendar.line());
        }
        ahead.into_values().for_each(|offset| *offsets.entry(offset).or_insert(0) += 1);
        for reason in theirs {
            *rules.entry(reason.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
    }
    // The calendars are of both halves of the year, and every rule has had its turn.
    assert_eq!(offsets.len(), 2, "{zone}: {offsets:?}");
    for rule in ["", "min", "hourly", "daily", "weekly", "monthly", "yearly"] {
        assert!(rules.get(rule).is_some_and(|count| *count > 20), "{zone}: {rule:?} of {rules:?}");
    }
}

#[test]
fn the_schedule_is_that_of_btrbk_wherever_clocks_are_changed() {
    agree("Europe/Berlin", 0x1234_5678_9abc_def1);
    agree("America/St_Johns", 0x0fed_cba9_8765_4321);
    agree("Australia/Lord_Howe", 0x5555_aaaa_1234_9876);
}
