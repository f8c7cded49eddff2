//! What lies in a target and was made by another program, and how it becomes a copy.

use chrono::{DateTime, Utc};

use super::context::Context;
use super::error::EngineError;
use crate::host::Subvolume;
use crate::model::copy::{Copy, Series};
use crate::model::natural::Natural;

/// What an engine can do with what other programs made, where that needs a record of ours to be a copy.
pub trait Adoption {
    /// Looks what there is. Changes nothing.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    fn foreign(&self, cx: Context<'_>) -> Result<Found, EngineError>;

    /// Has these be copies from now on: as they are, where they are, under the names that they have. Answers with the ids
    /// of those that are; one that is not what was found any more is left out.
    ///
    /// # Errors
    /// When they cannot be made durable, or no record can be written.
    fn take_over(
        &self,
        cx: Context<'_>,
        wanted: &[TakeOver<'_>],
    ) -> Result<Vec<String>, EngineError>;

    /// Notes of a copy that all of it was compared with what was sent: a difference may be based on it.
    ///
    /// # Errors
    /// When it cannot be made durable, or the record cannot be written.
    fn prove(&self, cx: Context<'_>, copy: &Copy) -> Result<(), EngineError>;
}

/// What other programs made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What can become a copy.
    pub fit: Vec<Foreign>,
    /// What cannot, and why, in words.
    pub unfit: Vec<String>,
}

/// Something that another program received whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its name, which becomes the copy's id.
    pub id: String,
    /// The subvolume that it is.
    pub found: Subvolume,
    /// The moment it stands for: that in its name or, where there is none or a later one than that of its reception, that:
    /// whoever knows the snapshot that was sent knows better.
    pub time: DateTime<Utc>,
    /// What its name begins with, before the moment; `None` where no known program gave it that name.
    pub stem: Option<String>,
}

impl Foreign {
    /// Where it stands among others: by its time, and of several of one second by the number that tells them apart.
    pub fn moment(&self) -> (DateTime<Utc>, Natural<'_>) {
        (self.time, Natural(&self.id))
    }
}

/// What is to become a copy.
#[derive(Debug, Clone)]
pub struct TakeOver<'a> {
    /// What was found.
    pub foreign: &'a Foreign,
    /// What it is a copy of.
    pub series: &'a Series,
    /// It stays until it is unpinned, whatever the policy says.
    pub pinned: bool,
    /// A person says that it is whole, so a difference may be based on it.
    pub proven: bool,
}
