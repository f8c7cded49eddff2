use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::host::{InUse, Staged};

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory(u32),
    File(u32, String),
    Link(PathBuf),
    Pipe,
}

type Tree = BTreeMap<PathBuf, Node>;

fn write(tree: &Tree, below: &Path) {
    for (path, node) in tree {
        let at = below.join(path);
        match node {
            Node::Directory(_) => fs::create_dir(&at).unwrap(),
            Node::File(mode, text) => {
                fs::write(&at, text).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Node::Link(to) => symlink(to, &at).unwrap(),
            Node::Pipe => nix::unistd::mkfifo(&at, Mode::from_bits_truncate(0o600)).unwrap(),
        }
    }
    // Last, since nothing can be made in a directory without its bits.
    for (path, node) in tree.iter().rev() {
        if let Node::Directory(mode) = node {
            fs::set_permissions(below.join(path), fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

fn read(below: &Path) -> Tree {
    fn walk(at: &Path, path: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let (at, path) = (entry.path(), path.join(entry.file_name()));
            let found = at.symlink_metadata().unwrap();
            let mode = found.mode() & 0o7777;
            let node = match found.file_type() {
                kind if kind.is_dir() => Node::Directory(mode),
                kind if kind.is_file() => Node::File(mode, fs::read_to_string(&at).unwrap()),
                kind if kind.is_symlink() => Node::Link(fs::read_link(&at).unwrap()),
                _ => Node::Pipe,
            };
            tree.insert(path.clone(), node);
            if found.is_dir() {
                walk(&at, &path, tree);
            }
        }
    }
    let mut tree = Tree::new();
    walk(below, Path::new(""), &mut tree);
    tree
}

fn below<'a>(tree: &'a Tree, path: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
    tree.keys().filter(move |other| *other != path && other.starts_with(path))
}

/// The old tree overlaid by the new one, and what of that is refused.
fn overlaid(old: &Tree, new: &Tree) -> (Tree, Vec<PathBuf>) {
    let (mut tree, mut refused) = (old.clone(), Vec::new());
    for (path, node) in new {
        let is_directory = matches!(node, Node::Directory(_));
        let was_directory = matches!(old.get(path), Some(Node::Directory(_)));
        let is_full = below(old, path).next().is_some();
        if !is_directory && was_directory && is_full {
            refused.push(path.clone());
        } else {
            tree.insert(path.clone(), node.clone());
        }
    }
    (tree, refused)
}

/// A destination with something in it, and what was laid out for it.
struct Bench {
    _dir: tempfile::TempDir,
    at: PathBuf,
    staging: PathBuf,
    victim: PathBuf,
}

impl Bench {
    fn new(old: &Tree, new: &Tree) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("to");
        let staging = at.join(".staging");
        let victim = dir.path().join("victim");
        for path in [&at, &victim, &staging] {
            fs::create_dir(path).unwrap();
        }
        fs::write(victim.join("a"), "root's").unwrap();
        fs::write(victim.join("b"), "root's").unwrap();
        write(old, &at);
        write(new, &staging);
        Self { _dir: dir, at, staging, victim }
    }

    fn placement(&self) -> Placement {
        Placement {
            destination: self.at.clone(),
            identity: identity(&self.at),
            staged: vec![Staged {
                path: self.staging.clone(),
                identity: identity(&self.staging),
                at: "".into(),
            }],
            named: Vec::new(),
            mounted: Vec::new(),
            closed: Vec::new(),
            in_use: Vec::new(),
        }
    }

    /// What is there when the staging directory is gone.
    fn result(&self) -> Tree {
        fs::remove_dir_all(&self.staging).unwrap();
        for name in ["a", "b"] {
            assert_eq!(fs::read_to_string(self.victim.join(name)).unwrap(), "root's");
        }
        assert_eq!(fs::read_dir(&self.victim).unwrap().count(), 2, "written through a link");
        read(&self.at)
    }
}

fn identity(path: &Path) -> Identity {
    let found = path.symlink_metadata().unwrap();
    Identity::Inode { device: found.dev(), inode: found.ino() }
}

fn put(placement: &Placement) -> Placed {
    place(placement, &mut || Ok(())).unwrap()
}

fn file(text: &str) -> Node {
    Node::File(0o644, text.into())
}

fn tree<const N: usize>(entries: [(&str, Node); N]) -> Tree {
    entries.map(|(path, node)| (path.into(), node)).into()
}

/// Trees of three names and three levels, so that two of them meet in every way.
fn any_tree() -> impl Strategy<Value = Tree> {
    let mode = prop_oneof![Just(0o755), Just(0o700), Just(0o2770)];
    let node = prop_oneof![
        4 => mode.prop_map(Node::Directory),
        3 => ("[xyz]{1,3}", prop_oneof![Just(0o644), Just(0o600)])
            .prop_map(|(text, mode)| Node::File(mode, text)),
        1 => prop_oneof![Just("../victim"), Just("../../victim"), Just("a"), Just("nowhere")]
            .prop_map(|to| Node::Link(to.into())),
        1 => Just(Node::Pipe),
    ];
    prop::collection::btree_map("[abc](/[abc]){0,2}", node, 0..14).prop_map(|wanted| {
        let mut tree = Tree::new();
        for (path, node) in wanted {
            let path = PathBuf::from(path);
            let mut above = path.ancestors().skip(1).filter(|above| *above != Path::new(""));
            if above.all(|above| matches!(tree.get(above), Some(Node::Directory(_)))) {
                tree.insert(path, node);
            }
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_old_tree_is_overlaid_by_the_new_one(old in any_tree(), new in any_tree()) {
        let bench = Bench::new(&old, &new);
        let placed = put(&bench.placement());
        let (expected, mut refused) = overlaid(&old, &new);
        let mut left: Vec<_> = placed.refused.into_iter().map(|refused| refused.path).collect();
        left.sort();
        refused.sort();
        prop_assert_eq!(left, refused);
        prop_assert_eq!(bench.result(), expected);
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Ended, or failed, at each change: every name has the old or the new.
    #[test]
    fn ended_anywhere_each_name_is_old_or_new(old in any_tree(), new in any_tree()) {
        let (expected, refused) = overlaid(&old, &new);
        for kind in [io::ErrorKind::Interrupted, io::ErrorKind::Other] {
            let mut at = 0;
            loop {
                let bench = Bench::new(&old, &new);
                let (mut steps, mut ended) = (0, false);
                let placed = place(&bench.placement(), &mut || {
                    steps += 1;
                    ended |= steps > at;
                    if steps == at + 1 { Err(kind.into()) } else { Ok(()) }
                });
                if ended && kind == io::ErrorKind::Interrupted {
                    prop_assert_eq!(placed.unwrap_err().kind(), kind);
                } else {
                    let more = u64::from(ended);
                    prop_assert_eq!(placed.unwrap().refused_count, refused.len() as u64 + more);
                }
                let found = bench.result();
                for path in old.keys().chain(expected.keys()).chain(found.keys()) {
                    let is = found.get(path);
                    prop_assert!(
                        is == old.get(path) || is == expected.get(path),
                        "{} is {:?} when change {} is the last", path.shown(), is, at
                    );
                }
                if !ended {
                    break;
                }
                at += 1;
            }
        }
    }
}

#[test]
fn whatever_is_in_the_way_is_replaced_but_a_full_directory() {
    let old = tree([
        ("a", Node::Link("../victim/a".into())),
        ("b", Node::Pipe),
        ("c", Node::Directory(0o755)),
        ("d", Node::Directory(0o755)),
        ("d/precious", file("mine")),
        ("e", Node::Link("../victim".into())),
        ("kept", file("kept")),
    ]);
    let new = tree([
        ("a", file("a")),
        ("b", file("b")),
        ("c", file("c")),
        ("d", file("d")),
        ("e", Node::Directory(0o750)),
        ("e/a", file("ea")),
    ]);
    let bench = Bench::new(&old, &new);
    let placed = put(&bench.placement());
    assert_eq!(placed.refused_count, 1);
    assert_eq!(placed.refused[0].path, Path::new("d"));
    assert!(placed.refused[0].reason.contains("move it away first"), "{placed:?}");
    let found = bench.result();
    for name in ["a", "b", "c", "e/a"] {
        assert_eq!(found[Path::new(name)], new[Path::new(name)], "{name}");
    }
    for name in ["d/precious", "kept"] {
        assert_eq!(found[Path::new(name)], old[Path::new(name)], "{name}");
    }
}

#[test]
fn directories_above_what_is_named_stay_as_they_are_and_are_no_links() {
    let old = tree([("a", Node::Directory(0o711)), ("a/b", Node::Directory(0o711))]);
    let new = tree([
        ("a", Node::Directory(0o750)),
        ("a/b", Node::Directory(0o750)),
        ("a/b/f", file("new")),
        ("a/new", Node::Directory(0o750)),
        ("a/new/f", file("new")),
    ]);
    let bench = Bench::new(&old, &new);
    let mut placement = bench.placement();
    placement.named = vec!["a/b/f".into(), "a/new/f".into(), "a/absent".into()];
    let placed = put(&placement);
    assert_eq!((placed.refused_count, placed.missing), (0, vec!["a/absent".into()]));
    let found = bench.result();
    assert_eq!(found[Path::new("a")], Node::Directory(0o711));
    assert_eq!(found[Path::new("a/b")], Node::Directory(0o711));
    assert_eq!(found[Path::new("a/new")], Node::Directory(0o750), "as the copy holds it");
    assert_eq!(found[Path::new("a/b/f")], file("new"));

    let old = tree([("a", Node::Link("../victim".into()))]);
    let bench = Bench::new(&old, &new);
    let mut placement = bench.placement();
    placement.named = vec!["a/b/f".into()];
    let placed = put(&placement);
    assert_eq!(placed.refused_count, 1);
    assert!(placed.refused[0].reason.contains("a symbolic link"), "{placed:?}");
    assert_eq!(placed.missing, [PathBuf::from("a/b/f")], "not what the link leads to");
    assert_eq!(bench.result(), old);
}

#[test]
fn hard_links_and_holes_and_attributes_come_along() {
    let old = tree([("a", file("old")), ("d", Node::Directory(0o755))]);
    let new = tree([("a", file("new")), ("d", Node::Directory(0o751)), ("d/x", file("x"))]);
    let bench = Bench::new(&old, &new);
    fs::hard_link(bench.at.join("a"), bench.at.join("b")).unwrap();
    fs::hard_link(bench.staging.join("a"), bench.staging.join("d/second")).unwrap();
    let sparse = fs::File::create(bench.staging.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    fs::File::open(bench.staging.join("d")).unwrap().set_times(times).unwrap();
    assert_eq!(put(&bench.placement()).refused_count, 0);
    let inode = |path: &str| bench.at.join(path).metadata().unwrap().ino();
    assert_eq!(inode("a"), inode("d/second"));
    assert_ne!(inode("a"), inode("b"));
    assert_eq!(
        fs::read_to_string(bench.at.join("b")).unwrap(),
        "old",
        "another name of the old one"
    );
    assert!(bench.at.join("sparse").metadata().unwrap().blocks() < 100);
    let merged = bench.at.join("d").metadata().unwrap();
    assert_eq!((merged.mode() & 0o7777, merged.mtime()), (0o751, 0));
}

#[test]
fn another_directory_than_the_one_that_was_looked_at_is_refused() {
    let new = tree([("a", file("new"))]);
    let bench = Bench::new(&Tree::new(), &new);
    let placement = bench.placement();
    let elsewhere = bench.at.with_file_name("elsewhere");
    fs::rename(&bench.staging, bench.at.join("moved")).unwrap();
    symlink(&bench.victim, &bench.staging).unwrap();
    assert!(place(&placement, &mut || Ok(())).is_err());
    fs::remove_file(&bench.staging).unwrap();
    fs::rename(bench.at.join("moved"), &bench.staging).unwrap();
    fs::rename(&bench.at, &elsewhere).unwrap();
    symlink(&bench.victim, &bench.at).unwrap();
    assert!(place(&placement, &mut || Ok(())).is_err());
    assert_eq!(fs::read_dir(&bench.victim).unwrap().count(), 2);
}

#[test]
fn what_has_the_name_of_our_own_directory_does_not_get_its_place() {
    let new = tree([(".staging", Node::Directory(0o755)), (".staging/a", file("a"))]);
    let bench = Bench::new(&Tree::new(), &new);
    assert_eq!(put(&bench.placement()).refused_count, 1);
    assert_eq!(bench.result(), Tree::new());
}

fn must_empty(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
}

/// A user makes a directory a link and a directory again, all the time.
#[test]
fn a_directory_that_becomes_a_link_at_any_moment_leads_nowhere() {
    let old = tree([("docs", Node::Directory(0o755)), ("other", Node::Link("../victim".into()))]);
    let new = tree([
        ("docs", Node::Directory(0o755)),
        ("docs/a", file("evil")),
        ("docs/b", file("evil")),
    ]);
    let bench = Bench::new(&old, &Tree::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let at = File::open(&bench.at).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let swap = RenameFlags::RENAME_EXCHANGE;
                let _ = renameat2(&at, "docs", &at, "other", swap);
            }
        });
        for _ in 0..300 {
            write(&new, &bench.staging);
            let mut placement = bench.placement();
            placement.named = vec!["docs/a".into(), "docs/b".into()];
            put(&placement);
            must_empty(&bench.staging);
        }
        stop.store(true, Ordering::Relaxed);
    });
    bench.result();
}

#[test]
fn a_new_directory_is_ours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let made = create(&path, 0o700).unwrap();
    assert!(is_identical(&made, &path.metadata().unwrap()));
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o700);
    assert_eq!(create(&path, 0o700).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

/// The directories are there on both sides, and differ; what is in one of them cannot be stored.
#[test]
fn a_directory_in_a_closed_place_keeps_its_attributes_and_is_told() {
    let old = tree([
        ("shut", Node::Directory(0o755)),
        ("shut/d", Node::Directory(0o755)),
        ("open", Node::Directory(0o755)),
    ]);
    let new = tree([
        ("shut", Node::Directory(0o700)),
        ("shut/d", Node::Directory(0o700)),
        ("open", Node::Directory(0o700)),
    ]);
    let bench = Bench::new(&old, &new);
    let closed = Refused { path: "shut".into(), reason: "no room".into() };
    let placed =
        put(&Placement { mounted: vec!["shut".into()], closed: vec![closed], ..bench.placement() });
    let refused = Refused { path: "shut/d".into(), reason: "no room".into() };
    assert_eq!((placed.refused, placed.refused_count), (vec![refused], 1));
    let mut result = old;
    result.insert("open".into(), Node::Directory(0o700));
    assert_eq!(bench.result(), result);

    // Nobody asked for it: it is only the way to what was named.
    let bench = Bench::new(&result, &new);
    let closed = Refused { path: "".into(), reason: "no room".into() };
    let placed =
        put(&Placement { named: vec!["shut/d".into()], closed: vec![closed], ..bench.placement() });
    let refused = Refused { path: "shut/d".into(), reason: "no room".into() };
    assert_eq!((placed.refused, placed.refused_count), (vec![refused], 1));
    assert_eq!(bench.result(), result);
}

/// Everything in the destination of these names is in use.
fn in_use(bench: &Bench, names: &[&str]) -> Placement {
    let held =
        |name: &&str| InUse { identity: identity(&bench.at.join(name)), what: "ours".into() };
    Placement { in_use: names.iter().map(held).collect(), ..bench.placement() }
}

#[test]
fn what_is_in_use_stays_whatever_the_copy_has_in_its_place() {
    let directory = || Node::Directory(0o700);
    let old = tree([
        ("a", directory()),
        ("a/state", directory()),
        ("a/state/f", file("live")),
        ("a/empty", directory()),
        ("a/link", Node::Link("state".into())),
        ("a/same", Node::Link("state".into())),
        ("a/elsewhere", Node::Link("state".into())),
        ("a/other", file("old")),
    ]);
    let new = tree([
        ("a", Node::Directory(0o755)),
        ("a/state", Node::Directory(0o755)),
        ("a/state/f", file("of old")),
        ("a/state/g", file("of old")),
        ("a/empty", file("a file then")),
        ("a/link", directory()),
        ("a/link/f", file("of old")),
        ("a/same", Node::Link("state".into())),
        ("a/elsewhere", Node::Link("empty".into())),
        ("a/other", file("new")),
    ]);
    let bench = Bench::new(&old, &new);
    let mut placement = in_use(&bench, &["a/state", "a/empty", "a/link", "a/same", "a/elsewhere"]);
    placement.named = vec!["a/state/g".into(), "a/link/f".into(), "a/other".into(), "a".into()];
    let placed = put(&placement);
    assert_eq!(placed.missing, [PathBuf::from("a/link/f")]);
    // What lies below a link that stays is as lost as it is below any other one.
    let refused: Vec<_> = placed.refused.iter().map(|it| it.path.as_path()).collect();
    assert_eq!((refused, placed.refused_count), (vec![Path::new("a/link")], 1));
    let why = &placed.refused[0].reason;
    assert!(why.starts_with("it is ours, which is in use and is not followed"), "{why}");
    let mut left: Vec<_> = placed.passed_over.into_iter().collect();
    left.sort_by(|one, other| one.path.cmp(&other.path));
    let expected = ["a/elsewhere", "a/empty", "a/state"];
    let expected = expected.map(|path| Refused { path: path.into(), reason: "ours".into() });
    assert_eq!(left, expected, "a link to where it leads already is no loss");
    let mut result = old.clone();
    result.insert("a".into(), Node::Directory(0o755));
    result.insert("a/other".into(), file("new"));
    assert_eq!(bench.result(), result);
}

#[test]
fn nothing_that_is_in_use_comes_to_harm_wherever_the_move_ends() {
    let old = tree([
        ("a", Node::Directory(0o755)),
        ("a/f", file("live")),
        ("b", Node::Link("a".into())),
        ("c", Node::Directory(0o755)),
    ]);
    let new = tree([
        ("a", Node::Directory(0o700)),
        ("a/f", file("of old")),
        ("b", Node::Directory(0o700)),
        ("b/f", file("of old")),
        ("c", file("of old")),
        ("d", file("new")),
    ]);
    for last in 0..4 {
        let bench = Bench::new(&old, &new);
        let mut steps = 0;
        let placed = place(&in_use(&bench, &["a", "b", "c"]), &mut || {
            steps += 1;
            if steps > last { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        });
        assert_eq!(placed.is_ok(), last > 0, "what is passed over is no change");
        let mut found = bench.result();
        found.remove(Path::new("d"));
        assert_eq!(found, old);
    }
}
