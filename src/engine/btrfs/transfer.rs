//! A copy on its way: sent, passed through our stage, received, made durable, looked at, recorded and named.

use super::BtrfsEngine;
use super::catalog::{Catalog, finished_name, prediction_about};
use super::parts::{Ended, Found, Part, Parting};
use super::record::Record;
use crate::engine::helped::{Failure, told_by_stage};
use crate::engine::made::{Made, reported};
use crate::engine::sent::{cannot_be_sent, culprit, files, heard, new_uuid, sender, uuid};
use crate::engine::sharing::chain;
use crate::engine::unsent::sender_failed;
use crate::engine::{BackupReport, Engine, EngineError, OnProgress, StillSubvolume};
use crate::host::{
    Chained, CommandSpec, Fact, Halt, Input as Reads, RunError, Stream, Subvolume, shortage,
};
use crate::model::keep::MinFree;
use crate::model::shown::Show;
use crate::tools::borg::name::series_in;
use crate::tools::btrfs::command::{self, Reader, Told};
use crate::tools::btrfs::parts::{Behind, Cutting, of_part};
use crate::tools::btrfs::stage::{Expectation, Parent};

/// What is said when it cannot be cleared away.
const LEFT: &str = "what was received of a copy is left; the next good one uses or removes it";

/// What was received, whole and on the disk.
pub(super) struct Received {
    /// What passed on the way; `None` in a dry run.
    told: Option<Told>,
    /// How long the whole stream is, see [`Record::stream`].
    stream: Option<u64>,
    /// The subvolume.
    found: Subvolume,
    /// Its UUID.
    uuid: String,
    /// The parts in which it was received.
    parts: Vec<Found>,
}

/// Where a stream comes from.
pub(super) enum Origin<'a> {
    /// A snapshot of this machine.
    Here(&'a StillSubvolume),
    /// Our own standard input.
    Input,
}

/// One copy on its way.
pub(super) struct Transfer<'a> {
    pub engine: &'a BtrfsEngine,
    pub catalog: &'a Catalog<'a>,
    /// The UUID of the snapshot that is sent.
    pub sent: &'a str,
    /// The generation that it has.
    pub generation: u64,
    pub origin: Origin<'a>,
    pub name: String,
    pub made: &'a Made,
    /// So many bytes make a part; `None`: it is received as a whole.
    pub part_size: Option<u64>,
    /// How much space must stay free where it is received, if it must.
    pub min_free: Option<MinFree>,
}

/// A copy that has its name.
pub(super) struct Sealed {
    pub name: String,
    pub bytes: Option<u64>,
    pub files: Option<u64>,
    /// What could not be removed, in words.
    pub left: Option<String>,
}

impl Sealed {
    /// What is reported of it.
    pub fn report(self, mut warnings: Vec<String>) -> BackupReport {
        warnings.extend(self.left);
        reported(self.name, self.bytes, self.files, warnings)
    }
}

impl Transfer<'_> {
    /// Sends and receives, from the beginning or behind what is there.
    pub fn carry_out(
        &self,
        base: Option<&Record>,
        behind: Option<(Part, Found)>,
        progress: OnProgress<'_>,
    ) -> Result<Received, Failure> {
        let _told = self.catalog.place.watch()?;
        let every = behind.as_ref().map(|(part, _)| part.every).or(self.part_size);
        let mark = behind.as_ref().map(|(part, _)| part.clone());
        let cutting = every.map(|every| self.cutting(every, mark.as_ref())).transpose()?;
        let draft = Part::none(
            &self.name,
            self.made,
            self.sent,
            self.generation,
            every.unwrap_or(u64::MAX),
        );
        let base_uuid = base.map(|base| &*base.uuid);
        let mut parting = Parting::begin(self.catalog, draft, base_uuid, behind);
        let received = self.try_to_carry_out(base, cutting.as_ref(), &mut parting, progress);
        // What came at once was on the disk before anybody looked.
        let received =
            received.and_then(|it| self.require_room().map(|()| it).map_err(Failure::Other));
        received.inspect_err(|failure| {
            let _shield = self.catalog.cx.host.shield();
            let stays = parting.stays().filter(|_| failure.may_go_on());
            self.clear_away(stays.as_ref());
        })
    }

    /// When something failed, nothing of the copy is left but what can be gone on from: it would take up space on a disk
    /// that may be full.
    fn clear_away(&self, stays: Option<&Part>) {
        // What a signal stopped must still be cleared away.
        let _shield = self.catalog.cx.host.shield();
        if let Err(error) = self.try_to_clear_away(stays) {
            tracing::warn!(%error, "{LEFT}");
        }
    }

    fn try_to_clear_away(&self, stays: Option<&Part>) -> Result<(), EngineError> {
        let catalog = self.catalog;
        let mut is_clear = true;
        // The name is new, and nobody but our receiver makes it and those of its parts.
        for name in
            catalog.left(stays.map_or(&[], std::slice::from_ref), |copy| copy == self.name)?
        {
            let path = catalog.location.join(name);
            let Some(found) = catalog.subvolume(&path)? else { continue };
            catalog.place.delete(&path, found)?;
            is_clear = false;
        }
        if is_clear {
            return Ok(());
        }
        // The file system frees its space only after that.
        catalog.flush()?;
        // Whoever failed to rename it may have done so all the same.
        if catalog.subvolume(&catalog.path(&self.name))?.is_none() {
            catalog.forget(&self.name)?;
        }
        catalog.forget_parts()
    }

    /// Refuses a name that is taken, before anything is written.
    pub fn refuse_taken(&self) -> Result<(), EngineError> {
        match self.catalog.is_taken(&self.name, &self.made.run, self.sent)? {
            false => Ok(()),
            true => Err(EngineError::Refused {
                engine: "btrfs",
                repository: self.catalog.place.name(),
                detail: format!(
                    "{} is there already, or the record of another copy of that name is, so nothing was sent and nothing written over",
                    self.name
                ),
            }),
        }
    }

    /// Removes what is left of copies of this series that another one overtook. The part with which this one goes on stays.
    pub fn clear_others(&self, stays: Option<&Part>) -> Result<(), EngineError> {
        let own = series_in(&self.name);
        let mut left = self
            .catalog
            .left(stays.map_or(&[], std::slice::from_ref), |copy| series_in(copy) == own)?;
        // The others have one name each, by which the run that began them knows them.
        left.retain(|name| of_part(name).is_some() || finished_name(name) == Some(&self.name));
        match left.is_empty() {
            true => Ok(()),
            false => self.engine.delete(self.catalog.cx, &left).map_err(|error| match error {
                // Nothing is left uncleaned by that: there is no copy.
                EngineError::InUse { repository, detail } => {
                    EngineError::Refused { engine: "btrfs", repository, detail }
                }
                error => error,
            }),
        }
    }

    /// Refuses to go on where less space is free than must stay free.
    pub fn require_room(&self) -> Result<(), EngineError> {
        let Some(min_free) = self.min_free else { return Ok(()) };
        let (host, location) = (self.catalog.cx.host, &self.catalog.location);
        match shortage(host, location, min_free)? {
            None => Ok(()),
            Some(lack) => Err(EngineError::Full {
                repository: self.catalog.place.name(),
                detail: lack.to_string(),
            }),
        }
    }

    /// How the stream is taken apart.
    fn cutting(&self, every: u64, behind: Option<&Part>) -> Result<Cutting, EngineError> {
        let seed = new_uuid(self.catalog.cx.host);
        let leave_out = matches!(self.origin, Origin::Here(_));
        let behind = behind.map(|part| -> Result<Behind, EngineError> {
            let received = Some(uuid(&part.uuid)?);
            Ok(Behind { mark: part.mark.clone(), received, leave_out })
        });
        Ok(Cutting { every, seed: Some(seed), behind: behind.transpose()? })
    }

    fn try_to_carry_out(
        &self,
        base: Option<&Record>,
        cutting: Option<&Cutting>,
        parting: &mut Parting<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Received, Failure> {
        let cx = self.catalog.cx;
        let (_, incoming) = self.catalog.incoming(&self.name);
        let parent = base.map(|base| -> Result<Parent, EngineError> {
            let (sent, received) = (uuid(&base.sent)?, uuid(&base.uuid)?);
            // Of several, the receiver might take one that a power cut has emptied.
            let shared = if self.catalog.place.is_only_one(sent) { sent } else { received };
            Ok(Parent { sent, received, shared, generation: Some(base.generation) })
        });
        let expected =
            Expectation { name: incoming, uuid: uuid(self.sent)?, parent: parent.transpose()? };
        let (mut before, receive) = self.commands(base, &expected)?;
        // That of the sender is its snapshot's, of which more may be sent afterwards.
        let (halt, mut full) = (Halt::default(), None);
        let stage = before.pop().map(|stage| command::parted(stage, cutting));
        before.extend(stage.map(|mut stage| {
            stage.view.halt = halt.clone();
            stage
        }));
        let (meets, target) = ((cx.host, cx.seat), &self.engine.target);
        let chained = chain(meets, target, (&before, &receive), &mut |stream, line| {
            if stream == Stream::ProducerErr {
                heard(line, progress);
                parting.hear(line);
                // About once a second.
                full = full.take().or_else(|| self.require_room().err());
                // Nothing that comes behind it would be recorded, and all of it sent again.
                let reason = parting.trouble().or(full.as_ref().map(ToString::to_string));
                if let Some(reason) = reason {
                    halt.raise(reason);
                }
            }
        });
        let chained = match chained {
            // What it was halted for says more.
            Err(error @ RunError::Halted { .. }) => {
                let trouble = parting.take_trouble().map(|it| it.of(base));
                let why = trouble.or(full.map(Failure::Other));
                return Err(why.unwrap_or_else(|| Failure::Other(error.into())));
            }
            chained => chained.map_err(EngineError::from)?,
        };
        if chained.last.is_predicted {
            // As far as anybody will ask.
            let uuid = self.name.clone();
            let found = Subvolume { uuid: Some(uuid.clone()), ..Subvolume::default() };
            return Ok(Received { told: None, stream: None, found, uuid, parts: Vec::new() });
        }
        let told = self.judge(base, &before, &receive, &chained)?;
        let ended = parting.finish().map_err(|trouble| trouble.of(base))?;
        self.look_at(base, &told, ended)
    }

    /// What was received, once it is on the disk and found to be what was sent.
    fn look_at(
        &self,
        base: Option<&Record>,
        told: &Told,
        ended: Ended,
    ) -> Result<Received, Failure> {
        let (told, stream) = (ended.told(*told), ended.stream(told));
        let (path, _) = self.catalog.incoming(&self.name);
        // What was received is nowhere yet.
        self.catalog.flush()?;
        let found = self.catalog.known_subvolume(&path)?;
        let whole = found.clone().filter(|found| self.is_it(found, ended.parent.as_ref(), &told));
        let uuid = whole.as_ref().and_then(|found| found.uuid.clone());
        match whole.zip(uuid) {
            Some((found, uuid)) => {
                Ok(Received { told: Some(told), stream, found, uuid, parts: ended.parts })
            }
            None => {
                let what = format!(
                    "btrfs receive ended well, and {} is not what was sent: {found:?}",
                    path.shown()
                );
                Err(Failure::of(base, EngineError::Output { engine: "btrfs", what }))
            }
        }
    }

    /// What brings the stream, and what takes it.
    fn commands(
        &self,
        base: Option<&Record>,
        expected: &Expectation,
    ) -> Result<(Vec<CommandSpec>, CommandSpec), EngineError> {
        let place = &self.catalog.place;
        let limit = self.engine.target.stall_timeout;
        let before = match self.origin {
            Origin::Here(still) => {
                let sent_as = |base: &Record| still.earlier.iter().find(|it| it.uuid == base.sent);
                let data = self.engine.takes(self.catalog);
                sender(self.engine, still, base.and_then(sent_as), expected, data).into()
            }
            Origin::Input => {
                let mut stage = command::stage(expected, Reader::Next, limit);
                stage.input = Reads::Own;
                vec![stage]
            }
        };
        let mut receive = place.receiver(limit)?;
        let about = prediction_about(&self.catalog.path(&self.name));
        receive.prediction.facts = vec![Fact { about, value: b"received".to_vec() }];
        Ok((before, receive))
    }

    /// What passed, if every process ended well and the stage saw the end.
    fn judge(
        &self,
        base: Option<&Record>,
        before: &[CommandSpec],
        receive: &CommandSpec,
        chained: &Chained,
    ) -> Result<Told, Failure> {
        if let Some(failure) = told_by_stage("btrfs", base, before, &chained.before) {
            return Err(failure);
        }
        if let Some((spec, ended)) = culprit(before, receive, chained) {
            let there = match self.origin {
                Origin::Here(still) => sender_failed(self.catalog.cx, still, before, spec, ended),
                Origin::Input => None,
            };
            let error = there.unwrap_or_else(|| self.catalog.place.why(spec, ended));
            let is_refused = std::ptr::eq(ended, &chained.last)
                && ended.code().is_some()
                && matches!(error, EngineError::Failed { .. });
            let is_ours = matches!(self.origin, Origin::Here(_));
            return Err(match is_refused {
                true => Failure::of(base, error),
                false if is_ours && cannot_be_sent(&chained.before) => Failure::Refused(error),
                false => Failure::Other(error),
            });
        }
        let told = chained.before.last().and_then(|stage| Told::last(&stage.stderr_tail));
        told.filter(|told| told.whole).ok_or_else(|| {
            Failure::Other(EngineError::Output {
                engine: "btrfs",
                what: "nothing was told of what passed between sender and receiver".into(),
            })
        })
    }

    /// Whether a subvolume is what was sent, and all of it: a snapshot of what it is based on, or of the last part, of
    /// which that was looked at in its time.
    fn is_it(&self, found: &Subvolume, parent: Option<&String>, told: &Told) -> bool {
        found.is_received_as(self.sent, told.generation)
            && told.generation == self.generation
            && found.parent_uuid.as_ref() == parent
    }

    /// Records the copy, and gives it the name of a whole one: that one never has without a record.
    pub fn seal(&self, base: Option<&Record>, received: Received) -> Result<Sealed, EngineError> {
        self.try_to_seal(base, received).inspect_err(|error| {
            // What a signal stopped must still be looked at.
            let _shield = self.catalog.cx.host.shield();
            let stays = match error.is_of_space() {
                true => Ok(None),
                false => self.catalog.part_of(&self.name),
            };
            match stays {
                Ok(stays) => self.clear_away(stays.as_ref().map(|(part, _)| part)),
                // It may be all that was sent, so it stays until somebody can look.
                Err(error) => tracing::warn!(%error, "{LEFT}"),
            }
        })
    }

    fn try_to_seal(
        &self,
        base: Option<&Record>,
        Received { told, stream, found, uuid, parts }: Received,
    ) -> Result<Sealed, EngineError> {
        let (path, _) = self.catalog.incoming(&self.name);
        let files =
            told.as_ref().and_then(|told| files(told, base.map_or(Some(0), |base| base.files)));
        let bytes = told.map(|told| told.bytes);
        self.catalog.record(&Record {
            format: Record::FORMAT,
            name: self.name.clone(),
            uuid,
            sent: self.sent.to_owned(),
            generation: self.generation,
            changed: found.changed,
            parent: base.map(|base| base.uuid.clone()),
            made: self.made.clone(),
            bytes,
            stream,
            files,
            pinned: false,
            unproven: false,
            going: false,
        })?;
        self.catalog.place.rename(&path, found, &self.name)?;
        let left = self.drop_parts(parts).err().map(|error| {
            format!("parts of the copy, which is whole, are left, and the next one removes them: {error}")
        });
        Ok(Sealed { name: self.name.clone(), bytes, files, left })
    }

    /// Deletes the parts of a copy that has its name.
    fn drop_parts(&self, parts: Vec<Found>) -> Result<(), EngineError> {
        if parts.is_empty() {
            return Ok(());
        }
        for Found { path, found } in parts {
            self.catalog.place.delete(&path, found)?;
        }
        self.catalog.flush()?;
        self.catalog.forget_parts()
    }
}
