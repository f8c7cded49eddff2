//! Streams of our own making, by the writer of another implementation (crate btrfs-stream), whose reader must agree.

use btrfs_stream::{StreamCommand as Other, StreamReader, StreamWriter, Timespec};
use proptest::prelude::*;

use super::changes::{Changes, Difference, Differing};
use super::stage::{Expectation, Parent, Passed, Stage};
use super::stream::{Command, Decoder, StreamError, attribute, command, header, kind};

mod names;
mod parted;

const SENT: [u8; 16] = [1; 16];
const PARENT: [u8; 16] = [2; 16];
const THERE: [u8; 16] = [3; 16];
const SHARED: [u8; 16] = [13; 16];

fn uuid(bytes: [u8; 16]) -> uuid::Uuid {
    uuid::Uuid::from_bytes(bytes)
}

fn begin(parent: Option<[u8; 16]>) -> Other {
    let (path, uuid) = ("home.20261126".to_owned(), uuid(SENT));
    match parent {
        None => Other::Subvol { path, uuid, ctransid: 77 },
        Some(parent) => Other::Snapshot {
            path,
            uuid,
            ctransid: 77,
            clone_uuid: self::uuid(parent),
            clone_ctransid: 70,
        },
    }
}

fn write(path: &str, data: &[u8]) -> Other {
    Other::Write { path: path.into(), offset: 0, data: data.to_vec() }
}

fn clone_of(from: [u8; 16], path: &str) -> Other {
    Other::Clone {
        path: "b".into(),
        offset: 0,
        len: 4096,
        clone_uuid: uuid(from),
        clone_ctransid: 70,
        clone_path: path.into(),
        clone_offset: 0,
    }
}

/// A whole stream: these commands, and an end.
fn stream(version: u32, commands: &[Other]) -> Vec<u8> {
    let mut writer = StreamWriter::new(Vec::new(), version).unwrap();
    for command in commands.iter().chain([&Other::End]) {
        writer.write_command(command).unwrap();
    }
    writer.finish().unwrap()
}

fn expected(parent: Option<Parent>) -> Expectation {
    Expectation { name: ".incoming".into(), uuid: SENT, parent }
}

const BASED: Option<Parent> =
    Some(Parent { sent: PARENT, received: THERE, shared: SHARED, generation: Some(70) });

/// What the receiver gets of a stream that comes in pieces of these lengths, again and again.
fn pass(
    expected: Expectation,
    stream: &[u8],
    pieces: &[usize],
) -> Result<(Vec<u8>, Passed), StreamError> {
    let mut stage = Stage::new(expected);
    let (mut out, mut rest) = (Vec::new(), stream);
    for piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at((*piece).min(rest.len()));
        stage.push(now, &mut out)?;
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    let passed = stage.finish(&mut out)?;
    Ok((out, passed))
}

fn read(stream: &[u8]) -> Vec<String> {
    let mut reader = StreamReader::new(stream).unwrap();
    let mut commands = Vec::new();
    while let Some(command) = reader.next_command().unwrap() {
        commands.push(format!("{command:?}"));
    }
    commands
}

#[test]
fn a_difference_to_what_was_changed_since_is_refused() {
    let of = |generation| BASED.map(|parent| Parent { generation, ..parent });
    let sent = stream(1, &[begin(Some(PARENT)), write("a", b"text")]);
    let error = pass(expected(of(Some(69))), &sent, &[usize::MAX]).unwrap_err();
    assert_eq!(error, StreamError::BaseChanged { before: 69, now: 70 });
    assert!(pass(expected(of(None)), &sent, &[usize::MAX]).is_ok());
    // It is changed while it is sent.
    let Other::Clone { path, offset, len, clone_uuid, clone_path, clone_offset, .. } =
        clone_of(PARENT, "old/a")
    else {
        unreachable!("it was asked for")
    };
    let later = Other::Clone {
        path,
        offset,
        len,
        clone_uuid,
        clone_ctransid: 71,
        clone_path,
        clone_offset,
    };
    let sent = stream(1, &[begin(Some(PARENT)), write("a", b"text"), later]);
    let error = pass(expected(BASED), &sent, &[usize::MAX]).unwrap_err();
    assert_eq!(error, StreamError::BaseChanged { before: 70, now: 71 });
}

#[test]
fn the_name_and_the_parent_are_ours_and_all_else_passes() {
    let sent = stream(
        1,
        &[
            begin(Some(PARENT)),
            write("a", b"text"),
            clone_of(SENT, "a"),
            clone_of(PARENT, "old/a"),
            Other::Symlink { path: "s".into(), target: "../../etc/passwd".into() },
            Other::Rename { from: "o257-7-0".into(), to: "dir/x".into() },
        ],
    );
    let (out, passed) = pass(expected(BASED), &sent, &[usize::MAX]).unwrap();
    let want = |from: &Other| format!("{from:?}");
    let Other::Snapshot { uuid, ctransid, clone_ctransid, .. } = begin(Some(PARENT)) else {
        unreachable!("it was asked for")
    };
    let first = Other::Snapshot {
        path: ".incoming".into(),
        uuid,
        ctransid,
        clone_uuid: self::uuid(THERE),
        clone_ctransid,
    };
    let got = read(&out);
    assert_eq!(got[0], want(&first));
    assert_eq!(got[1], want(&write("a", b"text")));
    assert_eq!(got[2], want(&clone_of(SENT, "a")), "of itself: the receiver knows where that is");
    assert_eq!(got[3], want(&clone_of(SHARED, "old/a")));
    assert_eq!(got.len(), 7);
    assert_eq!(got[6], "End");
    assert_eq!((passed.generation, passed.commands), (77, 7));
    assert_eq!(passed.bytes, sent.len() as u64);
}

#[test]
fn what_is_received_as_another_one_shares_data_with_itself_as_that() {
    let other = [4; 16];
    let commands = [begin(Some(PARENT)), clone_of(SENT, "a"), clone_of(PARENT, "old/a")];
    let (mut stage, mut out) = (Stage::new(expected(BASED)).received_as(Some(other)), Vec::new());
    stage.push(&stream(1, &commands), &mut out).unwrap();
    let passed = stage.finish(&mut out).unwrap();
    let got = read(&out);
    let text = |bytes| uuid(bytes).to_string();
    assert!(got[0].contains(&text(other)) && got[0].contains(&text(THERE)), "{}", got[0]);
    assert_eq!(got[1], format!("{:?}", clone_of(other, "a")));
    assert_eq!(got[2], format!("{:?}", clone_of(SHARED, "old/a")));
    assert_eq!((got.len(), passed.generation), (4, 77));
    // What it must claim is the same as ever.
    let another = Stage::new(Expectation { uuid: other, ..expected(BASED) });
    let refused = another.received_as(Some(other)).push(&stream(1, &commands), &mut Vec::new());
    assert!(matches!(refused, Err(StreamError::Another { .. })), "{refused:?}");
}

#[test]
fn a_command_that_has_an_attribute_twice_is_refused() {
    // btrfs-progs takes the last of them, and would clone from what was never looked at.
    let number = 0_u64.to_le_bytes();
    let foreign = [9; 16];
    let clone = |uuids: &[&[u8]]| {
        let mut attributes: Vec<(u16, &[u8])> = vec![
            (attribute::PATH, b"b"),
            (attribute::SIZE, &number),
            (attribute::CLONE_PATH, b"a"),
        ];
        attributes.extend(uuids.iter().map(|uuid| (attribute::CLONE_UUID, *uuid)));
        let head = stream(1, &[begin(None)]);
        let end = command(kind::END, &[]).unwrap();
        let cut = head.len() - end.len();
        [&head[..cut], &command(kind::CLONE, &attributes).unwrap(), &end].concat()
    };
    assert!(pass(expected(None), &clone(&[&SENT]), &[usize::MAX]).is_ok());
    for uuids in [[&SENT[..], &foreign[..]], [&SENT[..], &SENT[..]]] {
        let error = pass(expected(None), &clone(&uuids), &[usize::MAX]).unwrap_err();
        assert!(error.to_string().contains("an attribute twice"), "{error}");
    }
}

#[test]
fn the_end_waits_for_the_word_that_the_sender_ended_well() {
    let sent = stream(1, &[begin(None), write("a", b"x")]);
    let mut stage = Stage::new(expected(None));
    let mut out = Vec::new();
    stage.push(&sent, &mut out).unwrap();
    let before = out.clone();
    assert!(!read(&before).contains(&"End".to_owned()), "it would become a finished subvolume");
    stage.finish(&mut out).unwrap();
    assert_eq!(read(&out).last().unwrap(), "End");
    assert_eq!(&out[..before.len()], before);
}

#[test]
fn another_subvolume_than_was_asked_for_does_not_begin() {
    let other = [9; 16];
    let refused = |expected: Expectation, commands: &[Other]| {
        let mut out = Vec::new();
        let error = Stage::new(expected).push(&stream(1, commands), &mut out).unwrap_err();
        assert!(matches!(error, StreamError::Another { .. }), "{error}");
        // Only a header, if anything: nothing was made.
        assert!(out.len() <= 17, "{} bytes", out.len());
    };
    refused(expected(BASED), &[begin(None)]);
    refused(expected(None), &[begin(Some(PARENT))]);
    refused(expected(BASED), &[begin(Some(other))]);
    refused(Expectation { uuid: other, ..expected(None) }, &[begin(None)]);
    refused(expected(None), &[write("a", b"x")]);
    let late = |second: Other| {
        let sent = stream(1, &[begin(None), second]);
        pass(expected(None), &sent, &[usize::MAX]).unwrap_err().to_string()
    };
    assert!(late(begin(None)).contains("a second subvolume"));
    assert!(late(clone_of(other, "a")).contains("shares data"));
}

#[test]
fn paths_stay_inside() {
    for path in ["/etc/passwd", "..", "a/../../b", "a//b", "./a", "a/."] {
        let evil = [
            write(path, b"x"),
            Other::Mkdir { path: path.into() },
            Other::Rename { from: "a".into(), to: path.into() },
            Other::Rename { from: path.into(), to: "a".into() },
            Other::Link { path: "a".into(), target: path.into() },
            clone_of(SENT, path),
        ];
        for command in evil {
            let shown = format!("{command:?}");
            let sent = stream(1, &[begin(None), command]);
            let error = pass(expected(None), &sent, &[usize::MAX]).unwrap_err();
            assert!(matches!(error, StreamError::Path { .. }), "{shown}: {error}");
        }
    }
    // The root itself.
    let root = Other::Chmod { path: String::new(), mode: 0o755 };
    assert!(pass(expected(None), &stream(1, &[begin(None), root]), &[usize::MAX]).is_ok());
}

#[test]
fn what_is_torn_damaged_or_too_long_never_ends() {
    let sent = stream(1, &[begin(None), write("a", &[7; 300])]);
    for length in 0..sent.len() {
        let error = pass(expected(None), &sent[..length], &[usize::MAX]).unwrap_err();
        assert!(matches!(error, StreamError::Truncated { .. }), "{length}: {error}");
    }
    for at in 0..sent.len() {
        let mut damaged = sent.clone();
        damaged[at] ^= 0x40;
        assert!(pass(expected(None), &damaged, &[usize::MAX]).is_err(), "byte {at}");
    }
    let more = [sent.clone(), b"x".to_vec()].concat();
    let error = pass(expected(None), &more, &[usize::MAX]).unwrap_err();
    assert_eq!(error, StreamError::Trailing { at: sent.len() as u64 });

    let mut long = header(1);
    long.extend(u32::MAX.to_le_bytes());
    let error = Stage::new(expected(None)).push(&long, &mut Vec::new()).unwrap_err();
    assert_eq!(error, StreamError::TooLong { at: 17, length: u32::MAX.into() });
    let error = pass(expected(None), b"tar\0", &[usize::MAX]).unwrap_err();
    assert_eq!(error, StreamError::NotAStream);
    let error = pass(expected(None), &header(3), &[usize::MAX]).unwrap_err();
    assert_eq!(error, StreamError::Version(3));
    let empty = pass(expected(None), b"", &[usize::MAX]).unwrap_err();
    assert_eq!(empty, StreamError::Truncated { at: 0 });
}

#[test]
fn malformed_commands_are_told_and_unknown_ones_refused() {
    let first = command(
        kind::SUBVOLUME,
        &[
            (attribute::PATH, b"x"),
            (attribute::UUID, &SENT),
            (attribute::GENERATION, &77_u64.to_le_bytes()),
        ],
    )
    .unwrap();
    let told = |commands: &[Vec<u8>]| {
        let sent = [&[header(1)], commands].concat().concat();
        pass(expected(None), &sent, &[usize::MAX]).unwrap_err().to_string()
    };
    let unknown = command(kind::ENCODED_WRITE, &[]).unwrap();
    assert!(told(&[first.clone(), unknown]).contains("unknown kind"));
    // An attribute that says that it is longer than what is left.
    let mut short = command(kind::WRITE, &[(attribute::PATH, b"abc")]).unwrap();
    short[12..14].copy_from_slice(&9_u16.to_le_bytes());
    let fresh = with_checksum(short);
    assert!(told(&[first, fresh]).contains("over the end"));
    let nameless = command(kind::SUBVOLUME, &[(attribute::PATH, b"x")]).unwrap();
    assert!(told(&[nameless]).contains("lacks an attribute"));
    let no_number =
        command(kind::SUBVOLUME, &[(attribute::UUID, &SENT), (attribute::GENERATION, b"77")]);
    assert!(told(&[no_number.unwrap()]).contains("another size"));
    assert!(command(kind::WRITE, &[(attribute::PATH, &[0; 70_000])]).is_err());
}

/// The same command, whose checksum fits.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[6..10].fill(0);
    let sum = !crc32c::crc32c_append(u32::MAX, &bytes);
    bytes[6..10].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]{1,8}(/[a-z .-]{1,8}[a-z]){0,2}"
}

fn any_command(version: u32) -> impl Strategy<Value = Other> {
    let data = proptest::collection::vec(any::<u8>(), 0..2000);
    let v2 =
        (name(), data.clone(), any::<u32>()).prop_map(|(path, data, offset)| Other::EncodedWrite {
            path,
            offset: offset.into(),
            unencoded_file_len: 4096,
            unencoded_len: 4096,
            unencoded_offset: 0,
            compression: 2,
            encryption: 0,
            data,
        });
    let v1 = prop_oneof![
        (name(), data, any::<u32>()).prop_map(|(path, data, offset)| Other::Write {
            path,
            offset: offset.into(),
            data
        }),
        name().prop_map(|path| Other::Mkfile { path }),
        (name(), name()).prop_map(|(from, to)| Other::Rename { from, to }),
        (name(), ".{0,40}").prop_map(|(path, target)| Other::Symlink { path, target }),
        name().prop_map(|path| clone_of(PARENT, &path)),
        name().prop_map(|path| clone_of(SENT, &path)),
        (name(), any::<u64>()).prop_map(|(path, size)| Other::Truncate { path, size }),
        name().prop_map(|path| {
            let now = || Timespec { sec: 1, nsec: 2 };
            Other::Utimes { path, atime: now(), mtime: now(), ctime: now() }
        }),
    ];
    if version == 1 { v1.boxed() } else { prop_oneof![v1, v2].boxed() }
}

fn any_stream() -> impl Strategy<Value = (u32, Vec<Other>)> {
    (1..=2_u32).prop_flat_map(|version| {
        (Just(version), proptest::collection::vec(any_command(version), 0..20))
    })
}

proptest! {
    /// However a stream is cut into pieces, the same comes out, and the other implementation reads in it what it wrote.
    #[test]
    fn pieces_do_not_matter_and_both_parsers_agree(
        (version, commands) in any_stream(),
        pieces in proptest::collection::vec(1..400_usize, 1..5),
    ) {
        let mut all = vec![begin(Some(PARENT))];
        all.extend(commands);
        let sent = stream(version, &all);
        let (whole, passed) = pass(expected(BASED), &sent, &[usize::MAX]).unwrap();
        prop_assert_eq!(&pass(expected(BASED), &sent, &pieces).unwrap(), &(whole.clone(), passed));
        let parent = uuid(PARENT).to_string();
        let there = uuid(SHARED).to_string();
        let want: Vec<String> =
            read(&sent).iter().skip(1).map(|told| told.replace(&parent, &there)).collect();
        prop_assert_eq!(&read(&whole)[1..], &want[..]);
        prop_assert_eq!(passed.commands, all.len() as u64 + 1);
    }

    /// Anything may come: it is taken or refused, and what is refused does not end.
    #[test]
    fn no_bytes_do_harm(
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        (version, commands) in any_stream(),
        at in any::<prop::sample::Index>(),
    ) {
        let _ = pass(expected(None), &noise, &[7]);
        let with_header = [header(version), noise.clone()].concat();
        prop_assert!(pass(expected(None), &with_header, &[usize::MAX]).is_err());
        let mut all = vec![begin(None)];
        all.extend(commands.into_iter().filter(|it| !matches!(it, Other::Clone { .. })));
        let mut sent = stream(version, &all);
        let from = at.index(sent.len());
        let until = sent.len().min(from + noise.len());
        sent[from..until].copy_from_slice(&noise[..until - from]);
        let mut decoder = Decoder::default();
        let mut ended = false;
        let each = &mut |command: Command<'_>| {
            ended |= command.kind == kind::END;
            Ok(())
        };
        let taken = decoder.push(&sent, each).and_then(|()| decoder.finish());
        prop_assert!(taken.is_err() || ended);
    }
}

fn differences(commands: &[Other]) -> Vec<(String, Difference)> {
    let mut changes = Changes::default();
    let mut decoder = Decoder::default();
    let mut all = vec![begin(Some(PARENT))];
    for command in commands {
        all.push(again(command));
    }
    decoder.push(&stream(1, &all), &mut |command| changes.take(command)).unwrap();
    decoder.finish().unwrap();
    let shown = |it: Differing| (it.path.to_str().unwrap().to_owned(), it.how);
    changes.into_all().into_iter().map(shown).collect()
}

/// The other implementation's commands cannot be copied.
fn again(command: &Other) -> Other {
    match command {
        Other::Mkfile { path } => Other::Mkfile { path: path.clone() },
        Other::Mkdir { path } => Other::Mkdir { path: path.clone() },
        Other::Rename { from, to } => Other::Rename { from: from.clone(), to: to.clone() },
        Other::Unlink { path } => Other::Unlink { path: path.clone() },
        Other::Rmdir { path } => Other::Rmdir { path: path.clone() },
        Other::Chmod { path, mode } => Other::Chmod { path: path.clone(), mode: *mode },
        Other::UpdateExtent { path, offset, len } => {
            Other::UpdateExtent { path: path.clone(), offset: *offset, len: *len }
        }
        Other::Utimes { path, .. } => times(path),
        other => panic!("{other:?}"),
    }
}

fn times(path: &str) -> Other {
    let now = || Timespec { sec: 1, nsec: 2 };
    Other::Utimes { path: path.into(), atime: now(), mtime: now(), ctime: now() }
}

fn renamed(from: &str, to: &str) -> Other {
    Other::Rename { from: from.into(), to: to.into() }
}

#[test]
fn what_is_left_of_the_ways_of_a_stream_is_the_difference() {
    let file = |path: &str| Other::Mkfile { path: path.into() };
    let directory = |path: &str| Other::Mkdir { path: path.into() };
    let unlink = |path: &str| Other::Unlink { path: path.into() };
    let data = |path: &str| Other::UpdateExtent { path: path.into(), offset: 0, len: 1 };
    let chmod = |path: &str| Other::Chmod { path: path.into(), mode: 0o600 };
    // Something new is made at the top and moved into place.
    let made = [file("o257-7-0"), renamed("o257-7-0", "a"), data("a"), chmod("a"), times("")];
    assert_eq!(differences(&made), [("a".into(), Difference::Added)]);
    // What is in the way is moved aside, and goes.
    let replaced =
        [renamed("a", "o256-1-0"), file("o257-7-0"), renamed("o257-7-0", "a"), unlink("o256-1-0")];
    assert_eq!(differences(&replaced), [("a".into(), Difference::Modified)]);
    // A directory that goes with what is in it.
    let gone = [
        renamed("d", "o256-1-0"),
        unlink("o256-1-0/x"),
        Other::Rmdir { path: "o256-1-0".into() },
        times(""),
    ];
    let want = [("d".to_owned(), Difference::Removed), ("d/x".to_owned(), Difference::Removed)];
    assert_eq!(differences(&gone), want);
    // What is in a new directory comes along where that is moved.
    let nested = [directory("o257-7-0"), file("o257-7-0/x"), renamed("o257-7-0", "e")];
    let want = [("e".to_owned(), Difference::Added), ("e/x".to_owned(), Difference::Added)];
    assert_eq!(differences(&nested), want);
    let stronger = [chmod("f"), data("f"), chmod("f"), times("f"), times("g"), chmod("h")];
    let want = [
        ("f".to_owned(), Difference::Modified),
        ("g".to_owned(), Difference::Metadata),
        ("h".to_owned(), Difference::Metadata),
    ];
    assert_eq!(differences(&stronger), want);
    // What is in a directory goes by no name that it had in between, whatever is told of it there.
    let swapped = [
        renamed("d", "o257-7-0"),
        times("o257-7-0/x"),
        unlink("o257-7-0/gone"),
        renamed("o257-7-0", "e"),
        times("e"),
    ];
    let want = [
        ("d".to_owned(), Difference::Removed),
        ("d/gone".to_owned(), Difference::Removed),
        ("e".to_owned(), Difference::Added),
        ("e/x".to_owned(), Difference::Metadata),
    ];
    assert_eq!(differences(&swapped), want);
    assert_eq!(differences(&[]), []);
}

#[test]
fn directories_that_change_places_are_told_by_what_is_where_it_was_not() {
    let file = |path: &str| Other::Mkfile { path: path.into() };
    let unlink = |path: &str| Other::Unlink { path: path.into() };
    let chmod = |path: &str| Other::Chmod { path: path.into(), mode: 0o600 };
    let data = |path: &str| Other::UpdateExtent { path: path.into(), offset: 0, len: 1 };
    let exchange = || [renamed("a", "o256-1-0"), renamed("b", "a"), renamed("o256-1-0", "b")];
    let told = |more: &[Other]| {
        let all: Vec<Other> = exchange().iter().chain(more).map(again).collect();
        let told = differences(&all);
        told.into_iter().map(|(path, how)| format!("{how:?} {path}")).collect::<Vec<_>>()
    };
    assert_eq!(told(&[]), ["Modified a", "Modified b"]);
    // What goes from where one is now was where it was.
    assert_eq!(told(&[unlink("b/x")]), ["Modified a", "Removed a/x", "Modified b"]);
    // And something else may come there.
    let both = [unlink("b/x"), file("o300-7-0"), renamed("o300-7-0", "a/x"), chmod("a/y")];
    assert_eq!(told(&both), ["Modified a", "Modified a/x", "Metadata a/y", "Modified b"]);
    // A file of it that is moved into the other one.
    let across = [renamed("b/x", "a/z")];
    assert_eq!(told(&across), ["Modified a", "Removed a/x", "Added a/z", "Modified b"]);
    // All of it once more, and nothing has come anywhere; what was changed on the way is.
    let back = [chmod("b"), data("a/f")].into_iter().chain(exchange()).collect::<Vec<_>>();
    assert_eq!(told(&back), ["Metadata a", "Modified b/f"]);
    // What was moved aside, and back, and goes.
    let gone = exchange().into_iter().chain([unlink("a/x"), Other::Rmdir { path: "a".into() }]);
    assert_eq!(told(&gone.collect::<Vec<_>>()), ["Removed a", "Removed a/x"]);
    // In a directory that was moved, another one moves, and what is in that goes.
    let deep = [renamed("b/d", "e"), unlink("e/x"), file("o301-7-0"), renamed("o301-7-0", "e/n")];
    let want = ["Modified a", "Removed a/d", "Removed a/d/x", "Modified b", "Added e", "Added e/n"];
    assert_eq!(told(&deep), want);
}
