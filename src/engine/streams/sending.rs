//! A stream on its way into objects: one process sends, and one object after the other is compressed, encrypted and stored.

use super::begun::{Begun, Part};
use super::way::{Earlier, Transfer};
use crate::engine::helped::{Failure, told_by_stage};
use crate::engine::made::Made;
use crate::engine::sent::{Data, culprit_of, failure, heard, sender, uuid};
use crate::engine::sharing::chain;
use crate::engine::unsent::sender_failed;
use crate::engine::{EngineError, OnProgress, SentFrom};
use crate::host::{Chained, CommandSpec, Completed, Held, HeldEnd, Stream, Watch};
use crate::tools::btrfs::command::{self, Told};
use crate::tools::btrfs::parts::{Mark, is_unfit};
use crate::tools::btrfs::shares::{BEGINS, Splitting};
use crate::tools::btrfs::stage::{Expectation, Parent};
use crate::tools::object::{Digest, From, ShareEnd};
use crate::tools::{age, zstd};

/// One stream on its way.
pub(super) struct Sending<'t> {
    transfer: &'t Transfer<'t>,
    base: Option<&'t Earlier<'t>>,
    /// So many bytes make a part; `None`: it goes into one object.
    every: Option<u64>,
    /// The last record of its parts, if there is one.
    begun: Option<Begun>,
    /// What is stored of it, in order.
    stored: Vec<Digest>,
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

/// Processes and how they ended, in the order in which each reads what the one before it writes.
type Ended<'e> = (&'e [CommandSpec], &'e [Completed]);

impl<'t> Sending<'t> {
    /// Begins behind these parts, or from the beginning.
    pub fn begin(
        transfer: &'t Transfer<'t>,
        base: Option<&'t Earlier<'t>>,
        begun: Option<Begun>,
    ) -> Self {
        let usual = transfer.engine.target.part_size();
        let every = begun.as_ref().map(|begun| begun.every).or(usual);
        let parts = begun.iter().flat_map(|begun| &begun.parts);
        let stored: Vec<Digest> = parts.map(|part| part.stored.clone()).collect();
        Self { transfer, base, every, begun, earlier: stored.len(), stored }
    }

    /// The parts that are recorded.
    pub fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    /// What is stored, in order.
    pub fn stored(&self) -> &[Digest] {
        &self.stored
    }

    /// How much was stored that was not there before, in bytes.
    pub fn bytes_new(&self) -> u64 {
        self.stored.iter().skip(self.earlier).map(|stored| stored.bytes).sum()
    }

    /// Sends and stores all of it. `None` in a dry run.
    ///
    /// # Errors
    /// Why not. What is recorded by then is [`Sending::begun`].
    pub fn carry_out(&mut self, progress: OnProgress<'_>) -> Result<Option<Sent>, Failure> {
        let mut watch = |stream: Stream, line: &[u8]| {
            if stream == Stream::ProducerErr {
                heard(line, progress);
            }
        };
        let sent = match self.every {
            Some(every) => self.in_parts(every, &mut watch)?,
            None => self.in_one(&mut watch)?,
        };
        let stored = self.stored.iter().enumerate();
        let objects = stored.map(|(n, stored)| (self.transfer.object(n), stored.bytes));
        match sent.is_some().then(|| self.transfer.catalog.missing(objects)).transpose()? {
            None | Some(None) => Ok(sent),
            Some(Some(object)) => {
                let what = format!("{object} was stored, and is not there as it was");
                Err(EngineError::Output { engine: "streams", what }.into())
            }
        }
    }

    /// All of it becomes one object.
    fn in_one(&mut self, watch: Watch<'_>) -> Result<Option<Sent>, Failure> {
        let cx = self.transfer.catalog.store.cx;
        let [send, stage] = self.source()?;
        let source = [send, stage.arg(command::DIGEST)];
        let (specs, told_at) = self.storing(From::Before, &self.transfer.object(0));
        let Some((last, between)) = specs.split_last() else { return Ok(None) };
        let before = [&source, between].concat();
        let (meets, target) = ((cx.host, cx.seat), &self.transfer.engine.target);
        let chained = chain(meets, target, (&before, last), watch).map_err(EngineError::from)?;
        let Chained { before: mut sent, last, bytes: _ } = chained;
        if last.is_predicted {
            return Ok(None);
        }
        let mut ended = sent.split_off(source.len());
        ended.push(last);
        if !sent.iter().chain(&ended).all(Completed::success) {
            return Err(self.failed((&source, &sent), (&specs, &ended)));
        }
        self.stored.push(told_of(&ended, told_at)?);
        self.seen(&sent).map(Some)
    }

    /// Each part of it becomes an object, and is recorded when it is there.
    fn in_parts(&mut self, every: u64, watch: Watch<'_>) -> Result<Option<Sent>, Failure> {
        let host = self.transfer.catalog.store.cx.host;
        let behind = self.begun.as_ref().and_then(|begun| begun.parts.last());
        let behind = behind.map(|part| part.mark.clone());
        let begins = behind.as_ref().map_or_else(|| BEGINS.to_owned(), Mark::word);
        let [send, stage] = self.source()?;
        let stage = command::split(stage, &Splitting { every, behind });
        let source = [send, stage.arg(command::DIGEST)];
        let mut held = host.hold(&source, HeldEnd::Writes).map_err(EngineError::from)?;
        let waits = [self.transfer.catalog.store.awaits()];
        let ended = held.turn(&waits, watch).map_err(EngineError::from)?;
        held = self.unless_failed(held, &source, (&waits, &ended))?;
        let is_predicted = ended.iter().any(|ended| ended.is_predicted);
        if !is_predicted && end_of(&ended)?.is_none_or(|word| word != begins) {
            return Err(untold().into());
        }
        loop {
            let object = self.transfer.object(self.stored.len());
            let (specs, told_at) = self.storing(From::Share, &object);
            let ended = held.turn(&specs, watch).map_err(EngineError::from)?;
            if ended.iter().any(|ended| ended.is_predicted) {
                return Ok(None);
            }
            held = self.unless_failed(held, &source, (&specs, &ended))?;
            let mark = end_of(&ended)?.map(|word| Mark::parse(&word).ok_or_else(untold));
            self.stored.push(told_of(&ended, told_at)?);
            let Some(mark) = mark.transpose()? else { break };
            self.record(every, mark)?;
        }
        let sent = held.finish(watch).map_err(EngineError::from)?;
        if !sent.iter().all(Completed::success) {
            return Err(self.failed((&source, &sent), (&[], &[])));
        }
        self.seen(&sent).map(Some)
    }

    /// Goes on with what is held, if all that had their turn beside it ended well.
    fn unless_failed<'h>(
        &self,
        held: Box<dyn Held + 'h>,
        source: &[CommandSpec],
        turn: Ended<'_>,
    ) -> Result<Box<dyn Held + 'h>, Failure> {
        if turn.1.iter().all(Completed::success) {
            return Ok(held);
        }
        let sent = held.stop().map_err(EngineError::from)?;
        Err(self.failed((source, &sent), turn))
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
        Ok(sender(*engine, still, base, &expected, Data::Plain))
    }

    /// The processes that store one object, and the place of the one that tells what was stored.
    fn storing(&self, from: From<'_>, object: &str) -> (Vec<CommandSpec>, usize) {
        let Transfer { engine, catalog, .. } = self.transfer;
        let limit = engine.target.stall_timeout;
        let mut specs = Vec::new();
        specs.extend(engine.options.compression.map(|level| zstd::compress(level, limit)));
        specs.extend(engine.options.recipients_file.as_ref().map(|it| age::encrypt(it, limit)));
        if specs.is_empty() {
            return (catalog.store.take(from, object), 0);
        }
        if matches!(from, From::Share) {
            specs.insert(0, catalog.store.share());
        }
        let told_at = specs.len();
        specs.extend(catalog.store.take(From::Before, object));
        (specs, told_at)
    }

    /// Records that all parts up to this mark are stored.
    fn record(&mut self, every: u64, mark: Mark) -> Result<(), EngineError> {
        let Transfer { engine, catalog, still, request, name, recipients, .. } = self.transfer;
        let Some(stored) = self.stored.last().cloned() else { return Err(untold()) };
        let mut begun = self.begun.clone().unwrap_or_else(|| Begun {
            format: Begun::FORMAT,
            name: name.clone(),
            sent: still.snapshot.uuid.clone(),
            generation: still.snapshot.generation,
            base: self.base.map(Earlier::as_base),
            made: Made::of(request),
            compressed: engine.options.compression.is_some(),
            recipients: recipients.clone(),
            every,
            read_back: 0,
            parts: Vec::new(),
            is_cut: false,
        });
        begun.parts.push(Part { stored, mark });
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
    fn failed(&self, (source, sent): Ended<'_>, (specs, ended): Ended<'_>) -> Failure {
        let Transfer { engine, catalog, still, .. } = self.transfer;
        if let Some(failure) = told_by_stage("streams", self.base, source, sent) {
            return failure;
        }
        let all = source.iter().zip(sent).chain(specs.iter().zip(ended));
        let Some((spec, ended)) = culprit_of(all) else {
            let what = "a process failed, and none of them says so".to_owned();
            return Failure::Other(EngineError::Output { engine: "streams", what });
        };
        let known = sender_failed(catalog.store.cx, still, source, spec, ended);
        // A sender that failed by itself may come to its end the next time, but for what is known of one on this machine: that
        // stays as it is.
        let is_here = matches!(still.from, SentFrom::Here(_));
        let stays = (is_here && known.is_some())
            || sent.last().is_some_and(|stage| is_unfit(&stage.stderr_tail));
        let error = known.unwrap_or_else(|| failure(&engine.target, spec, ended));
        match stays {
            true => Failure::Refused(error),
            false => Failure::Other(error),
        }
    }
}

/// What was stored, as the process at this place tells it.
fn told_of(ended: &[Completed], at: usize) -> Result<Digest, EngineError> {
    ended.get(at).and_then(|ended| Digest::last(&ended.stderr_tail)).ok_or_else(untold)
}

/// The word at the end of the share that the first of these took; `None`: it was the last one.
fn end_of(ended: &[Completed]) -> Result<Option<String>, EngineError> {
    let end = ended.first().and_then(|taker| ShareEnd::last(&taker.stderr_tail));
    end.map(|end| end.share_ends).ok_or_else(untold)
}

fn untold() -> EngineError {
    let what = "nothing was told of what was stored".into();
    EngineError::Output { engine: "streams", what }
}
