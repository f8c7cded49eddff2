//! Locks between processes: flock(2) on a descriptor that is held open and closed at exec.
//!
//! The kernel lets go when the process ends, however it ends, so no lock is ever stale and no lock file is
//! ever deleted (deleting one lets two processes hold "the same" lock on two inodes). The text that the
//! holder writes into the file is for people only and decides nothing.
//!
//! Jobs of one run are at work at the same time, each in a thread. The run is never busy because of itself: who wants
//! what another thread of ours holds waits for it, however long that takes. All threads take locks in one order, so none
//! of them waits for ever. This is the only file that names
//! `fs2`; its methods are called by their full path, because `File` has others of the same names.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::model::shown::{self, Show};

use nix::fcntl::OFlag;

/// How often a waiting process asks again: soon enough for a person, seldom enough for the machine.
const POLL: Duration = Duration::from_millis(100);

/// How often a ledger that is held is tried, and how long between two tries: so long a forked child may take to
/// come to `exec` on a busy machine. Tries are counted rather than time, because a machine that stands still
/// lets the child get on as little as us.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// How much of a holder's text is read, in bytes.
const LONGEST_HOLDER: u64 = 1024;

/// Whom a lock shuts out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Everybody else.
    Exclusive,
    /// Only those who want it exclusively.
    Shared,
}

/// Why a lock is not held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("another run holds the lock {}{}", path.shown(), holder.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: Option<String>,
    },
    /// We were told to stop while waiting.
    #[error("stopped by signal {signal} while waiting for a lock")]
    Interrupted {
        /// The signal.
        signal: i32,
    },
    /// The lock file could not be opened.
    #[error("cannot open the lock {}", path.shown())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What identifies a lock file in this process: device and inode, since it is never deleted.
type FileId = (u64, u64);

/// The locks that this process holds: by which thread, and how often.
static HELD: Mutex<BTreeMap<FileId, (ThreadId, usize)>> = Mutex::new(BTreeMap::new());

/// A held lock. Dropping it, or the end of the process, lets go.
#[derive(Debug)]
pub struct Lock {
    file: File,
    id: FileId,
    /// Whether the file holds our own text, which must not outlive our hold.
    signed: bool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.signed {
            // A text that stays behind would only mislead the reader of a later Busy message, so a failure
            // here is not worth more than this attempt.
            let _ = self.file.set_len(0);
        }
        let mut held = held();
        // To close the descriptor would not do at once: a child that another thread has forked shares it until it comes to
        // exec. If this fails, closing it is what is left.
        let _ = fs2::FileExt::unlock(&self.file);
        if let Some((_, times)) = held.get_mut(&self.id) {
            *times -= 1;
            if *times == 0 {
                held.remove(&self.id);
            }
        }
    }
}

fn held() -> MutexGuard<'static, BTreeMap<FileId, (ThreadId, usize)>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How an attempt to take a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Taken,
    /// Another thread of ours holds it.
    HeldByUs,
    /// Another process does, or this very thread.
    Busy,
}

/// Tries to take a lock file for the thread that calls.
fn attempt(file: &File, id: FileId, mode: LockMode) -> io::Result<Attempt> {
    let mut held = held();
    let us = thread::current().id();
    // Threads do not share: what several processes may do at once in a target, a run does in turn.
    if held.get(&id).is_some_and(|(holder, _)| *holder != us) {
        return Ok(Attempt::HeldByUs);
    }
    if !try_flock(file, mode)? {
        return Ok(Attempt::Busy);
    }
    held.entry(id).or_insert((us, 0)).1 += 1;
    Ok(Attempt::Taken)
}

/// Takes the lock file at `path`, which is created (mode 0600) when it is missing; its directory must exist.
///
/// Waits at most `wait` for others, and as long as it takes for another thread of ours. `stop` is asked before each attempt and answers the signal that told us to stop.
/// An exclusive holder's `holder` text is written into the file, for the message of those who find it busy.
///
/// # Errors
/// See [`LockError`].
pub fn acquire(
    path: &Path,
    mode: LockMode,
    wait: Duration,
    holder: &str,
    stop: &dyn Fn() -> Option<i32>,
) -> Result<Lock, LockError> {
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    let id = (found.dev(), found.ino());
    let mut started = Instant::now();
    loop {
        if let Some(signal) = stop() {
            return Err(LockError::Interrupted { signal });
        }
        match attempt(&file, id, mode).map_err(failed)? {
            Attempt::Taken => break,
            Attempt::HeldByUs => {
                thread::sleep(POLL);
                started = Instant::now();
                continue;
            }
            Attempt::Busy => {}
        }
        let left = wait.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(LockError::Busy { path: path.to_owned(), holder: read_holder(&mut file) });
        }
        thread::sleep(left.min(POLL));
    }
    let mut lock = Lock { file, id, signed: mode == LockMode::Exclusive && !holder.is_empty() };
    // Nobody holds it exclusively now, so a text in it is of a holder that crashed.
    lock.file.set_len(0).map_err(failed)?;
    if lock.signed {
        lock.file.write_all(holder.as_bytes()).map_err(failed)?;
    }
    Ok(lock)
}

/// Takes an exclusive lock on an open file, without touching its content; answers whether it is held now, until
/// the file is closed. So a run takes its own ledger to say that it is alive, and a ledger that can be taken
/// belongs to a run that is dead.
///
/// Does not wait for a holder, but for a moment: a dead one's lock lives on in a child that it had forked and
/// that has not come to `exec` yet, which then closes it.
///
/// # Errors
/// When the file cannot be locked for another reason than somebody holding it.
pub fn try_hold(file: &File) -> io::Result<bool> {
    for _ in 0..TRIES {
        if try_flock(file, LockMode::Exclusive)? {
            return Ok(true);
        }
        thread::sleep(BETWEEN_TRIES);
    }
    Ok(false)
}

/// Whether the lock could be taken at once.
fn try_flock(file: &File, mode: LockMode) -> io::Result<bool> {
    let taken = match mode {
        LockMode::Exclusive => fs2::FileExt::try_lock_exclusive(file),
        LockMode::Shared => fs2::FileExt::try_lock_shared(file),
    };
    match taken {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the holder wrote about itself, on one line.
fn read_holder(file: &mut File) -> Option<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(LONGEST_HOLDER).read_to_end(&mut bytes).ok()?;
    let text = shown::text(String::from_utf8_lossy(&bytes).trim());
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn take(path: &Path, mode: LockMode, holder: &str) -> Result<Lock, LockError> {
        acquire(path, mode, Duration::ZERO, holder, &|| None)
    }

    #[test]
    fn an_exclusive_lock_shuts_out_everybody_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job");
        let held = take(&path, LockMode::Exclusive, "run 1234, pid 7\n").unwrap();
        for mode in [LockMode::Exclusive, LockMode::Shared] {
            match take(&path, mode, "other") {
                Err(LockError::Busy { holder, .. }) => {
                    assert_eq!(holder.as_deref(), Some("run 1234, pid 7"));
                }
                other => panic!("{other:?}"),
            }
        }
        let inode = path.metadata().unwrap().ino();
        drop(held);
        // Also when a child that a test beside this one has forked shares the descriptor until it comes to exec.
        drop(take(&path, LockMode::Exclusive, "next").unwrap());
        assert_eq!(path.metadata().unwrap().ino(), inode, "the file is never deleted");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn shared_locks_go_together_and_show_no_stale_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("target");
        std::fs::write(&path, "a run that crashed").unwrap();
        let one = take(&path, LockMode::Shared, "one").unwrap();
        let _two = take(&path, LockMode::Shared, "two").unwrap();
        drop(one);
        match take(&path, LockMode::Exclusive, "three") {
            Err(LockError::Busy { holder: None, .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waiting_ends_with_the_lock_with_the_time_or_with_a_signal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job");
        let held = take(&path, LockMode::Exclusive, "").unwrap();
        let wait = Duration::from_millis(250);
        let started = Instant::now();
        let busy = acquire(&path, LockMode::Exclusive, wait, "", &|| None);
        assert!(matches!(busy, Err(LockError::Busy { .. })));
        assert!(started.elapsed() >= wait);
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            (asked.get() > 2).then_some(15)
        };
        let stopped = acquire(&path, LockMode::Exclusive, Duration::from_secs(60), "", &stop);
        assert!(matches!(stopped, Err(LockError::Interrupted { signal: 15 })));
        let releaser = std::thread::spawn(move || {
            thread::sleep(Duration::from_millis(150));
            drop(held);
        });
        acquire(&path, LockMode::Exclusive, Duration::from_secs(60), "", &|| None).unwrap();
        releaser.join().unwrap();
    }

    #[test]
    fn another_thread_of_ours_is_waited_for_however_long_and_shares_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("target");
        for (held, wanted) in [
            (LockMode::Exclusive, LockMode::Exclusive),
            (LockMode::Shared, LockMode::Shared),
            (LockMode::Exclusive, LockMode::Shared),
        ] {
            let lock = take(&path, held, "one job").unwrap();
            let is_let_go = std::sync::atomic::AtomicBool::new(false);
            let order = std::sync::atomic::Ordering::SeqCst;
            thread::scope(|scope| {
                // It waits no time for others.
                let other = scope.spawn(|| {
                    let lock = take(&path, wanted, "another job").unwrap();
                    assert!(is_let_go.load(order), "{held:?} was shared with {wanted:?}");
                    drop(lock);
                });
                thread::sleep(3 * POLL);
                is_let_go.store(true, order);
                drop(lock);
                other.join().unwrap();
            });
            // A signal ends the waiting.
            let lock = take(&path, held, "one job").unwrap();
            let asked = std::sync::atomic::AtomicUsize::new(0);
            let stop = || (asked.fetch_add(1, order) > 1).then_some(15);
            thread::scope(|scope| {
                let other = scope.spawn(|| acquire(&path, wanted, Duration::ZERO, "", &stop));
                let stopped = other.join().unwrap();
                assert!(matches!(stopped, Err(LockError::Interrupted { signal: 15 })));
            });
            drop(lock);
        }
    }

    #[test]
    fn a_ledger_that_can_be_taken_is_dead_and_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(&path, "line\n").unwrap();
        let open = || File::open(&path).unwrap();
        let alive = open();
        assert!(try_hold(&alive).unwrap());
        assert!(!try_hold(&open()).unwrap());
        drop(alive);
        assert!(try_hold(&open()).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"line\n");
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        let path = dir.path().join("job");
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(matches!(take(&path, LockMode::Exclusive, "x"), Err(LockError::Io { .. })));
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
