//! One running child: its streams, how it is asked to stop, and what is left of it at the end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::Child;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use zeroize::Zeroize;

use super::lines::{LineSplitter, Tail};
use super::spawn::{Role, Spawned, signal_of};
use crate::host::{CommandSpec, Completed, Exit, Halt, Judge, StdoutMode, Stream, Watch};
use crate::model::shown::Show;
use crate::model::size;
use crate::model::undo::ChildProcess;

/// How long an output may stay open after the child has exited: something that it left behind holds it.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

/// The most that a pipe can hold without privileges (pipe(7)). What the child itself wrote is within the
/// first so many bytes after its exit; all that follows is of what it left behind.
const PIPE_CAPACITY: usize = 1024 * 1024;

/// How many bytes are read at once: what a pipe holds by default.
const CHUNK: usize = 64 * 1024;

/// Why a child is being stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nothing moved for so long.
    Stalled(Duration),
    /// The same, and all others waited for it to take what there was.
    TookNothing(Duration),
    /// Its time limit was reached.
    TimedOut(Duration),
    /// We got this signal.
    Interrupted(i32),
    /// Whoever watches over what it reads stopped it, for this reason.
    Halted(String),
    /// Another process of the chain failed, or we lost contact.
    Useless,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    LeaderAsked,
    GroupAsked,
    Killed,
}

#[derive(Debug)]
struct Stopping {
    reason: Reason,
    stage: Stage,
    since: Instant,
}

/// An output of the child, read by us.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` once it has ended or was given up.
    pub(super) pipe: Option<File>,
    stream: Stream,
    lines: LineSplitter,
    whole: Option<Vec<u8>>,
    /// It is kept, and no line of it is handed on.
    is_secret: bool,
    tail: Option<Tail>,
    /// More came than [`LONGEST_ANSWER`].
    is_too_long: bool,
    read_after_exit: usize,
}

/// How much of an output is kept, in bytes: many times the list of a repository with a hundred thousand archives. A server
/// that sends on and on would take all memory otherwise.
const LONGEST_ANSWER: usize = 256 << 20;

/// The same of a secret.
const LONGEST_SECRET: usize = 1 << 20;

impl Output {
    fn new(pipe: OwnedFd, stream: Stream) -> Self {
        Self {
            pipe: Some(pipe.into()),
            stream,
            lines: LineSplitter::default(),
            whole: None,
            is_secret: false,
            tail: None,
            is_too_long: false,
            read_after_exit: 0,
        }
    }

    /// Reads once; poll has said that this does not block.
    fn read(&mut self, exited: bool, watch: Watch<'_>) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        let mut buffer = [0; CHUNK];
        let count = match pipe.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => {
                self.close(watch);
                return Err(error);
            }
        };
        if count == 0 {
            self.close(watch);
            return Ok(0);
        }
        let bytes = &buffer[..count];
        if exited {
            self.read_after_exit = self.read_after_exit.saturating_add(count);
        }
        if self.is_secret {
            let held = self.whole.as_ref().map_or(0, Vec::len);
            self.is_too_long |= held + count > LONGEST_SECRET;
            self.whole
                .as_mut()
                .filter(|_| !self.is_too_long)
                .into_iter()
                .for_each(|whole| keep_secret(whole, bytes));
            buffer.zeroize();
            return Ok(count);
        }
        if let Some(whole) = &mut self.whole {
            self.is_too_long |= whole.len() + count > LONGEST_ANSWER;
            if !self.is_too_long {
                whole.extend_from_slice(bytes);
            }
        }
        if let Some(tail) = &mut self.tail {
            tail.push(bytes);
        }
        let stream = self.stream;
        self.lines.push(bytes, &mut |line| hand_on(stream, line, watch));
        Ok(count)
    }

    fn close(&mut self, watch: Watch<'_>) {
        let stream = self.stream;
        self.lines.finish(&mut |line| hand_on(stream, line, watch));
        self.pipe = None;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_secret {
            self.whole.zeroize();
        }
    }
}

/// Appends to a secret. A vector that grows by itself leaves its old memory as it was.
fn keep_secret(whole: &mut Vec<u8>, bytes: &[u8]) {
    if whole.capacity() - whole.len() < bytes.len() {
        let mut larger = Vec::with_capacity(2 * (whole.len() + bytes.len()));
        larger.extend_from_slice(whole);
        whole.zeroize();
        *whole = larger;
    }
    whole.extend_from_slice(bytes);
}

fn hand_on(stream: Stream, line: &[u8], watch: Watch<'_>) {
    if stream != Stream::Out {
        tracing::debug!(?stream, "{}", OsStr::from_bytes(line).shown());
    }
    watch(stream, line);
}

/// A child and all that belongs to it.
#[derive(Debug)]
pub(super) struct Process {
    /// The command for messages, secrets masked.
    pub(super) command: String,
    /// What the recorder was told.
    pub(super) identity: ChildProcess,
    /// Its outputs that we read.
    pub(super) outputs: Vec<Output>,
    /// Hangs up when it exits; `None` once that was seen.
    pub(super) exited: Option<PipeReader>,
    pub(super) stall_limit: Option<Duration>,
    pub(super) repeats_itself: bool,
    moves: Option<Judge>,
    /// How many bytes of its outputs were read.
    pub(super) heard: u64,
    pub(super) time_limit: Option<Duration>,
    pub(super) halt: Halt,
    keeper: Option<JoinHandle<io::Result<Exit>>>,
    child: Child,
    stop_signal: Signal,
    never_kill: bool,
    fatal: Option<Judge>,
    started: Instant,
    exit: Option<(Exit, Instant)>,
    stopping: Option<Stopping>,
    /// Whether whoever read what it writes is gone.
    is_unread: bool,
    abandoned: bool,
}

impl Process {
    /// Takes over a child, which was recorded as this. Its ends of the pipes to others are left in `child` for [`Process::take_stdout`] and
    /// [`Process::take_stdin`].
    pub(super) fn new(
        spec: &CommandSpec,
        identity: ChildProcess,
        spawned: Spawned,
        role: Role,
    ) -> io::Result<Self> {
        let Spawned { mut child, exited, keeper } = spawned;
        let mut outputs = Vec::new();
        if !role.feeds
            && spec.stdout != StdoutMode::PassOn
            && let Some(pipe) = child.stdout.take()
        {
            let mut output = Output::new(pipe.into(), Stream::Out);
            output.is_secret = spec.stdout == StdoutMode::Secret;
            output.whole = (output.is_secret || spec.stdout == StdoutMode::Whole).then(Vec::new);
            outputs.push(output);
        }
        if let Some(pipe) = child.stderr.take() {
            let stream = if role.feeds { Stream::ProducerErr } else { Stream::Err };
            let mut output = Output::new(pipe.into(), stream);
            output.tail = Some(Tail::default());
            outputs.push(output);
        }
        let stop_signal = signal_of(spec)?;
        Ok(Self {
            command: spec.display(),
            identity,
            outputs,
            exited: Some(exited),
            stall_limit: spec.stall_limit,
            repeats_itself: spec.repeats_itself,
            moves: spec.moves,
            heard: 0,
            time_limit: spec.time_limit,
            halt: spec.view.halt.clone(),
            keeper: Some(keeper),
            child,
            stop_signal,
            never_kill: spec.never_kill,
            fatal: spec.fatal,
            started: Instant::now(),
            exit: None,
            stopping: None,
            is_unread: false,
            abandoned: false,
        })
    }

    /// The child's standard output, for a pump or an outlet.
    pub(super) fn take_stdout(&mut self) -> Option<File> {
        self.child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)))
    }

    /// The child's standard input, for a pump; writing to it never blocks.
    pub(super) fn take_stdin(&mut self) -> io::Result<Option<File>> {
        let Some(pipe) = self.child.stdin.take() else { return Ok(None) };
        let pipe = File::from(OwnedFd::from(pipe));
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Some(pipe))
    }

    /// How it exited, once it has.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.exit.map(|(exit, _)| exit)
    }

    /// How long ago it exited.
    pub(super) fn gone_for(&self, now: Instant) -> Option<Duration> {
        self.exit.map(|(_, at)| now.saturating_duration_since(at))
    }

    /// Why it is being stopped, if it is.
    pub(super) fn stop_reason(&self) -> Option<Reason> {
        self.stopping.as_ref().map(|stopping| stopping.reason.clone())
    }

    /// How long it has been running.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Takes the news of its exit from the keeper, which has it ready.
    pub(super) fn note_exit(&mut self) -> io::Result<()> {
        self.exited = None;
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        let exit = keeper.join().map_err(|_| io::Error::other("its keeper panicked"))?;
        match exit {
            Ok(exit) => {
                self.exit = Some((exit, Instant::now()));
                Ok(())
            }
            Err(error) => {
                self.abandoned = true;
                Err(error)
            }
        }
    }

    /// Reads the output of this index once. Answers whether what it said is movement.
    pub(super) fn read(&mut self, index: usize, watch: Watch<'_>) -> io::Result<bool> {
        let exited = self.exit.is_some();
        let Some(output) = self.outputs.get_mut(index) else { return Ok(false) };
        let (fatal, moves) = (self.fatal, self.moves);
        let (mut doomed, mut has_moved) = (false, !self.repeats_itself);
        let result = output.read(exited, &mut |stream, line| {
            let is = |judge: Option<Judge>| {
                stream != Stream::Out && judge.is_some_and(|Judge(is_it)| is_it(line))
            };
            doomed |= is(fatal);
            has_moved |= is(moves);
            watch(stream, line);
        });
        let (is_too_long, is_secret) = (output.is_too_long, output.is_secret);
        if doomed && !exited {
            tracing::debug!(command = self.command, "ended at once by what it said");
            self.tell_group(Signal::SIGKILL);
        }
        if is_too_long {
            let most = if is_secret { LONGEST_SECRET } else { LONGEST_ANSWER };
            let told = format!("it printed more than {}", size::show(most as u64));
            if exited {
                return Err(io::Error::other(told));
            }
            self.ask_to_stop(Reason::Halted(told));
        }
        self.heard += result? as u64;
        Ok(has_moved)
    }

    /// Gives up outputs that something else than the exited child holds open; `ready` tells which had data
    /// at the last look, which may still be the child's own.
    pub(super) fn drain(&mut self, now: Instant, ready: &[usize], watch: Watch<'_>) {
        if self.gone_for(now).is_none_or(|gone| gone < DRAIN) {
            return;
        }
        for (index, output) in self.outputs.iter_mut().enumerate() {
            let foreign = output.read_after_exit >= PIPE_CAPACITY || !ready.contains(&index);
            if output.pipe.is_some() && foreign {
                tracing::debug!(
                    command = self.command,
                    "a process that it left behind still holds its output"
                );
                output.close(watch);
            }
        }
    }

    /// Asks the child to stop; once is enough.
    pub(super) fn ask_to_stop(&mut self, reason: Reason) {
        if self.stopping.is_some() || self.exit.is_some() {
            return;
        }
        tracing::debug!(command = self.command, ?reason, "stopping");
        self.tell_leader(self.stop_signal);
        self.stopping = Some(Stopping { reason, stage: Stage::LeaderAsked, since: Instant::now() });
    }

    /// Asks it to stop, since what it was to be joined with has failed.
    pub(super) fn become_useless(&mut self) {
        self.ask_to_stop(Reason::Useless);
    }

    /// The same of one that wrote to whoever has gone, and may have failed by that before we saw it.
    pub(super) fn lose_reader(&mut self) {
        self.is_unread = true;
        self.become_useless();
    }

    /// Goes on to the next stage of stopping when it is time: the leader, then its group, then SIGKILL.
    pub(super) fn escalate(&mut self, now: Instant, grace: Duration) {
        let Some(stopping) = &mut self.stopping else { return };
        let waited = now.saturating_duration_since(stopping.since);
        let next = match stopping.stage {
            // Without its leader, the rest of the group has nothing to wait for.
            Stage::LeaderAsked if waited >= grace || self.exit.is_some() => Stage::GroupAsked,
            Stage::GroupAsked if waited >= grace && !self.never_kill => Stage::Killed,
            Stage::Killed if waited >= 3 * grace => {
                // It hangs in the kernel. The ledger still names it, since its end is not recorded.
                if !self.abandoned {
                    tracing::warn!(command = self.command, "does not end even after SIGKILL");
                }
                self.abandoned = true;
                return;
            }
            _ => return,
        };
        stopping.stage = next;
        stopping.since = now;
        let signal = if next == Stage::Killed { Signal::SIGKILL } else { self.stop_signal };
        self.tell_group(signal);
    }

    /// Whether nothing more is to come: it has exited, its outputs are read, and what was stopped is gone
    /// with all of its group.
    pub(super) fn is_done(&self) -> bool {
        if self.abandoned {
            return true;
        }
        if self.exit.is_none() || self.outputs.iter().any(|output| output.pipe.is_some()) {
            return false;
        }
        let group_matters = self.stopping.is_some() && !self.never_kill;
        // If the table cannot be read, we cannot know of anybody to wait for.
        !group_matters
            || !crate::host::sys::process::group_is_alive(self.identity.pid).unwrap_or(false)
    }

    /// The last lines of standard error, for an error's message.
    pub(super) fn stderr_lines(&mut self) -> String {
        self.completed(Exit::Code(0)).last_lines(10)
    }

    /// Reaps the child and answers what is left of it; `None` if it does not end.
    pub(super) fn finish(&mut self) -> Option<Completed> {
        let (exit, at) = self.exit?;
        if let Err(error) = self.child.wait() {
            tracing::debug!(command = self.command, %error, "not reaped");
        }
        let elapsed = at.saturating_duration_since(self.started);
        tracing::debug!(command = self.command, %exit, ?elapsed, "ended");
        Some(Completed { elapsed, ..self.completed(exit) })
    }

    fn completed(&mut self, exit: Exit) -> Completed {
        let stdout = self.outputs.iter_mut().find_map(|output| output.whole.take());
        let tail = self.outputs.iter_mut().find_map(|output| output.tail.take());
        Completed {
            is_predicted: false,
            exit,
            stdout: stdout.unwrap_or_default(),
            stderr_tail: tail.map(Tail::into_bytes).unwrap_or_default(),
            elapsed: Duration::ZERO,
            dismissed: self.is_unread || self.stop_reason() == Some(Reason::Useless),
            left_early: false,
        }
    }

    fn tell_leader(&self, signal: Signal) {
        self.note(signal, kill(Pid::from_raw(self.identity.pid), signal));
    }

    fn tell_group(&self, signal: Signal) {
        self.note(signal, killpg(Pid::from_raw(self.identity.pid), signal));
    }

    fn note(&self, signal: Signal, result: nix::Result<()>) {
        match result {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                tracing::warn!(command = self.command, %signal, %error, "cannot be signalled");
            }
        }
    }
}

impl Drop for Process {
    /// A child whose supervision ended before it did (the watcher panicked) is asked to stop, without
    /// waiting; its keeper still reaps nothing, so the number stays its own.
    fn drop(&mut self) {
        if self.exit.is_none() && !self.abandoned {
            self.tell_group(self.stop_signal);
        }
    }
}
