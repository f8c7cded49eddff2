//! The loops over everything that a run does: fail the n-th effect, die before, after or in the middle of it,
//! get a signal during it, lose the ledger after any line. After each, `recover` and one more run must leave
//! the machine as it should be: nothing held, the service up, every earlier copy there, and exactly the copies
//! that the policy keeps.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use stillpoint::history::Attempt;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::pipeline::recover::{Recovery, give_up, recover};
use stillpoint::tools::borg::name::parse_archive_name;

use crate::faults::{Bench, Scene};
use crate::support::fake_host::{Chronicle, Fault, PowerCut};

/// What a good run does.
pub fn effects(scene: &Scene) -> Vec<String> {
    effects_of(&Bench::with_history_of(scene), scene)
}

fn effects_of(seed: &Bench, scene: &Scene) -> Vec<String> {
    let bench = seed.duplicate(scene);
    bench.run();
    let effects = bench.host.world().effects.clone();
    assert!(effects.len() >= 7, "hooks, staging, create, delete, compact: {effects:?}");
    effects
}

pub fn failing_any_effect(scene: &Scene) {
    let seed = Bench::with_history_of(scene);
    for n in 0..effects_of(&seed, scene).len() {
        let bench = seed.duplicate(scene);
        let survivor = bench.newest();
        bench.host.arm(Fault::Fail(n));
        let report = bench.run();
        let what = bench.host.world().effects[n].clone();
        let after = format!("failing effect {n} ({what})");
        if (scene.tried_again)(&what) {
            assert_eq!(report.outcome, Outcome::Ok, "{after}: {report:#?}");
        } else {
            assert_ne!(report.outcome, Outcome::Ok, "{after} went unnoticed");
            assert!(!report.troubles.is_empty(), "{after} has no exit code");
        }
        assert!(bench.host.world().copies().contains(&survivor), "{after} lost a copy");
        // A failed undo stays in the ledger; then recover releases it.
        bench.host.arm(Fault::None);
        let recovery = recover(bench.pipeline()).unwrap();
        assert_eq!(recovery.failures, [], "{after}");
        bench.assert_released(&after);
        bench.assert_mended(&after);
    }
}

/// The power is cut, or we are killed, before and after each effect.
pub fn dying_at_any_effect(scene: &Scene) {
    let seed = Bench::with_history_of(scene);
    for (n, what) in effects_of(&seed, scene).iter().enumerate() {
        for fault in Fault::deaths_at(n) {
            dying(&seed, scene, fault, what);
        }
    }
}

/// What the work says, or that we died in it.
pub fn or_died<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(said) => said,
        Err(payload) if payload.is::<PowerCut>() => Err("it died".into()),
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// A run dies by this fault; `recover`, or the next run by itself, mends it.
pub fn dying(seed: &Bench, scene: &Scene, fault: Fault, what: &str) {
    for recover_first in [true, false] {
        let bench = seed.duplicate(scene);
        let survivor = bench.newest();
        bench.host.arm(fault);
        die(&bench);
        let after = format!("{fault:?} ({what}), recover first: {recover_first}");
        assert!(bench.host.world().copies().contains(&survivor), "{after} lost a copy");
        if recover_first {
            bench.host.arm(Fault::None);
            let recovery = recover(bench.pipeline()).unwrap();
            assert_eq!(recovery.failures, [], "{after}");
            bench.assert_released(&after);
            // Harmless when nothing is held.
            assert_eq!(recover(bench.pipeline()).unwrap().done, Vec::<String>::new());
        }
        bench.assert_mended(&after);
    }
}

/// Everything that can happen at one effect of a run: it fails, a signal comes, or it is the last one before we die.
/// `recover` then releases what is held, and `look` sees what else must be so.
pub fn any_fault_at(scene: impl Fn() -> Bench, n: usize, what: &str, look: impl Fn(&Bench, &str)) {
    for fault in Fault::all_at(n) {
        let bench = scene();
        bench.host.arm(fault);
        if matches!(fault, Fault::Fail(_) | Fault::Signal(_)) {
            assert!(!bench.run().troubles.is_empty(), "{fault:?} went unnoticed");
        } else {
            die(&bench);
        }
        bench.host.arm(Fault::None);
        let after = format!("{fault:?} ({what})");
        assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
        bench.assert_released(&after);
        look(&bench, &after);
    }
}

/// A run is killed anywhere, and then something goes wrong with any effect of its recovery: it fails, or it is
/// the last one before the power goes or we are killed again.
pub fn failing_any_effect_of_a_recovery(scene: &Scene) {
    failing_any_effect_of(scene, |bench| recover(bench.pipeline()).unwrap(), |_, _| ());
}

/// The same where a person gives up the hooks of the dead run: they never run, and all else is released.
pub fn failing_any_effect_of_giving_up_hooks(scene: &Scene) {
    let give_up = |bench: &Bench| match dead_run(bench) {
        Some(run) => give_up(bench.pipeline(), &run).unwrap(),
        // The first attempt gave everything back.
        None => recover(bench.pipeline()).unwrap(),
    };
    failing_any_effect_of(scene, give_up, |bench, after| {
        let mut world = bench.host.world();
        let ran = world.effects.iter().find(|effect| effect.starts_with("/hook"));
        assert_eq!(ran, None, "{after}");
        // The person sees to what the hooks had to do.
        world.service_up = true;
        world.writers_paused = false;
    });
}

/// The run whose ledger is left.
pub fn dead_run(bench: &Bench) -> Option<RunId> {
    RunId::parse(bench.ledgers().first()?.file_name()?.to_str()?)
}

fn failing_any_effect_of(
    scene: &Scene,
    recover: impl Fn(&Bench) -> Recovery,
    look: impl Fn(&Bench, &str),
) {
    let seed = Bench::with_history_of(scene);
    for (n, killed_after) in effects_of(&seed, scene).iter().enumerate() {
        let dead = || {
            let bench = seed.duplicate(scene);
            bench.host.arm(Fault::KillAfter(n));
            die(&bench);
            bench
        };
        let bench = dead();
        bench.host.arm(Fault::None);
        recover(&bench);
        let effects = bench.host.world().effects.clone();
        for (m, what) in effects.iter().enumerate() {
            for fault in [Fault::Fail(m), Fault::CutAfter(m), Fault::KillAfter(m)] {
                let after = format!("killed after {killed_after}, then {fault:?} ({what})");
                let bench = dead();
                bench.host.arm(fault);
                let _ = catch_unwind(AssertUnwindSafe(|| recover(&bench)));
                look(&bench, &after);
                bench.host.arm(Fault::None);
                assert_eq!(recover(&bench).failures, [], "{after}");
                look(&bench, &after);
                bench.assert_released(&after);
            }
        }
    }
}

/// Runs until the fault that the host is armed with ends it.
pub fn die(bench: &Bench) {
    let died = catch_unwind(AssertUnwindSafe(|| bench.run()));
    let fault = bench.host.world().fault;
    let Err(payload) = died else { panic!("{fault:?}: it lived on: {died:#?}") };
    // Another panic has said already what it is about.
    assert!(payload.is::<PowerCut>(), "{fault:?}: a panic of another kind");
}

/// Of the ledger of a run that died, only the first lines were written, and nothing was done that came later.
pub fn cutting_the_ledger(scene: &Scene) {
    // A run that dies at its last effect has the longest ledger.
    let seed = Bench::with_history_of(scene);
    let last = effects_of(&seed, scene).len() - 1;
    let bench = seed.duplicate(scene);
    let chronicle = Chronicle { ledgers: bench.state.path().join("ledger"), past: Vec::new() };
    *bench.host.chronicle.lock().unwrap() = Some(chronicle);
    bench.host.arm(Fault::CutBefore(last));
    die(&bench);
    let past = bench.host.chronicle.lock().unwrap().take().unwrap().past;
    let whole = fs::read(&bench.ledgers()[0]).unwrap();
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines >= 5, "{}", String::from_utf8_lossy(&whole));
    for keep in 0..=lines {
        for torn in [false, true] {
            let mut bench = seed.duplicate(scene);
            if let Some(moment) = past.iter().rfind(|moment| moment.lines <= keep) {
                bench = bench.as_of(scene, moment);
                if torn {
                    bench.host.world().reboot();
                }
            }
            // History knows what was to be made before the engine starts.
            for name in bench.host.world().borg.archives.keys() {
                let known = seed.host.world().borg.archives.contains_key(name);
                if let Some((series, started, run)) = parse_archive_name(name).filter(|_| !known) {
                    let target = bench.config.targets[0].name.clone();
                    let name = Some(name.clone());
                    let attempt = Attempt { run, target, series, name, started };
                    bench.history.record_attempt(&attempt).unwrap();
                }
            }
            bench.host.arm(Fault::None);
            let mut cut: Vec<u8> = whole
                .split_inclusive(|byte| *byte == b'\n')
                .take(keep)
                .flatten()
                .copied()
                .collect();
            if torn {
                cut.extend_from_slice(b"{\"intend\":{\"ent");
            }
            let ledgers = bench.state.path().join("ledger");
            fs::create_dir_all(&ledgers).unwrap();
            fs::write(ledgers.join("0000ffff"), &cut).unwrap();
            let recovery = recover(bench.pipeline()).unwrap();
            let after = format!("{keep} lines, torn: {torn}");
            assert_eq!(recovery.failures, [], "{after}");
            bench.assert_released(&after);
            bench.assert_mended(&after);
        }
    }
}

pub fn a_signal_at_any_effect(scene: &Scene) {
    let seed = Bench::with_history_of(scene);
    for n in 0..effects_of(&seed, scene).len() {
        let bench = seed.duplicate(scene);
        let survivor = bench.newest();
        bench.host.arm(Fault::Signal(n));
        let report = bench.run();
        let after = format!("SIGTERM at effect {n} ({})", bench.host.world().effects[n]);
        assert_eq!(report.outcome, Outcome::Interrupted, "{after}");
        assert!(report.troubles.contains(&Trouble::Signal(15)), "{after}");
        // A signal does not stop what releases.
        assert!(!report.troubles.contains(&Trouble::Cleanup), "{after}: {report:#?}");
        assert!(bench.host.world().copies().contains(&survivor), "{after} lost a copy");
        bench.assert_released(&after);
        bench.assert_mended(&after);
    }
}
