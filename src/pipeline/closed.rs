//! What closes retention and compaction in a target: damage that was found, good copies that are gone and that
//! nobody here deleted, another repository in its place. Copies are made all the same.
//!
//! A target is open again when a check of at least the same extent finds nothing (damage), when what was gone is
//! back, or when a person says so (`prune --accept`). The run that finds that something is gone is incomplete; later
//! runs warn until then.

use crate::engine::{Engine, EngineError};
use crate::history::{Closure, ClosureKind, Extent, ListedBy};
use crate::model::copy::Copy;
use crate::model::names::TargetName;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::size::counted;
use crate::model::target::{ReadData, Target};

use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;

/// Who lists a target, for history.
pub fn listed_by<'a>(cx: RunContext<'a>, target: &Target) -> ListedBy<'a> {
    ListedBy { run: cx.run, now: cx.host().now(), others_delete: target.append_only }
}

/// What closes a target, after it was listed: also whether it is the repository that it was. The first sight of one
/// is remembered.
///
/// # Errors
/// When history cannot be read or written.
pub fn examine(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    listed: &[Copy],
) -> Result<Vec<Closure>, StepError> {
    let target = engine.target();
    let name = &target.name;
    let Some(history) = cx.pipeline.history else { return Ok(Vec::new()) };
    let mut closures = history.closures(name)?;
    // A dry run has not recorded what its listing lacks.
    let vanished = history.vanished(name, listed, &listed_by(cx, target))?;
    closures.extend(vanished);
    let remembered = history.repository(name)?;
    let is_suspicious = closures.iter().any(|closure| closure.kind != ClosureKind::Damage);
    let id = match engine.listed_repository() {
        Some(id) => Some(id),
        // It costs a process of its own, and only tells more of what is seen already.
        None if is_suspicious || remembered.is_none() && cx.pipeline.kept_history().is_some() => {
            engine.probe(cx.engine()).ok().and_then(|probe| probe.repository_id)
        }
        None => None,
    };
    let Some(id) = id else { return Ok(closures) };
    match remembered {
        None => {
            let now = cx.host().now();
            cx.pipeline.remember(|history| history.remember_repository(name, &id, now))?;
        }
        Some(before) if before == id => {
            for closure in closures.iter().filter(|c| c.kind == ClosureKind::Replaced) {
                cx.pipeline.remember(|history| history.reopen(closure))?;
            }
            closures.retain(|closure| closure.kind != ClosureKind::Replaced);
        }
        Some(before) => {
            let found = Closure {
                target: name.clone(),
                kind: ClosureKind::Replaced,
                detail: format!("its id is {id}, and it was {before}"),
                subject: id,
                extent: None,
                run: cx.run.clone(),
                since: cx.host().now(),
            };
            let is_it = |c: &Closure| c.kind == found.kind && c.subject == found.subject;
            if !closures.iter().any(is_it) {
                cx.pipeline.remember(|history| history.close(&found))?;
                closures.push(found);
            }
        }
    }
    Ok(closures)
}

/// Remembers the repository that `init` made or found. Answers with what a person should know: that a new one does
/// not hold what history records there. `init` may be run by a machine that sees an empty disk, so it is not taken
/// for a person's word.
///
/// # Errors
/// When history cannot be read or written.
pub fn after_init(
    cx: RunContext<'_>,
    target: &Target,
    id: Option<&str>,
    made: bool,
) -> Result<Option<String>, StepError> {
    let (Some(history), Some(id)) = (cx.pipeline.history, id) else { return Ok(None) };
    let name = &target.name;
    let now = cx.host().now();
    let recorded = history.copies(name)?.len();
    if history.repository(name)?.is_none() || made && recorded == 0 {
        cx.pipeline.remember(|history| history.remember_repository(name, id, now))?;
    }
    Ok((made && recorded > 0).then(|| {
        format!(
            "target {name}: history records {} there, which the new repository does not hold; the next run reports it, and nothing is deleted there until you run `stillpoint prune --accept --target {name}`",
            counted(recorded as u64, "copy", "copies")
        )
    }))
}

/// What closes a target, as far as it was found before.
///
/// # Errors
/// When history cannot be read.
pub fn known(pipeline: Pipeline<'_>, target: &TargetName) -> Result<Vec<Closure>, StepError> {
    match pipeline.history {
        Some(history) => Ok(history.closures(target)?),
        None => Ok(Vec::new()),
    }
}

/// What it means for a verb that would delete or compact there.
pub fn trouble(closures: &[Closure]) -> Trouble {
    match closures.iter().any(|closure| closure.kind == ClosureKind::Damage) {
        true => Trouble::Damage,
        false => Trouble::Incomplete,
    }
}

/// What it means for the step of a run that lists the target.
pub fn judge(cx: RunContext<'_>, closures: &[Closure]) -> (Outcome, Trouble) {
    let is_new = |c: &Closure| c.kind != ClosureKind::Damage && c.run == *cx.run;
    if closures.iter().any(is_new) {
        (Outcome::Incomplete, Trouble::Incomplete)
    } else {
        (Outcome::Warning, Trouble::Warning)
    }
}

/// A person accepts what there is: what closes a target does so no more, and it is the repository that it is now.
///
/// # Errors
/// When history cannot be written, or the repository not be asked for its id.
pub fn accept(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    closures: &[Closure],
) -> Result<(), StepError> {
    let name = &engine.target().name;
    let is_replaced = closures.iter().any(|closure| closure.kind == ClosureKind::Replaced);
    let id = match engine.listed_repository() {
        Some(id) => Some(id),
        None if is_replaced => engine.probe(cx.engine())?.repository_id,
        None => None,
    };
    let now = cx.host().now();
    cx.pipeline.remember(|history| {
        if let Some(id) = &id {
            history.remember_repository(name, id, now)?;
        }
        closures.iter().try_for_each(|closure| history.reopen(closure))
    })?;
    Ok(())
}

/// What a check found, or that it found nothing.
///
/// # Errors
/// When history cannot be read or written.
pub fn after_check(
    cx: RunContext<'_>,
    engine: &dyn Engine,
    read_data: ReadData,
    damage: &[String],
) -> Result<(), StepError> {
    let target = engine.target();
    let extent = extent(engine, read_data);
    if !damage.is_empty() {
        return found(cx, &target.name, String::new(), extent, damage);
    }
    for closure in known(cx.pipeline, &target.name)? {
        if closure.kind == ClosureKind::Damage && extent.clears(closure.extent) {
            cx.pipeline.remember(|history| history.reopen(&closure))?;
        }
    }
    Ok(())
}

/// The same of one copy that was read back as a whole.
///
/// # Errors
/// When history cannot be read or written.
pub fn after_verify(
    cx: RunContext<'_>,
    target: &Target,
    copy: &Copy,
    damage: &[String],
) -> Result<(), StepError> {
    // A pin changes its id.
    let subject = copy.original.clone().unwrap_or_else(|| copy.id.clone());
    if !damage.is_empty() {
        return found(cx, &target.name, subject, Extent::Copy, damage);
    }
    for closure in known(cx.pipeline, &target.name)? {
        if closure.kind == ClosureKind::Damage && closure.subject == subject {
            cx.pipeline.remember(|history| history.reopen(&closure))?;
        }
    }
    Ok(())
}

/// Notes an engine's error where it says that the repository is damaged, whatever it was doing.
pub fn noting(cx: RunContext<'_>, target: &TargetName, error: EngineError) -> StepError {
    if error.trouble() != Trouble::Damage {
        return error.into();
    }
    let found = |target, detail: &str| {
        found(cx, target, String::new(), Extent::Structure, &[detail.to_owned()])
    };
    let noted = match &error {
        EngineError::Damaged { detail, .. } => found(target, detail),
        // What is damaged in one target says nothing of another.
        EngineError::DamagedBetween { from, to, source_only, .. } => {
            let told = error.to_string();
            found(from, &told).and_then(|()| if *source_only { Ok(()) } else { found(to, &told) })
        }
        other => found(target, &other.to_string()),
    };
    let mut step = StepError::from(error);
    if let Err(error) = noted {
        step.message = format!("{}; {error}", step.message);
    }
    step
}

fn found(
    cx: RunContext<'_>,
    target: &TargetName,
    subject: String,
    extent: Extent,
    damage: &[String],
) -> Result<(), StepError> {
    const SHOWN: usize = 2;
    let mut detail = damage.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if damage.len() > SHOWN {
        detail = format!("{detail} and {} more", damage.len() - SHOWN);
    }
    let closure = Closure {
        target: target.clone(),
        kind: ClosureKind::Damage,
        subject,
        extent: Some(extent),
        detail,
        run: cx.run.clone(),
        since: cx.host().now(),
    };
    Ok(cx.pipeline.remember(|history| history.close(&closure))?)
}

/// How much a check reads.
fn extent(engine: &dyn Engine, read_data: ReadData) -> Extent {
    match read_data {
        ReadData::Percent(_) if engine.reads_shares() => Extent::Share,
        ReadData::None | ReadData::Percent(_) => Extent::Structure,
        ReadData::All => Extent::All,
    }
}
