//! Copies that can be looked into only when they were unpacked, in a directory of the run's own.

use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::host::spec::quote;
use crate::host::{ActError, Action, Host, SubvolumeAction, TrustKind, mount_of};
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::{Identity, StagingDirectory};
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::engine_lock::bracketed;
use super::staging::{elsewhere, try_own_directory};

/// How the directory is called in which a copy is unpacked, before the run's id.
pub(super) const UNPACKED: &str = ".stillpoint-unpacked-";

/// Does what looks into a copy, with the copy unpacked meanwhile where that is needed. `to` is where something is
/// restored to: it is unpacked beside that where the configuration names no place.
///
/// # Errors
/// As the work, or when the copy cannot be unpacked.
pub(super) fn with_unpacked<T>(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    to: Option<&Path>,
    work: impl FnOnce() -> Result<T, StepError>,
) -> Result<T, StepError> {
    if !engine.is_packed() {
        return work();
    }
    let directory = place(cx, engine, to)?.join(format!("{UNPACKED}{}", cx.run));
    let own = StagingDirectory { subvolumes: true, ..elsewhere(cx.host(), &directory)? };
    let identity = try_own_directory(cx.pipeline, cx.ledger, own)??;
    let unpacked = bracketed(cx, engine, |engine, context| {
        engine.unpack(context, copy, &directory, &mut |_| {})
    });
    let result = unpacked.and_then(|()| work());
    let _shield = cx.host().shield();
    if let Err(error) = delete_in(cx.host(), &directory, identity.as_ref()) {
        // It is tried again with the directory, which goes when the run is over.
        tracing::warn!("{}: what was unpacked is still there: {error}", directory.shown());
    }
    result
}

/// Deletes what was received into a directory, if that is still the one that was made for it.
///
/// # Errors
/// When some of it cannot be deleted.
pub(super) fn delete_in(
    host: &dyn Host,
    directory: &Path,
    identity: Option<&Identity>,
) -> Result<(), ActError> {
    let found = host.path_state(directory)?;
    let is_ours = identity.zip(found).is_some_and(|(made, found)| made.is(&found.identity));
    if !is_ours {
        return Ok(());
    }
    for path in host.nested_subvolumes(directory)? {
        if let Some(found) = host.subvolume(&path)? {
            host.act(&Action::Subvolume(SubvolumeAction::DeleteSubvolume { path, found }))?;
        }
    }
    Ok(())
}

/// A directory of a btrfs in which nobody else may put anything.
fn place(cx: RunContext<'_>, engine: &dyn Engine, to: Option<&Path>) -> Result<PathBuf, StepError> {
    let (host, target) = (cx.host(), &engine.target().name);
    let beside = || to.and_then(Path::parent).map(Path::to_owned);
    let named = engine.scratch().map(Path::to_owned);
    let Some(place) = named.clone().or_else(beside).map(|place| host.canonical(&place)) else {
        let text = format!(
            "copies in target {target} have to be received by a btrfs to be read — name a directory of one with scratch = \"/path\" in the target"
        );
        return Err(StepError::new(Trouble::Environment, text));
    };
    let refused = |why: &str| {
        let text = format!(
            "copies in target {target} have to be received by a btrfs to be read, and {} {why} — name a directory of one with scratch = \"/path\" in the target",
            place.shown()
        );
        Err(StepError::new(Trouble::Environment, text))
    };
    if mount_of(&host.mounts()?, &place).is_none_or(|mount| mount.file_system != "btrfs") {
        return refused("is on none");
    }
    if host.path_state(&place)?.is_none() {
        return refused("is not there");
    }
    match host.check_trusted(&place, TrustKind::Directory) {
        Ok(()) => Ok(place),
        Err(error) => refused(&format!("lets others in ({error}; chmod go-w {})", quote(&place))),
    }
}
