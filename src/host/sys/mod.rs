//! What the kernel must be asked directly: mounts, processes, signals, and who may change a file.
//!
//! Parsers of `/proc` are pure functions with tests on recorded text; around each is one thin reader. Code
//! outside `host` gets here only through [`trusted`] and [`signals`], which the command line needs before
//! there is a [`super::Host`], and to ask whether we are root ([`process::is_root`]).

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::model::undo::Identity;

mod attach;
mod attributes;
pub mod cgroup;
pub mod confine;
pub mod mounts;
pub(in crate::host) mod namespace;
pub mod place;
pub mod private;
pub mod process;
pub(in crate::host) mod received;
pub mod room;
pub mod signals;
pub mod snapshots;
pub(in crate::host) mod straight;
pub mod subvolumes;
pub mod trusted;
pub mod way;
pub mod zone;

/// The identity of what was looked at.
pub(in crate::host) fn identity_of(found: &Metadata) -> Identity {
    Identity::Inode { device: found.dev(), inode: found.ino() }
}

/// Whether a test may do what only root may, such as `what`. In CI it must be able to.
#[cfg(test)]
pub(in crate::host) fn may_as_root(what: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("SKIPPED: {what} needs root");
    }
    is_root
}
