//! Upkeep of a repository: check, trial extraction, and freeing space.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::BorgEngine;
use super::call::hand_on;
use super::classify::{Journal, KEPT};
use crate::engine::{CheckReport, Compacted, Context, EngineError, OnProgress};
use crate::host::{CommandSpec, Exit, Stream};
use crate::model::copy::Copy;
use crate::model::shown::Show;
use crate::model::target::ReadData;
use crate::tools::borg::log::{Level, Message, freed_space};
use crate::tools::borg::output::parse_item;

impl BorgEngine {
    /// Checks; see [`crate::engine::Engine::check`].
    pub(super) fn check_all(
        &self,
        cx: Context<'_>,
        read_data: ReadData,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, EngineError> {
        let spec = self.repository(cx)?.check(read_data == ReadData::All);
        // borg's check always reads every segment and its checksums; only decrypting can be left out.
        let extent = match read_data {
            ReadData::None => "structure and checksums".to_owned(),
            ReadData::Percent(share) => format!(
                "structure and checksums (borg cannot decrypt a share of the data, so not the {share}% asked for)"
            ),
            ReadData::All => "structure and all data".to_owned(),
        };
        self.examine(cx, &spec, extent, progress)
    }

    /// Reads one archive back; see [`crate::engine::Engine::verify`].
    pub(super) fn read_back(
        &self,
        cx: Context<'_>,
        copy: &Copy,
    ) -> Result<CheckReport, EngineError> {
        let spec = self.repository(cx)?.verify(&copy.id);
        let extent = format!("all data of {}", copy.id);
        let mut report = self.examine(cx, &spec, extent, &mut |_| {})?;
        if report.damage.is_empty() && !report.is_predicted {
            report.damage = self.links_without_a_file(cx, copy)?;
        }
        Ok(report)
    }

    /// Further names of files whose first name the archive does not hold: extraction makes nothing of them, and a trial
    /// does not notice. A second look is taken only where the archive has such names at all.
    fn links_without_a_file(
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

    /// Runs a check or a trial extraction. Damage is what it found; that it could not look is an error.
    fn examine(
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

    /// Compacts; see [`crate::engine::Engine::compact`].
    pub(super) fn free_space(
        &self,
        cx: Context<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Compacted, EngineError> {
        let spec = self.repository(cx)?.compact();
        let mut journal = Journal::default();
        let mut freed = None;
        let completed = cx.host.run(&spec, &mut |stream, line| {
            if stream == Stream::Err {
                freed = freed.take().or_else(|| freed_space(line));
                hand_on(journal.take(line), &mut |_| {}, progress);
            }
        })?;
        self.judge(cx, &spec, &completed, &journal)?;
        Ok(match freed {
            _ if completed.is_predicted => Compacted::Predicted,
            Some(freed) => Compacted::Freed(freed),
            None if self.is_append_only(cx) => Compacted::AppendOnly,
            None => Compacted::Unknown,
        })
    }

    /// Whether the repository's own configuration says that nothing is ever removed; borg then ends well and gives
    /// nothing back. Of a repository elsewhere it is not known.
    fn is_append_only(&self, cx: Context<'_>) -> bool {
        let config = self.target.local.as_deref().map(|path| cx.host.read(&path.join("config")));
        let Some(Ok(config)) = config else { return false };
        String::from_utf8_lossy(&config).lines().any(|line| {
            let words = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            words == Some(("append_only", "1"))
        })
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
