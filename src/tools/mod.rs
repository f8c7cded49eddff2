//! One external program a file: argument lists and parsers, no policy and no I/O; and what several of them are told.

pub mod age;
pub mod borg;
pub mod btrfs;
pub mod coreutils;
pub mod dmsetup;
pub mod exclude;
pub mod far;
pub mod fuse;
pub mod listing;
pub mod lvm;
pub mod manifest;
pub mod object;
pub mod restic;
pub mod ssh;
pub mod systemctl;
pub mod tar;
pub mod told;
mod tree;
pub mod zstd;

pub use tree::Tree;
