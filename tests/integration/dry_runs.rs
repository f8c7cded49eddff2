//! Who asks whether a run is a dry one. Nobody who looks at something: the dry host answers with what would be there
//! ([`stillpoint::host::dry`]). What is left has its reason beside it, and is counted.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the question is asked outside the host, and how often.
const ASKED: &[(&str, usize)] = &[
    // An older restic, which cannot pretend, writes what it is told to restore.
    ("src/engine/restic/restore.rs", 1),
    // The identity that a run would draw and write before anything else.
    ("src/pipeline/identity.rs", 1),
    // Room for records, of which a plan writes none.
    ("src/pipeline/run.rs", 1),
    // Ledger, locks and recovery.
    ("src/pipeline/session.rs", 1),
    // History is not kept; and the one place that chooses words.
    ("src/step/context.rs", 2),
];

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn only_who_says_why_asks_whether_a_run_is_dry() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 100, "{}", files.len());
    let mut asked: Vec<(String, usize)> = files
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (name, text.matches("is_dry(").count())
        })
        .filter(|(name, count)| *count > 0 && !name.starts_with("src/host/"))
        // The host of the engines' own tests answers the question.
        .filter(|(name, _)| name != "src/engine/scripted.rs" && !name.ends_with("/tests.rs"))
        .collect();
    asked.sort();
    let known: Vec<(String, usize)> =
        ASKED.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(
        asked, known,
        "let the dry host answer (src/host/dry), or say why not, here and there"
    );
}
