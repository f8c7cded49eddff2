//! Copies on their way back: the stream of one is received as the subvolume that it is of.

use std::path::Path;

use super::sent::{Blame, culprit, failure, heard, new_uuid, uuid};
use super::{AsSubvolume, Context, Engine, EngineError, OnProgress};
use crate::host::{
    Action, Chained, CommandSpec, Halt, Host, PrivateView, RunError, Stream, Subvolume, uuid_text,
};
use crate::model::shown::Show;
use crate::model::size;
use crate::tools::btrfs::command::{self, Reader, Told};
use crate::tools::btrfs::stage::Expectation;

/// What receives a stream where it is wanted, and can write nowhere else.
pub(super) fn receiver(engine: &dyn Engine, wanted: &AsSubvolume<'_>) -> CommandSpec {
    let seen = wanted.confinement.as_ref().and_then(|it| it.staged.first());
    let seen = seen.map_or(wanted.into, |staged| staged.at.as_path());
    let limit = engine.target().stall_timeout;
    let mut receive = command::receive(&engine.program(), seen, limit);
    receive.confinement = wanted.confinement.clone();
    receive
}

/// The stage that the stream of a whole copy passes, which was sent as `sent`; and the UUID as which it is received.
///
/// # Errors
/// When that is no UUID.
pub(super) fn stage(
    cx: Context<'_>,
    engine: &dyn Engine,
    wanted: &AsSubvolume<'_>,
    sent: &str,
) -> Result<(CommandSpec, String), EngineError> {
    let expected = Expectation { name: wanted.name.to_owned(), uuid: uuid(sent)?, parent: None };
    let stage = command::stage(&expected, Reader::Next, engine.target().stall_timeout);
    let other = wanted.nameless.then(|| new_uuid(cx.host));
    let received = other.map_or_else(|| sent.to_owned(), uuid_text);
    Ok((command::received_as(stage, other), received))
}

/// Receives what these processes bring, the one that sends and our stage, as a subvolume that says it was received as `sent`. It
/// is on the disk then; an empty one in a dry run.
///
/// # Errors
/// When it was not received whole.
pub(super) fn receive(
    cx: Context<'_>,
    engine: &dyn Engine,
    [sending, stage]: [CommandSpec; 2],
    (wanted, sent): (&AsSubvolume<'_>, &str),
    blame: Blame<'_>,
    progress: OnProgress<'_>,
) -> Result<Subvolume, EngineError> {
    let receive = receiver(engine, wanted);
    let _told = cx.host.watch_writes(wanted.into)?;
    let mut room = Room::of(cx.host, wanted)?;
    let before = [sending, room.watching(stage)];
    let chained = cx.host.chain(&before, &receive, &mut |stream, line| {
        if stream == Stream::ProducerErr {
            heard(line, progress);
            room.look(line);
        }
    });
    let chained = room.judged(chained)?;
    if chained.last.is_predicted {
        return Ok(Subvolume::default());
    }
    if let Some((spec, ended)) = culprit(&before, &receive, &chained) {
        return Err(match std::ptr::eq(ended, &chained.last) {
            true => failure(engine.target(), spec, ended).of_place(wanted.into),
            false => blame(spec, ended),
        });
    }
    let whole = passed(&chained).filter(|told| told.whole);
    room.settled()?;
    found(cx.host, wanted, sent, whole.map(|told| told.generation))
}

/// The subvolume that was received where it is wanted, as `sent` with this generation. One whose stream was not whole has none.
///
/// # Errors
/// When another one is there, or it cannot be looked at.
pub(super) fn found(
    host: &dyn Host,
    wanted: &AsSubvolume<'_>,
    sent: &str,
    generation: Option<u64>,
) -> Result<Subvolume, EngineError> {
    let at = wanted.into.join(wanted.name);
    let found = host.subvolume(&at)?;
    let is_it =
        |found: &Subvolume| generation.is_some_and(|claimed| found.is_received_as(sent, claimed));
    found.filter(is_it).ok_or_else(|| {
        let what = format!("btrfs receive ended well, and {} is not what was sent", at.shown());
        EngineError::Output { engine: "btrfs", what }
    })
}

/// The space that stays free where something is received, whatever was said of how much that is.
pub(super) struct Room<'a> {
    host: &'a dyn Host,
    into: &'a Path,
    leave_free: Option<u64>,
    /// How much was free when all that had passed was on the disk, and how much had: a file system tells of nothing that is
    /// still to be written.
    seen: (u64, u64),
    /// Bytes that have passed by now, and those of them that were of streams before this one.
    passed: u64,
    before: u64,
    halt: Halt,
    full: Option<EngineError>,
}

impl<'a> Room<'a> {
    /// That of all that is received for one copy, before any of it is.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn of(host: &'a dyn Host, wanted: &AsSubvolume<'a>) -> Result<Self, EngineError> {
        let (into, leave_free, halt) = (wanted.into, wanted.leave_free, Halt::default());
        let free = leave_free.map_or(Ok(0), |_| host.free_space(into))?;
        Ok(Self { host, into, leave_free, seen: (free, 0), passed: 0, before: 0, halt, full: None })
    }

    /// Our stage, which tells about once a second how far it is, and ends when there is too little.
    pub fn watching(&self, stage: CommandSpec) -> CommandSpec {
        let view = PrivateView { halt: self.halt.clone(), ..stage.view };
        CommandSpec { view, ..stage }
    }

    /// Ends what is received when there is too little, by a line that our stage tells.
    pub fn look(&mut self, line: &[u8]) {
        let Some(told) = Told::read(line).filter(|_| self.full.is_none()) else { return };
        let passed = told.bytes.saturating_add(told.unpacked);
        self.passed = self.before.saturating_add(passed);
        if let Err(error) = self.require_meanwhile() {
            self.halt.raise(error.to_string());
            self.full = Some(error);
        }
    }

    /// What was received, unless it was ended so.
    ///
    /// # Errors
    /// As the processes, or with what it was ended for.
    pub fn judged<T>(&mut self, ended: Result<T, RunError>) -> Result<T, EngineError> {
        self.before = self.passed;
        match (ended, self.full.take()) {
            // It may have come to its end just then.
            (Ok(_) | Err(RunError::Halted { .. }), Some(full)) => Err(full),
            (ended, _) => Ok(ended?),
        }
    }

    /// Refuses to go on where less is free than is to stay free, or would be when all that has passed is on the disk: it is
    /// written out where that may be so.
    fn require_meanwhile(&mut self) -> Result<(), EngineError> {
        self.require()?;
        let (free, passed) = self.seen;
        let at_least = free.saturating_sub(self.passed - passed);
        if self.leave_free.is_none_or(|leave| at_least >= leave) {
            return Ok(());
        }
        self.flush()?;
        self.seen = (self.host.free_space(self.into)?, self.passed);
        self.require()
    }

    /// Has all that was received on the disk, where it was nowhere yet, and as much free as is to stay free.
    ///
    /// # Errors
    /// [`EngineError::PlaceFull`], or when something was lost or the file system cannot be asked.
    pub fn settled(&self) -> Result<(), EngineError> {
        self.flush()?;
        self.require()
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.host.act(&Action::FlushFileSystem { path: self.into.to_owned() })?;
        Ok(())
    }

    /// Refuses to go on where less is free than is to stay free.
    fn require(&self) -> Result<(), EngineError> {
        let Some(leave) = self.leave_free else { return Ok(()) };
        let free = self.host.free_space(self.into)?;
        if free >= leave {
            return Ok(());
        }
        let detail = format!(
            "{} free where {} stay free unless --ignore-space is given",
            size::show(free),
            size::show(leave)
        );
        Err(EngineError::PlaceFull { at: self.into.to_owned(), detail })
    }
}

/// What our stage told last.
fn passed(chained: &Chained) -> Option<Told> {
    chained.before.last().and_then(|stage| Told::last(&stage.stderr_tail))
}
