//! Processes that are held at one end of a pipe: each turn beside them is an effect, and so is their own end where they
//! read.

use stillpoint::host::{CommandSpec, Completed, Exit, Held, HeldEnd, RunError, Stream, Watch};
use stillpoint::tools::btrfs::stream::StreamError;

use super::fake_borg::Answer;
use super::fake_host::{FakeHost, assert_fits, completed};
use super::fake_store::{FakeStore, refused};
use super::world::{carry_out_chain, injected};

/// Processes that are held.
pub struct FakeHeld<'h> {
    host: &'h FakeHost,
    specs: Vec<CommandSpec>,
    end: HeldEnd,
    /// The last turn.
    turn: Vec<CommandSpec>,
    /// How those that are held end, as far as the last turn tells it.
    said: Vec<Answer>,
}

impl<'h> FakeHeld<'h> {
    pub fn new(host: &'h FakeHost, specs: &[CommandSpec], end: HeldEnd) -> Self {
        Self { host, specs: specs.to_vec(), end, turn: Vec::new(), said: Vec::new() }
    }

    /// What the whole chain would say to this turn; `None` when it is to fail.
    fn answers(&self, members: &[&CommandSpec]) -> Option<Vec<Answer>> {
        let what = match self.end {
            HeldEnd::Writes => self.turn.last().unwrap().display(),
            HeldEnd::Reads => self.turn.first().unwrap().display(),
        };
        self.host.effect(what, |world| match self.end {
            HeldEnd::Writes => carry_out_chain(world, members),
            HeldEnd::Reads => world.store.give(members),
        })
    }
}

fn stopped() -> Answer {
    Answer { exit: Exit::Signal(15), ..Answer::good("") }
}

impl Held for FakeHeld<'_> {
    fn turn(
        &mut self,
        specs: &[CommandSpec],
        watch: Watch<'_>,
    ) -> Result<Vec<Completed>, RunError> {
        self.host.alive();
        let last = specs.last().unwrap();
        self.host.refuse_when_stopped(last)?;
        specs.iter().for_each(assert_fits);
        self.turn = specs.to_vec();
        let members: Vec<&CommandSpec> = match self.end {
            HeldEnd::Writes => self.specs.iter().chain(specs).collect(),
            HeldEnd::Reads => specs.iter().collect(),
        };
        let answers = self.answers(&members);
        self.host.refuse_when_stopped(last)?;
        let Some(mut answers) = answers else {
            self.said = self.specs.iter().map(|_| stopped()).collect();
            if self.end == HeldEnd::Writes && FakeStore::takes(last) {
                let mut world = self.host.world();
                world.store.tear(&members);
                if world.store.unfit {
                    self.said[1] = refused(&StreamError::NotAStream);
                    return Ok(specs.iter().map(|_| completed(stopped())).collect());
                }
                if world.pool.is_unsendable {
                    self.said[0] = injected(&self.specs[0].tool);
                    return Ok(specs.iter().map(|_| completed(stopped())).collect());
                }
            }
            return Ok(specs.iter().map(|spec| completed(injected(&spec.tool))).collect());
        };
        if self.end == HeldEnd::Writes {
            let of_turn = answers.split_off(self.specs.len());
            self.said = std::mem::replace(&mut answers, of_turn);
            for line in self.said.iter().flat_map(|answer| &answer.stderr) {
                watch(Stream::ProducerErr, line.as_bytes());
            }
        }
        Ok(answers.into_iter().map(completed).collect())
    }

    fn finish(self: Box<Self>, watch: Watch<'_>) -> Result<Vec<Completed>, RunError> {
        self.host.alive();
        if self.end == HeldEnd::Writes {
            return Ok(self.said.into_iter().map(completed).collect());
        }
        let last = self.specs.last().unwrap();
        self.host.refuse_when_stopped(last)?;
        let members: Vec<&CommandSpec> = self.turn.iter().chain(&self.specs).collect();
        let answers = self.host.effect(last.display(), |world| carry_out_chain(world, &members));
        self.host.refuse_when_stopped(last)?;
        let answers = match answers {
            Some(mut answers) => {
                let told = answers.iter().take(members.len() - 1).flat_map(|it| &it.stderr);
                told.for_each(|line| watch(Stream::ProducerErr, line.as_bytes()));
                answers.split_off(self.turn.len())
            }
            None => self.specs.iter().map(|spec| injected(&spec.tool)).collect(),
        };
        if let Some(reason) = self.specs.iter().find_map(|spec| spec.view.halt.reason()) {
            return Err(RunError::Halted { command: last.display(), reason: reason.to_owned() });
        }
        let ended: Vec<Completed> = answers.into_iter().map(completed).collect();
        let printed = &ended.last().unwrap().stdout;
        for line in printed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            watch(Stream::Out, line);
        }
        Ok(ended)
    }

    fn stop(self: Box<Self>) -> Result<Vec<Completed>, RunError> {
        let stopped = || self.specs.iter().map(|_| stopped()).collect();
        let said = if self.said.is_empty() { stopped() } else { self.said };
        Ok(said.into_iter().map(completed).collect())
    }
}
