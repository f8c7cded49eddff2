//! The loops over everything that a run does: fail the n-th effect, die before, after or in the middle of it,
//! get a signal during it, lose the ledger after any line. After each, `recover` and one more run must leave
//! the machine as it should be: nothing held, the service up, every earlier copy there, and exactly the copies
//! that the policy keeps.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use stillpoint::history::Attempt;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::pipeline::recover::{Recovery, give_up, recover};
use stillpoint::step::error::StepError;
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

/// What the work says, unless we die in it.
pub fn unless_we_die<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(said) => Some(said),
        Err(payload) if payload.is::<PowerCut>() => None,
        // Another panic has said already what it is about.
        Err(payload) => resume_unwind(payload),
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

/// Everything that can happen at one effect of some work: it fails, a signal comes, or it is the last one before we die.
/// `recover` then releases what is held, and `look` sees what the work said, unless we died, and what else must be so.
pub fn any_fault_at<T>(
    scene: impl Fn() -> Bench,
    n: usize,
    what: &str,
    work: impl Fn(&Bench) -> T,
    look: impl Fn(&Bench, Fault, Option<T>, &str),
) {
    for fault in Fault::all_at(n) {
        let bench = scene();
        bench.host.arm(fault);
        let said = unless_we_die(|| work(&bench));
        let after = format!("{fault:?} ({what})");
        let goes_on = matches!(fault, Fault::Fail(_) | Fault::Signal(_));
        assert_eq!(said.is_some(), goes_on, "{after}: whether it lived on");
        bench.host.arm(Fault::None);
        assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
        bench.assert_released(&after);
        look(&bench, fault, said, &after);
    }
}

/// The same of a run, which tells whatever it survives.
pub fn any_fault_of_a_run_at(
    scene: impl Fn() -> Bench,
    n: usize,
    what: &str,
    look: impl Fn(&Bench, &str),
) {
    any_fault_at(scene, n, what, Bench::run, |bench, _, report, after| {
        let is_told = report.is_none_or(|report| !report.troubles.is_empty());
        assert!(is_told, "{after} went unnoticed");
        look(bench, after);
    });
}

/// A run is killed anywhere, and then something goes wrong with any effect of its recovery: it fails, or it is
/// the last one before the power goes or we are killed again.
pub fn failing_any_effect_of_a_recovery(scene: &Scene) {
    failing_any_effect_of(scene, |bench| recover(bench.pipeline()), |_, _| ());
}

/// The same where a person gives up the hooks of the dead run: they never run, and all else is released.
pub fn failing_any_effect_of_giving_up_hooks(scene: &Scene) {
    let give_up = |bench: &Bench| match dead_run(bench) {
        Some(run) => give_up(bench.pipeline(), &run),
        // The first attempt gave everything back.
        None => recover(bench.pipeline()),
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
    recover: impl Fn(&Bench) -> Result<Recovery, StepError>,
    look: impl Fn(&Bench, &str),
) {
    let seed = Bench::with_history_of(scene);
    for (n, what) in effects_of(&seed, scene).iter().enumerate() {
        let dead = || {
            let bench = seed.duplicate(scene);
            bench.host.arm(Fault::KillAfter(n));
            die(&bench);
            bench
        };
        failing_any_effect_of_recovering(dead, &format!("killed after {what}"), &recover, &look);
    }
}

/// From what is dead somebody recovers, and something goes wrong with any effect of that: it fails, or it is the last one
/// before the power goes or we are killed again. The next attempt releases what is held. `look` sees what else must be so
/// after the one and the other.
pub fn failing_any_effect_of_recovering(
    dead: impl Fn() -> Bench,
    after: &str,
    recover: impl Fn(&Bench) -> Result<Recovery, StepError>,
    look: impl Fn(&Bench, &str),
) {
    let released = |bench: &Bench, after: &str| {
        bench.host.arm(Fault::None);
        assert_eq!(recover(bench).unwrap().failures, [], "{after}");
        look(bench, after);
        bench.assert_released(after);
    };
    let bench = dead();
    released(&bench, after);
    let effects = bench.host.world().effects.clone();
    for (n, what) in effects.iter().enumerate() {
        for fault in [Fault::Fail(n), Fault::CutAfter(n), Fault::KillAfter(n)] {
            let after = format!("{after}, then {fault:?} ({what})");
            let bench = dead();
            bench.host.arm(fault);
            // It may say that it failed.
            let _ = unless_we_die(|| recover(&bench));
            look(&bench, &after);
            released(&bench, &after);
        }
    }
}

/// Runs until the fault that the host is armed with ends it.
pub fn die(bench: &Bench) {
    let said = unless_we_die(|| bench.run());
    assert!(said.is_none(), "{:?}: it lived on: {said:#?}", bench.host.world().fault);
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
                    let (time, snapshot) = (started, None);
                    let attempt = Attempt { run, target, series, name, started, time, snapshot };
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
