//! What a dry run noted, to be shown.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::host::spec::quote;
use crate::host::{CommandSpec, EnvValue, PrivateMount};
use crate::model::bytes;
use crate::model::shown::Show;

/// Something that a real run would do to the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedEffect {
    /// A process.
    Command(PlannedCommand),
    /// Processes of which each reads what the one before it writes.
    #[serde(rename = "pipe")]
    Chain {
        /// The first.
        producer: PlannedCommand,
        /// Those between the first and the last, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        between: Vec<PlannedCommand>,
        /// The last, which stores.
        consumer: PlannedCommand,
    },
    /// Something else, in words.
    Action(String),
}

/// A process that a real run would start. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedCommand {
    /// The command as a person would type it, secrets masked.
    pub command: String,
    /// Variables beyond the base environment that may be shown, in order.
    pub environment: Vec<PlannedVariable>,
    /// Names of the variables that hold a secret or lead to one.
    pub secret_variables: Vec<String>,
    /// The working directory, if it is not `/`.
    #[serde(flatten, serialize_with = "directory")]
    pub directory: Option<PathBuf>,
    /// What only the process sees, in words.
    pub sees: Vec<String>,
}

fn directory<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes::field("directory", "directory_bytes", path.as_deref(), serializer)
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedVariable {
    /// Its name.
    pub name: String,
    /// Its value; bytes that are not UTF-8 are replaced.
    pub value: String,
}

/// One mount of a private view, in words.
fn seen(mount: &PrivateMount) -> String {
    match mount {
        PrivateMount::Bind { from, at, .. } if from == at => {
            format!("{} as it is live", at.shown())
        }
        PrivateMount::Mounted { at } => format!("{} as it is live", at.shown()),
        PrivateMount::Unlinked { from, at } => {
            format!("{} at {}, with no link followed", from.shown(), at.shown())
        }
        PrivateMount::Bind { from, at, read_only } => {
            let how = if *read_only { "read-only " } else { "" };
            format!("{} {how}at {}", from.shown(), at.shown())
        }
        PrivateMount::Device { device, at, file_system, options, directory, access: _ } => {
            let options = match options.as_str() {
                "" => String::new(),
                options => format!(", {options}"),
            };
            let directory =
                directory.as_ref().map(|path| format!(", {}", path.shown())).unwrap_or_default();
            format!(
                "{} ({file_system}{options}{directory}) read-only at {}",
                device.shown(),
                at.shown()
            )
        }
    }
}

impl PlannedCommand {
    pub(super) fn new(spec: &CommandSpec) -> Self {
        let mut environment = Vec::new();
        let mut secret_variables = Vec::new();
        for (name, value) in &spec.env {
            match value {
                EnvValue::Plain(value) => environment.push(PlannedVariable {
                    name: name.clone(),
                    value: value.to_string_lossy().into_owned(),
                }),
                EnvValue::Secret(_) => secret_variables.push(name.clone()),
            }
        }
        secret_variables.extend(spec.secrets.iter().map(|secret| secret.variable.to_owned()));
        Self {
            command: spec.display(),
            environment,
            secret_variables,
            directory: spec.directory.clone(),
            sees: spec.view.mounts.iter().map(seen).collect(),
        }
    }
}

impl PlannedEffect {
    pub(super) fn of_chain(before: &[CommandSpec], last: &CommandSpec) -> Self {
        let last = PlannedCommand::new(last);
        match before {
            [] => PlannedEffect::Command(last),
            [first, between @ ..] => PlannedEffect::Chain {
                producer: PlannedCommand::new(first),
                between: between.iter().map(PlannedCommand::new).collect(),
                consumer: last,
            },
        }
    }
}

impl fmt::Display for PlannedEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlannedEffect::Command(command) => command.fmt(f),
            PlannedEffect::Chain { producer, between, consumer } => {
                write!(f, "{producer}")?;
                between.iter().chain([consumer]).try_for_each(|next| write!(f, "\n| {next}"))
            }
            PlannedEffect::Action(text) => f.write_str(text),
        }
    }
}

/// The command on one line, and below it, indented, what else it gets.
impl fmt::Display for PlannedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.command)?;
        for PlannedVariable { name, value } in &self.environment {
            write!(f, "\n  with {name}={}", quote(value))?;
        }
        for name in &self.secret_variables {
            write!(f, "\n  with {name}=***")?;
        }
        if let Some(directory) = &self.directory {
            write!(f, "\n  in {}", directory.shown())?;
        }
        for mount in &self.sees {
            write!(f, "\n  seeing {mount}")?;
        }
        Ok(())
    }
}
