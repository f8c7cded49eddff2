//! Locks that dead processes left in the repository.

use std::path::Path;
use std::time::Duration;

use super::{Session, broken};
use crate::engine::EngineError;
use crate::tools::restic::command;
use crate::tools::restic::message::{self, LockFile};

/// How long is waited for a dead process to be reaped: no init takes longer that reaps at all.
const REAPED_WITHIN: Duration = Duration::from_secs(15);

/// How long between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Removes the locks of dead processes of this machine, and looks whether they are gone.
///
/// `restic unlock` ends with status 0 whatever it left. It asks for the process by a signal, and that reaches
/// one which has died but was not reaped yet; so its lock stays, and `unlock` has to be run again once the
/// process is reaped.
///
/// # Errors
/// When restic cannot look or unlock, and [`EngineError::Locked`] when the lock of a dead process stays.
pub(super) fn release_dead(session: &Session<'_>) -> Result<(), EngineError> {
    let mut waited = Duration::ZERO;
    loop {
        session.run(&command::unlock(&session.access))?;
        let Some(dead) = dead(session)? else { return Ok(()) };
        if waited >= REAPED_WITHIN {
            return Err(EngineError::Locked {
                repository: session.shown(),
                detail: format!(
                    "process {} of this machine has died with its lock and nobody reaps it, so restic takes it for a living one",
                    dead.pid
                ),
            });
        }
        session.cx.host.pause(PAUSE);
        waited += PAUSE;
    }
}

/// A lock whose process, of this machine, runs no more.
fn dead(session: &Session<'_>) -> Result<Option<LockFile>, EngineError> {
    let host = session.cx.host;
    let listed = session.run(&command::list_locks(&session.access))?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let ids: Vec<&str> = listed.lines().filter(|line| message::is_id(line)).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let name = host.read(Path::new("/proc/sys/kernel/hostname"))?;
    for id in ids {
        let read = host.run(&command::cat_lock(&session.access, id), &mut |_, _| {})?;
        if !read.success() {
            // Its owner has just removed it; if not, the next command that needs it will say why.
            continue;
        }
        let lock: LockFile = serde_json::from_slice(&read.stdout)
            .map_err(|error| broken(format!("a lock that cannot be read: {error}")))?;
        if lock.hostname.as_bytes() == name.trim_ascii() && !host.is_running(lock.pid)? {
            return Ok(Some(lock));
        }
    }
    Ok(None)
}
