//! Processes that a dry run would hold at one end of a pipe: each turn beside them is noted as the chain that it is.

use super::{DryHost, PlannedEffect, predict, unseen};
use crate::host::{CommandSpec, Completed, Effect, Held, HeldEnd, RunError, Watch};

impl DryHost {
    /// Holds them, where they only look. What those would have their turn with may change something all the same.
    pub(super) fn held(&self, specs: &[CommandSpec], end: HeldEnd) -> Box<dyn Held + '_> {
        Box::new(DryHeld { host: self, specs: specs.to_vec(), end, inner: None, is_noted: false })
    }
}

struct DryHeld<'h> {
    host: &'h DryHost,
    specs: Vec<CommandSpec>,
    end: HeldEnd,
    /// Who holds them, as long as nothing would have changed.
    inner: Option<Box<dyn Held + 'h>>,
    is_noted: bool,
}

impl DryHeld<'_> {
    fn only_looks(specs: &[CommandSpec]) -> bool {
        specs.iter().all(|spec| spec.effect == Effect::Inspect)
    }
}

impl Held for DryHeld<'_> {
    fn turn(
        &mut self,
        specs: &[CommandSpec],
        watch: Watch<'_>,
    ) -> Result<Vec<Completed>, RunError> {
        if Self::only_looks(&self.specs) && Self::only_looks(specs) {
            let aside = |specs: &[CommandSpec]| -> Result<Vec<CommandSpec>, RunError> {
                specs.iter().map(|spec| self.host.aside(spec)).collect()
            };
            let (held, turn) = (aside(&self.specs)?, aside(specs)?);
            let inner = match self.inner.take() {
                Some(inner) => inner,
                None => self.host.inner.hold(&held, self.end)?,
            };
            return self.inner.insert(inner).turn(&turn, watch);
        }
        let all: Vec<CommandSpec> = match self.end {
            HeldEnd::Writes => self.specs.iter().chain(specs).cloned().collect(),
            HeldEnd::Reads => specs.iter().chain(&self.specs).cloned().collect(),
        };
        let Some((last, before)) = all.split_last() else { return Ok(Vec::new()) };
        let notes = match self.end {
            // One that leaves nothing behind only waits for what the next one takes.
            HeldEnd::Writes => specs.iter().any(|spec| !spec.prediction.facts.is_empty()),
            // Another turn with the same would change nothing else.
            HeldEnd::Reads => !self.is_noted,
        };
        if notes {
            self.host.note(PlannedEffect::of_chain(before, last), &all.iter().collect::<Vec<_>>());
            self.is_noted = true;
        }
        let mut ended = vec![unseen(); specs.len().saturating_sub(1)];
        ended.extend(specs.last().map(|last| predict(last, watch)));
        Ok(ended)
    }

    fn finish(self: Box<Self>, watch: Watch<'_>) -> Result<Vec<Completed>, RunError> {
        match self.inner {
            Some(inner) => inner.finish(watch),
            None => Ok(vec![unseen(); self.specs.len()]),
        }
    }

    fn stop(self: Box<Self>) -> Result<Vec<Completed>, RunError> {
        match self.inner {
            Some(inner) => inner.stop(),
            None => Ok(vec![unseen(); self.specs.len()]),
        }
    }
}
