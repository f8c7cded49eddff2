//! Looking whether copies are what was received, and reading them back.

use std::path::Path;

use super::catalog::Record;
use super::{BtrfsEngine, culprit};
use crate::engine::{CheckReport, Context, Engine, EngineError, OnProgress};
use crate::host::PrivateView;
use crate::model::event::Progress;
use crate::model::target::ReadData;
use crate::tools::btrfs::command::{self, Reader, Sending, parse_uuid};
use crate::tools::btrfs::stage::Expectation;

impl BtrfsEngine {
    /// Checks all copies; see [`Engine::check`].
    pub(super) fn check_all(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        let catalog = self.open(cx)?;
        let (copies, mut damage) = catalog.examine()?;
        let count = share(copies.len(), read_data);
        // Another share each time, so that each copy has its turn.
        let start = u32::from_be_bytes(cx.host.random()) as usize % copies.len().max(1);
        let chosen = copies.iter().cycle().skip(start).take(count);
        for (done, (record, _)) in chosen.enumerate() {
            progress(Progress { current: Some(record.name.clone()), ..Progress::default() });
            tracing::debug!(done, of = count, "reading back");
            damage.extend(self.read_back(cx, record, &catalog.path(&record.name))?);
        }
        let extent = match count {
            0 => format!("the records of {} copies", copies.len()),
            count => format!("the records of {} copies, and all data of {count}", copies.len()),
        };
        Ok(CheckReport::found(damage, extent))
    }

    /// Reads all data of a copy, by which the file system compares its checksums. Answers what is damaged.
    pub(super) fn read_back(
        &self,
        cx: Context<'_>,
        record: &Record,
        path: &Path,
    ) -> Result<Option<String>, EngineError> {
        let limit = self.target.stall_timeout;
        let sending =
            Sending { snapshot: path.to_owned(), parent: None, view: PrivateView::default() };
        let uuid = parse_uuid(&record.sent).ok_or_else(|| EngineError::Output {
            engine: "btrfs",
            what: format!("{:?} in the record of {} is no UUID", record.sent, record.name),
        })?;
        let expected = Expectation { name: record.name.clone(), uuid, parent: None };
        let send = command::send(&self.program(), &sending, limit);
        let stage = command::stage(&expected, Reader::Nobody, limit);
        let chained = cx.host.chain(std::slice::from_ref(&send), &stage, &mut |_, _| {})?;
        let culprit = culprit(std::slice::from_ref(&send), &stage, &chained);
        let Some((spec, completed)) = culprit else { return Ok(None) };
        let said = completed.last_lines(3);
        // The kernel's word for data that does not match its checksum, at the end of the line.
        if said.lines().any(|line| line.ends_with(": Input/output error")) {
            return Ok(Some(format!("{}: {said}", record.name)));
        }
        Err(self.failure(spec, completed))
    }
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
    fn a_share_is_rounded_up() {
        let of_ten = |read_data| share(10, read_data);
        assert_eq!(of_ten(ReadData::None), 0);
        assert_eq!(of_ten(ReadData::All), 10);
        assert_eq!(of_ten(ReadData::Percent(5.0)), 1);
        assert_eq!(of_ten(ReadData::Percent(51.0)), 6);
        assert_eq!(share(0, ReadData::Percent(5.0)), 0);
    }
}
