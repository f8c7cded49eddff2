//! Why a command did not run to its end.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::shown::Show;

/// Why a command has no [`Completed`](super::Completed): it could not start, or it was not let run to its end.
///
/// A command that ran and exited with an unwelcome status is *not* an error here; what a status means is
/// for whoever knows the tool.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program is not on this machine.
    #[error("{tool} is not installed")]
    NotFound {
        /// The program.
        tool: String,
        /// What to do about it.
        hint: String,
    },
    /// The program may be replaced by somebody other than root.
    #[error("{} may be changed by others than root, so it is not run", path.shown())]
    Unsafe {
        /// The program or the directory that is writable.
        path: PathBuf,
    },
    /// The process could not be started.
    #[error("cannot start {command}")]
    Spawn {
        /// The command, secrets masked.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Nothing moved for too long; the process was stopped.
    #[error("{command} {} for {}s and was stopped", stillness(*took_nothing), after.as_secs())]
    Stalled {
        /// The command, secrets masked.
        command: String,
        /// The limit that was reached.
        after: Duration,
        /// It was given something, and all others waited for it to take that.
        took_nothing: bool,
        /// The last lines of its standard error.
        stderr_tail: String,
    },
    /// The command's own time limit was reached; the process group was stopped.
    #[error("{command} took longer than {}s and was stopped", after.as_secs())]
    TimedOut {
        /// The command, secrets masked.
        command: String,
        /// The limit that was reached.
        after: Duration,
        /// The last lines of its standard error.
        stderr_tail: String,
    },
    /// We were told to stop; the process was stopped first.
    #[error("{command} was stopped because signal {signal} arrived")]
    Interrupted {
        /// The command, secrets masked.
        command: String,
        /// The signal that we received.
        signal: i32,
    },
    /// Whoever watches over what it reads stopped it.
    #[error("{command} was stopped: {reason}")]
    Halted {
        /// The command, secrets masked.
        command: String,
        /// What the watcher gave as its reason.
        reason: String,
    },
    /// It ended well before it had read all that it was given, so nothing can be said of what it made of that.
    #[error("{command} ended before it had read everything that it was given")]
    LeftEarly {
        /// The command, secrets masked.
        command: String,
    },
    /// Our own standard output took no more of what the process printed; it was stopped.
    #[error("{}", cut_off(*bytes, source))]
    Output {
        /// How much was taken.
        bytes: u64,
        /// Why no more was.
        source: std::io::Error,
    },
    /// Talking to the process failed.
    #[error("lost contact with {command}")]
    Io {
        /// The command, secrets masked.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

fn stillness(took_nothing: bool) -> &'static str {
    match took_nothing {
        true => "took nothing of what it was given",
        false => "made no progress",
    }
}

fn cut_off(bytes: u64, source: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::BrokenPipe => format!("standard output was closed after {bytes} bytes"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("standard output has no space left after {bytes} bytes")
        }
        _ => format!("cannot write to standard output after {bytes} bytes"),
    }
}

impl RunError {
    /// The signal, when the run was told to stop.
    pub fn signal(&self) -> Option<i32> {
        let RunError::Interrupted { signal, .. } = self else { return None };
        Some(*signal)
    }

    /// What to do about it, when there is something to say beyond the error itself.
    pub fn hint(&self) -> Option<&str> {
        match self {
            RunError::NotFound { hint, .. } => Some(hint),
            RunError::Unsafe { .. } => {
                Some("give it to root (chown root) and let nobody else write to it (chmod go-w)")
            }
            RunError::Output { .. } => {
                Some("what was written is not whole; the repository is as it was")
            }
            RunError::LeftEarly { .. } => Some("it must read its standard input to the end"),
            RunError::Stalled { took_nothing: true, .. } => {
                Some("see what holds it up: it must read its standard input to the end")
            }
            RunError::Spawn { .. }
            | RunError::Stalled { took_nothing: false, .. }
            | RunError::TimedOut { .. }
            | RunError::Interrupted { .. }
            | RunError::Halted { .. }
            | RunError::Io { .. } => None,
        }
    }
}
