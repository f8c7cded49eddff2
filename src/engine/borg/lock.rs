//! Locks that dead processes of ours left, in a local repository and in borg's cache.
//!
//! borg takes a lock for dead when its host id is borg's own and no process of its number runs here. After a reboot
//! that number may be somebody else's, and the lock stays for ever; and a container may have our host id. So in a run
//! borg gets a host id of its own, which holds the run's id (`BORG_HOST_ID`), and the ledger knows it before the
//! lock is taken. A lock of who changes something is removed by its exact name. One of who reads is an entry in a
//! file that all readers share; borg itself takes it out, when it is called under the same host id.
//!
//! In a repository behind ssh the lock is that of a `borg serve` over there, which releases it when the line is
//! cut. Nothing about it can be known from here, so nothing is done to it; the lock of the cache is ours all the same.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::BorgEngine;
use crate::engine::{Claim, Context, Engine, EngineError};
use crate::host::{ActError, Action};
use crate::tools::borg::{cache_directory, lock};

impl BorgEngine {
    /// Removes the locks that a run left, and looks whether they are gone.
    ///
    /// # Errors
    /// [`EngineError::Locked`] when one stays.
    pub(super) fn release_dead(
        &self,
        cx: Context<'_>,
        claim: Claim<'_>,
    ) -> Result<(), EngineError> {
        // A run of an earlier version: the next borg takes its lock away by borg's own rule.
        let Some(owner) = claim.owner else { return Ok(()) };
        let local = self.target().local.clone();
        // What stands in the way in one place, which may be the cache of another repository, keeps no lock elsewhere.
        let mut failure = None;
        for place in local.into_iter().chain(caches(cx)?) {
            if let Err(error) = release_in(self, cx, claim, owner, &place) {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Removes the locks of this owner in one place.
fn release_in(
    engine: &BorgEngine,
    cx: Context<'_>,
    claim: Claim<'_>,
    owner: &str,
    place: &Path,
) -> Result<(), EngineError> {
    for (name, pid) in exclusive(cx, place, owner)? {
        require_dead(engine, cx, claim, pid)?;
        let path = place.join(lock::EXCLUSIVE).join(name);
        cx.host.act(&Action::RemoveFile { path })?;
    }
    let shared = sharing(cx, place, owner)?;
    for pid in &shared {
        require_dead(engine, cx, claim, *pid)?;
    }
    if !shared.is_empty() {
        engine.list_as(cx, owner)?;
    }
    let left = exclusive(cx, place, owner)?.into_iter().map(|(_, pid)| pid);
    match left.chain(sharing(cx, place, owner)?).next() {
        Some(pid) => Err(locked(engine, format!("the lock of the dead process {pid} stays"))),
        None => Ok(()),
    }
}

fn locked(engine: &BorgEngine, detail: String) -> EngineError {
    EngineError::Locked { repository: engine.target.repository.clone(), detail }
}

fn require_dead(
    engine: &BorgEngine,
    cx: Context<'_>,
    claim: Claim<'_>,
    pid: i32,
) -> Result<(), EngineError> {
    match claim.is_dead(cx.host, pid)? {
        true => Ok(()),
        false => Err(locked(engine, format!("process {pid} of a dead run still runs"))),
    }
}

/// The directories of borg's caches, one for each repository.
fn caches(cx: Context<'_>) -> Result<Vec<PathBuf>, EngineError> {
    let above = cache_directory(cx.settings).join("cache");
    let names = cx.host.names_in(&above)?.unwrap_or_default();
    Ok(names.into_iter().map(|name| above.join(name)).collect())
}

/// Who of this owner holds the lock in `place` alone: the file's name and the process.
fn exclusive(
    cx: Context<'_>,
    place: &Path,
    owner: &str,
) -> Result<Vec<(String, i32)>, EngineError> {
    let names = cx.host.names_in(&place.join(lock::EXCLUSIVE))?.unwrap_or_default();
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names
        .filter_map(|name| Some((lock::process_of(&name, owner)?, name)))
        .map(|(pid, name)| (name, pid))
        .collect())
}

/// Who of this owner shares the lock in `place`.
fn sharing(cx: Context<'_>, place: &Path, owner: &str) -> Result<Vec<i32>, EngineError> {
    let names = cx.host.names_in(place)?.unwrap_or_default();
    if !names.iter().any(|name| name == lock::ROSTER) {
        return Ok(Vec::new());
    }
    match cx.host.read(&place.join(lock::ROSTER)) {
        Ok(roster) => Ok(lock::sharing(&roster, owner)),
        // borg removes it with the last who share the lock.
        Err(ActError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scripted::{Answer, ScriptedHost};
    use crate::model::undo::ChildProcess;

    const OURS: &str = "web1.stillpoint-0badcafe";

    fn process(pid: i32, start_time: u64) -> ChildProcess {
        let boot_id = "now".into();
        ChildProcess { pid, start_time, boot_id, never_kill: false, mark: None }
    }

    /// A repository and a cache in which these files lie; process 7 runs, and is not the one that we started.
    fn release(files: &[(&str, &str)], answers: Vec<Answer>) -> (bool, Vec<PathBuf>, usize) {
        let mut host = ScriptedHost::new(answers);
        host.files = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()))
            .collect();
        host.running = vec![process(7, 100), process(8, 50)];
        let children = [process(7, 50), process(8, 50), process(9, 50)];
        let claim = Claim { owner: Some(OURS), children: &children };
        let result =
            super::super::tests::with(&host, |engine, cx| engine.release_dead_lock(cx, claim));
        let acted = host.acted.lock().unwrap();
        let removed = acted.iter().map(|action| match action {
            Action::RemoveFile { path } => path.clone(),
            other => panic!("{other:?}"),
        });
        let asked = host.asked.lock().unwrap().len();
        (result.is_ok(), removed.collect(), asked)
    }

    #[test]
    fn the_lock_of_a_dead_run_goes_by_its_name_although_its_number_is_taken() {
        let repository = "/srv/r/lock.exclusive/web1.stillpoint-0badcafe.7-0";
        let cache = "/cache/borg/cache/abcd/lock.exclusive/web1.stillpoint-0badcafe.9-0";
        let (released, mut removed, asked) = release(&[(repository, ""), (cache, "")], vec![]);
        removed.sort();
        assert!(released);
        assert_eq!(removed, [PathBuf::from(cache), PathBuf::from(repository)]);
        assert_eq!(asked, 0);
    }

    #[test]
    fn whatever_is_not_of_the_run_or_lives_stays() {
        for other in [
            "/srv/r/lock.exclusive/web1@52540012.9-0",
            "/srv/r/lock.exclusive/web1.stillpoint-00000000.9-0",
        ] {
            assert_eq!(release(&[(other, "")], vec![]), (true, vec![], 0), "{other}");
        }
        let living = "/srv/r/lock.exclusive/web1.stillpoint-0badcafe.8-0";
        assert_eq!(release(&[(living, "")], vec![]), (false, vec![], 0));
    }

    #[test]
    fn a_torn_roster_names_nobody_and_one_place_does_not_keep_the_lock_of_another() {
        let repository = "/srv/r/lock.exclusive/web1.stillpoint-0badcafe.7-0";
        for torn in ["", r#"{"shared": [["web1.stillpoint-0bad"#] {
            for roster in ["/srv/r/lock.roster", "/cache/borg/cache/other/lock.roster"] {
                let released = release(&[(roster, torn), (repository, "")], vec![]);
                assert_eq!(
                    released,
                    (true, vec![PathBuf::from(repository)], 0),
                    "{roster}: {torn}"
                );
            }
        }
        let living = "/srv/r/lock.exclusive/web1.stillpoint-0badcafe.8-0";
        let cache = "/cache/borg/cache/other/lock.exclusive/web1.stillpoint-0badcafe.9-0";
        let released = release(&[(living, ""), (cache, "")], vec![]);
        assert_eq!(released, (false, vec![PathBuf::from(cache)], 0));
    }

    #[test]
    fn an_entry_among_readers_is_taken_out_by_borg_itself() {
        let roster = r#"{"shared": [["web1.stillpoint-0badcafe", 9, 0], ["other@1", 9, 0]]}"#;
        let listed = r#"{"archives": [], "repository": {"id": "ab", "location": "/srv/r"}}"#;
        // It says that it has looked, and the entry is still there.
        let (released, removed, asked) =
            release(&[("/srv/r/lock.roster", roster)], vec![Answer::new(0, listed, "")]);
        assert_eq!((released, removed.len(), asked), (false, 0, 1));
        let theirs = r#"{"shared": [["other@1", 9, 0]]}"#;
        assert_eq!(release(&[("/srv/r/lock.roster", theirs)], vec![]), (true, vec![], 0));
    }
}
