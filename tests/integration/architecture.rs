//! The layers, enforced: reads every source file and fails on a path that leads where it may not.
//!
//! The rules are the layer table below and a few doors: one room starts processes, one takes locks, one
//! talks to libvirt, one prints. Within a layer, no circle leads from a file back to itself (`circles`).

mod circles;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::{Named, Token, blank, module_of, paths, tokens};

/// The layers, top to bottom: a module names only modules of layers below its own.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["pipeline"],
    &["source"],
    &["step"],
    &["engine", "capture", "machine", "blocks", "report", "notify", "systemd", "import"],
    &["tools", "retention", "config", "history"],
    &["host"],
    &["model", "lock"],
];

/// Modules that know less than their layer would let them: pure ones.
const ONLY: &[(&str, &[&str])] =
    &[("retention", &["model"]), ("config", &["model"]), ("model", &[]), ("lock", &["model"])];

/// Whether a module may name another one.
fn may_name(from: &str, to: &str) -> bool {
    if let Some((_, named)) = ONLY.iter().find(|(name, _)| *name == from) {
        return named.contains(&to);
    }
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    matches!((layer(from), layer(to)), (Some(from), Some(to)) if from < to)
}

/// Rooms below one module that never name each other.
const SIBLINGS: &[(&str, &[&str])] =
    &[("engine", &["borg", "restic", "btrfs", "streams"]), ("tools", &["borg", "restic", "btrfs"])];

/// Crates and types that one room alone may name: what, and the start of the files that may.
const DOORS: &[(&[&str], &str)] = &[
    (&["process", "Command"], "src/host/runner"),
    (&["fs2"], "src/lock.rs"),
    (&["virt"], "src/machine/"),
    (&["virt_sys"], "src/machine/"),
];

/// Enums whose variants are matched where they are told apart and nowhere else, and the start of the files that do:
/// whoever asks elsewhere is a place that one more variant must not forget. Tests may.
const VARIANTS: &[(&str, &[&str])] = &[
    ("Source", &["src/model/job.rs", "src/source/mod.rs", "src/config/keys/"]),
    ("EngineConfig", &["src/model/target.rs", "src/engine/kinds.rs", "src/config/keys/"]),
    ("Undo", &["src/model/undo/", "src/pipeline/undo.rs"]),
    ("CaptureUndo", &["src/model/undo/", "src/capture/kinds.rs"]),
    ("EngineUndo", &["src/model/undo/", "src/pipeline/engine_undo.rs"]),
];

/// Variants that are named where they may not be, also under another name of their enum.
fn misplaced_variants(file: &str, tokens: &[Token], named: &[Named]) -> Vec<String> {
    let mut found = Vec::new();
    let is_tests = |module: &String| module == "tests" || module == "testing";
    for (name, rooms) in VARIANTS {
        if rooms.iter().any(|room| file.starts_with(room)) || module_of(file).iter().any(is_tests) {
            continue;
        }
        let is_variant = |pair: &[String]| {
            let starts_so = |c: char| c.is_uppercase() || c == '*';
            pair[0] == *name && pair[1].starts_with(starts_so)
        };
        for named in named.iter().filter(|named| !named.in_tests) {
            if named.segments.windows(2).any(is_variant) {
                let text = named.segments.join("::");
                found.push(format!("{file}:{}: only {rooms:?} may name `{text}`", named.line));
            }
        }
        for three in tokens.windows(3).filter(|three| three[0].text == *name) {
            if three[1].text == "as" && three[2].text != "_" {
                let other = &three[2].text;
                found.push(format!("{file}:{}: `{name}` goes by `{other}`", three[0].line));
            }
        }
    }
    found
}

/// One violation, as a sentence with its place.
fn violations(file: &str, source: &str) -> Vec<String> {
    let home = module_of(file);
    let tokens = tokens(&blank(source));
    let all = paths(&tokens, &home);
    let mut found = misplaced_variants(file, &tokens, &all);
    let home_top = home.first().map(String::as_str);
    if let Some(top) = home_top
        && !LAYERS.iter().any(|layer| layer.contains(&top))
    {
        found.push(format!("{file}: the module `{top}` has no layer"));
    }
    for named in all {
        let place = format!("{file}:{}", named.line);
        let text = named.segments.join("::");
        if named.segments.first().is_some_and(|first| first == "crate") {
            let to: Vec<&str> = named.segments[1..].iter().map(String::as_str).collect();
            if let (Some(from), Some(top)) = (home_top, to.first())
                && from != *top
                && !may_name(from, top)
            {
                found.push(format!("{place}: `{from}` may not name `{text}`"));
            }
            for (parent, rooms) in SIBLINGS {
                if let ([top, room, ..], [to_top, to_room, ..]) = (&home[..], &to[..])
                    && top == parent
                    && to_top == parent
                    && room != to_room
                    && rooms.contains(&room.as_str())
                    && rooms.contains(to_room)
                {
                    found.push(format!("{place}: `{parent}::{room}` may not name `{text}`"));
                }
            }
        }
        for (what, door) in DOORS {
            let names = if what.len() == 1 {
                named.segments.first().is_some_and(|first| first == what[0])
            } else {
                named.segments.windows(what.len()).any(|window| window == *what)
            };
            if names && !file.starts_with(door) {
                found.push(format!("{place}: only {door} may name `{text}`"));
            }
        }
        let prints =
            matches!(named.segments.last().map(String::as_str), Some("println!" | "print!"));
        if prints && !named.in_tests && !file.starts_with("src/cli/") {
            found.push(format!("{place}: only src/cli may use `{text}`"));
        }
    }
    found
}

/// Every source file of the project, by its name below the root and with its text, in the order of the names.
pub(crate) fn sources() -> Vec<(String, String)> {
    fn below(directory: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    below(&root.join("src"), &mut files);
    files.sort();
    assert!(files.len() > 100, "only {} source files were found", files.len());
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

#[test]
fn every_module_names_only_what_lies_below_it() {
    let found: Vec<String> =
        sources().iter().flat_map(|(name, source)| violations(name, source)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    let planted = [
        ("src/retention/mod.rs", "use crate::host::Host;"),
        ("src/retention/plan.rs", "fn f() { let x = crate::config::read(); }"),
        (
            "src/host/system.rs",
            "use crate::{\n    lock,\n    model::{job, names as n},\n    tools::borg,\n};",
        ),
        ("src/engine/mod.rs", "use crate::report::Store;"),
        ("src/report/mod.rs", "use super::engine::Engine;"),
        ("src/engine/borg/mod.rs", "use crate::engine::restic::Restic;"),
        ("src/engine/borg/mod.rs", "use super::{error, restic};"),
        ("src/engine/restic/parse.rs", "use super::super::borg;"),
        ("src/engine/borg/mod.rs", "mod tests { use super::super::restic::x; }"),
        ("src/engine/borg/mod.rs", "mod tests { fn f() {} } use super::restic::x;"),
        ("src/model/names.rs", "fn f<'a>(x: &'a str) { let q = '\"'; crate::host::x() }"),
        ("src/capture/mod.rs", "use crate::machine;"),
        ("src/capture/mod.rs", "use crate::source::Source;"),
        ("src/history/mod.rs", "use crate::report::status;"),
        ("src/step/context.rs", "use crate::source::Source;"),
        ("src/engine/mod.rs", "use crate::step::error::StepError;"),
        ("src/invented/mod.rs", "fn f() {}"),
        ("src/engine/mod.rs", "fn f() { std::process::Command::new(\"x\"); }"),
        ("src/engine/mod.rs", "use std::process::{self, Command};"),
        ("src/engine/mod.rs", "use std::{io, process::Command as C};"),
        ("src/host/system.rs", "use fs2::FileExt;"),
        ("src/cli/doctor.rs", "fn f() { virt::connect::Connect::version(); }"),
        ("src/report/json.rs", "fn f() { println!(\"x\"); }"),
        ("src/pipeline/mod.rs", "fn f() { std::print!(\"x\"); }"),
        ("src/pipeline/job.rs", "fn f() { if let Source::Files(x) = &job.source {} }"),
        ("src/pipeline/job.rs", "fn f() { matches!(job.source, model::job::Source::Later(_)) }"),
        ("src/report/facts.rs", "use crate::model::job::Source::*;"),
        ("src/report/facts.rs", "use crate::model::job::{Config, Source as Kind};"),
        ("src/source/files/mod.rs", "use crate::model::job::Source::{self, Files};"),
        ("src/engine/mod.rs", "fn f() { if let EngineConfig::Borg(x) = &target.engine {} }"),
        ("src/pipeline/recover.rs", "fn f() { let Undo::Hook(hook) = undo else { return }; }"),
        ("src/capture/lvm.rs", "fn f() { let CaptureUndo::RemoveVolume(x) = undo else {}; }"),
        ("src/pipeline/mount.rs", "fn f() { matches!(undo, EngineUndo::Unmount(_)) }"),
    ];
    for (file, source) in planted {
        assert_eq!(violations(file, source).len(), 1, "{file}: {source}");
    }
}

#[test]
fn what_is_allowed_is_left_alone() {
    let allowed = [
        ("src/pipeline/mod.rs", "use crate::{engine::{borg, restic}, report, model::job::Job};"),
        ("src/host/runner/tests/mod.rs", "fn f() { println!(\"x\"); }"),
        ("src/host/system.rs", "mod tests { fn f() { print!(\"x\"); } }"),
        ("src/cli/mod.rs", "use crate::pipeline; fn f() { println!(\"x\"); }"),
        (
            "src/engine/mod.rs",
            "pub mod borg; use self::borg::Borg; use crate::engine::restic::Restic;",
        ),
        (
            "src/engine/borg/mod.rs",
            "use super::error; mod tests { use super::*; use super::super::error; }",
        ),
        (
            "src/retention/mod.rs",
            "//! See [`crate::host::Host`].\n/* crate::host /* nested */ */ fn f() {}",
        ),
        (
            "src/retention/mod.rs",
            "const A: &str = \"crate::host\"; const B: &str = r#\"\"crate::host\"#;",
        ),
        ("src/retention/mod.rs", "pub(in crate::retention) fn f() { if a != b {} let c = '\\''; }"),
        (
            "src/host/runner/mod.rs",
            "use std::process::Command; use std::os::unix::process::CommandExt;",
        ),
        (
            "src/engine/mod.rs",
            "use std::os::unix::process::CommandExt; use std::process::ExitCode;",
        ),
        ("src/lock.rs", "use fs2::FileExt;"),
        ("src/machine/libvirt.rs", "fn f() { virt::connect::Connect::version(); }"),
        ("src/source/mod.rs", "use crate::model::job::Source as Kind; fn f() { Kind::Files(x) }"),
        ("src/report/status.rs", "mod tests { fn f() { Source::Files(x) } }"),
        ("src/pipeline/job.rs", "use crate::source::Source; fn f() { Source::hold(x); }"),
        ("src/main.rs", "use stillpoint::cli; fn main() { cli::main() }"),
    ];
    for (file, source) in allowed {
        assert_eq!(violations(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}
