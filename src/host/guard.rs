//! The guard over frozen processes: a process of its own that lets them go when we no longer can.
//!
//! It is this program under a hidden verb, started before anything is frozen. It holds the groups' switches
//! open, says `ready`, and waits for the end of its input, which comes when its parent closes the pipe or
//! dies in whatever way; or for its limit, which it reports. Either way it thaws the groups and ends. So what
//! can go wrong with us, SIGKILL included, leaves nobody frozen for longer than the limit.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use super::sys::cgroup;
use crate::model::shown::Show;

/// The hidden verb.
pub const VERB: &str = "thaw-guard";

/// The first line: from here on the groups are guarded.
pub(super) const READY: &str = "ready";

/// The line that says that the limit came before the end of the input.
pub(super) const FIRED: &str = "fired";

/// The whole life of a guard, on the standard streams of this process.
///
/// # Errors
/// When a group cannot be guarded, or not be thawed at the end. It has been said on standard output too.
pub fn stand(groups: &[PathBuf], limit: Duration) -> io::Result<()> {
    // Whoever stops all processes of a service stops the run, and the guard's turn comes after it.
    let blocked = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGTSTP,
    ];
    blocked.into_iter().collect::<SigSet>().thread_block()?;
    let mut said = io::stdout();
    let ended = guard(groups, limit, io::stdin().lock(), &mut said);
    if let Err(error) = &ended {
        // Nobody may be listening any more.
        let _ = writeln!(said, "{error}");
    }
    ended
}

/// Guards the groups until `parent` ends or the limit comes, and then thaws them.
fn guard(
    groups: &[PathBuf],
    limit: Duration,
    mut parent: impl Read + AsFd,
    said: &mut dyn Write,
) -> io::Result<()> {
    let switches = groups
        .iter()
        .map(|group| cgroup::switch(group).map_err(|error| because("guard", group.shown(), &error)))
        .collect::<io::Result<Vec<File>>>()?;
    writeln!(said, "{READY}")?;
    said.flush()?;
    let fired = await_end(&mut parent, limit);
    let mut failure = None;
    for (group, mut switch) in groups.iter().zip(switches) {
        if let Err(error) = switch.write_all(b"0")
            && !cgroup::is_gone(&error)
        {
            failure.get_or_insert(because("thaw", group.shown(), &error));
        }
    }
    // A parent that has died cannot be told, and needs not be.
    if fired {
        let _ = writeln!(said, "{FIRED}");
        let _ = said.flush();
    }
    failure.map_or(Ok(()), Err)
}

fn because(what: &str, group: impl std::fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {group}: {error}"))
}

/// Waits for the end of the input. Answers whether the limit came first.
fn await_end(parent: &mut (impl Read + AsFd), limit: Duration) -> bool {
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return true;
        }
        // Rounded up, so that the last part of a millisecond is not spent in a loop.
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(parent.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            // Without a way to wait, to thaw at once is the safe side.
            Err(_) => return true,
        }
        // Nothing is ever sent; what is there is the end.
        match parent.read(&mut [0; 64]) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn group(dir: &Path, name: &str) -> PathBuf {
        let group = dir.join(name);
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cgroup.freeze"), "0\n").unwrap();
        group
    }

    fn is_asked(group: &Path) -> bool {
        fs::read_to_string(group.join("cgroup.freeze")).unwrap().starts_with('1')
    }

    /// Lines that can be read while the guard still writes.
    fn stand_over(
        groups: Vec<PathBuf>,
        limit: Duration,
        parent: io::PipeReader,
    ) -> (io::PipeReader, std::thread::JoinHandle<io::Result<()>>) {
        let (heard, mut said) = io::pipe().unwrap();
        let guard = std::thread::spawn(move || guard(&groups, limit, parent, &mut said));
        (heard, guard)
    }

    fn line(heard: &mut io::PipeReader) -> String {
        let mut line = String::new();
        let mut byte = [0];
        while heard.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0].into());
        }
        line
    }

    #[test]
    fn the_end_of_the_parent_thaws() {
        let dir = tempfile::tempdir().unwrap();
        let groups = vec![group(dir.path(), "a"), group(dir.path(), "b")];
        let (parent, mut us) = io::pipe().unwrap();
        let (mut heard, guard) = stand_over(groups.clone(), Duration::from_secs(60), parent);
        assert_eq!(line(&mut heard), "ready");
        for group in &groups {
            fs::write(group.join("cgroup.freeze"), "1\n").unwrap();
        }
        us.write_all(b"words mean nothing to it").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(groups.iter().all(|group| is_asked(group)), "it thawed too early");
        // One of them goes away meanwhile; the file is still open, as the kernel's would be.
        fs::remove_file(groups[0].join("cgroup.freeze")).unwrap();
        drop(us);
        guard.join().unwrap().unwrap();
        assert!(!is_asked(&groups[1]));
        assert_eq!(line(&mut heard), "", "the limit was not reached");
    }

    #[test]
    fn the_limit_thaws_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path(), "a");
        let (parent, us) = io::pipe().unwrap();
        let began = Instant::now();
        // Long enough for a busy machine to freeze within it.
        let limit = Duration::from_secs(3);
        let (mut heard, guard) = stand_over(vec![group.clone()], limit, parent);
        assert_eq!(line(&mut heard), "ready");
        fs::write(group.join("cgroup.freeze"), "1\n").unwrap();
        assert_eq!(line(&mut heard), "fired");
        assert!(began.elapsed() >= limit);
        guard.join().unwrap().unwrap();
        assert!(!is_asked(&group));
        drop(us);
    }

    #[test]
    fn a_group_that_cannot_be_guarded_is_told_before_anything_is_frozen() {
        let dir = tempfile::tempdir().unwrap();
        let (parent, _us) = io::pipe().unwrap();
        let groups = vec![group(dir.path(), "a"), dir.path().join("absent")];
        let (mut heard, guard) = stand_over(groups, Duration::from_secs(60), parent);
        let error = guard.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
        assert_eq!(line(&mut heard), "", "it never said that it is ready");
    }
}
