//! The steps of a job, in the order in which they run. Each takes what only the step before it can make,
//! so a wrong order does not compile: `HeldBatch` → `Archived` → `Observed` → retained.

pub mod archive;
pub mod bring;
pub mod doubtful;
pub mod go_on;
pub mod maintain;
pub mod observe;
pub mod prepare;
pub mod replicate;
pub mod retain;
pub mod served;
pub mod space;
pub mod spread;
pub mod target;
