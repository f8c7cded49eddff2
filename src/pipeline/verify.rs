//! `verify`: one copy is read back whole, and what was found is recorded.

use crate::engine::CheckReport;
use crate::model::names::TargetName;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::closed;
use super::engine_lock::bracketed;
use super::query::{self, Query};
use super::steps::target::lock_for_writing;

/// A copy that was read back.
#[derive(Debug)]
pub struct Verified {
    /// The target that holds it.
    pub target: TargetName,
    /// The id of the copy that was read back.
    pub copy: String,
    /// What was found.
    pub report: CheckReport,
    /// Why that could not be recorded.
    pub unrecorded: Option<StepError>,
}

/// Reads back the copy of a job that is named: an id, a run id or `latest`.
///
/// # Errors
/// When there is none, or it could not be tried.
pub fn verify(cx: RunContext<'_>, query: &Query<'_>, named: &str) -> Result<Verified, StepError> {
    let (engine, copy) = query::copy(cx.pipeline, query, named)?;
    // Held until what was found is recorded: whoever compacts or deletes next must see it. Those that only add copies
    // are kept waiting no more than by the engine's own lock.
    let _lock = lock_for_writing(cx.pipeline, cx.run, engine.target())?;
    let report = bracketed(cx, engine, |engine, context| engine.verify(context, &copy))?;
    let unrecorded = closed::after_verify(cx, engine.target(), &copy, &report.damage).err();
    Ok(Verified { target: engine.target().name.clone(), copy: copy.id, report, unrecorded })
}
