//! What engines know of a copy that `btrfs send` made: whose it is and what it is called, and which of them are read.

use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{BackupReport, BackupRequest};
use crate::host::Host;
use crate::model::copy::{Copy, Series};
use crate::model::hash::fnv;
use crate::model::names::{HostName, JobName, MachineId, RunId};
use crate::model::outcome::Outcome;
use crate::model::target::ReadData;
use crate::tools::borg::name;

/// The longest name that a copy gets, in bytes: a file system takes 255, and a record is written as `.NAME.json.` and 16
/// digits first.
pub(super) const LONGEST_NAME: usize = 255 - 23;

/// Which target it is, as its marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// The format of the target, which its engine counts.
    pub format: u32,
    /// A random text that no other target has.
    pub id: String,
}

impl Marker {
    /// A marker that no other target has.
    pub fn new(host: &dyn Host, format: u32) -> Self {
        let random = |_| format!("{:08x}", u32::from_be_bytes(host.random()));
        Self { format, id: (0..4).map(random).collect() }
    }
}

/// Whose copy it is, who made it, and when: a part of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// In whose name it was made.
    pub host: HostName,
    /// The job whose copy it is.
    pub job: JobName,
    /// The subvolume's path on that host.
    pub item: Option<String>,
    /// The run that made it.
    pub run: RunId,
    /// The machine that made it.
    pub machine: Option<MachineId>,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
}

/// What is recorded as the run of a copy that no run of ours made.
pub(super) const NO_RUN: [u8; 4] = [0; 4];

impl Made {
    /// That of a copy that is asked for.
    pub fn of(request: &BackupRequest) -> Self {
        let BackupRequest { series, run, machine, time, input: _ } = request;
        let Series { host, job, item } = series.clone();
        Self { host, job, item, run: run.clone(), machine: machine.clone(), time: *time }
    }

    /// The series it belongs to.
    pub fn series(&self) -> Series {
        Series { host: self.host.clone(), job: self.job.clone(), item: self.item.clone() }
    }

    /// The name of the copy. A path that is too long for it is told by the record alone.
    pub fn name(&self) -> String {
        let series = self.series();
        let name = name::archive_name(&series, self.time, &self.run);
        if name.len() <= LONGEST_NAME {
            return name;
        }
        let item = series.item.as_ref().map(|item| format!("{:016x}", fnv(item.as_bytes())));
        name::archive_name(&Series { item, ..series }, self.time, &self.run)
    }

    /// Whether a record may say so: it is of the path of a subvolume, which leads nowhere else when it is laid out.
    pub fn is_plain(&self) -> bool {
        is_plain_item(self.item.as_deref())
    }

    /// The copy as it is listed under its id.
    pub fn copy(&self, id: &str) -> Copy {
        Copy {
            id: id.to_owned(),
            series: Some(self.series()),
            run: Some(self.run.clone()).filter(|run| *run != RunId::from_bytes(NO_RUN)),
            time: self.time,
            machine: self.machine.clone(),
            ..Copy::default()
        }
    }
}

/// Whether a copy may be of this: the path of a subvolume, which leads nowhere else when it is laid out.
pub(super) fn is_plain_item(item: Option<&str>) -> bool {
    let mut parts = item.map(Path::new).into_iter().flat_map(Path::components);
    parts.next() == Some(Component::RootDir)
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// What was not made to its end, as it is listed: by its id there, and the name that the copy would have had.
pub(super) fn unfinished(id: &str, name: Option<&str>) -> Copy {
    let made = name.and_then(name::parse_archive_name);
    let time = made.map(|(_, time, _)| time).unwrap_or_default();
    Copy { id: id.to_owned(), time, ..Copy::default() }
}

/// The path that a copy is of.
pub(super) fn sources_of(copy: &Copy) -> Option<Vec<PathBuf>> {
    let item = copy.series.as_ref().and_then(|series| series.item.as_ref());
    item.map(|item| vec![PathBuf::from(item)])
}

/// What is reported of a copy of this name, for which so many bytes were stored.
pub(super) fn reported(
    name: String,
    bytes: Option<u64>,
    files: Option<u64>,
    warnings: Vec<String>,
) -> BackupReport {
    BackupReport {
        outcome: if warnings.is_empty() { Outcome::Ok } else { Outcome::Warning },
        id: Some(name),
        bytes_new: bytes,
        size: None,
        files,
        files_changed: 0,
        unreadable: Vec::new(),
        unreadable_count: 0,
        warnings,
        absent: Some(Vec::new()),
    }
}

/// Those of the copies that are read: as many as were asked for, and others each time, so that each has its turn.
pub(super) fn chosen<'c, T>(host: &dyn Host, copies: &'c [T], read_data: ReadData) -> Vec<&'c T> {
    let start = u32::from_be_bytes(host.random()) as usize % copies.len().max(1);
    copies.iter().cycle().skip(start).take(share(copies.len(), read_data)).collect()
}

/// How many copies are read, of so many.
fn share(count: usize, read_data: ReadData) -> usize {
    match read_data {
        ReadData::None => 0,
        ReadData::All => count,
        ReadData::Percent(percent) => {
            let exact = count as f64 * percent / 100.0;
            (1..=count).find(|whole| *whole as f64 >= exact).unwrap_or(count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_from_the_root_is_one_of_a_subvolume() {
        for plain in ["/", "/home", "/srv/mail box"] {
            assert!(is_plain_item(Some(plain)), "{plain}");
        }
        for other in [None, Some(""), Some("home"), Some("/home/../etc"), Some("../etc")] {
            assert!(!is_plain_item(other), "{other:?}");
        }
    }

    #[test]
    fn a_share_is_rounded_up() {
        let of_ten = |read_data| share(10, read_data);
        assert_eq!(of_ten(ReadData::None), 0);
        assert_eq!(of_ten(ReadData::All), 10);
        assert_eq!(of_ten(ReadData::Percent(5.0)), 1);
        assert_eq!(of_ten(ReadData::Percent(51.0)), 6);
        assert_eq!(share(0, ReadData::Percent(5.0)), 0);
    }
}
