//! Round trips on a real file, and what the file must not do.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use tempfile::TempDir;

use super::*;
use crate::model::copy::{Copy, Series};
use crate::model::job::Part;
use crate::model::names::{HostName, JobName, MachineId, RunId, TargetName};
use crate::model::outcome::Outcome;
use crate::model::report::{JobReport, RunReport, StepReport, TargetReport};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn target(name: &str) -> TargetName {
    TargetName::new(name).unwrap()
}

fn job(name: &str) -> JobName {
    JobName::new(name).unwrap()
}

fn run(number: u8) -> RunId {
    RunId::from_bytes([0, 0, 0, number])
}

fn series(item: Option<&str>) -> Series {
    Series {
        host: HostName::new("web1").unwrap(),
        job: job("dumps"),
        item: item.map(str::to_owned),
    }
}

fn record(number: u8, id: &str, time: &str) -> CopyRecord {
    CopyRecord {
        run: run(number),
        target: target("usb"),
        id: id.to_owned(),
        series: series(None),
        time: at(time),
        recorded: at(time),
        outcome: Outcome::Ok,
        size: Some(1_000),
        files: Some(10),
        bytes_new: None,
        files_changed: 0,
        unreadable: 0,
    }
}

fn listed(id: &str) -> Copy {
    Copy {
        id: id.to_owned(),
        series: Some(series(None)),
        run: None,
        time: at("2026-01-01T00:00:00Z"),
        size: None,
        files: None,
        tags: Vec::new(),
        pinned: false,
        healthy: None,
        ..Copy::default()
    }
}

fn step(step: &'static str, target: Option<TargetName>, seconds: f64) -> StepReport {
    StepReport {
        step,
        target,
        item: None,
        outcome: Outcome::Ok,
        detail: "done".into(),
        elapsed: Duration::from_secs_f64(seconds),
    }
}

fn result(name: &str, item: Option<&str>, outcome: Outcome) -> TargetReport {
    TargetReport::without_copy(target(name), item.map(str::to_owned), outcome)
}

fn report(number: u8, finished: &str, jobs: Vec<JobReport>) -> RunReport {
    RunReport {
        finished: at(finished),
        jobs,
        ..RunReport::begun(run(number), at(finished) - chrono::TimeDelta::minutes(1))
    }
}

fn job_report(name: &str, outcome: Outcome, targets: Vec<TargetReport>) -> JobReport {
    JobReport {
        name: job(name),
        outcome,
        reason: None,
        part: Part::Whole,
        elapsed: Duration::from_secs(5),
        steps: Vec::new(),
        captures: Vec::new(),
        targets,
    }
}

fn fresh() -> (TempDir, History) {
    let directory = tempfile::tempdir().unwrap();
    let history = History::open(&directory.path().join(FILE_NAME)).unwrap();
    (directory, history)
}

/// Names and contents of everything in a directory.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn the_file_is_private_even_if_it_was_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let history = History::open(&path).unwrap();
    history.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    let mode = history.sql("read its mode", |connection| {
        connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))
    });
    let mode = mode.unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn a_newer_file_is_refused_and_left_alone() {
    let (directory, history) = fresh();
    let newer = history
        .sql("make it newer", |connection| connection.pragma_update(None, "user_version", 99));
    newer.unwrap();
    let path = directory.path().join(FILE_NAME);
    drop(history);
    let before = contents(directory.path());

    let error = History::open(&path).unwrap_err();
    assert!(matches!(error, HistoryError::Version { found: 99, known: schema::FORMAT, .. }));
    assert!(
        error
            .to_string()
            .ends_with(&format!("has format 99, and this version reads format {}", schema::FORMAT))
    );
    assert!(error.hint().contains("newer version"));
    assert!(matches!(
        History::open_existing(&path).unwrap_err(),
        HistoryError::Version { found: 99, .. }
    ));
    assert_eq!(contents(directory.path()), before);
}

#[test]
fn something_else_is_an_error_and_no_history() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    std::fs::write(&path, "not a database, but long enough to be looked at as one".repeat(100))
        .unwrap();
    assert!(matches!(History::open(&path), Err(HistoryError::Database { .. })));
    assert!(matches!(History::open_existing(&path), Err(HistoryError::Database { .. })));
    let missing = directory.path().join("no/such/directory").join(FILE_NAME);
    assert!(matches!(History::open(&missing), Err(HistoryError::Open { .. })));
    assert!(History::open_existing(&missing).unwrap().is_none());
}

#[test]
fn reading_leaves_the_directory_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    assert!(History::open_existing(&path).unwrap().is_none());
    assert!(contents(directory.path()).is_empty());

    let writer = History::open(&path).unwrap();
    writer.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
    drop(writer);
    let before = contents(directory.path());
    assert_eq!(before.len(), 1);

    let reader = History::open_existing(&path).unwrap().unwrap();
    assert_eq!(reader.copies(&target("usb")).unwrap().len(), 1);
    let refused = reader.record_copy(&record(2, "b", "2026-01-02T00:00:00Z"));
    assert!(matches!(refused, Err(HistoryError::Database { .. })));
    drop(reader);
    assert_eq!(contents(directory.path()), before);
}

#[test]
fn a_file_without_tables_is_no_history_to_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    std::fs::write(&path, "").unwrap();
    assert!(History::open_existing(&path).unwrap().is_none());
    assert!(History::open(&path).unwrap().copies(&target("usb")).unwrap().is_empty());
}

#[test]
fn two_processes_may_have_it_open() {
    let (directory, one) = fresh();
    let other = History::open(&directory.path().join(FILE_NAME)).unwrap();
    one.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
    other.record_copy(&record(2, "b", "2026-01-02T00:00:00Z")).unwrap();
    assert_eq!(one.copies(&target("usb")).unwrap(), other.copies(&target("usb")).unwrap());
    assert_eq!(one.copies(&target("usb")).unwrap().len(), 2);
}

#[test]
fn copies_come_back_as_they_went_in() {
    let (_directory, history) = fresh();
    let full = CopyRecord {
        series: series(Some("postgres/ä")),
        time: at("2026-01-03T00:00:00.123456789Z"),
        outcome: Outcome::Incomplete,
        size: Some(u64::MAX >> 1),
        files: None,
        bytes_new: Some(0),
        files_changed: 3,
        unreadable: 4,
        ..record(1, "full", "2026-01-03T00:00:00Z")
    };
    let plain = record(2, "plain", "2026-01-02T00:00:00Z");
    let elsewhere = CopyRecord { target: target("nas"), ..plain.clone() };
    for copy in [&plain, &full, &elsewhere] {
        history.record_copy(copy).unwrap();
    }
    assert_eq!(history.copies(&target("usb")).unwrap(), [full.clone(), plain.clone()]);
    assert_eq!(history.copies(&target("nas")).unwrap(), [elsewhere]);

    let corrected = CopyRecord { outcome: Outcome::Ok, ..full };
    history.record_copy(&corrected).unwrap();
    assert_eq!(history.copies(&target("usb")).unwrap(), [corrected, plain.clone()]);

    let too_large = CopyRecord { size: Some(u64::MAX), ..plain };
    assert!(history.record_copy(&too_large).is_err(), "a size must not be cut off silently");
}

#[test]
fn a_value_that_cannot_be_read_is_an_error() {
    let (_directory, history) = fresh();
    history.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
    for damage in ["outcome = 'fine'", "time = 'yesterday'", "size = -1", "host = '-x'"] {
        let change = |text: &str| {
            history.sql("damage it", |connection| connection.execute_batch(text)).unwrap();
        };
        change(&format!("BEGIN; UPDATE copy SET {damage}"));
        assert!(history.copies(&target("usb")).is_err(), "{damage} was read");
        change("ROLLBACK");
    }
    assert_eq!(history.copies(&target("usb")).unwrap().len(), 1);
}

#[test]
fn the_last_good_copy_is_good_and_there_and_not_in_the_future() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    let mut incomplete = record(3, "c", "2026-01-03T00:00:00Z");
    incomplete.outcome = Outcome::Incomplete;
    let mut warned = record(2, "b", "2026-01-02T00:00:00Z");
    warned.outcome = Outcome::Warning;
    let mut other = record(4, "d", "2026-01-04T00:00:00Z");
    other.series = series(Some("mysql"));
    assert_eq!(
        history.last_good_until(&usb, &series(None), DateTime::<Utc>::MAX_UTC).unwrap(),
        None
    );
    for copy in [&record(1, "a", "2026-01-01T00:00:00Z"), &incomplete, &warned, &other] {
        history.record_copy(copy).unwrap();
    }
    let last = || {
        history
            .last_good_until(&usb, &series(None), DateTime::<Utc>::MAX_UTC)
            .unwrap()
            .map(|copy| copy.id)
    };
    assert_eq!(last().as_deref(), Some("b"));

    history.record_copy(&record(5, "e", "2036-01-01T00:00:00Z")).unwrap();
    assert_eq!(last().as_deref(), Some("e"));
    let until = history
        .last_good_until(&usb, &series(None), at("2026-02-01T00:00:00Z"))
        .unwrap()
        .map(|copy| copy.id);
    assert_eq!(until.as_deref(), Some("b"));

    history.forget_copies(&usb, &["e".into(), "b".into(), "never seen".into()]).unwrap();
    assert_eq!(last().as_deref(), Some("a"));
    assert_eq!(
        history.last_good_until(&target("nas"), &series(None), DateTime::<Utc>::MAX_UTC).unwrap(),
        None
    );
}

#[test]
fn an_attempt_stands_until_its_copy_or_its_end_is_recorded() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    let attempt = |number, item| Attempt {
        run: run(number),
        target: usb.clone(),
        series: series(item),
        name: Some(format!("dumps@web1-{number}")),
        started: at("2026-01-01T00:00:00Z"),
        time: at("2026-01-01T00:00:00Z"),
        snapshot: None,
    };
    let (plain, item, dead) = (attempt(1, None), attempt(1, Some("mysql")), attempt(2, None));
    let second = Attempt { name: Some("dumps@web1-2nd".into()), ..dead.clone() };
    for attempt in [&plain, &item, &dead, &second] {
        history.record_attempt(attempt).unwrap();
    }
    let all = [plain, item.clone(), dead.clone(), second.clone()];
    assert_eq!(history.attempts(&usb).unwrap(), all);
    history.record_copy(&record(1, "another", "2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(history.attempts(&usb).unwrap().len(), 4, "a run may make several copies");
    history.record_copy(&record(1, "dumps@web1-1", "2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(history.attempts(&usb).unwrap(), [item.clone(), dead.clone(), second.clone()]);
    history.settle_attempt(&dead).unwrap();
    assert_eq!(history.attempts(&usb).unwrap(), [item, second]);
    assert!(history.attempts(&target("nas")).unwrap().is_empty());
}

#[test]
fn only_the_last_attempt_is_gone_on_with_and_not_for_ever() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    let attempt = |number, started| Attempt {
        run: run(number),
        target: usb.clone(),
        series: series(None),
        name: None,
        started: at(started),
        time: at(started),
        snapshot: Some("sent-uuid".into()),
    };
    let goes_on = |now| history.unfinished_attempt(&usb, &series(None), at(now)).unwrap();
    let (first, second) = (attempt(1, "2026-01-01T00:00:00Z"), attempt(2, "2026-01-02T00:00:00Z"));
    history.record_attempt(&first).unwrap();
    assert_eq!(goes_on("2026-01-01T00:00:01Z"), Some(first.clone()));
    history.record_attempt(&second).unwrap();
    assert_eq!(goes_on("2026-01-03T00:00:00Z"), Some(second.clone()));
    assert_eq!(goes_on("2026-01-31T23:59:00Z"), Some(second));
    assert_eq!(goes_on("2026-02-02T00:00:00Z"), None, "it was tried for a month");
    // Each time that it is gone on with makes an attempt of its own, and the month is not begun anew by that.
    history
        .record_attempt(&Attempt {
            started: at("2026-01-30T00:00:00Z"),
            ..attempt(2, "2026-01-02T00:00:00Z")
        })
        .unwrap();
    assert!(goes_on("2026-01-31T23:59:00Z").is_some());
    assert_eq!(goes_on("2026-02-02T00:00:00Z"), None, "it was tried for a month");
    // The second one made its copy, so nothing is to be finished of the first.
    history.record_copy(&record(2, "b", "2026-01-02T00:00:00Z")).unwrap();
    assert_eq!(history.attempts(&usb).unwrap(), [first]);
    assert_eq!(goes_on("2026-01-03T00:00:00Z"), None);
}

#[test]
fn the_trend_is_in_the_order_of_recording_and_outlives_deletion() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    for (number, id, size) in [(1, "a", Some(100)), (2, "b", None), (3, "c", Some(300))] {
        let time = format!("2026-01-0{number}T00:00:00Z");
        history.record_copy(&CopyRecord { size, ..record(number, id, &time) }).unwrap();
    }
    history.forget_copies(&usb, &["b".into()]).unwrap();
    let sizes = |count| -> Vec<Option<u64>> {
        let points = history.trend(&usb, &series(None), count).unwrap();
        points.into_iter().map(|point| point.size).collect()
    };
    assert_eq!(sizes(9), [Some(100), None, Some(300)]);
    assert_eq!(sizes(2), [None, Some(300)]);
}

#[test]
fn pins_are_remembered_and_follow_a_new_id() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    let time = at("2026-01-01T00:00:00Z");
    history.record_copy(&record(1, "old", "2026-01-01T00:00:00Z")).unwrap();
    history.pin(&usb, "old", time).unwrap();
    history.pin(&usb, "old", time).unwrap();
    history.pin(&usb, "other", time).unwrap();
    history.follow(&usb, "old", "new").unwrap();
    let pins = |name| history.pins(&target(name)).unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(pins("usb"), ["new", "other"]);
    assert!(pins("nas").is_empty());
    assert_eq!(history.copies(&usb).unwrap()[0].id, "new");

    assert!(history.unpin(&usb, &["new"]).unwrap());
    assert!(!history.unpin(&usb, &["new"]).unwrap());
    history.forget_copies(&usb, &["other".into()]).unwrap();
    assert!(pins("usb").is_empty());
}

#[test]
fn a_copy_answers_to_every_id_that_it_had() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    let answers = |now: &str, old: &str| {
        let mut copies = vec![listed(now), listed("another")];
        history.enrich(&usb, &mut copies).unwrap();
        assert!(!copies[1].answers_to(old));
        copies[0].answers_to(old)
    };
    history.record_copy(&record(1, "first-id", "2026-01-01T00:00:00Z")).unwrap();
    // The second has no record, and is known as well.
    for (one, two, three) in
        [("first-id", "pinned-id", "again-id"), ("x-first", "x-pinned", "x-again")]
    {
        history.follow(&usb, one, two).unwrap();
        assert!(answers(two, one));
        history.follow(&usb, two, three).unwrap();
        for old in [one, two, &two[..6]] {
            assert!(answers(three, old), "{old}");
        }
        assert!(!answers(two, one), "that is somebody else's now");
    }
    // A borg archive gets its name back.
    history.follow(&usb, "again-id", "first-id").unwrap();
    assert!(answers("first-id", "pinned-id") && answers("first-id", "again-id"));
    history.forget_copies(&usb, &["first-id".into()]).unwrap();
    assert!(!answers("first-id", "pinned-id"));
}

#[test]
fn a_listing_is_enriched_by_present_and_first_ids() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    for (number, id, outcome) in [
        (1, "good", Outcome::Ok),
        (2, "warned", Outcome::Warning),
        (3, "cut", Outcome::Incomplete),
        (4, "first", Outcome::Ok),
    ] {
        let time = format!("2026-01-0{number}T00:00:00Z");
        history.record_copy(&CopyRecord { outcome, ..record(number, id, &time) }).unwrap();
    }
    history.pin(&usb, "first", at("2026-01-09T00:00:00Z")).unwrap();
    history.pin(&usb, "unrecorded", at("2026-01-09T00:00:00Z")).unwrap();
    history.follow(&usb, "first", "second").unwrap();
    let mut copies = vec![
        listed("good"),
        Copy { size: Some(7), ..listed("warned") },
        listed("cut"),
        // Re-tagged once by us and once by somebody else: only `original` leads back.
        Copy { original: Some("first".into()), ..listed("third") },
        listed("unknown"),
        Copy { original: Some("unrecorded".into()), ..listed("retagged") },
    ];
    history.enrich(&usb, &mut copies).unwrap();
    let seen: Vec<_> = copies
        .iter()
        .map(|copy| (copy.id.as_str(), copy.size, copy.files, copy.healthy, copy.pinned))
        .collect();
    assert_eq!(
        seen,
        [
            ("good", Some(1_000), Some(10), Some(true), false),
            ("warned", Some(7), Some(10), Some(true), false),
            ("cut", Some(1_000), Some(10), Some(false), false),
            ("third", Some(1_000), Some(10), Some(true), true),
            ("unknown", None, None, None, false),
            ("retagged", None, None, None, true),
        ]
    );
}

#[test]
fn history_learns_from_a_listing_what_has_gone() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    for (number, id) in [(1, "a"), (2, "b"), (3, "c")] {
        history.record_copy(&record(number, id, &format!("2026-01-0{number}T00:00:00Z"))).unwrap();
    }
    history.forget_copies(&usb, &["a".into()]).unwrap();
    let retagged = Copy { original: Some("c".into()), ..listed("z") };
    // "a" survived its deletion after all, and somebody else deleted "b".
    let listing = [listed("a"), retagged, listed("foreign")];
    let looker = run(9);
    let by = ListedBy { run: &looker, now: at("2026-01-05T00:00:00Z"), others_delete: false };
    let foreseen = history.vanished(&usb, &listing, &by).unwrap();
    assert_eq!(history.reconcile(&usb, &listing, &by).unwrap(), ["b"]);
    assert_eq!(history.reconcile(&usb, &listing, &by).unwrap(), [""; 0]);
    // That closes the target, and "b" opens it again when it is back.
    let closures = history.closures(&usb).unwrap();
    assert_eq!(closures, foreseen, "a dry run sees the same");
    let [gone] = closures.as_slice() else { panic!("{closures:?}") };
    assert_eq!((gone.kind, gone.subject.as_str(), &gone.run), (ClosureKind::Gone, "b", &looker));
    history.reconcile(&usb, &[listed("b"), listed("a"), listed("c")], &by).unwrap();
    assert_eq!(history.closures(&usb).unwrap(), []);
    // What is announced surprises nobody, unless it was still there later.
    history.expect_gone(&usb, &["b".into(), "c".into()]).unwrap();
    assert_eq!(history.reconcile(&usb, &[listed("a"), listed("c")], &by).unwrap(), [""; 0]);
    assert_eq!(history.closures(&usb).unwrap(), []);
    assert_eq!(history.reconcile(&usb, &[listed("a")], &by).unwrap(), ["c"]);
    assert_eq!(history.closures(&usb).unwrap().len(), 1);
    history.reconcile(&usb, &[listed("a"), listed("c")], &by).unwrap();
    let left: Vec<String> = history.copies(&usb).unwrap().into_iter().map(|copy| copy.id).collect();
    assert_eq!(left, ["c", "a"]);
}

#[test]
fn what_was_missed_is_back_under_any_of_its_ids() {
    for (now, original) in [("a", None), ("b", None), ("b", Some("a")), ("c", Some("a"))] {
        let (_directory, history) = fresh();
        let usb = target("usb");
        history.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
        history.follow(&usb, "a", "b").unwrap();
        let looker = run(9);
        let by = ListedBy { run: &looker, now: at("2026-01-05T00:00:00Z"), others_delete: false };
        assert_eq!(history.reconcile(&usb, &[], &by).unwrap(), ["b"]);
        assert_eq!(history.closures(&usb).unwrap().len(), 1);
        let original = original.map(str::to_owned);
        let back = Copy { original, run: Some(run(1)), ..listed(now) };
        history.reconcile(&usb, &[back], &by).unwrap();
        assert_eq!(history.closures(&usb).unwrap(), [], "{now}");
    }
}

#[test]
fn adopting_a_version_of_a_copy_leaves_the_record_of_one_that_is_there() {
    for is_there in [true, false] {
        let (_directory, history) = fresh();
        let usb = target("usb");
        history.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
        let adopted = Adopted {
            target: usb.clone(),
            id: "b".into(),
            original: Some("a".into()),
            run: run(1),
            series: series(None),
            time: at("2026-01-01T00:00:00Z"),
            size: None,
            files: None,
            proven: false,
        };
        let there = ["a", "b"].into_iter().filter(|id| is_there || *id == "b");
        let there = there.map(str::to_owned).collect();
        history.adopt(&[adopted], &there, at("2026-01-02T00:00:00Z")).unwrap();
        let mut copies = vec![listed("a"), Copy { original: Some("a".into()), ..listed("b") }];
        copies.retain(|copy| there.contains(&copy.id));
        history.enrich(&usb, &mut copies).unwrap();
        let seen: Vec<_> = copies.iter().map(|copy| (copy.ours, copy.healthy)).collect();
        // What is recorded of the making stays with what was made.
        let expected = [(true, Some(true)), (true, None)];
        assert_eq!(seen, expected[..there.len()], "{is_there}");
    }
}

#[test]
fn the_last_outcome_is_that_of_the_last_run_that_went_there() {
    let (_directory, history) = fresh();
    let last = |name: &str, item| {
        history
            .last_outcome(&job("dumps"), &target(name), item)
            .unwrap()
            .map(|last| (last.run.to_string(), last.outcome))
    };
    assert_eq!(last("usb", None), None);

    let both = vec![result("usb", None, Outcome::Ok), result("nas", Some("x"), Outcome::Failed)];
    let jobs = vec![job_report("dumps", Outcome::Failed, both)];
    history.record_run(&report(1, "2026-01-01T00:00:00Z", jobs)).unwrap();
    assert_eq!(last("usb", None), Some(("00000001".into(), Outcome::Ok)));
    assert_eq!(last("nas", Some("x")), Some(("00000001".into(), Outcome::Failed)));
    assert_eq!(last("nas", None), None, "an item is not the whole job");

    // Narrowed to one target: the other one's outcome stands.
    let narrowed = vec![result("nas", Some("x"), Outcome::Ok)];
    let jobs = vec![job_report("dumps", Outcome::Ok, narrowed)];
    history.record_run(&report(2, "2026-01-02T00:00:00Z", jobs)).unwrap();
    assert_eq!(last("usb", None), Some(("00000001".into(), Outcome::Ok)));
    assert_eq!(last("nas", Some("x")), Some(("00000002".into(), Outcome::Ok)));

    // The hook failed before any target: that is the outcome of all of them.
    let jobs = vec![job_report("dumps", Outcome::Failed, Vec::new())];
    history.record_run(&report(3, "2026-01-03T00:00:00Z", jobs)).unwrap();
    assert_eq!(last("usb", None), Some(("00000003".into(), Outcome::Failed)));
    assert_eq!(last("nas", Some("x")), Some(("00000003".into(), Outcome::Failed)));

    let jobs = vec![job_report("another", Outcome::Ok, vec![result("usb", None, Outcome::Ok)])];
    history.record_run(&report(4, "2026-01-04T00:00:00Z", jobs)).unwrap();
    assert_eq!(last("usb", None), Some(("00000003".into(), Outcome::Failed)));
}

#[test]
fn snapshots_alone_count_where_they_failed_until_they_are_made() {
    let (_directory, history) = fresh();
    let record_with = |number: u8, outcome: Outcome, part: Part, targets, steps| {
        let jobs = vec![JobReport { part, steps, ..job_report("dumps", outcome, targets) }];
        let finished = format!("2026-01-{number:02}T00:00:00Z");
        history.record_run(&report(number, &finished, jobs)).unwrap();
    };
    let last = || {
        let last = history.last_outcome(&job("dumps"), &target("usb"), None).unwrap();
        last.map(|last| (last.run.to_string(), last.outcome.word()))
    };
    let made = || Outcome::Skipped("no copy".into());
    let record = |number, outcome: Outcome, part, targets| {
        let steps = match outcome == made() {
            true => vec![step("capture", None, 1.0)],
            false => Vec::new(),
        };
        record_with(number, outcome, part, targets, steps);
    };
    record(1, made(), Part::Snapshots, Vec::new());
    assert_eq!(last(), None, "no copy");
    record(2, Outcome::Ok, Part::Whole, vec![result("usb", None, Outcome::Ok)]);
    record(3, Outcome::Failed, Part::Snapshots, Vec::new());
    assert_eq!(last(), Some(("00000003".into(), "failed")));
    record(4, Outcome::Interrupted, Part::Snapshots, Vec::new());
    assert_eq!(last(), Some(("00000004".into(), "interrupted")));
    record_with(14, made(), Part::Snapshots, Vec::new(), vec![step("before", None, 1.0)]);
    assert_eq!(last(), Some(("00000004".into(), "interrupted")), "a hook left it out");
    record(5, made(), Part::Snapshots, Vec::new());
    assert_eq!(last(), Some(("00000002".into(), "ok")), "they are made again");
    record(6, Outcome::Failed, Part::Snapshots, Vec::new());
    record(7, Outcome::Ok, Part::Transfer, vec![result("usb", None, Outcome::Ok)]);
    assert_eq!(last(), Some(("00000007".into(), "ok")));
    // What another thing failed by is not made good by a snapshot.
    record(8, Outcome::Failed, Part::Whole, vec![result("usb", None, Outcome::Failed)]);
    record(9, made(), Part::Snapshots, Vec::new());
    assert_eq!(last(), Some(("00000008".into(), "failed")));
}

#[test]
fn the_items_of_a_job_are_those_of_its_last_look() {
    let (_directory, history) = fresh();
    let guests = job("guests");
    assert_eq!(history.items(&guests).unwrap(), Vec::<String>::new());
    history.record_items(&guests, &["web", "db"], at("2026-01-02T00:00:00Z")).unwrap();
    history.record_items(&job("others"), &["mail"], at("2026-01-02T00:00:00Z")).unwrap();
    assert_eq!(history.items(&guests).unwrap(), ["db", "web"]);
    // The clock was set back: the last look is the one that was recorded last.
    history.record_items(&guests, &["web", "new"], at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(history.items(&guests).unwrap(), ["new", "web"]);
    assert_eq!(history.items(&job("others")).unwrap(), ["mail"]);
    history.record_items(&guests, &["db"], at("2026-01-03T00:00:00Z")).unwrap();
    assert_eq!(history.items(&guests).unwrap(), ["db"], "it is back");
}

#[test]
fn how_a_recorded_run_ended_can_be_corrected() {
    let (_directory, history) = fresh();
    assert_eq!(history.last_run().unwrap(), None);
    assert_eq!(history.newest_time().unwrap(), None);
    let mut jobs = vec![job_report("dumps", Outcome::Ok, Vec::new())];
    jobs[0].steps = vec![step("before", None, 0.5), step("backup", Some(target("usb")), 2.25)];
    let mut first = report(1, "2026-01-01T00:00:00Z", jobs);
    first.maintenance = vec![step("check", Some(target("usb")), 9.0)];
    history.record_run(&first).unwrap();
    assert!(history.record_run(&first).is_err(), "one run is recorded once");
    let amended = RunReport { outcome: Outcome::Warning, exit_code: Some(12), ..first };
    history.amend_run(&amended).unwrap();
    let last = history.last_run().unwrap().unwrap();
    assert_eq!((last.run, last.outcome, last.exit_code), (run(1), Outcome::Warning, Some(12)));

    let seen: Vec<(String, f64)> = history
        .job_steps(&job("dumps"))
        .unwrap()
        .into_iter()
        .map(|step| (step.step, step.seconds))
        .collect();
    assert_eq!(seen, [("before".to_owned(), 0.5), ("backup".to_owned(), 2.25)]);
    assert_eq!(history.maintenance_steps(&target("usb")).unwrap()[0].step, "check");
    assert!(history.maintenance_steps(&target("nas")).unwrap().is_empty());

    // A run of another job does not take these steps away.
    let jobs = vec![job_report("other", Outcome::Ok, Vec::new())];
    history.record_run(&report(2, "2026-01-02T00:00:00Z", jobs)).unwrap();
    assert_eq!(history.job_steps(&job("dumps")).unwrap().len(), 2);
    assert_eq!(history.maintenance_steps(&target("usb")).unwrap().len(), 1);
}

#[test]
fn one_run_under_a_wrong_clock_is_not_the_newest_for_ever() {
    let (_directory, history) = fresh();
    history.record_run(&report(1, "2036-01-01T00:00:00Z", Vec::new())).unwrap();
    assert_eq!(history.newest_time().unwrap(), Some(at("2036-01-01T00:00:00Z")));
    history.record_run(&report(2, "2026-01-01T00:00:00Z", Vec::new())).unwrap();
    assert_eq!(history.newest_time().unwrap(), Some(at("2026-01-01T00:00:00Z")));
}

#[test]
fn maintenance_tells_the_last_from_the_last_good() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    let record = |kind, outcome: Outcome, time: &str| {
        let done = Maintenance {
            target: usb.clone(),
            kind,
            outcome,
            detail: "as said".into(),
            time: at(time),
        };
        history.record_maintenance(&done).unwrap();
        done
    };
    use MaintenanceKind::{Check, Compact, Prune};
    assert_eq!(history.last_good_maintenance(&usb, Check).unwrap(), None);
    let good = record(Check, Outcome::Ok, "2026-01-01T00:00:00Z");
    record(Check, Outcome::Failed, "2026-01-02T00:00:00Z");
    record(Compact, Outcome::Ok, "2026-01-03T00:00:00Z");
    assert_eq!(history.last_good_maintenance(&usb, Check).unwrap(), Some(good));
    assert_eq!(history.last_good_maintenance(&target("nas"), Check).unwrap(), None);

    assert!(!history.has_deletions_to_compact(&usb).unwrap());
    record(Prune, Outcome::Ok, "2026-01-04T00:00:00Z");
    assert!(history.has_deletions_to_compact(&usb).unwrap());
    record(Compact, Outcome::Failed, "2026-01-05T00:00:00Z");
    assert!(history.has_deletions_to_compact(&usb).unwrap());
    // By the order of recording: the clock may have been set back in between.
    record(Compact, Outcome::Ok, "2026-01-02T00:00:00Z");
    assert!(!history.has_deletions_to_compact(&usb).unwrap());
}

#[test]
fn a_full_disk_is_not_taken_for_a_damaged_file() {
    let hint = |code| {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        let path = "history.sqlite".into();
        HistoryError::Database { path, doing: "set up", source }.hint()
    };
    // As seen on a full ext4: SQLITE_FULL, and SQLITE_IOERR_SHMSIZE for the side files.
    for code in [13, 4874] {
        assert!(hint(code).contains("full"), "{code}");
    }
    // SQLITE_CORRUPT, SQLITE_NOTADB
    for code in [11, 26] {
        assert!(hint(code).contains("damaged: move it away"), "{code}");
    }
    // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_BUSY_SNAPSHOT: pins and records are in a file with which all is well.
    for code in [5, 6, 517] {
        assert!(hint(code).contains("nothing is wrong with it"), "{code}");
        assert!(!hint(code).contains("move it"), "{code}");
    }
    // SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN
    for code in [3, 8, 14] {
        assert!(hint(code).contains("may write"), "{code}");
    }
}

#[test]
fn a_history_that_somebody_else_has_locked_is_waited_for() {
    let (directory, history) = fresh();
    drop(history);
    let path = directory.path().join(FILE_NAME);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let started = std::time::Instant::now();
    let refused = History::open_within(&path, Duration::from_millis(300)).unwrap_err();
    assert!(refused.is_busy(), "{refused:?}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || History::open_within(&path, Duration::from_secs(20)).map(drop)
    });
    std::thread::sleep(Duration::from_millis(200));
    other.execute_batch("COMMIT").unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn damage_is_taken_back_by_reading_as_much_as_found_it() {
    use Extent::{All, Copy, Share, Structure};
    for (clean, cleared) in [
        (Copy, [false, false, false, false, false]),
        (Structure, [false, true, false, false, false]),
        (Share, [false, true, false, false, false]),
        (All, [true, true, true, true, true]),
    ] {
        let found = [Some(Copy), Some(Structure), Some(Share), Some(All), None];
        assert_eq!(found.map(|extent| clean.clears(extent)), cleared, "{clean:?}");
    }
    let (_directory, history) = fresh();
    let usb = target("usb");
    let found = |extent, second: u32| Closure {
        target: usb.clone(),
        kind: ClosureKind::Damage,
        subject: String::new(),
        extent: Some(extent),
        detail: format!("{extent:?}"),
        run: run(1),
        since: at(&format!("2026-01-01T00:00:0{second}Z")),
    };
    history.close(&found(All, 1)).unwrap();
    // Found again by reading less: it still takes as much to take it back.
    history.close(&found(Structure, 2)).unwrap();
    let known = history.closures(&usb).unwrap();
    let expected = Closure { detail: "Structure".into(), ..found(All, 1) };
    assert_eq!(known, [expected]);
    history.reopen(&known[0]).unwrap();
    assert_eq!(history.closures(&usb).unwrap(), []);

    assert_eq!(history.repository(&usb).unwrap(), None);
    for id in ["one", "two"] {
        history.remember_repository(&usb, id, at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(history.repository(&usb).unwrap().as_deref(), Some(id));
    }
}

#[test]
fn a_history_is_read_without_side_files_unless_something_may_lie_in_them() {
    let directory = tempfile::tempdir().unwrap();
    let odd = directory.path().join("100% ?#é&");
    std::fs::create_dir(&odd).unwrap();
    let path = odd.join(FILE_NAME);
    let writer = History::open(&path).unwrap();
    writer.pin(&target("usb"), "id", chrono::DateTime::UNIX_EPOCH).unwrap();
    assert!(has_unmerged(&path));
    drop(writer);
    assert!(!has_unmerged(&path));

    let reader = History::read(&path, &immutable(&path)).unwrap().unwrap();
    assert!(reader.pins(&target("usb")).unwrap().contains("id"));
    assert!(!reader.is_writable());
    let names: Vec<_> =
        std::fs::read_dir(&odd).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [FILE_NAME]);
}

fn fingerprint(installation: &str, hardware: Option<&str>) -> Fingerprint {
    Fingerprint {
        installation: Some(installation.to_owned()),
        hardware: hardware.map(str::to_owned),
    }
}

fn whose(history: &History, ids: &[&str]) -> Vec<bool> {
    let mut copies: Vec<Copy> = ids.iter().map(|id| listed(id)).collect();
    history.enrich(&target("usb"), &mut copies).unwrap();
    copies.into_iter().map(|copy| copy.ours).collect()
}

#[test]
fn an_identity_is_made_once_and_a_clone_gets_another() {
    let (directory, history) = fresh();
    let path = directory.path().join(FILE_NAME);
    let id = |byte| MachineId::from_bytes([byte; 8]);
    history.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(history.machine().unwrap(), None);
    let settle = |seen, byte| history.settle_machine(&seen, &id(byte)).unwrap();
    assert_eq!(settle(fingerprint("one", None), 1), Settled::New);
    assert_eq!(whose(&history, &["a", "forged"]), [true, false]);
    // What was not known before, or is not now, is no sign of another machine.
    assert_eq!(settle(fingerprint("one", Some("board")), 2), Settled::Known);
    assert_eq!(settle(Fingerprint::default(), 2), Settled::Known);
    assert_eq!(history.machine().unwrap(), Some(id(1)));

    // A clone that has only looked leaves the file alone and has nothing of its own.
    let reader = History::open_existing(&path).unwrap().unwrap();
    let moved = reader.settle_machine(&fingerprint("two", None), &id(2)).unwrap();
    assert_eq!((moved, reader.machine().unwrap()), (Settled::Moved(1), None));
    assert_eq!(whose(&reader, &["a"]), [false]);
    assert_eq!(whose(&history, &["a"]), [true]);

    assert_eq!(settle(fingerprint("two", None), 2), Settled::Moved(1));
    assert_eq!(settle(fingerprint("two", None), 3), Settled::Known);
    assert_eq!(history.machine().unwrap(), Some(id(2)));
    history.record_copy(&record(2, "b", "2026-01-02T00:00:00Z")).unwrap();
    assert_eq!(whose(&history, &["a", "b"]), [false, true]);
    let last = history
        .last_good_until(&target("usb"), &series(None), DateTime::<Utc>::MAX_UTC)
        .unwrap()
        .unwrap();
    assert_eq!(last.id, "b");
}

#[test]
fn other_hardware_under_the_same_installation_is_another_machine() {
    let (_directory, history) = fresh();
    let id = |byte| MachineId::from_bytes([byte; 8]);
    for (board, expected) in
        [("one", Settled::New), ("one", Settled::Known), ("two", Settled::Moved(0))]
    {
        let seen = fingerprint("same", Some(board));
        assert_eq!(history.settle_machine(&seen, &id(1)).unwrap(), expected);
    }
}

#[test]
fn whoever_can_only_add_cannot_pass_for_a_recorded_copy() {
    let (_directory, history) = fresh();
    let usb = target("usb");
    history.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
    let claiming = |id: &str| Copy { original: Some("a".into()), ..listed(id) };
    let seen = |mut copies: Vec<Copy>| -> Vec<bool> {
        history.enrich(&usb, &mut copies).unwrap();
        copies.into_iter().map(|copy| copy.ours).collect()
    };
    assert_eq!(seen(vec![claiming("forged"), listed("a")]), [false, true]);
    assert_eq!(seen(vec![listed("a"), claiming("forged"), claiming("too")]), [true, false, false]);
    // Somebody re-tagged it by hand: it is gone, and one other says that it was that.
    assert_eq!(seen(vec![claiming("retagged")]), [true]);
    // Which of two is it? Neither is counted nor deleted.
    assert_eq!(seen(vec![claiming("retagged"), claiming("forged")]), [false, false]);
    history.follow(&usb, "a", "b").unwrap();
    assert_eq!(seen(vec![listed("b"), claiming("forged")]), [true, false]);
}

#[test]
fn a_copy_that_is_dated_after_its_own_record_is_not_the_last_good_one() {
    let (_directory, history) = fresh();
    history.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
    let ahead =
        CopyRecord { time: at("2026-01-09T00:00:00Z"), ..record(2, "b", "2026-01-02T00:00:00Z") };
    history.record_copy(&ahead).unwrap();
    let last = history.last_good_until(&target("usb"), &series(None), at("2026-02-01T00:00:00Z"));
    assert_eq!(last.unwrap().unwrap().id, "a");
}

#[test]
fn a_history_of_the_first_format_is_read_as_it_is_and_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(schema::STEPS[0]).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.execute_batch(
        "INSERT INTO copy (target, id, first_id, run, host, job, time, recorded, outcome,
                           files_changed, unreadable)
         VALUES ('usb', 'a', 'a', '00000001', 'web1', 'dumps', '2026-01-01T00:00:00.000000000Z',
                 '2026-01-01T00:00:01.000000000Z', 'ok', 0, 0);
         INSERT INTO run VALUES (1, '00000001', '2026-01-01T00:00:00.000000000Z',
                                 '2026-01-01T00:00:01.000000000Z', 'failed', 10);
         INSERT INTO job VALUES (1, 'dumps', 'failed', NULL, 1.0);
         INSERT INTO run VALUES (2, '00000002', '2026-01-02T00:00:00.000000000Z',
                                 '2026-01-02T00:00:01.000000000Z', 'skipped', 0);
         INSERT INTO job VALUES (2, 'dumps', 'skipped', 'only snapshots were asked for, and no copy', 1.0)",
    )
    .unwrap();
    drop(old);
    let before = std::fs::read(&path).unwrap();
    let reader = History::open_existing(&path).unwrap().unwrap();
    assert_eq!(whose(&reader, &["a", "b"]), [true, false]);
    assert!(reader.pin(&target("usb"), "a", at("2026-01-02T00:00:00Z")).is_err());
    drop(reader);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let history = History::open(&path).unwrap();
    assert_eq!(whose(&history, &["a", "b"]), [true, false]);
    let last = history.last_outcome(&job("dumps"), &target("usb"), None).unwrap().unwrap();
    assert_eq!(last.run.as_str(), "00000001", "the other one was to make snapshots alone");
}

#[test]
fn a_target_that_was_given_up_counts_again_where_it_is_seen_again() {
    let (_directory, history) = fresh();
    let (usb, now) = (target("usb"), at("2026-03-01T00:00:00Z"));
    history.record_copy(&record(1, "a", "2026-01-01T00:00:00Z")).unwrap();
    history.record_copy(&record(2, "b", "2026-01-02T00:00:00Z")).unwrap();
    history
        .record_copy(&CopyRecord {
            target: target("nas"),
            ..record(2, "c", "2026-01-02T00:00:00Z")
        })
        .unwrap();
    history.pin(&usb, "a", now).unwrap();
    history.remember_repository(&usb, "disk", now).unwrap();
    assert_eq!(history.known_targets().unwrap(), [target("nas"), usb.clone()].into());
    assert_eq!(history.forgotten(&usb).unwrap(), None);

    history.forget_target(&usb, now).unwrap();
    assert_eq!(history.copies(&usb).unwrap(), []);
    assert_eq!(history.last_good_until(&usb, &series(None), now).unwrap(), None);
    assert!(history.pins(&usb).unwrap().is_empty());
    assert_eq!(history.repository(&usb).unwrap(), None);
    assert_eq!(history.known_targets().unwrap(), [target("nas")].into());
    assert_eq!(history.forgotten(&usb).unwrap(), Some((now, 2)));
    assert_eq!(history.copies(&target("nas")).unwrap().len(), 1, "another target's");

    // The disk is found again, and one copy is still there. That the other one is not surprises nobody.
    let this = run(3);
    let by = ListedBy { run: &this, now, others_delete: false };
    assert_eq!(history.reconcile(&usb, &[listed("b")], &by).unwrap(), [] as [String; 0]);
    assert_eq!(history.closures(&usb).unwrap(), []);
    let there: Vec<String> = history.copies(&usb).unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(there, ["b"]);
    assert_eq!(history.forgotten(&usb).unwrap(), Some((now, 1)));
}

#[test]
fn several_threads_record_in_it() {
    let (_directory, history) = fresh();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let history = &history;
            scope.spawn(move || {
                for number in 0..20 {
                    let id = format!("{thread}-{number}");
                    history.record_copy(&record(1, &id, "2026-01-01T00:00:00Z")).unwrap();
                    assert!(!history.copies(&target("usb")).unwrap().is_empty());
                }
            });
        }
    });
    assert_eq!(history.copies(&target("usb")).unwrap().len(), 80);
}
