//! Archive names: `JOB@HOST[.ITEM].20261121T020304Z.RUN`, which say whose copy an archive is and of when.
//! A pinned archive's name ends in `.pinned` besides: borg gives an archive no mark that could be changed later
//! but its name (`rename` rewrites the manifest in one transaction, in an append-only repository too).
//!
//! Host and item are encoded into letters, digits, `-` and `_`: an underscore is doubled, every other byte
//! becomes `_` and two hexadecimal digits. So no name holds a character that borg or a shell reads
//! (`:`, `/`, braces), and no two series share a name.

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::model::copy::Series;
use crate::model::names::{HostName, JobName, RunId};

/// How the time stands in a name, in UTC.
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// What borg appends to the name of an archive that it saves on the way.
const CHECKPOINT: &str = ".checkpoint";

/// What the name of a pinned archive ends in.
const PINNED: &str = ".pinned";

/// The name of the archive that a run makes for a series at a time; fractions of a second are dropped.
pub fn archive_name(series: &Series, time: DateTime<Utc>, run: &RunId) -> String {
    let mut name = format!("{}@{}", series.job, encode(series.host.as_str()));
    if let Some(item) = &series.item {
        name.push('.');
        name.push_str(&encode(item));
    }
    format!("{name}.{}.{run}", time.format(TIME))
}

/// The series that a name tells; `None` as [`parse_archive_name`].
pub fn series_in(name: &str) -> Option<Series> {
    parse_archive_name(name).map(|(series, ..)| series)
}

/// Reads a name back; `None` when it is not one that [`archive_name`] gives.
pub fn parse_archive_name(name: &str) -> Option<(Series, DateTime<Utc>, RunId)> {
    let mut parts = name.rsplitn(3, '.');
    let run = RunId::parse(parts.next()?)?;
    let time = NaiveDateTime::parse_from_str(parts.next()?, TIME).ok()?.and_utc();
    let (job, rest) = parts.next()?.split_once('@')?;
    let (host, item) = match rest.split_once('.') {
        Some((host, item)) => (host, Some(decode(item)?)),
        None => (rest, None),
    };
    let series =
        Series { host: HostName::new(decode(host)?).ok()?, job: JobName::new(job).ok()?, item };
    // Reading is laxer than writing (upper-case hexadecimal, short years); only what we would write is ours.
    (archive_name(&series, time, &run) == name).then_some((series, time, run))
}

/// The name of the same archive while it is pinned.
pub fn pinned_name(name: &str) -> String {
    match unpinned_name(name) {
        Some(_) => name.to_owned(),
        None => format!("{name}{PINNED}"),
    }
}

/// For a pinned archive, the name that it has without its pin; `None` for one that is not pinned.
pub fn unpinned_name(name: &str) -> Option<&str> {
    name.strip_suffix(PINNED).filter(|name| !name.is_empty())
}

/// For a checkpoint archive, the name that the finished one would have had.
pub fn finished_name(name: &str) -> Option<&str> {
    if let Some(finished) = name.strip_suffix(CHECKPOINT) {
        return Some(finished);
    }
    let (rest, number) = name.rsplit_once('.')?;
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    rest.strip_suffix(CHECKPOINT).filter(|_| numbered)
}

/// Encodes a text into letters, digits, `-` and `_`, so that no two texts become the same.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'_' => encoded.push_str("__"),
            byte if byte.is_ascii_alphanumeric() || byte == b'-' => encoded.push(byte.into()),
            byte => encoded.push_str(&format!("_{byte:02x}")),
        }
    }
    encoded
}

/// The reverse of [`encode`]; `None` when the text is not an encoding.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'_' {
            decoded.push(byte);
            continue;
        }
        let first = bytes.next()?;
        if first == b'_' {
            decoded.push(b'_');
        } else {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(first)? * 16 + digit(bytes.next()?)?;
            decoded.push(u8::try_from(value).ok()?);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_says_whose_it_is_and_of_when() {
        let series = Series {
            host: HostName::new("web1.example.org").unwrap(),
            job: JobName::new("host").unwrap(),
            item: Some("db/ä_1".into()),
        };
        let time = Utc.with_ymd_and_hms(2026, 11, 21, 2, 3, 4).unwrap();
        let run = RunId::parse("0a1b2c3d").unwrap();
        let name = archive_name(&series, time, &run);
        assert_eq!(name, "host@web1_2eexample_2eorg.db_2f_c3_a4__1.20261121T020304Z.0a1b2c3d");
        assert_eq!(parse_archive_name(&name), Some((series, time, run)));
    }

    #[test]
    fn other_names_are_somebody_elses() {
        for name in [
            "",
            "monday",
            "host@web1.20261121T020304Z",
            "host@web1.20261121T020304Z.0A1B2C3D",
            "host@web1.20261121T020304Z.0a1b2c3d.checkpoint",
            "host@web1_2E.20261121T020304Z.0a1b2c3d",
            "host@web_1.20261121T020304Z.0a1b2c3d",
            "host@web1.a.b.20261121T020304Z.0a1b2c3d",
            "host@web1.20261321T020304Z.0a1b2c3d",
            "@web1.20261121T020304Z.0a1b2c3d",
        ] {
            assert_eq!(parse_archive_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_pin_is_the_end_of_a_name() {
        let name = "host@web1.20261121T020304Z.0a1b2c3d";
        let pinned = pinned_name(name);
        assert_eq!(pinned, "host@web1.20261121T020304Z.0a1b2c3d.pinned");
        assert_eq!(pinned_name(&pinned), pinned, "once is enough");
        assert_eq!(unpinned_name(&pinned), Some(name));
        for other in [name, "", ".pinned", "pinned", "host.pinned.20261121T020304Z.0a1b2c3d"] {
            assert_eq!(unpinned_name(other), None, "{other}");
        }
    }

    #[test]
    fn checkpoints_name_the_finished_archive() {
        assert_eq!(finished_name("a.checkpoint"), Some("a"));
        assert_eq!(finished_name("a.checkpoint.12"), Some("a"));
        assert_eq!(finished_name("a.checkpoint.x"), None);
        assert_eq!(finished_name("a.checkpoint."), None);
        assert_eq!(finished_name("a"), None);
    }

    proptest! {
        #[test]
        fn names_round_trip(
            job in "[A-Za-z0-9][A-Za-z0-9_-]{0,20}",
            host in "[A-Za-z0-9][A-Za-z0-9_.-]{0,20}",
            item in proptest::option::of(".{0,12}"),
            seconds in 0i64..200_000_000_000,
            run in any::<[u8; 4]>(),
        ) {
            let series = Series {
                host: HostName::new(host).unwrap(),
                job: JobName::new(job).unwrap(),
                item,
            };
            let time = DateTime::from_timestamp(seconds, 0).unwrap();
            let run = RunId::from_bytes(run);
            let name = archive_name(&series, time, &run);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"@._-".contains(&b)));
            prop_assert_eq!(unpinned_name(&name), None);
            let pinned = pinned_name(&name);
            prop_assert_eq!(unpinned_name(&pinned), Some(name.as_str()));
            prop_assert_eq!(parse_archive_name(&name), Some((series, time, run)));
        }
    }
}
