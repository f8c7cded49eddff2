//! Processes that are held at one end of a pipe; see [`Held`].
//!
//! Both ends of the pipe stay open here. So a reader sees an end of its input only when we let go of ours, which is when
//! the writer has ended well, and a writer that dies leaves its reader waiting to be stopped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};

use super::joint::Joint;
use super::process::Process;
use super::pump::Pump;
use super::spawn::Ends;
use super::supervise::Supervision;
use super::{Runner, lost, refuse_the_early};
use crate::host::{CommandSpec, Completed, Exit, Held, HeldEnd, RunError, StdoutMode, Watch};

/// As much as the pipe is asked to hold, in bytes.
const ROOM: i32 = 1 << 20;

impl Runner {
    /// Starts processes and holds them; see [`Host::hold`](crate::host::Host::hold).
    pub(in crate::host) fn hold(
        &self,
        specs: &[CommandSpec],
        end: HeldEnd,
    ) -> Result<HeldProcesses<'_>, RunError> {
        specs.iter().try_for_each(|spec| self.refuse_when_stopped(spec))?;
        // Nobody carries that here.
        if let Some(spec) = specs.iter().find(|spec| spec.stdout == StdoutMode::PassOn) {
            return Err(lost(spec, io::ErrorKind::Unsupported.into()));
        }
        let command = specs.first().map(CommandSpec::display).unwrap_or_default();
        let failed = |source: io::Error| RunError::Io { command: command.clone(), source };
        let (from, to) = io::pipe().map_err(failed)?;
        let (from, to) = (OwnedFd::from(from), OwnedFd::from(to));
        // Without privileges the limit may be lower; then it is only slower.
        let _ = fcntl(&from, FcntlArg::F_SETPIPE_SZ(ROOM));
        let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().map_err(failed);
        let (ends, other, open) = match end {
            HeldEnd::Writes => (Ends { stdin: None, stdout: Some(copy(&to)?) }, from, Some(to)),
            HeldEnd::Reads => (Ends { stdin: Some(from), stdout: None }, to, None),
        };
        let all: Vec<&CommandSpec> = specs.iter().collect();
        let (processes, pumps, started) = self.start_joined(&all, ends);
        let mut supervision = Supervision::new(processes, pumps, None, self);
        let count = supervision.processes.len();
        supervision.joint = Some(Joint { count, end, other, open });
        let held = HeldProcesses { runner: self, supervision };
        // Who was started is stopped with the answer.
        started.map(|()| held)
    }
}

/// Processes that are held.
pub(in crate::host) struct HeldProcesses<'r> {
    runner: &'r Runner,
    supervision: Supervision<'r>,
}

impl HeldProcesses<'_> {
    fn ends(&self) -> io::Result<Ends> {
        let Some(joint) = &self.supervision.joint else { return Ok(Ends::default()) };
        let other = Some(joint.other.as_fd().try_clone_to_owned()?);
        Ok(match joint.end {
            HeldEnd::Writes => Ends { stdin: other, stdout: None },
            HeldEnd::Reads => Ends { stdin: None, stdout: other },
        })
    }

    /// Looks after those that are held until they are done, and reaps them.
    fn end(&mut self, watch: Watch<'_>) -> Result<Vec<Completed>, RunError> {
        self.supervision.joint = None;
        self.supervision.drive(watch);
        let finished = self.runner.finish(&mut self.supervision, 0);
        self.supervision.processes.clear();
        self.supervision.pumps.clear();
        finished
    }

    fn dismiss(&mut self) -> Result<Vec<Completed>, RunError> {
        self.supervision.dismiss();
        // The pipe stays as it is until they are gone: none of them says that the other end was lost.
        let joint = self.supervision.joint.take();
        let ended = self.end(&mut |_, _| {});
        drop(joint);
        ended
    }
}

impl Held for HeldProcesses<'_> {
    fn turn(
        &mut self,
        specs: &[CommandSpec],
        watch: Watch<'_>,
    ) -> Result<Vec<Completed>, RunError> {
        specs.iter().try_for_each(|spec| self.runner.refuse_when_stopped(spec))?;
        let Some(last) = specs.last() else { return Ok(Vec::new()) };
        let ends = self.ends().map_err(|source| lost(last, source))?;
        let all: Vec<&CommandSpec> = specs.iter().collect();
        let (processes, pumps, started) = self.runner.start_joined(&all, ends);
        let (count, links) = (self.supervision.processes.len(), self.supervision.pumps.len());
        if processes.is_empty() {
            return started.map(|()| Vec::new());
        }
        self.supervision.pumps.push(Pump::none());
        self.supervision.pumps.extend(pumps);
        self.supervision.processes.extend(processes);
        if started.is_err() {
            // What was started has nobody to write to, and nobody of it may see an end.
            self.supervision.processes[count..].iter_mut().for_each(Process::become_useless);
        }
        self.supervision.drive_from(count, watch);
        let has_failed = |last: &Process| last.exit() != Some(Exit::Code(0));
        let is_read = self.supervision.joint.as_ref().is_some_and(|it| it.end == HeldEnd::Reads);
        if is_read && self.supervision.processes.last().is_some_and(has_failed) {
            // It may have failed because its reader did, whose end is only about to be seen.
            self.supervision.linger(count, watch);
        }
        let finished = self.runner.finish(&mut self.supervision, count);
        self.supervision.processes.truncate(count);
        self.supervision.pumps.truncate(links);
        started?;
        let completed = finished?;
        refuse_the_early(&all, &completed)?;
        Ok(completed)
    }

    fn finish(mut self: Box<Self>, watch: Watch<'_>) -> Result<Vec<Completed>, RunError> {
        self.end(watch)
    }

    fn stop(mut self: Box<Self>) -> Result<Vec<Completed>, RunError> {
        self.dismiss()
    }
}

impl Drop for HeldProcesses<'_> {
    fn drop(&mut self) {
        if !self.supervision.processes.is_empty() {
            // How they ended is told by whoever failed.
            let _ = self.dismiss();
        }
    }
}
