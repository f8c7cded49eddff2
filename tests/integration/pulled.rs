//! Subvolumes that are pulled from another machine, by the loops of [`crate::loops`]; and what goes wrong there, or on the
//! way.

use std::path::{Path, PathBuf};

use stillpoint::host::MountEntry;
use stillpoint::model::copy::{Copy, Series};
use stillpoint::model::job::{Config, Source};
use stillpoint::model::names::{HostName, JobName};
use stillpoint::model::outcome::Outcome;
use stillpoint::model::report::StepReport;
use stillpoint::model::target::{EngineConfig, RemoteSide};
use stillpoint::pipeline::query::pulled_from;
use stillpoint::pipeline::recover::{recover, recover_here};

use crate::captures::mount;
use crate::configured::configured;
use crate::faults::{Bench, LIVE, Scene};
use crate::loops;
use crate::served::{at_server, whatever_happens_to_the_server};
use crate::subvolumes::{differences, no_difference_is_made_to_what_is_changed_meanwhile};
use crate::support::fake_btrfs::{self, FakeBtrfs};
use crate::support::fake_host::{Fault, World};
use crate::support::fake_pool::LOCATION;
use crate::support::fake_pulled::SNAPSHOTS;
use crate::support::fake_server::FakeServer;
use crate::support::fake_store::FakeStore;

/// Two subvolumes of another machine, which come to a directory of this one.
const PULLED: Scene = Scene { config, world, kept: 4, ..LIVE };

fn config(state: &Path) -> Config {
    pulling(state, "")
}

/// The same in parts.
fn in_parts(state: &Path) -> Config {
    pulling(state, "btrfs.part-size = 1")
}

fn pulling(state: &Path, target: &str) -> Config {
    configured(&text(state, &format!("btrfs.location = \"{LOCATION}\"\n{target}")))
}

fn text(state: &Path, target: &str) -> String {
    format!(
        r#"
[settings]
host = "nas"
state-dir = "{}"
lock-wait = "0s"
[targets.pool]
keep.last = 2
{target}
[jobs.host]
targets = ["pool"]
[jobs.host.subvolumes]
host = "ssh://pull@web1"
snapshots = "{SNAPSHOTS}"
remote-sudo = true
paths = ["/home", "/srv"]
[jobs.host.hooks]
before = [["/hook", "stop"]]
finally = [["/hook", "start"]]
"#,
        state.display()
    )
}

fn world() -> World {
    let mut world = World::new();
    world.mounts = vec![
        mount((8, 1), "/", "ext4", "/dev/sda1"),
        mount((0, 50), LOCATION, "btrfs", "/dev/sdc"),
    ];
    world.pool.mark(Path::new(LOCATION), "0123456789abcdef");
    let mut there = World::new();
    for at in ["/home", "/srv"] {
        there.btrfs.subvolumes.insert(at.into(), format!("{at}-uuid"));
    }
    world.server = Some(Box::new(FakeServer::new(there)));
    world
}

/// How many snapshots are there.
fn kept(bench: &Bench) -> usize {
    at_server(bench, |server| server.world.btrfs.top.len())
}

#[test]
fn copies_are_those_of_the_machine_that_they_are_of_and_one_snapshot_stays() {
    let bench = Bench::with_history_of(&PULLED);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let copies = bench.host.world().copies();
    assert!(copies.iter().all(|copy| copy.starts_with("host@web1.")), "{copies:?}");
    assert_eq!((kept(&bench), differences(&bench)), (2, 2));
    assert!(bench.host.world().btrfs.top.is_empty(), "nothing is made on this machine");
    bench.assert_released("a run");
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&PULLED);
    for wanted in [
        "sudo -n btrfs subvolume snapshot -r -- /home /snaps/.stillpoint/.stillpoint.",
        "sudo -n btrfs subvolume delete -c -- /snaps/.stillpoint/.stillpoint.",
    ] {
        let is_it = |effect: &String| effect.starts_with("ssh ") && effect.contains(wanted);
        assert!(effects.iter().any(is_it), "{wanted}: {effects:#?}");
    }
    let (_, planned) = Bench::with_history_of(&PULLED).plan();
    let sent = "sudo -n btrfs send -q -p /snaps/.stillpoint/.stillpoint.";
    assert_eq!(planned.iter().filter(|line| line.contains(sent)).count(), 2, "{planned:#?}");
    loops::failing_any_effect(&PULLED);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&PULLED);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&PULLED);
}

#[test]
fn failing_any_effect_of_a_recovery_is_recovered_from() {
    loops::failing_any_effect_of_a_recovery(&PULLED);
}

#[test]
fn what_is_pulled_in_parts_goes_on_after_any_death() {
    loops::dying_at_any_effect(&Scene { config: in_parts, ..PULLED });
}

#[test]
fn whatever_happens_to_that_machine_the_next_run_is_whole_and_leaves_nothing_else() {
    whatever_happens_to_the_server(
        &PULLED,
        &["btrfs subvolume snapshot", "btrfs subvolume delete"],
    );
}

#[test]
fn a_snapshot_stays_in_the_ledger_as_long_as_its_machine_is_away() {
    let seed = Bench::with_history_of(&PULLED);
    let effects = loops::effects(&PULLED);
    let sends = effects.iter().position(|effect| effect.starts_with("btrfs receive")).unwrap();
    let bench = seed.duplicate(&PULLED);
    bench.host.arm(Fault::KillBefore(sends));
    assert!(loops::unless_we_die(|| bench.run()).is_none());
    assert_eq!(kept(&bench), 4);
    bench.host.arm(Fault::None);
    at_server(&bench, |server| server.is_away = true);
    let recovery = recover(bench.pipeline()).unwrap();
    assert_eq!(recovery.failures.len(), 2, "{recovery:#?}");
    let said = format!("{recovery:#?}");
    assert!(said.contains("pull@web1 is not reached by ssh"), "{said}");
    // It is asked once.
    assert_eq!(
        said.matches("did not answer before, so it was not asked again").count(),
        1,
        "{said}"
    );
    // Who only reads copies does not wait for it.
    assert_eq!(recover_here(bench.pipeline()).unwrap().failures, []);
    // Another file system is mounted where they are, or another subvolume of the same: they are not gone. Nor are they where
    // the directory is missing in that.
    let directory = PathBuf::from(SNAPSHOTS);
    for other in ["ab27ea8356ee50d1", "eb27ea8356ee50d3"] {
        for is_missing in [false, true] {
            at_server(&bench, |server| {
                (server.is_away, server.world.other_id) = (false, Some(other));
                if is_missing {
                    server.world.files.remove(&directory);
                }
            });
            let recovery = recover(bench.pipeline()).unwrap();
            assert_eq!(recovery.failures.len(), 2, "{recovery:#?}");
            let said = format!("{recovery:#?}");
            assert!(said.contains("another file system or subvolume"), "{said}");
            at_server(&bench, |server| server.world.files.insert(directory.clone(), Vec::new()));
        }
    }
    assert_eq!(kept(&bench), 4);
    at_server(&bench, |server| server.world.other_id = None);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    assert_eq!(kept(&bench), 2);
    bench.assert_released("the machine was back");
    bench.assert_mended("the machine was back");
}

#[test]
fn what_is_nobodys_of_ours_there_stays() {
    let bench = Bench::with_history_of(&PULLED);
    at_server(&bench, |server| {
        server.world.btrfs.somebody_elses("foreign", "/home-uuid");
        // And one that took the place of a kept one of ours.
        let taken = server.world.btrfs.top.keys().next().unwrap().clone();
        server.world.btrfs.somebody_elses(&taken, "/home-uuid");
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    bench.run();
    let names: Vec<String> =
        at_server(&bench, |server| server.world.btrfs.top.keys().cloned().collect());
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn what_was_begun_cannot_come_about_when_somebody_has_looked_for_it() {
    let seed = Bench::with_history_of(&PULLED);
    let effects = loops::effects(&PULLED);
    let makes = effects.iter().position(|effect| effect.contains("subvolume snapshot")).unwrap();
    for is_late in [false, true] {
        let bench = seed.duplicate(&PULLED);
        bench.host.arm(Fault::KillBefore(makes));
        assert!(loops::unless_we_die(|| bench.run()).is_none());
        bench.host.arm(Fault::None);
        // It is made while somebody removes the directory that it is to be in.
        at_server(&bench, |server| server.world.is_late = is_late);
        assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
        let left: Vec<PathBuf> =
            at_server(&bench, |server| server.world.files.keys().cloned().collect());
        assert_eq!((left.len(), kept(&bench)), (3, 2), "{left:?}");
        bench.assert_released("what was begun");
    }
}

#[test]
fn a_machine_that_is_reached_in_another_way_is_the_same() {
    let bench = Bench::with_history_of(&PULLED);
    let moved = |state: &Path| {
        let mut config = config(state);
        let Source::Subvolumes(source) = &mut config.jobs[0].source else {
            panic!("no subvolumes")
        };
        source.from.as_mut().unwrap().server.port = Some(2222);
        config
    };
    let moved = Scene { config: moved, ..PULLED };
    let bench = bench.duplicate(&moved);
    at_server(&bench, |server| server.only_port = Some("2222"));
    assert_eq!(differences(&bench), 2);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(kept(&bench), 2);
    bench.assert_released("the port changed");
}

/// The same scene, where the machine is reached by another port, or is another one.
fn moved_to(state: &Path, host: &str) -> Config {
    let mut config = config(state);
    let Source::Subvolumes(source) = &mut config.jobs[0].source else { panic!("no subvolumes") };
    let from = source.from.as_mut().unwrap();
    (from.host, from.server.port) = (HostName::new(host).unwrap(), Some(2222));
    config
}

#[test]
fn what_a_dead_run_left_is_reached_as_the_machine_is_reached_now_and_never_on_another_one() {
    let effects = loops::effects(&PULLED);
    let sends = effects.iter().position(|effect| effect.starts_with("btrfs receive")).unwrap();
    let bench = Bench::with_history_of(&PULLED);
    bench.host.arm(Fault::KillBefore(sends));
    assert!(loops::unless_we_die(|| bench.run()).is_none());
    bench.host.arm(Fault::None);
    let duplicate = |scene: &Scene| {
        let other = bench.duplicate(scene);
        let [from, to] =
            [&bench, &other].map(|bench| bench.pipeline().config.settings.state_dir.join("ledger"));
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        other
    };
    let config = |state: &Path| moved_to(state, "web2");
    let other = duplicate(&Scene { config, ..PULLED });
    at_server(&other, |server| server.only_port = Some("2222"));
    assert_eq!(recover(other.pipeline()).unwrap().failures.len(), 2);
    assert_eq!(kept(&other), 4);
    let ways = |bench: &Bench| -> Vec<Option<u16>> {
        let kept = bench.pipeline().history.unwrap().all_kept().unwrap();
        kept.iter().map(|kept| kept.kept.undo.far().unwrap().server.port).collect()
    };
    let copies = other.host.world().copies().len();
    let report = other.run();
    assert_eq!(report.jobs[0].outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(other.host.world().copies().len(), copies + 2);
    let ways = ways(&other);
    assert_eq!(ways.iter().filter(|port| port.is_none()).count(), 2, "{ways:?}");
    let config = |state: &Path| moved_to(state, "web1");
    let same = duplicate(&Scene { config, ..PULLED });
    at_server(&same, |server| server.only_port = Some("2222"));
    assert_eq!(recover(same.pipeline()).unwrap().failures, []);
    assert_eq!(kept(&same), 2);
}

#[test]
fn one_of_which_no_snapshot_can_be_made_keeps_no_other_from_its_turn() {
    let effects = loops::effects(&PULLED);
    let makes = |path: &str| {
        let wanted = format!("btrfs subvolume snapshot -r -- {path} ");
        effects.iter().position(|effect| effect.contains(&wanted)).unwrap()
    };
    for failing in ["/home", "/srv"] {
        let bench = Bench::with_history_of(&PULLED);
        let copies = bench.host.world().copies();
        bench.host.arm(Fault::Fail(makes(failing)));
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
        let made = bench.host.world().copies().into_iter().filter(|copy| !copies.contains(copy));
        assert_eq!(made.count(), 1, "{failing}");
        assert_eq!(kept(&bench), 2);
        bench.assert_released(failing);
    }
}

#[test]
fn equal_paths_of_two_machines_are_not_mixed_up_in_one_target() {
    let both = |state: &Path| {
        let own = "[jobs.own]\ntargets = [\"pool\"]\nsubvolumes.paths = [\"/home\"]\n";
        configured(&format!("{}{own}", text(state, &format!("btrfs.location = \"{LOCATION}\""))))
    };
    let with_own = || {
        let mut world = world();
        let own = mount((0, 40), "/home", "btrfs", fake_btrfs::DEVICE);
        world.mounts.push(MountEntry { root: "/@home".into(), ..own });
        world.btrfs.subvolumes.insert("/home".into(), "/home-here-uuid".into());
        world
    };
    let bench = Bench::of(&Scene { config: both, world: with_own, ..PULLED });
    for _ in 0..2 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    }
    let copies = bench.host.world().copies();
    let of = |series: &str| copies.iter().filter(|copy| copy.starts_with(series)).count();
    assert_eq!((of("host@web1."), of("own@nas."), copies.len()), (4, 2, 6), "{copies:?}");
    // Each goes on with its own.
    assert_eq!((kept(&bench), bench.host.world().btrfs.top.len()), (2, 1));
    let (_, planned) = bench.plan();
    let sent = |line: &&String| line.contains("btrfs send") && line.contains(" -p ");
    assert_eq!(planned.iter().filter(sent).count(), 3, "{planned:#?}");
}

#[test]
fn a_machine_that_was_installed_anew_is_no_trouble_for_ever() {
    let bench = Bench::with_history_of(&PULLED);
    at_server(&bench, |server| server.world.other_id = Some("ab27ea8356ee50d1"));
    for _ in 0..2 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    }
    assert_eq!(kept(&bench), 4, "what is on the old one is not touched");
}

#[test]
fn paths_of_another_machine_are_none_of_this_one() {
    let config = config(Path::new("/state"));
    let job = JobName::new("host").unwrap();
    let of = |host: &str, job: &str| {
        let series = Series {
            host: HostName::new(host).unwrap(),
            job: JobName::new(job).unwrap(),
            item: None,
        };
        Copy { series: Some(series), ..Copy::default() }
    };
    let other_job = JobName::new("other").unwrap();
    for (asked, copy, host) in [
        (&job, of("web1", "host"), Some("web1")),
        (&job, of("web1.example.org", "host"), Some("web1.example.org")),
        (&job, of("nas", "host"), None),
        (&job, Copy::default(), Some("web1")),
        (&other_job, of("web1", "host"), Some("web1")),
        (&other_job, of("web1", "other"), None),
    ] {
        let host = host.map(|host| HostName::new(host).unwrap());
        assert_eq!(pulled_from(&config, asked, &copy), host.as_ref(), "{copy:?}");
    }
}

#[test]
fn a_machine_that_takes_nobody_for_a_moment_is_asked_for_the_next_path() {
    let bench = Bench::with_history_of(&PULLED);
    at_server(&bench, |server| {
        server.requests.clear();
        // As sshd does when too many come at once.
        server.mute = Some(0);
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    let made = |item: &str| {
        let targets = report.jobs[0].targets.iter();
        targets.filter(|it| it.item.as_deref() == Some(item) && it.outcome == Outcome::Ok).count()
    };
    assert_eq!((made("/home"), made("/srv")), (0, 1), "{report:#?}");
    bench.assert_mended("it answers again");
}

#[test]
fn a_machine_that_hangs_is_waited_for_once() {
    let bench = Bench::with_history_of(&PULLED);
    at_server(&bench, |server| {
        server.requests.clear();
        server.is_away = true;
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    let of = |item: &str| {
        let mut steps = report.jobs[0].steps.iter();
        let is_it =
            |step: &&StepReport| step.step == "source" && step.item.as_deref() == Some(item);
        steps.find(is_it).unwrap().detail.clone()
    };
    assert!(of("/home").contains("pull@web1 is not reached by ssh"), "{}", of("/home"));
    let said = of("/srv");
    assert!(
        said.starts_with("pull@web1 did not answer before, so it was not asked again"),
        "{said}"
    );
    // The next job, and the next run, asks again.
    at_server(&bench, |server| server.is_away = false);
    bench.assert_mended("it answers again");
}

#[test]
fn a_machine_that_is_away_keeps_no_other_job_from_its_copy() {
    let both = |state: &Path| {
        let own = "[jobs.own]\ntargets = [\"pool\"]\nsubvolumes.paths = [\"/data\"]\n";
        configured(&format!("{}{own}", text(state, &format!("btrfs.location = \"{LOCATION}\""))))
    };
    let with_own = || {
        let mut world = world();
        let own = mount((0, 40), "/data", "btrfs", fake_btrfs::DEVICE);
        world.mounts.push(MountEntry { root: "/@data".into(), ..own });
        world.btrfs.subvolumes.insert("/data".into(), "/data-uuid".into());
        world
    };
    let scene = Scene { config: both, world: with_own, ..PULLED };
    let bench = Bench::of(&scene);
    bench.run();
    at_server(&bench, |server| server.is_away = true);
    let copies = bench.host.world().copies().len();
    let report = bench.run();
    let outcomes: Vec<Outcome> = report.jobs.iter().map(|job| job.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Ok], "{report:#?}");
    assert_eq!(bench.host.world().copies().len(), copies + 1);
    assert!(format!("{report:#?}").contains("pull@web1 is not reached by ssh"), "{report:#?}");
    assert_eq!(kept(&bench), 2, "what is on it stays as it is");
}

/// Copies go to Stillpoint on another machine and to stored streams; where btrfs-progs alone would receive them, links
/// in them would be followed.
#[test]
fn every_kind_of_target_takes_what_is_pulled() {
    let served = |state: &Path| configured(&text(state, "btrfs.location = 'ssh://root@web1/pool'"));
    let stored = |state: &Path| {
        let keeper = |verb| format!("streams.{verb}-command = ['keeper', '{verb}', '{{name}}']\n");
        let list = "streams.list-command = ['keeper', 'list']\n";
        let target = ["put", "get", "delete"].map(keeper).concat() + list;
        configured(&text(state, &target))
    };
    let configs: [fn(&Path) -> Config; 2] = [served, stored];
    let with_target = || {
        let mut world = world();
        let there = &mut world.server.as_mut().unwrap().world;
        there.mounts = vec![mount((0, 50), LOCATION, "btrfs", "/dev/sdc")];
        there.pool.mark(Path::new(LOCATION), "0123456789abcdef");
        world.store = FakeStore::made();
        world
    };
    for config in configs {
        let scene = Scene { config, world: with_target, ..PULLED };
        let bench = Bench::of(&scene);
        for copies in [2, 4] {
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
            assert_eq!(bench.host.world().copies().len(), copies);
            assert_eq!(kept(&bench), 2);
            bench.assert_released("a run");
        }
        let (_, planned) = bench.plan();
        let sent = |line: &&String| line.contains("btrfs send -q -p /snaps/.stillpoint/");
        assert_eq!(planned.iter().filter(sent).count(), 2, "{planned:#?}");
    }
    // The configuration refuses it; and so does whoever would receive it.
    let plain = |state: &Path| {
        let mut config = configured(&text(state, "btrfs.location = 'ssh://root@web1/pool'"));
        let EngineConfig::Btrfs(options) = &mut config.targets[0].engine else { panic!() };
        options.server.as_mut().unwrap().side = RemoteSide::BtrfsProgs { sudo: false };
        config
    };
    let bench = Bench::of(&Scene { config: plain, world: with_target, ..PULLED });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert!(format!("{report:#?}").contains("might follow links into other copies"), "{report:#?}");
    assert_eq!(bench.host.world().copies().len(), 0);
    bench.assert_released("a run");
}

#[test]
fn a_base_that_somebody_changes_while_it_is_sent_is_none() {
    let source: fn(&mut World) -> &mut FakeBtrfs =
        |world| &mut world.server.as_mut().unwrap().world.btrfs;
    no_difference_is_made_to_what_is_changed_meanwhile(&PULLED, source);
}
