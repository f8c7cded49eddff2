//! Which process of a chain is to blame, and what it says of it.

use crate::host::{Chained, CommandSpec, Completed};

/// The process of a chain that failed by itself, the last one of them: those before it lost their reader, and those behind
/// it were stopped because of it.
pub(super) fn culprit<'c>(
    before: &'c [CommandSpec],
    last: &'c CommandSpec,
    chained: &'c Chained,
) -> Option<(&'c CommandSpec, &'c Completed)> {
    let ended = || before.iter().zip(&chained.before).chain([(last, &chained.last)]);
    let mut undisturbed = ended().filter(|(_, completed)| !completed.dismissed);
    let by_itself = undisturbed.clone().rfind(|(_, completed)| completed.exit.is_own_failure());
    // Somebody may have killed any of them, and the others were stopped because of that.
    let killed = || undisturbed.find(|(_, completed)| !completed.success());
    by_itself.or_else(killed).or_else(|| ended().find(|(_, completed)| !completed.success()))
}

/// The last lines in which a process says something to people: what verbs of ours tell each other is none of it.
pub(super) fn said(completed: &Completed, count: usize) -> String {
    let all = completed.last_lines(usize::MAX);
    let is_for_people = |line: &&str| {
        !(line.starts_with('{') && serde_json::from_str::<serde_json::Value>(line).is_ok())
    };
    let lines: Vec<&str> = all.lines().filter(is_for_people).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
