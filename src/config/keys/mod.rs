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
mod commands;
mod files;
mod restic;

pub use borg::ROW as BORG;
pub use commands::ROW as COMMANDS;
pub use files::ROW as FILES;
pub use restic::ROW as RESTIC;
