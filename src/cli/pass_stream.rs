//! `pass-stream`: not for people. It stands between `btrfs send` and `btrfs receive`; see [`crate::tools::btrfs::stage`].

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use crate::tools::btrfs::command::{Told, parse_uuid};
use crate::tools::btrfs::stage::{Expectation, Parent, Stage, Uuid};

use super::options::Verdict;
use super::{piped, render};

/// How often it is told how far it is.
const EVERY: Duration = Duration::from_secs(1);

/// Arguments of `pass-stream`.
#[derive(Debug, Args)]
pub struct PassStreamArgs {
    /// The UUID that the stream must claim
    #[arg(long, value_name = "UUID", value_parser = uuid)]
    uuid: Uuid,
    /// The name that the receiver gives the subvolume
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The UUID that the stream must be based on
    #[arg(long, value_name = "UUID", value_parser = uuid, requires = "known_as")]
    based_on: Option<Uuid>,
    /// The UUID by which the receiver finds it
    #[arg(long, value_name = "UUID", value_parser = uuid, requires = "based_on")]
    known_as: Option<Uuid>,
    /// Pass nothing on
    #[arg(long)]
    to_nobody: bool,
}

fn uuid(text: &str) -> Result<Uuid, String> {
    parse_uuid(text).ok_or_else(|| "expected a UUID".into())
}

/// Runs the verb: until standard input ends. Whoever starts it lets that end only when the sender has ended well.
pub fn run(args: &PassStreamArgs) -> Verdict {
    let parent = args.based_on.zip(args.known_as);
    let expected = Expectation {
        name: args.name.clone(),
        uuid: args.uuid,
        parent: parent.map(|(sent, received)| Parent { sent, received }),
    };
    let mut stage = Stage::new(expected);
    let (mut to, mut out) = (std::io::stdout().lock(), Vec::new());
    let mut told = Instant::now();
    piped::each_piece(|piece| {
        stage.push(piece, &mut out)?;
        pass(&mut to, &mut out, args.to_nobody)?;
        if told.elapsed() >= EVERY {
            told = Instant::now();
            tell(Told::of(stage.passed(), false))?;
        }
        Ok(())
    })?;
    let passed = stage.finish(&mut out)?;
    pass(&mut to, &mut out, args.to_nobody)?;
    tell(Told::of(passed, true))?;
    Ok(Vec::new())
}

fn pass(to: &mut impl Write, out: &mut Vec<u8>, to_nobody: bool) -> anyhow::Result<()> {
    if !to_nobody {
        to.write_all(out).and_then(|()| to.flush()).context("cannot pass the stream on")?;
    }
    out.clear();
    Ok(())
}

fn tell(told: Told) -> anyhow::Result<()> {
    render::say(&serde_json::to_string(&told)?);
    Ok(())
}
