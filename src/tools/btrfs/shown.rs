//! What btrfs-progs tell of subvolumes, where the kernel cannot be asked: on another machine.
//!
//! `btrfs subvolume show` tells all but the generation of the last change, the only trace of whoever made a copy writable
//! past btrfs-progs and changed it. That one stands at the head of a stream: the difference of a subvolume to itself is a
//! hundred bytes long.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::DateTime;

use super::stream::{Decoder, StreamError, attribute, kind};
use crate::host::{CommandSpec, Effect, Subvolume, Tool};

/// Tells of a subvolume.
pub fn show(program: &Tool, path: &Path) -> CommandSpec {
    CommandSpec::new(program.clone(), Effect::Inspect).args(["subvolume", "show", "--"]).arg(path)
}

/// Sends the difference of a read-only subvolume to itself.
pub fn send_head(program: &Tool, path: &Path) -> CommandSpec {
    let send = CommandSpec::new(program.clone(), Effect::Inspect);
    send.args(["send", "-q", "--no-data", "-p"]).arg(path).arg("--").arg(path)
}

/// Tells how often devices of the btrfs of a path failed.
pub fn failures(program: &Tool, path: &Path) -> CommandSpec {
    CommandSpec::new(program.clone(), Effect::Inspect).args(["device", "stats", "--"]).arg(path)
}

/// Reads what [`failures`] tells: how often writing failed, by device and kind; `None` when that is not whole.
pub fn failed(stdout: &[u8]) -> Option<BTreeMap<String, u64>> {
    // What was read and was wrong says nothing of what is written.
    const OF_WRITING: [&str; 2] = ["].write_io_errs", "].flush_io_errs"];
    let text = str::from_utf8(stdout).ok()?;
    let all = text.lines().map(|line| {
        let (what, count) = line.rsplit_once(' ')?;
        Some((what.trim_end().to_owned(), count.parse().ok()?))
    });
    let mut all: BTreeMap<String, u64> = all.collect::<Option<_>>()?;
    all.retain(|what, _| what.starts_with('[') && OF_WRITING.iter().any(|end| what.ends_with(end)));
    (!all.is_empty()).then_some(all)
}

/// Makes a read-only snapshot of the subvolume at a path. It is on the disk when this ends.
pub fn snapshot(program: &Tool, of: &Path, at: &Path) -> CommandSpec {
    let words = ["subvolume", "snapshot", "-r", "--"];
    CommandSpec::new(program.clone(), Effect::Mutate).args(words).args([of, at])
}

/// Deletes a subvolume for good: a power cut does not bring it back.
pub fn delete(program: &Tool, path: PathBuf, stall_limit: Duration) -> CommandSpec {
    let words = ["subvolume", "delete", "-c", "--"];
    let mut spec = CommandSpec::new(program.clone(), Effect::Mutate).args(words).arg(path);
    spec.stall_limit = Some(stall_limit);
    spec
}

/// Reads what [`show`] tells, without the generation of the last change; `None` when that is not of one whole subvolume.
pub fn shown(stdout: &[u8]) -> Option<Subvolume> {
    let text = String::from_utf8_lossy(stdout);
    let mut told = BTreeMap::new();
    // Names of snapshots stand further to the right, and below all else.
    for line in text.lines() {
        let Some((key, value)) = line.strip_prefix('\t').and_then(|line| line.split_once(':'))
        else {
            continue;
        };
        told.entry(key).or_insert(value.trim());
    }
    subvolume(&told)
}

fn subvolume(block: &BTreeMap<&str, &str>) -> Option<Subvolume> {
    let uuid = |key| Some(Some(*block.get(key)?).filter(|it| *it != "-").map(str::to_owned));
    Some(Subvolume {
        file_system: String::new(),
        id: Some(block.get("Subvolume ID")?.parse().ok()?),
        uuid: uuid("UUID")?,
        parent_uuid: uuid("Parent UUID")?,
        received_uuid: uuid("Received UUID")?,
        read_only: block.get("Flags")?.split_whitespace().any(|flag| flag == "readonly"),
        changed: 0,
        made_in: block.get("Gen at creation")?.parse().ok()?,
        received: block.get("Send transid")?.parse().ok()?,
        made: DateTime::parse_from_str(block.get("Creation time")?, "%Y-%m-%d %H:%M:%S %z")
            .ok()?
            .to_utc(),
    })
}

/// Reads what [`send_head`] sends: the generation in which the subvolume was changed last.
///
/// # Errors
/// When it is no stream, or not whole.
pub fn generation(stream: &[u8]) -> Result<u64, StreamError> {
    let (mut decoder, mut generation) = (Decoder::default(), None);
    decoder.push(stream, &mut |command| {
        if matches!(command.kind, kind::SUBVOLUME | kind::SNAPSHOT) {
            generation = Some(command.number(attribute::GENERATION)?);
        }
        Ok(())
    })?;
    decoder.finish()?;
    generation.ok_or(StreamError::Malformed { at: 0, what: "a stream of no subvolume" })
}

#[cfg(test)]
mod tests {
    use super::super::stream::{command, header};
    use super::*;

    const SHOWN: &str = "t/home@web1
\tName: \t\t\thome@web1
\tUUID: \t\t\t4de3b2f4-dcd6-3c44-9bf4-b66ddfa8da7a
\tParent UUID: \t\t-
\tReceived UUID: \t\t7dbd2b8a-75c7-224b-88f0-07ba639dd810
\tCreation time: \t\t2026-11-27 06:25:20 +0000
\tSubvolume ID: \t\t260
\tGeneration: \t\t12
\tGen at creation: \t10
\tParent ID: \t\t5
\tTop level ID: \t\t5
\tFlags: \t\t\treadonly
\tSend transid: \t\t7
\tSend time: \t\t2026-11-27 06:25:20 +0000
\tReceive transid: \t10
\tReceive time: \t\t2026-11-27 06:25:20 +0000
\tSnapshot(s):
\t\t\t\tr/s2: UUID: x
";

    #[test]
    fn how_often_devices_failed() {
        let told = "[/dev/sd a].write_io_errs    12\n[/dev/sd a].read_io_errs     7\n[/dev/sd a].flush_io_errs    0\n\
                    [/dev/sd a].corruption_errs  3\n[/dev/sd a].generation_errs  4\n";
        let failed_so = failed(told.as_bytes()).unwrap();
        let expected = [("[/dev/sd a].flush_io_errs", 0), ("[/dev/sd a].write_io_errs", 12)];
        assert!(failed_so.iter().map(|(what, count)| (what.as_str(), *count)).eq(expected));
        for torn in
            ["", "[/dev/a].read_io_errs     7\n", "hello\n", "[/dev/a].write_io_errs    x\n"]
        {
            assert_eq!(failed(torn.as_bytes()), None, "{torn}");
        }
        let spec = failures(&Tool::Path("/sbin/btrfs".into()), Path::new("/srv/b"));
        assert_eq!(spec.display(), "/sbin/btrfs device stats -- /srv/b");
    }

    #[test]
    fn what_is_told_of_a_subvolume() {
        let whole = Subvolume {
            file_system: String::new(),
            id: Some(260),
            uuid: Some("4de3b2f4-dcd6-3c44-9bf4-b66ddfa8da7a".into()),
            parent_uuid: None,
            received_uuid: Some("7dbd2b8a-75c7-224b-88f0-07ba639dd810".into()),
            read_only: true,
            changed: 0,
            made_in: 10,
            received: 7,
            made: "2026-11-27T06:25:20Z".parse().unwrap(),
        };
        assert_eq!(shown(SHOWN.as_bytes()), Some(whole.clone()));
        // A snapshot whose name goes on in further lines says nothing of it.
        let forged = format!("{SHOWN}\t\t\t\tr/a\n{}", SHOWN.replace("4de3", "0000"));
        assert_eq!(shown(forged.as_bytes()), Some(whole.clone()));
        let writable =
            SHOWN.replace("readonly", "-").replace("7dbd2b8a-75c7-224b-88f0-07ba639dd810", "-");
        let open = Subvolume { read_only: false, received_uuid: None, ..whole };
        assert_eq!(shown(format!("WARNING: odd\n{writable}").as_bytes()), Some(open));
        for torn in ["", "ERROR: no", SHOWN.split("\tSend").next().unwrap()] {
            assert_eq!(shown(torn.as_bytes()), None);
        }
    }

    /// The difference of a subvolume to itself.
    fn head(name: &str, generation: u64) -> Vec<u8> {
        let generation = generation.to_le_bytes();
        let attributes: [(u16, &[u8]); 3] = [
            (attribute::PATH, name.as_bytes()),
            (attribute::UUID, &[7; 16]),
            (attribute::GENERATION, &generation),
        ];
        let [begin, end] = [(kind::SNAPSHOT, &attributes[..]), (kind::END, &[])]
            .map(|(kind, it)| command(kind, it).unwrap());
        [header(1), begin, end].concat()
    }

    #[test]
    fn the_generation_is_read_from_a_whole_stream_alone() {
        let stream = head("a", 1 << 40);
        assert_eq!(generation(&stream), Ok(1 << 40));
        for cut in 0..stream.len() {
            assert!(generation(&stream[..cut]).is_err(), "{cut}");
        }
        assert!(generation(&[&stream[..], b"x"].concat()).is_err());
        let empty = [header(1), command(kind::END, &[]).unwrap()].concat();
        assert!(generation(&empty).is_err());
    }

    #[test]
    fn command_lines() {
        let btrfs = Tool::Named("btrfs".into());
        assert_eq!(show(&btrfs, Path::new("/-a")).display(), "btrfs subvolume show -- /-a");
        let sent = send_head(&btrfs, Path::new("/a"));
        assert_eq!(sent.display(), "btrfs send -q --no-data -p /a -- /a");
        let made = snapshot(&btrfs, Path::new("/-a"), Path::new("/s/b"));
        assert_eq!(made.display(), "btrfs subvolume snapshot -r -- /-a /s/b");
        assert_eq!(made.effect, Effect::Mutate);
        let deleted = delete(&btrfs, "/srv/-a".into(), Duration::from_secs(1));
        assert_eq!(deleted.display(), "btrfs subvolume delete -c -- /srv/-a");
        assert_eq!(deleted.effect, Effect::Mutate);
    }
}
