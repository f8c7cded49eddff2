//! Reading archives back: restore, trial extraction and check, listings and comparisons.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

use super::classify::{Journal, KEPT, RestoreWarning, restore_warning};
use super::{BorgEngine, hand_on};
use crate::engine::{
    Change, ChangeKind, CheckReport, Context, EngineError, Entry, OnProgress, RestoreReport,
    RestoreRequest,
};
use crate::host::{CommandSpec, Exit, Stream};
use crate::model::copy::Copy;
use crate::model::shown::Show;
use crate::tools::borg::log::{Level, Message, errno};
use crate::tools::borg::output::{ChangeRecord, parse_difference, parse_item};
use crate::tools::borg::{Extraction, state_directory};

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
            cx.settings.makeshift_borg_cache.clone(),
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
            });
            Ok(())
        })
    }

    /// Further names of files whose first name the archive does not hold: extraction makes nothing of them, and a trial
    /// does not notice. A second look is taken only where the archive has such names at all.
    pub(super) fn links_without_a_file(
        &self,
        cx: Context<'_>,
        copy: &Copy,
    ) -> Result<Vec<String>, EngineError> {
        let spec = self.repository(cx)?.contents(&copy.id);
        let mut lost = Lost::default();
        let mut sources = HashSet::new();
        self.run_lines(cx, &spec, &mut |line| {
            let item = parse_item(line)?;
            match &item.link_to {
                Some(source) if *source == item.path => lost.add(&item.path, source),
                Some(source) => drop(sources.insert(hash_of(source))),
                None => {}
            }
            Ok(())
        })?;
        if sources.is_empty() {
            return Ok(lost.shown());
        }
        self.run_lines(cx, &spec, &mut |line| {
            let item = parse_item(line)?;
            match &item.link_to {
                // borg stores the first name before the others.
                Some(source) if *source != item.path && sources.contains(&hash_of(source)) => {
                    lost.add(&item.path, source);
                }
                Some(_) => {}
                None => drop(sources.remove(&hash_of(&item.path))),
            }
            Ok(())
        })?;
        Ok(lost.shown())
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

    /// Runs a check or a trial extraction. Damage is what it found; that it could not look is an error.
    pub(super) fn examine(
        &self,
        cx: Context<'_>,
        spec: &CommandSpec,
        extent: String,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        let mut journal = Journal::default();
        let mut warnings = Vec::new();
        let completed = cx.host.run(spec, &mut |stream, line| {
            if stream == Stream::Err {
                let keep = &mut |message: &Message| {
                    if warnings.len() < KEPT && !message.text.starts_with("Remote: ") {
                        warnings.push(message.text.clone());
                    }
                };
                hand_on(journal.take(line), keep, progress);
            }
        })?;
        if completed.is_predicted {
            return Ok(CheckReport::predicted());
        }
        // Errors without a class are the check's findings; one with a class ended borg, and only some
        // of these mean damage.
        let ended = journal.errors.iter().any(|error| error.id.is_some());
        if !ended && matches!(completed.exit, Exit::Code(0 | 1 | 100..=127)) {
            if let Some(what) = journal.unreadable_line {
                return Err(EngineError::Output { engine: "borg", what });
            }
            let mut damage: Vec<String> = journal
                .errors
                .into_iter()
                .filter(|error| error.level >= Level::Error)
                .map(|error| error.text.trim().to_owned())
                .collect();
            if !completed.success() {
                damage.append(&mut warnings);
                if damage.is_empty() {
                    damage.push(format!(
                        "borg found errors ({}) and did not name them",
                        completed.exit
                    ));
                }
            }
            damage.truncate(KEPT);
            return Ok(CheckReport::found(damage, extent));
        }
        match self.judge(cx, spec, &completed, &journal) {
            Err(EngineError::Damaged { detail, .. }) => {
                Ok(CheckReport::found(vec![detail], format!("{extent}, up to the first damage")))
            }
            Err(error) => Err(error),
            Ok(()) => Ok(CheckReport::found(Vec::new(), extent)),
        }
    }
}

/// Names without a file: the first ones, and how many.
#[derive(Default)]
struct Lost {
    named: Vec<String>,
    count: usize,
}

impl Lost {
    fn add(&mut self, path: &Path, source: &Path) {
        self.count += 1;
        if self.named.len() < KEPT {
            self.named.push(format!(
                "/{} cannot be restored: it is stored as a further name of /{}, which the archive does not hold",
                path.shown(),
                source.shown()
            ));
        }
    }

    fn shown(self) -> Vec<String> {
        let mut named = self.named;
        let more = self.count - named.len();
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        named
    }
}

/// Names of hard links are held by their hash: eight bytes each, however long they are.
fn hash_of(path: &Path) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    path.as_os_str().as_bytes().hash(&mut hasher);
    hasher.finish()
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
