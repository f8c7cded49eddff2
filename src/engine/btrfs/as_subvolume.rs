//! A copy on its way back: sent as it is, received as it was.

use std::path::PathBuf;

use super::BtrfsEngine;
use super::catalog::Catalog;
use crate::engine::sent::Data;
use crate::engine::{AsSubvolume, Context, EngineError, OnProgress, received};
use crate::host::{CommandSpec, Subvolume};
use crate::tools::btrfs::command::{self, Sending};

impl BtrfsEngine {
    /// Restores a copy; see [`Engine::restore_as_subvolume`].
    pub(super) fn send_back(
        &self,
        cx: Context<'_>,
        wanted: &AsSubvolume<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Subvolume, EngineError> {
        let catalog = self.open(cx)?;
        let (record, path) = self.held(&catalog, &wanted.copy.id)?;
        let (stage, sent) = received::stage(cx, self, wanted, &record.sent)?;
        let before = [self.sending(&catalog, path, self.takes(&catalog)), stage];
        let blame = |spec: &_, ended: &_| catalog.place.why(spec, ended);
        received::receive(cx, self, before, (wanted, &sent), &blame, progress)
    }

    /// What sends a whole copy.
    pub(super) fn sending(&self, catalog: &Catalog<'_>, copy: PathBuf, data: Data) -> CommandSpec {
        let sending = Sending { snapshot: copy, parent: None, view: Default::default() };
        let place = &catalog.place;
        let send = command::send(&place.btrfs(), &sending, self.target.stall_timeout);
        place.there(data.sent_by(send))
    }
}
