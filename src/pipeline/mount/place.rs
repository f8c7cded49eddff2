//! Where a copy is received that lies elsewhere: a directory of a btrfs in which nobody but root may put anything.

use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::host::spec::quote;
use crate::host::{MountEntry, PathKind, TrustKind, mount_of};
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::pipeline::query;
use crate::pipeline::restore::refuse_inside;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::intended::{Wanted, instead};

/// The directory that is named, that which the target names, or one on the file system of what the copy is of.
///
/// # Errors
/// When there is none that will do, with what may be done instead.
pub(super) fn of(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    wanted: Wanted<'_>,
) -> Result<PathBuf, StepError> {
    let host = cx.host();
    let named = wanted.scratch.or(engine.scratch()).map(|named| host.canonical(named));
    let found = match &named {
        Some(named) => fits(cx, named)?.map_or_else(|| Ok(named.clone()), Err),
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
    Ok(place)
}

/// A place that will do, or why there is none.
type Found = Result<PathBuf, String>;

/// Why a directory will not do; `None`: it will.
fn fits(cx: RunContext<'_>, place: &Path) -> Result<Option<String>, StepError> {
    let (host, shown) = (cx.host(), place.shown());
    match host.path_state(place)? {
        Some(found) if found.kind == PathKind::Directory => {}
        Some(_) | None => return Ok(Some(format!("there is no directory {shown}"))),
    }
    if mount_of(&host.mounts()?, place).is_none_or(|mount| mount.file_system != "btrfs") {
        return Ok(Some(format!("{shown} is on none")));
    }
    if host.is_read_only(place)? {
        return Ok(Some(format!("{shown} is mounted read-only")));
    }
    if let Err(error) = host.check_trusted(place, TrustKind::Directory) {
        let quoted = quote(place);
        return Ok(Some(format!("{shown} lets others in ({error}; chmod go-w {quoted})")));
    }
    let used = refuse_inside(host, cx.config(), place).err();
    Ok(used.and_then(|error| error.message.split(", so ").next().map(str::to_owned)))
}

/// A place on the file system of the subvolume that the copy is of, which has no part in what is stored if there is one such:
/// what is mounted of its top-level subvolume, the directory in which it lies, or itself.
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
    let mounts = host.mounts()?;
    let is_of_it = |mount: &&MountEntry| {
        mount.file_system == "btrfs"
            && matches!(host.btrfs_on(&mount.source), Ok(Some(found)) if found == origin.file_system)
    };
    let is_seen = |mount: &&MountEntry| mount_of(&mounts, &mount.at) == Some(*mount);
    let of_it = mounts.iter().filter(is_of_it).filter(is_seen);
    let top = of_it.filter(|mount| mount.root == Path::new("/")).map(|mount| mount.at.clone());
    let around = mount_of(&mounts, &at).filter(is_of_it);
    let above = at.parent().filter(|above| {
        around.is_some_and(|mount| mount.at != at) && mount_of(&mounts, above) == around
    });
    let mut why = None;
    for place in top.chain(above.map(Path::to_owned)).chain(around.map(|_| at.clone())) {
        match fits(cx, &place)? {
            None => return Ok(Ok(place)),
            Some(reason) => why = why.or(Some(reason)),
        }
    }
    Ok(Err(why.unwrap_or_else(|| format!("{} is not seen by a mount of one", at.shown()))))
}
