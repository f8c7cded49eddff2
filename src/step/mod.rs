//! What every step of a run has: the context it works in, the record it writes, the error it fails with.
//!
//! It lies below [`pipeline`](crate::pipeline), which puts the steps in order, because sources have steps of their own.

pub mod context;
pub mod error;
pub mod recorder;
