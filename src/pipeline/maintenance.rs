//! The work behind `check` and `compact`: what belongs to targets, on request.

use crate::model::names::TargetName;
use crate::model::outcome::{Outcome, Trouble};
use crate::model::report::StepReport;
use crate::model::target::{ReadData, Target};
use crate::step::context::RunContext;
use crate::step::recorder::{Done, Recorder};

use super::absent::{self, Presence};
use super::steps::maintain::{self, WhenBusy};

/// What is to be done with targets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// Check their repositories, and read so much back; each target's own setting counts where it is not said.
    Check(Option<ReadData>),
    /// Free the space that deletions left.
    Compact,
}

/// What was done.
#[derive(Debug)]
pub struct Maintained {
    /// The worst outcome.
    pub outcome: Outcome,
    /// The steps, in order.
    pub steps: Vec<StepReport>,
    /// What is damaged, by target, in the engines' words.
    pub damage: Vec<(TargetName, Vec<String>)>,
    /// Everything that went wrong.
    pub troubles: Vec<Trouble>,
}

/// Does it with each target; one that cannot be had does not stop the others, a signal does. One that is absent as it may
/// be is left out, unless a person has `named` it.
pub fn maintain(cx: RunContext<'_>, targets: &[&Target], work: Work, named: bool) -> Maintained {
    let mut rec = Recorder::new(cx.pipeline.observer, None);
    let mut damage = Vec::new();
    for target in targets {
        if let Some(signal) = cx.host().stop_signal() {
            rec.troubles.push(Trouble::Signal(signal));
            break;
        }
        let is_here = rec.step("prepare", Some(&target.name), None, |_| {
            match absent::look(cx.pipeline, target)? {
                Presence::Here => Ok((true, Done::ok("ready"))),
                Presence::Absent(why) if named => Err(absent::told(target, &why)),
                Presence::Absent(why) => Ok((false, Done::skipped(why))),
                Presence::Unknown(error) => Err(error),
            }
        });
        if is_here == Some(true) {
            let found = one(cx, &mut rec, target, work);
            damage.extend(found.map(|found| (target.name.clone(), found)));
        }
    }
    Maintained { outcome: rec.outcome(), steps: rec.steps, damage, troubles: rec.troubles }
}

/// Does it with one target. Answers with its damage, if there is some.
fn one(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    target: &Target,
    work: Work,
) -> Option<Vec<String>> {
    let engine = cx.pipeline.engine(target);
    match work {
        Work::Check(asked) => {
            let configured = target.check.as_ref().map_or(ReadData::None, |check| check.read_data);
            let extent = asked.unwrap_or(configured);
            let report = maintain::check(cx, rec, engine, extent, WhenBusy::Fail)?;
            (!report.damage.is_empty()).then_some(report.damage)
        }
        Work::Compact if target.append_only => {
            rec.say(true, format!("target {} is append-only: it is never compacted", target.name));
            None
        }
        Work::Compact => {
            maintain::compact(cx, rec, engine, WhenBusy::Fail);
            None
        }
    }
}
