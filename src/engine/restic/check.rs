//! Checking a restic repository, and reading one snapshot back.
//!
//! Damage is a finding; a check that could not be carried out is an error. restic ends with status 1 for
//! both, and its JSON summary says `num_errors: 1` also when the repository was only locked.

use super::lock;
use super::session::{KEPT, Session, broken, exact};
use crate::engine::{CheckReport, Claim, EngineError, OnProgress};
use crate::host::{CommandSpec, Exit, Stream};
use crate::model::copy::Copy;
use crate::model::event::Progress;
use crate::model::target::ReadData;
use crate::tools::restic::command;
use crate::tools::restic::failure::{self, Kind};
use crate::tools::restic::message::{self, CheckSummary, Line};

/// What restic before 0.18 says at the end of a check that found nothing.
const NOTHING_FOUND: &str = "no errors were found";

pub(super) fn check(
    session: &Session<'_>,
    read_data: ReadData,
    progress: OnProgress<'_>,
) -> Result<CheckReport, EngineError> {
    let spec = command::check(&session.access, read_data);
    let mut summary = None;
    let mut nothing_found = false;
    let mut damage = Vec::new();
    let completed = session.cx.host.run(&spec, &mut |stream, line| match message::line(line) {
        Line::Summary(value) => summary = Some(serde_json::from_value::<CheckSummary>(value)),
        Line::Problem(problem) => push(&mut damage, &problem.message),
        Line::Text(text) if text == NOTHING_FOUND => nothing_found = true,
        Line::Text(text) if stream == Stream::Err => push(&mut damage, &text),
        Line::Text(text) => progress(Progress { current: Some(text), ..Progress::default() }),
        Line::Status(_) | Line::ExitError { .. } | Line::Other(_) | Line::Empty => {}
    })?;
    if completed.is_predicted {
        return Ok(CheckReport::predicted());
    }
    let extent = match read_data {
        ReadData::None => "structure".to_owned(),
        ReadData::Percent(share) => format!("structure and {share}% of the data"),
        ReadData::All => "structure and all data".to_owned(),
    };
    if completed.success() {
        let proven = if session.access.version.checks_in_json() {
            let found = summary
                .ok_or_else(|| broken(format!("no summary from `{}`", spec.display())))?
                .map_err(|error| {
                    broken(format!("a check's summary that cannot be read: {error}"))
                })?;
            found.num_errors == 0
        } else {
            nothing_found
        };
        if !proven {
            return Err(broken(format!("`{}` ended well without saying so", spec.display())));
        }
        // What it printed besides are hints: old index formats and the like.
        return Ok(CheckReport::found(Vec::new(), extent));
    }
    let failure = failure::diagnose(completed.exit, &completed.stderr_tail);
    if completed.exit == Exit::Code(1) && failure.kind == Kind::Damaged {
        if damage.is_empty() {
            push(&mut damage, &failure.detail);
        }
        let damage = damage.iter().map(|text| session.redact(text)).collect();
        return Ok(CheckReport::found(damage, extent));
    }
    Err(session.failure(&spec, &completed))
}

/// Keeps a line that names damage; advice what to do about it has its own place.
fn push(damage: &mut Vec<String>, text: &str) {
    const ADVICE: [&str; 6] = [
        "The repository contains damaged pack files",
        "The repository index is damaged",
        "restic repair ",
        "Damaged pack files can be caused by",
        "Fatal: repository contains errors",
        "using temporary cache",
    ];
    let text = text.trim();
    if !text.is_empty()
        && !ADVICE.iter().any(|advice| text.starts_with(advice))
        && damage.len() < KEPT
    {
        damage.push(text.to_owned());
    }
}

/// Reads every blob of a snapshot, as a restore would: restic authenticates each before it writes it out.
///
/// That something cannot be read is damage when restic says so in words, or when the repository answers and the
/// same reading fails once more: a broken connection ends restic in the same way as a lost pack file.
pub(super) fn verify(session: &Session<'_>, copy: &Copy) -> Result<CheckReport, EngineError> {
    let spec = command::dump_all(&session.access, exact(&copy.id)?);
    let report = |damage| CheckReport::found(damage, "every blob of the copy".to_owned());
    let found = |text: &str| report(vec![session.redact(text)]);
    match read_back(session, &spec)? {
        ReadBack::Predicted => return Ok(CheckReport::predicted()),
        ReadBack::Whole => return Ok(report(Vec::new())),
        ReadBack::Damaged(text) => return Ok(found(&text)),
        ReadBack::Unreadable(_) => session.run(&command::cat_config(&session.access))?,
    };
    match read_back(session, &spec)? {
        ReadBack::Predicted => Ok(CheckReport::predicted()),
        ReadBack::Whole => Ok(report(Vec::new())),
        ReadBack::Damaged(text) | ReadBack::Unreadable(text) => Ok(found(&text)),
    }
}

/// How the reading of a whole snapshot ended.
enum ReadBack {
    /// Nobody read: a dry run only noted it.
    Predicted,
    /// Everything was read.
    Whole,
    /// restic says that what is stored is not what it was.
    Damaged(String),
    /// Something could not be read, and restic does not say that it is damaged.
    Unreadable(String),
}

fn read_back(session: &Session<'_>, spec: &CommandSpec) -> Result<ReadBack, EngineError> {
    let completed = session.cx.host.run(spec, &mut |_, _| {})?;
    if completed.is_predicted {
        return Ok(ReadBack::Predicted);
    }
    if completed.success() {
        return Ok(ReadBack::Whole);
    }
    let failure = failure::diagnose(completed.exit, &completed.stderr_tail);
    let stderr = String::from_utf8_lossy(&completed.stderr_tail);
    // restic 0.18 and others crash in their tree walk when a directory cannot be loaded; that the lock of
    // the crashed child is left behind is ours to mend, and its owner is proven dead.
    if failure.kind == Kind::Crashed {
        let owner = session.access.lock_owner.as_deref();
        lock::release_dead(session, Claim { owner, children: &[] })?;
        if stderr.contains("internal/walker") {
            let text = format!("a directory of the copy cannot be loaded: {}", failure.detail);
            return Ok(ReadBack::Unreadable(text));
        }
    }
    let unreadable = ["cannot dump file", "loading tree for snapshot"];
    if failure.kind == Kind::Damaged {
        Ok(ReadBack::Damaged(failure.detail))
    } else if failure.kind == Kind::Other
        && unreadable.iter().any(|words| failure.detail.contains(words))
    {
        Ok(ReadBack::Unreadable(failure.detail))
    } else {
        Err(session.failure(spec, &completed))
    }
}
