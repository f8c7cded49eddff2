//! A copy and what was sent as it, compared entry by entry.

use std::path::{Path, PathBuf};

use crate::capture::{self, Still};
use crate::engine::{CheckReport, Engine, EngineError, SentAs};
use crate::host::{Completed, PrivateView, Stream, Subvolume};
use crate::model::copy::Copy;
use crate::model::names::{HostName, RunId};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::target::ReadData;
use crate::pipeline::query;
use crate::step::context::RunContext;
use crate::step::error::StepError;
use crate::step::source::ItemSnapshot;
use crate::tools::manifest::{self, Line, Sample};

/// How many differences are told of.
const TOLD: usize = 20;

/// What came of it.
pub(super) enum Compared {
    /// They were.
    Done(CheckReport),
    /// They were not. Why, unless it is that the source is not here any more.
    Not(Option<String>),
}

/// Compares a copy with its source.
///
/// # Errors
/// When they could not be compared to the end.
pub(super) fn compare(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    copy: &Copy,
    read_data: ReadData,
) -> Result<Compared, StepError> {
    let Some(comparison) = engine.comparison() else {
        let kind = engine.target().engine.name();
        let why = format!("copies in {kind} targets are not compared file by file");
        return Ok(Compared::Not(Some(why)));
    };
    let (uuid, generation) = match comparison.sent_as(cx.engine(), copy)? {
        SentAs::Snapshot { uuid, generation } => (uuid, generation),
        SentAs::Untold(why) => return Ok(Compared::Not(Some(why))),
    };
    let (source, view) = match source_of(cx, copy, (&uuid, generation))? {
        Sent::Here(source, view) => (source, view),
        Sent::Gone => return Ok(Compared::Not(None)),
        Sent::Elsewhere(host) => {
            let why = format!("what was sent is on {host}, from which it was pulled");
            return Ok(Compared::Not(Some(why)));
        }
        Sent::Another(run) => {
            let why = format!("its target says that it was made of what run {run} has sent");
            return Ok(Compared::Not(Some(why)));
        }
    };
    let random = || u64::from(u32::from_be_bytes(cx.host().random()));
    let sample = Sample { share: read_data.percent(), seed: random() << 32 | random() };
    let against = manifest::compare(&source, view, sample, engine.target().stall_timeout);
    let mut heard = Heard::default();
    let described = comparison.describe(
        cx.engine(),
        copy,
        sample,
        (&against, &mut |stream, line| {
            if stream == Stream::Out {
                heard.take(line);
            }
        }),
    );
    let ended = match described {
        Ok(ended) => ended,
        Err(error @ EngineError::Denied { .. }) => {
            return Ok(Compared::Not(Some(error.to_string())));
        }
        Err(error) => return Err(error.into()),
    };
    heard.judged(copy, &ended)
}

/// What a comparison has said.
#[derive(Default)]
struct Heard {
    told: Vec<String>,
    last: Option<Line>,
    torn: Option<String>,
}

impl Heard {
    fn take(&mut self, line: &[u8]) {
        match serde_json::from_slice::<Line>(line) {
            Ok(Line::Differs(found)) if self.told.len() < TOLD => {
                let path = if found.path.as_os_str().is_empty() {
                    "the root".to_owned()
                } else {
                    found.path.shown().to_string()
                };
                self.told.push(format!("{path}: {}", found.what));
            }
            Ok(Line::Differs(_)) => {}
            Ok(last @ (Line::Compared(_) | Line::NoSource(_))) => self.last = Some(last),
            Err(error) => self.torn = Some(error.to_string()),
        }
    }

    fn judged(self, copy: &Copy, ended: &Completed) -> Result<Compared, StepError> {
        let Heard { mut told, last, torn } = self;
        let failed = |what: String| {
            let text = format!("{} could not be compared with its source: {what}", copy.id);
            Err(StepError::new(Trouble::JobFailed, text))
        };
        if !ended.success() {
            return failed(format!("{}; {}", ended.exit, ended.last_words(3)));
        }
        let summary = match (last, torn) {
            (Some(Line::Compared(summary)), None) => summary,
            (Some(Line::NoSource(why)), None) if told.is_empty() => {
                let why = format!("what it is of cannot be read: {why}");
                tracing::warn!("{}: {why}", copy.id);
                return Ok(Compared::Not(Some(why)));
            }
            // What differed until then does so.
            (Some(Line::NoSource(why)), None) => {
                let extent = format!("as much as can be read of what it is of ({why})");
                return Ok(Compared::Done(CheckReport::found(told, extent)));
            }
            (_, torn) => {
                return failed(torn.unwrap_or_else(|| "it did not come to its end".into()));
            }
        };
        if summary.differing > told.len() as u64 {
            told.push(format!("and {} more", summary.differing - told.len() as u64));
        }
        let extent = format!(
            "{} entries compared with the source, with the content of {} files",
            summary.entries, summary.contents
        );
        Ok(Compared::Done(CheckReport::found(told, extent)))
    }
}

/// The snapshot that was sent.
enum Sent {
    /// It is still here and what it was; where, and how that is seen.
    Here(PathBuf, PrivateView),
    /// It is not.
    Gone,
    /// It is on another machine.
    Elsewhere(HostName),
    /// What is said to have been sent is of another run than the copy. A server that has lost one copy could show another.
    Another(RunId),
}

/// Finds the snapshot that was sent.
fn source_of(cx: RunContext<'_>, copy: &Copy, sent: (&str, u64)) -> Result<Sent, StepError> {
    let (Some(history), Some(series)) = (cx.pipeline.history, &copy.series) else {
        return Ok(Sent::Gone);
    };
    if let Some(host) = query::pulled_from(cx.pipeline.config, &series.job, copy) {
        return Ok(Sent::Elsewhere(host.clone()));
    }
    for kept in history.kept(&series.job)? {
        if kept.series != *series {
            continue;
        }
        // On a disk that is not here, it is not to be compared with.
        let Ok(Some(Still::Subvolume { device, name, found })) =
            capture::kept(cx.capture(), &kept.kept)
        else {
            continue;
        };
        if !was_sent(&found, sent) {
            continue;
        }
        return Ok(match copy.run.as_ref().is_none_or(|run| *run == kept.run) {
            true => seen(cx, &device, Path::new(&name)),
            false => Sent::Another(kept.run),
        });
    }
    // Of what nobody recorded, the snapshot may be another program's.
    let Some(job) = cx.pipeline.config.job(&series.job) else { return Ok(Sent::Gone) };
    let snapshots = cx.pipeline.source(job).snapshots(cx.pipeline).unwrap_or_else(|error| {
        tracing::warn!(%error, "the snapshots of job {} are not known", job.name);
        Vec::new()
    });
    let was_sent = |it: &&ItemSnapshot| it.item == series.item && was_sent(&it.found, sent);
    let found = snapshots.iter().find(was_sent);
    Ok(found.map_or(Sent::Gone, |it| seen(cx, &it.device, &it.path)))
}

/// Whether a snapshot is still what was sent.
fn was_sent(snapshot: &Subvolume, (uuid, generation): (&str, u64)) -> bool {
    snapshot.read_only && snapshot.uuid.as_deref() == Some(uuid) && snapshot.changed == generation
}

/// A subvolume as whoever compares sees it, and how it is shown.
fn seen(cx: RunContext<'_>, device: &Path, path: &Path) -> Sent {
    let view = capture::view::of_top_level(cx.capture(), device);
    Sent::Here(capture::bare_workplace(cx.capture()).join(path), view)
}
