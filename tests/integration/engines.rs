//! One more engine, which has only what every engine must have: through the whole pipeline, a dry run and the loops. It
//! is a file of its own and a row here; nothing else knows of it.

use std::path::Path;

use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::target::ReadData;
use stillpoint::pipeline::mount::{Wanted, mount};
use stillpoint::pipeline::pin::pin;
use stillpoint::pipeline::prune::{Request, prune};
use stillpoint::step::error::StepError;

use crate::faults::{Bench, LIVE, Scene, in_a_session};
use crate::loops;
use crate::restores::{self, restore_one};
use crate::support::fake_host::Fault;
use crate::support::fake_vault::vaults;

/// The files of the machine, into a vault.
const VAULT: Scene = Scene { engines: vaults, ..LIVE };

fn ids(bench: &Bench) -> Vec<String> {
    bench.host.world().vault.copies.keys().cloned().collect()
}

#[test]
fn a_run_stores_sees_and_keeps_what_the_policy_says() {
    let bench = Bench::with_history_of(&VAULT);
    assert_eq!(ids(&bench), ["v002", "v003"]);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(report.jobs[0].targets[0].copy.as_deref(), Some("v004"));
    assert_eq!(ids(&bench), ["v003", "v004"]);
    let compacted = report.maintenance.iter().find(|step| step.step == "compact").unwrap();
    assert_eq!(compacted.detail, "nothing to compact: what is deleted frees its space at once");
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&VAULT);
    for verb in ["vault keep", "vault drop"] {
        assert_eq!(effects.iter().filter(|what| what.starts_with(verb)).count(), 1, "{effects:?}");
    }
    loops::failing_any_effect(&VAULT);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&VAULT);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&VAULT);
}

#[test]
fn failing_any_effect_of_a_recovery_is_recovered_from() {
    loops::failing_any_effect_of_a_recovery(&VAULT);
}

#[test]
fn a_plan_does_nothing_and_shows_what_would_be_done() {
    let bench = Bench::with_history_of(&VAULT);
    let before = ids(&bench);
    let planned = bench.only_planned();
    assert_eq!(ids(&bench), before);
    let of = |verb: &str| planned.iter().filter(|what| what.contains(verb)).count();
    assert_eq!((of("vault keep"), of("vault drop /repo v002")), (1, 1), "{planned:#?}");
}

#[test]
fn a_prune_deletes_by_id() {
    let mut bench = Bench::with_history_of(&VAULT);
    bench.config.targets[0].keep = Some(KeepPolicy { last: Some(1), ..KeepPolicy::default() });
    bench.engines = vaults(&bench.config);
    let targets = vec![(&bench.config.targets[0], bench.config.jobs.iter().collect::<Vec<_>>())];
    let pruned = in_a_session(bench.pipeline(), |cx| prune(cx, &Request::default(), targets));
    assert_eq!(pruned.unwrap().deleted, ["v002"]);
    assert_eq!(ids(&bench), ["v003"]);
}

#[test]
fn a_restore_lays_out_and_moves_and_gives_back_through_every_fault() {
    let seed = Bench::with_history_of(&VAULT);
    let bench = seed.duplicate(&VAULT);
    bench.host.arm(Fault::None);
    restore_one(&bench).unwrap().0.unwrap();
    let effects = bench.host.world().effects.clone();
    let laid = |what: &&String| what.starts_with("vault lay /repo v003 ");
    assert_eq!(effects.iter().filter(laid).count(), 1, "{effects:?}");
    restores::dying_at_any_effect(&seed, &VAULT, effects.len());
}

#[test]
fn what_it_does_not_have_is_refused_and_leaves_nothing() {
    let bench = Bench::with_history_of(&VAULT);
    bench.host.arm(Fault::None);
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let cx = bench.pipeline().engine_context();
    let copy = engine.list(cx).unwrap().remove(0);
    let refused = |result: Result<(), StepError>, what: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.trouble, Trouble::Environment, "{error}");
        assert!(error.message.contains(what), "{error}");
    };
    let said = engine.check(cx, ReadData::None, &mut |_| {}).map(drop);
    refused(said.map_err(StepError::from), "check a repository");
    let served = in_a_session(bench.pipeline(), |cx| {
        let at = Path::new("/empty/copy");
        let wanted = Wanted { at, scratch: None, ignore_space: false };
        mount(cx, engine, &copy, wanted, &|| panic!("it is not there"))
    });
    refused(served, "cannot be mounted");
    let pinned = in_a_session(bench.pipeline(), |cx| pin(cx, engine, &copy, true).map(drop));
    refused(pinned, "mark a copy");
    bench.assert_released("refusing");
    assert_eq!(ids(&bench).len(), 2);
}
