//! Listing a repository: what it is, which archives it holds, and what a dry run says would be among them.

use std::sync::PoisonError;

use serde::Deserialize;

use super::BorgEngine;
use crate::engine::{Context, EngineError};
use crate::host::Completed;
use crate::model::copy::Copy;
use crate::model::names::RunId;
use crate::tools::borg::output::{Listing, parse_listing, parse_machines};
use crate::tools::borg::{copies_of, name};

impl BorgEngine {
    /// Lists the repository under another host id, by which borg takes away the locks that bear it and whose
    /// processes are no more.
    pub(super) fn list_as(&self, cx: Context<'_>, owner: &str) -> Result<(), EngineError> {
        let spec = self.repository(cx)?.list(true).env("BORG_HOST_ID", owner);
        self.ask(cx, &spec).map(drop)
    }

    pub(super) fn listing(
        &self,
        cx: Context<'_>,
        only_newest: bool,
    ) -> Result<Listing, EngineError> {
        let list = || -> Result<Completed, EngineError> {
            let spec = self.repository(cx)?.list(only_newest);
            self.ask(cx, &spec)
        };
        let completed = loop {
            match list() {
                Err(error) if self.relax(&error) => {}
                listed => break listed?,
            }
        };
        let listing = parse_listing(&completed.stdout)
            .map_err(|what| EngineError::Output { engine: "borg", what })?;
        let id = listing.repository_id.clone();
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        Ok(listing)
    }

    /// Every archive, with what a dry run has predicted so far; see [`crate::engine::Engine::list`].
    pub(super) fn copies(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        let listing = self.listing(cx, false)?;
        let mut copies: Vec<Copy> =
            listing.archives.iter().map(|archive| copy(&archive.name, archive.time)).collect();
        for value in cx.host.predicted(&copies_of(&self.target.repository)) {
            let predicted = serde_json::from_slice(&value).map_err(|error| {
                EngineError::Output { engine: "borg", what: format!("a prediction: {error}") }
            })?;
            match predicted {
                Predicted::Add(name) => copies.push(copy(&name, cx.host.now())),
                Predicted::Gone(name) => copies.retain(|copy| copy.id != name),
            }
        }
        Ok(copies)
    }

    /// Fills in who made each; see [`crate::engine::Engine::read_machines`].
    pub(super) fn makers(&self, cx: Context<'_>, copies: &mut [Copy]) -> Result<(), EngineError> {
        let spec = self.repository(cx)?.list_comments();
        let completed = self.ask(cx, &spec)?;
        let broken = |what| EngineError::Output { engine: "borg", what };
        let made_by = parse_machines(&completed.stdout).map_err(broken)?;
        for copy in copies {
            copy.machine = made_by.get(&copy.id).cloned();
        }
        Ok(())
    }
}

/// A predicted change of the list, as the command builders state it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Predicted {
    Add(String),
    Gone(String),
}

/// A listed archive as a copy. A checkpoint has the run that left it and no series, so that nothing takes
/// it for a copy of the series. Each answers to the name that it has with its pin, and to that without.
pub(super) fn copy(archive: &str, time: chrono::DateTime<chrono::Utc>) -> Copy {
    let unpinned = name::unpinned_name(archive);
    let ours = name::parse_archive_name(unpinned.unwrap_or(archive));
    let left_by: Option<RunId> =
        name::finished_name(archive).and_then(name::parse_archive_name).map(|(_, _, run)| run);
    let (series, time, run) = match ours {
        Some((series, time, run)) => (Some(series), time, Some(run)),
        None => (None, time, left_by),
    };
    Copy {
        id: archive.to_owned(),
        series,
        run,
        time,
        pinned: unpinned.is_some(),
        original: unpinned.map(str::to_owned),
        aliases: match unpinned {
            Some(_) => Vec::new(),
            None => vec![name::pinned_name(archive)],
        },
        ..Copy::default()
    }
}
