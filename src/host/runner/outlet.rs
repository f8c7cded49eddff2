//! What passes a child's standard output on to our own.
//!
//! The child does not get our standard output itself: what it says of a full disk or a closed pipe would be taken for
//! one of its repository, and nobody would know how much has arrived.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use nix::libc;

/// How much is carried at once: what a pipe holds by default.
const SIZE: usize = 64 * 1024;

/// The way from a child to our standard output.
#[derive(Debug)]
pub(super) struct Outlet {
    /// The child's output; `None` after its end. It is held open after a failure: a child that finds it closed may
    /// die on the spot, with its lock.
    pub(super) from: Option<File>,
    /// Our standard output, which is as blocking as whoever opened it made it.
    pub(super) to: File,
    /// What took no more.
    pub(super) failure: Option<io::Error>,
    /// Bytes that were taken.
    pub(super) bytes: u64,
    /// So many bytes are taken without waiting when poll says that some are.
    at_once: usize,
    buffer: Box<[u8]>,
    filled: Range<usize>,
    idle_since: Instant,
}

impl Outlet {
    /// An outlet for what is read from a pipe.
    pub(super) fn new(from: File, to: File) -> Self {
        let is_file = to.metadata().is_ok_and(|it| it.is_file());
        Self {
            from: Some(from),
            to,
            failure: None,
            bytes: 0,
            at_once: if is_file { SIZE } else { libc::PIPE_BUF },
            buffer: vec![0; SIZE].into_boxed_slice(),
            filled: 0..0,
            idle_since: Instant::now(),
        }
    }

    /// Whether it waits for the child.
    pub(super) fn wants_input(&self) -> bool {
        self.failure.is_none() && self.filled.is_empty() && self.from.is_some()
    }

    /// Whether it waits for our standard output.
    pub(super) fn wants_output(&self) -> bool {
        self.failure.is_none() && !self.filled.is_empty()
    }

    /// Whether nothing more will be carried.
    pub(super) fn is_done(&self) -> bool {
        self.failure.is_some() || (self.from.is_none() && self.filled.is_empty())
    }

    /// For how long the child has had nothing, while everything was taken.
    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        match self.wants_input() {
            true => now.saturating_duration_since(self.idle_since),
            false => Duration::ZERO,
        }
    }

    /// Reads once; poll has said that this does not block.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let Some(from) = &mut self.from else { return Ok(()) };
        match from.read(&mut self.buffer) {
            Ok(0) => self.from = None,
            Ok(count) => self.filled = 0..count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.idle_since = Instant::now();
        Ok(())
    }

    /// Writes what is taken now; poll has said that something is, or that nothing ever will be.
    pub(super) fn write(&mut self) {
        let end = self.filled.end.min(self.filled.start + self.at_once);
        match self.to.write(&self.buffer[self.filled.start..end]) {
            Ok(0) => self.failure = Some(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                self.filled.start += count;
                self.bytes = self.bytes.saturating_add(count as u64);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => self.failure = Some(error),
        }
        self.idle_since = Instant::now();
    }

    /// Carries nothing more, though nothing is wrong with the way out.
    pub(super) fn abandon(&mut self) {
        self.from = None;
        self.filled = 0..0;
    }

    /// Carries nothing more.
    pub(super) fn give_up(&mut self, why: io::Error) {
        self.failure.get_or_insert(why);
    }
}
