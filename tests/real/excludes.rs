//! One exclude dialect: restic and borg, given the same patterns, store the same set of paths.
#![allow(clippy::disallowed_methods)] // the engines are asked directly, without the host

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use stillpoint::tools::exclude::to_borg;

use crate::bench_machine::make_keys_cheap;

/// A tree with names that regular expressions, globs and option parsers would trip over.
fn plant(root: &Path) {
    for file in [
        "a/b/c/d/e.txt",
        "a/b/foo",
        "a/foo/b/c",
        "a/foo/deep/er/bar",
        "foo/x",
        "foo.o",
        "xfoo/y",
        "foox/y",
        "bar/foo/baz/foo/qux",
        "x/y/z/y/w",
        "x/y/1",
        "x/z/y/2",
        ".cache/1",
        "home/u/.cache/2",
        "home/u/.cachefile",
        "dot.d/a.b.c",
        "dotxd/axbxc",
        "sp ace/f ile",
        "br[1]/f",
        "br1/f",
        "star*/f",
        "starry/f",
        "plus+/f",
        "pluss/f",
        "dollar$/f",
        "caret^/f",
        "paren(1)/f",
        "pipe|p/f",
        "hash#/f",
        "-dash/f",
        "!bang/f",
        "back\\slash/f",
        "ä/ö/ü",
        "日本/語",
        "new\nline/f",
        "end\n",
        "end",
        "UPPER/case",
        "upper/case",
        "d1/f",
        "d2/f",
        "d3/f",
        "]/f",
        "tagged/CACHEDIR.TAG",
        "tagged/lost/f",
        "marked/.nobackup",
        "marked/lost",
        "marked/sub/f",
    ] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
        fs::write(&path, if file.ends_with(".TAG") { tag } else { "" }).unwrap();
    }
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff");
    fs::create_dir(root.join(odd)).unwrap();
    fs::write(root.join(odd).join("f"), "").unwrap();
}

fn run(command: &mut Command) -> Output {
    let output = command.env("BORG_PASSPHRASE", "x").env("RESTIC_PASSWORD", "x").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What restic stores below `root`, with these options.
fn by_restic(work: &Path, root: &Path, options: &[String]) -> BTreeSet<String> {
    let repository = work.join("restic");
    let restic = || {
        let mut command = Command::new("restic");
        command.arg("-r").arg(&repository).arg("--cache-dir").arg(work.join("restic-cache"));
        command
    };
    if !repository.exists() {
        run(restic().arg("init"));
        make_keys_cheap(&repository, "x");
    }
    // A dry run names every file and directory that a real one would store, in a third of the time.
    let output =
        run(restic().args(["backup", "--dry-run", "--json", "-vv"]).args(options).arg(root));
    let root = root.to_str().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let action = record["action"].as_str().filter(|action| *action == "new");
            let path = action.and(record["item"].as_str())?;
            // restic names the directories above the target too.
            path.starts_with(root).then(|| path.trim_end_matches('/').to_owned())
        })
        .map(|path| path.replace('\u{fffd}', "?"))
        .collect()
}

/// borg, with a repository made ready; answers the command and the repository.
fn borg(work: &Path) -> (impl Fn() -> Command, String) {
    let base = work.join("borg-base");
    let borg = move || {
        let mut command = Command::new("borg");
        command.env("BORG_BASE_DIR", &base).env("LANG", "C.UTF-8");
        command
    };
    let repository = work.join("borg");
    if !repository.exists() {
        run(borg().args(["init", "-e", "repokey"]).arg(&repository));
    }
    (borg, repository.display().to_string())
}

/// What borg says that it would store, with these options.
fn by_borg(work: &Path, root: &Path, options: &[String]) -> BTreeSet<String> {
    let (borg, repository) = borg(work);
    let mut command = borg();
    command.args(["--log-json", "create", "--dry-run", "--list"]).args(options);
    let output = run(command.arg("--").arg(format!("{repository}::a")).arg(root));
    String::from_utf8(output.stderr)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let item: serde_json::Value = serde_json::from_str(line).unwrap();
            let stored = item["status"].as_str() == Some("-");
            stored.then(|| item["path"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// What borg has stored, with these options: its dry run does not name tagged directories.
fn stored_by_borg(work: &Path, root: &Path, options: &[String]) -> BTreeSet<String> {
    let (borg, repository) = borg(work);
    let archive = format!("{repository}::a");
    run(borg().arg("create").args(options).arg("--").arg(&archive).arg(root));
    let listed = run(borg().args(["list", "--json-lines", &archive]));
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let item: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("/{}", item["path"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn both_engines_leave_out_the_same_paths() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("tree");
    fs::create_dir(&root).unwrap();
    plant(&root);
    let everything = by_restic(work.path(), &root, &[]);
    assert_eq!(everything, by_borg(work.path(), &root, &[]));

    // `@` stands for the tree's root.
    let sets: &[&[&str]] = &[
        &["foo"],
        &["foo/"],
        &["foo//x"],
        &["./foo"],
        &["*.o"],
        &["f*"],
        &["?oo"],
        &["@/foo"],
        &["@/foo/"],
        &["@/*/foo"],
        &["@/*"],
        &["@/**/foo"],
        &["@/a/**"],
        &["@/a/**/c"],
        &["**/foo"],
        &["**/foo/**"],
        &["foo/**"],
        &["a/**/bar"],
        &["a/**/b"],
        &["a**o"],
        &["b/c"],
        &["c/d"],
        &["foo/baz"],
        &["foo/*/foo"],
        &["@/x/**/y/**"],
        &["@/x/**/y/**/w"],
        &["@/x/**/z/**/2"],
        &["x/**/y/**"],
        &["x/**/y/**/w"],
        &["**/y/**/w"],
        &["**/**/y"],
        &["@/**/**/y"],
        &[".cache"],
        &["*.d"],
        &["a.b.c"],
        &["sp ace"],
        &["*ile"],
        &["br[1]"],
        &["br\\[1\\]"],
        &["star\\*"],
        &["star*"],
        &["plus+", "dollar$", "caret^"],
        &["paren(1)", "pipe|p", "hash#"],
        &["-dash"],
        &["\\!bang"],
        &["[!b]bang"],
        &["back\\\\slash"],
        &["ä"],
        &["?/ö"],
        &["[ä-ü]"],
        &["日本"],
        &["[日][^x]"],
        &["new*"],
        &["new\nline"],
        &["end"],
        &["end?"],
        &["d[12]"],
        &["d[1-2]"],
        &["d[^1-2]"],
        &["d[2-1]"],
        &["d[^2-1]"],
        &["d[\\1\\]]"],
        &["[\\]]"],
        &["[a-c]"],
        &["upper"],
        &["odd?"],
        &["odd*"],
        &["[^a]"],
        &["e.txt", "@/x", "foo/**/bar"],
        &["tree/foo"],
        &["nothing-of-the-sort"],
    ];
    let mut differences = Vec::new();
    let mut without_effect = 0;
    for set in sets {
        let patterns: Vec<String> =
            set.iter().map(|pattern| pattern.replace('@', root.to_str().unwrap())).collect();
        let restic: Vec<String> =
            patterns.iter().flat_map(|p| ["--exclude".to_owned(), p.clone()]).collect();
        let borg: Vec<String> =
            patterns.iter().flat_map(|p| ["--exclude".to_owned(), to_borg(p).unwrap()]).collect();
        let (restic, borg) =
            (by_restic(work.path(), &root, &restic), by_borg(work.path(), &root, &borg));
        without_effect += usize::from(restic == everything);
        if restic != borg {
            let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Vec<String> {
                a.difference(b).cloned().collect()
            };
            differences.push(format!(
                "{set:?}: only restic keeps {:?}, only borg keeps {:?}",
                only(&restic, &borg),
                only(&borg, &restic)
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // Backward ranges and the like match nothing; nearly all others must have left something out.
    assert!(without_effect <= 8, "{without_effect} pattern sets had no effect");
}

#[test]
fn both_engines_keep_a_tagged_directory_and_its_tag_alone() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("tree");
    fs::create_dir(&root).unwrap();
    plant(&root);
    let common = ["--exclude-caches", "--exclude-if-present", ".nobackup"].map(str::to_owned);
    let mut borg = common.to_vec();
    borg.push("--keep-exclude-tags".into());
    let restic = by_restic(work.path(), &root, &common);
    assert_eq!(restic, stored_by_borg(work.path(), &root, &borg));
    let below = |path: &str| root.join(path).to_str().unwrap().to_owned();
    assert!(restic.contains(&below("tagged/CACHEDIR.TAG")));
    assert!(!restic.contains(&below("tagged/lost")));
}
