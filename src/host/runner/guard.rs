//! Starts the guard over frozen processes ([`crate::host::guard`]), and ends it.
//!
//! It is the one process of ours that outlives us on purpose: a session of its own, no parent-death signal,
//! and no place in the ledger's list of children, which `recover` stops.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::FIXED_PATH;
use crate::host::guard::{FIRED, READY, VERB};
use crate::host::{ActError, ThawGuard};
use crate::model::shown::Show;

/// How long it may take to start, and to end once it was told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guard that stands by. Dropping it ends it, which thaws the groups.
struct Standing {
    child: Child,
    ended: bool,
}

/// Starts a guard over the groups and waits until it stands by.
///
/// # Errors
/// [`ActError::Guard`]; then there is none.
pub(in crate::host) fn start(
    program: &Path,
    groups: &[PathBuf],
    limit: Duration,
) -> Result<Box<dyn ThawGuard>, ActError> {
    let refused = |reason: String| ActError::Guard { reason };
    let child = spawn(program, groups, limit)
        .map_err(|error| refused(format!("cannot start {}: {error}", program.shown())))?;
    let mut guard = Standing { child, ended: false };
    let said = guard.hear(Some(b'\n')).map_err(|error| refused(error.to_string()))?;
    if said.trim_end() == READY {
        return Ok(Box::new(guard));
    }
    let rest = guard.end().unwrap_or_default();
    let said = format!("{said}{rest}");
    Err(refused(match said.trim() {
        "" => "it ended at once".into(),
        said => said.to_owned(),
    }))
}

#[expect(clippy::disallowed_methods, reason = "a guard is no command: it outlives us")]
fn spawn(program: &Path, groups: &[PathBuf], limit: Duration) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .arg0("stillpoint")
        .arg(VERB)
        .arg("--limit")
        // Whole seconds, and at least one: it must not fire before anything is frozen.
        .arg(limit.as_secs().max(1).to_string())
        .arg("--")
        .args(groups)
        .current_dir("/")
        .env_clear()
        .env("PATH", FIXED_PATH)
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    #[expect(
        unsafe_code,
        reason = "runs between fork and exec; makes system calls only, allocates nothing"
    )]
    unsafe {
        command.pre_exec(|| {
            // It must not keep a lock or a pipe of ours alive after us.
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    command.spawn()
}

impl Standing {
    /// Reads what it says, up to a byte or to the end.
    fn hear(&mut self, until: Option<u8>) -> io::Result<String> {
        let Some(said) = self.child.stdout.as_mut() else { return Ok(String::new()) };
        let began = Instant::now();
        let mut heard = Vec::new();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
            }
            let left =
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(said.as_fd(), PollFlags::POLLIN)], left) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let mut byte = [0];
            match said.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => heard.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if until == Some(byte[0]) {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }

    /// Tells it to thaw and to end, and waits for that. Answers what else it said.
    fn end(&mut self) -> io::Result<String> {
        self.ended = true;
        drop(self.child.stdin.take());
        let said = self.hear(None);
        if said.is_err() {
            // It has been asked to end and does not; waiting for ever would help nobody.
            let _ = self.child.kill();
        }
        let status = self.child.wait()?;
        let said = said?;
        if status.success() {
            return Ok(said);
        }
        Err(io::Error::other(match said.trim() {
            "" => format!("it ended early ({status})"),
            said => said.to_owned(),
        }))
    }
}

impl ThawGuard for Standing {
    fn finish(mut self: Box<Self>) -> Result<bool, ActError> {
        match self.end() {
            Ok(said) => Ok(said.lines().any(|line| line == FIRED)),
            Err(error) => Err(ActError::Guard { reason: error.to_string() }),
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if !self.ended {
            // Only while unwinding; the ledger and recover have what fails here.
            let _ = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &str) -> String {
        let groups = [PathBuf::from("/sys/fs/cgroup/x")];
        let Err(error) = super::start(Path::new(program), &groups, Duration::from_secs(10)) else {
            panic!("{program} passed for a guard")
        };
        error.to_string()
    }

    #[test]
    fn what_does_not_say_that_it_is_ready_is_no_guard() {
        let error = start("/no/such/program");
        assert!(error.contains("cannot start /no/such/program"), "{error}");
        let error = start("/bin/echo");
        assert!(error.contains("thaw-guard --limit 10 -- /sys/fs/cgroup/x"), "{error}");
        let error = start("/bin/true");
        assert!(error.contains("it ended at once"), "{error}");
        let error = start("/bin/false");
        assert!(!error.is_empty());
    }
}
