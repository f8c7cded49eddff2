//! `check-config`: the file alone, or with `--online` everything that a run would need.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Serialize, Serializer};

use crate::config::{self, Loaded, Origin};
use crate::model::bytes;
use crate::model::job::Config;
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::size;
use crate::pipeline::preflight::preflight;
use crate::pipeline::trust::unfit_for_a_run;
use crate::step::error::StepError;
use crate::tools::exclude::pattern_fault;

use super::options::{Global, Verdict};
use super::setup::{Setup, Use, read_files};
use super::{render, setup};

/// Arguments of `check-config`.
#[derive(Debug, Args)]
#[command(after_help = format!("Which sources go to which engines:\n{}", config::show_pairings()))]
pub struct CheckConfigArgs {
    /// Check also tools, targets, passphrases, mounts and sources
    #[arg(long)]
    online: bool,
    /// Print every value and the file and line it comes from
    #[arg(long)]
    show: bool,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    valid: bool,
    problems: Vec<Row>,
    warnings: Vec<Row>,
    /// Null without --online.
    online: Option<Vec<Finding>>,
    /// Every value and where it comes from; null without --show.
    values: Option<Vec<config::Origin>>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten, serialize_with = "file")]
    file: PathBuf,
    line: usize,
    column: usize,
    message: String,
    help: Option<String>,
}

fn file<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    bytes::field("file", "file_bytes", Some(path), serializer)
}

#[derive(Serialize)]
struct Finding {
    subject: String,
    ok: bool,
    #[serde(skip)]
    word: &'static str,
    detail: String,
}

/// Whether a run makes copies all the same, and says then what they lack.
fn is_mere_warning(trouble: Trouble) -> bool {
    matches!(trouble, Trouble::Warning | Trouble::Incomplete)
}

fn row(problem: &config::Problem) -> Row {
    Row {
        file: problem.file.clone(),
        line: problem.line,
        column: problem.column,
        message: problem.message.clone(),
        help: problem.help.clone(),
    }
}

/// Runs the verb.
pub fn run(global: &Global, args: &CheckConfigArgs) -> Verdict {
    let files = read_files(&global.config)?;
    let values = args.show.then(|| config::origins(&files));
    match config::load(&files, &setup::host_name()?, pattern_fault) {
        Ok(loaded) => check(global, args, loaded, values),
        Err(problems) => {
            if global.json {
                render::json(&Document {
                    schema: SCHEMA,
                    valid: false,
                    problems: problems.list().iter().map(row).collect(),
                    warnings: Vec::new(),
                    online: None,
                    values,
                })?;
            } else {
                show_values(values.as_deref())?;
                render::text(&problems.to_string())?;
            }
            Ok(vec![Trouble::Configuration])
        }
    }
}

/// Checks what a configuration names, whose text is valid.
fn check(
    global: &Global,
    args: &CheckConfigArgs,
    Loaded { config, warnings }: Loaded,
    values: Option<Vec<Origin>>,
) -> Verdict {
    let unfit = unfit_for_a_run(&config);
    let mut troubles: Vec<Trouble> = unfit.iter().map(|problem| problem.trouble).collect();
    let findings = if args.online && unfit.is_empty() {
        let setup = Setup::new(global, Use::Report)?;
        Some(preflight(setup.pipeline()))
    } else {
        None
    };
    // Whoever sets up tells them.
    let untold = if findings.is_some() { &[][..] } else { warnings.as_slice() };
    let faults = findings.iter().flatten().filter_map(|(_, answer)| answer.as_ref().err());
    troubles.extend(faults.map(|error| error.trouble));
    let online = findings.map(|findings| findings.into_iter().map(finding).collect());
    if global.json {
        let file = &global.config;
        let unfit_row = |problem: StepError| Row {
            file: file.clone(),
            line: 0,
            column: 0,
            message: problem.message,
            help: None,
        };
        render::json(&Document {
            schema: SCHEMA,
            valid: troubles.iter().copied().all(is_mere_warning),
            problems: unfit.into_iter().map(unfit_row).collect(),
            warnings: warnings.iter().map(row).collect(),
            online,
            values,
        })?;
        return Ok(troubles);
    }
    show_values(values.as_deref())?;
    for warning in untold {
        render::say(&format!("warning: {warning}"));
    }
    for problem in &unfit {
        render::text(&problem.message)?;
    }
    if !(global.quiet && troubles.is_empty()) {
        show_findings(&online.unwrap_or_default())?;
        render::text(&verdict(&config, &troubles))?;
    }
    Ok(troubles)
}

fn finding((subject, answer): (String, Result<String, StepError>)) -> Finding {
    let ok = answer.is_ok();
    let word = match &answer {
        Ok(_) => "ok  ",
        Err(error) if is_mere_warning(error.trouble) => "warn",
        Err(_) => "FAIL",
    };
    Finding { subject, ok, word, detail: answer.unwrap_or_else(|error| error.message) }
}

fn show_values(values: Option<&[Origin]>) -> anyhow::Result<()> {
    for Origin { file, line, key, value } in values.unwrap_or_default() {
        render::text(&format!("{}:{line}: {key} = {value}", file.shown()))?;
    }
    Ok(())
}

fn show_findings(findings: &[Finding]) -> anyhow::Result<()> {
    for finding in findings {
        let word = finding.word;
        let detail = render::hanging(&finding.detail, "      ");
        render::text(&format!("{word}  {}: {detail}", finding.subject))?;
    }
    Ok(())
}

fn verdict(config: &Config, troubles: &[Trouble]) -> String {
    let files: Vec<String> = config.files.iter().map(|file| file.shown().to_string()).collect();
    let counted = format!(
        "{}, {}",
        size::counted(config.jobs.len() as u64, "job", "jobs"),
        size::counted(config.targets.len() as u64, "target", "targets")
    );
    let word = match troubles {
        [] => "valid",
        some if some.iter().copied().all(is_mere_warning) => "valid, with warnings",
        _ => "not fit for a run",
    };
    format!("{}: {word} ({counted})", files.join(", "))
}
