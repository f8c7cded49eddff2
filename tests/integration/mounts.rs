//! A copy that is served as a file system, or shown where it is wanted, be it that it is received here for that, through
//! every fault: whatever dies and when, nothing stays mounted or received, and nobody else's mount goes.

use std::fs;
use std::path::Path;

use stillpoint::model::copy::Copy;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::target::Target;
use stillpoint::pipeline::mount::{Wanted, mount};
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::session::{Cleanup, LedgerDirectory, session};
use stillpoint::step::error::StepError;

use crate::faults::{Bench, LIVE, Scene};
use crate::loops;
use crate::stored_parts::CHAINED_PARTED;
use crate::stored_streams::{CHAINED, placeless};
use crate::subvolumes::SENT;
use crate::support::fake_host::{Fault, World};
use crate::support::fake_tree::FakeTree;
use crate::{plain, served};

const AT: &str = "/empty/copy";

/// One whose copies an engine serves, one whose copies are there, and those whose copies have to be received first: from
/// Stillpoint on a server, from btrfs-progs there, and from stored streams, into a directory that they name and into one
/// that they do not.
const SCENES: [&Scene; 7] = [&LIVE, &SENT, &SERVED, &PLAIN, &STORED, &CHAINED_PARTED, &PLACELESS];

const FETCHED: [&Scene; 5] = [&SERVED, &PLAIN, &STORED, &CHAINED_PARTED, &PLACELESS];

const SERVED: Scene = Scene { world: server, ..served::SENT };

const PLAIN: Scene = Scene { world: server, ..plain::SENT };

const STORED: Scene = CHAINED;

const PLACELESS: Scene = Scene { config: placeless, world: with_a_tree, ..CHAINED };

fn server() -> World {
    World { tree: FakeTree::mounted(), ..served::world() }
}

fn with_a_tree() -> World {
    World { tree: FakeTree::mounted(), ..(CHAINED.world)() }
}

/// Whether copies are shown, and not served.
fn is_shown(scene: &Scene) -> bool {
    target(scene).engine.name() != "borg"
}

/// Whether they are received for that.
fn is_fetched(scene: &Scene) -> bool {
    let target = target(scene);
    is_shown(scene) && !(target.engine.name() == "btrfs" && target.local.is_some())
}

fn target(scene: &Scene) -> Target {
    (scene.config)(Path::new("/state")).targets.remove(0)
}

/// Whether an effect is that which mounts a copy.
fn mounts(effect: &str) -> bool {
    effect.contains(" mount ") || effect.starts_with("show ")
}

fn newest(bench: &Bench) -> Copy {
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let copies = engine.list(bench.pipeline().engine_context()).unwrap();
    // A difference, where there are any.
    let found = copies.iter().find(|copy| copy.based_on.is_some()).or(copies.first());
    found.unwrap().clone()
}

type Mounted = Result<(Result<(), StepError>, Cleanup), StepError>;

/// A copy that is to be mounted, at a place that is named where the target does not say how much is fetched.
fn wanted(bench: &Bench) -> Wanted<'static> {
    let target = &bench.config.targets[0];
    let is_served = target.engine.name() == "btrfs" && target.local.is_none();
    let scratch = is_served.then_some(Path::new("/srv"));
    Wanted { at: Path::new(AT), scratch, ignore_space: false }
}

/// Mounts a copy, as the verb does.
fn serve(bench: &Bench, copy: &Copy) -> Mounted {
    serve_as(bench, copy, wanted(bench), || bench.host.world().is_told = true)
}

/// The same as this is wanted, with what a person does who sees it.
fn serve_as(bench: &Bench, copy: &Copy, wanted: Wanted<'_>, ready: impl Fn() + Sync) -> Mounted {
    bench.host.world().is_told = false;
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    session(bench.pipeline(), &RunId::from_bytes([9; 4]), LedgerDirectory::State, |cx| {
        mount(cx, engine, copy, wanted, &ready)
    })
}

fn effects(scene: &Scene, seed: &Bench, copy: &Copy) -> Vec<String> {
    let bench = seed.duplicate(scene);
    bench.host.arm(Fault::None);
    let (served, cleanup) = serve(&bench, copy).unwrap();
    served.unwrap();
    assert_eq!(cleanup, Cleanup::default());
    bench.assert_released("a good end");
    let effects = bench.host.world().effects.clone();
    assert_eq!(effects.iter().filter(|effect| mounts(effect)).count(), 1, "{effects:?}");
    effects
}

/// Serves until the fault that the host is armed with ends it.
fn die(bench: &Bench, copy: &Copy) {
    let said = loops::unless_we_die(|| serve(bench, copy));
    assert!(said.is_none(), "it lived on");
}

#[track_caller]
fn recovers(bench: &Bench, after: &str) {
    bench.host.arm(Fault::None);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
    bench.assert_released(after);
}

/// What is mounted by anybody.
fn mounted(bench: &Bench) -> Vec<String> {
    let mut held = bench.host.world().held();
    held.retain(|held| held.starts_with("mount "));
    held
}

#[test]
fn a_failure_of_any_effect_leaves_nothing() {
    SCENES.iter().for_each(|scene| failing_any_effect(scene));
}

fn failing_any_effect(scene: &Scene) {
    let seed = Bench::with_history_of(scene);
    let copy = newest(&seed);
    for (n, what) in effects(scene, &seed, &copy).iter().enumerate() {
        // Where nothing ends with it, a person who fails to unmount it tries again; and what is not deleted is so with
        // all that is left.
        let is_tried_again = is_shown(scene) && what == "a person unmounts it"
            || is_fetched(scene) && what.starts_with("delete the subvolume");
        for fault in [Fault::Fail(n), Fault::Signal(n)] {
            let bench = seed.duplicate(scene);
            bench.host.arm(fault);
            let after = format!("{fault:?} ({what})");
            // A session that does not begin says so.
            if let Ok((served, cleanup)) = serve(&bench, &copy) {
                let is_told = served.is_err() || !cleanup.leftovers.is_empty();
                let is_quiet = is_tried_again || matches!(fault, Fault::Signal(_));
                assert!(is_told || is_quiet, "{after} went unnoticed");
                if mounts(what) && fault == Fault::Signal(n) {
                    assert_eq!(served.unwrap_err().trouble, Trouble::Signal(15), "{after}");
                }
            }
            recovers(&bench, &after);
        }
    }
}

#[test]
fn a_run_goes_on_beside_what_was_received() {
    for scene in FETCHED {
        let bench = Bench::with_history_of(scene);
        let copy = newest(&bench);
        bench.host.arm(Fault::None);
        let ready = || {
            let received = |effect: &&String| effect.contains("btrfs receive");
            let received = bench.host.world().effects.iter().filter(received).count();
            assert_eq!(received, if copy.based_on.is_some() { 2 } else { 1 });
            let run = bench.run();
            assert_eq!((&run.outcome, &run.troubles[..]), (&Outcome::Ok, &[][..]), "{run:#?}");
            let there: Vec<String> = bench.host.world().held();
            assert!(there.iter().any(|held| held.contains("mount 100 at")), "{there:?}");
            bench.host.world().is_told = true;
        };
        let (mounted, cleanup) = serve_as(&bench, &copy, wanted(&bench), ready).unwrap();
        mounted.unwrap();
        assert_eq!(cleanup, Cleanup::default());
        bench.assert_released("a good end");
    }
}

/// What makes it too full where copies are received.
type Filling = fn(&mut FakeTree);

/// While it comes; only when all of it is on the disk; and when so much has come that it may be too full when that is on the
/// disk: a twentieth of a thousand bytes stays free.
const FILLINGS: [(Filling, bool); 3] = [
    (|tree| tree.free = Some(49), false),
    (|tree| tree.left = Some(49), true),
    (|tree| (tree.free, tree.left) = (Some(149), Some(49)), true),
];

/// How often what was received was written out.
fn flushes(bench: &Bench) -> usize {
    let world = bench.host.world();
    let of_it = |effect: &&String| {
        effect.starts_with("wait until") && effect.contains(".stillpoint-mounted-")
    };
    world.effects.iter().filter(of_it).count()
}

#[test]
fn what_has_come_is_written_out_meanwhile_only_where_it_may_be_too_much() {
    for scene in FETCHED {
        let seed = Bench::with_history_of(scene);
        let copy = newest(&seed);
        let streams = if copy.based_on.is_some() { 2 } else { 1 };
        // Each of them has a hundred bytes, and fifty stay free.
        for (free, meanwhile) in [(None, 0), (Some(100 * streams + 50), 0), (Some(149), streams)] {
            let bench = seed.duplicate(scene);
            bench.host.world().tree.free = free;
            bench.host.arm(Fault::None);
            serve(&bench, &copy).unwrap().0.unwrap();
            assert_eq!(flushes(&bench) as u64, meanwhile + 1, "{free:?}");
            bench.assert_released("a good end");
        }
    }
}

#[test]
fn what_fills_the_place_where_it_is_received_is_ended_whatever_the_target_says() {
    for scene in FETCHED {
        let seed = Bench::with_history_of(scene);
        let copy = newest(&seed);
        for (fill, is_flushed) in FILLINGS {
            let full = || {
                let bench = seed.duplicate(scene);
                fill(&mut bench.host.world().tree);
                bench.host.arm(Fault::None);
                bench
            };
            let bench = full();
            let (mounted, cleanup) = serve(&bench, &copy).unwrap();
            let error = mounted.unwrap_err();
            assert_eq!(error.trouble, Trouble::JobFailed, "{error}");
            for words in ["there is no room at", "49 B free where 50 B stay free", "--scratch DIR"]
            {
                assert!(error.message.contains(words), "{words}: {error}");
            }
            assert_eq!(cleanup, Cleanup::default());
            bench.assert_released("it was too full");
            let effects = bench.host.world().effects.clone();
            assert!(effects.iter().any(|it| it.contains("btrfs receive")), "{effects:?}");
            assert!(!effects.iter().any(|it| mounts(it)), "{effects:?}");
            assert_eq!(flushes(&bench) > 0, is_flushed, "{effects:?}");
            // Nothing that ends us meanwhile leaves anything either.
            for (n, what) in effects.iter().enumerate() {
                for fault in Fault::all_at(n) {
                    let bench = full();
                    bench.host.arm(fault);
                    let _ = loops::unless_we_die(|| serve(&bench, &copy));
                    recovers(&bench, &format!("{fault:?} ({what})"));
                }
            }
            // Who wants all of it gets it.
            let bench = full();
            let all = Wanted { ignore_space: true, ..wanted(&bench) };
            let ready = || bench.host.world().is_told = true;
            serve_as(&bench, &copy, all, ready).unwrap().0.unwrap();
            bench.assert_released("it took all");
        }
    }
}

#[test]
fn what_nobody_knows_the_size_of_is_received_where_somebody_wants_it() {
    for scene in [&SERVED, &PLAIN] {
        let bench = Bench::with_history_of(scene);
        let copy = newest(&bench);
        let anywhere = Wanted { scratch: None, ..wanted(&bench) };
        let (mounted, cleanup) =
            serve_as(&bench, &copy, anywhere, || panic!("it is there")).unwrap();
        let error = mounted.unwrap_err();
        assert_eq!(error.trouble, Trouble::Environment, "{error}");
        for words in ["does not say how much", "nothing was fetched", "--scratch", "--ignore-space"]
        {
            assert!(error.message.contains(words), "{words}: {error}");
        }
        assert_eq!(cleanup, Cleanup::default());
        let effects = bench.host.world().effects.clone();
        assert!(!effects.iter().any(|it| it.contains("btrfs receive")), "{effects:?}");
        bench.assert_released("nothing was fetched");
        let all = Wanted { ignore_space: true, ..anywhere };
        let ready = || bench.host.world().is_told = true;
        serve_as(&bench, &copy, all, ready).unwrap().0.unwrap();
        bench.assert_released("it took all");
    }
}

#[test]
fn a_read_only_subvolume_is_no_place_where_there_is_another() {
    let seed = Bench::with_history_of(&PLACELESS);
    let copy = newest(&seed);
    let mut read_only = None;
    let mut received = || {
        let bench = seed.duplicate(&PLACELESS);
        bench.host.world().tree.read_only.clone_from(&read_only);
        bench.host.arm(Fault::None);
        serve(&bench, &copy).unwrap().0.unwrap();
        let effects = bench.host.world().effects.clone();
        let made = |it: &String| {
            Some(it.strip_prefix("create ")?.split_once("/.stillpoint-mounted-")?.0.to_owned())
        };
        let into = effects.iter().find_map(made).unwrap();
        read_only = Some(Path::new("/").join(&into));
        into
    };
    assert_ne!(received(), received());
}

#[test]
fn what_somebody_sees_elsewhere_is_not_deleted() {
    const THEIRS: &str = "/elsewhere";
    for scene in FETCHED {
        let bench = Bench::with_history_of(scene);
        let copy = newest(&bench);
        bench.host.arm(Fault::None);
        let ready = || {
            let mut world = bench.host.world();
            let received = world.mounts.last().unwrap().root.clone();
            world.show(&received, Path::new(THEIRS));
            world.mounts.last_mut().unwrap().id = 200;
            world.is_told = true;
        };
        let (mounted, cleanup) = serve_as(&bench, &copy, wanted(&bench), ready).unwrap();
        mounted.unwrap();
        let [left] = &cleanup.leftovers[..] else { panic!("{cleanup:?}") };
        assert!(left.message.contains(&format!("still mounted at {THEIRS}")), "{left:?}");
        let effects = bench.host.world().effects.clone();
        assert!(!effects.iter().any(|it| it.starts_with("delete the subvolume")), "{effects:?}");
        let held = bench.host.world().held();
        let is_it = |it: &&String| it.contains(".stillpoint-mounted-") && it.contains("/copy");
        let copies = held.iter().filter(|it| !it.starts_with("mount ")).filter(is_it);
        assert_eq!(copies.count(), 1, "{held:?}");
        bench.host.world().unmount(Path::new(THEIRS));
        recovers(&bench, "nobody sees it any more");
    }
}

#[test]
fn a_killed_engine_leaves_nothing_mounted() {
    let seed = Bench::with_history();
    let copy = newest(&seed);
    let effects = effects(&LIVE, &seed, &copy);
    let n = effects.iter().position(|effect| effect == "a person unmounts it").unwrap();
    seed.host.arm(Fault::Fail(n));
    let (served, cleanup) = serve(&seed, &copy).unwrap();
    assert!(served.unwrap_err().message.contains("killed by signal 9"));
    assert_eq!(cleanup, Cleanup::default());
    seed.assert_released("the engine was killed");
}

#[test]
fn a_death_at_any_effect_is_recovered_from_whatever_fails_meanwhile() {
    SCENES.iter().for_each(|scene| dying_at_any_effect(scene));
}

fn dying_at_any_effect(scene: &Scene) {
    let seed = Bench::with_history_of(scene);
    let copy = newest(&seed);
    for (n, what) in effects(scene, &seed, &copy).iter().enumerate() {
        for fault in Fault::deaths_at(n) {
            let dead = || {
                let bench = seed.duplicate(scene);
                bench.host.arm(fault);
                die(&bench, &copy);
                bench
            };
            let after = format!("{fault:?} ({what})");
            let recover = |bench: &Bench| recover(bench.pipeline());
            loops::failing_any_effect_of_recovering(dead, &after, recover, |_, _| ());
        }
    }
}

#[test]
fn a_ledger_cut_off_after_any_line_is_recovered_from() {
    SCENES.iter().for_each(|scene| cutting_the_ledger(scene));
}

fn cutting_the_ledger(scene: &Scene) {
    let seed = Bench::with_history_of(scene);
    let copy = newest(&seed);
    let effects = effects(scene, &seed, &copy);
    let n = effects.iter().position(|effect| effect == "a person unmounts it").unwrap();
    seed.host.arm(Fault::KillBefore(n));
    die(&seed, &copy);
    let ledger = seed.ledgers().remove(0);
    let whole = fs::read_to_string(&ledger).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let intent = lines.iter().position(|line| line.contains("unmount")).unwrap();
    assert!(lines[intent + 1..].iter().any(|line| line.contains("mount")), "no identity: {whole}");
    // What comes before the intent, the staging directory, has loops of its own.
    for keep in intent + 1..=lines.len() {
        for torn in ["", "{\"made\":{\"ent"] {
            let bench = seed.duplicate(scene);
            bench.host.arm(Fault::None);
            let cut = lines[..keep].join("\n") + "\n" + torn;
            fs::create_dir_all(bench.state.path().join("ledger")).unwrap();
            let name = ledger.file_name().unwrap();
            fs::write(bench.state.path().join("ledger").join(name), cut).unwrap();
            recovers(&bench, &format!("{keep} lines, torn: {torn:?}"));
        }
    }
}

#[test]
fn what_others_mount_there_stays() {
    SCENES.iter().for_each(|scene| others_stay(scene));
}

fn others_stay(scene: &Scene) {
    let seed = Bench::with_history_of(scene);
    let copy = newest(&seed);
    let effects = effects(scene, &seed, &copy);
    let served = effects.iter().position(|effect| mounts(effect)).unwrap();
    // With and without the record of which mount is ours.
    for fault in [Fault::KillBefore(served + 1), Fault::KillAfter(served)] {
        // A copy that a person has mounted there is gone before; something else lies there now.
        let bench = seed.duplicate(scene);
        bench.host.arm(fault);
        die(&bench, &copy);
        let mut world = bench.host.world();
        world.unmount(Path::new(AT));
        world.serve(Path::new(AT));
        let theirs = world.mounts.last_mut().unwrap();
        theirs.id = 200;
        theirs.source = "sshfs".into();
        drop(world);
        bench.host.arm(Fault::None);
        assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
        assert_eq!(mounted(&bench), [format!("mount 200 at {AT}")]);
        assert_eq!(bench.ledgers().len(), 0);

        // Something of theirs lies over ours: ours is told, and released when theirs is gone.
        let bench = seed.duplicate(scene);
        bench.host.arm(fault);
        die(&bench, &copy);
        let mut world = bench.host.world();
        let mut theirs = world.mounts.last().unwrap().clone();
        (theirs.id, theirs.file_system) = (200, "ext4".into());
        theirs.options = "rw".into();
        world.mounts.push(theirs);
        let mounted = world.mounts.len();
        drop(world);
        bench.host.arm(Fault::None);
        let failures = recover(bench.pipeline()).unwrap().failures;
        assert!(failures[0].message.contains("something else is mounted over"), "{failures:?}");
        assert_eq!(bench.host.world().mounts.len(), mounted);
        bench.host.world().unmount(Path::new(AT));
        recovers(&bench, "theirs is gone");
    }
    // One of the engine's kind that was there before ours came is not ours.
    let bench = seed.duplicate(scene);
    match is_shown(scene) {
        true => drop(bench.host.world().show(Path::new("/pool/of-a-person"), Path::new(AT))),
        false => bench.host.world().serve(Path::new(AT)),
    }
    bench.host.arm(Fault::KillBefore(served));
    die(&bench, &copy);
    bench.host.arm(Fault::None);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, []);
    assert_eq!(mounted(&bench), [format!("mount 100 at {AT}")]);
}
