//! `share-stream`: not for people. It stands behind a `btrfs send` of which several want the stream; see
//! [`crate::tools::btrfs::shared`].

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::inherited_pipe;
use crate::tools::btrfs::shared::{ALIVE, Dropped, HELD_UP, piece};

use super::options::Verdict;
use super::{piped, render};

/// How often it looks whether somebody keeps the others waiting for too long.
const TICK: Duration = Duration::from_millis(100);

/// Arguments of `share-stream`.
#[derive(Debug, Args)]
pub struct ShareStreamArgs {
    /// For how many milliseconds one may take nothing while others wait
    #[arg(long, value_name = "MS")]
    patience: u64,
    /// After how many milliseconds in which nothing comes those who take it are told that more is to come, and it is told
    /// that they are waited for
    #[arg(long, value_name = "MS")]
    alive: u64,
    /// The pipes of those who take it
    #[arg(value_name = "DESCRIPTOR", required = true)]
    to: Vec<RawFd>,
}

/// Runs the verb: until standard input ends, which whoever starts it lets happen only when the sender has ended well.
pub fn run(args: &ShareStreamArgs) -> Verdict {
    let takers: std::io::Result<Vec<_>> = args.to.iter().map(|number| Taker::of(*number)).collect();
    let mut takers = takers.context("cannot open a pipe")?;
    let [patience, alive] = [args.patience, args.alive].map(Duration::from_millis);
    let mut limits = Limits { patience: Some(patience), alive };
    let mut input = piped::stdin()?;
    let (mut read, mut bytes) = (vec![0; piped::PIECE], Vec::new());
    loop {
        if !await_input(&input, &mut takers, alive)? {
            takers.iter_mut().for_each(Taker::tell_of_life);
            continue;
        }
        match input.read(&mut read) {
            Ok(0) => break,
            Ok(count) => {
                piece(&read[..count], &mut bytes);
                pass(&mut takers, &bytes, limits, &mut render::say)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read the stream"),
        }
    }
    piece(b"", &mut bytes);
    // Whoever has the end waits for nobody.
    limits.patience = None;
    pass(&mut takers, &bytes, limits, &mut render::say)?;
    Ok(Vec::new())
}

/// What those who take the stream are spared.
#[derive(Clone, Copy)]
struct Limits {
    /// For how long one of them may take nothing while others wait; `None`: nobody waits.
    patience: Option<Duration>,
    /// For how long they hear nothing while there is nothing for them, and nobody hears that they are waited for.
    alive: Duration,
}

/// One who takes the stream.
struct Taker {
    /// `None` when it gets no more.
    pipe: Option<File>,
    /// How much of the piece it has.
    has: usize,
    /// For how long it has taken nothing while others waited.
    kept_waiting: Duration,
}

impl Taker {
    fn of(number: RawFd) -> std::io::Result<Self> {
        Ok(Self { pipe: Some(inherited_pipe(number)?), has: 0, kept_waiting: Duration::ZERO })
    }

    /// Its pipe, if it lacks something of so many bytes.
    fn lacking(&self, length: usize) -> Option<&File> {
        self.pipe.as_ref().filter(|_| self.has < length)
    }

    /// Tells it that more is to come. One that has something to read needs not be told.
    fn tell_of_life(&mut self) {
        // So few bytes are written as a whole or not at all.
        if let Some(Err(error)) = self.pipe.as_mut().map(|pipe| pipe.write(&ALIVE))
            && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        {
            self.pipe = None;
        }
    }

    /// Hands on what it takes now.
    fn offer(&mut self, bytes: &[u8]) {
        let Some(pipe) = self.pipe.as_mut().filter(|_| self.has < bytes.len()) else { return };
        match pipe.write(&bytes[self.has..]) {
            Ok(count) => (self.has, self.kept_waiting) = (self.has + count, Duration::ZERO),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // It is gone. Why, others say.
            Err(_) => self.pipe = None,
        }
    }
}

/// Waits until there is something to read, or for so long. Answers whether there is.
fn await_input(input: &File, takers: &mut [Taker], limit: Duration) -> anyhow::Result<bool> {
    let mut polled = vec![PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    // That nobody is at the other end is told without being asked for.
    let pipes = takers.iter().filter_map(|taker| taker.pipe.as_ref());
    polled.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::empty())));
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, limit) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(false),
        Err(error) => return Err(error).context("cannot wait for the stream"),
    }
    let is_ready: Vec<bool> =
        polled.iter().map(|one| one.revents().is_some_and(|it| !it.is_empty())).collect();
    let gone = takers.iter_mut().filter(|taker| taker.pipe.is_some()).zip(&is_ready[1..]);
    gone.filter(|(_, is_gone)| **is_gone).for_each(|(taker, _)| taker.pipe = None);
    anyhow::ensure!(takers.iter().any(|taker| taker.pipe.is_some()), NOBODY);
    Ok(is_ready[0])
}

/// What is said when all who took it are gone.
const NOBODY: &str = "nobody takes the stream any more";

/// Hands a piece to all, each as fast as it takes it.
fn pass(
    takers: &mut [Taker],
    bytes: &[u8],
    limits: Limits,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    for taker in &mut *takers {
        (taker.has, taker.kept_waiting) = (0, Duration::ZERO);
    }
    let (mut looked, mut told) = (Instant::now(), Instant::now());
    loop {
        takers.iter_mut().for_each(|taker| taker.offer(bytes));
        // A time in which we did not run is nobody's fault.
        let passed = looked.elapsed().min(2 * TICK);
        looked = Instant::now();
        let somebody_waits = takers.iter().any(|it| it.pipe.is_some() && it.has == bytes.len());
        for (at, taker) in takers.iter_mut().enumerate() {
            if taker.lacking(bytes.len()).is_none() || !somebody_waits {
                continue;
            }
            taker.kept_waiting += passed;
            if limits.patience.is_some_and(|patience| taker.kept_waiting >= patience) {
                // Told before it can see that it gets no more.
                tell(&serde_json::to_string(&Dropped { dropped: at })?);
                taker.pipe = None;
            }
        }
        if takers.iter().all(|taker| taker.pipe.is_none()) {
            anyhow::bail!(NOBODY);
        }
        if told.elapsed() >= limits.alive {
            told = Instant::now();
            // They may work, and read nothing, for longer than anything may stand still.
            tell(HELD_UP);
            // One that takes little at a time keeps them waiting for longer than that.
            let waiting = takers.iter_mut().filter(|taker| taker.has == bytes.len());
            waiting.filter(|_| limits.patience.is_some()).for_each(Taker::tell_of_life);
        }
        let lacking = takers.iter().filter_map(|taker| taker.lacking(bytes.len()));
        let mut polled: Vec<PollFd<'_>> =
            lacking.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)).collect();
        if polled.is_empty() {
            return Ok(());
        }
        match poll(&mut polled, PollTimeout::try_from(TICK)?) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for those who take the stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;
    use std::thread;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use crate::tools::btrfs::shared::next_piece;

    /// One who takes the stream, and where it reads it.
    fn taker() -> (File, Taker) {
        let (from, to) = io::pipe().unwrap();
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let [from, to] = [OwnedFd::from(from), OwnedFd::from(to)].map(File::from);
        (from, Taker { pipe: Some(to), has: 0, kept_waiting: Duration::ZERO })
    }

    #[test]
    fn who_waits_for_one_that_takes_little_at_a_time_hears_that_more_is_to_come() {
        let ((mut fast, one), (mut slow, other)) = (taker(), taker());
        let mut bytes = Vec::new();
        piece(&[7; 100_000], &mut bytes);
        let length = bytes.len();
        let (heard, hears) = mpsc::channel();
        let fast = thread::spawn(move || {
            let mut all = vec![0; length];
            fast.read_exact(&mut all).unwrap();
            let mut word = [0; ALIVE.len()];
            while fast.read_exact(&mut word).is_ok() {
                all.extend_from_slice(&word);
                let _ = heard.send(());
            }
            all
        });
        let slow = thread::spawn(move || {
            let (mut all, mut some) = (Vec::new(), [0; 4096]);
            // Less than it takes to have the piece.
            for _ in 0..3 {
                slow.read_exact(&mut some).unwrap();
                all.extend_from_slice(&some);
                // It fails when the other one hears nothing more.
                let _ = hears.recv();
            }
            slow.read_to_end(&mut all).unwrap();
            all
        });
        let (patience, alive) = (Some(Duration::from_secs(60)), Duration::from_millis(100));
        let mut takers = [one, other];
        pass(&mut takers, &bytes, Limits { patience, alive }, &mut |_| {}).unwrap();
        assert!(takers.iter().all(|taker| taker.pipe.is_some()));
        drop(takers);
        let [fast, slow] = [fast, slow].map(|it| it.join().unwrap());
        assert_eq!(slow, bytes, "it has enough to read");
        let (first, more) = fast.split_at(length);
        assert_eq!(first, bytes);
        assert!(!more.is_empty() && more.chunks(4).all(|one| one == ALIVE), "{more:?}");
        let mut buffer = Vec::new();
        assert_eq!(next_piece(&mut &first[..], &mut buffer).unwrap(), Some(&[7; 100_000][..]));
    }

    #[test]
    fn who_takes_nothing_gets_no_more_and_the_other_one_gets_all() {
        let ((mut one, first), (_stuck, second)) = (taker(), taker());
        let mut bytes = Vec::new();
        piece(&[7; 100_000], &mut bytes);
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            one.read_to_end(&mut all).unwrap();
            all
        });
        let (patience, alive) = (Some(Duration::from_millis(300)), Duration::from_secs(60));
        let (mut takers, mut told) = ([first, second], Vec::new());
        let tell = &mut |line: &str| told.push(Dropped::read(line.as_bytes()));
        pass(&mut takers, &bytes, Limits { patience, alive }, tell).unwrap();
        assert!(takers[0].pipe.is_some() && takers[1].pipe.is_none());
        assert_eq!(told, [Some(Dropped { dropped: 1 })]);
        drop(takers);
        assert_eq!(reader.join().unwrap(), bytes);
    }

    #[test]
    fn that_one_who_reads_nothing_is_waited_for_is_told_and_it_is_not_dropped_where_nobody_waits() {
        let mut bytes = Vec::new();
        piece(&[7; 100_000], &mut bytes);
        // In the midst, and at the end.
        for patience in [Some(Duration::from_millis(300)), None] {
            let (mut from, taker) = taker();
            let (says, hears) = mpsc::channel();
            let reader = thread::spawn(move || {
                // For longer than anybody has patience.
                for _ in 0..5 {
                    hears.recv_timeout(Duration::from_secs(60)).unwrap();
                }
                let mut all = Vec::new();
                from.read_to_end(&mut all).unwrap();
                all
            });
            let (alive, mut told) = (Duration::from_millis(200), Vec::new());
            let tell = &mut |line: &str| {
                told.push(line.to_owned());
                let _ = says.send(());
            };
            let mut takers = [taker];
            pass(&mut takers, &bytes, Limits { patience, alive }, tell).unwrap();
            drop(takers);
            assert!(told.len() > 1 && told.iter().all(|line| line == HELD_UP), "{told:?}");
            assert_eq!(reader.join().unwrap(), bytes);
        }
    }

    #[test]
    fn nobody_is_waited_for_when_nobody_is_left() {
        let ((from, one), (input, _open)) = (taker(), io::pipe().unwrap());
        let (input, mut takers) = (File::from(OwnedFd::from(input)), [one]);
        let soon = Duration::from_millis(10);
        assert!(!await_input(&input, &mut takers, soon).unwrap());
        drop(from);
        let error = await_input(&input, &mut takers, Duration::from_secs(600)).unwrap_err();
        assert_eq!(error.to_string(), NOBODY);
    }
}
