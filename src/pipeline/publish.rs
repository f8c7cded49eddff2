//! What others than people read of a run: `report.json`, and the metrics.

use crate::host::Action;
use crate::model::report::RunReport;
use crate::report::metrics;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::status::recorded;

/// Writes `report.json` and the metrics. That they cannot be written is a warning, in the report and in what history
/// remembers of the run: the copies stand. Answers with what is new among the warnings.
pub fn publish(pipeline: Pipeline<'_>, report: &mut RunReport) -> Vec<String> {
    let settings = &pipeline.config.settings;
    let known = report.warnings.len();
    let mut files = Vec::new();
    match serde_json::to_vec_pretty(report) {
        Ok(content) => files.push((settings.state_dir.join("report.json"), 0o600, content)),
        Err(error) => warn(report, error.to_string()),
    }
    if let Some(path) = &settings.metrics_file {
        match recorded(pipeline, None) {
            Ok((status, facts)) => {
                let text = metrics::textfile(&status, &facts);
                files.push((path.clone(), 0o644, text.into_bytes()));
            }
            Err(error) => warn(report, StepError::from(error).message),
        }
    }
    for (path, mode, content) in files {
        if let Err(error) = pipeline.host.act(&Action::ReplaceFile { path, mode, content }) {
            warn(report, StepError::from(error).message);
        }
    }
    if report.warnings.len() > known
        && let Err(error) = pipeline.remember(|history| history.amend_run(report))
    {
        warn(report, StepError::from(error).message);
    }
    report.warnings[known..].to_vec()
}

fn warn(report: &mut RunReport, text: String) {
    if report.warnings.contains(&text) {
        return;
    }
    report.warnings.push(text);
    report.warned();
}
