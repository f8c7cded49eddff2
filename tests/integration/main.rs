//! Tests that need no privileges and no engines.
#![allow(missing_docs)]
