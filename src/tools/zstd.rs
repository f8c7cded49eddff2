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

/// Whether zstd said that what it read is no such stream, or not all of one. Whatever else keeps it from its work says
/// nothing of that.
pub fn blames_what_it_reads(said: &str) -> bool {
    // As zstd 1.4 to 1.5 say it, behind the name of what is read, which is standard input.
    const WORDS: [&str; 5] = [
        ": Decoding error (36) :",
        ": premature end",
        ": unknown header",
        ": unexpected end of file",
        ": unsupported format",
    ];
    // It wants memory for a window in the midst of reading.
    const OF_MEMORY: [&str; 2] = ["Allocation error", "too much memory"];
    said.lines().any(|line| {
        WORDS.iter().any(|words| line.contains(words))
            && !OF_MEMORY.iter().any(|words| line.contains(words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_stream_is_told_from_what_keeps_it_from_reading() {
        for said in [
            "/*stdin*\\ : Decoding error (36) : Restored data doesn't match checksum ",
            "/*stdin*\\ : Read error (39) : premature end ",
            "zstd: /*stdin*\\: unknown header ",
            "zstd: /*stdin*\\: unsupported format ",
        ] {
            assert!(blames_what_it_reads(said), "{said}");
        }
        for said in [
            "",
            "zstd: error 11 : Allocation error : not enough memory",
            "/*stdin*\\ : Decoding error (36) : Allocation error : not enough memory ",
            "/*stdin*\\ : Decoding error (36) : Frame requires too much memory for decoding ",
            "Killed",
        ] {
            assert!(!blames_what_it_reads(said), "{said}");
        }
    }

    #[test]
    fn command_lines() {
        let limit = Duration::from_secs(60);
        assert_eq!(compress(3, limit).display(), "zstd --quiet --check --stdout -3");
        assert_eq!(decompress(limit).display(), "zstd --quiet --decompress --stdout");
    }
}
