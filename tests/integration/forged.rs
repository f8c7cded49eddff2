//! Who writes to the same repository sees a run's marks while it is at work, and may put them on what he adds.

use stillpoint::engine::Engines;
use stillpoint::engine::{ContentsCheck, EngineError};
use stillpoint::history::ClosureKind;
use stillpoint::model::copy::Copy;
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::names::TargetName;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::pipeline::pin::pin;

use crate::captures::target;
use crate::faults::{Bench, in_a_session};
use crate::support::fake_engine::{FakeEngine, FindAbsent, Notes};

/// A job with these targets, the second of which is filled from the first.
fn bench(names: &[&str], change: impl Fn(&str, &mut FakeEngine)) -> Bench {
    let mut bench = Bench::new();
    let from = |at: usize| (at > 0).then(|| names[0]);
    bench.config.targets =
        names.iter().enumerate().map(|(at, name)| target(name, from(at))).collect();
    for target in &mut bench.config.targets {
        target.keep = Some(KeepPolicy { last: Some(1), ..KeepPolicy::default() });
    }
    bench.config.jobs[0].targets =
        bench.config.targets.iter().map(|target| target.name.clone()).collect();
    bench.engines = Engines::new();
    for target in &bench.config.targets {
        let mut engine = FakeEngine::new(target, bench.host.clone(), Notes::default());
        change(target.name.as_str(), &mut engine);
        bench.engines.insert(target.name.clone(), Box::new(engine));
    }
    bench
}

/// The ids that history has for a target, and those that are listed and ours.
fn known(bench: &Bench, at: usize) -> (Vec<String>, Vec<String>) {
    let name = &bench.config.targets[at].name;
    let recorded = bench.history.copies(name).unwrap();
    let ours = listed(bench, at).into_iter().filter(|copy| copy.ours);
    (recorded.into_iter().map(|copy| copy.id).collect(), ours.map(|copy| copy.id).collect())
}

fn listed(bench: &Bench, at: usize) -> Vec<Copy> {
    let name = &bench.config.targets[at].name;
    let mut listed = bench.engines[name].list(bench.pipeline().engine_context()).unwrap();
    bench.history.enrich(name, &mut listed).unwrap();
    listed
}

/// Adds before everything else what looks like the newest copy.
fn forge(copies: &mut Vec<Copy>, original: Option<&str>) {
    let last = copies.last().unwrap().clone();
    let original = original.map(str::to_owned);
    copies.insert(0, Copy { id: format!("forged-{}", copies.len()), original, ..last });
}

fn ids(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_forged_snapshot_with_the_marks_of_this_run_is_not_ours() {
    let bench = bench(&["one"], |_, engine| {
        engine.meanwhile = Some((1, |copies| forge(copies, Some("copy-0"))));
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(report.jobs[0].targets[0].copy.as_deref(), Some("copy-0"));
    assert_eq!(known(&bench, 0), (ids(&["copy-0"]), ids(&["copy-0"])));
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let left: Vec<String> = listed(&bench, 0).into_iter().map(|copy| copy.id).collect();
    assert_eq!(left, ["forged-1", "copy-2"], "and is left alone");
}

#[test]
fn a_forged_snapshot_does_not_stand_for_the_one_that_was_made() {
    let bench = bench(&["one"], |_, engine| {
        engine.meanwhile = Some((1, |copies| {
            forge(copies, None);
            copies.pop();
        }));
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    let said = format!("{report:?}");
    assert!(said.contains("that is the one it made (forged-1 bears its marks)"), "{said}");
    assert_eq!(known(&bench, 0).0, ids(&[]));
}

#[test]
fn what_was_copied_says_of_what_and_was_not_there_before() {
    // Before the copying, and after it without the origin: neither is it.
    let report_of = |time, original: Option<&'static str>| {
        let bench = bench(&["one", "away"], |name, engine| {
            if name == "away" {
                engine.meanwhile = Some((
                    time,
                    match original {
                        Some(_) => |copies| forge(copies, Some("copy-0")),
                        None => |copies| forge(copies, None),
                    },
                ));
            }
        });
        (bench.run(), known(&bench, 1))
    };
    let (report, known) = report_of(2, None);
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(known, (ids(&["copy-0-copied"]), ids(&["copy-0-copied"])));
    let (report, (recorded, _)) = report_of(2, Some("copy-0"));
    assert_eq!(report.outcome, Outcome::Failed, "which of two is it? {report:#?}");
    assert!(format!("{report:?}").contains("lists 2 copies of"), "{report:#?}");
    assert_eq!(recorded, ids(&[]));
}

/// What is damaged in the target that is read closes that one.
#[test]
fn damage_met_while_copying_closes_the_target_that_has_it() {
    let source: fn(TargetName, TargetName) -> EngineError = |from, to| {
        let detail = "ciphertext verification failed".into();
        EngineError::DamagedBetween { from, to, source_only: true, detail }
    };
    let either: fn(TargetName, TargetName) -> EngineError = |from, to| {
        let detail = "LoadIndex returned errors".into();
        EngineError::DamagedBetween { from, to, source_only: false, detail }
    };
    for (error, closed) in [(source, [true, false]), (either, [true, true])] {
        let bench = bench(&["one", "away"], |_, engine| engine.uncopied = Some(error));
        let report = bench.run();
        assert!(report.troubles.contains(&Trouble::Damage), "{report:#?}");
        assert!(format!("{report:?}").contains("from target one to target away"), "{report:#?}");
        let found = [0, 1].map(|at| {
            let closures = bench.history.closures(&bench.config.targets[at].name).unwrap();
            closures.iter().any(|closure| closure.kind == ClosureKind::Damage)
        });
        assert_eq!(found, closed, "{report:#?}");
    }
}

/// A copy whose contents could not be read may hold nothing: nothing is deleted to make room for it.
#[test]
fn a_copy_that_could_not_be_looked_into_is_not_a_good_one() {
    let failing: FindAbsent = |id| match id {
        "copy-0" => Ok(Some(ContentsCheck { id: id.to_owned(), absent: Vec::new() })),
        _ => Err(EngineError::Unreachable { repository: "/one".into(), detail: "gone".into() }),
    };
    let silent: FindAbsent = |id| match id {
        "copy-0" => Ok(Some(ContentsCheck { id: id.to_owned(), absent: Vec::new() })),
        _ => Ok(None),
    };
    for (contents, expected) in [(failing, Outcome::Failed), (silent, Outcome::Incomplete)] {
        let bench = bench(&["one"], |_, engine| engine.contents = Some(contents));
        assert_eq!(bench.run().outcome, Outcome::Ok);
        let report = bench.run();
        assert_eq!(report.outcome, expected, "{report:#?}");
        assert!(format!("{report:?}").contains("copy-1 were not read"), "{report:#?}");
        let healthy: Vec<_> =
            listed(&bench, 0).into_iter().map(|copy| (copy.id, copy.healthy)).collect();
        let good = ("copy-0".to_owned(), Some(true));
        assert_eq!(healthy, [good, ("copy-1".to_owned(), Some(false))]);
    }
}

#[test]
fn a_pin_does_not_move_a_record_to_a_twin() {
    for (idle, expected) in [(true, "copy-0"), (false, "copy-0-true")] {
        let bench = bench(&["one"], |_, engine| {
            engine.idle = idle;
            engine.meanwhile = Some((2, |copies| {
                forge(copies, Some("copy-0"));
                copies[0].pinned = true;
            }));
        });
        assert_eq!(bench.run().outcome, Outcome::Ok);
        let engine = bench.engines.values().next().unwrap().as_ref();
        let chosen = Copy { id: "copy-0".into(), ..listed(&bench, 0)[1].clone() };
        let said = in_a_session(bench.pipeline(), |cx| pin(cx, engine, &chosen, true));
        match idle {
            true => assert!(said.unwrap_err().message.contains("does not show")),
            false => assert_eq!(said.unwrap(), expected),
        }
        assert_eq!(known(&bench, 0), (ids(&[expected]), ids(&[expected])), "idle: {idle}");
    }
}
