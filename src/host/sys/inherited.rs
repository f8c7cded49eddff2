//! What whoever started us expects of us: descriptors that were meant for us, and how a process of a chain ends.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, raise, signal};

/// The end of a pipe that was opened for us under this number; what is written to it never blocks. Nobody else has taken it
/// yet: it is asked for once.
///
/// # Errors
/// When the number is that of one of the standard streams, or of nothing that is open.
pub fn pipe(number: RawFd) -> io::Result<File> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    #[expect(
        unsafe_code,
        reason = "the number is one that our command line gives us, and is not used by anything else"
    )]
    let pipe = unsafe { File::from_raw_fd(number) };
    let flags = fcntl(&pipe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .and_then(|_| fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)));
    if let Err(error) = flags {
        // It would close what is not open.
        std::mem::forget(pipe);
        return Err(error.into());
    }
    // Without privileges the limit may be lower; then it is only slower.
    let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(1024 * 1024));
    Ok(pipe)
}

/// Ends this process as most end that write to nobody: by SIGPIPE, which Rust has us ignore.
pub fn end_by_broken_pipe() {
    #[expect(unsafe_code, reason = "the default takes no function of ours")]
    let restored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    if restored.is_ok() {
        let _ = raise(Signal::SIGPIPE);
    }
}
