//! `verify`: one copy is read back whole, and what was found is recorded.

use crate::engine::{CheckReport, Engine};
use crate::model::copy::Copy;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::closed;
use super::engine_lock::bracketed;
use super::steps::target::lock_for_writing;

/// Reads a copy back. Answers with what was found, and why that could not be recorded.
///
/// # Errors
/// When it could not be tried.
pub fn verify(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
) -> Result<(CheckReport, Option<StepError>), StepError> {
    // Held until what was found is recorded: whoever compacts or deletes next must see it. Those that only add copies
    // are kept waiting no more than by the engine's own lock.
    let _lock = lock_for_writing(cx.pipeline, cx.run, engine.target())?;
    let read = bracketed(cx, engine, |engine, context| engine.verify(context, copy))?;
    let noted = closed::after_verify(cx, engine.target(), copy, &read.damage);
    Ok((read, noted.err()))
}
