//! What closes retention and compaction in a target, and what opens it again.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use stillpoint::history::{Attempt, Closure, ClosureKind};
use stillpoint::host::dry::DryHost;
use stillpoint::model::job::Scope;
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::names::{JobName, RunId};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::RunReport;
use stillpoint::model::target::ReadData;
use stillpoint::pipeline::closed;
use stillpoint::pipeline::prune::{Pruned, Request, prune};
use stillpoint::pipeline::run::run;
use stillpoint::report::closed::why;
use stillpoint::report::facts::Facts;
use stillpoint::report::status::status;
use stillpoint::source::all_series;
use stillpoint::step::context::Pipeline;

use crate::captures::target;
use crate::faults::{Bench, LIVE, in_a_session};

fn pruned(bench: &Bench, request: &Request) -> Pruned {
    let targets = vec![(&bench.config.targets[0], bench.config.jobs.iter().collect::<Vec<_>>())];
    in_a_session(bench.pipeline(), |cx| prune(cx, request, targets).unwrap())
}

fn accept() -> Request {
    Request { accept: true, ..Request::default() }
}

fn closures(bench: &Bench) -> Vec<Closure> {
    bench.history.closures(&bench.config.targets[0].name).unwrap()
}

fn detail<'a>(report: &'a RunReport, step: &str) -> &'a str {
    let found = report.jobs[0].steps.iter().find(|done| done.step == step);
    &found.unwrap_or_else(|| panic!("no {step} in {report:#?}")).detail
}

fn effects(bench: &Bench, verb: &str) -> usize {
    let world = bench.host.world();
    world.effects.iter().filter(|effect| effect.contains(verb)).count()
}

fn archives(bench: &Bench) -> usize {
    bench.host.world().borg.archives.len()
}

/// What the status says of the target: the kinds by which it is closed, and the exit code's troubles.
fn told(bench: &Bench) -> (bool, Vec<Trouble>) {
    let now: DateTime<Utc> = "2026-11-21T03:10:00Z".parse().unwrap();
    let series = all_series(bench.pipeline()).unwrap();
    let facts = Facts::gather(Some(&bench.history), &bench.config, &series, now).unwrap();
    let report = status(&bench.config, &facts, now, None);
    (report.entries[0].closed.is_some(), report.troubles())
}

#[test]
fn copies_that_vanish_close_the_target_until_a_person_says_so() {
    for all in [true, false] {
        let bench = Bench::with_history();
        let oldest = bench.host.world().borg.archives.keys().next().unwrap().clone();
        bench.host.world().borg.archives.retain(|name, _| !all && *name != oldest);
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Incomplete, "{report:#?}");
        assert!(report.troubles.contains(&Trouble::Incomplete), "{:?}", report.troubles);
        let said = detail(&report, "observe");
        assert!(
            said.contains(&oldest) && said.contains("missing that this machine did not delete"),
            "{said}"
        );
        assert!(report.jobs[0].targets[0].copy.is_some(), "the copy is made all the same");
        assert_eq!(told(&bench), (true, vec![Trouble::Incomplete]));

        for _ in 0..3 {
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Warning, "later runs warn: {report:#?}");
        }
        assert_eq!((effects(&bench, "delete"), effects(&bench, "compact")), (0, 0), "closed");

        // Neither the policy nor a choice deletes there, and a prune says why.
        let newest = bench.newest();
        let chosen = bench.host.world().borg.archives.keys().next().unwrap().clone();
        assert_ne!(newest, chosen);
        for request in [Request::default(), Request { copies: vec![chosen], ..Request::default() }]
        {
            let refused = pruned(&bench, &request);
            assert_eq!(refused.deleted, Vec::<String>::new());
            assert!(refused.refusals[0].contains("prune --accept"), "{:?}", refused.refusals);
            assert!(refused.decisions.iter().all(|ruling| !ruling.delete), "{refused:#?}");
        }
        let accepted = pruned(&bench, &accept());
        assert_eq!(accepted.refusals, Vec::<String>::new());
        assert!(!accepted.deleted.is_empty());
        assert_eq!(told(&bench), (false, vec![]));
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        assert_eq!(archives(&bench), 2, "the policy decides again");
    }
}

#[test]
fn what_is_back_is_not_gone() {
    let bench = Bench::with_history();
    let held = bench.host.world().borg.archives.clone();
    bench.host.world().borg.archives.clear();
    assert_eq!(bench.run().outcome, Outcome::Incomplete);
    bench.host.world().borg.archives.extend(held);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(closures(&bench), []);
}

#[test]
fn another_repository_is_told_and_waits() {
    let bench = Bench::with_history();
    bench.host.world().borg.id = "78".into();
    bench.host.world().borg.archives.clear();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Incomplete, "{report:#?}");
    let said = detail(&report, "observe");
    assert!(said.contains("another repository") && said.contains("its id is 78"), "{said}");
    assert!(said.contains("2 good copies are missing"), "{said}");
    assert_eq!(bench.run().outcome, Outcome::Warning);
    pruned(&bench, &accept());
    assert_eq!(bench.run().outcome, Outcome::Ok);

    // The disk of the other one is put in again: that is another repository than the one accepted.
    bench.host.world().borg.id = "77".into();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Incomplete, "{report:#?}");
    bench.host.world().borg.id = "78".into();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "it is the accepted one again: {report:#?}");
}

/// What the first job would delete is missing from what the second one lists in a dry run.
#[test]
fn a_dry_run_is_not_surprised_by_its_own_deletions() {
    let mut bench = Bench::with_history();
    let mut other = bench.config.jobs[0].clone();
    other.name = JobName::new("other").unwrap();
    bench.config.jobs.push(other);
    let dry = DryHost::new(Arc::new(bench.host.clone()));
    let pipeline = Pipeline { host: &dry, ..bench.pipeline() };
    let jobs: Vec<_> = bench.config.jobs.iter().collect();
    let planned = run(pipeline, &jobs, Scope::default());
    assert!(detail(&planned, "retain").contains("1 would be deleted"), "{planned:#?}");
    assert_eq!(planned.outcome, Outcome::Ok, "{planned:#?}");
    // What somebody else deleted is missed all the same.
    let duplicate = bench.duplicate(&LIVE);
    duplicate.host.world().borg.archives.pop_first();
    let dry = DryHost::new(Arc::new(duplicate.host.clone()));
    let pipeline = Pipeline { host: &dry, ..duplicate.pipeline() };
    assert_eq!(run(pipeline, &jobs, Scope::default()).outcome, Outcome::Incomplete);
}

/// Its server deletes by its own policy: that some go is as it should be, and that all do is not.
#[test]
fn an_append_only_target_may_lose_copies_but_not_all() {
    let mut bench = Bench::with_history();
    bench.config.targets[0].append_only = true;
    bench.engines = stillpoint::engine::engines(&bench.config);
    bench.host.world().borg.archives.pop_first();
    assert_eq!(bench.run().outcome, Outcome::Ok);
    bench.host.world().borg.archives.clear();
    assert_eq!(bench.run().outcome, Outcome::Incomplete);
    assert!(told(&bench).0);
    // Without a word nothing is said but that nothing is deleted there; a person's word opens it, and still nothing
    // is deleted. No job needs to list it any more.
    let refused = pruned(&bench, &Request::default());
    assert!(refused.refusals[0].contains("append-only"), "{refused:#?}");
    assert!(told(&bench).0);
    let target = &bench.config.targets[0];
    let accepted =
        in_a_session(bench.pipeline(), |cx| prune(cx, &accept(), vec![(target, vec![])]).unwrap());
    assert_eq!((accepted.deleted.len(), accepted.refusals.len()), (0, 0), "{accepted:#?}");
    assert_eq!(closures(&bench), []);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let again = pruned(&bench, &accept());
    assert!(again.refusals[0].contains("append-only"), "{again:#?}");
    assert_eq!(effects(&bench, "delete"), 0);
}

#[test]
fn damage_closes_the_target_until_a_check_of_that_extent_is_clean() {
    let damage = ["chunk 17 is broken".to_owned()];
    // What found it, what does not take it back, and what does.
    let rows = [
        (ReadData::None, None, ReadData::None),
        (ReadData::All, Some(ReadData::None), ReadData::All),
        // borg reads no share of the data, but every checksum.
        (ReadData::All, Some(ReadData::Percent(5.0)), ReadData::All),
        (ReadData::Percent(5.0), None, ReadData::None),
    ];
    for (found, too_little, enough) in rows {
        let bench = Bench::with_history();
        let target = bench.config.targets[0].clone();
        let check = |read, damage: &[String]| {
            in_a_session(bench.pipeline(), |cx| {
                closed::after_check(cx, cx.pipeline.engine(&target), read, damage)
            })
            .unwrap();
        };
        check(found, &damage);
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
        assert!(detail(&report, "observe").contains("chunk 17"), "{report:#?}");
        assert!(detail(&report, "retain").contains("nothing of host@web1 is deleted"));
        assert_eq!(effects(&bench, "delete"), 0);
        assert_eq!(told(&bench), (true, vec![Trouble::Damage]));
        if let Some(read) = too_little {
            check(read, &[]);
            assert_eq!(bench.run().outcome, Outcome::Warning, "{read:?} is less than {found:?}");
        }
        check(enough, &[]);
        assert_eq!(bench.run().outcome, Outcome::Ok);
        assert_eq!(archives(&bench), 2);
    }
}

#[test]
fn damage_of_one_copy_is_taken_back_by_reading_it_again() {
    let bench = Bench::with_history();
    let target = bench.config.targets[0].clone();
    let engine = bench.engines.values().next().unwrap();
    let copies = engine.list(bench.pipeline().engine_context()).unwrap();
    let verify = |copy, damage: &[String]| {
        in_a_session(bench.pipeline(), |cx| closed::after_verify(cx, &target, copy, damage))
            .unwrap();
    };
    verify(&copies[0], &["a file cannot be read".to_owned()]);
    verify(&copies[1], &[]);
    in_a_session(bench.pipeline(), |cx| {
        closed::after_check(cx, cx.pipeline.engine(&target), ReadData::None, &[])
    })
    .unwrap();
    assert_eq!(closures(&bench).len(), 1, "neither another copy nor the structure says enough");
    assert_eq!(closures(&bench)[0].kind, ClosureKind::Damage);
    verify(&copies[0], &[]);
    assert_eq!(closures(&bench), []);
}

/// A check that is due in the run that would compact comes first, and what it finds keeps the rest from happening.
#[test]
fn a_damaged_repository_is_not_compacted_by_the_run_that_finds_it() {
    let mut bench = Bench::with_history();
    bench.config.targets[0].check = Some(stillpoint::model::target::CheckPolicy {
        every: std::time::Duration::from_secs(60),
        read_data: ReadData::None,
    });
    bench.engines = stillpoint::engine::engines(&bench.config);
    bench.host.world().borg.damaged = true;
    let report = bench.run();
    assert!(report.troubles.contains(&Trouble::Damage), "{report:#?}");
    assert_eq!(effects(&bench, "compact"), 0, "{:?}", bench.host.world().effects);
    let deleted = effects(&bench, "delete");
    let report = bench.run();
    assert_eq!(effects(&bench, "delete"), deleted, "{report:#?}");
    bench.host.world().borg.damaged = false;
    // The check is clean, and comes after retention.
    bench.run();
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(archives(&bench), 2);
}

#[test]
fn an_attempt_is_settled_when_nothing_of_it_is_left() {
    let bench = Bench::with_history();
    let usb = bench.config.targets[0].name.clone();
    let known = bench.history.copies(&usb).unwrap();
    let attempt = |run: &str, job: &str, name: &str| {
        let mut series = known[0].series.clone();
        series.job = stillpoint::model::names::JobName::new(job).unwrap();
        let attempt = Attempt {
            run: RunId::parse(run).unwrap(),
            target: usb.clone(),
            series,
            name: Some(name.to_owned()),
            started: known[0].time,
            time: known[0].time,
            snapshot: None,
        };
        bench.history.record_attempt(&attempt).unwrap();
    };
    attempt("0000dead", "host", "host@web1.20260101T000000Z.0000dead");
    attempt("0000beef", "host", "host@web1.20260102T000000Z.0000beef");
    attempt("0000cafe", "other", "other@web1.20260103T000000Z.0000cafe");
    // One left a checkpoint, which goes with the next good copy.
    let checkpoint = "host@web1.20260102T000000Z.0000beef.checkpoint".to_owned();
    bench.host.world().borg.archives.insert(checkpoint, 1);
    let left = || -> Vec<String> {
        let attempts = bench.history.attempts(&usb).unwrap();
        attempts.into_iter().map(|attempt| attempt.run.to_string()).collect()
    };
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(left(), ["0000beef", "0000cafe"], "another job may be at work");
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(left(), ["0000cafe"]);
}

#[test]
fn no_run_begins_without_room_for_its_records() {
    for (bytes, files) in [(12 << 10, None), (1 << 30, Some(3))] {
        let bench = Bench::with_history();
        bench.host.world().state_disk = Some((bytes, files));
        let report = bench.run();
        assert_eq!(report.troubles, [Trouble::Environment], "{report:#?}");
        assert!(report.warnings[0].contains("nothing was started"), "{:?}", report.warnings);
        assert_eq!(bench.host.world().effects, Vec::<String>::new());
        bench.host.world().state_disk = Some((1 << 20, Some(16)));
        assert_eq!(bench.run().outcome, Outcome::Ok);
    }
}

/// Deletions of a run are something to compact, for the run as for `status`.
#[test]
fn status_and_run_agree_when_compaction_is_due() {
    let mut bench = Bench::new();
    bench.config.targets[0].keep = Some(KeepPolicy { last: Some(1), ..KeepPolicy::default() });
    bench.config.targets[0].compact_every = Some(std::time::Duration::from_secs(3600));
    bench.engines = stillpoint::engine::engines(&bench.config);
    bench.run();
    assert_eq!(effects(&bench, "compact"), 0, "nothing was deleted yet");
    bench.run();
    assert_eq!(effects(&bench, "compact"), 1, "for the first time");
    bench.run();
    assert_eq!(effects(&bench, "compact"), 1, "an hour has not passed");
    let due = |now: &str| {
        let now: DateTime<Utc> = now.parse().unwrap();
        let series = all_series(bench.pipeline()).unwrap();
        let facts = Facts::gather(Some(&bench.history), &bench.config, &series, now).unwrap();
        !status(&bench.config, &facts, now, None).entries[0].due.is_empty()
    };
    assert!(!due("2026-11-21T03:10:00Z"));
    assert!(due("2026-11-21T08:00:00Z"));
}

#[test]
fn what_was_found_again_is_counted_as_a_person_would() {
    let name = target("usb", None).name;
    let found = |subject: &str| Closure {
        target: name.clone(),
        kind: ClosureKind::Damage,
        subject: subject.into(),
        extent: None,
        detail: "chunk 17 is broken".into(),
        run: RunId::parse("0000beef").unwrap(),
        since: DateTime::UNIX_EPOCH,
    };
    let all = ["", "one", "two"].map(found);
    for (count, said) in
        [(1, "00:00Z: "), (2, "00:00Z, and once since: "), (3, ", and 2 times since: ")]
    {
        let why = why(&all[..count]);
        assert!(why.contains(&format!("{said}chunk 17 is broken")), "{why}");
    }
}
