//! The record of a run: what `run --json` prints, `report.json` holds and history stores.
//!
//! The field names are a contract (schema 1). What is not known is null, never zero. A path that is not UTF-8 stands
//! beside its bytes, see [`super::bytes`].

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::bytes;
use super::exit::exit_code;
use super::job::Part;
use super::names::{JobName, RunId, TargetName};
use super::outcome::{Outcome, Trouble};

/// The version of every JSON document that Stillpoint prints.
pub const SCHEMA: u32 = 1;

fn seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((span.as_secs_f64() * 1_000.0).round() / 1_000.0)
}

/// What a run did.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// The run's identity.
    pub run_id: RunId,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// The worst outcome of its jobs and of the targets' maintenance.
    pub outcome: Outcome,
    /// The process's exit code, from the troubles; absent until the run has ended.
    pub exit_code: Option<i32>,
    /// Jobs, in order.
    pub jobs: Vec<JobReport>,
    /// What was done once per target after the jobs: compaction and checks.
    pub maintenance: Vec<StepReport>,
    /// What somebody should read.
    pub warnings: Vec<String>,
    /// Everything that went wrong, by kind; the exit code follows from it.
    pub troubles: Vec<Trouble>,
}

impl RunReport {
    /// A run of which nothing is known but that it has begun.
    pub fn begun(run: RunId, started: DateTime<Utc>) -> Self {
        Self {
            schema: SCHEMA,
            run_id: run,
            started,
            finished: started,
            outcome: Outcome::Ok,
            exit_code: None,
            jobs: Vec::new(),
            maintenance: Vec::new(),
            warnings: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Notes that something went wrong that leaves the copies as they are: the run did well at best with a warning.
    pub fn warned(&mut self) {
        self.troubles.push(Trouble::Warning);
        self.outcome = self.outcome.clone().worst(Outcome::Warning);
        self.settle_exit_code();
    }

    /// Works the exit code out from everything that went wrong by now.
    pub fn settle_exit_code(&mut self) {
        self.exit_code = Some(exit_code(&self.troubles));
    }
}

/// One job of a run.
#[derive(Debug, Clone, Serialize)]
pub struct JobReport {
    /// The name of the job in the configuration.
    pub name: JobName,
    /// The worst outcome of its steps.
    pub outcome: Outcome,
    /// Why it was skipped or not begun, if it was.
    pub reason: Option<String>,
    /// What of it the run was to do.
    #[serde(skip)]
    pub part: Part,
    /// How long it took; in seconds in the document.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// What was done, in order.
    pub steps: Vec<StepReport>,
    /// How each volume below the paths was read; empty when files were read live on purpose.
    pub captures: Vec<VolumeReport>,
    /// One entry for each target and item.
    pub targets: Vec<TargetReport>,
}

/// How one volume of a job was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeReport {
    /// Its root directory.
    #[serde(flatten, serialize_with = "bytes::path")]
    pub path: PathBuf,
    /// What held it still; `none` when nothing did, or nothing had to.
    pub provider: &'static str,
    /// `consistent`: one moment of all volumes, with the writers standing still. `crash-consistent`: one
    /// moment of this volume. `live`: no moment at all.
    pub consistency: &'static str,
    /// Why nothing holds it still, where that was not asked for.
    pub reason: Option<String>,
}

/// What a step of a job did.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// `before`, `capture`, `backup`, `observe`, `retain`, …
    pub step: &'static str,
    /// The target it concerns.
    pub target: Option<TargetName>,
    /// The stream, guest or volume it concerns.
    pub item: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was done, or what went wrong and what to do about it.
    pub detail: String,
    /// How long it took; in seconds in the document.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
}

/// What a job left in one target.
#[derive(Debug, Clone, Serialize)]
pub struct TargetReport {
    /// The target that the copy went to.
    pub target: TargetName,
    /// The stream, guest or volume.
    pub item: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The new copy's id, as the target lists it.
    pub copy: Option<String>,
    /// Bytes that this copy added to the target.
    pub bytes_new: Option<u64>,
    /// Bytes of the original data.
    pub size: Option<u64>,
    /// Files in the copy.
    pub files: Option<u64>,
    /// Files that changed or vanished while they were read.
    pub files_changed: u64,
    /// Paths that could not be read; at most the first hundred.
    pub unreadable: Vec<String>,
    /// How many could not be read in all.
    pub unreadable_count: u64,
    /// Ids that retention deleted.
    pub deleted: Vec<String>,
}

impl TargetReport {
    /// Of a target that holds no new copy.
    pub fn without_copy(target: TargetName, item: Option<String>, outcome: Outcome) -> Self {
        Self {
            target,
            item,
            outcome,
            copy: None,
            bytes_new: None,
            size: None,
            files: None,
            files_changed: 0,
            unreadable: Vec::new(),
            unreadable_count: 0,
            deleted: Vec::new(),
        }
    }
}
