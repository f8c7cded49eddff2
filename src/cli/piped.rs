//! What the verbs that are not for people have in common: another process is at the other end.

use std::fs::File;
use std::io::{BufRead, BufWriter, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::options::Verdict;
use super::render;

/// How much is read at once, in bytes.
pub const PIECE: usize = 256 * 1024;

/// Reads standard input to its end, piece by piece.
///
/// # Errors
/// When it cannot be read, or `take` fails.
pub fn each_piece(take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    each_piece_of(std::io::stdin().lock(), take)
}

/// Standard input as it is, for who waits for more than that: and nothing is read ahead of which somebody else is to have
/// the rest.
///
/// # Errors
/// When there is no file descriptor left.
pub fn stdin() -> anyhow::Result<File> {
    let fd = std::io::stdin().as_fd().try_clone_to_owned();
    Ok(File::from(fd.context("cannot open standard input again")?))
}

/// Standard output as it is: the one of the standard library looks for ends of lines in what is written, and writes what
/// follows the last one by itself.
///
/// # Errors
/// When there is no file descriptor left.
pub fn stdout() -> anyhow::Result<File> {
    let fd = std::io::stdout().as_fd().try_clone_to_owned();
    Ok(File::from(fd.context("cannot open standard output again")?))
}

/// Reads anything to its end, piece by piece.
///
/// # Errors
/// See [`each_piece`].
pub fn each_piece_of(
    mut from: impl Read,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
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

/// The longest line of a list, in bytes: some paths, of which each byte may take several.
const LONGEST_LINE: u64 = 1 << 20;

/// Reads one entry of a list; `None` at its end. Whoever wrote it may be anybody.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read_entry<T: for<'d> Deserialize<'d>>(
    from: &mut impl BufRead,
) -> anyhow::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut line).context("cannot read the list")?;
    if line.is_empty() {
        return Ok(None);
    }
    let line = line.strip_suffix(b"\n").context("the list is torn")?;
    serde_json::from_slice(line).context("the list is torn").map(Some)
}

/// Writes a list to standard output. Where it comes to no end, what was written of it is passed on all the same.
///
/// # Errors
/// When it cannot be written, or `write` fails.
pub fn list(write: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>) -> Verdict {
    // It passes on what it holds when it is dropped.
    let mut out = BufWriter::new(stdout()?);
    write(&mut out)?;
    out.flush().context("cannot write the list")?;
    Ok(Vec::new())
}

/// Writes one entry of a list as a line of JSON.
///
/// # Errors
/// When it cannot be written.
pub fn entry(out: &mut impl Write, entry: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, entry)?;
    out.write_all(b"\n").context("cannot write the list")
}

/// Tells something on standard error, as a line of JSON.
///
/// # Errors
/// When it cannot be JSON.
pub fn tell(what: &impl Serialize) -> anyhow::Result<()> {
    render::say(&serde_json::to_string(what)?);
    Ok(())
}
