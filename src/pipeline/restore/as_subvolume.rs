//! A copy that is restored as the subvolume that it is of.
//!
//! It is received into a staging directory of ours on the destination's file system, and a writable snapshot is made of
//! it there: that is no copy of anything any more. When it is on the disk it is moved to its place, in one step. Where
//! something lies there, it waits beside that first, known to the ledger by its UUID, and then both change places: so
//! whatever ends this, the place holds the old or the new, whole, and what is ours elsewhere is in the ledger.
//!
//! A subvolume may be what is mounted, and nobody can move a mount's root by its path. So the last steps are by paths
//! from the top-level subvolume on, which is mounted for them where nobody else sees it.

use std::path::{Path, PathBuf};

use crate::capture::survey::staging_name;
use crate::engine::Engine;
use crate::host::{ActError, Action, Located, Subvolume, SubvolumeAction};
use crate::model::copy::{Copy, Series};
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::undo::WaitingSubvolume;

use crate::pipeline::engine_lock::bracketed;
use crate::pipeline::query::{self, Query};
use crate::pipeline::received::{Staging, reserve};
use crate::pipeline::select::finished_copies;
use crate::pipeline::staging::refuse_seen;
use crate::step::context::RunContext;
use crate::step::error::{StepError, ledger_error};

use super::STAGING;

mod place;
mod said;

use place::Place;

/// What the writable snapshot is called in the staging directory.
const MADE: &str = "made";

/// A copy that was restored so.
#[derive(Debug)]
pub struct RestoredSubvolume {
    /// The target that served it.
    pub target: TargetName,
    /// The copy that was restored.
    pub copy: Copy,
    /// Where it is.
    pub at: PathBuf,
    /// What lay there before, by its path from the top-level subvolume on.
    pub before: Option<PathBuf>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What was not done.
    pub warnings: Vec<String>,
}

/// Restores the copy of a job that is named as a subvolume, with what lies in it and was copied by the same run: as `to`,
/// which is not there yet, or at its original place when absent; without leaving room for others if that is asked for.
///
/// # Errors
/// When it could not be restored; what was there before is there then, unless the message says otherwise.
pub fn restore_as_subvolume(
    cx: RunContext<'_>,
    query: &Query<'_>,
    named: &str,
    (to, ignore_space): (Option<&Path>, bool),
) -> Result<RestoredSubvolume, StepError> {
    let (engine, copy) = query::copy(cx.pipeline, query, named)?;
    let origin = path_of(&copy)?;
    let place = match to {
        Some(to) => place::new(cx, to)?,
        None => {
            query::refuse_elsewhere(cx.config(), query, &copy, super::RESTORE_HERE)?;
            place::original(cx, &origin)?
        }
    };
    let parts = parts(cx, engine, &copy, &origin)?;
    let work = Work { cx, engine, place: &place, ignore_space };
    let staged = work.stage()?;
    let mut laid = work.lay_out(&staged, &parts)?;
    laid.warnings.extend(said::lacking(&work.lacking(&staged, &parts, &copy, &origin)?));
    let before = work.put(&staged, laid.made.clone())?;
    let Laid { made, restitched, mut notes, mut warnings } = laid;
    warnings.extend(said::left_behind(cx, &place, &restitched));
    notes.extend(said::notes(cx, &place, before.as_deref(), &made));
    let target = engine.target().name.clone();
    Ok(RestoredSubvolume { target, copy, at: place.at.clone(), before, notes, warnings })
}

/// Where the subvolume of a copy was.
fn path_of(copy: &Copy) -> Result<PathBuf, StepError> {
    let item = copy.series.as_ref().and_then(|series| series.item.as_deref());
    let path = item.map(Path::new).filter(|path| path.is_absolute());
    path.map(Path::to_owned).ok_or_else(|| {
        let text = format!("{} is no copy of a subvolume — restore it as files", copy.id);
        StepError::new(Trouble::Usage, text)
    })
}

/// A copy and where it belongs in the whole.
struct Part {
    copy: Copy,
    /// Below the outermost one; empty for that itself.
    below: PathBuf,
}

/// The copy, and those of what lay in it that the same run made; each before what lies in it.
fn parts(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    origin: &Path,
) -> Result<Vec<Part>, StepError> {
    let mut parts = Vec::new();
    for other in finished_copies(cx.pipeline, engine)? {
        let (Some(series), Some(theirs)) = (&copy.series, &other.series) else { continue };
        let is_beside = (&series.host, &series.job) == (&theirs.host, &theirs.job);
        if !is_beside || other.run.is_none() || other.run != copy.run {
            continue;
        }
        let below = theirs.item.as_deref().map(Path::new);
        let below = below.and_then(|path| path.strip_prefix(origin).ok()).map(Path::to_owned);
        if let Some(below) = below.filter(|below| !below.as_os_str().is_empty()) {
            parts.push(Part { copy: other, below });
        }
    }
    parts.push(Part { copy: copy.clone(), below: PathBuf::new() });
    parts.sort_by(|a, b| a.below.cmp(&b.below));
    Ok(parts)
}

/// What was received and put together.
#[derive(Default)]
struct Laid {
    /// The outermost subvolume.
    made: Subvolume,
    /// What is in it again, below it.
    restitched: Vec<PathBuf>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

/// Why there is no writable subvolume of a copy.
struct Unmade {
    error: StepError,
    is_of_space: bool,
}

impl From<ActError> for Unmade {
    fn from(error: ActError) -> Self {
        Self { is_of_space: error.is_of_space(), error: error.into() }
    }
}

/// One copy on its way to its place.
struct Work<'a> {
    cx: RunContext<'a>,
    engine: &'a dyn Engine,
    place: &'a Place,
    ignore_space: bool,
}

impl Work<'_> {
    fn stage(&self) -> Result<Staging, StepError> {
        let made = Staging::make(self.cx, &self.place.beside, STAGING)?;
        made.map_err(|error| StepError::from_error(Trouble::Environment, &error, error.hint()))
    }

    /// Receives everything and puts it together.
    fn lay_out(&self, staged: &Staging, parts: &[Part]) -> Result<Laid, StepError> {
        let host = self.cx.host();
        let whole = staged.path.join(MADE);
        let mut laid = Laid::default();
        for (number, part) in parts.iter().enumerate() {
            let name = number.to_string();
            // Joined with nothing, it would end in a slash.
            if part.below.as_os_str().is_empty() {
                let received = self.make(staged, part, &name, whole.clone());
                let received = received.map_err(|unmade| unmade.error)?;
                host.act(&Action::Subvolume(received))?;
                continue;
            }
            let at = whole.join(&part.below);
            if host.path_state(&at)?.is_some() {
                laid.notes.push(said::has_no_room(&part.copy));
                continue;
            }
            match self.make(staged, part, &name, at) {
                Ok(received) => {
                    laid.restitched.push(part.below.clone());
                    host.act(&Action::Subvolume(received))?;
                }
                Err(Unmade { error, is_of_space }) => {
                    self.cx.unless_stopped()?;
                    // What others need there is not taken either, and what was there may go on as it is.
                    if is_of_space {
                        return Err(error);
                    }
                    staged.empty(host, Some(&whole))?;
                    laid.warnings.push(said::is_not_put_back(&part.copy, &error));
                }
            }
        }
        let made = host.subvolume(&whole)?;
        let is_it = |made: &Subvolume| !made.read_only && made.received_uuid.is_none();
        laid.made = made.filter(is_it).ok_or_else(|| {
            let text = format!("there is no writable subvolume at {} after all", whole.shown());
            StepError::new(Trouble::JobFailed, text)
        })?;
        Ok(laid)
    }

    /// Receives one copy and makes a writable subvolume of it. Answers with what deletes what was received.
    fn make(
        &self,
        staged: &Staging,
        part: &Part,
        name: &str,
        at: PathBuf,
    ) -> Result<SubvolumeAction, Unmade> {
        let path = staged.path.join(name);
        let found = self.receive(staged, part, name)?;
        self.cx.host().act(&Action::Subvolume(SubvolumeAction::MakeWritable {
            path: path.clone(),
            found: found.clone(),
            at,
        }))?;
        Ok(SubvolumeAction::DeleteSubvolume { path, found })
    }

    /// The subvolumes of the job that lay in this one and of which the run of its copy made none: nothing is in their
    /// places.
    fn lacking(
        &self,
        staged: &Staging,
        parts: &[Part],
        copy: &Copy,
        origin: &Path,
    ) -> Result<Vec<(JobName, PathBuf)>, StepError> {
        let config = self.cx.config();
        let of_job = |of: &&Series| of.host == *config.host_of(&of.job);
        let job = copy.series.as_ref().filter(of_job).and_then(|of| config.job(&of.job));
        let Some(job) = job else { return Ok(Vec::new()) };
        let mut lacking = Vec::new();
        let items = self.cx.pipeline.source(job).declared().unwrap_or_default();
        for path in items.into_iter().flatten().map(PathBuf::from) {
            let Ok(below) = path.strip_prefix(origin) else { continue };
            let is_there = below.as_os_str().is_empty() || parts.iter().any(|it| it.below == below);
            // Something is in the place of what was mounted there.
            let at = staged.path.join(MADE).join(below);
            if !is_there && self.cx.host().path_state(&at)?.is_none() {
                lacking.push((job.name.clone(), path.clone()));
            }
        }
        Ok(lacking)
    }

    fn receive(&self, staged: &Staging, part: &Part, name: &str) -> Result<Subvolume, Unmade> {
        let leave = reserve(self.cx.host(), &self.place.beside, self.ignore_space)?;
        let wanted = staged.wanted(self.cx, &part.copy, name, leave);
        let mut is_of_space = false;
        let received = bracketed(self.cx, self.engine, |engine, context| {
            let received = engine.restore_as_subvolume(context, &wanted, &mut |_| {});
            received.inspect_err(|error| is_of_space = error.is_of_space())
        });
        received.map_err(|error| Unmade { error, is_of_space })
    }

    /// Moves what was made to its place. Answers where what lay there before is now.
    fn put(&self, staged: &Staging, made: Subvolume) -> Result<Option<PathBuf>, StepError> {
        let (host, place) = (self.cx.host(), self.place);
        let aside = place.live.as_ref().map(|_| said::aside(&place.path, host.now()));
        if let Some(path) = &aside {
            let waiting = WaitingSubvolume {
                file_system: place.file_system.clone(),
                device: place.device.clone(),
                path: path.clone(),
                uuid: made.uuid.clone().unwrap_or_default(),
            };
            self.cx.ledger.intend(waiting.into()).map_err(ledger_error)?;
        }
        self.cx.unless_stopped()?;
        let to = aside.clone().unwrap_or_else(|| place.path.clone());
        let from = place.beside_from_top.join(staging_name(STAGING, self.cx.run)).join(MADE);
        let (device, found) = (place.device.clone(), made.clone());
        host.act(&Action::Subvolume(SubvolumeAction::MoveSubvolume {
            device,
            from,
            found,
            to: to.clone(),
        }))?;
        let (path, identity) = (staged.path.clone(), staged.identity.clone());
        // What somebody sees there stays, and is told when all that the ledger holds goes.
        if refuse_seen(host, &path).is_ok() {
            host.act(&Action::RemoveStaging { path, identity })?;
        }
        self.flush()?;
        if let Some(live) = &place.live {
            self.cx.unless_stopped()?;
            let one = Box::new(live.clone());
            let other = Box::new(Located { path: to, found: made.clone() });
            let device = place.device.clone();
            host.act(&Action::Subvolume(SubvolumeAction::ExchangeSubvolumes {
                device,
                one,
                other,
            }))?;
        }
        self.is_put(&made).map_err(|error| said::after_all(place, aside.as_deref(), error))?;
        Ok(aside)
    }

    /// Makes sure that what was put into its place is there, also after a power cut.
    fn is_put(&self, made: &Subvolume) -> Result<(), StepError> {
        let place = self.place;
        if place.live.is_some() {
            self.flush()?;
        }
        let is_there = self.cx.host().subvolume_on(&place.device, &place.path)?;
        if is_there.is_none_or(|there| there.uuid != made.uuid) {
            let text = format!("{} is not what was put there", place.at.shown());
            return Err(StepError::new(Trouble::JobFailed, text));
        }
        Ok(())
    }

    /// Waits until everything is on the disk.
    fn flush(&self) -> Result<(), ActError> {
        let path = self.place.beside.clone();
        self.cx.host().act(&Action::FlushFileSystem { path }).map(drop)
    }
}
