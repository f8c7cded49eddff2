//! `list-tree`: not for people. It says what lies in a copy that is a tree of its own; see [`crate::tools::listing`].

use std::fs::Metadata;
use std::io::{BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::DateTime;
use clap::Args;

use crate::tools::listing::{Listed, parse_found};

use super::options::Verdict;
use super::piped;
use super::tree_walk::{cannot_read, kind_of, look, names_in};

/// Arguments of `list-tree`.
#[derive(Debug, Args)]
pub struct ListTreeArgs {
    /// The root of the tree
    #[arg(value_name = "DIR", required_unless_present = "of_find")]
    root: Option<PathBuf>,

    /// List what `find` on another machine has found, as it comes from standard input
    #[arg(long, conflicts_with = "root")]
    of_find: bool,
}

/// Runs the verb. Links are not followed, and what is another file system or subvolume is not entered.
pub fn run(args: &ListTreeArgs) -> Verdict {
    match &args.root {
        Some(root) => piped::list(|out| list(root, out)),
        None => piped::list(|out| read_found(std::io::stdin().lock(), out)),
    }
}

/// Lists what find has found.
fn read_found(mut input: impl BufRead, out: &mut impl Write) -> anyhow::Result<()> {
    let mut entry = Vec::new();
    while input.read_until(0, &mut entry).context("cannot read what find says")? > 0 {
        let found = entry.strip_suffix(b"\0").and_then(parse_found);
        let found = found.with_context(|| {
            format!("find did not say this: {:?}", String::from_utf8_lossy(&entry))
        })?;
        piped::entry(out, &found)?;
        entry.clear();
    }
    Ok(())
}

fn list(root: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let found = look(root)?;
    tell(out, PathBuf::new(), &found)?;
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let at = root.join(&directory);
        for name in names_in(&at)? {
            let path = directory.join(name);
            let entry =
                std::fs::symlink_metadata(root.join(&path)).with_context(|| cannot_read(&at))?;
            tell(out, path.clone(), &entry)?;
            if entry.is_dir() && entry.dev() == found.dev() {
                open.push(path);
            }
        }
    }
    Ok(())
}

fn tell(out: &mut impl Write, path: PathBuf, found: &Metadata) -> anyhow::Result<()> {
    let kind = kind_of(found);
    let listed = Listed {
        path,
        kind,
        size: (kind == '-').then(|| found.size()),
        modified: DateTime::from_timestamp(found.mtime(), u32::try_from(found.mtime_nsec())?),
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        shared: (kind == '-' && found.nlink() > 1).then(|| found.ino()),
    };
    piped::entry(out, &listed)
}
