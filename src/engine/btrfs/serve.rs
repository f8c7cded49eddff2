//! The side that has the copies: answers one request, by the very engine that serves targets of this machine.
//!
//! Whoever asks may be an intruder with a stolen key. So a key may do what it was let do and nothing else, in one
//! directory; the names of copies are made here, and one that is there is never written over; what a stream is based on
//! is a copy of this directory, whatever the stream says; and `btrfs receive` can write nowhere but in the directory.
//!
//! One request at a time changes a directory. What a killed one left half received has nobody who holds the lock any
//! more: the next one that receives for the same host removes it, for a key that may not delete could not. A part of it
//! that is on the disk stays, for a request that goes on behind it, until another copy of its series is received.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::BtrfsEngine;
use super::allow::Allow;
use super::answers::{Adopted, Begun, Checked, Done, Listing, Place, Refusal, Taken};
use super::catalog::{Catalog, Copies, WayOut, there};
use super::claimed::{is_claimed, is_here};
use super::kept::{ServerRules, Thinning};
use super::names::CopyName;
use super::others::Wanted;
use super::parts::{Found, Part};
use super::record::Record;
use super::transfer::{Origin, Transfer};
use super::wire::{Ask, Printed, Receive, Request};
use crate::engine::helped::Failure;
use crate::engine::made::Made;
use crate::engine::sent::{Blame, Data, failure, run_all};
use crate::engine::{Adoption, CheckReport, Context, Engine, EngineError, Foreign, TakeOver};
use crate::host::{LockError, LockGuard, LockMode, StdoutMode, Stream};
use crate::model::copy::Series;
use crate::model::event::Progress;
use crate::model::names::HostName;
use crate::model::shown::Show;
use crate::model::target::{BtrfsOptions, Target};
use crate::tools::borg::name::{parse_archive_name, series_in};
use crate::tools::btrfs::command::Told;

pub use super::allow::VERB;

/// How long a request waits until the one before it is done: so long may one take to clear away whose line was cut.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// How long nothing may move before a request is given up.
const STALL_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How much of a stream a client at least leaves out of it in a second, in bytes, before it sends what is behind that.
const LEFT_OUT_PER_SECOND: u64 = 8_000_000;

/// The longest time that this may take.
const LEFT_OUT_WITHIN: Duration = Duration::from_secs(48 * 3600);

/// The smallest parts that a client may ask for, in bytes: each is written out for itself.
const LEAST_PART: u64 = 1 << 20;

/// What a key leads to, and what it may do there.
#[derive(Debug, Clone)]
pub struct Served {
    /// The directory of copies.
    pub root: PathBuf,
    /// What may be done.
    pub allowed: BTreeSet<Allow>,
    /// Whose copies alone; `None`: everybody's.
    pub host: Option<HostName>,
    /// What is kept there, whatever its clients want.
    pub rules: ServerRules,
}

/// Where a request comes from and its answer goes.
pub struct Line<'a> {
    /// The request, and what follows it; not read ahead.
    pub input: &'a mut dyn Read,
    /// The answer.
    pub output: &'a mut dyn Write,
    /// Lines that are none.
    pub say: &'a mut dyn FnMut(&[u8]),
}

/// Reads one request, and answers it.
///
/// # Errors
/// Why nothing came of it; the answer is not to be trusted then, however it begins.
pub fn serve(cx: Context<'_>, served: &Served, line: Line<'_>) -> Result<(), Refusal> {
    let Line { input, output, say } = line;
    let Request { directory, ask } = Request::read(input)?;
    let root = cx.host.canonical(&served.root);
    if directory != served.root && directory != root {
        let what = format!("this key does not lead to {}", directory.shown());
        return Err(Refusal::NotAllowed(what));
    }
    let needed = ask.needs();
    if !served.allowed.contains(&needed) {
        let what = format!("this key may not {}", needed.word());
        return Err(Refusal::NotAllowed(what));
    }
    let options = BtrfsOptions { compressed_data: true, ..BtrfsOptions::default() };
    let engine = BtrfsEngine::new(&Target::of_served(&root, stall_limit(&ask)), &options);
    let mut desk = Desk { cx, served, engine: &engine, output };
    desk.require_own(&ask)?;
    desk.carry_out(ask, say)
}

/// How long nothing may move. Whoever goes on with a stream reads all of it that is there before anything comes.
fn stall_limit(ask: &Ask) -> Duration {
    let behind = match ask {
        Ask::Receive(receive) => receive.behind.as_ref().map_or(0, |mark| mark.offset),
        Ask::Init {}
        | Ask::Probe {}
        | Ask::List {}
        | Ask::GiveUp { .. }
        | Ask::Delete { .. }
        | Ask::Pin { .. }
        | Ask::Others {}
        | Ask::Adopt { .. }
        | Ask::Prove { .. }
        | Ask::Check { .. }
        | Ask::Verify { .. }
        | Ask::Print(_) => 0,
    };
    let left_out = Duration::from_secs(behind / LEFT_OUT_PER_SECOND);
    STALL_LIMIT + left_out.min(LEFT_OUT_WITHIN)
}

/// One request at work.
struct Desk<'a> {
    cx: Context<'a>,
    served: &'a Served,
    engine: &'a BtrfsEngine,
    output: &'a mut dyn Write,
}

impl Desk<'_> {
    fn carry_out(&mut self, ask: Ask, say: &mut dyn FnMut(&[u8])) -> Result<(), Refusal> {
        let (cx, engine) = (self.cx, self.engine);
        match ask {
            Ask::Init {} => self.answer(&self.init()?),
            Ask::Probe {} => self.answer(&self.probe()?),
            Ask::List {} => self.answer(&self.listing(&engine.open(cx).map_err(told)?)?),
            Ask::Receive(receive) => {
                let taken = self.receive(&receive)?;
                self.answer(&taken)
            }
            Ask::GiveUp { copy } => {
                self.give_up(&copy)?;
                self.answer(&Done {})
            }
            Ask::Delete { copies } => {
                let _lock = self.lock()?;
                let ids: Vec<String> = copies.into_iter().map(String::from).collect();
                engine.delete(cx, &ids).map_err(told)?;
                self.answer(&Done {})
            }
            Ask::Pin { copy, pinned } => {
                let _lock = self.lock()?;
                engine.pin(cx, copy.as_str(), pinned).map_err(told)?;
                self.answer(&Done {})
            }
            Ask::Others {} => {
                let others = engine.others(cx).map_err(told)?;
                self.answer(&others)
            }
            Ask::Adopt { copies } => {
                let adopted = self.adopt(&copies)?;
                self.answer(&adopted)
            }
            Ask::Prove { copy } => {
                let _lock = self.lock()?;
                engine.note_proven(cx, copy.as_str()).map_err(told)?;
                self.answer(&Done {})
            }
            Ask::Check { read_data } => {
                let of = self.served.host.as_ref();
                let tell = &mut |it| tell(&it, say);
                let report = engine.check_all(cx, of, WayOut::ByHand, read_data.into(), tell);
                self.answer(&checked(report.map_err(told)?))
            }
            Ask::Verify { copy } => {
                let report = engine.read_whole(cx, copy.as_str(), &mut |it| tell(&it, say));
                self.answer(&checked(report.map_err(told)?))
            }
            Ask::Print(what) => self.print(&what, say),
        }
    }

    fn init(&self) -> Result<Place, Refusal> {
        let made = self.engine.init(self.cx).map_err(told)?;
        Ok(Place { id: made.repository_id.unwrap_or_default(), version: None })
    }

    fn probe(&self) -> Result<Place, Refusal> {
        let found = self.engine.probe(self.cx).map_err(told)?;
        Ok(Place { id: found.repository_id.unwrap_or_default(), version: Some(found.version) })
    }

    fn listing(&self, catalog: &Catalog<'_>) -> Result<Listing, Refusal> {
        let copies = catalog.copies().map_err(told)?;
        let parts = catalog.parts().map_err(told)?;
        let records = match parts.is_empty() {
            true => Vec::new(),
            false => catalog.all_records().map_err(told)?.0,
        };
        // What somebody else has claimed to be cannot be received any more.
        let is_claimed = |part: &Part| records.iter().any(|record| record.claims(&part.sent));
        let parts = parts.into_iter().filter(|it| self.may_see(&it.made) && !is_claimed(it));
        let begun = |part: Part| {
            let is_base = |record: &&Record| Some(&record.uuid) == part.base.as_ref();
            let base = there(&copies).find(is_base).map(|record| record.name.clone());
            let Part { copy, sent, generation, every, mark, base: based_on, .. } = part;
            // One that is based on what is gone is of no use, nor what is left of one that is whole.
            let is_whole = there(&copies).any(|record| record.name == copy);
            let is_of_use = based_on.is_some() == base.is_some() && !is_whole;
            let begun = Begun { copy, sent, generation, base, part_size: every, mark };
            is_of_use.then_some(begun)
        };
        let parts = Some(parts.filter_map(begun).collect());
        let copies = copies.iter().map(|(record, _)| record);
        let copies = copies.filter(|record| self.may_see(&record.made)).cloned().collect();
        let takes_compressed = self.engine.takes(catalog) == Data::Compressed;
        let id = catalog.marker.id.clone();
        Ok(Listing { id, copies, takes_compressed, parts, describes: true, adopts: true })
    }

    /// Refuses copies of other hosts than the key is for.
    fn require_own(&self, ask: &Ask) -> Result<(), Refusal> {
        let Some(host) = &self.served.host else { return Ok(()) };
        let of_others = || {
            Refusal::NotAllowed(format!("this key is for copies of {host}, and these are not its"))
        };
        let is_own = match ask {
            Ask::Receive(receive) => receive.host == *host,
            Ask::Adopt { copies } => copies.iter().all(|it| it.host == *host),
            Ask::Init {}
            | Ask::Probe {}
            | Ask::List {}
            | Ask::Others {}
            | Ask::Prove { .. }
            | Ask::GiveUp { .. }
            | Ask::Delete { .. }
            | Ask::Pin { .. }
            | Ask::Check { .. }
            | Ask::Verify { .. }
            | Ask::Print(_) => true,
        };
        if !is_own {
            return Err(of_others());
        }
        let named = ask.copies();
        if named.is_empty() {
            return Ok(());
        }
        let catalog = self.engine.open(self.cx).map_err(told)?;
        let copies = catalog.copies().map_err(told)?;
        match named
            .into_iter()
            .all(|name| find(&copies, name).is_none_or(|it| self.may_see(&it.made)))
        {
            true => Ok(()),
            false => Err(of_others()),
        }
    }

    fn may_see(&self, made: &Made) -> bool {
        self.served.host.as_ref().is_none_or(|host| made.host == *host)
    }

    /// Keeps other requests from changing the directory.
    fn lock(&self) -> Result<Box<dyn LockGuard>, Refusal> {
        let catalog = self.engine.open(self.cx).map_err(told)?;
        let path = catalog.lock();
        let locked = self.cx.host.lock(&path, LockMode::Exclusive, LOCK_WAIT, VERB);
        locked.map_err(|error| match error {
            LockError::Busy { .. } => {
                Refusal::Locked("another copy is being received, or deleted".into())
            }
            LockError::Interrupted { .. } | LockError::Io { .. } => {
                Refusal::Failed(error.to_string())
            }
        })
    }

    fn receive(&self, receive: &Receive) -> Result<Taken, Refusal> {
        let _lock = self.lock()?;
        let catalog = self.engine.open(self.cx).map_err(told)?;
        self.cx.refuse_read_only(self.engine.target()).map_err(told)?;
        catalog.place.require_closed().map_err(told)?;
        if receive.part_size.is_some_and(|size| size < LEAST_PART) {
            return Err(Refusal::NoRequest("such small parts are not kept".into()));
        }
        let (run, made) = (&receive.run, receive.made());
        let name =
            CopyName::new(made.name()).filter(|it| parse_archive_name(it.as_str()).is_some());
        let name = name.ok_or_else(|| Refusal::NoRequest("no copy can have such a name".into()))?;
        let copies = catalog.copies().map_err(told)?;
        let behind = self.behind(&catalog, &copies, receive, &name, &made)?;
        let gone = |base: &CopyName| format!("the copy {} is not there", base.as_str());
        let base = receive.base.as_ref().map(|base| {
            // Nobody knows what is in one that another program received.
            let found = find(&copies, base).filter(|record| !record.unproven);
            found.ok_or_else(|| Refusal::Difference(gone(base)))
        });
        // What is refused anyway takes nothing away.
        let base = base.transpose()?;
        if catalog.is_taken(name.as_str(), run, receive.sent.as_str()).map_err(told)? {
            let what = format!("write over {}, which is there", name.as_str());
            return Err(Refusal::NotAllowed(what));
        }
        if is_claimed(&catalog, name.as_str(), receive.sent.as_str()).map_err(told)? {
            return Err(is_already(receive.sent.as_str(), "a copy's"));
        }
        self.clear_leftovers(&catalog, &receive.host, &name, behind.as_ref().map(|(it, _)| it))?;
        // What was left of it bears it as well.
        if is_here(&catalog, receive.sent.as_str()).map_err(told)? {
            return Err(is_already(receive.sent.as_str(), "a subvolume's"));
        }
        let transfer = Transfer {
            engine: self.engine,
            catalog: &catalog,
            sent: receive.sent.as_str(),
            generation: receive.generation,
            origin: Origin::Input,
            name: name.as_str().to_owned(),
            made: &made,
            part_size: receive.part_size,
            min_free: self.served.rules.min_free,
        };
        let thinning = Thinning { transfer: &transfer, keep: &self.served.rules.keep, base };
        thinning.make_room().map_err(told)?;
        let received = transfer.carry_out(base, behind, &mut |_| {});
        let received = received.map_err(|failure| not_taken(thinning.judged(failure)))?;
        let sealed = transfer.seal(base, received).map_err(told)?;
        let left: Vec<String> = sealed.left.into_iter().chain(thinning.thin()).collect();
        let left = (!left.is_empty()).then(|| left.join("; "));
        Ok(Taken { name, bytes: sealed.bytes, files: sealed.files, left })
    }

    /// The part behind which a stream is to go on, if it is to.
    fn behind(
        &self,
        catalog: &Catalog<'_>,
        copies: &Copies,
        receive: &Receive,
        name: &CopyName,
        made: &Made,
    ) -> Result<Option<(Part, Found)>, Refusal> {
        let Some(mark) = &receive.behind else { return Ok(None) };
        let base = receive.base.as_ref().and_then(|base| find(copies, base));
        let base = base.map(|record| &record.uuid);
        let is_it = |part: &Part| {
            part.mark == *mark
                && part.sent == receive.sent.as_str()
                && (part.generation, part.base.as_ref()) == (receive.generation, base)
                && part.made == *made
        };
        let found = catalog.part_of(name.as_str()).map_err(told)?;
        let found = found.filter(|(part, _)| is_it(part));
        let gone = || Refusal::Differs(format!("there is no such part of {}", name.as_str()));
        found.ok_or_else(gone).map(Some)
    }

    /// Has what another program received be copies. What there is, is looked at here: a client only says which of it.
    fn adopt(&self, copies: &[Wanted]) -> Result<Adopted, Refusal> {
        let (cx, _lock) = (self.cx, self.lock()?);
        let there = Adoption::foreign(self.engine, cx).map_err(told)?.fit;
        let series = |it: &Wanted| Series {
            host: it.host.clone(),
            job: it.job.clone(),
            item: Some(it.item.as_str().to_owned()),
        };
        let found: Vec<(Foreign, Series)> =
            copies.iter().filter_map(|it| Some((it.among(&there)?, series(it)))).collect();
        let take = |(foreign, series)| TakeOver { foreign, series, pinned: true, proven: false };
        let take: Vec<TakeOver<'_>> =
            found.iter().map(|(foreign, series)| take((foreign, series))).collect();
        let taken = self.engine.take_over(cx, &take).map_err(told)?;
        Ok(Adopted { copies: taken.into_iter().filter_map(CopyName::new).collect() })
    }

    /// Removes what there is of a copy that is not whole.
    fn give_up(&self, copy: &CopyName) -> Result<(), Refusal> {
        let _lock = self.lock()?;
        let catalog = self.engine.open(self.cx).map_err(told)?;
        let Some((part, _)) = catalog.part_of(copy.as_str()).map_err(told)? else { return Ok(()) };
        if !self.may_see(&part.made) {
            return Err(Refusal::NotAllowed("this key is for copies of another host".into()));
        }
        let left = catalog.left(&[], |name| name == part.copy).map_err(told)?;
        self.engine.delete(self.cx, &left).map_err(told)
    }

    /// Removes what dead requests have received for a host and did not get to the end of: all but parts that can be gone
    /// on with, and of the series that is received now, all but the one with which it goes on. The lock is ours.
    fn clear_leftovers(
        &self,
        catalog: &Catalog<'_>,
        host: &HostName,
        name: &CopyName,
        stays: Option<&Part>,
    ) -> Result<(), Refusal> {
        let now = series_in(name.as_str());
        let mut stay: Vec<Part> = catalog.parts().map_err(told)?;
        stay.retain(|part| Some(part) == stays || series_in(&part.copy) != now);
        let of_host = |name: &str| series_in(name).is_some_and(|series| series.host == *host);
        let left = catalog.left(&stay, of_host).map_err(told)?;
        if !left.is_empty() {
            self.engine.delete(self.cx, &left).map_err(told)?;
        }
        // Of this very copy there may be a record alone, when a crash came between its deletion and that of its record.
        if catalog.is_recorded(name.as_str()).map_err(told)? {
            catalog.flush().map_err(told)?;
            catalog.forget_deleted(&[name.as_str()]).map_err(told)?;
        }
        Ok(())
    }

    /// Has something printed to our own standard output.
    fn print(&self, what: &Printed, say: &mut dyn FnMut(&[u8])) -> Result<(), Refusal> {
        let mut specs = self.engine.printing(self.cx, what).map_err(told)?;
        if let Some(last) = specs.last_mut() {
            last.stdout = StdoutMode::PassOn;
        }
        let blame: Blame<'_> = &|spec, ended| failure(self.engine.target(), spec, ended);
        let printed = run_all(self.cx, &specs, blame, &mut |stream, line| match stream {
            Stream::Err | Stream::ProducerErr => say(line),
            Stream::Out => {}
        });
        printed.map_err(told)
    }

    fn answer(&mut self, answer: &impl Serialize) -> Result<(), Refusal> {
        let failed = |error: String| Refusal::Failed(error);
        let answer = serde_json::to_vec(answer).map_err(|error| failed(error.to_string()))?;
        let written = self.output.write_all(&answer).and_then(|()| self.output.flush());
        written.map_err(|error| failed(error.to_string()))
    }
}

fn is_already(sent: &str, whose: &str) -> Refusal {
    Refusal::NotAllowed(format!("{sent} is {whose} already"))
}

/// What is said when nothing was taken.
fn not_taken(failure: Failure) -> Refusal {
    match failure {
        Failure::Difference(EngineError::Failed { detail, .. }) => Refusal::Difference(detail),
        Failure::Difference(error) => Refusal::Difference(error.to_string()),
        Failure::Differs(error) => Refusal::Differs(error.to_string()),
        Failure::Refused(error) | Failure::Other(error) => told(error),
    }
}

fn told(error: EngineError) -> Refusal {
    Refusal::of(&error)
}

fn find<'c>(copies: &'c Copies, name: &CopyName) -> Option<&'c Record> {
    there(copies).find(|record| record.name == name.as_str())
}

fn checked(report: CheckReport) -> Checked {
    let CheckReport { damage, unverifiable, extent, copies, is_predicted: _ } = report;
    Checked { damage, unverifiable, extent, copies }
}

/// Tells how far it is, as a stage does.
fn tell(progress: &Progress, say: &mut dyn FnMut(&[u8])) {
    let told = Told { bytes: progress.bytes_done.unwrap_or_default(), ..Told::default() };
    if let Ok(line) = serde_json::to_vec(&told) {
        say(&line);
    }
}
