//! What the kernel must be asked directly: mounts, processes, signals, and who may change a file.
//!
//! Parsers of `/proc` are pure functions with tests on recorded text; around each is one thin reader. Code
//! outside `host` gets here only through [`trusted`] and [`signals`], which the command line needs before
//! there is a [`super::Host`], and to ask whether we are root ([`process::is_root`]).

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use crate::model::undo::Identity;

mod attach;
pub mod attributes;
pub mod cgroup;
pub mod confine;
pub(in crate::host) mod inherited;
pub mod mounts;
pub(in crate::host) mod namespace;
pub mod place;
pub mod private;
pub mod process;
pub(in crate::host) mod received;
pub mod room;
pub(in crate::host) mod shown;
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

/// The identity of a directory that was made.
pub(in crate::host) fn identity_of_made(found: &Metadata) -> Identity {
    Identity::Directory { device: found.dev(), inode: found.ino(), born: born(found) }
}

/// Whether what was found is what an identity proves.
pub(in crate::host) fn is_identical(identity: &Identity, found: &Metadata) -> bool {
    match identity {
        Identity::Inode { device, inode } => (*device, *inode) == (found.dev(), found.ino()),
        Identity::Directory { device, inode, born: recorded } => {
            let is_of_then = match (recorded, born(found)) {
                (Some(recorded), Some(found)) => *recorded == found,
                (Some(_) | None, Some(_) | None) => *device == found.dev(),
            };
            *inode == found.ino() && is_of_then
        }
        Identity::Subvolume { .. } | Identity::LogicalVolume { .. } | Identity::Mount { .. } => {
            false
        }
    }
}

/// When it was made, where the file system knows that.
fn born(found: &Metadata) -> Option<u64> {
    let since = found.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
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
