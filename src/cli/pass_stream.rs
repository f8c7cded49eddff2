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
use crate::tools::btrfs::shares::{BEGINS, Boundary, Splitting};
use crate::tools::btrfs::stage::{Expectation, Parent, Stage, Uuid};
use crate::tools::btrfs::stream::Decoder;
use crate::tools::object::Digesting;

use super::options::Verdict;
use super::{piped, render, shares};

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
    /// Pass the stream on in shares of so many bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(conflicts_with_all = ["part_size", "to_nobody"])]
    share_size: Option<u64>,
    /// Leave out the shares up to this mark
    #[arg(long, value_name = "MARK", value_parser = mark, requires = "share_size")]
    share_behind: Option<Mark>,
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

/// How it is passed on in shares.
fn splitting(args: &PassStreamArgs) -> Option<Splitting> {
    Some(Splitting { every: args.share_size?, behind: args.share_behind.clone() })
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
    let stage = Stage::new(expected).received_as(args.received_as);
    let mut stage = stage.cutting(cutting(args)).splitting(splitting(args));
    let mut passing = Passing::of(args)?;
    let (mut out, mut told) = (Vec::new(), Instant::now());
    piped::each_piece(|piece| {
        stage.push(piece, &mut out).inspect_err(|error| {
            if let Some(line) = told_of(error) {
                render::say(line);
            }
        })?;
        passing.pass(&mut out, stage.boundaries())?;
        for cut in stage.cuts() {
            piped::tell(&cut)?;
        }
        passing.rest();
        if told.elapsed() >= EVERY {
            told = Instant::now();
            piped::tell(&Told::of(stage.passed(), false))?;
        }
        Ok(())
    })?;
    let passed = stage.finish(&mut out)?;
    passing.pass(&mut out, Vec::new())?;
    passing.to.end()?;
    piped::tell(&Told::of(passed, true))?;
    if let Some(digesting) = passing.digesting {
        piped::tell(&digesting.finish())?;
    }
    Ok(Vec::new())
}

/// What becomes of what passes.
struct Passing {
    to: Reader,
    digesting: Option<Digesting>,
    pace: Option<Pace>,
    begun: Instant,
    /// How much was passed on since it rested last.
    passed: usize,
}

impl Passing {
    fn of(args: &PassStreamArgs) -> anyhow::Result<Passing> {
        Ok(Passing {
            to: Reader::of(args)?,
            digesting: args.digest.then(Digesting::default),
            pace: args.limit.map(Pace::new),
            begun: Instant::now(),
            passed: 0,
        })
    }

    /// Passes on what has come, in which these are the ends of shares.
    fn pass(&mut self, out: &mut Vec<u8>, boundaries: Vec<Boundary>) -> anyhow::Result<()> {
        if let Some(digesting) = &mut self.digesting {
            digesting.take(out);
        }
        let mut from = 0;
        for Boundary { at, mark } in boundaries {
            self.passed += self.to.take(&out[from..at])?;
            self.to.end_share(&mark)?;
            from = at;
        }
        self.passed += self.to.take(&out[from..])?;
        out.clear();
        Ok(())
    }

    /// Rests until no more has passed than may.
    fn rest(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        if let Some(pace) = &mut self.pace {
            std::thread::sleep(pace.wait_after(passed, self.begun.elapsed()));
        }
    }
}

/// Who gets what passes.
enum Reader {
    /// The next process.
    Next(File),
    /// Others in turn.
    InShares(InShares),
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

/// What others get in turn. There is nothing in the first share: whoever takes that knows at its end that the first byte of
/// the next one is there, and needs nobody who waits for it.
struct InShares {
    to: File,
    /// Up to where all is left out.
    behind: Option<Mark>,
    has_begun: bool,
}

impl InShares {
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        if self.behind.is_some() || bytes.is_empty() {
            return Ok(0);
        }
        if !self.has_begun {
            self.end_share(BEGINS)?;
        }
        shares::write_bytes(&mut self.to, bytes)?;
        Ok(bytes.len())
    }

    /// Ends a share behind which another one follows. What is left out ends with the first that the stage tells.
    fn end_share(&mut self, word: &str) -> anyhow::Result<()> {
        (self.behind, self.has_begun) = (None, true);
        shares::write_end(&mut self.to, Some(word))
    }
}

impl Reader {
    fn of(args: &PassStreamArgs) -> anyhow::Result<Reader> {
        if args.share_size.is_some() {
            let (to, behind) = (piped::stdout()?, args.share_behind.clone());
            return Ok(Reader::InShares(InShares { to, behind, has_begun: false }));
        }
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

    /// Takes some bytes, and answers how much of them is passed on.
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        match self {
            Reader::Next(to) => to.write_all(bytes).context("cannot pass the stream on")?,
            Reader::InShares(shares) => return shares.take(bytes),
            Reader::Nobody => {}
            Reader::OfEdits(telling) => telling.take(bytes)?,
        }
        Ok(bytes.len())
    }

    /// Ends a share behind which another one follows.
    fn end_share(&mut self, mark: &Mark) -> anyhow::Result<()> {
        match self {
            Reader::InShares(shares) => shares.end_share(&mark.word()),
            Reader::Next(_) | Reader::Nobody | Reader::OfEdits(_) => Ok(()),
        }
    }

    /// Ends the stream.
    fn end(&mut self) -> anyhow::Result<()> {
        match self {
            Reader::InShares(shares) => shares::write_end(&mut shares.to, None),
            Reader::Next(_) | Reader::Nobody | Reader::OfEdits(_) => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    #[test]
    fn the_first_share_ends_when_something_follows_and_nothing_is_in_it() {
        let mark = Mark { part: 3, offset: 9, digest: "0".repeat(64) };
        let next = Mark { part: 4, ..mark.clone() };
        for behind in [None, Some(mark.clone())] {
            let file = tempfile::tempfile().unwrap();
            let is_behind = behind.is_some();
            let mut to = InShares { to: file.try_clone().unwrap(), behind, has_begun: false };
            assert_eq!(to.take(b"").unwrap(), 0);
            if is_behind {
                assert_eq!(to.take(b"left out").unwrap(), 0);
                assert_eq!(file.metadata().unwrap().len(), 0, "nobody is told before it has come");
                to.end_share(&mark.word()).unwrap();
            }
            assert_eq!(to.take(b"first").unwrap(), 5);
            to.end_share(&next.word()).unwrap();
            assert_eq!(to.take(b"last").unwrap(), 4);
            let mut reader = Reader::InShares(to);
            reader.end().unwrap();
            let mut from = file;
            from.rewind().unwrap();
            let share = || {
                let mut taken = Vec::new();
                let word = shares::read_share(&from, |bytes| {
                    taken.extend_from_slice(bytes);
                    Ok(())
                });
                (taken, word.unwrap())
            };
            let begins = if is_behind { mark.word() } else { BEGINS.to_owned() };
            assert_eq!(share(), (Vec::new(), Some(begins)));
            assert_eq!(share(), (b"first".to_vec(), Some(next.word())));
            assert_eq!(share(), (b"last".to_vec(), None));
        }
    }
}
