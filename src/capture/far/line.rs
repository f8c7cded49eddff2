//! How programs of another machine are asked, and had to change something.

use std::path::Path;
use std::time::Duration;

use crate::capture::{CaptureError, Context, mismatch};
use crate::host::{CommandSpec, Completed, Fact, Tool};
use crate::model::shown::Show;
use crate::model::target::Server;
use crate::tools::btrfs::shown;
use crate::tools::coreutils;
use crate::tools::far::{self, Answers, Why};

/// How long it may take to look at something there: whoever waits for that may be about to restore what that machine had.
const LOOK_LIMIT: Duration = Duration::from_secs(120);

/// How long a program there that changes something may stand still: it may have to wait for a disk that is busy.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// How often a deletion is tried while what is to be deleted is being sent, and what lies between.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// The line to another machine.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub cx: Context<'a>,
    pub server: &'a Server,
}

/// What came of removing a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    /// It is not there any more.
    Gone,
    /// Something is in it.
    NotEmpty,
}

/// What was asked, and the answers.
pub(super) struct Asked<'a> {
    line: Line<'a>,
    specs: Vec<CommandSpec>,
    answers: Answers,
}

impl<'a> Line<'a> {
    /// btrfs-progs there.
    pub fn btrfs(&self) -> Tool {
        Tool::from_word(&self.server.program)
    }

    /// What a program there prints that looks; `None` where all that it says is that something is not there.
    pub fn ask(&self, spec: CommandSpec) -> Result<Option<Vec<u8>>, CaptureError> {
        let (printed, is_missing) = self.ask_of_what_may_be_missing(spec)?;
        Ok((!is_missing).then_some(printed))
    }

    /// The same, with what it printed of the rest, and whether it said so.
    pub fn ask_of_what_may_be_missing(
        &self,
        spec: CommandSpec,
    ) -> Result<(Vec<u8>, bool), CaptureError> {
        let program = spec.tool.name();
        let spec = within_limit(far::there(self.server, spec, LOOK_LIMIT));
        let completed = self.run(&spec)?;
        let is_missing = far::is_missing(&completed, &program);
        match completed.success() || is_missing {
            true => Ok((completed.stdout, is_missing)),
            false => Err(self.why(&spec, &completed)),
        }
    }

    /// The same of several, by one connection.
    pub fn ask_all(self, specs: Vec<CommandSpec>) -> Result<Asked<'a>, CaptureError> {
        let random = || u32::from_be_bytes(self.cx.host.random());
        let mark: String = (0..4).map(|_| format!("{:08x}", random())).collect();
        let spec = within_limit(far::all(self.server, &specs, &mark, LOOK_LIMIT));
        let completed = self.run(&spec)?;
        match far::answers(&completed, &mark, specs.len()) {
            Some(answers) => Ok(Asked { line: self, specs, answers }),
            None if completed.success() => Err(self.unread("xargs", &completed.stdout)),
            None => Err(self.why(&spec, &completed)),
        }
    }

    /// Deletes a subvolume there for good. Answers whether it did: a dry run only notes it. What a run sent that was killed
    /// just now is being sent for a moment still.
    pub fn delete(&self, path: &Path) -> Result<bool, CaptureError> {
        let delete = || shown::delete(&self.btrfs(), path.to_owned(), LIMIT);
        for _ in 1..TRIES {
            let spec = far::there(self.server, delete(), LIMIT);
            let completed = self.run(&spec)?;
            match completed.success() {
                true => return Ok(!completed.is_predicted),
                false if matches!(far::why(self.server, &completed), Why::BeingSent(_)) => {
                    self.cx.host.pause(BETWEEN_TRIES);
                }
                false => return Err(self.why(&spec, &completed)),
            }
        }
        self.change(delete(), Vec::new())
    }

    /// Removes a directory there, if nothing is in it.
    pub fn remove_directory(&self, path: &Path) -> Result<Removed, CaptureError> {
        let spec = coreutils::remove_directory(path);
        let program = spec.tool.name();
        let spec = far::there(self.server, spec, LIMIT);
        let completed = self.run(&spec)?;
        if completed.success() || far::is_missing(&completed, &program) {
            return Ok(Removed::Gone);
        }
        match far::is_not_empty(&completed, &program) {
            true => Ok(Removed::NotEmpty),
            false => Err(self.why(&spec, &completed)),
        }
    }

    /// Has a program there change something. Answers whether it did: a dry run only notes it.
    pub fn change(&self, spec: CommandSpec, facts: Vec<Fact>) -> Result<bool, CaptureError> {
        let mut spec = far::there(self.server, spec, LIMIT);
        spec.prediction.facts = facts;
        let completed = self.run(&spec)?;
        match completed.success() {
            true => Ok(!completed.is_predicted),
            false => Err(self.why(&spec, &completed)),
        }
    }

    /// Runs a program there, unless that machine has given no answer before.
    fn run(&self, spec: &CommandSpec) -> Result<Completed, CaptureError> {
        let Some(silent) = self.cx.silent else { return self.run_anyway(spec) };
        if silent.has(self.server) {
            let login = &self.server.login;
            return Err(CaptureError::Unreached {
                what: format!("{login} did not answer before, so it was not asked again"),
                hint: format!("see whether it runs, and whether `ssh {login} true` ends"),
                waited: Duration::ZERO,
            });
        }
        let ran = self.run_anyway(spec);
        if ran.as_ref().is_err_and(CaptureError::is_unanswered) {
            silent.note(self.server);
        }
        ran
    }

    fn run_anyway(&self, spec: &CommandSpec) -> Result<Completed, CaptureError> {
        let completed = self.cx.host.run(spec, &mut |_, _| {})?;
        let is_reached =
            completed.success() || !matches!(far::why(self.server, &completed), Why::NotReached(_));
        if is_reached { Ok(completed) } else { Err(self.why(spec, &completed)) }
    }

    fn why(&self, spec: &CommandSpec, completed: &Completed) -> CaptureError {
        let login = &self.server.login;
        match far::why(self.server, completed) {
            Why::NotReached(said) => CaptureError::Unreached {
                what: format!("{login} is not reached by ssh: {said}"),
                hint: format!("`ssh {login} true` must work for root without any question"),
                waited: completed.elapsed,
            },
            Why::Unfit { what, hint } => {
                CaptureError::Unfit { what: format!("{login}: {what}"), hint }
            }
            Why::BeingSent(said) => CaptureError::Broken {
                what: format!("somebody reads what is to be deleted on {login}: {said}"),
                hint: "it can be deleted when that has ended".into(),
            },
            Why::Failed(stderr_tail) => CaptureError::Failed {
                command: spec.display(),
                exit: completed.exit.to_string(),
                stderr_tail,
            },
        }
    }

    /// That what a program there printed cannot be read.
    pub fn unread(&self, program: &str, printed: &[u8]) -> CaptureError {
        // Names of all that there is could be in it.
        let printed = String::from_utf8_lossy(&printed[..printed.len().min(200)]);
        mismatch(format!(
            "{program} on {} printed {printed:?} — whatever else a login there prints (a greeting in .bashrc) must go to no command",
            self.server.login
        ))
    }

    /// Where something is, for people.
    pub fn place(&self, path: &Path) -> String {
        format!("{}:{}", self.server.login, path.shown())
    }
}

/// An intruder there could keep us waiting by little and little.
fn within_limit(spec: CommandSpec) -> CommandSpec {
    CommandSpec { time_limit: Some(LOOK_LIMIT), ..spec }
}

impl Asked<'_> {
    /// What the n-th printed, if it printed that whole; `None` where all that it says is that something is not there.
    /// `is_whole` sees whether that is all, where others failed.
    pub fn of(
        &self,
        n: usize,
        is_whole: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, CaptureError> {
        match self.printed(n, is_whole) {
            Some(printed) => Ok(Some(printed)),
            // Alone, it says by itself what is the matter.
            None => self.line.ask(self.specs[n].clone()),
        }
    }

    /// What the n-th printed, if it printed that whole.
    pub fn printed(&self, n: usize, is_whole: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let printed = self.answers.printed.get(n);
        printed.filter(|it| self.answers.is_whole || is_whole(it)).cloned()
    }
}
