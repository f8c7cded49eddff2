//! What every step of a run has: the context it works in, the record it writes, the error it fails with,
//! the hooks around it, what it protects, the captures it holds, and how it releases what it took.
//!
//! It lies below [`pipeline`](crate::pipeline), which puts the steps in order, because sources have steps of their own.

pub mod captures;
pub mod context;
pub mod error;
pub mod hook;
pub mod kept;
pub mod recorder;
pub mod release;
pub mod room;
pub mod source;
pub mod watch;
