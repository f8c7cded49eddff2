//! What verbs have in common: the options that all of them take, how names are read, and what they answer.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::model::job::{Part, Scope};
use crate::model::names::{HostName, JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::target::ReadData;
use crate::pipeline::query::Query;
use crate::report::terminal::ColorChoice;

/// What a verb answers: what went wrong, by kind. An error is for what kept it from doing its work at all.
pub type Verdict = anyhow::Result<Vec<Trouble>>;

/// Names the configuration when `--config` does not.
pub const CONFIG_VARIABLE: &str = "STILLPOINT_CONFIG";

/// Help of verbs that read copies: their session begins as every other.
pub const OPENS_SESSION: &str = "First releases what crashed runs left behind (snapshots, mounts, paused services), as recover does;\n\
     exit code 11 means that some of it is still there.";

/// Options that every verb takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Read this configuration and the drop-ins beside it (FILE's name with .d for .toml)
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = CONFIG_VARIABLE,
        default_value = "/etc/stillpoint.toml",
        // An empty name is refused in `parse`, with where it comes from.
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        global = true
    )]
    pub config: PathBuf,
    /// Print more; twice shows every command, three times all that engines print
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Print only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print the result as one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colour
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: Color,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
    }
}

/// A selection of jobs and targets.
#[derive(Debug, Args)]
pub struct Selection {
    /// Only this job
    #[arg(long, value_name = "JOB", value_parser = job_name)]
    pub job: Option<JobName>,
    /// Only this target
    #[arg(long, value_name = "TARGET", value_parser = target_name)]
    pub target: Option<TargetName>,
}

/// What a run is to do.
#[derive(Debug, Args)]
pub struct Wanted {
    /// The jobs; all of them when none is named
    #[arg(value_name = "JOB", value_parser = job_name)]
    pub jobs: Vec<JobName>,
    /// Use only this target
    #[arg(long, value_name = "TARGET", value_parser = target_name)]
    target: Option<TargetName>,
    /// Make the snapshots that jobs keep here (keep-snapshots), and send nothing
    #[arg(long, conflicts_with_all = ["no_snapshot", "target"])]
    snapshots_only: bool,
    /// Make no snapshot: send the newest one that is kept here to the targets that lack it
    #[arg(long)]
    no_snapshot: bool,
}

impl Wanted {
    /// What is done, and for whom.
    pub fn scope(&self) -> Scope<'_> {
        let part = match (self.snapshots_only, self.no_snapshot) {
            (true, _) => Part::Snapshots,
            (false, true) => Part::Transfer,
            (false, false) => Part::Whole,
        };
        Scope { target: self.target.as_ref(), part }
    }
}

/// Which of a job's copies are looked at.
#[derive(Debug, Args)]
pub struct CopyOptions {
    /// The copy in this target
    #[arg(long, value_name = "TARGET", value_parser = target_name)]
    target: Option<TargetName>,
    /// The subvolume, by its path in the job, or the stream of a commands job; files for copies of files
    #[arg(long, value_name = "ITEM")]
    item: Option<String>,
    /// A copy that was made under this host's name
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    host: Option<HostName>,
}

impl CopyOptions {
    /// The question that they put, about this job.
    pub fn query<'a>(&'a self, job: &'a JobName) -> Query<'a> {
        Query {
            job,
            host: self.host.as_ref(),
            target: self.target.as_ref(),
            item: self.item.as_deref(),
        }
    }
}

/// Reads a job's name.
pub fn job_name(text: &str) -> Result<JobName, String> {
    JobName::new(text).map_err(|error| error.to_string())
}

/// Reads a machine's name.
pub fn host_name(text: &str) -> Result<HostName, String> {
    HostName::new(text).map_err(|error| error.to_string())
}

/// Reads a target's name.
pub fn target_name(text: &str) -> Result<TargetName, String> {
    TargetName::new(text).map_err(|error| error.to_string())
}

/// How much to read; a type of its own, since clap wants one that can be cloned and parsed.
#[derive(Debug, Clone, Copy)]
pub struct Share(pub ReadData);

/// Reads a share of the data, such as `5%`.
pub fn share(text: &str) -> Result<Share, String> {
    let percent: f64 = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("expected a share such as 5%, not {text:?}"))?;
    if !(percent > 0.0 && percent <= 100.0) {
        return Err(format!("a share is above 0% and at most 100%, not {text}"));
    }
    Ok(Share(if percent == 100.0 { ReadData::All } else { ReadData::Percent(percent) }))
}
