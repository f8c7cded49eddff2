//! What carries bytes from a writer to a reader.
//!
//! The two are not connected directly, because the kernel would end the reader's input whenever the
//! writer dies, and the reader would store a torn stream as a whole one. The pump ends the input itself,
//! and only when it is told that the writer succeeded.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

/// What both pipes are asked to hold, in bytes, and how much is carried at once: fewer, longer turns for both.
const SIZE: i32 = 1 << 20;

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
    /// What the reader has yet to get before all that, and is not the writer's.
    first: Vec<u8>,
    /// Whether the reader's pipe had no room for what the writer has ready.
    is_full: bool,
    /// Since when there was nothing to carry.
    idle_since: Instant,
    /// Whether both pipes hold as much as they were asked to.
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
        let held = [&from, &to].map(|pipe| fcntl(pipe, FcntlArg::F_SETPIPE_SZ(SIZE)).is_ok());
        let is_roomy = held == [true; 2];
        let (from, to, first) = (Some(from), Some(to), first.to_vec());
        Self { from, to, first, is_roomy, completed: false, ..Self::none() }
    }

    /// None: the two are connected by a pipe of their own, or not at all, and each is looked after for itself.
    pub(super) fn none() -> Self {
        Self {
            from: None,
            to: None,
            bytes: 0,
            first: Vec::new(),
            is_full: false,
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
        !self.is_held_up() && self.from.is_some()
    }

    /// Whether it lets the writer gather more before it looks again.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// Whether it waits for the reader.
    pub(super) fn wants_output(&self) -> bool {
        self.is_held_up() && self.to.is_some()
    }

    /// Whether the reader has to take something before more is looked for.
    fn is_held_up(&self) -> bool {
        self.is_full || !self.first.is_empty()
    }

    /// Whether all that the writer wrote has been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.from.is_none() && self.first.is_empty() && !self.refused
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

    /// Carries what the writer has ready; poll has said that there is something, or its end. The bytes move from pipe to
    /// pipe: to copy them would take longer than all else that is done with them here.
    ///
    /// # Errors
    /// When the writer's pipe cannot be read from.
    pub(super) fn carry(&mut self) -> io::Result<()> {
        let (Some(from), Some(to)) = (&mut self.from, &self.to) else { return Ok(()) };
        // What the reader left no room for is no sign of a writer that has little.
        let was_full = std::mem::take(&mut self.is_full);
        match splice(&*from, None, to, None, SIZE as usize, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(0) => self.from = None,
            Ok(count) => {
                let gathers = !was_full && self.is_roomy && self.bytes > LONG && count < LITTLE;
                self.rests_until =
                    gathers.then(|| Instant::now() + Duration::from_millis(REST.into()));
                self.bytes = self.bytes.saturating_add(count as u64);
            }
            // The writer has something, so it is the reader's pipe.
            Err(Errno::EAGAIN) => self.is_full = true,
            Err(Errno::EINTR) => {}
            // Nobody reads any more, which is no refusal where nothing more comes.
            Err(Errno::EPIPE) => match from.read(&mut [0])? {
                0 => self.from = None,
                _ => self.refuse(),
            },
            Err(error) => return Err(error.into()),
        }
        self.idle_since = Instant::now();
        Ok(())
    }

    /// Goes on where the reader had no room; poll has said that there is some, or that it takes no more.
    ///
    /// # Errors
    /// As [`Pump::carry`].
    pub(super) fn resume(&mut self) -> io::Result<()> {
        if self.first.is_empty() {
            return self.carry();
        }
        let Some(to) = &mut self.to else { return Ok(()) };
        match to.write(&self.first) {
            Ok(count) => drop(self.first.drain(..count)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.refuse(),
        }
        self.idle_since = Instant::now();
        Ok(())
    }

    /// The reader takes no more; the writer's next write fails.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
        self.from = None;
        self.to = None;
        self.is_full = false;
    }

    /// Stops carrying without ending the reader's input.
    pub(super) fn halt(&mut self) {
        self.from = None;
        self.first.clear();
        self.is_full = false;
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

    fn owned(end: impl Into<std::os::fd::OwnedFd>) -> File {
        File::from(end.into())
    }

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
            pump.carry().unwrap();
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

    #[test]
    fn what_the_reader_has_no_room_for_stays_with_the_writer_and_what_comes_first_is_not_counted() {
        let (from, mut writer) = io::pipe().unwrap();
        let (mut reader, to) = io::pipe().unwrap();
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut pump = Pump::new(owned(from), owned(to), b"first");
        fcntl(pump.to.as_ref().unwrap(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let bytes: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).take(60_000).collect();
        writer.write_all(&bytes).unwrap();
        drop(writer);
        assert!(pump.wants_output() && !pump.wants_input());
        pump.resume().unwrap();
        assert!(pump.wants_input() && !pump.wants_output());
        let mut arrived = Vec::new();
        while !pump.is_drained() {
            assert_ne!(pump.wants_input(), pump.wants_output());
            if pump.wants_input() {
                pump.carry().unwrap();
                continue;
            }
            let mut some = [0; 4096];
            let count = reader.read(&mut some).unwrap();
            arrived.extend_from_slice(&some[..count]);
            pump.resume().unwrap();
        }
        pump.complete();
        pump.release();
        reader.read_to_end(&mut arrived).unwrap();
        assert_eq!(arrived, [b"first".as_slice(), &bytes].concat());
        assert_eq!(pump.bytes, 60_000);
    }

    #[test]
    fn a_reader_that_takes_no_more_is_known_when_there_is_something_for_it() {
        let (from, mut writer) = io::pipe().unwrap();
        let (reader, to) = io::pipe().unwrap();
        let mut pump = Pump::new(owned(from), owned(to), b"");
        drop(reader);
        writer.write_all(b"something").unwrap();
        pump.carry().unwrap();
        assert!(pump.is_refused() && !pump.is_drained() && pump.from.is_none());
    }

    #[test]
    fn a_reader_that_takes_no_more_when_there_is_no_more_has_refused_nothing() {
        let (from, writer) = io::pipe().unwrap();
        let (reader, to) = io::pipe().unwrap();
        let mut pump = Pump::new(owned(from), owned(to), b"");
        drop((reader, writer));
        pump.carry().unwrap();
        assert!(pump.is_drained() && !pump.is_refused());
    }
}
