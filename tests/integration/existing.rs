//! Snapshots that were there before the run, which is to send them: those that the job keeps, and those that another
//! program makes. By the loops of [`crate::loops`].

use std::path::Path;

use stillpoint::model::job::{Config, ExistingSnapshots, Part, Scope, Source};
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::outcome::Outcome;
use stillpoint::model::report::RunReport;
use stillpoint::pipeline::run::run;
use stillpoint::pipeline::select::jobs_to_run;
use stillpoint::pipeline::status::recorded;
use stillpoint::report::metrics;

use crate::faults::{Bench, Scene};
use crate::subvolumes::{SENT, sending};
use crate::support::fake_host::{Fault, World};
use crate::{loops, served, stored_streams};

/// A run of a part of what the job says.
fn run_part(bench: &Bench, part: Part) -> RunReport {
    let jobs: Vec<_> = bench.config.jobs.iter().collect();
    run(bench.pipeline(), &jobs, Scope { part, ..Scope::default() })
}

fn keeping(state: &Path) -> Config {
    let mut config = sending(state, "pool", "keep.last = 2\nbtrfs.location = '/pool'");
    config.jobs[0].keep_snapshots = Some(KeepPolicy { last: Some(3), ..KeepPolicy::default() });
    config
}

const KEEPING: Scene = Scene { config: keeping, ..SENT };

/// The ids of all copies, and of all snapshots.
fn there(bench: &Bench) -> (Vec<String>, usize) {
    let world = bench.host.world();
    (world.pool.copies().collect(), world.btrfs.top.len())
}

#[test]
fn snapshots_alone_go_nowhere_and_the_newest_is_sent_later() {
    let bench = Bench::with_history_of(&KEEPING);
    let (copies, snapshots) = there(&bench);
    assert_eq!(snapshots, 6);
    let report = run_part(&bench, Part::Snapshots);
    assert_eq!(report.outcome.word(), "skipped", "{report:#?}");
    assert_eq!(report.exit_code, Some(0));
    assert!(report.jobs[0].targets.is_empty());
    bench.assert_released("snapshots alone");
    // What the last copies are of stays beside the three newest.
    assert_eq!(there(&bench), (copies.clone(), 6));
    let target = &bench.config.targets[0].name;
    let job = &bench.config.jobs[0].name;
    let last = bench.history.last_outcome(job, target, Some("/home")).unwrap().unwrap();
    assert_eq!(last.outcome, Outcome::Ok, "it went to no target: {last:?}");

    let report = run_part(&bench, Part::Transfer);
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    bench.assert_released("a transfer");
    let (now, snapshots) = there(&bench);
    assert_eq!((now.len(), snapshots), (4, 6), "nothing was made");
    let new: Vec<&String> = now.iter().filter(|copy| !copies.contains(copy)).collect();
    assert_eq!(new.len(), 2, "{now:?}");
    // It is the copy of the run that made the snapshot, so that this is known to be its base from now on.
    let kept = bench.history.kept(job).unwrap();
    assert!(new.iter().all(|copy| kept.iter().any(|it| copy.ends_with(it.run.as_str()))));
    let next = bench.run();
    assert_eq!(next.outcome, Outcome::Ok, "{next:#?}");
    assert_eq!(there(&bench).1, 6);
}

#[test]
fn snapshots_that_were_not_made_are_told_like_any_other_failure() {
    let bench = Bench::with_history_of(&KEEPING);
    let told = || {
        let (status, facts) = recorded(bench.pipeline(), None).unwrap();
        let page = metrics::textfile(&status, &facts);
        let is_failed = |line: &&str| {
            line.starts_with("stillpoint_last_run_outcome")
                && line.contains("outcome=\"failed\"")
                && line.ends_with(" 1")
        };
        let failed = page.lines().filter(is_failed).count();
        let entries = status.entries.into_iter();
        (entries.map(|it| (it.outcome.unwrap(), it.last_good)).collect::<Vec<_>>(), failed)
    };
    let before = told();
    assert_eq!(before.1, 0);
    let lost = bench.host.world().btrfs.subvolumes.remove(Path::new("/home")).unwrap();
    let report = run_part(&bench, Part::Snapshots);
    assert_eq!((report.outcome.clone(), report.exit_code), (Outcome::Failed, Some(4)));
    let job = &report.jobs[0];
    assert_eq!(job.reason, None, "it was not skipped");
    let failed = job.steps.iter().find(|step| step.outcome == Outcome::Failed).unwrap();
    assert!(failed.detail.contains("the subvolume /home was deleted"), "{failed:?}");
    let (entries, failed) = told();
    assert_eq!(failed, entries.len());
    for ((outcome, good), (_, good_before)) in entries.iter().zip(&before.0) {
        assert_eq!((outcome, good), (&Outcome::Failed, good_before));
    }
    // One that makes them again is no copy.
    bench.host.world().btrfs.subvolumes.insert("/home".into(), lost);
    let report = run_part(&bench, Part::Snapshots);
    assert_eq!(report.outcome.word(), "skipped", "{report:#?}");
    let reason = report.jobs[0].reason.as_deref();
    assert_eq!(reason, Some("only snapshots were asked for, and no copy"));
    assert_eq!(told(), before);
}

#[test]
fn a_target_that_has_the_newest_snapshot_is_up_to_date() {
    let bench = Bench::with_history_of(&KEEPING);
    let before = there(&bench);
    let report = run_part(&bench, Part::Transfer);
    assert_eq!((report.outcome.word(), report.exit_code), ("skipped", Some(0)), "{report:#?}");
    let said = report.jobs[0].targets[0].outcome.to_string();
    assert!(said.contains("up to date: it has the newest snapshot"), "{said}");
    assert_eq!(report.jobs[0].targets[0].copy, None);
    assert_eq!(there(&bench), before);
    // A hook that tells whoever counts copies is told that there is no new one.
    let hooks = &bench.host.world().hooks;
    assert_eq!(hooks.last().map(String::as_str), Some("start"));
}

#[test]
fn where_no_snapshot_is_kept_none_is_made() {
    let bench = Bench::of(&KEEPING);
    let report = run_part(&bench, Part::Transfer);
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert!(format!("{report:#?}").contains("run the job without --no-snapshot"), "{report:#?}");
    assert_eq!(there(&bench), (Vec::new(), 0));
}

#[test]
fn whatever_happens_to_a_part_of_a_run_the_next_one_is_good() {
    let seed = Bench::with_history_of(&KEEPING);
    for part in [Part::Snapshots, Part::Transfer] {
        let bench = seed.duplicate(&KEEPING);
        if part == Part::Transfer {
            run_part(&bench, Part::Snapshots);
        }
        bench.host.arm(Fault::None);
        let measured = bench.duplicate(&KEEPING);
        run_part(&measured, part);
        let effects = measured.host.world().effects.clone();
        assert!(effects.len() >= 4, "{effects:#?}");
        for (n, what) in effects.iter().enumerate() {
            loops::any_fault_at(
                || bench.duplicate(&KEEPING),
                n,
                what,
                |bench| run_part(bench, part),
                |bench, _, report, after| {
                    let is_told = report.is_none_or(|report| !report.troubles.is_empty());
                    assert!(is_told, "{after} went unnoticed");
                    bench.assert_mended(after);
                },
            );
        }
    }
}

const HOME: &str = "@home/.snapshots";

fn existing(state: &Path, all: bool) -> Config {
    let table = "keep.last = 2\nbtrfs.location = '/pool'\nbtrfs.part-size = 1";
    of_the_tool(sending(state, "pool", table), all)
}

/// The same job, which sends all snapshots of the program that came since the last one.
pub fn all_of(config: Config) -> Config {
    of_the_tool(config, true)
}

fn of_the_tool(mut config: Config, all: bool) -> Config {
    let Source::Subvolumes(source) = &mut config.jobs[0].source else { panic!() };
    source.existing = Some(ExistingSnapshots {
        called: vec!["/home/.snapshots/*/snapshot".into(), "pool/srv.*".into()],
        all,
    });
    config
}

/// The program makes a snapshot of each subvolume before each run.
pub fn tool_makes(world: &mut World) {
    let n = world.btrfs.top.len();
    let names = [format!("{HOME}/{n}/snapshot"), format!("pool/srv.{n}")];
    for (name, origin) in names.iter().zip(["/home-uuid", "/srv-uuid"]) {
        world.btrfs.another_tool_makes(name, origin);
        // Not always has something changed since the one before.
        if let Some(made) = world.btrfs.top.get_mut(name).filter(|_| n.is_multiple_of(4)) {
            made.changed = made.made_in;
        }
    }
}

fn tooled() -> World {
    let mut world = (SENT.world)();
    tool_makes(&mut world);
    world
}

const NEWEST: Scene = Scene { config: |state| existing(state, false), world: tooled, ..SENT };
const ALL: Scene = Scene { config: |state| existing(state, true), world: tooled, ..SENT };

/// Three runs, each after the program made a snapshot of each subvolume; and one more is there.
fn seed(scene: &Scene) -> Bench {
    let bench = Bench::of(scene);
    for _ in 0..3 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        tool_makes(&mut bench.host.world());
    }
    bench.host.arm(Fault::None);
    bench
}

#[test]
fn the_newest_snapshot_of_another_program_is_sent_once_and_nothing_of_it_is_touched() {
    let bench = seed(&NEWEST);
    let top = bench.host.world().btrfs.top.clone();
    assert_eq!(top.len(), 8);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let (copies, _) = there(&bench);
    assert_eq!(copies.len(), 4, "the policy keeps two of each");
    let report = bench.run();
    assert_eq!(report.outcome.word(), "skipped", "{report:#?}");
    assert_eq!(there(&bench).0, copies);
    assert_eq!(bench.host.world().btrfs.top, top);
    assert_eq!(bench.history.all_kept().unwrap(), []);
    assert_eq!(bench.host.world().btrfs.origins, [] as [String; 0], "it made none");
    // Each is a difference to the one before it.
    let pool = bench.host.world().pool.clone();
    assert!(pool.subvolumes.values().all(|copy| copy.parent.is_some()), "{pool:#?}");
}

#[test]
fn who_has_the_newest_snapshot_by_no_good_copy_is_not_all_well() {
    let lacking_a_part = |world: &mut World| {
        world.btrfs.nested.insert("/home".into(), vec!["/home/vm".into()]);
    };
    let empty = |world: &mut World| world.pool.holds_nothing = true;
    let whole = |world: &mut World| {
        world.btrfs.nested.clear();
        world.pool.holds_nothing = false;
    };
    type Spoil = fn(&mut World);
    let cases: [(Spoil, &str); 2] =
        [(lacking_a_part, "not in it: /home holds other subvolumes"), (empty, "nothing is in it")];
    for (spoil, what) in cases {
        let bench = Bench::of(&NEWEST);
        spoil(&mut bench.host.world());
        let report = bench.run();
        assert_eq!((&report.outcome, report.exit_code), (&Outcome::Incomplete, Some(13)), "{what}");
        // Whatever was wrong then is not any more; the copy is what it was.
        whole(&mut bench.host.world());
        for _ in 0..2 {
            let report = bench.run();
            let told = (&report.outcome, report.exit_code);
            assert_eq!(told, (&Outcome::Incomplete, Some(13)), "{report:#?}");
            let target = &report.jobs[0].targets[0];
            assert_eq!((&target.outcome, &target.copy), (&Outcome::Incomplete, &None));
            let step = report.jobs[0].steps.iter().find(|step| step.step == "backup").unwrap();
            assert!(step.detail.starts_with("up to date: "), "{}", step.detail);
            assert!(step.detail.contains(what), "{}", step.detail);
        }
        assert_eq!(there(&bench).0.len(), 2);
    }
}

#[test]
fn all_that_came_since_are_sent_in_their_order_and_what_was_pruned_is_not_sent_again() {
    let bench = seed(&ALL);
    for _ in 0..3 {
        tool_makes(&mut bench.host.world());
    }
    bench.host.world().effects.clear();
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let received = |bench: &Bench| {
        let world = bench.host.world();
        world.effects.iter().filter(|effect| effect.starts_with("btrfs receive")).count()
    };
    assert_eq!(received(&bench), 2 * 4);
    let known = bench.history.copies(&bench.config.targets[0].name).unwrap();
    let mut home: Vec<_> =
        known.iter().filter(|copy| copy.series.item.as_deref() == Some("/home")).collect();
    home.sort_by_key(|copy| copy.time);
    assert_eq!(home.len(), 2, "the policy keeps two");
    // Their times are those of the snapshots, however many were made in one second.
    let made = bench.host.world().btrfs.top[&format!("{HOME}/12/snapshot")].made;
    let late = home[1].time - made;
    assert!((0..=10).contains(&late.num_seconds()), "{late} after the snapshot");
    bench.host.world().effects.clear();
    assert_eq!(bench.run().outcome.word(), "skipped");
    assert_eq!(received(&bench), 0);
}

#[test]
fn one_that_was_changed_or_is_writable_is_neither_sent_nor_a_base() {
    let bench = seed(&NEWEST);
    for snapshot in bench.host.world().btrfs.top.values_mut() {
        snapshot.read_only = false;
    }
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(format!("{report:#?}").contains("written to since it was made"), "{report:#?}");
    for snapshot in bench.host.world().btrfs.top.values_mut() {
        snapshot.read_only = true;
        snapshot.changed = snapshot.made_in + 1;
    }
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(format!("{report:#?}").contains("written to since it was made"), "{report:#?}");
    tool_makes(&mut bench.host.world());
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert!(report.warnings.iter().any(|it| it.contains("all of it is sent")), "{report:#?}");
}

/// One that somebody else changed is not sent as what a run of ours has kept.
#[test]
fn a_kept_one_that_was_changed_is_not_sent() {
    let bench = Bench::of(&KEEPING);
    bench.run();
    for snapshot in bench.host.world().btrfs.top.values_mut() {
        snapshot.changed = snapshot.made_in + 1;
    }
    let copies = bench.host.world().copies().len();
    let report = run_part(&bench, Part::Transfer);
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert_eq!(bench.host.world().copies().len(), copies);
}

#[test]
fn a_snapshot_that_is_older_than_the_last_copy_is_not_sent() {
    let bench = seed(&NEWEST);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    // The program has deleted all but the first.
    bench.host.world().btrfs.top.retain(|name, _| name.contains("/0/") || name.ends_with(".0"));
    let report = bench.run();
    assert_eq!(report.outcome.word(), "skipped", "{report:#?}");
    assert!(format!("{report:#?}").contains("it has a newer one than all"), "{report:#?}");
    // On another file system generations begin anew, and times go on.
    for snapshot in bench.host.world().btrfs.top.values_mut() {
        (snapshot.changed, snapshot.made_in) = (1, 1);
        snapshot.uuid = snapshot.uuid.replace("0004", "0005");
        snapshot.made += chrono::TimeDelta::minutes(10);
    }
    assert_eq!(bench.run().outcome, Outcome::Ok);
}

#[test]
fn a_clock_that_was_wrong_when_a_snapshot_was_made_does_not_mix_up_the_order() {
    let bench = seed(&ALL);
    let now = stillpoint::host::Host::now(&bench.host);
    for snapshot in bench.host.world().btrfs.top.values_mut() {
        if snapshot.made_in > 16 {
            snapshot.made = now + chrono::TimeDelta::days(400);
        }
    }
    let mut times = Vec::new();
    for _ in 0..2 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        let target = &bench.config.targets[0].name;
        times.push(bench.history.copies(target).unwrap().iter().map(|copy| copy.time).max());
        // The clock was set right, and shows less than the one before. Something has changed since.
        let mut world = bench.host.world();
        let known = world.btrfs.top.clone();
        tool_makes(&mut world);
        let new = world.btrfs.top.iter_mut().filter(|(name, _)| !known.contains_key(*name));
        new.for_each(|(_, snapshot)| snapshot.changed = snapshot.made_in);
    }
    assert!(times[0] < times[1], "{times:?}");
    assert!(times[1] < Some(now + chrono::TimeDelta::minutes(10)), "{times:?}");
}

#[test]
fn snapshots_that_are_called_otherwise_are_named() {
    let mut bench = seed(&NEWEST);
    let Source::Subvolumes(source) = &mut bench.config.jobs[0].source else { panic!() };
    source.existing.as_mut().unwrap().called = vec!["/elsewhere/*".into()];
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed);
    let said = format!("{report:#?}");
    assert!(said.contains("called as `existing` says"), "{said}");
    assert!(said.contains("@home/.snapshots/6/snapshot"), "{said}");
}

#[test]
fn a_plan_changes_nothing_and_shows_what_would_be_sent() {
    let bench = seed(&ALL);
    tool_makes(&mut bench.host.world());
    let planned = bench.only_planned();
    let sent = planned.iter().filter(|it| it.contains("btrfs receive")).count();
    assert_eq!(sent, 4, "{planned:#?}");
}

/// Whatever happens in a run, the next ones send what is missing, nothing is left of parts, and nobody touches what the
/// program made.
fn whatever_happens(scene: &Scene) {
    let seed = seed(scene);
    tool_makes(&mut seed.host.world());
    let measured = seed.duplicate(scene);
    assert_eq!(measured.run().outcome, Outcome::Ok);
    let effects = measured.host.world().effects.clone();
    for (n, what) in effects.iter().enumerate() {
        loops::any_fault_at(
            || seed.duplicate(scene),
            n,
            what,
            Bench::run,
            |bench, _, report, after| {
                let is_told = report.is_none_or(|report| !report.troubles.is_empty());
                assert!(is_told, "{after} went unnoticed");
                let top = bench.host.world().btrfs.top.clone();
                assert_eq!(top, seed.host.world().btrfs.top, "{after}");
                tool_makes(&mut bench.host.world());
                bench.assert_mended(after);
                let world = bench.host.world();
                let left: Vec<_> = world.pool.nested();
                let is_incoming =
                    |path: &&std::path::PathBuf| path.to_str().unwrap().contains(".incoming.");
                assert_eq!(left.iter().filter(is_incoming).count(), 0, "{after}: {left:?}");
            },
        );
    }
}

#[test]
fn whatever_happens_when_the_newest_is_sent_the_next_run_is_good() {
    whatever_happens(&NEWEST);
}

#[test]
fn whatever_happens_when_all_are_sent_the_next_run_is_good() {
    whatever_happens(&ALL);
}

/// The same scene with snapshots that another program makes.
fn with_existing(scene: &Scene) -> Bench {
    let mut bench = Bench::of(scene);
    let Source::Subvolumes(source) = &mut bench.config.jobs[0].source else { panic!() };
    source.existing = Some(ExistingSnapshots {
        called: vec!["/home/.snapshots/*/snapshot".into(), "pool/srv.*".into()],
        all: true,
    });
    bench
}

#[test]
fn every_engine_tells_which_snapshots_it_has() {
    for scene in [&served::SENT, &stored_streams::STORED, &stored_streams::CHAINED] {
        let bench = with_existing(scene);
        for made in [1, 2] {
            for _ in 0..made {
                tool_makes(&mut bench.host.world());
            }
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
            let report = bench.run();
            assert_eq!(report.outcome.word(), "skipped", "{report:#?}");
        }
        let target = &bench.config.targets[0].name;
        assert!(bench.history.copies(target).unwrap().len() >= 4);
    }
}

#[test]
fn what_nobody_here_knows_is_sent() {
    let bench = seed(&NEWEST);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let target = &bench.config.targets[0].name;
    let known = bench.history.copies(target).unwrap();
    let newest: Vec<String> = known.iter().take(2).map(|copy| copy.id.clone()).collect();
    bench.history.forget_copies(target, &newest).unwrap();
    let report = bench.run();
    assert_eq!(
        report.outcome.word(),
        "ok",
        "it is in the target, and may be anybody's: {report:#?}"
    );
}

#[test]
fn what_a_job_cannot_do_apart_is_refused_where_it_is_named() {
    let files = crate::faults::config(Path::new("/state"));
    let sent = sending(Path::new("/state"), "pool", "btrfs.location = '/pool'");
    let others = existing(Path::new("/state"), false);
    let refused = |config: &Config, part| {
        let scope = Scope { part, ..Scope::default() };
        let name = config.jobs[0].name.clone();
        let named = jobs_to_run(config, &[name], scope).map(|jobs| jobs.len());
        let unnamed = jobs_to_run(config, &[], scope).map(|jobs| jobs.len());
        assert_eq!(named.is_ok(), unnamed.is_ok(), "nothing is left of one job");
        named.err().map(|error| error.message)
    };
    for part in [Part::Snapshots, Part::Transfer] {
        assert!(refused(&files, part).unwrap().contains("is of files"));
    }
    assert!(refused(&sent, Part::Snapshots).unwrap().contains("keep-snapshots"));
    assert!(refused(&others, Part::Snapshots).unwrap().contains("makes no snapshots"));
    let keeping = keeping(Path::new("/state"));
    for (config, part) in
        [(&keeping, Part::Snapshots), (&sent, Part::Transfer), (&others, Part::Transfer)]
    {
        assert_eq!(refused(config, part), None);
    }
    let mut both = files;
    both.jobs.extend(keeping.jobs);
    let scope = Scope { part: Part::Snapshots, ..Scope::default() };
    assert_eq!(jobs_to_run(&both, &[], scope).unwrap().len(), 1, "the others are left out");
}
