//! A copy that is served as a file system, through every fault: whatever dies and when, nothing stays mounted, and
//! nobody else's mount goes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use stillpoint::model::copy::Copy;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::Trouble;
use stillpoint::pipeline::mount::mount;
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::session::{Cleanup, LedgerDirectory, session};
use stillpoint::step::error::StepError;

use crate::faults::{Bench, LIVE};
use crate::support::fake_host::{Fault, PowerCut};

const AT: &str = "/empty/copy";

fn newest(bench: &Bench) -> Copy {
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    engine.list(bench.pipeline().engine_context()).unwrap().remove(0)
}

/// Mounts a copy, as the verb does.
fn serve(bench: &Bench, copy: &Copy) -> Result<(Result<(), StepError>, Cleanup), StepError> {
    bench.host.world().is_told = false;
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let host = &bench.host;
    let ready = || host.world().is_told = true;
    session(bench.pipeline(), &RunId::from_bytes([9; 4]), LedgerDirectory::State, |cx| {
        mount(cx, engine, copy, Path::new(AT), &ready)
    })
}

fn effects(seed: &Bench, copy: &Copy) -> Vec<String> {
    let bench = seed.duplicate(&LIVE);
    bench.host.arm(Fault::None);
    let (served, cleanup) = serve(&bench, copy).unwrap();
    served.unwrap();
    assert_eq!(cleanup, Cleanup::default());
    bench.assert_released("a good end");
    let effects = bench.host.world().effects.clone();
    assert!(effects.iter().any(|effect| effect.contains(" mount ")), "{effects:?}");
    effects
}

/// Serves until the fault that the host is armed with ends it.
fn die(bench: &Bench, copy: &Copy) {
    let died = catch_unwind(AssertUnwindSafe(|| serve(bench, copy)));
    assert!(died.is_err_and(|payload| payload.is::<PowerCut>()), "it lived on");
}

#[track_caller]
fn recovers(bench: &Bench, after: &str) {
    bench.host.arm(Fault::None);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
    bench.assert_released(after);
}

#[test]
fn a_failure_of_any_effect_leaves_nothing() {
    let seed = Bench::with_history();
    let copy = newest(&seed);
    for (n, what) in effects(&seed, &copy).iter().enumerate() {
        for fault in [Fault::Fail(n), Fault::Signal(n)] {
            let bench = seed.duplicate(&LIVE);
            bench.host.arm(fault);
            let after = format!("{fault:?} ({what})");
            // A session that does not begin says so.
            if let Ok((served, cleanup)) = serve(&bench, &copy) {
                let is_told = served.is_err() || !cleanup.leftovers.is_empty();
                assert!(is_told || matches!(fault, Fault::Signal(_)), "{after} went unnoticed");
                if what.contains(" mount ") && fault == Fault::Signal(n) {
                    assert_eq!(served.unwrap_err().trouble, Trouble::Signal(15), "{after}");
                }
            }
            recovers(&bench, &after);
        }
    }
}

#[test]
fn a_killed_engine_leaves_nothing_mounted() {
    let seed = Bench::with_history();
    let copy = newest(&seed);
    let effects = effects(&seed, &copy);
    let n = effects.iter().position(|effect| effect == "a person unmounts it").unwrap();
    seed.host.arm(Fault::Fail(n));
    let (served, cleanup) = serve(&seed, &copy).unwrap();
    assert!(served.unwrap_err().message.contains("killed by signal 9"));
    assert_eq!(cleanup, Cleanup::default());
    seed.assert_released("the engine was killed");
}

#[test]
fn a_death_at_any_effect_is_recovered_from_whatever_fails_meanwhile() {
    let seed = Bench::with_history();
    let copy = newest(&seed);
    for (n, what) in effects(&seed, &copy).iter().enumerate() {
        for fault in Fault::deaths_at(n) {
            let dead = || {
                let bench = seed.duplicate(&LIVE);
                bench.host.arm(fault);
                die(&bench, &copy);
                bench
            };
            let bench = dead();
            recovers(&bench, &format!("{fault:?} ({what})"));
            let recovery = bench.host.world().effects.clone();
            for (m, undone) in recovery.iter().enumerate() {
                for worse in [Fault::Fail(m), Fault::CutAfter(m), Fault::KillAfter(m)] {
                    let bench = dead();
                    bench.host.arm(worse);
                    let _ = catch_unwind(AssertUnwindSafe(|| recover(bench.pipeline())));
                    recovers(&bench, &format!("{fault:?} ({what}), then {worse:?} ({undone})"));
                }
            }
        }
    }
}

#[test]
fn a_ledger_cut_off_after_any_line_is_recovered_from() {
    let seed = Bench::with_history();
    let copy = newest(&seed);
    let effects = effects(&seed, &copy);
    let n = effects.iter().position(|effect| effect == "a person unmounts it").unwrap();
    seed.host.arm(Fault::KillBefore(n));
    die(&seed, &copy);
    let ledger = seed.ledgers().remove(0);
    let whole = fs::read_to_string(&ledger).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let intent = lines.iter().position(|line| line.contains("unmount")).unwrap();
    assert!(lines[intent + 1..].iter().any(|line| line.contains("mount")), "no identity: {whole}");
    // What comes before the intent, the staging directory, has loops of its own.
    for keep in intent + 1..=lines.len() {
        for torn in ["", "{\"made\":{\"ent"] {
            let bench = seed.duplicate(&LIVE);
            bench.host.arm(Fault::None);
            let cut = lines[..keep].join("\n") + "\n" + torn;
            fs::create_dir_all(bench.state.path().join("ledger")).unwrap();
            let name = ledger.file_name().unwrap();
            fs::write(bench.state.path().join("ledger").join(name), cut).unwrap();
            recovers(&bench, &format!("{keep} lines, torn: {torn:?}"));
        }
    }
}

#[test]
fn what_others_mount_there_stays() {
    let seed = Bench::with_history();
    let copy = newest(&seed);
    let effects = effects(&seed, &copy);
    let served = effects.iter().position(|effect| effect.contains(" mount ")).unwrap();
    // With and without the record of which mount is ours.
    for fault in [Fault::KillBefore(served + 1), Fault::KillAfter(served)] {
        // A copy that a person has mounted there is gone before; something else lies there now.
        let bench = seed.duplicate(&LIVE);
        bench.host.arm(fault);
        die(&bench, &copy);
        let mut world = bench.host.world();
        world.unmount(Path::new(AT));
        world.serve(Path::new(AT));
        let theirs = world.mounts.last_mut().unwrap();
        theirs.id = 200;
        theirs.source = "sshfs".into();
        drop(world);
        bench.host.arm(Fault::None);
        assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
        assert_eq!(bench.host.world().held(), [format!("mount 200 at {AT}")]);
        assert_eq!(bench.ledgers().len(), 0);

        // Something of theirs lies over ours: ours is told, and released when theirs is gone.
        let bench = seed.duplicate(&LIVE);
        bench.host.arm(fault);
        die(&bench, &copy);
        let mut world = bench.host.world();
        let mut theirs = world.mounts.last().unwrap().clone();
        (theirs.id, theirs.file_system) = (200, "ext4".into());
        world.mounts.push(theirs);
        drop(world);
        bench.host.arm(Fault::None);
        let failures = recover(bench.pipeline()).unwrap().failures;
        assert!(failures[0].message.contains("something else is mounted over"), "{failures:?}");
        assert_eq!(bench.host.world().mounts.len(), 2);
        bench.host.world().unmount(Path::new(AT));
        recovers(&bench, "theirs is gone");
    }
    // One of the engine's kind that was there before ours came is not ours.
    let bench = seed.duplicate(&LIVE);
    bench.host.world().serve(Path::new(AT));
    bench.host.arm(Fault::KillBefore(served));
    die(&bench, &copy);
    bench.host.arm(Fault::None);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    assert_eq!(bench.host.world().held(), [format!("mount 100 at {AT}")]);
}
