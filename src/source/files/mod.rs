//! Files and directories: looked at, held still volume by volume, and read under their own paths.

pub mod gaps;
pub mod hold;
pub mod preflight;
pub mod quiesce;
pub mod roots;
mod watch;
