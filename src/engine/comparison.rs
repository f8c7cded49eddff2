//! How a copy of a subvolume is compared with what was sent as it, file by file.

use super::context::Context;
use super::error::EngineError;
use crate::host::{CommandSpec, Completed, Watch};
use crate::model::copy::Copy;
use crate::tools::manifest::Sample;

/// What an engine can do whose copies are trees that are told entry by entry, as [`crate::tools::manifest`] has it.
pub trait Comparison {
    /// What a copy was made of, as its target says.
    ///
    /// # Errors
    /// When the target cannot be asked, or there is no such copy.
    fn sent_as(&self, cx: Context<'_>, copy: &Copy) -> Result<SentAs, EngineError>;

    /// Has a copy described to a process, which reads that as its standard input. Answers with how that one ended, unless
    /// it was because of whoever describes.
    ///
    /// # Errors
    /// When the copy could not be described to its end.
    fn describe(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        sample: Sample,
        to: (&CommandSpec, Watch<'_>),
    ) -> Result<Completed, EngineError>;
}

/// What a copy was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentAs {
    /// The snapshot of this UUID, whose last change was in this generation.
    Snapshot {
        /// The UUID.
        uuid: String,
        /// The generation.
        generation: u64,
    },
    /// It does not matter, for nobody there can describe the copy; why.
    Untold(String),
}
