//! What verbs of ours tell whoever started them on their standard error, among other lines: one JSON a line.

use serde::Deserialize;

/// The last line that says such a thing.
pub fn last<T: for<'d> Deserialize<'d>>(stderr: &[u8]) -> Option<T> {
    stderr.rsplit(|byte| *byte == b'\n').find_map(|line| serde_json::from_slice(line).ok())
}

/// Whether this is among the lines.
pub fn has(stderr: &[u8], line: &str) -> bool {
    stderr.split(|byte| *byte == b'\n').any(|told| told == line.as_bytes())
}
