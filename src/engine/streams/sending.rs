//! A stream on its way into objects: one process sends, and one object after the other is compressed, encrypted and stored.

use super::begun::Begun;
use super::record::part_of;
use super::way::{Earlier, Transfer};
use crate::engine::helped::Failure;
use crate::engine::made::Made;
use crate::engine::sent::{
    Data, base_changed, cannot_be_sent, culprit_of, failure, heard, sender, uuid,
};
use crate::engine::unsent::sender_failed;
use crate::engine::{EngineError, OnProgress};
use crate::host::{CommandSpec, Completed, HeldEnd, Stream};
use crate::tools::btrfs::command::{self, Told};
use crate::tools::btrfs::parts::{Mark, has_differed};
use crate::tools::btrfs::shares::Sharing;
use crate::tools::btrfs::stage::{Expectation, Parent};
use crate::tools::object::{Digest, From, ShareEnd};
use crate::tools::{age, zstd};

/// One stream on its way.
pub(super) struct Sending<'t> {
    transfer: &'t Transfer<'t>,
    base: Option<&'t Earlier<'t>>,
    /// So many bytes make a part.
    every: u64,
    /// The last record of its parts, if there is one.
    begun: Option<Begun>,
    /// What is stored of it, in order.
    parts: Vec<Digest>,
    /// How many of those were there before.
    earlier: usize,
}

/// What was sent, whole.
pub(super) struct Sent {
    /// What passed.
    pub told: Told,
    /// All of the stream, also what had been stored before.
    pub stream: Digest,
}

/// How one object was stored.
struct Turn {
    stored: Digest,
    /// Where it ends, if another one follows.
    mark: Option<Mark>,
}

impl<'t> Sending<'t> {
    /// Begins behind these parts, or from the beginning.
    pub fn begin(
        transfer: &'t Transfer<'t>,
        base: Option<&'t Earlier<'t>>,
        begun: Option<Begun>,
    ) -> Self {
        let usual = transfer.engine.target.part_size().unwrap_or(u64::MAX);
        let every = begun.as_ref().map_or(usual, |begun| begun.every);
        let parts = begun.as_ref().map(|begun| begun.parts.clone()).unwrap_or_default();
        Self { transfer, base, every, begun, earlier: parts.len(), parts }
    }

    /// The parts that are recorded.
    pub fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    /// What is stored, in order.
    pub fn parts(&self) -> &[Digest] {
        &self.parts
    }

    /// How much was stored that was not there before, in bytes.
    pub fn bytes_new(&self) -> u64 {
        self.parts.iter().skip(self.earlier).map(|part| part.bytes).sum()
    }

    /// Sends and stores all of it. `None` in a dry run.
    ///
    /// # Errors
    /// Why not. What is recorded by then is [`Sending::begun`].
    pub fn carry_out(&mut self, progress: OnProgress<'_>) -> Result<Option<Sent>, Failure> {
        let host = self.transfer.catalog.store.cx.host;
        let source = self.source()?;
        let mut watch = |stream: Stream, line: &[u8]| {
            if stream == Stream::ProducerErr {
                heard(line, progress);
            }
        };
        let mut held = host.hold(&source, HeldEnd::Writes).map_err(EngineError::from)?;
        loop {
            let object = part_of(&self.transfer.object, self.parts.len());
            let (specs, told_at) = self.turn(&object);
            let ended = held.turn(&specs, &mut watch).map_err(EngineError::from)?;
            if ended.iter().any(|ended| ended.is_predicted) {
                return Ok(None);
            }
            if !ended.iter().all(Completed::success) {
                let sent = held.stop().map_err(EngineError::from)?;
                return Err(self.failed((&source, &sent), (&specs, &ended)));
            }
            let Turn { stored, mark } = self.stored(&object, &ended, told_at)?;
            self.parts.push(stored);
            let Some(mark) = mark else { break };
            self.record(mark)?;
        }
        let sent = held.finish(&mut watch).map_err(EngineError::from)?;
        if !sent.iter().all(Completed::success) {
            return Err(self.failed((&source, &sent), (&[], &[])));
        }
        self.seen(&sent).map(Some)
    }

    /// What sends, and passes on what is to be stored.
    fn source(&self) -> Result<[CommandSpec; 2], EngineError> {
        let Transfer { engine, still, name, .. } = self.transfer;
        // The stream keeps the UUID of what it is based on: whatever received that finds it by this.
        let parent = |base: &Earlier<'_>| -> Result<Parent, EngineError> {
            let (sent, generation) = (uuid(&base.snapshot.uuid)?, Some(base.snapshot.generation));
            Ok(Parent { sent, received: sent, shared: sent, generation })
        };
        let expected = Expectation {
            name: name.clone(),
            uuid: uuid(&still.snapshot.uuid)?,
            parent: self.base.map(parent).transpose()?,
        };
        let base = self.base.map(|base| base.snapshot);
        let [send, stage] = sender(*engine, still, base, &expected, Data::Plain);
        let behind = self.begun.as_ref().map(|begun| begun.mark.clone());
        let stage = command::shared(stage, &Sharing { every: self.every, behind });
        Ok([send, stage.arg(command::DIGEST)])
    }

    /// The processes that store one object, and the place of the one that tells what was stored.
    fn turn(&self, object: &str) -> (Vec<CommandSpec>, usize) {
        let Transfer { engine, catalog, .. } = self.transfer;
        let limit = engine.target.stall_timeout;
        let mut specs = Vec::new();
        specs.extend(engine.options.compression.map(|level| zstd::compress(level, limit)));
        specs.extend(engine.options.recipients_file.as_ref().map(|it| age::encrypt(it, limit)));
        if specs.is_empty() {
            return (catalog.store.take(From::Share, object), 0);
        }
        specs.insert(0, catalog.store.share());
        let told_at = specs.len();
        specs.extend(catalog.store.take(From::Before, object));
        (specs, told_at)
    }

    /// What an object is, if it is there.
    fn stored(&self, object: &str, ended: &[Completed], at: usize) -> Result<Turn, EngineError> {
        let said = |at: usize| ended.get(at).map_or(&[][..], |ended| &ended.stderr_tail);
        let mark = ShareEnd::last(said(0)).and_then(|end| match end.share_ends {
            Some(word) => Mark::parse(&word).map(Some),
            None => Some(None),
        });
        let Some((mark, stored)) = mark.zip(Digest::last(said(at))) else {
            let what = "nothing was told of what was stored".into();
            return Err(EngineError::Output { engine: "streams", what });
        };
        match self.transfer.catalog.holds(object, stored.bytes)? {
            true => Ok(Turn { stored, mark }),
            false => {
                let what = format!("{object} was stored, and is not there as it was");
                Err(EngineError::Output { engine: "streams", what })
            }
        }
    }

    /// Records that all parts up to this mark are stored.
    fn record(&mut self, mark: Mark) -> Result<(), EngineError> {
        let Transfer { engine, catalog, still, request, name, recipients, .. } = self.transfer;
        let begun = Begun {
            format: Begun::FORMAT,
            name: name.clone(),
            sent: still.snapshot.uuid.clone(),
            generation: still.snapshot.generation,
            base: self.base.map(Earlier::as_base),
            made: Made::of(request),
            compressed: engine.options.compression.is_some(),
            recipients: recipients.clone(),
            every: self.every,
            parts: self.parts.clone(),
            mark,
        };
        catalog.record_parts(&begun)?;
        self.begun = Some(begun);
        Ok(())
    }

    /// What passed, if the stage saw the end.
    fn seen(&self, sent: &[Completed]) -> Result<Sent, Failure> {
        let stage = sent.last().map(|stage| &stage.stderr_tail);
        let told = stage.and_then(|said| Told::last(said)).filter(|told| told.whole);
        let told = told.filter(|it| it.generation == self.transfer.still.snapshot.generation);
        let all = told.zip(stage.and_then(|said| Digest::last(said)));
        all.map(|(told, stream)| Sent { told, stream }).ok_or_else(|| {
            let what = "nothing was told of what was sent, or it is not what was to be sent".into();
            EngineError::Output { engine: "streams", what }.into()
        })
    }

    /// Why nothing more was stored.
    fn failed(
        &self,
        (source, sent): (&[CommandSpec], &[Completed]),
        (specs, ended): (&[CommandSpec], &[Completed]),
    ) -> Failure {
        let Transfer { engine, catalog, still, .. } = self.transfer;
        if sent.last().is_some_and(|stage| has_differed(&stage.stderr_tail)) {
            let what = "the snapshot is not what was sent before".to_owned();
            return Failure::Differs(EngineError::Output { engine: "streams", what });
        }
        if let Some(error) = base_changed(source, sent) {
            return Failure::of(self.base, error);
        }
        let all = source.iter().zip(sent).chain(specs.iter().zip(ended));
        let Some((spec, ended)) = culprit_of(all) else {
            let what = "a process failed, and none of them says so".to_owned();
            return Failure::Other(EngineError::Output { engine: "streams", what });
        };
        let there = sender_failed(catalog.store.cx, still, source, spec, ended);
        let error = there.unwrap_or_else(|| failure(&engine.target, spec, ended));
        match cannot_be_sent(sent) {
            true => Failure::Refused(error),
            false => Failure::Other(error),
        }
    }
}
