//! Names that streams make, beside a tree that knows nothing but whole paths.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::model::shown::Show;
use crate::tools::btrfs::edits::{Edit, Edited, Edits};
use crate::tools::btrfs::names::Names;

/// What a stream does, as it is told.
fn edits(version: u32, commands: &[Other]) -> Vec<Edited> {
    let (mut decoder, mut edits, mut told) = (Decoder::default(), Edits::default(), Vec::new());
    let mut each = |edited: &Edited| told.push(edited.clone());
    let stream = stream(version, commands);
    decoder.push(&stream, &mut |command| edits.take(command, &mut each)).unwrap();
    decoder.finish().unwrap();
    let lines: Vec<Vec<u8>> = told.iter().map(|it| serde_json::to_vec(it).unwrap()).collect();
    let read: Option<Vec<Edited>> = lines.iter().map(|line| Edited::read(line)).collect();
    assert_eq!(read.as_ref(), Some(&told), "as it is written and read");
    told
}

fn file(path: &str) -> Other {
    Other::Mkfile { path: path.into() }
}

fn directory(path: &str) -> Other {
    Other::Mkdir { path: path.into() }
}

fn unlink(path: &str) -> Other {
    Other::Unlink { path: path.into() }
}

fn link(path: &str, target: &str) -> Other {
    Other::Link { path: path.into(), target: target.into() }
}

fn at(path: &str, offset: u64, length: usize) -> Other {
    Other::Write { path: path.into(), offset, data: vec![7; length] }
}

fn touched(path: &str, modified: u64, changed: u64) -> Other {
    let time = |sec| Timespec { sec, nsec: 5 };
    Other::Utimes { path: path.into(), atime: time(1), mtime: time(modified), ctime: time(changed) }
}

/// Has a stream done to names what it does.
fn done(names: &mut Names, commands: &[Other]) {
    for edited in edits(1, commands) {
        names.take(&edited).unwrap();
    }
}

fn made(commands: &[Other]) -> Names {
    let mut names = Names::default();
    done(&mut names, commands);
    names
}

/// Path, kind, size and mode of all there is.
fn all(names: &Names) -> Vec<String> {
    let (mut walk, mut all) = (names.walk(), Vec::new());
    while let Some((path, node)) = walk.step().unwrap() {
        all.push(format!("{} {} {} {:o}", node.kind, path.shown(), node.size, node.mode));
    }
    all
}

/// How the one differs from the other.
fn between(before: &Names, after: &Names, related: bool) -> Vec<(String, Difference)> {
    let told = after.differences(before, related).unwrap();
    told.into_iter().map(|it| (it.path.to_str().unwrap().to_owned(), it.how)).collect()
}

#[test]
fn every_command_is_told_as_what_it_does() {
    let path = || "a".to_owned();
    let clone = clone_of(SENT, "x");
    let told = |version, command: Other| -> Edit {
        let told = edits(version, &[command]);
        assert_eq!(told.len(), 1, "{told:?}");
        told[0].edit.clone()
    };
    let make = |kind| Edit::Make { kind, device: 0 };
    let (mode, rdev) = (0o020_644, 0x503);
    for (command, edit) in [
        (file("a"), make('-')),
        (directory("a"), make('d')),
        (Other::Mkfifo { path: path() }, make('p')),
        (Other::Mksock { path: path() }, make('s')),
        (Other::Mknod { path: path(), mode, rdev }, Edit::Make { kind: 'c', device: 0x503 }),
        (
            Other::Symlink { path: path(), target: "../../etc".into() },
            Edit::Symlink("../../etc".into()),
        ),
        (link("a", "b"), Edit::Link("b".into())),
        (renamed("a", "b"), Edit::Rename("b".into())),
        (unlink("a"), Edit::Unlink),
        (Other::Rmdir { path: path() }, Edit::Rmdir),
        (at("a", 4096, 3), Edit::Write(4099)),
        (clone, Edit::Write(4096)),
        (Other::UpdateExtent { path: path(), offset: 4, len: 6 }, Edit::Write(10)),
        (Other::Truncate { path: path(), size: 9 }, Edit::Resize(9)),
        (Other::Chmod { path: path(), mode: 0o104_755 }, Edit::Mode(0o4755)),
        (Other::Chown { path: path(), uid: 5, gid: 6 }, Edit::Owner(5, 6)),
        (touched("a", 7, 8), Edit::Times { modified: (7, 5), changed: (8, 5) }),
    ] {
        let what = format!("{command:?}");
        assert_eq!(told(1, command), edit, "{what}");
    }
    let encoded = Other::EncodedWrite {
        path: path(),
        offset: 4096,
        unencoded_file_len: 10,
        unencoded_len: 8192,
        unencoded_offset: 0,
        compression: 2,
        encryption: 0,
        data: vec![1; 5],
    };
    assert_eq!(told(2, encoded), Edit::Write(4106));
    assert_eq!(told(2, at("a", 1, 4)), Edit::Write(5));
    let attribute = |name: &str, data: &[u8]| {
        told(1, Other::SetXattr { path: path(), name: name.into(), data: data.into() })
    };
    assert_eq!(attribute("user.a", b"1"), attribute("user.a", b"1"));
    assert_ne!(attribute("user.a", b"1"), attribute("user.a", b"2"));
    assert_ne!(attribute("user.a", b"1"), attribute("user.b", b"1"));
    let Edit::Attribute(name, Some(_)) = attribute("user.a", b"1") else { panic!("it is set") };
    let removed = told(1, Other::RemoveXattr { path: path(), name: "user.a".into() });
    assert_eq!(removed, Edit::Attribute(name, None));
    // However much is written to a file, that is one line.
    let many: Vec<Other> = (0..100).map(|n| at("a", n * 10, 10)).collect();
    let told = edits(1, &many);
    assert!(matches!(told.as_slice(), [Edited { edit: Edit::Write(1000), .. }]), "{told:?}");
    let told = edits(1, &[at("a", 0, 9), at("b", 0, 1), at("a", 0, 1)]);
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn names_end_up_where_a_receiver_puts_them() {
    let mut names = made(&[
        directory("o257-7-0"),
        renamed("o257-7-0", "d"),
        file("o258-7-0"),
        renamed("o258-7-0", "d/a"),
        at("d/a", 0, 10),
        at("d/a", 4, 2),
        Other::Chmod { path: "d/a".into(), mode: 0o4755 },
        link("b", "d/a"),
        Other::Symlink { path: "l".into(), target: "d".into() },
    ]);
    let whole = names.clone();
    assert_eq!(all(&names), ["d  0 755", "- b 10 4755", "d d 0 700", "- d/a 10 4755", "l l 0 777"]);
    // A file by two names grows in both, and is there as long as one of them is.
    done(
        &mut names,
        &[
            at("b", 10, 5),
            renamed("d", "o257-7-0"),
            directory("o259-8-0"),
            renamed("o259-8-0", "d"),
            unlink("o257-7-0/a"),
            Other::Rmdir { path: "o257-7-0".into() },
            renamed("b", "d/b"),
            Other::Chown { path: "d/b".into(), uid: 1, gid: 2 },
        ],
    );
    assert_eq!(all(&names), ["d  0 755", "d d 0 700", "- d/b 15 755", "l l 0 777"]);
    assert_eq!(
        between(&whole, &names, true),
        [
            ("b".into(), Difference::Removed),
            ("d/a".into(), Difference::Removed),
            ("d/b".into(), Difference::Added),
        ]
    );
}

#[test]
fn what_differs_is_told_once_and_by_the_strongest_word() {
    let base = [
        directory("d"),
        file("d/a"),
        file("b"),
        file("c"),
        at("d/a", 0, 4),
        touched("d/a", 1, 1),
        touched("b", 1, 1),
        touched("c", 1, 1),
        touched("d", 1, 1),
    ];
    let before = made(&base);
    let later = |commands: &[Other]| {
        let mut names = before.clone();
        done(&mut names, commands);
        between(&before, &names, true)
    };
    assert_eq!(later(&[]), []);
    let one = |path: &str, how| [(path.to_owned(), how)];
    // Whoever sets the time back hides nothing.
    assert_eq!(later(&[at("d/a", 0, 4), touched("d/a", 1, 2)]), one("d/a", Difference::Modified));
    let resized = |size| Other::Truncate { path: "d/a".into(), size };
    assert_eq!(later(&[resized(4)]), []);
    assert_eq!(later(&[resized(3)]), one("d/a", Difference::Modified));
    assert_eq!(later(&[touched("b", 2, 2)]), one("b", Difference::Metadata));
    assert_eq!(later(&[touched("b", 1, 2)]), []);
    let set = |data: &[u8]| Other::SetXattr {
        path: "b".into(),
        name: "user.a".into(),
        data: data.into(),
    };
    let unset = || Other::RemoveXattr { path: "b".into(), name: "user.a".into() };
    assert_eq!(later(&[set(b"1")]), one("b", Difference::Metadata));
    assert_eq!(later(&[set(b"1"), unset()]), []);
    // The time of a directory changes with each entry, and is told only for its own sake.
    assert_eq!(later(&[touched("d", 2, 2)]), one("d", Difference::Metadata));
    assert_eq!(later(&[file("d/x"), touched("d", 2, 2)]), one("d/x", Difference::Added));
    // Two files that change places are two others, although nothing was written.
    let swapped = [renamed("b", "o1-1-0"), renamed("c", "b"), renamed("o1-1-0", "c")];
    let want = [("b".to_owned(), Difference::Modified), ("c".to_owned(), Difference::Modified)];
    assert_eq!(later(&swapped), want);
    let replaced = [unlink("b"), directory("b"), file("b/x")];
    let want = [("b".to_owned(), Difference::Modified), ("b/x".to_owned(), Difference::Added)];
    assert_eq!(later(&replaced), want);
}

#[test]
fn copies_that_share_no_stream_are_compared_by_what_is_told_of_them() {
    let with = |more: &[Other]| {
        let mut names = made(&[file("a"), at("a", 0, 4), file("b")]);
        done(&mut names, &[touched("a", 1, 1), touched("b", 1, 1)]);
        done(&mut names, more);
        names
    };
    let before = with(&[]);
    let later = |more: &[Other]| between(&before, &with(more), false);
    assert_eq!(later(&[]), []);
    let one = |how| [("a".to_owned(), how)];
    assert_eq!(later(&[at("a", 4, 1)]), one(Difference::Modified));
    assert_eq!(later(&[touched("a", 2, 2)]), one(Difference::Modified));
    assert_eq!(later(&[touched("a", 1, 2)]), one(Difference::Modified), "the time was set back");
    let chmod = Other::Chmod { path: "a".into(), mode: 0o640 };
    assert_eq!(later(&[chmod, touched("a", 1, 2)]), one(Difference::Metadata));
    let linked = [link("x", "a"), touched("a", 1, 2)];
    assert_eq!(later(&linked), [("x".to_owned(), Difference::Added)]);
}

#[test]
fn what_two_chains_wrote_after_they_parted_is_not_the_same() {
    let shared = made(&[file("a"), file("b")]);
    let (mut one, mut other) = (shared.clone(), shared.clone());
    done(&mut one, &[at("a", 0, 4)]);
    other = other.after(&one);
    done(&mut other, &[at("a", 0, 4)]);
    assert_eq!(between(&one, &other, true), [("a".to_owned(), Difference::Modified)]);
}

#[test]
fn what_cannot_be_done_is_told_with_its_place_and_changes_nothing() {
    let symlink = Other::Symlink { path: "l".into(), target: "d".into() };
    let names = made(&[directory("d"), file("d/a"), file("b"), link("c", "b"), symlink]);
    let long = "x".repeat(256);
    let rmdir = |path: &str| Other::Rmdir { path: path.into() };
    let chmod = |path: &str| Other::Chmod { path: path.into(), mode: 0 };
    for command in [
        file("../x"),
        file("/x"),
        file(""),
        file("."),
        file("d/.."),
        file("d//x"),
        file("x/y"),
        file("l/x"),
        file("b/x"),
        file("b"),
        file(&long),
        link("x", "d"),
        link("x", "y"),
        renamed("d", "d/e"),
        renamed("b", "d"),
        renamed("d", "b"),
        renamed("", "x"),
        renamed("x", "y"),
        renamed("b", "x/y"),
        renamed("b", "../y"),
        unlink("d"),
        unlink(""),
        unlink("x"),
        rmdir("d"),
        rmdir("b"),
        rmdir(""),
        at("d", 0, 1),
        at("l", 0, 1),
        at("x", 0, 1),
        chmod("x"),
        chmod("l"),
    ] {
        let (what, mut after) = (format!("{command:?}"), names.clone());
        let told = edits(1, &[command]);
        let error = after.take(&told[0]).unwrap_err();
        assert_eq!((error.at, &error.path), (17, &told[0].path), "{what}: {error}");
        assert!(error.to_string().starts_with("at byte 17: "), "{error}");
        assert_eq!(all(&after), all(&names), "{what}");
    }
}

#[test]
fn a_tree_without_end_is_refused_and_not_gone_down() {
    let mut names = Names::default();
    let mut take = |edited: &Edited| names.take(edited).unwrap();
    // Each goes below the next, so that no path of the stream is ever long.
    for n in 0..5000 {
        let told = edits(1, &[directory("n"), renamed("d", "n/d"), renamed("n", "d")]);
        let told = if n == 0 { edits(1, &[directory("d")]) } else { told };
        told.iter().for_each(&mut take);
    }
    let mut walk = names.walk();
    let error = loop {
        match walk.step() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it came to an end"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("longer than any path"), "{error}");
}

/// A tree as a map from whole paths to what is there.
#[derive(Debug, Clone, Default)]
struct Plain {
    paths: BTreeMap<String, usize>,
    files: Vec<(char, u64, u32)>,
    /// A number for each file, another one whenever it is written.
    contents: Vec<u64>,
    next: u64,
}

impl Plain {
    fn kind(&self, path: &str) -> Option<char> {
        if path.is_empty() {
            return Some('d');
        }
        self.paths.get(path).map(|id| self.files[*id].0)
    }

    fn may_be_made(&self, path: &str) -> bool {
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let is_name = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        is_name && self.kind(above) == Some('d')
    }

    fn is_empty(&self, path: &str) -> bool {
        !self.paths.keys().any(|it| it.starts_with(&format!("{path}/")))
    }

    /// Does it, if it can be done.
    fn take(&mut self, path: &str, edit: &Edit) -> bool {
        let id = self.paths.get(path).copied();
        match (edit, self.kind(path)) {
            (Edit::Make { kind, .. }, None) if self.may_be_made(path) => {
                let mode = if *kind == 'd' { 0o700 } else { 0o600 };
                self.paths.insert(path.to_owned(), self.files.len());
                self.files.push((*kind, 0, mode));
                self.contents.push(self.next);
                self.next += 1;
                true
            }
            (Edit::Link(to), None) if self.may_be_made(path) => {
                let to = to.to_str().unwrap();
                let is_file = self.kind(to).is_some_and(|kind| kind != 'd');
                if is_file {
                    self.paths.insert(path.to_owned(), self.paths[to]);
                }
                is_file
            }
            (Edit::Rename(to), Some(_)) => id.is_some() && self.rename(path, to.to_str().unwrap()),
            (Edit::Unlink, Some(kind)) if kind != 'd' => self.paths.remove(path).is_some(),
            (Edit::Rmdir, Some('d')) if id.is_some() && self.is_empty(path) => {
                self.paths.remove(path).is_some()
            }
            (Edit::Write(_) | Edit::Resize(_), Some('-')) => {
                let (size, content) =
                    (&mut self.files[id.unwrap()].1, &mut self.contents[id.unwrap()]);
                let now = match edit {
                    Edit::Write(end) => (*size).max(*end),
                    Edit::Resize(size) => *size,
                    other => panic!("{other:?}"),
                };
                if now != *size || matches!(edit, Edit::Write(_)) {
                    (*size, *content) = (now, self.next);
                    self.next += 1;
                }
                true
            }
            (Edit::Mode(mode), Some(_)) if id.is_some() => {
                self.files[id.unwrap()].2 = *mode;
                true
            }
            _ => false,
        }
    }

    fn rename(&mut self, path: &str, to: &str) -> bool {
        if !self.may_be_made(to) || to.starts_with(&format!("{path}/")) {
            return false;
        }
        if let Some(kind) = self.kind(to) {
            if self.paths[to] == self.paths[path] {
                return true;
            }
            let is_directory = |kind| kind == Some('d');
            if is_directory(Some(kind)) != is_directory(self.kind(path)) || !self.is_empty(to) {
                return false;
            }
            self.paths.remove(to);
        }
        let inside = format!("{path}/");
        let moves = |it: &str| it == path || it.starts_with(&inside);
        let moved: Vec<String> = self.paths.keys().filter(|it| moves(it)).cloned().collect();
        for from in moved {
            let id = self.paths.remove(&from).unwrap();
            self.paths.insert(format!("{to}{}", &from[path.len()..]), id);
        }
        true
    }

    fn all(&self) -> Vec<String> {
        let told = |(path, id): (&String, &usize)| {
            let (kind, size, mode) = self.files[*id];
            format!("{kind} {path} {size} {mode:o}")
        };
        let mut all: Vec<String> = self.paths.iter().map(told).collect();
        all.push("d  0 755".into());
        all.sort();
        all
    }

    fn differences(&self, before: &Plain) -> Vec<(String, Difference)> {
        let mut told = Vec::new();
        let all: std::collections::BTreeSet<&String> =
            self.paths.keys().chain(before.paths.keys()).collect();
        for path in all {
            let of = |it: &Plain| it.paths.get(path).map(|id| (it.files[*id], it.contents[*id]));
            let how = match (of(before), of(self)) {
                (None, _) => Difference::Added,
                (_, None) => Difference::Removed,
                (Some(((was, ..), old)), Some(((is, ..), new)))
                    if was != is || is == '-' && old != new =>
                {
                    Difference::Modified
                }
                (Some(((_, _, was), _)), Some(((_, _, is), _))) if was != is => {
                    Difference::Metadata
                }
                (Some(_), Some(_)) => continue,
            };
            told.push((path.clone(), how));
        }
        told.sort_by(|one, next| PathBuf::from(&one.0).cmp(&PathBuf::from(&next.0)));
        told
    }
}

fn a_path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "o257-7-0", "..", ""]);
    let weighted = prop_oneof![9 => prop::sample::select(vec!["a", "b", "c"]), 1 => name];
    prop::collection::vec(weighted, 1..4).prop_map(|names| names.join("/"))
}

fn an_edit() -> impl Strategy<Value = (String, Edit)> {
    let edit = prop_oneof![
        4 => prop::sample::select(vec!['-', 'd', 'd', 'p'])
            .prop_map(|kind| Edit::Make { kind, device: 0 }),
        2 => a_path().prop_map(|to| Edit::Link(to.into())),
        4 => a_path().prop_map(|to| Edit::Rename(to.into())),
        2 => Just(Edit::Unlink),
        1 => Just(Edit::Rmdir),
        2 => (0..100_u64).prop_map(Edit::Write),
        1 => (0..100_u64).prop_map(Edit::Resize),
        1 => (0..0o1000_u32).prop_map(Edit::Mode),
    ];
    (a_path().prop_filter("the root is always there", |path| !path.is_empty()), edit)
}

proptest! {
    #[test]
    fn names_are_as_in_a_tree_of_whole_paths(
        first in prop::collection::vec(an_edit(), 0..60),
        second in prop::collection::vec(an_edit(), 0..30),
    ) {
        let (mut names, mut plain) = (Names::default(), Plain::default());
        let take = |names: &mut Names, plain: &mut Plain, all: &[(String, Edit)]| {
            for (path, edit) in all {
                let edited = Edited { at: 3, path: path.into(), edit: edit.clone() };
                let said = names.take(&edited);
                assert_eq!(said.is_ok(), plain.take(path, edit), "{edited:?}: {said:?}");
            }
            let mut told = self::all(names);
            told.sort();
            assert_eq!(told, plain.all());
        };
        take(&mut names, &mut plain, &first);
        let (before, was) = (names.clone(), plain.clone());
        take(&mut names, &mut plain, &second);
        prop_assert_eq!(between(&before, &names, true), plain.differences(&was));
    }

    #[test]
    fn whatever_a_stream_says_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 1..26_u16) {
        // Attributes of any kind and length, in a command of any kind.
        let mut attributes: Vec<(u16, &[u8])> = Vec::new();
        for (n, chunk) in bytes.chunks(9).enumerate() {
            attributes.push((u16::try_from(n % 32).unwrap(), &chunk[..chunk.len().min(8)]));
        }
        attributes.dedup_by_key(|(kind, _)| *kind);
        attributes.truncate(31);
        let sent = [header(1), command(kind, &attributes).unwrap()].concat();
        let (mut edits, mut names) = (Edits::default(), Names::default());
        let _ = Decoder::default().push(&sent, &mut |command| {
            edits.take(command, &mut |edited| drop(names.take(edited)))
        });
    }
}
