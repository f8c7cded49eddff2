//! Makes room in a target beyond its policy: oldest first, one by one, until there is as much as must stay free.

use crate::engine::Engine;
use crate::host::{self, Shortage};
use crate::model::copy::abridged;
use crate::retention::Expendable;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::room::is_foretold;

/// What a target lacks of the space that must stay free there; `None` where nothing is lacking or nothing is asked for.
///
/// # Errors
/// When its file system cannot be asked.
pub fn shortage(cx: RunContext<'_>, engine: &dyn Engine) -> Result<Option<Shortage>, StepError> {
    let target = engine.target();
    match (target.min_free(), &target.local) {
        (Some(min_free), Some(place)) => Ok(host::shortage(cx.host(), place, min_free)?),
        (None, _) | (_, None) => Ok(None),
    }
}

/// What may go beyond the policies of a target.
#[derive(Debug, Default)]
pub struct Spare {
    /// Copies in the order in which they go, when it is whole.
    pub expendable: Vec<Expendable>,
    /// Why nothing of a series may go.
    pub held_back: Vec<String>,
}

/// How many deletions in a row that free nothing are the last ones: something else takes up what they free, or holds it.
const IN_VAIN: usize = 5;

/// Deletes copies, and answers with those that are gone: [`retain::delete`](super::retain::delete).
type Delete<'d> = &'d mut dyn FnMut(&[String]) -> Result<Vec<String>, StepError>;

/// What came of it.
#[derive(Debug, Default)]
pub struct Room {
    /// Copies that went.
    pub deleted: Vec<String>,
    /// What a person should know.
    pub told: Option<String>,
    /// There is too little space, and all that may go does as far as it is needed: nothing went.
    pub is_foretold: bool,
    /// There is too little space still, and nothing more can be done about it.
    pub is_lacking: bool,
}

/// Makes room, under the target's lock for deleting. The caller has deleted what the policy does not keep, if
/// `has_deleted`; what else may go is `spare`. A dry run cannot know how many it would take, and says how many at most.
///
/// # Errors
/// When a deletion fails, or the file system cannot be asked.
pub fn make_room(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    spare: &Spare,
    has_deleted: bool,
    delete: Delete<'_>,
) -> Result<Room, StepError> {
    let mut made = Room::default();
    let Some(mut lack) = shortage(cx, engine)? else { return Ok(made) };
    let may_go: Vec<String> = spare.expendable.iter().map(|it| it.id.clone()).collect();
    if is_foretold(cx.host()) {
        made.told = Some(format!("{lack}: {}", foreseen(&may_go, has_deleted)));
        made.is_foretold = true;
        return Ok(made);
    }
    // A hope is no deletion: what has gone so far is waited for before anything else goes.
    let mut waits = has_deleted;
    let mut in_vain = 0;
    for id in may_go {
        if waits {
            if let Err(error) = engine.await_freed(cx.engine()).map_err(StepError::from) {
                made.told = Some(format!(
                    "{lack}, and nothing more goes before it is known what the last deletion freed: {error}"
                ));
                made.is_lacking = true;
                break;
            }
            match shortage(cx, engine)? {
                Some(still) => {
                    let has_grown = still.free > lack.free || made.deleted.is_empty();
                    in_vain = if has_grown { 0 } else { in_vain + 1 };
                    lack = still;
                }
                None => break,
            }
            if in_vain >= IN_VAIN {
                let lasting = format!(
                    "{lack}, and nothing more goes, since the last {IN_VAIN} freed nothing: see what else fills the file system"
                );
                made.told = said(&made.deleted, Some(lasting));
                made.is_lacking = true;
                break;
            }
        }
        if cx.host().stop_signal().is_some() {
            return Ok(made);
        }
        made.deleted.extend(delete(&[id])?);
        waits = true;
    }
    if made.told.is_none() {
        settle(cx, engine, spare, waits, &mut made)?;
    }
    Ok(made)
}

/// What is to be said in the end.
fn settle(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    spare: &Spare,
    waits: bool,
    room: &mut Room,
) -> Result<(), StepError> {
    let freed = if waits { engine.await_freed(cx.engine()) } else { Ok(()) };
    let lasting = match freed.map_err(StepError::from) {
        Err(error) => Some(format!("what the deletions have freed is not known: {error}")),
        Ok(()) => shortage(cx, engine)?.map(|lack| {
            let why = match spare.held_back.is_empty() {
                true => "nothing more may go".to_owned(),
                false => spare.held_back.join("; "),
            };
            format!("{lack}, and {why}")
        }),
    };
    room.is_lacking = lasting.is_some();
    room.told = said(&room.deleted, lasting);
    Ok(())
}

/// What is said of copies that went, and of a lack that lasts.
fn said(deleted: &[String], lasting: Option<String>) -> Option<String> {
    let went = (!deleted.is_empty())
        .then(|| format!("{} deleted for space ({})", deleted.len(), abridged(deleted)));
    let said: Vec<String> = went.into_iter().chain(lasting).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// What a dry run says.
fn foreseen(may_go: &[String], has_deleted: bool) -> String {
    if may_go.is_empty() {
        return "nothing more may go".to_owned();
    }
    let after = if has_deleted { "if that is not enough, " } else { "" };
    format!(
        "{after}up to {} would be deleted for space, oldest first, until there is enough ({})",
        may_go.len(),
        abridged(may_go)
    )
}
