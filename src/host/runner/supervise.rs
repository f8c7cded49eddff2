//! The loop that looks after one child, or a chain of them that are joined by pumps, until nothing of them is left.
//!
//! Everything happens in the caller's thread: lines reach the watcher in the order in which they came, and
//! no thread can be left behind in a read that never ends. Besides reading, the loop watches the stop flag,
//! the time limits, and whether anything moves at all.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::joint::Joint;
use super::outlet::Outlet;
use super::process::{DRAIN, Process, Reason};
use super::pump::{Pump, REST};
use crate::host::sys::process::{Activity, activity};
use crate::host::{Exit, Watch};

/// How long the loop sleeps at most; so late can it notice a signal or a limit, in milliseconds.
const TICK: u8 = 100;

/// How much sooner than its limit a stall is looked for; each reading is of all of `/proc`.
const READINGS_PER_LIMIT: u32 = 8;

/// The longest time between two looks.
const LONGEST_BETWEEN_READINGS: Duration = Duration::from_secs(5);

/// So many bytes a second are no movement of a program that repeats itself: its timers, and the heartbeats of an ssh
/// that it started. The slowest line that a backup can be made over carries many times that.
const STILL_BYTES: f64 = 256.0;

/// Nor is such a share of one processor: what it takes to say the same again.
const STILL_SHARE: f64 = 0.05;

/// How the loop learns whether we are to stop: the signal, and how long a child then gets.
pub(super) trait StopSource {
    /// The signal that stops children now.
    fn signal(&self) -> Option<i32>;
    /// How long each stage of stopping lasts.
    fn grace(&self) -> Duration;
}

/// What poll found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Exit(usize),
    Output(usize, usize),
    PumpFrom(usize),
    PumpTo(usize),
    OutletFrom,
    OutletTo,
}

/// The children under supervision. In a chain each pump carries what the process of its own index writes to the next.
pub(super) struct Supervision<'a> {
    pub(super) processes: Vec<Process>,
    pub(super) pumps: Vec<Pump>,
    /// Where the output of the last process goes, if that is our own.
    pub(super) outlet: Option<Outlet>,
    /// The first thing that went wrong between us and a child, with the child's index.
    pub(super) trouble: Option<(usize, io::Error)>,
    /// What is held, if others have their turn beside it.
    pub(super) joint: Option<Joint>,
    stop: &'a dyn StopSource,
    stillness: Stillness,
}

impl<'a> Supervision<'a> {
    /// Takes over children that were just started.
    pub(super) fn new(
        processes: Vec<Process>,
        pumps: Vec<Pump>,
        outlet: Option<Outlet>,
        stop: &'a dyn StopSource,
    ) -> Self {
        let stillness = Stillness::default();
        Self { processes, pumps, outlet, trouble: None, joint: None, stop, stillness }
    }

    /// Looks after the children until they are done.
    pub(super) fn drive(&mut self, watch: Watch<'_>) {
        self.drive_from(0, watch);
    }

    /// Looks after all of them until those from this one on are done.
    pub(super) fn drive_from(&mut self, first: usize, watch: Watch<'_>) {
        while !self.is_done(first) {
            self.look(watch);
        }
    }

    /// Looks once more, a moment long, whether one of the first so many has exited.
    pub(super) fn linger(&mut self, count: usize, watch: Watch<'_>) {
        let until = Instant::now() + Duration::from_millis(TICK.into());
        while Instant::now() < until
            && self.processes[..count].iter().all(|process| process.exit().is_none())
        {
            self.look(watch);
        }
    }

    /// Sleeps until there is something to do, and does it.
    fn look(&mut self, watch: Watch<'_>) {
        let ready = match self.wait() {
            Ok(ready) => ready,
            Err(error) => {
                self.fail(0, error);
                // Without poll there is still the clock, to stop them by.
                std::thread::sleep(Duration::from_millis(TICK.into()));
                Vec::new()
            }
        };
        for &one in &ready {
            self.handle(one, watch);
        }
        let now = Instant::now();
        self.settle_outputs(now, &ready, watch);
        (0..self.pumps.len()).for_each(|link| self.settle_link(link, now));
        if let Some(joint) = &mut self.joint {
            joint.settle(&mut self.processes);
        }
        self.settle_outlet(now);
        self.check_limits(now);
        let grace = self.stop.grace();
        for process in &mut self.processes {
            process.escalate(now, grace);
        }
    }

    fn is_done(&self, first: usize) -> bool {
        self.processes[first..].iter().all(Process::is_done)
            && self.outlet.as_ref().is_none_or(Outlet::is_done)
    }

    /// Sleeps until something can be read or written, a child exits, or the tick is over.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut sources: Vec<(Ready, BorrowedFd<'_>, PollFlags)> = Vec::new();
        for (at, process) in self.processes.iter().enumerate() {
            if let Some(exited) = &process.exited {
                sources.push((Ready::Exit(at), exited.as_fd(), PollFlags::POLLIN));
            }
            for (index, output) in process.outputs.iter().enumerate() {
                if let Some(pipe) = &output.pipe {
                    sources.push((Ready::Output(at, index), pipe.as_fd(), PollFlags::POLLIN));
                }
            }
        }
        let (now, mut patience) = (Instant::now(), PollTimeout::from(TICK));
        for (link, pump) in self.pumps.iter().enumerate() {
            if pump.rests(now) {
                patience = PollTimeout::from(REST);
            } else if let Some(from) = pump.from.as_ref().filter(|_| pump.wants_input()) {
                sources.push((Ready::PumpFrom(link), from.as_fd(), PollFlags::POLLIN));
            }
            if let Some(to) = pump.to.as_ref().filter(|_| pump.wants_output()) {
                sources.push((Ready::PumpTo(link), to.as_fd(), PollFlags::POLLOUT));
            }
        }
        if let Some(outlet) = &self.outlet {
            if let Some(from) = outlet.from.as_ref().filter(|_| outlet.wants_input()) {
                sources.push((Ready::OutletFrom, from.as_fd(), PollFlags::POLLIN));
            }
            if outlet.wants_output() {
                sources.push((Ready::OutletTo, outlet.to.as_fd(), PollFlags::POLLOUT));
            }
        }
        let mut polled: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut polled, patience) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(sources
            .iter()
            .zip(&polled)
            .filter(|(_, fd)| is_ready(fd))
            .map(|((ready, _, _), _)| *ready)
            .collect())
    }

    fn handle(&mut self, ready: Ready, watch: Watch<'_>) {
        let (at, result) = match ready {
            Ready::Exit(at) => (at, self.processes[at].note_exit()),
            Ready::Output(at, index) => {
                let read = self.processes[at].read(index, watch).map(|has_moved| {
                    if has_moved {
                        self.stillness.moved();
                    }
                });
                (at, read)
            }
            Ready::PumpFrom(link) => {
                self.stillness.moved();
                (link, self.pumps[link].carry())
            }
            Ready::PumpTo(link) => {
                self.stillness.moved();
                (link, self.pumps[link].resume())
            }
            Ready::OutletFrom => {
                self.stillness.moved();
                (self.processes.len() - 1, self.outlet.as_mut().map_or(Ok(()), Outlet::read))
            }
            Ready::OutletTo => {
                self.stillness.moved();
                if let Some(outlet) = &mut self.outlet {
                    outlet.write();
                }
                return;
            }
        };
        if let Err(error) = result {
            self.fail(at, error);
        }
    }

    /// Without contact to one, none of them is of use.
    fn fail(&mut self, at: usize, error: io::Error) {
        self.trouble.get_or_insert((at, error));
        self.dismiss();
    }

    /// Asks all of them to stop.
    pub(super) fn dismiss(&mut self) {
        for process in &mut self.processes {
            process.ask_to_stop(Reason::Useless);
        }
    }

    fn settle_outputs(&mut self, now: Instant, ready: &[Ready], watch: Watch<'_>) {
        for (at, process) in self.processes.iter_mut().enumerate() {
            let outputs: Vec<usize> = ready
                .iter()
                .filter_map(|one| {
                    let Ready::Output(of, index) = one else { return None };
                    (*of == at).then_some(*index)
                })
                .collect();
            process.drain(now, &outputs, watch);
        }
    }

    /// Decides what becomes of the other one when one of the two that a pump joins ends. What it asks of one of
    /// them, the link on the other side of that one sees, so that a failure goes through the whole chain.
    fn settle_link(&mut self, link: usize, now: Instant) {
        // What a writer made of a torn input is torn, however well it ended.
        let has_read_all = link == 0 || self.pumps[link - 1].is_complete();
        let pump = &mut self.pumps[link];
        let [writer, reader] = &mut self.processes[link..link + 2] else { return };
        if pump.is_complete() {
            return;
        }
        if reader.exit().is_some() {
            pump.halt();
            pump.release();
            writer.ask_to_stop(Reason::Useless);
            return;
        }
        if pump.is_refused() {
            // It is about to say why, and to exit; nothing more can reach it.
            writer.ask_to_stop(Reason::Useless);
            return;
        }
        let ended_well =
            writer.exit() == Some(Exit::Code(0)) && writer.stop_reason().is_none() && has_read_all;
        let useless = writer.stop_reason().is_some() || reader.stop_reason().is_some();
        if useless || (writer.exit().is_some() && !ended_well) {
            // The reader's input stays open, so that it cannot take the torn stream for a whole one.
            pump.halt();
            reader.ask_to_stop(Reason::Useless);
            writer.ask_to_stop(Reason::Useless);
        } else if ended_well && pump.is_drained() && pump.bytes == 0 {
            // Nothing is no stream either: the reader must not make something of it.
            pump.halt();
            reader.ask_to_stop(Reason::Useless);
        } else if ended_well && pump.is_drained() {
            pump.complete();
        } else if ended_well
            && pump.idle_for(now) >= DRAIN
            && writer.gone_for(now).is_some_and(|gone| gone >= DRAIN)
        {
            // Whether what is left behind would still write cannot be known, so the stream is not whole.
            pump.halt();
            let error = io::Error::other(
                "it exited, but a process that it left behind still holds its output open",
            );
            self.fail(link, error);
        }
    }

    /// A child whose output is not taken any more is of no use; one that is stopped says nothing more.
    fn settle_outlet(&mut self, now: Instant) {
        let (Some(outlet), Some(process)) = (&mut self.outlet, self.processes.last_mut()) else {
            return;
        };
        if outlet.failure.is_some() {
            process.ask_to_stop(Reason::Useless);
            return;
        }
        if process.exit().is_some() && process.stop_reason().is_some() {
            // Why it was stopped is the news; here nothing failed.
            outlet.abandon();
        } else if process.exit().is_some() && self.stop.signal().is_some() {
            outlet.give_up(io::ErrorKind::Interrupted.into());
        } else if outlet.idle_for(now) >= DRAIN
            && process.gone_for(now).is_some_and(|gone| gone >= DRAIN)
        {
            // Whether what is left behind would still write cannot be known, so the output is not whole.
            outlet.give_up(io::Error::other(
                "the engine exited, but a process that it left behind still holds its output open",
            ));
        }
    }

    fn check_limits(&mut self, now: Instant) {
        if let Some(signal) = self.stop.signal() {
            for process in &mut self.processes {
                process.ask_to_stop(Reason::Interrupted(signal));
            }
        }
        for process in &mut self.processes {
            if let Some(reason) = process.halt.reason().map(str::to_owned) {
                process.ask_to_stop(Reason::Halted(reason));
            }
            if let Some(limit) = process.time_limit.filter(|limit| process.age(now) >= *limit) {
                process.ask_to_stop(Reason::TimedOut(limit));
            }
        }
        // In a chain one may rightly wait for the other, so they are still only together.
        let running = || self.processes.iter().filter(|process| process.exit().is_none());
        let Some(shortest) = running().filter_map(|process| process.stall_limit).min() else {
            return;
        };
        let seen = || -> io::Result<Vec<Seen>> {
            running()
                .map(|process| {
                    let activity = activity(process.identity.pid)?;
                    let repeats_itself = process.repeats_itself;
                    Ok(Seen {
                        pid: process.identity.pid,
                        activity,
                        repeats_itself,
                        heard: process.heard,
                    })
                })
                .collect()
        };
        let Some(still) = self.stillness.observe(now, shortest, seen) else { return };
        if still < shortest {
            return;
        }
        // The last one that has something to take is the one that all before it wait for, and that those behind it get
        // nothing from.
        let jammed = self.pumps.iter().rposition(Pump::wants_output).map(|link| link + 1);
        if let Some(process) = jammed.and_then(|at| self.processes.get_mut(at)) {
            process.ask_to_stop(Reason::TookNothing(shortest));
        }
        for process in &mut self.processes {
            if let Some(limit) = process.stall_limit.filter(|limit| still >= *limit) {
                process.ask_to_stop(Reason::Stalled(limit));
            }
        }
    }
}

/// What one reading saw of a process and all that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    pid: i32,
    activity: Activity,
    repeats_itself: bool,
    /// Bytes of its outputs that we have read, which are among those that it moved.
    heard: u64,
}

impl Seen {
    /// Whether something to speak of happened between two looks.
    fn has_moved_since(&self, before: &Seen, between: Duration) -> bool {
        let (now, then) = (&self.activity, &before.activity);
        if self.pid != before.pid || !self.repeats_itself {
            return self.pid != before.pid || now != then;
        }
        // A sum that shrinks is of a process that has ended.
        let (Some(cpu), Some(bytes)) =
            (now.cpu.checked_sub(then.cpu), now.bytes.checked_sub(then.bytes))
        else {
            return true;
        };
        let bytes = bytes.saturating_sub(self.heard - before.heard);
        bytes as f64 > STILL_BYTES * between.as_secs_f64()
            || cpu.as_secs_f64() > STILL_SHARE * between.as_secs_f64()
    }
}

/// For how long nothing has moved.
#[derive(Debug)]
struct Stillness {
    moved_at: Instant,
    read_at: Instant,
    seen: Vec<Seen>,
}

impl Default for Stillness {
    fn default() -> Self {
        let now = Instant::now();
        Self { moved_at: now, read_at: now, seen: Vec::new() }
    }
}

impl Stillness {
    /// Bytes came or went.
    fn moved(&mut self) {
        self.moved_at = Instant::now();
    }

    /// Reads the state of the processes when it is time to. Answers for how long they have been still.
    fn observe(
        &mut self,
        now: Instant,
        limit: Duration,
        seen: impl FnOnce() -> io::Result<Vec<Seen>>,
    ) -> Option<Duration> {
        let between = (limit / READINGS_PER_LIMIT).min(LONGEST_BETWEEN_READINGS);
        let passed = now.saturating_duration_since(self.read_at);
        if passed < between {
            return None;
        }
        // A machine that was stopped, or so busy that we did not come to read it, did not let them move either.
        if let Some(missed) = passed.checked_sub(2 * between) {
            self.moved_at = (self.moved_at + missed).min(now);
        }
        self.read_at = now;
        let seen = match seen() {
            Ok(seen) => seen,
            Err(error) => {
                // Nobody is stopped for what could not be seen.
                tracing::debug!(%error, "cannot see whether anything moves");
                self.moved_at = now;
                return None;
            }
        };
        let moved = seen.len() != self.seen.len()
            || seen.iter().zip(&self.seen).any(|(now, then)| now.has_moved_since(then, passed));
        self.seen = seen;
        if moved {
            self.moved_at = now;
            return None;
        }
        Some(now.saturating_duration_since(self.moved_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_which_we_did_not_run_is_no_stillness() {
        let limit = Duration::from_millis(800);
        let mut stillness = Stillness::default();
        // Nobody to look at: nothing moves.
        let mut now = stillness.read_at;
        let mut after = |millis| {
            now += Duration::from_millis(millis);
            stillness.observe(now, limit, || Ok(Vec::new())).unwrap()
        };
        assert_eq!(after(100), Duration::from_millis(100));
        assert_eq!(after(20_000), Duration::from_millis(300), "the machine stood still");
        assert_eq!(after(150), Duration::from_millis(450), "we were a little late");
        assert!(after(200) + after(200) > limit, "it stalls all the same");
    }

    #[test]
    fn a_progress_that_makes_none_is_no_movement() {
        let second = Duration::from_secs(1);
        let seen = |cpu, bytes, heard| Seen {
            pid: 7,
            activity: Activity { cpu: Duration::from_millis(cpu), bytes },
            repeats_itself: true,
            heard,
        };
        let before = seen(1000, 5000, 500);
        let moved = |after: Seen| after.has_moved_since(&before, second);
        assert!(!moved(before));
        // The lines that it says again are among the bytes; a heartbeat is more than that.
        assert!(!moved(seen(1010, 5400, 900)));
        assert!(!moved(seen(1010, 5600, 900)));
        assert!(moved(seen(1000, 9000, 900)), "bytes");
        assert!(moved(seen(1100, 5000, 500)), "work");
        assert!(moved(seen(900, 5000, 500)), "a process of its own has ended");
        // Of one that does not, the least is movement.
        let quiet = Seen { repeats_itself: false, ..before };
        let trickle = Seen { repeats_itself: false, ..seen(1000, 5001, 500) };
        assert!(!quiet.has_moved_since(&quiet, second) && trickle.has_moved_since(&quiet, second));
    }
}
