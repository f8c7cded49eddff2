//! Processes that are held at one end of a pipe, while others come and go at the other end.

use super::run_error::RunError;
use super::spec::{CommandSpec, Completed, Watch};

/// The end at which processes are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldEnd {
    /// The last of them writes, and the first of each turn reads. That one must know by itself where its share ends, and
    /// read no further: see [`From::Share`](crate::tools::object::From).
    Writes,
    /// The first of them reads what the last of each turn writes, one after the other.
    Reads,
}

/// Processes that are held; see [`Host::hold`](super::Host::hold). Whoever lets go of them without a word has them stopped.
pub trait Held {
    /// Runs processes at the other end, joined as those of a [chain](super::Host::chain), and looks after those that are held
    /// meanwhile. Answers how the former ended, in order: when one that is held fails, they are stopped before they see an
    /// end.
    ///
    /// # Errors
    /// See [`RunError`].
    fn turn(&mut self, specs: &[CommandSpec], watch: Watch<'_>)
    -> Result<Vec<Completed>, RunError>;

    /// Lets those that are held come to their end, since all turns ended well: those that read see the end of their input
    /// now. Answers how they ended, in order.
    ///
    /// # Errors
    /// See [`RunError`].
    fn finish(self: Box<Self>, watch: Watch<'_>) -> Result<Vec<Completed>, RunError>;

    /// Stops those that are held, none of which sees an end of its input. Answers how they ended, in order.
    ///
    /// # Errors
    /// See [`RunError`].
    fn stop(self: Box<Self>) -> Result<Vec<Completed>, RunError>;
}
