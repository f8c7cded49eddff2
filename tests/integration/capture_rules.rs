//! What a capture that cannot be made, did not last, lacks something or is no longer ours means for the job.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stillpoint::host::PrivateMount;
use stillpoint::model::job::{CaptureMode, FilesSource, Source};
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::report::{JobReport, RunReport, StepReport};
use stillpoint::pipeline::recover::recover;

use crate::captures::{HELD, mount};
use crate::configured::configured;
use crate::faults::Bench;
use crate::loops;
use crate::support::fake_btrfs::Snapshot;
use crate::support::fake_host::{Fault, World};
use crate::support::fake_lvm::{EXTENT, Kind, MAJOR, Stage};

/// The machine of [`HELD`] after three good runs, with something changed.
fn bench(change: impl FnOnce(&mut World, &mut FilesSource)) -> Bench {
    let mut bench = Bench::with_history_of(&HELD);
    let Source::Files(files) = &mut bench.config.jobs[0].source else { panic!("files") };
    change(&mut bench.host.world(), files);
    bench
}

/// A files job on its own, from its table.
fn only(table: &str) -> FilesSource {
    let target = "[targets.usb.borg]\nrepository = '/repo'\nencryption = 'none'";
    let job = format!("[jobs.host]\ntargets = ['usb']\n[jobs.host.files]\n{table}");
    let Source::Files(files) = configured(&format!("{target}\n{job}")).jobs.remove(0).source else {
        panic!("files")
    };
    files
}

fn archives(bench: &Bench) -> BTreeSet<String> {
    bench.host.world().borg.archives.keys().cloned().collect()
}

fn effects(bench: &Bench, word: &str) -> Vec<String> {
    let world = bench.host.world();
    world.effects.iter().filter(|effect| effect.contains(word)).cloned().collect()
}

fn job(report: &RunReport) -> &JobReport {
    &report.jobs[0]
}

/// The last step of that name: `finally` hooks are promised before captures are.
fn step<'r>(report: &'r RunReport, name: &str) -> &'r StepReport {
    let found = job(report).steps.iter().rfind(|step| step.step == name);
    found.unwrap_or_else(|| panic!("no step {name}: {report:#?}"))
}

/// Where borg saw a capture.
fn captured_places(bench: &Bench) -> Vec<PathBuf> {
    let world = bench.host.world();
    let devices = world.seen.iter().filter(|mount| matches!(mount, PrivateMount::Device { .. }));
    devices.map(|mount| mount.at().to_owned()).collect()
}

#[test]
fn engines_see_every_capture_at_its_place_and_nobody_waits() {
    let bench = bench(|_, _| ());
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(captured_places(&bench), ["/home", "/opt", "/srv", "/var"].map(PathBuf::from));
    let live = PrivateMount::Bind {
        from: "/var/cache/stillpoint".into(),
        at: "/var/cache/stillpoint".into(),
        read_only: false,
    };
    assert!(bench.host.world().seen.contains(&live), "{:?}", bench.host.world().seen);
    assert_eq!(bench.host.world().waited, Duration::ZERO, "nothing had to be waited for");
    let providers: Vec<&str> = job(&report).captures.iter().map(|volume| volume.provider).collect();
    assert_eq!(providers, ["remount-readonly", "btrfs", "lvm-thin", "lvm-thin", "lvm-classic"]);
    assert!(job(&report).captures.iter().all(|volume| volume.consistency == "consistent"));
}

#[test]
fn writers_stand_still_exactly_while_captures_are_made() {
    let bench = bench(|_, _| ());
    bench.run();
    let words = |effect: &String| -> Option<&'static str> {
        [
            "/hook pause",
            "freeze",
            "make the btrfs snapshot",
            "lvcreate",
            "read-only",
            "thaw",
            "/hook continue",
            "create --",
            "writable again",
            "delete the btrfs snapshot",
            "lvremove",
            "borg delete",
        ]
        .into_iter()
        .find(|word| effect.contains(word))
    };
    let done: Vec<_> = bench.host.world().effects.iter().filter_map(words).collect();
    assert_eq!(
        done,
        [
            "read-only",
            "/hook pause",
            "freeze",
            "make the btrfs snapshot",
            "lvcreate",
            "lvcreate",
            "lvcreate",
            "thaw",
            "/hook continue",
            "create --",
            "lvremove",
            "lvremove",
            "lvremove",
            "delete the btrfs snapshot",
            "writable again",
        ],
        "{:#?}",
        bench.host.world().effects
    );
}

#[test]
fn a_capture_that_fails_fails_the_job_before_anything_is_read() {
    let all = loops::effects(&HELD);
    let makes = |effect: &String| {
        ["make the btrfs snapshot", "lvcreate", "read-only"]
            .iter()
            .any(|word| effect.contains(word))
    };
    let making: Vec<usize> = (0..all.len()).filter(|n| makes(&all[*n])).collect();
    assert_eq!(making.len(), 5);
    for n in making {
        let bench = bench(|_, _| ());
        let before = archives(&bench);
        bench.host.arm(Fault::Fail(n));
        let report = bench.run();
        let after = format!("{}: {report:#?}", all[n]);
        assert_eq!(report.outcome, Outcome::Failed, "{after}");
        assert_eq!(report.troubles, [Trouble::JobFailed], "{after}");
        assert_eq!(archives(&bench), before, "{after}");
        assert_eq!(effects(&bench, "borg"), Vec::<String>::new(), "{after}");
        // In this very run, without any help.
        bench.assert_released(&after);
        assert_eq!(job(&report).targets[0].outcome, Outcome::Failed, "{after}");
        assert_eq!(job(&report).targets[0].copy, None, "{after}");
    }
}

#[test]
fn a_copy_from_a_snapshot_that_overflowed_never_counts() {
    let bench = bench(|world, _| world.while_reading = Some(|world| world.lvm.overflow()));
    let before = archives(&bench);
    let report = bench.run();
    // borg saw nothing wrong.
    let bad: BTreeSet<String> = archives(&bench).difference(&before).cloned().collect();
    assert_eq!(bad.len(), 1, "{report:#?}");
    assert!(archives(&bench).is_superset(&before), "nothing is deleted after a bad copy");
    assert_eq!(
        (report.outcome.clone(), &*report.troubles),
        (Outcome::Failed, &[Trouble::JobFailed][..])
    );
    assert!(step(&report, "backup").detail.contains("overflowed"), "{report:#?}");
    assert_eq!(job(&report).targets[0].outcome, Outcome::Failed);
    bench.assert_released("an overflow");

    // Two good copies are kept beside it, and it is not one of them.
    bench.host.world().while_reading = None;
    let good = before.last().unwrap().clone();
    bench.assert_mended("an overflow");
    let kept = archives(&bench);
    assert!(kept.contains(&good), "a good copy went for a bad one: {kept:?}");
    assert!(kept.is_disjoint(&bad), "{kept:?}");
}

#[test]
fn reading_stops_when_a_snapshot_overflows_or_its_pool_runs_full() {
    type Danger = fn(&mut World);
    let dangers: [(Danger, &str); 3] = [
        (|world| world.lvm.overflow(), "overflowed"),
        (|world| world.lvm.pool_data = 960, "running full (data 96.00 %"),
        (|world| world.lvm.pool_metadata = 910, "running full (data 40.00 %, metadata 91.00 %"),
    ];
    for (danger, word) in dangers {
        let bench = bench(|world, _| {
            world.while_reading = Some(danger);
            world.reads_forever = true;
        });
        let before = archives(&bench);
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
        assert!(step(&report, "backup").detail.contains(word), "{report:#?}");
        assert_eq!(archives(&bench), before);
        bench.assert_released(word);
    }
}

#[test]
fn what_does_not_stay_read_only_fails_the_job() {
    let bench = bench(|world, _| {
        world.while_reading = Some(|world| {
            let boot = world.mounts.iter_mut().find(|mount| mount.at == Path::new("/boot"));
            boot.unwrap().super_options = "rw".into();
        });
    });
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::JobFailed], "{report:#?}");
    assert!(step(&report, "backup").detail.contains("/boot did not stay read-only"));
}

#[test]
fn a_pool_that_is_too_full_is_left_alone_when_a_capture_is_required() {
    for (data, metadata) in [(851, 100), (400, 751)] {
        let bench = bench(|world, _| {
            (world.lvm.pool_data, world.lvm.pool_metadata) = (data, metadata);
        });
        let before = archives(&bench);
        let report = bench.run();
        assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
        assert_eq!(report.troubles, [Trouble::Environment], "{report:#?}");
        assert!(step(&report, "intend").detail.contains("too full for a snapshot"));
        for word in ["lvcreate", "snapshot", "read-only", "pause", "freeze", "borg"] {
            assert_eq!(effects(&bench, word), Vec::<String>::new(), "nothing was begun");
        }
        assert_eq!(archives(&bench), before);
        bench.assert_released("a full pool");
    }
}

#[test]
fn a_pool_that_is_too_full_is_read_live_when_that_is_allowed() {
    let bench = bench(|world, files| {
        world.lvm.pool_data = 900;
        files.capture.mode = CaptureMode::Auto;
        files.capture.consistent = false;
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert_eq!(report.troubles, [Trouble::Warning], "{report:#?}");
    let detail = &step(&report, "intend").detail;
    for path in ["/srv is read live", "/opt is read live"] {
        assert!(detail.contains(path), "{detail}");
    }
    // The others are captured all the same, and nothing is for these two.
    assert_eq!(captured_places(&bench), ["/home", "/var"].map(PathBuf::from));
    assert_eq!(effects(&bench, "lvcreate").len(), 1);
    assert!(effects(&bench, "lvcreate")[0].ends_with("vg/var"));
    let live: Vec<_> =
        job(&report).captures.iter().filter(|volume| volume.consistency == "live").collect();
    assert_eq!(live.len(), 2, "{live:?}");
    assert!(live.iter().all(|volume| volume.provider == "none" && volume.reason.is_some()));
    bench.assert_released("a full pool");
}

#[test]
fn one_moment_of_all_volumes_cannot_be_had_where_one_has_none() {
    let bench = bench(|world, files| {
        world.lvm.pool_data = 900;
        files.capture.mode = CaptureMode::Auto;
    });
    assert_eq!(bench.run().troubles, [Trouble::Environment]);
}

#[test]
fn room_in_a_group_is_counted_for_all_snapshots_that_a_run_makes_in_it() {
    // A snapshot of /var takes 8 extents of the 50, one of /big takes 44.
    let bench = bench(|world, files| {
        let minor = world.lvm.add("big", Kind::Linear, "owi-aos---", 220 * EXTENT);
        world.mounts.push(mount((MAJOR, minor), "/big", "ext4", "/dev/mapper/vg-big"));
        files.paths.push("/big".into());
    });
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Environment], "{report:#?}");
    assert!(step(&report, "intend").detail.contains("the volume group vg has"), "{report:#?}");
    assert_eq!(effects(&bench, "lvcreate"), Vec::<String>::new());
}

/// The machine of [`HELD`] on which somebody writes to `/boot` when it is to be made read-only.
fn busy(mode: CaptureMode) -> Bench {
    bench(|world, files| {
        world.busy.insert("/boot".into());
        files.capture.mode = mode;
        files.capture.consistent = false;
    })
}

/// The locks of captures that the run asked for, in order.
fn capture_locks(bench: &Bench) -> Vec<String> {
    let world = bench.host.world();
    let names = world.asked.iter().filter_map(|path| path.file_name()?.to_str());
    names.filter(|name| name.starts_with("capture-")).map(str::to_owned).collect()
}

#[test]
fn who_waits_for_a_read_only_file_system_keeps_nobody_from_a_volume_group() {
    let (boot, group) = ("capture-remount-8-2.lock", "capture-lvm-vg.lock");
    // Taken in the order in which release takes them: the group's while the other is held.
    let free = bench(|_, _| ());
    assert_eq!(free.run().outcome, Outcome::Ok);
    assert_eq!(capture_locks(&free), [boot, group, group, group, group]);

    let bench = bench(|_, _| ());
    let held = Path::new("/run/stillpoint/locks").join(boot);
    bench.host.world().locks.insert(held);
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Busy], "{report:#?}");
    assert_eq!(capture_locks(&bench), [boot]);
}

#[test]
fn a_file_system_that_is_in_use_is_read_live_when_that_is_allowed() {
    let bench = busy(CaptureMode::Auto);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert_eq!(report.troubles, [Trouble::Warning], "{report:#?}");
    let detail = &step(&report, "read-only").detail;
    assert!(detail.starts_with("/boot is read live: "), "{detail}");
    assert!(detail.contains("fuser -vm /boot"), "{detail}");
    assert_eq!(captured_places(&bench), ["/home", "/opt", "/srv", "/var"].map(PathBuf::from));
    let boot = &job(&report).captures[0];
    assert_eq!((boot.provider, boot.consistency), ("none", "live"));
    assert!(boot.reason.is_some());
    assert_eq!(archives(&bench).len(), 2, "the policy keeps two, the new one among them");
    bench.assert_released("a file system in use");
}

#[test]
fn a_file_system_that_is_in_use_fails_the_job_when_a_capture_is_required() {
    let bench = busy(CaptureMode::Required);
    let before = archives(&bench);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert!(step(&report, "read-only").detail.contains("/boot cannot be made read-only"));
    assert_eq!(archives(&bench), before);
    bench.assert_released("a file system in use");
}

#[test]
fn passing_over_a_file_system_in_use_joins_the_loops() {
    let bench = busy(CaptureMode::Auto);
    bench.run();
    let effects = bench.host.world().effects.clone();
    let released = "make the file system at /boot writable again";
    let n = effects.iter().position(|effect| effect.starts_with(released)).expect(released);
    for n in [n, n + 1] {
        loops::any_fault_of_a_run_at(
            || busy(CaptureMode::Auto),
            n,
            &effects[n],
            |bench, after| {
                bench.assert_mended(after);
            },
        );
    }
}

/// Something of every kind below the paths that no snapshot holds.
fn nest(world: &mut World) {
    let minor = world.lvm.add("extra", Kind::Thin(9), "Vwi-aotz--", EXTENT);
    world.mounts.push(mount((MAJOR, minor), "/srv/extra", "ext4", "/dev/mapper/vg-extra"));
    world.btrfs.subvolumes.insert("/home/sub".into(), "sub-uuid".into());
    world.btrfs.nested.insert("/home".into(), vec!["/home/sub".into()]);
    world.swap_files.push("/var/swapfile".into());
}

#[test]
fn only_what_would_help_is_advised_where_a_capture_is_required() {
    let told = |change: fn(&mut World)| {
        let bench = bench(|world, files| {
            files.paths.push("/data".into());
            change(world);
        });
        let report = bench.run();
        assert_eq!(report.troubles, [Trouble::Environment], "{report:#?}");
        step(&report, "survey").detail.clone()
    };
    let plain = |world: &mut World| world.mounts.push(mount((8, 3), "/data", "ext4", "/dev/sda3"));
    let swap = |world: &mut World| {
        // On the root file system, which is another btrfs here.
        world.mounts[0].file_system = "btrfs".into();
        world.btrfs.subvolumes.insert("/".into(), "root-uuid".into());
        world.swap_files.push("/swapfile".into());
    };
    let share = |world: &mut World| {
        let mut share = mount((0, 50), "/data", "nfs4", "nas:/data");
        share.super_options = "ro,vers=4.2".into();
        world.mounts.push(share);
    };
    let remount = "or make /data read-only under remount-readonly";
    let swapoff = r#"before = [["swapoff", "/swapfile"]], finally = [["swapon", "/swapfile"]]"#;
    let said = told(plain);
    assert!(said.contains(remount) && !said.contains("swapoff"), "{said}");
    let said = told(swap);
    assert!(said.contains(swapoff) && said.contains("subvolume of its own"), "{said}");
    assert!(!said.contains("remount-readonly"), "btrfs is not remounted: {said}");
    assert!(said.ends_with("name what may be read live under live"), "{said}");
    let said = told(share);
    assert!(said.contains("nothing here can hold /data still"), "{said}");
    assert!(!said.contains("remount-readonly"), "a server writes to it: {said}");
}

#[test]
fn what_a_server_may_change_is_read_live_however_it_is_mounted() {
    for (super_options, remounted) in [("ro", false), ("rw", true)] {
        let bench = bench(|world, files| {
            let mut share = mount((0, 50), "/data", "nfs4", "nas:/data");
            share.super_options = super_options.into();
            world.mounts.push(share);
            files.paths.push("/data".into());
            files.capture.mode = CaptureMode::Auto;
            files.capture.consistent = false;
            if remounted {
                files.capture.remount_readonly.push("/data".into());
            }
        });
        let report = bench.run();
        let share = job(&report).captures.iter().find(|volume| volume.path == Path::new("/data"));
        let share = share.unwrap_or_else(|| panic!("{report:#?}"));
        assert_eq!((share.provider, share.consistency), ("none", "live"), "{share:?}");
        let reason = share.reason.as_deref().unwrap_or_default();
        assert!(reason.contains("(nfs4 on nas:/data) may change it"), "{reason}");
        assert_eq!(effects(&bench, "at /data read-only"), Vec::<String>::new());
    }
}

#[test]
fn what_captures_do_not_hold_makes_the_copy_incomplete() {
    let bench = bench(|world, _| nest(world));
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Incomplete, "{report:#?}");
    assert!(report.troubles.iter().all(|trouble| *trouble == Trouble::Incomplete), "{report:#?}");
    for name in ["survey", "backup"] {
        let detail = &step(&report, name).detail;
        for absent in
            ["/srv/extra (ext4 file system)", "/home/sub (subvolume)", "/var/swapfile (swap file)"]
        {
            assert!(detail.contains(absent), "{name}: {detail}");
        }
    }
    assert_eq!(archives(&bench).len(), 3, "retention waits");
    bench.assert_released("an incomplete copy");
}

#[test]
fn what_is_nested_and_not_read_makes_a_live_copy_incomplete_too() {
    let bench = bench(|world, files| {
        nest(world);
        *files = only("paths = ['/srv']\none-file-system = true\nlive = ['/srv']");
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Incomplete, "{report:#?}");
    assert_eq!(captured_places(&bench), Vec::<PathBuf>::new());
    let detail = &step(&report, "backup").detail;
    assert!(detail.contains("/srv/extra (ext4 file system) is not in the copy"), "{detail}");
}

#[test]
fn what_is_live_and_kept_from_the_engine_must_be_named_in_paths_as_well() {
    let live = |paths: &[&str]| {
        let bench = bench(|world, files| {
            nest(world);
            files.capture.live = ["/srv/extra", "/home/sub"].map(PathBuf::from).into();
            files.capture.leave_out = vec!["/var/swapfile".into()];
            files.paths.extend(paths.iter().map(PathBuf::from));
        });
        bench.run()
    };
    let report = live(&[]);
    assert_eq!(report.outcome, Outcome::Incomplete, "{report:#?}");
    let detail = &step(&report, "backup").detail;
    for absent in ["/srv/extra (ext4 file system)", "/home/sub (subvolume)"] {
        let told = format!(
            "{absent} is not in the copy — it is named in live, but one-file-system keeps the engine out of it: add it to paths as well"
        );
        assert!(detail.contains(&told), "{detail}");
    }
    assert_eq!(live(&["/srv/extra", "/home/sub"]).outcome, Outcome::Ok);
}

#[test]
fn what_is_left_out_by_name_is_not_missed() {
    let bench = bench(|world, files| {
        nest(world);
        files.capture.leave_out =
            ["/srv/extra", "/home/sub", "/var/swapfile"].map(PathBuf::from).into();
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let detail = &step(&report, "survey").detail;
    assert!(detail.contains("left out: /home/sub (subvolume), /srv/extra"), "{detail}");
}

#[test]
fn what_is_nested_is_captured_too_where_file_systems_are_crossed() {
    let bench = bench(|world, files| {
        nest(world);
        files.one_file_system = false;
        files.capture.leave_out = vec!["/var/swapfile".into()];
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(
        captured_places(&bench),
        ["/home", "/home/sub", "/opt", "/srv", "/srv/extra", "/var"].map(PathBuf::from)
    );
    bench.assert_released("six captures");
}

#[test]
fn a_subvolume_that_is_deleted_after_it_was_found_fails_only_what_requires_it() {
    let gone = |mode: CaptureMode| {
        bench(|world, files| {
            world.btrfs.nested.insert("/home".into(), vec!["/home/sub".into()]);
            files.one_file_system = false;
            files.capture.mode = mode;
            files.capture.consistent = false;
        })
    };
    let told = "the subvolume /home/sub was deleted before it could be captured";
    let bench = gone(CaptureMode::Auto);
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Warning], "{report:#?}");
    assert_eq!(step(&report, "intend").detail, told);
    assert_eq!(captured_places(&bench), ["/home", "/opt", "/srv", "/var"].map(PathBuf::from));
    // Nothing can be shown in the snapshot where it was.
    let is_there = |mount: &PrivateMount| mount.at() == Path::new("/home/sub");
    assert!(!bench.host.world().seen.iter().any(is_there));
    assert!(job(&report).captures.iter().all(|volume| volume.path != Path::new("/home/sub")));
    bench.assert_released("a subvolume that is gone");

    let bench = gone(CaptureMode::Required);
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Environment], "{report:#?}");
    assert!(step(&report, "intend").detail.starts_with(told), "{report:#?}");
    bench.assert_released("a subvolume that is gone");
}

/// A user's subvolume below `/home` that is captured as well, and somebody else's that the job does not read.
fn nest_users(world: &mut World, files: &mut FilesSource) {
    world.btrfs.subvolumes.insert("/home/sub".into(), "sub-uuid".into());
    world.btrfs.subvolumes.insert("/others".into(), "others-uuid".into());
    world.btrfs.nested.insert("/home".into(), vec!["/home/sub".into()]);
    files.one_file_system = false;
    files.capture.mode = CaptureMode::Auto;
    files.capture.consistent = false;
}

/// What snapshots were made of, since the last call of this.
fn origins(bench: &Bench) -> Vec<String> {
    std::mem::take(&mut bench.host.world().btrfs.origins)
}

#[test]
fn what_a_user_puts_in_the_place_of_his_subvolume_is_never_captured() {
    type Swap = fn(&mut World);
    // Moved, with something of somebody else's at its path; and deleted, with the same.
    let swaps: [(Swap, &[&str]); 3] = [
        (
            |world| {
                let own = world.btrfs.subvolumes.remove(Path::new("/home/sub")).unwrap();
                world.btrfs.subvolumes.insert("/home/moved".into(), own);
                let others = world.btrfs.subvolumes[Path::new("/others")].clone();
                world.btrfs.subvolumes.insert("/home/sub".into(), others);
            },
            &["home-uuid", "sub-uuid"],
        ),
        (
            |world| {
                let others = world.btrfs.subvolumes[Path::new("/others")].clone();
                world.btrfs.subvolumes.insert("/home/sub".into(), others);
            },
            &["home-uuid"],
        ),
        (
            |world| {
                world.btrfs.subvolumes.remove(Path::new("/home/sub"));
            },
            &["home-uuid"],
        ),
    ];
    for (swap, expected) in swaps {
        let bench = bench(|world, files| {
            nest_users(world, files);
            world.while_pausing = Some(swap);
        });
        origins(&bench);
        let report = bench.run();
        assert_eq!(origins(&bench), expected, "{report:#?}");
        bench.assert_released("a swap");
        if expected.len() == 1 {
            let told = "the subvolume /home/sub was deleted before it could be captured";
            assert_eq!(step(&report, "capture").detail.split("; ").last(), Some(told));
            assert_eq!(report.troubles, [Trouble::Warning], "{report:#?}");
            let is_there = |mount: &PrivateMount| mount.at() == Path::new("/home/sub");
            assert!(!bench.host.world().seen.iter().any(is_there));
            // Nobody waits for the disk while the writers stand still.
            let world = bench.host.world();
            let at = |words: &str| world.effects.iter().position(|effect| effect.contains(words));
            assert!(at("/hook continue") < at("gone for good"), "{:#?}", world.effects);
        }
    }
}

#[test]
fn a_swap_joins_the_loops() {
    let swapped = || {
        bench(|world, files| {
            nest_users(world, files);
            world.while_pausing = Some(|world| {
                world.btrfs.subvolumes.remove(Path::new("/home/sub"));
            });
        })
    };
    let first = swapped();
    first.run();
    let effects = first.host.world().effects.clone();
    let is_snapshot = |n: &usize| effects[*n].contains("btrfs snapshot");
    let concerned: Vec<usize> = (0..effects.len()).filter(is_snapshot).collect();
    assert_eq!(concerned.len(), 3, "{effects:#?}");
    for n in concerned {
        loops::any_fault_of_a_run_at(swapped, n, &effects[n], |_, _| ());
    }
}

#[test]
fn a_capture_that_lost_its_place_is_not_shown_and_the_copy_is_incomplete() {
    let misplaced = |mode: CaptureMode| {
        bench(|world, files| {
            nest_users(world, files);
            world.btrfs.misplaced = vec!["/home/sub".into()];
            files.capture.mode = mode;
        })
    };
    let told = "/home/sub is not in the copy — it was moved or replaced while it was captured";
    let bench = misplaced(CaptureMode::Auto);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Incomplete, "{report:#?}");
    assert!(step(&report, "backup").detail.contains(told), "{report:#?}");
    let is_there = |mount: &PrivateMount| mount.at() == Path::new("/home/sub");
    assert!(!bench.host.world().seen.iter().any(is_there), "not live either");
    bench.assert_released("a place that is gone");

    let bench = misplaced(CaptureMode::Required);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert!(step(&report, "verify").detail.contains(told), "{report:#?}");
    bench.assert_released("a place that is gone");
}

#[test]
fn a_volume_under_our_name_that_is_not_ours_is_never_removed() {
    let all = loops::effects(&HELD);
    let made = all.iter().position(|effect| effect.ends_with("vg/srv")).unwrap();
    let bench = bench(|_, _| ());
    bench.host.arm(Fault::KillAfter(made));
    loops::die(&bench);
    // Somebody else makes a volume of that name; or it only lost our tag, and nobody can tell.
    let name = {
        let mut world = bench.host.world();
        let volume = world.lvm.volumes.last_mut().unwrap();
        volume.tags = vec!["stillpoint".into(), "theirs".into()];
        volume.uuid = "somebody-elses".into();
        volume.name.clone()
    };
    let is_there = || bench.host.world().lvm.snapshots().iter().any(|volume| volume.name == name);
    bench.host.arm(Fault::None);
    for _ in 0..2 {
        let recovery = recover(bench.pipeline()).unwrap();
        let [failure] = recovery.failures.as_slice() else { panic!("{recovery:#?}") };
        assert_eq!(failure.trouble, Trouble::Cleanup);
        assert!(failure.message.contains(&name) && failure.message.contains("left alone"));
        assert!(is_there(), "it was removed");
        assert_eq!(bench.ledgers().len(), 1, "the promise stays");
    }
    // Runs go on, and each says so.
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Cleanup], "{report:#?}");
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert!(is_there());
}

#[test]
fn a_subvolume_under_our_name_that_is_not_ours_is_never_deleted() {
    type Change = fn(&mut Snapshot);
    let all = loops::effects(&HELD);
    let made = all.iter().position(|effect| effect.contains("make the btrfs snapshot")).unwrap();
    let read = all.iter().position(|effect| effect.starts_with("borg")).unwrap();
    // Before its UUID was written down, it is told by what it is a snapshot of; afterwards by the UUID.
    let changes: [(usize, Change); 3] = [
        (made, |snapshot| snapshot.parent_uuid = "another".into()),
        (made, |snapshot| snapshot.read_only = false),
        (read, |snapshot| snapshot.uuid = "somebody-elses".into()),
    ];
    for (n, change) in changes {
        let bench = bench(|_, _| ());
        bench.host.arm(Fault::KillAfter(n));
        loops::die(&bench);
        bench.host.world().btrfs.top.values_mut().for_each(change);
        bench.host.arm(Fault::None);
        let recovery = recover(bench.pipeline()).unwrap();
        let [failure] = recovery.failures.as_slice() else { panic!("{recovery:#?}") };
        assert_eq!(failure.trouble, Trouble::Cleanup);
        assert!(failure.message.contains("left alone"), "{}", failure.message);
        assert_eq!(bench.host.world().btrfs.top.len(), 1, "it was deleted");
        assert_eq!(bench.ledgers().len(), 1, "the promise stays");
    }
}

#[test]
fn a_volume_that_took_the_place_of_ours_is_not_ours_to_remove() {
    // Ours was seen, so its UUID is known, and it is gone.
    let bench = bench(|world, _| {
        world.while_reading = Some(|world| {
            let ours =
                world.lvm.volumes.iter_mut().find(|volume| volume.name.starts_with("stillpoint."));
            ours.unwrap().uuid = "somebody-elses".into();
        });
    });
    bench.run();
    let left: Vec<String> =
        bench.host.world().lvm.snapshots().iter().map(|volume| volume.uuid.clone()).collect();
    assert_eq!(left, ["somebody-elses"]);
    assert_eq!(bench.ledgers(), Vec::<PathBuf>::new(), "ours is gone, so it is released");
}

#[test]
fn a_snapshot_in_a_group_that_is_away_is_not_forgotten() {
    type Away = fn(&mut World);
    let all = loops::effects(&HELD);
    let made = all.iter().position(|effect| effect.ends_with("vg/srv")).unwrap();
    let read = all.iter().position(|effect| effect.starts_with("borg")).unwrap();
    let changes: [Away; 2] = [
        |world| world.lvm.away = true,
        |world| {
            world.lvm.away = true;
            world.lvm.namesake = Some("another-group".into());
        },
    ];
    // Before the UUID of the snapshot was written down, and after.
    for n in [made, read] {
        for away in changes {
            let bench = bench(|_, _| ());
            bench.host.arm(Fault::CutAfter(n));
            loops::die(&bench);
            let snapshots = bench.host.world().lvm.snapshots().len();
            assert!(snapshots > 0);
            away(&mut bench.host.world());
            bench.host.arm(Fault::None);
            let group = if n == made && bench.host.world().lvm.namesake.is_none() {
                // As a version wrote it that did not note the group's UUID.
                let ledger = &bench.ledgers()[0];
                let noted = std::fs::read_to_string(ledger).unwrap();
                let old = noted.replace(r#""group-uuid":"group-uuid","#, "");
                assert_ne!(old, noted);
                std::fs::write(ledger, old).unwrap();
                "the volume group vg is not here"
            } else {
                "the volume group vg (group-uuid) is not here"
            };
            for _ in 0..2 {
                let recovery = recover(bench.pipeline()).unwrap();
                assert_eq!(recovery.failures.len(), 3, "one for each promise: {recovery:#?}");
                for failure in &recovery.failures {
                    assert_eq!(failure.trouble, Trouble::Cleanup);
                    for word in [group, "attach it", "for ever"] {
                        assert!(failure.message.contains(word), "{}", failure.message);
                    }
                }
                assert_eq!(bench.ledgers().len(), 1, "the promises stay");
            }
            {
                let mut world = bench.host.world();
                (world.lvm.away, world.lvm.namesake) = (false, None);
                assert_eq!(world.lvm.snapshots().len(), snapshots);
            }
            let recovery = recover(bench.pipeline()).unwrap();
            assert_eq!(recovery.failures, []);
            bench.assert_released("the group is back");
            bench.assert_mended("the group is back");
        }
    }
}

#[test]
fn a_pool_that_somebody_else_put_out_of_step_is_explained_and_not_touched() {
    let bench = bench(|world, _| world.lvm.transaction += 1);
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Environment], "{report:#?}");
    let detail = &step(&report, "intend").detail;
    assert!(detail.contains("out of step") && detail.contains("dmsetup message"), "{detail}");
    for word in ["dmsetup", "lvcreate", "lvremove"] {
        assert_eq!(effects(&bench, word), Vec::<String>::new());
    }
    assert_eq!(bench.host.world().lvm.ailments().len(), 1);
}

#[test]
fn a_repair_that_fails_is_tried_again() {
    let all = loops::effects(&HELD);
    let made = all.iter().position(|effect| effect.ends_with("vg/srv")).unwrap();
    // Once for every effect of the recovery.
    for n in 0.. {
        let bench = bench(|_, _| ());
        bench.host.arm(Fault::KillInside(made, Stage::BetweenMessages));
        loops::die(&bench);
        bench.host.arm(Fault::Fail(n));
        let _ = recover(bench.pipeline()).unwrap();
        let Some(what) = bench.host.world().effects.get(n).cloned() else {
            assert!(n >= 8, "the recovery had only {n} effects");
            break;
        };
        bench.host.arm(Fault::None);
        let recovery = recover(bench.pipeline()).unwrap();
        assert_eq!(recovery.failures, [], "failing {what}");
        bench.assert_released(&what);
        bench.assert_mended(&what);
    }
}

#[test]
fn devices_that_somebody_else_suspends_for_a_moment_are_left_alone() {
    let bench = bench(|world, _| {
        world.while_reading = Some(|world| {
            world.lvm.suspended.insert("vg-srv".into());
        });
        world.while_waiting = Some(|world| world.lvm.suspended.clear());
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(effects(&bench, "dmsetup"), Vec::<String>::new());
}

#[test]
fn a_plan_takes_a_device_for_resumed_that_it_would_resume() {
    let bench = bench(|world, _| {
        world.lvm.suspended.insert("vg-srv".into());
    });
    let plan = bench.only_planned();
    let resumed = plan.iter().filter(|line| line.starts_with("dmsetup resume")).count();
    assert_eq!(resumed, 1, "{plan:#?}");
}

#[test]
fn a_snapshot_that_is_in_use_is_tried_again_and_at_last_left_to_recover() {
    let bench = bench(|world, _| world.lvm.in_use = 2);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(effects(&bench, "lvremove").len(), 5);

    bench.host.arm(Fault::None);
    bench.host.world().lvm.in_use = 1_000;
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Warning, "{report:#?}");
    assert!(report.troubles.iter().all(|trouble| *trouble == Trouble::Cleanup), "{report:#?}");
    assert_eq!(step(&report, "backup").outcome, Outcome::Ok, "the copy is good");
    assert_eq!(bench.ledgers().len(), 1);
    bench.host.world().lvm.in_use = 0;
    bench.assert_mended("a snapshot in use");
}

#[test]
fn a_plan_shows_every_capture_and_makes_none() {
    let bench = bench(|_, _| ());
    let (planned, plan) = bench.plan();
    assert_eq!(planned.outcome, Outcome::Ok, "{planned:#?}");
    assert_eq!(bench.host.world().effects, Vec::<String>::new(), "a dry run has no effect");
    assert_eq!(bench.host.world().held(), Vec::<String>::new());
    let done = bench.run();
    let tools = [
        "make the btrfs",
        "delete the btrfs",
        "lvcreate",
        "lvremove",
        "make the file system",
        "/hook",
    ];
    let of_captures = |text: &str, run: &str| {
        let line = text.lines().next().unwrap_or_default().replace(run, "RUN");
        // A plan cannot know the UUID that a volume will have.
        let line = line.split(" --select").next().unwrap_or_default().to_owned();
        tools.iter().any(|tool| line.starts_with(tool)).then_some(line)
    };
    let plan: Vec<String> =
        plan.iter().filter_map(|effect| of_captures(effect, planned.run_id.as_str())).collect();
    let world = bench.host.world();
    let real: Vec<String> = world
        .effects
        .iter()
        .filter_map(|effect| of_captures(effect, done.run_id.as_str()))
        .collect();
    assert!(plan.len() >= 12, "{plan:#?}");
    assert_eq!(plan, real, "the plan is what the run does");
}
