//! Runs jobs: the whole chain from lock to last hook, the ledger of what is held, and its recovery.
//!
//! [`run::run`] frames the jobs in a [`session`], [`job::run_job`] tells one job's story from top to bottom,
//! and each file in [`steps`] is one of its sentences.

pub mod adopt;
pub mod closed;
pub mod engine_lock;
pub mod identity;
pub mod init;
pub mod inquire;
pub mod job;
pub mod ledger;
pub mod maintenance;
pub mod mount;
pub mod pin;
pub mod prune;
pub mod publish;
pub mod recover;
pub mod restore;
pub mod run;
pub mod select;
pub mod session;
pub mod steps;
pub mod undo;
pub mod units;
pub mod verify;
