//! The exit codes: one table, public and documented. Scripts and unit files rely on it.

use std::process::ExitCode;

use crate::model::outcome::Trouble;

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

/// The exit code for one kind of trouble.
fn code_of(trouble: Trouble) -> i32 {
    match trouble {
        Trouble::Signal(signal) => 128 + signal,
        Trouble::Unexpected => 1,
        Trouble::Configuration => 3,
        Trouble::Environment => 4,
        Trouble::JobFailed => 10,
        Trouble::Damage => 14,
        Trouble::Busy => 5,
        Trouble::Incomplete => 13,
        Trouble::Cleanup => 11,
        Trouble::Warning => 12,
    }
}

/// Which of several kinds of trouble decides; the lowest rank does.
fn rank(trouble: Trouble) -> u8 {
    match trouble {
        Trouble::Signal(_) => 0,
        Trouble::Unexpected => 1,
        Trouble::Configuration => 2,
        Trouble::Environment => 3,
        Trouble::JobFailed => 4,
        Trouble::Damage => 5,
        Trouble::Busy => 6,
        Trouble::Incomplete => 7,
        Trouble::Cleanup => 8,
        Trouble::Warning => 9,
    }
}

/// The exit code for everything that went wrong; 0 when nothing did.
pub fn code(troubles: &[Trouble]) -> i32 {
    troubles.iter().copied().min_by_key(|trouble| rank(*trouble)).map_or(0, code_of)
}

/// The same for the process.
pub fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

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
