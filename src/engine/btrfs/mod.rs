//! `btrfs send` and `btrfs receive` as an [`Engine`]: a copy is a read-only subvolume on another btrfs.
//!
//! Neither program says what matters: whether the data is on the disk, and whether the parent that was found by its UUID
//! is what it was. So a stream passes through a stage of ours ([`crate::tools::btrfs::stage`]), what was received is
//! looked at after the file system was flushed, and only then it gets its record and its name; see [`catalog`].

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::made::{self, Made, sources_of};
use super::needs;
use super::sent::{Data, data_here, run_all};
use super::tree::{inside, packed, root_of, unpacked, walked};
use super::{
    Adoption, AsSubvolume, BackupReport, BackupRequest, Change, Changed, CheckReport, Comparison,
    Context, Engine, EngineError, Entry, Estimate, Fetch, Initialised, Input, LocalCopy,
    OnProgress, Probe, RestoreReport, RestoreRequest, SentCopy,
};
use crate::host::{Subvolume, Tool};
use crate::model::copy::Copy;
use crate::model::needs::Needs;
use crate::model::shown::Show;
use crate::model::target::{BtrfsOptions, ReadData, Server, Target};
use crate::tools::btrfs::{PROGRAM, command};
use crate::tools::ssh;

mod adoption;
mod allow;
mod answers;
mod as_subvolume;
mod base;
mod catalog;
mod changed;
mod check;
mod claimed;
mod compare;
mod described;
mod far;
mod far_adoption;
mod far_send;
mod file_name;
mod freed;
mod here;
pub mod kept;
mod names;
mod others;
mod parts;
mod place;
mod plain;
mod receive;
mod record;
pub mod serve;
mod transfer;
mod way;
mod wire;

pub use allow::Allow;
pub use answers::Refusal;
pub use far::FarEngine;
pub use freed::await_freed;

use catalog::{Catalog, WayOut, finished_name};
use freed::{freeing, run_each};
use place::{Here, Place, WORKED_ON};
use plain::Plain;
use record::Record;

/// A directory of a btrfs that takes copies.
pub struct BtrfsEngine {
    target: Target,
    /// The machine on which it is, with btrfs-progs there; `None`: this one.
    server: Option<Server>,
    compressed_data: bool,
    listed: OnceLock<String>,
}

impl BtrfsEngine {
    /// The engine for a target.
    pub fn new(target: &Target, options: &BtrfsOptions) -> BtrfsEngine {
        let BtrfsOptions { server, compressed_data, part_size: _ } = options.clone();
        BtrfsEngine { target: target.clone(), server, compressed_data, listed: OnceLock::new() }
    }

    /// What it takes: compressed data, unless the configuration wants none or one side cannot.
    fn takes(&self, catalog: &Catalog<'_>) -> Data {
        match self.compressed_data && catalog.place.takes_compressed() {
            true => data_here(catalog.cx, self),
            false => Data::Plain,
        }
    }

    /// Where the directory is.
    fn place<'a>(&'a self, cx: Context<'a>) -> Box<dyn Place + 'a> {
        match &self.server {
            None => Box::new(Here::of(cx, &self.target)),
            Some(server) => Box::new(Plain::of(cx, &self.target, server)),
        }
    }

    fn open<'a>(&'a self, cx: Context<'a>) -> Result<Catalog<'a>, EngineError> {
        Catalog::open(cx, self.place(cx))
    }

    /// The record of a copy that is there, and the subvolume's path.
    fn held(&self, catalog: &Catalog<'_>, id: &str) -> Result<(Record, PathBuf), EngineError> {
        let found = catalog.copies()?.into_iter().find(|(record, _)| record.name == id);
        let gone = || EngineError::Damaged {
            repository: self.target.repository.clone(),
            detail: format!("the copy {id} is not there, or not what was received"),
        };
        let (record, _) = found.ok_or_else(gone)?;
        let path = catalog.path(&record.name);
        Ok((record, path))
    }

    /// The version of btrfs-progs where copies are received.
    fn version(&self, cx: Context<'_>, catalog: &Catalog<'_>) -> Result<String, EngineError> {
        let spec = catalog.place.there(command::version(&catalog.place.btrfs()));
        let completed = cx.host.run(&spec, &mut |_, _| {})?;
        match completed.success() {
            true => Ok(String::from_utf8_lossy(&completed.stdout).trim().to_owned()),
            false => Err(catalog.place.why(&spec, &completed)),
        }
    }

    /// Marks a copy as one to keep, or takes the mark away.
    fn pin(&self, cx: Context<'_>, id: &str, pinned: bool) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let (record, _) = self.held(&catalog, id)?;
        catalog.record(&Record { pinned, ..record })
    }
}

impl Engine for BtrfsEngine {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> Tool {
        PROGRAM.or(self.target.program.as_ref())
    }

    /// On another machine, nobody keeps us from each other; and of what it has lost, it tells one of us.
    fn is_written_alone(&self) -> bool {
        self.server.is_some()
    }

    fn needs(&self) -> Needs {
        let reads = self.server.as_ref().map(ssh::files).unwrap_or_default();
        needs::of_target(&self.target).and(Needs { reads, ..Needs::default() })
    }

    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError> {
        let catalog = Catalog::make(cx, self.place(cx))?;
        Ok(Initialised { repository_id: Some(catalog.marker.id), key_export: None })
    }

    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError> {
        let catalog = self.open(cx)?;
        catalog.place.require_closed()?;
        catalog.place.require_new()?;
        let version = self.version(cx, &catalog)?;
        Ok(Probe { version, repository_id: Some(catalog.marker.id), encryption: None })
    }

    fn listed_repository(&self) -> Option<String> {
        self.listed.get().cloned()
    }

    fn list(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        let catalog = self.open(cx)?;
        let _ = self.listed.set(catalog.marker.id.clone());
        let mut copies: Vec<Copy> =
            catalog.copies()?.iter().map(|(record, _)| record.copy()).collect();
        let unfinished = |incoming: &String| made::unfinished(incoming, finished_name(incoming));
        copies.extend(catalog.unfinished()?.iter().map(unfinished));
        Ok(copies)
    }

    fn adoption(&self) -> Option<&dyn Adoption> {
        // What another machine says of them may be an intruder's.
        self.server.is_none().then_some(self as &dyn Adoption)
    }

    fn comparison(&self) -> Option<&dyn Comparison> {
        Some(self)
    }

    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        self.receive(cx, request, progress)
    }

    fn resumes(&self) -> bool {
        self.part_size().is_some()
    }

    fn has_begun(&self, cx: Context<'_>, request: &BackupRequest) -> Result<bool, EngineError> {
        self.is_begun(cx, request)
    }

    fn sent(&self, cx: Context<'_>) -> Result<Vec<SentCopy>, EngineError> {
        Ok(self.open(cx)?.copies()?.iter().map(|(record, _)| record.of()).collect())
    }

    fn can_estimate(&self) -> bool {
        true
    }

    fn estimate(&self, cx: Context<'_>, input: &Input) -> Result<Estimate, EngineError> {
        self.measure(cx, input)
    }

    fn name_for(&self, request: &BackupRequest) -> Option<String> {
        Some(Made::of(request).name())
    }

    fn unfinished(&self, copy: &Copy) -> Option<String> {
        finished_name(&copy.id).map(str::to_owned)
    }

    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let known = catalog.copies()?;
        let mut in_use = Vec::new();
        for id in ids {
            let path = catalog.path(id);
            // A dry run may foretell that one goes which it has foretold to come.
            let is_foretold = known.iter().any(|(it, found)| it.name == *id && found.is_none());
            let foretold = || is_foretold.then(Subvolume::default);
            let Some(found) = catalog.subvolume(&path)?.or_else(foretold) else { continue };
            // Something else may have come to its place since it was listed.
            let is_it = |it: &Record| it.name == *id && (found.id.is_none() || it.is_of(&found));
            if known.iter().any(|(it, _)| it.name == *id && it.seems(&found)) {
                in_use.push(format!("{id}: {WORKED_ON}"));
                continue;
            }
            let record = known.iter().map(|(record, _)| record).find(|it| is_it(it));
            match record {
                Some(record) => catalog.record(&Record { going: true, ..record.clone() })?,
                // One that was not received to its end is known by its name alone, which holds its run's.
                None if finished_name(id).is_some() => {}
                None => {
                    let detail = format!("{} is not what was received there", path.shown());
                    let repository = self.target.repository.clone();
                    return Err(EngineError::Refused { engine: "btrfs", repository, detail });
                }
            }
            match catalog.place.delete(&path, found) {
                // The others are not.
                Err(EngineError::InUse { detail, .. }) => in_use.push(format!("{id}: {detail}")),
                done => done?,
            }
        }
        // Until it is gone for good, a power cut brings back the copy and must find its record.
        catalog.flush()?;
        let unfinished: Vec<&str> = ids.iter().filter_map(|id| finished_name(id)).collect();
        catalog.forget_deleted(&unfinished)?;
        catalog.forget_parts()?;
        match in_use.is_empty() {
            true => Ok(()),
            false => Err(EngineError::InUse {
                repository: self.target.repository.clone(),
                detail: in_use.join("; "),
            }),
        }
    }

    fn changed(&self) -> Option<&dyn Changed> {
        Some(self)
    }

    fn await_freed(&self, cx: Context<'_>) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let place = &catalog.place;
        let specs = freeing(&place.btrfs(), &catalog.location).map(|spec| place.there(spec));
        run_each(cx.host, specs, |spec, completed| place.why(spec, completed))?;
        // What the cleaner gave back counts as free when it is on the disk that it was.
        catalog.flush()
    }

    fn check(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        self.check_all(cx, None, WayOut::Verb, read_data, progress)
    }

    fn verify(&self, cx: Context<'_>, copy: &Copy) -> Result<CheckReport, EngineError> {
        self.read_whole(cx, &copy.id, &mut |_| {})
    }

    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        _: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        let [alone, whole] = packed(&self.target, request)?;
        let catalog = self.open(cx)?;
        let (_, path) = self.held(&catalog, &request.copy.id)?;
        let pack = catalog.place.pack(&path, &alone, &whole)?;
        if request.dry_run {
            return Ok(RestoreReport::default());
        }
        unpacked(cx, &self.target, request, &pack, &|spec, ended| catalog.place.why(spec, ended))
    }

    fn restore_as_subvolume(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Subvolume, EngineError> {
        self.send_back(cx, wanted, progress)
    }

    fn sources(&self, _: Context<'_>, copy: &Copy) -> Result<Option<Vec<PathBuf>>, EngineError> {
        Ok(sources_of(copy))
    }

    fn stream(&self, cx: Context<'_>, copy: &Copy, path: &Path) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let (_, held) = self.held(&catalog, &copy.id)?;
        let spec = catalog.place.file(&held, &inside(&root_of(copy)?, path)?)?;
        run_all(cx, &[spec], &|spec, ended| catalog.place.why(spec, ended), &mut |_, _| {})
    }

    fn local_copy(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<LocalCopy>, EngineError> {
        if self.server.is_some() {
            return Ok(None);
        }
        let catalog = self.open(cx)?;
        let (record, path) = self.held(&catalog, &copy.id)?;
        let found = catalog.subvolume(&path)?.filter(|found| record.is_of(found));
        Ok(found.map(|found| LocalCopy { path, found }))
    }

    fn fetch(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<Fetch>, EngineError> {
        if self.server.is_none() {
            return Ok(None);
        }
        let copies = self.open(cx)?.copies()?.into_iter();
        let records: Vec<Record> = copies.map(|(record, _)| record).collect();
        Ok(Some(Record::fetch(&records, &copy.id)))
    }

    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let (_, path) = self.held(&catalog, &copy.id)?;
        let list = catalog.place.contents(&path);
        walked(cx, copy, &list, &|spec, ended| catalog.place.why(spec, ended), each)
    }

    fn diff(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError> {
        self.compare(cx, older, newer, each)
    }

    fn set_pin(&self, cx: Context<'_>, copy: &Copy, pinned: bool) -> Result<String, EngineError> {
        self.pin(cx, &copy.id, pinned)?;
        Ok(copy.id.clone())
    }
}
