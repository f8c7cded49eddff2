//! A job whose files are held still by every provider there is, and one with many subvolumes of one btrfs, through
//! all the loops; and what a killed `lvcreate` leaves of LVM.

use std::path::Path;

use stillpoint::engine::Engines;
use stillpoint::host::MountEntry;
use stillpoint::model::job::Config;
use stillpoint::model::outcome::Outcome;
use stillpoint::model::target::Target;

use crate::configured::configured;
use crate::faults::{self, Bench, Scene};
use crate::loops;
use crate::support::fake_btrfs;
use crate::support::fake_engine::{FakeEngine, Notes};
use crate::support::fake_host::{Fault, World};
use crate::support::fake_lvm::{EXTENT, FakeLvm, Kind, MAJOR, Stage};

/// The hooks of a job whose writers stand still while its captures are made.
pub const QUIET: &str = "quiesce = [['/hook', 'pause']]\nresume = [['/hook', 'continue']]";

/// Every provider, twice the one with the most state, and writers that stand still meanwhile.
pub const HELD: Scene =
    Scene { config, world, tried_again: |effect| effect.starts_with("lvremove"), ..faults::LIVE };

fn config(state: &Path) -> Config {
    let files = r#"
[jobs.host.files]
paths = ["/boot", "/home", "/opt", "/srv", "/var"]
one-file-system = true
capture = "required"
consistent = true
freeze-units = ["app.service"]
lvm-classic.size = "20%"
remount-readonly.paths = ["/boot"]
"#;
    configured(&faults::text(state, files, QUIET))
}

/// Several subvolumes of one btrfs, which are promised, looked at and released together.
pub const SUBVOLUMES: Scene =
    Scene { config: subvolumes_config, world: subvolumes_world, ..faults::LIVE };

fn subvolumes_config(state: &Path) -> Config {
    let files = r#"
[jobs.host.files]
paths = ["/home", "/srv", "/var"]
one-file-system = true
capture = "required"
"#;
    configured(&faults::text(state, files, ""))
}

fn subvolumes_world() -> World {
    let mut world = World::new();
    world.mounts = vec![mount((8, 1), "/", "ext4", "/dev/sda1")];
    for (number, at) in ["/home", "/srv", "/var"].into_iter().enumerate() {
        world.btrfs.subvolumes.insert(at.into(), format!("{at}-uuid"));
        let device = (0, 40 + u32::try_from(number).unwrap());
        let btrfs = mount(device, at, "btrfs", fake_btrfs::DEVICE);
        world.mounts.push(MountEntry { root: format!("/@{number}").into(), ..btrfs });
    }
    world
}

/// `/boot` on a partition, `/home` on btrfs, `/srv` and `/opt` on thin volumes of one pool, `/var` on a
/// linear volume.
pub fn world() -> World {
    let mut world = World::new();
    let mut lvm = FakeLvm::new(50 * EXTENT);
    let srv = lvm.add("srv", Kind::Thin(1), "Vwi-aotz--", 20 * EXTENT);
    let opt = lvm.add("opt", Kind::Thin(4), "Vwi-aotz--", 10 * EXTENT);
    let var = lvm.add("var", Kind::Linear, "owi-aos---", 40 * EXTENT);
    world.lvm = lvm;
    world.btrfs.subvolumes.insert("/home".into(), "home-uuid".into());
    world.mounts = vec![
        mount((8, 1), "/", "ext4", "/dev/sda1"),
        mount((0, 5), "/proc", "proc", "proc"),
        mount((0, 26), "/sys/fs/cgroup", "cgroup2", "cgroup2"),
        mount((8, 2), "/boot", "ext4", "/dev/sda2"),
        MountEntry {
            root: "/@home".into(),
            ..mount((0, 40), "/home", "btrfs", fake_btrfs::DEVICE)
        },
        mount((MAJOR, srv), "/srv", "xfs", "/dev/mapper/vg-srv"),
        mount((MAJOR, opt), "/opt", "ext4", "/dev/mapper/vg-opt"),
        mount((MAJOR, var), "/var", "ext4", "/dev/mapper/vg-var"),
    ];
    world
}

pub fn mount(device: (u32, u32), at: &str, file_system: &str, source: &str) -> MountEntry {
    MountEntry {
        id: 1,
        device,
        root: "/".into(),
        at: at.into(),
        options: "rw,relatime".into(),
        file_system: file_system.into(),
        source: source.into(),
        super_options: "rw".into(),
    }
}

#[test]
fn every_step_of_a_capture_is_an_effect_of_the_loops() {
    let effects = loops::effects(&HELD);
    for wanted in [
        "/hook pause",
        "guard",
        "freeze /sys/fs/cgroup/system.slice/app.service",
        "make the btrfs snapshot",
        "lvcreate --yes --snapshot --setactivationskip y --ignoreactivationskip --activate y --addtag stillpoint",
        "make the file system at /boot read-only",
        "thaw /sys/fs/cgroup/system.slice/app.service",
        "/hook continue",
        "borg",
        "make the file system at /boot writable again",
        "lvremove",
        "delete the btrfs snapshot",
        "wait until what was deleted from the btrfs on",
    ] {
        assert!(effects.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
}

#[test]
fn subvolumes_are_released_with_one_wait_for_their_disk() {
    let effects = loops::effects(&SUBVOLUMES);
    let deletes = |effect: &&String| effect.starts_with("delete the btrfs snapshot");
    assert_eq!(effects.iter().filter(deletes).count(), 3, "{effects:#?}");
    let waits =
        |effect: &String| effect.starts_with("wait until what was deleted from the btrfs on");
    assert_eq!(effects.iter().filter(|effect| waits(effect)).count(), 1, "{effects:#?}");
    let last = effects.iter().rposition(|effect| deletes(&effect)).unwrap();
    assert!(waits(&effects[last + 1]), "{effects:#?}");
}

#[test]
fn subvolumes_go_through_all_the_loops() {
    loops::failing_any_effect(&SUBVOLUMES);
    loops::dying_at_any_effect(&SUBVOLUMES);
    loops::cutting_the_ledger(&SUBVOLUMES);
    loops::a_signal_at_any_effect(&SUBVOLUMES);
    loops::failing_any_effect_of_a_recovery(&SUBVOLUMES);
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    loops::failing_any_effect(&HELD);
}

#[test]
fn dying_at_any_effect_is_recovered_from() {
    loops::dying_at_any_effect(&HELD);
}

#[test]
fn a_ledger_cut_off_after_any_line_is_recovered_from() {
    loops::cutting_the_ledger(&HELD);
}

#[test]
fn a_signal_at_any_effect_unwinds() {
    loops::a_signal_at_any_effect(&HELD);
}

#[test]
fn failing_any_effect_of_a_recovery_is_recovered_from() {
    loops::failing_any_effect_of_a_recovery(&HELD);
}

#[test]
fn failing_any_effect_of_giving_up_hooks_is_recovered_from() {
    loops::failing_any_effect_of_giving_up_hooks(&HELD);
}

#[test]
fn what_a_killed_lvcreate_leaves_is_healed() {
    let seed = Bench::with_history_of(&HELD);
    let effects = loops::effects(&HELD);
    let made: Vec<usize> =
        (0..effects.len()).filter(|n| effects[*n].starts_with("lvcreate")).collect();
    assert_eq!(made.len(), 3, "{effects:#?}");
    for n in made {
        for stage in [Stage::BeforeMessages, Stage::BetweenMessages, Stage::BeforeResume] {
            for fault in [Fault::CutInside(n, stage), Fault::KillInside(n, stage)] {
                loops::dying(&seed, &HELD, fault, &effects[n]);
            }
        }
    }
}

/// A target that is read or written by an engine which only takes notes.
pub fn target(name: &str, from: Option<&str>) -> Target {
    let table = |name: &str, more: &str| {
        format!(
            "[targets.{name}.restic]\nrepository = '/{name}'\npassword-file = '/pass'\n{more}\n"
        )
    };
    let text = match from {
        Some(from) => table(name, &format!("copy-from = '{from}'")) + &table(from, ""),
        None => table(name, ""),
    };
    configured(&text).targets.remove(0)
}

#[test]
fn one_capture_feeds_all_targets_and_goes_before_copies_are_copied() {
    let mut bench = Bench::of(&HELD);
    // The copied one is named first, and filled last all the same.
    bench.config.targets =
        vec![target("away", Some("one")), target("one", None), target("two", None)];
    let notes: Notes = Notes::default();
    let job = &mut bench.config.jobs[0];
    job.targets = bench.config.targets.iter().map(|target| target.name.clone()).collect();
    bench.engines = Engines::new();
    for target in &bench.config.targets {
        let engine = FakeEngine::new(target, bench.host.clone(), notes.clone());
        bench.engines.insert(target.name.clone(), Box::new(engine));
    }
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(
        *notes.lock().unwrap(),
        [
            "backup to one, 5 held",
            "backup to two, 5 held",
            "list one, 0 held",
            "list two, 0 held",
            "list away, 0 held",
            "copy from one to away, 0 held",
            "list one, 0 held",
            "list away, 0 held",
        ]
    );
    let made = |effect: &&String| effect.starts_with("lvcreate");
    assert_eq!(bench.host.world().effects.iter().filter(made).count(), 3, "one capture for all");
}
