//! Making a copy: a snapshot is sent, passes our stage, is received, made durable, looked at, recorded and named.

use super::catalog::{Catalog, Record, prediction_about};
use super::{BtrfsEngine, culprit, name_of};
use crate::engine::{
    BackupReport, BackupRequest, Context, Engine, EngineError, Input, OnProgress, Snapshot,
    StillSubvolume,
};
use crate::host::{Action, Chained, CommandSpec, Fact, Stream, Subvolume};
use crate::model::event::Progress;
use crate::model::outcome::Outcome;
use crate::model::shown::Show;
use crate::tools::btrfs::command::{self, Reader, Sending, Told, parse_uuid};
use crate::tools::btrfs::stage::{Expectation, Parent, Uuid};

/// What a difference is made against: a snapshot here and what it became there.
#[derive(Clone, Copy)]
struct Base<'a> {
    sent: &'a Snapshot,
    received: &'a Record,
}

impl BtrfsEngine {
    /// Makes a copy; see [`Engine::backup`].
    pub(super) fn receive(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let Input::Subvolume(still) = &request.input else {
            return Err(EngineError::unsupported(&self.target, "store anything but subvolumes"));
        };
        let catalog = self.open(cx)?;
        catalog.require_closed()?;
        let copies = catalog.copies()?;
        // What a dry run only predicts is no base of anything.
        let there = || copies.iter().filter(|(_, found)| found.is_some()).map(|(record, _)| record);
        let base = still.earlier.iter().find_map(|sent| {
            // Somebody may have made the snapshot writable, changed it and made it read-only again.
            let is_of = |record: &&Record| {
                (&record.sent, record.generation) == (&sent.uuid, sent.generation)
            };
            let received = there().find(is_of)?;
            Some(Base { sent, received })
        });
        let transfer = Transfer { engine: self, catalog: &catalog, still, name: name_of(request) };
        let mut warnings = Vec::new();
        let (base, received) = match (transfer.carry_out(base, progress), base) {
            (Err(Failure::Receiver(error @ EngineError::Failed { .. })), Some(refused)) => {
                warnings.push(format!(
                    "the difference to {} could not be received, so all was sent: {error}",
                    refused.received.name
                ));
                (None, transfer.carry_out(None, progress)?)
            }
            (received, base) => (base, received?),
        };
        transfer.seal(request, base, received, warnings)
    }
}

/// What was received, whole and on the disk.
struct Received {
    /// What passed on the way; `None` in a dry run.
    told: Option<Told>,
    /// The subvolume.
    found: Subvolume,
    /// Its UUID.
    uuid: String,
}

/// Why nothing was received.
enum Failure {
    /// The receiver refused by itself what came: some kernels refuse to share what lies in the parent.
    Receiver(EngineError),
    /// Any other failure, which another parent would not mend.
    Other(EngineError),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Failure::Other(error)
    }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Receiver(error) | Failure::Other(error) => error,
        }
    }
}

/// One copy on its way.
struct Transfer<'a> {
    engine: &'a BtrfsEngine,
    catalog: &'a Catalog<'a>,
    still: &'a StillSubvolume,
    name: String,
}

impl Transfer<'_> {
    /// Sends and receives.
    fn carry_out(
        &self,
        base: Option<Base<'_>>,
        progress: OnProgress<'_>,
    ) -> Result<Received, Failure> {
        self.or_cleared_away(self.try_to_carry_out(base, progress))
    }

    /// When something failed, nothing of the copy is left: it would take up space on a disk that may be full.
    fn or_cleared_away<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err()
            && let Err(error) = self.clear_away()
        {
            tracing::warn!(%error, "what was received of a copy is left; the next good one removes it");
        }
        result
    }

    /// Deletes what was received so far.
    fn clear_away(&self) -> Result<(), EngineError> {
        let (path, _) = self.catalog.incoming(&self.name);
        let host = self.catalog.cx.host;
        // What a signal stopped must still be cleared away.
        let _shield = host.shield();
        // The name is new, and nobody but our receiver makes it.
        if let Some(found) = host.subvolume(&path)? {
            host.act(&Action::DeleteSubvolume { path, found })?;
            // The file system frees its space only after that.
            self.catalog.flush()?;
            self.catalog.forget(&self.name)?;
        }
        Ok(())
    }

    fn try_to_carry_out(
        &self,
        base: Option<Base<'_>>,
        progress: OnProgress<'_>,
    ) -> Result<Received, Failure> {
        let cx = self.catalog.cx;
        let (path, incoming) = self.catalog.incoming(&self.name);
        let parent = base.map(|base| -> Result<Parent, EngineError> {
            Ok(Parent { sent: uuid(&base.sent.uuid)?, received: uuid(&base.received.uuid)? })
        });
        let expected = Expectation {
            name: incoming,
            uuid: uuid(&self.still.snapshot.uuid)?,
            parent: parent.transpose()?,
        };
        let [send, stage, receive] = self.commands(base, &expected);
        let before = [send, stage];
        let chained = cx.host.chain(&before, &receive, &mut |stream, line| {
            if stream == Stream::ProducerErr
                && let Some(told) = Told::read(line)
            {
                progress(Progress { bytes_done: Some(told.bytes), ..Progress::default() });
            }
        });
        let chained = chained.map_err(EngineError::from)?;
        if chained.last.is_predicted {
            // As far as anybody will ask.
            let uuid = self.name.clone();
            let found = Subvolume { uuid: Some(uuid.clone()), ..Subvolume::default() };
            return Ok(Received { told: None, found, uuid });
        }
        let told = self.judge(&before, &receive, &chained)?;
        // What was received is nowhere yet.
        self.catalog.flush()?;
        let found = cx.host.subvolume(&path).map_err(EngineError::from)?;
        let whole = found.clone().filter(|found| self.is_it(found, base, &told));
        whole
            .and_then(|found| Some(Received { told: Some(told), uuid: found.uuid.clone()?, found }))
            .ok_or_else(|| {
                Failure::Other(EngineError::Output {
                    engine: "btrfs",
                    what: format!(
                        "btrfs receive ended well, and {} is not what was sent: {found:?}",
                        path.shown()
                    ),
                })
            })
    }

    fn commands(&self, base: Option<Base<'_>>, expected: &Expectation) -> [CommandSpec; 3] {
        let program = self.engine.program();
        let limit = self.engine.target.stall_timeout;
        let sending = Sending {
            snapshot: self.still.snapshot.path.clone(),
            parent: base.map(|base| base.sent.path.clone()),
            view: self.still.view.clone(),
        };
        let mut receive = command::receive(&program, &self.catalog.location, limit);
        let about = prediction_about(&self.catalog.path(&self.name));
        receive.prediction.facts = vec![Fact { about, value: b"received".to_vec() }];
        [
            command::send(&program, &sending, limit),
            command::stage(expected, Reader::Next, limit),
            receive,
        ]
    }

    /// What passed, if every process ended well and the stage saw the end.
    fn judge(
        &self,
        before: &[CommandSpec],
        receive: &CommandSpec,
        chained: &Chained,
    ) -> Result<Told, Failure> {
        if let Some((spec, ended)) = culprit(before, receive, chained) {
            let error = self.engine.failure(spec, ended);
            let is_receivers = std::ptr::eq(ended, &chained.last) && ended.code().is_some();
            return Err(match is_receivers {
                true => Failure::Receiver(error),
                false => Failure::Other(error),
            });
        }
        let told = chained.before.get(1).and_then(|stage| Told::last(&stage.stderr_tail));
        told.filter(|told| told.whole).ok_or_else(|| {
            Failure::Other(EngineError::Output {
                engine: "btrfs",
                what: "nothing was told of what passed between sender and receiver".into(),
            })
        })
    }

    /// Whether a subvolume is what was sent, and all of it.
    fn is_it(&self, found: &Subvolume, base: Option<Base<'_>>, told: &Told) -> bool {
        found.read_only
            && found.received_uuid.as_ref() == Some(&self.still.snapshot.uuid)
            && found.received == told.generation
            && told.generation == self.still.snapshot.generation
            && found.parent_uuid.as_ref() == base.map(|base| &base.received.uuid)
    }

    /// Records the copy, and gives it the name of a whole one: that one never has without a record.
    fn seal(
        &self,
        request: &BackupRequest,
        base: Option<Base<'_>>,
        received: Received,
        warnings: Vec<String>,
    ) -> Result<BackupReport, EngineError> {
        self.or_cleared_away(self.try_to_seal(request, base, received, warnings))
    }

    fn try_to_seal(
        &self,
        request: &BackupRequest,
        base: Option<Base<'_>>,
        Received { told, found, uuid }: Received,
        warnings: Vec<String>,
    ) -> Result<BackupReport, EngineError> {
        let host = self.catalog.cx.host;
        let (path, _) = self.catalog.incoming(&self.name);
        let files = told.and_then(|told| {
            // A difference says which names came and went.
            let before = base.map_or(Some(0), |base| base.received.files)?;
            (before + told.named).checked_sub(told.unnamed)
        });
        let bytes = told.map(|told| told.bytes);
        let series = &request.series;
        self.catalog.record(&Record {
            format: Record::FORMAT,
            name: self.name.clone(),
            uuid,
            sent: self.still.snapshot.uuid.clone(),
            generation: self.still.snapshot.generation,
            changed: found.changed,
            parent: base.map(|base| base.received.uuid.clone()),
            host: series.host.clone(),
            job: series.job.clone(),
            item: series.item.clone(),
            run: request.run.clone(),
            machine: request.machine.clone(),
            time: request.time,
            bytes: bytes.unwrap_or_default(),
            files,
            pinned: false,
            going: false,
        })?;
        host.act(&Action::RenameSubvolume { path, name: self.name.clone(), found })?;
        let outcome = if warnings.is_empty() { Outcome::Ok } else { Outcome::Warning };
        Ok(BackupReport {
            outcome,
            id: Some(self.name.clone()),
            bytes_new: bytes,
            size: None,
            files,
            files_changed: 0,
            unreadable: Vec::new(),
            unreadable_count: 0,
            warnings,
            absent: Some(Vec::new()),
        })
    }
}

fn uuid(text: &str) -> Result<Uuid, EngineError> {
    let what = || format!("{text:?} is no UUID");
    parse_uuid(text).ok_or_else(|| EngineError::Output { engine: "btrfs", what: what() })
}
