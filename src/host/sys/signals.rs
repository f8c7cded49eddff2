//! The stop signals: they only set a flag, and the normal unwind path runs.
//!
//! Whoever waits for something looks at the flag. A second signal means that the person at the keyboard has
//! lost patience; it shortens how long children may take to stop, and skips nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

/// Whether, and by which signal, we were told to stop.
#[derive(Debug, Default)]
pub struct StopFlag {
    first: AtomicI32,
    count: AtomicUsize,
}

impl StopFlag {
    /// Notes a signal. Only atomics: this is what the signal handler does.
    pub fn raise(&self, signal: i32) {
        let _ = self.first.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// The first signal that arrived.
    pub fn signal(&self) -> Option<i32> {
        Some(self.first.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// Whether more than one signal arrived.
    pub fn is_urgent(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 1
    }
}

/// What asks us to stop: a person at the keyboard (Ctrl-C, and Ctrl-\\ when that seems to do nothing), a lost
/// terminal, a service manager. Each of them would otherwise end us with snapshots and read-only mounts left.
const STOP: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];

/// Makes the signals that ask us to stop raise the flag that is returned. A signal that was ignored when we were
/// started (`nohup`) stays ignored. Called once, by `main`.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn listen() -> io::Result<Arc<StopFlag>> {
    let flag = Arc::new(StopFlag::default());
    let ignored = ignored_signals(&std::fs::read_to_string("/proc/self/status")?)?;
    for number in STOP {
        if ignored & (1 << (number - 1)) != 0 {
            continue;
        }
        let raised = Arc::clone(&flag);
        #[expect(
            unsafe_code,
            reason = "a signal handler; it only touches atomics, which is safe there"
        )]
        unsafe {
            signal_hook::low_level::register(number, move || raised.raise(number))?;
        }
    }
    // Whoever starts us may have set SIGCHLD to be ignored, and then no exit status could ever be learned.
    #[expect(unsafe_code, reason = "the default disposition runs no code of ours")]
    unsafe {
        signal(Signal::SIGCHLD, SigHandler::SigDfl)?;
    }
    Ok(flag)
}

/// The mask `SigIgn` of a `/proc/PID/status`: bit n-1 stands for signal n.
fn ignored_signals(status: &str) -> io::Result<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("no SigIgn in /proc/self/status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_counts_and_the_second_is_noticed() {
        let flag = StopFlag::default();
        assert_eq!((flag.signal(), flag.is_urgent()), (None, false));
        flag.raise(15);
        assert_eq!((flag.signal(), flag.is_urgent()), (Some(15), false));
        flag.raise(2);
        assert_eq!((flag.signal(), flag.is_urgent()), (Some(15), true));
    }

    #[test]
    fn the_ignored_mask_is_read() {
        let status = "Name:\tcat\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored_signals(status).unwrap(), 0x1001);
        assert!(ignored_signals("Name:\tcat\n").is_err());
    }
}
