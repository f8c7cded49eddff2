//! Pipes from child to child, for what is no chain.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// An end of a pipe on its way to a child, which alone has it from when it is started: whoever is at the other end learns
/// when that child is gone.
#[derive(Debug, Clone)]
pub struct PipeEnd(Arc<Mutex<Option<OwnedFd>>>);

impl PipeEnd {
    /// A new pipe: the end that is read from, and the one that is written to.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (from, to) = io::pipe()?;
        let end = |descriptor: OwnedFd| Self(Arc::new(Mutex::new(Some(descriptor))));
        Ok((end(from.into()), end(to.into())))
    }

    /// The end itself, for the child that a host is starting.
    ///
    /// # Errors
    /// When another one has it.
    pub fn take(&self) -> io::Result<OwnedFd> {
        let mut descriptor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        descriptor
            .take()
            .ok_or_else(|| io::Error::other("another process has this end of the pipe"))
    }
}

impl PartialEq for PipeEnd {
    /// Two are the same when they are the same end of one pipe.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PipeEnd {}
