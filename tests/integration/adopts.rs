//! What goes wrong while copies are adopted: all of them are, or none, and another try takes the rest.

use stillpoint::model::names::RunId;
use stillpoint::model::outcome::Outcome;
use stillpoint::pipeline::adopt::{Request, adopt, offers};
use stillpoint::pipeline::recover::recover;
use stillpoint::pipeline::session::{LedgerDirectory, session};
use stillpoint::step::context::RunContext;

use crate::faults::{Bench, LIVE};
use crate::loops::or_died;
use crate::support::fake_host::Fault;

/// A machine whose history is lost, in front of the two copies that it made.
fn lost() -> Bench {
    let lost = Bench::of(&LIVE);
    *lost.host.world() = Bench::with_history().host.world().clone();
    lost.host.arm(Fault::None);
    lost
}

/// What the verb does, in a session of its own.
fn take_all(bench: &Bench) -> Result<usize, String> {
    let target = &bench.config.targets[0].name;
    let request = Request { job: None, host: None, from_job: None, machine: None, copies: &[] };
    let offered = offers(bench.pipeline(), target, &request).map_err(|error| error.message)?;
    let work = |cx: RunContext<'_>| adopt(cx, bench.engines[target].as_ref(), &offered);
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

#[test]
fn adopting_at_any_fault() {
    let seed = lost();
    let counted = seed.duplicate(&LIVE);
    counted.host.arm(Fault::None);
    assert_eq!(take_all(&counted).unwrap(), 2);
    assert_eq!(ours(&counted), 2);
    let effects = counted.host.world().effects.clone();
    assert!(effects.len() >= 2, "a directory of its own comes and goes: {effects:?}");
    for (n, effect) in effects.iter().enumerate() {
        for fault in Fault::all_at(n) {
            let after = format!("{fault:?} ({effect})");
            let bench = seed.duplicate(&LIVE);
            let archives = bench.host.world().borg.archives.clone();
            bench.host.arm(fault);
            let said = or_died(|| take_all(&bench));
            assert_eq!(bench.host.world().borg.archives, archives, "{after}: nothing is rewritten");
            bench.host.arm(Fault::None);
            assert_eq!(recover(bench.pipeline()).unwrap().failures, [], "{after}");
            bench.assert_released(&after);
            let taken = ours(&bench);
            assert!(taken == 2 || (taken == 0 && said.is_err()), "{after}: {taken}, {said:?}");
            assert_eq!(take_all(&bench).unwrap(), 2 - taken, "{after}");
            assert_eq!(ours(&bench), 2, "{after}");
            let report = bench.run();
            assert!(report.outcome <= Outcome::Warning, "{after}: {report:#?}");
            bench.assert_released(&after);
        }
    }
}
