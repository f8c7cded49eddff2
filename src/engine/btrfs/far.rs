//! A directory of copies on another machine, on which Stillpoint answers; see [`super::serve`] for the other side.
//!
//! Each question is one process, ssh, through the host's door, whose effect is that of what is asked. What is sent is
//! looked at here as well, and its end is held back until the sender has ended well: what a dead sender, a cut line or a
//! dead client leaves there cannot become a copy.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use super::allow::VERB;
use super::answers::{Checked, Done, Listing, Place, Refusal};
use super::base::Base;
use super::catalog::{finished_name, incoming_name};
use super::compare::compared;
use super::names::{CopyName, is_item};
use super::record::Record;
use super::way::Way;
use super::wire::{Ask, Printed, Request};
use crate::engine::estimate::measured;
use crate::engine::helped::with_what_helps;
use crate::engine::made::{self, Made, sources_of};
use crate::engine::sent::{Data, data_here, failure, heard, run_all, still_of};
use crate::engine::{
    Adoption, AsSubvolume, BackupReport, BackupRequest, Change, CheckReport, Comparison, Context,
    Engine, EngineError, Entry, Estimate, Fetch, Initialised, Input as What, OnProgress, Probe,
    RestoreReport, RestoreRequest, SentCopy, needs, received, tree,
};
use crate::host::{CommandSpec, Completed, Fact, Input, StdoutMode, Stream, Subvolume, Tool};
use crate::model::copy::Copy;
use crate::model::needs::Needs;
use crate::model::target::{BtrfsOptions, ReadData, Server, Target};
use crate::tools::borg::name::series_in;
use crate::tools::btrfs::PROGRAM;
use crate::tools::ssh::{self, Unbegun};

/// The copies of a target that another machine keeps.
pub struct FarEngine {
    target: Target,
    server: Server,
    compressed_data: bool,
    listed: OnceLock<String>,
}

/// What a dry run files copies of a target under that it predicts, and those that it predicts to be gone.
pub(super) fn predictions(target: &Target) -> [String; 2] {
    let about = |what| format!("btrfs {what} {}", target.repository);
    [about("made"), about("gone")]
}

impl FarEngine {
    /// The engine for a target on a server.
    pub fn new(target: &Target, server: &Server, options: &BtrfsOptions) -> FarEngine {
        let (target, server) = (target.clone(), server.clone());
        let compressed_data = options.compressed_data;
        FarEngine { target, server, compressed_data, listed: OnceLock::new() }
    }

    /// The process that asks.
    pub(super) fn asking(&self, ask: Ask) -> Result<CommandSpec, EngineError> {
        let (effect, allow) = (ask.effect(), ask.needs().word());
        let directory = self.server.directory.clone();
        let root = directory.to_string_lossy().into_owned();
        // A key with a command of its own there decides by itself what it may do, and this is not even read.
        let words = [&*self.server.program, VERB, "--root", &root, "--allow", allow];
        let mut spec = ssh::command(&self.server, &words, effect, self.target.stall_timeout);
        // The heartbeats of ssh are no movement where bytes of copies are to come or go; whoever checks only tells of it.
        spec.repeats_itself = !ask.is_long_and_quiet();
        spec.input = Input::Bytes(Request { directory, ask }.frame()?);
        Ok(spec)
    }

    /// Asks, and reads the answer; `None` in a dry run that only noted the question.
    pub(super) fn ask<T: for<'d> Deserialize<'d>>(
        &self,
        cx: Context<'_>,
        spec: &CommandSpec,
        progress: OnProgress<'_>,
    ) -> Result<Option<T>, EngineError> {
        let completed = cx.host.run(spec, &mut |stream, line| {
            if stream == Stream::Err {
                heard(line, progress);
            }
        })?;
        if completed.is_predicted {
            return Ok(None);
        }
        if !completed.success() {
            return Err(self.why(spec, &completed));
        }
        self.answer(&completed).map(Some)
    }

    pub(super) fn answer<T: for<'d> Deserialize<'d>>(
        &self,
        completed: &Completed,
    ) -> Result<T, EngineError> {
        serde_json::from_slice(&completed.stdout).map_err(|error| EngineError::Output {
            engine: "stillpoint serve",
            what: format!(
                "{error} — whatever else a login there prints (a greeting in .bashrc) must go to no command"
            ),
        })
    }

    /// Why nothing came of a question.
    pub(super) fn why(&self, spec: &CommandSpec, completed: &Completed) -> EngineError {
        if completed.left_early {
            return failure(&self.target, spec, completed);
        }
        let repository = self.target.repository.clone();
        match ssh::unbegun(completed) {
            Some(Unbegun::NotReached(detail)) => {
                return EngineError::Unreachable { repository, detail };
            }
            Some(Unbegun::NoProgram(said)) => {
                return EngineError::Unsupported {
                    engine: repository,
                    what: format!(
                        "there is no {} there, or this user may not start it ({said}) — install Stillpoint there, or name it with remote-program",
                        self.server.program
                    ),
                };
            }
            None => {}
        }
        match Refusal::last(&completed.stderr_tail) {
            Some(refusal) => refusal.into_error(&repository),
            None => {
                let detail = completed.last_words(5);
                let exit = completed.exit.to_string();
                EngineError::Failed { command: spec.display(), exit, detail }
            }
        }
    }

    /// All copies there, without those that a dry run predicts to be gone, and those that it predicts to be made.
    pub(super) fn listing(&self, cx: Context<'_>) -> Result<(Listing, Vec<Record>), EngineError> {
        let spec = self.asking(Ask::List {})?;
        let mut listing: Listing = self
            .ask(cx, &spec, &mut |_| {})?
            .ok_or_else(|| EngineError::unsupported(&self.target, "list without looking"))?;
        listing.copies.retain(|record| {
            let is_sound = CopyName::new(&*record.name).is_some()
                && record.made.item.as_deref().is_none_or(is_item);
            if !is_sound {
                tracing::warn!(
                    "{}: a copy with an impossible name is not listed",
                    self.target.name
                );
            }
            is_sound
        });
        for parts in listing.parts.iter_mut() {
            parts.retain(|part| CopyName::new(&*part.copy).is_some());
        }
        let [made, gone] = predictions(&self.target).map(|about| cx.host.predicted(&about));
        listing.copies.retain(|record| !gone.contains(&record.name.clone().into_bytes()));
        let made = made.iter().filter_map(|record| serde_json::from_slice(record).ok()).collect();
        let _ = self.listed.set(listing.id.clone());
        Ok((listing, made))
    }

    /// The record of a copy that is there.
    pub(super) fn record_in<'l>(
        &self,
        listing: &'l Listing,
        id: &str,
    ) -> Result<&'l Record, EngineError> {
        let record = listing.copies.iter().find(|record| record.name == id);
        record.ok_or_else(|| EngineError::Damaged {
            repository: self.target.repository.clone(),
            detail: format!("the copy {id} is not there"),
        })
    }

    /// Asks for something that changes copies and answers with nothing.
    pub(super) fn change(&self, cx: Context<'_>, spec: &CommandSpec) -> Result<(), EngineError> {
        self.ask::<Done>(cx, spec, &mut |_| {}).map(drop)
    }

    fn checked(
        &self,
        cx: Context<'_>,
        ask: Ask,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        let found: Option<Checked> = self.ask(cx, &self.asking(ask)?, progress)?;
        Ok(found.map_or_else(CheckReport::predicted, |found| {
            let Checked { damage, unverifiable, extent, copies } = found;
            CheckReport { unverifiable, copies, ..CheckReport::found(damage, extent) }
        }))
    }

    /// The process that prints something of copies, line by line.
    pub(super) fn printing(&self, what: Printed) -> Result<CommandSpec, EngineError> {
        let mut spec = self.asking(Ask::Print(what))?;
        spec.stdout = StdoutMode::Lines;
        Ok(spec)
    }

    pub(super) fn name(&self, copy: &Copy) -> Result<CopyName, EngineError> {
        self.name_of(&copy.id)
    }

    /// The name of a copy as it is asked for.
    pub(super) fn name_of(&self, id: &str) -> Result<CopyName, EngineError> {
        CopyName::new(id).ok_or_else(|| EngineError::Damaged {
            repository: self.target.repository.clone(),
            detail: format!("no copy has the name {id:?}"),
        })
    }

    /// Why a process of ours failed, be it the one that asks or another one.
    pub(super) fn blame(&self, spec: &CommandSpec, ended: &Completed) -> EngineError {
        match spec.tool == ssh::program(&self.server) {
            true => self.why(spec, ended),
            false => failure(&self.target, spec, ended),
        }
    }
}

impl Engine for FarEngine {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> Tool {
        PROGRAM.or(self.target.program.as_ref())
    }

    /// The server lets one of us write at a time, and would keep the others waiting in the midst of what they send.
    fn is_written_alone(&self) -> bool {
        true
    }

    fn needs(&self) -> Needs {
        let ours = Needs { reads: ssh::files(&self.server), ..Needs::default() };
        needs::of_target(&self.target).and(ours)
    }

    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError> {
        let spec = self.asking(Ask::Init {})?;
        let place: Option<Place> = self.ask(cx, &spec, &mut |_| {})?;
        Ok(Initialised { repository_id: place.map(|place| place.id), key_export: None })
    }

    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError> {
        let spec = self.asking(Ask::Probe {})?;
        let place: Option<Place> = self.ask(cx, &spec, &mut |_| {})?;
        let (id, version) = place.map_or((None, None), |it| (Some(it.id), it.version));
        let version = version.unwrap_or_default();
        Ok(Probe { version, repository_id: id, encryption: None })
    }

    fn listed_repository(&self) -> Option<String> {
        self.listed.get().cloned()
    }

    /// What is being received, or was not to its end, is the server's own, but for parts that can be gone on with.
    fn list(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        let (listing, made) = self.listing(cx)?;
        // The server removes what another copy of its series overtakes.
        let overtaking: Vec<_> = made.iter().map(|record| series_in(&record.name)).collect();
        let parts = listing.parts.iter().flatten();
        let parts = parts.filter(|it| !overtaking.contains(&series_in(&it.copy)));
        let parts = parts.map(|it| made::unfinished(&incoming_name(&it.copy), Some(&it.copy)));
        Ok(listing.copies.iter().chain(&made).map(Record::copy).chain(parts).collect())
    }

    fn adoption(&self) -> Option<&dyn Adoption> {
        Some(self)
    }

    fn comparison(&self) -> Option<&dyn Comparison> {
        Some(self)
    }

    fn unfinished(&self, copy: &Copy) -> Option<String> {
        finished_name(&copy.id).map(str::to_owned)
    }

    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let still = still_of(self, &request.input)?;
        let (listing, _) = self.listing(cx)?;
        let made = Made::of(request);
        let data = match self.compressed_data && listing.takes_compressed {
            true => data_here(cx, self),
            false => Data::Plain,
        };
        let way = Way::of(&self.target, &listing, still, &made.name());
        let base = way.base.map(|base| base.received);
        let mut warnings = Vec::new();
        let (sent, _) = with_what_helps(base, &mut warnings, &mut |base, goes_on| {
            let way = Way {
                base: way.base.filter(|_| base.is_some()),
                behind: way.behind.filter(|_| goes_on),
                ..way
            };
            self.send(cx, &made, (still, &way, data), progress)
        })?;
        Ok(sent.report(warnings))
    }

    fn resumes(&self) -> bool {
        self.target.part_size().is_some()
    }

    fn has_begun(&self, cx: Context<'_>, request: &BackupRequest) -> Result<bool, EngineError> {
        let still = still_of(self, &request.input)?;
        let (listing, _) = self.listing(cx)?;
        Ok(Way::of(&self.target, &listing, still, &Made::of(request).name()).behind.is_some())
    }

    fn sent(&self, cx: Context<'_>) -> Result<Vec<SentCopy>, EngineError> {
        let (listing, made) = self.listing(cx)?;
        Ok(listing.copies.iter().chain(&made).map(Record::of).collect())
    }

    fn can_estimate(&self) -> bool {
        true
    }

    fn estimate(&self, cx: Context<'_>, input: &What) -> Result<Estimate, EngineError> {
        let still = still_of(self, input)?;
        let (listing, _) = self.listing(cx)?;
        let base = Base::newest(still, listing.copies.iter());
        let base = base.map(|base| (base.sent, &*base.received.name));
        measured(cx, &self.target, &self.program(), still, base)
    }

    fn name_for(&self, request: &BackupRequest) -> Option<String> {
        Some(Made::of(request).name())
    }

    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError> {
        // What is not whole, the server removes when another copy has overtaken it.
        let ids = ids.iter().filter(|id| finished_name(id).is_none());
        let copies: Vec<_> = ids.clone().map(|id| self.name_of(id)).collect::<Result<_, _>>()?;
        if copies.is_empty() {
            return Ok(());
        }
        let mut spec = self.asking(Ask::Delete { copies })?;
        let [_, about] = predictions(&self.target);
        let gone = |id: &String| Fact { about: about.clone(), value: id.clone().into_bytes() };
        spec.prediction.facts = ids.map(gone).collect();
        self.change(cx, &spec)
    }

    fn check(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        self.checked(cx, Ask::Check { read_data: read_data.into() }, progress)
    }

    fn verify(&self, cx: Context<'_>, copy: &Copy) -> Result<CheckReport, EngineError> {
        self.checked(cx, Ask::Verify { copy: self.name(copy)? }, &mut |_| {})
    }

    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        _: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        let [alone, whole] = tree::packed(&self.target, request)?;
        let pack =
            self.printing(Printed::Archive { copy: self.name(&request.copy)?, alone, whole })?;
        if request.dry_run {
            return Ok(RestoreReport::default());
        }
        tree::unpacked(cx, &self.target, request, &pack, &|spec, ended| self.blame(spec, ended))
    }

    fn restore_as_subvolume(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Subvolume, EngineError> {
        let (listing, _) = self.listing(cx)?;
        let record = self.record_in(&listing, &wanted.copy.id)?;
        let (stage, sent) = received::stage(cx, self, wanted, &record.sent)?;
        let before = [self.printing(Printed::Whole { copy: self.name(wanted.copy)? })?, stage];
        let blame = |spec: &_, ended: &_| self.blame(spec, ended);
        received::receive(cx, self, before, (wanted, &sent), &blame, progress)
    }

    fn fetch(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<Fetch>, EngineError> {
        let (listing, _) = self.listing(cx)?;
        Ok(Some(Record::fetch(&listing.copies, &copy.id)))
    }

    fn sources(&self, _: Context<'_>, copy: &Copy) -> Result<Option<Vec<PathBuf>>, EngineError> {
        Ok(sources_of(copy))
    }

    fn stream(&self, cx: Context<'_>, copy: &Copy, path: &Path) -> Result<(), EngineError> {
        let path = tree::inside(&tree::root_of(copy)?, path)?;
        let mut spec = self.printing(Printed::File { copy: self.name(copy)?, path })?;
        spec.stdout = StdoutMode::PassOn;
        run_all(cx, &[spec], &|spec, ended| self.blame(spec, ended), &mut |_, _| {})
    }

    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        let list = self.printing(Printed::Contents { copy: self.name(copy)? })?;
        tree::walked(cx, copy, &[list], &|spec, ended| self.blame(spec, ended), each)
    }

    fn diff(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError> {
        let (older, named) = (self.name(older)?, self.name(newer)?);
        let spec = self.printing(Printed::Differences { older, newer: named })?;
        compared(cx, newer, &[spec], &|spec, ended| self.blame(spec, ended), each)
    }

    fn set_pin(&self, cx: Context<'_>, copy: &Copy, pinned: bool) -> Result<String, EngineError> {
        let name = self.name(copy)?;
        self.change(cx, &self.asking(Ask::Pin { copy: name, pinned })?)?;
        Ok(copy.id.clone())
    }
}

#[cfg(test)]
mod tests;
