//! One more kind of source, whose items only the machine knows and which holds each still by itself: through the whole
//! pipeline, a dry run and all the loops. It is a file of its own and a row here; nothing else knows of it.

use std::path::{Path, PathBuf};

use stillpoint::history::FILE_NAME;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::{JobReport, RunReport};
use stillpoint::pipeline::status::{recorded, status};

use crate::faults::{self, Bench, Scene};
use crate::loops;
use crate::support::fake_host::{Fault, World};
use crate::support::fake_source::{databases, place};

/// Two databases.
const DATABASES: Scene = Scene { world, sources: &databases, kept: 4, ..faults::LIVE };

fn world() -> World {
    World { databases: vec!["web".into(), "db".into()], ..World::new() }
}

fn bench() -> Bench {
    let bench = Bench::with_history_of(&DATABASES);
    bench.host.arm(Fault::None);
    bench
}

/// Target, item and outcome of all that the job was to bring somewhere.
fn outcomes(job: &JobReport) -> Vec<(&str, Option<&str>, Outcome)> {
    let each = job.targets.iter();
    each.map(|one| (one.target.as_str(), one.item.as_deref(), one.outcome.clone())).collect()
}

/// The steps of the job, each with its item.
fn steps(report: &RunReport) -> Vec<String> {
    let name = |step: &str, item: &Option<String>| {
        item.as_ref().map_or(step.to_owned(), |item| format!("{step} {item}"))
    };
    report.jobs[0].steps.iter().map(|step| name(step.step, &step.item)).collect()
}

#[test]
fn one_batch_after_the_other_is_held_read_and_let_go_and_the_target_is_listed_once() {
    let bench = bench();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(
        steps(&report),
        [
            "lock",
            "prepare",
            "intend",
            "before",
            "items",
            "hold web",
            "backup web",
            "release web",
            "hold db",
            "backup db",
            "release db",
            "observe",
            "retain",
            "after",
            "finally",
        ]
    );
    let effects = bench.host.world().effects.clone();
    let at = |what: String| effects.iter().position(|effect| *effect == what).unwrap();
    let read = |database: &str| {
        let reads = |effect: &String| effect.contains(&format!("host@web1.{database}."));
        effects.iter().position(reads).unwrap()
    };
    let made = |database| at(format!("create {}", place(database).display()));
    let gone = |database| at(format!("remove {}", place(database).display()));
    let order = [made("web"), read("web"), gone("web"), made("db"), read("db"), gone("db")];
    assert!(order.is_sorted(), "{order:?}: {effects:#?}");
}

#[test]
fn a_batch_that_fails_stops_neither_the_others_nor_the_run() {
    for (failing, other) in [("web", "db"), ("db", "web")] {
        let bench = bench();
        let effects = loops::effects(&DATABASES);
        let made = format!("create {}", place(failing).display());
        let n = effects.iter().position(|effect| *effect == made).unwrap();
        bench.host.arm(Fault::Fail(n));
        bench.host.world().hooks.clear();
        let report = bench.run();
        let job = &report.jobs[0];
        assert_eq!((&report.outcome, &job.outcome), (&Outcome::Failed, &Outcome::Failed));
        assert_eq!(report.troubles, [Trouble::JobFailed], "{report:#?}");
        let mut came = outcomes(job);
        came.sort_by_key(|(_, item, _)| *item == Some(other));
        let expected = [("usb", Some(failing), Outcome::Failed), ("usb", Some(other), Outcome::Ok)];
        assert_eq!(came, expected);
        let steps = steps(&report);
        for wanted in [format!("backup {other}"), format!("release {failing}"), "retain".into()] {
            assert!(steps.contains(&wanted), "{wanted}: {steps:?}");
        }
        assert!(!steps.contains(&format!("backup {failing}")), "{steps:?}");
        assert_eq!(bench.host.world().hooks, ["stop", "on-failure", "start"]);
        bench.assert_released(failing);
        bench.assert_mended(failing);
    }
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    loops::failing_any_effect(&DATABASES);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&DATABASES);
}

#[test]
fn a_ledger_cut_off_after_any_line_is_recovered_from() {
    loops::cutting_the_ledger(&DATABASES);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&DATABASES);
}

#[test]
fn failing_any_effect_of_a_recovery_is_recovered_from() {
    loops::failing_any_effect_of_a_recovery(&DATABASES);
}

#[test]
fn a_plan_does_nothing_and_learns_nothing() {
    let bench = bench();
    bench.host.world().databases.push("new".into());
    let (report, planned) = bench.plan();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let items: Vec<_> = outcomes(&report.jobs[0]).into_iter().map(|(_, item, _)| item).collect();
    assert_eq!(items, [Some("web"), Some("db"), Some("new")]);
    assert_eq!(bench.host.world().effects, Vec::<String>::new());
    assert_eq!(bench.ledgers(), Vec::<PathBuf>::new());
    assert_eq!(items_known(&bench), ["db", "web"]);
    for database in ["web", "db", "new"] {
        let place = place(database);
        let about = planned.iter().filter(|effect| effect.contains(place.to_str().unwrap()));
        assert_eq!(about.count(), 3, "made, read and removed: {planned:#?}");
    }
}

/// What status shows without asking the machine.
fn items_known(bench: &Bench) -> Vec<String> {
    let (report, _) = recorded(bench.pipeline(), None).unwrap();
    let name = |item: Option<String>| item.unwrap_or_else(|| "nothing known".into());
    report.entries.into_iter().map(|entry| name(entry.item)).collect()
}

#[test]
fn what_the_last_run_found_is_what_status_shows() {
    let bench = Bench::of(&DATABASES);
    assert_eq!(items_known(&bench), ["nothing known"], "a job is never missing");
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(items_known(&bench), ["db", "web"]);
    bench.host.world().databases = vec!["mail".into(), "web".into()];
    assert_eq!(items_known(&bench), ["db", "web"], "the machine was not asked");
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(items_known(&bench), ["mail", "web"]);
    // A job that did not come to look is told of by what is known.
    let path: &Path = &bench.config.settings.runtime_dir;
    bench.host.world().locks.insert(path.join("locks/job-host.lock"));
    let report = bench.run();
    let failed = [("usb", Some("mail"), Outcome::Failed), ("usb", Some("web"), Outcome::Failed)];
    assert_eq!(outcomes(&report.jobs[0]), failed);
}

#[test]
fn items_that_cannot_be_recorded_are_a_warning() {
    let bench = bench();
    let file = rusqlite::Connection::open(bench.state.path().join(FILE_NAME)).unwrap();
    file.execute_batch(
        "CREATE TRIGGER full BEFORE UPDATE ON item BEGIN SELECT RAISE(FAIL, 'no space'); END",
    )
    .unwrap();
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Warning], "{report:#?}");
    assert!(report.warnings[0].contains("cannot record the items of a job"), "{report:#?}");
    assert_eq!(bench.host.world().borg.archives.len(), 4);
}

#[test]
fn the_target_is_asked_for_any_item_where_none_is_known() {
    let seed = bench();
    let bench = Bench::of(&DATABASES);
    bench.host.world().borg = seed.host.world().borg.clone();
    let jobs: Vec<_> = bench.config.jobs.iter().collect();
    let report = status(bench.pipeline(), &jobs, None).unwrap();
    let [entry] = report.entries.as_slice() else { panic!("{report:#?}") };
    let listed = entry.listed.as_ref().unwrap();
    assert_eq!((listed.copies, &listed.error), (Some(4), &None));
    assert!(entry.stale && listed.newest.is_some(), "{entry:#?}");
}

#[test]
fn a_job_that_finds_nothing_has_failed() {
    let bench = bench();
    bench.host.world().databases.clear();
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::JobFailed], "{report:#?}");
    let step = report.jobs[0].steps.iter().find(|step| step.step == "items").unwrap();
    assert_eq!(step.detail, "there is nothing to back up: the job finds no databases");
    assert_eq!(items_known(&bench), ["db", "web"]);
    assert!(outcomes(&report.jobs[0]).iter().all(|(.., outcome)| *outcome == Outcome::Failed));
    bench.assert_released("finding nothing");
}
