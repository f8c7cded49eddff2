//! Streams of `btrfs send` as an [`Engine`]: a copy is a stored stream, and all that it is a difference to.
//!
//! Nobody receives a stream when it is stored, so nobody would notice that it is torn or lies: a stage of ours
//! ([`crate::tools::btrfs::stage`]) looks at it as it passes, and what was stored is known by its hash. A stream is stored
//! as btrfs sent it, compressed by zstd and encrypted by age: these three programs restore it without us. A long one becomes
//! several objects, each compressed and encrypted by itself, so that storing it goes on where it was interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::made::{self, Made, sources_of};
use super::sent::version;
use super::{
    AsSubvolume, BackupReport, BackupRequest, Change, CheckReport, Context, Engine, EngineError,
    Entry, Fetch, Initialised, OnProgress, Probe, RestoreReport, RestoreRequest, SentCopy, needs,
};
use crate::host::{Subvolume, Tool};
use crate::model::copy::{Copy, Series};
use crate::model::needs::Needs;
use crate::model::target::{ReadData, StreamsOptions, Target};
use crate::tools::btrfs::PROGRAM;
use crate::tools::btrfs::names::Names;
use crate::tools::{age, zstd};

mod begun;
mod catalog;
mod given;
mod names;
mod read;
mod record;
mod send;
mod sending;
mod store;
mod way;

use catalog::{Catalog, Known};
use record::name_of_unfinished;
use store::Store;

/// A place that stores streams.
pub struct StreamsEngine {
    target: Target,
    options: StreamsOptions,
    listed: OnceLock<String>,
    known: Known,
    unpacked: Mutex<Option<Unpacked>>,
    /// What was read last of each series: the next copy is most often a difference to that.
    read: Mutex<BTreeMap<Series, Built>>,
}

/// A copy that was received, and where.
#[derive(Debug, Clone)]
struct Unpacked {
    copy: String,
    at: PathBuf,
}

/// The names that the streams of these copies make, one after the other.
#[derive(Debug, Clone, Default)]
struct Built {
    copies: Vec<String>,
    names: Names,
}

impl StreamsEngine {
    /// The engine for a target.
    pub fn new(target: &Target, options: &StreamsOptions) -> StreamsEngine {
        StreamsEngine {
            target: target.clone(),
            options: options.clone(),
            listed: OnceLock::new(),
            known: Known::default(),
            unpacked: Mutex::new(None),
            read: Mutex::default(),
        }
    }

    fn open<'a>(&'a self, cx: Context<'a>) -> Result<Catalog<'a>, EngineError> {
        let store = Store::of(cx, &self.target, &self.options)?;
        Catalog::open(store, &self.target.repository, &self.known)
    }

    /// Has all records be read anew.
    fn forget(&self) {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }
}

impl Engine for StreamsEngine {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> Tool {
        PROGRAM.or(self.target.program.as_ref())
    }

    fn needs(&self) -> Needs {
        let options = &self.options;
        let secrets = [&options.environment_file, &options.identity_file];
        needs::of_target(&self.target).and(Needs {
            foreign_programs: options.commands.is_some(),
            reads: secrets.into_iter().flatten().cloned().collect(),
            public: options.recipients_file.iter().cloned().collect(),
            writes: options.scratch.iter().cloned().collect(),
            ..Needs::default()
        })
    }

    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError> {
        let store = Store::of(cx, &self.target, &self.options)?;
        let marker = Catalog::make(&store, &self.target.repository)?;
        Ok(Initialised { repository_id: Some(marker.id), key_export: None })
    }

    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError> {
        let catalog = self.open(cx)?;
        let encrypts = self.options.recipients_file.is_some();
        let programs =
            [self.options.compression.map(|_| zstd::PROGRAM), encrypts.then_some(age::PROGRAM)];
        for program in programs.iter().flatten() {
            cx.host.find_program(program)?;
        }
        let version = version(cx, self)?;
        let encryption = encrypts.then(|| "age".to_owned());
        Ok(Probe { version, repository_id: Some(catalog.marker.id), encryption })
    }

    fn listed_repository(&self) -> Option<String> {
        self.listed.get().cloned()
    }

    fn list(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        let catalog = self.open(cx)?;
        let _ = self.listed.set(catalog.marker.id.clone());
        let mut copies: Vec<Copy> = catalog.records().map(|record| catalog.copy(record)).collect();
        let unfinished = catalog.unfinished();
        copies.extend(
            unfinished.into_iter().map(|(name, object)| made::unfinished(object, Some(name))),
        );
        Ok(copies)
    }

    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        self.store(cx, request, progress)
    }

    fn resumes(&self) -> bool {
        self.target.part_size().is_some()
    }

    fn has_begun(&self, cx: Context<'_>, request: &BackupRequest) -> Result<bool, EngineError> {
        self.is_begun(cx, request)
    }

    fn sent(&self, cx: Context<'_>) -> Result<Vec<SentCopy>, EngineError> {
        let catalog = self.open(cx)?;
        let sound = catalog.records().filter(|record| !catalog.is_damaged(&record.name));
        Ok(sound.map(|record| record.of()).collect())
    }

    fn name_for(&self, request: &BackupRequest) -> Option<String> {
        Some(Made::of(request).name())
    }

    fn unfinished(&self, copy: &Copy) -> Option<String> {
        name_of_unfinished(&copy.id).map(str::to_owned)
    }

    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError> {
        let mut catalog = self.open(cx)?;
        let goes = |name: &str| ids.iter().any(|id| id == name);
        let left_behind = catalog.records().find(|record| {
            let base = record.base.as_ref();
            !goes(&record.name) && base.is_some_and(|base| goes(&base.name))
        });
        if let Some(record) = left_behind {
            let base = record.base.as_ref().map_or("", |base| base.name.as_str());
            let what = format!(
                "delete {base}: {} is a difference to it — delete that as well, or keep both",
                record.name
            );
            return Err(EngineError::unsupported(&self.target, &what));
        }
        let ids = || ids.iter().map(String::as_str);
        let copies: Vec<&str> = ids().filter(|id| catalog.record(id).is_some()).collect();
        // Their objects are ours by their names, and have no record.
        let unfinished: BTreeSet<&str> =
            ids().filter_map(|id| catalog.name_of_unfinished(id)).collect();
        unfinished.iter().try_for_each(|name| catalog.remove_unfinished(name))?;
        catalog.delete(&copies)
    }

    fn check(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        self.check_all(cx, read_data, progress)
    }

    fn verify(&self, cx: Context<'_>, copy: &Copy) -> Result<CheckReport, EngineError> {
        self.verify_one(cx, copy)
    }

    fn is_packed(&self) -> bool {
        true
    }

    fn scratch(&self) -> Option<&Path> {
        self.options.scratch.as_deref()
    }

    fn unpack(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<(), EngineError> {
        self.receive(cx, wanted, progress)
    }

    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        _: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        self.tree(cx, &request.copy)?.lay_out(request)
    }

    fn restore_as_subvolume(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Subvolume, EngineError> {
        self.receive_as(cx, wanted, progress)
    }

    fn fetch(&self, cx: Context<'_>, copy: &Copy) -> Result<Option<Fetch>, EngineError> {
        self.fetch_of(cx, copy).map(Some)
    }

    fn sources(&self, _: Context<'_>, copy: &Copy) -> Result<Option<Vec<PathBuf>>, EngineError> {
        Ok(sources_of(copy))
    }

    fn stream(&self, cx: Context<'_>, copy: &Copy, path: &Path) -> Result<(), EngineError> {
        self.tree(cx, copy)?.print(copy, path)
    }

    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        match self.received(cx, copy)? {
            Some(tree) => tree.walk(copy, each),
            None => self.list_names(cx, copy, each),
        }
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
        let catalog = self.open(cx)?;
        match catalog.record(&copy.id) {
            Some(record) => catalog.pin(&record.name, pinned)?,
            None => {
                return Err(catalog.store.damaged(format!("the copy {} is not there", copy.id)));
            }
        }
        Ok(copy.id.clone())
    }
}
