//! A subvolume that changes places with its copy, through every fault: the place holds the old or the new, whole, and
//! nothing of ours is left anywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stillpoint::host::dry::DryHost;
use stillpoint::model::job::{Config, Source};
use stillpoint::model::names::RunId;
use stillpoint::pipeline::query::Query;
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::restore::as_subvolume::{RestoredSubvolume, restore_as_subvolume};
use stillpoint::pipeline::session::{Cleanup, LedgerDirectory, session};
use stillpoint::step::context::Pipeline;
use stillpoint::step::error::StepError;

use crate::faults::{Bench, Scene};
use crate::loops;
use crate::stored_streams::CHAINED;
use crate::subvolumes::SENT;
use crate::support::fake_host::{Fault, World};
use crate::support::fake_tree::{FakeTree, Node};

type Restored = Result<(Result<RestoredSubvolume, StepError>, Cleanup), StepError>;

/// Restores the newest copy of `/home` as a subvolume, as the verb does.
fn restore(pipeline: Pipeline<'_>, to: Option<&str>) -> Restored {
    restore_on(pipeline, to, false)
}

/// The same, and on whatever is free if that is asked for.
fn restore_on(pipeline: Pipeline<'_>, to: Option<&str>, ignore_space: bool) -> Restored {
    let job = &pipeline.config.jobs[0].name;
    let query = Query { job, host: None, target: None, item: Some("/home") };
    session(pipeline, &RunId::from_bytes([9; 4]), LedgerDirectory::StateElseRuntime, |cx| {
        restore_as_subvolume(cx, &query, "latest", (to.map(Path::new), ignore_space))
    })
}

/// The two, and one that lies in the first of them.
const NESTED: Scene = Scene { config: nested_config, world: nested_world, kept: 6, ..SENT };

/// The same from stored streams: the newest copies are differences.
const STORED: Scene = Scene { config: stored_config, world: stored_world, kept: 9, ..CHAINED };

const SCENES: [&Scene; 2] = [&NESTED, &STORED];

const INNER: &str = "/home/inner";

fn nested_config(state: &Path) -> Config {
    with_inner((SENT.config)(state))
}

fn stored_config(state: &Path) -> Config {
    with_inner((CHAINED.config)(state))
}

fn with_inner(mut config: Config) -> Config {
    let Source::Subvolumes(source) = &mut config.jobs[0].source else { panic!("of another kind") };
    source.paths.push(INNER.into());
    config
}

fn nested_world() -> World {
    nested_in((SENT.world)())
}

fn stored_world() -> World {
    nested_in(World { tree: FakeTree::mounted(), ..(CHAINED.world)() })
}

fn nested_in(mut world: World) -> World {
    world.btrfs.subvolumes.insert(INNER.into(), format!("{INNER}-uuid"));
    world.btrfs.nested.insert("/home".into(), vec![INNER.into()]);
    world.tree.nest("@home/inner");
    world
}

/// Where it goes: to its original place, and to a new one.
const PLACES: [Option<&str>; 2] = [None, Some("/srv/missing")];

/// What a good restore does.
fn effects(seed: &Bench, scene: &Scene, to: Option<&str>) -> Vec<String> {
    let bench = seed.duplicate(scene);
    bench.host.arm(Fault::None);
    let (restored, cleanup) = restore(bench.pipeline(), to).unwrap();
    let restored = restored.unwrap();
    assert_eq!((cleanup, restored.warnings), (Cleanup::default(), Vec::new()));
    bench.assert_released("a good end");
    assert_eq!(state(&bench, to, "a good end"), State::New);
    assert!(bench.host.world().tree.nodes.contains_key(&place(to).join("inner")));
    let effects = bench.host.world().effects.clone();
    for wanted in ["btrfs receive", "make the writable", "delete the subvolume", "move the"] {
        assert!(effects.iter().any(|it| it.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
    assert_eq!(effects.iter().any(|it| it.starts_with("exchange")), to.is_none());
    effects
}

/// Where that is, from the top-level subvolume on.
fn place(to: Option<&str>) -> PathBuf {
    PathBuf::from(if to.is_some() { "@srv/missing" } else { "@home" })
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Old,
    New,
}

/// What a place holds, which is whole.
#[track_caller]
fn state(bench: &Bench, to: Option<&str>, after: &str) -> State {
    let world = bench.host.world();
    let place = place(to);
    let aside =
        |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().contains(".before-restore.");
    let asides: Vec<&PathBuf> = world.tree.nodes.keys().filter(aside).collect();
    let Some(there) = world.tree.nodes.get(&place) else {
        assert!(to.is_some(), "{after}: nothing is left");
        return State::Old;
    };
    assert!(!there.is_emptied && !there.read_only, "{after}: {there:?}");
    // What lies in the one or the other is of the same kind.
    let inner = world.tree.nodes.get(&place.join("inner"));
    let lives = |node: &Node| node.content == "what lives";
    assert!(inner.is_none_or(|it| !it.is_emptied && !it.read_only), "{after}: {inner:?}");
    assert!(inner.is_none_or(|it| lives(it) == lives(there)), "{after}: {inner:?}");
    if there.content == "what lives" {
        assert_eq!(asides, [] as [&PathBuf; 0], "{after}");
        assert!(inner.is_some(), "{after}");
        return State::Old;
    }
    if to.is_none() {
        let [aside] = asides[..] else { panic!("{after}: {asides:?}") };
        for aside in [aside, &aside.join("inner")] {
            assert!(lives(&world.tree.nodes[aside]), "{after}");
        }
    }
    State::New
}

#[track_caller]
fn recovers(bench: &Bench, to: Option<&str>, after: &str) -> State {
    bench.host.arm(Fault::None);
    assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
    bench.assert_released(after);
    state(bench, to, after)
}

#[test]
fn what_fills_the_file_system_is_ended_and_changes_nothing() {
    for (scene, to) in SCENES.into_iter().flat_map(|scene| PLACES.map(|to| (scene, to))) {
        let seed = Bench::with_history_of(scene);
        let full = || {
            let bench = seed.duplicate(scene);
            bench.host.world().tree.free = Some(49);
            bench.host.arm(Fault::None);
            bench
        };
        let bench = full();
        let (restored, cleanup) = restore(bench.pipeline(), to).unwrap();
        let error = restored.unwrap_err();
        assert!(error.message.contains("unless --ignore-space is given"), "{error}");
        assert_eq!(cleanup, Cleanup::default());
        bench.assert_released("it was too full");
        assert_eq!(state(&bench, to, "it was too full"), State::Old);
        let effects = bench.host.world().effects.clone();
        assert!(effects.iter().any(|it| it.starts_with("btrfs receive")), "{effects:?}");
        let bench = full();
        restore_on(bench.pipeline(), to, true).unwrap().0.unwrap();
        bench.assert_released("it took all");
        assert_eq!(state(&bench, to, "it took all"), State::New);
    }
}

#[test]
fn what_would_fill_it_within_keeps_the_whole_from_its_place() {
    for (scene, to) in SCENES.into_iter().flat_map(|scene| PLACES.map(|to| (scene, to))) {
        let seed = Bench::with_history_of(scene);
        let receives = |it: &&String| it.starts_with("btrfs receive");
        let count = effects(&seed, scene, to).iter().filter(receives).count();
        let bench = seed.duplicate(scene);
        bench.host.world().tree.left_behind = Some((count, 49));
        bench.host.arm(Fault::None);
        let (restored, cleanup) = restore(bench.pipeline(), to).unwrap();
        let error = restored.unwrap_err();
        assert!(error.message.contains("49 B free where 50 B stay free"), "{error}");
        assert_eq!(cleanup, Cleanup::default());
        let effects = bench.host.world().effects.clone();
        assert_eq!(effects.iter().filter(receives).count(), count, "{effects:?}");
        bench.assert_released("it was too full within");
        assert_eq!(state(&bench, to, "it was too full within"), State::Old);
    }
}

#[test]
fn what_is_left_of_what_fails_within_goes_before_the_whole_takes_its_place() {
    for scene in SCENES {
        let seed = Bench::with_history_of(scene);
        let effects = effects(&seed, scene, None);
        let made = |(_, what): &(usize, &String)| what.starts_with("make the writable");
        let (n, _) = effects.iter().enumerate().filter(made).nth(1).unwrap();
        let bench = seed.duplicate(scene);
        bench.host.arm(Fault::Fail(n));
        let restored = restore(bench.pipeline(), None).unwrap().0.unwrap();
        assert!(restored.warnings[0].contains("--item /home/inner"), "{restored:#?}");
        let effects = bench.host.world().effects.clone();
        let deleted = effects
            .iter()
            .skip(n)
            .position(|it| it.starts_with("delete the subvolume") && it.ends_with("/1"));
        let moved = effects.iter().skip(n).position(|it| it.starts_with("move the"));
        assert!(deleted.is_some_and(|it| Some(it) < moved), "{effects:#?}");
        assert_eq!(recovers(&bench, None, "a good end"), State::New);
    }
}

#[test]
fn what_somebody_sees_of_the_staging_directory_stays() {
    for to in PLACES {
        let bench = Bench::with_history_of(&NESTED);
        let seen = Path::new("/@/.stillpoint-restore-09090909/x");
        bench.host.world().show(seen, Path::new("/theirs"));
        bench.host.arm(Fault::None);
        let (restored, cleanup) = restore(bench.pipeline(), to).unwrap();
        restored.unwrap();
        let [left] = &cleanup.leftovers[..] else { panic!("{cleanup:?}") };
        assert!(left.message.contains("still mounted at /theirs"), "{left:?}");
        let effects = bench.host.world().effects.clone();
        let removes = |it: &String| it.starts_with("remove ") && it.contains(".stillpoint-");
        assert!(!effects.iter().any(removes), "{effects:?}");
        assert_eq!(state(&bench, to, "a good end"), State::New);
        bench.host.world().unmount(Path::new("/theirs"));
        assert_eq!(recovers(&bench, to, "nobody sees it any more"), State::New);
    }
}

#[test]
fn whatever_happens_the_place_holds_the_old_or_the_new() {
    for (scene, to) in SCENES.into_iter().flat_map(|scene| PLACES.map(|to| (scene, to))) {
        let seed = Bench::with_history_of(scene);
        let bench = || seed.duplicate(scene);
        let work = |bench: &Bench| restore(bench.pipeline(), to);
        for (n, what) in effects(&seed, scene, to).iter().enumerate() {
            loops::any_fault_at(bench, n, what, work, |bench, fault, said, after| {
                let after = format!("{after}, to {to:?}");
                let found = state(bench, to, &after);
                match said {
                    Some(Ok((restored, cleanup))) => {
                        assert!(restored.is_err() || found == State::New, "{after}");
                        if matches!(fault, Fault::Signal(_)) {
                            assert_eq!(cleanup.leftovers, [], "{after}");
                            return;
                        }
                        let is_told = restored.map_or(true, |it| !it.warnings.is_empty())
                            || cleanup.volatile.is_some()
                            || !cleanup.leftovers.is_empty();
                        assert!(is_told, "{after} went unnoticed");
                    }
                    // The session itself did not begin.
                    Some(Err(_)) => assert_eq!(found, State::Old, "{after}"),
                    // It died.
                    None => {}
                }
            });
        }
    }
}

#[test]
fn a_recovery_that_fails_itself_is_recovered_from() {
    let seed = Bench::with_history_of(&NESTED);
    for to in PLACES {
        for (n, what) in effects(&seed, &NESTED, to).iter().enumerate() {
            for fault in [Fault::KillAfter(n), Fault::CutAfter(n)] {
                let dead = || {
                    let bench = seed.duplicate(&NESTED);
                    bench.host.arm(fault);
                    let said = loops::unless_we_die(|| restore(bench.pipeline(), to));
                    assert!(said.is_none(), "it lived on");
                    bench
                };
                let after = format!("{fault:?} ({what})");
                let recover = |bench: &Bench| recover(bench.pipeline());
                loops::failing_any_effect_of_recovering(dead, &after, recover, |bench, after| {
                    // What the ledger still holds is on its way.
                    if bench.ledgers().is_empty() {
                        state(bench, to, after);
                    }
                });
            }
        }
    }
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_it_would_do() {
    let seed = Bench::with_history_of(&NESTED);
    for to in PLACES {
        let wanted = effects(&seed, &NESTED, to);
        let bench = seed.duplicate(&NESTED);
        bench.host.arm(Fault::None);
        let dry = DryHost::new(Arc::new(bench.host.clone()));
        let (restored, _) = restore(Pipeline { host: &dry, ..bench.pipeline() }, to).unwrap();
        restored.unwrap();
        assert_eq!(bench.host.world().effects, [] as [String; 0]);
        let planned: Vec<String> = dry.planned().iter().map(ToString::to_string).collect();
        for kind in ["make the writable", "move the", "exchange the", "delete the subvolume"] {
            let count = |all: &[String]| all.iter().filter(|it| it.starts_with(kind)).count();
            assert_eq!(count(&planned), count(&wanted), "{kind}: {planned:#?}");
        }
    }
}

#[test]
fn what_fails_within_does_not_keep_the_whole_from_its_place() {
    let seed = Bench::with_history_of(&NESTED);
    let effects = effects(&seed, &NESTED, None);
    let received = |(_, what): &(usize, &String)| what.contains("btrfs receive");
    let (n, _) = effects.iter().enumerate().filter(received).nth(1).unwrap();
    let bench = seed.duplicate(&NESTED);
    bench.host.arm(Fault::Fail(n));
    let restored = restore(bench.pipeline(), None).unwrap().0.unwrap();
    assert!(restored.warnings[0].contains("--item /home/inner"), "{restored:#?}");
    assert!(restored.warnings.iter().any(|it| it.contains("/home/inner stays in what was there")));
    assert_eq!(recovers(&bench, None, "a good end"), State::New);
}

#[test]
fn what_has_a_place_of_its_own_is_not_even_received() {
    let bench = Bench::with_history_of(&NESTED);
    bench.host.world().tree.taken = Some("inner".into());
    bench.host.arm(Fault::None);
    let restored = restore(bench.pipeline(), None).unwrap().0.unwrap();
    assert!(restored.notes[0].contains("--item /home/inner"), "{restored:#?}");
    let received = bench.host.world().effects.iter().filter(|it| it.contains("receive")).count();
    assert_eq!(received, 1);
}

#[test]
fn what_the_run_did_not_copy_is_missed() {
    let bench = Bench::with_history_of(&SENT);
    let bench = bench.duplicate(&NESTED);
    bench.host.arm(Fault::None);
    let restored = restore(bench.pipeline(), None).unwrap().0.unwrap();
    let missed = "made none of /home/inner";
    assert!(restored.warnings[0].contains(missed), "{restored:#?}");
    bench.host.world().tree.taken = Some("inner".into());
    let restored = restore(bench.pipeline(), Some("/srv/missing")).unwrap().0.unwrap();
    assert!(!restored.warnings.iter().any(|it| it.contains(missed)), "{restored:#?}");
}
