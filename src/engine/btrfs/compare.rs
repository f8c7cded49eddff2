//! How two copies differ: the file system knows it, and says it without reading any data.

use super::restore::root_of;
use super::{BtrfsEngine, culprit};
use crate::engine::{Change, ChangeKind, Context, Engine, EngineError};
use crate::host::Stream;
use crate::model::copy::Copy;
use crate::tools::btrfs::changes::{Difference, Differing};
use crate::tools::btrfs::command;

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
        let root = root_of(newer)?;
        let limit = self.target.stall_timeout;
        let send = command::send_differences(&self.program(), &before, &after, limit);
        let list = command::list_changes(limit);
        let mut torn = None;
        let chained = cx.host.chain(std::slice::from_ref(&send), &list, &mut |stream, line| {
            if stream != Stream::Out || torn.is_some() {
                return;
            }
            match serde_json::from_slice::<Differing>(line) {
                Ok(found) => {
                    // A path that ends in a slash would be another one to whoever compares.
                    let is_root = found.path.as_os_str().is_empty();
                    let path = if is_root { root.clone() } else { root.join(&found.path) };
                    each(Change { path, kind: kind(found.how) });
                }
                Err(error) => torn = Some(error.to_string()),
            }
        })?;
        if let Some((spec, ended)) = culprit(std::slice::from_ref(&send), &list, &chained) {
            return Err(self.failure(spec, ended));
        }
        match torn {
            Some(what) => Err(EngineError::Output { engine: "btrfs", what }),
            None => Ok(()),
        }
    }
}

fn kind(how: Difference) -> ChangeKind {
    match how {
        Difference::Added => ChangeKind::Added,
        Difference::Removed => ChangeKind::Removed,
        Difference::Modified => ChangeKind::Modified,
        Difference::Metadata => ChangeKind::Metadata,
    }
}
