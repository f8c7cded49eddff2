//! What the verbs that are not for people have in common: another process is at the other end.

use std::io::{ErrorKind, Read, Write};

use anyhow::Context;
use serde::Serialize;

/// How much is read at once, in bytes.
const PIECE: usize = 256 * 1024;

/// Reads standard input to its end, piece by piece.
///
/// # Errors
/// When it cannot be read, or `take` fails.
pub fn each_piece(mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut from = std::io::stdin().lock();
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&piece[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read the stream"),
        }
    }
}

/// Writes one entry of a list as a line of JSON.
///
/// # Errors
/// When it cannot be written.
pub fn entry(out: &mut impl Write, entry: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, entry)?;
    out.write_all(b"\n").context("cannot write the list")
}
