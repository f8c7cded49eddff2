//! Making a copy: a snapshot is sent, passes our stage, is received, made durable, looked at, recorded and named.

use super::BtrfsEngine;
use super::base::{Base, told_of, unproven_since};
use super::catalog::{Catalog, Copies, there};
use super::claimed::{is_claimed, is_here};
use super::parts::{Found, Part};
use super::record::Record;
use super::transfer::{Origin, Transfer};
use crate::engine::estimate::measured;
use crate::engine::helped::with_what_helps;
use crate::engine::made::Made;
use crate::engine::sent::still_of;
use crate::engine::{
    BackupReport, BackupRequest, Context, Engine, EngineError, Estimate, Input, OnProgress,
    SentFrom, StillSubvolume,
};

impl BtrfsEngine {
    /// Makes a copy; see [`Engine::backup`].
    pub(super) fn receive(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let still = still_of(self, &request.input)?;
        self.refuse_links_of_others(still)?;
        let catalog = self.open(cx)?;
        cx.refuse_read_only(&self.target)?;
        catalog.place.require_closed()?;
        catalog.place.require_new()?;
        let copies = catalog.copies()?;
        let made = Made::of(request);
        // A record of another series may be an intruder's, whose machine told what it sent.
        let own = there(&copies).filter(|record| record.made.series() == request.series);
        let base = self.base(still, own);
        let transfer = Transfer {
            engine: self,
            catalog: &catalog,
            sent: &still.snapshot.uuid,
            generation: still.snapshot.generation,
            origin: Origin::Here(still),
            name: made.name(),
            made: &made,
            part_size: self.part_size(),
            min_free: None,
        };
        let begun = self.begun(&catalog, &copies, still, &transfer.name)?;
        let base = begun.as_ref().map_or(base, |begun| self.base_of(begun, still, &copies));
        transfer.refuse_taken()?;
        transfer.clear_others(begun.as_ref().map(|begun| &begun.part))?;
        if matches!(still.from, SentFrom::There(_)) {
            refuse_claimed(&catalog, &transfer)?;
        }
        let mut warnings: Vec<String> =
            unproven_since(still, base, there(&copies)).map(told_of).into_iter().collect();
        let mut part = begun.map(|begun| (begun.part, begun.found));
        let base = base.map(|base| base.received);
        let (received, base) = with_what_helps(base, &mut warnings, &mut |base, goes_on| {
            let part = part.take().filter(|_| goes_on);
            transfer.carry_out(base, part, progress)
        })?;
        let sealed = transfer.seal(base, received)?;
        Ok(sealed.report(warnings))
    }

    /// Refuses what comes from one machine and is received on another one by btrfs-progs alone: those go through a link
    /// that they were told to make, into the copies of other machines.
    fn refuse_links_of_others(&self, still: &StillSubvolume) -> Result<(), EngineError> {
        match (&still.from, &self.server) {
            (SentFrom::Here(_), _) | (SentFrom::There(_), None) => Ok(()),
            (SentFrom::There(from), Some(server)) => Err(EngineError::Unsupported {
                engine: "btrfs receive".into(),
                what: format!(
                    "what {} sends might follow links into other copies on {}, where nothing keeps it from that — have a Stillpoint answer there, or pull to a directory of this machine",
                    from.login, server.login
                ),
            }),
        }
    }

    /// So many bytes make a part of a copy; `None`: copies are received as a whole.
    pub(super) fn part_size(&self) -> Option<u64> {
        self.target.part_size()
    }

    /// The part of a copy of this snapshot from which the transfer can go on.
    fn begun(
        &self,
        catalog: &Catalog<'_>,
        copies: &Copies,
        still: &StillSubvolume,
        name: &str,
    ) -> Result<Option<Begun>, EngineError> {
        if self.part_size().is_none() {
            return Ok(None);
        }
        let Some((part, found)) = catalog.part_of(name)? else { return Ok(None) };
        let is_of_it = still.snapshot.was_sent_as(&part.sent, part.generation);
        // Whole, but for what is left to be removed.
        let is_whole = copies.iter().any(|(it, found)| found.is_some() && it.name == name);
        let begun = Begun { part, found };
        let has_base = begun.part.base.is_none() || self.base_of(&begun, still, copies).is_some();
        Ok(Some(begun).filter(|_| is_of_it && has_base && !is_whole))
    }

    /// What the rest is a difference to, like the part.
    fn base_of<'b>(
        &self,
        begun: &Begun,
        still: &'b StillSubvolume,
        copies: &'b Copies,
    ) -> Option<Base<'b>> {
        let base = begun.part.base.as_ref()?;
        self.base(still, there(copies).filter(|record| record.uuid == *base))
    }

    /// What a difference can be made against. What another machine says of its copies may be an intruder's.
    fn base<'b>(
        &self,
        still: &'b StillSubvolume,
        there: impl Iterator<Item = &'b Record> + Clone,
    ) -> Option<Base<'b>> {
        match &self.server {
            None => Base::newest_here(still, there),
            Some(_) => Base::newest(still, there),
        }
    }

    /// Whether there is such a part; see [`Engine::has_begun`].
    pub(super) fn is_begun(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
    ) -> Result<bool, EngineError> {
        let still = still_of(self, &request.input)?;
        let catalog = self.open(cx)?;
        let copies = catalog.copies()?;
        Ok(self.begun(&catalog, &copies, still, &Made::of(request).name())?.is_some())
    }

    /// Tells how much would be sent; see [`Engine::estimate`].
    pub(super) fn measure(&self, cx: Context<'_>, input: &Input) -> Result<Estimate, EngineError> {
        let still = still_of(self, input)?;
        let copies = self.open(cx)?.copies()?;
        let base = self.base(still, there(&copies));
        let base = base.map(|base| (base.sent, &*base.received.name));
        measured(cx, &self.target, &self.program(), still, base)
    }
}

/// A part from which a transfer can go on.
struct Begun {
    part: Part,
    found: Found,
}

/// Refuses what claims to be another copy, or a subvolume in the directory.
fn refuse_claimed(catalog: &Catalog<'_>, transfer: &Transfer<'_>) -> Result<(), EngineError> {
    let sent = transfer.sent;
    match is_claimed(catalog, &transfer.name, sent)? || is_here(catalog, sent)? {
        false => Ok(()),
        true => Err(EngineError::Output {
            engine: "btrfs",
            what: format!(
                "{sent} is the UUID of another copy already, so nothing is received as that"
            ),
        }),
    }
}
