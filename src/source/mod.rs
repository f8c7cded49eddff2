//! What a job protects: each kind of source is a room with its behaviour.

pub mod files;
