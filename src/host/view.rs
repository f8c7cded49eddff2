//! What a process sees instead of the mounts of the host.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// One mount in the private mount namespace of one process. No path in it has a link in it: where somebody put
/// one since it was found, nothing is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrivateMount {
    /// Something of the host's is shown at another place, or at its own again when a mount hides it there.
    /// What it shows is what is there before any mount of the view is made.
    Bind {
        /// What is shown.
        from: PathBuf,
        /// Where; must exist.
        at: PathBuf,
        /// Whether it is read-only there.
        read_only: bool,
    },
    /// What is mounted at a place of the host's is shown there again when a mount of the view hides it, for
    /// nothing that anybody reads: not when nothing is mounted there any more, nor where what hides it has no
    /// such place.
    Mounted {
        /// The mount point.
        at: PathBuf,
    },
    /// Something of the host's is shown at another place, and no symbolic link in it is followed there: for whoever writes
    /// what somebody else says, as `btrfs receive` does. What is mounted below it is not shown.
    Unlinked {
        /// What is shown.
        from: PathBuf,
        /// Where; must exist.
        at: PathBuf,
    },
    /// The file system on a device, with `nosuid` and `nodev`.
    Device {
        /// The block device.
        device: PathBuf,
        /// Where; must exist.
        at: PathBuf,
        /// As mount(8) calls it: `ext4`, `xfs`, `btrfs`.
        file_system: String,
        /// Options of the file system itself (`nouuid`, `subvolid=…`), separated by commas.
        options: String,
        /// The directory of the file system that is shown; the whole of it when absent.
        directory: Option<PathBuf>,
        /// What may be done there.
        access: Access,
    },
}

impl PrivateMount {
    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        match self {
            PrivateMount::Bind { at, .. }
            | PrivateMount::Mounted { at }
            | PrivateMount::Unlinked { at, .. }
            | PrivateMount::Device { at, .. } => at,
        }
    }
}

/// What a process may do with a file system that is mounted for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it; no program is started from it.
    Read,
    /// Read it, and start programs from it: the engine itself may lie there.
    ReadAndExecute,
}

/// What one process and its children see instead of the host's mounts, and who may stop them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivateView {
    /// Mounts, parents before what lies below them. One at `/` makes the process see a root of its own.
    pub mounts: Vec<PrivateMount>,
    /// A directory of the host's with two empty ones in it, [`ROOT`](super::sys::private::ROOT) and
    /// [`PART`](super::sys::private::PART), in which the view is put together. May be left out when nothing
    /// is mounted over what is a mount already, nor at `/`, nor a part of a device.
    pub workplace: PathBuf,
    /// Stops the process when it is raised.
    pub halt: Halt,
}

/// A stop sign for the processes of one view, for whoever watches what they read.
#[derive(Debug, Clone, Default)]
pub struct Halt(Arc<OnceLock<String>>);

impl Halt {
    /// Stops them; the first reason stays.
    pub fn raise(&self, reason: impl Into<String>) {
        let _ = self.0.set(reason.into());
    }

    /// Why they are to stop, if they are.
    pub fn reason(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

impl PartialEq for Halt {
    /// Two signs are the same when they show the same.
    fn eq(&self, other: &Self) -> bool {
        self.reason() == other.reason()
    }
}

impl Eq for Halt {}
