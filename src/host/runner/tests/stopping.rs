//! How children are stopped, and how they are not.

use super::*;
use crate::host::Judge;
use crate::model::shown::Show;

/// Runs the command and raises the flag when its first line comes.
fn interrupt(
    (runner, stop): (Runner, Arc<StopFlag>),
    spec: &CommandSpec,
    signals: &[i32],
) -> (Result<Completed, RunError>, Vec<String>) {
    let mut lines = Vec::new();
    let result = runner.run(spec, &mut |_, line| {
        if lines.is_empty() {
            signals.iter().for_each(|&signal| stop.raise(signal));
        }
        lines.push(text(line));
    });
    (result, lines)
}

#[test]
fn a_stop_signal_stops_the_child_by_its_own_signal() {
    let mut spec = python(
        "import os, signal, sys, time
def stop(number, frame):
    os.write(1, b'got %d\\n' % number)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
print('ready', flush=True)
time.sleep(60)",
    );
    spec.stop_signal = 2;
    let (result, lines) = interrupt(runner(), &spec, &[15]);
    assert!(matches!(result, Err(RunError::Interrupted { signal: 15, .. })), "{result:?}");
    assert_eq!(lines, ["ready", "got 2"]);
}

#[test]
fn an_answer_without_an_end_is_not_kept() {
    let (runner, _) = runner();
    for (megabytes, is_kept) in [("256", true), ("100000000", false)] {
        let spec = shell(&format!("head -c {megabytes}M /dev/zero"));
        match runner.run(&spec, &mut |_, _| {}) {
            Ok(completed) => {
                assert!(is_kept, "{megabytes} MiB");
                assert_eq!(completed.stdout.len(), 256 << 20);
            }
            Err(error) => {
                assert!(!is_kept, "{megabytes} MiB: {error}");
                let told = format!("{error} {:?}", std::error::Error::source(&error));
                assert!(told.contains("it printed more than 256"), "{told}");
            }
        }
    }
}

#[test]
fn nothing_is_started_after_a_signal_unless_shielded() {
    let (runner, stop) = runner();
    stop.raise(1);
    let spec = shell("sleep 0.3; echo done");
    let refused = runner.run(&spec, &mut |_, _| {});
    assert!(matches!(refused, Err(RunError::Interrupted { signal: 1, .. })));
    let shield = runner.shield();
    let inner = runner.shield();
    assert_eq!(runner.run(&spec, &mut |_, _| stop.raise(2)).unwrap().stdout, b"done\n");
    drop(inner);
    assert!(runner.run(&spec, &mut |_, _| {}).is_ok(), "the outer shield still holds");
    assert_eq!(runner.stop_signal(), Some(1));
    drop(shield);
    assert!(runner.run(&spec, &mut |_, _| {}).is_err());
}

#[test]
fn stopping_reaches_grandchildren_and_what_ignores_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // The grandchild ignores SIGTERM and holds no output of ours; the leader ends at the signal.
    let script = format!(
        "(trap '' TERM; sleep 61; sleep 62) > /dev/null 2>&1 & echo $! > {0}; echo ready; wait",
        pids.shown()
    );
    let started = Instant::now();
    let (result, _) = interrupt(impatient(), &shell(&script), &[15]);
    assert!(matches!(result, Err(RunError::Interrupted { .. })), "{result:?}");
    assert!(!is_running(await_file(&pids).parse().unwrap()));
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
}

#[test]
fn a_child_that_ignores_sigterm_gets_sigkill_after_both_graces() {
    let spec = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let started = Instant::now();
    let (result, _) = interrupt(impatient(), &spec, &[15]);
    assert!(matches!(result, Err(RunError::Interrupted { .. })), "{result:?}");
    assert!(started.elapsed() >= 2 * SHORT && started.elapsed() < IN_TIME);
}

#[test]
fn a_second_signal_shortens_the_grace() {
    let (mut runner, stop) = runner();
    runner.grace = Duration::from_secs(60);
    let spec = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let started = Instant::now();
    let result = runner.run(&spec, &mut |_, _| {
        stop.raise(2);
        stop.raise(2);
    });
    assert!(matches!(result, Err(RunError::Interrupted { signal: 2, .. })));
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
}

#[test]
fn what_must_never_be_killed_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    let mut spec = shell(&format!(
        "trap '' TERM; echo ready; i=0; while [ $i -lt 30 ]; do sleep 0.1; i=$((i+1)); done; echo > {}",
        done.shown()
    ));
    spec.never_kill = true;
    let (result, _) = interrupt(impatient(), &spec, &[15, 15]);
    assert!(matches!(result, Err(RunError::Interrupted { .. })), "{result:?}");
    assert!(done.exists(), "it was killed");
}

#[test]
fn a_time_limit_stops_and_says_what_was_written_last() {
    let mut spec = shell("echo reason >&2; while :; do echo busy; sleep 0.02; done");
    // Long enough for it to begin on a busy machine.
    let limit = Duration::from_secs(3);
    spec.time_limit = Some(limit);
    match run(&spec) {
        Err(RunError::TimedOut { after, stderr_tail, command }) => {
            assert_eq!((after, stderr_tail.as_str()), (limit, "reason"));
            assert!(command.starts_with("/bin/sh -c"), "{command}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hung_process_stalls() {
    let mut spec = shell("echo waiting >&2; exec sleep 60");
    let limit = Duration::from_secs(3);
    spec.stall_limit = Some(limit);
    let started = Instant::now();
    match run(&spec) {
        Err(RunError::Stalled { after, stderr_tail, .. }) => {
            assert_eq!((after, stderr_tail.as_str()), (limit, "waiting"));
        }
        other => panic!("{other:?}"),
    }
    assert!(started.elapsed() >= limit);
    assert!(started.elapsed() < IN_TIME);
}

#[test]
fn a_slow_process_that_is_busy_in_any_way_does_not_stall() {
    let limit = Duration::from_secs(2);
    let computing = "import time
end = time.monotonic() + 5
while time.monotonic() < end: sum(range(10000))";
    let moving = "import time
end = time.monotonic() + 5
zero, null = open('/dev/zero', 'rb', 0), open('/dev/null', 'wb', 0)
while time.monotonic() < end:
    null.write(zero.read(1)); time.sleep(0.1)";
    // The work is done by a process of another group, as under sudo.
    let elsewhere = format!(
        "import os
if os.fork() == 0:
    os.setsid()
    exec({computing:?})
else:
    os.wait()"
    );
    for script in [computing, moving, &elsewhere] {
        let mut spec = python(script);
        spec.stall_limit = Some(limit);
        assert!(run(&spec).is_ok_and(|completed| completed.success()), "{script}");
    }
    let mut chatty = shell("for i in 1 2 3 4 5 6; do echo; sleep 0.8; done");
    chatty.stall_limit = Some(limit);
    assert!(run(&chatty).is_ok_and(|completed| completed.success()));
}

#[test]
fn who_repeats_itself_moves_when_it_says_what_is_movement() {
    let limit = Duration::from_secs(3);
    let says = |line: &str, seconds: u32| {
        let mut spec = python(&format!(
            "import sys, time
for _ in range({seconds}): print('{line}', file=sys.stderr, flush=True); time.sleep(1)"
        ));
        (spec.stall_limit, spec.repeats_itself) = (Some(limit), true);
        spec.moves = Some(Judge(|line| line == b"others are at work"));
        run(&spec)
    };
    assert!(says("others are at work", 8).is_ok_and(|completed| completed.success()));
    let still = says("here I am", 60);
    assert!(matches!(still, Err(RunError::Stalled { .. })), "{still:?}");
}

#[test]
fn a_watcher_that_panics_leaves_no_child() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let spec = shell(&format!("echo $$ > {}; echo ready; exec sleep 60", pid.shown()));
    let (runner, _) = runner();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runner.run(&spec, &mut |_, _| panic!("on purpose"))
    }));
    assert!(result.is_err());
    await_end(await_file(&pid).parse().unwrap());
}

/// Kills a copy of us with SIGKILL while it runs `script`, which writes its number to a file.
fn kill_a_copy(role: &str, script: &dyn Fn(&Path) -> String) -> i32 {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let mut copy = rerun(role, &[("SCRIPT", &script(&pid))])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let child = await_file(&pid).parse().unwrap();
    assert!(is_running(child));
    copy.kill().unwrap();
    copy.wait().unwrap();
    child
}

#[test]
fn a_child_does_not_outlive_us_even_when_we_are_killed() {
    await_end(kill_a_copy("wait", &|pid| format!("echo $$ > {}; exec sleep 60", pid.shown())));
}

#[test]
fn a_child_that_must_never_be_killed_may_finish_when_we_are_killed() {
    let script = |pid: &Path| format!("echo $$ > {}; exec sleep 60", pid.shown());
    let child = kill_a_copy("wait never kill", &script);
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_running(child));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::SIGKILL).unwrap();
    await_end(child);
}

#[test]
fn real_signals_unwind_and_ignored_ones_stay_ignored() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 60", pid.shown());
    // As nohup does it: the copy is started with SIGHUP ignored.
    let mut copy = rerun("listen", &[("SCRIPT", &script)]);
    #[expect(unsafe_code, reason = "one system call between fork and exec")]
    unsafe {
        use std::os::unix::process::CommandExt;
        copy.pre_exec(|| {
            nix::sys::signal::signal(Signal::SIGHUP, nix::sys::signal::SigHandler::SigIgn)?;
            Ok(())
        });
    }
    let copy = copy.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let child = await_file(&pid).parse().unwrap();
    let us = Pid::from_raw(copy.id().cast_signed());
    kill(us, Signal::SIGHUP).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert!(is_running(child), "a signal that was ignored stopped the child");
    kill(us, Signal::SIGTERM).unwrap();
    let output = copy.wait_with_output().unwrap();
    assert!(output.status.success(), "the signal ended the process itself: {:?}", output.status);
    let said = text(&output.stdout);
    assert!(said.contains("Interrupted") && said.contains("signal: 15"), "{said}");
    await_end(child);
}
