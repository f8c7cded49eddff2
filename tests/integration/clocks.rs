//! Clocks that were wrong once: which copy is the latest, and which must stay.

use chrono::TimeDelta;

use stillpoint::host::Host;
use stillpoint::model::names::JobName;
use stillpoint::model::outcome::Outcome;
use stillpoint::pipeline::prune::{Pruned, Request, prune};
use stillpoint::pipeline::query::{self, Query};

use crate::faults::{Bench, in_a_session};
use crate::support::fake_host::Fault;

const DAY: i64 = 86_400;

fn latest(bench: &Bench) -> String {
    let job = JobName::new("host").unwrap();
    let query = Query { job: &job, host: None, target: None, item: None };
    query::copy(bench.pipeline(), &query, "latest").unwrap().1.id
}

fn archives(bench: &Bench) -> Vec<String> {
    bench.host.world().borg.archives.keys().cloned().collect()
}

/// The archive that the next run makes.
fn made(bench: &Bench) -> String {
    let before = archives(bench);
    let report = bench.run();
    assert!(matches!(report.outcome, Outcome::Ok | Outcome::Warning), "{report:#?}");
    archives(bench).into_iter().find(|name| !before.contains(name)).unwrap()
}

/// `prune` of everything that is dated within ten years of now.
fn prune_all(bench: &Bench) -> Pruned {
    let now = bench.host.now();
    let request = Request {
        between: Some((now - TimeDelta::days(3_650), now + TimeDelta::days(3_650))),
        ..Request::default()
    };
    let targets = vec![(&bench.config.targets[0], vec![&bench.config.jobs[0]])];
    in_a_session(bench.pipeline(), |cx| prune(cx, &request, targets)).unwrap()
}

#[test]
fn a_copy_of_a_clock_that_was_ahead_is_neither_the_latest_nor_the_last_good_one() {
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    bench.host.world().ticks += 1_000 * DAY;
    let ahead = made(&bench);
    assert_eq!(latest(&bench), ahead, "nothing is known of the clock yet");
    bench.host.world().ticks -= 1_000 * DAY;
    let now = made(&bench);
    assert_eq!(latest(&bench), now);
    let report = bench.run();
    assert_eq!(report.outcome, Outcome::Ok, "{report:#?}");
    let told = report.warnings.iter().find(|warning| warning.contains("dated in the future"));
    assert!(told.is_some_and(|told| told.contains(&ahead)), "{report:#?}");
    assert!(archives(&bench).contains(&ahead), "it is left alone");
    // Years later its date is past. It was made before those that follow it all the same.
    let newest = latest(&bench);
    bench.host.world().ticks += 1_001 * DAY;
    assert_eq!(latest(&bench), newest);
    bench.host.world().ticks -= 1_001 * DAY;
    let pruned = prune_all(&bench);
    assert!(pruned.deleted.contains(&ahead), "{pruned:?}");
    assert_eq!(archives(&bench), [newest], "the last good copy stays");
}

#[test]
fn a_copy_of_a_clock_that_was_behind_is_the_latest_and_stays() {
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    let dated_last = bench.newest();
    bench.host.world().ticks -= 100 * DAY;
    let behind = made(&bench);
    bench.host.world().ticks += 100 * DAY;
    assert!(behind < dated_last);
    assert_eq!(latest(&bench), behind);
    prune_all(&bench);
    assert_eq!(archives(&bench), [behind, dated_last], "made last, and dated last");
}

#[test]
fn where_every_copy_is_in_the_future_the_last_one_stays() {
    let bench = Bench::with_history();
    bench.host.arm(Fault::None);
    let newest = bench.newest();
    bench.host.world().ticks -= 1_000 * DAY;
    assert_eq!(latest(&bench), newest);
    prune_all(&bench);
    assert_eq!(archives(&bench), [newest]);
}
