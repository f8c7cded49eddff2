//! What carries bytes from a writer to a reader.
//!
//! The two are not connected directly, because the kernel would end the reader's input whenever the
//! writer dies, and the reader would store a torn stream as a whole one. The pump ends the input itself,
//! and only when it is told that the writer succeeded.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};

/// How much is carried at once, and what both pipes are asked to hold: fewer, longer turns for both.
const SIZE: usize = 1024 * 1024;

/// The way from one process to the other.
#[derive(Debug)]
pub(super) struct Pump {
    /// The writer's standard output; `None` after its end, or when nobody wants it any more.
    pub(super) from: Option<File>,
    /// The reader's standard input; not blocking. Held open until [`Pump::complete`] or [`Pump::release`].
    pub(super) to: Option<File>,
    /// Bytes that the reader has taken.
    pub(super) bytes: u64,
    buffer: Box<[u8]>,
    filled: std::ops::Range<usize>,
    /// Since when there was nothing to carry.
    idle_since: Instant,
    refused: bool,
    completed: bool,
}

impl Pump {
    /// A pump between two pipes.
    pub(super) fn new(from: File, to: File) -> Self {
        for pipe in [&from, &to] {
            // Without privileges the limit may be lower; then it is only slower.
            let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(1024 * 1024));
        }
        Self {
            from: Some(from),
            to: Some(to),
            bytes: 0,
            buffer: vec![0; SIZE].into_boxed_slice(),
            filled: 0..0,
            idle_since: Instant::now(),
            refused: false,
            completed: false,
        }
    }

    /// Whether it waits for the writer.
    pub(super) fn wants_input(&self) -> bool {
        self.filled.is_empty() && self.from.is_some()
    }

    /// Whether it waits for the reader.
    pub(super) fn wants_output(&self) -> bool {
        !self.filled.is_empty() && self.to.is_some()
    }

    /// Whether all that the writer wrote has been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.from.is_none() && self.filled.is_empty() && !self.refused
    }

    /// Whether the reader was given the end of its input.
    pub(super) fn is_complete(&self) -> bool {
        self.completed
    }

    /// Whether the reader closed its input before the end.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// For how long the writer has had nothing, while the reader had taken everything.
    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        if self.wants_input() {
            now.saturating_duration_since(self.idle_since)
        } else {
            Duration::ZERO
        }
    }

    /// Reads once; poll has said that this does not block.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let Some(from) = &mut self.from else { return Ok(()) };
        match from.read(&mut self.buffer) {
            Ok(0) => self.from = None,
            Ok(count) => {
                self.filled = 0..count;
                self.write();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.idle_since = Instant::now();
        Ok(())
    }

    /// Writes what the reader takes now.
    pub(super) fn write(&mut self) {
        let Some(to) = &mut self.to else { return };
        match to.write(&self.buffer[self.filled.clone()]) {
            Ok(count) => {
                self.filled.start += count;
                self.bytes = self.bytes.saturating_add(count as u64);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.refuse(),
        }
        self.idle_since = Instant::now();
    }

    /// The reader takes no more; the writer's next write fails.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
        self.from = None;
        self.to = None;
    }

    /// Stops carrying without ending the reader's input.
    pub(super) fn halt(&mut self) {
        self.from = None;
        self.filled = 0..0;
    }

    /// Ends the reader's input: the writer has succeeded.
    pub(super) fn complete(&mut self) {
        self.to = None;
        self.completed = true;
    }

    /// Lets go of the input of a reader that has exited.
    pub(super) fn release(&mut self) {
        self.to = None;
    }
}
