//! How programs of another machine are asked and had to change something, and why one of them failed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use crate::engine::sent::failure;
use crate::engine::{Context, EngineError};
use crate::host::{CommandSpec, Completed, Effect, Fact, Input};
use crate::model::target::{Server, Target};
use crate::tools::btrfs::command::FREED_WITHIN;
use crate::tools::coreutils;
use crate::tools::far::{self, Why};
use crate::tools::ssh;

/// What helps where a subvolume cannot be deleted now.
const AGAIN: &str = "if somebody reads it, the next run deletes it; if that is told again and again, look whether it is the default subvolume there, or a swap file in it is in use";

/// The line to another machine.
pub(super) struct Line<'a> {
    pub cx: Context<'a>,
    pub target: &'a Target,
    pub server: &'a Server,
    /// What was asked ahead, by the words: each answer is used once, and none after a change.
    ahead: RefCell<BTreeMap<Vec<OsString>, Vec<u8>>>,
}

impl<'a> Line<'a> {
    /// That to the machine of a target.
    pub fn to(cx: Context<'a>, target: &'a Target, server: &'a Server) -> Self {
        Self { cx, target, server, ahead: RefCell::default() }
    }

    fn run(&self, spec: &CommandSpec) -> Result<Completed, EngineError> {
        Ok(self.cx.host.run(spec, &mut |_, _| {})?)
    }

    /// What a program there prints that looks.
    pub fn ask(&self, spec: CommandSpec) -> Result<Vec<u8>, EngineError> {
        self.ask_unless(spec, |_| false)
    }

    /// The same of one that fails by saying that something is not there, which is no failure here.
    pub fn ask_what_may_be_missing(&self, spec: CommandSpec) -> Result<Vec<u8>, EngineError> {
        let program = spec.tool.name();
        self.ask_unless(spec, |completed| far::is_missing(completed, &program))
    }

    /// What a program prints that reads a file; or what it says of that, if nothing else keeps it from reading.
    pub fn ask_of_a_file(&self, spec: CommandSpec) -> Result<Result<Vec<u8>, String>, EngineError> {
        let program = spec.tool.name();
        let ahead = self.ahead.borrow_mut().remove(&ssh::words(&[], &spec));
        if let Some(answer) = ahead {
            return Ok(Ok(answer));
        }
        let spec = self.there(spec);
        let completed = self.run(&spec)?;
        let is_of_file = far::is_of_the_file(&completed, &program);
        match completed.success() {
            true => Ok(Ok(completed.stdout)),
            false if is_of_file => Ok(Err(completed.last_lines(5))),
            false => Err(self.why(&spec, &completed)),
        }
    }

    fn ask_unless(
        &self,
        spec: CommandSpec,
        is_answer: impl Fn(&Completed) -> bool,
    ) -> Result<Vec<u8>, EngineError> {
        let ahead = self.ahead.borrow_mut().remove(&ssh::words(&[], &spec));
        if let Some(answer) = ahead {
            return Ok(answer);
        }
        let spec = self.there(spec);
        let completed = self.run(&spec)?;
        match completed.success() || is_answer(&completed) {
            true => Ok(completed.stdout),
            false => Err(self.why(&spec, &completed)),
        }
    }

    /// Asks what will be asked next, all at once. Where something is not there, whoever asks for it is told so.
    pub fn ask_ahead(&self, specs: &[CommandSpec]) -> Result<(), EngineError> {
        let Asked { answers, is_whole } = self.ask_all(specs)?;
        // What failed halfway may have printed half of what there is.
        let answers = answers.into_iter().flatten().filter(|_| is_whole);
        let words = specs.iter().map(|spec| ssh::words(&[], spec));
        self.ahead.borrow_mut().extend(words.zip(answers));
        Ok(())
    }

    /// The same of many programs, one after the other, by one connection; `None` for what printed nothing where something
    /// failed. Whoever reads what was printed must see by itself whether that is all.
    pub fn ask_all(&self, specs: &[CommandSpec]) -> Result<Asked, EngineError> {
        if specs.is_empty() {
            return Ok(Asked { answers: Vec::new(), is_whole: true });
        }
        let random = || u32::from_be_bytes(self.cx.host.random());
        let mark: String = (0..4).map(|_| format!("{:08x}", random())).collect();
        let limit = specs.iter().filter_map(|spec| spec.stall_limit).min();
        let limit = limit.unwrap_or(self.target.stall_timeout);
        let spec = far::all(self.server, specs, &mark, limit);
        let completed = self.run(&spec)?;
        let some_failed = completed.code() == Some(coreutils::ONE_FAILED);
        if !completed.success() && (!some_failed || far::blames_sudo(&completed).is_some()) {
            return Err(self.why(&spec, &completed));
        }
        let parts = coreutils::parts(&completed.stdout, &mark, specs.len())
            .ok_or_else(|| unread("xargs", &completed.stdout))?;
        let part = |part: &[u8]| (!some_failed || !part.is_empty()).then(|| part.to_owned());
        Ok(Asked { answers: parts.into_iter().map(part).collect(), is_whole: !some_failed })
    }

    /// Has a program there change something. Answers whether it did: a dry run only notes it.
    pub fn change(&self, spec: CommandSpec, facts: Vec<Fact>) -> Result<bool, EngineError> {
        self.ahead.borrow_mut().clear();
        let mut spec = self.there(spec);
        spec.prediction.facts = facts;
        let completed = self.run(&spec)?;
        match completed.success() {
            true => Ok(!completed.is_predicted),
            false => Err(self.why(&spec, &completed)),
        }
    }

    /// How long nothing may be heard of what writes to the disk there: ssh is still meanwhile, and nobody sees that it is not.
    pub fn silence(&self) -> Duration {
        FREED_WITHIN.max(self.target.stall_timeout)
    }

    /// A process as it is run there.
    pub fn there(&self, mut spec: CommandSpec) -> CommandSpec {
        // What may take so long may be silent as long.
        if let (None, Some(limit)) = (spec.stall_limit, spec.time_limit) {
            spec.stall_limit = Some(limit.max(self.target.stall_timeout));
        }
        far::there(self.server, spec, self.target.stall_timeout)
    }

    /// Processes that only look as one that is run there, which runs one after the other.
    pub fn one_after_the_other(&self, specs: &[CommandSpec]) -> CommandSpec {
        let words = |spec| far::words(self.server, spec);
        let limit = specs.iter().filter_map(|spec| spec.stall_limit).max();
        let mut spec = self.all_there(coreutils::all(&specs.iter().map(words).collect::<Vec<_>>()));
        spec.stall_limit = limit.or(spec.stall_limit);
        spec
    }

    fn all_there(&self, (words, input): (Vec<OsString>, Input)) -> CommandSpec {
        let mut spec = CommandSpec::new(ssh::program(self.server), Effect::Inspect);
        spec.input = input;
        ssh::there(self.server, words, spec, self.target.stall_timeout)
    }

    /// That something was done and is not so.
    pub fn not_so(&self, what: String) -> EngineError {
        EngineError::Failed {
            command: format!("ssh {}", self.server.login),
            exit: "it ended well".into(),
            detail: what,
        }
    }

    /// Why a process failed, be it one there or here.
    pub fn why(&self, spec: &CommandSpec, completed: &Completed) -> EngineError {
        if spec.tool != ssh::program(self.server) {
            return failure(self.target, spec, completed);
        }
        let repository = self.target.repository.clone();
        let unfit = |what| EngineError::Unsupported { engine: repository.clone(), what };
        match far::why(self.server, completed) {
            Why::NotReached(detail) => EngineError::Unreachable { repository, detail },
            Why::Unfit { what, hint } => unfit(format!("{what} — {hint}")),
            Why::BeingSent(said) => {
                let detail = format!("{said} — {AGAIN}");
                EngineError::InUse { repository, detail }
            }
            Why::Failed(_) => failure(self.target, spec, completed),
        }
    }
}

/// What many programs have printed.
pub(super) struct Asked {
    /// What each did; see [`Line::ask_all`].
    pub answers: Vec<Option<Vec<u8>>>,
    /// Whether all of them ended well.
    pub is_whole: bool,
}

/// That what a program there printed cannot be read.
pub(super) fn unread(program: &'static str, line: &[u8]) -> EngineError {
    // Names of all that there is could be in it.
    let line = String::from_utf8_lossy(&line[..line.len().min(200)]);
    let what = format!(
        "{line:?} — whatever else a login there prints (a greeting in .bashrc) must go to no command"
    );
    EngineError::Output { engine: program, what }
}
