//! `check-config`: the file alone, or with `--online` everything that a run would need.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Serialize, Serializer};

use crate::config::{self, Origin};
use crate::host::Tool;
use crate::machine;
use crate::model::bytes;
use crate::model::job::Config;
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::size;
use crate::model::target::Target;
use crate::pipeline::steps::target::require_mount;
use crate::step::error::StepError;

use crate::tools::exclude::pattern_fault;

use super::options::{Global, Verdict};
use super::setup::{Setup, Use, read_files};
use super::{render, setup};

/// Arguments of `check-config`.
#[derive(Debug, Args)]
#[command(after_help = format!("Which sources go to which engines:\n{}", config::show_pairings()))]
pub struct CheckConfigArgs {
    /// Look also at tools, targets, passphrases, mounts and sources
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
    detail: String,
    #[serde(skip)]
    trouble: Option<Trouble>,
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
    if !global.json {
        for origin in values.iter().flatten() {
            let Origin { file, line, key, value } = origin;
            render::text(&format!("{}:{line}: {key} = {value}", file.shown()))?;
        }
    }
    let loaded = match config::load(&files, &setup::host_name()?, pattern_fault) {
        Ok(loaded) => loaded,
        Err(problems) => {
            if global.json {
                let problems = problems.list().iter().map(row).collect();
                render::json(&Document {
                    schema: SCHEMA,
                    valid: false,
                    problems,
                    warnings: Vec::new(),
                    online: None,
                    values,
                })?;
            } else {
                render::text(&problems.to_string())?;
            }
            return Ok(vec![Trouble::Configuration]);
        }
    };
    let unfit = setup::unfit_for_a_run(&loaded.config);
    let mut troubles = Vec::new();
    troubles.extend(unfit.iter().map(|problem| problem.trouble));
    let online = if args.online && unfit.is_empty() { Some(look(global)?) } else { None };
    troubles.extend(online.iter().flatten().filter_map(|finding| finding.trouble));
    if global.json {
        let problems = unfit
            .into_iter()
            .map(|problem| Row {
                file: global.config.clone(),
                line: 0,
                column: 0,
                message: problem.message,
                help: None,
            })
            .collect();
        let warnings = loaded.warnings.iter().map(row).collect();
        render::json(&Document {
            schema: SCHEMA,
            valid: troubles.is_empty(),
            problems,
            warnings,
            online,
            values,
        })?;
        return Ok(troubles);
    }
    for warning in &loaded.warnings {
        render::say(&format!("warning: {warning}"));
    }
    for problem in &unfit {
        render::text(&problem.message)?;
    }
    if global.quiet && troubles.is_empty() {
        return Ok(troubles);
    }
    for finding in online.iter().flatten() {
        let word = if finding.ok { "ok  " } else { "FAIL" };
        let detail = render::hanging(&finding.detail, "      ");
        render::text(&format!("{word}  {}: {detail}", finding.subject))?;
    }
    render::text(&verdict(&loaded.config, &troubles))?;
    Ok(troubles)
}

fn verdict(config: &Config, troubles: &[Trouble]) -> String {
    let files: Vec<String> = config.files.iter().map(|file| file.shown().to_string()).collect();
    let counted = format!(
        "{}, {}",
        size::counted(config.jobs.len() as u64, "job", "jobs"),
        size::counted(config.targets.len() as u64, "target", "targets")
    );
    let word = if troubles.is_empty() { "valid" } else { "not fit for a run" };
    format!("{}: {word} ({counted})", files.join(", "))
}

/// Looks at everything that a run would use. Changes nothing.
fn look(global: &Global) -> anyhow::Result<Vec<Finding>> {
    let setup = Setup::new(global, Use::Report)?;
    let pipeline = setup.pipeline();
    let mut findings = Vec::new();
    let mut note = |subject: String, result: Result<String, StepError>| {
        findings.push(match result {
            Ok(detail) => Finding { subject, ok: true, detail, trouble: None },
            Err(error) => {
                Finding { subject, ok: false, detail: error.message, trouble: Some(error.trouble) }
            }
        });
    };
    for target in &setup.config.targets {
        let engine = pipeline.engine(target);
        let result = require_mount(pipeline.host, target).and_then(|()| {
            let probe = engine.probe(pipeline.engine_context())?;
            let encryption = probe.encryption.map(|mode| format!(", {mode}")).unwrap_or_default();
            let space = free_space(&setup, target);
            Ok(format!(
                "{}{encryption}, repository {} opens{space}",
                probe.version, target.repository
            ))
        });
        note(format!("target {}", target.name), result);
    }
    for job in &setup.config.jobs {
        let targets: Vec<_> =
            job.targets.iter().filter_map(|name| setup.config.target(name)).collect();
        for (what, result) in pipeline.source(job).preflight(pipeline, &targets) {
            note(format!("job {}, {what}", job.name), result);
        }
        for (place, program) in setup::programs_of(job) {
            let found = pipeline.host.find_program(&Tool::from_word(&program));
            let found = found.map(|path| path.shown().to_string()).map_err(StepError::from);
            note(place, found);
        }
    }
    let library = machine::library_version();
    note(
        "libvirt".into(),
        Ok(library
            .map_or("this build is without it".into(), |version| format!("library {version}"))),
    );
    Ok(findings)
}

/// The free space of a repository on this machine, as an appendix.
fn free_space(setup: &Setup, target: &Target) -> String {
    let Some(path) = &target.local else { return String::new() };
    match setup.host.free_space(path) {
        Ok(bytes) => format!(", {} free", crate::model::size::show(bytes)),
        Err(error) => format!(", free space unknown ({error})"),
    }
}
