//! What a copy holds, told entry by entry to whoever compares it with what was sent: on this machine, or by a server.

use super::wire::Printed;
use super::{BtrfsEngine, FarEngine};
use crate::engine::sent::{Blame, failure};
use crate::engine::{Comparison, Context, EngineError, SentAs};
use crate::host::{CommandSpec, Completed, Watch};
use crate::model::copy::Copy;
use crate::model::target::ReadData;
use crate::tools::manifest::{self, Sample};

impl Comparison for BtrfsEngine {
    fn sent_as(&self, cx: Context<'_>, copy: &Copy) -> Result<SentAs, EngineError> {
        if self.server.is_some() {
            let why = "no Stillpoint is where the copy lies, to tell what it holds";
            return Ok(SentAs::Untold(why.into()));
        }
        let (record, _) = self.held(&self.open(cx)?, &copy.id)?;
        Ok(SentAs::Snapshot { uuid: record.sent, generation: record.generation })
    }

    fn describe(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        sample: Sample,
        to: (&CommandSpec, Watch<'_>),
    ) -> Result<Completed, EngineError> {
        if self.server.is_some() {
            return Err(EngineError::unsupported(&self.target, "describe what lies there"));
        }
        let describe = self.description(self.held(&self.open(cx)?, &copy.id)?.1, sample);
        described(cx, &describe, to, &|spec, ended| failure(&self.target, spec, ended))
    }
}

impl BtrfsEngine {
    /// What describes the copy that lies there.
    pub(super) fn description(&self, copy: std::path::PathBuf, sample: Sample) -> CommandSpec {
        manifest::describe(&copy, sample, self.target.stall_timeout)
    }
}

impl Comparison for FarEngine {
    fn sent_as(&self, cx: Context<'_>, copy: &Copy) -> Result<SentAs, EngineError> {
        let (listing, _) = self.listing(cx)?;
        if !listing.describes {
            let why = "the Stillpoint on the server is too old to tell what a copy holds";
            return Ok(SentAs::Untold(why.into()));
        }
        let record = self.record_in(&listing, &copy.id)?;
        Ok(SentAs::Snapshot { uuid: record.sent.clone(), generation: record.generation })
    }

    fn describe(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        sample: Sample,
        to: (&CommandSpec, Watch<'_>),
    ) -> Result<Completed, EngineError> {
        let Sample { share, seed } = sample;
        let (copy, share) = (self.name(copy)?, ReadData::Percent(share).into());
        let describe = self.printing(Printed::Manifest { copy, share, seed })?;
        described(cx, &describe, to, &|spec, ended| self.blame(spec, ended))
    }
}

fn described(
    cx: Context<'_>,
    describe: &CommandSpec,
    (to, watch): (&CommandSpec, Watch<'_>),
    blame: Blame<'_>,
) -> Result<Completed, EngineError> {
    let chained = cx.host.chain(std::slice::from_ref(describe), to, watch)?;
    // Whoever stops listening has failed, and whoever still talks fails because of that.
    let failed = chained.before.first().filter(|ended| ended.is_own_failure());
    match failed.filter(|_| !chained.last.success()) {
        Some(ended) => Err(blame(describe, ended)),
        None => Ok(chained.last),
    }
}
