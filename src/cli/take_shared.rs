//! `take-shared`: not for people. It stands where a `btrfs send` would whose stream is shared; see
//! [`crate::tools::btrfs::shared`].

use std::io::{ErrorKind, Write};

use anyhow::Context;

use crate::host::end_by_broken_pipe;
use crate::tools::btrfs::shared::{TORN, next_piece};

use super::options::Verdict;
use super::{piped, render};

/// Runs the verb: until the stream has ended.
pub fn run() -> Verdict {
    let (mut from, mut to) = (std::io::stdin().lock(), piped::stdout()?);
    let mut buffer = Vec::new();
    loop {
        match next_piece(&mut from, &mut buffer) {
            Ok(Some(piece)) => {
                let passed = to.write_all(piece).inspect_err(|error| {
                    if error.kind() == ErrorKind::BrokenPipe {
                        // As the sender would in whose place it stands: that says that somebody else has failed.
                        end_by_broken_pipe();
                    }
                });
                passed.context("cannot pass the stream on")?;
            }
            Ok(None) => return Ok(Vec::new()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                render::say(TORN);
                anyhow::bail!("the stream ended before its end");
            }
            Err(error) => return Err(error).context("cannot read the stream"),
        }
    }
}
