//! Stillpoint makes Linux machines restorable.

pub mod cli;
pub mod config;
pub mod engine;
pub mod host;
pub mod lock;
pub mod machine;
pub mod model;
pub mod pipeline;
pub mod report;
pub mod retention;
pub mod tools;
