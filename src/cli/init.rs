//! `init`: creates repositories and says what to store for a bad day.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::engine::{Engine, EngineError, Initialised};
use crate::host::spec::quote;

use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::target::{SecretSource, Target};
use crate::pipeline::closed;
use crate::pipeline::select;
use crate::pipeline::steps::target::{lock_for_deleting, require_mount};
use crate::step::context::RunContext;
use crate::step::error::StepError;

use super::setup::{Setup, Use};
use super::{Global, Verdict, render, target_name};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The targets whose repositories to create
    #[arg(value_name = "TARGET", required = true, value_parser = target_name)]
    targets: Vec<TargetName>,
    /// Leave a repository that exists already as it is, instead of refusing
    #[arg(long)]
    existing: bool,
    /// The repository was moved on purpose: have the engine take it at its place of today, and make nothing
    #[arg(long, conflicts_with = "existing")]
    moved: bool,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    targets: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    target: TargetName,
    repository: String,
    created: bool,
    repository_id: Option<String>,
    key_export: Option<String>,
}

/// Creates the repository; `None` when it is there and may be. What a failure leaves behind is told with what to do
/// about it: the next `init` would find a repository there that nothing can open.
fn create(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    target: &Target,
    may_exist: bool,
) -> Result<Option<Initialised>, StepError> {
    let local = target.local.as_deref();
    if let Some(parent) = local.and_then(Path::parent)
        && cx.host().look(parent)?.is_none()
    {
        let text = format!(
            "there is no directory {}, in which the repository would be made — create it, or mount its disk",
            parent.shown()
        );
        return Err(StepError::new(Trouble::Environment, text));
    }
    let is_there = |path: &Path| cx.host().look(path).is_ok_and(|state| state.is_some());
    let was_there = local.is_some_and(is_there);
    match engine.init(cx.engine()) {
        Ok(made) => Ok(Some(made)),
        Err(EngineError::RepositoryExists { .. }) if may_exist => Ok(None),
        Err(error) => {
            let mut error = StepError::from(error);
            if let Some(path) = local.filter(|path| !was_there && is_there(path)) {
                let path = quote(path);
                let left = format!(
                    "; what this left in {path} is no repository yet and holds no copy: remove it (rm -r {path}) before the next `stillpoint init {}`",
                    target.name
                );
                error.message.push_str(&left);
            }
            Err(error)
        }
    }
}

/// Runs the verb.
pub fn run(global: &Global, args: &InitArgs) -> Verdict {
    let setup = Setup::new(global, Use::Change)?;
    // All names first: what was made before a wrong one would never be told, nor its key.
    for name in &args.targets {
        select::target(&setup.config, name)?;
    }
    let mut document = Document { schema: SCHEMA, targets: Vec::new() };
    let troubles = setup.session(|cx| {
        let mut troubles: Vec<Trouble> = Vec::new();
        for name in &args.targets {
            let target = select::target(&setup.config, name)?;
            let engine = select::engine(setup.pipeline(), name)?;
            let created = require_mount(cx.host(), target).and_then(|()| {
                let _lock = lock_for_deleting(setup.pipeline(), cx.run, target)?;
                if args.moved {
                    return Ok(engine.accept_place(cx.engine()).map(|()| None)?);
                }
                create(cx, engine, target, args.existing)
            });
            // Believed when it can be opened with the configured passphrase, and not before.
            let probed = created.and_then(|created| Ok((created, engine.probe(cx.engine())?)));
            if let Ok((created, probe)) = &probed {
                let made = created.is_some();
                let noted = closed::after_init(cx, target, probe.repository_id.as_deref(), made);
                match noted {
                    Ok(None) => {}
                    Ok(Some(text)) => render::say(&format!("warning: {text}")),
                    Err(error) => {
                        render::say(&format!("stillpoint: target {name}: {error}"));
                        troubles.push(Trouble::Warning);
                    }
                }
            }
            match probed {
                Ok((created, probe)) => document.targets.push(Row {
                    target: name.clone(),
                    repository: target.repository.clone(),
                    created: created.is_some(),
                    repository_id: created
                        .as_ref()
                        .and_then(|made| made.repository_id.clone())
                        .or(probe.repository_id),
                    key_export: created.and_then(|made| made.key_export),
                }),
                Err(error) => {
                    render::say(&format!("stillpoint: target {name}: {error}"));
                    troubles.push(error.trouble);
                }
            }
        }
        Ok(troubles)
    })?;
    if global.json {
        render::json(&document)?;
        return Ok(troubles);
    }
    for row in &document.targets {
        let verb = match (row.created, args.moved) {
            (true, _) => "created",
            (false, true) => "taken where it is now",
            (false, false) => "left as it is",
        };
        render::text(&format!("{}: repository {} {verb}", row.target, row.repository))?;
        let secret = select::target(&setup.config, &row.target)?.secret.as_ref();
        if let Some(secret) = secret {
            render::text(&format!(
                "  Store the passphrase away from this machine: {}. Without it no copy can be restored, by anybody.",
                match secret {
                    SecretSource::File(path) => format!("it is in {}", path.shown()),
                    SecretSource::Command(argv) => format!("`{}` prints it", argv.join(" ")),
                    SecretSource::Credential(name) =>
                        format!("it is the systemd credential {name}"),
                }
            ))?;
        }
        if let Some(key) = &row.key_export {
            render::text(
                "  Store this key with it; it opens the repository if the repository's own key is lost:",
            )?;
            render::text(key)?;
        }
    }
    Ok(troubles)
}
