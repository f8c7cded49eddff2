//! Copies that somebody has changed since they were made.

use super::{Context, EngineError};
use crate::model::copy::Copy;

/// What an engine knows of copies that are none any more because somebody has changed them: they are never listed.
pub trait Changed {
    /// All of them, as they were.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    fn copies(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError>;

    /// Deletes one of them, for which a person asks.
    ///
    /// # Errors
    /// When it is none of those, or stays.
    fn delete(&self, cx: Context<'_>, id: &str) -> Result<(), EngineError>;
}
