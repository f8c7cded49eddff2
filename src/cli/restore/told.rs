//! What is told of a restore, of whichever kind.

use std::path::Path;

use serde::Serializer;

use crate::cli::options::Global;
use crate::cli::render;
use crate::cli::setup::Setup;
use crate::model::bytes;
use crate::model::copy::Copy;
use crate::model::names::TargetName;

/// The place, for a document.
pub(super) fn to_bytes<S: Serializer>(to: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    bytes::field("to", "to_bytes", Some(to), serializer)
}

/// What a person reads: warnings, notes, what a dry run would do, and what was restored from where, with `whither`.
pub(super) fn tell(
    global: &Global,
    setup: &Setup,
    (warnings, notes): (&[String], &[String]),
    (copy, target): (&Copy, &TargetName),
    whither: &str,
) -> anyhow::Result<()> {
    for warning in warnings {
        render::say(&format!("warning: {warning}"));
    }
    for note in notes.iter().filter(|_| !global.quiet) {
        render::say(&format!("note: {note}"));
    }
    for effect in setup.dry.iter().flat_map(|dry| dry.planned()) {
        render::text(&effect.to_string())?;
    }
    let verb = if setup.dry.is_some() { "would restore" } else { "restored" };
    let line = format!(
        "{verb} {} of {} from target {target} {whither}",
        copy.id,
        copy.time.format("%Y-%m-%d %H:%M:%SZ"),
    );
    render::done(global, &line)
}
