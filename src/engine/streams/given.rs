//! Objects given to whoever reads the stream that they hold: one behind the other, each opened by itself.

use super::catalog::Catalog;
use super::record::Record;
use super::store::another;
use crate::engine::sent::culprit_of;
use crate::host::{Chained, CommandSpec, Completed, HeldEnd, RunError, Watch};
use crate::tools::object::{Digest, To};

/// How it went.
pub(super) struct Given {
    /// The object that was read last.
    pub object: String,
    /// Its processes and those of whoever reads, in the order in which each reads what the one before it writes.
    specs: Vec<CommandSpec>,
    /// How they ended.
    pub ended: Vec<Completed>,
    /// What was read, as far as it was told, of each object that was read to its end.
    read: Vec<Option<Digest>>,
}

impl Given {
    /// The process that failed, if one did.
    pub fn culprit(&self) -> Option<(&CommandSpec, &Completed)> {
        culprit_of(self.specs.iter().zip(&self.ended))
    }

    /// What is said when an object is not what was stored.
    pub fn another(&self, record: &Record) -> Option<String> {
        let objects = record.objects();
        let mut read =
            objects.iter().zip(self.read.iter().map(Some).chain(std::iter::repeat(None)));
        let other = read.find(|((_, stored), read)| *read != Some(&Some((*stored).clone())));
        other.map(|((object, _), _)| another(object))
    }
}

/// Gives all objects of a copy to these processes, each through what opens it.
///
/// # Errors
/// When they cannot be run. How they ended is for whoever asked.
pub(super) fn given(
    catalog: &Catalog<'_>,
    record: &Record,
    openers: &[CommandSpec],
    readers: &[CommandSpec],
    watch: Watch<'_>,
) -> Result<Given, RunError> {
    let (host, store) = (catalog.store.cx.host, &catalog.store);
    let give = |object: &str| {
        let mut specs = store.give(object, To::Next);
        let told_at = specs.len() - 1;
        specs.extend_from_slice(openers);
        (specs, told_at)
    };
    let told = |ended: &[Completed], at: usize| Digest::last(&ended.get(at)?.stderr_tail);
    let objects: Vec<String> = record.objects().into_iter().map(|(object, _)| object).collect();
    let object = record.object();
    // One alone needs nobody who is held: each of a chain is told by its pumps that its reader is gone.
    if let ([object], Some((last, others))) = (&objects[..], readers.split_last()) {
        let (mut specs, told_at) = give(object);
        specs.extend_from_slice(others);
        let Chained { before: mut ended, last: of_last, bytes: _ } =
            host.chain(&specs, last, watch)?;
        specs.push(last.clone());
        ended.push(of_last);
        let read = vec![told(&ended, told_at)];
        return Ok(Given { object: object.clone(), specs, ended, read });
    }
    let mut held = host.hold(readers, HeldEnd::Reads)?;
    let mut given = Given { object, specs: Vec::new(), ended: Vec::new(), read: Vec::new() };
    for object in objects {
        let (specs, told_at) = give(&object);
        given.ended = held.turn(&specs, watch)?;
        (given.object, given.specs) = (object, specs);
        if !given.ended.iter().all(Completed::success) {
            given.specs.extend_from_slice(readers);
            given.ended.extend(held.stop()?);
            return Ok(given);
        }
        given.read.push(told(&given.ended, told_at));
    }
    given.specs.extend_from_slice(readers);
    given.ended.extend(held.finish(watch)?);
    Ok(given)
}
