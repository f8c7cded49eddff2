//! Targets whose disks are away: passed over where that is said, and never taken for one that was deleted.

use std::path::Path;

use stillpoint::host::Host;
use stillpoint::model::job::Config;
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::names::TargetName;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::{RunReport, TargetReport};
use stillpoint::model::target::WhenAbsent;
use stillpoint::pipeline::forget;
use stillpoint::pipeline::init::{Wanted, init};
use stillpoint::pipeline::list::list;
use stillpoint::pipeline::maintenance::{Work, maintain};
use stillpoint::pipeline::preflight::preflight;
use stillpoint::pipeline::prune::{Request, prune, scope};
use stillpoint::step::error::StepError;

use crate::configured::configured;
use crate::faults::{Bench, LIVE, Scene, in_a_session, text};
use crate::subvolumes::SENT;
use crate::support::fake_host::{Fault, World};
use crate::support::fake_pool::FakePool;

pub const SHELF: &str = "/pool/shelf";

/// One subvolume, sent to a disk that stays and to one that comes and goes.
pub const SHELVED: Scene = Scene { config: shelved, world: shelf, kept: 4, ..SENT };

fn shelved(state: &Path) -> Config {
    configured(&format!(
        r#"
[settings]
state-dir = "{}"
lock-wait = "0s"
[targets.pool.keep]
last = 2
[targets.pool.btrfs]
location = "/pool"
[targets.shelf.keep]
last = 2
[targets.shelf.btrfs]
location = "{SHELF}"
require-mount = "{SHELF}"
when-absent = "skip"
[jobs.host]
targets = ["pool", "shelf"]
[jobs.host.subvolumes]
paths = ["/home"]
[jobs.host.hooks]
before = [["/hook", "stop"]]
finally = [["/hook", "start"]]
"#,
        state.display()
    ))
}

fn shelf() -> World {
    let mut world = (SENT.world)();
    world.pool.mark(Path::new(SHELF), "fedcba9876543210");
    world
}

/// Two disks that take turns at one place.
const TURNS: Scene = Scene { config: turns, world: SENT.world, kept: 2, ..SENT };

fn turns(state: &Path) -> Config {
    let target = |name: &str| {
        format!(
            "[targets.{name}.keep]\nlast = 2\n[targets.{name}.btrfs]\nlocation = '/pool'\nrequire-mount = '/pool'\nwhen-absent = 'skip'\n"
        )
    };
    configured(&format!(
        "[settings]\nstate-dir = '{}'\nlock-wait = '0s'\n{}{}[jobs.host]\ntargets = ['odd', 'even']\nsubvolumes.paths = ['/home']\n",
        state.display(),
        target("odd"),
        target("even")
    ))
}

pub fn away(bench: &Bench, path: &str) {
    bench.host.world().unmounted.insert(path.into());
}

pub fn back(bench: &Bench) {
    bench.host.world().unmounted.clear();
}

/// The report on a target.
fn of<'r>(report: &'r RunReport, target: &str) -> &'r TargetReport {
    report.jobs[0].targets.iter().find(|it| it.target.as_str() == target).unwrap()
}

/// A run that went well, in which this target was left out.
#[track_caller]
fn assert_left_out(report: &RunReport, target: &str, why: &str) {
    assert_eq!((&report.outcome, report.exit_code), (&Outcome::Ok, Some(0)), "{report:#?}");
    assert_eq!(report.jobs[0].outcome, Outcome::Ok);
    assert_eq!(of(report, target).outcome, Outcome::Skipped(why.into()));
    let told = report.jobs[0].steps.iter().filter(|step| step.detail == why).count();
    assert_eq!(told, 1, "one line says it: {:#?}", report.jobs[0].steps);
}

#[test]
fn ten_runs_without_a_target_keep_one_snapshot_for_it_and_it_gets_a_difference() {
    let bench = Bench::of(&SHELVED);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let common: Vec<String> = bench.host.world().btrfs.top.keys().cloned().collect();
    assert_eq!(common.len(), 1);
    away(&bench, SHELF);
    for run in 0..10 {
        let report = bench.run();
        assert_left_out(&report, "shelf", "nothing is mounted at /pool/shelf");
        assert_eq!(of(&report, "pool").outcome, Outcome::Ok);
        let there: Vec<String> = bench.host.world().btrfs.top.keys().cloned().collect();
        assert_eq!(there.len(), 2, "after run {run}: one for each target");
        assert!(there.contains(&common[0]), "after run {run}");
        bench.assert_released("a run without a target");
        let (_, planned) = bench.plan();
        let sent: Vec<&String> = planned.iter().filter(|it| it.contains("receive")).collect();
        assert_eq!(sent.len(), 1, "{planned:#?}");
        assert!(sent[0].contains("--known-as"), "the other target's chain goes on: {sent:?}");
    }
    back(&bench);
    let (_, planned) = bench.plan();
    let sent: Vec<&String> = planned.iter().filter(|it| it.contains("receive")).collect();
    assert_eq!(sent.len(), 2, "{planned:#?}");
    assert!(sent.iter().all(|it| it.contains("--known-as")), "two differences: {sent:?}");
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert!(report.jobs[0].targets.iter().all(|target| target.copy.is_some()), "{report:#?}");
    assert_eq!(bench.host.world().btrfs.top.len(), 1, "the common one of both");
    bench.assert_released("its return");
}

#[test]
fn a_disk_without_its_repository_is_no_absent_one() {
    let bench = Bench::of(&SHELVED);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    bench.host.world().pool.remove(&Path::new(SHELF).join(".stillpoint/target.json"));
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert_eq!(of(&report, "shelf").outcome, Outcome::Failed);
    assert_eq!(of(&report, "pool").outcome, Outcome::Ok);
    assert_ne!(report.exit_code, Some(0));
}

#[test]
fn a_job_without_any_of_its_targets_is_skipped_and_stops_nothing() {
    let mut bench = Bench::with_history();
    let target = &mut bench.config.targets[0];
    target.require_mount = Some("/unmounted".into());
    target.when_absent = WhenAbsent::Skip;
    bench.host.arm(Fault::None);
    bench.host.world().hooks.clear();
    bench.host.world().effects.clear();
    let report = bench.run();
    assert_eq!(report.exit_code, Some(0), "{report:#?}");
    assert!(matches!(report.outcome, Outcome::Skipped(_)), "{report:#?}");
    assert_eq!(report.jobs[0].reason.as_deref(), Some("every target is absent"));
    assert_eq!(bench.host.world().hooks, [] as [String; 0], "nothing is stopped for nothing");
    assert_eq!(bench.host.world().effects.iter().filter(|it| it.starts_with("borg")).count(), 0);
    // The last good copy gets older all the same.
    let last = bench.history.last_good_until(
        &bench.config.targets[0].name,
        &stillpoint::source::series(bench.pipeline(), &bench.config.jobs[0]).unwrap()[0],
        bench.host.now(),
    );
    assert!(last.unwrap().unwrap().run != report.run_id);
    bench.assert_released("a run without targets");
}

#[test]
fn a_job_that_keeps_snapshots_makes_them_without_any_of_its_targets() {
    let mut bench = Bench::of(&SHELVED);
    bench.config.jobs[0].keep_snapshots =
        Some(KeepPolicy { last: Some(3), ..KeepPolicy::default() });
    bench.config.jobs[0].targets.retain(|target| target.as_str() == "shelf");
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let there = |bench: &Bench| bench.host.world().btrfs.top.keys().cloned().collect::<Vec<_>>();
    let common = there(&bench);
    away(&bench, SHELF);
    bench.host.world().hooks.clear();
    for run in 1..6 {
        let report = bench.run();
        assert_eq!(report.exit_code, Some(0), "{report:#?}");
        let why = report.jobs[0].reason.as_deref();
        assert_eq!(why, Some("every target is absent: there is a snapshot, and no copy"));
        assert!(matches!(report.outcome, Outcome::Skipped(_)), "it is no copy: {report:#?}");
        assert_eq!(report.jobs[0].captures.len(), 1);
        let there = there(&bench);
        assert!(there.contains(&common[0]), "the next base, after run {run}: {there:?}");
        let by_policy = if run < 3 { run + 1 } else { 4 };
        assert_eq!(there.len(), by_policy, "after run {run}: {there:?}");
        bench.assert_released("a run without targets");
    }
    assert_eq!(bench.host.world().hooks.len(), 10, "the source is stopped for a snapshot");
    back(&bench);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(there(&bench).len(), 3, "the newest three, one of which is the next base");

    let fault = |fault| {
        bench.host.arm(fault);
        bench.run()
    };
    away(&bench, SHELF);
    bench.host.world().effects.clear();
    fault(Fault::None);
    let effects = bench.host.world().effects.len();
    assert!(effects > 4, "a snapshot is made and one deleted, between two hooks");
    for n in 0..effects {
        let report = fault(Fault::Fail(n));
        assert_ne!(report.exit_code, Some(0), "effect {n} failed unnoticed: {report:#?}");
        fault(Fault::None);
        bench.assert_released("a run without targets that failed");
        let there = there(&bench);
        assert!(
            matches!(there.len(), 3 | 4),
            "after effect {n} failed, and the next run: {there:?}"
        );
    }
}

#[test]
fn what_is_filled_from_an_absent_target_is_left_out_with_it() {
    let config = |state: &Path| {
        let own = text(state, "[jobs.host.files]\npaths = ['/data']\ncapture = 'none'", "");
        let restic = |name: &str, more: &str| {
            format!("[targets.{name}.restic]\npassword-file = '/p'\n{more}\n")
        };
        let disk = restic(
            "disk",
            "repository = '/unmounted/r'\nrequire-mount = '/unmounted'\nwhen-absent = 'skip'",
        );
        let cloud = restic("cloud", "repository = 's3:host/bucket'\ncopy-from = 'disk'");
        configured(&format!("{own}{disk}{cloud}").replace("[\"usb\"]", "['usb', 'disk', 'cloud']"))
    };
    let bench = Bench::of(&Scene { config, ..LIVE });
    let report = bench.run();
    assert_left_out(&report, "disk", "nothing is mounted at /unmounted");
    assert_left_out(&report, "cloud", "target disk, from which it is filled, is absent");
    assert!(of(&report, "usb").copy.is_some());
    assert!(bench.host.world().service_up);
}

#[test]
fn verbs_over_all_targets_pass_over_an_absent_one_and_verbs_about_it_do_not() {
    let bench = Bench::of(&SHELVED);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    away(&bench, SHELF);
    bench.host.arm(Fault::None);
    let shelf = TargetName::new("shelf").unwrap();
    let all: Vec<_> = bench.config.targets.iter().collect();
    for work in [Work::Check(None), Work::Compact] {
        let done = in_a_session(bench.pipeline(), |cx| maintain(cx, &all, work, false));
        assert_eq!((done.outcome, done.troubles), (Outcome::Ok, Vec::new()), "{:#?}", done.steps);
        let named = in_a_session(bench.pipeline(), |cx| maintain(cx, &all[1..], work, true));
        assert_eq!(named.troubles, [Trouble::Environment]);
    }
    let pruned = |named: bool, copies: &[&str]| {
        let copies = copies.iter().map(|copy| (*copy).to_owned()).collect();
        let request = Request { named, copies, ..Request::default() };
        let only = named.then_some(&shelf);
        let scope = scope(&bench.config, None, only, false).unwrap();
        in_a_session(bench.pipeline(), |cx| prune(cx, &request, scope)).unwrap()
    };
    let all = pruned(false, &[]);
    assert_eq!(all.troubles, [], "{all:#?}");
    assert_eq!(all.absent, [(shelf.clone(), "nothing is mounted at /pool/shelf".to_owned())]);
    assert_eq!(pruned(true, &[]).troubles, [Trouble::Environment]);
    // What it holds cannot be named meanwhile.
    let unseen = pruned(false, &["0badc0de"]);
    assert_eq!(unseen.troubles, [Trouble::JobFailed]);
    assert_eq!(unseen.absent.len(), 1);

    let listing = list(bench.pipeline(), None, None, false).unwrap();
    let unread: Vec<_> =
        listing.unread.iter().map(|it| (it.target.as_str(), it.trouble())).collect();
    assert_eq!((listing.copies.len(), unread), (1, vec![("shelf", None)]));
    let listing = list(bench.pipeline(), None, Some(&shelf), false).unwrap();
    assert_eq!(listing.unread[0].trouble(), Some(Trouble::Environment));

    let findings = preflight(bench.pipeline());
    let (_, found) = findings.iter().find(|(what, _)| what == "target shelf").unwrap();
    assert_eq!(found.as_ref().unwrap(), "absent, as it may be: nothing is mounted at /pool/shelf");
    let (report, _) = bench.plan();
    assert_left_out(&report, "shelf", "nothing is mounted at /pool/shelf");
}

#[test]
fn what_is_held_for_a_lost_disk_goes_when_it_is_forgotten() {
    let bench = Bench::of(&SHELVED);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let shelf = TargetName::new("shelf").unwrap();
    let present = forget::look(bench.pipeline(), &shelf).unwrap_err();
    assert_eq!(present.trouble, Trouble::Usage);
    assert!(present.message.contains("is there and its repository opens"), "{present}");
    let unknown = forget::look(bench.pipeline(), &TargetName::new("slef").unwrap()).unwrap_err();
    assert!(unknown.message.contains("there is pool, shelf"), "{unknown}");
    away(&bench, SHELF);
    let both = forget::look(bench.pipeline(), &shelf).unwrap();
    assert_eq!((both.copies.len(), both.snapshots.len()), (1, 0), "the other target needs it too");
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let loss = forget::look(bench.pipeline(), &shelf).unwrap();
    assert_eq!((loss.copies.len(), loss.snapshots.len()), (1, 1));
    assert_eq!(bench.host.world().btrfs.top.len(), 2);

    forget::forget(bench.pipeline(), &shelf).unwrap();
    assert_eq!(bench.host.world().btrfs.top.len(), 2, "the next run releases it");
    assert_left_out(&bench.run(), "shelf", "nothing is mounted at /pool/shelf");
    assert_eq!(bench.host.world().btrfs.top.len(), 1);
    bench.assert_released("a run after a disk was forgotten");

    // It is found after all: its copies count again, and there is nothing left that they could be the base of.
    back(&bench);
    let (_, planned) = bench.plan();
    let sent: Vec<&String> = planned.iter().filter(|it| it.contains("receive")).collect();
    assert_eq!(sent.iter().filter(|it| it.contains("--known-as")).count(), 1, "{sent:?}");
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.history.copies(&shelf).unwrap().len(), 2);
    assert_eq!(bench.history.forgotten(&shelf).unwrap(), None);
}

/// The other disk is put in.
fn swap(bench: &Bench, outside: &mut FakePool) {
    std::mem::swap(&mut bench.host.world().pool, outside);
}

fn known(bench: &Bench, target: usize) -> Result<(), StepError> {
    let engine = bench.pipeline().engine(&bench.config.targets[target]);
    in_a_session(bench.pipeline(), |cx| init(cx, engine, Wanted::Existing)).map(drop)
}

/// Two disks, each known; the first is in place.
fn two_disks() -> (Bench, FakePool) {
    let bench = Bench::of(&TURNS);
    let mut outside = FakePool::default();
    outside.mark(Path::new("/pool"), "00000000000000ee");
    known(&bench, 0).unwrap();
    let error = known(&bench, 1).unwrap_err();
    assert!(error.message.contains("is that of target odd"), "{error}");
    swap(&bench, &mut outside);
    known(&bench, 1).unwrap();
    swap(&bench, &mut outside);
    (bench, outside)
}

#[test]
fn disks_that_take_turns_are_told_apart_by_their_repositories() {
    let (bench, mut outside) = two_disks();
    for turn in 0..8 {
        let (here, gone) = if turn % 2 == 0 { ("odd", "even") } else { ("even", "odd") };
        let (_, planned) = bench.plan();
        let sent: Vec<&String> = planned.iter().filter(|it| it.contains("receive")).collect();
        assert_eq!(sent.len(), 1, "{planned:#?}");
        assert_eq!(sent[0].contains("--known-as"), turn >= 2, "in turn {turn}: {sent:?}");
        let report = bench.run();
        assert_left_out(&report, gone, &format!("the disk of target {here} is in its place"));
        assert!(of(&report, here).copy.is_some(), "{report:#?}");
        assert_eq!(bench.host.world().btrfs.top.len(), if turn == 0 { 1 } else { 2 });
        assert!(report.warnings.is_empty(), "nothing vanished: {:?}", report.warnings);
        let listing = list(bench.pipeline(), None, None, false).unwrap();
        assert!(listing.copies.iter().all(|it| it.target.as_str() == here), "each copy once");
        bench.assert_released("a turn");
        swap(&bench, &mut outside);
    }
    // Neither is there.
    away(&bench, "/pool");
    let report = bench.run();
    assert!(matches!(report.outcome, Outcome::Skipped(_)), "{report:#?}");
}

#[test]
fn a_disk_that_is_nobodys_is_no_turn_of_anyone() {
    let (bench, _) = two_disks();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    bench.host.world().pool.mark(Path::new("/pool"), "0000000000000bad");
    // Another process, to which engines are new.
    let bench = bench.duplicate(&TURNS);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert_eq!(report.troubles, [Trouble::Environment, Trouble::Environment]);
    // A person says whose it is now.
    let odd = TargetName::new("odd").unwrap();
    let request = Request { accept: true, named: true, ..Request::default() };
    let scope = scope(&bench.config, None, Some(&odd), true).unwrap();
    let pruned = in_a_session(bench.pipeline(), |cx| prune(cx, &request, scope)).unwrap();
    assert_eq!(pruned.failures, [] as [String; 0]);
    let report = bench.run();
    assert_left_out(&report, "even", "the disk of target odd is in its place");
    // Nothing makes even's word count for odd's disk.
    let even = TargetName::new("even").unwrap();
    let scope = self::scope(&bench.config, None, Some(&even), true).unwrap();
    let pruned = in_a_session(bench.pipeline(), |cx| prune(cx, &request, scope)).unwrap();
    assert_eq!(pruned.troubles, [Trouble::Environment]);
}

#[test]
fn a_dry_run_asks_whose_turn_it_is_and_changes_nothing() {
    let (bench, _) = two_disks();
    bench.host.world().effects.clear();
    let (report, _) = bench.plan();
    assert_left_out(&report, "even", "the disk of target odd is in its place");
    assert_eq!(bench.host.world().effects, [] as [String; 0]);
}
