//! The words of the project as types: names, jobs, targets, copies, outcomes, events, undos.
//!
//! Nothing here touches the machine and nothing here names another module, so every other layer may
//! speak in these terms.

pub mod bytes;
pub mod columns;
pub mod copy;
pub mod event;
pub mod exit;
pub mod glob;
pub mod guest;
pub mod hash;
pub mod job;
pub mod keep;
pub mod names;
pub mod natural;
pub mod near;
pub mod needs;
pub mod outcome;
pub mod report;
pub mod secret;
pub mod shown;
pub mod size;
pub mod span;
pub mod target;
pub mod undo;
