//! Stillpoint makes Linux machines restorable: it holds a source still, hands the still view to a proven
//! engine, lets the source go, keeps what the policy says, proves that what it kept can be restored, and
//! tells the truth about what happened.
//!
//! # Layers
//!
//! From top to bottom; a module names only layers below it, and siblings never name each other (the pipeline
//! joins them). `tests/integration/architecture.rs` enforces it.
//!
//! | layer | what is in it |
//! |---|---|
//! | [`cli`] | one verb a file, exit codes, everything that is printed |
//! | [`pipeline`] | a run from top to bottom; ledger, undo, recover |
//! | [`engine`] [`machine`] [`report`] | borg and restic; the hypervisor; history, status, metrics, terminal |
//! | [`tools`] [`retention`] [`config`] | argument lists and parsers; what to keep; the configuration |
//! | [`host`] | the one door to the machine |
//! | [`model`] [`lock`] | the words |
//!
//! # One run, narrated
//!
//! `stillpoint run` reads the configuration ([`config::load`]), opens history and hands both to
//! [`pipeline::run::run`]. A [`pipeline::session`] gives back what dead runs hold, begins the ledger and makes
//! the run's staging directory. Then each job ([`pipeline::job::run_job`]): locks, promises its `finally`
//! hooks to the ledger, runs `before` hooks, looks at the source, and for each target backs up, lists the
//! target to see the new copy with its own eyes, and only then asks [`retention`] what may go. Targets that
//! are filled from others follow. `after` and `finally` hooks have the last word. When all jobs are through,
//! each target is compacted and checked where that is due. Whatever the ledger still holds is given back,
//! history is written, and the worst [`model::outcome::Trouble`] becomes the exit code.
//!
//! # Rules that hold everywhere
//!
//! - Every effect on the machine is a value through [`host::Host`]; no shell, ever. So "a dry run changes
//!   nothing" and "fail the n-th effect" see everything.
//! - What outlives the process is in the ledger, durably, before it happens ([`model::undo`]).
//! - No outcome from an exit status alone: engines are classified by what they say, and a copy exists when
//!   its target lists it.
//! - Deletion is by exact id, recorded or listed as ours, and proven by another listing.
//! - What is not known is `None`, never zero; what cannot be read is an error, never left out.
//!
//! # Where this departs from the design page
//!
//! - `capture = "auto"` that finds no provider is a warning that is printed and reported, but it does not by
//!   itself change the outcome: a nightly exit code 12 that nobody can mend would hide the ones that matter.
//! - A borg checkpoint of a dead run stays until the next good copy of its series and is deleted then: borg
//!   resumes from it, and a first backup that never finishes is worse than a leftover that is listed.

pub mod capture;
pub mod cli;
pub mod config;
pub mod engine;
pub mod host;
pub mod lock;
pub mod machine;
pub mod model;
pub mod pipeline;
pub mod report;
pub mod retention;
pub mod tools;
