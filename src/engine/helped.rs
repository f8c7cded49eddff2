//! Why nothing came of a stream of `btrfs send`, and what may help.

use super::EngineError;
use super::sent::base_changed;
use crate::host::{CommandSpec, Completed};
use crate::tools::btrfs::parts::has_differed;

/// What a difference is made to.
pub(super) trait Base {
    /// The name of the copy.
    fn name(&self) -> &str;
}

/// Why nothing was taken.
pub(super) enum Failure {
    /// The receiver refused the difference by itself (it does not find what data is shared with where several were received as the same), or made it to
    /// something else than the base: all may be taken.
    Difference(EngineError),
    /// It refused what depends on nothing, or there is nothing that could be sent.
    Refused(EngineError),
    /// The stream is not the one of which there is a part: it may be taken from its beginning.
    Differs(EngineError),
    /// Any other failure, which another parent would not mend.
    Other(EngineError),
}

impl Failure {
    /// A failure for which what was received is to blame, or who received it.
    pub fn of<B: Base>(base: Option<&B>, error: EngineError) -> Self {
        match base {
            Some(_) => Failure::Difference(error),
            None => Failure::Refused(error),
        }
    }

    /// Whether the same may come to a better end when it goes on where it stopped. It does not where a side refuses
    /// something, and what takes up the last space keeps others from it.
    pub fn may_go_on(&self) -> bool {
        match self {
            Failure::Difference(_) | Failure::Refused(_) | Failure::Differs(_) => false,
            Failure::Other(error) => !error.is_of_space(),
        }
    }
}

/// Why nothing came of a stream, if the stage that it passed has told it: the last of those that send.
pub(super) fn told_by_stage<B: Base>(
    engine: &'static str,
    base: Option<&B>,
    specs: &[CommandSpec],
    ended: &[Completed],
) -> Option<Failure> {
    if ended.last().is_some_and(|stage| has_differed(&stage.stderr_tail)) {
        let what = "the snapshot is not what was sent before".to_owned();
        return Some(Failure::Differs(EngineError::Output { engine, what }));
    }
    base_changed(specs, ended).map(|error| Failure::of(base, error))
}

/// What is said when what was there of a copy is not the beginning of what is sent.
const BEGUN_AGAIN: &str =
    "what was sent before is not the beginning of what is sent now, so all was sent again";

/// What is said when a difference was refused.
fn all_was_sent(refused: &impl Base, error: &EngineError) -> String {
    format!("the difference to {} was not taken, so all was sent: {error}", refused.name())
}

/// Takes a copy with as much help of what is there as it can have: as a difference to this base and behind the part that is
/// there; from its beginning when it does not go on from that; as a whole when the difference is refused. `attempt` is told
/// the base, and whether it goes on. Answers with what was taken and what it is based on; `warnings` tell what was done without.
///
/// # Errors
/// What the last attempt failed by.
pub(super) fn with_what_helps<'b, B: Base, T>(
    base: Option<&'b B>,
    warnings: &mut Vec<String>,
    attempt: &mut dyn FnMut(Option<&'b B>, bool) -> Result<T, Failure>,
) -> Result<(T, Option<&'b B>), EngineError> {
    let mut taken = attempt(base, true);
    if let Err(Failure::Differs(_)) = &taken {
        warnings.push(BEGUN_AGAIN.to_owned());
        taken = attempt(base, false);
    }
    match (taken, base) {
        (Err(Failure::Difference(error)), Some(refused)) => {
            warnings.push(all_was_sent(refused, &error));
            Ok((attempt(None, false)?, None))
        }
        (taken, base) => Ok((taken?, base)),
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Failure::Other(error)
    }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Difference(error)
            | Failure::Refused(error)
            | Failure::Differs(error)
            | Failure::Other(error) => error,
        }
    }
}
