//! Why nothing was received, and what may help.

use super::answers::Refusal;
use super::record::Record;
use crate::engine::EngineError;

/// Why nothing was received.
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
    pub fn of(base: Option<&Record>, error: EngineError) -> Self {
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
            Failure::Other(error) => !is_of_space(error),
        }
    }
}

/// Whether it failed because there was no space.
pub(super) fn is_of_space(error: &EngineError) -> bool {
    matches!(Refusal::of(error), Refusal::Full(_))
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
