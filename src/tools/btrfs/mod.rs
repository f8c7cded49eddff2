//! btrfs-progs: sending and receiving, and the stream in between.

use crate::host::Tool;

pub mod changes;
pub mod command;
pub mod dated;
pub mod edits;
pub mod estimate;
pub mod names;
pub mod nested;
pub mod pace;
pub mod parts;
pub mod shared;
pub mod shares;
pub mod shown;
pub mod stage;
pub mod stream;

/// btrfs-progs, unless the configuration names another.
pub const PROGRAM: Tool = Tool::Known {
    name: "btrfs",
    hint: "install it (Debian: apt install btrfs-progs) or name it with program = \"/path/to/btrfs\"",
};

#[cfg(test)]
mod tests;
