//! Asks before something that cannot be taken back; where nobody can be asked, it must have been said.

use std::io::{self, IsTerminal};

use crate::model::outcome::Trouble;
use crate::step::error::StepError;

use super::render;

/// What must be answered to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// `y`, or the word.
    Letter,
    /// The word alone, by somebody who sees the question: what is lost otherwise is not a copy.
    Word,
}

/// Asks whether to go on, unless `yes` was said. `unasked` is what is told where nobody can be asked, `declined` where
/// the answer is no.
///
/// # Errors
/// When it is not to be done.
pub fn confirm(
    yes: bool,
    consent: Consent,
    question: &str,
    unasked: &str,
    declined: &str,
) -> Result<(), StepError> {
    let refused = |text: &str| Err(StepError::new(Trouble::Usage, text));
    if yes {
        return Ok(());
    }
    let (may_ask, how, good): (bool, &str, &[&str]) = match consent {
        Consent::Letter => (true, " [y/N]", &["y", "Y", "yes"]),
        Consent::Word => (io::stderr().is_terminal(), " Type yes to continue:", &["yes"]),
    };
    if !(io::stdin().is_terminal() && may_ask) {
        return refused(unasked);
    }
    render::say(&format!("{question}{how}"));
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| StepError::from_error(Trouble::Environment, &error, None))?;
    if good.contains(&answer.trim()) { Ok(()) } else { refused(declined) }
}
