//! Processes: a [`CommandSpec`] in, a [`Completed`] out, and no child left behind on any way between.
//!
//! A child gets an environment made from nothing, a fixed `PATH`, null input, a session of its own and no
//! descriptor but its own. It is asked to stop when we are, when it takes too long or when nothing moves: its
//! leader first, then its group, then by SIGKILL, except for the tools that must never get that.
//!
//! This is the only room that names `std::process::Command`.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use super::sys::process::identify;
use super::sys::signals::StopFlag;
use super::{Chained, ChildRecorder, CommandSpec, Completed, Input, RunError, StdoutMode, Watch};
use crate::model::undo::ChildProcess;

mod closed;
pub(super) mod guard;
mod held;
mod joint;
pub(super) mod lines;
mod locate;
mod outlet;
mod process;
mod pump;
mod spawn;
mod supervise;
#[cfg(test)]
mod tests;

pub use locate::FIXED_PATH;
pub(super) use locate::find_program;

use outlet::Outlet;
use process::{Process, Reason};
use pump::Pump;
use spawn::{Ends, Role};
use supervise::{StopSource, Supervision};

/// How long each stage of stopping lasts: asking the leader, asking its group.
const GRACE: Duration = Duration::from_secs(10);

/// The same after a second stop signal.
const URGENT_GRACE: Duration = Duration::from_secs(1);

/// Whether a process may be given a host name of its own: tried once, in a thread that ends with the attempt.
pub(super) fn gives_host_names() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let tried = std::thread::spawn(|| super::sys::namespace::take_host_name("stillpoint"));
        match tried.join() {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "locks of engines bear the machine's own name");
                false
            }
            Err(_) => false,
        }
    })
}

/// Runs processes for the real host.
pub(super) struct Runner {
    stop: Arc<StopFlag>,
    /// How many shields each thread has. What one job must still do lets no child of another one run on.
    shields: Mutex<HashMap<ThreadId, usize>>,
    recorder: Mutex<Option<Arc<dyn ChildRecorder>>>,
    grace: Duration,
}

impl Runner {
    /// A runner that stops its children when the flag is raised.
    pub(super) fn new(stop: Arc<StopFlag>) -> Self {
        Self { stop, shields: Mutex::default(), recorder: Mutex::new(None), grace: GRACE }
    }

    /// Runs a process to its end; see [`super::Host::run`].
    pub(super) fn run(&self, spec: &CommandSpec, watch: Watch<'_>) -> Result<Completed, RunError> {
        Ok(self.chain(&[], spec, watch)?.last)
    }

    /// Runs processes joined by pumps; see [`super::Host::chain`].
    pub(super) fn chain(
        &self,
        before: &[CommandSpec],
        last: &CommandSpec,
        watch: Watch<'_>,
    ) -> Result<Chained, RunError> {
        let specs = before.iter().chain([last]);
        specs.into_iter().try_for_each(|spec| self.refuse_when_stopped(spec))?;
        let ours = match last.stdout {
            // Where it was closed, something else has its number by now.
            StdoutMode::PassOn if closed::is_stdout_closed() => {
                let source = std::io::ErrorKind::BrokenPipe.into();
                return Err(RunError::Output { bytes: 0, source });
            }
            StdoutMode::PassOn => Some(own_stdout().map_err(|source| lost(last, source))?),
            StdoutMode::Whole | StdoutMode::Secret | StdoutMode::Lines | StdoutMode::Discard => {
                None
            }
        };
        self.chain_to(before, last, ours, watch)
    }

    /// The same, where what is passed on goes to `ours`.
    fn chain_to(
        &self,
        before: &[CommandSpec],
        last: &CommandSpec,
        ours: Option<File>,
        watch: Watch<'_>,
    ) -> Result<Chained, RunError> {
        let specs: Vec<&CommandSpec> = before.iter().chain([last]).collect();
        let (mut processes, pumps, started) = self.start_joined(&specs, Ends::default());
        let outlet = ours.filter(|_| started.is_ok()).and_then(|to| {
            let from = processes.last_mut()?.take_stdout()?;
            Some(Outlet::new(from, to))
        });
        let mut supervision = Supervision::new(processes, pumps, outlet, self);
        if started.is_err() {
            // What was started has nobody to write to, and nobody of it may see an end.
            supervision.dismiss();
        }
        supervision.drive(watch);
        let finished = self.finish(&mut supervision, 0);
        // That one did not start is the news, not how the others ended.
        started?;
        // A signal that comes when only the way out is still busy has no child to stop.
        let failure =
            supervision.outlet.as_mut().and_then(|it| Some((it.failure.take()?, it.bytes)));
        let mut completed = finished?;
        if let Some((source, bytes)) = failure {
            return Err(match self.stopping() {
                Some(signal) => RunError::Interrupted { command: last.display(), signal },
                None => RunError::Output { bytes, source },
            });
        }
        refuse_the_early(&specs, &completed)?;
        let pumps = &supervision.pumps;
        let bytes = Some(pumps.last().map_or(0, |pump| pump.bytes));
        let Some(ended) = completed.pop() else {
            return Err(lost(last, std::io::Error::other("it was never started")));
        };
        Ok(Chained { before: completed, last: ended, bytes })
    }

    /// Starts one after the other: who writes before who reads, since a writer without a reader waits, and a
    /// reader without a writer could see an end. Answers with what was started and whether that is all.
    fn start_joined(
        &self,
        specs: &[&CommandSpec],
        mut ends: Ends,
    ) -> (Vec<Process>, Vec<Pump>, Result<(), RunError>) {
        let mut processes: Vec<Process> = Vec::new();
        let mut pumps = Vec::new();
        for (at, spec) in specs.iter().enumerate() {
            let role = Role { reads: at > 0, feeds: at + 1 < specs.len() };
            let of_it = Ends {
                stdin: ends.stdin.take_if(|_| at == 0),
                stdout: ends.stdout.take_if(|_| at + 1 == specs.len()),
            };
            let role = Role { feeds: role.feeds || of_it.stdout.is_some(), ..role };
            let mut process = match self.start(spec, role, of_it) {
                Ok(process) => process,
                Err(error) => return (processes, pumps, Err(error)),
            };
            let to = process.take_stdin().map_err(|source| lost(spec, source));
            let from = processes.last_mut().and_then(Process::take_stdout);
            processes.push(process);
            match to {
                Ok(to) => {
                    let first = match &spec.input {
                        Input::Bytes(bytes) => bytes.as_slice(),
                        Input::Nothing | Input::Own | Input::Pipe(_) => &[],
                    };
                    pumps.extend(from.zip(to).map(|(from, to)| Pump::new(from, to, first)));
                }
                Err(error) => return (processes, pumps, Err(error)),
            }
        }
        (processes, pumps, Ok(()))
    }

    /// The signal that told us to stop, shielded or not.
    pub(super) fn stop_signal(&self) -> Option<i32> {
        self.stop.signal()
    }

    /// Lets children of the calling thread run although a signal has arrived, until the answer is dropped.
    pub(super) fn shield(&self) -> RunnerShield<'_> {
        let thread = std::thread::current().id();
        *self.shields().entry(thread).or_default() += 1;
        RunnerShield { runner: self, thread }
    }

    /// Whether the stop signal stops children of the calling thread now.
    pub(super) fn stopping(&self) -> Option<i32> {
        let is_shielded = self.shields().contains_key(&std::thread::current().id());
        if is_shielded { None } else { self.stop.signal() }
    }

    fn shields(&self) -> MutexGuard<'_, HashMap<ThreadId, usize>> {
        self.shields.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets who is told of children.
    pub(super) fn record_children(&self, recorder: Option<Arc<dyn ChildRecorder>>) {
        *self.recorder.lock().unwrap_or_else(PoisonError::into_inner) = recorder;
    }

    fn recorder(&self) -> Option<Arc<dyn ChildRecorder>> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuse_when_stopped(&self, spec: &CommandSpec) -> Result<(), RunError> {
        if let Some(reason) = spec.view.halt.reason() {
            return Err(RunError::Halted { command: spec.display(), reason: reason.to_owned() });
        }
        match self.stopping() {
            Some(signal) => Err(RunError::Interrupted { command: spec.display(), signal }),
            None => Ok(()),
        }
    }

    fn start(&self, spec: &CommandSpec, role: Role, ends: Ends) -> Result<Process, RunError> {
        let program = find_program(&spec.tool)?;
        let command = spec.display();
        tracing::debug!(command, directory = ?spec.directory, mounts = spec.view.mounts.len(), "starting");
        let recorder = self.recorder();
        let mut recorded = None;
        let spawned = spawn::spawn(spec, &program, (role, ends), |pid, mark| {
            let child = identified(pid, mark, spec)?;
            if let Some(recorder) = &recorder {
                recorder.started(&child);
            }
            recorded = Some(child);
            Ok(())
        });
        let spawned = spawned.and_then(|it| match recorded.clone() {
            Some(child) => Ok((child, it)),
            None => Err(std::io::Error::other("it did not wait to be recorded")),
        });
        match spawned {
            Ok((child, spawned)) => Process::new(spec, child, spawned, role)
                .map_err(|source| RunError::Io { command, source }),
            Err(source) => {
                // It ended before it was the program.
                if let (Some(recorder), Some(child)) = (recorder, recorded) {
                    recorder.ended(&child);
                }
                Err(RunError::Spawn { command, source })
            }
        }
    }

    /// Reaps the children from this one on. Answers how they ended, in order, if they were let run to their own end.
    fn finish(
        &self,
        supervision: &mut Supervision<'_>,
        first: usize,
    ) -> Result<Vec<Completed>, RunError> {
        let recorder = self.recorder();
        let mut completed = Vec::new();
        // Of those that are not at their end yet, one may be what the others waited for.
        let mut stopped = supervision.processes[..first].iter_mut().find_map(|process| {
            let reason = process.stop_reason()?;
            let is_the_cause = matches!(reason, Reason::TookNothing(_));
            is_the_cause.then(|| because(reason, process.command.clone(), process.stderr_lines()))
        });
        for (at, process) in supervision.processes.iter_mut().enumerate().skip(first) {
            let command = process.command.clone();
            // The reason that the other one was stopped for is the reason of both.
            let reason = process.stop_reason().filter(|reason| *reason != Reason::Useless);
            let is_the_cause = matches!(reason, Some(Reason::TookNothing(_)));
            if let Some(reason) = reason.filter(|_| is_the_cause || stopped.is_none()) {
                stopped = Some(because(reason, command, process.stderr_lines()));
            }
            match process.finish() {
                Some(mut ended) => {
                    let is_torn = |link: usize| {
                        let pump = supervision.pumps.get(link);
                        pump.is_some_and(|pump| !pump.is_complete() || pump.is_left_unread())
                    };
                    ended.left_early = ended.success()
                        && !ended.dismissed
                        && at.checked_sub(1).is_some_and(is_torn);
                    completed.push(ended);
                    if let Some(recorder) = &recorder {
                        recorder.ended(&process.identity);
                    }
                }
                None => {
                    let source = std::io::Error::other("it does not end even after SIGKILL");
                    supervision.trouble.get_or_insert((at, source));
                }
            }
        }
        if let Some(stopped) = stopped {
            return Err(stopped);
        }
        match supervision.trouble.take() {
            Some((at, source)) => {
                Err(RunError::Io { command: supervision.processes[at].command.clone(), source })
            }
            None => Ok(completed),
        }
    }
}

impl StopSource for Runner {
    fn signal(&self) -> Option<i32> {
        self.stopping()
    }

    fn grace(&self) -> Duration {
        if self.stop.is_urgent() { self.grace.min(URGENT_GRACE) } else { self.grace }
    }
}

/// While it lives, a stop signal does not stop children of the thread that asked for it.
pub(super) struct RunnerShield<'a> {
    runner: &'a Runner,
    thread: ThreadId,
}

impl Drop for RunnerShield<'_> {
    fn drop(&mut self) {
        let mut shields = self.runner.shields();
        if let Some(times) = shields.get_mut(&self.thread) {
            *times -= 1;
            if *times == 0 {
                shields.remove(&self.thread);
            }
        }
    }
}

impl super::Shield for RunnerShield<'_> {}

fn because(reason: Reason, command: String, stderr_tail: String) -> RunError {
    match reason {
        Reason::Stalled(after) => {
            RunError::Stalled { command, after, took_nothing: false, stderr_tail }
        }
        Reason::TookNothing(after) => {
            RunError::Stalled { command, after, took_nothing: true, stderr_tail }
        }
        Reason::TimedOut(after) => RunError::TimedOut { command, after, stderr_tail },
        Reason::Interrupted(signal) => RunError::Interrupted { command, signal },
        Reason::Halted(reason) => RunError::Halted { command, reason },
        Reason::Useless => RunError::Io {
            command,
            source: std::io::Error::other("it was stopped because the other end failed"),
        },
    }
}

/// Refuses what comes of a chain in which all have ended well, if one of them has not read all that it was given.
fn refuse_the_early(specs: &[&CommandSpec], completed: &[Completed]) -> Result<(), RunError> {
    let early = completed.iter().rposition(|ended| ended.left_early);
    match early.filter(|_| completed.iter().all(Completed::success)) {
        Some(at) => Err(RunError::LeftEarly { command: specs[at].display() }),
        None => Ok(()),
    }
}

fn own_stdout() -> std::io::Result<File> {
    Ok(std::io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// The child of this number, which waits to become the program.
fn identified(pid: i32, mark: &str, spec: &CommandSpec) -> std::io::Result<ChildProcess> {
    let found = identify(pid).ok().flatten();
    // It cannot have vanished, since nobody has reaped it: /proc is not to be read. What cannot be named in the
    // ledger must not go on.
    let found =
        found.ok_or_else(|| std::io::Error::other(format!("/proc does not show process {pid}")))?;
    Ok(ChildProcess { never_kill: spec.never_kill, mark: Some(mark.to_owned()), ..found })
}

fn lost(spec: &CommandSpec, source: std::io::Error) -> RunError {
    RunError::Io { command: spec.display(), source }
}
