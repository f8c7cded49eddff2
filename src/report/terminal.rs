//! Tells whoever watches what a run is doing: a person at a terminal, a log file, or the journal.
//!
//! It writes to standard error, which it is given, and never to standard output. On a terminal, progress
//! bars stand below one line for each finished step; elsewhere there are only the lines. Under systemd each
//! line starts with its priority (`<4>`, sd-daemon(3)). Details hold file names and engines' words, so
//! control characters are escaped: nobody's file name may write to somebody's terminal.
//!
//! Nothing here starts a thread; bars move when progress arrives.

mod options;
mod screen;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::screen::Screen;
use crate::model::event::{Event, Observer, Progress, StepPlace};
use crate::model::names::JobName;
use crate::model::outcome::Outcome;
use crate::model::shown;
use crate::model::size;
use crate::model::span;

pub use options::{ColorChoice, Surroundings, TerminalOptions, Verbosity, Where};

/// After a run of more lines than this, the troubles are told again at its end, where they are read.
const SUMMARY_AFTER: usize = 10;

/// How many troubles the summary tells; the others are counted.
const SUMMARY_LINES: usize = 8;

/// How much a line matters, as syslog numbers it (sd-daemon(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

impl Priority {
    fn of(outcome: &Outcome) -> Priority {
        match outcome {
            Outcome::Ok | Outcome::Skipped(_) => Priority::Info,
            Outcome::Warning | Outcome::Incomplete | Outcome::Interrupted => Priority::Warning,
            Outcome::Failed => Priority::Error,
        }
    }

    /// The least that is still written.
    fn least(verbosity: Verbosity) -> Priority {
        match verbosity {
            Verbosity::Quiet => Priority::Warning,
            Verbosity::Normal => Priority::Info,
            Verbosity::Verbose => Priority::Debug,
        }
    }
}

/// The observer.
pub struct Terminal {
    options: TerminalOptions,
    screen: Screen,
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The steps at work, with their bars; more than one when jobs, or the targets of one, run in parallel.
    active: Vec<(StepPlace, ProgressBar)>,
    /// What went wrong so far, as it was told.
    troubles: Vec<String>,
    /// How many lines were written.
    lines: usize,
}

impl Terminal {
    /// An observer that writes to `out`, which is standard error except in tests.
    pub fn new(options: TerminalOptions, out: Box<dyn Write + Send>) -> Terminal {
        let width = match options.place {
            Where::Terminal { width } => width,
            Where::Plain | Where::Journal => u16::MAX,
        };
        let screen = Screen::new(out, width);
        let draws = matches!(options.place, Where::Terminal { .. })
            && options.verbosity != Verbosity::Quiet;
        let target = if draws {
            ProgressDrawTarget::term_like(Box::new(screen.clone()))
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        Terminal { options, screen, bars, state: Mutex::new(State::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Another thread's panic leaves nothing half-done that matters to a display.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one message, unless it matters less than what is wanted. Its further lines are indented.
    fn say(&self, state: &mut State, priority: Priority, text: &str) {
        if priority > Priority::least(self.options.verbosity) {
            return;
        }
        for (number, line) in text.lines().enumerate() {
            let indent = if number > 0 { "  " } else { "" };
            let line = format!("{indent}{}", shown::text(line));
            let line = match self.options.place {
                Where::Journal => format!("<{}>{line}", priority as u8),
                Where::Plain | Where::Terminal { .. } => self.colored(priority, line),
            };
            // A display that cannot be written to must not stop a backup.
            let _ = self.bars.suspend(|| self.screen.line(&line));
            state.lines += 1;
        }
    }

    fn colored(&self, priority: Priority, line: String) -> String {
        match (self.options.color, priority) {
            (true, Priority::Error) => format!("\x1b[31m{line}\x1b[0m"),
            (true, Priority::Warning) => format!("\x1b[33m{line}\x1b[0m"),
            (true, Priority::Debug) => format!("\x1b[2m{line}\x1b[0m"),
            (true, Priority::Info) | (false, _) => line,
        }
    }

    fn step_started(&self, state: &mut State, place: &StepPlace) {
        self.say(state, Priority::Debug, &format!("{}: started", label(place)));
        if self.bars.is_hidden() {
            return;
        }
        let bar = self.bars.add(ProgressBar::no_length());
        bar.set_style(style("{prefix} {wide_msg}"));
        bar.set_prefix(shown::text(&label(place)));
        // A bar is drawn when it changes; without this it would stay unseen until progress arrives.
        bar.set_message(BEGUN);
        state.active.push((place.clone(), bar));
    }

    fn progress(&self, state: &State, place: &StepPlace, progress: &Progress) {
        let Some((_, bar)) = state.active.iter().find(|(active, _)| active == place) else {
            return;
        };
        if let (Some(done), Some(total)) = (progress.bytes_done, progress.bytes_total)
            && total > 0
        {
            if bar.length() != Some(total) {
                bar.set_style(style("{prefix} [{bar:24}] {percent:>3} % {wide_msg}"));
                bar.set_length(total);
            }
            bar.set_position(done.min(total));
        }
        if bar.message() == BEGUN {
            bar.reset_elapsed();
        }
        let told = [describe(progress), pace(progress, bar.elapsed())].concat();
        bar.set_message(shown::text(&told));
    }

    fn step_finished(
        &self,
        state: &mut State,
        place: &StepPlace,
        outcome: &Outcome,
        detail: &str,
        elapsed: Duration,
    ) {
        if let Some(index) = state.active.iter().position(|(active, _)| active == place) {
            let (_, bar) = state.active.swap_remove(index);
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        // What was left out has its reason in the outcome.
        let is_said = matches!(outcome, Outcome::Skipped(reason) if reason == detail);
        let detail = if is_said { "" } else { detail };
        let comma = if detail.is_empty() { "" } else { ", " };
        let text = format!("{}: {outcome}{comma}{detail}", label(place));
        let text = with_time(&text, elapsed);
        self.say(state, Priority::of(outcome), &text);
        if !is_fine(outcome) {
            state.troubles.push(text);
        }
    }

    fn run_finished(&self, state: &mut State, run: &str, outcome: &Outcome, elapsed: Duration) {
        let repeat = !is_fine(outcome) && state.lines > SUMMARY_AFTER;
        self.say(
            state,
            Priority::of(outcome),
            &with_time(&format!("run {run}: {outcome}"), elapsed),
        );
        if !repeat || self.options.verbosity == Verbosity::Quiet {
            return;
        }
        let troubles = std::mem::take(&mut state.troubles);
        for trouble in troubles.iter().take(SUMMARY_LINES) {
            // The first line says what and where; the rest was told when it happened.
            let first = trouble.lines().next().unwrap_or_default();
            self.say(state, Priority::Warning, &format!("- {first}"));
        }
        if troubles.len() > SUMMARY_LINES {
            let more = troubles.len() - SUMMARY_LINES;
            self.say(state, Priority::Warning, &format!("- and {more} more, see above"));
        }
    }
}

impl Observer for Terminal {
    fn on(&self, event: &Event) {
        let mut state = self.state();
        let state = &mut *state;
        match event {
            Event::RunStarted { run, jobs } => {
                let jobs: Vec<&str> = jobs.iter().map(JobName::as_str).collect();
                let text = format!("run {run}: started, jobs: {}", jobs.join(", "));
                self.say(state, Priority::Info, &text);
            }
            Event::JobStarted { job } => {
                self.say(state, Priority::Debug, &format!("{job}: started"));
            }
            Event::StepStarted { place } => self.step_started(state, place),
            Event::Progress { place, progress } => self.progress(state, place, progress),
            Event::StepFinished { place, outcome, detail, elapsed } => {
                self.step_finished(state, place, outcome, detail, *elapsed);
            }
            Event::Note { job, warning, text } => {
                let text = match job {
                    Some(job) => format!("{job}: {text}"),
                    None => text.clone(),
                };
                let priority = if *warning { Priority::Warning } else { Priority::Info };
                self.say(state, priority, &text);
                if *warning {
                    state.troubles.push(text);
                }
            }
            Event::JobFinished { job, outcome, elapsed } => {
                let text = with_time(&format!("{job}: {outcome}"), *elapsed);
                self.say(state, Priority::of(outcome), &text);
            }
            Event::RunFinished { run, outcome, elapsed } => {
                self.run_finished(state, run.as_str(), outcome, *elapsed);
            }
        }
    }

    fn shows_progress(&self) -> bool {
        !self.bars.is_hidden()
    }
}

fn is_fine(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Ok | Outcome::Skipped(_))
}

/// `job[item]/target step`, without what the place does not have.
fn label(place: &StepPlace) -> String {
    let job = place.job.as_ref().map(JobName::as_str);
    let item = place.item.as_ref().map(|item| format!("[{item}]")).unwrap_or_default();
    let target = place.target.as_ref().map(|target| target.as_str());
    let whole = [job.map(|job| format!("{job}{item}")), target.map(str::to_owned)];
    let whole: Vec<String> = whole.into_iter().flatten().collect();
    if whole.is_empty() {
        return place.step.to_owned();
    }
    format!("{} {}", whole.join("/"), place.step)
}

fn with_time(text: &str, elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(1) {
        return text.to_owned();
    }
    // The time belongs to the first line; what follows are an engine's own words.
    let (first, rest) = text.split_once('\n').map_or((text, None), |(one, two)| (one, Some(two)));
    let first = format!("{first} ({})", span::show(elapsed));
    rest.map_or_else(|| first.clone(), |rest| format!("{first}\n{rest}"))
}

/// How far an engine is, in words; the bar shows the share.
fn describe(progress: &Progress) -> String {
    let mut parts = Vec::new();
    match (progress.bytes_done, progress.bytes_total) {
        (Some(done), Some(total)) => {
            parts.push(format!("{} of {}", size::show(done), size::show(total)));
        }
        (Some(done), None) => parts.push(size::show(done)),
        (None, _) => {}
    }
    parts.extend(progress.files_done.map(|files| size::counted(files, "file", "files")));
    parts.extend(progress.current.clone());
    parts.join(", ")
}

/// How fast it is, and how long it will take; nothing before that can be said.
fn pace(progress: &Progress, elapsed: Duration) -> String {
    let done = progress.bytes_done.filter(|done| *done > 0 && elapsed >= PACE_AFTER);
    let Some(done) = done else { return String::new() };
    let each = done as f64 / elapsed.as_secs_f64();
    let left = progress.bytes_total.and_then(|total| total.checked_sub(done)).map(|left| {
        let left = Duration::from_secs((left as f64 / each) as u64);
        format!(", {} left", span::show(left))
    });
    format!(", {}/s{}", size::show(each as u64), left.unwrap_or_default())
}

/// What a bar says before anything is known.
const BEGUN: &str = "…";

/// How long a step is at work before its pace says anything.
const PACE_AFTER: Duration = Duration::from_secs(3);

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file, which a test draws; a plain bar is still a bar.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
