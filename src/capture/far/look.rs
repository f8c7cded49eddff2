//! What is found of a subvolume of another machine, before a snapshot of it is made.

use std::path::{Path, PathBuf};

use super::line::{Asked, Line};
use crate::capture::{CaptureError, Context, mismatch};
use crate::host::Subvolume;
use crate::model::shown::Show;
use crate::model::target::Server;
use crate::tools::btrfs::{nested, shown};
use crate::tools::coreutils::{self, FileSystem, Stat};

/// A subvolume of another machine that can be held still.
#[derive(Debug, Clone)]
pub struct FarSubvolume {
    /// How that machine is reached, and the directory of our snapshots there.
    pub server: Server,
    /// Where it is seen there.
    pub at: PathBuf,
    /// Its UUID.
    pub uuid: String,
    /// The number of the file system and the subvolume that the directory of our snapshots is in.
    pub file_system: u64,
    /// The same of the directory above it.
    pub above: u64,
    /// Whether that directory is there already.
    pub is_made: bool,
    /// The subvolumes that lie in it, but for our own.
    pub nested: Vec<PathBuf>,
}

/// Examines what is at a path of another machine.
///
/// # Errors
/// When that cannot be reached, no subvolume of which a snapshot can be sent is there, or no place for the snapshot.
pub fn examine(cx: Context<'_>, server: &Server, at: &Path) -> Result<FarSubvolume, CaptureError> {
    let line = Line { cx, server };
    let directory = &*server.directory;
    let parent = directory.parent().unwrap_or(directory);
    let mut way: Vec<&Path> = directory.ancestors().collect();
    way.reverse();
    let asked = line.ask_all(vec![
        shown::show(&line.btrfs(), at),
        nested::list_nested(&line.btrfs(), at),
        coreutils::stat(&way),
        coreutils::file_system(parent),
        coreutils::file_system(directory),
        coreutils::file_system(at),
    ])?;
    let (found, shown) = subvolume(line, &asked, at)?;
    let is_made = require_trusted(line, &stats(line, &asked, &way)?, directory)?;
    let is_one = |printed: &[u8]| FileSystem::parse(printed).is_some();
    let number = |n| -> Result<Option<FileSystem>, CaptureError> {
        Ok(FileSystem::parse(&asked.of(n, is_one)?.unwrap_or_default()))
    };
    let hint = "name a directory on the btrfs that holds the subvolumes (snapshots)";
    let above = number(3)?;
    let own = if is_made { number(4)? } else { above };
    let file_system = own.and_then(FileSystem::id);
    let file_system = file_system
        .ok_or_else(|| unfit(format!("{} is on no btrfs", line.place(directory)), hint))?;
    if !number(5)?.is_some_and(|of_subvolume| of_subvolume.has_id(file_system)) {
        let what = format!("{} is on another btrfs than {}", line.place(directory), at.shown());
        return Err(unfit(what, hint));
    }
    // Half a list would hide what a copy lacks, so it is asked for alone where anything failed.
    let listed = asked.of(1, |_| false)?.unwrap_or_default();
    let mut nested = nested::nested(at, &shown, &listed);
    nested.retain(|path| !path.starts_with(directory));
    Ok(FarSubvolume {
        server: server.clone(),
        at: at.to_owned(),
        uuid: found.uuid.unwrap_or_default(),
        file_system,
        above: above.map_or(0, FileSystem::number),
        is_made,
        nested,
    })
}

fn unfit(what: String, hint: &str) -> CaptureError {
    CaptureError::Unfit { what, hint: hint.to_owned() }
}

/// The subvolume at a path, and what was told of it.
fn subvolume(
    line: Line<'_>,
    asked: &Asked<'_>,
    at: &Path,
) -> Result<(Subvolume, Vec<u8>), CaptureError> {
    let place = line.place(at);
    let printed = match asked.of(0, |printed| shown::shown(printed).is_some()) {
        Ok(printed) => printed,
        Err(CaptureError::Failed { stderr_tail, .. }) => {
            return Err(unfit(
                format!("{place} is no subvolume of a btrfs that can be read ({stderr_tail})"),
                "name one (btrfs subvolume list)",
            ));
        }
        Err(error) => return Err(error),
    };
    let printed =
        printed.ok_or_else(|| unfit(format!("nothing is at {place}"), "name a subvolume"))?;
    let found = shown::shown(&printed).ok_or_else(|| line.unread("btrfs", &printed))?;
    if found.received_uuid.is_some() {
        return Err(unfit(
            format!(
                "{place} was received from elsewhere and made writable, so all snapshots of it would claim to be one"
            ),
            "put a writable snapshot of it in its place (btrfs subvolume snapshot)",
        ));
    }
    match found.uuid {
        Some(_) => Ok((found, printed)),
        None => Err(mismatch(format!(
            "the subvolume {place} has no UUID: its file system was made before Linux 3.12"
        ))),
    }
}

/// What is at each of these paths; those at which nothing is are left out.
fn stats(
    line: Line<'_>,
    asked: &Asked<'_>,
    way: &[&Path],
) -> Result<Vec<(PathBuf, Stat)>, CaptureError> {
    let is_all = |printed: &[u8]| printed.split(|byte| *byte == 0).count() == way.len() + 1;
    let printed = match asked.printed(2, is_all) {
        Some(printed) => printed,
        // What is missing is left out, and the rest is there.
        None => line.ask_of_what_may_be_missing(coreutils::stat(way))?.0,
    };
    let entries = printed.strip_suffix(b"\0").map(|all| all.split(|byte| *byte == 0));
    let entries = entries.into_iter().flatten().map(|entry| {
        let found = Stat::parse(entry).filter(|(_, path)| way.contains(&&**path));
        found.map(|(found, path)| (path, found)).ok_or_else(|| line.unread("stat", entry))
    });
    entries.collect()
}

/// Requires that nobody but root can change what is in the directory of our snapshots, or put another one in its place.
/// Answers whether it is there.
fn require_trusted(
    line: Line<'_>,
    found: &[(PathBuf, Stat)],
    directory: &Path,
) -> Result<bool, CaptureError> {
    // Permission of others to write; and that what lies in a directory is its owner's alone to replace.
    const OPEN: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let at = |path: &Path| found.iter().find(|(found, _)| found == path).map(|(_, stat)| *stat);
    for path in directory.ancestors() {
        let (place, is_own) = (line.place(path), path == directory);
        let Some(stat) = at(path) else {
            if is_own {
                continue;
            }
            return Err(unfit(
                format!("there is no directory {place}"),
                "make it, or name another one (snapshots)",
            ));
        };
        if !stat.is_directory() {
            return Err(unfit(
                format!("{place} is no directory"),
                "name the directory of snapshots as `readlink -f` tells it there",
            ));
        }
        if stat.uid != 0 {
            return Err(unfit(
                format!("{place} belongs to user {} there, who could change it", stat.uid),
                "name a directory of root's for snapshots",
            ));
        }
        let passes = !is_own && stat.permissions() & STICKY != 0;
        if stat.permissions() & OPEN != 0 && !passes {
            return Err(unfit(
                format!("{place} may be changed by others there (mode {:04o})", stat.permissions()),
                "chmod go-w it, or name another directory for snapshots",
            ));
        }
        if is_own && stat.permissions() & 0o077 != 0 {
            return Err(unfit(
                format!(
                    "others may look into the snapshots in {} (mode {:04o})",
                    path.shown(),
                    stat.permissions()
                ),
                "chmod 0700 it there",
            ));
        }
    }
    Ok(at(directory).is_some())
}
