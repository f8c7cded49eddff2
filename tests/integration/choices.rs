//! Which copy is chosen where several might be meant, and what is told of the others.

use std::path::Path;
use std::sync::Mutex;

use stillpoint::engine::Engine;
use stillpoint::model::copy::Copy;
use stillpoint::model::event::{Event, Observer};
use stillpoint::model::names::TargetName;
use stillpoint::model::outcome::{Outcome, Trouble};
use stillpoint::model::target::ReadData;
use stillpoint::pipeline::list::list;
use stillpoint::pipeline::query::{self, Query};
use stillpoint::step::context::Pipeline;
use stillpoint::step::error::StepError;

use crate::absent::{SHELF, SHELVED, away, back};
use crate::faults::Bench;
use crate::stored_streams::CHAINED;
use crate::subvolumes::SENT;
use crate::support::fake_pool::LOCATION;

/// Keeps what is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn on(&self, event: &Event) {
        if let Event::Note { text, warning: true, .. } = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

fn of_home(bench: &Bench) -> Query<'_> {
    Query { job: &bench.config.jobs[0].name, host: None, target: None, item: Some("/home") }
}

/// What is chosen, from which target, and what is told of it.
fn chosen<T>(
    bench: &Bench,
    choose: impl FnOnce(Pipeline<'_>, &Query<'_>) -> Result<T, StepError>,
) -> (Result<T, StepError>, Vec<String>) {
    let notes = Notes::default();
    let pipeline = Pipeline { observer: &notes, ..bench.pipeline() };
    let found = choose(pipeline, &of_home(bench));
    (found, notes.0.into_inner().unwrap())
}

fn copy(bench: &Bench, wanted: &str) -> (Copy, Vec<String>) {
    let (found, told) =
        chosen(bench, |pipeline, query| Ok(query::copy(pipeline, query, wanted)?.1));
    (found.unwrap(), told)
}

/// The ids of the copies of one item in a target, in the order of time.
fn ids(bench: &Bench, target: &str) -> Vec<String> {
    let target = TargetName::new(target).unwrap();
    let listing = list(bench.pipeline(), None, Some(&target), false).unwrap();
    let home = listing.copies.into_iter().filter(|it| it.copy.id.contains("_2fhome"));
    home.map(|it| it.copy.id).collect()
}

#[test]
fn what_is_known_to_be_damaged_is_listed_so_and_is_not_the_latest() {
    let bench = Bench::with_history_of(&CHAINED);
    let all = ids(&bench, "archive");
    let engine = bench.pipeline().engine(&bench.config.targets[0]);
    let damage = |copy: &String| {
        let mut world = bench.host.world();
        world.store.objects.get_mut(&format!("{copy}.btrfs.zst")).unwrap()[0] ^= 1;
    };
    let read = |engine: &dyn Engine| {
        let context = bench.pipeline().engine_context();
        engine.check(context, ReadData::All, &mut |_| {}).unwrap().damage.len()
    };
    let damaged = || -> Vec<String> {
        let listing = list(bench.pipeline(), None, None, false).unwrap();
        listing.copies.into_iter().filter(|it| it.copy.damaged).map(|it| it.copy.id).collect()
    };
    assert_eq!((copy(&bench, "latest").0.id, damaged()), (all[2].clone(), Vec::new()));
    damage(&all[1]);
    assert_eq!(read(engine), 1);
    // What is a difference to it is lost with it.
    assert_eq!(damaged(), all[1..]);
    let (latest, told) = copy(&bench, "latest");
    assert_eq!(latest.id, all[0]);
    let [told] = told.as_slice() else { panic!("{told:?}") };
    for says in [&all[2], "found damaged", "and 1 more", "target archive", "name it to use it"] {
        assert!(told.contains(says), "{says}: {told}");
    }
    // A person may name it all the same, and is told what it is.
    let (named, told) = copy(&bench, &all[2]);
    assert_eq!(named.id, all[2]);
    assert!(matches!(told.as_slice(), [told] if told.contains("found damaged")), "{told:?}");
    damage(&all[0]);
    assert_eq!(read(engine), 2);
    let (latest, told) = copy(&bench, "latest");
    assert_eq!(latest.id, all[2], "there is no other one");
    assert!(matches!(told.as_slice(), [told] if told.contains("found damaged")), "{told:?}");
}

#[test]
fn an_incomplete_copy_is_not_passed_over_in_silence() {
    let bench = Bench::with_history_of(&SENT);
    let good = copy(&bench, "latest");
    assert_eq!(good.1, [] as [String; 0]);
    bench.host.world().btrfs.nested.insert("/home".into(), vec!["/home/vm".into()]);
    assert_eq!(bench.run().outcome, Outcome::Incomplete);
    let newest = ids(&bench, "pool").pop().unwrap();
    let (latest, told) = copy(&bench, "latest");
    assert_eq!(latest.id, good.0.id);
    let [told] = told.as_slice() else { panic!("{told:?}") };
    for says in [&newest, "incomplete", "name it to use it"] {
        assert!(told.contains(says), "{says}: {told}");
    }
}

#[test]
fn two_copies_are_found_in_the_target_that_has_both() {
    let bench = Bench::of(&SHELVED);
    for run in 0..3 {
        if run == 2 {
            away(&bench, SHELF);
        }
        bench.run();
    }
    back(&bench);
    let (pool, shelf) = (ids(&bench, "pool"), ids(&bench, "shelf"));
    let run_of = |id: &String| id.rsplit_once('.').unwrap().1.to_owned();
    let both = run_of(&shelf[1]);
    assert_eq!((pool.len(), shelf.len(), run_of(&pool[0])), (2, 2, both.clone()));
    let pair = |older: &str, newer: &str| {
        let found = chosen(&bench, |pipeline, query| {
            let (engine, older, newer) = query::pair(pipeline, query, older, newer)?;
            Ok((engine.target().name.to_string(), older.id, newer.id))
        });
        found.0
    };
    let is_from = |target: &str, (older, newer): (&str, &str), ids: &[String]| {
        let expected = (target.to_owned(), ids[0].clone(), ids[1].clone());
        assert_eq!(pair(older, newer).unwrap(), expected);
    };
    is_from("shelf", (&shelf[0], &both), &shelf);
    is_from("shelf", (&run_of(&shelf[0]), &both), &shelf);
    is_from("pool", (&both, &pool[1]), &pool);
    is_from("pool", (&both, "latest"), &pool);
    let apart = pair(&shelf[0], &pool[1]).unwrap_err();
    assert_eq!(apart.trouble, Trouble::Usage);
    let told = format!("{} is in shelf, {} in pool", shelf[0], pool[1]);
    assert!(apart.message.contains(&told), "{apart}");
    let none = pair("nothing-of-the-kind", "latest").unwrap_err();
    assert!(none.message.contains("no copy nothing-of-the-kind"), "{none}");
}

#[test]
fn a_copy_of_another_moment_never_takes_the_place_of_one_that_was_found() {
    let bench = Bench::of(&SHELVED);
    bench.run();
    away(&bench, SHELF);
    bench.host.world().btrfs.nested.insert("/home".into(), vec!["/home/vm".into()]);
    bench.run();
    back(&bench);
    let (mut pool, shelf) = (ids(&bench, "pool"), ids(&bench, "shelf"));
    assert_eq!((pool.len(), shelf.len()), (2, 1));
    // Of these the first target has the one that lacks something, and the second one another.
    let gone = Path::new(LOCATION).join(pool.remove(0));
    assert!(bench.host.world().pool.subvolumes.remove(&gone).is_some());
    let same = pool[0].bytes().zip(shelf[0].bytes()).take_while(|(one, other)| one == other);
    let text = &pool[0][..same.count()];
    assert!(text.len() > 20);
    let (found, told) = copy(&bench, text);
    assert_eq!(found.id, pool[0], "{told:?}");
    assert!(matches!(told.as_slice(), [told] if told.contains("incomplete")), "{told:?}");
}
