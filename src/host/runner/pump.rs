//! What carries bytes from a writer to a reader.
//!
//! The two are not connected directly, because the kernel would end the reader's input whenever the
//! writer dies, and the reader would store a torn stream as a whole one. The pump ends the input itself,
//! and only when it is told that the writer succeeded.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// How much is carried at once, and what both pipes are asked to hold: fewer, longer turns for both.
const SIZE: usize = 1024 * 1024;

/// After so much, a writer is not taken to be one that writes little.
const LONG: u64 = 1024 * 1024;

/// As little as this is not worth a turn of everybody behind it, if more is to come: `btrfs send` writes command by
/// command, and all of a chain would be woken up by each.
const LITTLE: usize = 64 * 1024;

/// For how long the writer may gather more, in milliseconds. What it can write in that time, the pipe holds.
pub(super) const REST: u8 = 1;

/// The way from one process to the other.
#[derive(Debug)]
pub(super) struct Pump {
    /// The writer's standard output; `None` after its end, or when nobody wants it any more.
    pub(super) from: Option<File>,
    /// The reader's standard input; not blocking. Held open until [`Pump::complete`] or [`Pump::release`].
    pub(super) to: Option<File>,
    /// Bytes of the writer's that the reader has taken.
    pub(super) bytes: u64,
    /// How many bytes come first that are not the writer's.
    ahead: usize,
    buffer: Box<[u8]>,
    filled: std::ops::Range<usize>,
    /// Since when there was nothing to carry.
    idle_since: Instant,
    /// Whether the writer's pipe holds as much as it was asked to.
    is_roomy: bool,
    /// Until when the writer gathers more.
    rests_until: Option<Instant>,
    refused: bool,
    completed: bool,
    /// The reader's input once more, from when it was given its end: what is left in it was not read.
    rest: Option<File>,
}

impl Pump {
    /// A pump between two pipes, by which the reader gets some bytes of ours first.
    pub(super) fn new(from: File, to: File, first: &[u8]) -> Self {
        // Without privileges the limit may be lower; then it is only slower.
        let [is_roomy, _] =
            [&from, &to].map(|pipe| fcntl(pipe, FcntlArg::F_SETPIPE_SZ(1024 * 1024)).is_ok());
        let mut buffer = first.to_vec();
        buffer.resize(SIZE.max(first.len()), 0);
        Self {
            from: Some(from),
            to: Some(to),
            ahead: first.len(),
            buffer: buffer.into_boxed_slice(),
            filled: 0..first.len(),
            is_roomy,
            completed: false,
            ..Self::none()
        }
    }

    /// None: the two are connected by a pipe of their own, or not at all, and each is looked after for itself.
    pub(super) fn none() -> Self {
        Self {
            from: None,
            to: None,
            bytes: 0,
            ahead: 0,
            buffer: Box::default(),
            filled: 0..0,
            idle_since: Instant::now(),
            is_roomy: false,
            rests_until: None,
            refused: false,
            completed: true,
            rest: None,
        }
    }

    /// Whether it waits for the writer.
    pub(super) fn wants_input(&self) -> bool {
        self.filled.is_empty() && self.from.is_some()
    }

    /// Whether it lets the writer gather more before it looks again.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
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
                let gathers = self.is_roomy && self.bytes > LONG && count < LITTLE;
                self.rests_until =
                    gathers.then(|| Instant::now() + Duration::from_millis(REST.into()));
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
                let ahead = self.ahead.min(count);
                self.ahead -= ahead;
                self.bytes = self.bytes.saturating_add((count - ahead) as u64);
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
        self.rest = self.to.take().and_then(|to| reopened(&to));
        self.completed = true;
    }

    /// Whether the reader, which has exited, left something in its input: a pipe holds much that nobody takes.
    pub(super) fn is_left_unread(&self) -> bool {
        let byte = |mut rest: &File| rest.read(&mut [0]);
        self.rest.as_ref().is_some_and(|rest| byte(rest).is_ok_and(|count| count > 0))
    }

    /// Lets go of the input of a reader that has exited.
    pub(super) fn release(&mut self) {
        self.to = None;
    }
}

/// The other end of a pipe that is written to; reading from it never blocks. `None` where it cannot be had.
fn reopened(to: &File) -> Option<File> {
    let path = format!("/proc/self/fd/{}", to.as_raw_fd());
    let flags = OFlag::O_NONBLOCK.bits();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    opened.inspect_err(|error| tracing::debug!(%error, "not known what is left unread")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_little_for_long_may_gather_and_nobody_else_waits() {
        let (from, mut writer) =
            nix::unistd::pipe().map(|(a, b)| (a.into(), File::from(b))).unwrap();
        let (mut reader, to) = nix::unistd::pipe().map(|(a, b)| (File::from(a), b.into())).unwrap();
        let mut pump = Pump::new(from, to, b"");
        // Without privileges it may be refused.
        pump.is_roomy = true;
        let mut carried = |pump: &mut Pump, bytes: &[u8]| {
            writer.write_all(bytes).unwrap();
            pump.read().unwrap();
            let now = Instant::now();
            let mut arrived = vec![0; bytes.len()];
            reader.read_exact(&mut arrived).unwrap();
            assert_eq!(arrived, bytes);
            (pump.rests(now), pump.rests(now + Duration::from_millis(REST.into())))
        };
        assert_eq!(carried(&mut pump, b"the first"), (false, false));
        pump.bytes = LONG + 1;
        // Unless this thread has slept for as long.
        let rested = (0..1000).map(|_| carried(&mut pump, b"little"));
        assert!(rested.into_iter().any(|it| it == (true, false)));
        assert_eq!(carried(&mut pump, &vec![b'x'; LITTLE]), (false, false));
        pump.is_roomy = false;
        assert_eq!(carried(&mut pump, b"little"), (false, false));
    }
}
