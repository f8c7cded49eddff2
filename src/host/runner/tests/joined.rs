//! Processes joined by pumps: whatever goes wrong with any of them, a torn stream is never ended.

use super::*;
use crate::model::shown::Show;

/// A consumer that tells at the end of its input how much it read, and by that proves that it saw the end.
fn consumer(proof: &Path) -> CommandSpec {
    python(&format!(
        "import sys
count = 0
while True:
    data = sys.stdin.buffer.read(65536)
    if not data: break
    count += len(data)
open({proof:?}, 'w').write(f'{{count}}\\n')
print('stored', count)"
    ))
}

/// Runs the two, joined.
fn pipe(
    runner: &Runner,
    producer: &CommandSpec,
    consumer: &CommandSpec,
    watch: Watch<'_>,
) -> Result<Chained, RunError> {
    runner.chain(std::slice::from_ref(producer), consumer, watch)
}

/// Joins the two and looks for the proof that the consumer saw the end.
fn join(producer: &CommandSpec, limit: Option<Duration>) -> (Result<Chained, RunError>, bool) {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let mut consumer = consumer(&proof);
    consumer.stall_limit = limit;
    let result = pipe(&runner().0, producer, &consumer, &mut |_, _| {});
    (result, proof.exists())
}

#[test]
fn all_bytes_arrive_and_both_speak() {
    let producer = python(
        "import sys
for _ in range(320): sys.stdout.buffer.write(b'x' * 100000)
print('dumped', file=sys.stderr)",
    );
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let mut lines = Vec::new();
    let piped = pipe(&runner().0, &producer, &consumer(&proof), &mut |stream, line| {
        lines.push((stream, text(line)));
    })
    .unwrap();
    assert!(piped.before[0].success() && piped.last.success());
    assert_eq!(piped.bytes, Some(32_000_000));
    assert_eq!(await_file(&proof), "32000000");
    assert_eq!(piped.last.stdout, b"stored 32000000\n");
    assert_eq!(piped.before[0].last_lines(1), "dumped");
    assert!(lines.contains(&(Stream::ProducerErr, "dumped".into())));
    assert!(lines.contains(&(Stream::Out, "stored 32000000".into())));
}

#[test]
fn an_empty_stream_of_a_good_producer_is_not_taken_for_a_whole_one() {
    let (result, saw_end) = join(&shell("exit 0"), None);
    let piped = result.unwrap();
    assert!(piped.before[0].success() && !piped.last.success() && !saw_end);
    assert_eq!(piped.bytes, Some(0));
}

#[test]
fn a_producer_that_fails_never_ends_the_consumers_input() {
    let failures = [
        ("echo half; exit 1", Exit::Code(1)),
        ("exit 3", Exit::Code(3)),
        ("echo half; kill -KILL $$", Exit::Signal(9)),
        // It closes its output first and fails later.
        ("echo half; exec 1>&-; sleep 0.5; exit 1", Exit::Code(1)),
    ];
    for (script, exit) in failures {
        let (result, saw_end) = join(&shell(script), None);
        let piped = result.unwrap();
        assert_eq!(piped.before[0].exit, exit, "{script}");
        assert_eq!(piped.last.exit, Exit::Signal(15), "{script}");
        assert!(!saw_end, "{script}: the consumer saw the end of a torn stream");
    }
}

#[test]
fn a_consumer_that_ignores_its_stop_signal_is_killed_before_it_sees_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let ready = dir.path().join("ready");
    let stubborn = format!(
        "trap '' TERM; : > {}; cat > /dev/null; echo end > {}",
        ready.shown(),
        proof.shown()
    );
    let torn = shell(&format!("{}; exit 1", until(&ready)));
    let piped = pipe(&impatient().0, &torn, &shell(&stubborn), &mut |_, _| {}).unwrap();
    assert!(!piped.last.success());
    assert!(!proof.exists(), "the consumer saw the end of a torn stream");
    assert_eq!(piped.before[0].exit, Exit::Code(1));
}

#[test]
fn a_consumer_that_dies_stops_the_producer_and_both_are_reported() {
    let endless = shell("while :; do echo data; done");
    let started = Instant::now();
    let piped = pipe(&runner().0, &endless, &shell("head -c 10; exit 5"), &mut |_, _| {}).unwrap();
    assert_eq!(piped.last.exit, Exit::Code(5));
    assert!(!piped.before[0].success());
    // A producer that writes nothing gets no SIGPIPE; it is stopped all the same.
    let piped =
        pipe(&runner().0, &shell("exec sleep 60"), &shell("exit 6"), &mut |_, _| {}).unwrap();
    assert_eq!((piped.last.exit, piped.before[0].exit), (Exit::Code(6), Exit::Signal(15)));
    assert!(started.elapsed() < IN_TIME);
}

#[test]
fn a_consumer_that_ignores_the_end_of_a_good_stream_has_not_stored_it() {
    let producer = python("import sys; sys.stdout.buffer.write(b'x' * 10000000)");
    let result = pipe(&runner().0, &producer, &shell("head -c 10 > /dev/null"), &mut |_, _| {});
    // The producer either is stopped, or has ended before; the consumer is to blame.
    match result {
        Ok(piped) => assert!(!piped.before[0].success() && piped.last.left_early, "{piped:?}"),
        Err(error) => assert!(matches!(error, RunError::LeftEarly { .. }), "{error}"),
    }
}

#[test]
fn who_ends_well_before_it_has_read_everything_is_known_for_that() {
    let endless = shell("while :; do echo data; done");
    let pass = shell("exec cat");
    let joined = |last: &str| {
        let before = [endless.clone(), pass.clone()];
        runner().0.chain(&before, &shell(last), &mut |_, _| {}).unwrap()
    };
    for early in ["head -c 100000 > /dev/null", "exit 0"] {
        let chained = joined(early);
        assert!(chained.last.left_early && chained.last.success(), "{chained:?}");
        let others = chained.before.iter();
        assert!(others.clone().all(|it| it.dismissed && !it.left_early), "{chained:?}");
    }
    // Nor does it matter that a pipe holds what nobody takes, nor that others go on with what there was.
    let dir = tempfile::tempdir().unwrap();
    let wrote = dir.path().join("wrote");
    let little = shell(&format!("echo all; head -c 50000 /dev/zero; : > {}", wrote.shown()));
    // All that the other one has still to do is to end.
    let late = |script: &str| shell(&format!("{}; sleep 0.5; {script}", until(&wrote)));
    for early in ["head -c 10 > /dev/null", "exit 0", "echo made"] {
        let left = pipe(&runner().0, &little, &late(early), &mut |_, _| {});
        assert!(matches!(left, Err(RunError::LeftEarly { .. })), "{early}: {left:?}");
        std::fs::remove_file(&wrote).unwrap();
    }
    let before = [little, late("echo made")];
    let left = runner().0.chain(&before, &shell("cat > /dev/null"), &mut |_, _| {});
    assert!(matches!(left, Err(RunError::LeftEarly { .. })), "{left:?}");
    // Whoever was made to end by somebody else, or failed, has not.
    assert!(!joined("head -c 10; exit 5").last.left_early);
    let ready = dir.path().join("ready");
    let stopped =
        format!("trap 'exit 0' TERM; : > {}; while :; do sleep 0.05; done", ready.shown());
    let torn = shell(&format!("echo half; {}; exit 1", until(&ready)));
    let chained = runner().0.chain(&[torn], &shell(&stopped), &mut |_, _| {}).unwrap();
    assert!(chained.last.success() && !chained.last.left_early, "{chained:?}");
    let (result, _) = join(&shell("echo all"), None);
    let whole = result.unwrap();
    assert!(whole.last.success() && !whole.last.left_early, "{whole:?}");
}

#[test]
fn who_takes_nothing_is_named_and_not_those_that_wait_for_it() {
    let limited = |script: &str| {
        let mut spec = shell(script);
        spec.stall_limit = Some(Duration::from_secs(1));
        spec
    };
    let endless = limited("while :; do echo data; done");
    let stuck = "exec sleep 60";
    let chain = |before: &[CommandSpec], last: &str| {
        runner().0.chain(before, &limited(last), &mut |_, _| {}).unwrap_err()
    };
    let error = chain(&[endless.clone(), limited("exec cat")], stuck);
    assert!(error.to_string().contains("sleep 60' took nothing"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("standard input")), "{error}");
    let error = chain(&[endless, limited("exec sleep 61")], "exec cat");
    assert!(error.to_string().contains("sleep 61' took nothing"), "{error}");
    // Nobody took nothing where there was nothing.
    let error = chain(&[limited(stuck)], "exec cat");
    assert!(error.to_string().contains("sleep 60' made no progress"), "{error}");
}

#[test]
fn a_producer_whose_output_is_still_held_open_is_not_trusted() {
    // What is left behind holds the output for as long as this directory is there, and for a minute at most.
    let hold = tempfile::tempdir().unwrap();
    let (result, saw_end) = join(
        &python(&format!(
            "import os, sys, time
print('half', flush=True)
if os.fork() == 0:
    os.setsid()
    os.close(2)
    end = time.monotonic() + 60
    while os.path.exists({:?}) and time.monotonic() < end: time.sleep(0.1)
    os._exit(0)
os._exit(0)",
            hold.path()
        )),
        None,
    );
    assert!(matches!(result, Err(RunError::Io { .. })), "{result:?}");
    assert!(!saw_end);
}

#[test]
fn a_stop_signal_stops_both_without_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let (runner, stop) = runner();
    let producer = shell("echo ready >&2; while :; do echo data; sleep 0.01; done");
    let result = pipe(&runner, &producer, &consumer(&proof), &mut |_, _| stop.raise(15));
    assert!(matches!(result, Err(RunError::Interrupted { signal: 15, .. })), "{result:?}");
    assert!(!proof.exists());
}

#[test]
fn a_consumer_that_cannot_start_stops_the_producer() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let producer = shell(&format!("echo $$ > {}; exec sleep 60", pid.shown()));
    let consumer = CommandSpec::new(Tool::Path("/nonexistent/tool".into()), Effect::Mutate);
    let result = pipe(&runner().0, &producer, &consumer, &mut |_, _| {});
    assert!(matches!(result, Err(RunError::NotFound { .. })), "{result:?}");
    // It may have been stopped before it could write anything; if it did, it must be gone.
    if let Ok(pid) = std::fs::read_to_string(&pid).unwrap_or_default().trim().parse() {
        assert!(!is_running(pid));
    }
}

#[test]
fn the_two_are_still_only_together() {
    // The consumer has nothing to do while the producer computes.
    let limit = Duration::from_secs(2);
    let slow = python(
        "import time
end = time.monotonic() + 5
while time.monotonic() < end: sum(range(10000))
print('done')",
    );
    let (result, saw_end) = join(&slow, Some(limit));
    assert!(result.unwrap().last.success() && saw_end);
    let (result, saw_end) = join(&shell("exec sleep 60"), Some(limit));
    assert!(matches!(result, Err(RunError::Stalled { .. })), "{result:?}");
    assert!(!saw_end);
}

/// Runs a chain of scripts that ends in a consumer, and looks for the proof that it saw the end.
fn chain(runner: &Runner, scripts: &[&str]) -> (Result<Chained, RunError>, bool) {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let before: Vec<CommandSpec> = scripts.iter().map(|script| shell(script)).collect();
    let result = runner.chain(&before, &consumer(&proof), &mut |_, _| {});
    (result, proof.exists())
}

/// More than all pipes between them hold.
const MUCH: &str = "head -c 20000000 /dev/zero";

#[test]
fn a_chain_of_any_length_carries_everything_to_its_end() {
    for between in 0..4 {
        let scripts: Vec<&str> = [MUCH].into_iter().chain(vec!["cat"; between]).collect();
        let (result, saw_end) = chain(&runner().0, &scripts);
        let chained = result.unwrap();
        assert_eq!(chained.before.len(), 1 + between);
        assert!(chained.failed_before().is_none() && chained.last.success() && saw_end);
        assert_eq!(chained.last.stdout, b"stored 20000000\n");
        assert_eq!(chained.bytes, Some(20_000_000));
    }
    // What is last counts, not what the first wrote.
    let (result, _) =
        chain(&runner().0, &[MUCH, "gzip -1", "gunzip | head -c 1000; cat > /dev/null"]);
    assert_eq!(result.unwrap().bytes, Some(1000));
    // By itself, the last one is no chain: nothing is its input.
    let alone = runner().0.chain(&[], &shell("cat; echo done"), &mut |_, _| {}).unwrap();
    assert_eq!((alone.last.stdout.as_slice(), alone.bytes), (&b"done\n"[..], Some(0)));
}

#[test]
fn everybody_of_a_chain_is_heard() {
    let scripts = ["echo one >&2; echo x", "echo two >&2; cat", "echo three >&2; cat"].map(shell);
    let mut lines = Vec::new();
    let watch = &mut |stream, line: &[u8]| lines.push((stream, text(line)));
    let last = shell("cat > /dev/null; echo four >&2; echo five");
    let chained = runner().0.chain(&scripts, &last, watch).unwrap();
    lines.sort_by_key(|(_, line)| line.clone());
    let err = |line: &str| (Stream::ProducerErr, line.to_owned());
    let last = [(Stream::Out, "five".to_owned()), (Stream::Err, "four".to_owned())];
    let [five, four] = last;
    assert_eq!(lines, [five, four, err("one"), err("three"), err("two")]);
    assert_eq!(chained.before[1].last_lines(1), "two");
}

#[test]
fn whoever_of_a_chain_fails_the_last_one_never_sees_an_end() {
    let failures = [
        // The first, and all who come after it would have ended well.
        ("the first", ["echo half; exit 1", "cat", "cat"], 0),
        ("the first, by a signal", ["echo half; kill -KILL $$", "cat", "cat"], 0),
        // One between, in all ways in which it can.
        ("the second, after it read all", [MUCH, "cat > /dev/null; echo half; exit 3", "cat"], 1),
        ("the second, before", [MUCH, "head -c 10; exit 3", "cat"], 1),
        ("the second, killed", [MUCH, "head -c 10; kill -KILL $$", "cat"], 1),
        (
            "the second, that closed its output first",
            [MUCH, "cat; exec 1>&-; sleep 0.5; exit 3", "cat"],
            1,
        ),
        ("the third", [MUCH, "cat", "cat; exit 3"], 2),
    ];
    for (who, scripts, culprit) in failures {
        let (result, saw_end) = chain(&runner().0, &scripts);
        let chained = result.unwrap();
        assert!(!saw_end, "{who}: the last saw the end of a torn stream");
        assert!(!chained.last.success(), "{who}");
        assert!(!chained.before[culprit].success(), "{who}");
        assert!(chained.failed_before().is_some(), "{who}");
        for (at, ended) in chained.before.iter().chain([&chained.last]).enumerate() {
            let is_to_blame = !ended.success() && !ended.dismissed;
            assert_eq!(is_to_blame, at == culprit, "{who}: {ended:?}");
        }
    }
}

#[test]
fn one_between_that_ends_well_before_its_input_did_makes_no_whole_stream() {
    // It says that it is fine, having read a tenth; or nothing of what somebody else still writes.
    for scripts in [
        [MUCH, "head -c 2000000"],
        ["sleep 0.5; echo late", "echo early"],
        // The first ignores that nobody reads.
        ["trap '' PIPE; head -c 2000000 /dev/zero 2> /dev/null; exit 0", "head -c 10"],
    ] {
        let (result, saw_end) = chain(&runner().0, &scripts);
        assert!(!saw_end, "{scripts:?}: the last saw the end of a torn stream");
        match result {
            Ok(chained) => assert!(!chained.last.success(), "{scripts:?}: {chained:?}"),
            Err(error) => assert!(matches!(error, RunError::Io { .. }), "{error}"),
        }
    }
}

#[test]
fn nothing_in_a_chain_is_no_stream_wherever_it_comes_from() {
    for scripts in [["exit 0", "cat"], ["echo something", "cat > /dev/null"]] {
        let (result, saw_end) = chain(&runner().0, &scripts);
        let chained = result.unwrap();
        assert!(!saw_end && !chained.last.success(), "{scripts:?}");
        assert_eq!(chained.bytes, Some(0), "{scripts:?}");
    }
}

#[test]
fn one_that_ignores_its_stop_signal_keeps_the_end_from_the_last_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let ready = ["one", "other"].map(|name| dir.path().join(name));
    let torn = format!("echo half; {}; {}; exit 1", until(&ready[0]), until(&ready[1]));
    let [one, other] = ready.map(|at| format!("trap '' TERM; : > {}; cat; echo rest", at.shown()));
    let (result, saw_end) = chain(&impatient().0, &[&torn, &one, &other]);
    let chained = result.unwrap();
    assert!(!saw_end, "the last saw the end of a torn stream");
    assert_eq!(chained.before[0].exit, Exit::Code(1));
    assert_eq!(chained.before[1].exit, Exit::Signal(9));
}

#[test]
fn a_last_one_that_dies_stops_the_whole_chain() {
    let endless = "while :; do echo data; done";
    let quiet = "exec sleep 60";
    let started = Instant::now();
    for first in [endless, quiet] {
        let before = [first, "cat", "cat"].map(shell);
        let last = shell("head -c 10 > /dev/null & exit 5");
        let chained = runner().0.chain(&before, &last, &mut |_, _| {}).unwrap();
        assert_eq!(chained.last.exit, Exit::Code(5));
        // Of SIGPIPE or, where nothing is written, of ours.
        let exits: Vec<Exit> = chained.before.iter().map(|one| one.exit).collect();
        assert!(exits.iter().all(|exit| *exit != Exit::Code(0)), "{exits:?}");
    }
    assert!(started.elapsed() < IN_TIME);
}

#[test]
fn a_stop_signal_stops_a_whole_chain_and_leaves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, stop) = runner();
    let told = |name: &str, script: &str| {
        shell(&format!("echo $$ > {}; {script}", dir.path().join(name).shown()))
    };
    let before = [
        told("a", "while :; do echo data; sleep 0.01; done"),
        told("b", "exec cat"),
        // Somebody of its group, too. (A shell gives `cat &` nothing to read, so that would end at once.)
        told("c", "sleep 60 & wait"),
        shell("echo ready >&2; exec cat"),
    ];
    let proof = dir.path().join("proof");
    let mut running: Vec<i32> = Vec::new();
    let result = runner.chain(&before, &consumer(&proof), &mut |_, _| {
        running = ["a", "b", "c"]
            .map(|name| await_file(&dir.path().join(name)))
            .map(|pid| pid.parse().unwrap())
            .into();
        stop.raise(15);
    });
    assert!(matches!(result, Err(RunError::Interrupted { signal: 15, .. })), "{result:?}");
    assert!(!proof.exists());
    assert_eq!(running.len(), 3);
    assert!(!running.iter().any(|pid| is_running(*pid)), "{running:?}");
}

#[test]
fn one_of_a_chain_that_cannot_start_ends_it_and_all_are_recorded() {
    #[derive(Default)]
    struct Book(Mutex<Vec<(i32, bool)>>);
    impl ChildRecorder for Book {
        fn started(&self, child: &ChildProcess) {
            self.0.lock().unwrap().push((child.pid, true));
        }
        fn ended(&self, child: &ChildProcess) {
            self.0.lock().unwrap().push((child.pid, false));
        }
    }
    let absent = CommandSpec::new(Tool::Path("/nonexistent/tool".into()), Effect::Mutate);
    for at in 1..3 {
        let mut specs = [shell("exec sleep 60"), shell("exec cat"), shell("exec cat")];
        specs[at] = absent.clone();
        let book = Arc::new(Book::default());
        let (runner, _) = runner();
        runner.record_children(Some(Arc::clone(&book) as Arc<dyn ChildRecorder>));
        let result = runner.chain(&specs[..2], &specs[2], &mut |_, _| {});
        assert!(matches!(result, Err(RunError::NotFound { .. })), "{result:?}");
        let book = book.0.lock().unwrap();
        assert_eq!(book.len(), 2 * at, "{book:?}");
        assert!(book.iter().all(|(pid, _)| !is_running(*pid) && book.contains(&(*pid, false))));
    }
}

#[test]
fn a_chain_stalls_only_together() {
    let limit = Duration::from_secs(2);
    let computing = "end = time.monotonic() + 5
while time.monotonic() < end: sum(range(10000))";
    let run = |middle: &str| {
        let stalling = |spec| CommandSpec { stall_limit: Some(limit), ..spec };
        let before = [shell("echo data; exec sleep 4"), python(middle)].map(stalling);
        runner().0.chain(&before, &stalling(shell("cat")), &mut |_, _| {})
    };
    let busy = run(&format!("import sys, time\n{computing}\nprint(sys.stdin.read())"));
    assert!(busy.is_ok_and(|chained| chained.last.success()));
    let still = run("import time; time.sleep(60)");
    assert!(matches!(still, Err(RunError::Stalled { .. })), "{still:?}");
}

#[test]
fn what_a_reader_is_told_first_is_no_part_of_the_stream() {
    let producer = python("print('the stream', end='')");
    let mut reader = python("import sys; print(sys.stdin.read())");
    // More than the pump carries at once.
    reader.input = Input::Bytes([b"x".repeat(3 << 20), b" and ".to_vec()].concat());
    let piped = pipe(&runner().0, &producer, &reader, &mut |_, _| {}).unwrap();
    assert!(piped.last.stdout.ends_with(b"xxx and the stream\n"));
    assert_eq!(piped.last.stdout.len(), (3 << 20) + " and the stream\n".len());
    assert_eq!(piped.bytes, Some(10));
    // Nothing is no stream, whatever was told before.
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let mut reader = consumer(&proof);
    reader.input = Input::Bytes(b"x".to_vec());
    let piped = pipe(&runner().0, &python(""), &reader, &mut |_, _| {}).unwrap();
    assert!(!piped.last.success());
    assert!(!proof.exists(), "it saw an end");
}

#[test]
fn a_process_alone_reads_what_it_is_given_or_nothing() {
    let mut reader = python("import sys; print(len(sys.stdin.read()))");
    assert_eq!(run(&reader).unwrap().stdout, b"0\n");
    reader.input = Input::Bytes(vec![b'x'; 300_000]);
    assert_eq!(run(&reader).unwrap().stdout, b"300000\n");
    // Two inputs are none.
    reader.input = Input::Own;
    let refused = pipe(&runner().0, &python("print(1)"), &reader, &mut |_, _| {});
    assert!(matches!(refused.unwrap_err(), RunError::Spawn { .. }));
}
