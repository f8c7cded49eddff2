//! An open repository, and what restic says of it in the engines' common terms.

use std::path::Path;

use crate::engine::{Context, EngineError, OnProgress, secret};
use crate::host::{CommandSpec, Completed, Exit, Stream};
use crate::model::event::Progress;
use crate::model::secret::Secret;
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::tools::restic::failure::{self, Kind};
use crate::tools::restic::message::{self, Status};
use crate::tools::restic::{Access, Repository, Version, environment};

/// How many lines of one sort a report keeps.
pub(super) const KEPT: usize = 100;

/// How many ids one command line gets; 64 digits each keep it far below the kernel's limit.
pub(super) const IDS_AT_ONCE: usize = 500;

/// What opens a repository.
pub(super) fn credentials(
    cx: Context<'_>,
    version: Version,
    target: &Target,
) -> Result<Repository, EngineError> {
    let Some(restic) = target.engine.restic() else {
        return Err(unsupported(version, format!("{} is no restic target", target.name)));
    };
    let password = match &target.secret {
        Some(source) => Some(secret::resolve(cx.host, source)?),
        None if version.works_without_password() => None,
        None => {
            let what = "a repository without a password needs restic 0.17".into();
            return Err(unsupported(version, what));
        }
    };
    let environment: Vec<(String, Secret)> = match &restic.environment_file {
        Some(path) => environment::parse(secret::read_private(cx.host, path)?.reveal())
            .map_err(|error| EngineError::Secret { what: format!("{}: {error}", path.shown()) })?,
        None => Vec::new(),
    };
    Ok(Repository { location: target.repository.clone(), password, environment })
}

pub(super) fn broken(what: String) -> EngineError {
    EngineError::Output { engine: "restic", what }
}

pub(super) fn unsupported(version: Version, what: String) -> EngineError {
    EngineError::Unsupported { engine: format!("restic {version}"), what }
}

/// Ids come from listings and are whole. Anything else (`latest`, a prefix, an option) would let restic
/// choose.
pub(super) fn exact(id: &str) -> Result<&str, EngineError> {
    if message::is_id(id) {
        Ok(id)
    } else {
        Err(broken(format!("expected a whole snapshot id, found {id:?}")))
    }
}

pub(super) fn as_progress(status: Status) -> Progress {
    Progress {
        bytes_done: status.bytes_done,
        bytes_total: status.bytes_total,
        files_done: status.files_done,
        current: status.current,
    }
}

/// One open repository during one call.
pub(super) struct Session<'a> {
    pub(super) cx: Context<'a>,
    pub(super) access: Access,
    /// The other repository of a `copy`, whose secrets must not be shown either.
    pub(super) source: Option<Repository>,
    /// Where the repository is, if it is on this machine.
    pub(super) local: Option<&'a Path>,
}

impl Session<'_> {
    /// The repository, for messages.
    pub(super) fn shown(&self) -> String {
        self.access.repository.shown()
    }

    /// A text of restic without anybody's secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        let text = self.access.repository.redact(text);
        match &self.source {
            Some(source) => source.redact(&text),
            None => text,
        }
    }

    /// Runs a command, and takes anything but exit status 0 as a failure.
    pub(super) fn run(&self, spec: &CommandSpec) -> Result<Completed, EngineError> {
        let completed = self.cx.host.run(spec, &mut |_, _| {})?;
        if completed.success() { Ok(completed) } else { Err(self.failure(spec, &completed)) }
    }

    /// Runs a command whose standard output is text for people, which becomes progress.
    pub(super) fn run_text(
        &self,
        spec: &CommandSpec,
        progress: OnProgress<'_>,
    ) -> Result<Completed, EngineError> {
        let completed = self.told(spec, progress)?;
        if completed.success() { Ok(completed) } else { Err(self.failure(spec, &completed)) }
    }

    /// Runs a command whose standard output is text for people, however it ends.
    pub(super) fn told(
        &self,
        spec: &CommandSpec,
        progress: OnProgress<'_>,
    ) -> Result<Completed, EngineError> {
        let completed = self.cx.host.run(spec, &mut |stream, line| {
            if stream == Stream::Out
                && let message::Line::Text(text) = message::line(line)
            {
                progress(Progress { current: Some(text), ..Progress::default() });
            }
        })?;
        Ok(completed)
    }

    /// Why a command failed, in the engines' common terms.
    pub(super) fn failure(&self, spec: &CommandSpec, completed: &Completed) -> EngineError {
        let failure = failure::diagnose(completed.exit, &completed.stderr_tail);
        let repository = self.shown();
        let detail = self.redact(&failure.detail);
        if self.is_of_borg() {
            return EngineError::OtherEngine { repository, wanted: "restic", found: "borg" };
        }
        match failure.kind {
            Kind::Locked | Kind::Other if self.access.unlocked => {
                EngineError::ReadOnly { repository }
            }
            Kind::NoRepository => EngineError::RepositoryMissing { repository },
            Kind::Exists => EngineError::RepositoryExists { repository },
            Kind::WrongPassword => EngineError::WrongPassphrase { repository },
            Kind::Locked => EngineError::Locked { repository, detail },
            Kind::Full => EngineError::Full { repository, detail },
            Kind::Unreachable => EngineError::Unreachable { repository, detail },
            Kind::Damaged => EngineError::Damaged { repository, detail },
            Kind::NoSource => EngineError::NoSource { detail },
            Kind::Crashed | Kind::Other => EngineError::Failed {
                command: spec.display(),
                exit: completed.exit.to_string(),
                detail,
            },
        }
    }

    /// Whether a borg repository is there: restic takes its file `config` for one that the password does not open.
    fn is_of_borg(&self) -> bool {
        let there = |part| {
            let look = |local: &Path| self.cx.host.path_state(&local.join(part)).ok().flatten();
            self.local.and_then(look).is_some()
        };
        there("README") && there("config") && there("data") && !there("keys")
    }

    /// A failure that restic did not notice.
    pub(super) fn failed(&self, spec: &CommandSpec, detail: String) -> EngineError {
        EngineError::Failed { command: spec.display(), exit: Exit::Code(0).to_string(), detail }
    }
}
