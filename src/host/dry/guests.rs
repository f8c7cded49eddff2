//! Guests in a dry run: each is as the hypervisor shows it, and as the changes that were only noted would leave it.

use super::{DryHost, PlannedEffect};
use crate::host::hypervisor::predict;
use crate::host::{
    BlockJob, Checkpoint, Definition, FreezeState, Guest, GuestCall, GuestChange, GuestJob,
    Hypervisor, HypervisorError,
};
use crate::model::guest::GuestUuid;
use crate::model::secret::Secret;

impl DryHost {
    /// What would have been done to a guest so far.
    fn done_to(&self, guest: &GuestUuid) -> Vec<GuestChange> {
        self.noted().guests.get(guest).cloned().unwrap_or_default()
    }
}

impl Hypervisor for DryHost {
    fn version(&self) -> Result<String, HypervisorError> {
        self.inner.hypervisor().version()
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        let guests = self.inner.hypervisor().guests()?;
        let would_be = |guest: Guest| {
            let changes = self.done_to(&guest.uuid);
            predict::guest(guest, &changes)
        };
        Ok(guests.into_iter().filter_map(would_be).collect())
    }

    fn guest(&self, guest: &GuestUuid) -> Result<Option<Guest>, HypervisorError> {
        let found = self.inner.hypervisor().guest(guest)?;
        Ok(found.and_then(|found| predict::guest(found, &self.done_to(guest))))
    }

    /// As it is: what a change would make of it is not predicted.
    fn definition(&self, guest: &GuestUuid, which: Definition) -> Result<Secret, HypervisorError> {
        self.inner.hypervisor().definition(guest, which)
    }

    fn job(&self, guest: &GuestUuid) -> Result<Option<GuestJob>, HypervisorError> {
        let decided = predict::job(&self.done_to(guest));
        decided.map_or_else(|| self.inner.hypervisor().job(guest), Ok)
    }

    fn block_job(
        &self,
        guest: &GuestUuid,
        disk: &str,
    ) -> Result<Option<BlockJob>, HypervisorError> {
        let decided = predict::block_job(&self.done_to(guest), disk);
        decided.map_or_else(|| self.inner.hypervisor().block_job(guest, disk), Ok)
    }

    fn checkpoints(&self, guest: &GuestUuid) -> Result<Vec<Checkpoint>, HypervisorError> {
        let known = self.inner.hypervisor().checkpoints(guest)?;
        Ok(predict::checkpoints(known, &self.done_to(guest)))
    }

    fn freeze_state(&self, guest: &GuestUuid) -> Result<FreezeState, HypervisorError> {
        let decided = predict::freeze_state(&self.done_to(guest));
        decided.map_or_else(|| self.inner.hypervisor().freeze_state(guest), Ok)
    }

    fn change(&self, call: &GuestCall) -> Result<Option<u32>, HypervisorError> {
        self.note(PlannedEffect::Action(call.summary()), &[]);
        let mut noted = self.noted();
        noted.guests.entry(call.guest.clone()).or_default().push(call.change.clone());
        Ok(None)
    }
}
