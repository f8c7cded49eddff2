//! What is killed, stopped, held up or listened in on: after each of these nothing is left and nothing is
//! lost, and the next run needs no help.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stillpoint::host::sys::process;
use stillpoint::host::system::SystemHost;
use stillpoint::host::{Action, Host};

use crate::bench_machine::{
    Machine, command, must, processes_about, wait_for_no_process_about, wait_until,
};

/// One job with hooks that stop and start a service (a file stands for it), into both engines.
const HOOKED: &str = r#"
[targets.b.keep]
last = 2
[targets.r.keep]
last = 2
[jobs.host]
targets = ["b", "r"]
[jobs.host.files]
paths = ["{root}/src"]
capture = "none"
[jobs.host.hooks]
before = [["{root}/service-stop"]]
finally = [["{root}/service-start"]]
"#;

fn hooked() -> Machine {
    let machine = Machine::new(HOOKED);
    let service = machine.path("service");
    fs::write(&service, "up").unwrap();
    machine.script("service-stop", &format!("rm -f '{}'", service.display()));
    machine.script("service-start", &format!("echo up > '{}'", service.display()));
    machine
}

fn ledger(machine: &Machine) -> Option<PathBuf> {
    let entries = fs::read_dir(machine.path("state/ledger")).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
}

fn lines(machine: &Machine) -> usize {
    ledger(machine)
        .and_then(|path| fs::read(path).ok())
        .map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

fn signal(child: &Child, name: &str) {
    must("kill", &["-s", name, &child.id().to_string()]);
}

#[test]
fn kill_9_at_every_line_of_the_ledger() {
    let machine = hooked();
    machine.run(&["run"]).expect(0);
    let mut reached = 0;
    let mut before = (machine.copies("b"), machine.copies("r"));
    for stop_at in 1.. {
        let mut child = machine.start(&["run"]);
        let in_time = wait_until(&mut child, || lines(&machine) >= stop_at);
        if !in_time {
            assert!(child.wait().unwrap().success());
            break;
        }
        signal(&child, "KILL");
        child.wait().unwrap();
        reached = stop_at;
        let after = format!("SIGKILL at line {stop_at}");
        // Engines die with us: their parent-death signal, then recover for what survives that.
        machine.run(&["recover"]).expect(0);
        assert!(machine.path("service").exists(), "{after}: the service is down");
        wait_for_no_process_about(&machine.path("").to_string_lossy());
        machine.assert_clean();
        let now = (machine.copies("b"), machine.copies("r"));
        assert!(
            before.0.last().is_none_or(|id| now.0.contains(id)),
            "{after}: a copy is lost in b"
        );
        assert!(
            before.1.last().is_none_or(|id| now.1.contains(id)),
            "{after}: a copy is lost in r"
        );
        machine.run(&["run"]).expect(0);
        machine.assert_clean();
        before = (machine.copies("b"), machine.copies("r"));
        assert_eq!((before.0.len(), before.1.len()), (2, 2), "{after}: the policy keeps two");
    }
    println!("killed at {reached} points");
    assert!(reached >= 15, "only {reached} points: the loop killed too late");
    machine.run(&["check"]).expect(0);
}

#[test]
fn kill_9_without_recover_is_mended_by_the_next_run() {
    let machine = hooked();
    machine.run(&["run"]).expect(0);
    for stop_at in [3, 6, 9, 12, 15] {
        let mut child = machine.start(&["run"]);
        if wait_until(&mut child, || lines(&machine) >= stop_at) {
            signal(&child, "KILL");
        }
        child.wait().unwrap();
        machine.run(&["run"]).expect(0);
        assert!(machine.path("service").exists());
        machine.assert_clean();
    }
}

#[test]
fn a_dead_process_is_waited_for_until_it_is_reaped() {
    let host = SystemHost::stopped_by(Arc::default());
    let mut child = command("true").spawn().unwrap();
    let recorded = process::identify(child.id().cast_signed()).unwrap().unwrap();
    let reaper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        child.wait().unwrap()
    });
    let grace = Duration::from_secs(1);
    host.act(&Action::StopProcess { child: recorded.clone(), grace }).unwrap();
    let found = process::identify(recorded.pid).unwrap();
    assert!(!found.is_some_and(|found| found.is_same(&recorded)), "it is still there");
    reaper.join().unwrap();
}

/// A machine whose source takes a while to read, so that a signal meets the engine at work.
fn slow(target: &str) -> Machine {
    let machine = hooked();
    machine.configure(&HOOKED.replace(r#"["b", "r"]"#, &format!(r#"["{target}"]"#)));
    for number in 0..60 {
        let path = machine.path(&format!("src/big{number}"));
        must(
            "dd",
            &[
                "if=/dev/urandom",
                &format!("of={}", path.display()),
                "bs=1M",
                "count=8",
                "status=none",
            ],
        );
    }
    machine
}

#[test]
fn sigterm_and_sigint_unwind_and_are_no_success() {
    for target in ["b", "r"] {
        let machine = slow(target);
        for (name, code) in [("TERM", 143), ("INT", 130)] {
            let mut child = machine.start(&["-v", "run"]);
            let repository = machine.path(if target == "b" { "repo-b" } else { "repo-r" });
            let verb = if target == "b" { "create" } else { "backup" };
            let at_work = wait_until(&mut child, || {
                processes_about(verb)
                    .iter()
                    .any(|line| line.contains(&machine.path("").to_string_lossy().into_owned()))
            });
            assert!(at_work, "the engine was too fast");
            std::thread::sleep(Duration::from_millis(400));
            let started = Instant::now();
            signal(&child, name);
            let output = child.wait_with_output().unwrap();
            assert!(started.elapsed() < Duration::from_secs(90), "{target} {name}: slow to stop");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{target} {name}: {said}");
            assert!(machine.path("service").exists(), "{target} {name}: the service is down");
            machine.assert_clean();
            assert!(repository.exists());
        }
        machine.run(&["run"]).expect(0);
        assert_eq!(machine.copies(target).len(), 1, "{target}: interrupted runs left no copy");
        let all = machine.run(&["--json", "list", "--all", "--target", target]).expect(0).json();
        assert_eq!(all["copies"].as_array().unwrap().len(), 1, "{target}: nor half of one: {all}");
        machine.assert_clean();
    }
}

#[test]
fn a_killed_engine_fails_the_run_and_leaves_no_lock() {
    for target in ["b", "r"] {
        let machine = slow(target);
        let mut child = machine.start(&["run"]);
        let verb = if target == "b" { "create" } else { "backup" };
        let root = machine.path("").to_string_lossy().into_owned();
        let mut victim = String::new();
        let found = wait_until(&mut child, || {
            let line = processes_about(&root).into_iter().find(|line| line.contains(verb));
            line.is_some_and(|line| {
                victim = line.split(':').next().unwrap().to_owned();
                true
            })
        });
        assert!(found);
        std::thread::sleep(Duration::from_millis(400));
        must("kill", &["-KILL", &victim]);
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(10),
            "{target}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(machine.path("service").exists());
        machine.run(&["run"]).expect(0);
        machine.assert_clean();
    }
}

#[test]
fn a_second_run_waits_and_then_says_busy() {
    let machine = slow("b");
    let mut first = machine.start(&["run"]);
    assert!(wait_until(&mut first, || lines(&machine) >= 3));
    let report = machine.run(&["--json", "run"]).expect(5).json();
    assert_eq!(report["jobs"][0]["outcome"], "failed");
    assert!(
        report["jobs"][0]["steps"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("another run holds the lock")
    );
    assert!(first.wait().unwrap().success(), "the first run is not harmed");
    // With patience the second run succeeds after the first.
    let text = fs::read_to_string(machine.path("stillpoint.toml")).unwrap();
    machine.write(
        "stillpoint.toml",
        &text.replace("lock-wait = \"1s\"", "lock-wait = \"2m\""),
        0o600,
    );
    let mut first = machine.start(&["run"]);
    assert!(wait_until(&mut first, || lines(&machine) >= 3));
    machine.run(&["run"]).expect(0);
    assert!(first.wait().unwrap().success());
    machine.assert_clean();
}

#[test]
fn hooks_skip_fail_time_out_and_always_have_the_last_word() {
    let job = |hooks: &str| {
        format!(
            r#"
[jobs.host]
targets = ["b"]
[jobs.host.files]
paths = ["{{root}}/src"]
capture = "none"
[jobs.host.hooks]
{hooks}
"#
        )
    };
    let machine = Machine::new(&job(r#"before = [["{root}/skip"]]"#));
    machine.script("skip", "exit 75");
    let log = machine.path("log");
    let note = |word: &str| {
        format!("echo {word} $STILLPOINT_JOB $STILLPOINT_OUTCOME >> '{}'", log.display())
    };
    machine.script("fail", &format!("{}\necho 'no disk' >&2\nexit 1", note("fail")));
    machine.script("after", &note("after"));
    machine.script("on-failure", &note("on-failure"));
    machine.script("finally", &note("finally"));
    machine.script("hang", &format!("sleep 300 &\n{}\nsleep 300", note("hang")));
    let said = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(&log, "").unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let others = r#"after = [["{root}/after"]]
on-failure = [["{root}/on-failure"]]
finally = [["{root}/finally"]]
"#;

    let report = machine.run(&["--json", "run"]).expect(0).json();
    assert_eq!(report["jobs"][0]["outcome"], "skipped");
    assert!(machine.copies("b").is_empty());

    machine.configure(&job(&format!("before = [[\"{{root}}/fail\"]]\n{others}")));
    machine.run(&["run"]).expect(10).says("no disk");
    assert_eq!(said(), ["fail host", "on-failure host failed", "finally host failed"]);
    assert!(machine.copies("b").is_empty());

    machine.configure(&job(others));
    machine.run(&["run"]).expect(0);
    assert_eq!(said(), ["after host ok", "finally host ok"]);

    machine
        .configure(&job(&format!("before = [[\"{{root}}/hang\"]]\ntimeout = \"20s\"\n{others}")));
    // It holds for the other hooks as well, which need their time on a busy machine.
    let started = Instant::now();
    machine.run(&["run"]).expect(10).says("took longer");
    assert!(started.elapsed() < Duration::from_secs(200));
    assert_eq!(said(), ["hang host", "on-failure host failed", "finally host failed"]);
    wait_for_no_process_about(&machine.path("hang").to_string_lossy());
    machine.assert_clean();

    // A finally hook that fails is tried again by recover.
    machine.configure(&job("finally = [[\"{root}/broken\"]]"));
    machine.script("broken", &format!("test -e '{}'", machine.path("mended").display()));
    machine.run(&["run"]).expect(11);
    machine.run(&["recover"]).expect(11);
    machine.write("mended", "", 0o644);
    // What is held is released also where nothing can be remembered (the disk may be full of it).
    machine.write("state/history.sqlite", "no database", 0o600);
    machine.run(&["run"]).expect(4).says("move it away");
    machine.run(&["recover"]).expect(0).says("released what run");
    machine.assert_clean();
}

#[test]
fn a_hook_that_can_never_succeed_can_be_given_up() {
    let job = r#"
[jobs.host]
targets = ["b"]
[jobs.host.files]
paths = ["{root}/src"]
capture = "none"
[jobs.host.hooks]
finally = [["HOOK"]]
"#;
    let machine = Machine::new(&job.replace("HOOK", "{root}/nowhere"));
    let report = machine.run(&["--json", "run"]).expect(11).json();
    let run = report["run_id"].as_str().unwrap();
    machine.configure(&job.replace("HOOK", "true"));
    let remedy = format!("`stillpoint recover --give-up {run}`");
    for verb in ["run", "recover"] {
        let said = machine.run(&[verb]).expect(11).says(&remedy).stderr;
        let told = format!("left by run {run}: the finally hook of job host: ");
        assert!(said.contains(&told) && said.contains("/nowhere"), "{said}");
    }
    machine.run(&["recover", "--give-up", "yesterday"]).expect(2).says("eight hexadecimal");
    machine.run(&["recover", "--give-up", "00000000"]).expect(2).says(run);
    machine.run(&["recover", "--give-up", run]).expect(0).says("gave up the finally hook");
    machine.run(&["recover"]).expect(0).says("nothing to release");
    machine.run(&["run"]).expect(0);
    machine.assert_clean();
}

#[test]
fn a_secret_is_never_seen() {
    // Nobody else's: what looks for it by name has it among its arguments.
    let canary = &format!("CANARY-{}-secret", std::process::id());
    let machine = slow("b");
    machine.configure(&HOOKED.replace("[jobs.host.hooks]", "[jobs.host.hooks]\ntimeout = \"1m\""));
    let machine = {
        // New repositories, under the canary.
        for repository in ["repo-b", "repo-r"] {
            fs::remove_dir_all(machine.path(repository)).unwrap();
        }
        machine.write("pass", &format!("{canary}\n"), 0o600);
        machine.run(&["init", "b", "r"]).expect(0);
        machine
    };
    let child = machine
        .command(&["-vvv", "--json", "run"])
        .env("SOME_SECRET", "of-ours")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen_engine = false;
    let reader = std::thread::spawn(move || child.wait_with_output().unwrap());
    while !reader.is_finished() {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let (line, environment) = (read("cmdline"), read("environ"));
            let line = String::from_utf8_lossy(&line).into_owned();
            if pid == std::process::id() {
                continue;
            }
            assert!(!line.contains(canary), "in argv: {line}");
            let environment = String::from_utf8_lossy(&environment).into_owned();
            assert!(!environment.contains(canary), "in the environment of {line}");
            if line.contains("create") && line.contains("repo-b") {
                seen_engine = true;
                assert!(!environment.contains("SOME_SECRET"), "our environment leaks into {line}");
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = reader.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(seen_engine, "the test did not look while borg ran");
    for text in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(text).contains(canary), "in what was printed");
    }
    let hits = command("grep").args(["-rlF", canary]).arg(machine.path("")).output().unwrap();
    let hits = String::from_utf8_lossy(&hits.stdout).into_owned();
    assert_eq!(hits.trim(), machine.path("pass").to_string_lossy(), "on disk");
}

#[test]
fn a_dry_run_of_every_verb_changes_nothing() {
    let machine = hooked();
    machine.run(&["run"]).expect(0);
    machine.run(&["run"]).expect(0);
    let snapshot = || {
        let mut lines = Vec::new();
        for line in
            must("find", &[machine.path("").to_str().unwrap(), "-printf", "%p %y %s %T@ %i\n"])
                .lines()
        {
            // Engines write their own caches, and take a lock to read; the root of each changes with that.
            // So does the state directory's, in which SQLite makes a file of its own for a reader.
            let volatile =
                ["/state d ", "/cache", "/repo-r/locks", "/repo-b/lock", "/repo-b ", "/state/borg"];
            if !volatile.iter().any(|part| line.contains(part)) {
                lines.push(line.to_owned());
            }
        }
        lines.sort();
        lines
    };
    let before = snapshot();
    for verb in [
        vec!["plan"],
        vec!["run", "--dry-run"],
        vec!["--json", "plan"],
        vec!["prune", "--dry-run"],
        vec!["compact", "--dry-run"],
        vec!["check", "--dry-run"],
        vec!["verify", "host", "--dry-run"],
        vec!["list"],
        vec!["status"],
        vec!["check-config", "--online"],
    ] {
        machine.run(&verb).expect(0);
        let after = snapshot();
        let changed: Vec<_> = after
            .iter()
            .filter(|line| !before.contains(line))
            .chain(before.iter().filter(|line| !after.contains(line)))
            .collect();
        assert!(changed.is_empty(), "{verb:?}: {changed:#?}");
    }
    let out = machine.path("never");
    machine
        .run(&["restore", "host", "--dry-run", "--target", "b", "--to", out.to_str().unwrap()])
        .expect(0);
    assert!(!out.exists());
    assert_eq!(snapshot(), before);
    machine
        .run(&["plan"])
        .expect(0)
        .says("service-stop")
        .says("borg --log-json")
        .says("service-start");
}

#[test]
fn what_others_may_change_is_not_believed() {
    let machine = Machine::new(HOOKED);
    let hook = machine.script("service-stop", "true");
    machine.script("service-start", "true");
    machine.run(&["run"]).expect(0);
    must("chmod", &["666", &hook]);
    machine.run(&["run"]).expect(3).says("chmod");
    must("chmod", &["755", &hook]);
    must("chmod", &["644", machine.path("pass").to_str().unwrap()]);
    machine.run(&["run"]).expect(3).says("chmod");
    must("chmod", &["600", machine.path("pass").to_str().unwrap()]);
    must("chmod", &["666", machine.path("stillpoint.toml").to_str().unwrap()]);
    machine.run(&["run"]).expect(3).says("chmod");
    must("chmod", &["600", machine.path("stillpoint.toml").to_str().unwrap()]);
    must("chmod", &["777", machine.path("").to_str().unwrap()]);
    machine.run(&["run"]).expect(3);
    must("chmod", &["700", machine.path("").to_str().unwrap()]);
    machine.run(&["run"]).expect(0);
}

#[test]
fn a_pattern_that_engines_read_differently_is_a_configuration_error() {
    let machine =
        Machine::bare(&HOOKED.replace("capture", "exclude = [\"!keep\", \"a/**/b\"]\ncapture"));
    machine.run(&["check-config"]).expect(3).says("negated");
    machine.run(&["run"]).expect(3).says("negated");
}

#[test]
fn status_is_stale_until_there_is_a_good_copy() {
    let machine = Machine::new(HOOKED);
    machine.script("service-stop", "true");
    machine.script("service-start", "true");
    let status = machine.run(&["--json", "status"]).expect(13).json();
    assert_eq!(status["entries"][0]["last_good"], serde_json::Value::Null);
    assert_eq!(status["entries"][0]["stale"], true);
    machine.run(&["run"]).expect(0);
    machine.run(&["status"]).expect(0);
    std::thread::sleep(Duration::from_secs(2));
    machine.run(&["status", "--max-age", "1s"]).expect(13);
    // A failed run does not make the last good copy younger.
    let good =
        machine.run(&["--json", "status"]).expect(0).json()["entries"][0]["last_good"].clone();
    machine.write("pass", "wrong\n", 0o600);
    machine.run(&["run"]).expect(10);
    let status = machine.run(&["--json", "status"]).json();
    assert_eq!(status["entries"][0]["last_good"], good);
    assert_eq!(status["entries"][0]["outcome"], "failed");
}

#[test]
fn deleting_is_put_off_when_somebody_reads_the_repository() {
    // restic lets many write at once; deleting wants to be alone. The copy stands, the deletion waits.
    let machine = hooked();
    machine.configure(&HOOKED.replace(r#"["b", "r"]"#, r#"["r"]"#).replace("last = 2", "last = 1"));
    let locks = machine.path("run/locks");
    fs::remove_dir_all(&locks).unwrap(); // from here on it holds the lock of one target
    machine.run(&["run"]).expect(0);
    let target = fs::read_dir(&locks)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("target-"))
        .expect("the target has a lock");
    let reader = fs::File::open(target).unwrap();
    reader.lock_shared().unwrap();
    machine.run(&["run"]).expect(12).says("postponed");
    assert_eq!(machine.copies("r").len(), 2, "nothing was deleted yet");
    // By name: a child that is being forked shares the lock until it comes to exec.
    reader.unlock().unwrap();
    machine.run(&["run"]).expect(0);
    assert_eq!(machine.copies("r").len(), 1);
    machine.assert_clean();
}
