//! What to keep: a policy, the copies and the time go in; a plan with a reason for each copy comes out.
//!
//! Everything here is pure: what time it is, and how far local time is ahead of UTC at a moment, come from outside.
//! [`plan`] says what would go, [`gate`] says whether it may go now; the pipeline deletes by exact id. Whatever is
//! not ours, pinned, dated in the future or the newest good copy of its series is never in [`Plan::deletions`].
//!
//! # What the rules mean
//!
//! `last`, `hourly`, `daily`, `weekly` (ISO), `monthly` and `yearly` keep the newest good copy of each of the
//! newest N periods *that have one*; periods are those of local time, and a night without a run costs no slot. `within`
//! keeps everything back from the newest copy of the series. A rule with the number zero is no rule, and
//! a policy without a rule keeps everything.
//!
//! A copy is *good* unless its record says otherwise; a copy without a record counts as good. An incomplete
//! copy satisfies no counted rule, `last` included, so that a week of bad nights cannot push the good
//! copies out. It stays while it is newer than the newest good copy (it may hold what nothing else does),
//! while `within` covers it, or while it is pinned or tagged. One that was found damaged fills no slot either, and stays
//! until a person names it.
//!
//! A copy that is a difference to another one ([`based_on`](crate::model::copy::Copy::based_on)) is nothing without that
//! one, which stays as long as it does, whatever keeps it.
//!
//! # Where this differs from `borg prune` and `restic forget`
//!
//! Each line is shown by a test in `tests.rs` of the number given; what the engines do was seen with borg 1.2.4
//! and restic 0.14.0.
//!
//! 1. Rules count independently of each other, as in restic. borg goes on counting after the copies that
//!    a shorter rule has kept, so its `weekly` reaches further back.
//! 2. borg keeps the oldest archive as a stand-in when a rule is not filled (`daily[oldest]`); here, as in
//!    restic 0.14, each kept copy is the newest of its period.
//! 3. The hour that comes twice when clocks are put back is two hours. Both engines use local time as well, and take
//!    it for one.
//! 4. Incomplete copies fill no slot. Both engines count them: with `daily = 1`, the empty archive of an
//!    unmounted disk replaces the last good one.
//! 5. The newest good copy always stays. `borg prune --keep-within 14d` deletes every archive of a
//!    machine that has been off for a month.
//! 6. `within` counts back from the newest copy, as in restic; borg counts from now. Where that copy comes
//!    after a gap of months, the gate asks a person first: in both engines one run under a clock that is years
//!    ahead deletes all that is older.
//! 7. Copies dated in the future are left alone and fill no slot. In both engines they push real copies out.
//! 8. Nothing that this machine neither made nor adopted is counted or deleted, whatever its marks say: anybody
//!    who may add to a repository could fill our slots, and two machines may have one name.
//!    `borg prune` without a pattern takes every archive of the repository; `restic forget` takes those of every
//!    host.
//! 9. A series is host, job and item. restic groups by host and paths, so an edited path starts a new
//!    group in which the old copies are kept for ever.
//! 10. An empty policy keeps everything, as in restic; borg refuses it.
//!
//! A policy may ask for btrbk's way of counting instead; see `btrbk.rs`.

mod btrbk;
mod gate;
mod guards;
mod plan;
mod rules;
mod space;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use btrbk::Preserved;
pub use gate::{Evidence, Measure, Refusal, baseline, gate};
pub use guards::Guards;
pub use plan::{Decision, Plan, Reason, Unneeded, Verdict, last_good, plan};
pub use rules::{PROTECTED_TAG, Rule};
pub use space::{Expendable, expendable};
