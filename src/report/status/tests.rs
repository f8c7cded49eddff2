//! Status under a clock that the test holds, from a history on a real file.

use chrono::TimeDelta;

use super::*;
use crate::config::testing;
use crate::history::{CopyRecord, History, Maintenance};
use crate::model::copy::Series;
use crate::model::job::Part;
use crate::model::names::{HostName, RunId};
use crate::model::report::{JobReport, RunReport, TargetReport};
use crate::model::target::{CheckPolicy, ReadData};
use crate::report::facts::Facts;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

fn now() -> DateTime<Utc> {
    "2026-02-01T12:00:00Z".parse().unwrap()
}

/// A files job to two targets and a job of two streams to one.
fn config() -> Config {
    testing::config(
        r#"
[settings]
max-age = "2d"
[targets.usb.borg]
repository = "/srv/usb"
encryption = "none"
[targets.nas.borg]
repository = "/srv/nas"
encryption = "none"
[jobs.host]
targets = ["usb", "nas"]
files.paths = ["/etc"]
[jobs.dumps]
targets = ["usb"]
commands.pg = { command = ["true"], file-name = "x" }
commands.my = { command = ["true"], file-name = "x" }
"#,
    )
}

fn copy(number: u8, job: &str, item: Option<&str>, time: DateTime<Utc>, size: u64) -> CopyRecord {
    CopyRecord {
        run: RunId::from_bytes([0, 0, 0, number]),
        target: TargetName::new("usb").unwrap(),
        id: format!("copy-{number}"),
        series: Series {
            host: HostName::new("web1").unwrap(),
            job: JobName::new(job).unwrap(),
            item: item.map(str::to_owned),
        },
        time,
        recorded: time,
        outcome: Outcome::Ok,
        size: Some(size),
        files: Some(10),
        bytes_new: Some(5),
        files_changed: 0,
        unreadable: 0,
    }
}

fn run(
    number: u8,
    time: DateTime<Utc>,
    job: &str,
    item: Option<&str>,
    outcome: Outcome,
) -> RunReport {
    RunReport {
        outcome: outcome.clone(),
        jobs: vec![JobReport {
            name: JobName::new(job).unwrap(),
            outcome: outcome.clone(),
            reason: None,
            part: Part::Whole,
            elapsed: HOUR,
            steps: Vec::new(),
            captures: Vec::new(),
            targets: vec![TargetReport::without_copy(
                TargetName::new("usb").unwrap(),
                item.map(str::to_owned),
                outcome,
            )],
        }],
        ..RunReport::begun(RunId::from_bytes([0, 0, 0, number]), time)
    }
}

/// `host` in `usb` is fresh, the stream `pg` is old and fails, everything else has never run.
fn history() -> (tempfile::TempDir, History) {
    let directory = tempfile::tempdir().unwrap();
    let history = History::open(&directory.path().join("h.sqlite")).unwrap();
    for (number, hours, size) in
        [(1, 75, 1_000_000), (2, 51, 1_100_000), (3, 27, 1_150_000), (4, 3, 1_400_000)]
    {
        let time = now() - TimeDelta::hours(hours);
        history.record_copy(&copy(number, "host", None, time, size)).unwrap();
        history.record_run(&run(number, time, "host", None, Outcome::Ok)).unwrap();
    }
    let old = now() - TimeDelta::days(9);
    history.record_copy(&copy(5, "dumps", Some("pg"), old, 700)).unwrap();
    let yesterday = now() - TimeDelta::days(1);
    history.record_run(&run(6, yesterday, "dumps", Some("pg"), Outcome::Failed)).unwrap();
    (directory, history)
}

/// What the jobs of [`config`] fill.
fn series() -> Vec<Series> {
    [("host", None), ("dumps", Some("pg")), ("dumps", Some("my"))]
        .map(|(job, item)| copy(0, job, item, now(), 0).series)
        .into()
}

fn report(config: &Config, history: Option<&History>) -> StatusReport {
    status(config, &Facts::gather(history, config, &series(), now()).unwrap(), now(), None)
}

#[test]
fn the_contract_of_the_document() {
    let (_directory, history) = history();
    let report = report(&config(), Some(&history));
    let mut value = serde_json::to_value(&report).unwrap();
    value["entries"].as_array_mut().unwrap().truncate(2);
    value["entries"][0]["trend"].as_array_mut().unwrap().truncate(1);
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap(), @r#"
    {
      "entries": [
        {
          "age_seconds": 10800,
          "bytes_new": 5,
          "closed": null,
          "copy": "copy-4",
          "due": [],
          "files": 10,
          "in_the_future": 0,
          "item": null,
          "job": "host",
          "last_good": "2026-02-01T09:00:00Z",
          "last_run": "2026-02-01T09:00:00Z",
          "listed": null,
          "max_age_seconds": 172800,
          "outcome": "ok",
          "size": 1400000,
          "stale": false,
          "target": "usb",
          "trend": [
            {
              "bytes_new": 5,
              "files": 10,
              "size": 1000000,
              "time": "2026-01-29T09:00:00Z"
            }
          ]
        },
        {
          "age_seconds": null,
          "bytes_new": null,
          "closed": null,
          "copy": null,
          "due": [],
          "files": null,
          "in_the_future": 0,
          "item": null,
          "job": "host",
          "last_good": null,
          "last_run": null,
          "listed": null,
          "max_age_seconds": 172800,
          "outcome": null,
          "size": null,
          "stale": true,
          "target": "nas",
          "trend": []
        }
      ],
      "schema": 1
    }
    "#);
}

#[test]
fn what_a_target_lists_is_told_where_nothing_is_recorded() {
    let listed = |copies, newest: Option<&str>, error: Option<&str>| {
        let mut report = report(&config(), None);
        report.entries.truncate(1);
        report.entries[0].listed = Some(Listed {
            copies,
            newest: newest.map(|time| time.parse().unwrap()),
            error: error.map(str::to_owned),
        });
        text(&report, true)
    };
    insta::assert_snapshot!(listed(Some(3), Some("2026-01-31T12:00:00Z"), None), @"host → usb  STALE  no good copy  no record  the target lists 3 copies, the newest of 2026-01-31 12:00:00Z; nothing is recorded here of how they were made");
    insta::assert_snapshot!(listed(Some(0), None, None), @"host → usb  STALE  no good copy  never run  the target lists none");
    insta::assert_snapshot!(listed(Some(1), None, None), @"host → usb  STALE  no good copy  no record  the target lists 1 copy, dated in the future");
    insta::assert_snapshot!(listed(None, None, Some("it is not there")), @"host → usb  STALE  no good copy  no record  the target could not be listed: it is not there");
}

#[test]
fn a_calm_line_for_each() {
    let (_directory, history) = history();
    let mut config = config();
    config.targets[0].check = Some(CheckPolicy { every: 30 * DAY, read_data: ReadData::None });
    let report = report(&config, Some(&history));
    insta::assert_snapshot!(text(&report, true), @"
    host → usb       ok     3h ago        1.3 MiB  ▁▃▄█  check due
    host → nas       STALE  no good copy  never run
    dumps[pg] → usb  STALE  9d ago        700 B  last run failed  check due
    dumps[my] → usb  STALE  no good copy  never run  check due
    ");
    insta::assert_snapshot!(text(&report, false), @"
    host -> usb       ok     3h ago        1.3 MiB  +40 % over 4 copies  check due
    host -> nas       STALE  no good copy  never run
    dumps[pg] -> usb  STALE  9d ago        700 B  last run failed  check due
    dumps[my] -> usb  STALE  no good copy  never run  check due
    ");
}

#[test]
fn without_a_history_everything_is_stale() {
    let report = report(&config(), None);
    assert_eq!(report.entries.len(), 4);
    assert!(report.is_stale());
    for entry in &report.entries {
        assert!(entry.stale);
        assert_eq!((entry.last_good, entry.age_seconds), (None, None));
        assert_eq!((&entry.outcome, entry.size), (&None, None));
    }
}

#[test]
fn age_is_measured_to_the_second_and_the_nearest_setting_wins() {
    let (_directory, history) = history();
    let mut config = config();
    config.jobs.truncate(1);
    config.jobs[0].targets.truncate(1);
    let facts = Facts::gather(Some(&history), &config, &series(), now()).unwrap();
    let stale = |config: &Config, now: DateTime<Utc>, max_age| {
        status(config, &facts, now, max_age).is_stale()
    };
    // The last copy is three hours old and may get two days old.
    let edge = now() + TimeDelta::hours(45);
    assert!(!stale(&config, edge, None));
    assert!(stale(&config, edge + TimeDelta::seconds(1), None));
    config.jobs[0].max_age = Some(2 * HOUR);
    assert!(stale(&config, now(), None));
    assert!(!stale(&config, now(), Some(4 * HOUR)));
}

#[test]
fn a_failed_run_does_not_touch_the_last_good_copy() {
    let (_directory, history) = history();
    let before = report(&config(), Some(&history));
    history.record_run(&run(9, now(), "host", None, Outcome::Failed)).unwrap();
    let mut cut = copy(9, "host", None, now(), 1);
    cut.outcome = Outcome::Incomplete;
    history.record_copy(&cut).unwrap();
    let after = report(&config(), Some(&history));
    assert_eq!(after.entries[0].last_good, before.entries[0].last_good);
    assert_eq!(after.entries[0].outcome, Some(Outcome::Failed));
}

#[test]
fn a_copy_from_the_future_is_not_fresh() {
    let (_directory, history) = history();
    history.record_copy(&copy(9, "host", None, now() + TimeDelta::days(3_650), 1)).unwrap();
    let entry = &report(&config(), Some(&history)).entries[0];
    assert_eq!(entry.copy.as_deref(), Some("copy-4"));
    // A clock that is a minute ahead is none.
    history.record_copy(&copy(8, "host", None, now() + TimeDelta::minutes(1), 1)).unwrap();
    let entry = &report(&config(), Some(&history)).entries[0];
    assert_eq!((entry.copy.as_deref(), entry.age_seconds), (Some("copy-8"), Some(0)));
}

#[test]
fn checks_and_compaction_fall_due() {
    let directory = tempfile::tempdir().unwrap();
    let history = History::open(&directory.path().join("h.sqlite")).unwrap();
    let mut config = config();
    let due = |config: &Config| -> Vec<&'static str> {
        let entry = &report(config, Some(&history)).entries[0];
        entry.due.iter().map(|due| due.word()).collect()
    };
    let record = |kind, outcome, ago: TimeDelta| {
        let done = Maintenance {
            target: TargetName::new("usb").unwrap(),
            kind,
            outcome,
            detail: String::new(),
            time: now() - ago,
        };
        history.record_maintenance(&done).unwrap();
    };
    let none: [&str; 0] = [];
    assert_eq!(due(&config), none);
    config.targets[0].check = Some(CheckPolicy { every: 30 * DAY, read_data: ReadData::None });
    assert_eq!(due(&config), ["check"], "never checked");
    record(MaintenanceKind::Check, Outcome::Failed, TimeDelta::days(1));
    assert_eq!(due(&config), ["check"], "a check that found damage is none");
    record(MaintenanceKind::Check, Outcome::Ok, TimeDelta::days(30));
    assert_eq!(due(&config), ["check"]);
    record(MaintenanceKind::Check, Outcome::Ok, TimeDelta::days(-400));
    assert_eq!(due(&config), ["check"], "a check in the future is none");
    record(MaintenanceKind::Check, Outcome::Ok, TimeDelta::days(29));
    assert_eq!(due(&config), none);

    record(MaintenanceKind::Prune, Outcome::Ok, TimeDelta::days(2));
    assert_eq!(due(&config), ["compact"]);
    config.targets[0].compact_every = Some(7 * DAY);
    assert_eq!(due(&config), ["compact"], "never compacted");
    record(MaintenanceKind::Compact, Outcome::Ok, TimeDelta::days(2));
    assert_eq!(due(&config), none);
    record(MaintenanceKind::Prune, Outcome::Ok, TimeDelta::days(1));
    assert_eq!(due(&config), none, "not yet a week");
    config.targets[0].compact_every = Some(DAY);
    assert_eq!(due(&config), ["compact"]);
    config.targets[0].append_only = true;
    assert_eq!(due(&config), none);
}

#[test]
fn a_trend_needs_two_sizes() {
    let points = |sizes: &[Option<u64>]| -> Vec<TrendPoint> {
        let point = |size| TrendPoint { time: now(), size, files: None, bytes_new: None };
        sizes.iter().copied().map(point).collect()
    };
    assert_eq!(trend(&points(&[]), true), None);
    assert_eq!(trend(&points(&[None, Some(5)]), true), None);
    assert_eq!(trend(&points(&[Some(0), Some(0)]), true).as_deref(), Some("▁▁"));
    assert_eq!(trend(&points(&[Some(0), Some(5)]), false), None);
    assert_eq!(trend(&points(&[Some(0), None, Some(u64::MAX)]), true).as_deref(), Some("▁█"));
    assert_eq!(trend(&points(&[Some(100), Some(101)]), true).as_deref(), Some("██"));
    assert_eq!(
        trend(&points(&[Some(200), Some(150)]), false).as_deref(),
        Some("-25 % over 2 copies")
    );
}
