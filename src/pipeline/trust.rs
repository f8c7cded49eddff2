//! What root will run or read by the configuration's word: whoever else could change it would be root too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::engine::{Engines, engines};
use crate::host::sys::trusted::{TrustKind, check_trusted};
use crate::model::job::{Config, Job};
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::target::{SecretSource, Target};
use crate::source;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

/// Refuses to go on.
fn refuse(problems: Vec<StepError>) -> Result<(), StepError> {
    let Some(first) = problems.first() else { return Ok(()) };
    let texts: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    Err(StepError::new(first.trouble, texts.join("\n")))
}

/// Refuses a run of these jobs when something that it would use may be changed by others than root. What other
/// jobs use is none of its business: whatever is wrong there must not keep this one from its work.
///
/// # Errors
/// With everything that is not fit, and how to mend it.
pub fn refuse_unfit_run(
    pipeline: Pipeline<'_>,
    jobs: &[&Job],
    only: Option<&TargetName>,
) -> Result<(), StepError> {
    let targets = &pipeline.config.targets;
    let uses = |target: &&Target| {
        only.is_none_or(|only| target.name == *only)
            && jobs.iter().any(|job| job.targets.contains(&target.name))
    };
    refuse(untrusted(used(pipeline.engines, targets.iter().filter(uses), jobs.iter().copied())))
}

/// Refuses any verb when others than root may change our own directories.
///
/// # Errors
/// With each of them, and how to mend it.
pub fn refuse_unfit_directories(config: &Config) -> Result<(), StepError> {
    refuse(untrusted(directories(config)))
}

/// What is wrong with a configuration beyond its text: files that others than root may change.
pub fn unfit_for_a_run(config: &Config) -> Vec<StepError> {
    untrusted(
        used(&engines(config), config.targets.iter(), config.jobs.iter())
            .into_iter()
            .chain(directories(config)),
    )
}

/// A path of the configuration with the first place that names it.
type Named = (PathBuf, String);

/// Everything that targets and jobs name and that root will run or read: it must not be changeable by anybody
/// else, or they would be root too.
fn used<'c>(
    engines: &Engines,
    targets: impl Iterator<Item = &'c Target>,
    jobs: impl Iterator<Item = &'c Job>,
) -> Vec<(Named, TrustKind)> {
    let mut programs: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut private: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut public: BTreeMap<PathBuf, String> = BTreeMap::new();
    let note = |list: &mut BTreeMap<PathBuf, String>, path: Option<PathBuf>, place: &str| {
        if let Some(path) = path {
            list.entry(path).or_insert_with(|| place.to_owned());
        }
    };
    for target in targets {
        let place = format!("target {}", target.name);
        if let Some(SecretSource::Command(argv)) = &target.secret {
            note(&mut programs, argv.first().map(PathBuf::from), &place);
        }
        note(&mut programs, target.program.clone(), &place);
        // What an engine reads besides the source is the passphrase, the key and what the backend is given.
        let needs = engines[&target.name].needs();
        for secret in needs.reads {
            note(&mut private, Some(secret), &place);
        }
        for file in needs.public {
            note(&mut public, Some(file), &place);
        }
    }
    for job in jobs {
        for (place, program) in programs_of(job) {
            note(&mut programs, Some(program.into()), &place);
        }
    }
    // Names without a slash are looked up on a fixed path and checked when they are run.
    programs.retain(|path, _| path.is_absolute());
    let programs = programs.into_iter().map(|program| (program, TrustKind::Program));
    let public = public.into_iter().map(|file| (file, TrustKind::File));
    let programs = programs.chain(public);
    programs.chain(private.into_iter().map(|secret| (secret, TrustKind::Secret))).collect()
}

/// Those of them that others may change, or read where they hold a secret.
fn untrusted(named: impl IntoIterator<Item = (Named, TrustKind)>) -> Vec<StepError> {
    named
        .into_iter()
        .filter_map(|((path, place), kind)| {
            let error = check_trusted(&path, kind).err()?;
            // A secret or a program that is missing fails its own target or hook only, when it is needed.
            if error.is_missing() {
                return None;
            }
            let error =
                StepError::from_error(Trouble::Configuration, &error, error.hint().as_deref());
            Some(StepError { message: format!("{place}: {}", error.message), ..error })
        })
        .collect()
}

/// Our own directories, or what there is on the way to those that are yet to be made. What a ledger says is
/// carried out, so whoever could put one there would be root too.
fn directories(config: &Config) -> impl Iterator<Item = (Named, TrustKind)> {
    let settings = &config.settings;
    [
        ("state-dir", &settings.state_dir),
        ("runtime-dir", &settings.runtime_dir),
        ("cache-dir", &settings.cache_dir),
    ]
    .map(|(key, path)| {
        let there = path.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(path);
        let kind = if there == path { TrustKind::Directory } else { TrustKind::Passage };
        ((there.to_owned(), format!("settings, {key}")), kind)
    })
    .into_iter()
}

/// Every program that a job runs beside its engines, after the place that names it.
pub fn programs_of(job: &Job) -> Vec<(String, String)> {
    let hooks = job.hooks.named().map(|(hook, argv)| (format!("{hook} hook"), argv.as_slice()));
    let source = source::of(job);
    hooks
        .chain(source.programs())
        .filter_map(|(what, argv)| {
            Some((format!("job {}, {what}", job.name), argv.first()?.clone()))
        })
        .collect()
}
