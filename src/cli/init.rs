//! `init`: creates repositories and says what to store for a bad day.

use clap::Args;
use serde::Serialize;

use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::target::SecretSource;
use crate::pipeline::closed;
use crate::pipeline::error::StepError;
use crate::pipeline::select;
use crate::pipeline::steps::target::{lock_for_deleting, require_mount};

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
                match engine.init(cx.engine()) {
                    Ok(made) => Ok(Some(made)),
                    Err(crate::engine::EngineError::RepositoryExists { .. }) if args.existing => {
                        Ok(None)
                    }
                    Err(error) => Err(StepError::from(error)),
                }
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
                    repository: target.repository().to_owned(),
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
        let verb = if row.created { "created" } else { "left as it is" };
        render::text(&format!("{}: repository {} {verb}", row.target, row.repository))?;
        let secret = select::target(&setup.config, &row.target)?.secret();
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
