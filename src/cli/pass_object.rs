//! `pass-object`: not for people. It reads, passes on or stores an object, and tells what it was; see
//! [`crate::tools::object`].

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use nix::fcntl::OFlag;

use crate::model::shown::Show;
use crate::tools::object::{Digesting, ShareEnd};

use super::options::Verdict;
use super::{piped, shares};

/// Arguments of `pass-object`.
#[derive(Debug, Args)]
pub struct PassObjectArgs {
    /// A file to read instead of standard input
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    from: Option<PathBuf>,
    /// Take one share of what standard input holds, and tell how it ended
    #[arg(long, conflicts_with = "from")]
    share: bool,
    /// Do not tell what it was
    #[arg(long)]
    untold: bool,
    /// A new file to write instead of standard output
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    to: Option<PathBuf>,
    /// Pass nothing on
    #[arg(long, conflicts_with = "to")]
    to_nobody: bool,
}

/// Runs the verb: until what it reads ends. Whoever starts it lets that end only when all before it have ended well.
pub fn run(args: &PassObjectArgs) -> Verdict {
    let mut digesting = (!args.untold).then(Digesting::default);
    let mut stored = args.to.as_deref().map(create).transpose()?;
    let mut to = piped::stdout()?;
    let take = |piece: &[u8]| -> anyhow::Result<()> {
        if let Some(digesting) = &mut digesting {
            digesting.take(piece);
        }
        match (&mut stored, args.to_nobody) {
            (Some(file), _) => file.write_all(piece).context("cannot write the object"),
            (None, false) => to.write_all(piece).context("cannot pass the object on"),
            (None, true) => Ok(()),
        }
    };
    match &args.from {
        Some(path) => piped::each_piece_of(open(path)?, take)?,
        None if args.share => {
            let share_ends = shares::read_share(piped::stdin()?, take)?;
            piped::tell(&ShareEnd { share_ends })?;
        }
        None => piped::each_piece(take)?,
    }
    if let (Some(file), Some(path)) = (&stored, &args.to) {
        file.sync_all().context("cannot write the object to its disk")?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let flushed = File::open(directory).and_then(|directory| directory.sync_all());
        flushed.context("cannot write the object's directory to its disk")?;
    }
    if let Some(digesting) = digesting {
        piped::tell(&digesting.finish())?;
    }
    Ok(Vec::new())
}

/// Makes a file for an object, where there is none.
fn create(path: &Path) -> anyhow::Result<File> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path);
    made.with_context(|| format!("cannot make {}", path.shown()))
}

/// Opens an object. To read a pipe would be to wait for ever.
fn open(path: &Path) -> anyhow::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = opened.with_context(|| format!("cannot read {}", path.shown()))?;
    if !file.metadata()?.is_file() {
        bail!("{} is no file", path.shown());
    }
    Ok(file)
}
