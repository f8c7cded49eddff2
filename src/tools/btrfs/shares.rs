//! A stream told apart where its parts end, so that whoever stores it goes on where storing it was interrupted.
//!
//! What is stored need not be received by anybody, so nothing is put in between, unlike in [`super::parts`]: one behind the
//! other, the parts are the stream to the byte. They end where the others would, and are known by the same [`Mark`]s.

use super::parts::{Mark, Measure};
use super::stream::{Command, StreamError};

/// How a stream is told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splitting {
    /// So many bytes make a part, behind many of them more; the last one may be shorter.
    pub every: u64,
    /// The end of the last part that is stored.
    pub behind: Option<Mark>,
}

/// The word at the end of the share that nothing is in, behind which the first part follows. Where some are left out, it is
/// the last of their marks.
pub const BEGINS: &str = "begins";

/// Where a part ends, and another one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// The place in what passes, as it was handed out together.
    pub at: usize,
    /// The end of the part.
    pub mark: Mark,
}

/// Tells a stream apart.
#[derive(Debug)]
pub(super) struct Shares {
    measure: Measure,
    /// Up to where it must be the one of which parts are stored.
    follows: Option<Mark>,
    /// Whether nothing has come yet behind those.
    expects: bool,
    /// The end of the last part, if nothing has come behind it: then there may be no other one.
    ended: Option<Mark>,
    boundaries: Vec<Boundary>,
}

impl Shares {
    /// Begins behind the first command.
    pub fn begin(Splitting { every, behind }: Splitting) -> Shares {
        let (measure, expects) = (Measure::growing(every), behind.is_some());
        Shares { measure, follows: behind, expects, ended: None, boundaries: Vec::new() }
    }

    /// Takes a command that will be at this place in what passes.
    ///
    /// # Errors
    /// When it is not the stream of which parts are stored.
    pub fn take(&mut self, command: &Command<'_>, at: usize) -> Result<(), StreamError> {
        if let Some(mark) = self.ended.take() {
            self.boundaries.push(Boundary { at, mark });
            self.expects = false;
        }
        match &self.follows {
            Some(mark) => {
                if self.measure.follow(command, mark)? {
                    self.ended = self.follows.take();
                }
            }
            None => self.ended = self.measure.take(command)?,
        }
        Ok(())
    }

    /// Takes the end of the stream.
    ///
    /// # Errors
    /// When nothing came behind the parts that are stored: the last one of a stream is not among those.
    pub fn end(&self, at: u64) -> Result<(), StreamError> {
        if self.expects { Err(StreamError::Differs { at }) } else { Ok(()) }
    }

    /// The ends of parts since this was asked last.
    pub fn boundaries(&mut self) -> Vec<Boundary> {
        std::mem::take(&mut self.boundaries)
    }
}
