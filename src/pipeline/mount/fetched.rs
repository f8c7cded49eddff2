//! A copy that lies elsewhere: it is received into a directory of ours, shown from there, and deleted when nobody looks at
//! it any more.
//!
//! What was received outlives a reboot, so this takes a ledger that does as well. It says of itself that it was received as
//! nothing that was ever sent, so whoever looks for a copy, or for what a difference is made to, does not find it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::engine::{AsSubvolume, Engine, EngineError, Fetch, LocalCopy, OnProgress};
use crate::host::{ActError, Subvolume};
use crate::model::copy::Copy;
use crate::model::event::{Event, StepPlace};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::shown::Show;
use crate::model::size;
use crate::model::undo::ServedMount;
use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::received::{Staging, reserve};
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::intended::{Wanted, instead, intended};
use super::place::{self, Place};
use super::shown;
use super::unmount::unmount;

/// What the directory is for in which a copy is received, in its name.
const STAGING: &str = "mounted";

/// What the copy is called in it.
const RECEIVED: &str = "copy";

/// A copy on its way here.
struct Fetching<'a> {
    cx: RunContext<'a>,
    engine: &'a dyn Engine,
    copy: &'a Copy,
}

/// Our directory, and what was received in it.
struct Received {
    staging: Staging,
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
    asked: Wanted<'_>,
    ready: &(dyn Fn() + Sync),
) -> Result<(), StepError> {
    let fetching = Fetching { cx, engine, copy };
    fetching.require_durable()?;
    let place = place::of(cx, engine, copy, asked)?;
    let leave_free = reserve(cx.host(), &place.at, asked.ignore_space)?;
    if let Some(leave_free) = leave_free {
        fetching.require_room(fetch, &place, leave_free)?;
    }
    let received = fetching.receive(fetch, &place.at, leave_free)?;
    // It may have taken hours.
    let mut mount = intended(cx.host(), asked.at)?;
    mount.subvolume = received.found.uuid.clone();
    let local = LocalCopy { path: received.path(), found: received.found.clone() };
    let shown = shown::show(cx, local, mount.clone(), ready);
    let _shield = cx.host().shield();
    if let Err(error) = fetching.let_go(&received, &mount) {
        // It is tried again with the directory, which goes when the run is over.
        tracing::warn!(
            "{}: what was received is still there: {error}",
            received.staging.path.shown()
        );
    }
    shown
}

impl Received {
    fn path(&self) -> PathBuf {
        self.staging.path.join(RECEIVED)
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

    /// Refuses what does not fit by what the target says of it; and what it says nothing of, where nobody has named the
    /// place. What is received is watched all the same: the target may be wrong, or lie.
    fn require_room(&self, fetch: Fetch, place: &Place, leave_free: u64) -> Result<(), StepError> {
        let free = self.cx.host().free_space(&place.at)?;
        let (id, at, instead) = (&self.copy.id, place.at.shown(), instead(self.engine, self.copy));
        let (free, leave) = (free.saturating_sub(leave_free), size::show(leave_free));
        let text = match fetch.laid_out {
            Some(need) if need <= free => return Ok(()),
            Some(need) => format!(
                "{id} takes up to {} to be mounted, and {} is free at {at} but for {leave} that are left to others, so nothing was fetched — name a directory of another btrfs with --scratch DIR, or {instead}; if compression makes it fit, use --ignore-space",
                size::show(need),
                size::show(free),
            ),
            None if place.is_named && free > 0 => return Ok(()),
            None if place.is_named => format!(
                "no more than the {leave} that are left to others is free at {at}, so nothing was fetched — name a directory of another btrfs with --scratch DIR, or {instead}; or use --ignore-space"
            ),
            None => format!(
                "the target does not say how much {id} takes to be mounted, and it would be received at {at}, on the file system of what it is of, so nothing was fetched — name a directory of a btrfs with --scratch DIR, on which that much is left to others ({leave}), or {instead}; or use --ignore-space, which may take all that is free there"
            ),
        };
        Err(StepError::new(Trouble::Environment, text))
    }

    fn receive(
        &self,
        fetch: Fetch,
        place: &Path,
        leave_free: Option<u64>,
    ) -> Result<Received, StepError> {
        let cx = self.cx;
        let staging = Staging::make(cx, place, STAGING)?
            .map_err(|error| self.no_room(Trouble::Environment, &error))?;
        self.tell(fetch, &staging.path);
        let wanted = staging.wanted(cx, self.copy, RECEIVED, leave_free);
        let wanted = AsSubvolume { nameless: true, ..wanted };
        let mut full = None;
        let found = self.as_a_step(|progress| {
            bracketed(cx, self.engine, |engine, context| {
                let received = engine.restore_as_subvolume(context, &wanted, progress);
                received.inspect_err(|error| {
                    let is_of_it = is_of_destination(error);
                    full = is_of_it.then(|| self.no_room(error.trouble(), error));
                })
            })
        });
        let found = found.map_err(|error| full.unwrap_or(error))?;
        Ok(Received { staging, found })
    }

    fn tell(&self, fetch: Fetch, directory: &Path) {
        let how_much = match fetch.bytes {
            Some(bytes) => format!("up to {}, as the target says", size::show(bytes)),
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
    fn no_room(&self, trouble: Trouble, error: &(dyn Error + 'static)) -> StepError {
        let hint = format!(
            "name a directory of another btrfs with --scratch DIR, or {}",
            instead(self.engine, self.copy)
        );
        StepError::from_error(trouble, error, Some(&hint))
    }

    /// Deletes what was received, and all that it is a difference to; unless it is still seen anywhere.
    fn let_go(&self, received: &Received, mount: &ServedMount) -> Result<(), StepError> {
        let host = self.cx.host();
        unmount(host, mount, None)?;
        received.staging.empty(host, None)
    }
}

/// Whether it is the place that something is received into which failed.
fn is_of_destination(error: &EngineError) -> bool {
    matches!(error, EngineError::PlaceFull { .. } | EngineError::Act(ActError::Io { .. }))
        && error.is_of_space()
}
