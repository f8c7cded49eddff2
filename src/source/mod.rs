//! What a job protects: each kind of source is a room with its behaviour, and [`of`] finds the one of a job.

use crate::model::job::{Job, Source as Kind};

pub use crate::step::source::{
    Due, DueSnapshot, Findings, HeldBatch, Item, ItemSnapshot, Source, Sources, all_series, series,
    series_of,
};

use self::commands::Commands;
use self::files::Files;
use self::subvolumes::Subvolumes;

pub mod commands;
pub mod files;
pub mod subvolumes;

/// The source of a job: the one place that knows which room is whose.
pub fn of(job: &Job) -> Box<dyn Source + '_> {
    match &job.source {
        Kind::Files(files) => Box::new(Files { job, files }),
        Kind::Commands(commands) => Box::new(Commands { commands }),
        Kind::Subvolumes(subvolumes) => Box::new(Subvolumes { job, subvolumes }),
    }
}
