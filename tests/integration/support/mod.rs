//! A machine that exists in memory only, with a borg, a btrfs and an LVM of its own, and faults on request.

pub mod fake_borg;
pub mod fake_btrfs;
mod fake_dmsetup;
pub mod fake_engine;
pub mod fake_guests;
mod fake_held;
pub mod fake_host;
pub mod fake_lvm;
pub mod fake_plain;
pub mod fake_pool;
pub mod fake_provider;
pub mod fake_pulled;
pub mod fake_server;
pub mod fake_source;
pub mod fake_store;
pub mod fake_tree;
pub mod fake_vault;
pub mod world;
