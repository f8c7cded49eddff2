//! No circle between files: whoever opens one can read what lies below it first, and is through once.
//!
//! One file names another where a path in it (`crate::a::b`, `super::x`, `self::x`, `child::x`) leads into the other.
//! Two things do not count, for neither needs the other file to be understood:
//!
//! - `mod child;`: a directory's list of its files.
//! - `pub use child::Name;`: a sign at the door. A path through it leads to the file that declares the name, not to
//!   the one with the sign. A `mod.rs` that itself works with what it passes on does name its child.
//!
//! Tests may look wherever they like.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::{Named, Token, blank, module_of, path_from, paths, resolve, tokens};
use super::sources;

type Module = Vec<String>;

/// One production file, read.
struct Leaf {
    /// The names that it passes on, with where they come from; `*` passes on everything.
    signs: Vec<(String, Module)>,
    /// What it names, `crate` left off.
    names: Vec<Module>,
}

/// The circles among these files (name and source), each as the files that one comes past.
fn circles(sources: &[(&str, &str)]) -> Vec<String> {
    let read: Vec<(&str, Module, Vec<Token>)> = sources
        .iter()
        .map(|(file, source)| (*file, module_of(file), without_visibility(tokens(&blank(source)))))
        .collect();
    let only_tests: BTreeSet<Module> =
        read.iter().flat_map(|(_, home, tokens)| test_modules(tokens, home)).collect();
    let production = |home: &Module| {
        !(1..=home.len()).any(|length| only_tests.iter().any(|module| *module == home[..length]))
    };
    let files: BTreeMap<Module, &str> = read
        .iter()
        .filter(|(_, home, _)| production(home))
        .map(|(file, home, _)| (home.clone(), *file))
        .collect();
    let leaves: BTreeMap<Module, Leaf> = read
        .iter()
        .filter(|(_, home, _)| files.contains_key(home))
        .map(|(_, home, tokens)| (home.clone(), leaf(&without_tests(tokens), home, &files)))
        .collect();
    let edges: BTreeMap<&Module, BTreeSet<Module>> = leaves
        .iter()
        .map(|(home, leaf)| {
            let mut to: BTreeSet<Module> =
                leaf.names.iter().map(|path| declared_in(path, &leaves)).collect();
            to.remove(home);
            // The crate's root declares its modules; nobody works with it.
            to.remove(&Module::new());
            (home, to)
        })
        .collect();
    let found: BTreeSet<Vec<&Module>> =
        edges.keys().filter_map(|home| shortest_circle(home, &edges)).collect();
    found
        .iter()
        .map(|circle| {
            let names: Vec<&str> =
                circle.iter().chain(circle.first()).map(|module| files[*module]).collect();
            names.join(" -> ")
        })
        .collect()
}

/// `pub(super)` and `pub(in crate::x)` say who may look, and lead nowhere.
fn without_visibility(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        let opens = token.text == "(" && kept.last().is_some_and(|last| last.text == "pub");
        let narrows =
            |next: &Token| matches!(next.text.as_str(), "crate" | "super" | "self" | "in");
        if opens && rest.peek().is_some_and(narrows) {
            for hidden in rest.by_ref() {
                if hidden.text == ")" {
                    break;
                }
            }
        } else {
            kept.push(token);
        }
    }
    kept
}

/// What makes an item one for tests alone.
const FOR_TESTS: &[&str] = &["#", "[", "cfg", "(", "test", ")", "]"];

/// The tokens without the items behind `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let texts = tokens[at..].iter().map(|token| token.text.as_str());
        if texts.take(FOR_TESTS.len()).eq(FOR_TESTS.iter().copied()) {
            at = end_of_item(tokens, at + FOR_TESTS.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Where an item ends that begins at `at`: behind its `;`, or behind the brace that closes it.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "(" | "[" | "{" => depth += 1,
            closing @ (")" | "]" | "}") => {
                depth -= 1;
                if depth == 0 && closing == "}" {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The modules that are built for tests alone: those behind `#[cfg(test)]`.
fn test_modules(tokens: &[Token], home: &Module) -> Vec<Module> {
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    let mut found = Vec::new();
    for at in 0..texts.len() {
        let Some(after) = texts[at..].strip_prefix(FOR_TESTS) else { continue };
        if let ["mod", name, ";", ..] | ["pub", "mod", name, ";", ..] = after {
            found.push(home.iter().cloned().chain([(*name).to_owned()]).collect());
        }
    }
    found
}

/// What one file passes on and what it names.
fn leaf(tokens: &[Token], home: &Module, files: &BTreeMap<Module, &str>) -> Leaf {
    let (passes_on, works) = apart(tokens);
    let absolute = |named: &Named| -> Option<Module> {
        match named.segments.first()?.as_str() {
            "crate" => Some(named.segments[1..].to_vec()),
            child => {
                let below: Module = home.iter().cloned().chain([child.to_owned()]).collect();
                let path = home.iter().chain(&named.segments).cloned().collect();
                files.contains_key(&below).then_some(path)
            }
        }
    };
    let signs: Vec<(String, Module)> = passes_on
        .into_iter()
        .filter_map(|named| resolve(named, home))
        .filter_map(|named| Some((named.alias.clone(), absolute(&named)?)))
        .filter_map(|(alias, path)| Some((alias.or_else(|| path.last().cloned())?, path)))
        .collect();
    let mut names: Vec<Module> = paths(&works, home).iter().filter_map(absolute).collect();
    // `mod child;` is no use of a `child` that is passed on.
    let is_word = |at: &usize| *at == 0 || works[at - 1].text != "mod";
    let words: BTreeSet<&str> =
        (0..works.len()).filter(is_word).map(|at| works[at].text.as_str()).collect();
    let used = signs.iter().filter(|(name, _)| words.contains(name.as_str()));
    names.extend(used.map(|(_, path)| path.clone()));
    Leaf { signs, names }
}

/// The paths after `pub use`, and the tokens without these statements.
fn apart(tokens: &[Token]) -> (Vec<Named>, Vec<Token>) {
    let (mut passes_on, mut works) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let starts =
            tokens[at].text == "pub" && tokens.get(at + 1).is_some_and(|token| token.text == "use");
        if starts {
            at = path_from(tokens, at + 2, &[], &mut passes_on);
            at = end_of_item(tokens, at);
        } else {
            works.push(tokens[at].clone());
            at += 1;
        }
    }
    (passes_on, works)
}

/// The module whose file declares what the path leads to: as far down as there are files, past the signs.
fn declared_in(path: &[String], leaves: &BTreeMap<Module, Leaf>) -> Module {
    let mut path = path.to_vec();
    // A sign that leads to another is followed; so many in a row would be a circle of signs.
    for _ in 0..10 {
        let depth = (0..=path.len())
            .rev()
            .find(|depth| leaves.contains_key(&path[..*depth]))
            .unwrap_or_default();
        let (module, rest) = (path[..depth].to_vec(), path[depth..].to_vec());
        let sign = rest.first().and_then(|name| {
            let signs = &leaves.get(&module)?.signs;
            signs.iter().find(|(passed, _)| passed == name)
        });
        match sign {
            Some((_, to)) => path = to.iter().chain(&rest[1..]).cloned().collect(),
            None => return module,
        }
    }
    path
}

/// The shortest way from a file back to itself, begun at the file that comes first in the alphabet.
fn shortest_circle<'a>(
    home: &'a Module,
    edges: &BTreeMap<&'a Module, BTreeSet<Module>>,
) -> Option<Vec<&'a Module>> {
    let mut came_from: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut waiting = VecDeque::from([home]);
    while let Some(here) = waiting.pop_front() {
        for next in &edges[here] {
            let (next, _) = edges.get_key_value(next)?;
            if *next == home {
                let mut circle = vec![here];
                while let Some(before) = came_from.get(circle[circle.len() - 1]) {
                    circle.push(before);
                }
                circle.reverse();
                let first = (0..circle.len()).min_by_key(|at| circle[*at])?;
                circle.rotate_left(first);
                return Some(circle);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, here);
                waiting.push_back(next);
            }
        }
    }
    None
}

#[test]
fn no_circle_between_files() {
    let sources = sources();
    let sources: Vec<(&str, &str)> =
        sources.iter().map(|(name, source)| (name.as_str(), source.as_str())).collect();
    let found = circles(&sources);
    assert!(found.is_empty(), "{} circles:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_planted_circle_is_found() {
    let planted: &[(&[(&str, &str)], &str)] = &[
        (
            &[("src/a/b.rs", "use crate::a::c::X;"), ("src/a/c.rs", "use super::b;")],
            "src/a/b.rs -> src/a/c.rs -> src/a/b.rs",
        ),
        (
            &[
                ("src/a.rs", "fn f() { crate::b::g() }"),
                ("src/b.rs", "use crate::{c::{self, X}};"),
                ("src/c.rs", "mod inner { use super::super::a; }"),
            ],
            "src/a.rs -> src/b.rs -> src/c.rs -> src/a.rs",
        ),
        // A directory that works with its file, by a path or by a name that it passes on.
        (
            &[("src/a/mod.rs", "mod b; fn f() { b::g() }"), ("src/a/b.rs", "use super::f;")],
            "src/a/mod.rs -> src/a/b.rs -> src/a/mod.rs",
        ),
        (
            &[
                ("src/a/mod.rs", "mod b; pub use b::X; pub fn f() -> X {}"),
                ("src/a/b.rs", "use crate::a::f;"),
            ],
            "src/a/mod.rs -> src/a/b.rs -> src/a/mod.rs",
        ),
        // Through a sign.
        (
            &[
                ("src/a/mod.rs", "mod b; pub(crate) use b::X;"),
                ("src/a/b.rs", "use crate::c;"),
                ("src/c.rs", "use crate::a::X;"),
            ],
            "src/a/b.rs -> src/c.rs -> src/a/b.rs",
        ),
        (
            &[
                ("src/a/mod.rs", "mod b; pub use b::X as Y; pub use self::b::{Z as W};"),
                ("src/a/b.rs", "use crate::c;"),
                ("src/c.rs", "use crate::a::{W};"),
            ],
            "src/a/b.rs -> src/c.rs -> src/a/b.rs",
        ),
        // What stands behind something for tests is no test.
        (
            &[
                ("src/a.rs", "#[cfg(test)] use crate::c::{d, e}; use crate::b;"),
                ("src/b.rs", "#[cfg(test)] const C: &[u8] = &[1; 2]; use crate::a;"),
            ],
            "src/a.rs -> src/b.rs -> src/a.rs",
        ),
    ];
    for (sources, circle) in planted {
        assert_eq!(circles(sources), vec![(*circle).to_owned()], "{sources:?}");
    }
}

#[test]
fn what_is_no_circle_is_left_alone() {
    let straight: &[&[(&str, &str)]] = &[
        // A directory declares its files and passes their names on; the files work with each other and with it.
        &[
            (
                "src/a/mod.rs",
                "pub mod b; mod c; pub use self::b::{X, b}; pub use c::{Y, Z}; fn f() {}",
            ),
            ("src/a/b.rs", "use super::{f, Y};"),
            ("src/a/c.rs", "pub(super) fn g() {} pub(in crate::a) fn h(&self) { self.x }"),
        ],
        // Tests look where they like.
        &[
            ("src/a.rs", "use crate::b;"),
            ("src/b.rs", "#[cfg(test)] mod tests { mod deep { use crate::a; } } fn f() {}"),
        ],
        &[
            ("src/a.rs", "use crate::b;"),
            (
                "src/b.rs",
                "#[cfg(test)] use crate::a::{c, d}; #[cfg(test)] const C: &[crate::a::X] = &[];",
            ),
        ],
        &[
            ("src/a.rs", "use crate::b; #[cfg(test)] pub(crate) mod fake;"),
            ("src/a/fake.rs", "use super::x;"),
            ("src/b.rs", "// use crate::a;\nconst A: &str = \"crate::a\";"),
        ],
        &[("src/lib.rs", "pub mod a;"), ("src/a.rs", "use crate::a::own; use std::fs;")],
    ];
    for sources in straight {
        assert_eq!(circles(sources), Vec::<String>::new(), "{sources:?}");
    }
}
