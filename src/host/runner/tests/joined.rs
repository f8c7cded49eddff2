//! Two processes joined by the pump: whatever goes wrong, a torn stream is never ended.

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

/// Joins the two and looks for the proof that the consumer saw the end.
fn join(producer: &CommandSpec, limit: Option<Duration>) -> (Result<Piped, RunError>, bool) {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let mut consumer = consumer(&proof);
    consumer.stall_limit = limit;
    let result = runner().0.pipe(producer, &consumer, &mut |_, _| {});
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
    let piped = runner()
        .0
        .pipe(&producer, &consumer(&proof), &mut |stream, line| lines.push((stream, text(line))))
        .unwrap();
    assert!(piped.producer.success() && piped.consumer.success());
    assert_eq!(piped.bytes, 32_000_000);
    assert_eq!(await_file(&proof), "32000000");
    assert_eq!(piped.consumer.stdout, b"stored 32000000\n");
    assert_eq!(piped.producer.last_lines(1), "dumped");
    assert!(lines.contains(&(Stream::ProducerErr, "dumped".into())));
    assert!(lines.contains(&(Stream::Out, "stored 32000000".into())));
}

#[test]
fn an_empty_stream_of_a_good_producer_is_not_taken_for_a_whole_one() {
    let (result, saw_end) = join(&shell("exit 0"), None);
    let piped = result.unwrap();
    assert!(piped.producer.success() && !piped.consumer.success() && !saw_end);
    assert_eq!(piped.bytes, 0);
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
        assert_eq!(piped.producer.exit, exit, "{script}");
        assert_eq!(piped.consumer.exit, Exit::Signal(15), "{script}");
        assert!(!saw_end, "{script}: the consumer saw the end of a torn stream");
    }
}

#[test]
fn a_consumer_that_ignores_its_stop_signal_is_killed_before_it_sees_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let stubborn = shell(&format!("trap '' TERM; cat > /dev/null; echo end > {}", proof.shown()));
    let piped = impatient().0.pipe(&shell("sleep 0.3; exit 1"), &stubborn, &mut |_, _| {}).unwrap();
    assert!(!piped.consumer.success());
    assert!(!proof.exists(), "the consumer saw the end of a torn stream");
    assert_eq!(piped.producer.exit, Exit::Code(1));
}

#[test]
fn a_consumer_that_dies_stops_the_producer_and_both_are_reported() {
    let endless = shell("while :; do echo data; done");
    let started = Instant::now();
    let piped = runner().0.pipe(&endless, &shell("head -c 10; exit 5"), &mut |_, _| {}).unwrap();
    assert_eq!(piped.consumer.exit, Exit::Code(5));
    assert!(!piped.producer.success());
    // A producer that writes nothing gets no SIGPIPE; it is stopped all the same.
    let piped = runner().0.pipe(&shell("exec sleep 60"), &shell("exit 6"), &mut |_, _| {}).unwrap();
    assert_eq!((piped.consumer.exit, piped.producer.exit), (Exit::Code(6), Exit::Signal(15)));
    assert!(started.elapsed() < IN_TIME);
}

#[test]
fn a_consumer_that_ignores_the_end_of_a_good_stream_has_not_stored_it() {
    let producer = python("import sys; sys.stdout.buffer.write(b'x' * 10000000)");
    let result = runner().0.pipe(&producer, &shell("head -c 10 > /dev/null"), &mut |_, _| {});
    // The producer either notices and fails, or it does not and then the consumer is to blame.
    match result {
        Ok(piped) => assert!(!piped.producer.success()),
        Err(error) => assert!(matches!(error, RunError::Io { .. }), "{error}"),
    }
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
    let result = runner.pipe(&producer, &consumer(&proof), &mut |_, _| stop.raise(15));
    assert!(matches!(result, Err(RunError::Interrupted { signal: 15, .. })), "{result:?}");
    assert!(!proof.exists());
}

#[test]
fn a_consumer_that_cannot_start_stops_the_producer() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let producer = shell(&format!("echo $$ > {}; exec sleep 60", pid.shown()));
    let consumer = CommandSpec::new(Tool::Path("/nonexistent/tool".into()), Effect::Mutate);
    let result = runner().0.pipe(&producer, &consumer, &mut |_, _| {});
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
    assert!(result.unwrap().consumer.success() && saw_end);
    let (result, saw_end) = join(&shell("exec sleep 60"), Some(limit));
    assert!(matches!(result, Err(RunError::Stalled { .. })), "{result:?}");
    assert!(!saw_end);
}
