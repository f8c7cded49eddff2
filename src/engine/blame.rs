//! Which process of a chain is to blame, and what it says of it.

use crate::host::{Chained, CommandSpec, Completed};

/// The process of a chain that failed by itself, the last one of them: those before it lost their reader, and those behind
/// it were stopped because of it.
pub(super) fn culprit<'c>(
    before: &'c [CommandSpec],
    last: &'c CommandSpec,
    chained: &'c Chained,
) -> Option<(&'c CommandSpec, &'c Completed)> {
    culprit_of(before.iter().zip(&chained.before).chain([(last, &chained.last)]))
}

/// The same of processes in the order in which each reads what the one before it writes.
pub(super) fn culprit_of<'c>(
    mut ended: impl DoubleEndedIterator<Item = (&'c CommandSpec, &'c Completed)> + Clone,
) -> Option<(&'c CommandSpec, &'c Completed)> {
    let mut undisturbed = ended.clone().filter(|(_, completed)| !completed.dismissed);
    let by_itself = undisturbed.clone().rfind(|(_, completed)| completed.exit.is_own_failure());
    // Somebody may have killed any of them, and the others were stopped because of that.
    let killed = || undisturbed.find(|(_, completed)| !completed.success());
    let left_early = || ended.clone().rfind(|(_, completed)| completed.left_early);
    let by_it = by_itself.or_else(killed).or_else(left_early);
    by_it.or_else(|| ended.find(|(_, completed)| !completed.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::host::{Effect, Exit, Tool};

    #[test]
    fn who_was_stopped_because_of_another_one_is_not_to_blame() {
        const STOPPED: (Exit, bool) = (Exit::Signal(15), true);
        let killed = (Exit::Signal(9), false);
        let failed = (Exit::Code(1), false);
        let well = (Exit::Code(0), false);
        let cases = [
            ("receive", [STOPPED, STOPPED, killed]),
            ("receive", [well, STOPPED, killed]),
            // One that was stopped may say that it was, by its own exit.
            ("receive", [(Exit::Code(1), true), (Exit::Code(1), true), killed]),
            ("stage", [STOPPED, killed, STOPPED]),
            ("send", [killed, STOPPED, STOPPED]),
            ("send", [failed, STOPPED, STOPPED]),
            // The one that takes is about to say why, whatever that did to the others.
            ("receive", [STOPPED, failed, failed]),
            // It ended well, and early: nothing else made the others stop.
            ("receive", [STOPPED, STOPPED, well]),
            ("send", [failed, STOPPED, well]),
        ];
        let spec = |name| CommandSpec::new(Tool::Named(String::from(name).into()), Effect::Inspect);
        let before = [spec("send"), spec("stage")];
        let last = spec("receive");
        for (who, [send, stage, receive]) in cases {
            let of = |(exit, dismissed)| Completed { dismissed, ..Completed::ended(exit) };
            let of_last = Completed { left_early: receive == well, ..of(receive) };
            let chained = Chained { before: vec![of(send), of(stage)], last: of_last, bytes: None };
            let (found, _) = culprit(&before, &last, &chained).unwrap();
            assert_eq!(found.display(), who, "{chained:?}");
        }
    }
}
