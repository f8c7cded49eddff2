//! What the move left to do, in words.

use std::path::{Path, PathBuf};

use crate::host::{Placed, Placement, Refused};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::step::error::StepError;

use super::own;
use super::survey::relative;

/// How many of the entries that were not restored a message names.
const NAMED: usize = 5;

/// Verifies that everything that was asked for is there, but for what is in use. Of a copy that was asked for as a
/// whole that is left out; a path that a person named and that got nothing of it was not restored.
///
/// # Errors
/// With what is not there, and why.
pub(super) fn judge(
    placed: &Placed,
    placement: &Placement,
    asked: &[PathBuf],
) -> Result<(), StepError> {
    let to = placement.destination.as_path();
    let failed = |text: String| Err(StepError::new(Trouble::JobFailed, text));
    let without = got_nothing(placed, placement, asked);
    if placed.refused_count > 0 {
        let refused = format!(
            "{} {} not restored, and what was there is unchanged — {}",
            placed.refused_count,
            if placed.refused_count == 1 { "entry was" } else { "entries were" },
            by_reason(to, &placed.refused)
        );
        let told = [refused].into_iter().chain(without).chain(kept(to, placed));
        return failed(told.collect::<Vec<_>>().join("; "));
    }
    if let Some(path) = placed.missing.first() {
        return failed(format!(
            "the engine reported success, but {} is not there — is it in that copy? (`stillpoint find`)",
            to.join(path).shown()
        ));
    }
    let named = &placement.named;
    let is_all_passed_over =
        !named.is_empty() && named.iter().all(|path| is_passed_over(placed, path));
    if let Some(first) = kept(to, placed).next()
        && (is_all_passed_over || placed.entries == 0)
    {
        let text = format!("nothing was restored: {first}");
        return Err(StepError::new(Trouble::Configuration, text));
    }
    if !without.is_empty() {
        let told = without.into_iter().chain(kept(to, placed));
        return failed(told.collect::<Vec<_>>().join("; "));
    }
    if placed.entries == 0 {
        return failed("the engine reported success, but wrote nothing".into());
    }
    Ok(())
}

/// Whether a path below the destination is, or lies in, what was passed over.
fn is_passed_over(placed: &Placed, path: &Path) -> bool {
    placed.passed_over.iter().any(|it| path.starts_with(&it.path))
}

/// Says of each path of the copy that a person named, and of which nothing was restored since it is in use.
fn got_nothing(placed: &Placed, placement: &Placement, asked: &[PathBuf]) -> Vec<String> {
    let is_without = |path: &PathBuf| {
        // What the copy has of it may begin further below.
        let mut of_it = placement.named.iter().filter(|named| named.starts_with(path)).peekable();
        is_passed_over(placed, path)
            || of_it.peek().is_some() && of_it.all(|named| is_passed_over(placed, named))
    };
    let without = asked.iter().map(|path| relative(path)).filter(is_without);
    without
        .map(|path| format!("{} was not restored", placement.destination.join(path).shown()))
        .collect()
}

/// Says of each thing that is in use that it stays.
fn kept<'a>(to: &'a Path, placed: &'a Placed) -> impl Iterator<Item = String> + 'a {
    placed.passed_over.iter().map(|it| own::left(&to.join(&it.path), &it.reason))
}

/// Some of what was left, and each reason once: a file system that takes nothing in is the reason of thousands.
fn by_reason(to: &Path, refused: &[Refused]) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    for left in refused {
        if !reasons.contains(&left.reason.as_str()) {
            reasons.push(&left.reason);
        }
    }
    let texts = reasons.iter().take(NAMED).map(|reason| {
        let mut paths = refused.iter().filter(|left| left.reason == *reason);
        let named: Vec<String> = paths
            .by_ref()
            .take(NAMED)
            .map(|left| to.join(&left.path).shown().to_string())
            .collect();
        let more = if paths.next().is_some() { ", …" } else { "" };
        format!("{}{more}: {reason}", named.join(", "))
    });
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::undo::Identity;

    fn left(path: &str, reason: &str) -> Refused {
        Refused { path: path.into(), reason: reason.into() }
    }

    #[test]
    fn a_reason_is_told_once_and_so_many_paths() {
        let mut refused: Vec<_> =
            (0..9).map(|number| left(&format!("ro/{number}"), "read-only")).collect();
        refused.insert(2, left("x", "full"));
        assert_eq!(
            by_reason(Path::new("/"), &refused),
            "/ro/0, /ro/1, /ro/2, /ro/3, /ro/4, …: read-only; /x: full"
        );
    }

    /// What becomes of a restore in place of these roots, of which a person named some, with the state directory in
    /// the way.
    fn judged(roots: &[&str], asked: &[&str], refused: &[&str]) -> Result<(), StepError> {
        let placement = Placement {
            destination: "/".into(),
            identity: Identity::Inode { device: 1, inode: 1 },
            staged: Vec::new(),
            named: roots.iter().map(PathBuf::from).collect(),
            mounted: Vec::new(),
            closed: Vec::new(),
            in_use: Vec::new(),
        };
        let placed = Placed {
            entries: 3,
            refused: refused.iter().map(|path| left(path, "read-only")).collect(),
            refused_count: refused.len() as u64,
            passed_over: vec![left("var/state", "the state directory")],
            missing: Vec::new(),
        };
        let asked: Vec<PathBuf> = asked.iter().map(PathBuf::from).collect();
        judge(&placed, &placement, &asked)
    }

    #[test]
    fn a_path_that_a_person_named_and_that_got_nothing_was_not_restored() {
        // Whoever asks for all, or for what is around it, gets the rest.
        judged(&["etc", "var/state"], &[], &[]).unwrap();
        judged(&["etc", "var"], &["/etc", "/var"], &[]).unwrap();
        for (roots, asked, told) in [
            (&["etc", "var/state"][..], &["/etc", "/var/state"][..], "/var/state was not restored"),
            (&["etc", "var/state/x"], &["/etc", "/var/state/x"], "/var/state/x was not restored"),
            (&["var"], &["/var", "/var/state/x"], "/var/state/x was not restored"),
            // The copy begins below what was named.
            (&["etc", "var/state"], &["/etc", "/var"], "/var was not restored"),
        ] {
            let error = judged(roots, asked, &[]).unwrap_err();
            assert_eq!(error.trouble, Trouble::JobFailed, "{error}");
            assert!(error.message.starts_with(told), "{error}");
            assert!(error.message.contains("/var/state is the state directory, which"), "{error}");
            assert!(!error.message.contains("/etc was"), "{error}");
        }
        let error = judged(&["var/state"], &["/var/state"], &[]).unwrap_err();
        assert_eq!(error.trouble, Trouble::Configuration, "{error}");
        let error = judged(&["etc", "var/state"], &["/etc", "/var/state"], &["etc/f"]).unwrap_err();
        assert_eq!(error.trouble, Trouble::JobFailed, "{error}");
        assert!(
            error.message.contains("/etc/f: read-only; /var/state was not restored"),
            "{error}"
        );
    }
}
