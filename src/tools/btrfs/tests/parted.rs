//! Streams that are taken apart, and go on.

use super::*;
use crate::tools::btrfs::parts::{Behind, Cut, Cutting, Mark, of_part, part_name, part_uuid};
use crate::tools::btrfs::shares::Splitting;

const SEED: [u8; 16] = [7; 16];
const KNOWN: [u8; 16] = [8; 16];

fn cutting(every: u64) -> Cutting {
    Cutting { every, seed: Some(SEED), behind: None }
}

/// Behind a part, in a stream that comes from its beginning or from there.
fn behind(every: u64, mark: &Mark, leave_out: bool) -> Cutting {
    let behind = Behind { mark: mark.clone(), received: Some(KNOWN), leave_out };
    Cutting { every, seed: Some(SEED), behind: Some(behind) }
}

/// Leaves out what is there, and takes nothing apart.
fn rest(every: u64, mark: &Mark) -> Cutting {
    let behind = Behind { mark: mark.clone(), received: None, leave_out: true };
    Cutting { every, seed: None, behind: Some(behind) }
}

struct Parted {
    out: Vec<u8>,
    cuts: Vec<Cut>,
    passed: Passed,
}

fn parted(cutting: Cutting, stream: &[u8], piece: usize) -> Result<Parted, StreamError> {
    let mut stage = Stage::new(expected(BASED)).cutting(Some(cutting));
    let (mut out, mut cuts) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        stage.push(piece, &mut out)?;
        cuts.extend(stage.cuts());
    }
    let passed = stage.finish(&mut out)?;
    Ok(Parted { out, cuts, passed })
}

/// The streams that stand one after the other, each with its commands.
fn streams(version: u32, all: &[u8]) -> Vec<Vec<String>> {
    let (head, mut rest) = (header(version), all);
    let mut streams = Vec::new();
    while !rest.is_empty() {
        assert!(rest.starts_with(&head));
        let mut length = head.len();
        loop {
            let of = u32::from_le_bytes(rest[length..length + 4].try_into().unwrap()) as usize;
            let is_end = rest[length + 4] == 21;
            length += 10 + of;
            if is_end {
                break;
            }
        }
        let (stream, others) = rest.split_at(length);
        streams.push(read(stream));
        rest = others;
    }
    streams
}

/// What a receiver ends up with: each stream is based on the one before it, and has commands of its own.
fn received(version: u32, all: &[u8], first_parent: [u8; 16]) -> Vec<String> {
    let streams = streams(version, all);
    let mut parent = uuid(first_parent).to_string();
    let mut commands = Vec::new();
    for (at, stream) in streams.iter().enumerate() {
        let (begin, of_it) = stream.split_first().unwrap();
        assert!(begin.starts_with("Snapshot"), "{begin}");
        assert!(
            begin.contains(&format!("clone_uuid: {parent}")),
            "{begin} is not based on {parent}"
        );
        let own = begin.split("uuid: ").nth(1).unwrap().split(',').next().unwrap();
        let is_last = at + 1 == streams.len();
        assert_eq!(is_last, own == uuid(SENT).to_string());
        assert_eq!(is_last, begin.contains("path: \".incoming\""), "{begin}");
        let shares = uuid(SHARED).to_string();
        for command in of_it {
            let shared = command.split("clone_uuid: ").nth(1).map(|it| &it[..36]);
            assert!(shared.is_none_or(|it| it == own || it == shares), "{command} in {own}");
            commands.push(command.replace(own, &uuid(SENT).to_string()));
        }
        parent = own.to_owned();
    }
    commands.retain(|command| command != "End");
    commands
}

fn plain(stream: &[u8]) -> Vec<String> {
    let (out, _) = pass(expected(BASED), stream, &[usize::MAX]).unwrap();
    let mut commands = read(&out);
    commands.remove(0);
    commands.retain(|command| command != "End");
    commands
}

proptest! {
    /// Wherever a stream is taken apart, a receiver gets the same from its parts; and behind each of them it goes on with
    /// the rest and no more, whoever leaves out what is there.
    #[test]
    fn parts_are_the_whole_and_go_on_anywhere(
        (version, commands) in any_stream(),
        every in 1..3000_u64,
        piece in 1..4000_usize,
    ) {
        let mut all = vec![begin(Some(PARENT))];
        all.extend(commands);
        let sent = stream(version, &all);
        let want = plain(&sent);
        let whole = parted(cutting(every), &sent, piece).unwrap();
        prop_assert_eq!(&received(version, &whole.out, THERE), &want);
        prop_assert_eq!(whole.passed.bytes, sent.len() as u64);
        for (n, cut) in whole.cuts.iter().enumerate() {
            prop_assert_eq!(cut.mark.part as usize, n);
            prop_assert_eq!(&cut.uuid, &uuid(part_uuid(SEED, cut.mark.part)).to_string());
            prop_assert_eq!(Mark::parse(&cut.mark.word()), Some(cut.mark.clone()));
        }
        for cut in whole.cuts.iter().filter(|cut| !cut.last) {
            let here = parted(behind(every, &cut.mark, true), &sent, piece).unwrap();
            let left = received(version, &here.out, KNOWN);
            prop_assert_eq!(&left, &want[want.len() - left.len()..]);
            prop_assert_eq!(here.passed.bytes, sent.len() as u64 - cut.mark.offset);
            let later: Vec<&Mark> = whole.cuts.iter().map(|it| &it.mark).filter(|it| it.part > cut.mark.part).collect();
            prop_assert_eq!(here.cuts.iter().map(|it| &it.mark).collect::<Vec<_>>(), later);
            let names = |of: &Passed| [of.named, of.unnamed];
            let [named, unnamed] = names(&here.passed);
            prop_assert_eq!([named + cut.named, unnamed + cut.unnamed], names(&whole.passed));
            // The same on two machines: the one leaves out, the other one takes apart.
            let mut stage = Stage::new(Expectation {
                parent: Some(Parent { sent: PARENT, received: PARENT, shared: PARENT, generation: None }),
                ..expected(None)
            })
            .cutting(Some(rest(every, &cut.mark)));
            let mut line = Vec::new();
            stage.push(&sent, &mut line).unwrap();
            let passed = stage.finish(&mut line).unwrap();
            prop_assert_eq!(passed.bytes, sent.len() as u64 - cut.mark.offset);
            let there = parted(behind(every, &cut.mark, false), &line, piece).unwrap();
            prop_assert_eq!(&there.out, &here.out);
            prop_assert_eq!(there.cuts, here.cuts);
        }
    }

    /// A stream of which there is no such part is refused, and nothing of it is whole.
    #[test]
    fn another_stream_does_not_go_on(
        (version, commands) in any_stream(),
        every in 1..2000_u64,
        other in 1..2000_u64,
    ) {
        let mut all = vec![begin(Some(PARENT)), write("changed", b"a")];
        all.extend(commands);
        let before = stream(version, &all);
        all[1] = write("changed", b"b");
        let after = stream(version, &all);
        for cut in parted(cutting(every), &before, 999).unwrap().cuts {
            for (every, stream) in [(every, &after), (every + other, &before)] {
                let cutting = behind(every, &cut.mark, true);
                match parted(cutting, stream, 999) {
                    Err(StreamError::Differs { .. }) => {}
                    // Larger parts may end at the same places.
                    Ok(_) => prop_assert!(std::ptr::eq(stream, &raw const before)),
                    Err(other) => prop_assert!(false, "{other}"),
                }
            }
        }
    }
}

/// All that passed, and where in it shares ended.
type Shared = (Vec<u8>, Vec<(usize, Mark)>, Passed);

/// What passes of a stream in shares.
fn shared(
    behind: Option<&Mark>,
    every: u64,
    stream: &[u8],
    piece: usize,
) -> Result<Shared, StreamError> {
    let splitting = Splitting { every, behind: behind.cloned() };
    let mut stage = Stage::new(expected(BASED)).splitting(Some(splitting));
    let (mut all, mut out, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        stage.push(piece, &mut out)?;
        ends.extend(stage.boundaries().into_iter().map(|it| (all.len() + it.at, it.mark)));
        all.append(&mut out);
    }
    let passed = stage.finish(&mut all)?;
    Ok((all, ends, passed))
}

proptest! {
    /// Shares are the stream to the byte, end where parts would, and who has some of them is told where they end, and of the
    /// others the same as before.
    #[test]
    fn shares_are_the_stream_and_go_on_anywhere(
        (version, commands) in any_stream(),
        every in 1..3000_u64,
        piece in 1..4000_usize,
    ) {
        let mut all = vec![begin(Some(PARENT))];
        all.extend(commands);
        let sent = stream(version, &all);
        let (whole, passed) = pass(expected(BASED), &sent, &[piece]).unwrap();
        let (out, ends, of_shares) = shared(None, every, &sent, piece).unwrap();
        prop_assert_eq!(&out, &whole);
        prop_assert_eq!(of_shares, passed);
        let parts = parted(cutting(every), &sent, piece).unwrap().cuts;
        let marks: Vec<&Mark> = ends.iter().map(|(_, mark)| mark).collect();
        // An end behind which nothing follows but that of the stream is none.
        let expected: Vec<&Mark> = parts.iter().map(|cut| &cut.mark).take(ends.len()).collect();
        prop_assert_eq!(&marks, &expected);
        prop_assert!(parts.len() <= ends.len() + 1);
        let first = out.len() as u64 - (ends.last().map_or(0, |(at, _)| *at) as u64);
        prop_assert!(first > 0);
        for (n, (at, mark)) in ends.iter().enumerate() {
            let (again, later, passed) = shared(Some(mark), every, &sent, 999).unwrap();
            prop_assert_eq!(&again, &out);
            prop_assert_eq!(&later[..], &ends[n..], "the first is that which is there: at {}", at);
            prop_assert_eq!(passed, of_shares);
        }
    }

    /// A stream of which there are no such shares is refused.
    #[test]
    fn another_stream_is_not_gone_on_with(
        (version, commands) in any_stream(),
        every in 1..2000_u64,
    ) {
        let mut all = vec![begin(Some(PARENT)), write("changed", b"a")];
        all.extend(commands);
        let before = stream(version, &all);
        all[1] = write("changed", b"b");
        let after = stream(version, &all);
        for (_, mark) in shared(None, every, &before, 999).unwrap().1 {
            let refused = shared(Some(&mark), every, &after, 999);
            let differs = matches!(refused, Err(StreamError::Differs { .. }));
            prop_assert!(differs);
        }
    }
}

#[test]
fn what_ends_where_a_part_ends_that_is_there_has_another_end() {
    let all = [begin(Some(PARENT)), write("a", &[5; 5000]), write("a", &[6; 5000])];
    let (_, ends, _) = shared(None, 4000, &stream(1, &all), 999).unwrap();
    assert_eq!(ends.len(), 1, "nothing follows the second");
    let refused = shared(Some(&ends[0].1), 4000, &stream(1, &all[..2]), 999);
    assert!(matches!(refused, Err(StreamError::Differs { .. })), "{refused:?}");
}

#[test]
fn what_is_compressed_is_counted_at_the_length_that_it_has_otherwise() {
    let packed = |length: u64| Other::EncodedWrite {
        path: "a".into(),
        offset: 0,
        unencoded_file_len: length,
        unencoded_len: length.max(4096),
        unencoded_offset: 0,
        compression: 2,
        encryption: 0,
        data: vec![1; 3000],
    };
    let long = 100 << 10;
    let sent = stream(2, &[begin(Some(PARENT)), packed(long), packed(long), times("a")]);
    let plain = [48, 48, 4, 48, 48, 4].map(|length| write("a", &vec![1; length << 10]));
    let plain = [begin(Some(PARENT))].into_iter().chain(plain).chain([times("a")]);
    let long = stream(1, &plain.collect::<Vec<_>>()).len() as u64;
    let (_, passed) = pass(expected(BASED), &sent, &[999]).unwrap();
    let spare = 6 * 64;
    let is_it = |length: u64| (long..long + spare).contains(&length);
    assert!(is_it(passed.bytes + passed.unpacked), "{passed:?} is no {long}");
    // Each counts its own, whoever goes on behind a part.
    let whole = parted(cutting(1), &sent, 7).unwrap();
    assert_eq!(whole.passed, passed);
    let [first, ..] = &whole.cuts[..] else { panic!("{:?}", whole.cuts) };
    assert_eq!(first.unpacked, passed.unpacked / 2);
    let rest = parted(behind(1, &first.mark, true), &sent, 7).unwrap();
    assert_eq!(rest.passed.unpacked, passed.unpacked / 2);
    assert_eq!(rest.passed.bytes + first.mark.offset, passed.bytes);
    // What is longer than it says counts as what it is.
    let sent = stream(2, &[begin(Some(PARENT)), packed(1)]);
    assert_eq!(pass(expected(BASED), &sent, &[999]).unwrap().1.unpacked, 0);
}

#[test]
fn a_short_stream_is_one_and_a_long_one_has_parts_of_their_size() {
    let sent = |writes: usize| {
        let data = vec![5; 40_000];
        let mut all = vec![begin(Some(PARENT))];
        all.extend((0..writes).map(|_| write("a", &data)));
        stream(1, &all)
    };
    let short = sent(50);
    let whole = parted(cutting(256 << 20), &short, 65536).unwrap();
    assert_eq!(whole.cuts, []);
    assert_eq!(whole.out, pass(expected(BASED), &short, &[usize::MAX]).unwrap().0);
    let long = sent(400);
    let whole = parted(cutting(5_000_000), &long, 65536).unwrap();
    let ends: Vec<u64> = whole.cuts.iter().map(|cut| cut.mark.offset / 1_000_000).collect();
    assert_eq!(ends, [5, 10, 15, 16]);
    assert_eq!(
        whole.cuts.iter().map(|cut| cut.last).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    // What is worth keeping, but no more than one part.
    let whole = parted(cutting(256 << 20), &long, 65536).unwrap();
    assert_eq!(whole.cuts.iter().map(|cut| cut.last).collect::<Vec<_>>(), [true]);
    assert_eq!(received(1, &whole.out, THERE), plain(&long));
}

#[test]
fn no_part_ends_where_the_receiver_remembers_something() {
    let capable =
        Other::SetXattr { path: "a".into(), name: "security.capability".into(), data: vec![1; 20] };
    let owned = Other::Chown { path: "a".into(), uid: 1, gid: 1 };
    let sent = stream(
        1,
        &[begin(Some(PARENT)), write("a", b"x"), capable, owned, times("a"), write("b", b"x")],
    );
    let whole = parted(cutting(1), &sent, 7).unwrap();
    let streams = streams(1, &whole.out);
    let lengths: Vec<usize> = streams.iter().map(|stream| stream.len() - 2).collect();
    assert_eq!(lengths, [1, 3, 1, 0], "{streams:#?}");
}

#[test]
fn the_names_of_parts_are_told_from_others() {
    assert_eq!(of_part(&part_name("home@web1.x.0badc0de", 12)), Some(("home@web1.x.0badc0de", 12)));
    for other in ["home@web1.x.0badc0de", "x.part", "x.part-1", "x.part01", "x.part+1", "x.part1.y"]
    {
        assert_eq!(of_part(other), None, "{other}");
    }
    let digest = "0".repeat(64);
    assert!(Mark::parse(&format!("1:2:{digest}")).is_some());
    for wrong in ["", "1:2", "1:2:", "x:2:y", &format!("-1:2:{digest}"), &format!("1:2:{digest}:3")]
    {
        assert_eq!(Mark::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn behind_many_parts_they_become_longer() {
    let mut all = vec![begin(Some(PARENT))];
    all.extend((0..4000).map(|_| write("a", &[5; 100])));
    let sent = stream(1, &all);
    let (out, ends, _) = shared(None, 100, &sent, 5000).unwrap();
    // Each command is longer than a part at first, and than half of one that is twice as long.
    assert_eq!(ends.len(), 1024 + 1024 + (4000 - 1024 - 2 * 1024) / 4 - 1);
    let length = |part: usize| ends[part].0 - ends[part - 1].0;
    let short = length(1);
    let lengths = [1023, 1024, 2047, 2048, 2278].map(length);
    assert_eq!(lengths, [short, 2 * short, 2 * short, 4 * short, 4 * short]);
    // Who goes on behind them finds the same ends.
    for n in [1000, 1023, 1024, 2047, 2200] {
        let (again, later, _) = shared(Some(&ends[n].1), 100, &sent, 5000).unwrap();
        assert!(again == out && later[..] == ends[n..], "{n}");
    }
}
