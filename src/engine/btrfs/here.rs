//! What prints something of copies for other machines.

use super::BtrfsEngine;
use super::names::CopyName;
use super::wire::Printed;
use crate::engine::sent::Data;
use crate::engine::{Context, EngineError};
use crate::host::CommandSpec;
use crate::model::target::ReadData;
use crate::tools::manifest::Sample;

impl BtrfsEngine {
    /// The processes that print it; each reads what the one before it prints.
    ///
    /// # Errors
    /// When the copies are not there, or do not have it.
    pub(super) fn printing(
        &self,
        cx: Context<'_>,
        what: &Printed,
    ) -> Result<Vec<CommandSpec>, EngineError> {
        let catalog = self.open(cx)?;
        let at = |copy: &CopyName| Ok::<_, EngineError>(self.held(&catalog, copy.as_str())?.1);
        let place = &catalog.place;
        Ok(match what {
            Printed::Contents { copy } => place.contents(&at(copy)?),
            Printed::Differences { older, newer } => {
                self.comparing(&catalog, &at(older)?, &at(newer)?).into()
            }
            Printed::Manifest { copy, share, seed } => {
                let sample = Sample { share: ReadData::from(*share).percent(), seed: *seed };
                vec![self.description(at(copy)?, sample)]
            }
            Printed::Whole { copy } => vec![self.sending(&catalog, at(copy)?, Data::Plain)],
            Printed::File { copy, path } => vec![place.file(&at(copy)?, path)?],
            Printed::Archive { copy, alone, whole } => {
                vec![place.pack(&at(copy)?, alone, whole)?]
            }
        })
    }
}
