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
    by_itself.or_else(killed).or_else(|| ended.find(|(_, completed)| !completed.success()))
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

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::host::{Effect, Exit, Tool};
    use crate::tools::btrfs::command::Told;
    use crate::tools::btrfs::parts::told_of;
    use crate::tools::btrfs::stream::StreamError;

    fn ended(exit: Exit, dismissed: bool) -> Completed {
        let (stdout, stderr_tail) = (Vec::new(), Vec::new());
        let elapsed = Duration::ZERO;
        Completed { is_predicted: false, exit, stdout, stderr_tail, elapsed, dismissed }
    }

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
        ];
        let spec = |name| CommandSpec::new(Tool::Named(String::from(name).into()), Effect::Inspect);
        let before = [spec("send"), spec("stage")];
        let last = spec("receive");
        for (who, [send, stage, receive]) in cases {
            let of = |(exit, dismissed)| ended(exit, dismissed);
            let chained =
                Chained { before: vec![of(send), of(stage)], last: of(receive), bytes: None };
            let (found, _) = culprit(&before, &last, &chained).unwrap();
            assert_eq!(found.display(), who, "{chained:?}");
        }
    }

    #[test]
    fn what_verbs_tell_each_other_is_not_shown_to_people() {
        let error = StreamError::Version(3);
        let told = serde_json::to_string(&Told::default()).unwrap();
        let unfit = told_of(&error).unwrap();
        let stderr = format!("{told}\n{unfit}\nstillpoint: {error}\n{told}\n");
        let completed =
            Completed { stderr_tail: stderr.into_bytes(), ..ended(Exit::Code(1), false) };
        assert_eq!(said(&completed, 3), format!("stillpoint: {error}"));
        // A name that begins so is a name.
        let completed = Completed { stderr_tail: b"{x}: no\n".to_vec(), ..completed };
        assert_eq!(said(&completed, 3), "{x}: no");
    }
}
