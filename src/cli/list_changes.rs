//! `list-changes`: not for people. It tells what a stream of `btrfs send` changes, or how long it would be with data; see
//! [`crate::tools::btrfs::changes`] and [`crate::tools::btrfs::estimate`].

use std::io::Write;

use anyhow::Context;
use clap::Args;

use crate::tools::btrfs::changes::Changes;
use crate::tools::btrfs::estimate::Lengths;
use crate::tools::btrfs::stream::Decoder;

use super::options::Verdict;
use super::piped;

/// Arguments of `list-changes`.
#[derive(Debug, Args)]
pub struct ListChangesArgs {
    /// Tell only how long the stream would be with data
    #[arg(long)]
    lengths: bool,
}

/// Runs the verb. What it tells is told when all was read: until then nobody knows where things end up.
pub fn run(args: &ListChangesArgs) -> Verdict {
    if args.lengths {
        return lengths();
    }
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

fn lengths() -> Verdict {
    let (mut decoder, mut lengths) = (Decoder::default(), Lengths::default());
    piped::each_piece(|piece| Ok(decoder.push(piece, &mut |command| lengths.take(command))?))?;
    decoder.finish()?;
    piped::entry(&mut std::io::stdout().lock(), &lengths)?;
    Ok(Vec::new())
}
