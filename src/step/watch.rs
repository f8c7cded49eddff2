//! Somebody who watches over the machine while captures are read: a snapshot must not fill a thin pool that
//! production writes to.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::capture::{Capture, Context};
use crate::host::Halt;

/// How often is looked. A pool that has five percent left is filled in seconds by a fast writer, and each
/// look is one `dmsetup status`.
const INTERVAL: Duration = Duration::from_secs(2);

/// Tells the watcher that there is nothing left to watch, also when the stack unwinds.
struct Done<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Done<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

/// Runs `work`, and raises `halt` as soon as one of the captures is in danger or endangers the machine.
pub fn watched<T>(
    cx: Context<'_>,
    captures: &[&dyn Capture],
    halt: &Halt,
    work: impl FnOnce() -> T,
) -> T {
    if captures.is_empty() {
        return work();
    }
    let done = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().name("watch".into()).spawn_scoped(scope, || {
            let mut over = done.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*over {
                let waited = done.1.wait_timeout(over, INTERVAL);
                over = waited.unwrap_or_else(PoisonError::into_inner).0;
                if *over {
                    return;
                }
                drop(over);
                examine(cx, captures, halt);
                over = done.0.lock().unwrap_or_else(PoisonError::into_inner);
            }
        });
        if let Err(error) = spawned {
            // Nobody would see the pool fill up.
            halt.raise(format!("nobody can watch over the captures: {error}"));
        }
        let _done = Done(&done);
        work()
    })
}

fn examine(cx: Context<'_>, captures: &[&dyn Capture], halt: &Halt) {
    for capture in captures {
        match capture.danger(cx) {
            Ok(None) => {}
            Ok(Some(reason)) => halt.raise(reason),
            // A look that fails once is tried again; one that keeps failing is seen after reading.
            Err(error) => tracing::debug!(%error, "cannot look after a capture"),
        }
    }
}
