//! One external program a file: argument lists and parsers, no policy and no I/O; and what several of them are told.

pub mod borg;
pub mod btrfs;
pub mod dmsetup;
pub mod exclude;
pub mod fuse;
pub mod listing;
pub mod lvm;
pub mod restic;
pub mod systemctl;
pub mod tar;
mod tree;

pub use tree::Tree;
