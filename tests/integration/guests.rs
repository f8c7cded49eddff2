//! Calls to the hypervisor go through the host's door: the fault loops count each, let it fail and die around it, and
//! a dry run carries out none of them and predicts what would be after it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stillpoint::host::dry::DryHost;
use stillpoint::host::{
    BackupDisk, FreezeState, GuestCall, GuestChange, GuestJob, GuestState, Host, HypervisorError,
    OffReason, Overlay, PauseReason, ShutdownBy,
};
use stillpoint::model::guest::GuestUuid;

use crate::loops::unless_we_die;
use crate::support::fake_guests::{FakeGuest, INVALID, NO_AGENT, UNSUPPORTED};
use crate::support::fake_host::{FakeHost, Fault};
use crate::support::world::World;

const WEB: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

fn uuid() -> GuestUuid {
    GuestUuid::parse(WEB).unwrap()
}

fn world() -> World {
    let guests = [FakeGuest::running("web1", WEB)];
    let guests = guests.map(|guest| (guest.guest.uuid.clone(), guest)).into();
    World { guests, ..World::new() }
}

fn call(change: GuestChange) -> GuestCall {
    GuestCall { guest: uuid(), name: "web1".into(), change }
}

/// Every call that there is, in an order in which a guest takes them, and at the end it is as it was.
fn all() -> Vec<GuestCall> {
    let vda = || "vda".to_owned();
    let checkpoint =
        |name: &str| GuestChange::CreateCheckpoint { name: name.into(), disks: vec![vda()] };
    let delete = |name: &str, metadata_only| GuestChange::DeleteCheckpoint {
        name: name.into(),
        metadata_only,
    };
    let snapshot = |quiesce| GuestChange::Snapshot {
        overlays: vec![Overlay { disk: vda(), file: "/images/web1.overlay".into() }],
        quiesce,
    };
    let changes = vec![
        GuestChange::StayOff,
        GuestChange::Shutdown { by: ShutdownBy::Acpi },
        GuestChange::Start { paused: true },
        checkpoint("one"),
        snapshot(false),
        GuestChange::Resume,
        GuestChange::Commit { disk: vda() },
        GuestChange::AbortCommit { disk: vda() },
        GuestChange::Commit { disk: vda() },
        GuestChange::Pivot { disk: vda() },
        GuestChange::AgentTimeout(Some(Duration::from_secs(20))),
        GuestChange::Freeze,
        GuestChange::BeginBackup {
            socket: "/run/stillpoint/web1.socket".into(),
            disks: vec![BackupDisk {
                disk: vda(),
                scratch: "/images/web1.scratch".into(),
                since: Some("one".into()),
            }],
            checkpoint: Some("two".into()),
        },
        GuestChange::Thaw,
        GuestChange::AbortJob,
        delete("one", false),
        delete("two", true),
        snapshot(true),
        GuestChange::Commit { disk: vda() },
        GuestChange::Pivot { disk: vda() },
        GuestChange::Suspend,
        GuestChange::Resume,
        GuestChange::Shutdown { by: ShutdownBy::Agent },
        GuestChange::Start { paused: false },
        GuestChange::Destroy,
        GuestChange::Start { paused: false },
        GuestChange::SetAutostart(true),
        GuestChange::SetAutostart(false),
        GuestChange::AgentTimeout(None),
    ];
    changes.into_iter().map(call).collect()
}

/// A number for each kind: who adds one is told here that [`all`] wants it, too.
fn kind(change: &GuestChange) -> u32 {
    match change {
        GuestChange::Shutdown { .. } => 0,
        GuestChange::Destroy => 1,
        GuestChange::Start { .. } => 2,
        GuestChange::Suspend => 3,
        GuestChange::Resume => 4,
        GuestChange::StayOff => 5,
        GuestChange::SetAutostart(_) => 6,
        GuestChange::AgentTimeout(_) => 7,
        GuestChange::Freeze => 8,
        GuestChange::Thaw => 9,
        GuestChange::Snapshot { .. } => 10,
        GuestChange::Commit { .. } => 11,
        GuestChange::Pivot { .. } => 12,
        GuestChange::AbortCommit { .. } => 13,
        GuestChange::CreateCheckpoint { .. } => 14,
        GuestChange::DeleteCheckpoint { .. } => 15,
        GuestChange::BeginBackup { .. } => 16,
        GuestChange::AbortJob => 17,
    }
}

fn carry_out(host: &dyn Host, calls: &[GuestCall]) -> Result<(), HypervisorError> {
    calls.iter().try_for_each(|call| host.hypervisor().change(call).map(drop))
}

/// What is asked, and does not count.
fn ask_everything(host: &dyn Host) {
    let hypervisor = host.hypervisor();
    hypervisor.version().unwrap();
    assert_eq!(hypervisor.guests().unwrap().len(), 1);
    hypervisor.guest(&uuid()).unwrap();
    hypervisor.definition(&uuid(), stillpoint::host::Definition::Live).unwrap();
    hypervisor.job(&uuid()).unwrap();
    hypervisor.block_job(&uuid(), "vda").unwrap();
    hypervisor.checkpoints(&uuid()).unwrap();
    // Nobody answers while it is off.
    let _ = hypervisor.freeze_state(&uuid());
}

fn only(host: &FakeHost) -> FakeGuest {
    host.world().guests.values().next().unwrap().clone()
}

#[test]
fn every_call_counts_once_and_no_question_does() {
    let host = FakeHost::over(world());
    for call in all() {
        host.hypervisor().change(&call).unwrap();
        ask_everything(&host);
    }
    let counted = host.world().effects.clone();
    let calls: Vec<String> = all().iter().map(GuestCall::summary).collect();
    assert_eq!(counted, calls);
    assert_eq!(host.world().held(), Vec::<String>::new());
    // None that there is was left out.
    let kinds: BTreeSet<u32> = all().iter().map(|call| kind(&call.change)).collect();
    assert_eq!(kinds, (0..18).collect());
}

#[test]
fn any_call_can_fail_and_then_has_changed_nothing() {
    for (n, call) in all().iter().enumerate() {
        let host = FakeHost::over(world());
        carry_out(&host, &all()[..n]).unwrap();
        let before = only(&host);
        host.arm(Fault::Fail(0));
        let error = host.hypervisor().change(call).unwrap_err();
        assert!(matches!(error, HypervisorError::Failed { .. }), "{error:?}");
        assert_eq!(only(&host), before, "{}", call.summary());
        assert_eq!(host.world().effects, [call.summary()]);
        // Tried again, it works.
        host.arm(Fault::None);
        host.hypervisor().change(call).unwrap();
    }
}

#[test]
fn the_power_can_go_and_we_can_die_around_any_call() {
    for (n, call) in all().iter().enumerate() {
        let [mut before, mut after] = [n, n + 1].map(|count| {
            let host = FakeHost::over(world());
            carry_out(&host, &all()[..count]).unwrap();
            only(&host)
        });
        let left = |fault| {
            let host = FakeHost::over(world());
            carry_out(&host, &all()[..n]).unwrap();
            host.arm(fault);
            let said = unless_we_die(|| host.hypervisor().change(call));
            assert!(said.is_none(), "{}", call.summary());
            only(&host)
        };
        // The machine runs on without us.
        assert_eq!(left(Fault::KillBefore(0)), before, "{}", call.summary());
        assert_eq!(left(Fault::KillAfter(0)), after, "{}", call.summary());
        before.reboot();
        after.reboot();
        assert_eq!(left(Fault::CutBefore(0)), before, "{}", call.summary());
        assert_eq!(left(Fault::CutAfter(0)), after, "{}", call.summary());
    }
}

#[test]
fn what_is_left_of_a_guest_is_told() {
    // The last call of a crash, and what is to be released then.
    let left = |fault: fn(usize) -> Fault, until: usize| {
        let host = FakeHost::over(world());
        host.arm(fault(until));
        let said = unless_we_die(|| carry_out(&host, &all()));
        assert!(said.is_none(), "it lived on");
        host.world().held()
    };
    let off = "guest web1 is Off(ByItself)";
    assert_eq!(left(Fault::KillAfter, 1), [off]);
    let paused = ["guest web1 is Paused(User)", "guest web1 writes vda elsewhere"];
    assert_eq!(left(Fault::KillAfter, 4), paused);
    assert_eq!(left(Fault::KillAfter, 11), ["guest web1 is frozen"]);
    let shown = "guest web1 is shown on /run/stillpoint/web1.socket";
    assert_eq!(left(Fault::KillAfter, 12), ["guest web1 is frozen", shown]);
    // A boot ends jobs and thaws; it starts nobody whom nobody set to be started, and overlays stay.
    assert_eq!(left(Fault::CutAfter, 12), ["guest web1 is Off(Other(0))"]);
    let cut = ["guest web1 is Off(Other(0))", "guest web1 writes vda elsewhere"];
    assert_eq!(left(Fault::CutAfter, 6), cut);
}

#[test]
fn a_signal_does_not_tear_a_call() {
    let host = FakeHost::over(world());
    host.arm(Fault::Signal(1));
    carry_out(&host, &all()[..2]).unwrap();
    assert_eq!(host.stop_signal(), Some(15));
    assert_eq!(only(&host).guest.state, GuestState::Off(OffReason::ByItself));
}

#[test]
fn the_hypervisor_refuses_what_libvirt_refuses() {
    let refused = |calls: &[GuestChange], more: fn(&mut FakeGuest)| {
        let host = FakeHost::over(world());
        host.world().guests.values_mut().for_each(more);
        let calls: Vec<GuestCall> = calls.iter().cloned().map(call).collect();
        match carry_out(&host, &calls) {
            Err(HypervisorError::Failed { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    };
    let start = GuestChange::Start { paused: false };
    let by_agent = GuestChange::Shutdown { by: ShutdownBy::Agent };
    assert_eq!(refused(&[start], |_| ()), INVALID);
    assert_eq!(refused(&[by_agent], |guest| guest.agent = false), NO_AGENT);
    assert_eq!(refused(&[GuestChange::Freeze, GuestChange::Freeze], |_| ()), NO_AGENT);
    assert_eq!(refused(&[GuestChange::Pivot { disk: "vda".into() }], |_| ()), INVALID);
    let name = || "one".to_owned();
    let make = GuestChange::CreateCheckpoint { name: name(), disks: Vec::new() };
    let forget = GuestChange::DeleteCheckpoint { name: name(), metadata_only: false };
    assert_eq!(refused(&[make, GuestChange::Destroy, forget], |_| ()), UNSUPPORTED);
    // One that does not heed its power button: the call is no error, and it runs on.
    let host = FakeHost::over(world());
    host.world().guests.values_mut().for_each(|guest| guest.obeys = false);
    let by_acpi = call(GuestChange::Shutdown { by: ShutdownBy::Acpi });
    host.hypervisor().change(&by_acpi).unwrap();
    assert_eq!(only(&host).guest.state, GuestState::Running);
    // And one that is not there.
    let stranger = GuestUuid::parse(&WEB.replace('6', "7")).unwrap();
    let gone = GuestCall { guest: stranger, ..by_acpi };
    assert!(matches!(host.hypervisor().change(&gone), Err(HypervisorError::Gone { .. })));
}

#[test]
fn a_dry_run_changes_no_guest_and_predicts_each() {
    let fake = FakeHost::over(world());
    let real = FakeHost::over(world());
    let dry = DryHost::new(Arc::new(fake.clone()));
    for (n, call) in all().iter().enumerate() {
        dry.hypervisor().change(call).unwrap();
        real.hypervisor().change(call).unwrap();
        ask_everything(&dry);
        let (predicted, true_one) = (dry.hypervisor(), real.hypervisor());
        let after = format!("after {}", call.summary());
        // What it is asked next is answered as a real run would be, but for numbers that only a start gives.
        let guest = |of: &dyn stillpoint::host::Hypervisor| {
            let guest = of.guest(&uuid()).unwrap().unwrap();
            (guest.state, guest.persistent, guest.autostart, guest.managed_save)
        };
        assert_eq!(guest(predicted), guest(true_one), "{after}");
        let busy = |of: &dyn stillpoint::host::Hypervisor| {
            let job = of.job(&uuid()).unwrap().map(|job| matches!(job, GuestJob::Backup { .. }));
            let ready = of.block_job(&uuid(), "vda").unwrap().map(|job| job.ready);
            (job, ready)
        };
        assert_eq!(busy(predicted), busy(true_one), "{after}");
        let checkpoints = |of: &dyn stillpoint::host::Hypervisor| of.checkpoints(&uuid()).unwrap();
        assert_eq!(checkpoints(predicted), checkpoints(true_one), "{after}");
        if let Ok(state) = true_one.freeze_state(&uuid()) {
            assert_eq!(predicted.freeze_state(&uuid()).unwrap(), state, "{after}");
        }
        assert_eq!(dry.planned().len(), n + 1);
    }
    assert_eq!(fake.world().effects, Vec::<String>::new());
    assert_eq!(only(&fake), FakeGuest::running("web1", WEB));
    let plan: Vec<String> = dry.planned().iter().take(6).map(ToString::to_string).collect();
    assert_eq!(
        plan,
        [
            "let guest web1 stay off when it shuts down",
            "shut down guest web1 by its power button",
            "start guest web1 paused",
            "make checkpoint one of guest web1 for vda",
            "send new writes of guest web1 aside: vda to /images/web1.overlay",
            "resume guest web1",
        ]
    );
    assert_eq!(dry.hypervisor().freeze_state(&uuid()).unwrap(), FreezeState::Thawed);
    assert_ne!(only(&real).guest.state, GuestState::Paused(PauseReason::User));
}
