//! A machine that exists in memory only, with a borg of its own, and faults on request.

pub mod fake_borg;
pub mod fake_host;
