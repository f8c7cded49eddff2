//! `list-changes`: not for people. It tells what a stream of `btrfs send` changes; see [`crate::tools::btrfs::changes`].

use std::io::Write;

use anyhow::Context;
use clap::Args;

use crate::tools::btrfs::changes::Changes;
use crate::tools::btrfs::stream::Decoder;

use super::options::Verdict;
use super::piped;

/// Arguments of `list-changes`: none.
#[derive(Debug, Args)]
pub struct ListChangesArgs {}

/// Runs the verb. What it tells is told when all was read: until then nobody knows where things end up.
pub fn run(_: &ListChangesArgs) -> Verdict {
    let (mut decoder, mut changes) = (Decoder::default(), Changes::default());
    piped::each_piece(|piece| Ok(decoder.push(piece, &mut |command| changes.take(command))?))?;
    decoder.finish()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for differing in changes.into_all() {
        piped::entry(&mut out, &differing)?;
    }
    out.flush().context("cannot write the list")?;
    Ok(Vec::new())
}
