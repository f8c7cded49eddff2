//! The answer of a restore as a subvolume.

use std::path::Path;

use serde::{Serialize, Serializer};

use crate::model::bytes;
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::pipeline::query::Query;
use crate::pipeline::restore::as_subvolume::{RestoredSubvolume, restore_as_subvolume};

use crate::cli::options::{Global, Verdict};
use crate::cli::render;
use crate::cli::setup::Setup;

use super::told;
use super::told::to_bytes;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    dry_run: bool,
    job: &'a JobName,
    target: &'a TargetName,
    copy: &'a str,
    #[serde(flatten, serialize_with = "to_bytes")]
    to: &'a Path,
    #[serde(flatten, serialize_with = "before_bytes")]
    before: Option<&'a Path>,
    warnings: &'a [String],
    notes: &'a [String],
}

fn before_bytes<S: Serializer>(before: &Option<&Path>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes::field("before", "before_bytes", *before, serializer)
}

/// Restores a copy as a subvolume: as `to`, or at its original place when absent, and on whatever is free if that is asked for.
pub(super) fn restore(
    global: &Global,
    setup: &Setup,
    query: &Query<'_>,
    named: &str,
    (to, ignore_space): (Option<&Path>, bool),
) -> Verdict {
    let (restored, mut troubles) =
        setup.session(|cx| restore_as_subvolume(cx, query, named, (to, ignore_space)))?;
    if !restored.warnings.is_empty() {
        troubles.push(Trouble::Warning);
    }
    let RestoredSubvolume { target, copy, at, before, notes, warnings } = &restored;
    if global.json {
        render::json(&Document {
            schema: SCHEMA,
            dry_run: setup.dry.is_some(),
            job: query.job,
            target,
            copy: &copy.id,
            to: at,
            before: before.as_deref(),
            warnings,
            notes,
        })?;
        return Ok(troubles);
    }
    let whither = format!("as the subvolume {}", at.shown());
    told::tell(global, setup, (warnings, notes), (copy, target), &whither)?;
    Ok(troubles)
}
