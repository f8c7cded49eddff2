//! `btrfs send` and `btrfs receive` as an [`Engine`]: a copy is a read-only subvolume on another btrfs.
//!
//! Neither program says what matters: whether the data is on the disk, and whether the parent that was found by its UUID
//! is what it was. So a stream passes through a stage of ours ([`crate::tools::btrfs::stage`]), what was received is
//! looked at after the file system was flushed, and only then it gets its record and its name; see [`catalog`].

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{
    BackupReport, BackupRequest, Change, CheckReport, Context, Engine, EngineError, Entry,
    Initialised, OnProgress, Probe, RestoreReport, RestoreRequest,
};
use crate::host::{Action, Chained, CommandSpec, Completed, Exit, Tool};
use crate::model::copy::{Copy, Series};
use crate::model::hash::fnv;
use crate::model::shown::Show;
use crate::model::target::{ReadData, Target};
use crate::tools::borg::name;
use crate::tools::btrfs::{PROGRAM, command};

mod catalog;
mod check;
mod compare;
mod receive;
mod restore;

use catalog::{Catalog, Record, finished_name};

/// A directory of a btrfs that takes copies.
pub struct BtrfsEngine {
    target: Target,
    listed: OnceLock<String>,
}

impl BtrfsEngine {
    /// The engine for a target.
    pub fn new(target: &Target) -> BtrfsEngine {
        BtrfsEngine { target: target.clone(), listed: OnceLock::new() }
    }

    fn location(&self) -> &Path {
        self.target.local.as_deref().unwrap_or(Path::new(&self.target.repository))
    }

    fn open<'a>(&self, cx: Context<'a>) -> Result<Catalog<'a>, EngineError> {
        Catalog::open(cx, self.location())
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

    /// Why a process failed.
    fn failure(&self, spec: &CommandSpec, completed: &Completed) -> EngineError {
        let detail = completed.last_lines(5);
        // The words of the kernel stand at the end; a name before them may say anything.
        if detail.lines().any(|line| line.ends_with(": No space left on device")) {
            return EngineError::Full { repository: self.target.repository.clone(), detail };
        }
        EngineError::Failed { command: spec.display(), exit: completed.exit.to_string(), detail }
    }
}

/// The longest name that a copy gets, in bytes: a file system takes 255, and a record is written as `.NAME.json.` and 16
/// digits first.
const LONGEST_NAME: usize = 255 - 23;

/// The name of a copy. A path that is too long for it is told by the record alone.
fn name_of(request: &BackupRequest) -> String {
    let BackupRequest { series, time, run, .. } = request;
    let name = name::archive_name(series, *time, run);
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let item = series.item.as_ref().map(|item| format!("{:016x}", fnv(item.as_bytes())));
    name::archive_name(&Series { item, ..series.clone() }, *time, run)
}

/// The process of a chain that failed by itself, the last one first: the others were stopped because of it, or lost
/// their reader.
fn culprit<'c>(
    before: &'c [CommandSpec],
    last: &'c CommandSpec,
    chained: &'c Chained,
) -> Option<(&'c CommandSpec, &'c Completed)> {
    let failed = |completed: &Completed| matches!(completed.exit, Exit::Code(code) if code != 0);
    let ended = || before.iter().zip(&chained.before).chain([(last, &chained.last)]);
    if failed(&chained.last) {
        return Some((last, &chained.last));
    }
    let by_itself = ended().find(|(_, completed)| failed(completed));
    by_itself.or_else(|| ended().find(|(_, completed)| !completed.success()))
}

impl Engine for BtrfsEngine {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> Tool {
        PROGRAM.or(self.target.program.as_ref())
    }

    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError> {
        let catalog = Catalog::make(cx, self.location())?;
        Ok(Initialised { repository_id: Some(catalog.marker.id), key_export: None })
    }

    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError> {
        let catalog = self.open(cx)?;
        catalog.require_closed()?;
        let spec = command::version(&self.program());
        let completed = cx.host.run(&spec, &mut |_, _| {})?;
        if !completed.success() {
            return Err(self.failure(&spec, &completed));
        }
        let version = String::from_utf8_lossy(&completed.stdout).trim().to_owned();
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
        for incoming in catalog.unfinished()? {
            let made = finished_name(&incoming).and_then(name::parse_archive_name);
            let time = made.map(|(_, time, _)| time).unwrap_or_default();
            copies.push(Copy { id: incoming, time, ..Copy::default() });
        }
        Ok(copies)
    }

    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        self.receive(cx, request, progress)
    }

    fn name_for(&self, request: &BackupRequest) -> Option<String> {
        Some(name_of(request))
    }

    fn unfinished(&self, copy: &Copy) -> Option<String> {
        finished_name(&copy.id).map(str::to_owned)
    }

    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let known = catalog.copies()?;
        for id in ids {
            let path = catalog.path(id);
            let Some(found) = cx.host.subvolume(&path)? else { continue };
            let record = known.iter().map(|(record, _)| record).find(|it| it.name == *id);
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
            cx.host.act(&Action::DeleteSubvolume { path, found })?;
        }
        // Until it is gone for good, a power cut brings back the copy and must find its record.
        catalog.flush()?;
        let unfinished: Vec<&str> = ids.iter().filter_map(|id| finished_name(id)).collect();
        catalog.forget_deleted(&unfinished)
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
        let catalog = self.open(cx)?;
        let (record, path) = self.held(&catalog, &copy.id)?;
        let damage = self.read_back(cx, &record, &path)?;
        Ok(CheckReport::found(damage.into_iter().collect(), "all data of the copy".into()))
    }

    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        _: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        self.lay_out(cx, request)
    }

    fn sources(&self, _: Context<'_>, copy: &Copy) -> Result<Option<Vec<PathBuf>>, EngineError> {
        let item = copy.series.as_ref().and_then(|series| series.item.as_ref());
        Ok(item.map(|item| vec![PathBuf::from(item)]))
    }

    fn stream(&self, cx: Context<'_>, copy: &Copy, path: &Path) -> Result<(), EngineError> {
        self.print(cx, copy, path)
    }

    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        self.walk(cx, copy, each)
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
        let (record, _) = self.held(&catalog, &copy.id)?;
        catalog.record(&Record { pinned, ..record })?;
        Ok(copy.id.clone())
    }
}
