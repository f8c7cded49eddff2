//! Read-only btrfs snapshots on another machine, made by btrfs-progs there and found again by their UUID: in a directory of
//! ours that only root can change, so that what was looked at there is what a path leads to.
//!
//! A subvolume there is known by its UUID, and what a snapshot is of is looked at when it is made: its path may lead to
//! another one by then. What a file system is tells its id, so that one that is not mounted there is not taken for one
//! without the snapshot.

use std::path::{Path, PathBuf};

use crate::host::{Fact, Subvolume};
use crate::model::hash::fnv;
use crate::model::names::{HostName, JobName, RunId};
use crate::model::shown::Show;
use crate::model::target::Server;
use crate::model::undo::{CaptureUndo, FarSnapshot, Identity};
use crate::tools::btrfs::shown;
use crate::tools::coreutils::{self, FileSystem};

use super::btrfs::is_identical;
use super::releasable::Releasable;
use super::survey::SNAPSHOT_PREFIX;
use super::{Capture, CaptureError, Context, Made, Provider, Still, mismatch};

mod line;
mod look;

use line::{Line, Removed};
pub use look::{FarSubvolume, examine};

/// Snapshots of one subvolume, for a job.
struct Far {
    subvolume: FarSubvolume,
    host: HostName,
    job: JobName,
}

/// What holds a subvolume of another machine, which has this name, still for a job.
pub fn of_subvolume(subvolume: &FarSubvolume, host: &HostName, job: &JobName) -> Box<dyn Provider> {
    Box::new(Far { subvolume: subvolume.clone(), host: host.clone(), job: job.clone() })
}

impl Provider for Far {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    /// Snapshots of btrfs do not disturb each other.
    fn lock_key(&self) -> Option<String> {
        None
    }

    fn intend(
        &self,
        _: Context<'_>,
        run: &RunId,
        earlier: &[CaptureUndo],
    ) -> Result<Box<dyn Capture>, CaptureError> {
        let FarSubvolume { server, at, uuid, file_system, above, is_made, .. } =
            self.subvolume.clone();
        let host = self.host.clone();
        // A run comes to each job once, and what it makes for one is all intended together.
        let name = format!("{SNAPSHOT_PREFIX}{run}.{}.{}", self.job, earlier.len());
        let snapshot = FarSnapshot { host, server, file_system, above, name, origin: uuid };
        Ok(Box::new(Intended { at, snapshot, is_made }))
    }
}

/// A snapshot, from the intent on.
struct Intended {
    /// Where its origin was found.
    at: PathBuf,
    snapshot: FarSnapshot,
    /// Whether its directory is there.
    is_made: bool,
}

impl Capture for Intended {
    fn undo(&self) -> CaptureUndo {
        self.snapshot.clone().into()
    }

    fn make(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        let line = Line { cx, server: &self.snapshot.server };
        let path = self.snapshot.path();
        let make = || {
            if !self.is_made {
                let directory = coreutils::make_directory(&self.snapshot.server.directory);
                line.change(directory, Vec::new())?;
            }
            line.change(coreutils::make_new_directory(&self.snapshot.place()), Vec::new())?;
            let facts = vec![Fact { about: prediction(&self.snapshot), value: b"made".to_vec() }];
            line.change(shown::snapshot(&line.btrfs(), &self.at, &path), facts)
        };
        match make() {
            Ok(_) => Ok(()),
            // It may be one that was made all the same.
            Err(CaptureError::Unfit { what, hint }) => {
                Err(CaptureError::Broken { what: format!("no snapshot was made: {what}"), hint })
            }
            Err(error) => Err(error),
        }
    }

    fn verify(&self, cx: Context<'_>) -> Result<Made, CaptureError> {
        let line = Line { cx, server: &self.snapshot.server };
        let (path, at) = (self.snapshot.path(), line.place(&self.at));
        let found = match foretold(cx, &self.snapshot) {
            Some(foretold) => Some(foretold),
            None => {
                find(line, &self.snapshot)?.map(|found| changed(line, &path, found)).transpose()?
            }
        };
        let is_it = |found: &Subvolume| {
            is_ours(found) && found.parent_uuid.as_deref() == Some(&self.snapshot.origin)
        };
        let found = found.filter(is_it).ok_or_else(|| {
            mismatch(format!(
                "{} is not a read-only snapshot of what was found at {at}",
                path.shown()
            ))
        })?;
        let uuid =
            found.uuid.clone().ok_or_else(|| mismatch(format!("{} has no UUID", path.shown())))?;
        let about = format!("snapshot {} of {at}", self.snapshot.name);
        let server = self.snapshot.server.clone();
        Ok(Made {
            still: Still::Far { server, path, found },
            identity: Some(Identity::Subvolume { uuid }),
            about,
        })
    }

    /// See the snapshots of this machine.
    fn still_holds(&self, _: Context<'_>) -> Result<(), CaptureError> {
        Ok(())
    }
}

/// What a dry run files a snapshot under that would be made.
fn prediction(snapshot: &FarSnapshot) -> String {
    let FarSnapshot { server: Server { login, .. }, file_system, name, .. } = snapshot;
    format!("snapshot {name} on the btrfs {file_system:x} of {login}")
}

/// The snapshot that a dry run would have made.
fn foretold(cx: Context<'_>, snapshot: &FarSnapshot) -> Option<Subvolume> {
    cx.host.predicted(&prediction(snapshot)).pop()?;
    let hash = fnv(snapshot.name.as_bytes());
    let uuid = format!("{:08x}-0000-0000-0000-{:012x}", hash >> 32, hash & 0xffff_ffff);
    Some(Subvolume {
        uuid: Some(uuid),
        parent_uuid: Some(snapshot.origin.clone()),
        read_only: true,
        ..Subvolume::default()
    })
}

/// Whether a subvolume at a name of ours is one that we made there. Nobody but root can change the directory, and the name
/// was written down before: a snapshot that became one of another subvolume, which took the place of the intended one just
/// then, is ours to delete.
fn is_ours(found: &Subvolume) -> bool {
    found.read_only && found.received_uuid.is_none() && found.parent_uuid.is_some()
}

/// The subvolume at a snapshot's name, without the generation of its last change.
///
/// # Errors
/// When it cannot be known, also because its file system is not mounted there.
fn find(line: Line<'_>, snapshot: &FarSnapshot) -> Result<Option<Subvolume>, CaptureError> {
    let (directory, path) = (&*snapshot.server.directory, snapshot.path());
    let asked = line.ask_all(vec![
        coreutils::file_system(directory),
        coreutils::stat(&[&path]),
        shown::show(&line.btrfs(), &path),
    ])?;
    let is_one = |printed: &[u8]| FileSystem::parse(printed).is_some();
    let (file_system, expected) = match asked.of(0, is_one)? {
        Some(printed) => (Some(printed), snapshot.file_system),
        // Whoever removed the directory had to remove what was in it.
        None => {
            let above = directory.parent().unwrap_or(directory);
            // Where it was a mount or a subvolume by itself, that may be elsewhere now.
            let was_in_it = snapshot.above == snapshot.file_system;
            let above = line.ask(coreutils::file_system(above))?.filter(|_| was_in_it);
            (above, snapshot.above)
        }
    };
    let file_system = file_system.as_deref().and_then(FileSystem::parse);
    // Another subvolume of the same file system has another directory of that name, or none.
    if file_system.map(FileSystem::number) != Some(expected) {
        return Err(CaptureError::Unfit {
            what: format!(
                "another file system or subvolume than before is at {}, and {} may still be on that",
                line.place(directory),
                snapshot.name
            ),
            hint: "mount there what was mounted there, and run `stillpoint recover`".into(),
        });
    }
    let is_one = |printed: &[u8]| printed.ends_with(b"\0");
    let Some(_) = asked.of(1, is_one)?.filter(|printed| !printed.is_empty()) else {
        return Ok(None);
    };
    let printed = asked.of(2, |printed| shown::shown(printed).is_some())?.unwrap_or_default();
    shown::shown(&printed).map(Some).ok_or_else(|| line.unread("btrfs", &printed))
}

/// The same with the generation of its last change.
fn changed(line: Line<'_>, path: &Path, found: Subvolume) -> Result<Subvolume, CaptureError> {
    let stream = line.ask(shown::send_head(&line.btrfs(), path))?.unwrap_or_default();
    let changed = shown::generation(&stream)
        .map_err(|error| mismatch(format!("what {} sends: {error}", line.place(path))))?;
    Ok(Subvolume { changed, ..found })
}

impl Releasable for FarSnapshot {
    /// The directory that it alone is in goes as well: what a run that was killed just now has begun cannot come about after
    /// that. And a power cut cannot bring back what such a run has deleted.
    fn release(&self, cx: Context<'_>, identity: Option<&Identity>) -> Result<(), CaptureError> {
        let line = Line { cx, server: &self.server };
        let was_there = delete(line, self, identity)?;
        if line.remove_directory(&self.place())? == Removed::NotEmpty {
            // It came about just now.
            delete(line, self, identity)?;
            if line.remove_directory(&self.place())? == Removed::NotEmpty {
                let place = line.place(&self.place());
                return Err(mismatch(format!("{place} holds something that is not ours")));
            }
        }
        if was_there { Ok(()) } else { flush(line, self) }
    }

    /// Whoever releases it asks, and is told.
    fn is_away(&self, _: Context<'_>, _: &Identity) -> bool {
        false
    }

    fn still(&self, cx: Context<'_>, identity: &Identity) -> Result<Option<Still>, CaptureError> {
        let line = Line { cx, server: &self.server };
        let found =
            find(line, self)?.filter(|found| found.read_only && is_identical(found, identity));
        let Some(found) = found else { return Ok(None) };
        let path = self.path();
        let found = changed(line, &path, found)?;
        Ok(Some(Still::Far { server: self.server.clone(), path, found }))
    }
}

/// Deletes a snapshot for good, if it is there and the one that was made. Answers whether it was there.
fn delete(
    line: Line<'_>,
    snapshot: &FarSnapshot,
    identity: Option<&Identity>,
) -> Result<bool, CaptureError> {
    let path = snapshot.path();
    let Some(found) = find(line, snapshot)? else { return Ok(false) };
    let is_it = match identity {
        Some(identity) => is_identical(&found, identity),
        // The end came between making it and noting its UUID.
        None => is_ours(&found),
    };
    if !is_it {
        return Err(CaptureError::NotOurs { what: line.place(&path) });
    }
    let is_done = line.delete(&path)?;
    match is_done && find(line, snapshot)?.is_some() {
        true => Err(mismatch(format!("{} was deleted and is still there", line.place(&path)))),
        false => Ok(true),
    }
}

/// Waits until a power cut there cannot bring back what a run that was killed has deleted.
fn flush(line: Line<'_>, snapshot: &FarSnapshot) -> Result<(), CaptureError> {
    let directory = &*snapshot.server.directory;
    let there = line.ask(coreutils::file_system(directory))?;
    let flushed = if there.is_some() { directory } else { directory.parent().unwrap_or(directory) };
    line.change(coreutils::flush(flushed), Vec::new()).map(drop)
}
