//! What the move left to do, in words.

use std::path::{Path, PathBuf};

use crate::host::{Placed, Placement, Refused};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::step::error::StepError;

use super::own;

/// How many of the entries that were not restored a message names.
const NAMED: usize = 5;

/// The second look: everything that was asked for is there, but for what is in use.
///
/// # Errors
/// With what is not there, and why.
pub(super) fn judge(placed: &Placed, placement: &Placement) -> Result<(), StepError> {
    let to = placement.destination.as_path();
    let failed = |text: String| Err(StepError::new(Trouble::JobFailed, text));
    if placed.refused_count > 0 {
        let mut text = format!(
            "{} {} not restored, and what was there is as it was — {}",
            placed.refused_count,
            if placed.refused_count == 1 { "entry was" } else { "entries were" },
            by_reason(to, &placed.refused)
        );
        for it in &placed.passed_over {
            text.push_str("; ");
            text.push_str(&own::left(&to.join(&it.path), &it.reason));
        }
        return failed(text);
    }
    if let Some(path) = placed.missing.first() {
        return failed(format!(
            "the engine reported success, but {} is not there — is it in that copy? (`stillpoint find`)",
            to.join(path).shown()
        ));
    }
    let named = &placement.named;
    let is_passed_over =
        |path: &PathBuf| placed.passed_over.iter().any(|it| path.starts_with(&it.path));
    let is_all_passed_over = !named.is_empty() && named.iter().all(is_passed_over);
    if let Some(first) = placed.passed_over.first()
        && (is_all_passed_over || placed.entries == 0)
    {
        let text =
            format!("nothing was restored: {}", own::left(&to.join(&first.path), &first.reason));
        return Err(StepError::new(Trouble::Configuration, text));
    }
    if placed.entries == 0 {
        return failed("the engine reported success, but laid nothing out".into());
    }
    Ok(())
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
}
