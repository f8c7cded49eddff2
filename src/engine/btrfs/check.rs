//! Looking whether copies are what was received, and reading them back.

use super::BtrfsEngine;
use super::catalog::{Catalog, WayOut, Wrong};
use super::file_name::escaped;
use super::place::{WORKED_ON, is_untold};
use super::record::{How, Record};
use crate::engine::made::chosen;
use crate::engine::sent::{culprit, heard};
use crate::engine::{CheckReport, Context, EngineError, OnProgress};
use crate::host::spec::quote;
use crate::host::{PrivateView, Stream};
use crate::model::event::Progress;
use crate::model::names::HostName;
use crate::model::target::ReadData;
use crate::tools::borg::name::parse_archive_name;
use crate::tools::btrfs::command::{self, Reader, Sending, parse_uuid};
use crate::tools::btrfs::stage::Expectation;

/// The file system knows what it was given to write, and not what there was to send.
const ALONE: &str = "unverifiable beyond that: what was sent is not kept here any more, so there is nothing to compare it with (keep-snapshots keeps more)";

impl BtrfsEngine {
    /// Checks all copies, or those of one host alone; see [`Engine::check`].
    pub(super) fn check_all(
        &self,
        cx: Context<'_>,
        of: Option<&HostName>,
        way_out: WayOut,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        let catalog = self.open(cx)?;
        let (mut copies, mut wrong) = catalog.examine()?;
        if let Some(host) = of {
            copies.retain(|(record, _)| record.made.host == *host);
            // A record that cannot be read says no more than its name.
            wrong.retain(|wrong| {
                parse_archive_name(&wrong.copy).is_some_and(|(series, ..)| series.host == *host)
            });
        }
        let all = copies.len() + wrong.len();
        let told = |wrong: &Wrong| self.with_way_out(&catalog, wrong, way_out);
        let mut damage: Vec<String> = wrong.iter().map(told).collect();
        let chosen = chosen(cx.host, &copies, read_data);
        let count = chosen.len();
        for (done, (record, _)) in chosen.into_iter().enumerate() {
            progress(Progress { current: Some(record.name.clone()), ..Progress::default() });
            tracing::debug!(done, of = count, "reading back");
            damage.extend(self.read_back(&catalog, record, progress)?);
        }
        let extent = match count {
            0 => format!("the records of {} copies", copies.len()),
            count => format!("the records of {} copies, and all data of {count}", copies.len()),
        };
        let untold =
            copies.iter().filter_map(|(_, found)| found.as_ref()).filter(|it| is_untold(it));
        let unverifiable = match untold.count() {
            0 => None,
            count => Some(format!("{count} copies: {WORKED_ON}")),
        };
        Ok(CheckReport { unverifiable, ..CheckReport::of_copies(damage, extent, all) })
    }

    /// What is wrong with a copy, and how a person gets rid of exactly that one.
    fn with_way_out(&self, catalog: &Catalog<'_>, wrong: &Wrong, way_out: WayOut) -> String {
        let Wrong { copy, what, how } = wrong;
        let at = quote(catalog.path(copy));
        let there = match way_out {
            WayOut::Verb => "",
            WayOut::ByHand => "there: ",
        };
        match (how, way_out) {
            (How::Changed, WayOut::Verb) => {
                let target = &self.target.name;
                let verb = format!("stillpoint prune --target {target} {}", quote(copy));
                format!("{what}: somebody has changed it (`{verb}` deletes exactly that one)")
            }
            (How::Changed, WayOut::ByHand) => format!(
                "{what}: somebody has changed it (to get rid of it, run there: btrfs subvolume delete {at})"
            ),
            (How::Another, _) => format!(
                "{what}, but something else (nothing of ours deletes that: {there}look at {at}, and move it away)"
            ),
            (How::Unread, _) => format!(
                "{what} (if it is beyond repair, remove both: {there}rm {}; btrfs subvolume delete {at})",
                quote(catalog.record_of(copy))
            ),
        }
    }

    /// Reads one copy whole; see [`Engine::verify`].
    pub(super) fn read_whole(
        &self,
        cx: Context<'_>,
        id: &str,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        let catalog = self.open(cx)?;
        let (record, _) = self.held(&catalog, id)?;
        let damage = self.read_back(&catalog, &record, progress)?;
        let report =
            CheckReport::found(damage.into_iter().collect(), "all data of the copy".into());
        Ok(CheckReport { unverifiable: Some(ALONE.into()), ..report })
    }

    /// Reads all data of a copy, by which the file system compares its checksums. Answers what is damaged.
    fn read_back(
        &self,
        catalog: &Catalog<'_>,
        record: &Record,
        progress: OnProgress<'_>,
    ) -> Result<Option<String>, EngineError> {
        let (cx, place) = (catalog.cx, &catalog.place);
        let limit = self.target.stall_timeout;
        let snapshot = catalog.path(&record.name);
        let sending = Sending { snapshot, parent: None, view: PrivateView::default() };
        let uuid = parse_uuid(&record.sent).ok_or_else(|| EngineError::Output {
            engine: "btrfs",
            what: format!("{:?} in the record of {} is no UUID", record.sent, record.name),
        })?;
        // It goes nowhere, and a name in a stream leads through no directory.
        let name = escaped(&record.name);
        let expected = Expectation { name, uuid, parent: None };
        let send = place.there(command::send(&place.btrfs(), &sending, limit));
        let stage = command::stage(&expected, Reader::Nobody, limit);
        let chained = cx.host.chain(std::slice::from_ref(&send), &stage, &mut |stream, line| {
            if stream == Stream::Err {
                heard(line, progress);
            }
        })?;
        let culprit = culprit(std::slice::from_ref(&send), &stage, &chained);
        let Some((spec, completed)) = culprit else { return Ok(None) };
        let said = completed.last_words(3);
        // The kernel's word for data that does not match its checksum, at the end of the line.
        if said.lines().any(|line| line.ends_with(": Input/output error")) {
            return Ok(Some(format!("{}: {said}", record.name)));
        }
        Err(place.why(spec, completed))
    }
}
