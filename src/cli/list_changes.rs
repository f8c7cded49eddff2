//! `list-changes`: not for people. It tells what a stream of `btrfs send` changes; see [`crate::tools::btrfs::changes`].

use std::io::{Read, Write};

use anyhow::Context;
use clap::Args;

use crate::tools::btrfs::changes::Changes;
use crate::tools::btrfs::stream::Decoder;

use super::options::Verdict;

/// How much is read at once, in bytes.
const PIECE: usize = 256 * 1024;

/// Arguments of `list-changes`: none.
#[derive(Debug, Args)]
pub struct ListChangesArgs {}

/// Runs the verb. What it tells is told when all was read: until then nobody knows where things end up.
pub fn run(_: &ListChangesArgs) -> Verdict {
    let mut from = std::io::stdin().lock();
    let (mut decoder, mut changes) = (Decoder::default(), Changes::default());
    let mut piece = vec![0; PIECE];
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read the stream"),
        };
        decoder.push(&piece[..count], &mut |command| changes.take(command))?;
    }
    decoder.finish()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for differing in changes.into_all() {
        serde_json::to_writer(&mut out, &differing)?;
        out.write_all(b"\n").context("cannot write the list")?;
    }
    out.flush().context("cannot write the list")?;
    Ok(Vec::new())
}
