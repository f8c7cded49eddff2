//! What is told of the copy that was chosen, and of those that were not.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::engine::Engine;
use crate::model::copy::{CLOCK_SLACK, Copy};
use crate::model::event::Event;
use crate::step::context::Pipeline;

/// Tells a person something.
pub(super) fn say(pipeline: Pipeline<'_>, warning: bool, text: String) {
    pipeline.observer.on(&Event::Note { job: None, warning, text });
}

/// What a person must know who reads this copy.
pub(super) fn tell_doubts(pipeline: Pipeline<'_>, copy: &Copy) {
    if let Some(fault) = copy.fault() {
        say(pipeline, true, format!("{}: {fault}", copy.id));
    }
    if copy.unproven {
        let text = format!(
            "{} was received by another program, and nobody has compared it with what it is of so far: it may look whole and hold empty files",
            copy.id
        );
        say(pipeline, true, text);
    }
}

/// What is dated later than the copy that was taken for the latest must not be passed over in silence.
pub(super) fn tell_what_was_passed_over(
    pipeline: Pipeline<'_>,
    of_query: &[(&dyn Engine, &Copy)],
    best: &Copy,
    now: DateTime<Utc>,
) {
    let mut passed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (engine, copy) in of_query.iter().filter(|(_, copy)| copy.time > best.time) {
        let why = if copy.is_in_the_future(now, CLOCK_SLACK) {
            "dated in the future"
        } else if let Some(fault) = copy.fault().filter(|_| best.may_be_good()) {
            fault
        } else if best.ours && !copy.ours {
            "neither made nor adopted by this machine"
        } else {
            "made earlier, under a clock that was ahead"
        };
        let time = copy.time.format("%Y-%m-%d %H:%M:%SZ");
        let one = format!("{} of {time} in target {}", copy.id, engine.target().name);
        passed.entry(why).or_default().push(one);
    }
    for (why, copies) in passed {
        let (last, count) = (copies.last().map_or("", String::as_str), copies.len());
        let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        let text = format!("not used as the latest copy ({why}): {last}{more} — name it to use it");
        say(pipeline, true, text);
    }
}
