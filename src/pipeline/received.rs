//! Copies that are received as subvolumes into directories of a run's own.

use std::path::Path;

use crate::capture::workplaces;
use crate::engine::AsSubvolume;
use crate::host::{Confinement, Staged};
use crate::model::copy::Copy;
use crate::model::undo::Identity;
use crate::step::context::RunContext;

/// What an engine is asked for that is to receive a copy under a name into a directory of ours, and to write nowhere else.
pub(super) fn wanted<'a>(
    cx: RunContext<'_>,
    copy: &'a Copy,
    (into, identity): (&'a Path, Option<&Identity>),
    name: &'a str,
) -> AsSubvolume<'a> {
    let [_, at] = workplaces(&cx.config().settings);
    let identity = identity.filter(|_| cx.host().may_confine()).cloned();
    let confinement = identity.map(|identity| Confinement {
        staged: vec![Staged { path: into.to_owned(), identity, at }],
        writable: Vec::new(),
    });
    AsSubvolume { copy, into, name, confinement, nameless: false }
}
