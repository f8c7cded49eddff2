//! Every key of the configuration, one file a table: its kind, its default, what is told of it, and its reading.

pub mod capture;
pub mod check;
pub mod engine;
pub mod hooks;
pub mod job;
pub mod keep;
pub mod root;
pub mod secret;
pub mod settings;
pub mod source;
pub mod target;

mod borg;
mod btrfs;
mod commands;
mod files;
mod restic;
mod streams;
mod subvolumes;

pub use borg::ROW as BORG;
pub use btrfs::ROW as BTRFS;
pub use commands::ROW as COMMANDS;
pub use files::ROW as FILES;
pub use restic::ROW as RESTIC;
pub use streams::ROW as STREAMS;
pub use subvolumes::ROW as SUBVOLUMES;

/// What a change of each key changes, of all tables.
#[cfg(test)]
pub const EFFECTS: &[&[super::testing::Effects]] = &[
    settings::EFFECTS,
    target::EFFECTS,
    check::EFFECTS,
    keep::EFFECTS,
    borg::EFFECTS,
    restic::EFFECTS,
    btrfs::EFFECTS,
    streams::EFFECTS,
    job::EFFECTS,
    files::EFFECTS,
    capture::EFFECTS,
    commands::EFFECTS,
    subvolumes::EFFECTS,
    hooks::EFFECTS,
];
