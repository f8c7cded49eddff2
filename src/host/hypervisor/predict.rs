//! What a guest would be like after changes that a dry run only noted.
//!
//! A guest is predicted to obey: one that is asked to shut down is off. What its XML would say is not predicted.

use super::{
    BlockJob, Checkpoint, FreezeState, Guest, GuestChange, GuestJob, GuestState, OffReason,
    PauseReason,
};

/// The guest after these changes; `None` when it would be gone: one that is not persistent ends with its power.
pub(crate) fn guest<'a>(
    mut guest: Guest,
    changes: impl IntoIterator<Item = &'a GuestChange>,
) -> Option<Guest> {
    for change in changes {
        if let GuestChange::SetAutostart(autostart) = change {
            guest.autostart = *autostart;
        }
        let Some(state) = state_after(change) else { continue };
        guest.state = state;
        if matches!(change, GuestChange::Start { .. }) {
            guest.managed_save = false;
        }
        if is_power(change) {
            guest.run = None;
        }
        if matches!(state, GuestState::Off(_)) && !guest.persistent {
            return None;
        }
    }
    Some(guest)
}

/// The state in which a change leaves a guest, where it is one of its state.
fn state_after(change: &GuestChange) -> Option<GuestState> {
    match change {
        GuestChange::Shutdown { .. } => Some(GuestState::Off(OffReason::ByItself)),
        GuestChange::Destroy => Some(GuestState::Off(OffReason::Destroyed)),
        GuestChange::Start { paused: true } | GuestChange::Suspend => {
            Some(GuestState::Paused(PauseReason::User))
        }
        GuestChange::Start { paused: false } | GuestChange::Resume => Some(GuestState::Running),
        GuestChange::StayOff
        | GuestChange::SetAutostart(_)
        | GuestChange::AgentTimeout(_)
        | GuestChange::Freeze
        | GuestChange::Thaw
        | GuestChange::Snapshot { .. }
        | GuestChange::Commit { .. }
        | GuestChange::Pivot { .. }
        | GuestChange::AbortCommit { .. }
        | GuestChange::CreateCheckpoint { .. }
        | GuestChange::DeleteCheckpoint { .. }
        | GuestChange::BeginBackup { .. }
        | GuestChange::AbortJob => None,
    }
}

/// Whether it begins or ends a run of the guest, and with it whatever kept it busy.
fn is_power(change: &GuestChange) -> bool {
    matches!(change, GuestChange::Start { .. })
        || matches!(state_after(change), Some(GuestState::Off(_)))
}

/// What would keep it busy, if these changes decide it.
pub(crate) fn job(changes: &[GuestChange]) -> Option<Option<GuestJob>> {
    changes.iter().rev().find_map(|change| match change {
        GuestChange::BeginBackup { .. } => Some(Some(GuestJob::Backup { scratch_used: None })),
        GuestChange::AbortJob => Some(None),
        change => is_power(change).then_some(None),
    })
}

/// What would keep a disk busy, if these changes decide it: all that there is to be done would be.
pub(crate) fn block_job(changes: &[GuestChange], disk: &str) -> Option<Option<BlockJob>> {
    let ready = BlockJob { done: 0, of: 0, ready: true };
    changes.iter().rev().find_map(|change| match change {
        GuestChange::Commit { disk: of } if of == disk => Some(Some(ready)),
        GuestChange::Pivot { disk: of } | GuestChange::AbortCommit { disk: of } if of == disk => {
            Some(None)
        }
        change => is_power(change).then_some(None),
    })
}

/// Whether its file systems would stand still, if these changes decide it.
pub(crate) fn freeze_state(changes: &[GuestChange]) -> Option<FreezeState> {
    changes.iter().rev().find_map(|change| match change {
        GuestChange::Freeze => Some(FreezeState::Frozen),
        GuestChange::Thaw => Some(FreezeState::Thawed),
        change => is_power(change).then_some(FreezeState::Thawed),
    })
}

/// The checkpoints after these changes.
pub(crate) fn checkpoints(mut known: Vec<Checkpoint>, changes: &[GuestChange]) -> Vec<Checkpoint> {
    for change in changes {
        if let GuestChange::CreateCheckpoint { name, disks } = change {
            known.push(Checkpoint { name: name.clone(), intact: disks.clone() });
        } else if let GuestChange::BeginBackup { disks, checkpoint: Some(name), .. } = change {
            let intact = disks.iter().map(|disk| disk.disk.clone()).collect();
            known.push(Checkpoint { name: name.clone(), intact });
        } else if let GuestChange::DeleteCheckpoint { name, .. } = change {
            known.retain(|one| one.name != *name);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::super::ShutdownBy;
    use super::*;
    use crate::model::guest::GuestUuid;

    fn running() -> Guest {
        Guest {
            uuid: GuestUuid::parse("6695eb01-f6a4-8304-79aa-97f2502e193f").unwrap(),
            name: "web1".into(),
            run: Some(7),
            state: GuestState::Running,
            persistent: true,
            autostart: false,
            managed_save: true,
        }
    }

    const SHUT_DOWN: GuestChange = GuestChange::Shutdown { by: ShutdownBy::Acpi };
    const START: GuestChange = GuestChange::Start { paused: true };

    #[test]
    fn a_guest_is_as_its_last_change_left_it() {
        let after = |changes: &[GuestChange]| {
            let guest = guest(running(), changes).unwrap();
            (guest.state, guest.run, guest.managed_save)
        };
        let paused = GuestState::Paused(PauseReason::User);
        assert_eq!(after(&[]), (GuestState::Running, Some(7), true));
        assert_eq!(after(&[GuestChange::Suspend]), (paused, Some(7), true));
        assert_eq!(after(&[SHUT_DOWN]), (GuestState::Off(OffReason::ByItself), None, true));
        assert_eq!(after(&[SHUT_DOWN, START]), (paused, None, false));
        let resumed = [SHUT_DOWN, START, GuestChange::Resume, GuestChange::Freeze];
        assert_eq!(after(&resumed), (GuestState::Running, None, false));
        assert!(guest(running(), &[GuestChange::SetAutostart(true)]).unwrap().autostart);
        let transient = Guest { persistent: false, ..running() };
        assert_eq!(guest(transient.clone(), &[SHUT_DOWN, START]), None);
        assert!(guest(transient, &[GuestChange::Suspend]).is_some());
    }

    #[test]
    fn what_keeps_it_busy_ends_with_its_run() {
        let commit = |disk: &str| GuestChange::Commit { disk: disk.into() };
        let pivot = |disk: &str| GuestChange::Pivot { disk: disk.into() };
        let ready = Some(Some(BlockJob { done: 0, of: 0, ready: true }));
        assert_eq!(block_job(&[commit("vda")], "vdb"), None, "somebody must be asked");
        assert_eq!(block_job(&[commit("vda"), pivot("vdb")], "vda"), ready);
        assert_eq!(block_job(&[commit("vda"), pivot("vda")], "vda"), Some(None));
        assert_eq!(block_job(&[commit("vda"), GuestChange::Destroy], "vda"), Some(None));
        let backup = GuestChange::BeginBackup {
            socket: "/run/s".into(),
            disks: Vec::new(),
            checkpoint: Some("b".into()),
        };
        let busy = Some(Some(GuestJob::Backup { scratch_used: None }));
        assert_eq!(job(&[GuestChange::Thaw]), None);
        assert_eq!(job(std::slice::from_ref(&backup)), busy);
        assert_eq!(job(&[backup.clone(), GuestChange::AbortJob]), Some(None));
        assert_eq!(freeze_state(&[START, GuestChange::Freeze]), Some(FreezeState::Frozen));
        assert_eq!(freeze_state(&[GuestChange::Freeze, START]), Some(FreezeState::Thawed));
        let old = vec![Checkpoint { name: "a".into(), intact: vec!["vda".into()] }];
        let gone = GuestChange::DeleteCheckpoint { name: "a".into(), metadata_only: false };
        let left = checkpoints(old, &[backup, gone]);
        assert_eq!(left, [Checkpoint { name: "b".into(), intact: Vec::new() }]);
    }
}
