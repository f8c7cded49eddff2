//! Who asks whether a run is a dry one. Nobody who looks at something: the dry host answers with what would be there
//! ([`stillpoint::host::dry`]). What is left has its reason beside it, and is counted.

use crate::architecture::sources;

/// Where the question is asked outside the host, and how often.
const ASKED: &[(&str, usize)] = &[
    // An older restic, which cannot pretend, writes what it is told to restore.
    ("src/engine/restic/restore.rs", 1),
    // All that was stored of a copy would come over the network, only for a plan.
    ("src/engine/streams/begun.rs", 1),
    // The identity that a run would draw and write before anything else.
    ("src/pipeline/identity.rs", 1),
    // Room for records, of which a plan writes none.
    ("src/pipeline/run.rs", 1),
    // Ledger, locks and recovery.
    ("src/pipeline/session.rs", 1),
    // How much there is to go: nothing is there to be measured.
    ("src/pipeline/steps/archive.rs", 1),
    // A plan is read from top to bottom, so its targets are served one after another.
    ("src/pipeline/steps/spread.rs", 1),
    // The same of its jobs.
    ("src/pipeline/turns.rs", 1),
    // History is not kept; and the one place that chooses words.
    ("src/step/context.rs", 2),
    // What a deletion frees.
    ("src/step/room.rs", 1),
];

#[test]
fn only_who_says_why_asks_whether_a_run_is_dry() {
    let asked: Vec<(String, usize)> = sources()
        .into_iter()
        .map(|(name, text)| (name, text.matches("is_dry(").count()))
        .filter(|(name, count)| *count > 0 && !name.starts_with("src/host/"))
        // The host of the engines' own tests answers the question.
        .filter(|(name, _)| name != "src/engine/scripted.rs" && !name.ends_with("/tests.rs"))
        .collect();
    let known: Vec<(String, usize)> =
        ASKED.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(
        asked, known,
        "let the dry host answer (src/host/dry), or say why not, here and there"
    );
}
