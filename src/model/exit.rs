//! The exit codes: one table, public and documented. Scripts and unit files rely on it.

use super::outcome::Trouble;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// The code. For signals, what is added to the signal's number.
    code: i32,
    /// What it means, for the help.
    says: &'static str,
}

const SIGNAL: Row = Row {
    code: 128,
    says: "130, 143  interrupted by SIGINT, SIGTERM; what was held is released (129, 131: by SIGHUP, SIGQUIT)",
};
const UNEXPECTED: Row = Row { code: 1, says: "1   unexpected: a defect in Stillpoint" };
const USAGE: Row = Row { code: 2, says: "2   usage" };
const CONFIGURATION: Row = Row { code: 3, says: "3   configuration invalid" };
const ENVIRONMENT: Row =
    Row { code: 4, says: "4   environment unfit: tool, privilege, target not mounted" };
const BUSY: Row = Row { code: 5, says: "5   busy: another run holds the lock" };
const JOB_FAILED: Row = Row { code: 10, says: "10  a job failed" };
const CLEANUP: Row =
    Row { code: 11, says: "11  copies made, cleanup incomplete (recover tries again)" };
const WARNING: Row = Row { code: 12, says: "12  copies made, with warnings" };
const INCOMPLETE: Row = Row { code: 13, says: "13  incomplete or stale" };
const DAMAGE: Row = Row { code: 14, says: "14  damage found" };

/// Which of several rows decides: the first of these.
const ORDER: [Row; 11] = [
    SIGNAL,
    UNEXPECTED,
    // Whoever is told so has nothing else to be told.
    USAGE,
    CONFIGURATION,
    ENVIRONMENT,
    JOB_FAILED,
    DAMAGE,
    BUSY,
    INCOMPLETE,
    CLEANUP,
    WARNING,
];

/// The row of one kind of trouble.
const fn row(trouble: Trouble) -> Row {
    match trouble {
        Trouble::Signal(_) => SIGNAL,
        Trouble::Unexpected => UNEXPECTED,
        Trouble::Usage => USAGE,
        Trouble::Configuration => CONFIGURATION,
        Trouble::Environment => ENVIRONMENT,
        Trouble::JobFailed => JOB_FAILED,
        Trouble::Damage => DAMAGE,
        Trouble::Busy => BUSY,
        Trouble::Incomplete => INCOMPLETE,
        Trouble::Cleanup => CLEANUP,
        Trouble::Warning => WARNING,
    }
}

/// The exit code for everything that went wrong; 0 when nothing did.
pub fn exit_code(troubles: &[Trouble]) -> i32 {
    let rank = |trouble: &&Trouble| ORDER.iter().position(|other| *other == row(**trouble));
    let Some(worst) = troubles.iter().min_by_key(rank) else { return 0 };
    let signal = if let Trouble::Signal(number) = worst { *number } else { 0 };
    row(*worst).code + signal
}

/// The table as `--help` shows it: by code, then which of several counts.
pub fn table() -> String {
    let mut rows = ORDER;
    rows.sort_by_key(|row| row.code);
    let mut text =
        String::from("Exit codes:\n  0   all ok (a job skipped by a hook's exit 75 included)\n");
    for row in rows {
        text.push_str(&format!("  {}\n", row.says));
    }
    let order: Vec<String> = ORDER
        .iter()
        .filter(|row| **row != USAGE)
        .map(|row| if *row == SIGNAL { "signal".into() } else { row.code.to_string() })
        .collect();
    text.push_str(&format!("Of several, the first of this order counts: {}, 0.", order.join(", ")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documented order, best last.
    const DOCUMENTED: [(Trouble, i32); 12] = [
        (Trouble::Signal(2), 130),
        (Trouble::Signal(15), 143),
        (Trouble::Unexpected, 1),
        (Trouble::Usage, 2),
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
        assert_eq!(exit_code(&[]), 0);
        for (trouble, expected) in DOCUMENTED {
            assert_eq!(exit_code(&[trouble]), expected, "{trouble:?}");
        }
    }

    #[test]
    fn of_two_the_earlier_row_counts() {
        for (index, (worse, expected)) in DOCUMENTED.iter().enumerate().skip(1) {
            for (better, _) in &DOCUMENTED[index..] {
                let both = [*better, *worse];
                assert_eq!(exit_code(&both), *expected, "{worse:?} before {better:?}");
            }
        }
    }

    #[test]
    fn the_table_as_people_see_it() {
        insta::assert_snapshot!(table(), @r"
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
          130, 143  interrupted by SIGINT, SIGTERM; what was held is released (129, 131: by SIGHUP, SIGQUIT)
        Of several, the first of this order counts: signal, 1, 3, 4, 10, 14, 5, 13, 11, 12, 0.
        ");
    }
}
