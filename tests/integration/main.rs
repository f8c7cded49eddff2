//! Tests that need no privileges and no engines.
#![allow(missing_docs, clippy::unwrap_used)] // a test that unwraps fails where it should

mod architecture;
mod capture_rules;
mod captures;
mod examples;
mod faults;
mod help;
mod loops;
mod quiet;
mod support;
