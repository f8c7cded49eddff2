//! Locks that dead processes of ours left in the repository.
//!
//! restic writes host name, process number and time into its lock, and takes a lock of its own host name for dead
//! when no process of that number runs here. But another container, or another machine, may have our host name,
//! and then it is alive while its number means nothing here. So restic gets a host name of its own in each run
//! (a UTS namespace), which holds the run's id: a lock that bears it is of that run and of nobody else, and the
//! ledger knows it before it is taken. restic refreshes its lock every five minutes by making another file, which
//! bears the same name.
//!
//! In a local repository exactly these locks are removed, by their own names. Elsewhere `restic unlock` removes
//! them, under the host name that they bear, so that it cannot take a living process of our real host name for a
//! dead one; and not while there is a lock that it would take for its age alone.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::session::{Session, broken};
use crate::engine::{Claim, EngineError};
use crate::host::{Action, LONGEST_HOST_NAME};
use crate::model::names::{HostName, RunId};
use crate::tools::restic::command;
use crate::tools::restic::message::{self, LockFile};

/// How long is waited for a dead process to be reaped: no init takes longer that reaps at all.
const REAPED_WITHIN: Duration = Duration::from_secs(15);

/// How long between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// From what age on `restic unlock` takes anybody's lock: half an hour (`staleLockTimeout` in its source), less
/// a minute for the time between our look and its own.
const TAKEN_AFTER: TimeDelta = TimeDelta::minutes(29);

/// The host name that restic gets in a run.
pub(super) fn owner(host: &HostName, run: &RunId) -> String {
    let mark = format!(".stillpoint-{run}");
    // Host names are ASCII, so every byte is a place to cut.
    let room = LONGEST_HOST_NAME - mark.len();
    let host = host.as_str();
    format!("{}{mark}", &host[..host.len().min(room)])
}

/// Removes the locks that a run left, and looks whether they are gone.
///
/// # Errors
/// When restic cannot look or unlock, and [`EngineError::Locked`] when a lock of the run, or one that may be of
/// it, stays.
pub(super) fn release_dead(session: &Session<'_>, claim: Claim<'_>) -> Result<(), EngineError> {
    let locked = |detail| Err(EngineError::Locked { repository: session.shown(), detail });
    let mut waited = Duration::ZERO;
    loop {
        let locks = list_locks(session, claim)?;
        if let Some(held) = locks.held {
            return locked(format!("process {} on {} still runs", held.pid, held.hostname));
        }
        let Some((id, dead)) = locks.dead.first() else {
            tell(session, locks.forgotten.as_ref());
            return locks.doubtful.map_or(Ok(()), |other| locked(doubt(&other)));
        };
        if waited >= REAPED_WITHIN {
            return locked(format!(
                "process {} of this machine has died with its lock, and restic takes it for a living one, because nobody reaps it or another process has its number now; half an hour after {} restic lets it go",
                dead.pid,
                shown(dead.time),
            ));
        }
        if let Some(repository) = session.local {
            let path = repository.join("locks").join(id);
            session.cx.host.act(&Action::RemoveFile { path })?;
        } else if let Some(other) = locks.forgotten {
            return locked(format!(
                "process {} of this machine has died with its lock, which stays because `restic unlock` would also take that of process {} on {}, not refreshed since {} — see that it is not at work any more (a machine may sleep), then run `restic unlock`",
                dead.pid,
                other.pid,
                other.hostname,
                shown(other.time),
            ));
        } else {
            if waited > Duration::ZERO {
                session.cx.host.pause(PAUSE);
            }
            session.run(&command::unlock(&session.access, &dead.hostname))?;
        }
        waited += PAUSE;
    }
}

/// The locks on which it depends what may be done.
#[derive(Default)]
struct Locks {
    /// Those of the run whose processes are proven dead, by id.
    dead: Vec<(String, LockFile)>,
    /// One of the run whose process runs.
    held: Option<LockFile>,
    /// One that may be of the run, where nothing tells its locks from others'.
    doubtful: Option<LockFile>,
    /// Somebody else's, that `restic unlock` would take for its age.
    forgotten: Option<LockFile>,
}

fn list_locks(session: &Session<'_>, claim: Claim<'_>) -> Result<Locks, EngineError> {
    let host = session.cx.host;
    let listed = session.run(&command::list_locks(&session.access))?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let mut locks = Locks::default();
    for id in listed.lines().filter(|line| message::is_id(line)) {
        let read = host.run(&command::cat_lock(&session.access, id), &mut |_, _| {})?;
        if !read.success() {
            // Its owner has just removed it; if not, the next command that needs it will say why.
            continue;
        }
        let lock: LockFile = serde_json::from_slice(&read.stdout)
            .map_err(|error| broken(format!("a lock that cannot be read: {error}")))?;
        if claim.owner == Some(lock.hostname.as_str()) {
            match claim.is_dead(host, lock.pid)? {
                true => locks.dead.push((id.to_owned(), lock)),
                false => locks.held = Some(lock),
            }
            continue;
        }
        if claim.owner.is_none()
            && is_of_this_name(session, &lock)?
            && claim.is_dead(host, lock.pid)?
        {
            locks.doubtful = Some(lock);
        } else if host.now() - lock.time >= TAKEN_AFTER {
            locks.forgotten = Some(lock);
        }
    }
    Ok(locks)
}

/// Whether a lock bears the machine's own host name, which others may have too.
fn is_of_this_name(session: &Session<'_>, lock: &LockFile) -> Result<bool, EngineError> {
    let name = session.cx.host.read(Path::new("/proc/sys/kernel/hostname"))?;
    Ok(lock.hostname.as_bytes() == name.trim_ascii())
}

fn doubt(other: &LockFile) -> String {
    format!(
        "process {} on {} made a lock at {}; it may be one that a dead run of this machine left, but nothing proves it, and another container or machine may have this name — see that nobody of that name is at work there, then run `restic unlock`",
        other.pid,
        other.hostname,
        shown(other.time),
    )
}

fn tell(session: &Session<'_>, forgotten: Option<&LockFile>) {
    let Some(other) = forgotten else { return };
    tracing::warn!(
        "process {} on {} has a lock in {} that it has not refreshed since {}: if it is not at work any more, run `restic unlock`",
        other.pid,
        other.hostname,
        session.shown(),
        shown(other.time)
    );
}

fn shown(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%d %H:%M:%S UTC")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::engine::scripted::{Answer, ScriptedHost};
    use crate::engine::{Context, Engine};
    use crate::host::CommandSpec;
    use crate::model::undo::ChildProcess;

    const OURS: &str = "web1.stillpoint-0badcafe";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    /// A lock as restic shows it; the scripted clock shows noon.
    fn made(host: &str, pid: i32, time: &str) -> Answer {
        let text = format!(
            r#"{{"time":"2026-11-21T{time}+01:00","hostname":"{host}","pid":{pid},"exclusive":false}}"#
        );
        Answer::new(0, &text, "")
    }

    fn lock(host: &str, pid: i32) -> Answer {
        made(host, pid, "12:59:30.123456789")
    }

    fn listed(ids: &[char]) -> Answer {
        Answer::new(0, &ids.iter().map(|digit| id(*digit) + "\n").collect::<String>(), "")
    }

    fn done() -> Answer {
        Answer::new(0, "", "")
    }

    fn process(pid: i32, start_time: u64, boot: &str) -> ChildProcess {
        ChildProcess { pid, start_time, boot_id: boot.into(), never_kill: false, mark: None }
    }

    /// What came of it, which locks were removed by their name, and what was run.
    type Released = (Result<(), EngineError>, Vec<PathBuf>, Vec<CommandSpec>);

    /// Releases what a run of ours left that had started process 8. Process 7 runs.
    fn release(repository: &str, owner: Option<&str>, answers: Vec<Answer>) -> Released {
        let mut host = super::super::tests::host("0.14.0", answers);
        host.files.insert("/proc/sys/kernel/hostname".into(), b"web1\n".into());
        host.running = vec![process(7, 100, "now")];
        released(&host, repository, owner, &[process(8, 50, "now")])
    }

    fn released(
        host: &ScriptedHost,
        repository: &str,
        owner: Option<&str>,
        children: &[ChildProcess],
    ) -> Released {
        let settings = super::super::tests::settings();
        let target = super::super::tests::target(repository);
        let engine = super::super::tests::of(&target, None);
        let cx: Context<'_> = super::super::tests::cx(host, &settings);
        let result = engine.release_dead_lock(cx, Claim { owner, children });
        assert_eq!(host.answers.lock().unwrap().len(), 0, "all that was scripted was asked");
        let acted = host.acted.lock().unwrap();
        let removed = acted.iter().map(|action| match action {
            Action::RemoveFile { path } => path.clone(),
            other => panic!("{other:?}"),
        });
        let unlocks = host.asked.lock().unwrap().clone();
        (
            result,
            removed.collect(),
            unlocks.into_iter().filter(|spec| spec.display().contains(" unlock")).collect(),
        )
    }

    #[test]
    fn a_living_restic_elsewhere_with_our_host_name_keeps_its_lock() {
        for repository in ["/srv/restic", "sftp:nas:/restic"] {
            // No process of number 9 is here: it is in another container, or on another machine.
            for other in [lock("web1", 9), made("web1", 9, "12:00:00"), lock("web1", 8)] {
                let (result, removed, unlocks) =
                    release(repository, Some(OURS), vec![listed(&['a']), other]);
                result.unwrap();
                assert_eq!((removed.len(), unlocks.len()), (0, 0));
            }
        }
        // Beside it only ours goes, in a local repository by its own name …
        let (result, removed, unlocks) = release(
            "/srv/restic",
            Some(OURS),
            vec![
                listed(&['a', 'b']),
                lock("web1", 9),
                lock(OURS, 8),
                listed(&['a']),
                lock("web1", 9),
            ],
        );
        result.unwrap();
        assert_eq!(removed, [PathBuf::from("/srv/restic/locks").join(id('b'))]);
        assert_eq!(unlocks.len(), 0);
        // … and elsewhere by restic itself, to which the other is a process of another machine.
        let (result, removed, unlocks) = release(
            "sftp:nas:/restic",
            Some(OURS),
            vec![
                listed(&['a', 'b']),
                lock("web1", 9),
                lock(OURS, 8),
                done(),
                listed(&['a']),
                lock("web1", 9),
            ],
        );
        result.unwrap();
        assert_eq!((removed.len(), unlocks.len()), (0, 1));
        assert_eq!(unlocks[0].host_name.as_deref(), Some(OURS));
        assert!(!unlocks[0].display().contains("remove-all"));
    }

    #[test]
    fn a_lock_that_restic_would_take_for_its_age_alone_keeps_unlock_from_running() {
        for asleep in [made("there", 9, "12:30:30"), made("web1", 9, "12:30:30")] {
            let answers = || vec![listed(&['a', 'b']), asleep.clone(), lock(OURS, 8)];
            let (result, _, unlocks) = release("sftp:nas:/restic", Some(OURS), answers());
            let Err(EngineError::Locked { detail, .. }) = &result else { panic!("{result:?}") };
            assert!(detail.contains("since 2026-11-21 11:30:30 UTC"), "{detail}");
            assert_eq!(unlocks.len(), 0);
            let gone = [listed(&['a']), asleep.clone()];
            let (result, removed, _) =
                release("/srv/restic", Some(OURS), answers().into_iter().chain(gone).collect());
            result.unwrap();
            assert_eq!(removed.len(), 1);
        }
    }

    #[test]
    fn a_process_of_ours_is_dead_by_number_start_time_and_boot() {
        let case = |running: ChildProcess, children: &[ChildProcess]| {
            let mut host = super::super::tests::host("0.14.0", [listed(&['a']), lock(OURS, 8)]);
            host.answers.lock().unwrap().extend([listed(&[])]);
            host.running = vec![running];
            released_or_held(&host, children)
        };
        // The very process; one that the ledger does not name (the engine's own child); none at all is known.
        assert!(!case(process(8, 50, "now"), &[process(8, 50, "now")]));
        assert!(!case(process(8, 60, "now"), &[process(5, 50, "now")]));
        assert!(!case(process(8, 60, "now"), &[]));
        // Its number belongs to somebody else: since later in this boot, or since a reboot.
        assert!(case(process(8, 60, "now"), &[process(8, 50, "now")]));
        assert!(case(process(8, 50, "now"), &[process(8, 50, "before")]));
        assert!(case(process(8, 60, "now"), &[process(5, 50, "before")]));
    }

    /// Whether the lock was released.
    fn released_or_held(host: &ScriptedHost, children: &[ChildProcess]) -> bool {
        let settings = super::super::tests::settings();
        let target = super::super::tests::target("/srv/restic");
        let engine = super::super::tests::of(&target, None);
        let cx = super::super::tests::cx(host, &settings);
        let result = engine.release_dead_lock(cx, Claim { owner: Some(OURS), children });
        let removed = host.acted.lock().unwrap().len();
        match result {
            Ok(()) => assert_eq!(removed, 1),
            Err(error) => {
                assert!(error.to_string().contains("process 8 on web1"), "{error}");
                assert_eq!(removed, 0);
                return false;
            }
        }
        true
    }

    #[test]
    fn what_nothing_proves_ours_is_told_and_left() {
        let (result, removed, unlocks) =
            release("/srv/restic", None, vec![listed(&['a']), lock("web1", 8)]);
        let Err(EngineError::Locked { detail, .. }) = &result else { panic!("{result:?}") };
        assert!(detail.contains("nothing proves it"), "{detail}");
        assert_eq!((removed.len(), unlocks.len()), (0, 0));
        // One at work, one of another name, and none.
        for answers in [
            vec![listed(&['a']), lock("web1", 7)],
            vec![listed(&['a']), lock("there", 8)],
            vec![listed(&['a']), Answer::new(1, "", "invalid id")],
            vec![listed(&[])],
        ] {
            release("/srv/restic", None, answers).0.unwrap();
        }
    }

    #[test]
    fn a_dead_process_that_was_not_reaped_is_waited_for() {
        let round = || [listed(&['a']), lock(OURS, 8), done()];
        let twice = round().into_iter().chain(round()).chain([listed(&[])]).collect();
        let (result, _, unlocks) = release("sftp:nas:/restic", Some(OURS), twice);
        result.unwrap();
        assert_eq!(unlocks.len(), 2);
        // Nobody reaps it.
        let mut forever: Vec<Answer> = (0..15).flat_map(|_| round()).collect();
        forever.extend([listed(&['a']), lock(OURS, 8)]);
        let (result, _, _) = release("sftp:nas:/restic", Some(OURS), forever);
        let Err(EngineError::Locked { detail, .. }) = &result else { panic!("{result:?}") };
        assert!(detail.contains("after 2026-11-21 11:59:30 UTC"), "{detail}");
    }

    #[test]
    fn a_long_host_name_leaves_room_for_the_run() {
        let run = RunId::parse("0badcafe").unwrap();
        assert_eq!(owner(&HostName::new("web1").unwrap(), &run), OURS);
        let long = HostName::new("a".repeat(64)).unwrap();
        let owner = owner(&long, &run);
        assert_eq!(owner.len(), LONGEST_HOST_NAME);
        assert!(owner.ends_with("a.stillpoint-0badcafe"), "{owner}");
    }
}
