//! Subvolumes that are sent to another machine which has btrfs-progs and no Stillpoint, by the loops of [`crate::loops`];
//! and what goes wrong there, or on the way.

use std::path::{Path, PathBuf};

use stillpoint::engine::EngineError;
use stillpoint::model::job::Config;
use stillpoint::model::names::HostName;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::target::ReadData;
use stillpoint::pipeline::recover::recover;

use crate::faults::{Bench, LIVE, Scene};
use crate::loops;
use crate::served::{at_server, pool_there, strays, whatever_happens_to_the_server, world};
use crate::subvolumes::{
    all_is_sent_where_a_difference_is_to_something_else, differences,
    no_difference_is_made_to_what_is_changed_meanwhile, no_difference_is_made_to_what_is_forged,
    sending, what_is_taken_is_not_written_over,
};
use crate::support::fake_host::Fault;
use crate::support::fake_pool::{Ailment, FakePool};

/// Two subvolumes, sent to such a machine.
pub const SENT: Scene = Scene { config, world, kept: 4, ..LIVE };

fn config(state: &Path) -> Config {
    let target = "keep.last = 2\nbtrfs.location = 'ssh://backup@nas/pool'\nbtrfs.remote-side = 'btrfs-progs'\nbtrfs.remote-sudo = true";
    sending(state, "nas", target)
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&SENT);
    for wanted in [
        "sudo -n btrfs receive -q -C -- /pool",
        "sudo -n sync -f -- /pool",
        "sudo -n dd of=/pool/.stillpoint/copies/.host@web1._2fhome.",
        "sudo -n mv -T -f -- /pool/.stillpoint/copies/.host@web1._2fhome.",
        "sudo -n mv -T -n -- /pool/.incoming.host@web1._2fhome.",
        "sudo -n btrfs subvolume delete -c -- /pool/host@web1._2fhome.",
        "sudo -n rm -f -- /pool/.stillpoint/copies/host@web1._2fhome.",
    ] {
        let is_it = |effect: &String| effect.starts_with("ssh ") && effect.contains(wanted);
        assert!(effects.iter().any(is_it), "{wanted}: {effects:#?}");
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
fn whatever_happens_to_the_server_the_next_run_is_whole_and_leaves_nothing_else() {
    let wanted = ["btrfs receive", "sync -f", "dd of=", "mv -T -f", "mv -T -n", "btrfs subvolume"];
    whatever_happens_to_the_server(&SENT, &wanted);
}

#[test]
fn what_is_there_is_what_stillpoint_there_would_have_made() {
    let bench = Bench::with_history_of(&SENT);
    let pool = at_server(&bench, |server| server.world.pool.clone());
    // The same directory, as one of this machine.
    let here = Bench::of(&crate::subvolumes::SENT);
    here.host.world().pool = pool.clone();
    let engine = here.pipeline().engine(&here.config.targets[0]);
    let context = here.pipeline().engine_context();
    let copies = engine.list(context).unwrap();
    assert_eq!(copies.len(), 4, "{copies:#?}");
    assert_eq!(engine.check(context, ReadData::None, &mut |_| {}).unwrap().damage, [] as [&str; 0]);
    let far = bench.pipeline().engine(&bench.config.targets[0]);
    assert_eq!(far.list(bench.pipeline().engine_context()).unwrap(), copies);
    let drafts = pool.names_in(&FakePool::own().join("copies"));
    assert_eq!(drafts.len(), 4, "{drafts:?}");
}

#[test]
fn a_copy_that_somebody_changed_is_no_base_and_a_check_tells_it() {
    let bench = Bench::with_history_of(&SENT);
    assert_eq!(differences(&bench), 2);
    at_server(&bench, |server| {
        server.world.pool.subvolumes.values_mut().for_each(|copy| copy.changed += 1);
    });
    assert_eq!(differences(&bench), 0, "both must be sent as a whole");
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let report = engine.check(bench.pipeline().engine_context(), ReadData::None, &mut |_| {});
    assert_eq!(report.unwrap().damage.len(), 4);
}

#[test]
fn what_claims_to_be_a_copy_of_ours_is_no_base_nor_is_any_when_history_is_lost() {
    let seed = Bench::with_history_of(&SENT);
    let bench = seed.duplicate(&SENT);
    no_difference_is_made_to_what_is_forged(&bench, pool_there);

    let lost = Bench::of(&SENT);
    *lost.host.world() = seed.host.world().clone();
    assert_eq!(differences(&lost), 0);
}

#[test]
fn a_difference_to_something_else_is_no_copy_and_all_is_sent() {
    let bench = Bench::with_history_of(&SENT);
    all_is_sent_where_a_difference_is_to_something_else(&bench, pool_there);
    assert_eq!(strays(&bench), [] as [PathBuf; 0]);
}

#[test]
fn a_dry_run_shows_every_command_and_runs_none_that_changes() {
    let bench = Bench::with_history_of(&SENT);
    let planned = bench.only_planned();
    let count = |words: &str| planned.iter().filter(|it| it.contains(words)).count();
    assert_eq!(count("btrfs receive -q -C -- /pool"), 2, "{planned:#?}");
    assert_eq!(count("--known-as"), 2, "differences: {planned:#?}");
    assert_eq!(count("mv -T -n -- /pool/.incoming."), 2, "{planned:#?}");
    assert_eq!(count("btrfs subvolume delete -c"), 2, "the oldest of each: {planned:#?}");
}

#[test]
fn what_a_dead_run_left_there_goes() {
    let bench = Bench::with_history_of(&SENT);
    let effects = loops::effects(&SENT);
    let named = effects.iter().position(|effect| effect.contains("mv -T -n"));
    bench.host.arm(Fault::KillBefore(named.unwrap()));
    loops::die(&bench);
    bench.host.arm(Fault::None);
    let is_copy = |path: &PathBuf| !path.to_str().unwrap().contains(".part");
    assert_eq!(strays(&bench).into_iter().filter(is_copy).count(), 2, "a copy, and its record");
    let (report, planned) = bench.plan();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let goes = |line: &&String| line.contains("btrfs subvolume delete -c -- /pool/.incoming.");
    assert!(planned.iter().any(|line| goes(&line)), "{planned:#?}");
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    assert_eq!(strays(&bench), [] as [PathBuf; 0]);
}

#[test]
fn what_was_lost_is_noticed_although_somebody_else_was_told_of_it() {
    let seed = Bench::with_history_of(&SENT);
    for (ails, told) in [
        (Ailment::Failing, "[/dev/sdc].write_io_errs was 0 and is 1"),
        (Ailment::MountedAnew, "its file system was mounted anew"),
    ] {
        let bench = seed.duplicate(&SENT);
        let before = at_server(&bench, |server| {
            server.world.pool.ails = ails;
            server.world.pool.copies().collect::<Vec<_>>()
        });
        let report = bench.run();
        assert_ne!(report.outcome, Outcome::Ok, "{ails:?}");
        assert!(format!("{report:?}").contains(told), "{ails:?}: {report:#?}");
        at_server(&bench, |server| {
            let pool = &mut server.world.pool;
            assert_eq!(pool.copies().collect::<Vec<_>>(), before, "{ails:?}");
            assert_eq!(pool.emptied().count(), 0, "{ails:?}");
            pool.ails = Ailment::None;
        });
        bench.assert_mended(told);
        assert_eq!(strays(&bench), [] as [PathBuf; 0], "{ails:?}");
    }
}

#[test]
fn who_may_change_what_is_on_the_way_there_is_told() {
    let seed = Bench::with_history_of(&SENT);
    let list = |path: &Path, odd: &str| {
        let bench = seed.duplicate(&SENT);
        at_server(&bench, |server| {
            server.world.pool.odd.insert(path.to_owned(), odd.to_owned());
        });
        let engine = bench.pipeline().engine(&bench.config.targets[0]);
        engine.list(bench.pipeline().engine_context()).map_err(|error| error.to_string())
    };
    let records = FakePool::own().join("copies");
    for (path, odd, told) in [
        ("/", "41ed 1000", "/ belongs to user 1000 there"),
        // What is behind it was looked at, and not what it leads to next.
        ("/", "a1ff 0", "/ is a link there"),
        ("/", "41ff 0", "/ may be changed by others there (mode 0777)"),
        ("/pool", "a1ff 0", "/pool is a link there"),
        ("/pool", "8180 0", "there is no directory /pool there"),
        // Whose the names in a directory are says nothing of who may add some.
        ("/pool", "43ff 0", "/pool may be changed by others there (mode 1777)"),
        (records.to_str().unwrap(), "41d2 0", "may be changed by others there (mode 0722)"),
        (records.to_str().unwrap(), "41c0 33", "belongs to user 33 there"),
    ] {
        let error = list(Path::new(path), odd).unwrap_err();
        assert!(error.contains(told), "{path} {odd}: {error}");
    }
    for (path, harmless) in [("/", "43ff 0"), ("/", "41ed 0"), ("/pool", "41e8 0")] {
        assert_eq!(list(Path::new(path), harmless).unwrap().len(), 4, "{path} {harmless}");
    }
}

#[test]
fn a_program_that_does_not_do_its_work_there_is_told_and_nothing_is_taken_to_be_gone() {
    let seed = Bench::with_history_of(&SENT);
    let no_such = "env: 'btrfs': No such file or directory";
    let of_sudo = "Sorry, user backup is not allowed to execute '/usr/bin/stat' as root on nas.";
    let to_login = "/usr/bin/find: Permission denied";
    for (program, code, said, told) in [
        ("btrfs", 127, no_such, "a program is not there, or this login may not start it"),
        ("btrfs", 1, "sudo: btrfs: command not found", "a program is not there"),
        ("find", 1, "sudo: a password is required", "sudo there does not run it"),
        ("stat", 1, of_sudo, "sudo there does not run it"),
        ("stat", 1, "backup is not in the sudoers file.", "sudo there does not run it"),
        ("dd", 1, "sudo: interactive authentication is required", "sudo there does not run it"),
        ("find", 1, to_login, "may not do it there"),
        // These are of nothing that is known, and least of all say that nothing is there.
        ("stat", 1, "stat: cannot statx '/pool': Input/output error", "Input/output error"),
        ("find", 1, "sudo: unable to open audit system: No such file or directory", "audit system"),
        ("find", 2, "find: '/pool': No such file or directory", "No such file or directory"),
        ("stat", 1, "", "(exit status 1)"),
        ("find", 1, "find: unrecognized: -printf", "GNU coreutils and findutils"),
        ("stat", 1, "stat: unrecognized option '--printf'", "GNU coreutils and findutils"),
    ] {
        let bench = seed.duplicate(&SENT);
        at_server(&bench, |server| server.world.pool.refused = Some((program, code, said)));
        let copies = at_server(&bench, |server| server.world.pool.subvolumes.clone());
        let report = bench.run();
        assert_ne!(report.outcome, Outcome::Ok, "{program}: {said}");
        assert!(format!("{report:?}").contains(told), "{program}, {said}: {report:#?}");
        at_server(&bench, |server| {
            server.world.pool.refused = None;
            for (path, copy) in &copies {
                assert_eq!(server.world.pool.subvolumes.get(path), Some(copy), "{said}");
            }
        });
        bench.assert_mended(said);
        assert_eq!(strays(&bench), [] as [PathBuf; 0], "{said}");
    }
}

#[test]
fn another_machine_that_writes_there_takes_nothing_of_ours_away() {
    let other = |state: &Path| {
        let mut config = config(state);
        config.settings.host = HostName::new("web2").unwrap();
        config
    };
    let other = Scene { config: other, ..SENT };
    let bench = Bench::with_history_of(&SENT);
    // It dies when a copy is whole and has a record, and another one is just about to be replaced.
    let effects = loops::effects(&SENT);
    let named = effects.iter().position(|effect| effect.contains("mv -T -n"));
    bench.host.arm(Fault::KillBefore(named.unwrap()));
    loops::die(&bench);
    bench.host.arm(Fault::None);
    let ours = at_server(&bench, |server| {
        let own = FakePool::own();
        let pool = &mut server.world.pool;
        let copy = pool.copies().next().unwrap();
        for at in [format!("copies/.{copy}"), "parts/.x".into(), ".target".into()] {
            pool.write(&own.join(format!("{at}.json.00000000deadbeef")), b"{");
        }
        pool.clone()
    });
    assert!(ours.subvolumes.keys().any(|path| path.to_str().unwrap().contains(".incoming.")));

    let theirs = Bench::of(&other);
    theirs.host.world().server = bench.host.world().server.clone();
    for _ in 0..3 {
        let report = theirs.run();
        assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    }
    at_server(&theirs, |server| {
        let pool = &server.world.pool;
        for (path, copy) in &ours.subvolumes {
            assert_eq!(pool.subvolumes.get(path), Some(copy), "{}", path.display());
        }
        for file in ours.files() {
            assert_eq!(pool.file(file), ours.file(file), "{}", file.display());
        }
        assert_eq!(pool.copies().filter(|name| name.starts_with("host@web2.")).count(), 4);
    });

    // What has lain there for a day is nobody's who will come back.
    bench.host.world().server = theirs.host.world().server.clone();
    at_server(&bench, |server| {
        let pool = &mut server.world.pool;
        pool.old = pool.files().cloned().collect();
    });
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    at_server(&bench, |server| {
        let is_draft = |file: &&PathBuf| file.to_str().unwrap().ends_with("deadbeef");
        let pool = &server.world.pool;
        assert_eq!(pool.files().filter(is_draft).collect::<Vec<_>>(), [] as [&PathBuf; 0]);
        assert_eq!(pool.copies().filter(|name| name.starts_with("host@web2.")).count(), 4);
        assert!(pool.file(&FakePool::own().join("target.json")).is_some());
    });
    assert_eq!(strays(&bench), [] as [PathBuf; 0]);
}

#[test]
fn what_has_come_into_the_place_of_a_copy_is_not_deleted() {
    let bench = Bench::with_history_of(&SENT);
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let context = bench.pipeline().engine_context();
    let (name, before) = at_server(&bench, |server| {
        let pool = &mut server.world.pool;
        let (path, there) = pool.subvolumes.iter_mut().next().unwrap();
        there.uuid = "00000000-0000-0000-0000-00000000cafe".into();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), pool.clone())
    });
    let error = engine.delete(context, std::slice::from_ref(&name)).unwrap_err();
    assert!(error.to_string().contains("is not what was received there"), "{error}");
    at_server(&bench, |server| {
        assert_eq!(server.world.pool.subvolumes, before.subvolumes);
        assert!(server.world.pool.files().eq(before.files()));
    });
    // The same of one that somebody reads.
    let other = at_server(&bench, |server| {
        server.world.pool.is_being_read = true;
        server.world.pool.copies().find(|it| *it != name).unwrap()
    });
    let error = engine.delete(context, std::slice::from_ref(&other)).unwrap_err();
    assert!(error.to_string().contains("if somebody reads it, the next run deletes it"), "{error}");
    assert_eq!(error.trouble(), Trouble::Cleanup);
    at_server(&bench, |server| server.world.pool.is_being_read = false);
    engine.delete(context, std::slice::from_ref(&other)).unwrap();
    assert!(at_server(&bench, |server| server.world.pool.copies().all(|it| it != other)));
}

#[test]
fn a_record_that_cannot_be_fetched_is_not_a_damaged_one() {
    let seed = Bench::with_history_of(&SENT);
    let examined = |bench: &Bench| {
        let engine = bench.pipeline().engine(&bench.config.targets[0]);
        engine.check(bench.pipeline().engine_context(), ReadData::None, &mut |_| {})
    };
    for count in [1, 4] {
        let bench = seed.duplicate(&SENT);
        at_server(&bench, |server| {
            let pool = &mut server.world.pool;
            let all: Vec<PathBuf> = pool.subvolumes.keys().skip(count).cloned().collect();
            for path in all {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                pool.subvolumes.remove(&path);
                let records = FakePool::own().join("copies");
                let is_of = |file: &&PathBuf| {
                    file.parent() == Some(&records) && file.to_str().unwrap().contains(&name)
                };
                let file = pool.files().find(is_of).unwrap().clone();
                pool.remove(&file);
            }
            server.requests.clear();
        });
        let report = examined(&bench).unwrap();
        assert_eq!(report.damage, [] as [&str; 0]);
        assert!(report.extent.starts_with(&format!("the records of {count} ")), "{report:?}");
        let requests = at_server(&bench, |server| server.requests.clone());
        let reads = |asked: &String| asked.contains("cat -- /pool/.stillpoint/copies/");
        let read = requests.iter().position(reads).unwrap();
        at_server(&bench, |server| {
            server.requests.clear();
            server.mute = Some(read);
        });
        let error = examined(&bench).unwrap_err();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{count}: {error}");
        for (said, is_damage) in [
            ("sudo: unable to fork: Cannot allocate memory", false),
            ("cat: /pool/x: Input/output error", true),
            ("cat: /pool/x: Is a directory (os error 21)", true),
        ] {
            at_server(&bench, |server| {
                server.mute = None;
                let words = "cat -- /pool/.stillpoint/copies/";
                server.world.pool.refused = Some((words, 1, said));
            });
            match (examined(&bench), is_damage) {
                (Ok(report), true) => assert_eq!(report.damage.len(), count, "{report:?}"),
                (Err(error), false) => assert!(error.to_string().contains("fork"), "{error}"),
                (other, _) => panic!("{said}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_works_on_a_copy_keeps_nobody_from_it_and_it_is_no_base() {
    let bench = Bench::with_history_of(&SENT);
    let said = "ERROR: send ioctl failed with -11: Resource temporarily unavailable";
    at_server(&bench, |server| {
        server.world.pool.refused = Some(("send -q --no-data", 1, said));
    });
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let context = bench.pipeline().engine_context();
    let copies = engine.list(context).unwrap();
    assert_eq!(copies.len(), 4);
    let report = engine.check(context, ReadData::None, &mut |_| {}).unwrap();
    assert_eq!(report.damage, [] as [&str; 0]);
    assert!(report.unverifiable.unwrap().contains("something else works on it"));
    let error = engine.delete(context, &[copies[0].id.clone()]).unwrap_err();
    assert!(matches!(error, EngineError::InUse { .. }), "{error}");
    assert_eq!(engine.list(context).unwrap(), copies);
    // Nothing is recorded of which nobody knows what it is.
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert_eq!(report.jobs[0].outcome, Outcome::Failed, "{report:#?}");
    assert!(!report.troubles.contains(&Trouble::Cleanup), "{report:#?}");
    assert!(format!("{report:?}").contains("something else works on it"), "{report:#?}");
    at_server(&bench, |server| server.world.pool.refused = None);
    bench.assert_mended("it works on it no more");
    assert_eq!(strays(&bench), [] as [PathBuf; 0]);
}

#[test]
fn programs_and_kernels_that_tell_too_little_are_refused() {
    let bench = Bench::with_history_of(&SENT);
    for (progs, linux, told) in [
        ("btrfs-progs v5.4.1", "5.10.0", "there is btrfs-progs 5.4 there, and 5.7 or later"),
        ("btrfs-progs v6.2", "4.4.302+", "there is Linux 4.4 there, and 5.8 or later"),
    ] {
        let before = at_server(&bench, |server| {
            server.world.pool.progs = Some(progs);
            server.world.pool.linux = Some(linux);
            server.world.pool.subvolumes.clone()
        });
        let engine = bench.pipeline().engine(&bench.config.targets[0]);
        let error = engine.probe(bench.pipeline().engine_context()).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        let report = bench.run();
        assert!(format!("{report:?}").contains(told), "{report:#?}");
        at_server(&bench, |server| assert_eq!(server.world.pool.subvolumes, before));
    }
}

#[test]
fn a_seal_that_fails_while_nobody_can_look_leaves_what_was_received() {
    let seed = Bench::with_history_of(&SENT);
    at_server(&seed, |server| server.requests.clear());
    let bench = seed.duplicate(&SENT);
    bench.run();
    let requests = at_server(&bench, |server| server.requests.clone());
    let named = requests.iter().position(|asked| asked.contains("mv -T -n")).unwrap();
    let bench = seed.duplicate(&SENT);
    at_server(&bench, |server| {
        server.requests.clear();
        server.mute_from = Some(named - 1);
    });
    assert_ne!(bench.run().outcome, Outcome::Ok);
    at_server(&bench, |server| {
        server.mute_from = None;
        let parts = server.world.pool.subvolumes.keys();
        let left = parts.filter(|path| path.to_str().unwrap().contains(".part")).count();
        assert!(left > 0, "{:#?}", server.world.pool.subvolumes.keys());
    });
    bench.assert_mended("the line is back");
    assert_eq!(strays(&bench), [] as [PathBuf; 0]);
}

#[test]
fn a_name_that_is_taken_is_given_to_no_other_copy() {
    let bench = Bench::with_history_of(&SENT);
    what_is_taken_is_not_written_over(&bench, pool_there);
}

#[test]
fn a_base_that_somebody_changes_while_it_is_sent_is_none() {
    no_difference_is_made_to_what_is_changed_meanwhile(&SENT, |world| &mut world.btrfs);
}
