//! Whether so much space is free as must stay free.

use std::path::Path;

use super::{ActError, Host};
use crate::model::keep::MinFree;
use crate::model::size;

/// Space that is lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes that must be.
    pub wanted: u64,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} free where min-free wants {}", size::show(self.free), size::show(self.wanted))
    }
}

/// What is lacking in the file system that holds the path; `None` where nothing is.
///
/// # Errors
/// When the file system cannot be asked.
pub fn shortage(
    host: &dyn Host,
    path: &Path,
    min_free: MinFree,
) -> Result<Option<Shortage>, ActError> {
    let wanted = min_free.of(host.total_space(path)?);
    let free = host.free_space(path)?;
    Ok((free < wanted).then_some(Shortage { free, wanted }))
}
