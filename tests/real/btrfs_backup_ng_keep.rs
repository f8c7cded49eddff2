//! What btrfs-backup-ng keeps, as it decides it itself, on random policies and calendars: what an imported policy keeps is
//! no less. Of each hour, day, week, month and year that it keeps one of, ours has one as well.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, FixedOffset, Timelike, Utc};
use stillpoint::import::{Program, import};
use stillpoint::model::copy::{Copy, Series};
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::names::{HostName, JobName};
use stillpoint::retention::{Guards, Verdict, plan};

use crate::bench_machine::{Machine, answers, command};
use crate::btrbk::Dice;
use crate::btrfs_backup_ng::program;
use crate::configured::configured;

const HOUR: u64 = 3_600;

/// A table of a configuration, with some of its keys.
fn table(dice: &mut Dice, name: &str) -> String {
    let mut keys = Vec::new();
    if dice.roll(3) == 0 {
        let ages = ["0s", "30m", "6h", "1d", "1d", "3d", "2w", "1M", "1y", "all"];
        keys.push(format!("min = \"{}\"", ages[dice.roll(10) as usize]));
    }
    if dice.roll(6) == 0 {
        keys.push(format!("keep = {}", [0, 1, 2, 5, 9][dice.roll(5) as usize]));
    }
    for key in ["hourly", "daily", "weekly", "monthly", "yearly"] {
        if dice.roll(3) == 0 {
            keys.push(format!("{key} = {}", dice.roll(10).saturating_sub(2)));
        }
    }
    format!("{name} = {{{}}}\n", keys.join(", "))
}

/// A configuration whose volume and target have policies of their own.
fn configuration(dice: &mut Dice) -> String {
    let global = table(dice, "retention");
    let mut volume = table(dice, "retention");
    volume.push_str(&table(dice, "source_retention"));
    let target = table(dice, "retention");
    format!(
        "[global]\n{global}[[volumes]]\npath = \"/home\"\n{volume}[[volumes.targets]]\npath = \"/mnt/b\"\n{target}"
    )
}

/// Copies minutes, hours, days, weeks or months apart, oldest first, and the moment at which they are looked at.
fn calendar(dice: &mut Dice) -> (i64, Vec<i64>) {
    let now = (1_700_000_000 + dice.roll(3 * 366 * 24 * HOUR)) as i64;
    let mut at = now - dice.roll(30 * HOUR) as i64;
    let mut times = vec![at];
    let steps =
        [HOUR / 4, HOUR, HOUR, 6 * HOUR, 24 * HOUR, 24 * HOUR, 7 * 24 * HOUR, 40 * 24 * HOUR];
    let usual = steps[dice.roll(8) as usize];
    for _ in 0..dice.roll(90) {
        let step = if dice.roll(4) == 0 { steps[dice.roll(8) as usize] } else { usual };
        at -= (step - step / 3 + dice.roll(step)) as i64;
        times.push(at);
    }
    times.reverse();
    (now, times)
}

/// Which of these stay by a policy of ours; all of them where there is none.
fn ours(policy: Option<&KeepPolicy>, now: i64, times: &[i64]) -> BTreeMap<i64, bool> {
    let moment = |at: i64| DateTime::<Utc>::from_timestamp(at, 0).unwrap();
    let series = Series {
        host: HostName::new("web1").unwrap(),
        job: JobName::new("home").unwrap(),
        item: None,
    };
    let copy = |at: &i64| Copy {
        id: at.to_string(),
        series: Some(series.clone()),
        time: moment(*at),
        ours: true,
        ..Copy::default()
    };
    let Some(policy) = policy else { return times.iter().map(|at| (*at, true)).collect() };
    let copies: Vec<Copy> = times.iter().map(copy).collect();
    let utc = |_| FixedOffset::east_opt(0).unwrap();
    let plan = plan(policy, &copies, moment(now), &Guards::default(), &utc);
    let decided = plan.decisions.iter().map(|decision| {
        let stays = match decision.verdict {
            Verdict::Keep(_) => true,
            Verdict::Delete(_) => false,
            Verdict::Foreign | Verdict::Future => panic!("{:?}", decision.verdict),
        };
        (decision.id.parse().unwrap(), stays)
    });
    decided.collect()
}

/// The period in which a moment is that a reason of theirs names; `None` where it is the copy alone that is meant.
fn period(reason: &str, at: i64) -> Option<(i32, u32)> {
    let at = DateTime::<Utc>::from_timestamp(at, 0).unwrap();
    match reason.split(' ').next().unwrap() {
        "hourly" => Some((at.num_days_from_ce(), at.hour())),
        "daily" => Some((at.num_days_from_ce(), 0)),
        "weekly" => Some((at.iso_week().year(), at.iso_week().week())),
        "monthly" => Some((at.year(), at.month())),
        "yearly" => Some((at.year(), 0)),
        _ => None,
    }
}

#[test]
fn what_an_imported_policy_keeps_is_no_less_than_what_it_keeps_itself() {
    let Some(program) = program() else { return };
    let machine = Machine::bare("[jobs]\n");
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/btrfs_backup_ng_keep.py");
    let cases: Vec<(String, i64, Vec<i64>)> = (0..400)
        .map(|_| {
            let (now, times) = calendar(&mut dice);
            (configuration(&mut dice), now, times)
        })
        .collect();
    let mut lines = Vec::new();
    for (n, (text, now, times)) in cases.iter().enumerate() {
        let name = format!("ng-{n}.toml");
        machine.write(&name, text, 0o600);
        let asked = serde_json::json!({"config": machine.path(&name), "now": now, "times": times});
        lines.push(format!("{asked}\n"));
    }
    let mut python = command(program.with_file_name("python"));
    let answers = answers(python.arg(script).env("TZ", "UTC"), lines);
    let (mut reasons, mut deleted) = (BTreeMap::<String, usize>::new(), [0, 0]);
    for ((text, now, times), answer) in cases.iter().zip(&answers) {
        let theirs: [BTreeMap<i64, String>; 2] = serde_json::from_str(answer).unwrap();
        let imported = import(Program::BtrfsBackupNg, text, &|_| None).unwrap();
        let config = configured(&imported);
        let [job] = &config.jobs[..] else { panic!("{imported}") };
        let policies = [job.keep.values().next(), job.keep_snapshots.as_ref()];
        for (policy, theirs) in policies.into_iter().zip(theirs) {
            let ours = ours(policy, *now, times);
            let stays: Vec<i64> = ours.iter().filter(|(_, it)| **it).map(|(at, _)| *at).collect();
            for (at, reason) in &theirs {
                let is_like = |other: &i64| match period(reason, *at) {
                    Some(its) => period(reason, *other) == Some(its),
                    None => other == at,
                };
                assert!(
                    stays.iter().any(is_like),
                    "{at} {reason:?} of {now}\n{text}\n{policy:?}\n{theirs:?}\n{ours:?}"
                );
                *reasons.entry(reason.split(' ').next().unwrap().to_owned()).or_default() += 1;
            }
            deleted[0] += times.len() - theirs.len();
            deleted[1] += times.len() - stays.len();
        }
    }
    // Every rule has had its turn, and it is not that ours keeps everything.
    for rule in ["hourly", "daily", "weekly", "monthly", "yearly", "latest", "within", ""] {
        assert!(reasons.get(rule).is_some_and(|count| *count > 20), "{rule:?} of {reasons:?}");
    }
    assert!(deleted[1] * 3 > deleted[0] * 2, "{deleted:?} of theirs and ours");
}
