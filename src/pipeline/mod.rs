//! Runs jobs: the whole chain from lock to last hook, the ledger of what is held, and its recovery.
//!
//! [`run::run`] runs the jobs in a [`session`], [`job::run_job`] tells one job's story from top to bottom,
//! and each file in [`steps`] is one of its sentences.

pub mod absent;
pub mod adopt;
mod alias;
pub mod closed;
pub mod diff;
pub mod engine_lock;
mod engine_undo;
pub mod estimate;
pub mod find;
pub mod forget;
pub mod identity;
pub mod init;
pub mod job;
pub mod ledger;
pub mod list;
pub mod maintenance;
mod make_room;
pub mod mount;
pub mod pin;
pub mod preflight;
pub mod prune;
pub mod publish;
pub mod query;
mod received;
pub mod recover;
pub mod restore;
pub mod run;
pub mod select;
pub mod session;
mod staging;
pub mod status;
pub mod steps;
pub mod trust;
mod turns;
pub mod undo;
pub mod units;
mod unpacked;
pub mod verify;
mod waiting;
