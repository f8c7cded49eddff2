//! Subvolumes that are sent to another btrfs, by the loops of [`crate::loops`]: whatever happens, no copy is listed whose
//! data is on no disk, none is a difference to such a one, and one snapshot stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use stillpoint::engine::{BackupRequest, Input, SentFrom, Snapshot, StillSubvolume};
use stillpoint::host::{MountEntry, PrivateView};
use stillpoint::model::job::Config;
use stillpoint::model::keep::KeepPolicy;
use stillpoint::model::names::{JobName, RunId};
use stillpoint::model::outcome::Outcome;
use stillpoint::model::target::ReadData;
use stillpoint::model::undo::{Identity, Kept, SubvolumeSnapshot};

use crate::captures::mount;
use crate::configured::configured;
use crate::faults::{Bench, LIVE, Scene};
use crate::support::fake_btrfs::{self, FakeBtrfs};
use crate::support::fake_host::{Fault, World};
use crate::support::fake_pool::{FakePool, LOCATION};
use crate::support::fake_tree::FakeTree;
use crate::{loops, stored_streams};

/// Two subvolumes, sent to one directory.
pub const SENT: Scene = Scene { config, world, kept: 4, ..LIVE };

fn config(state: &Path) -> Config {
    sending(state, "pool", "keep.last = 2\nbtrfs.location = '/pool'")
}

/// A job that sends two subvolumes to one target, of which this is the table.
pub fn sending(state: &Path, target: &str, table: &str) -> Config {
    configured(&text(state, target, table))
}

/// The same as text.
pub fn text(state: &Path, target: &str, table: &str) -> String {
    format!(
        r#"
[settings]
state-dir = "{}"
lock-wait = "0s"
[targets.{target}]
{table}
[jobs.host]
targets = ["{target}"]
[jobs.host.subvolumes]
paths = ["/home", "/srv"]
[jobs.host.hooks]
before = [["/hook", "stop"]]
finally = [["/hook", "start"]]
"#,
        state.display()
    )
}

/// A mount of a subvolume.
fn mounted(device: (u32, u32), at: &str, root: &str) -> MountEntry {
    MountEntry { root: root.into(), ..mount(device, at, "btrfs", fake_btrfs::DEVICE) }
}

/// A machine with those two.
pub fn machine() -> World {
    let mut world = World::new();
    world.mounts = vec![
        mount((8, 1), "/", "ext4", "/dev/sda1"),
        mounted((0, 40), "/home", "/@home"),
        mounted((0, 41), "/srv", "/@srv"),
    ];
    for at in ["/home", "/srv"] {
        world.btrfs.subvolumes.insert(at.into(), format!("{at}-uuid"));
    }
    world
}

/// The same, and a target in the pool.
pub fn world() -> World {
    let mut world = machine();
    world.mounts.push(mount((0, 50), LOCATION, "btrfs", "/dev/sdc"));
    world.tree = FakeTree::mounted();
    world.pool.mark(Path::new(LOCATION), "0123456789abcdef");
    world
}

/// How many differences the next run would send.
pub fn differences(bench: &Bench) -> usize {
    let (_, planned) = bench.plan();
    planned.iter().filter(|line| line.contains("--known-as")).count()
}

#[test]
fn only_what_is_needed_stays() {
    let bench = Bench::with_history_of(&SENT);
    assert_eq!(bench.host.world().btrfs.top.len(), 2, "one of each");
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(bench.host.world().btrfs.top.len(), 2);
    bench.assert_released("a run");
}

#[test]
fn snapshots_stay_as_the_job_says() {
    let config = |state: &Path| {
        let mut config = config(state);
        config.jobs[0].keep_snapshots = Some(KeepPolicy { last: Some(3), ..KeepPolicy::default() });
        config
    };
    let bench = Bench::of(&Scene { config, ..SENT });
    for run in 1..=5 {
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
        assert_eq!(bench.host.world().btrfs.top.len(), 2 * run.min(3), "after run {run}");
        bench.assert_released("a run");
    }
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&SENT);
    for wanted in [
        "make the btrfs snapshot",
        "btrfs receive",
        "wait until the file system at /pool",
        "replace /pool/.stillpoint/copies/",
        "rename the subvolume",
        "delete the subvolume",
        "remove /pool/.stillpoint/copies/",
        "delete the btrfs snapshot",
    ] {
        assert!(effects.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
    loops::failing_any_effect(&SENT);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&SENT);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&SENT);
}

#[test]
fn failing_any_effect_of_a_recovery_is_recovered_from() {
    loops::failing_any_effect_of_a_recovery(&SENT);
}

/// What a check finds.
fn damage(bench: &Bench) -> Vec<String> {
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let context = bench.pipeline().engine_context();
    engine.check(context, ReadData::None, &mut |_| {}).unwrap().damage
}

/// What was received in part, or has not got its name yet.
fn incoming(bench: &Bench) -> Vec<PathBuf> {
    let mut found = bench.host.world().pool.nested();
    found.retain(|path| path.to_str().unwrap().contains(".incoming."));
    found
}

/// What a check finds, and what lies in the target that is neither a copy nor its record.
fn strays(bench: &Bench) -> Vec<String> {
    let mut strays = damage(bench);
    let world = bench.host.world();
    let copies: Vec<String> = world.pool.copies().collect();
    let is_copy = |path: &&PathBuf| copies.iter().any(|copy| path.ends_with(copy));
    let others = world.pool.nested();
    strays.extend(others.iter().filter(|path| !is_copy(path)).map(|path| format!("{path:?}")));
    let records = world.pool.names_in(&FakePool::own().join("copies"));
    let records = records.iter().map(|name| name.to_str().unwrap());
    let is_record = |name: &&str| copies.iter().any(|copy| *name == format!("{copy}.json"));
    strays.extend(records.filter(|name| !is_record(name)).map(str::to_owned));
    strays
}

#[test]
fn whatever_happens_a_check_finds_nothing_wrong_and_the_next_good_copy_leaves_nothing_else() {
    let seed = Bench::with_history_of(&SENT);
    for (n, what) in loops::effects(&SENT).iter().enumerate() {
        loops::any_fault_of_a_run_at(
            || seed.duplicate(&SENT),
            n,
            what,
            |bench, after| {
                assert_eq!(damage(bench), [] as [String; 0], "{after}");
                if after.starts_with("Fail") {
                    assert_eq!(incoming(bench), [] as [PathBuf; 0], "{after}");
                }
                bench.assert_mended(after);
                assert_eq!(strays(bench), [] as [String; 0], "{after}");
            },
        );
    }
}

#[test]
fn a_base_that_somebody_changed_is_none() {
    let meddled: [fn(&mut World); 2] = [
        |world| world.btrfs.top.values_mut().for_each(|snapshot| snapshot.changed += 1),
        |world| world.pool.subvolumes.values_mut().for_each(|copy| copy.changed += 1),
    ];
    for meddle in meddled {
        let bench = Bench::with_history_of(&SENT);
        assert_eq!(differences(&bench), 2);
        meddle(&mut bench.host.world());
        assert_eq!(differences(&bench), 0, "both must be sent as a whole");
    }
}

#[test]
fn a_snapshot_that_no_history_knows_is_a_base_which_stays_and_another_jobs_is_none() {
    let bench = Bench::with_history_of(&SENT);
    let mut kept = bench.history.kept(&bench.config.jobs[0].name).unwrap();
    for kept in &kept {
        bench.history.forget_kept(&kept.kept.undo).unwrap();
    }
    assert_eq!(differences(&bench), 2);
    for kept in &mut kept {
        kept.series.job = JobName::new("another").unwrap();
    }
    bench.history.record_kept(&kept).unwrap();
    assert_eq!(differences(&bench), 0, "it may go at any moment");
    for kept in &kept {
        bench.history.forget_kept(&kept.kept.undo).unwrap();
    }
    let there = bench.host.world().btrfs.top.clone();
    assert_eq!(bench.run().outcome, Outcome::Ok);
    let now = bench.host.world().btrfs.top.clone();
    assert!(there.keys().all(|name| now.contains_key(name)), "nobody has said that they may go");
    assert_eq!(now.len(), 4);
}

/// Runs where other copies claim to be those that are there; the differences are made to the genuine ones.
pub fn no_difference_is_made_to_what_is_forged(
    bench: &Bench,
    pool: fn(&mut World) -> &mut FakePool,
) {
    let there = || pool(&mut bench.host.world()).subvolumes.clone();
    let genuine: BTreeSet<String> = there().values().map(|copy| copy.uuid.clone()).collect();
    // As if they had been let in: they are found before the genuine ones.
    let forged = pool(&mut bench.host.world()).forge();
    bench.run();
    let now = there();
    let is_new = |uuid: &String| !genuine.contains(uuid) && !forged.contains(uuid);
    let new = now.values().filter(|copy| is_new(&copy.uuid));
    let bases: Vec<&String> = new.filter_map(|copy| copy.base.as_ref()).collect();
    assert_eq!(bases.len(), 2, "differences: {now:#?}");
    assert!(bases.iter().all(|base| genuine.contains(*base)), "{now:#?}");
}

#[test]
fn what_claims_to_be_a_copy_of_ours_is_no_base() {
    let bench = Bench::with_history_of(&SENT);
    no_difference_is_made_to_what_is_forged(&bench, |world| &mut world.pool);
}

/// Sends another snapshot as a copy whose name one that is there has, or one that somebody took away.
pub fn what_is_taken_is_not_written_over(bench: &Bench, pool: fn(&mut World) -> &mut FakePool) {
    let of = || pool(&mut bench.host.world()).clone();
    let target = &bench.config.targets[0];
    let copy = bench.history.copies(&target.name).unwrap().remove(0);
    let (uuid, generation) = bench.host.world().btrfs.somebody_elses("x", "/home-uuid");
    let still = StillSubvolume {
        snapshot: Snapshot { path: "/x".into(), uuid, generation },
        earlier: Vec::new(),
        ours: BTreeSet::new(),
        from: SentFrom::Here(PrivateView::default()),
    };
    let request = BackupRequest {
        series: copy.series.clone(),
        run: copy.run.clone(),
        machine: None,
        time: copy.time,
        input: Input::Subvolume(Box::new(still)),
    };
    for is_gone in [false, true] {
        if is_gone {
            pool(&mut bench.host.world()).subvolumes.remove(&Path::new(LOCATION).join(&copy.id));
        }
        let before = of();
        let pipeline = bench.pipeline();
        let sent = pipeline.engine(target).backup(pipeline.engine_context(), &request, &mut |_| {});
        let said = sent.unwrap_err().to_string();
        assert!(said.contains(&copy.id), "{said}");
        let now = of();
        assert_eq!(now.subvolumes, before.subvolumes);
        assert!(now.files().all(|file| now.file(file) == before.file(file)), "{said}");
        assert_eq!(now.files().count(), before.files().count());
    }
}

#[test]
fn a_name_that_is_taken_is_given_to_no_other_copy() {
    let bench = Bench::with_history_of(&SENT);
    what_is_taken_is_not_written_over(&bench, |world| &mut world.pool);
}

/// Runs where differences are made to something else than what they are to; all is sent, and no such difference stays.
pub fn all_is_sent_where_a_difference_is_to_something_else(
    bench: &Bench,
    pool: fn(&mut World) -> &mut FakePool,
) {
    pool(&mut bench.host.world()).is_mistaken = true;
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert!(format!("{report:#?}").contains("so all was sent"), "{report:#?}");
    let there = pool(&mut bench.host.world()).subvolumes.clone();
    assert_eq!(there.values().filter(|copy| copy.base.is_none()).count(), 2, "{there:#?}");
    assert!(there.values().all(|copy| copy.base.as_deref() != Some("another-uuid")));
}

#[test]
fn a_difference_to_something_else_is_no_copy_and_all_is_sent() {
    let bench = Bench::with_history_of(&SENT);
    all_is_sent_where_a_difference_is_to_something_else(&bench, |world| &mut world.pool);
    assert_eq!(strays(&bench), [] as [String; 0]);
}

/// Everything is sent where somebody changes what the differences are made to, after it was looked at.
pub fn no_difference_is_made_to_what_is_changed_meanwhile(
    scene: &Scene,
    source: fn(&mut World) -> &mut FakeBtrfs,
) {
    let bench = Bench::with_history_of(scene);
    source(&mut bench.host.world()).bases_change = true;
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    let told = format!("{report:#?}");
    assert_eq!(told.matches("so all was sent").count(), 2, "{told}");
    assert!(told.contains("somebody changed the snapshot"), "{told}");
    bench.assert_released("a run");
    // A difference to what was sent then is made again.
    source(&mut bench.host.world()).bases_change = false;
    assert_eq!(bench.run().outcome, Outcome::Ok);
}

#[test]
fn a_base_that_somebody_changes_while_it_is_sent_is_none() {
    no_difference_is_made_to_what_is_changed_meanwhile(&SENT, |world| &mut world.btrfs);
}

#[test]
fn a_disk_that_was_replaced_by_another_one_is_done_without() {
    let bench = Bench::with_history_of(&SENT);
    let mut lost = bench.history.kept(&bench.config.jobs[0].name).unwrap();
    for kept in &mut lost {
        let undo = SubvolumeSnapshot {
            file_system: Some("a lost one".into()),
            device: "/dev/lost".into(),
            mounted_at: kept.series.item.as_ref().unwrap().into(),
            name: ".stillpoint.0badc0de.0".into(),
            origin: "of the lost one".into(),
        };
        let identity = Identity::Subvolume { uuid: "lost".into() };
        kept.kept = Kept { undo: undo.into(), identity };
        kept.run = RunId::parse("0badc0de").unwrap();
    }
    lost.truncate(1);
    bench.history.record_kept(&lost).unwrap();
    for _ in 0..2 {
        let report = bench.run();
        assert_eq!((report.outcome, report.warnings), (Outcome::Ok, Vec::new()));
    }
}

#[test]
fn a_dry_run_foretells_that_what_a_dead_run_left_goes() {
    let bench = Bench::with_history_of(&SENT);
    let effects = loops::effects(&SENT);
    let named = effects.iter().position(|effect| effect.starts_with("rename the subvolume"));
    bench.host.arm(Fault::KillBefore(named.unwrap()));
    loops::die(&bench);
    bench.host.arm(Fault::None);
    assert_eq!(incoming(&bench).len(), 1);
    let (report, planned) = bench.plan();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let goes = |line: &&String| line.starts_with("delete the subvolume /pool/.incoming.");
    assert_eq!(planned.iter().filter(goes).count(), 1, "{planned:#?}");
    assert_eq!(incoming(&bench).len(), 1);
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_it_would_do() {
    let bench = Bench::with_history_of(&SENT);
    let planned = bench.only_planned();
    let sent: Vec<&String> = planned.iter().filter(|it| it.contains("btrfs receive")).collect();
    assert_eq!(sent.len(), 2, "{planned:#?}");
    assert!(sent.iter().all(|it| it.contains("--known-as")), "differences: {sent:#?}");
    assert!(sent.iter().all(|it| it.contains("--shared-as")), "nothing else is taken: {sent:#?}");
    let deleted = planned.iter().filter(|it| it.starts_with("delete the subvolume")).count();
    assert_eq!(deleted, 2, "the oldest of each: {planned:#?}");
}

#[test]
fn a_target_that_was_remounted_read_only_is_told_before_anything_is_sent() {
    for (scene, at) in [(&SENT, LOCATION), (&stored_streams::STORED, "/archive")] {
        let bench = Bench::with_history_of(scene);
        let mut world = bench.host.world();
        world.effects.clear();
        world.mounts.retain(|mount| mount.at != Path::new(at));
        let frozen = mount((0, 50), at, "btrfs", "/dev/sdc");
        world.mounts.push(MountEntry { super_options: "ro".into(), ..frozen });
        drop(world);
        let report = bench.run();
        assert_eq!(report.exit_code, Some(4), "{report:#?}");
        let backups = report.jobs[0].steps.iter().filter(|step| step.step == "backup");
        let told: Vec<&String> = backups.map(|step| &step.detail).collect();
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|it| it.contains("is mounted read-only")), "{told:?}");
        let effects = &bench.host.world().effects;
        let is_of_it = |effect: &String| effect.contains("receive") || effect.contains(at);
        assert!(!effects.iter().any(is_of_it), "{effects:#?}");
    }
}
