//! Printing: JSON documents, tables, errors and the diagnostic log. stdout is written here, and by the verbs that are not for people.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::model::columns;
use crate::model::outcome::Trouble;
use crate::model::shown;
use crate::model::undo::Identity;
use crate::report::terminal::{Surroundings, TerminalOptions, Verbosity, Where};
use crate::step::error::StepError;

use super::options::Global;

/// Prints one JSON document on stdout.
///
/// # Errors
/// When stdout cannot be written, except because its reader has gone: see [`unless_unread`].
pub fn json(document: &impl Serialize) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(document)?;
    bytes.push(b'\n');
    unless_unread(write(&bytes))
}

/// Prints text on stdout, with a line break at its end. Names in it are escaped already (a line break in one would pass
/// for a line of ours); that nothing else drives the terminal is made sure here.
///
/// # Errors
/// When stdout cannot be written, except because its reader has gone: see [`unless_unread`].
pub fn text(text: &str) -> anyhow::Result<()> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    unless_unread(write(format!("{}{end}", shown::lines(text)).as_bytes()))
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Whoever read our output may have had enough (`| head`). That is no fault, and it must not hide one
/// either: the verb goes on and its own troubles decide the exit code.
fn unless_unread(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(StepError::new(
            Trouble::Environment,
            format!("cannot write to standard output: {error}"),
        )
        .into()),
        Ok(()) => Ok(()),
    }
}

/// Prints a line on stderr.
pub fn say(line: &str) {
    // A message that cannot be written has nobody who waits for it.
    let _ = writeln!(io::stderr().lock(), "{}", shown::lines(line));
}

/// Text of which every further line is indented, so that none passes for a line of ours.
pub fn hanging(text: &str, indent: &str) -> String {
    text.lines().collect::<Vec<_>>().join(&format!("\n{indent}"))
}

/// Prints that something went well on stdout: nothing to read for whoever said `-q`.
///
/// # Errors
/// As [`text`].
pub fn done(global: &Global, line: &str) -> anyhow::Result<()> {
    if global.quiet { Ok(()) } else { text(line) }
}

/// Prints an error with its causes on stderr.
pub fn error(error: &anyhow::Error) {
    let mut line = format!("stillpoint: {error}");
    for cause in error.chain().skip(1) {
        line.push_str(&format!(": {cause}"));
    }
    say(&line);
}

/// Rows as aligned columns below a header, each on one line.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header = header.iter().map(|&name| name.to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows.iter().cloned()).collect();
    columns::aligned(&lines)
}

/// What is not known, in a table.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// How to write on stderr: decided here for all that is written there, the log included.
pub fn terminal_options(global: &Global) -> TerminalOptions {
    let verbosity = match (global.quiet, global.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, _) => Verbosity::Verbose,
    };
    let is_terminal = io::stderr().is_terminal();
    let stderr = nix::sys::stat::fstat(io::stderr()).ok();
    let stderr = stderr.map(|it| Identity::Inode { device: it.st_dev, inode: it.st_ino });
    let surroundings = Surroundings {
        terminal_width: is_terminal.then(|| console::Term::stderr().size().1),
        stderr: stderr.as_ref(),
        environment: &|name| std::env::var_os(name),
    };
    TerminalOptions::choose(verbosity, global.color.into(), &surroundings)
}

/// Starts the diagnostic log on stderr: warnings, more with each `-v`.
pub fn start_logging(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "stillpoint=info",
        (false, 2) => "stillpoint=debug",
        (false, _) => "stillpoint=trace",
    };
    let options = terminal_options(global);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(io::stderr)
        .with_ansi(options.color)
        // It would tell on the same stderr, and panic when that is full.
        .log_internal_errors(false)
        .with_target(false);
    // The journal has its own clock.
    if options.place == Where::Journal { builder.without_time().init() } else { builder.init() }
}
