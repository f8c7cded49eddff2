//! Programs that run around a job: argv lists in the host's namespace, with a process group that a time
//! limit or a signal stops as a whole.

use std::time::Duration;

use crate::host::{CommandSpec, Effect, Host, LockGuard, StdoutMode, Stream, Tool};
use crate::model::exit::exit_code;
use crate::model::job::{Hooks, Job};
use crate::model::names::{JobName, RunId};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::size;
use crate::model::undo::{EntryId, HookKind, PendingHook};

use crate::step::context::{Pipeline, RunContext};
use crate::step::error::{StepError, ledger_error};
use crate::step::recorder::{Done, Recorder};

/// The exit status by which a `before` hook says "not this time" (sysexits' `EX_TEMPFAIL`, as borgmatic uses it).
const SKIP: i32 = 75;

/// What the environment of a hook says of it and its run.
#[derive(Debug, Clone, Copy)]
pub struct HookEnv<'a> {
    /// `before`, `quiesce`, `resume`, `after`, `on-failure` or `finally`.
    name: &'static str,
    job: &'a JobName,
    run: &'a RunId,
    ending: Option<&'a Ending>,
}

/// The variables that a hook is given besides those of Stillpoint itself, and what each says. They are a contract: the
/// help and the commented configuration name each one.
pub const VARIABLES: &[(&str, &str)] = &[
    ("STILLPOINT_HOOK", "which hook it is: before, quiesce, resume, after, on-failure or finally"),
    ("STILLPOINT_JOB", "the job"),
    ("STILLPOINT_RUN", "the run's id"),
    (
        "STILLPOINT_OUTCOME",
        "after, on-failure, finally: ok, warning, incomplete, failed, skipped or interrupted",
    ),
    ("STILLPOINT_EXIT_CODE", "the same hooks: the exit code of the job so far"),
    ("STILLPOINT_ERROR", "the same hooks: what went wrong first, empty when nothing did"),
];

/// How many bytes of an error a hook is told; a process has no room for any number.
const LONGEST_ERROR: usize = 4096;

/// How a job has ended, as far as the hooks after it can know.
#[derive(Debug)]
struct Ending {
    outcome: Outcome,
    exit_code: i32,
    error: String,
}

impl Ending {
    /// Of a job as it stands, perhaps without a copy on purpose, for this reason.
    fn of(cx: RunContext<'_>, rec: &Recorder<'_>, skipped: Option<&str>) -> Self {
        // A signal between two steps fails none of them, and the job is interrupted all the same.
        let signal = cx.host().stop_signal();
        let troubles: Vec<Trouble> =
            rec.troubles.iter().copied().chain(signal.map(Trouble::Signal)).collect();
        let first = rec.steps.iter().find(|step| step.outcome > Outcome::Warning);
        let first =
            first.or_else(|| rec.steps.iter().find(|step| step.outcome == Outcome::Warning));
        let mut error = first.map(|step| step.detail.replace('\0', " ")).unwrap_or_default();
        let end = (0..=LONGEST_ERROR.min(error.len())).rev().find(|at| error.is_char_boundary(*at));
        error.truncate(end.unwrap_or(0));
        Self {
            outcome: match (signal, skipped) {
                (Some(_), _) => Outcome::Interrupted,
                (None, Some(reason)) => rec.outcome().worst(Outcome::Skipped(reason.to_owned())),
                (None, None) => rec.outcome(),
            },
            exit_code: exit_code(&troubles),
            error,
        }
    }
}

impl<'a> HookEnv<'a> {
    /// Of a hook that the ledger holds, which runs in the job's own run or in `recover`, where its outcome is not known.
    fn pending(hook: &'a PendingHook, run: &'a RunId) -> Self {
        Self { name: hook.kind.name(), job: &hook.job, run, ending: None }
    }

    /// Of a hook that runs just before the captures are made.
    pub fn quiesce(job: &'a JobName, run: &'a RunId) -> Self {
        Self { name: "quiesce", job, run, ending: None }
    }
}

/// What the `before` hooks decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// A hook exited with 75: leave the job out.
    Skip(String),
}

/// Runs one hook. Answers whether it asked to skip the job.
///
/// # Errors
/// When it cannot be run, runs too long or exits with another status than 0 and 75.
pub fn run_one(
    host: &dyn Host,
    argv: &[String],
    timeout: Option<Duration>,
    env: &HookEnv<'_>,
) -> Result<bool, StepError> {
    let Some(mut spec) = hook_command(argv) else { return Ok(false) };
    spec.time_limit = timeout;
    spec.stdout = StdoutMode::Lines;
    spec = spec
        .env("STILLPOINT_HOOK", env.name)
        .env("STILLPOINT_JOB", env.job.as_str())
        .env("STILLPOINT_RUN", env.run.as_str());
    if let Some(ending) = env.ending {
        spec = spec
            .env("STILLPOINT_OUTCOME", ending.outcome.word())
            .env("STILLPOINT_EXIT_CODE", ending.exit_code.to_string())
            .env("STILLPOINT_ERROR", &ending.error);
    }
    let hook = env.name;
    let ran = host.run(&spec, &mut |stream, line| {
        let line = String::from_utf8_lossy(line);
        match stream {
            Stream::Out => tracing::info!(hook, "{line}"),
            Stream::Err | Stream::ProducerErr => tracing::debug!(hook, "{line}"),
        }
    });
    let completed = ran.map_err(|error| {
        let error = StepError::from(error);
        let message = format!("the {hook} hook of job {}: {}", env.job, error.message);
        StepError { message, ..error }
    })?;
    if completed.success() {
        return Ok(false);
    }
    if env.name == "before" && completed.code() == Some(SKIP) {
        return Ok(true);
    }
    let (exit, said) = (completed.exit, completed.last_words(5));
    let text = format!("the {hook} hook {} failed ({exit}): {said}", spec.display());
    Err(StepError::new(Trouble::JobFailed, text))
}

/// A hook as a command.
fn hook_command(argv: &[String]) -> Option<CommandSpec> {
    let (program, args) = argv.split_first()?;
    Some(CommandSpec::new(Tool::from_word(program), Effect::Mutate).args(args))
}

/// That something is in the ledger, in words; a dry run has none.
pub fn in_ledger(cx: RunContext<'_>, what: &str) -> String {
    format!("{what} {}written to the ledger", cx.tense("", "would be "))
}

/// A hook that the ledger holds until it has run.
#[derive(Debug)]
pub struct Held {
    entry: EntryId,
    hook: PendingHook,
}

/// Writes the `finally` hooks into the ledger, so that they run whatever happens from now on.
///
/// # Errors
/// When the ledger cannot be written; then the job must not start.
pub fn intend_finally(cx: RunContext<'_>, job: &Job) -> Result<Vec<Held>, StepError> {
    intend(cx, job, HookKind::Finally)
}

/// Writes the `resume` hooks into the ledger.
///
/// # Errors
/// When the ledger cannot be written; then no writer must be told to pause.
pub fn intend_resume(cx: RunContext<'_>, job: &Job) -> Result<Vec<Held>, StepError> {
    intend(cx, job, HookKind::Resume)
}

fn intend(cx: RunContext<'_>, job: &Job, kind: HookKind) -> Result<Vec<Held>, StepError> {
    let hooks = match kind {
        HookKind::Finally => &job.hooks.finally,
        HookKind::Resume => &job.hooks.resume,
    };
    let (name, timeout) = (&job.name, job.hooks.timeout);
    let mut held = Vec::new();
    // Recover works from the newest entry back, and the hooks are to run in the file's order.
    for argv in hooks.iter().rev() {
        let hook = PendingHook { kind, job: name.clone(), argv: argv.clone(), timeout };
        let entry = cx.ledger.intend(hook.clone().into()).map_err(ledger_error)?;
        held.push(Held { entry, hook });
    }
    held.reverse();
    Ok(held)
}

/// Runs a hook that a ledger holds.
///
/// # Errors
/// As [`run_one`].
pub fn run_pending(host: &dyn Host, run: &RunId, hook: &PendingHook) -> Result<(), StepError> {
    run_one(host, &hook.argv, hook.timeout, &HookEnv::pending(hook, run)).map(|_| ())
}

/// Whether a hook that a ledger holds may run now: under its job's lock, which no live run of that job gives away between
/// its own hooks. A `finally` would start the database that the live run has just stopped.
///
/// # Errors
/// When it has to wait.
pub fn permit(
    pipeline: Pipeline<'_>,
    run: &RunId,
    hook: &PendingHook,
) -> Result<Box<dyn LockGuard>, StepError> {
    pipeline.lock_job(run, &hook.job, Duration::ZERO).map_err(|error| {
        let (kind, job) = (hook.kind.name(), &hook.job);
        let why = StepError::from(error).message;
        let text = format!("the {kind} hook of job {job} has to wait: {why}");
        StepError::new(Trouble::Cleanup, text)
    })
}

/// Runs the `before` hooks until one fails or asks to skip.
pub fn before(cx: RunContext<'_>, rec: &mut Recorder<'_>, job: &Job) -> Option<Verdict> {
    if job.hooks.before.is_empty() {
        return Some(Verdict::Proceed);
    }
    rec.step("before", None, None, |_| {
        let env = HookEnv { name: "before", job: &job.name, run: cx.run, ending: None };
        for argv in &job.hooks.before {
            if run_one(cx.host(), argv, job.hooks.timeout, &env)? {
                let reason = format!("the before hook {} exited with {SKIP}", argv[0]);
                return Ok((Verdict::Skip(reason.clone()), Done::skipped(reason)));
            }
        }
        Ok((Verdict::Proceed, Done::ok(counted(job.hooks.before.len()))))
    })
}

/// Runs the `after` hooks, or the `on-failure` ones, as the job's outcome asks. All of them run; the first
/// failure is the step's.
pub fn after(cx: RunContext<'_>, rec: &mut Recorder<'_>, job: &Job, skipped: Option<&str>) {
    let ending = Ending::of(cx, rec, skipped);
    let Hooks { after, on_failure, .. } = &job.hooks;
    let good = ending.outcome <= Outcome::Warning;
    let (name, hooks) = if good { ("after", after) } else { ("on-failure", on_failure) };
    if hooks.is_empty() {
        return;
    }
    let _shield = cx.host().shield();
    rec.step(name, None, None, |_| {
        let env = HookEnv { name, job: &job.name, run: cx.run, ending: Some(&ending) };
        let mut failure = None;
        for argv in hooks {
            if let Err(error) = run_one(cx.host(), argv, job.hooks.timeout, &env) {
                failure.get_or_insert(error);
            }
        }
        match failure {
            // The copies stand; that the hook failed must still be seen.
            Some(error) => Ok(((), Done::with(Outcome::Warning, Trouble::Warning, error.message))),
            None => Ok(((), Done::ok(counted(hooks.len())))),
        }
    });
}

/// Runs the hooks of [`intend_finally`]. What fails stays in the ledger, for recover to try again.
pub fn finally(cx: RunContext<'_>, rec: &mut Recorder<'_>, held: &[Held], skipped: Option<&str>) {
    let ending = Ending::of(cx, rec, skipped);
    run_held(cx, rec, "finally", held, Some(&ending));
}

/// Runs the hooks of [`intend_resume`], in the same way.
pub fn resume(cx: RunContext<'_>, rec: &mut Recorder<'_>, held: &[Held]) {
    run_held(cx, rec, "resume", held, None);
}

fn run_held(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    step: &'static str,
    held: &[Held],
    ending: Option<&Ending>,
) {
    if held.is_empty() {
        return;
    }
    let _shield = cx.host().shield();
    rec.step(step, None, None, |_| {
        let mut failures = Vec::new();
        for Held { entry, hook } in held {
            // Here it is known how the job ended, which recover would not know.
            let env = HookEnv { ending, ..HookEnv::pending(hook, cx.run) };
            let settle = |_| cx.ledger.settled(*entry).map_err(ledger_error);
            let ran = run_one(cx.host(), &hook.argv, hook.timeout, &env);
            if let Err(error) = ran.and_then(settle) {
                failures.push(error.message);
            }
        }
        if failures.is_empty() {
            Ok(((), Done::ok(counted(held.len()))))
        } else {
            let text = format!(
                "{} — the next run or `stillpoint recover` tries again",
                failures.join("; ")
            );
            Ok(((), Done::with(Outcome::Warning, Trouble::Cleanup, text)))
        }
    });
}

/// How many hooks ran, in words.
pub fn counted(hooks: usize) -> String {
    size::counted(hooks as u64, "hook", "hooks")
}
