//! What goes wrong in a restore: each effect fails, or is the last one before the power goes or we are killed.
//!
//! That the moving itself leaves the old or the new of every file, wherever it ends, is tested where it is done, on a
//! real file system (`host::sys::place`). Here it is one effect among the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use stillpoint::history::FILE_NAME;
use stillpoint::host::MountEntry;
use stillpoint::model::names::{RunId, TargetName};
use stillpoint::model::outcome::Trouble;
use stillpoint::model::undo::{StagingDirectory, Undo};
use stillpoint::pipeline::ledger::FileLedger;
use stillpoint::pipeline::query::Query;
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::restore::{Wanted, restore};
use stillpoint::pipeline::session::{Cleanup, LedgerDirectory, session};
use stillpoint::step::error::StepError;

use crate::faults::{Bench, LIVE, Scene};
use crate::loops::unless_we_die;
use crate::support::fake_host::Fault;

/// How the directories are called in which what is restored is laid out, before the run's id.
const STAGING: &str = ".stillpoint-restore-";

/// Restores one file in place, as the verb does.
pub fn restore_one(bench: &Bench) -> Result<(Result<(), StepError>, Cleanup), StepError> {
    restore_to(bench, None)
}

fn restore_to(
    bench: &Bench,
    to: Option<&str>,
) -> Result<(Result<(), StepError>, Cleanup), StepError> {
    let pipeline = bench.pipeline();
    let query = Query {
        job: &bench.config.jobs[0].name,
        host: None,
        target: Some(&bench.config.targets[0].name),
        item: None,
    };
    let wanted = Wanted {
        paths: vec!["/data/a".into()],
        to: to.map(PathBuf::from),
        into_existing: to.is_some(),
        owners_by_name: false,
        ignore_space: false,
        dry_run: false,
    };
    let run = RunId::parse("0badcafe").unwrap();
    session(pipeline, &run, LedgerDirectory::StateElseRuntime, |cx| {
        restore(cx, &query, "latest", &wanted).map(drop)
    })
}

/// What a good restore does.
fn effects(seed: &Bench) -> Vec<String> {
    let bench = seed.duplicate(&LIVE);
    bench.host.arm(Fault::None);
    let (result, cleanup) = restore_one(&bench).unwrap();
    result.unwrap();
    assert_eq!(cleanup.leftovers, []);
    let effects = bench.host.world().effects.clone();
    let kinds: Vec<&str> = effects.iter().filter_map(|what| what.split(' ').next()).collect();
    assert_eq!(kinds, ["create", "create", "borg", "place", "remove", "remove"], "{effects:?}");
    assert!(effects[1].contains(STAGING), "{effects:?}");
    effects
}

#[test]
fn a_restore_that_fails_anywhere_says_so_and_leaves_nothing() {
    let seed = Bench::with_history();
    for (n, what) in effects(&seed).iter().enumerate() {
        let bench = seed.duplicate(&LIVE);
        bench.host.arm(Fault::Fail(n));
        let after = format!("failing {what}");
        match restore_one(&bench) {
            // The session itself did not begin.
            Err(_) => {}
            Ok((result, cleanup)) => {
                // Without its own directory in one place, the session has it in another one.
                let was_told = !cleanup.leftovers.is_empty() || cleanup.volatile.is_some();
                assert_ne!(result.is_err(), was_told, "{after}: {result:?}, {cleanup:?}");
            }
        }
        bench.host.arm(Fault::None);
        assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
        bench.assert_released(&after);
    }
}

#[test]
fn a_restore_that_dies_anywhere_is_released() {
    let seed = Bench::with_history();
    let effects = effects(&seed);
    dying_at_any_effect(&seed, &LIVE, effects.len());
}

/// A restore dies at each of its effects, of which there are so many; `recover` releases what it held.
pub fn dying_at_any_effect(seed: &Bench, scene: &Scene, effects: usize) {
    for fault in (0..effects).flat_map(Fault::deaths_at) {
        let bench = seed.duplicate(scene);
        bench.host.arm(fault);
        let said = unless_we_die(|| restore_one(&bench));
        assert!(said.is_none(), "{fault:?}");
        bench.host.arm(Fault::None);
        assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{fault:?}");
        bench.assert_released(&format!("{fault:?}"));
    }
}

#[test]
fn a_signal_at_any_effect_of_a_restore_unwinds() {
    let seed = Bench::with_history();
    for n in 0..effects(&seed).len() {
        let bench = seed.duplicate(&LIVE);
        bench.host.arm(Fault::Signal(n));
        let (result, cleanup) = restore_one(&bench).unwrap();
        if let Err(error) = result {
            assert_eq!(error.trouble, Trouble::Signal(15), "{error}");
        }
        assert_eq!(cleanup.leftovers, []);
        bench.assert_released(&format!("a signal at effect {n}"));
    }
}

#[test]
fn damage_that_a_restore_meets_closes_the_target_whether_it_can_be_recorded_or_not() {
    for is_full in [false, true] {
        let bench = Bench::with_history();
        bench.host.world().borg.broken = true;
        if is_full {
            let file = rusqlite::Connection::open(bench.state.path().join(FILE_NAME)).unwrap();
            let full = "SELECT RAISE(FAIL, 'no space for this')";
            file.execute_batch(&format!(
                "CREATE TRIGGER full BEFORE INSERT ON closure BEGIN {full}; END"
            ))
            .unwrap();
        }
        let (result, cleanup) = restore_one(&bench).unwrap();
        let error = result.unwrap_err();
        assert_eq!(error.trouble, Trouble::Damage, "{error}");
        assert!(error.message.contains("chunk 17"), "{error}");
        assert_eq!(error.message.contains("no space for this"), is_full, "{error}");
        assert_eq!(cleanup.leftovers, []);
        let closures = bench.history.closures(&bench.config.targets[0].name).unwrap();
        assert_eq!(closures.len(), usize::from(!is_full), "{closures:?}");
        bench.assert_released("damage");
    }
}

#[test]
fn the_staging_directory_is_in_the_ledger_before_it_is_made() {
    let bench = Bench::with_history();
    bench.host.arm(Fault::KillBefore(1));
    let said = unless_we_die(|| restore_one(&bench));
    assert!(said.is_none(), "it lived on");
    let replay = FileLedger::peek(&bench.ledgers()[0]).unwrap();
    let path = PathBuf::from(format!("/{STAGING}0badcafe"));
    let promised = replay
        .outstanding
        .iter()
        .any(|held| held.undo == Undo::from(StagingDirectory::new(path.clone())));
    assert!(promised, "{replay:?}");
}

/// A mount of one directory of the machine's disk.
fn shown(id: u32, root: &str, at: &str) -> MountEntry {
    MountEntry {
        id,
        device: (8, 1),
        root: root.into(),
        at: at.into(),
        options: "rw".into(),
        file_system: "ext4".into(),
        source: "/dev/sda1".into(),
        super_options: "rw".into(),
    }
}

/// What of ours shows at another place, by a mount of it or of what lies in it, is known there as well.
#[test]
fn nothing_is_laid_out_in_what_is_in_use_by_whatever_name() {
    let bench = Bench::with_history();
    bench.host.world().mounts = vec![
        shown(1, "/@", "/"),
        shown(2, "/@/repo/data", "/repo/data"),
        shown(3, "/@/srv", "/srv"),
    ];
    let before = bench.host.world().effects.len();
    for (to, says) in [
        ("/repo", "/repo is the repository of target usb, which is in use"),
        ("/repo/data/0", "lies in a part of the repository of target usb (/repo/data)"),
        ("/run/stillpoint/x/y", "lies in the runtime directory (/run/stillpoint)"),
        ("/var/cache/stillpoint", "is the cache directory, which"),
    ] {
        let (result, cleanup) = restore_to(&bench, Some(to)).unwrap();
        let error = result.unwrap_err();
        assert_eq!(error.trouble, Trouble::Usage, "{error}");
        assert!(error.message.contains(says), "{error}");
        assert!(error.message.contains("name a directory outside"), "{error}");
        assert_eq!(cleanup.leftovers, []);
    }
    let effects = bench.host.world().effects[before..].to_vec();
    assert!(!effects.iter().any(|what| what.contains(STAGING)), "{effects:?}");
    let (result, _) = restore_to(&bench, Some("/srv")).unwrap();
    result.unwrap();
}

/// A restore waits for no server and no program that has nothing to do with it.
#[test]
fn a_repository_that_may_never_answer_is_looked_at_only_where_the_restore_comes_near_it() {
    let mut bench = Bench::with_history();
    let mut away = bench.config.targets[0].clone();
    away.name = TargetName::new("nas").unwrap();
    away.local = Some("/nas/repo".into());
    bench.config.targets.push(away);
    let nas = |kind: &str| MountEntry {
        device: (if kind == "ext4" { 8 } else { 0 }, 50),
        file_system: kind.into(),
        ..shown(2, "/", "/nas")
    };
    let elsewhere = |id, at: &str| MountEntry { at: at.into(), id, ..nas("nfs4") };
    bench.host.world().silent = Some("/nas".into());
    for kind in ["nfs4", "fuse.sshfs", "autofs"] {
        bench.host.world().mounts = vec![shown(1, "/", "/"), nas(kind)];
        for to in [None, Some("/srv")] {
            let (result, _) = restore_to(&bench, to).unwrap();
            result.unwrap_or_else(|error| panic!("{kind} {to:?}: {error}"));
        }
    }
    // By another mount, what is put there could come into it. On a disk, it answers.
    for mounts in [
        vec![shown(1, "/", "/"), nas("nfs4"), elsewhere(3, "/srv/bound")],
        vec![shown(1, "/", "/"), nas("nfs4"), elsewhere(3, "/srv")],
        vec![shown(1, "/", "/"), nas("ext4")],
    ] {
        bench.host.world().mounts = mounts;
        let looking = catch_unwind(AssertUnwindSafe(|| restore_to(&bench, Some("/srv")).map(drop)));
        let told = looking.unwrap_err().downcast::<String>().unwrap();
        assert!(told.contains("a look at /nas/repo"), "{told}");
    }
    bench.host.world().mounts = vec![shown(1, "/", "/"), nas("nfs4")];
    bench.host.world().silent = None;
    let (result, _) = restore_to(&bench, Some("/nas/repo/data")).unwrap();
    let error = result.unwrap_err();
    assert!(error.message.contains("lies in the repository of target nas"), "{error}");
}

/// The file lies on a file system of its own, below the destination.
#[test]
fn where_nothing_can_be_stored_nothing_is_laid_out_and_the_place_is_named() {
    let bench = Bench::with_history();
    let disk = shown(2, "/data", "/data");
    let says = |bench: &Bench, words: &[&str]| {
        let before = bench.host.world().effects.len();
        let (result, cleanup) = restore_one(bench).unwrap();
        let error = result.unwrap_err();
        assert_eq!(error.trouble, Trouble::Environment, "{error}");
        for words in words {
            assert!(error.message.contains(words), "{words:?} is missing in: {error}");
        }
        assert!(!error.message.contains(STAGING), "{error}");
        assert_eq!(cleanup.leftovers, []);
        let effects = bench.host.world().effects[before..].to_vec();
        assert!(!effects.iter().any(|what| what.starts_with("place")), "{effects:?}");
    };
    for (mount, words) in [
        (
            MountEntry { super_options: "ro".into(), ..disk.clone() },
            &["mounted at /data is read-only", "mount -o remount,rw /data"][..],
        ),
        (
            MountEntry { file_system: "proc".into(), ..disk.clone() },
            &["/data (proc) is generated by the kernel", "--to"],
        ),
        (
            MountEntry {
                file_system: "fuse.sshfs".into(),
                super_options: "rw,user_id=1000".into(),
                ..disk.clone()
            },
            &["FUSE file system", "umount /data"],
        ),
    ] {
        bench.host.world().mounts = vec![shown(1, "/", "/"), mount];
        says(&bench, words);
    }
    // Or it is found out only when a directory is to be made there.
    let duplicate = || {
        let duplicate = bench.duplicate(&LIVE);
        duplicate.host.world().mounts = vec![shown(1, "/", "/"), disk.clone()];
        duplicate
    };
    let good = duplicate();
    good.host.arm(Fault::None);
    let (result, _) = restore_one(&good).unwrap();
    result.unwrap();
    let effects = good.host.world().effects.clone();
    let nth = effects.iter().position(|what| what.contains("/data/")).unwrap();
    let failing = duplicate();
    failing.host.arm(Fault::Fail(nth));
    says(&failing, &["nothing can be stored at /data", "fix that and restore"]);
    failing.assert_released("a directory that cannot be made");
}
