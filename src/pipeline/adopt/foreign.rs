//! What another program's copies are of. The snapshot that was sent says it for sure, as long as it is here; so does what
//! a copy is based on. Of the others their names tell it, and a person has the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};

use crate::engine::Foreign;
use crate::model::job::Job;
use crate::model::names::JobName;
use crate::step::context::Pipeline;
use crate::step::error::StepError;
use crate::step::source::Item;

/// How it is known what a copy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// It says so itself.
    Marks,
    /// The snapshot that was sent is here.
    Snapshot,
    /// It is based on one of which it is known, or such a one is based on it.
    Base,
    /// It has the name of those of which it is known, but for the moment.
    Name,
    /// A person says so.
    Word,
}

impl By {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            By::Marks => "its marks",
            By::Snapshot => "its snapshot",
            By::Base => "its base",
            By::Name => "its name",
            By::Word => "your word",
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a copy is of.
pub(super) type Whose = (JobName, Item);

/// Finds what each of these copies is of, among the items of these jobs; `None` where that is not known, or it is of several.
/// Names tell it only where a person has named copies: those of another machine, or of another subvolume, may be called the
/// same. Where they tell no moment, that of its snapshot is the copy's. Puts them in the order of time.
///
/// # Errors
/// When the machine cannot tell which snapshots there are.
pub(super) fn whose(
    pipeline: Pipeline<'_>,
    jobs: &[&Job],
    copies: &mut [Foreign],
    are_named: bool,
) -> Result<Vec<Option<(Whose, By)>>, StepError> {
    let sent = if copies.is_empty() { Sent::new() } else { sent(pipeline, jobs)? };
    for copy in copies.iter_mut().filter(|copy| copy.time == copy.found.made) {
        let taken = of(copy, &sent).and_then(|of| of.values().min());
        copy.time = taken.copied().map_or(copy.time, |taken| taken.min(copy.time));
    }
    copies.sort_by(|one, other| one.moment().cmp(&other.moment()));
    let mut known: Vec<_> = copies.iter().map(|copy| by_snapshot(copy, &sent)).collect();
    by_base(copies, &mut known);
    if are_named {
        by_name(copies, &mut known);
    }
    Ok(known)
}

/// Which snapshots are here, by their UUID and the generation of their last change: what they are of, and since when.
type Sent = BTreeMap<(String, u64), BTreeMap<Whose, DateTime<Utc>>>;

fn sent(pipeline: Pipeline<'_>, jobs: &[&Job]) -> Result<Sent, StepError> {
    let mut sent = Sent::new();
    for job in jobs {
        for snapshot in pipeline.source(job).snapshots(pipeline)? {
            let Some(uuid) = snapshot.found.uuid else { continue };
            let of = sent.entry((uuid, snapshot.found.changed)).or_default();
            of.insert((job.name.clone(), snapshot.item), snapshot.found.made);
        }
    }
    Ok(sent)
}

/// What the snapshot is of that was sent for a copy.
fn of<'s>(copy: &Foreign, sent: &'s Sent) -> Option<&'s BTreeMap<Whose, DateTime<Utc>>> {
    let uuid = copy.found.received_uuid.clone()?;
    sent.get(&(uuid, copy.found.received))
}

fn by_snapshot(copy: &Foreign, sent: &Sent) -> Option<(Whose, By)> {
    // Which of several it belongs to is for a person to say.
    let of = of(copy, sent).filter(|of| of.len() == 1)?;
    Some((of.keys().next()?.clone(), By::Snapshot))
}

/// The order of time is that in which one is based on another, mostly.
fn by_base(copies: &[Foreign], known: &mut [Option<(Whose, By)>]) {
    let at: BTreeMap<&str, usize> = copies
        .iter()
        .enumerate()
        .filter_map(|(n, copy)| Some((copy.found.uuid.as_deref()?, n)))
        .collect();
    let base = |n: usize| at.get(copies[n].found.parent_uuid.as_deref()?).copied();
    loop {
        let before = known.iter().flatten().count();
        for n in (0..copies.len()).chain((0..copies.len()).rev()) {
            let Some(base) = base(n) else { continue };
            for (from, to) in [(base, n), (n, base)] {
                if known[to].is_none()
                    && let Some((whose, _)) = &known[from]
                {
                    known[to] = Some((whose.clone(), By::Base));
                }
            }
        }
        if known.iter().flatten().count() == before {
            return;
        }
    }
}

fn by_name(copies: &[Foreign], known: &mut [Option<(Whose, By)>]) {
    let mut of: BTreeMap<&str, BTreeSet<Whose>> = BTreeMap::new();
    for (copy, known) in copies.iter().zip(known.iter()) {
        let stem = copy.stem.as_ref().filter(|stem| !stem.is_empty());
        if let (Some(stem), Some((whose, _))) = (stem, known) {
            of.entry(stem).or_default().insert(whose.clone());
        }
    }
    for (copy, known) in copies.iter().zip(known) {
        let of = copy.stem.as_deref().and_then(|stem| of.get(stem)).filter(|of| of.len() == 1);
        if known.is_none() {
            *known = of.and_then(|of| of.first()).map(|whose| (whose.clone(), By::Name));
        }
    }
}
