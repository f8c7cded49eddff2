//! Reading archives back: restore, what is in one, and how two differ.

use std::path::Path;

use nix::libc;

use super::BorgEngine;
use super::classify::{KEPT, RestoreWarning, restore_warning};
use crate::engine::{
    Change, ChangeKind, Context, EngineError, Entry, OnProgress, RestoreReport, RestoreRequest,
};
use crate::model::copy::Copy;
use crate::tools::borg::log::{Message, errno};
use crate::tools::borg::output::{ChangeRecord, parse_difference, parse_item};
use crate::tools::borg::{Extraction, cache_directory, state_directory};

impl BorgEngine {
    /// Restores; see [`crate::engine::Engine::restore`].
    pub(super) fn extract(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        progress: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        let wanted = Extraction {
            paths: &request.paths,
            above: &request.above,
            to: &request.to,
            owners_by_name: request.owners_by_name,
            dry_run: request.dry_run,
        };
        let mut spec = self.repository(cx)?.extract(&request.copy.id, &wanted);
        spec.confinement = request.confined_to(&[
            Some(cx.settings.cache_dir.clone()),
            Some(cache_directory(cx.settings)),
            Some(state_directory(cx.settings)),
            cx.temporary.map(Path::to_owned),
            self.target.local.clone(),
        ]);
        let mut report = RestoreReport::default();
        let mut lost = Vec::new();
        let mut damaged = Vec::new();
        let mut on_warning = |message: &Message| {
            let list = match restore_warning(message) {
                RestoreWarning::Minor => &mut report.warnings,
                RestoreWarning::NotRestored => &mut lost,
                RestoreWarning::Damage => &mut damaged,
            };
            if list.len() < KEPT {
                list.push(message.text.clone());
            }
        };
        let completed = self
            .run(cx, &spec, &mut on_warning, progress)
            .map_err(|error| request.judged(cx.host, error, false))?;
        if !damaged.is_empty() {
            let repository = self.target.repository.clone();
            return Err(EngineError::Damaged { repository, detail: damaged.join("; ") });
        }
        let unexplained = !completed.success() && report.warnings.is_empty();
        if !lost.is_empty() || unexplained {
            let detail = match lost.as_slice() {
                [] => "it did not say why".to_owned(),
                some => some.join("; "),
            };
            let exit = completed.exit.to_string();
            let error = EngineError::Failed { command: spec.display(), exit, detail };
            let is_about_space =
                |text: &String| matches!(errno(text), Some(libc::ENOSPC | libc::EDQUOT));
            let is_full = lost.iter().any(is_about_space);
            return Err(request.judged(cx.host, error, is_full));
        }
        Ok(report)
    }

    /// Streams one file; see [`crate::engine::Engine::stream`].
    pub(super) fn to_stdout(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        path: &Path,
    ) -> Result<(), EngineError> {
        let spec = self.repository(cx)?.extract_to_stdout(&copy.id, path);
        let mut said = Vec::new();
        let mut on_warning = |message: &Message| {
            if restore_warning(message) != RestoreWarning::Minor {
                said.push(message.text.clone());
            }
        };
        let completed = self.run(cx, &spec, &mut on_warning, &mut |_| {})?;
        if completed.success() && said.is_empty() {
            return Ok(());
        }
        let exit = completed.exit.to_string();
        Err(EngineError::Failed { command: spec.display(), exit, detail: said.join("; ") })
    }

    /// Lists a copy; see [`crate::engine::Engine::contents`].
    pub(super) fn entries(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        let spec = self.repository(cx)?.contents(&copy.id);
        self.run_lines(cx, &spec, &mut |line| {
            let item = parse_item(line)?;
            each(Entry {
                path: Path::new("/").join(item.path),
                kind: item.kind,
                size: item.size,
                modified: item.modified,
                mode: item.mode,
                uid: item.uid,
                gid: item.gid,
                // Of several names, only the first has a size.
                shared: None,
            });
            Ok(())
        })
    }

    /// Compares two copies; see [`crate::engine::Engine::diff`].
    pub(super) fn differences(
        &self,
        cx: Context<'_>,
        older: &Copy,
        newer: &Copy,
        each: &mut dyn FnMut(Change),
    ) -> Result<(), EngineError> {
        let spec = self.repository(cx)?.diff(&older.id, &newer.id);
        self.run_lines(cx, &spec, &mut |line| {
            let difference = parse_difference(line)?;
            each(Change {
                path: Path::new("/").join(&difference.path),
                kind: change_kind(&difference.changes),
            });
            Ok(())
        })
    }
}

/// How a path differs, from borg's list of ways.
fn change_kind(changes: &[ChangeRecord]) -> ChangeKind {
    let has = |start: &str| changes.iter().any(|change| change.kind.starts_with(start));
    let sort = |mode: &Option<String>| mode.as_ref().and_then(|mode| mode.chars().next());
    if changes.iter().any(|change| sort(&change.old_mode) != sort(&change.new_mode)) {
        ChangeKind::Type
    } else if has("added") {
        ChangeKind::Added
    } else if has("removed") {
        ChangeKind::Removed
    } else if has("modified") || has("changed") {
        ChangeKind::Modified
    } else {
        ChangeKind::Metadata
    }
}
