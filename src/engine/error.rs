//! Why an engine call failed, in terms that are the same for every engine.

use std::path::Path;

use crate::host::spec::words;
use crate::host::{ActError, RunError, TrustError};
use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::target::Target;

/// Why an engine call failed. Each variant has its own remedy; see [`EngineError::hint`].
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no repository where the configuration says.
    #[error("there is no repository at {repository}")]
    RepositoryMissing {
        /// Where it was looked for.
        repository: String,
    },
    /// `init` found one.
    #[error("there is already a repository at {repository}")]
    RepositoryExists {
        /// The repository, as the engine is told it.
        repository: String,
    },
    /// The passphrase does not open the repository.
    #[error("the passphrase does not open the repository {repository}")]
    WrongPassphrase {
        /// The repository, as the engine is told it.
        repository: String,
    },
    /// The key file that the repository needs is not there.
    #[error("the key for the repository {repository} is not on this machine")]
    KeyMissing {
        /// The repository, as the engine is told it.
        repository: String,
        /// What to do about it, since each engine keeps its keys in a way of its own.
        remedy: &'static str,
    },
    /// The passphrase cannot be had.
    #[error("cannot get the passphrase: {what}")]
    Secret {
        /// What went wrong; never the secret.
        what: String,
    },
    /// A file that opens the repository may be read or changed by others.
    #[error(transparent)]
    Untrusted(TrustError),
    /// Nothing can be written there: its file system is mounted read-only.
    #[error(
        "nothing can be written to the repository {repository}: its file system is mounted read-only"
    )]
    ReadOnly {
        /// The repository, as the engine is told it.
        repository: String,
    },
    /// There is a repository of another engine.
    #[error("{repository} is a {found} repository, and the target is for {wanted}")]
    OtherEngine {
        /// The repository, as the engine is told it.
        repository: String,
        /// The target's engine.
        wanted: &'static str,
        /// Whose repository it is.
        found: &'static str,
    },
    /// The engine remembers the repository at another place.
    #[error("the repository {repository} was at another place before: {}", words(detail))]
    Moved {
        /// The repository, as the engine is told it.
        repository: String,
        /// What the engine said.
        detail: String,
    },
    /// There is a repository without what an engine's `init` writes last.
    #[error(
        "the repository {repository} has no list of copies: either its `init` did not end, or the list was lost: {}",
        words(detail)
    )]
    Unfinished {
        /// The repository, as the engine is told it.
        repository: String,
        /// What the engine said.
        detail: String,
    },
    /// Somebody else holds the repository's lock.
    #[error("the repository {repository} is locked: {}", words(detail))]
    Locked {
        /// The repository, as the engine is told it.
        repository: String,
        /// What the engine said.
        detail: String,
    },
    /// Somebody reads a copy, or works on it, so that it cannot be deleted or judged now.
    #[error("what is in {repository} is in use: {}", words(detail))]
    InUse {
        /// The repository, as the engine is told it.
        repository: String,
        /// What is in use, and what the engine said.
        detail: String,
    },
    /// No space is left in the repository, or its quota is used up.
    #[error("no space is left for the repository {repository}: {}", words(detail))]
    Full {
        /// The repository, as the engine is told it.
        repository: String,
        /// What the engine said.
        detail: String,
    },
    /// The repository cannot be reached.
    #[error("cannot reach the repository {repository}: {}", words(detail))]
    Unreachable {
        /// The repository, as the engine is told it.
        repository: String,
        /// What the engine said.
        detail: String,
    },
    /// The repository is damaged.
    #[error("the repository {repository} is damaged: {}", words(detail))]
    Damaged {
        /// The repository, as the engine is told it.
        repository: String,
        /// What the engine said.
        detail: String,
    },
    /// What the engine keeps on this machine for speed is damaged. It says nothing about the repository.
    #[error(
        "the cache that {engine} keeps on this machine is damaged, not the repository: {}",
        words(detail)
    )]
    CacheDamaged {
        /// The engine's name.
        engine: &'static str,
        /// What the engine said; it names the file.
        detail: String,
    },
    /// Stored data was found damaged while copies went from one repository to another.
    #[error("copying from target {from} to target {to} met damage in {}: {}", whose(*.source_only, .from, .to), words(detail))]
    DamagedBetween {
        /// The target that was read.
        from: TargetName,
        /// The target that was written to.
        to: TargetName,
        /// Whether it is known to be in the one that was read. The engine does not name the repository.
        source_only: bool,
        /// What the engine said.
        detail: String,
    },
    /// The engine asked a question that only a person may answer (moved or unknown unencrypted repository).
    #[error("{engine} refuses to use the repository {repository}: {}", words(detail))]
    Refused {
        /// The engine's name.
        engine: &'static str,
        /// The repository, as the engine is told it.
        repository: String,
        /// What the engine said.
        detail: String,
    },
    /// The machine that has the repository does not let this one do it.
    #[error("{repository} does not let this machine do it: {}", words(detail))]
    Denied {
        /// The repository, as the engine is told it.
        repository: String,
        /// What is not let.
        detail: String,
    },
    /// The place that a restore writes to has no space left.
    #[error("no space is left at {} for what is restored: {}", to.shown(), words(detail))]
    DestinationFull {
        /// The directory that is restored to.
        to: std::path::PathBuf,
        /// What the engine said.
        detail: String,
    },
    /// The place that a copy is received into has no space left, or none but what is to stay free there.
    #[error("there is no room at {} for what is received: {detail}", at.shown())]
    PlaceFull {
        /// The directory that it is received into.
        at: std::path::PathBuf,
        /// What is free there, or what the receiver said.
        detail: String,
    },
    /// There was nothing to read: every source is missing.
    #[error("nothing could be read: {}", words(detail))]
    NoSource {
        /// What the engine said.
        detail: String,
    },
    /// What another machine sends of a snapshot did not come to its end; no copy was made.
    #[error("{login} does not send the snapshot: {}", words(detail))]
    Sender {
        /// Who logs in there.
        login: String,
        /// What went wrong.
        detail: String,
        /// What to do about it.
        hint: String,
    },
    /// The command whose output was to be stored failed; no copy was made.
    #[error("{command} failed ({exit}), so no copy was made of its output")]
    Producer {
        /// The command that was to be stored, secrets masked.
        command: String,
        /// How it ended.
        exit: String,
        /// The last lines of its standard error.
        stderr_tail: String,
    },
    /// The command whose output was to be stored ended well and printed nothing; no copy was made.
    #[error("{command} printed nothing, so no copy was made of its output")]
    EmptyStream {
        /// The command that was to be stored, secrets masked.
        command: String,
    },
    /// The engine, in this version, cannot do it.
    #[error("{engine} cannot do this: {what}")]
    Unsupported {
        /// The engine and version.
        engine: String,
        /// What was asked for.
        what: String,
    },
    /// A message of the engine that cannot be read. Nothing is guessed from it.
    #[error("cannot understand what {engine} printed: {what}")]
    Output {
        /// The engine's name.
        engine: &'static str,
        /// What was expected and found.
        what: String,
    },
    /// The engine failed for a reason that has no variant of its own.
    #[error("{command} failed ({exit}): {}", words(detail))]
    Failed {
        /// The command, secrets masked.
        command: String,
        /// How it ended.
        exit: String,
        /// The engine's own words, last lines.
        detail: String,
    },
    /// The process could not be run to its end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A look at the machine failed.
    #[error(transparent)]
    Act(#[from] ActError),
}

fn whose(source_only: bool, from: &TargetName, to: &TargetName) -> String {
    match source_only {
        true => format!("the repository of {from}"),
        false => format!("the repository of {from} or that of {to}"),
    }
}

impl EngineError {
    /// That the engine of this target has nothing of the kind, in any version.
    pub(super) fn unsupported(target: &Target, what: &str) -> EngineError {
        EngineError::Unsupported { engine: target.engine.name().into(), what: what.into() }
    }

    /// The same of whoever receives into a place: what is full is that, and not the target.
    pub(super) fn of_place(self, at: &Path) -> EngineError {
        match self {
            EngineError::Full { detail, .. } => {
                EngineError::PlaceFull { detail, at: at.to_owned() }
            }
            error => error,
        }
    }

    /// The kind of trouble this is for the run.
    pub fn trouble(&self) -> Trouble {
        match self {
            EngineError::Run(RunError::Interrupted { signal, .. }) => Trouble::Signal(*signal),
            EngineError::Run(
                RunError::NotFound { .. } | RunError::Unsafe { .. } | RunError::Output { .. },
            )
            | EngineError::Unsupported { .. }
            | EngineError::Denied { .. } => Trouble::Environment,
            EngineError::Untrusted(_) | EngineError::OtherEngine { .. } => Trouble::Configuration,
            EngineError::ReadOnly { .. } => Trouble::Environment,
            EngineError::Locked { .. } => Trouble::Busy,
            EngineError::InUse { .. } => Trouble::Cleanup,
            EngineError::Damaged { .. } | EngineError::DamagedBetween { .. } => Trouble::Damage,
            EngineError::Run(_)
            | EngineError::Act(_)
            | EngineError::RepositoryMissing { .. }
            | EngineError::RepositoryExists { .. }
            | EngineError::WrongPassphrase { .. }
            | EngineError::KeyMissing { .. }
            | EngineError::Secret { .. }
            | EngineError::Full { .. }
            | EngineError::DestinationFull { .. }
            | EngineError::PlaceFull { .. }
            | EngineError::Unreachable { .. }
            | EngineError::Refused { .. }
            | EngineError::CacheDamaged { .. }
            | EngineError::Moved { .. }
            | EngineError::Unfinished { .. }
            | EngineError::NoSource { .. }
            | EngineError::Sender { .. }
            | EngineError::Producer { .. }
            | EngineError::EmptyStream { .. }
            | EngineError::Output { .. }
            | EngineError::Failed { .. } => Trouble::JobFailed,
        }
    }

    /// Whether it failed because there was no space.
    pub fn is_of_space(&self) -> bool {
        match self {
            EngineError::Act(error) => error.is_of_space(),
            error => matches!(
                error,
                EngineError::Full { .. }
                    | EngineError::DestinationFull { .. }
                    | EngineError::PlaceFull { .. }
            ),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            EngineError::RepositoryMissing { .. } => {
                "create it with `stillpoint init TARGET`; if it should exist, check that its disk is mounted and the path is right".into()
            }
            EngineError::RepositoryExists { .. } => {
                "use it as it is (`stillpoint init --existing TARGET` takes it so), or choose another path".into()
            }
            EngineError::WrongPassphrase { .. } => {
                "check where the target's passphrase comes from: its …-file, …-command or …-credential".into()
            }
            EngineError::KeyMissing { remedy, .. } => (*remedy).into(),
            EngineError::Secret { .. } => "check the passphrase settings of the target".into(),
            EngineError::Untrusted(error) => return error.hint(),
            EngineError::OtherEngine { found, .. } => {
                format!("write [targets.NAME.{found}], or name another repository")
            }
            EngineError::ReadOnly { .. } => {
                "copies there can still be listed and restored; the kernel's log says why (dmesg), and `mount -o remount,rw` makes it writable again".into()
            }
            EngineError::Moved { .. } => {
                "its copies can be listed and restored meanwhile; if it was moved on purpose, say so with `stillpoint init --moved TARGET`".into()
            }
            EngineError::Unfinished { repository, .. } => format!(
                "if it was just made and never held a copy, remove {} and run `stillpoint init TARGET` again; else delete nothing, and copy it before you repair it",
                crate::host::spec::quote(repository)
            ),
            EngineError::Locked { .. } => {
                "wait for the other program to end; if none runs, the lock's owner died elsewhere: look at it before breaking it by hand".into()
            }
            EngineError::Full { .. } => {
                "free space there, lower what the policy keeps, then `stillpoint prune` and `stillpoint compact` (of an append-only target, whoever keeps that machine does); if there is space, look where the engine keeps its own files: below state-dir and cache-dir".into()
            }
            EngineError::DestinationFull { .. } => {
                "free space there, name fewer paths, or restore to another disk with --to; what was there is as it was".into()
            }
            EngineError::PlaceFull { .. } => {
                "free space there, or name another place: with --to, or, where copies are unpacked to be read, with scratch in the target; what was there is as it was".into()
            }
            EngineError::Unreachable { .. } => "check network, host name, ssh key and host key".into(),
            EngineError::Damaged { .. } | EngineError::DamagedBetween { .. } => {
                "do not delete anything; copy the repository if you can, then see `stillpoint check` and the engine's own repair command".into()
            }
            EngineError::CacheDamaged { .. } => {
                "remove the directory of that file below cache-dir: the engine makes its cache anew; then look whether that disk is sound".into()
            }
            EngineError::Refused { .. } => "look at the repository before you use it: it is not what it was".into(),
            EngineError::Denied { .. } => {
                "what a key may do, and for whose copies it is, stands in authorized_keys there, behind --allow and --host; a target whose copies this machine may not delete is append-only = true here".into()
            }
            EngineError::NoSource { .. } => "check the job's paths; nothing was deleted".into(),
            EngineError::Sender { hint, .. } => hint.clone(),
            EngineError::Producer { .. } => "run the command by hand as root to see why it fails".into(),
            EngineError::EmptyStream { .. } => {
                "an empty dump is never taken for a good copy: run the command by hand as root to see what it prints".into()
            }
            EngineError::Run(error) => return error.hint().map(str::to_owned),
            EngineError::Act(error) => return error.hint().map(str::to_owned),
            EngineError::Unsupported { .. }
            | EngineError::InUse { .. }
            | EngineError::Output { .. }
            | EngineError::Failed { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_did_not_say_leaves_no_hole() {
        let error = EngineError::Locked { repository: "/r".into(), detail: "\n".into() };
        assert_eq!(error.to_string(), "the repository /r is locked: it said nothing");
    }
}
