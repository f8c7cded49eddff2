//! Subvolumes that another program received into the directory of a target, and how they become copies.
//!
//! They stay where they are and as they are called, so that whoever made them finds them. What `btrfs receive` was fed by
//! somebody else may be empty files after a power cut, while everything that a listing shows is as it should be. So such a
//! copy can be listed and restored from, and is the base of nothing until it was compared with what was sent.

use std::path::Path;

use chrono::{DateTime, Utc};

use super::BtrfsEngine;
use super::answers::Others;
use super::catalog::{Catalog, finished_name};
use super::file_name::escaped;
use super::others::{Other, around_a_snapshot};
use super::record::Record;
use crate::engine::made::{LONGEST_NAME, Made, NO_RUN};
use crate::engine::{Adoption, Context, EngineError, Foreign, Found, TakeOver};
use crate::host::{PathKind, PathState, Subvolume, TrustKind};
use crate::model::copy::Copy;
use crate::model::names::RunId;
use crate::model::shown::Show;
use crate::tools::btrfs::dated;

impl BtrfsEngine {
    /// What other programs received there.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    pub(super) fn others(&self, cx: Context<'_>) -> Result<Others, EngineError> {
        let catalog = self.open(cx)?;
        let mut others = Others::default();
        for path in cx.host.nested_subvolumes(&catalog.location)? {
            let Some(subvolume) = cx.host.subvolume(&path)? else { continue };
            match other(&catalog, &path, subvolume)? {
                Looked::Ours => {}
                Looked::Fit(other) => others.fit.push(*other),
                Looked::Unfit(why) => others.unfit.push(format!("{}: {why}", path.shown())),
            }
        }
        others.unfit.sort();
        Ok(others)
    }

    /// Notes that all of a copy was compared; see [`Adoption::prove`].
    pub(super) fn note_proven(&self, cx: Context<'_>, id: &str) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        // What was compared may have been read from memory.
        catalog.flush()?;
        let (record, _) = self.held(&catalog, id)?;
        match record.unproven {
            true => catalog.record(&Record { unproven: false, ..record }),
            false => Ok(()),
        }
    }
}

/// What is offered on this machine of what lies there.
pub(super) fn offered(cx: Context<'_>, Others { fit, unfit }: Others) -> Found {
    let mut fit: Vec<Foreign> = fit.into_iter().map(|it| it.foreign(cx.host)).collect();
    fit.sort_by(|one, other| one.moment().cmp(&other.moment()));
    Found { fit, unfit }
}

impl Adoption for BtrfsEngine {
    fn foreign(&self, cx: Context<'_>) -> Result<Found, EngineError> {
        Ok(offered(cx, self.others(cx)?))
    }

    fn take_over(
        &self,
        cx: Context<'_>,
        wanted: &[TakeOver<'_>],
    ) -> Result<Vec<String>, EngineError> {
        let catalog = self.open(cx)?;
        catalog.place.require_closed()?;
        // Whoever received them may not have waited for that.
        catalog.flush()?;
        let mut taken = Vec::new();
        for wanted in wanted {
            let Foreign { id, found, time, .. } = wanted.foreign;
            let there = cx.host.subvolume(&catalog.path(id))?;
            let Some(there) = there.filter(|there| is_same(there, found)) else { continue };
            if catalog.is_recorded(id)? {
                continue;
            }
            let record = record(wanted, &there, *time);
            catalog.record(&record.ok_or_else(|| unnamed(id))?)?;
            taken.push(id.clone());
        }
        Ok(taken)
    }

    fn prove(&self, cx: Context<'_>, copy: &Copy) -> Result<(), EngineError> {
        self.note_proven(cx, &copy.id)
    }
}

/// What a subvolume in a target is to us.
enum Looked {
    /// A copy, one that is being received, or what is left of one.
    Ours,
    /// Somebody else's, and whole.
    Fit(Box<Other>),
    /// Somebody else's, and why it cannot become a copy.
    Unfit(String),
}

fn other(catalog: &Catalog<'_>, path: &Path, found: Subvolume) -> Result<Looked, EngineError> {
    let unfit = |why: &str| Ok(Looked::Unfit(why.to_owned()));
    let inside = path.strip_prefix(&catalog.location).ok().and_then(Path::to_str);
    let Some(name) = inside else {
        return unfit("its name is no UTF-8 text, and cannot be an id; rename it");
    };
    if finished_name(name).is_some() {
        return Ok(Looked::Ours);
    }
    if name.split('/').any(|part| part.starts_with('.')) {
        return unfit(
            "its name begins with a dot, as those of copies do that are not whole; rename it",
        );
    }
    if escaped(name).len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return unfit(
            "its name is too long for an id, or holds a line break or the like; rename it",
        );
    }
    if catalog.is_recorded(name)? {
        return Ok(Looked::Ours);
    }
    if found.received_uuid.is_none() {
        return unfit(
            "it was not received whole, or was made writable since, which makes it nobody's copy",
        );
    }
    if !found.read_only {
        return unfit("it is writable although it was received, so anybody may have changed it");
    }
    if let Some(around) = path.parent().filter(|around| *around != catalog.location)
        && let Err(error) = catalog.cx.host.check_trusted(around, TrustKind::Directory)
    {
        return unfit(&format!("somebody else could put something in its place ({error})"));
    }
    let told = in_info(catalog, name)?;
    let other = Other::of(name.to_owned(), found, told).map(Box::new);
    other.map_or_else(|| unfit("it has no UUID"), |other| Ok(Looked::Fit(other)))
}

/// The moment that a file beside one of snapper's tells.
fn in_info(catalog: &Catalog<'_>, name: &str) -> Result<Option<DateTime<Utc>>, EngineError> {
    if around_a_snapshot(name).is_none() {
        return Ok(None);
    }
    let host = catalog.cx.host;
    let info = catalog.path(name).with_file_name("info.xml");
    let is_plain = |it: PathState| it.kind == PathKind::File && it.size < LONGEST_INFO;
    if !host.path_state(&info)?.is_some_and(is_plain) {
        return Ok(None);
    }
    Ok(dated::in_info(&String::from_utf8_lossy(&host.read(&info)?)))
}

/// snapper's own have some hundred bytes.
const LONGEST_INFO: u64 = 1 << 16;

/// Whether a subvolume is still what was found. When it was changed last is told anew by each: a file system that writes
/// the last of what was received may count one up.
fn is_same(there: &Subvolume, found: &Subvolume) -> bool {
    there.uuid == found.uuid
        && there.read_only
        && there.received_uuid == found.received_uuid
        && there.received == found.received
}

/// The record that it gets; `None` where it has no UUID, as no file system answers.
fn record(wanted: &TakeOver<'_>, there: &Subvolume, time: DateTime<Utc>) -> Option<Record> {
    let TakeOver { foreign, series, pinned, proven } = wanted;
    Some(Record {
        format: Record::FORMAT,
        name: foreign.id.clone(),
        uuid: there.uuid.clone()?,
        sent: there.received_uuid.clone()?,
        generation: there.received,
        changed: there.changed,
        parent: there.parent_uuid.clone(),
        made: Made {
            host: series.host.clone(),
            job: series.job.clone(),
            item: series.item.clone(),
            run: RunId::from_bytes(NO_RUN),
            machine: None,
            time,
        },
        bytes: None,
        stream: None,
        files: None,
        pinned: *pinned,
        unproven: !proven,
        going: false,
    })
}

fn unnamed(id: &str) -> EngineError {
    EngineError::Output { engine: "btrfs", what: format!("{id} has no UUID") }
}
