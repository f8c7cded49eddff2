//! How two copies differ: the file system knows it, and says it without reading any data.

use std::path::Path;

use super::BtrfsEngine;
use super::catalog::Catalog;
use crate::engine::sent::{Blame, run_all};
use crate::engine::tree::{Inside, change, root_of};
use crate::engine::{Change, Context, EngineError};
use crate::host::{CommandSpec, PrivateView, Stream};
use crate::model::copy::Copy;
use crate::model::shown::Show;
use crate::tools::btrfs::changes::Differing;
use crate::tools::btrfs::command::{self, Sending};

impl BtrfsEngine {
    /// Hands on how two copies differ; see [`Engine::diff`].
    pub(super) fn compare(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let (_, before) = self.held(&catalog, &older.id)?;
        let (_, after) = self.held(&catalog, &newer.id)?;
        let blame: Blame<'_> = &|spec, ended| catalog.place.why(spec, ended);
        compared(cx, newer, &self.comparing(&catalog, &before, &after), blame, each)
    }

    /// The processes that tell how two subvolumes differ.
    pub(super) fn comparing(
        &self,
        catalog: &Catalog<'_>,
        before: &Path,
        after: &Path,
    ) -> [CommandSpec; 2] {
        let limit = self.target.stall_timeout;
        let sending = Sending {
            snapshot: after.to_owned(),
            parent: Some(before.to_owned()),
            view: PrivateView::default(),
        };
        let place = &catalog.place;
        let send = command::send_without_data(&place.btrfs(), &sending, limit);
        [place.there(send), command::list_changes(limit)]
    }
}

/// Hands on what processes tell of how a copy differs from an older one.
///
/// # Errors
/// When it is not all that there is.
pub(super) fn compared(
    cx: Context<'_>,
    newer: &Copy,
    specs: &[CommandSpec],
    blame: Blame<'_>,
    each: &mut dyn FnMut(Change),
) -> Result<(), EngineError> {
    let root = root_of(newer)?;
    let mut torn = None;
    run_all(cx, specs, blame, &mut |stream, line| {
        if stream != Stream::Out || torn.is_some() {
            return;
        }
        match serde_json::from_slice::<Differing>(line) {
            Ok(found) if Inside::new(found.path.clone()).is_none() => {
                torn = Some(format!("{} is no path in a copy", found.path.shown()));
            }
            Ok(found) => each(change(&root, found)),
            Err(error) => torn = Some(error.to_string()),
        }
    })?;
    match torn {
        Some(what) => Err(EngineError::Output { engine: "btrfs", what }),
        None => Ok(()),
    }
}
