//! What goes wrong while copies are adopted: all of them are, or none, and another try takes the rest.

use stillpoint::model::copy::Copy;
use stillpoint::model::names::RunId;
use stillpoint::model::outcome::Outcome;
use stillpoint::pipeline::adopt::{By, Offers, Request, Terms, adopt, offers};
use stillpoint::pipeline::query::{self, Query};
use stillpoint::pipeline::session::{LedgerDirectory, session};
use stillpoint::pipeline::verify::prove;
use stillpoint::step::context::RunContext;
use stillpoint::step::error::StepError;

use crate::faults::{Bench, LIVE, Scene, in_a_session};
use crate::loops;
use crate::subvolumes::{SENT, differences};
use crate::support::fake_host::{Fault, World};
use crate::support::fake_pool::FakePool;

/// Everything that is this machine's.
pub const ALL: Request<'static> =
    Request { job: None, item: None, host: None, from_job: None, machine: None, copies: &[] };

/// What other programs made is pinned, and proven by nobody.
pub const TERMS: Terms = Terms { pinned: true, proven: false };

/// A machine whose history is lost, in front of the two copies that it made.
fn lost() -> Bench {
    let lost = Bench::of(&LIVE);
    *lost.host.world() = Bench::with_history().host.world().clone();
    lost.host.arm(Fault::None);
    lost
}

/// What the verb does, in a session of its own.
fn take_all(bench: &Bench) -> Result<usize, String> {
    take_all_on(bench, TERMS)
}

pub fn take_all_on(bench: &Bench, terms: Terms) -> Result<usize, String> {
    let target = &bench.config.targets[0].name;
    let offered = offers(bench.pipeline(), target, &ALL).map_err(|error| error.message)?.copies;
    let work = |cx: RunContext<'_>| adopt(cx, bench.engines[target].as_ref(), &offered, terms);
    let run = RunId::parse("00000abd").unwrap();
    let (adopted, _) = session(bench.pipeline(), &run, LedgerDirectory::State, work)
        .map_err(|error| error.message)?;
    adopted.map_err(|error| error.message)
}

fn ours(bench: &Bench) -> usize {
    let engine = bench.engines.values().next().unwrap();
    let mut listed = engine.list(bench.pipeline().engine_context()).unwrap();
    bench.history.enrich(&bench.config.targets[0].name, &mut listed).unwrap();
    listed.iter().filter(|copy| copy.ours).count()
}

fn theirs() -> Bench {
    theirs_in(&SENT, |world| &mut world.pool)
}

/// Two subvolumes, of which another program has made two copies each in this directory. What it received last is on no disk
/// yet.
pub fn theirs_in(scene: &Scene, pool: fn(&mut World) -> &mut FakePool) -> Bench {
    let bench = Bench::of(scene);
    let mut world = bench.host.world();
    for (n, path) in ["/home", "/srv"].into_iter().enumerate() {
        // Of an earlier one the snapshot is gone, and that to which it is a difference.
        let gone = format!("00000000-0000-0000-0009-{n:012}");
        let name = format!("{}.20251{n}01T1200", &path[1..]);
        let gone_too = Some(gone.replace("0009", "0008"));
        let mut base = Some(pool(&mut world).somebody_elses(&name, &gone, 3, gone_too, true));
        for day in [20, 21] {
            let name = format!("{}.202601{day}", &path[1..]);
            let (sent, generation) = world.btrfs.somebody_elses(&name, &format!("{path}-uuid"));
            let pool = pool(&mut world);
            base = Some(pool.somebody_elses(&name, &sent, generation, base, day == 20));
        }
    }
    // Those stay whatever we do.
    world.bases = 4;
    drop(world);
    bench.host.arm(Fault::None);
    bench
}

/// The ids of all copies that are pinned, and of those that are ours.
pub fn listed(bench: &Bench) -> (Vec<String>, Vec<String>) {
    let engine = bench.engines.values().next().unwrap();
    let mut listed = engine.list(bench.pipeline().engine_context()).unwrap();
    bench.history.enrich(&bench.config.targets[0].name, &mut listed).unwrap();
    let ids = |is_so: fn(&Copy) -> bool| {
        listed.iter().filter(|copy| is_so(copy)).map(|copy| copy.id.clone()).collect()
    };
    (ids(|copy| copy.pinned), ids(|copy| copy.ours))
}

/// After a try of adopting what another program made, all of it is ours and pinned or none of it is, and another try takes the
/// rest.
#[track_caller]
pub fn assert_all_or_none(
    bench: &Bench,
    terms: Terms,
    said: Option<&Result<usize, String>>,
    theirs: &[String],
    after: &str,
) {
    let (pinned, taken) = listed(bench);
    assert!(taken.iter().all(|id| pinned.contains(id)), "{after}: {pinned:?}, {taken:?}");
    let went_well = matches!(said, Some(Ok(_)));
    assert!(taken.len() == 6 || (taken.is_empty() && !went_well), "{after}: {said:?}");
    assert_eq!(take_all_on(bench, terms).unwrap(), 6 - taken.len(), "{after}");
    assert_eq!(bench.host.world().copies(), theirs, "{after}: nothing is renamed");
    assert_eq!(listed(bench), (theirs.to_vec(), theirs.to_vec()), "{after}");
}

/// Notes of every copy that it is whole, as whoever has compared it does.
pub fn prove_all(bench: &Bench) -> Result<(), StepError> {
    let target = &bench.config.targets[0].name;
    let engine = bench.engines[target].as_ref();
    in_a_session(bench.pipeline(), |cx| {
        let mut copies = engine.list(cx.engine()).unwrap();
        bench.history.enrich(target, &mut copies).unwrap();
        copies.iter().try_for_each(|copy| prove(cx, engine, copy))
    })
}

/// Whatever goes wrong, a copy of another program's becomes ours with its data on the disk or not at all, what becomes ours
/// is pinned and no base, and another try takes the rest.
#[test]
fn adopting_what_another_program_received_at_any_fault() {
    adopting_at_any_fault_on(TERMS, 0);
    adopting_at_any_fault_on(Terms { proven: true, ..TERMS }, 2);
}

/// So many differences are sent after it.
fn adopting_at_any_fault_on(terms: Terms, expected: usize) {
    let seed = theirs();
    let take_all = |bench: &Bench| take_all_on(bench, terms);
    let counted = seed.duplicate(&SENT);
    counted.host.arm(Fault::None);
    let theirs = counted.host.world().copies();
    assert_eq!(take_all(&counted).unwrap(), 6);
    assert_eq!(listed(&counted), (theirs.clone(), theirs.clone()));
    let effects = counted.host.world().effects.clone();
    for wanted in ["wait until the file system at /pool", "replace /pool/.stillpoint/copies/"] {
        assert!(effects.iter().any(|effect| effect.starts_with(wanted)), "{wanted}: {effects:#?}");
    }
    for (n, effect) in effects.iter().enumerate() {
        let scene = || seed.duplicate(&SENT);
        loops::any_fault_at(scene, n, effect, take_all, |bench, _, said, after| {
            assert_all_or_none(bench, terms, said.as_ref(), &theirs, after);
            assert_eq!(differences(bench), expected, "{after}");
        });
    }
}

/// Whatever goes wrong, a copy that was compared becomes a base or it does not, and another try has it become one.
#[test]
fn noting_that_a_copy_is_whole_at_any_fault() {
    let seed = theirs();
    assert_eq!(take_all(&seed).unwrap(), 6);
    let counted = seed.duplicate(&SENT);
    counted.host.arm(Fault::None);
    prove_all(&counted).unwrap();
    assert_eq!(differences(&counted), 2);
    let effects = counted.host.world().effects.clone();
    for (n, effect) in effects.iter().enumerate() {
        // A session that cannot begin has done nothing.
        if !effect.contains("/pool") {
            continue;
        }
        let scene = || {
            let bench = seed.duplicate(&SENT);
            bench.host.world().bases = 4;
            bench
        };
        loops::any_fault_at(scene, n, effect, prove_all, |bench, fault, said, after| {
            let failed = matches!(fault, Fault::Fail(_));
            assert!(said.is_none_or(|said| said.is_err() == failed), "{after} went unnoticed");
            assert!(differences(bench) <= 2, "{after}");
            prove_all(bench).unwrap();
            assert_eq!(differences(bench), 2, "{after}");
        });
    }
}

#[test]
fn what_another_program_received_is_a_base_once_a_person_says_so_and_no_policy_deletes_it() {
    for proven in [false, true] {
        let bench = theirs();
        let target = bench.config.targets[0].name.clone();
        let offered = offers(bench.pipeline(), &target, &ALL).unwrap();
        let by: Vec<By> = offered.copies.iter().map(|offer| offer.by).collect();
        assert_eq!(by.iter().filter(|by| **by == By::Snapshot).count(), 4, "{by:?}");
        assert_eq!(by.iter().filter(|by| **by == By::Base).count(), 2, "{by:?}");
        assert_eq!(differences(&bench), 0);
        let terms = Terms { proven, ..TERMS };
        let engine = bench.engines[&target].as_ref();
        in_a_session(bench.pipeline(), |cx| adopt(cx, engine, &offered.copies, terms)).unwrap();
        assert_eq!(offers(bench.pipeline(), &target, &ALL).unwrap(), Offers::default());
        assert_eq!(differences(&bench), if proven { 2 } else { 0 });
        // No run made any of them, so none stands for another one.
        let job = &bench.config.jobs[0].name;
        let query = Query { job, host: None, target: None, item: Some("/home") };
        let (_, latest) = query::copy(bench.pipeline(), &query, "latest").unwrap();
        assert_eq!((&*latest.id, latest.unproven, latest.run), ("home.20260121", !proven, None));
        for run in 0..4 {
            let report = bench.run();
            let is_told = report.warnings.iter().any(|it| it.contains("stillpoint verify host --"));
            let said = format!("{report:#?}").contains("stillpoint verify host -- home.20260121");
            assert_eq!(said || is_told, !proven && run == 0, "{report:#?}");
            // The first ones of ours wait until a person has looked at what there was before them.
            bench.accept();
        }
        let there: Vec<String> = bench.host.world().pool.copies().collect();
        let theirs = there.iter().filter(|id| !id.contains('@')).count();
        assert_eq!((theirs, there.len()), (6, 10), "{there:?}");
        let snapshots = bench.host.world().btrfs.top.clone();
        let stay = snapshots.keys().filter(|name| !name.starts_with(".stillpoint")).count();
        assert_eq!(stay, 4, "they are not ours: {snapshots:?}");
    }
}

#[test]
fn a_copy_whose_name_tells_no_moment_is_of_that_of_its_snapshot() {
    let bench = Bench::of(&SENT);
    let moments = ["2026-01-20T03:00:00Z", "2026-01-10T03:00:00Z"].map(|it| it.parse().unwrap());
    for (name, made) in ["daily", "daily_1"].into_iter().zip(moments) {
        let mut world = bench.host.world();
        let (sent, generation) = world.btrfs.somebody_elses(name, "/home-uuid");
        world.btrfs.top.get_mut(name).unwrap().made = made;
        world.pool.somebody_elses(name, &sent, generation, None, true);
    }
    bench.host.arm(Fault::None);
    let target = &bench.config.targets[0].name;
    let offered = offers(bench.pipeline(), target, &ALL).unwrap();
    let told: Vec<_> =
        offered.copies.iter().map(|offer| (&*offer.copy.id, offer.copy.time)).collect();
    assert_eq!(told, [("daily_1", moments[1]), ("daily", moments[0])]);
    assert_eq!(take_all(&bench).unwrap(), 2);
    let engine = bench.engines.values().next().unwrap();
    let listed = engine.list(bench.pipeline().engine_context()).unwrap();
    let mut times: Vec<_> = listed.iter().map(|copy| copy.time).collect();
    times.sort();
    assert_eq!(times, [moments[1], moments[0]]);
}

#[test]
fn of_several_of_one_moment_the_number_in_the_name_says_which_is_the_newest() {
    let bench = Bench::of(&SENT);
    let names = ["home.20260120", "home.20260120_9", "home.20260120_10"];
    for name in names {
        let mut world = bench.host.world();
        let (sent, generation) = world.btrfs.somebody_elses(name, "/home-uuid");
        world.pool.somebody_elses(name, &sent, generation, None, true);
    }
    bench.host.arm(Fault::None);
    let offered = offers(bench.pipeline(), &bench.config.targets[0].name, &ALL).unwrap();
    let ids: Vec<&str> = offered.copies.iter().map(|offer| &*offer.copy.id).collect();
    assert_eq!(ids, names);
    assert_eq!(take_all(&bench).unwrap(), 3);
    let job = &bench.config.jobs[0].name;
    let query = Query { job, host: None, target: None, item: Some("/home") };
    let (_, latest) = query::copy(bench.pipeline(), &query, "latest").unwrap();
    assert_eq!(latest.id, names[2]);
}

#[test]
fn adopting_at_any_fault() {
    let seed = lost();
    let counted = seed.duplicate(&LIVE);
    counted.host.arm(Fault::None);
    assert_eq!(take_all(&counted).unwrap(), 2);
    assert_eq!(ours(&counted), 2);
    let effects = counted.host.world().effects.clone();
    assert!(effects.len() >= 2, "a directory of its own comes and goes: {effects:?}");
    let archives = seed.host.world().borg.archives.clone();
    for (n, effect) in effects.iter().enumerate() {
        let scene = || seed.duplicate(&LIVE);
        loops::any_fault_at(scene, n, effect, take_all, |bench, _, said, after| {
            assert_eq!(bench.host.world().borg.archives, archives, "{after}: nothing is rewritten");
            let taken = ours(bench);
            let went_well = matches!(said, Some(Ok(_)));
            assert!(taken == 2 || (taken == 0 && !went_well), "{after}: {taken}, {said:?}");
            assert_eq!(take_all(bench).unwrap(), 2 - taken, "{after}");
            assert_eq!(ours(bench), 2, "{after}");
            let report = bench.run();
            assert!(report.outcome <= Outcome::Warning, "{after}: {report:#?}");
            bench.assert_released(after);
        });
    }
}
