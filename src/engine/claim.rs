//! Whose a lock in a repository is.

use crate::host::{ActError, Host};
use crate::model::undo::ChildProcess;

/// What a ledger knows of the lock that an engine of its run may have left in a repository.
///
/// A lock is ours only by the name it bears, which holds the run's id: another container or machine may have our
/// host name, and its process our process's number. It is released only when the process that the lock names is
/// proven dead: no process of that number runs, or one that is another by start time or boot than any that the
/// run has started.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The name that locks of the run bear; `None` when nothing tells them from others'.
    pub owner: Option<&'a str>,
    /// Every process that the run has started.
    pub children: &'a [ChildProcess],
}

impl Claim<'_> {
    /// Whether the process of this number that a lock of the run names is proven dead.
    ///
    /// # Errors
    /// When the table of processes cannot be read.
    pub fn is_dead(&self, host: &dyn Host, pid: i32) -> Result<bool, ActError> {
        let Some(found) = host.process(pid)? else { return Ok(true) };
        let earlier_boot = self.children.iter().all(|child| child.boot_id != found.boot_id);
        if earlier_boot {
            return Ok(!self.children.is_empty());
        }
        // Of a process that the ledger does not name (an engine's own child) nothing is known.
        let mut same_number = self.children.iter().filter(|child| child.pid == pid).peekable();
        Ok(same_number.peek().is_some() && !same_number.any(|child| child.is_same(&found)))
    }
}
