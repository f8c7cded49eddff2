//! The exit codes: one table, public and documented. Scripts and unit files rely on it.

use std::process::ExitCode;

/// The table as `--help` shows it.
pub const TABLE: &str = "\
Exit codes:
  0   all ok (a job skipped by a hook's exit 75 included)
  1   unexpected: a defect in Stillpoint
  2   usage
  3   configuration invalid
  4   environment unfit: tool, privilege, target not mounted
  5   busy: another run holds the lock
  10  a job failed
  11  copies made, cleanup incomplete (recover tries again)
  12  copies made, with warnings
  13  incomplete or stale
  14  damage found
  130, 143  interrupted by SIGINT, SIGTERM; unwound (129, 131: by SIGHUP, SIGQUIT)
Of several, the first of this order counts: signal, 1, 3, 4, 10, 14, 5, 13, 11, 12, 0.";

pub use crate::model::outcome::exit_code as code;

/// The same for the process.
pub fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Trouble;

    /// The documented order, best last.
    const ORDER: [(Trouble, i32); 11] = [
        (Trouble::Signal(2), 130),
        (Trouble::Signal(15), 143),
        (Trouble::Unexpected, 1),
        (Trouble::Configuration, 3),
        (Trouble::Environment, 4),
        (Trouble::JobFailed, 10),
        (Trouble::Damage, 14),
        (Trouble::Busy, 5),
        (Trouble::Incomplete, 13),
        (Trouble::Cleanup, 11),
        (Trouble::Warning, 12),
    ];

    #[test]
    fn every_row_has_its_code() {
        assert_eq!(code(&[]), 0);
        for (trouble, expected) in ORDER {
            assert_eq!(code(&[trouble]), expected, "{trouble:?}");
        }
    }

    #[test]
    fn of_two_the_earlier_row_counts() {
        for (index, (worse, expected)) in ORDER.iter().enumerate().skip(1) {
            for (better, _) in &ORDER[index..] {
                assert_eq!(code(&[*better, *worse]), *expected, "{worse:?} before {better:?}");
            }
            assert!(
                TABLE.contains(&format!("\n  {expected} ")) || *expected > 128,
                "{expected} is documented"
            );
        }
    }
}
