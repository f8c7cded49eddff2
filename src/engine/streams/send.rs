//! Making a copy: a snapshot is sent, passes our stage, is compressed, encrypted and stored, and then recorded.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::StreamsEngine;
use super::catalog::{Base, Catalog, Record, object_of};
use crate::engine::made::{Made, reported};
use crate::engine::sent::{
    Data, base_changed, culprit, failure, files, heard, sender, still_of, uuid,
};
use crate::engine::sharing::chain;
use crate::engine::unsent::sender_failed;
use crate::engine::{
    BackupReport, BackupRequest, Context, EngineError, OnProgress, Snapshot, StillSubvolume,
};
use crate::host::{Chained, CommandSpec, Stream, TrustKind};
use crate::model::shown::Show;
use crate::tools::btrfs::command::{self, Told};
use crate::tools::btrfs::stage::{Expectation, Parent};
use crate::tools::object::Digest;
use crate::tools::{age, zstd};

/// How many differences are made one to another before all is sent anew: each has to be there, and be read, to restore the
/// last.
const LONGEST_CHAIN: usize = 100;

/// What a difference is made against: a snapshot here, and the copy of it there.
struct Earlier<'a> {
    snapshot: &'a Snapshot,
    record: &'a Record,
}

impl StreamsEngine {
    /// Makes a copy; see [`Engine::backup`].
    pub(super) fn store(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let still = still_of(self, &request.input)?;
        let catalog = self.open(cx)?;
        cx.refuse_read_only(&self.target)?;
        let recipients = self.recipients(cx)?;
        // What is a difference to damage cannot be restored either.
        let chain_began = |record: &Record| {
            let chain = catalog.chain(&record.name)?;
            let is_sound = !chain.iter().any(|link| catalog.is_damaged(&link.name));
            Some((chain.len(), chain.first()?.made.time)).filter(|_| is_sound)
        };
        let base = still.earlier.iter().find_map(|snapshot| {
            let record = catalog.records().find(|record| {
                snapshot.was_sent_as(&record.sent, record.generation)
                    // Whoever can write there may have put his own beside it.
                    && still.ours.contains(&record.name)
                    && record.made.series() == request.series
                    // What others added for it is for them to go on with.
                    && record.made.machine == request.machine
                    && !catalog.is_predicted(record)
            })?;
            Some(Earlier { snapshot, record })
        });
        let base = base.filter(|base| {
            // Whoever can read only what is encrypted now could not read what the difference is made to.
            base.record.recipients == recipients
                && chain_began(base.record).is_some_and(|(length, began)| {
                    length <= LONGEST_CHAIN
                        && is_within(self.options.full_every, began, request.time)
                })
        });
        let name = Made::of(request).name();
        let object = object_of(&name, self.options.compression.is_some(), recipients.is_some());
        let mut transfer =
            Transfer { engine: self, catalog: &catalog, still, base, name, object, recipients };
        let mut made = transfer.or_cleared_away(|| transfer.carry_out(request, progress));
        let mut warnings = Vec::new();
        if let (Err(Undone::BaseChanged(error)), Some(base)) = (&made, transfer.base.take()) {
            warnings.push(format!(
                "the difference to {} could not be stored, so all was sent: {error}",
                base.record.name
            ));
            made = transfer.or_cleared_away(|| transfer.carry_out(request, progress));
        }
        let Recorded { bytes_new, files } = made.map_err(Undone::into_error)?;
        Ok(reported(transfer.name, bytes_new, files, warnings))
    }

    /// Those who can read what is stored now, as records name them; `None`: everybody.
    fn recipients(&self, cx: Context<'_>) -> Result<Option<String>, EngineError> {
        let Some(file) = &self.options.recipients_file else { return Ok(None) };
        // Whoever can change it reads what is stored from then on.
        cx.host.check_trusted(file, TrustKind::File).map_err(EngineError::Untrusted)?;
        let content = cx.host.read(file)?;
        let named = age::recipients(&content);
        if named.is_empty() {
            let what = format!("encrypt: {} names nobody", file.shown());
            return Err(EngineError::unsupported(&self.target, &what));
        }
        Ok(Some(Digest::of(&named.join(&b'\n')).sha256))
    }
}

/// Whether so much time has not yet passed.
fn is_within(span: Duration, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
    // A clock that went back says nothing of how old anything is.
    (to - from).to_std().is_ok_and(|age| age < span)
}

/// One copy on its way.
struct Transfer<'a> {
    engine: &'a StreamsEngine,
    catalog: &'a Catalog<'a>,
    still: &'a StillSubvolume,
    base: Option<Earlier<'a>>,
    name: String,
    object: String,
    recipients: Option<String>,
}

/// Why nothing was stored.
enum Undone {
    /// Somebody changed what the difference is made to; all may be stored.
    BaseChanged(EngineError),
    /// Any other failure.
    Other(EngineError),
}

impl From<EngineError> for Undone {
    fn from(error: EngineError) -> Self {
        Undone::Other(error)
    }
}

impl Undone {
    fn into_error(self) -> EngineError {
        match self {
            Undone::BaseChanged(error) | Undone::Other(error) => error,
        }
    }
}

/// A copy that has its record.
struct Recorded {
    bytes_new: Option<u64>,
    files: Option<u64>,
}

/// What was stored, and is there; `None` in a dry run.
type Stored = Option<(Told, Digest, Digest)>;

impl Transfer<'_> {
    /// When something failed, nothing of the copy is left: it would take up space on a disk that may be full.
    fn or_cleared_away<T>(&self, work: impl FnOnce() -> Result<T, Undone>) -> Result<T, Undone> {
        let result = work();
        if result.is_err()
            && let Err(error) = self.clear_away()
        {
            tracing::warn!(%error, "what was stored of a copy is left; the next good one removes it");
        }
        result
    }

    fn clear_away(&self) -> Result<(), EngineError> {
        // What a signal stopped must still be cleared away.
        let _shield = self.catalog.store.cx.host.shield();
        self.catalog.take_back(&self.name, &self.object)
    }

    fn carry_out(
        &self,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<Recorded, Undone> {
        let stored = self.transfer(progress)?;
        let (told, stream, stored) = match stored {
            Some((told, stream, stored)) => (Some(told), stream, stored),
            None => (None, Digest::default(), Digest::default()),
        };
        let before = self.base.as_ref().map_or(Some(0), |base| base.record.files);
        let files = told.as_ref().and_then(|told| files(told, before));
        let bytes_new = told.map(|_| stored.bytes);
        self.record(request, stream, stored, files)?;
        Ok(Recorded { bytes_new, files })
    }

    fn record(
        &self,
        request: &BackupRequest,
        stream: Digest,
        stored: Digest,
        files: Option<u64>,
    ) -> Result<(), EngineError> {
        let base = |earlier: &Earlier<'_>| Base {
            name: earlier.record.name.clone(),
            sent: earlier.record.sent.clone(),
        };
        self.catalog.add(&Record {
            format: Record::FORMAT,
            name: self.name.clone(),
            sent: self.still.snapshot.uuid.clone(),
            generation: self.still.snapshot.generation,
            base: self.base.as_ref().map(base),
            made: Made::of(request),
            stream,
            stored,
            compressed: self.engine.options.compression.is_some(),
            recipients: self.recipients.clone(),
            files,
        })
    }

    /// Sends and stores.
    fn transfer(&self, progress: OnProgress<'_>) -> Result<Stored, Undone> {
        let store = &self.catalog.store;
        let (mut specs, told_at) = self.commands()?;
        let Some(last) = specs.pop() else { return Ok(None) };
        let (meets, target) = ((store.cx.host, store.cx.seat), &self.engine.target);
        let chained = chain(meets, target, (&specs, &last), &mut |stream, line| {
            if stream == Stream::ProducerErr {
                heard(line, progress);
            }
        });
        let chained = chained.map_err(EngineError::from)?;
        if chained.last.is_predicted {
            return Ok(None);
        }
        let (told, stream, stored) = self.judge(&specs, &last, &chained, told_at)?;
        if !self.catalog.holds(&self.object, stored.bytes)? {
            let what = format!("{} was stored, and is not there as it was", self.object);
            return Err(EngineError::Output { engine: "streams", what }.into());
        }
        Ok(Some((told, stream, stored)))
    }

    /// The processes, and the place of the one that tells what was stored.
    fn commands(&self) -> Result<(Vec<CommandSpec>, usize), EngineError> {
        let limit = self.engine.target.stall_timeout;
        let options = &self.engine.options;
        // The stream keeps the UUID of what it is based on: whatever received that finds it by this.
        let parent = |base: &Earlier<'_>| -> Result<Parent, EngineError> {
            let (sent, generation) = (uuid(&base.snapshot.uuid)?, Some(base.snapshot.generation));
            Ok(Parent { sent, received: sent, shared: sent, generation })
        };
        let expected = Expectation {
            name: self.name.clone(),
            uuid: uuid(&self.still.snapshot.uuid)?,
            parent: self.base.as_ref().map(parent).transpose()?,
        };
        let base = self.base.as_ref().map(|base| base.snapshot);
        let [send, stage] = sender(self.engine, self.still, base, &expected, Data::Plain);
        let mut specs = vec![send, stage.arg(command::DIGEST)];
        specs.extend(options.compression.map(|level| zstd::compress(level, limit)));
        specs.extend(options.recipients_file.as_ref().map(|file| age::encrypt(file, limit)));
        let told_at = specs.len();
        specs.extend(self.catalog.store.take(&self.object));
        Ok((specs, told_at))
    }

    /// What passed, if every process ended well and the stage saw the end.
    fn judge(
        &self,
        before: &[CommandSpec],
        last: &CommandSpec,
        chained: &Chained,
        told_at: usize,
    ) -> Result<(Told, Digest, Digest), Undone> {
        if let Some(error) = base_changed(before, chained) {
            return Err(Undone::BaseChanged(error));
        }
        if let Some((spec, ended)) = culprit(before, last, chained) {
            let cx = self.catalog.store.cx;
            let there = sender_failed(cx, self.still, before, spec, ended);
            return Err(there.unwrap_or_else(|| failure(&self.engine.target, spec, ended)).into());
        }
        let stage = chained.before.get(1).map(|stage| &stage.stderr_tail);
        let stored = chained.before.get(told_at).unwrap_or(&chained.last);
        let told = stage.and_then(|said| Told::last(said)).filter(|told| told.whole);
        let told = told.filter(|told| told.generation == self.still.snapshot.generation);
        let passed = stage.and_then(|said| Digest::last(said));
        let all = told.zip(passed).zip(Digest::last(&stored.stderr_tail));
        all.map(|((told, stream), stored)| (told, stream, stored)).ok_or_else(|| {
            let what =
                "nothing was told of what was stored, or it is not what was to be sent".into();
            EngineError::Output { engine: "streams", what }.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_ages_by_its_beginning() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let (from, to) = (at("2026-11-01T00:00:00Z"), at("2026-11-27T00:00:00Z"));
        assert!(is_within(days(27), from, to));
        assert!(!is_within(days(26), from, to));
        assert!(!is_within(days(26), to, from), "made after now");
    }
}
