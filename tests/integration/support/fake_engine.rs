//! An engine that makes copies of nothing and notes when it was asked to, with how much was held then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use stillpoint::engine::{
    BackupReport, BackupRequest, Claim, Compacted, ContentsCheck, Context, Engine, EngineError,
    Entry, Expected, Initialised, OnProgress, Probe, RestoreReport, RestoreRequest,
};
use stillpoint::host::Tool;
use stillpoint::model::copy::Copy;
use stillpoint::model::names::TargetName;
use stillpoint::model::outcome::Outcome;
use stillpoint::model::target::Target;

use super::fake_host::FakeHost;

/// What several engines note, in order.
pub type Notes = Arc<Mutex<Vec<String>>>;

/// What somebody else does to the copies of a repository.
type Meanwhile = fn(&mut Vec<Copy>);
/// Looks into a copy, as a function that tests put in its place.
pub type FindAbsent = fn(&str) -> Result<Option<ContentsCheck>, EngineError>;

pub struct FakeEngine {
    target: Target,
    host: FakeHost,
    notes: Notes,
    copies: Mutex<Vec<Copy>>,
    /// What somebody else does to the copies, when they are listed for the so many-th time.
    pub meanwhile: Option<(usize, Meanwhile)>,
    /// What a check of a copy's contents finds, where the engine does not say itself what it stored.
    pub contents: Option<FindAbsent>,
    /// The engine says that it set a pin, and did not.
    pub idle: bool,
    /// Why nothing can be copied here from there.
    pub uncopied: Option<fn(TargetName, TargetName) -> EngineError>,
    listed: AtomicUsize,
    /// The lock of a dead child cannot be released.
    pub lock_stays: bool,
}

impl FakeEngine {
    pub fn new(target: &Target, host: FakeHost, notes: Notes) -> Self {
        Self {
            target: target.clone(),
            host,
            notes,
            copies: Mutex::default(),
            meanwhile: None,
            contents: None,
            idle: false,
            uncopied: None,
            listed: AtomicUsize::new(0),
            lock_stays: false,
        }
    }

    fn note(&self, what: String) {
        let world = self.host.world();
        let read_only = world.mounts.iter().filter(|mount| mount.is_frozen_read_only()).count();
        let held = world.btrfs.top.len() + world.lvm.snapshots().len() + read_only;
        self.notes.lock().unwrap().push(format!("{what}, {held} held"));
    }
}

impl Engine for FakeEngine {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> Tool {
        Tool::Known { name: "fake", hint: "there is none" }
    }

    fn list(&self, _: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        self.note(format!("list {}", self.target.name));
        let time = self.listed.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some((_, act)) = self.meanwhile.filter(|(when, _)| *when == time) {
            act(&mut self.copies.lock().unwrap());
        }
        Ok(self.copies.lock().unwrap().clone())
    }

    fn backup(
        &self,
        _: Context<'_>,
        request: &BackupRequest,
        _: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        self.note(format!("backup to {}", self.target.name));
        let mut copies = self.copies.lock().unwrap();
        let id = format!("copy-{}", copies.len());
        copies.push(Copy {
            id: id.clone(),
            series: Some(request.series.clone()),
            run: Some(request.run.clone()),
            time: request.time,
            size: Some(10),
            files: Some(1),
            tags: Vec::new(),
            pinned: false,
            healthy: None,
            ..Copy::default()
        });
        Ok(BackupReport {
            outcome: Outcome::Ok,
            id: Some(id),
            bytes_new: Some(10),
            size: Some(10),
            files: Some(1),
            files_changed: 0,
            unreadable: Vec::new(),
            unreadable_count: 0,
            warnings: Vec::new(),
            absent: self.contents.is_none().then(Vec::new),
        })
    }

    fn copy_from(
        &self,
        cx: Context<'_>,
        source: &dyn Engine,
        copies: &[&Copy],
        _: OnProgress<'_>,
    ) -> Result<(), EngineError> {
        self.note(format!("copy from {} to {}", source.target().name, self.target.name));
        if let Some(error) = self.uncopied {
            return Err(error(source.target().name.clone(), self.target.name.clone()));
        }
        let held = source.list(cx)?;
        let is_meant = |copy: &Copy| copies.iter().any(|meant| meant.id == copy.id);
        let copied = held.into_iter().filter(is_meant);
        let copied = copied.map(|copy| Copy {
            id: format!("{}-copied", copy.id),
            original: copy.original.or(Some(copy.id)),
            ..copy
        });
        self.copies.lock().unwrap().extend(copied);
        Ok(())
    }

    fn release_dead_lock(&self, _: Context<'_>, _: Claim<'_>) -> Result<(), EngineError> {
        self.note(format!("release the lock of {}", self.target.name));
        match self.lock_stays {
            true => Err(EngineError::Locked { repository: "r".into(), detail: "it stays".into() }),
            false => Ok(()),
        }
    }

    fn takes_locks(&self) -> bool {
        true
    }

    fn init(&self, _: Context<'_>) -> Result<Initialised, EngineError> {
        unreachable!("a run makes no repository")
    }

    fn probe(&self, _: Context<'_>) -> Result<Probe, EngineError> {
        Ok(Probe {
            version: "1".into(),
            repository_id: Some(format!("id of {}", self.target.name)),
            encryption: None,
        })
    }

    fn delete(&self, _: Context<'_>, ids: &[String]) -> Result<(), EngineError> {
        self.note(format!("delete {} in {}", ids.join(" "), self.target.name));
        self.copies.lock().unwrap().retain(|copy| !ids.contains(&copy.id));
        Ok(())
    }

    fn compact(&self, _: Context<'_>, _: OnProgress<'_>) -> Result<Compacted, EngineError> {
        self.note(format!("compact {}", self.target.name));
        Ok(Compacted::Unknown)
    }

    fn restore(
        &self,
        _: Context<'_>,
        _: &RestoreRequest,
        _: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        unreachable!("a run does not restore")
    }

    fn contents(
        &self,
        _: Context<'_>,
        _: &Copy,
        _: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        unreachable!("a run does not look into copies")
    }

    fn find_absent(
        &self,
        _: Context<'_>,
        id: &str,
        _: &[Expected],
    ) -> Result<Option<ContentsCheck>, EngineError> {
        self.contents.expect("nothing is left unsaid")(id)
    }

    fn set_pin(&self, _: Context<'_>, copy: &Copy, pinned: bool) -> Result<String, EngineError> {
        let id = format!("{}-{pinned}", copy.id);
        let mut copies = self.copies.lock().unwrap();
        if let Some(found) = copies.iter_mut().find(|one| one.id == copy.id && !self.idle) {
            found.original.get_or_insert(copy.id.clone());
            found.id.clone_from(&id);
            found.pinned = pinned;
        }
        Ok(id)
    }
}
