//! Whether our standard output was closed when we were started (`>&-`).
//!
//! Rust opens `/dev/null` in the place of what is closed, before anything of ours runs: whatever is written to it then is
//! lost, and seems to have arrived. So this is looked at before that, when the program is loaded.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether it was closed then.
pub(super) fn is_stdout_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    #[expect(unsafe_code, reason = "asks for the flags of a number, whatever it stands for")]
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    CLOSED.store(flags == -1, Ordering::Relaxed);
}

#[used]
#[expect(unsafe_code, reason = "whoever loads the program calls what is listed there, once")]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
