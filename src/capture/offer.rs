//! What is asked of each provider, and what it may answer.

use std::path::Path;

use crate::model::job::CapturePolicy;
use crate::tools::lvm::LogicalVolume;

use super::Provider;
use super::survey::Volume;

/// How something is read.
pub enum Choice {
    /// Held still by this provider.
    Held(Box<dyn Provider>),
    /// It cannot change: its file system is read-only, and nobody else has it.
    Still,
    /// Live, because the configuration says so.
    LiveByWish,
    /// Live, because nothing can hold it still; the reason is for people.
    Live(String),
}

/// What is to be held still: something mounted, a block device, or something mounted from a block device.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its path, in words.
    pub at: &'a Path,
    /// What is mounted.
    pub volume: Option<&'a Volume>,
    /// The LVM volume that it is, or is mounted from.
    pub logical: Option<&'a LogicalVolume>,
    /// What the configuration says.
    pub policy: &'a CapturePolicy,
}

/// Asks one provider. `None` where it has nothing to do with what is wanted; any other answer is the last word.
pub(super) type Offer = fn(&Wanted<'_>) -> Option<Choice>;
