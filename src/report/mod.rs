//! Observers of what happens, and answers from what happened.
//!
//! [`facts`] reads from history what [`status`] needs to answer "is everything backed up?" as a pure function; [`metrics`] gives the same answer
//! to Prometheus; [`terminal`] tells a person or the journal what a run is doing.

pub mod closed;
pub mod facts;
pub mod metrics;
pub mod status;
pub mod terminal;
