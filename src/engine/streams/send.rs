//! Making a copy: a snapshot is sent, passes our stage, is compressed, encrypted and stored, and then recorded.
//!
//! A long stream is stored as several objects, each of them compressed and encrypted by itself. What was interrupted goes on
//! behind those that are there.

use super::StreamsEngine;
use super::begun::Begun;
use super::record::{Record, Stored};
use super::sending::{Sending, Sent};
use super::way::{Earlier, Transfer};
use crate::engine::helped::{Failure, with_what_helps};
use crate::engine::made::{Made, reported};
use crate::engine::sent::{files, still_of};
use crate::engine::sharing::alone;
use crate::engine::{BackupReport, BackupRequest, Context, EngineError, OnProgress};
use crate::host::TrustKind;
use crate::model::event::Progress;
use crate::model::shown::Show;
use crate::tools::age;
use crate::tools::object::Digest;

/// What is said when that cannot be removed.
const LEFT: &str = "what was recorded of the parts of a copy, which is whole, is left, and the next one removes it";

impl StreamsEngine {
    /// Makes a copy; see [`Engine::backup`](crate::engine::Engine::backup).
    pub(super) fn store(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let still = still_of(self, &request.input)?;
        let _alone = self.target.part_size().and_then(|_| alone(cx.seat));
        let catalog = self.open(cx)?;
        cx.refuse_read_only(&self.target)?;
        let recipients = self.recipients(cx)?;
        let name = Made::of(request).name();
        let transfer =
            Transfer { engine: self, catalog: &catalog, still, request, name, recipients };
        transfer.refuse_whole()?;
        let mut each = |object: &str| {
            progress(Progress { current: Some(object.to_owned()), ..Progress::default() });
        };
        let mut begun = match transfer.begun()? {
            Some(begun) => catalog.proven(begun, &mut each)?,
            None => None,
        };
        let base = match &begun {
            Some(begun) => transfer.base_of(begun),
            None => transfer.base(|_| true),
        };
        // A run that broke off when it was whole has left that of another one.
        let is_ours = |record: &Record| {
            record.made.series() == request.series && record.made.machine == request.machine
        };
        let forgotten = catalog.forget_parts(is_ours).map_err(|error| format!("{LEFT}: {error}"));
        let mut warnings = Vec::from_iter(forgotten.err());
        let attempt = &mut |base: Option<&Earlier<'_>>, goes_on| {
            let begun = begun.take().filter(|_| goes_on);
            // What an earlier attempt left must not be taken for the beginning of another stream.
            catalog.take_back(&transfer.name, begun.as_ref())?;
            transfer.attempt(base, begun, progress)
        };
        let (recorded, _) = with_what_helps(base.as_ref(), &mut warnings, attempt)?;
        warnings.extend(recorded.left);
        Ok(reported(transfer.name, recorded.bytes_new, recorded.files, warnings))
    }

    /// Whether there are parts of such a copy; see [`Engine::has_begun`](crate::engine::Engine::has_begun).
    pub(super) fn is_begun(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
    ) -> Result<bool, EngineError> {
        let still = still_of(self, &request.input)?;
        let catalog = self.open(cx)?;
        let recipients = self.recipients(cx)?;
        let name = Made::of(request).name();
        let transfer =
            Transfer { engine: self, catalog: &catalog, still, request, name, recipients };
        Ok(transfer.begun()?.is_some())
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

/// A copy that has its record.
struct Recorded {
    bytes_new: Option<u64>,
    files: Option<u64>,
    /// What could not be removed, in words.
    left: Option<String>,
}

impl Transfer<'_> {
    /// Refuses a name that is taken, before anything is written.
    fn refuse_whole(&self) -> Result<(), EngineError> {
        match self.catalog.is_whole(&self.name) {
            false => Ok(()),
            true => Err(EngineError::Refused {
                engine: "streams",
                repository: self.engine.target.repository.clone(),
                detail: format!(
                    "there is a record of {} already, so nothing was sent and nothing written over",
                    self.name
                ),
            }),
        }
    }

    /// Sends, stores and records. When something failed, nothing of the copy is left but what can be gone on from: it
    /// would take up space on a disk that may be full.
    fn attempt(
        &self,
        base: Option<&Earlier<'_>>,
        begun: Option<Begun>,
        progress: OnProgress<'_>,
    ) -> Result<Recorded, Failure> {
        let mut sending = Sending::begin(self, base, begun);
        let done = sending.carry_out(progress);
        let done = done.and_then(|sent| Ok(self.record(base, &sending, sent)?));
        done.inspect_err(|failure| {
            // What a signal stopped must still be cleared away.
            let _shield = self.catalog.store.cx.host.shield();
            let stays = sending.begun().filter(|_| failure.may_go_on());
            if let Err(error) = self.catalog.take_back(&self.name, stays) {
                tracing::warn!(%error, "what was stored of a copy is left; the next good one uses or removes it");
            }
        })
    }

    /// Records what was sent, which makes it a copy. `None` in a dry run.
    fn record(
        &self,
        base: Option<&Earlier<'_>>,
        sending: &Sending<'_>,
        sent: Option<Sent>,
    ) -> Result<Recorded, EngineError> {
        let told = sent.as_ref().map(|sent| &sent.told);
        let before = base.map_or(Some(0), |base| base.record.files);
        let files = told.and_then(|told| files(told, before));
        let bytes_new = sent.as_ref().map(|_| sending.bytes_new());
        let (stored, stream) = match sent {
            Some(sent) => (Stored::of(sending.stored().to_vec()), sent.stream),
            None => (Stored::Whole(Digest::default()), Digest::default()),
        };
        self.catalog.add(&Record {
            format: stored.format(),
            name: self.name.clone(),
            sent: self.still.snapshot.uuid.clone(),
            generation: self.still.snapshot.generation,
            base: base.map(Earlier::as_base),
            made: Made::of(self.request),
            stream,
            stored,
            compressed: self.engine.options.compression.is_some(),
            recipients: self.recipients.clone(),
            files,
        })?;
        let forgotten = sending.begun().map_or(Ok(()), |begun| self.catalog.forget_parts_of(begun));
        let left = forgotten.err().map(|error| format!("{LEFT}: {error}"));
        Ok(Recorded { bytes_new, files, left })
    }
}
