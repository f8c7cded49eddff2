//! Making a restic repository, filling it from another one, and the tag that pins a snapshot.

use std::collections::BTreeSet;

use super::list::{self, Predicted, Prediction, invented_id};
use super::session::{IDS_AT_ONCE, Session, credentials, exact, unsupported};
use crate::engine::{Engine, EngineError, OnProgress};
use crate::host::Completed;
use crate::model::copy::Copy;
use crate::model::names::{RunId, TargetName};
use crate::tools::restic::{Repository, command, failure, tags};

/// Makes the repository, with the chunker parameters of the one that it will be filled from.
pub(super) fn init(
    mut session: Session<'_>,
    source: Option<Repository>,
) -> Result<Completed, EngineError> {
    if let Some(source) = &source {
        one_environment(&session, source)?;
    }
    session.source = source;
    session.run(&command::init(&session.access, session.source.as_ref()))
}

/// One process has one environment: two repositories whose files set a variable to different values cannot
/// be open in it together.
fn one_environment(session: &Session<'_>, source: &Repository) -> Result<(), EngineError> {
    let own = &session.access.repository.environment;
    let conflict = source
        .environment
        .iter()
        .find(|(name, value)| own.iter().any(|(known, other)| known == name && other != value));
    match conflict {
        Some((name, _)) => Err(unsupported(
            session.access.version,
            format!("the environment files of both repositories set {name}, to different values"),
        )),
        None => Ok(()),
    }
}

pub(super) fn copy_from(
    mut session: Session<'_>,
    to: &TargetName,
    source: &dyn Engine,
    copies: &[&Copy],
    progress: OnProgress<'_>,
) -> Result<(), EngineError> {
    if copies.is_empty() {
        // Without ids restic would copy everything.
        return Ok(());
    }
    for copy in copies {
        exact(&copy.id)?;
    }
    let cx = session.cx;
    let version = session.access.version;
    let repository = credentials(cx, version, source.target())?;
    one_environment(&session, &repository)?;
    session.source = Some(repository.clone());
    for copies in copies.chunks(IDS_AT_ONCE) {
        let ids: Vec<String> = copies.iter().map(|copy| copy.id.clone()).collect();
        let mut spec = command::copy(&session.access, &repository, &ids);
        for copy in copies {
            let id = invented_id(&run_of(copy), &format!("copy of {}", copy.id));
            let predicted = Predicted::from_copy(copy, id);
            spec.prediction.facts.push(Prediction::Added(predicted).fact(&session));
        }
        let completed = session.told(&spec, &mut *progress)?;
        if !completed.success() {
            let from = source.target().name.clone();
            return Err(between(from, to, session.failure(&spec, &completed), &completed));
        }
        // restic passes over an id that it does not find, with exit status 0.
        let stderr = String::from_utf8_lossy(&completed.stderr_tail);
        if let Some(line) = stderr.lines().find(|line| line.starts_with("Ignoring ")) {
            return Err(session.failed(&spec, line.to_owned()));
        }
    }
    Ok(())
}

/// The failure of a copy. Damage may be in either repository, of which restic names none.
fn between(
    from: TargetName,
    to: &TargetName,
    error: EngineError,
    completed: &Completed,
) -> EngineError {
    let EngineError::Damaged { detail, .. } = error else { return error };
    let source_only =
        failure::speaks_of_stored_data(&String::from_utf8_lossy(&completed.stderr_tail));
    EngineError::DamagedBetween { from, to: to.clone(), source_only, detail }
}

/// A run id for an invented snapshot id; that of a foreign copy is made of zeros.
fn run_of(copy: &Copy) -> RunId {
    copy.run.clone().unwrap_or_else(|| RunId::from_bytes([0; 4]))
}

/// Adds or removes the tag, and finds the snapshot that restic has put in the old one's place.
pub(super) fn set_pin(
    session: &Session<'_>,
    copy: &Copy,
    pinned: bool,
) -> Result<String, EngineError> {
    if copy.pinned == pinned {
        return Ok(copy.id.clone());
    }
    let mut spec = command::tag(&session.access, exact(&copy.id)?, tags::PROTECTED, pinned);
    let id = invented_id(&run_of(copy), &format!("{} {pinned}", copy.id));
    let mut predicted = Predicted::from_copy(copy, id);
    predicted.tags.retain(|tag| tag != tags::PROTECTED);
    if pinned {
        predicted.tags.push(tags::PROTECTED.into());
    }
    spec.prediction.facts = vec![
        Prediction::Gone(copy.id.clone()).fact(session),
        Prediction::Added(predicted).fact(session),
    ];
    // Anybody can add what claims to be a version of it, so what was there before is not it.
    let before: BTreeSet<String> = list::list(session)?.into_iter().map(|now| now.id).collect();
    session.run(&spec)?;
    // restic names the first id of a re-tagged snapshot as its original, also after the second time.
    let original = copy.original.as_deref().unwrap_or(&copy.id);
    let mut found = list::list(session)?.into_iter().filter(|now| {
        now.pinned == pinned
            && now.run == copy.run
            && !before.contains(&now.id)
            && now.original.as_deref() == Some(original)
    });
    match (found.next(), found.next()) {
        (Some(now), None) => Ok(now.id),
        (Some(one), Some(two)) => {
            let what = format!("{} and {} both claim to be {} now", one.id, two.id, copy.id);
            Err(session.failed(&spec, what))
        }
        (None, _) => Err(session.failed(&spec, format!("the tags of {} are as before", copy.id))),
    }
}
