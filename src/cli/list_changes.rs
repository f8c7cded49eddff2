//! `list-changes`: not for people. It tells what a stream of `btrfs send` changes, or how long it would be with data; see
//! [`crate::tools::btrfs::changes`] and [`crate::tools::btrfs::estimate`].

use clap::Args;

use crate::tools::btrfs::changes::Changes;
use crate::tools::btrfs::estimate::Lengths;
use crate::tools::btrfs::stream::{Command, Decoder, StreamError};

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
    let mut changes = Changes::default();
    each_command(|command| changes.take(command))?;
    let mut all = changes.into_all().into_iter();
    piped::list(|out| all.try_for_each(|differing| piped::entry(out, &differing)))
}

fn lengths() -> Verdict {
    let mut lengths = Lengths::default();
    each_command(|command| lengths.take(command))?;
    piped::list(|out| piped::entry(out, &lengths))
}

/// Reads a stream from standard input to its end, command by command.
fn each_command(
    mut take: impl FnMut(Command<'_>) -> Result<(), StreamError>,
) -> anyhow::Result<()> {
    let mut decoder = Decoder::default();
    piped::each_piece(|piece| Ok(decoder.push(piece, &mut take)?))?;
    Ok(decoder.finish()?)
}
