//! The engine against recorded answers of borg 1.2.4 and 1.4.5: every row of the table of exit statuses.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{TimeZone, Utc};

use super::list::copy;
use super::*;
use crate::config::testing;
use crate::engine::scripted::{Answer, ScriptedHost};
use crate::engine::{ChangeKind, Input};
use crate::host::Exit;
use crate::model::copy::Series;
use crate::model::job::Settings;
use crate::model::names::{HostName, JobName, RunId};
use crate::model::outcome::Outcome;
use crate::model::target::EngineConfig;
use crate::tools::Tree;

/// The recordings: 1.2.4 knows no modern exit statuses, 1.4.5 was recorded with both.
const VERSIONS: [&str; 3] = ["borg-1.2.4-legacy", "borg-1.4.5-legacy", "borg-1.4.5-modern"];

const NAME: &str = "host@web1.20261121T020304Z.0a1b2c3d";

fn settings() -> Settings {
    testing::config(
        "[settings]\nstate-dir = '/state'\nruntime-dir = '/run/s'\ncache-dir = '/cache'\nlock-wait = '1s'",
    )
    .settings
}

fn engine_at(repository: &str) -> BorgEngine {
    let mut target = testing::target(
        "[targets.usb.borg]\nrepository = '/srv/r'\nencryption = 'none'\nstall-timeout = '10m'",
    );
    // Also what the configuration refuses.
    target.repository = repository.into();
    let EngineConfig::Borg(options) = &target.engine else { panic!("not borg's") };
    BorgEngine::new(&target, options)
}

/// Calls `f` with an engine whose host gives these answers.
pub(super) fn with<T>(host: &ScriptedHost, f: impl FnOnce(&BorgEngine, Context<'_>) -> T) -> T {
    let settings = settings();
    let cx = Context {
        host,
        settings: &settings,
        temporary: None,
        lock_wait: Duration::from_secs(1),
        run: None,
        seat: None,
    };
    f(&engine_at("/srv/r"), cx)
}

fn request(paths: &[&str]) -> BackupRequest {
    BackupRequest {
        series: Series {
            host: HostName::new("web1").unwrap(),
            job: JobName::new("host").unwrap(),
            item: None,
        },
        machine: None,
        run: RunId::parse("0a1b2c3d").unwrap(),
        time: Utc.with_ymd_and_hms(2026, 11, 21, 2, 3, 4).unwrap(),
        input: Input::Tree {
            expected: Vec::new(),
            tree: Tree { paths: paths.iter().map(PathBuf::from).collect(), ..Tree::default() },
        },
    }
}

fn backup(answers: Vec<Answer>, paths: &[&str]) -> Result<BackupReport, EngineError> {
    let host = ScriptedHost::new(answers);
    with(&host, |engine, cx| engine.backup(cx, &request(paths), &mut |_| {}))
}

fn message(level: &str, text: &str, id: Option<&str>) -> String {
    let mut record = serde_json::json!({
        "type": "log_message", "time": 1.0, "message": text, "levelname": level,
        "name": "borg.archiver",
    });
    if let Some(id) = id {
        record["msgid"] = id.into();
    }
    format!("{record}\n")
}

fn created(files: u64) -> String {
    format!(
        r#"{{"archive":{{"stats":{{"original_size":10,"compressed_size":9,"deduplicated_size":5,"nfiles":{files}}}}}}}"#
    )
}

fn listing(names: &[&str]) -> String {
    let archives: Vec<_> = names
        .iter()
        .map(|name| {
            serde_json::json!({
                "archive": name, "barchive": name, "name": name, "id": "00",
                "start": "2026-11-21T02:11:28.000000", "time": "2026-11-21T02:11:28.000000",
            })
        })
        .collect();
    serde_json::json!({
        "archives": archives,
        "encryption": {"mode": "none"},
        "repository": {"id": "ab", "last_modified": "2026-11-21T02:11:30.000000", "location": "/r"},
    })
    .to_string()
}

#[test]
fn a_dry_run_knows_what_it_makes_for_itself() {
    let host = ScriptedHost::new([]);
    let of = |settings: &Settings| with(&host, |engine, _| engine.own_directories(settings));
    let settings = settings();
    assert_eq!(of(&settings), [PathBuf::from("/cache/borg"), PathBuf::from("/state/borg")]);
    let fallback = Settings { fallback_cache: Some("/run/s".into()), ..settings };
    assert_eq!(of(&fallback), [PathBuf::from("/run/s/borg"), PathBuf::from("/state/borg")]);
}

#[test]
fn recorded_backups_end_as_they_should() {
    for version in VERSIONS {
        let src = "/fixture/src";
        let fixture = |case: &str| vec![Answer::fixture(version, case)];

        let ok = backup(fixture("create-ok-json-list-progress"), &[src]).unwrap();
        assert_eq!(ok.outcome, Outcome::Ok, "{version}");
        assert_eq!(ok.id.as_deref(), Some(NAME));
        assert!(ok.files.unwrap() > 0 && ok.bytes_new.unwrap() > 0);
        assert_eq!((ok.unreadable_count, ok.files_changed, ok.warnings.len()), (0, 0, 0));

        let missing =
            backup(fixture("create-missing-source"), &["/fixture/src/sub", "/nonexist"]).unwrap();
        assert_eq!(missing.outcome, Outcome::Incomplete, "{version}");
        assert_eq!(missing.unreadable, ["/nonexist: does not exist"]);

        let unreadable = backup(fixture("create-unreadable"), &[src]).unwrap();
        assert_eq!(unreadable.outcome, Outcome::Incomplete, "{version}");
        assert_eq!(unreadable.unreadable_count, 1);
        assert!(unreadable.unreadable[0].contains("/fixture/src/noread"));

        let mixed = backup(fixture("create-mixed-warnings"), &[src, "/nonexist"]).unwrap();
        assert_eq!(mixed.outcome, Outcome::Incomplete, "{version}");
        assert_eq!(mixed.unreadable_count, 2);
    }
}

#[test]
fn the_archive_of_nothing_is_deleted_and_looked_for() {
    for version in VERSIONS {
        let host = ScriptedHost::new([
            Answer::fixture(version, "create-only-missing-source"),
            Answer::new(0, "", ""),
            Answer::new(0, &listing(&["other"]), ""),
        ]);
        let error =
            with(&host, |engine, cx| engine.backup(cx, &request(&["/nonexist"]), &mut |_| {}));
        assert!(matches!(error, Err(EngineError::NoSource { .. })), "{version}: {error:?}");
        let commands = host.commands();
        assert!(commands[1].ends_with(&format!("delete -- /srv/r {NAME}")), "{}", commands[1]);
        assert!(commands[2].contains(" list --json "), "{}", commands[2]);
    }
    let error = backup(
        vec![
            Answer::fixture(VERSIONS[0], "create-only-missing-source"),
            Answer::new(0, "", ""),
            Answer::new(0, &listing(&[NAME]), ""),
        ],
        &["/nonexist"],
    );
    let text = error.unwrap_err().to_string();
    assert!(text.contains("could not be deleted") && text.contains("still listed"), "{text}");
}

#[test]
fn recorded_failures_are_told_apart() {
    type Expected = fn(&EngineError) -> bool;
    let cases: [(&str, Expected); 8] = [
        ("list-norepo", |e| matches!(e, EngineError::RepositoryMissing { .. })),
        ("init-exists", |e| matches!(e, EngineError::RepositoryExists { .. })),
        ("list-wrong-pass", |e| matches!(e, EngineError::WrongPassphrase { .. })),
        ("create-locked", |e| matches!(e, EngineError::Locked { .. })),
        (
            "create-archive-exists",
            |e| matches!(e, EngineError::Failed { detail, .. } if detail.contains("already exists")),
        ),
        (
            "bad-flag",
            |e| matches!(e, EngineError::Failed { detail, .. } if detail.contains("unrecognized arguments")),
        ),
        (
            "create-SIGTERM",
            |e| matches!(e, EngineError::Failed { detail, .. } if detail.contains("SIGTERM")),
        ),
        ("create-SIGINT", |e| matches!(e, EngineError::Failed { .. })),
    ];
    for version in VERSIONS {
        for (case, expected) in cases {
            let error = backup(vec![Answer::fixture(version, case)], &["/a"]).unwrap_err();
            assert!(expected(&error), "{version} {case}: {error:?}");
        }
    }
}

#[test]
fn statuses_stand_in_for_missing_words() {
    type Expected = fn(&EngineError) -> bool;
    let cases: [(i32, Expected); 6] = [
        (13, |e| matches!(e, EngineError::RepositoryMissing { .. })),
        (52, |e| matches!(e, EngineError::WrongPassphrase { .. })),
        (73, |e| matches!(e, EngineError::Locked { .. })),
        (81, |e| matches!(e, EngineError::Unreachable { .. })),
        (90, |e| matches!(e, EngineError::Damaged { .. })),
        (2, |e| matches!(e, EngineError::Failed { detail, .. } if detail == "it gave no reason")),
    ];
    for (code, expected) in cases {
        let error = backup(vec![Answer::new(code, "", "")], &["/a"]).unwrap_err();
        assert!(expected(&error), "{code}: {error:?}");
    }
    let killed = Answer { exit: Exit::Signal(9), stdout: created(3).into(), stderr: Vec::new() };
    let error = backup(vec![killed], &["/a"]).unwrap_err().to_string();
    assert!(error.contains("killed by signal 9"), "{error}");
}

#[test]
fn error_classes_become_errors() {
    type Expected = fn(&EngineError) -> bool;
    let cases: [(&str, Expected); 14] = [
        ("Repository.InsufficientFreeSpaceError", |e| matches!(e, EngineError::Full { .. })),
        ("Repository.StorageQuotaExceeded", |e| matches!(e, EngineError::Full { .. })),
        ("KeyfileNotFoundError", |e| matches!(e, EngineError::KeyMissing { .. })),
        ("RepoKeyNotFoundError", |e| matches!(e, EngineError::KeyMissing { .. })),
        ("ConnectionClosedWithHint", |e| matches!(e, EngineError::Unreachable { .. })),
        ("Cache.RepositoryAccessAborted", |e| matches!(e, EngineError::Moved { .. })),
        ("NoManifestError", |e| matches!(e, EngineError::Unfinished { .. })),
        ("Cache.EncryptionMethodMismatch", |e| matches!(e, EngineError::Refused { .. })),
        ("Cache.RepositoryReplay", |e| matches!(e, EngineError::Refused { .. })),
        ("IntegrityError", |e| matches!(e, EngineError::Damaged { .. })),
        ("FileIntegrityError", |e| matches!(e, EngineError::CacheDamaged { .. })),
        ("Repository.ObjectNotFound", |e| matches!(e, EngineError::Damaged { .. })),
        ("NoPassphraseFailure", |e| matches!(e, EngineError::Secret { .. })),
        ("SomethingNew", |e| matches!(e, EngineError::Failed { .. })),
    ];
    for (id, expected) in cases {
        let said = message("ERROR", "words", Some(id));
        let error = backup(vec![Answer::new(2, "", &said)], &["/a"]).unwrap_err();
        assert!(expected(&error), "{id}: {error:?}");
        // The words decide even when the status claims success.
        let error = backup(vec![Answer::new(0, &created(1), &said)], &["/a"]).unwrap_err();
        assert!(expected(&error), "{id} with status 0: {error:?}");
    }
    let ssh = message("WARNING", "Remote: ssh: connect to host nas: Connection refused", None)
        + &message("ERROR", "Connection closed by remote host", Some("ConnectionClosedWithHint"));
    let error = backup(vec![Answer::new(81, "", &ssh)], &["/a"]).unwrap_err().to_string();
    assert!(error.contains("Connection refused"), "{error}");
    let trace = "Traceback (most recent call last):\n  File \"x\"\nOSError: [Errno 28] No space left on device\n\nPlatform: Linux";
    let said =
        message("ERROR", "Local Exception", Some("Exception")) + &message("ERROR", trace, None);
    match backup(vec![Answer::new(2, "", &said)], &["/a"]).unwrap_err() {
        EngineError::Full { detail, .. } => {
            assert_eq!(detail, "OSError: [Errno 28] No space left on device");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_move_are_counted_and_what_cannot_be_read_is_named() {
    let warnings = [
        // borg 1.4
        message("WARNING", "/a/log: file changed while we backed it up", Some("FileChangedWarning")),
        message("WARNING", "/a/gone: stat: [Errno 2] No such file or directory: 'gone'", Some("BackupFileNotFoundError")),
        message("WARNING", "/a/x: file type or inode changed while we backed it up (race condition, skipping file)", Some("BackupRaceConditionError")),
        // borg 1.2
        message("WARNING", "/a/log: file changed while we backed it up", None),
        message("WARNING", "/a/gone: open: [Errno 2] No such file or directory: 'gone'", None),
    ]
    .concat();
    let report = backup(vec![Answer::new(100, &created(3), &warnings)], &["/a"]).unwrap();
    assert_eq!((report.outcome, report.files_changed), (Outcome::Ok, 5));

    let io = message("WARNING", "/a/bad: read: [Errno 5] Input/output error", None);
    let report = backup(vec![Answer::new(1, &created(3), &(warnings.clone() + &io))], &["/a"]);
    let report = report.unwrap();
    assert_eq!((report.outcome, report.unreadable_count), (Outcome::Incomplete, 1));

    let many = io.repeat(250);
    let report = backup(vec![Answer::new(1, &created(3), &many)], &["/a"]).unwrap();
    assert_eq!((report.unreadable.len(), report.unreadable_count), (100, 250));

    let odd = message("WARNING", "Unknown file type: /a/door", None);
    let report = backup(vec![Answer::new(1, &created(3), &odd)], &["/a"]).unwrap();
    assert_eq!(report.outcome, Outcome::Warning);
    assert_eq!(report.warnings, ["Unknown file type: /a/door"]);

    let first = [
        r#"{"type": "log_message", "time": 1.0, "message": "The files cache can't be read. [[Errno 2] No such file or directory: '/c/files.host']", "levelname": "WARNING", "name": "borg.cache"}"#,
        r#"{"type": "log_message", "time": 1.0, "message": "Continuing without files cache - expect lower performance.", "levelname": "WARNING", "name": "borg.cache"}"#,
    ]
    .join("\n");
    let report = backup(vec![Answer::new(0, &created(3), &first)], &["/a"]).unwrap();
    assert_eq!((report.outcome, report.files_changed, report.warnings.len()), (Outcome::Ok, 0, 0));

    let noise = message("WARNING", "Remote: welcome", None);
    let report = backup(vec![Answer::new(0, &created(3), &noise)], &["/a"]).unwrap();
    assert_eq!((report.outcome, report.warnings.len()), (Outcome::Ok, 1));
}

#[test]
fn what_is_not_understood_is_not_success() {
    let silent = backup(vec![Answer::new(105, &created(3), "")], &["/a"]).unwrap();
    assert_eq!(silent.outcome, Outcome::Incomplete);
    let no_statistics = backup(vec![Answer::new(0, "", "")], &["/a"]);
    assert!(matches!(no_statistics, Err(EngineError::Output { .. })), "{no_statistics:?}");
    let torn = backup(vec![Answer::new(0, &created(3), "{\"type\": \"log_mess\n")], &["/a"]);
    assert!(matches!(torn, Err(EngineError::Output { .. })), "{torn:?}");
}

#[test]
fn a_root_that_is_there_but_cannot_be_opened_is_no_source_when_nothing_came_of_it() {
    let denied = message("WARNING", "/a: dir_open: [Errno 13] Permission denied: 'a'", None);
    let host = ScriptedHost::new([
        Answer::new(1, &created(0), &denied),
        Answer::new(0, "", ""),
        Answer::new(0, &listing(&[]), ""),
    ]);
    let error = with(&host, |engine, cx| engine.backup(cx, &request(&["/a"]), &mut |_| {}));
    assert!(matches!(error, Err(EngineError::NoSource { .. })), "{error:?}");
    let report = backup(vec![Answer::new(1, &created(2), &denied)], &["/a"]).unwrap();
    assert_eq!(report.outcome, Outcome::Incomplete);
}

#[test]
fn a_listing_knows_ours_from_others_and_whole_from_half() {
    let host = ScriptedHost::new([Answer::new(
        0,
        &listing(&["monday", NAME, "host@web1.20261121T020304Z.0a1b2c3d.checkpoint.1"]),
        "",
    )]);
    let copies = with(&host, |engine, cx| {
        let copies = engine.list(cx).unwrap();
        assert_eq!(engine.unfinished(&copies[1]), None);
        assert_eq!(engine.unfinished(&copies[2]).as_deref(), Some(NAME));
        copies
    });
    assert!(host.commands()[0].contains("--consider-checkpoints"));
    assert_eq!((copies[0].series.as_ref(), copies[0].run.as_ref()), (None, None));
    assert_eq!(copies[0].time.to_rfc3339(), "2026-11-21T02:11:28+00:00");
    assert_eq!(copies[1].series.as_ref().unwrap().job.as_str(), "host");
    assert_eq!(copies[1].time.to_rfc3339(), "2026-11-21T02:03:04+00:00");
    assert_eq!(copies[2].series, None);
    assert_eq!(copies[2].run.as_ref().unwrap().as_str(), "0a1b2c3d");
    for broken in ["", "[]", "{\"archives\": [{\"barchive\": \"a\", \"time\": \"soon\"}]}"] {
        let host = ScriptedHost::new([Answer::new(0, broken, "")]);
        assert!(with(&host, |engine, cx| engine.list(cx)).is_err(), "{broken:?}");
    }
}

#[test]
fn a_dry_run_predicts_the_list() {
    let mut host = ScriptedHost::new([
        Answer::new(0, &listing(&["old"]), ""),
        Answer::new(0, &listing(&["old"]), ""),
    ]);
    host.dry = true;
    with(&host, |engine, cx| {
        let report = engine.backup(cx, &request(&["/a"]), &mut |_| {}).unwrap();
        assert_eq!((report.id.as_deref(), report.files, report.size), (Some(NAME), None, None));
        let names: Vec<String> = engine.list(cx).unwrap().into_iter().map(|c| c.id).collect();
        assert_eq!(names, ["old", NAME]);
        engine.delete(cx, &["old".into()]).unwrap();
        let names: Vec<String> = engine.list(cx).unwrap().into_iter().map(|c| c.id).collect();
        assert_eq!(names, [NAME]);
        assert_eq!(engine.init(cx).unwrap().repository_id, None);
        let report = engine.check(cx, ReadData::All, &mut |_| {}).unwrap();
        assert_eq!(report.extent, "nothing (dry run)");
    });
}

#[test]
fn nothing_is_deleted_when_nothing_is_named() {
    let host = ScriptedHost::new([]);
    with(&host, |engine, cx| engine.delete(cx, &[]).unwrap());
    assert!(host.commands().is_empty());
}

#[test]
fn checks_tell_damage_from_failure() {
    for version in VERSIONS {
        let host = ScriptedHost::new([
            Answer::fixture(version, "check-ok-progress"),
            Answer::fixture(version, "check-corrupt"),
            Answer::fixture(version, "list-wrong-pass"),
        ]);
        with(&host, |engine, cx| {
            let mut seen = Vec::new();
            let clean = engine.check(cx, ReadData::None, &mut |p| seen.push(p)).unwrap();
            assert!(clean.damage.is_empty(), "{version}: {:?}", clean.damage);
            assert!(!seen.is_empty() && seen[0].bytes_done.is_none());
            let bad = engine.check(cx, ReadData::Percent(5.0), &mut |_| {}).unwrap();
            assert!(bad.damage[0].contains("checksum mismatch"), "{version}: {:?}", bad.damage);
            assert!(bad.extent.contains("not the 5%"), "{}", bad.extent);
            let error = engine.check(cx, ReadData::All, &mut |_| {}).unwrap_err();
            assert!(matches!(error, EngineError::WrongPassphrase { .. }), "{error:?}");
        });
        assert!(host.commands()[2].contains("--verify-data"));
    }
    let silent = ScriptedHost::new([Answer::new(1, "", "")]);
    let report = with(&silent, |engine, cx| engine.check(cx, ReadData::None, &mut |_| {}));
    assert_eq!(report.unwrap().damage.len(), 1);
    let integrity = message("ERROR", "Data integrity error: x", Some("IntegrityError"));
    let host = ScriptedHost::new([Answer::new(2, "", &integrity)]);
    let report = with(&host, |engine, cx| engine.check(cx, ReadData::None, &mut |_| {}));
    assert_eq!(report.unwrap().damage, ["Data integrity error: x"]);
    // What borg keeps here for speed is no part of the repository.
    let words = "File failed integrity check: /cache/borg/cache/ab/chunks";
    let cache = message("ERROR", words, Some("FileIntegrityError"));
    for answer in [Answer::new(2, "", &cache), Answer::new(91, "", "")] {
        let host = ScriptedHost::new([answer.clone()]);
        let error = with(&host, |engine, cx| engine.check(cx, ReadData::None, &mut |_| {}));
        let error = error.unwrap_err();
        assert!(matches!(error, EngineError::CacheDamaged { .. }), "{error:?}");
        assert!(answer.stderr.is_empty() || error.to_string().contains(words), "{error}");
        assert!(error.hint().unwrap().contains("cache-dir"));
    }
    let killed = Answer { exit: Exit::Signal(9), stdout: Vec::new(), stderr: Vec::new() };
    let host = ScriptedHost::new([killed]);
    assert!(with(&host, |engine, cx| engine.check(cx, ReadData::None, &mut |_| {})).is_err());
}

fn restore(answer: Answer) -> Result<RestoreReport, EngineError> {
    let host = ScriptedHost::new([answer]);
    let request = RestoreRequest {
        paths: vec!["/a".into()],
        ..RestoreRequest::new(copy(NAME, Utc::now()), "/to".into())
    };
    with(&host, |engine, cx| engine.restore(cx, &request, &mut |_| {}))
}

#[test]
fn a_restore_that_left_something_out_is_a_failure() {
    let attribute = message("WARNING", "a/f: attrs: [Errno 95] Operation not supported", None);
    assert_eq!(restore(Answer::new(1, "", &attribute)).unwrap().warnings.len(), 1);
    for (text, id) in [
        ("Include pattern 'a' never matched.", None),
        ("Include pattern 'a' never matched.", Some("IncludePatternNeverMatchedWarning")),
        ("a/f: open: [Errno 13] Permission denied: 'f'", None),
        ("a/f: truncate_and_attrs: [Errno 28] No space left on device", Some("BackupOSError")),
        ("a/f: link target is missing", Some("BackupHardlinkSourceError")),
    ] {
        let said = message("WARNING", text, id);
        let error = restore(Answer::new(1, "", &said)).unwrap_err();
        match error {
            EngineError::DestinationFull { .. } => assert!(text.contains("[Errno 28]"), "{text}"),
            EngineError::Failed { .. } => assert!(!text.contains("[Errno 28]"), "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let zeros = "a/f: File has damaged (all-zero) chunks. Try running borg check --repair.";
    let error = restore(Answer::new(1, "", &message("WARNING", zeros, None))).unwrap_err();
    assert!(matches!(error, EngineError::Damaged { .. }), "{error:?}");
    assert!(restore(Answer::new(1, "", "")).is_err());
    assert!(restore(Answer::new(0, "", "")).is_ok());
}

#[test]
fn a_stream_whose_producer_fails_is_no_copy() {
    let stream = |producer: Answer, consumer: Answer| {
        let mut request = request(&[]);
        let spec =
            CommandSpec::new(crate::host::Tool::from_word("dump"), crate::host::Effect::Inspect);
        request.input = Input::Stream { producer: Box::new(spec), file_name: "d.sql".into() };
        let host = ScriptedHost::new([producer, consumer]);
        with(&host, |engine, cx| engine.backup(cx, &request, &mut |_| {}))
    };
    let stopped = Answer { exit: Exit::Signal(15), stdout: Vec::new(), stderr: Vec::new() };
    match stream(Answer::new(3, "half", "no server\n"), stopped).unwrap_err() {
        EngineError::Producer { command, exit, stderr_tail } => {
            assert_eq!((command.as_str(), exit.as_str()), ("dump", "exit status 3"));
            assert_eq!(stderr_tail, "no server");
        }
        other => panic!("{other:?}"),
    }
    // borg died first, and the producer only of its broken pipe.
    let locked = Answer::fixture(VERSIONS[0], "create-locked");
    let broken_pipe = Answer { exit: Exit::Signal(13), stdout: Vec::new(), stderr: Vec::new() };
    let error = stream(broken_pipe, locked).unwrap_err();
    assert!(matches!(error, EngineError::Locked { .. }), "{error:?}");
    let fine = stream(Answer::new(0, "all", ""), Answer::new(0, &created(1), "")).unwrap();
    assert_eq!((fine.outcome, fine.files), (Outcome::Ok, Some(1)));
}

#[test]
fn entries_and_differences_are_handed_on_one_by_one() {
    let host = ScriptedHost::new([
        Answer::fixture(VERSIONS[2], "list-archive-jsonlines"),
        Answer::new(
            0,
            concat!(
                r#"{"path": "a", "changes": [{"type": "added", "size": 1}]}"#,
                "\n",
                r#"{"path": "b", "changes": [{"type": "removed directory"}]}"#,
                "\n",
                r#"{"path": "c", "changes": [{"type": "modified", "added": 1, "removed": 1}, {"type": "mtime"}]}"#,
                "\n",
                r#"{"path": "d", "changes": [{"type": "mode", "old_mode": "-rw-------", "new_mode": "-rw-r--r--"}]}"#,
                "\n",
                r#"{"path": "e", "changes": [{"type": "mode", "old_mode": "-rw-r--r--", "new_mode": "drwxr-xr-x"}]}"#,
                "\n",
                r#"{"path": "f", "changes": [{"type": "changed link"}]}"#,
                "\n",
            ),
            "",
        ),
        Answer::new(0, "not json\n", ""),
    ]);
    with(&host, |engine, cx| {
        let one = copy("a", Utc::now());
        let mut entries = Vec::new();
        engine.contents(cx, &one, &mut |entry| entries.push(entry)).unwrap();
        assert_eq!(entries[0].path, PathBuf::from("/tmp/t/fx/src"));
        let mut kinds = Vec::new();
        engine.diff(cx, &one, &one, &mut |change| kinds.push(change.kind)).unwrap();
        use ChangeKind::*;
        assert_eq!(kinds, [Added, Removed, Modified, Metadata, Type, Modified]);
        let error = engine.contents(cx, &one, &mut |_| {}).unwrap_err();
        assert!(matches!(error, EngineError::Output { .. }), "{error:?}");
    });
}

#[test]
fn a_probe_refuses_versions_it_does_not_know() {
    for (version, fits) in
        [("1.2.4", true), ("1.4.5", true), ("1.1.17", false), ("2.0.0b22", false)]
    {
        let host = ScriptedHost::new([
            Answer::new(0, &format!("borg {version}\n"), ""),
            Answer::new(0, &listing(&[]), ""),
        ]);
        let probed = with(&host, |engine, cx| engine.probe(cx));
        assert_eq!(probed.is_ok(), fits, "{version}: {probed:?}");
    }
}

#[test]
fn a_repository_that_borg_would_read_otherwise_is_refused() {
    let host = ScriptedHost::new([]);
    let settings = settings();
    let cx = Context {
        host: &host,
        settings: &settings,
        temporary: None,
        lock_wait: Duration::from_secs(1),
        run: None,
        seat: None,
    };
    for repository in ["/srv/{now}", "/srv/a::b"] {
        let error = engine_at(repository).list(cx).unwrap_err();
        assert!(matches!(error, EngineError::Unsupported { .. }), "{error:?}");
    }
}

#[test]
fn an_exclude_pattern_that_cannot_be_translated_stops_the_backup() {
    let host = ScriptedHost::new([]);
    let mut request = request(&["/a"]);
    if let Input::Tree { tree, .. } = &mut request.input {
        tree.exclude.push("!keep".into());
    }
    let error = with(&host, |engine, cx| engine.backup(cx, &request, &mut |_| {})).unwrap_err();
    assert!(error.to_string().contains("!keep"), "{error}");
}

#[test]
fn a_missing_files_cache_is_no_finding() {
    use crate::tools::borg::log::{Level, Message};
    let mut warnings = super::classify::BackupWarnings::new(&[]);
    for text in [
        "The files cache can't be read. [[Errno 2] No such file or directory: '/c/files.x']",
        "Continuing without files cache - expect lower performance.",
    ] {
        warnings.take(&Message {
            level: Level::Warning,
            logger: "borg.cache".into(),
            text: text.into(),
            id: None,
        });
    }
    assert_eq!((warnings.changed, warnings.unreadable_count), (0, 0));
    assert_eq!(warnings.outcome(crate::host::Exit::Code(0)), crate::model::outcome::Outcome::Ok);
}

mod names {
    use proptest::prelude::*;

    use super::*;

    /// Names made of everything that borg's words are searched for.
    fn hostile() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "[Errno 28] No space left on device",
            "[Errno 2] No such file or directory",
            "file changed while we backed it up",
            " changed (race condition), skipping file",
            "Remote: ",
            "Traceback",
            "Got Ctrl-C",
            "never matched.",
            "File has damaged (all-zero) chunks. ",
            "attrs",
            ": ",
            "'",
            "read",
            "n",
        ]);
        prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_name_never_changes_what_a_backup_is(name in hostile()) {
            let progress = serde_json::json!({
                "type": "archive_progress", "original_size": 1, "nfiles": 1, "path": format!("/a/{name}"),
            });
            let unread = message("WARNING", &format!("/a/{name}: read: [Errno 5] Input/output error"), None);
            let said = format!("{progress}\n{unread}");
            let report = backup(vec![Answer::new(1, &created(3), &said)], &["/a"]).unwrap();
            prop_assert_eq!((report.outcome, report.unreadable_count), (Outcome::Incomplete, 1));
            let moved = message("WARNING", &format!("/a/{name}: file changed while we backed it up"), None);
            let report = backup(vec![Answer::new(1, &created(3), &moved)], &["/a"]).unwrap();
            prop_assert_eq!((report.outcome, report.files_changed), (Outcome::Ok, 1));
            let minor = message("WARNING", &format!("a/{name}: attrs: [Errno 95] Operation not supported"), None);
            prop_assert_eq!(restore(Answer::new(1, "", &minor)).unwrap().warnings.len(), 1);
            let lost = message("WARNING", &format!("a/{name}: open: [Errno 13] Permission denied"), None);
            let lost = restore(Answer::new(1, "", &lost)).unwrap_err();
            prop_assert!(matches!(lost, EngineError::Failed { .. }), "{lost:?}");
        }
    }
}
