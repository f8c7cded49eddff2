//! `verify`: one copy is compared with what it is of, or read back whole, and what was found is recorded.

use crate::engine::{CheckReport, Engine};
use crate::model::copy::Copy;
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::target::ReadData;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::closed;
use super::engine_lock::bracketed;
use super::query::{self, Query};
use super::steps::target::lock_for_writing;

mod compare;

use compare::Compared;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The copy holds what it is of.
    Ok,
    /// It does not.
    Failed,
    /// Nothing is there to compare it with: all of it can be read, and no more is known.
    Unverifiable,
}

impl Verdict {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Failed => "failed",
            Verdict::Unverifiable => "unverifiable",
        }
    }
}

/// A copy that was looked at.
#[derive(Debug)]
pub struct Verified {
    /// The target that holds it.
    pub target: TargetName,
    /// The id of the copy.
    pub copy: String,
    /// What was found.
    pub report: CheckReport,
    /// What that means.
    pub verdict: Verdict,
    /// Why that could not be recorded.
    pub unrecorded: Option<StepError>,
}

/// Verifies the copy of a job that is named: an id, a run id or `latest`. Where what it is of is still here as it was, both
/// are compared, with the content of this share of the files; otherwise it is read back as a restore would.
///
/// # Errors
/// When there is none, or it could not be tried.
pub fn verify(
    cx: RunContext<'_>,
    query: &Query<'_>,
    named: &str,
    read_data: ReadData,
) -> Result<Verified, StepError> {
    let (engine, copy) = query::copy(cx.pipeline, query, named)?;
    // Held until what was found is recorded: whoever compacts or deletes next must see it. Those that only add copies
    // are kept waiting no more than by the engine's own lock.
    let _lock = lock_for_writing(cx.pipeline, cx.run, engine.target())?;
    let report = match compare::compare(cx, engine, &copy, read_data)? {
        Compared::Done(report) => report,
        Compared::Not(why) if read_data != ReadData::All => {
            let why = why.unwrap_or_else(|| "that is not here as it was".into());
            let text = format!(
                "{} cannot be compared with what it is of ({why}), and reading it back reads it whole — leave --read-data out",
                copy.id
            );
            return Err(StepError::new(Trouble::Environment, text));
        }
        Compared::Not(why) => {
            let read = bracketed(cx, engine, |engine, context| engine.verify(context, &copy))?;
            // Whoever reads it back knows only that it compares with nothing.
            let why = why.filter(|_| engine.comparison().is_some());
            let why = why.map(|why| format!("unverifiable beyond that: {why}"));
            CheckReport { unverifiable: read.unverifiable.map(|said| why.unwrap_or(said)), ..read }
        }
    };
    let verdict = match (report.damage.is_empty(), &report.unverifiable) {
        (false, _) => Verdict::Failed,
        (true, None) => Verdict::Ok,
        (true, Some(_)) => Verdict::Unverifiable,
    };
    // What was found once is not gone because a share is well, or what could be read without more being known.
    let is_told = match verdict {
        Verdict::Failed => true,
        Verdict::Ok => read_data == ReadData::All,
        Verdict::Unverifiable => false,
    };
    let recorded = match is_told {
        true => closed::after_verify(cx, engine.target(), &copy, &report.damage).and_then(|()| {
            match verdict {
                Verdict::Ok => prove(cx, engine, &copy),
                Verdict::Failed | Verdict::Unverifiable => Ok(()),
            }
        }),
        false => Ok(()),
    };
    let (target, unrecorded) = (engine.target().name.clone(), recorded.err());
    Ok(Verified { target, copy: copy.id, report, verdict, unrecorded })
}

/// Notes of what another program made that all of it was compared: it may be the base of the next difference.
///
/// # Errors
/// When it is not there as it was, or that cannot be recorded.
pub fn prove(cx: RunContext<'_>, engine: &dyn Engine, copy: &Copy) -> Result<(), StepError> {
    let Some(adoption) = engine.adoption().filter(|_| copy.adopted) else { return Ok(()) };
    // The record of one that Stillpoint made says so already.
    if copy.unproven {
        adoption.prove(cx.engine(), copy)?;
    }
    let target = &engine.target().name;
    Ok(cx.pipeline.remember(|history| history.prove(target, &copy.id))?)
}
