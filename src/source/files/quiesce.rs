//! Writers stand still while the captures of a job are made, so that all of them show one moment: the job's
//! `quiesce` hooks tell them to, or the kernel's freezer stops them. Whatever happens, they run on
//! afterwards: by this step, by the guard if we die or take too long, or by `recover`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::host::{ActError, Action, Host, LockGuard, LockMode, ThawGuard};
use crate::model::job::{CapturePolicy, Job};
use crate::model::outcome::{Outcome, Trouble};
use crate::model::shown::Show;
use crate::model::size::counted;
use crate::model::span;
use crate::model::undo::{EntryId, FrozenGroup, Identity};
use crate::tools::systemctl;

use crate::step::context::RunContext;
use crate::step::error::{StepError, ledger_error};
use crate::step::hook;
use crate::step::recorder::{Done, Recorder};

/// What is needed to be quiet, before anybody is disturbed.
struct Prepared {
    /// Two jobs that stop the same writers would let them go for each other.
    _lock: Box<dyn LockGuard>,
    /// Directories of control groups, none below another.
    groups: Vec<PathBuf>,
    hooks: Vec<hook::Held>,
}

/// What is frozen, or may be.
#[derive(Default)]
struct Frozen {
    guard: Option<Box<dyn ThawGuard>>,
    groups: Vec<Frost>,
}

/// One group, which may be frozen.
struct Frost {
    entry: EntryId,
    cgroup: PathBuf,
    identity: Option<Identity>,
}

/// Calls `make`, which makes the captures of the job, while the job's writers stand still. A job that says
/// nothing about writers just has `make` called.
///
/// `None` when the writers could not be made to stand still (then `make` was not called), when `make` answers
/// so, and when the writers ran before all captures were made: what `make` has made then does not show one
/// moment, and is the ledger's to release. A failed step says which.
pub fn while_quiesced<T>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    policy: &CapturePolicy,
    make: impl FnOnce(&mut Recorder<'_>) -> Option<T>,
) -> Option<T> {
    if job.hooks.quiesce.is_empty() && policy.freeze_units.is_empty() {
        return make(rec);
    }
    let prepared = rec.step("writers", None, None, |_| prepare(cx, job, policy))?;
    let made = quiesce(cx, rec, job)
        .and_then(|()| while_frozen(cx, rec, &prepared.groups, policy.freeze_limit, make));
    hook::resume(cx, rec, &prepared.hooks);
    made
}

/// Finds whom to freeze and has the ledger hold the `resume` hooks: all that can be done while the writers still write.
fn prepare(
    cx: RunContext<'_>,
    job: &Job,
    policy: &CapturePolicy,
) -> Result<(Prepared, Done), StepError> {
    let settings = &cx.config().settings;
    let path = settings.runtime_dir.join("locks").join("quiet.lock");
    let holder = format!("run {}, job {}: writers stand still", cx.run, job.name);
    let lock = cx.host().lock(&path, LockMode::Exclusive, settings.lock_wait, &holder)?;
    let found = find_groups(cx, &policy.freeze_units)?;
    if let Some(doubt) = found.doubt().filter(|_| policy.consistent) {
        return Err(StepError::new(Trouble::JobFailed, doubt));
    }
    let hooks = hook::intend_resume(cx, job)?;
    let done = found.done();
    Ok((Prepared { _lock: lock, groups: found.groups, hooks }, done))
}

/// What the names in `freeze-units` lead to.
#[derive(Default)]
struct Found {
    groups: Vec<PathBuf>,
    /// Names of what is not running: there is nothing to freeze.
    absent: Vec<String>,
    /// Control groups that are not there: not running either, or not spelt right.
    nowhere: Vec<String>,
    /// Names that systemd does not know.
    unknown: Vec<String>,
    /// Names of what is active without a process of its own: whoever writes runs under another name.
    without_process: Vec<String>,
}

impl Found {
    /// Why it is not certain that the writers are among what is frozen.
    fn doubt(&self) -> Option<String> {
        let mut doubts = Vec::new();
        if !self.unknown.is_empty() {
            doubts.push(format!("systemd knows no unit {}", self.unknown.join(", ")));
        }
        if !self.without_process.is_empty() {
            doubts.push(format!(
                "active without a process of its own: {}, so name what runs the writers (postgresql@15-main.service) or its slice",
                self.without_process.join(", ")
            ));
        }
        (!doubts.is_empty()).then(|| format!("{} — check freeze-units", doubts.join("; ")))
    }

    fn done(&self) -> Done {
        let count = self.groups.len();
        let mut parts = vec![match count {
            0 => "nothing to freeze".to_owned(),
            _ => counted(count as u64, "control group", "control groups") + " to freeze",
        }];
        if !self.absent.is_empty() {
            parts.push(format!("not running: {}", self.absent.join(", ")));
        }
        if !self.nowhere.is_empty() {
            parts.push(format!(
                "there is no control group {} — check how it is spelt, or name the unit, which may be stopped",
                self.nowhere.join(", ")
            ));
        }
        parts.extend(self.doubt());
        if self.nowhere.is_empty() && self.unknown.is_empty() && self.without_process.is_empty() {
            return Done::ok(parts.join("; "));
        }
        Done::with(Outcome::Warning, Trouble::Warning, parts.join("; "))
    }
}

fn find_groups(cx: RunContext<'_>, units: &[String]) -> Result<Found, StepError> {
    let mut found = Found::default();
    if units.is_empty() {
        return Ok(found);
    }
    let hierarchy = hierarchy(cx)?;
    for unit in units {
        let group = if unit.starts_with('/') {
            Some(PathBuf::from(unit))
        } else {
            let shown = ask_systemd(cx, unit)?;
            if !shown.known {
                found.unknown.push(unit.clone());
                continue;
            }
            if shown.active && shown.group.is_none() {
                found.without_process.push(unit.clone());
                continue;
            }
            shown.group
        };
        let group = group.map(|group| below(&hierarchy, &group));
        match group {
            Some(group) if cx.host().path_state(&group)?.is_some() => found.groups.push(group),
            _ if unit.starts_with('/') => found.nowhere.push(unit.clone()),
            _ => found.absent.push(unit.clone()),
        }
    }
    // A group freezes with all that is below it, and what is frozen already cannot be frozen again.
    found.groups.sort();
    found.groups.dedup_by(|next, kept| next.starts_with(kept));
    Ok(found)
}

fn below(hierarchy: &Path, group: &Path) -> PathBuf {
    hierarchy.join(group.strip_prefix("/").unwrap_or(group))
}

/// Where the control groups of version 2 are.
fn hierarchy(cx: RunContext<'_>) -> Result<PathBuf, StepError> {
    let whole = Path::new("/");
    let mount = cx.host().mounts()?.into_iter();
    let mut mount = mount.filter(|mount| mount.file_system == "cgroup2" && mount.root == whole);
    mount.next().map(|mount| mount.at).ok_or_else(|| {
        let text = "freeze-units needs control groups of version 2, and none are mounted — stop the writers with the hooks quiesce and resume instead";
        StepError::new(Trouble::Environment, text)
    })
}

fn ask_systemd(cx: RunContext<'_>, unit: &str) -> Result<systemctl::Unit, StepError> {
    let failed = |why: String| {
        let text = format!(
            "cannot ask systemd for the control group of {unit}: {why} — where it does not run, name control groups (\"/…\") in freeze-units"
        );
        StepError::new(Trouble::JobFailed, text)
    };
    let completed = cx.host().run(&systemctl::show_group(unit), &mut |_, _| {})?;
    if !completed.success() {
        return Err(failed(format!("{} ({})", completed.last_words(3), completed.exit)));
    }
    systemctl::parse_group(&completed.stdout).map_err(failed)
}

fn quiesce(cx: RunContext<'_>, rec: &mut Recorder<'_>, job: &Job) -> Option<()> {
    if job.hooks.quiesce.is_empty() {
        return Some(());
    }
    rec.step("quiesce", None, None, |_| {
        let env = hook::HookEnv::quiesce(&job.name, cx.run);
        for argv in &job.hooks.quiesce {
            hook::run_one(cx.host(), argv, job.hooks.timeout, &env)?;
        }
        Ok(((), Done::ok(hook::counted(job.hooks.quiesce.len()))))
    })
}

/// Freezes the groups, calls `make`, and thaws them again, on every way.
fn while_frozen<T>(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    groups: &[PathBuf],
    limit: Duration,
    make: impl FnOnce(&mut Recorder<'_>) -> Option<T>,
) -> Option<T> {
    // A signal that came while the hooks ran has stopped none of them if they were done.
    if cx.host().stop_signal().is_some() {
        return None;
    }
    if groups.is_empty() {
        return make(rec);
    }
    let mut frozen = Frozen::default();
    let began = Instant::now();
    let all_frozen =
        rec.step("freeze", None, None, |_| freeze(cx, groups, limit, &mut frozen)).is_some();
    let made = if all_frozen && cx.host().stop_signal().is_none() { make(rec) } else { None };
    // Without a guard nothing was frozen.
    let guard = frozen.guard?;
    let _shield = cx.host().shield();
    let still = rec.step("thaw", None, None, |_| {
        let let_go = thaw(cx, &frozen.groups, guard);
        let done = let_go.done(began.elapsed());
        match let_go.early(limit).filter(|_| all_frozen) {
            Some(why) if done.outcome == Outcome::Ok => {
                Err(StepError::new(Trouble::JobFailed, why))
            }
            Some(why) => Err(StepError::new(Trouble::JobFailed, format!("{why}; {}", done.detail))),
            None => Ok(((), done)),
        }
    });
    still.and(made)
}

fn freeze(
    cx: RunContext<'_>,
    groups: &[PathBuf],
    limit: Duration,
    frozen: &mut Frozen,
) -> Result<((), Done), StepError> {
    let guarded = Instant::now();
    frozen.guard = Some(cx.host().thaw_guard(groups, limit)?);
    for cgroup in groups {
        within(limit, guarded)?;
        let group = FrozenGroup { cgroup: cgroup.clone() };
        let entry = cx.ledger.intend(group.into()).map_err(ledger_error)?;
        match cx.host().act(&Action::Freeze { cgroup: cgroup.clone() }) {
            Ok(identity) => {
                frozen.groups.push(Frost {
                    entry,
                    cgroup: cgroup.clone(),
                    identity: identity.clone(),
                });
                if let Some(identity) = identity {
                    cx.ledger.made(entry, identity).map_err(ledger_error)?;
                }
            }
            // Nothing was done, and to thaw would be to undo what somebody else did.
            Err(error @ (ActError::AlreadyFrozen { .. } | ActError::NeededAwake { .. })) => {
                cx.ledger.settled(entry).map_err(ledger_error)?;
                return Err(error.into());
            }
            Err(error) => {
                frozen.groups.push(Frost { entry, cgroup: cgroup.clone(), identity: None });
                return Err(error.into());
            }
        }
    }
    within(limit, guarded)?;
    let shown: Vec<String> = groups.iter().map(|group| group.shown().to_string()).collect();
    Ok(((), Done::ok(format!("{} (for {} at most)", shown.join(", "), span::show(limit)))))
}

/// Whether the guard still stands: once its limit has come it has gone, and what is frozen after that nobody
/// would let go if we hang.
fn within(limit: Duration, guarded: Instant) -> Result<(), StepError> {
    if guarded.elapsed() < limit {
        return Ok(());
    }
    let text = format!(
        "it took longer than {} to freeze the writers, so they ran in between — raise freeze-limit, or see what holds them up",
        span::show(limit)
    );
    Err(StepError::new(Trouble::JobFailed, text))
}

/// How letting the groups go went.
#[derive(Default)]
struct LetGo {
    /// Groups that were not frozen any more.
    lost: Vec<String>,
    /// The guard's limit had come.
    fired: bool,
    /// What could not be let go, or not be settled in the ledger.
    failures: Vec<String>,
    /// Why the guard was not what it should be. The groups are let go all the same.
    unguarded: Option<String>,
}

impl LetGo {
    /// In which way the writers ran before all captures were made, if they did, and what to do about it.
    fn early(&self, limit: Duration) -> Option<String> {
        let (why, remedy) = if self.fired {
            let why = format!("it took longer than {} to make the captures", span::show(limit));
            (why, "raise freeze-limit, or see what holds them up")
        } else if !self.lost.is_empty() {
            let why = format!("{} did not stay frozen", self.lost.join(", "));
            (why, "see what else thaws, restarts or stops it, and run the job again")
        } else {
            return None;
        };
        Some(format!(
            "{why}, so the writers ran in between and the captures do not show one moment — {remedy}"
        ))
    }

    /// The rest, for the step.
    fn done(&self, took: Duration) -> Done {
        let mut failures = self.failures.join("; ");
        if !failures.is_empty() {
            failures.push_str(" — the next run or `stillpoint recover` tries again");
            return Done::with(Outcome::Warning, Trouble::Cleanup, failures);
        }
        match &self.unguarded {
            Some(why) => Done::with(Outcome::Warning, Trouble::Warning, why.clone()),
            None => Done::ok(format!("after {} ms", took.as_millis())),
        }
    }
}

fn thaw(cx: RunContext<'_>, groups: &[Frost], guard: Box<dyn ThawGuard>) -> LetGo {
    let mut let_go = LetGo::default();
    for Frost { entry, cgroup, identity } in groups.iter().rev() {
        let action = Action::Thaw { cgroup: cgroup.clone(), identity: identity.clone() };
        let settled = cx.host().act(&action).map_err(StepError::from).and_then(|thawed| {
            if thawed.is_none() {
                let_go.lost.push(cgroup.shown().to_string());
            }
            cx.ledger.settled(*entry).map_err(ledger_error)
        });
        if let Err(error) = settled {
            let_go.failures.push(error.message);
        }
    }
    match guard.finish() {
        Ok(fired) => let_go.fired = fired,
        Err(error) => let_go.unguarded = Some(StepError::from(error).message),
    }
    let_go
}

/// Lets a group run on that a ledger holds.
///
/// # Errors
/// When it cannot be thawed.
pub fn release(
    host: &dyn Host,
    group: &FrozenGroup,
    identity: Option<&Identity>,
) -> Result<(), StepError> {
    host.act(&Action::Thaw { cgroup: group.cgroup.clone(), identity: identity.cloned() })?;
    Ok(())
}
