//! Observers of what happens, and the memory of what happened.
//!
//! [`history`] remembers runs, attempts, copies, pins and maintenance in SQLite; [`facts`] reads from it what
//! [`status`] needs to answer "is everything backed up?" as a pure function; [`metrics`] gives the same answer
//! to Prometheus; [`terminal`] tells a person or the journal what a run is doing.

pub mod closed;
pub mod facts;
pub mod history;
pub mod metrics;
pub mod status;
pub mod terminal;
