//! What a person should know of the copies that a target lists although this run did well. The outcome stays as it
//! is: until somebody deals with them, no run would be all well, and what is new would be hidden among it.

use crate::engine::Engine;
use crate::model::copy::{CLOCK_SLACK, Copy, abridged};
use crate::model::job::Job;

use crate::pipeline::identity;
use crate::step::context::RunContext;
use crate::step::recorder::Recorder;

/// Tells of the job's copies that are dated in the future, and of those that claim to be this machine's.
pub fn tell(
    cx: RunContext<'_>,
    rec: &mut Recorder<'_>,
    job: &Job,
    engine: &dyn Engine,
    listing: &[Copy],
) {
    let target = &engine.target().name;
    let now = cx.host().now();
    let host = cx.config().host_of(&job.name);
    let of_job: Vec<&Copy> = listing
        .iter()
        .filter(|copy| {
            copy.series.as_ref().is_some_and(|of| of.job == job.name && of.host == *host)
        })
        .collect();
    let ids = |is_meant: &dyn Fn(&Copy) -> bool| -> Vec<String> {
        of_job.iter().filter(|copy| is_meant(copy)).map(|copy| copy.id.clone()).collect()
    };
    let ahead = ids(&|copy| copy.ours && copy.is_in_the_future(now, CLOCK_SLACK));
    if !ahead.is_empty() {
        let text = format!(
            "target {target} has {} dated in the future ({}), made under a clock that was ahead or is behind now: never the latest nor the last good one, and left alone until `stillpoint prune --target {target} COPY`",
            counted(ahead.len()),
            abridged(&ahead)
        );
        rec.say(true, text);
    }
    // What cannot be read was told when it was needed.
    let Some(machine) = identity::of(cx.pipeline).ok().flatten() else { return };
    let claimed = ids(&|copy| !copy.ours && copy.machine.as_ref() == Some(&machine));
    if !claimed.is_empty() {
        let text = format!(
            "target {target} has {} marked as this machine's that it did not make ({}): a clone uses the same state directory, or somebody forges them; they are left alone",
            counted(claimed.len()),
            abridged(&claimed)
        );
        rec.say(true, text);
    }
}

fn counted(copies: usize) -> String {
    if copies == 1 { "a copy".into() } else { format!("{copies} copies") }
}
