//! Guests of a hypervisor in memory. They obey, their agents answer, and the hypervisor refuses what libvirt was seen
//! to refuse, with its numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use stillpoint::host::{
    BlockJob, Checkpoint, Definition, FreezeState, Guest, GuestCall, GuestChange, GuestJob,
    GuestState, Hypervisor, HypervisorError, OffReason, Overlay, PauseReason, ShutdownBy,
};
use stillpoint::model::guest::GuestUuid;
use stillpoint::model::secret::Secret;

use super::fake_host::FakeHost;

/// A guest, and whatever was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeGuest {
    /// As it shows itself.
    pub guest: Guest,
    /// Whether it is to be running, whatever happens.
    pub should_run: bool,
    /// Whether its agent answers.
    pub agent: bool,
    /// Whether it heeds its power button.
    pub obeys: bool,
    /// Whether its file systems stand still.
    pub frozen: bool,
    /// Disks whose writes go elsewhere, with where to; its next start finds them so, too.
    pub overlays: BTreeMap<String, PathBuf>,
    /// Disks that are being brought back.
    pub commits: BTreeSet<String>,
    /// Its checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// The socket of the backup that keeps it busy.
    pub backup: Option<PathBuf>,
}

/// libvirt's numbers: the operation is not valid now; it is not supported so; no agent answers.
pub const INVALID: u32 = 55;
pub const UNSUPPORTED: u32 = 84;
pub const NO_AGENT: u32 = 86;

impl FakeGuest {
    /// A guest that runs, with an agent.
    pub fn running(name: &str, uuid: &str) -> Self {
        let guest = Guest {
            uuid: GuestUuid::parse(uuid).unwrap(),
            name: name.into(),
            run: Some(1),
            state: GuestState::Running,
            persistent: true,
            autostart: false,
            managed_save: false,
        };
        Self {
            guest,
            should_run: true,
            agent: true,
            obeys: true,
            frozen: false,
            overlays: BTreeMap::new(),
            commits: BTreeSet::new(),
            checkpoints: Vec::new(),
            backup: None,
        }
    }

    fn is_on(&self) -> bool {
        self.guest.run.is_some()
    }

    /// What a run of ours must have released.
    pub fn held(&self) -> Vec<String> {
        let mut held = Vec::new();
        if self.should_run && self.guest.state != GuestState::Running {
            held.push(format!("is {:?}", self.guest.state));
        }
        if self.frozen {
            held.push("is frozen".into());
        }
        held.extend(self.overlays.keys().map(|disk| format!("writes {disk} elsewhere")));
        held.extend(self.commits.iter().map(|disk| format!("has a job on {disk}")));
        held.extend(self.backup.iter().map(|socket| format!("is shown on {}", socket.display())));
        held.iter().map(|what| format!("guest {} {what}", self.guest.name)).collect()
    }

    /// Its run ends, and what belongs to the run with it.
    fn end(&mut self, reason: OffReason) {
        self.guest.run = None;
        self.guest.state = GuestState::Off(reason);
        self.frozen = false;
        self.commits.clear();
        self.backup = None;
    }

    /// The machine's power was cut and came back.
    pub fn reboot(&mut self) {
        if self.is_on() {
            // What libvirt says of those that it does not remember.
            self.end(OffReason::Other(0));
        }
        if self.guest.autostart {
            self.start(GuestState::Running);
        }
    }

    fn start(&mut self, state: GuestState) {
        self.guest.run = Some(2);
        self.guest.state = state;
        self.guest.managed_save = false;
    }

    /// Changes it, or answers with the number of the refusal.
    fn change(&mut self, change: &GuestChange) -> Result<Option<u32>, u32> {
        let state = self.guest.state;
        let runs = state == GuestState::Running;
        match change {
            GuestChange::Shutdown { by } => {
                require(runs, INVALID)?;
                require(*by == ShutdownBy::Acpi || self.agent, NO_AGENT)?;
                if self.obeys || *by == ShutdownBy::Agent {
                    self.end(OffReason::ByItself);
                }
            }
            GuestChange::Destroy => {
                require(self.is_on(), INVALID)?;
                self.end(OffReason::Destroyed);
            }
            GuestChange::Start { paused } => {
                require(!self.is_on(), INVALID)?;
                let paused = paused.then_some(GuestState::Paused(PauseReason::User));
                self.start(paused.unwrap_or(GuestState::Running));
            }
            GuestChange::Suspend => {
                require(runs, INVALID)?;
                self.guest.state = GuestState::Paused(PauseReason::User);
            }
            GuestChange::Resume => {
                require(matches!(state, GuestState::Paused(_)), INVALID)?;
                self.guest.state = GuestState::Running;
            }
            GuestChange::StayOff | GuestChange::AgentTimeout(_) => {
                require(self.is_on(), INVALID)?;
            }
            GuestChange::SetAutostart(autostart) => self.guest.autostart = *autostart,
            GuestChange::Freeze => {
                require(runs && self.agent && !self.frozen, NO_AGENT)?;
                self.frozen = true;
                return Ok(Some(2));
            }
            GuestChange::Thaw => {
                require(runs && self.agent, NO_AGENT)?;
                return Ok(Some(if std::mem::take(&mut self.frozen) { 2 } else { 0 }));
            }
            GuestChange::Snapshot { overlays, quiesce } => {
                require(self.is_on() || self.checkpoints.is_empty(), UNSUPPORTED)?;
                require(!quiesce || runs, INVALID)?;
                require(!quiesce || self.agent, NO_AGENT)?;
                let busy = overlays.iter().any(|one| self.overlays.contains_key(&one.disk));
                require(!busy, INVALID)?;
                let moved =
                    overlays.iter().map(|Overlay { disk, file }| (disk.clone(), file.clone()));
                self.overlays.extend(moved);
            }
            GuestChange::Commit { disk } => {
                require(self.is_on() && self.overlays.contains_key(disk), INVALID)?;
                self.commits.insert(disk.clone());
            }
            GuestChange::Pivot { disk } => {
                let was = self.commits.remove(disk);
                require(was, INVALID)?;
                self.overlays.remove(disk);
            }
            GuestChange::AbortCommit { disk } => {
                let was = self.commits.remove(disk);
                require(was, INVALID)?;
            }
            GuestChange::CreateCheckpoint { name, disks } => {
                require(self.is_on(), UNSUPPORTED)?;
                self.checkpoints.push(Checkpoint { name: name.clone(), intact: disks.clone() });
            }
            GuestChange::DeleteCheckpoint { name, metadata_only } => {
                require(self.is_on() || *metadata_only, UNSUPPORTED)?;
                self.checkpoints.retain(|one| one.name != *name);
            }
            GuestChange::BeginBackup { socket, disks, checkpoint } => {
                require(self.is_on() && self.commits.is_empty(), INVALID)?;
                require(self.backup.is_none(), INVALID)?;
                self.backup = Some(socket.clone());
                let intact = disks.iter().map(|disk| disk.disk.clone()).collect();
                let made = checkpoint.clone().map(|name| Checkpoint { name, intact });
                self.checkpoints.extend(made);
            }
            GuestChange::AbortJob => {
                let was = self.backup.take();
                require(was.is_some(), INVALID)?;
            }
        }
        Ok(None)
    }
}

/// The guests of a world, by what identifies them.
pub type FakeGuests = BTreeMap<GuestUuid, FakeGuest>;

fn require(may: bool, code: u32) -> Result<(), u32> {
    if may { Ok(()) } else { Err(code) }
}

fn failed(call: String, code: u32) -> HypervisorError {
    HypervisorError::Failed { call, code, reason: "the fake hypervisor refuses".into() }
}

impl FakeHost {
    fn guest_of(&self, uuid: &GuestUuid) -> Result<FakeGuest, HypervisorError> {
        let gone = || HypervisorError::Gone { name: uuid.to_string() };
        self.world().guests.get(uuid).cloned().ok_or_else(gone)
    }
}

impl Hypervisor for FakeHost {
    fn version(&self) -> Result<String, HypervisorError> {
        Ok("9.0.0".into())
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        Ok(self.world().guests.values().map(|one| one.guest.clone()).collect())
    }

    fn guest(&self, guest: &GuestUuid) -> Result<Option<Guest>, HypervisorError> {
        Ok(self.world().guests.get(guest).map(|one| one.guest.clone()))
    }

    fn definition(&self, guest: &GuestUuid, _: Definition) -> Result<Secret, HypervisorError> {
        let found = self.guest_of(guest)?;
        let disks: String = found
            .overlays
            .iter()
            .map(|(disk, file)| format!("<disk target='{disk}' source='{}'/>", file.display()))
            .collect();
        Ok(Secret::new(format!("<domain><name>{}</name>{disks}</domain>", found.guest.name)))
    }

    fn job(&self, guest: &GuestUuid) -> Result<Option<GuestJob>, HypervisorError> {
        let backup = self.guest_of(guest)?.backup;
        Ok(backup.map(|_| GuestJob::Backup { scratch_used: Some(0) }))
    }

    fn block_job(
        &self,
        guest: &GuestUuid,
        disk: &str,
    ) -> Result<Option<BlockJob>, HypervisorError> {
        let busy = self.guest_of(guest)?.commits.contains(disk);
        Ok(busy.then_some(BlockJob { done: 1, of: 1, ready: true }))
    }

    fn checkpoints(&self, guest: &GuestUuid) -> Result<Vec<Checkpoint>, HypervisorError> {
        Ok(self.guest_of(guest)?.checkpoints)
    }

    fn freeze_state(&self, guest: &GuestUuid) -> Result<FreezeState, HypervisorError> {
        let found = self.guest_of(guest)?;
        if found.guest.state != GuestState::Running || !found.agent {
            return Err(failed(format!("ask whether guest {guest} is frozen"), NO_AGENT));
        }
        Ok(if found.frozen { FreezeState::Frozen } else { FreezeState::Thawed })
    }

    fn change(&self, call: &GuestCall) -> Result<Option<u32>, HypervisorError> {
        let changed =
            self.effect(call.summary(), |world| match world.guests.get_mut(&call.guest) {
                Some(guest) => {
                    guest.change(&call.change).map_err(|code| failed(call.summary(), code))
                }
                None => Err(HypervisorError::Gone { name: call.name.clone() }),
            });
        // An injected failure: libvirt's for an internal error.
        changed.unwrap_or_else(|| Err(failed(call.summary(), 1)))
    }
}
