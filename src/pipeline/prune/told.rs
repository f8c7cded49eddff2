//! What is asked of `prune`, and what it answers.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::model::copy::{Copy, Series};
use crate::model::names::{JobName, TargetName};
use crate::model::outcome::Trouble;
use crate::model::target::Target;
use crate::step::error::StepError;

/// What a person asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Exactly these copies, by id, the beginning of one, or a run's id.
    pub copies: Vec<String>,
    /// Those that stand for a moment before this one.
    pub before: Option<DateTime<Utc>>,
    /// Those that stand for a moment between these two.
    pub between: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// A person has checked what a refusal names.
    pub accept: bool,
    /// Series of which a run has made no good copy where it should have: they lose nothing.
    pub without_copy: BTreeSet<Series>,
    /// A person named the target: it cannot be left out because it is absent.
    pub named: bool,
}

impl Request {
    /// Whether the person chose, and not the policy.
    pub(super) fn is_choice(&self) -> bool {
        !self.copies.is_empty() || self.before.is_some() || self.between.is_some()
    }

    pub(super) fn is_chosen_by_time(&self, copy: &Copy) -> bool {
        self.before.is_some_and(|before| copy.time < before)
            || self.between.is_some_and(|(from, until)| from <= copy.time && copy.time <= until)
    }
}

/// What happens to one copy. The names are a contract.
#[derive(Debug, Clone, Serialize)]
pub struct Ruling {
    /// Where it is.
    pub target: TargetName,
    /// Whose it is.
    pub job: JobName,
    /// The stream, guest or volume.
    pub item: Option<String>,
    /// The id of the copy.
    pub copy: String,
    /// The moment it stands for.
    pub time: DateTime<Utc>,
    /// Whether it goes.
    pub delete: bool,
    /// Whether it goes as well if there is too little space without that: only then, and the oldest first.
    pub if_needed: bool,
    /// The rule that keeps it, or why it is no longer needed.
    pub reason: String,
}

/// What was decided and done.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The verdict on every copy that was asked about.
    pub decisions: Vec<Ruling>,
    /// Exact ids that are gone.
    pub deleted: Vec<String>,
    /// What was done or is lacking where space must stay free, in sentences.
    pub space: Vec<String>,
    /// Why something was left alone that would have gone.
    pub refusals: Vec<String>,
    /// Targets that were left out, being absent as they may be, with the reason.
    pub absent: Vec<(TargetName, String)>,
    /// What could not be done, in sentences.
    pub failures: Vec<String>,
    /// Everything that went wrong, by kind.
    pub troubles: Vec<Trouble>,
    /// Which of the texts that a person typed named a copy somewhere.
    pub(super) answered: BTreeSet<String>,
}

impl Pruned {
    /// The reason of a ruling by which a copy goes that a rule keeps.
    pub const FOR_SPACE: &str = "space";

    /// What went wrong with one target; the others are served all the same.
    pub(super) fn failed(&mut self, target: &Target, error: &StepError) {
        self.failures.push(format!("target {}: {error}", target.name));
        self.troubles.push(error.trouble);
    }

    /// What is done with a copy that a person chose, for this reason, unless there is one to spare it.
    pub(super) fn rule(
        &mut self,
        target: &Target,
        (copy, series): (&Copy, &Series),
        reason: String,
        spared: Option<&str>,
    ) {
        if let Some(spared) = spared {
            self.refusals.push(format!("{} is {spared}, so it is not deleted", copy.id));
        }
        self.decisions.push(Ruling {
            target: target.name.clone(),
            job: series.job.clone(),
            item: series.item.clone(),
            copy: copy.id.clone(),
            time: copy.time,
            delete: spared.is_none(),
            if_needed: false,
            reason: spared.map_or(reason, str::to_owned),
        });
    }

    /// A copy stays because another one that stays is a difference to it.
    pub(super) fn spare(&mut self, target: &Target, id: &str, needed_by: &str) {
        let reason = format!("needed by {needed_by}");
        self.refusals.push(format!("{id} is {reason}, so it is not deleted"));
        let is_it = |it: &&mut Ruling| it.copy == id && it.target == target.name;
        for ruling in self.decisions.iter_mut().filter(is_it) {
            (ruling.delete, ruling.reason) = (false, reason.clone());
        }
    }
}
