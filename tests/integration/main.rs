//! Tests that need no privileges and no engines.

#![allow(clippy::disallowed_methods)] // tests make their own names and start programs themselves
#![allow(missing_docs, clippy::unwrap_used)] // a test that unwraps fails where it should

mod absent;
mod adopts;
mod architecture;
mod as_subvolume;
mod capture_rules;
mod captures;
mod choices;
mod clocks;
mod closed;
#[path = "../shared/configured.rs"]
mod configured;
mod dry_runs;
mod engine_locks;
mod engines;
mod estimates;
mod examples;
mod existing;
mod faults;
mod forged;
mod guests;
mod help;
mod loops;
mod mounts;
mod parallel;
mod pins;
mod plain;
mod providers;
mod pulled;
mod quiet;
mod restores;
mod resumed;
mod served;
mod sources;
mod space;
mod spread;
mod stored_parts;
mod stored_streams;
mod streams;
mod subvolumes;
mod support;
mod units;
