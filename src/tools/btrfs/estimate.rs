//! How long a stream would be, read from one without data (`btrfs send --no-data`): that names every part of a file that
//! would be sent, with its length.

use serde::{Deserialize, Serialize};

use super::stream::{Command, StreamError, attribute, kind};

/// The lengths so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// Bytes of commands other than data.
    pub commands: u64,
    /// Bytes of data that they stand for.
    pub data: u64,
}

impl Lengths {
    /// Takes a command.
    ///
    /// # Errors
    /// When it lacks what it should have.
    pub fn take(&mut self, command: Command<'_>) -> Result<(), StreamError> {
        self.commands = self.commands.saturating_add(command.bytes.len() as u64);
        if command.kind == kind::UPDATE_EXTENT {
            self.data = self.data.saturating_add(command.number(attribute::SIZE)?);
        }
        Ok(())
    }

    /// Bytes of a stream with data, about.
    pub fn total(self) -> u64 {
        self.commands.saturating_add(self.data)
    }
}
