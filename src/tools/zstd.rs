//! zstd, which makes a stream smaller on its way to where it is stored.

use std::time::Duration;

use crate::host::{CommandSpec, Tool};

/// zstd.
pub const PROGRAM: Tool =
    Tool::Known { name: "zstd", hint: "install it (Debian: apt install zstd)" };

/// Compresses standard input to standard output, with a checksum.
pub fn compress(level: u8, stall_limit: Duration) -> CommandSpec {
    CommandSpec::lines(PROGRAM, stall_limit)
        .args(["--quiet", "--check", "--stdout"])
        .arg(format!("-{level}"))
}

/// Undoes that.
pub fn decompress(stall_limit: Duration) -> CommandSpec {
    CommandSpec::lines(PROGRAM, stall_limit).args(["--quiet", "--decompress", "--stdout"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let limit = Duration::from_secs(60);
        assert_eq!(compress(3, limit).display(), "zstd --quiet --check --stdout -3");
        assert_eq!(decompress(limit).display(), "zstd --quiet --decompress --stdout");
    }
}
