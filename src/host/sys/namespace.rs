//! Namespaces of one thread: a host name and a view of the mounts that end with it.

use std::fmt;
use std::io;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Gives the calling *thread*, and what it starts, a host name of its own.
///
/// # Errors
/// When the kernel, or whoever shut us in, does not allow it: it needs `CAP_SYS_ADMIN`.
pub(in crate::host) fn take_host_name(name: &str) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUTS)
        .and_then(|()| nix::unistd::sethostname(name))
        .map_err(|error| because("cannot give a process its own host name", &error.into()))
}

/// Moves the calling *thread* into a mount namespace of its own, a slave of the host's.
///
/// # Errors
/// When the kernel refuses either.
pub(super) fn detach() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|error| because("cannot make a private mount namespace", &error.into()))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|error| because("cannot detach the mounts from the host's", &error.into()))
}

/// An error of the same kind that says what it was about.
pub(super) fn because(what: impl fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
