//! Tests that need no privileges and no engines.

#![allow(clippy::disallowed_methods)] // tests make their own names and start programs themselves
#![allow(missing_docs, clippy::unwrap_used)] // a test that unwraps fails where it should

mod adopts;
mod architecture;
mod capture_rules;
mod captures;
mod clocks;
mod closed;
#[path = "../shared/configured.rs"]
mod configured;
mod dry_runs;
mod engine_locks;
mod engines;
mod examples;
mod faults;
mod forged;
mod guests;
mod help;
mod loops;
mod mounts;
mod pins;
mod providers;
mod quiet;
mod restores;
mod sources;
mod streams;
mod subvolumes;
mod support;
mod units;
