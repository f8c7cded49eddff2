//! `check-config --online`: everything that a run would need, asked for and nothing changed.

use crate::host::Tool;
use crate::machine;
use crate::model::job::Job;
use crate::model::shown::Show;
use crate::model::size;
use crate::model::target::Target;
use crate::source::Findings;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::absent::{self, Presence};
use super::alias::Ids;
use super::trust::programs_of;

/// Asks every target, every source and every program of a hook. Each answer is under the name of what was asked.
pub fn preflight(pipeline: Pipeline<'_>) -> Findings {
    let mut findings = Findings::new();
    let all: Vec<&Target> = pipeline.config.targets.iter().collect();
    let mut ids = Ids::of(pipeline);
    for target in &pipeline.config.targets {
        let found = ids.refuse_second(target, &all).and_then(|()| probe(pipeline, target));
        findings.push((format!("target {}", target.name), found));
    }
    for job in &pipeline.config.jobs {
        findings.extend(of_job(pipeline, job));
    }
    let library = machine::library_version();
    let library =
        library.map_or("this build is without it".into(), |version| format!("library {version}"));
    findings.push(("libvirt".into(), Ok(library)));
    findings
}

/// Opens the repository of a target.
fn probe(pipeline: Pipeline<'_>, target: &Target) -> Result<String, StepError> {
    let engine = pipeline.engine(target);
    match absent::look(pipeline, target)? {
        Presence::Here => {}
        Presence::Absent(why) => return Ok(format!("absent, as it may be: {why}")),
        Presence::Unknown(error) => return Err(error),
    }
    let probe = engine.probe(pipeline.engine_context())?;
    let encryption = probe.encryption.map(|mode| format!(", {mode}")).unwrap_or_default();
    let space = match target.local.as_ref().map(|path| pipeline.host.free_space(path)) {
        None => String::new(),
        Some(Ok(bytes)) => format!(", {} free", size::show(bytes)),
        Some(Err(error)) => format!(", free space unknown ({error})"),
    };
    Ok(format!("{}{encryption}, repository {} opens{space}", probe.version, target.repository))
}

/// Asks a job's source, and for the programs that it runs.
fn of_job(pipeline: Pipeline<'_>, job: &Job) -> Findings {
    let targets: Vec<_> =
        job.targets.iter().filter_map(|name| pipeline.config.target(name)).collect();
    let asked = pipeline.source(job).preflight(pipeline, &targets).into_iter();
    let asked = asked.map(|(what, answer)| (format!("job {}, {what}", job.name), answer));
    let programs = programs_of(job).into_iter().map(|(place, program)| {
        let found = pipeline.host.find_program(&Tool::from_word(&program));
        (place, found.map(|path| path.shown().to_string()).map_err(StepError::from))
    });
    asked.chain(programs).collect()
}
