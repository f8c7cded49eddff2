//! `pass-stream`: not for people. It stands between `btrfs send` and `btrfs receive`; see [`crate::tools::btrfs::stage`].

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use crate::tools::btrfs::command::{Told, parse_uuid};
use crate::tools::btrfs::edits::Edits;
use crate::tools::btrfs::pace::Pace;
use crate::tools::btrfs::parts::{Behind, Cutting, Mark, told_of};
use crate::tools::btrfs::stage::{Expectation, Parent, Stage, Uuid};
use crate::tools::btrfs::stream::Decoder;
use crate::tools::object::Digesting;

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
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    name: String,
    /// The UUID that the stream must be based on
    #[arg(long, value_name = "UUID", value_parser = uuid, requires = "known_as")]
    based_on: Option<Uuid>,
    /// The UUID by which the receiver finds it
    #[arg(long, value_name = "UUID", value_parser = uuid, requires = "based_on")]
    known_as: Option<Uuid>,
    /// The UUID by which the receiver finds it where data is shared with it, if not by that
    #[arg(long, value_name = "UUID", value_parser = uuid, requires = "based_on")]
    shared_as: Option<Uuid>,
    /// The generation that this must have where the stream comes from
    #[arg(long, value_name = "N", requires = "based_on")]
    based_on_generation: Option<u64>,
    /// The UUID as which it is received, if not as that
    #[arg(long, value_name = "UUID", value_parser = uuid, conflicts_with = "part_size")]
    received_as: Option<Uuid>,
    /// Pass nothing on
    #[arg(long)]
    to_nobody: bool,
    /// Tell what the stream does to names, on standard output
    #[arg(long, requires = "to_nobody")]
    edits: bool,
    /// Pass no more than so much, KiB per second
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Tell the hash of what passed
    #[arg(long)]
    digest: bool,
    /// So many bytes make a part
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    part_size: Option<u64>,
    /// Take the stream apart, and make the UUIDs of the parts of this one
    #[arg(long, value_name = "UUID", value_parser = uuid, requires = "part_size")]
    part_seed: Option<Uuid>,
    /// Go on behind this part
    #[arg(long, value_name = "MARK", value_parser = mark, requires = "part_size")]
    behind: Option<Mark>,
    /// The UUID by which the receiver finds that
    #[arg(long, value_name = "UUID", value_parser = uuid, requires = "behind")]
    behind_known_as: Option<Uuid>,
    /// The stream comes from its beginning: leave out what is in that part
    #[arg(long, requires = "behind")]
    leave_out: bool,
}

fn uuid(text: &str) -> Result<Uuid, String> {
    parse_uuid(text).ok_or_else(|| "expected a UUID".into())
}

fn mark(text: &str) -> Result<Mark, String> {
    Mark::parse(text).ok_or_else(|| "expected the end of a part".into())
}

/// How the stream is taken apart.
fn cutting(args: &PassStreamArgs) -> Option<Cutting> {
    let behind = args.behind.clone().map(|mark| Behind {
        mark,
        received: args.behind_known_as,
        leave_out: args.leave_out,
    });
    Some(Cutting { every: args.part_size?, seed: args.part_seed, behind })
}

/// Runs the verb: until standard input ends. Whoever starts it lets that end only when the sender has ended well.
pub fn run(args: &PassStreamArgs) -> Verdict {
    let parent = args.based_on.zip(args.known_as);
    let expected = Expectation {
        name: args.name.clone(),
        uuid: args.uuid,
        parent: parent.map(|(sent, received)| Parent {
            sent,
            received,
            shared: args.shared_as.unwrap_or(received),
            generation: args.based_on_generation,
        }),
    };
    let mut stage = Stage::new(expected).received_as(args.received_as).cutting(cutting(args));
    let (mut to, mut out) = (Reader::of(args)?, Vec::new());
    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut pace = args.limit.map(Pace::new);
    let mut digesting = args.digest.then(Digesting::default);
    piped::each_piece(|piece| {
        stage.push(piece, &mut out).inspect_err(|error| {
            if let Some(line) = told_of(error) {
                render::say(line);
            }
        })?;
        let passing = out.len();
        pass(&mut to, &mut out, &mut digesting)?;
        for cut in stage.cuts() {
            piped::tell(&cut)?;
        }
        if let Some(pace) = &mut pace {
            std::thread::sleep(pace.wait_after(passing, begun.elapsed()));
        }
        if told.elapsed() >= EVERY {
            told = Instant::now();
            piped::tell(&Told::of(stage.passed(), false))?;
        }
        Ok(())
    })?;
    let passed = stage.finish(&mut out)?;
    pass(&mut to, &mut out, &mut digesting)?;
    piped::tell(&Told::of(passed, true))?;
    if let Some(digesting) = digesting {
        piped::tell(&digesting.finish())?;
    }
    Ok(Vec::new())
}

/// Who gets what passes.
enum Reader {
    /// The next process.
    Next(File),
    /// Nobody.
    Nobody,
    /// Nobody, but somebody is told what it is.
    OfEdits(Box<Telling>),
}

/// Tells what a stream does to names.
struct Telling {
    decoder: Decoder,
    edits: Edits,
    to: BufWriter<File>,
}

impl Reader {
    fn of(args: &PassStreamArgs) -> anyhow::Result<Reader> {
        Ok(match (args.to_nobody, args.edits) {
            (false, _) => Reader::Next(piped::stdout()?),
            (true, false) => Reader::Nobody,
            (true, true) => {
                let to = BufWriter::new(piped::stdout()?);
                let (decoder, edits) = (Decoder::default(), Edits::default());
                Reader::OfEdits(Box::new(Telling { decoder, edits, to }))
            }
        })
    }

    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Reader::Next(to) => to.write_all(bytes).context("cannot pass the stream on"),
            Reader::Nobody => Ok(()),
            Reader::OfEdits(telling) => telling.take(bytes),
        }
    }
}

impl Telling {
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Telling { decoder, edits, to } = self;
        let mut told = Ok(());
        decoder.push(bytes, &mut |command| {
            edits.take(command, &mut |edited| {
                if told.is_ok() {
                    told = piped::entry(to, edited);
                }
            })
        })?;
        told?;
        to.flush().context("cannot write the list")
    }
}

fn pass(
    to: &mut Reader,
    out: &mut Vec<u8>,
    digesting: &mut Option<Digesting>,
) -> anyhow::Result<()> {
    if let Some(digesting) = digesting {
        digesting.take(out);
    }
    to.take(out)?;
    out.clear();
    Ok(())
}
