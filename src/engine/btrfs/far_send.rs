//! Sends a snapshot to another machine.

use super::answers::{Refusal, Taken};
use super::far::{FarEngine, predictions};
use super::names::{Item, SentUuid};
use super::record::Record;
use super::transfer::Sealed;
use super::way::Way;
use super::wire::{Ask, Receive};
use crate::engine::helped::Failure;
use crate::engine::made::Made;
use crate::engine::sent::{
    Data, base_changed, cannot_be_sent, culprit, failure, heard, sender, uuid,
};
use crate::engine::sharing::chain;
use crate::engine::unsent::sender_failed;
use crate::engine::{Context, Engine, EngineError, OnProgress, StillSubvolume};
use crate::host::{CommandSpec, Completed, Fact, Stream};
use crate::tools::btrfs::command;
use crate::tools::btrfs::parts::has_differed;
use crate::tools::btrfs::stage::{Expectation, Parent};

impl FarEngine {
    /// Sends a snapshot, or how it differs from what is there.
    pub(super) fn send(
        &self,
        cx: Context<'_>,
        made: &Made,
        (still, way, data): (&StillSubvolume, &Way<'_>, Data),
        progress: OnProgress<'_>,
    ) -> Result<Sealed, Failure> {
        let name = made.name();
        let base = way.base;
        let parent = base.map(|base| -> Result<Parent, EngineError> {
            let (sent, generation) = (uuid(&base.sent.uuid)?, Some(base.sent.generation));
            // Which subvolume that is there, the server alone knows.
            Ok(Parent { sent, received: sent, shared: sent, generation })
        });
        let expected = Expectation {
            name: name.clone(),
            uuid: uuid(&still.snapshot.uuid)?,
            parent: parent.transpose()?,
        };
        let sent = base.map(|base| base.sent);
        let [send, stage] = sender(self, still, sent, &expected, data);
        let before = [send, command::parted(stage, way.cutting().as_ref())];
        let mut ask = self.asking(self.receiving(made, still, way)?)?;
        let [about, _] = predictions(self.target());
        let value = self.predicted(made, still, &name);
        ask.prediction.facts = vec![Fact { about, value }];
        let (meets, target) = ((cx.host, cx.seat), self.target());
        let chained = chain(meets, target, (&before, &ask), &mut |stream, line| {
            if stream == Stream::ProducerErr {
                heard(line, progress);
            }
        });
        let chained = chained.map_err(EngineError::from)?;
        if chained.last.is_predicted {
            return Ok(Sealed { name, bytes: None, files: None, left: None });
        }
        if chained.before.last().is_some_and(|stage| has_differed(&stage.stderr_tail)) {
            let what = Refusal::Differs("the snapshot is not what was sent before".into());
            return Err(Failure::Differs(what.into_error(&self.target().repository)));
        }
        if let Some(error) = base_changed(&before, &chained.before) {
            let what = Refusal::Difference(error.to_string());
            return Err(Failure::Difference(what.into_error(&self.target().repository)));
        }
        if cannot_be_sent(&chained.before) && way.part_size.is_some() {
            self.give_up(cx, &name);
        }
        if let Some((spec, ended)) = culprit(&before, &ask, &chained) {
            if !std::ptr::eq(ended, &chained.last) {
                let there = sender_failed(cx, still, &before, spec, ended);
                return Err(there.unwrap_or_else(|| failure(self.target(), spec, ended)).into());
            }
            return Err(self.refused(spec, ended));
        }
        let taken: Taken = self.answer(&chained.last)?;
        if taken.name.as_str() != name {
            let what = format!("it took {} for {name}", taken.name.as_str());
            return Err(EngineError::Output { engine: "stillpoint serve", what }.into());
        }
        Ok(Sealed { name, bytes: taken.bytes, files: taken.files, left: taken.left })
    }

    /// Why the server took nothing.
    fn refused(&self, spec: &CommandSpec, ended: &Completed) -> Failure {
        let there = &self.target().repository;
        match Refusal::last(&ended.stderr_tail) {
            Some(it @ Refusal::Difference(_)) => Failure::Difference(it.into_error(there)),
            Some(it @ Refusal::Differs(_)) => Failure::Differs(it.into_error(there)),
            Some(
                Refusal::NoRequest(_)
                | Refusal::Version(_)
                | Refusal::NotAllowed(_)
                | Refusal::Missing
                | Refusal::Exists
                | Refusal::Full(_)
                | Refusal::Damaged(_)
                | Refusal::Locked(_)
                | Refusal::Unfit(_)
                | Refusal::NoSource(_)
                | Refusal::Failed(_),
            )
            | None => self.why(spec, ended).into(),
        }
    }

    /// Has the server remove what it has of a copy: the next run would try to go on with it, in vain.
    fn give_up(&self, cx: Context<'_>, name: &str) {
        let _shield = cx.host.shield();
        let asked = self.name_of(name).and_then(|copy| self.asking(Ask::GiveUp { copy }));
        if let Err(error) = asked.and_then(|ask| self.change(cx, &ask)) {
            tracing::warn!(%error, "what the server has of {name} is left there");
        }
    }

    fn receiving(
        &self,
        made: &Made,
        still: &StillSubvolume,
        way: &Way<'_>,
    ) -> Result<Ask, EngineError> {
        let unfit = |what: &str| EngineError::unsupported(self.target(), what);
        let item = made.item.as_deref().and_then(Item::new);
        let base = way.base.map(|base| self.name_of(&base.received.name)).transpose()?;
        Ok(Ask::Receive(Box::new(Receive {
            host: made.host.clone(),
            job: made.job.clone(),
            item: item.ok_or_else(|| unfit("store a subvolume of such a path"))?,
            run: made.run.clone(),
            machine: made.machine.clone(),
            time: made.time,
            sent: SentUuid::new(&*still.snapshot.uuid)
                .ok_or_else(|| unfit("send a snapshot without a UUID"))?,
            generation: still.snapshot.generation,
            base,
            part_size: way.part_size,
            behind: way.behind.cloned(),
        })))
    }

    /// The record that a copy would have, as far as anybody will ask.
    fn predicted(&self, made: &Made, still: &StillSubvolume, name: &str) -> Vec<u8> {
        let record = Record {
            format: Record::FORMAT,
            name: name.to_owned(),
            uuid: name.to_owned(),
            sent: still.snapshot.uuid.clone(),
            generation: still.snapshot.generation,
            changed: 0,
            parent: None,
            made: made.clone(),
            bytes: None,
            stream: None,
            files: None,
            pinned: false,
            unproven: false,
            going: false,
        };
        serde_json::to_vec(&record).unwrap_or_default()
    }
}
