//! Pipes from child to child, for what is no chain.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// An end of a pipe on its way to a child, which alone has it from when it is started: whoever is at the other end learns
/// when that child is gone.
#[derive(Debug, Clone)]
pub struct PipeEnd {
    descriptor: Arc<Mutex<Option<OwnedFd>>>,
    pipe: Arc<()>,
}

impl PipeEnd {
    /// A new pipe: the end that is read from, and the one that is written to.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (from, to) = io::pipe()?;
        let pipe = Arc::new(());
        let end = |descriptor: OwnedFd| Self {
            descriptor: Arc::new(Mutex::new(Some(descriptor))),
            pipe: Arc::clone(&pipe),
        };
        Ok((end(from.into()), end(to.into())))
    }

    /// Whether both are of the same pipe.
    pub fn is_of_pipe_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pipe, &other.pipe)
    }

    /// The end itself, for the child that is being started.
    ///
    /// # Errors
    /// When another one has it.
    pub(super) fn take(&self) -> io::Result<OwnedFd> {
        let mut descriptor = self.descriptor.lock().unwrap_or_else(PoisonError::into_inner);
        descriptor
            .take()
            .ok_or_else(|| io::Error::other("another process has this end of the pipe"))
    }
}

impl PartialEq for PipeEnd {
    /// Two are the same when they are the same end of one pipe.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.descriptor, &other.descriptor)
    }
}

impl Eq for PipeEnd {}
