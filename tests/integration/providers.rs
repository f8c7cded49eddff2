//! One more capture provider, whose snapshot is kept as the base of the next run: through the whole pipeline, a dry run
//! and all the loops. It is a file of its own and a row here; nothing else knows of it.

use stillpoint::capture::{Choice, Still, choose_device, kept, release};
use stillpoint::host::PrivateMount;
use stillpoint::model::job::Source;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::undo::{CaptureUndo, Identity, Kept};
use stillpoint::pipeline::recover::recover;

use crate::captures::HELD;
use crate::faults::{self, Bench, Scene};
use crate::loops;
use crate::support::fake_btrfs::Snapshot;
use crate::support::fake_host::{Fault, World};
use crate::support::fake_provider::{BASES, VAULT, vault};

/// A vault, of which each run keeps one snapshot.
const KEPT: Scene = Scene { world, sources: &vault, ..faults::LIVE };

fn world() -> World {
    let mut world = World { bases: 1, ..World::new() };
    world.btrfs.subvolumes.insert(VAULT.into(), "vault-uuid".into());
    world.files.insert(BASES.into(), b"[]".to_vec());
    world
}

fn bench() -> Bench {
    let bench = Bench::with_history_of(&KEPT);
    bench.host.arm(Fault::None);
    bench
}

/// The one snapshot that is kept.
#[track_caller]
fn base(bench: &Bench) -> (String, Snapshot) {
    let world = bench.host.world();
    assert_eq!(world.btrfs.top.len(), 1, "{:?}", world.btrfs.top);
    let (name, snapshot) = world.btrfs.top.iter().next().unwrap();
    (name.clone(), snapshot.clone())
}

#[test]
fn the_snapshot_that_was_read_is_kept_and_the_one_before_goes() {
    let bench = bench();
    let (_, old) = base(&bench);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let (_, new) = base(&bench);
    assert_ne!(new.uuid, old.uuid);
    let seen = bench.host.world().seen.clone();
    let [PrivateMount::Device { options, .. }] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(*options, format!("subvolid={}", new.id));
    bench.assert_released("a good run");
}

#[test]
fn what_no_engine_has_read_is_released_and_the_base_stays() {
    let bench = bench();
    let before = base(&bench);
    let effects = loops::effects(&KEPT);
    let n = effects.iter().position(|effect| effect.contains(" create ")).unwrap();
    bench.host.arm(Fault::Fail(n));
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert_eq!(base(&bench), before);
    bench.assert_mended("an engine that fails");
}

#[test]
fn a_base_that_is_another_one_by_now_is_left_alone() {
    let bench = bench();
    let (name, old) = base(&bench);
    // The power goes when the exchange is recorded, and before the old base is deleted.
    let effects = loops::effects(&KEPT);
    let n = effects.iter().position(|effect| effect.starts_with("replace")).unwrap();
    bench.host.arm(Fault::CutBefore(n + 1));
    loops::die(&bench);
    let stranger = Snapshot { uuid: "stranger".into(), ..old.clone() };
    bench.host.world().btrfs.top.insert(name.clone(), stranger.clone());
    bench.host.arm(Fault::None);
    let recovery = recover(bench.pipeline()).unwrap();
    let [failure] = recovery.failures.as_slice() else { panic!("{recovery:#?}") };
    assert_eq!(failure.trouble, Trouble::Cleanup);
    assert!(failure.message.contains("is not the one that this run made"), "{failure}");
    let top = bench.host.world().btrfs.top.clone();
    assert_eq!((top.len(), &top[&name]), (2, &stranger), "the new base stays as well");
    // The old base itself goes.
    bench.host.world().btrfs.top.insert(name, old);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    bench.assert_mended("a stranger in the place of the old base");
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    loops::failing_any_effect(&KEPT);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&KEPT);
}

#[test]
fn a_ledger_cut_off_after_any_line_is_recovered_from() {
    loops::cutting_the_ledger(&KEPT);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&KEPT);
}

#[test]
fn failing_any_effect_of_a_recovery_is_recovered_from() {
    loops::failing_any_effect_of_a_recovery(&KEPT);
}

#[test]
fn a_plan_exchanges_nothing() {
    let bench = bench();
    let before = base(&bench);
    let planned = bench.only_planned();
    assert_eq!(base(&bench), before);
    let at = |what: &str| {
        let position = planned.iter().position(|effect| effect.contains(what));
        position.unwrap_or_else(|| panic!("{what}: {planned:#?}"))
    };
    let (name, _) = before;
    let deleted = planned.iter().rposition(|effect| effect.contains(&name)).unwrap();
    let order = [at(".stillpoint.shelf."), at(" create "), at(BASES), deleted];
    assert!(order.is_sorted(), "{order:?}: {planned:#?}");
}

#[test]
fn a_block_device_is_held_still_by_any_of_its_names() {
    let bench = Bench::of(&HELD);
    let cx = bench.pipeline().capture_context();
    let Source::Files(files) = &bench.config.jobs[0].source else { panic!("other files") };
    let run = RunId::parse("0a1b2c3d").unwrap();
    let mut undos: Vec<CaptureUndo> = Vec::new();
    let mut made = Vec::new();
    let names = [
        ("vg/srv", "lvm-thin"),
        ("/dev/vg/opt", "lvm-thin"),
        ("/dev/mapper/vg-var", "lvm-classic"),
    ];
    for (name, expected) in names {
        let choice = choose_device(cx, &files.capture, name.as_ref()).unwrap();
        let Choice::Held(provider) = choice else { panic!("nothing holds {name}") };
        assert_eq!(provider.name(), expected, "{name}");
        let capture = provider.intend(cx, &run, &undos).unwrap();
        undos.push(capture.undo());
        made.push(capture);
    }
    // The second snapshot in a pool reckons with the first.
    for capture in &made {
        capture.make(cx).unwrap();
    }
    for (number, (capture, undo)) in made.iter().zip(&undos).enumerate() {
        let found = capture.verify(cx).unwrap();
        let device = format!("/dev/mapper/vg-stillpoint.0a1b2c3d.{number}");
        assert_eq!(found.still, Still::Device(device.into()));
        let identity = found.identity.unwrap();
        capture.still_holds(cx).unwrap();
        // What is kept is found again by what it is.
        let known = Kept { undo: undo.clone(), identity: identity.clone() };
        assert_eq!(kept(cx, &known).unwrap(), Some(found.still));
        let stranger = Identity::LogicalVolume { uuid: "another".into() };
        assert_eq!(kept(cx, &Kept { identity: stranger, ..known.clone() }).unwrap(), None);
        release(cx, undo, Some(&identity)).unwrap();
        assert_eq!(kept(cx, &known).unwrap(), None);
    }
    bench.assert_released("block devices");
    for (name, told) in [("vg/pool", "of type thin-pool"), ("/dev/sdz", "it is no LVM volume")] {
        match choose_device(cx, &files.capture, name.as_ref()).unwrap() {
            Choice::Live(reason) => assert!(reason.contains(told), "{name}: {reason}"),
            Choice::Held(_) | Choice::Still | Choice::LiveByWish => panic!("{name} is held"),
        }
    }
}
