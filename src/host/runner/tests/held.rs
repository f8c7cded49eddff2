//! Processes that are held at one end of a pipe while others have their turn at the other end.

use super::*;
use crate::host::{Held, HeldEnd};

fn turn(held: &mut dyn Held, scripts: &[&str]) -> Result<Vec<Completed>, RunError> {
    let specs: Vec<CommandSpec> = scripts.iter().map(|script| shell(script)).collect();
    held.turn(&specs, &mut |_, _| {})
}

fn said(ended: &[Completed]) -> String {
    text(&ended.last().unwrap().stdout)
}

fn shells(scripts: &[&str]) -> Vec<CommandSpec> {
    scripts.iter().map(|script| shell(script)).collect()
}

/// Takes so many bytes and not one more, and says so when there is an end before that.
fn takes(count: usize) -> String {
    format!("dd bs=1 count={count} status=none; echo done")
}

#[test]
fn each_has_its_share_of_what_one_writes() {
    let (runner, _) = runner();
    let writes = shells(&["printf 'first part'", "cat; printf ' second'; echo told >&2"]);
    let mut held = runner.hold(&writes, HeldEnd::Writes).unwrap();
    let first = turn(&mut held, &[&takes(5)]).unwrap();
    assert_eq!(said(&first), "firstdone\n");
    // A chain, of which the first alone reads.
    let second = turn(&mut held, &[&takes(5), "tr a-z A-Z"]).unwrap();
    assert_eq!(said(&second), " PARTDONE\n");
    let third = turn(&mut held, &["cat"]).unwrap();
    assert_eq!(said(&third), " second", "what is left, to its end");
    let ended = Box::new(held).finish(&mut |_, _| {}).unwrap();
    assert!(ended.iter().all(Completed::success));
    assert_eq!(ended[1].last_lines(1), "told");
}

#[test]
fn nobody_sees_an_end_that_is_none() {
    let (runner, _) = runner();
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let reads = format!("cat >/dev/null; echo >{}", proof.shown());
    for writes in [&["printf torn; exit 3"][..], &["printf torn; exit 3", "cat"]] {
        let mut held = runner.hold(&shells(writes), HeldEnd::Writes).unwrap();
        let ended = turn(&mut held, &[&reads]).unwrap();
        assert_eq!(ended[0].exit, Exit::Signal(15));
        let ended = Box::new(held).stop().unwrap();
        assert_eq!(ended[0].exit, Exit::Code(3));
        assert!(!proof.exists(), "{writes:?}");
    }
    // Nor when it is killed.
    let mut held = runner.hold(&shells(&["printf torn; kill -9 $$"]), HeldEnd::Writes).unwrap();
    assert_eq!(turn(&mut held, &[&reads]).unwrap()[0].exit, Exit::Signal(15));
    assert_eq!(Box::new(held).stop().unwrap()[0].exit, Exit::Signal(9));
    assert!(!proof.exists());
    // One that is stopped between two turns reads no end either.
    let mut held = runner.hold(&shells(&[&reads]), HeldEnd::Reads).unwrap();
    assert!(turn(&mut held, &["printf half"]).unwrap()[0].success());
    assert_eq!(turn(&mut held, &["printf more; exit 4"]).unwrap()[0].exit, Exit::Code(4));
    assert_eq!(Box::new(held).stop().unwrap()[0].exit, Exit::Signal(15));
    assert!(!proof.exists());
}

#[test]
fn what_some_write_one_after_the_other_one_reads() {
    let (runner, _) = runner();
    let mut held = runner.hold(&shells(&["cat", "tr a-z A-Z"]), HeldEnd::Reads).unwrap();
    for scripts in [&["printf one"][..], &["printf two", "cat"], &["printf three"]] {
        assert!(turn(&mut held, scripts).unwrap().iter().all(Completed::success));
    }
    let ended = Box::new(held).finish(&mut |_, _| {}).unwrap();
    assert!(ended.iter().all(Completed::success));
    assert_eq!(said(&ended), "ONETWOTHREE");
    // Who reads no further stops who writes, and is to blame.
    let mut held = runner.hold(&shells(&["head -c 1 >/dev/null; exit 5"]), HeldEnd::Reads).unwrap();
    let ended = turn(&mut held, &["exec cat /dev/zero"]).unwrap();
    assert!(!ended[0].success());
    assert_eq!(Box::new(held).stop().unwrap()[0].exit, Exit::Code(5));
}

#[test]
fn a_turn_that_fails_leaves_who_is_held_to_be_asked() {
    let (runner, _) = runner();
    let mut held = runner.hold(&shells(&["exec cat /dev/zero"]), HeldEnd::Writes).unwrap();
    let ended = turn(&mut held, &["head -c 9", "cat >/dev/null; exit 7"]).unwrap();
    assert_eq!(ended[1].exit, Exit::Code(7));
    let missing = CommandSpec::new(Tool::Named("no-such-program".into()), Effect::Inspect);
    let failed = held.turn(&[shell("cat"), missing], &mut |_, _| {});
    assert!(matches!(failed, Err(RunError::NotFound { .. })), "{failed:?}");
    assert_eq!(Box::new(held).stop().unwrap()[0].exit, Exit::Signal(15));
}

#[test]
fn a_signal_and_a_silence_stop_both_sides_and_who_is_let_go_is_stopped() {
    let (runner, stop) = runner();
    let dir = tempfile::tempdir().unwrap();
    let [ready, ended] = ["ready", "ended"].map(|name| dir.path().join(name));
    let traps = format!(
        "trap 'echo >>{}; exit 1' TERM; echo yes >{}; while :; do sleep 0.05; done",
        ended.shown(),
        ready.shown()
    );
    let held = runner.hold(&shells(&[&traps]), HeldEnd::Writes).unwrap();
    await_file(&ready);
    drop(held);
    assert_eq!(std::fs::read_to_string(&ended).unwrap(), "\n");
    let mut silent = shell("exec sleep 60");
    silent.stall_limit = Some(Duration::from_millis(300));
    let mut held = runner.hold(std::slice::from_ref(&silent), HeldEnd::Writes).unwrap();
    let failed = held.turn(&[silent.clone()], &mut |_, _| {});
    assert!(matches!(failed, Err(RunError::Stalled { .. })), "{failed:?}");
    drop(held);
    let mut held = runner.hold(&shells(&["exec sleep 60"]), HeldEnd::Writes).unwrap();
    let failed = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            stop.raise(15);
        });
        turn(&mut held, &["cat"])
    });
    assert!(matches!(failed, Err(RunError::Interrupted { signal: 15, .. })), "{failed:?}");
    let refused = runner.hold(&shells(&["true"]), HeldEnd::Writes);
    assert!(matches!(refused.err(), Some(RunError::Interrupted { .. })));
}

#[test]
fn who_wrote_to_a_reader_that_is_gone_is_not_to_blame() {
    let (runner, _) = runner();
    // It fails by its own exit as soon as nobody reads, as a program does that ignores the signal.
    let writes = "trap '' PIPE; while printf xxxxxxxxxxxxxxxx 2>/dev/null; do :; done; exit 1";
    for _ in 0..20 {
        let mut held =
            runner.hold(&shells(&["head -c 100 >/dev/null; kill -9 $$"]), HeldEnd::Reads).unwrap();
        let ended = turn(&mut held, &[writes]).unwrap();
        assert!(!ended[0].success() && ended[0].dismissed, "{ended:?}");
        let ended = Box::new(held).stop().unwrap();
        assert_eq!((ended[0].exit, ended[0].dismissed), (Exit::Signal(9), false));
    }
    // Who fails by itself is.
    let mut held = runner.hold(&shells(&["cat >/dev/null"]), HeldEnd::Reads).unwrap();
    let ended = turn(&mut held, &["printf some; exit 3"]).unwrap();
    assert_eq!((ended[0].exit, ended[0].dismissed), (Exit::Code(3), false));
}

#[test]
fn what_would_be_passed_on_to_us_is_not_held() {
    let (runner, _) = runner();
    let mut spec = shell("printf lost");
    spec.stdout = StdoutMode::PassOn;
    let refused = runner.hold(std::slice::from_ref(&spec), HeldEnd::Reads);
    assert!(matches!(refused.err(), Some(RunError::Io { .. })));
}

#[test]
fn what_is_longer_than_an_argument_goes_by_an_input() {
    let (runner, _) = runner();
    let mut first = shell("cat");
    first.input = Input::Bytes(vec![b'x'; 300 << 10]);
    let chained = runner.chain(&[first], &shell("wc -c"), &mut |_, _| {}).unwrap();
    assert_eq!(text(&chained.last.stdout).trim(), (300 << 10).to_string());
}

#[test]
fn who_is_held_and_halted_says_why_whoever_had_his_turn() {
    let (runner, _) = runner();
    let mut reader = shell("echo comes >&2; exec cat");
    let halt = reader.view.halt.clone();
    reader.stdout = StdoutMode::Discard;
    let mut held = runner.hold(std::slice::from_ref(&reader), HeldEnd::Reads).unwrap();
    let endless = shells(&["while :; do echo x; sleep 0.01; done"]);
    let ended = held.turn(&endless, &mut |_, line| {
        if line == b"comes" {
            halt.raise("no room".to_owned());
        }
    });
    let ended = ended.unwrap();
    assert!(!ended[0].success() && ended[0].dismissed, "{ended:?}");
    let why = Box::new(held).stop();
    assert!(matches!(&why, Err(RunError::Halted { reason, .. }) if reason == "no room"), "{why:?}");
}
