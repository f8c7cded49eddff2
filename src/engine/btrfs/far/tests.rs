//! What a server may say, and what is made of it.

use super::*;
use crate::engine::scripted::{Answer, ScriptedHost};
use crate::model::job::Settings;
use crate::model::names::{HostName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::target::{BtrfsOptions, EngineConfig};

const ID: &str = "home@web1._2fhome.20261121T020304Z.00000001";

fn far() -> FarEngine {
    let server = Server {
        login: "root@nas".into(),
        port: None,
        directory: "/srv/copies".into(),
        ssh_command: Vec::new(),
        side: crate::model::target::RemoteSide::Stillpoint,
        program: "stillpoint".into(),
    };
    let target = Target {
        name: TargetName::new("nas").unwrap(),
        repository: "ssh://root@nas/srv/copies".into(),
        local: None,
        engine: EngineConfig::Btrfs(BtrfsOptions {
            server: Some(server.clone()),
            compressed_data: false,
            part_size: None,
        }),
        ..Target::of_served(Path::new("/srv/copies"), std::time::Duration::from_secs(60))
    };
    let options = BtrfsOptions::default();
    FarEngine::new(&target, &server, &options)
}

/// What comes of a question.
fn asked<T>(
    answer: Answer,
    question: impl FnOnce(&FarEngine, Context<'_>) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    asked_all([answer], question)
}

/// The same of one that takes several processes.
fn asked_all<T>(
    answers: impl IntoIterator<Item = Answer>,
    question: impl FnOnce(&FarEngine, Context<'_>) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let host = ScriptedHost::new(answers);
    let settings = Settings {
        host: HostName::new("web1").unwrap(),
        state_dir: "/s".into(),
        runtime_dir: "/r".into(),
        cache_dir: "/c".into(),
        fallback_cache: None,
        parallel: 1,
        parallel_targets: 1,
        lock_wait: std::time::Duration::ZERO,
        metrics_file: None,
        max_age: std::time::Duration::ZERO,
    };
    let cx = Context {
        host: &host,
        settings: &settings,
        temporary: None,
        lock_wait: std::time::Duration::ZERO,
        run: None,
        seat: None,
    };
    question(&far(), cx)
}

fn listed(answer: Answer) -> Result<Vec<Copy>, EngineError> {
    asked(answer, |far, cx| far.list(cx))
}

/// The record of a copy of this name.
fn record(name: &str, item: &str) -> String {
    format!(
        r#"{{"format": 1, "name": "{name}", "uuid": "u", "sent": "s", "generation": 4, "changed": 1, "parent": null, "host": "web1", "job": "home", "item": "{item}", "run": "00000001", "machine": null, "time": "2026-11-21T02:03:04Z", "bytes": 1, "files": 1, "pinned": false}}"#
    )
}

fn copy() -> Copy {
    let series = crate::model::copy::Series {
        host: HostName::new("web1").unwrap(),
        job: crate::model::names::JobName::new("home").unwrap(),
        item: Some("/home".into()),
    };
    Copy { id: ID.into(), series: Some(series), ..Copy::default() }
}

#[test]
fn what_stands_in_the_way_keeps_its_meaning() {
    let said = |code, stderr: &str| listed(Answer::new(code, "", stderr)).unwrap_err();
    let error = said(255, "Host key verification failed.\n");
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
    // Nor does a line that breaks in silence leave a hole in the message; what was told before is no reason.
    for silence in ["", "{\"bytes\":12}\n"] {
        let error = said(255, silence).to_string();
        assert!(error.ends_with(": ssh ended with exit status 255 and said nothing"), "{error}");
        let error = said(1, silence).to_string();
        assert!(error.ends_with(" failed (exit status 1): it said nothing"), "{error}");
    }
    let error = said(127, "sh: 1: stillpoint: not found\n");
    assert!(error.to_string().contains("there is no stillpoint there"), "{error}");
    assert_eq!(error.trouble(), Trouble::Environment);
    let error = said(2, "error: unrecognized subcommand 'serve'\n");
    assert!(error.to_string().contains("unrecognized subcommand"), "{error}");
    let refused = |refusal: Refusal| said(10, &format!("something\n{}\n", refusal.line()));
    assert!(matches!(refused(Refusal::Missing), EngineError::RepositoryMissing { .. }));
    assert!(matches!(refused(Refusal::Full("x".into())), EngineError::Full { .. }));
    assert_eq!(refused(Refusal::Locked("x".into())).trouble(), Trouble::Busy);
    assert_eq!(refused(Refusal::Damaged("x".into())).trouble(), Trouble::Damage);
    let error = refused(Refusal::Version(7));
    assert!(error.to_string().contains("of version 7"), "{error}");
    // Of a line that was cut nothing is believed, whatever came before.
    let cut = Answer::new(255, "{\"id\": \"0123\", \"copies\": []}", "Connection closed.\n");
    assert!(matches!(listed(cut).unwrap_err(), EngineError::Unreachable { .. }));
    for odd in ["", "Welcome!\n", "{\"id\": \"0123\"}", "{\"id\": \"0123\", \"copies\": []} more"] {
        let error = listed(Answer::new(0, odd, "")).unwrap_err();
        assert!(matches!(error, EngineError::Output { .. }), "{odd:?}: {error}");
    }
}

#[test]
fn what_leads_out_of_a_copy_is_not_believed() {
    let copies = [
        record(ID, "/home"),
        record("../x", "/home"),
        record(".incoming.x", "/home"),
        record("-x", "/home"),
        record("y", "/home/../etc"),
        record("z", "home"),
    ];
    let listing = format!(r#"{{"id": "0123", "copies": [{}]}}"#, copies.join(","));
    let found = listed(Answer::new(0, &listing, "")).unwrap();
    assert_eq!(found.iter().map(|copy| copy.id.as_str()).collect::<Vec<_>>(), [ID]);

    let entry = |path: &str| {
        format!(
            r#"{{"path": "{path}", "kind": "-", "size": 1, "modified": null, "mode": 420, "uid": 0, "gid": 0}}"#
        )
    };
    let walk = |lines: String| {
        let mut paths = Vec::new();
        let walked = asked(Answer::new(0, &lines, ""), |far, cx| {
            far.contents(cx, &copy(), &mut |entry| paths.push(entry.path))
        });
        walked.map(|()| paths)
    };
    let good = format!("{}\n{}\n", entry(""), entry("a/b"));
    assert_eq!(walk(good).unwrap(), [PathBuf::from("/home/"), PathBuf::from("/home/a/b")]);
    for bad in ["/etc/shadow", "../x", "a/../../x"] {
        let lines = format!("{}\n{}\n", entry("a"), entry(bad));
        assert!(matches!(walk(lines).unwrap_err(), EngineError::Output { .. }), "{bad}");
        let differing = format!(r#"{{"path": "{bad}", "how": "added"}}"#);
        let compared = asked(Answer::new(0, &differing, ""), |far, cx| {
            far.diff(cx, &copy(), &copy(), &mut |_| {})
        });
        assert!(matches!(compared.unwrap_err(), EngineError::Output { .. }), "{bad}");
    }
}

#[test]
fn what_describes_a_copy_keeps_its_meaning() {
    use std::time::Duration;

    use crate::engine::SentAs;
    use crate::host::{Completed, PrivateView};
    use crate::tools::manifest::{Sample, compare};

    let listed = |more: &str| {
        let record = record(ID, "/home");
        let listing = format!(r#"{{"id": "0123", "copies": [{record}]{more}}}"#);
        asked(Answer::new(0, &listing, ""), |far, cx| far.sent_as(cx, &copy())).unwrap()
    };
    let sent = SentAs::Snapshot { uuid: "s".into(), generation: 4 };
    assert_eq!(listed(r#", "describes": true"#), sent);
    // One that does not know the question is not asked.
    assert!(matches!(listed(""), SentAs::Untold(_)));

    let sample = Sample { share: 100.0, seed: 7 };
    let described = |ssh: Answer, compared: Answer| -> Result<Completed, EngineError> {
        let limit = Duration::from_secs(60);
        let to = compare(Path::new("/s"), PrivateView::default(), sample, limit);
        asked_all([ssh, compared], |far, cx| {
            far.describe(cx, &copy(), sample, (&to, &mut |_, _| {}))
        })
    };
    let ended = || Answer::new(0, "{}\n", "");
    assert!(described(ended(), ended()).unwrap().success());
    let denied = Answer::new(10, "", &Refusal::NotAllowed("may not restore".into()).line());
    let error = described(denied, Answer::new(1, "", "torn")).unwrap_err();
    assert!(matches!(error, EngineError::Denied { .. }), "{error}");
    let cut = || Answer::new(255, "", "Connection closed.\n");
    let error = described(cut(), Answer::new(1, "", "torn")).unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
    // Whoever compares has ended well, so it was not listened to any more.
    assert!(described(cut(), ended()).unwrap().success());
}
