//! What a server keeps of the copies that clients send it, by rules of its own: a client whose key may not delete keeps
//! everything.
//!
//! A client says of a copy when it was made, and whoever has stolen its key may say anything. So a copy is as old here as
//! what was received is, by the clock of the server. Nothing goes for a month after a copy that is much smaller than those
//! before it, or that came after a long time without any: so long somebody is warned by every run.

use std::time::Duration;

use super::catalog::Copies;
use super::freed::{freeing, run_each};
use super::place::is_untold;
use super::record::Record;
use super::transfer::Transfer;
use crate::engine::helped::Failure;
use crate::engine::made::Made;
use crate::engine::{Engine, EngineError};
use crate::host::{CommandSpec, Host};
use crate::model::copy::{Copy, Series, earlier};
use crate::model::keep::{KeepPolicy, MinFree};
use crate::retention::{Evidence, Guards, Measure, Refusal, baseline, gate, plan};

/// For how long what looks wrong keeps everything. Nobody on the server says that it is right.
const DOUBT: Duration = Duration::from_secs(30 * 86_400);

/// How long whoever sends a copy waits for the space of those that were deleted for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The rules of a server.
#[derive(Debug, Clone, Default)]
pub struct ServerRules {
    /// Which copies of each series stay; an empty policy keeps all. A number of newest copies has no place in it: who may
    /// send that many would push all others out within an hour.
    pub keep: KeepPolicy,
    /// How much space must stay free; a copy that would take it is not received.
    pub min_free: Option<MinFree>,
}

/// Deletes what the rules of a server do not keep of a series of which a copy comes.
pub(super) struct Thinning<'t> {
    /// How that comes.
    pub transfer: &'t Transfer<'t>,
    pub keep: &'t KeepPolicy,
    /// The copy to which it is the difference.
    pub base: Option<&'t Record>,
}

impl Thinning<'_> {
    /// Refuses what there is no room for; what would go after it, goes before.
    ///
    /// # Errors
    /// [`EngineError::Full`], with why nothing was deleted for it.
    pub fn make_room(&self) -> Result<(), EngineError> {
        if self.transfer.require_room().is_ok() {
            return Ok(());
        }
        let deleted = self.delete(true);
        // Also what others have deleted, or was cleared away just now.
        self.await_freed()?;
        match (self.transfer.require_room(), deleted) {
            (Ok(()), _) => Ok(()),
            (Err(full), Ok(_)) => Err(full),
            (Err(full), Err(why)) => Err(with(full, &why)),
        }
    }

    /// What is told of a failure: where the room did not suffice, what would have gone after the copy goes now, so that
    /// there is more when it is sent again.
    pub fn judged(&self, failure: Failure) -> Failure {
        let Failure::Other(full @ EngineError::Full { .. }) = failure else { return failure };
        let why = match self.delete(true) {
            Ok(0) => return Failure::Other(full),
            Ok(_) => "what the server's rules do not keep was deleted: send it again".to_owned(),
            Err(why) => why,
        };
        Failure::Other(with(full, &why))
    }

    /// Deletes it when the copy is there. Answers with why not all went.
    pub fn thin(&self) -> Option<String> {
        self.delete(false).err()
    }

    /// Deletes what is not kept, where `comes` tells that a copy is still to be counted; answers with how many went.
    ///
    /// # Errors
    /// Why not all did, in words.
    fn delete(&self, comes: bool) -> Result<usize, String> {
        let Transfer { engine, catalog, made, .. } = self.transfer;
        if self.keep.is_empty() {
            return Ok(0);
        }
        let copies = catalog.copies().map_err(|error| error.to_string())?;
        let copies = received(copies, made);
        let mut going = rule(catalog.cx.host, self.keep, &made.series(), &copies, comes)?;
        going.retain(|id| self.base.is_none_or(|base| base.name != *id));
        if !going.is_empty() {
            engine.delete(catalog.cx, &going).map_err(|error| error.to_string())?;
        }
        Ok(going.len())
    }

    /// Waits for the space of what was deleted. That it takes longer is no failure: the room is looked at.
    fn await_freed(&self) -> Result<(), EngineError> {
        let catalog = self.transfer.catalog;
        let (host, place) = (catalog.cx.host, &catalog.place);
        let specs = freeing(&place.btrfs(), &catalog.location)
            .map(|spec| CommandSpec { time_limit: Some(PATIENCE), ..spec });
        if let Err(error) = run_each(host, specs, |spec, completed| place.why(spec, completed)) {
            tracing::debug!(%error, "the space of what was deleted is not free yet");
        }
        catalog.flush()
    }
}

/// The same failure, and what came of the rules.
fn with(full: EngineError, why: &str) -> EngineError {
    match full {
        EngineError::Full { repository, detail } => {
            EngineError::Full { repository, detail: format!("{detail}; {why}") }
        }
        other => other,
    }
}

/// The copies of a series that one machine sent, each as of the moment in which it was received: of two machines that have
/// one name, neither has the other's copies go. What somebody is writing to is none of them.
fn received(copies: Copies, made: &Made) -> Vec<Copy> {
    let is_of_it = |it: &Made| (it.series(), &it.machine) == (made.series(), &made.machine);
    let received = copies.into_iter().filter(|(record, _)| is_of_it(&record.made));
    let received = received.filter_map(|(record, found)| {
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
fn rule(
    host: &dyn Host,
    keep: &KeepPolicy,
    series: &Series,
    copies: &[Copy],
    comes: bool,
) -> Result<Vec<String>, String> {
    let (now, guards) = (host.now(), Guards::default());
    let coming = Copy { series: Some(series.clone()), time: now, ours: true, ..Copy::default() };
    let counted: Vec<&Copy> = copies.iter().chain(comes.then_some(&coming)).collect();
    let plan = plan(keep, &counted, now, &guards, &|at| host.ahead_of_utc(at));
    let mut past: Vec<&Copy> = copies.iter().collect();
    past.retain(|copy| !copy.is_in_the_future(now, guards.clock_slack));
    past.sort_by_key(|copy| (copy.time, &copy.id));
    let newest = past.pop();
    let stay = [newest, past.last().copied()];
    let mut going = plan.deletions();
    going.retain(|id| stay.iter().flatten().all(|copy| copy.id != *id));
    if going.is_empty() {
        return Ok(going);
    }
    // Of what another program received, nobody knows how much it is.
    past.retain(|copy| Measure::from(*copy).is_known());
    let believed = earlier(now, DOUBT);
    let evidence = Evidence {
        series,
        copy: newest,
        last_good: baseline(&past, Some(believed), &guards),
        last_run: None,
        now,
        within: keep.within,
        closed: None,
        accepted_before: Some(believed),
        accepted: false,
    };
    match gate(&evidence, &plan, &guards) {
        Ok(()) => Ok(going),
        Err(refusal) => Err(format!("on the server, {refusal} — {}", remedy(&refusal))),
    }
}

/// What to do about it.
fn remedy(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Shrunk { .. } | Refusal::Unmeasured { .. } => {
            "check that all sources are mounted and filled; if so much is really gone, it is believed after 30 days"
        }
        Refusal::ClockLeapt { .. } => {
            "if the server's clock is wrong, set it right; if no copy came for so long, it is believed after 30 days"
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
    use crate::model::names::{HostName, JobName, MachineId, RunId};

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
            stream: None,
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
        let mut going = rule(&host, keep, &series, &received(copies, &made(now)), false)?;
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
        let other = Made { item: None, ..made(now) };
        assert_eq!(received(vec![copy(now, 1, 10)], &other), []);
        let other = Made { machine: Some(MachineId::from_bytes([1; 8])), ..made(now) };
        assert_eq!(
            received(vec![copy(now, 1, 10)], &other),
            [],
            "nor another machine of that name"
        );
    }

    #[test]
    fn what_would_go_after_a_copy_that_comes_goes_before_it_where_there_is_no_room() {
        let host = ScriptedHost::new([]);
        let now = host.now();
        let made = made(now);
        let copies = received([1, 2, 3].map(|hours| copy(now, hours, 10)).into(), &made);
        let going = |comes| rule(&host, &within(2), &made.series(), &copies, comes);
        assert_eq!(going(false), Ok(vec![]), "counted back from the newest that is there");
        assert_eq!(going(true), Ok(vec!["3 hours".into()]), "and from the one that comes");
    }

    #[test]
    fn nothing_goes_after_a_copy_that_lacks_most_of_what_was_there_or_comes_after_years() {
        let told = going(&within(1), &[(0, 4), (5, 10), (9, 10)]).unwrap_err();
        assert!(told.contains("has 4 files where the last good one had 10"), "{told}");
        assert!(told.starts_with("on the server, ") && told.contains("after 30 days"), "{told}");
        let oldest = Ok(vec!["9 hours".into()]);
        assert_eq!(going(&within(1), &[(0, 6), (5, 10), (9, 10)]), oldest);
        let month = 24 * 31;
        let old = [(0, 4), (month, 4), (month + 5, 10), (month + 9, 10)];
        let gone = [month + 5, month + 9].map(|hours| format!("{hours} hours"));
        assert_eq!(going(&within(1), &old), Ok(gone.into()), "by now it is believed");
        let years = 24 * 365 * 2;
        let told = going(&within(1), &[(0, 10), (years, 10), (years + 1, 10)]).unwrap_err();
        assert!(told.contains("may be wrong") && told.contains("the server's clock"), "{told}");
    }
}
