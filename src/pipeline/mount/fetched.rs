//! A copy that lies elsewhere: it is received into a directory of ours, shown from there, and deleted when nobody looks at
//! it any more.
//!
//! What was received outlives a reboot, so this takes a ledger that does as well. It says of itself that it was received as
//! nothing that was ever sent, so whoever looks for a copy, or for what a difference is made to, does not find it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::engine::{AsSubvolume, Engine, EngineError, Fetch, LocalCopy, OnProgress};
use crate::host::{ActError, Action, Subvolume, SubvolumeAction};
use crate::model::copy::Copy;
use crate::model::event::{Event, StepPlace};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::shown::Show;
use crate::model::size;
use crate::model::undo::{Identity, ServedMount, StagingDirectory};
use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::received;
use crate::pipeline::staging::{elsewhere, try_own_directory};
use crate::pipeline::unpacked::delete_in;
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::intended::{Wanted, instead, intended};
use super::unmount::unmount;
use super::{place, shown};

/// How the directory is called in which a copy is received, before the run's id.
const STAGING: &str = ".stillpoint-mounted-";

/// What the copy is called in it.
const RECEIVED: &str = "copy";

/// A copy on its way here.
struct Fetching<'a> {
    cx: RunContext<'a>,
    engine: &'a dyn Engine,
    copy: &'a Copy,
}

/// Our directory, and what was received in it.
struct Staged {
    directory: PathBuf,
    identity: Option<Identity>,
    found: Subvolume,
}

/// Receives a copy and shows it until somebody unmounts it, or a signal comes. It is deleted then; what is left of it goes
/// with the run.
///
/// # Errors
/// When it cannot be received or shown; [`Trouble::Signal`] is the usual end.
pub(super) fn show(
    cx: RunContext<'_>,
    (engine, copy, fetch): (&dyn Engine, &Copy, Fetch),
    wanted: Wanted<'_>,
    ready: &(dyn Fn() + Sync),
) -> Result<(), StepError> {
    let fetching = Fetching { cx, engine, copy };
    fetching.require_durable()?;
    let place = place::of(cx, engine, copy, wanted)?;
    if !wanted.ignore_space {
        fetching.require_room(fetch, &place)?;
    }
    let staged = fetching.receive(fetch, &place)?;
    // It may have taken hours.
    let mut mount = intended(cx.host(), wanted.at)?;
    mount.subvolume = staged.found.uuid.clone();
    let local = LocalCopy { path: staged.path(), found: staged.found.clone() };
    let shown = shown::show(cx, local, mount.clone(), ready);
    let _shield = cx.host().shield();
    if let Err(error) = fetching.let_go(&staged, &mount) {
        // It is tried again with the directory, which goes when the run is over.
        tracing::warn!("{}: what was received is still there: {error}", staged.directory.shown());
    }
    shown
}

impl Staged {
    fn path(&self) -> PathBuf {
        self.directory.join(RECEIVED)
    }
}

impl Fetching<'_> {
    /// What is received outlives a reboot, and so must what is known of it.
    fn require_durable(&self) -> Result<(), StepError> {
        if self.cx.durable {
            return Ok(());
        }
        let text = format!(
            "{} has to be received to be mounted, and would still be there after a reboot that empties the ledger: nothing can be written to {} now — see to that, or {}",
            self.copy.id,
            self.cx.config().settings.state_dir.shown(),
            instead(self.engine, self.copy)
        );
        Err(StepError::new(Trouble::Environment, text))
    }

    fn require_room(&self, fetch: Fetch, place: &Path) -> Result<(), StepError> {
        let (Some(need), free) = (fetch.laid_out, self.cx.host().free_space(place)?) else {
            return Ok(());
        };
        if need <= free {
            return Ok(());
        }
        let text = format!(
            "{} takes up to {} to be mounted, and {} is free at {}, so nothing was fetched — name a directory of another btrfs with --scratch DIR, or {}; if compression makes it fit, use --ignore-space",
            self.copy.id,
            size::show(need),
            size::show(free),
            place.shown(),
            instead(self.engine, self.copy)
        );
        Err(StepError::new(Trouble::Environment, text))
    }

    fn receive(&self, fetch: Fetch, place: &Path) -> Result<Staged, StepError> {
        let (cx, host) = (self.cx, self.cx.host());
        let directory = place.join(format!("{STAGING}{}", cx.run));
        let own = StagingDirectory { subvolumes: true, ..elsewhere(host, &directory)? };
        let identity = match try_own_directory(cx.pipeline, cx.ledger, own)? {
            Ok(identity) => identity,
            Err(error) => return Err(self.no_room(StepError::from(error))),
        };
        self.tell(fetch, &directory);
        let into = (directory.as_path(), identity.as_ref());
        let wanted = received::wanted(cx, self.copy, into, RECEIVED);
        let wanted = AsSubvolume { nameless: true, ..wanted };
        let mut is_full = false;
        let found = self.as_a_step(|progress| {
            bracketed(cx, self.engine, |engine, context| {
                let received = engine.restore_as_subvolume(context, &wanted, progress);
                received.inspect_err(|error| is_full = is_of_destination(error))
            })
        });
        let found = found.map_err(|error| if is_full { self.no_room(error) } else { error })?;
        Ok(Staged { directory, identity, found })
    }

    fn tell(&self, fetch: Fetch, directory: &Path) {
        let how_much = match fetch.bytes {
            Some(bytes) => format!("up to {}", size::show(bytes)),
            None => "all of it, and the target does not say how much that is".to_owned(),
        };
        let text = format!(
            "{} is fetched from target {} to be mounted ({how_much}), and lies in {} until it is unmounted",
            self.copy.id,
            self.engine.target().name,
            directory.shown()
        );
        self.cx.pipeline.observer.on(&Event::Note { job: None, warning: false, text });
    }

    /// Tells whoever watches how far it is.
    fn as_a_step<T>(
        &self,
        work: impl FnOnce(OnProgress<'_>) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let series = self.copy.series.as_ref();
        let place = StepPlace {
            job: series.map(|series| series.job.clone()),
            target: Some(self.engine.target().name.clone()),
            item: series.and_then(|series| series.item.clone()),
            step: "fetch",
        };
        let (observer, started) = (self.cx.pipeline.observer, Instant::now());
        observer.on(&Event::StepStarted { place: place.clone() });
        let done = work(&mut |progress| {
            observer.on(&Event::Progress { place: place.clone(), progress });
        });
        let (outcome, detail) = match &done {
            Ok(_) => (Outcome::Ok, "received"),
            // Why is said by whoever gets the error.
            Err(error) => (error.outcome(), "not received"),
        };
        let detail = detail.to_owned();
        observer.on(&Event::StepFinished { place, outcome, detail, elapsed: started.elapsed() });
        done
    }

    /// A failure of the place, with what helps.
    fn no_room(&self, error: StepError) -> StepError {
        let what = error.message.split(" — ").next().unwrap_or_default();
        let message = format!(
            "{what} — name a directory of another btrfs with --scratch DIR, or {}",
            instead(self.engine, self.copy)
        );
        StepError { message, ..error }
    }

    /// Deletes what was received, if it is still that, and all that it is a difference to; unless it is still seen.
    fn let_go(&self, staged: &Staged, mount: &ServedMount) -> Result<(), StepError> {
        let host = self.cx.host();
        unmount(host, mount, None)?;
        let (path, found) = (staged.path(), staged.found.clone());
        let delete = SubvolumeAction::DeleteSubvolume { path, found };
        host.act(&Action::Subvolume(delete))?;
        Ok(delete_in(host, &staged.directory, staged.identity.as_ref())?)
    }
}

/// Whether it is the place that something is received into which failed.
fn is_of_destination(error: &EngineError) -> bool {
    matches!(error, EngineError::DestinationFull { .. } | EngineError::Act(ActError::Io { .. }))
        && error.is_of_space()
}
