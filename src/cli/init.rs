//! `init`: creates repositories and says what to store for a bad day.

use clap::Args;
use serde::Serialize;

use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::report::SCHEMA;
use crate::model::shown::Show;
use crate::model::target::{SecretSource, Target};
use crate::pipeline::init::{Ready, Wanted, init};
use crate::pipeline::select;

use super::options::{Global, Verdict, target_name};
use super::render;
use super::setup::{Setup, Use};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The targets whose repositories to create
    #[arg(value_name = "TARGET", required = true, value_parser = target_name)]
    targets: Vec<TargetName>,
    /// Leave a repository that exists already as it is, instead of refusing
    #[arg(long)]
    existing: bool,
    /// The repository was moved on purpose: let the engine accept its present place, and create nothing
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

/// Runs the verb.
pub fn run(global: &Global, args: &InitArgs) -> Verdict {
    let setup = Setup::new(global, Use::Change)?;
    // All names first: what was made before a wrong one would never be told, nor its key.
    let named = args.targets.iter().map(|name| select::target(&setup.config, name));
    let targets: Vec<&Target> = named.collect::<Result<_, _>>()?;
    let wanted = match (args.moved, args.existing) {
        (true, _) => Wanted::Moved,
        (false, true) => Wanted::Existing,
        (false, false) => Wanted::New,
    };
    let (answers, mut troubles) = setup.session(|cx| {
        let answers = targets.iter().map(|target| init(cx, cx.pipeline.engine(target), wanted));
        Ok(answers.collect::<Vec<_>>())
    })?;
    let mut document = Document { schema: SCHEMA, targets: Vec::new() };
    for (target, answer) in targets.into_iter().zip(answers) {
        match answer {
            Ok(ready) => {
                troubles.extend(warn(target, &ready));
                document.targets.push(row(target, ready));
            }
            Err(error) => {
                render::say(&format!("stillpoint: target {}: {error}", target.name));
                troubles.push(error.trouble);
            }
        }
    }
    if global.json {
        render::json(&document)?;
        return Ok(troubles);
    }
    for row in &document.targets {
        let secret = select::target(&setup.config, &row.target)?.secret.as_ref();
        render::text(&told(row, wanted, secret))?;
    }
    Ok(troubles)
}

/// Tells what a person should know of a repository that is ready.
fn warn(target: &Target, ready: &Ready) -> Option<Trouble> {
    if let Some(text) = &ready.warning {
        render::say(&format!("warning: {text}"));
    }
    let error = ready.unrecorded.as_ref()?;
    render::say(&format!("stillpoint: target {}: {error}", target.name));
    Some(Trouble::Warning)
}

fn row(target: &Target, ready: Ready) -> Row {
    Row {
        target: target.name.clone(),
        repository: target.repository.clone(),
        created: ready.created.is_some(),
        repository_id: ready.repository_id,
        key_export: ready.created.and_then(|made| made.key_export),
    }
}

/// What is said of one repository, with what has to be stored for a bad day.
fn told(row: &Row, wanted: Wanted, secret: Option<&SecretSource>) -> String {
    let verb = match (row.created, wanted) {
        (true, _) => "created",
        (false, Wanted::Moved) => "accepted at its present place",
        (false, Wanted::New | Wanted::Existing) => "left as it is",
    };
    let mut text = format!("{}: repository {} {verb}", row.target, row.repository);
    if let Some(secret) = secret {
        let place = match secret {
            SecretSource::File(path) => format!("it is in {}", path.shown()),
            SecretSource::Command(argv) => format!("`{}` prints it", argv.join(" ")),
            SecretSource::Credential(name) => format!("it is the systemd credential {name}"),
        };
        text.push_str(&format!(
            "\n  Store the passphrase away from this machine: {place}. Without it nobody can restore any copy."
        ));
    }
    if let Some(key) = &row.key_export {
        text.push_str(
            "\n  Store this key with it; it opens the repository if the repository's own key is lost:\n",
        );
        text.push_str(key);
    }
    text
}
