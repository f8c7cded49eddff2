//! Where a copy is received that lies elsewhere: a directory of a btrfs in which nobody but root may put anything.

use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::host::{Host, MountEntry, Subvolume, mount_of};
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::pipeline::query;
use crate::pipeline::received::unfit;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::intended::{Wanted, instead};

/// Where a copy is received.
pub(super) struct Place {
    pub at: PathBuf,
    /// Whether somebody has named it, and not we ourselves.
    pub is_named: bool,
}

/// The directory that is named, that which the target names, or one on the file system of what the copy is of.
///
/// # Errors
/// When there is none that will do, with what may be done instead.
pub(super) fn of(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    wanted: Wanted<'_>,
) -> Result<Place, StepError> {
    let host = cx.host();
    let named = wanted.scratch.or(engine.scratch()).map(|named| host.canonical(named));
    let found = match &named {
        Some(named) => unfit(cx, named)?.map_or_else(|| Ok(named.clone()), Err),
        None => beside_origin(cx, copy)?,
    };
    let place = found.map_err(|why| {
        let text = format!(
            "{} in target {} has to be received by a btrfs of this machine to be mounted, and {why} — name a directory of one with --scratch DIR, or {}",
            copy.id,
            engine.target().name,
            instead(engine, copy)
        );
        StepError::new(Trouble::Environment, text)
    })?;
    let at = host.canonical(wanted.at);
    if place.starts_with(&at) {
        let text =
            format!("{} has to be empty: name another directory for one of both", at.shown());
        return Err(StepError::new(Trouble::Usage, text));
    }
    Ok(Place { at: place, is_named: named.is_some() })
}

/// A place that will do, or why there is none.
type Found = Result<PathBuf, String>;

/// A place on the file system of the subvolume that the copy is of; one in a subvolume that jobs copy only where there is no
/// other.
fn beside_origin(cx: RunContext<'_>, copy: &Copy) -> Result<Found, StepError> {
    let (host, config) = (cx.host(), cx.config());
    let series = copy.series.as_ref();
    let here = series.filter(|series| {
        series.host == *config.host_of(&series.job)
            && query::pulled_from(config, &series.job, copy).is_none()
    });
    let item = here.and_then(|series| series.item.as_deref()).map(Path::new);
    let Some(item) = item.filter(|item| item.is_absolute()) else {
        return Ok(Err("what it is of is not here".to_owned()));
    };
    let at = host.canonical(item);
    let Some(origin) = host.subvolume(&at)? else {
        return Ok(Err(format!("the subvolume {} is not here", at.shown())));
    };
    let places = on_its_file_system(host, &at, &origin)?;
    let copied = copied(cx)?;
    let (mut last, mut first) = (Vec::new(), Vec::new());
    for place in places {
        match host.subvolume_around(&place)?.is_some_and(|it| copied.contains(&known(it))) {
            true => last.push(place),
            false => first.push(place),
        }
    }
    let mut why = None;
    for place in first.into_iter().chain(last) {
        match unfit(cx, &place)? {
            None => return Ok(Ok(place)),
            Some(reason) => why = why.or(Some(reason)),
        }
    }
    Ok(Err(why.unwrap_or_else(|| format!("{} is not seen by a mount of one", at.shown()))))
}

/// Where the file system of a subvolume is seen: what is mounted of its top-level subvolume, the directory in which the
/// subvolume lies, what else is mounted of it, and the subvolume itself.
fn on_its_file_system(
    host: &dyn Host,
    at: &Path,
    origin: &Subvolume,
) -> Result<Vec<PathBuf>, StepError> {
    let mounts = host.mounts()?;
    let is_of_it = |mount: &&MountEntry| {
        mount.file_system == "btrfs"
            && matches!(host.btrfs_on(&mount.source), Ok(Some(found)) if found == origin.file_system)
    };
    let is_seen = |mount: &&MountEntry| mount_of(&mounts, &mount.at) == Some(*mount);
    let of_it: Vec<&MountEntry> = mounts.iter().filter(is_of_it).filter(is_seen).collect();
    let top = of_it.iter().filter(|mount| mount.root == Path::new("/"));
    let around = mount_of(&mounts, at).filter(is_of_it);
    let above = at.parent().filter(|above| {
        around.is_some_and(|mount| mount.at != at) && mount_of(&mounts, above) == around
    });
    let mut places: Vec<PathBuf> = top.map(|mount| mount.at.clone()).collect();
    places.extend(above.map(Path::to_owned));
    let others = of_it.iter().map(|mount| &mount.at).filter(|other| **other != at);
    places.extend(others.cloned());
    places.extend(around.map(|_| at.to_owned()));
    Ok(places)
}

/// A subvolume, by its file system and its number there.
type Known = (String, Option<u64>);

/// The subvolumes of this machine that jobs copy as they are. Of what lies in one for a while, an empty directory would be in
/// its copies.
fn copied(cx: RunContext<'_>) -> Result<Vec<Known>, StepError> {
    let (host, mounts) = (cx.host(), cx.host().mounts()?);
    let mut copied = Vec::new();
    for path in cx.config().jobs.iter().flat_map(|job| job.source.subvolumes_here()) {
        // A look at another one might not come back.
        if mount_of(&mounts, path).is_some_and(|mount| mount.file_system == "btrfs") {
            copied.extend(host.subvolume(&host.canonical(path))?.map(known));
        }
    }
    Ok(copied)
}

fn known(found: Subvolume) -> Known {
    (found.file_system, found.id)
}
