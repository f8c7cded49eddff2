//! How a secret reaches a child without being on a command line, in an environment or in a file.

use crate::model::secret::Secret;

/// A secret on its way to a child: in a descriptor that only the child sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFd {
    /// The environment variable that tells the child where to read.
    pub variable: &'static str,
    /// How the variable names the descriptor.
    pub style: FdStyle,
    /// What is to be read there.
    pub value: Secret,
}

/// How an environment variable names a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdStyle {
    /// Its number (`BORG_PASSPHRASE_FD=3`).
    Number,
    /// A path (`RESTIC_PASSWORD_FILE=/proc/self/fd/3`); it may be opened any number of times.
    Path,
}
