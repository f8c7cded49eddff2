//! Locks that dead processes left in the repository.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Session, broken};
use crate::engine::EngineError;
use crate::host::Host;
use crate::tools::restic::command;
use crate::tools::restic::message::{self, LockFile};

/// How long is waited for a dead process to be reaped: no init takes longer that reaps at all.
const REAPED_WITHIN: Duration = Duration::from_secs(15);

/// How long between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// From what age on `restic unlock` takes anybody's lock: half an hour (`staleLockTimeout` in its source), less
/// a minute for the time between our look and its own.
const TAKEN_AFTER: TimeDelta = TimeDelta::minutes(29);

/// How far the clock may have been set between the start of a process and our look, at most, for the two to be
/// compared.
const CLOCK_ERROR: TimeDelta = TimeDelta::minutes(1);

/// Removes the locks of dead processes of this machine, and looks whether they are gone.
///
/// `restic unlock` cannot be told which lock is meant: it takes those of dead processes of this machine, and
/// every lock that was not refreshed for half an hour, also that of another machine which sleeps in the
/// middle of a backup. So it runs only when a lock of the first sort is there and none of the second.
///
/// It ends with status 0 whatever it left. It asks for the process by a signal, and that reaches one which has
/// died but was not reaped yet; so its lock stays, and `unlock` has to be run again once the process is reaped.
///
/// # Errors
/// When restic cannot look or unlock, and [`EngineError::Locked`] when the lock of a dead process stays.
pub(super) fn release_dead(session: &Session<'_>) -> Result<(), EngineError> {
    let locked = |detail| Err(EngineError::Locked { repository: session.shown(), detail });
    let mut waited = Duration::ZERO;
    loop {
        let Locks { dead, forgotten } = look(session)?;
        let Some(dead) = dead else {
            if let Some(other) = forgotten {
                tracing::warn!(
                    "process {} on {} has a lock in {} that it has not refreshed since {}: if it is not at work any more, run `restic unlock`",
                    other.pid,
                    other.hostname,
                    session.shown(),
                    shown(other.time)
                );
            }
            return Ok(());
        };
        if let Some(other) = forgotten {
            return locked(format!(
                "process {} of this machine has died with its lock, which stays because `restic unlock` would also take that of process {} on {}, not refreshed since {} — see that it is not at work any more (a machine may sleep), then run `restic unlock`",
                dead.pid,
                other.pid,
                other.hostname,
                shown(other.time),
            ));
        }
        if waited >= REAPED_WITHIN {
            return locked(format!(
                "process {} of this machine has died with its lock, and restic takes it for a living one, because nobody reaps it or another process has its number now; half an hour after {} restic lets it go",
                dead.pid,
                shown(dead.time),
            ));
        }
        if waited > Duration::ZERO {
            session.cx.host.pause(PAUSE);
        }
        session.run(&command::unlock(&session.access))?;
        waited += PAUSE;
    }
}

/// The locks on which it depends whether `restic unlock` may run.
#[derive(Default)]
struct Locks {
    /// One whose process, of this machine, runs no more.
    dead: Option<LockFile>,
    /// One that `restic unlock` would take although nothing proves its process dead.
    forgotten: Option<LockFile>,
}

fn look(session: &Session<'_>) -> Result<Locks, EngineError> {
    let host = session.cx.host;
    let listed = session.run(&command::list_locks(&session.access))?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let ids: Vec<&str> = listed.lines().filter(|line| message::is_id(line)).collect();
    let mut locks = Locks::default();
    if ids.is_empty() {
        return Ok(locks);
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
        if lock.hostname.as_bytes() == name.trim_ascii() && !is_held(host, &lock)? {
            locks.dead = Some(lock);
        } else if host.now() - lock.time >= TAKEN_AFTER {
            locks.forgotten = Some(lock);
        }
    }
    Ok(locks)
}

/// Whether the process that made a lock of this machine runs. One of its number that began after the lock was made
/// or refreshed is another one.
fn is_held(host: &dyn Host, lock: &LockFile) -> Result<bool, EngineError> {
    Ok(host.running_since(lock.pid)?.is_some_and(|began| began <= lock.time + CLOCK_ERROR))
}

fn shown(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%d %H:%M:%S UTC")
}
