//! Runs, their jobs and their steps.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::columns::{Name, Timestamp, Word};
use super::{History, HistoryError};
use crate::model::job::Part;
use crate::model::names::{JobName, RunId, TargetName};
use crate::model::outcome::Outcome;
use crate::model::report::{RunReport, StepReport};

/// One run in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How it ended.
    pub outcome: Outcome,
    /// The process's exit code, if it was known when the run was recorded.
    pub exit_code: Option<i32>,
}

/// How the last run of a job ended for one of its targets and items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastOutcome {
    /// The run.
    pub run: RunId,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How it ended there. The reason of a skip is not kept.
    pub outcome: Outcome,
}

/// How long one step took.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTime {
    /// The target it concerned, if one.
    pub target: Option<TargetName>,
    /// The stream, guest or volume it concerned, if one.
    pub item: Option<String>,
    /// The step.
    pub step: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
}

impl History {
    /// Records a run with its jobs, steps and outcomes, once.
    ///
    /// # Errors
    /// When it cannot be written; then nothing of it was.
    pub fn record_run(&self, report: &RunReport) -> Result<(), HistoryError> {
        self.at_once("record a run", |connection| {
            let run: i64 = connection.query_row(
                "INSERT INTO run (id, started, finished, outcome, exit_code)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 RETURNING sequence",
                params![
                    report.run_id.as_str(),
                    Timestamp(report.started),
                    Timestamp(report.finished),
                    Word(report.outcome.clone()),
                    report.exit_code
                ],
                |row| row.get(0),
            )?;
            for job in &report.jobs {
                connection.execute(
                    "INSERT INTO job (run, name, outcome, reason, seconds, part)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        run,
                        job.name.as_str(),
                        Word(job.outcome.clone()),
                        job.reason,
                        job.elapsed.as_secs_f64(),
                        job.part.word()
                    ],
                )?;
                for step in &job.steps {
                    record_step(connection, run, Some(&job.name), step)?;
                }
                for result in &job.targets {
                    connection.execute(
                        "INSERT INTO result (run, job, target, item, outcome)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                        params![
                            run,
                            job.name.as_str(),
                            result.target.as_str(),
                            result.item,
                            Word(result.outcome.clone())
                        ],
                    )?;
                }
            }
            for step in &report.maintenance {
                record_step(connection, run, None, step)?;
            }
            Ok(())
        })
    }

    /// Corrects how a recorded run ended: something went wrong after it was recorded.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn amend_run(&self, report: &RunReport) -> Result<(), HistoryError> {
        self.at_once("correct a run", |connection| {
            connection.execute(
                "UPDATE run SET outcome = ?2, exit_code = ?3 WHERE id = ?1",
                params![report.run_id.as_str(), Word(report.outcome.clone()), report.exit_code],
            )?;
            Ok(())
        })
    }

    /// The run that was recorded last.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_run(&self) -> Result<Option<RunSummary>, HistoryError> {
        self.sql("read the last run", |connection| {
            connection
                .query_row(
                    "SELECT id, started, finished, outcome, exit_code FROM run
                     ORDER BY sequence DESC LIMIT 1",
                    [],
                    |row| {
                        Ok(RunSummary {
                            run: row.get::<_, Name<_>>("id")?.0,
                            started: row.get::<_, Timestamp>("started")?.0,
                            finished: row.get::<_, Timestamp>("finished")?.0,
                            outcome: row.get::<_, Word>("outcome")?.0,
                            exit_code: row.get("exit_code")?,
                        })
                    },
                )
                .optional()
        })
    }

    /// When the run that was recorded last ended, for the clock guard of retention.
    ///
    /// Last by the order of recording, not by the clock: after a run under a clock that was years ahead,
    /// retention holds back once and not until that date comes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn newest_time(&self) -> Result<Option<DateTime<Utc>>, HistoryError> {
        Ok(self.last_run()?.map(|run| run.finished))
    }

    /// How the last run of the job ended for this target and item. A run in which the job ended before it
    /// came to any target (a failed hook, a skip) counts for all of them; one that was narrowed to
    /// other targets does not count. One that was to make snapshots alone counts for all when it failed, until one has made
    /// them: it made no copy.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_outcome(
        &self,
        job: &JobName,
        target: &TargetName,
        item: Option<&str>,
    ) -> Result<Option<LastOutcome>, HistoryError> {
        self.sql("read the last outcome", |connection| {
            connection
                .query_row(
                    "SELECT run.id AS id, run.finished AS finished,
                            COALESCE(result.outcome, job.outcome) AS outcome
                     FROM job
                     JOIN run ON run.sequence = job.run
                     LEFT JOIN result ON result.run = job.run AND result.job = job.name
                         AND result.target = ?2 AND result.item IS ?3
                     WHERE job.name = ?1 AND (result.outcome IS NOT NULL OR NOT EXISTS (
                         SELECT 1 FROM result AS other
                         WHERE other.run = job.run AND other.job = job.name))
                         AND (job.part != ?4 OR job.outcome IN (?5, ?6) AND NOT EXISTS (
                             SELECT 1 FROM job AS later
                             JOIN step ON step.run = later.run AND step.job = later.name
                             WHERE later.name = ?1 AND later.run > job.run AND later.part = ?4
                                 AND later.outcome NOT IN (?5, ?6)
                                 -- A hook may have left it out.
                                 AND step.step = 'capture' AND step.outcome NOT IN (?5, ?6)))
                     ORDER BY job.run DESC, result.rowid DESC LIMIT 1",
                    params![
                        job.as_str(),
                        target.as_str(),
                        item,
                        Part::Snapshots.word(),
                        Word(Outcome::Failed),
                        Word(Outcome::Interrupted)
                    ],
                    |row| {
                        Ok(LastOutcome {
                            run: row.get::<_, Name<_>>("id")?.0,
                            finished: row.get::<_, Timestamp>("finished")?.0,
                            outcome: row.get::<_, Word>("outcome")?.0,
                        })
                    },
                )
                .optional()
        })
    }

    /// What was found to be wrong with a copy when it was made, in words; `None` if it is a good one, or nothing is known of
    /// its making.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn lacking(&self, target: &TargetName, id: &str) -> Result<Option<String>, HistoryError> {
        self.sql("read what a copy lacks", |connection| {
            // Its record was written in the midst of the run that made it, behind the step.
            let lacking: Option<Option<String>> = connection
                .query_row(
                    "SELECT (SELECT step.detail FROM step JOIN run ON run.sequence = step.run
                             WHERE step.step = 'backup' AND step.outcome = copy.outcome
                                 AND step.job = copy.job AND step.target = copy.target
                                 AND step.item IS copy.item
                                 AND copy.recorded BETWEEN run.started AND run.finished
                             ORDER BY step.rowid DESC LIMIT 1)
                     FROM copy
                     WHERE target = ?1 AND id = ?2 AND NOT deleted AND NOT unseen
                         AND outcome NOT IN (?3, ?4)",
                    params![target.as_str(), id, Word(Outcome::Ok), Word(Outcome::Warning)],
                    |row| row.get(0),
                )
                .optional()?;
            let untold = || "what it lacks was told when it was made".to_owned();
            Ok(lacking.map(|detail| detail.unwrap_or_else(untold)))
        })
    }

    /// Records the items that a job has now. Those that it had before are kept, as gone.
    ///
    /// # Errors
    /// When they cannot be written; then nothing of it was.
    pub fn record_items(
        &self,
        job: &JobName,
        items: &[&str],
        now: DateTime<Utc>,
    ) -> Result<(), HistoryError> {
        self.at_once("record the items of a job", |connection| {
            connection.execute("UPDATE item SET here = 0 WHERE job = ?1", [job.as_str()])?;
            for item in items {
                connection.execute(
                    "INSERT INTO item (job, name, seen) VALUES (?1, ?2, ?3)
                     ON CONFLICT (job, name) DO UPDATE SET seen = excluded.seen, here = 1",
                    params![job.as_str(), item, Timestamp(now)],
                )?;
            }
            Ok(())
        })
    }

    /// The items that a job had when they were last recorded, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn items(&self, job: &JobName) -> Result<Vec<String>, HistoryError> {
        self.sql("read the items of a job", |connection| {
            connection
                .prepare("SELECT name FROM item WHERE job = ?1 AND here ORDER BY name")?
                .query_map([job.as_str()], |row| row.get(0))?
                .collect()
        })
    }

    /// The steps of the last run that had this job.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn job_steps(&self, job: &JobName) -> Result<Vec<StepTime>, HistoryError> {
        self.steps("job = ?1 AND run = (SELECT MAX(run) FROM job WHERE name = ?1)", job.as_str())
    }

    /// The maintenance steps of the last run that had some on this target.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn maintenance_steps(&self, target: &TargetName) -> Result<Vec<StepTime>, HistoryError> {
        self.steps(
            "job IS NULL AND target = ?1
             AND run = (SELECT MAX(run) FROM step WHERE job IS NULL AND target = ?1)",
            target.as_str(),
        )
    }

    fn steps(&self, which: &str, name: &str) -> Result<Vec<StepTime>, HistoryError> {
        self.sql("read the steps", |connection| {
            connection
                .prepare(&format!(
                    "SELECT target, item, step, outcome, seconds FROM step WHERE {which}
                     ORDER BY rowid"
                ))?
                .query_map([name], |row| {
                    Ok(StepTime {
                        target: row.get::<_, Option<Name<_>>>("target")?.map(|name| name.0),
                        item: row.get("item")?,
                        step: row.get("step")?,
                        outcome: row.get::<_, Word>("outcome")?.0,
                        seconds: row.get("seconds")?,
                    })
                })?
                .collect()
        })
    }
}

fn record_step(
    connection: &Connection,
    run: i64,
    job: Option<&JobName>,
    step: &StepReport,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO step (run, job, target, item, step, outcome, detail, seconds)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            run,
            job.map(JobName::as_str),
            step.target.as_ref().map(TargetName::as_str),
            step.item,
            step.step,
            Word(step.outcome.clone()),
            step.detail,
            step.elapsed.as_secs_f64()
        ],
    )?;
    Ok(())
}
