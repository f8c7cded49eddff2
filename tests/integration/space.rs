//! Space that must stay free: what goes for it, in which order, and what does not.

use std::path::Path;

use stillpoint::history::{Closure, ClosureKind, Extent};
use stillpoint::host::Host;
use stillpoint::model::job::{Config, Scope, Source};
use stillpoint::model::keep::{KeepPolicy, MinFree};
use stillpoint::model::names::{JobName, RunId};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::RunReport;
use stillpoint::pipeline::prune::{Pruned, Request, prune, scope};
use stillpoint::pipeline::run::run;
use stillpoint::step::context::Pipeline;

use crate::faults::{Bench, Scene, in_a_session};
use crate::loops;
use crate::subvolumes::{SENT, differences};
use crate::support::fake_host::{Fault, World};

/// Three hundred bytes must stay free of a thousand, and a copy takes a hundred. There is room for seven.
const TIGHT: Scene = Scene { config: tight, world: small, kept: 4, ..SENT };

fn tight(state: &Path) -> Config {
    let mut config = (SENT.config)(state);
    let keep = KeepPolicy {
        last: Some(10),
        min_free: Some(MinFree::Percent(30)),
        ..KeepPolicy::default()
    };
    config.targets[0].keep = Some(keep);
    config
}

fn small() -> World {
    let mut world = (SENT.world)();
    world.pool.room = Some(7);
    world
}

/// What is said of the room that a run made.
fn made_room(report: &RunReport) -> &str {
    &report.maintenance.iter().find(|step| step.step == "retain").unwrap().detail
}

fn pruned(bench: &Bench, host: &dyn Host) -> Pruned {
    let pipeline = Pipeline { host, ..bench.pipeline() };
    let scope = scope(&bench.config, None, None, false).unwrap();
    in_a_session(pipeline, |cx| prune(cx, &Request::default(), scope)).unwrap()
}

#[test]
fn the_oldest_go_until_there_is_enough_and_no_more() {
    let bench = Bench::with_history_of(&TIGHT);
    let before = bench.host.world().copies();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert!(made_room(&report).contains("2 deleted for space"), "{}", made_room(&report));
    let world = bench.host.world();
    assert_eq!(world.pool.free(), 300, "what was deleted is waited for");
    // The older one of each subvolume; what stays is newer than what went.
    let there = world.copies();
    assert_eq!(
        there.iter().filter(|copy| before.contains(copy)).count(),
        2,
        "{before:?} {there:?}"
    );
    drop(world);
    let deleted: Vec<&String> = report.jobs[0].targets.iter().flat_map(|it| &it.deleted).collect();
    assert_eq!(deleted.len(), 2, "the report names them: {report:#?}");
}

#[test]
fn the_newest_of_each_series_stays_whatever_is_lacking() {
    let bench = Bench::with_history_of(&TIGHT);
    bench.host.world().pool.room = Some(3);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert_eq!(report.troubles, [Trouble::Warning]);
    let said = made_room(&report);
    assert!(
        said.contains("100 B free where min-free wants 300 B, and nothing more may go"),
        "{said}"
    );
    assert_eq!(bench.host.world().copies().len(), 2, "one of each");
    // They are what the next difference is based on.
    assert_eq!(differences(&bench), 2);
}

#[test]
fn a_closed_target_loses_nothing_for_space() {
    let bench = Bench::with_history_of(&TIGHT);
    let target = &bench.config.targets[0].name;
    let found = Closure {
        target: target.clone(),
        kind: ClosureKind::Damage,
        subject: String::new(),
        extent: Some(Extent::All),
        detail: "broken".into(),
        run: RunId::parse("0badc0de").unwrap(),
        since: bench.host.now(),
    };
    bench.history.close(&found).unwrap();
    let report = bench.run();
    assert_eq!(bench.host.world().copies().len(), 6, "{report:#?}");
    let said = made_room(&report);
    assert!(said.contains("is closed (damage)") && said.contains("min-free wants"), "{said}");
}

#[test]
fn a_dry_run_says_how_many_at_most_and_deletes_nothing() {
    let bench = Bench::with_history_of(&TIGHT);
    bench.host.world().pool.room = Some(5);
    bench.host.world().effects.clear();
    let (report, planned) = bench.plan();
    let said = made_room(&report);
    assert!(said.contains("100 B free where min-free wants 300 B: up to"), "{said}");
    assert!(
        planned.iter().all(|line| !line.starts_with("delete the subvolume /pool")),
        "{planned:#?}"
    );
    let dry = stillpoint::host::dry::DryHost::new(std::sync::Arc::new(bench.host.clone()));
    let foreseen = pruned(&bench, &dry);
    assert_eq!(bench.host.world().effects, [] as [String; 0]);
    let named: Vec<_> = foreseen.decisions.iter().filter(|it| it.if_needed).collect();
    assert_eq!(named.len(), 2, "the older one of each: {foreseen:#?}");
    assert!(foreseen.decisions.iter().all(|ruling| !ruling.delete));
    assert!(foreseen.space[0].contains("up to 2 would be deleted for space"), "{foreseen:#?}");

    let done = pruned(&bench, &bench.host);
    assert_eq!(done.deleted.len(), 2, "{done:#?}");
    for ruling in done.decisions.iter().filter(|ruling| done.deleted.contains(&ruling.copy)) {
        assert!(ruling.delete && ruling.reason == "space", "{ruling:?}");
        assert!(named.iter().any(|foreseen| foreseen.copy == ruling.copy));
    }
}

#[test]
fn local_snapshots_go_for_space_and_bases_do_not() {
    let config = |state: &Path| {
        let mut config = (SENT.config)(state);
        config.jobs[0].keep_snapshots =
            Some(KeepPolicy { min_free: Some(MinFree::Bytes(300)), ..KeepPolicy::default() });
        config
    };
    let bench = Bench::of(&Scene { config, ..SENT });
    bench.host.world().btrfs.room = Some(8);
    for run in 1..=5_usize {
        if run == 5 {
            let (report, _) = bench.plan();
            let said: Vec<&str> =
                report.jobs[0].steps.iter().map(|step| step.detail.as_str()).collect();
            assert!(said.iter().all(|said| !said.contains("for space released")), "{said:#?}");
        }
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        assert_eq!(bench.host.world().btrfs.top.len(), (2 * run).min(5), "after run {run}");
        bench.assert_released("a run");
    }
    bench.host.world().btrfs.room = Some(3);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert!(report.warnings.iter().any(|it| it.contains("no snapshot may go")), "{report:#?}");
    assert_eq!(bench.host.world().btrfs.top.len(), 2, "the bases of what comes next");
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&TIGHT);
    let deletions = effects.iter().filter(|effect| effect.starts_with("delete the subvolume"));
    assert_eq!(deletions.count(), 2, "one by one: {effects:#?}");
    loops::failing_any_effect(&TIGHT);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&TIGHT);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&TIGHT);
}

#[test]
fn a_series_that_got_no_copy_loses_nothing_for_space() {
    let bench = Bench::with_history_of(&TIGHT);
    let effects = loops::effects(&TIGHT);
    let bench = bench.duplicate(&TIGHT);
    // Without its name it is no copy.
    let named = effects.iter().position(|effect| effect.starts_with("rename the subvolume"));
    bench.host.arm(Fault::Fail(named.unwrap()));
    let of_home = |bench: &Bench| {
        let copies = bench.host.world().copies();
        copies.into_iter().filter(|copy| copy.contains("home")).collect::<Vec<_>>()
    };
    let before = of_home(&bench);
    assert_eq!(before.len(), 2);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert_eq!(of_home(&bench), before);
}

/// Each of the two subvolumes is a job of its own.
fn apart(state: &Path) -> Config {
    let mut config = tight(state);
    let mut other = config.jobs[0].clone();
    other.name = JobName::new("other").unwrap();
    for (job, kept) in [(&mut config.jobs[0], "/home"), (&mut other, "/srv")] {
        let Source::Subvolumes(source) = &mut job.source else { panic!("of another kind") };
        source.paths.retain(|path| path == Path::new(kept));
    }
    config.jobs.push(other);
    config
}

#[test]
fn the_oldest_of_all_jobs_go_whichever_job_lacks_space_first() {
    let bench = Bench::of(&Scene { config: apart, ..SENT });
    let [home, srv] = &bench.config.jobs[..] else { panic!("two jobs") };
    for job in [srv, srv, home, home] {
        assert_eq!(run(bench.pipeline(), &[job], Scope::default()).outcome, Outcome::Ok);
    }
    let before = bench.host.world().copies();
    bench.host.world().pool.room = Some(7);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.host.world().pool.free(), 300);
    let after = bench.host.world().copies();
    let gone: Vec<&String> = before.iter().filter(|copy| !after.contains(copy)).collect();
    assert_eq!(gone.len(), 2, "{gone:?}");
    assert!(gone.iter().all(|copy| copy.contains("srv")), "{gone:?}");
    assert_eq!(report.jobs[1].targets[0].deleted.len(), 2, "{report:#?}");
}

#[test]
fn what_frees_nothing_is_soon_left_alone() {
    let bench = Bench::of(&Scene { config: tight, ..SENT });
    for _ in 0..5 {
        assert_eq!(bench.run().outcome, Outcome::Ok);
    }
    let before = bench.host.world().copies().len();
    bench.host.world().pool.room = Some(before as u64 + 3);
    bench.host.world().pool.is_crowded = true;
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert!(made_room(&report).contains("the last 5 freed nothing"), "{}", made_room(&report));
    assert_eq!(before + 2 - bench.host.world().copies().len(), 5);
}
