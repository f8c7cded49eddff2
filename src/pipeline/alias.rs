//! Tells a target that is another one's repository under a second name: reached through another mount, address or command.
//!
//! What is stored twice would be stored once, and each policy would delete what the other one keeps. No text of the
//! configuration tells it: the ids of the repositories do. The target that the configuration names first goes on.

use std::collections::BTreeMap;
use std::mem::discriminant;

use crate::model::names::TargetName;
use crate::model::outcome::Trouble;
use crate::model::target::Target;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::absent::{self, Presence};

/// The ids of repositories, each asked for once, when it is needed.
pub struct Ids<'a> {
    pipeline: Pipeline<'a>,
    asked: BTreeMap<TargetName, Option<String>>,
}

impl<'a> Ids<'a> {
    /// None is known so far.
    pub fn of(pipeline: Pipeline<'a>) -> Self {
        Self { pipeline, asked: BTreeMap::new() }
    }

    /// What a repository says; `None` also when it does not answer, which whoever uses it tells.
    fn asked(&mut self, target: &Target) -> Option<String> {
        let pipeline = self.pipeline;
        let ask = || {
            let engine = pipeline.engine(target);
            let probe = engine.probe(pipeline.engine_context()).ok();
            // One that will not do for a run may have said all the same which it is.
            probe.and_then(|probe| probe.repository_id).or_else(|| engine.listed_repository())
        };
        self.asked.entry(target.name.clone()).or_insert_with(ask).clone()
    }

    /// What history has; what the repository says where that was learnt just now.
    fn remembered(&self, target: &Target) -> Result<Option<String>, StepError> {
        let asked = self.asked.get(&target.name).cloned().flatten();
        match (asked, self.pipeline.history) {
            (None, Some(history)) => Ok(history.repository(&target.name)?),
            (asked, _) => Ok(asked),
        }
    }

    /// Refuses a target whose repository is that of one which the configuration names before it. Those of `beside` are used at
    /// the same time, so they are asked where nothing is remembered of them.
    ///
    /// # Errors
    /// When it is, or history cannot be read.
    pub fn refuse_second(&mut self, target: &Target, beside: &[&Target]) -> Result<(), StepError> {
        let config = self.pipeline.config;
        let before = config.targets.iter().take_while(|other| other.name != target.name);
        let is_of_its_kind = |other: &&Target| {
            discriminant(&other.engine) == discriminant(&target.engine)
                && !other.takes_turns_with(target)
        };
        for other in before.filter(is_of_its_kind) {
            let known = match self.remembered(target)? {
                Some(id) => Some(id),
                None => self.asked(target),
            };
            let Some(known) = known else { return Ok(()) };
            let its = match self.remembered(other)? {
                None if beside.iter().any(|it| it.name == other.name) => self.asked(other),
                its => its,
            };
            // What is remembered may be of then. One whose disk is there and that does not answer is what it was.
            let is_as_it_was = |ids: &mut Self| match ids.asked(other) {
                Some(id) => id == known,
                None => matches!(absent::look(ids.pipeline, other), Ok(Presence::Here)),
            };
            if its.is_some_and(|its| its == known)
                && self.asked(target).is_some_and(|id| id == known)
                && is_as_it_was(self)
            {
                let text = format!(
                    "targets {} and {} are the same repository under two names, or a copy of it: both have the id {known}, so what goes to both may be stored once — make a repository of its own for {}, or take it out of the configuration",
                    other.name, target.name, target.name
                );
                return Err(StepError::new(Trouble::Configuration, text));
            }
        }
        Ok(())
    }
}
