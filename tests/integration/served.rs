//! Subvolumes that are sent to another machine on which Stillpoint answers, by the loops of [`crate::loops`]; and what
//! goes wrong there, or on the way.

use std::path::{Path, PathBuf};

use stillpoint::engine::btrfs::Allow;
use stillpoint::host::{CommandSpec, Effect, Input, Tool};
use stillpoint::model::job::Config;
use stillpoint::model::keep::MinFree;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::target::ReadData;
use stillpoint::pipeline::adopt::{Terms, offers};
use stillpoint::pipeline::recover::recover;

use crate::adopts::{ALL, TERMS, assert_all_or_none, listed, prove_all, take_all_on, theirs_in};
use crate::captures::mount;
use crate::faults::{Bench, LIVE, Scene};
use crate::loops;
use crate::subvolumes::{
    all_is_sent_where_a_difference_is_to_something_else, machine,
    no_difference_is_made_to_what_is_changed_meanwhile, no_difference_is_made_to_what_is_forged,
    sending, what_is_taken_is_not_written_over,
};
use crate::support::fake_host::{Fault, World};
use crate::support::fake_pool::{FakePool, LOCATION, OnTheWay};
use crate::support::fake_server::FakeServer;

/// Two subvolumes, sent to a server.
pub const SENT: Scene = Scene { config, world, kept: 4, ..LIVE };

fn config(state: &Path) -> Config {
    config_with("keep.last = 2", state)
}

fn config_with(policy: &str, state: &Path) -> Config {
    sending(state, "nas", &format!("{policy}\nbtrfs.location = 'ssh://root@nas/pool'"))
}

pub fn world() -> World {
    let mut world = machine();
    let mut there = World::new();
    there.mounts = vec![mount((0, 50), LOCATION, "btrfs", "/dev/sdc")];
    there.pool.mark(Path::new(LOCATION), "0123456789abcdef");
    world.server = Some(Box::new(FakeServer::new(there)));
    world
}

/// Does something to the server.
pub fn at_server<T>(bench: &Bench, work: impl FnOnce(&mut FakeServer) -> T) -> T {
    work(bench.host.world().server.as_mut().unwrap())
}

/// The directory of copies there.
pub fn pool_there(world: &mut World) -> &mut FakePool {
    &mut world.server.as_mut().unwrap().world.pool
}

/// What lies there that is neither a copy nor its record.
pub fn strays(bench: &Bench) -> Vec<PathBuf> {
    at_server(bench, |server| {
        let pool = &server.world.pool;
        let mut strays: Vec<PathBuf> = pool.orphans().into_iter().cloned().collect();
        let is_incoming = |path: &PathBuf| path.to_str().unwrap().contains(".incoming.");
        strays.extend(pool.nested().into_iter().filter(is_incoming));
        strays
    })
}

#[test]
fn failing_any_effect_is_reported_and_leaves_nothing() {
    let effects = loops::effects(&SENT);
    for wanted in ["make the btrfs snapshot", "ssh ", "delete the btrfs snapshot"] {
        assert!(effects.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
    for word in ["receive", "delete"] {
        let asks =
            |effect: &&String| effect.ends_with(&format!("serve --root /pool --allow {word}'"));
        assert!(effects.iter().any(|effect| asks(&effect)), "{word}: {effects:#?}");
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
    let wanted = ["btrfs receive", "wait until", "replace", "rename", "delete the subvolume"];
    whatever_happens_to_the_server(&SENT, &wanted);
}

/// Whatever happens at any effect there, or to any answer, is told, and the next run is whole and leaves nothing else.
pub fn whatever_happens_to_the_server(scene: &Scene, wanted: &[&str]) {
    let seed = Bench::with_history_of(scene);
    let start = |seed: &Bench| {
        let bench = seed.duplicate(scene);
        at_server(&bench, |server| {
            server.world.effects.clear();
            server.requests.clear();
        });
        bench
    };
    let bench = start(&seed);
    bench.run();
    let (effects, requests) =
        at_server(&bench, |server| (server.world.effects.clone(), server.requests.clone()));
    for wanted in wanted {
        assert!(effects.iter().any(|effect| effect.starts_with(*wanted)), "{wanted}: {effects:#?}");
    }
    let ends = |bench: Bench, is_needless: bool, after: &str| {
        let report = bench.run();
        assert!(is_needless || report.outcome != Outcome::Ok, "{after} went unnoticed");
        at_server(&bench, |server| {
            server.world.fault = None;
            server.mute = None;
        });
        bench.host.arm(Fault::None);
        assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
        bench.assert_released(after);
        bench.assert_mended(after);
        assert_eq!(strays(&bench), [] as [PathBuf; 0], "{after}");
    };
    for (n, what) in effects.iter().enumerate() {
        for fault in Fault::deaths_at(n).into_iter().chain([Fault::Fail(n)]) {
            let bench = start(&seed);
            at_server(&bench, |server| server.world.fault = Some(fault));
            ends(bench, false, &format!("{fault:?} there ({what})"));
        }
    }
    for (n, asked) in requests.iter().enumerate() {
        let bench = start(&seed);
        at_server(&bench, |server| server.mute = Some(n));
        // What is left of files that were being written is looked for whenever something was flushed, and may stay; and what
        // is compressed is sent at its full length to who does not say that he can take it.
        let is_needless = [" -mmin +1440 ", "features/send_stream_version"];
        // Whether a part was received by now is asked again.
        let is_of_part = asked.contains(".part") && asked.contains("subvolume show");
        let is_needless = is_of_part || is_needless.iter().any(|it| asked.contains(it));
        ends(bench, is_needless, &format!("the answer to request {n}, {asked} is lost"));
    }
}

#[test]
fn a_key_that_may_not_delete_leaves_nothing_half_received() {
    let config = |state: &Path| config_with("append-only = true", state);
    let scene = Scene { config, ..SENT };
    let seed = Bench::of(&scene);
    at_server(&seed, |server| server.allowed = [Allow::List, Allow::Receive].into());
    assert_eq!(seed.run().outcome, Outcome::Ok);
    at_server(&seed, |server| server.world.effects.clear());
    let bench = seed.duplicate(&scene);
    assert_eq!(bench.run().outcome, Outcome::Ok);
    for n in 0..at_server(&bench, |server| server.world.effects.len()) {
        for fault in [Fault::CutAfter(n), Fault::KillAfter(n)] {
            let bench = seed.duplicate(&scene);
            at_server(&bench, |server| server.world.fault = Some(fault));
            assert_ne!(bench.run().outcome, Outcome::Ok);
            at_server(&bench, |server| server.world.fault = None);
            let report = bench.run();
            assert_eq!(report.outcome, Outcome::Ok, "{fault:?}: {report:#?}");
            assert_eq!(strays(&bench), [] as [PathBuf; 0], "{fault:?}");
        }
    }
}

/// The same where the server deletes by rules of its own, and the key may not.
const THINNED: Scene = Scene { config: appending, world: thinning, kept: 6, ..SENT };

fn appending(state: &Path) -> Config {
    config_with("append-only = true", state)
}

fn thinning() -> World {
    let mut world = world();
    let server = world.server.as_mut().unwrap();
    server.allowed = [Allow::List, Allow::Receive].into();
    server.rules.keep.hourly = Some(3);
    world
}

#[test]
fn what_a_server_deletes_by_its_own_rules_is_missed_by_nobody_whatever_happens_there() {
    let wanted = ["btrfs receive", "wait until", "replace", "rename", "delete the subvolume"];
    whatever_happens_to_the_server(&THINNED, &wanted);
}

#[test]
fn a_server_takes_no_copy_for_which_there_is_no_room_and_deletes_by_its_rules_before() {
    let bench = Bench::with_history_of(&THINNED);
    let copies = || at_server(&bench, |server| server.world.pool.copies().collect::<Vec<_>>());
    let before = copies();
    at_server(&bench, |server| {
        let pool = &mut server.world.pool;
        let free = pool.free();
        pool.room = Some(before.len() as u64);
        assert!(pool.free() < free);
        server.rules.min_free = Some(MinFree::Bytes(1));
    });
    let report = bench.run();
    let told = format!("{report:#?}");
    assert!(report.outcome != Outcome::Ok && told.contains("where min-free wants 1 B"), "{told}");
    // The oldest of each would have gone after a new one. More room than theirs is wanted, and the rest stays.
    let after = copies();
    assert!(after.len() == 4 && after.iter().all(|copy| before.contains(copy)), "{after:?}");
    bench.run();
    assert_eq!(copies().iter().filter(|copy| after.contains(copy)).count(), 4);
    at_server(&bench, |server| server.world.pool.room = Some(20));
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    assert_eq!(copies().len(), before.len());
}

#[test]
fn a_policy_that_the_key_does_not_let_be_carried_out_is_said_and_every_copy_stays() {
    let bench = Bench::with_history_of(&SENT);
    at_server(&bench, |server| server.allowed = [Allow::List, Allow::Receive].into());
    let report = bench.run();
    assert_eq!(report.troubles, [Trouble::Environment], "{report:#?}");
    let told = format!("{report:#?}");
    assert!(told.contains("this key may not delete") && told.contains("append-only"), "{told}");
    assert_eq!(at_server(&bench, |server| server.world.pool.copies().count()), 6);
}

#[test]
fn a_dry_run_asks_for_nothing_that_changes_and_says_what_it_would_do() {
    let bench = Bench::with_history_of(&SENT);
    let planned = bench.only_planned();
    let count = |word: &str| planned.iter().filter(|it| it.contains(word)).count();
    assert_eq!(count("--allow receive"), 2, "{planned:#?}");
    assert_eq!(count("--based-on"), 2, "differences: {planned:#?}");
    assert_eq!(count("--allow delete"), 1, "the oldest of each: {planned:#?}");
}

#[test]
fn a_difference_to_a_copy_that_is_gone_there_is_never_asked_for() {
    let bench = Bench::with_history_of(&SENT);
    at_server(&bench, |server| {
        for copy in server.world.pool.subvolumes.values_mut() {
            copy.changed += 1;
        }
    });
    let (_, planned) = bench.plan();
    assert!(planned.iter().all(|line| !line.contains("--based-on")), "{planned:#?}");
    assert!(planned.iter().any(|line| line.contains("--allow receive")), "{planned:#?}");
}

#[test]
fn what_claims_to_be_a_copy_of_ours_is_no_base() {
    let bench = Bench::with_history_of(&SENT);
    no_difference_is_made_to_what_is_forged(&bench, pool_there);
}

#[test]
fn whoever_has_lost_his_history_sends_all() {
    let seed = Bench::with_history_of(&SENT);
    let bench = Bench::of(&SENT);
    *bench.host.world() = seed.host.world().clone();
    let (_, planned) = bench.plan();
    assert!(planned.iter().all(|line| !line.contains("--based-on")), "{planned:#?}");
    assert!(planned.iter().any(|line| line.contains("--allow receive")), "{planned:#?}");
}

#[test]
fn nothing_is_received_that_claims_to_be_what_is_there() {
    let bench = Bench::with_history_of(&SENT);
    let before = at_server(&bench, |server| server.world.pool.subvolumes.clone());
    let (name, base) = before.iter().next().unwrap();
    let name = name.file_name().unwrap().to_str().unwrap();
    // With the base itself, and without one.
    let ask = |sent: &str, base: &str| {
        format!(
            r#"{{"directory": "/pool", "ask": {{"receive": {{"host": "web1", "job": "host", "item": "/home", "run": "00000000", "machine": null, "time": "2026-11-27T01:02:03Z", "sent": "{sent}", "generation": {}, "base": {base}}}}}}}"#,
            before.values().next().unwrap().generation
        )
    };
    let quoted = format!("\"{name}\"");
    for (sent, based_on) in [
        (&base.sent, Some(&base.sent)),
        (&base.sent, None),
        (&base.uuid, Some(&base.sent)),
        (&base.uuid, None),
    ] {
        let json = ask(sent, if based_on.is_some() { &quoted } else { "null" });
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        let mut ssh = CommandSpec::new(Tool::Path("/usr/bin/ssh".into()), Effect::Mutate);
        ssh.input = Input::Bytes([b"stillpt\n\x01\0\0\0", &length[..], json.as_bytes()].concat());
        let stream = OnTheWay::claiming(sent, base.generation, based_on.map(String::as_str));
        let answer = at_server(&bench, |server| server.answer(&ssh, Some(stream)));
        assert!(answer.stderr.concat().contains(" already"), "{:?}", answer.stderr);
        assert_eq!(at_server(&bench, |server| server.world.pool.subvolumes.clone()), before);
    }
}

#[test]
fn a_difference_to_something_else_is_no_copy_and_all_is_sent() {
    let bench = Bench::with_history_of(&SENT);
    all_is_sent_where_a_difference_is_to_something_else(&bench, pool_there);
    assert_eq!(strays(&bench), [] as [PathBuf; 0]);
}

#[test]
fn a_check_is_of_the_copies_of_the_host_that_the_key_is_for() {
    let bench = Bench::with_history_of(&SENT);
    let checked = || {
        let engine = bench.pipeline().engine(&bench.config.targets[0]);
        let context = bench.pipeline().engine_context();
        let report = engine.check(context, ReadData::None, &mut |_| {}).unwrap();
        (report.damage, report.extent)
    };
    let spoil = |of: &str| {
        at_server(&bench, |server| {
            let name = format!("host@{of}._2fhome.20261121T020304Z.00000001.json");
            server.world.pool.write(&FakePool::own().join("copies").join(name), b"{");
        });
    };
    // Another host's, whole and not.
    at_server(&bench, |server| {
        let pool = &mut server.world.pool;
        let (path, copy) = pool.subvolumes.first_key_value().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let of_other = name.replace("web1", "web2");
        let record = |name: &str| FakePool::own().join(format!("copies/{name}.json"));
        let text = String::from_utf8(pool.file(&record(&name)).unwrap().clone()).unwrap();
        let (there, copy) = (path.with_file_name(&of_other), copy.clone());
        pool.write(&record(&of_other), text.replace("web1", "web2").as_bytes());
        pool.subvolumes.insert(there, copy);
    });
    spoil("web2");
    assert_eq!(checked(), (Vec::new(), "the records of 4 copies".to_owned()));
    spoil("web1");
    let (damage, _) = checked();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(damage[0].contains("host@web1._2fhome"), "{damage:?}");
}

fn theirs() -> Bench {
    theirs_in(&SENT, pool_there)
}

/// How many differences the next run would send.
fn differences(bench: &Bench) -> usize {
    bench.plan().1.iter().filter(|line| line.contains("--based-on")).count()
}

/// Whatever goes wrong on either side or on the way, a copy of another program's becomes ours with its data on the disk or
/// not at all, what becomes ours is pinned and no base, and another try takes the rest.
#[test]
fn adopting_what_another_program_received_there_at_any_fault() {
    for (terms, expected) in [(TERMS, 0), (Terms { proven: true, ..TERMS }, 2)] {
        let seed = theirs();
        let take_all = |bench: &Bench| take_all_on(bench, terms);
        let counted = seed.duplicate(&SENT);
        counted.host.arm(Fault::None);
        let theirs = counted.host.world().copies();
        assert_eq!(take_all(&counted).unwrap(), 6);
        assert_eq!(listed(&counted), (theirs.clone(), theirs.clone()));
        let (there, requests) =
            at_server(&counted, |server| (server.world.effects.clone(), server.requests.len()));
        for wanted in ["wait until the file system at /pool", "replace /pool/.stillpoint/copies/"] {
            assert!(there.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {there:#?}");
        }
        let look = |bench: &Bench, said: Option<Result<usize, String>>, after: &str| {
            at_server(bench, |server| {
                server.world.fault = None;
                server.mute = None;
            });
            assert_all_or_none(bench, terms, said.as_ref(), &theirs, after);
            assert_eq!(differences(bench), expected, "{after}");
        };
        let here = counted.host.world().effects.clone();
        assert!(here.iter().any(|effect| effect.contains("--allow adopt")), "{here:#?}");
        for (n, effect) in here.iter().enumerate() {
            let scene = || seed.duplicate(&SENT);
            loops::any_fault_at(scene, n, effect, take_all, |bench, _, said, after| {
                look(bench, said, after);
            });
        }
        let armed = || {
            let bench = seed.duplicate(&SENT);
            bench.host.arm(Fault::None);
            bench
        };
        for (n, what) in there.iter().enumerate() {
            for fault in Fault::deaths_at(n).into_iter().chain([Fault::Fail(n)]) {
                let bench = armed();
                at_server(&bench, |server| server.world.fault = Some(fault));
                let said = take_all(&bench);
                assert!(said.is_err(), "{fault:?} there ({what}) went unnoticed");
                look(&bench, Some(said), &format!("{fault:?} there ({what})"));
            }
        }
        for n in 0..requests {
            let bench = armed();
            at_server(&bench, |server| server.mute = Some(n));
            let said = take_all(&bench);
            look(&bench, Some(said), &format!("the answer to request {n} is lost"));
        }
    }
}

/// Whatever goes wrong there, a copy that was compared becomes a base or it does not, and another try has it become one.
#[test]
fn noting_there_that_a_copy_is_whole_at_any_fault() {
    let seed = theirs();
    assert_eq!(take_all_on(&seed, TERMS).unwrap(), 6);
    let duplicate = || {
        let bench = seed.duplicate(&SENT);
        bench.host.world().bases = 4;
        bench.host.arm(Fault::None);
        at_server(&bench, |server| server.world.effects.clear());
        bench
    };
    let counted = duplicate();
    prove_all(&counted).unwrap();
    assert_eq!(differences(&counted), 2);
    let effects = at_server(&counted, |server| server.world.effects.clone());
    for (n, what) in effects.iter().enumerate() {
        for fault in Fault::deaths_at(n).into_iter().chain([Fault::Fail(n)]) {
            let bench = duplicate();
            at_server(&bench, |server| server.world.fault = Some(fault));
            let after = format!("{fault:?} there ({what})");
            assert!(prove_all(&bench).is_err(), "{after} went unnoticed");
            at_server(&bench, |server| server.world.fault = None);
            assert!(differences(&bench) <= 2, "{after}");
            prove_all(&bench).unwrap();
            assert_eq!(differences(&bench), 2, "{after}");
        }
    }
}

fn record_of(name: &str) -> PathBuf {
    FakePool::own().join(format!("copies/{name}.json"))
}

#[test]
fn a_key_adopts_nothing_without_the_word_nor_anything_that_is_not_there() {
    let bench = theirs();
    let target = bench.config.targets[0].name.clone();
    let offered = || offers(bench.pipeline(), &target, &ALL).unwrap();
    assert_eq!((offered().copies.len(), offered().left.len()), (6, 0));
    let pool = || at_server(&bench, |server| server.world.pool.clone());
    let before = pool();
    let (path, other) = before.subvolumes.last_key_value().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let wanted = |name: &str, uuid: &str, generation: u64, host: &str| {
        format!(
            r#"{{"adopt": {{"copies": [{{"name": "{name}", "uuid": "{uuid}", "sent": "{}", "generation": {generation}, "time": "2026-11-27T01:02:03Z", "host": "{host}", "job": "host", "item": "/srv"}}]}}}}"#,
            other.sent
        )
    };
    let asks = |ask: &str| {
        let json = format!(r#"{{"directory": "/pool", "ask": {ask}}}"#);
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        let mut ssh = CommandSpec::new(Tool::Path("/usr/bin/ssh".into()), Effect::Mutate);
        ssh.input = Input::Bytes([b"stillpt\n\x01\0\0\0", &length[..], json.as_bytes()].concat());
        let answer = at_server(&bench, |server| server.answer(&ssh, None));
        String::from_utf8(answer.stdout).unwrap() + &answer.stderr.concat()
    };
    let genuine = wanted(name, &other.uuid, other.generation, "web1");
    let prove = format!(r#"{{"prove": {{"copy": "{name}"}}}}"#);
    let all = at_server(&bench, |server| server.allowed.clone());
    at_server(&bench, |server| server.allowed.retain(|allow| *allow != Allow::Adopt));
    for ask in [&*genuine, r#"{"others": {}}"#, &prove] {
        assert!(asks(ask).contains("may not adopt"), "{ask}");
    }
    let without = offered();
    assert!(without.copies.is_empty() && without.left[0].contains("may not adopt"), "{without:?}");
    at_server(&bench, |server| server.allowed = all);
    assert!(asks(&wanted(name, &other.uuid, other.generation, "web2")).contains("for copies of"));
    for odd in ["../srv.20260121", "/pool/srv.20260121", ".incoming.x", ".stillpoint", "a/../../b"]
    {
        let said = asks(&wanted(odd, &other.uuid, other.generation, "web1"));
        assert!(said.contains("cannot be read"), "{odd}: {said}");
    }
    let another = "00000000-0000-0000-0099-000000000000";
    for ask in [
        wanted(name, another, other.generation, "web1"),
        wanted(name, &other.uuid, other.generation + 1, "web1"),
        wanted("nothing", &other.uuid, other.generation, "web1"),
    ] {
        assert_eq!(asks(&ask), r#"{"copies":[]}"#, "{ask}");
    }
    assert!(asks(&prove).contains("is not there"));
    let records = |pool: &FakePool| pool.file(&record_of(name)).is_some();
    assert!(pool().subvolumes.keys().eq(before.subvolumes.keys()) && !records(&pool()));
    assert!(asks(&genuine).contains(name));
    // A time after its reception is none that it can stand for.
    let text = String::from_utf8(pool().file(&record_of(name)).unwrap().clone()).unwrap();
    assert!(
        !text.contains("2026-11-27T01:02:03Z") && text.contains("\"unproven\": true"),
        "{text}"
    );
    assert!(text.contains("\"pinned\": true"), "{text}");
    assert_eq!(asks(&genuine), r#"{"copies":[]}"#, "it is one already");
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
