//! What a server keeps of the copies that clients send it, by rules of its own: a client whose key may not delete keeps
//! everything.
//!
//! A client says of a copy when it was made, and whoever has stolen its key may say anything. So a copy is as old here as
//! what was received is, by the clock of the server; and nothing goes after a copy that is much smaller than those before
//! it, or that comes after a long time without any, until somebody has looked.

use super::catalog::Copies;
use super::place::is_untold;
use crate::host::Host;
use crate::model::copy::{Copy, Series};
use crate::model::keep::{KeepPolicy, MinFree};
use crate::retention::{Evidence, Guards, Measure, Refusal, baseline, gate, plan};

/// The rules of a server.
#[derive(Debug, Clone, Default)]
pub struct ServerRules {
    /// Which copies of each series stay; an empty policy keeps all. A number of newest copies has no place in it: who may
    /// send that many would push all others out within an hour.
    pub keep: KeepPolicy,
    /// How much space must stay free; a copy that would take it is not received.
    pub min_free: Option<MinFree>,
}

/// The copies of a series, each as of the moment in which it was received. What somebody is writing to is none of them.
pub(super) fn received(copies: Copies, series: &Series) -> Vec<Copy> {
    let of_series = copies.into_iter().filter(|(record, _)| record.made.series() == *series);
    let received = of_series.filter_map(|(record, found)| {
        let found = found.filter(|found| !is_untold(found))?;
        // What has a record was whole.
        Some(Copy { time: found.made, ours: true, healthy: Some(true), ..record.copy() })
    });
    received.collect()
}

/// The copies of a series that go. The two newest stay: whoever sent them tells by the older one that this is the directory
/// that it was, although copies are gone from it.
///
/// # Errors
/// Why none does, with what to do about it.
pub(super) fn rule(
    host: &dyn Host,
    keep: &KeepPolicy,
    series: &Series,
    copies: &[Copy],
) -> Result<Vec<String>, String> {
    let (now, guards) = (host.now(), Guards::default());
    let plan = plan(keep, copies, now, &guards, &|at| host.ahead_of_utc(at));
    let mut past: Vec<&Copy> = copies.iter().collect();
    past.retain(|copy| !copy.is_in_the_future(now, guards.clock_slack));
    past.sort_by_key(|copy| (copy.time, &copy.id));
    let newest = past.pop();
    let before = past.last().map(|copy| &copy.id);
    let mut going = plan.deletions();
    going.retain(|id| Some(id) != before);
    if going.is_empty() {
        return Ok(going);
    }
    let evidence = Evidence {
        series,
        copy: newest,
        // Of what another program received, nothing is known.
        last_good: baseline(&past, None, &guards).filter(Measure::is_known),
        last_run: None,
        now,
        within: keep.within,
        closed: None,
        accepted_before: None,
        accepted: false,
    };
    match gate(&evidence, &plan, &guards) {
        Ok(()) => Ok(going),
        Err(refusal) => Err(format!("on the server, {refusal} — {}", remedy(&refusal))),
    }
}

/// What to do on the server.
fn remedy(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Shrunk { .. } | Refusal::Unmeasured { .. } => {
            "check that all sources are mounted and filled; if so much is really gone, delete there what is older (btrfs subvolume delete)"
        }
        Refusal::ClockLeapt { .. } => {
            "if the server's clock is wrong, set it right; if no copy came for so long, delete there what is older (btrfs subvolume delete)"
        }
        Refusal::ClockWentBack { .. } | Refusal::Backdated { .. } => {
            "set the server's clock right; the next copy has it delete again"
        }
        Refusal::NoCopy { .. }
        | Refusal::Unhealthy { .. }
        | Refusal::Closed { .. }
        | Refusal::Unrecorded { .. } => "the next good copy has it delete again",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{DateTime, TimeDelta, Utc};

    use super::super::record::Record;
    use super::*;
    use crate::engine::made::Made;
    use crate::engine::scripted::ScriptedHost;
    use crate::host::Subvolume;
    use crate::model::names::{HostName, JobName, RunId};

    fn made(time: DateTime<Utc>) -> Made {
        Made {
            host: HostName::new("web1").unwrap(),
            job: JobName::new("home").unwrap(),
            item: Some("/home".into()),
            run: RunId::from_bytes([7; 4]),
            machine: None,
            time,
        }
    }

    /// One that was received so many hours ago and holds so many files; the client says that it made it in another year.
    fn copy(now: DateTime<Utc>, hours: i64, files: u64) -> (Record, Option<Subvolume>) {
        let at = now - TimeDelta::hours(hours);
        let record = Record {
            format: Record::FORMAT,
            name: format!("{hours} hours"),
            uuid: String::new(),
            sent: String::new(),
            generation: 0,
            changed: 1,
            parent: None,
            made: made(at + TimeDelta::days(if hours % 2 == 0 { 9000 } else { -9000 })),
            bytes: None,
            files: Some(files),
            pinned: false,
            unproven: false,
            going: false,
        };
        (record, Some(Subvolume { made: at, changed: 1, ..Subvolume::default() }))
    }

    fn within(hours: u64) -> KeepPolicy {
        KeepPolicy { within: Some(Duration::from_secs(hours * 3600)), ..KeepPolicy::default() }
    }

    fn going(keep: &KeepPolicy, copies: &[(i64, u64)]) -> Result<Vec<String>, String> {
        let host = ScriptedHost::new([]);
        let now = host.now();
        let copies = copies.iter().map(|(hours, files)| copy(now, *hours, *files)).collect();
        let series = made(now).series();
        let mut going = rule(&host, keep, &series, &received(copies, &series))?;
        going.sort_unstable();
        Ok(going)
    }

    #[test]
    fn what_counts_is_when_a_copy_was_received_and_never_what_a_client_says_of_it() {
        let copies = [0, 1, 2, 3, 4, 5].map(|hours| (hours, 10));
        assert_eq!(going(&within(3), &copies), Ok(vec!["4 hours".into(), "5 hours".into()]));
        assert_eq!(going(&within(1), &[(0, 10), (5, 10)]), Ok(vec![]), "the two newest stay");
        assert_eq!(going(&KeepPolicy::default(), &copies), Ok(vec![]));
        // Another series has no part in it.
        let now = ScriptedHost::new([]).now();
        let other = Series { item: None, ..made(now).series() };
        assert_eq!(received(vec![copy(now, 1, 10)], &other), []);
    }

    #[test]
    fn nothing_goes_after_a_copy_that_lacks_most_of_what_was_there_or_comes_after_years() {
        let told = going(&within(1), &[(0, 4), (5, 10), (9, 10)]).unwrap_err();
        assert!(told.contains("has 4 files where the last good one had 10"), "{told}");
        assert!(told.starts_with("on the server, ") && told.contains("subvolume delete"), "{told}");
        let oldest = Ok(vec!["9 hours".into()]);
        assert_eq!(going(&within(1), &[(0, 6), (5, 10), (9, 10)]), oldest);
        let years = 24 * 365 * 2;
        let told = going(&within(1), &[(0, 10), (years, 10), (years + 1, 10)]).unwrap_err();
        assert!(told.contains("may be wrong") && told.contains("the server's clock"), "{told}");
    }
}
