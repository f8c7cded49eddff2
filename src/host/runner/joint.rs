//! Where processes that are held meet those that have their turn.

use std::os::fd::OwnedFd;

use super::process::Process;
use crate::host::{Exit, HeldEnd};

/// What is held, and our ends of the pipe.
#[derive(Debug)]
pub(super) struct Joint {
    /// So many processes are held, the first ones.
    pub(super) count: usize,
    pub(super) end: HeldEnd,
    /// What those at the other end get.
    pub(super) other: OwnedFd,
    /// What keeps the reader from its end; of a pipe that is read here, that is `other`.
    pub(super) open: Option<OwnedFd>,
}

impl Joint {
    /// Sees to what those that are held mean to those that have their turn.
    pub(super) fn settle(&mut self, processes: &mut [Process]) {
        let (held, turn) = processes.split_at_mut(self.count);
        let has_failed = |exit: Exit| exit != Exit::Code(0);
        let is_lost = held.iter().any(|process| {
            process.stop_reason().is_some() || process.exit().is_some_and(has_failed)
        });
        let has_ended = held.last().is_some_and(|last| last.exit().is_some());
        match self.end {
            HeldEnd::Writes if is_lost => turn.iter_mut().for_each(Process::become_useless),
            HeldEnd::Writes if has_ended => self.open = None,
            // Nobody reads to the end any more what they write.
            HeldEnd::Reads if is_lost || has_ended => {
                turn.iter_mut().for_each(Process::become_useless);
                if let Some(last) = turn.last_mut() {
                    last.lose_reader();
                }
            }
            HeldEnd::Writes | HeldEnd::Reads => {}
        }
    }
}
