//! Copies that can be looked into only when they were unpacked, in a directory of the run's own.

use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::model::copy::Copy;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::engine_lock::bracketed;
use super::received::{Staging, reserve, unfit};

/// What the directory is for in which a copy is unpacked, in its name.
const STAGING: &str = "unpacked";

/// Does what looks into a copy, with the copy unpacked meanwhile where that is needed. `to` is where something is
/// restored to: it is unpacked beside that where the configuration names no place, and leaves room there for others unless
/// that is asked for.
///
/// # Errors
/// As the work, or when the copy cannot be unpacked.
pub(super) fn with_unpacked<T>(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    (to, ignore_space): (Option<&Path>, bool),
    work: impl FnOnce() -> Result<T, StepError>,
) -> Result<T, StepError> {
    if !engine.is_packed() {
        return work();
    }
    let place = place(cx, engine, to)?;
    let leave_free = reserve(cx.host(), &place, ignore_space)?;
    let staging = Staging::make(cx, &place, STAGING)??;
    let unpacked = bracketed(cx, engine, |engine, context| {
        let wanted = staging.wanted(cx, copy, &copy.id, leave_free);
        engine.unpack(context, &wanted, &mut |_| {})
    });
    let result = unpacked.and_then(|()| work());
    let _shield = cx.host().shield();
    if let Err(error) = staging.empty(cx.host(), None) {
        // It is tried again with the directory, which goes when the run is over.
        tracing::warn!("{}: what was unpacked is still there: {error}", staging.path.shown());
    }
    result
}

/// A directory of a btrfs in which nobody else may put anything.
fn place(cx: RunContext<'_>, engine: &dyn Engine, to: Option<&Path>) -> Result<PathBuf, StepError> {
    let target = &engine.target().name;
    let refused = |why: &str| {
        let text = format!(
            "copies in target {target} have to be received by a btrfs to be read{why} — name a directory of one with scratch = \"/path\" in the target"
        );
        Err(StepError::new(Trouble::Environment, text))
    };
    let beside = || to.and_then(Path::parent).map(Path::to_owned);
    let named = engine.scratch().map(Path::to_owned).or_else(beside);
    let Some(place) = named.map(|place| cx.host().canonical(&place)) else {
        return refused("");
    };
    match unfit(cx, &place)? {
        None => Ok(place),
        Some(why) => refused(&format!(", and {why}")),
    }
}
