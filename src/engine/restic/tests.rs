//! The exit-code matrix of restic 0.14.0, 0.18.0 and 0.19.1, row by row, on recorded output.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{TimeZone, Utc};

use super::*;
use crate::config::testing;
use crate::engine::scripted::{Answer, ScriptedHost};
use crate::engine::{ChangeKind, Input};
use crate::host::Exit;
use crate::model::copy::Series;
use crate::model::job::Settings;
use crate::model::names::{HostName, JobName, RunId};
use crate::model::outcome::Outcome;
use crate::model::shown::Show;
use crate::model::target::EngineConfig;
use crate::tools::Tree;
use crate::tools::restic::failure;

const VERSIONS: [&str; 3] = ["0.14.0", "0.18.0", "0.19.1"];

pub(super) fn settings() -> Settings {
    testing::config(
        "[settings]\nstate-dir = '/state'\nruntime-dir = '/runtime'\ncache-dir = '/cache'\nlock-wait = '0s'",
    )
    .settings
}

pub(super) fn target(repository: &str) -> Target {
    testing::target(&format!(
        "[targets.cloud.restic]\nrepository = '{repository}'\npassword-file = '/pw'\nstall-timeout = '1h'"
    ))
}

/// The engine of a target, which may be filled from another one.
pub(super) fn of(target: &Target, source: Option<&Target>) -> ResticEngine {
    ResticEngine::new(target, target.engine.restic().unwrap(), source)
}

fn engine() -> ResticEngine {
    of(&target("/srv/restic"), None)
}

/// A machine with that restic, the password file and these sources.
pub(super) fn host(version: &str, answers: impl IntoIterator<Item = Answer>) -> ScriptedHost {
    let hello =
        Answer::new(0, &format!("restic {version} compiled with go1.19.8 on linux/amd64\n"), "");
    let mut host = ScriptedHost::new([hello].into_iter().chain(answers));
    host.files.insert("/pw".into(), b"geheim\n".to_vec());
    host.present = Some(vec!["/fixture/src".into(), "/fixture/src/sub".into(), "/to/etc".into()]);
    host
}

fn recorded(version: &str, case: &str) -> Answer {
    let mut answer = Answer::fixture(&format!("restic-{version}"), case);
    // The recorder wrote the signal as a negative status.
    if let Exit::Code(code) = answer.exit
        && code < 0
    {
        answer.exit = Exit::Signal(-code);
    }
    answer
}

pub(super) fn cx<'a>(host: &'a ScriptedHost, settings: &'a Settings) -> Context<'a> {
    Context { host, settings, temporary: None, lock_wait: Duration::ZERO, run: None, seat: None }
}

fn series() -> Series {
    Series { host: HostName::new("web1").unwrap(), job: JobName::new("web").unwrap(), item: None }
}

fn request(paths: &[&str]) -> BackupRequest {
    BackupRequest {
        series: series(),
        machine: None,
        run: RunId::parse("0badcafe").unwrap(),
        time: Utc.with_ymd_and_hms(2026, 11, 21, 2, 3, 4).unwrap(),
        input: Input::Tree {
            expected: Vec::new(),
            tree: Tree { paths: paths.iter().map(PathBuf::from).collect(), ..Tree::default() },
        },
    }
}

fn backup_of(version: &str, answer: Answer, paths: &[&str]) -> Result<BackupReport, EngineError> {
    let (host, settings) = (host(version, [answer]), settings());
    engine().backup(cx(&host, &settings), &request(paths), &mut |_| {})
}

fn copy(id: &str) -> Copy {
    Copy {
        id: id.into(),
        series: Some(series()),
        run: RunId::parse("0badcafe"),
        time: Utc.with_ymd_and_hms(2026, 11, 21, 2, 3, 4).unwrap(),
        size: None,
        files: None,
        tags: Vec::new(),
        pinned: false,
        healthy: None,
        ..Copy::default()
    }
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

#[test]
fn a_good_backup() {
    for version in VERSIONS {
        let report = backup_of(version, recorded(version, "backup-ok"), &["/fixture/src"]).unwrap();
        assert_eq!(report.outcome, Outcome::Ok, "{version}: {report:?}");
        assert_eq!((report.files, report.size), (Some(5), Some(360_007)));
        // Compressed where the version says it.
        assert_eq!(report.bytes_new.unwrap() < 363_506, version != "0.14.0");
        assert_eq!(report.unreadable_count + report.files_changed, 0);
        assert!(report.id.unwrap().len() >= 8);
    }
}

#[test]
fn a_missing_source_is_incomplete_also_where_restic_says_success() {
    for version in VERSIONS {
        for sources in [&["/fixture/src/sub", "/nonexist"][..], &["/fixture/src/sub"][..]] {
            let answer = recorded(version, "backup-missing-source");
            let report = backup_of(version, answer, sources).unwrap();
            assert_eq!(report.outcome, Outcome::Incomplete, "{version}");
            assert_eq!(report.unreadable, ["/nonexist is not there"]);
        }
        // The look alone is enough, should restic say nothing at all.
        let answer = recorded(version, "backup-ok");
        let report = backup_of(version, answer, &["/fixture/src", "/gone"]).unwrap();
        assert_eq!(report.outcome, Outcome::Incomplete, "{version}");
    }
}

#[test]
fn without_any_source_restic_is_not_started() {
    let (host, settings) = (host("0.14.0", []), settings());
    let result = engine().backup(cx(&host, &settings), &request(&["/nonexist"]), &mut |_| {});
    assert!(matches!(result, Err(EngineError::NoSource { .. })), "{result:?}");
    assert_eq!(host.commands(), ["restic version"]);
    // And should the source vanish in between:
    for version in VERSIONS {
        let answer = recorded(version, "backup-only-missing-source");
        let result = backup_of(version, answer, &["/fixture/src"]);
        assert!(matches!(result, Err(EngineError::NoSource { .. })), "{version}: {result:?}");
    }
}

#[test]
fn an_unreadable_file_is_incomplete() {
    for version in VERSIONS {
        let report =
            backup_of(version, recorded(version, "backup-unreadable"), &["/fixture/src"]).unwrap();
        assert_eq!(report.outcome, Outcome::Incomplete, "{version}");
        assert_eq!(report.unreadable_count, 1);
        assert!(report.unreadable[0].contains("/fixture/src/noread"), "{report:?}");
        assert_eq!(report.warnings, Vec::<String>::new());
    }
}

#[test]
fn a_file_that_failed_without_a_word_is_looked_for() {
    let judge = |item: &str| {
        let stdout = format!(
            r#"{{"message_type":"error","error":{{}},"during":"archival","item":"{item}"}}
{{"message_type":"summary","total_files_processed":1,"snapshot_id":"499f553d"}}
"#
        );
        backup_of("0.14.0", Answer::new(3, &stdout, ""), &["/fixture/src"]).unwrap()
    };
    let gone = judge("/fixture/src/gone");
    assert_eq!((gone.outcome, gone.files_changed, gone.unreadable_count), (Outcome::Ok, 1, 0));
    // There; not to be found because its name was not spelt out; relative to who knows what.
    for item in ["/fixture/src/sub", "/fixture/src/caf\u{fffd}", "src/gone", ""] {
        let report = judge(item);
        assert_eq!(report.outcome, Outcome::Incomplete, "{item}");
        assert_eq!((report.files_changed, report.unreadable_count), (0, 1), "{item}");
        assert!(report.unreadable[0].ends_with("restic did not say why"), "{report:?}");
    }
}

#[test]
fn what_the_exit_status_hides_is_seen() {
    let summary =
        r#"{"message_type":"summary","total_files_processed":1,"snapshot_id":"499f553d"}"#;
    let gone = r#"{"message_type":"error","error":{"Op":"lstat","Path":"/fixture/src/x","Err":2},"during":"archival","item":"/fixture/src/x"}"#;
    let denied = r#"{"message_type":"error","error":{"message":"open /fixture/src/x: permission denied"},"during":"archival","item":"/fixture/src/x"}"#;
    let root = gone.replace("/fixture/src/x", "/fixture/src");
    let scan = denied.replace("archival", "scan");
    let judge = |code, stderr: &str| {
        backup_of("0.14.0", Answer::new(code, summary, stderr), &["/fixture/src"]).unwrap()
    };
    assert_eq!(judge(3, gone).outcome, Outcome::Ok);
    assert_eq!(judge(3, gone).files_changed, 1);
    assert_eq!(judge(3, &root).outcome, Outcome::Incomplete);
    assert_eq!(judge(3, "").outcome, Outcome::Incomplete);
    assert_eq!(judge(0, denied).outcome, Outcome::Incomplete);
    assert_eq!(judge(0, &scan).outcome, Outcome::Warning);
    assert_eq!(judge(3, &format!("{scan}\n{denied}")).unreadable_count, 1);
    assert_eq!(judge(0, "unable to open cache: x").outcome, Outcome::Warning);
    assert_eq!(
        judge(0, "Load(<data/1>) returned error, retrying after 1s: x").outcome,
        Outcome::Ok
    );
}

#[test]
fn a_backup_without_a_summary_is_an_error() {
    for stdout in ["", "{\"message_type\":\"summary\"}\n", "{\"message_type\":\"status\"}\n"] {
        let result = backup_of("0.18.0", Answer::new(0, stdout, ""), &["/fixture/src"]);
        assert!(matches!(result, Err(EngineError::Output { .. })), "{result:?}");
    }
}

#[test]
fn a_stopped_backup_is_a_failure() {
    for version in VERSIONS {
        for case in ["backup-SIGTERM", "backup-SIGINT", "bad-flag"] {
            let result = backup_of(version, recorded(version, case), &["/fixture/src"]);
            assert!(
                matches!(result, Err(EngineError::Failed { .. })),
                "{version} {case} {result:?}"
            );
        }
    }
}

#[test]
fn progress_is_handed_on() {
    let (host, settings) = (host("0.18.0", [recorded("0.18.0", "backup-ok")]), settings());
    let mut seen = Vec::new();
    engine()
        .backup(cx(&host, &settings), &request(&["/fixture/src"]), &mut |p| seen.push(p))
        .unwrap();
    assert_eq!(seen[0].bytes_done, Some(240_007));
    assert_eq!(seen[0].bytes_total, Some(360_007));
}

#[test]
fn failures_have_their_own_errors() {
    type Call = fn(&ResticEngine, Context<'_>) -> Result<(), EngineError>;
    type Expected = fn(&EngineError) -> bool;
    let probe: Call = |engine, cx| engine.probe(cx).map(drop);
    let check: Call = |engine, cx| engine.check(cx, ReadData::None, &mut |_| {}).map(drop);
    let rows: [(&str, Call, Expected); 7] = [
        ("catconfig-norepo", probe, |e| matches!(e, EngineError::RepositoryMissing { .. })),
        (
            "wrong-pass",
            |e, cx| e.list(cx).map(drop),
            |e| matches!(e, EngineError::WrongPassphrase { .. }),
        ),
        (
            "init-exists",
            |e, cx| e.init(cx).map(drop),
            |e| matches!(e, EngineError::RepositoryExists { .. }),
        ),
        (
            "prune-locked",
            |e, cx| e.compact(cx, &mut |_| {}).map(drop),
            |e| matches!(e, EngineError::Locked { detail, .. } if detail.contains("PID")),
        ),
        ("check-locked", check, |e| matches!(e, EngineError::Locked { .. })),
        ("check-wrong-pass", check, |e| matches!(e, EngineError::WrongPassphrase { .. })),
        (
            "prune-locked",
            |e, cx| e.delete(cx, &[id('a')]),
            |e| matches!(e, EngineError::Locked { .. }),
        ),
    ];
    for version in VERSIONS {
        for (case, call, expected) in &rows {
            let (host, settings) = (host(version, [recorded(version, case)]), settings());
            let error = call(&engine(), cx(&host, &settings)).unwrap_err();
            assert!(expected(&error), "{version} {case}: {error:?}");
        }
    }
}

#[test]
fn checks() {
    for version in VERSIONS {
        let settings = settings();
        let check = |case| {
            let host = host(version, [recorded(version, case)]);
            engine().check(cx(&host, &settings), ReadData::All, &mut |_| {})
        };
        assert_eq!(check("check-ok").unwrap().damage, Vec::<String>::new(), "{version}");
        let damage = check("check-corrupt-readdata").unwrap().damage;
        assert_eq!(damage.len(), 1, "{version}: {damage:?}");
        assert!(damage[0].to_lowercase().starts_with("pack "), "{damage:?}");
        // Success without proof is none.
        let host = host(version, [Answer::new(0, "", "")]);
        let result = engine().check(cx(&host, &settings), ReadData::All, &mut |_| {});
        assert!(matches!(result, Err(EngineError::Output { .. })));
    }
}

#[test]
fn verification_finds_damage_and_mends_the_lock_of_a_crash() {
    let settings = settings();
    let verify = |version, answers: Vec<Answer>| {
        let host = host(version, answers);
        let result = engine().verify(cx(&host, &settings), &copy(&id('a')));
        (result, host.commands())
    };
    let no_locks = || Answer::new(0, "", "");
    let decrypting =
        "decrypting blob <data/ef812695> from 8df97567 failed: ciphertext verification failed";
    for text in [
        format!("cannot dump file: {decrypting}"),
        format!("Fatal: cannot dump file: {decrypting}"),
    ] {
        let (result, _) = verify("0.18.0", vec![Answer::new(1, "", &text)]);
        assert_eq!(result.unwrap().damage.len(), 1);
    }
    let crash = "panic: runtime error: x\ngoroutine 36 [running]:\ngithub.com/restic/restic/internal/walker.walk()\n";
    let config = || Answer::new(0, r#"{"version":2,"id":"ab"}"#, "");
    let crashed = || Answer::new(2, "", crash);
    let answers = vec![crashed(), no_locks(), config(), crashed(), no_locks()];
    let (result, commands) = verify("0.18.0", answers);
    assert!(result.unwrap().damage[0].contains("cannot be loaded"));
    assert!(commands[2].contains(" list ") && commands.len() == 6, "{commands:?}");
    // A connection that breaks ends restic in the same way, and is no damage.
    let broken = || Answer::new(1, "", "Fatal: cannot dump file: unexpected EOF");
    let gone = || Answer::new(1, "", "Fatal: unable to open config file: connection refused");
    let (result, _) = verify("0.18.0", vec![broken(), gone()]);
    assert!(matches!(result, Err(EngineError::Unreachable { .. })), "{result:?}");
    let (result, _) = verify("0.18.0", vec![broken(), config(), gone()]);
    assert!(matches!(result, Err(EngineError::Unreachable { .. })), "{result:?}");
    let whole = Answer::new(0, "", "");
    let (result, _) = verify("0.18.0", vec![broken(), config(), whole]);
    assert_eq!(result.unwrap().damage, Vec::<String>::new());
    let (result, _) = verify("0.18.0", vec![broken(), config(), broken()]);
    assert!(result.unwrap().damage[0].contains("unexpected EOF"));
    let elsewhere = crash.replace("walker", "backend");
    let (result, _) = verify("0.18.0", vec![Answer::new(2, "", &elsewhere), no_locks()]);
    assert!(matches!(result, Err(EngineError::Failed { .. })));
    let (result, _) =
        verify("0.14.0", vec![Answer::new(1, "", "invalid id \"x\": no matching ID found")]);
    assert!(matches!(result, Err(EngineError::Failed { .. })));
}

#[test]
fn listings_of_three_versions() {
    for version in VERSIONS {
        let (host, settings) = (host(version, [recorded(version, "snapshots")]), settings());
        let copies = engine().list(cx(&host, &settings)).unwrap();
        assert_eq!(copies.len(), 4, "{version}");
        for copy in &copies {
            assert_eq!(copy.id.len(), 64);
            assert_eq!(copy.series, None);
            assert_eq!(copy.files.is_some(), version != "0.14.0");
        }
    }
}

#[test]
fn contents_of_three_versions() {
    for version in VERSIONS {
        let settings = settings();
        let answer = recorded(version, "ls-latest");
        let text = String::from_utf8(answer.stdout.clone()).unwrap();
        let start = text.find(r#""id":""#).unwrap() + 6;
        let whole = text[start..start + 64].to_owned();
        let mut entries = Vec::new();
        let asking = host(version, [answer]);
        engine()
            .contents(cx(&asking, &settings), &copy(&whole), &mut |entry| entries.push(entry))
            .unwrap();
        assert_eq!(entries.len(), 8, "{version}");
        assert_eq!(entries[0].kind, 'd');
        assert_eq!(entries.iter().filter(|entry| entry.kind == '-').count(), 3);
        for answer in [
            Answer::new(0, "", "Ignoring \"x\": no matching ID found for prefix \"x\"\n"),
            Answer::new(0, &text, ""),
            Answer::new(0, &text.replace(r#""type":"dir""#, r#""tipe":"dir""#), ""),
        ] {
            let other = if answer.stdout.len() == text.len() && answer.stdout == text.as_bytes() {
                id('b')
            } else {
                whole.clone()
            };
            let asking = host(version, [answer]);
            let result = engine().contents(cx(&asking, &settings), &copy(&other), &mut |_| {});
            assert!(result.is_err(), "{version}");
        }
    }
}

#[test]
fn a_comparison_that_lost_a_directory_is_an_error() {
    let settings = settings();
    let lines = "{\"message_type\":\"change\",\"path\":\"/a/\",\"modifier\":\"U\"}\n{\"message_type\":\"change\",\"path\":\"/a/b\",\"modifier\":\"M\"}\n";
    let end = "{\"message_type\":\"statistics\"}\n";
    let compare = |stdout: &str, stderr: &str| {
        let host = host("0.14.0", [Answer::new(0, stdout, stderr)]);
        let mut kinds = Vec::new();
        engine()
            .diff(cx(&host, &settings), &copy(&id('a')), &copy(&id('b')), &mut |change| {
                kinds.push((change.path.shown().to_string(), change.kind));
            })
            .map(|()| kinds)
    };
    assert_eq!(
        compare(&format!("{lines}{end}"), "").unwrap(),
        [("/a".into(), ChangeKind::Metadata), ("/a/b".into(), ChangeKind::Modified)]
    );
    assert!(matches!(compare(lines, ""), Err(EngineError::Output { .. })));
    let stderr = "error: decrypting blob 93dc failed: ciphertext verification failed\n";
    assert!(matches!(compare(end, stderr), Err(EngineError::Damaged { .. })));
}

fn restore_of(
    version: &str,
    answers: Vec<Answer>,
    paths: &[&str],
) -> Result<RestoreReport, EngineError> {
    let (host, settings) = (host(version, answers), settings());
    let request = RestoreRequest {
        paths: paths.iter().map(PathBuf::from).collect(),
        ..RestoreRequest::new(copy(&id('a')), "/to".into())
    };
    engine().restore(cx(&host, &settings), &request, &mut |_| {})
}

#[test]
fn restores() {
    for version in VERSIONS {
        let listing = format!(
            "{{\"struct_type\":\"snapshot\",\"id\":\"{}\"}}\n\
             {{\"struct_type\":\"node\",\"type\":\"dir\",\"path\":\"/etc\"}}\n\
             {{\"struct_type\":\"node\",\"type\":\"symlink\",\"path\":\"/link\"}}\n",
            id('a')
        );
        let listed = || Answer::new(0, &listing, "");
        // Something was at `/to/etc` before, so the copy is asked.
        let answers = vec![recorded(version, "restore"), listed()];
        let report = restore_of(version, answers, &["/etc"]).unwrap();
        assert_eq!(report.files, (version != "0.14.0").then_some(8));
        assert_eq!(report.warnings, Vec::<String>::new());
        // Nothing matched, and restic says success.
        let silent = || Answer::new(0, "", "");
        let answers = vec![silent(), listed(), listed()];
        let error = restore_of(version, answers, &["/etc", "/nope"]).unwrap_err();
        assert!(error.to_string().contains("/nope is not in the copy"), "{error}");
        restore_of(version, vec![silent(), listed()], &["/link"]).unwrap();
    }
    let lost = "ignoring error for /x: open /to/x: is a directory\nFatal: There were 1 errors\n";
    assert!(restore_of("0.14.0", vec![Answer::new(1, "", lost)], &[]).is_err());
    let owner = "ignoring error for /x: lchown /to/x: operation not permitted\nFatal: There were 1 errors\n";
    let report = restore_of("0.14.0", vec![Answer::new(1, "", owner)], &[]).unwrap();
    assert_eq!(report.warnings.len(), 1);
    // One more than was shown: then nothing is known.
    let more = owner.replace("were 1", "were 2");
    assert!(restore_of("0.14.0", vec![Answer::new(1, "", &more)], &[]).is_err());
    // A file that is lost is lost whatever it is called.
    let text = |line: &str| format!("ignoring error for {line}\nFatal: There were 1 errors\n");
    let json = |message: &str, item: &str| {
        format!(
            "{{\"message_type\":\"error\",\"error\":{{\"message\":\"{message}\"}},\"during\":\"restore\",\"item\":\"{item}\"}}\n\
             {{\"message_type\":\"exit_error\",\"code\":1,\"message\":\"Fatal: There were 1 errors\\n\"}}\n"
        )
    };
    let damaged = "decrypting blob <data/98ea6e4f> from 3a2b24e1 failed: nonce is invalid";
    for item in ["/man2/fchmodat.2.gz", "/a: chmod b/f", "/x: lchown "] {
        let old = text(&format!("{item}: nonce is invalid"));
        let result = restore_of("0.14.0", vec![Answer::new(1, "", &old)], &[]);
        assert!(result.is_err(), "{item}: {result:?}");
        let new = json(damaged, item);
        let result = restore_of("0.18.0", vec![Answer::new(1, "", &new)], &[]);
        assert!(result.is_err(), "{item}: {result:?}");
        let message = format!("lchown /to{item}: invalid argument");
        let old = text(&format!("{item}: Lchown: {message}"));
        for (version, stderr) in [("0.14.0", old), ("0.18.0", json(&message, item))] {
            let report = restore_of(version, vec![Answer::new(1, "", &stderr)], &[]).unwrap();
            assert_eq!(report.warnings.len(), 1, "{version} {item}");
        }
    }
}

#[test]
fn a_preview_of_a_restore_needs_a_newer_restic() {
    let settings = settings();
    let request =
        RestoreRequest { dry_run: true, ..RestoreRequest::new(copy(&id('a')), "/to".into()) };
    let old = host("0.14.0", []);
    let result = engine().restore(cx(&old, &settings), &request, &mut |_| {});
    assert!(matches!(result, Err(EngineError::Unsupported { .. })));
    let mut noting = host("0.14.0", []);
    noting.dry = true;
    engine().restore(cx(&noting, &settings), &request, &mut |_| {}).unwrap();
    assert_eq!(noting.asked.lock().unwrap()[1].effect, crate::host::Effect::Mutate);
    let new = host("0.18.0", [recorded("0.18.0", "restore")]);
    engine().restore(cx(&new, &settings), &request, &mut |_| {}).unwrap();
    assert!(new.commands()[1].contains("--dry-run"));
}

#[test]
fn only_whole_ids_reach_restic() {
    let settings = settings();
    for bad in ["latest", "abcdef12", "--prune", "", &"A".repeat(64)] {
        let host = host("0.18.0", []);
        assert!(engine().delete(cx(&host, &settings), &[id('a'), bad.to_owned()]).is_err());
        assert!(engine().verify(cx(&host, &settings), &copy(bad)).is_err());
        assert!(!host.commands().iter().any(|command| command.contains("forget")));
    }
    let host = host("0.18.0", []);
    engine().delete(cx(&host, &settings), &[]).unwrap();
    assert_eq!(host.commands().len(), 1);
}

#[test]
fn a_stream_whose_producer_fails_is_no_copy() {
    let settings = settings();
    let mut wanted = request(&[]);
    wanted.input = Input::Stream {
        producer: Box::new(CommandSpec::new(
            Tool::from_word("pg_dumpall"),
            crate::host::Effect::Inspect,
        )),
        file_name: "all.sql".into(),
    };
    let summary =
        r#"{"message_type":"summary","total_files_processed":1,"snapshot_id":"499f553d"}"#;
    let run = |producer: Answer, consumer: Answer| {
        let host = host("0.14.0", [producer, consumer]);
        engine().backup(cx(&host, &settings), &wanted, &mut |_| {})
    };
    let good = run(Answer::new(0, "x", "a notice\n"), Answer::new(0, summary, "")).unwrap();
    assert_eq!(good.outcome, Outcome::Ok, "{good:?}");
    let mut stopped = Answer::new(130, "", "signal interrupt received, cleaning up\n");
    stopped.exit = Exit::Signal(2);
    let error = run(Answer::new(1, "", "no database\n"), stopped).unwrap_err();
    assert!(
        matches!(&error, EngineError::Producer { stderr_tail, .. } if stderr_tail == "no database")
    );
    let killed = |signal| Answer { exit: Exit::Signal(signal), ..Answer::new(0, "", "") };
    // A broken pipe, or the host's own stop of a producer without a reader.
    for signal in [13, 15] {
        let error = run(killed(signal), recorded("0.14.0", "wrong-pass")).unwrap_err();
        assert!(matches!(error, EngineError::WrongPassphrase { .. }), "{error:?}");
        let error = run(killed(signal), killed(9)).unwrap_err();
        assert!(matches!(error, EngineError::Failed { .. }), "{error:?}");
    }
    for stopped in VERSIONS {
        let error = run(killed(9), recorded(stopped, "backup-SIGINT")).unwrap_err();
        assert!(matches!(error, EngineError::Producer { .. }), "{stopped}: {error:?}");
    }
}

#[test]
fn a_pin_is_found_under_its_new_id() {
    let settings = settings();
    let listing = format!(
        r#"[{{"id":"{}","time":"2026-11-21T02:03:04Z","hostname":"web1","tags":["job=web","run=0badcafe","protected"],"original":"{}"}}]"#,
        id('b'),
        id('a')
    );
    let asking = host(
        "0.14.0",
        [
            Answer::new(0, "[]", ""),
            Answer::new(0, "modified tags on 1 snapshots\n", ""),
            Answer::new(0, &listing, ""),
        ],
    );
    let new = engine().set_pin(cx(&asking, &settings), &copy(&id('a')), true).unwrap();
    assert_eq!(new, id('b'));
    let nothing = || Answer::new(0, "[]", "");
    let unchanged = host("0.14.0", [nothing(), Answer::new(0, "", ""), nothing()]);
    assert!(engine().set_pin(cx(&unchanged, &settings), &copy(&id('a')), true).is_err());
    // What was there before only claims to be it.
    let answers =
        [Answer::new(0, &listing, ""), Answer::new(0, "", ""), Answer::new(0, &listing, "")];
    let stale = host("0.14.0", answers);
    let refused = engine().set_pin(cx(&stale, &settings), &copy(&id('a')), true).unwrap_err();
    assert!(refused.to_string().contains("are as before"), "{refused}");
}

#[test]
fn a_dry_run_predicts_what_the_listing_shows() {
    let settings = settings();
    let old = format!(
        r#"[{{"id":"{}","time":"2026-11-20T02:03:04Z","hostname":"web1","tags":["job=web","run=00000001"]}}]"#,
        id('a')
    );
    let mut host = host("0.14.0", (0..5).map(|_| Answer::new(0, &old, "")));
    host.dry = true;
    let engine = engine();
    let cx = cx(&host, &settings);
    let report = engine.backup(cx, &request(&["/fixture/src"]), &mut |_| {}).unwrap();
    assert_eq!((report.files, report.bytes_new), (None, None));
    let copies = engine.list(cx).unwrap();
    assert_eq!(copies.len(), 2);
    assert_eq!(Some(&copies[1].id), report.id.as_ref());
    assert_eq!(copies[1].series, Some(series()));
    assert_eq!(copies[1].run, RunId::parse("0badcafe"));
    engine.delete(cx, &[id('a')]).unwrap();
    assert_eq!(engine.list(cx).unwrap(), copies[1..]);
    let pinned = engine.set_pin(cx, &copies[1], true).unwrap();
    let now = engine.list(cx).unwrap();
    assert_eq!(now.len(), 1);
    assert!(now[0].pinned && now[0].id == pinned && now[0].original == Some(copies[1].id.clone()));
}

#[test]
fn what_copying_needs() {
    let settings = settings();
    let mut from = target("/srv/from");
    let mut to = target("rest:https://me:pw99@host/r");
    for (target, path) in [(&mut from, "/env-a"), (&mut to, "/env-b")] {
        let EngineConfig::Restic(restic) = &mut target.engine else { unreachable!() };
        restic.environment_file = Some(path.into());
    }
    let source = of(&from, None);
    let engine = of(&to, Some(&from));
    let mut host = host(
        "0.14.0",
        [
            Answer::new(0, "snapshot 1 saved\n", ""),
            Answer::new(0, "", "Ignoring \"x\": no matching ID found for prefix \"x\"\n"),
            Answer::new(1, "", "Fatal: cannot talk to https://me:pw99@host/r: nonsense KEYA1\n"),
            Answer::new(1, "", "ciphertext verification failed\nStreamPack\n\tmain.go:1\n"),
            Answer::new(
                1,
                "",
                "Fatal: LoadIndex returned errors: [id 12345678: invalid data returned]\n",
            ),
        ],
    );
    host.files.insert("/env-a".into(), b"KEY=KEYA1\nREGION=eu".to_vec());
    host.files.insert("/env-b".into(), b"OTHER=KEYB1\nREGION=eu".to_vec());
    let cx = cx(&host, &settings);
    engine.copy_from(cx, &source, &[], &mut |_| {}).unwrap();
    assert_eq!(host.commands().len(), 1);
    engine.copy_from(cx, &source, &[&copy(&id('a'))], &mut |_| {}).unwrap();
    let error = engine.copy_from(cx, &source, &[&copy(&id('a'))], &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no matching ID"), "{error}");
    let error =
        engine.copy_from(cx, &source, &[&copy(&id('a'))], &mut |_| {}).unwrap_err().to_string();
    assert!(!error.contains("pw99") && !error.contains("KEYA1"), "{error}");
    for (said, expected) in [
        ("ciphertext verification failed\nStreamPack\n\tmain.go:1\n", true),
        ("Fatal: LoadIndex returned errors: [id 12345678: invalid data returned]\n", false),
    ] {
        let error = engine.copy_from(cx, &source, &[&copy(&id('a'))], &mut |_| {}).unwrap_err();
        let EngineError::DamagedBetween { from, to, source_only, .. } = &error else {
            panic!("{said}: {error:?}")
        };
        assert_eq!((from, to), (&source.target().name, &engine.target().name));
        assert_eq!(*source_only, expected, "{said}");
    }
    let spec = host.asked.lock().unwrap()[1].clone();
    assert!(spec.env.iter().any(|(name, _)| name == "RESTIC_FROM_REPOSITORY"));
    assert_eq!(spec.env.iter().filter(|(name, _)| name == "REGION").count(), 1);
    // The same variable with two values cannot be in one process.
    let mut conflict = self::host("0.14.0", []);
    conflict.files.insert("/env-a".into(), b"KEY=1".to_vec());
    conflict.files.insert("/env-b".into(), b"KEY=2".to_vec());
    let engine = of(&to, Some(&from));
    let result =
        engine.copy_from(self::cx(&conflict, &settings), &source, &[&copy(&id('a'))], &mut |_| {});
    assert!(matches!(result, Err(EngineError::Unsupported { .. })), "{result:?}");
}

#[test]
fn what_restic_is_too_old_for() {
    let settings = settings();
    let old = host("0.12.1", []);
    assert!(matches!(engine().probe(cx(&old, &settings)), Err(EngineError::Unsupported { .. })));
    let mut open = target("/srv/open");
    open.secret = None;
    let open = |host: &ScriptedHost| {
        of(&open, None).probe(cx(host, &settings)).map(|probe| probe.repository_id)
    };
    assert!(matches!(open(&host("0.14.0", [])), Err(EngineError::Unsupported { .. })));
    let new = host("0.18.0", [Answer::new(0, "{\n \"version\": 2,\n \"id\": \"36f5\"\n}\n", "")]);
    assert_eq!(open(&new).unwrap().as_deref(), Some("36f5"));
    assert!(new.commands()[1].contains("--insecure-no-password"));
}

mod names {
    use proptest::prelude::*;

    use super::*;

    /// Names made of everything that restic's words are searched for.
    fn hostile() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "no space left on device",
            "repository is already locked",
            "wrong password or no key found",
            "unable to open config file",
            "connection refused",
            "ciphertext verification failed",
            "source directories/files do not exist",
            ": no such file or directory",
            " does not exist, skipping",
            ") returned error, retrying after ",
            "signal interrupt received, cleaning up",
            "Fatal: ",
            "panic: ",
            "x",
        ]);
        prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_name_never_changes_what_a_backup_is(name in hostile()) {
            let item = format!("/fixture/src/{name}");
            let problem = serde_json::json!({
                "message_type": "error", "error": { "message": format!("open {item}: permission denied") },
                "during": "archival", "item": item,
            });
            let summary = r#"{"message_type":"summary","total_files_processed":1,"snapshot_id":"499f553d"}"#;
            let answer = Answer::new(3, summary, &problem.to_string());
            let report = backup_of("0.18.0", answer, &["/fixture/src"]).unwrap();
            prop_assert_eq!((report.outcome, report.unreadable_count), (Outcome::Incomplete, 1));
            // What makes it fail is told the same, whatever file went wrong besides.
            for (said, kind) in [("Fatal: out of memory", failure::Kind::Other), ("Fatal: write /srv/r: no space left on device", failure::Kind::Full)] {
                let stderr = format!("{problem}\n{said}\n");
                prop_assert_eq!(failure::diagnose(Exit::Code(1), stderr.as_bytes()).kind, kind);
            }
        }

        #[test]
        fn a_line_break_in_a_name_forges_no_result(name in hostile()) {
            let forged = r#"{"message_type":"summary","total_files_processed":9,"snapshot_id":"00000000"}"#;
            let text = format!("can not obtain extended attribute user.x for /fixture/src/{name}\n{forged}\n/fixture/src does not exist, skipping");
            let summary = r#"{"message_type":"summary","total_files_processed":1,"snapshot_id":"499f553d"}"#;
            let report = backup_of("0.14.0", Answer::new(0, summary, &text), &["/fixture/src"]).unwrap();
            prop_assert_eq!(report.id.as_deref(), Some("499f553d"));
            prop_assert_eq!((report.outcome, report.unreadable_count), (Outcome::Warning, 0));
        }
    }
}
