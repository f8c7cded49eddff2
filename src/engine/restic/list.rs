//! Listing a restic repository, and what a dry run says would be in it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::session::{Session, broken};
use crate::engine::EngineError;
use crate::host::Fact;
use crate::model::copy::{Copy, Series};
use crate::model::hash::fnv;
use crate::model::names::RunId;
use crate::tools::restic::message::{self, Snapshot};
use crate::tools::restic::{command, tags};

/// What a skipped mutation would have changed in the listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Prediction {
    /// There would be this snapshot too.
    Added(Predicted),
    /// The snapshot of this id would be gone.
    Gone(String),
}

/// A snapshot that would exist, with the fields that restic would store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Predicted {
    pub(super) id: String,
    pub(super) time: DateTime<Utc>,
    pub(super) hostname: String,
    pub(super) tags: Vec<String>,
    pub(super) original: Option<String>,
}

impl Predicted {
    /// The copy again, under another id. A foreign copy's host is not in [`Copy`], and nobody asks for it.
    pub(super) fn from_copy(copy: &Copy, id: String) -> Self {
        let mut all = copy.tags.clone();
        all.extend(copy.pinned.then(|| tags::PROTECTED.to_owned()));
        if let (Some(series), Some(run)) = (&copy.series, &copy.run) {
            all.extend(tags::of(series, run));
            all.extend(copy.machine.as_ref().map(tags::of_machine));
        }
        Self {
            id,
            time: copy.time,
            hostname: copy.series.as_ref().map(|s| s.host.to_string()).unwrap_or_default(),
            tags: all,
            original: Some(copy.original.clone().unwrap_or_else(|| copy.id.clone())),
        }
    }
}

impl Prediction {
    pub(super) fn fact(&self, session: &Session<'_>) -> Fact {
        // Serialising strings and times into memory cannot fail.
        Fact { about: about(session), value: serde_json::to_vec(self).unwrap_or_default() }
    }
}

fn about(session: &Session<'_>) -> String {
    format!("copies of {}", session.shown())
}

/// An id for a snapshot that does not exist: 64 digits, the same for the same subject, recognisable by the
/// run that would have made it.
pub(super) fn invented_id(run: &RunId, subject: &str) -> String {
    // Two items of a run differ.
    format!("{run}{:056x}", fnv(subject.as_bytes()))
}

/// The id that a backup of this series in this run would get.
pub(super) fn predicted_id(series: &Series, run: &RunId) -> String {
    invented_id(run, &series.to_string())
}

/// Every snapshot, with what a dry run has predicted so far.
pub(super) fn list(session: &Session<'_>) -> Result<Vec<Copy>, EngineError> {
    let completed = session.run(&command::snapshots(&session.access))?;
    let snapshots = message::snapshots(&completed.stdout).map_err(broken)?;
    let mut copies: Vec<Copy> = snapshots.into_iter().map(as_copy).collect();
    for value in session.cx.host.predicted(&about(session)) {
        let prediction = serde_json::from_slice(&value)
            .map_err(|error| broken(format!("a prediction that cannot be read: {error}")))?;
        match prediction {
            Prediction::Added(predicted) => copies.push(as_copy(Snapshot {
                id: predicted.id,
                time: predicted.time,
                hostname: predicted.hostname,
                tags: Some(predicted.tags),
                original: predicted.original,
                summary: None,
            })),
            Prediction::Gone(id) => copies.retain(|copy| copy.id != id),
        }
    }
    Ok(copies)
}

fn as_copy(snapshot: Snapshot) -> Copy {
    let marks = tags::read(&snapshot.hostname, &snapshot.tags.unwrap_or_default());
    let (series, run) = marks.ours.unzip();
    Copy {
        id: snapshot.id,
        series,
        run,
        time: snapshot.time,
        size: snapshot.summary.as_ref().and_then(|summary| summary.total_bytes_processed),
        files: snapshot.summary.as_ref().and_then(|summary| summary.total_files_processed),
        tags: marks.others,
        pinned: marks.protected,
        original: snapshot.original,
        machine: marks.machine,
        ..Copy::default()
    }
}
