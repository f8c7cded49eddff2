//! The marks of a series in restic's tags: `job=NAME`, `run=RUN`, `item=NAME`, and that of the machine that made
//! the copy, `machine=ID`.
//!
//! restic splits tags at commas and hands spaces through, so values are percent-encoded.

use crate::model::copy::Series;
use crate::model::names::{HostName, JobName, MachineId, RunId};

/// The tag that shields a snapshot from retention (ResticLVM's, so that its repositories go on working).
pub const PROTECTED: &str = "protected";

/// Everything outside `[A-Za-z0-9_.-]` as `%XX`.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The reverse of [`encode`]; `None` when the text is not an encoding.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The tags of a copy of a series.
pub fn of(series: &Series, run: &RunId) -> Vec<String> {
    let mut tags =
        vec![format!("job={}", encode(series.job.as_str())), format!("run={}", run.as_str())];
    if let Some(item) = &series.item {
        tags.push(format!("item={}", encode(item)));
    }
    tags
}

/// The tag of a machine.
pub fn of_machine(machine: &MachineId) -> String {
    format!("machine={machine}")
}

/// What the tags of a snapshot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// The series and the run, when both `job=` and `run=` are there and readable.
    pub ours: Option<(Series, RunId)>,
    /// The machine that it says made it.
    pub machine: Option<MachineId>,
    /// Whether it is [`PROTECTED`].
    pub protected: bool,
    /// The tags that are not ours, nor [`PROTECTED`]: a copy with that is pinned, and that is the one word for it.
    pub others: Vec<String>,
}

/// Reads the tags of a snapshot of a host. One without readable `job=` and `run=` tags is somebody
/// else's, and all its tags are its own.
pub fn read(hostname: &str, tags: &[String]) -> Marks {
    let value = |name: &str| tags.iter().find_map(|tag| tag.strip_prefix(name));
    let item = value("item=").map(decode);
    let ours = (|| {
        let job = JobName::new(decode(value("job=")?)?).ok()?;
        let run = RunId::parse(value("run=")?)?;
        let host = HostName::new(hostname).ok()?;
        let item = match item {
            Some(decoded) => Some(decoded?),
            None => None,
        };
        Some((Series { host, job, item }, run))
    })();
    let machine = value("machine=").and_then(MachineId::parse).filter(|_| ours.is_some());
    let is_mark = |tag: &str| {
        let of_machine = machine.is_some() && tag.starts_with("machine=");
        tag == PROTECTED
            || of_machine
            || ours.is_some() && ["job=", "run=", "item="].iter().any(|mark| tag.starts_with(mark))
    };
    Marks {
        machine: machine.clone(),
        protected: tags.iter().any(|tag| tag == PROTECTED),
        others: tags.iter().filter(|tag| !is_mark(tag)).cloned().collect(),
        ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_survives_encoding() {
        for text in ["web-1", "a,b", "a b", "ä%", "postgres.sql", "=,/\n", "100%25"] {
            let encoded = encode(text);
            assert!(!encoded.contains([',', ' ', '=', '/']), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Some(text));
        }
        for bad in ["%", "%1", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn reads_its_own_marks() {
        let series = Series {
            host: HostName::new("web1").unwrap(),
            job: JobName::new("dbs").unwrap(),
            item: Some("a,b c".into()),
        };
        let run = RunId::parse("0badcafe").unwrap();
        let mut tags = of(&series, &run);
        assert_eq!(tags, ["job=dbs", "run=0badcafe", "item=a%2Cb%20c"]);
        tags.push("protected".into());
        tags.push("mine".into());
        let machine = MachineId::from_bytes([1; 8]);
        tags.push(of_machine(&machine));
        let marks = read("web1", &tags);
        assert_eq!(marks.ours, Some((series, run)));
        assert_eq!(marks.machine, Some(machine));
        assert!(marks.protected);
        assert_eq!(marks.others, ["mine"]);
    }

    #[test]
    fn what_is_not_marked_is_foreign() {
        for tags in [
            vec![],
            vec!["job=a".to_owned()],
            vec!["run=0badcafe".to_owned()],
            vec!["job=a".to_owned(), "run=later".to_owned()],
            vec!["job=a%2Fb".to_owned(), "run=0badcafe".to_owned()],
            vec!["job=a".to_owned(), "run=0badcafe".to_owned(), "item=%zz".to_owned()],
        ] {
            let marks = read("web1", &tags);
            assert_eq!(marks.ours, None, "{tags:?}");
            assert_eq!(marks.others, tags);
        }
    }
}
