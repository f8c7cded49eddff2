//! What stands on the screen, in the log and in the journal at the end of a run.

use std::io;
use std::sync::Arc;

use super::*;
use crate::model::names::{RunId, TargetName};

/// A buffer that the test keeps one end of.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn place(
    job: Option<&str>,
    target: Option<&str>,
    item: Option<&str>,
    step: &'static str,
) -> StepPlace {
    StepPlace {
        job: job.map(|name| JobName::new(name).unwrap()),
        target: target.map(|name| TargetName::new(name).unwrap()),
        item: item.map(str::to_owned),
        step,
    }
}

fn finished(place: StepPlace, outcome: Outcome, detail: &str, seconds: u64) -> Event {
    let elapsed = Duration::from_secs(seconds);
    Event::StepFinished { place, outcome, detail: detail.into(), elapsed }
}

/// A run with a bit of everything.
fn a_run() -> Vec<Event> {
    let job = JobName::new("host").unwrap();
    let run = RunId::from_bytes([1, 2, 3, 4]);
    let backup = place(Some("host"), Some("usb"), None, "backup");
    let progress = |done, total, current: &str| Event::Progress {
        place: backup.clone(),
        progress: Progress {
            bytes_done: Some(done),
            bytes_total: total,
            files_done: Some(7),
            current: Some(current.into()),
        },
    };
    vec![
        Event::RunStarted { run: run.clone(), jobs: vec![job.clone()] },
        Event::JobStarted { job: job.clone() },
        Event::StepStarted { place: backup.clone() },
        progress(512, None, "/etc/passwd"),
        progress(1_024, Some(4_096), "/etc/shadow"),
        finished(backup, Outcome::Ok, "7 files, 4.0 KiB", 3),
        finished(
            place(Some("host"), None, Some("pg"), "after"),
            Outcome::Skipped("off".into()),
            "off",
            0,
        ),
        Event::Note { job: Some(job.clone()), warning: false, text: "no capture".into() },
        finished(
            place(Some("host"), Some("nas"), None, "backup"),
            Outcome::Failed,
            "cannot reach the repository\nssh: \x1b[2Jno route\n",
            61,
        ),
        finished(place(None, Some("usb"), None, "check"), Outcome::Warning, "slow", 0),
        Event::Note { job: None, warning: true, text: "clock looks wrong".into() },
        Event::JobFinished { job, outcome: Outcome::Failed, elapsed: Duration::from_secs(65) },
        Event::RunFinished { run, outcome: Outcome::Failed, elapsed: Duration::from_secs(66) },
    ]
}

fn written(place: Where, verbosity: Verbosity, color: bool, events: &[Event]) -> String {
    let buffer = Buffer::default();
    let options = TerminalOptions { place, verbosity, color };
    let terminal = Terminal::new(options, Box::new(buffer.clone()));
    for event in events {
        terminal.on(event);
    }
    let bytes = buffer.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// What a terminal shows after these bytes.
fn shown(bytes: &str) -> String {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut chars = bytes.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            // The terminal driver turns a line feed into a line break.
            '\n' => (row, column) = (row + 1, 0),
            '\x1b' => {
                assert_eq!(chars.next(), Some('['));
                let mut number = String::new();
                let command = loop {
                    match chars.next().unwrap() {
                        digit @ '0'..='9' => number.push(digit),
                        command => break command,
                    }
                };
                match command {
                    'A' => row -= number.parse::<usize>().unwrap(),
                    'B' => row += number.parse::<usize>().unwrap(),
                    'K' => lines[row].clear(),
                    'm' => {}
                    other => panic!("unknown control sequence {other:?}"),
                }
            }
            c => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    let lines: Vec<String> =
        lines.into_iter().map(|line| line.into_iter().collect::<String>()).collect();
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn a_log_has_one_calm_line_for_each_step() {
    insta::assert_snapshot!(written(Where::Plain, Verbosity::Normal, false, &a_run()), @r"
    run 01020304: started, jobs: host
    host/usb backup: ok, 7 files, 4.0 KiB (3s)
    host[pg] after: skipped (off)
    host: no capture
    host/nas backup: failed, cannot reach the repository (1m 1s)
      ssh: \u{1b}[2Jno route
    usb check: warning, slow
    clock looks wrong
    host: failed (1m 5s)
    run 01020304: failed (1m 6s)
    ");
}

#[test]
fn the_journal_gets_priorities_and_no_colour() {
    insta::assert_snapshot!(written(Where::Journal, Verbosity::Verbose, true, &a_run()), @r"
    <6>run 01020304: started, jobs: host
    <7>host: started
    <7>host/usb backup: started
    <6>host/usb backup: ok, 7 files, 4.0 KiB (3s)
    <6>host[pg] after: skipped (off)
    <6>host: no capture
    <3>host/nas backup: failed, cannot reach the repository (1m 1s)
    <3>  ssh: \u{1b}[2Jno route
    <4>usb check: warning, slow
    <4>clock looks wrong
    <3>host: failed (1m 5s)
    <3>run 01020304: failed (1m 6s)
    <4>- host/nas backup: failed, cannot reach the repository (1m 1s)
    <4>- usb check: warning, slow
    <4>- clock looks wrong
    ");
}

#[test]
fn quiet_tells_only_what_somebody_should_read() {
    insta::assert_snapshot!(written(Where::Plain, Verbosity::Quiet, false, &a_run()), @r"
    host/nas backup: failed, cannot reach the repository (1m 1s)
      ssh: \u{1b}[2Jno route
    usb check: warning, slow
    clock looks wrong
    host: failed (1m 5s)
    run 01020304: failed (1m 6s)
    ");
    let fine: Vec<Event> = a_run().into_iter().take(8).collect();
    for place in [Where::Plain, Where::Journal, Where::Terminal { width: 80 }] {
        assert_eq!(written(place, Verbosity::Quiet, true, &fine), "");
    }
}

#[test]
fn a_terminal_shows_a_bar_while_a_step_is_at_work() {
    let place = Where::Terminal { width: 72 };
    let events = a_run();
    let at_work = written(place, Verbosity::Normal, false, &events[..3]);
    insta::assert_snapshot!(shown(&at_work), @"
    run 01020304: started, jobs: host
    host/usb backup …
    ");
    let done = written(place, Verbosity::Normal, false, &events);
    assert_eq!(
        shown(&done).trim_end(),
        written(Where::Plain, Verbosity::Normal, false, &events).trim_end(),
        "no bar is left behind"
    );
}

#[test]
fn the_bar_says_how_far() {
    // The draw rate is limited, so the bar is asked and not the screen.
    let events = a_run();
    let options = TerminalOptions {
        place: Where::Terminal { width: 72 },
        verbosity: Verbosity::Normal,
        color: false,
    };
    let terminal = Terminal::new(options, Box::new(Buffer::default()));
    for event in &events[..5] {
        terminal.on(event);
    }
    let state = terminal.state();
    let bar = &state.active[0].1;
    assert_eq!((bar.position(), bar.length()), (1_024, Some(4_096)));
    assert_eq!(bar.message(), "1.0 KiB of 4.0 KiB, 7 files, /etc/shadow");
    assert_eq!(bar.prefix(), "host/usb backup");
}

#[test]
fn colours_mark_what_went_wrong() {
    let text = written(Where::Plain, Verbosity::Normal, true, &a_run());
    assert!(text.contains("\n\x1b[31mhost/nas backup: failed"));
    assert!(text.contains("\n\x1b[33musb check: warning, slow\x1b[0m\n"));
    assert!(text.contains("\nhost/usb backup: ok"));
}

#[test]
fn after_a_long_run_the_troubles_stand_at_the_end() {
    let backup = |number: usize, outcome| {
        let item = format!("vm{number}");
        finished(place(Some("guests"), Some("usb"), Some(&item), "backup"), outcome, "", 0)
    };
    let mut events: Vec<Event> = (0..10).map(|number| backup(number, Outcome::Failed)).collect();
    events.extend((10..20).map(|number| backup(number, Outcome::Ok)));
    events.push(Event::RunFinished {
        run: RunId::from_bytes([1, 2, 3, 4]),
        outcome: Outcome::Failed,
        elapsed: Duration::ZERO,
    });
    let text = written(Where::Plain, Verbosity::Normal, false, &events);
    let end: Vec<&str> = text.lines().skip(20).collect();
    assert_eq!(end.len(), 10);
    assert_eq!(end[0], "run 01020304: failed");
    assert_eq!(end[1], "- guests[vm0]/usb backup: failed");
    assert_eq!(end[9], "- and 2 more, see above");
}

#[test]
fn the_pace_is_told_once_it_can_be_known() {
    let told = |done: u64, total: Option<u64>, seconds: u64| {
        let progress =
            Progress { bytes_done: Some(done), bytes_total: total, ..Progress::default() };
        pace(&progress, Duration::from_secs(seconds))
    };
    assert_eq!(told(40 << 20, Some(100 << 20), 10), ", 4.0 MiB/s, 15s left");
    assert_eq!(told(40 << 20, None, 10), ", 4.0 MiB/s");
    assert_eq!(told(40 << 20, Some(30 << 20), 10), ", 4.0 MiB/s", "more than was foreseen");
    assert_eq!(told(40 << 20, Some(100 << 20), 2), "");
    assert_eq!(told(0, Some(100), 10), "");
    assert_eq!(pace(&Progress::default(), Duration::from_secs(10)), "");
}

#[test]
fn the_lines_and_bars_of_two_jobs_at_work_are_told_apart() {
    let host = place(Some("host"), Some("usb"), None, "backup");
    let mail = place(Some("mail"), Some("nas"), None, "backup");
    let note = Event::Note {
        job: Some(JobName::new("mail").unwrap()),
        warning: true,
        text: "something".into(),
    };
    let half = Progress { bytes_done: Some(1), bytes_total: Some(2), ..Progress::default() };
    let events = [
        Event::StepStarted { place: host.clone() },
        Event::StepStarted { place: mail.clone() },
        Event::Progress { place: mail.clone(), progress: half },
        note,
        finished(host, Outcome::Ok, "one", 0),
        finished(mail, Outcome::Ok, "two", 0),
    ];
    let options = TerminalOptions {
        place: Where::Terminal { width: 72 },
        verbosity: Verbosity::Normal,
        color: false,
    };
    let terminal = Terminal::new(options, Box::new(Buffer::default()));
    for event in &events[..3] {
        terminal.on(event);
    }
    let bars: Vec<(String, Option<u64>)> =
        terminal.state().active.iter().map(|(_, bar)| (bar.prefix(), bar.length())).collect();
    assert_eq!(bars, [("host/usb backup".into(), None), ("mail/nas backup".into(), Some(2))]);
    let journal = written(Where::Journal, Verbosity::Normal, false, &events);
    insta::assert_snapshot!(journal, @"
    <4>mail: something
    <6>host/usb backup: ok, one
    <6>mail/nas backup: ok, two
    ");
}
