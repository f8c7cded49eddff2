//! How to write: decided once, from the command line and the surroundings.

use std::ffi::OsString;

use crate::model::undo::Identity;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only what somebody should read (`-q`).
    Quiet,
    /// One line for each finished step.
    Normal,
    /// Also what is about to happen (`-v`).
    Verbose,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal that has them, unless the environment says otherwise.
    Auto,
    /// In colour, whatever reads it.
    Always,
    /// Without colour, whatever reads it.
    Never,
}

/// What the lines go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// A terminal, with bars, so many columns wide.
    Terminal {
        /// The width in columns.
        width: u16,
    },
    /// A file, a pipe or a terminal that cannot move its cursor.
    Plain,
    /// systemd's journal.
    Journal,
}

/// What standard error is and what the environment says about it.
pub struct Surroundings<'a> {
    /// The columns of the terminal that standard error is; `None` when it is none.
    pub terminal_width: Option<u16>,
    /// What standard error is (`/dev/stderr`), to be compared with what systemd says the journal is.
    pub stderr: Option<&'a Identity>,
    /// Our own environment variables.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
}

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalOptions {
    /// To what.
    pub place: Where,
    /// How much.
    pub verbosity: Verbosity,
    /// Whether with colours; never in the journal.
    pub color: bool,
}

impl TerminalOptions {
    /// Decides how to write.
    ///
    /// `JOURNAL_STREAM` (systemd.exec(5)) names the journal's end of standard error by device and inode. It
    /// is believed only if standard error still is that: somebody may have redirected it.
    /// `NO_COLOR` (no-color.org), `CLICOLOR_FORCE` and `TERM=dumb` are honoured.
    pub fn choose(
        verbosity: Verbosity,
        color: ColorChoice,
        surroundings: &Surroundings<'_>,
    ) -> TerminalOptions {
        let environment = surroundings.environment;
        let is_set = |name: &str| environment(name).is_some_and(|value| !value.is_empty());
        let dumb = environment("TERM").is_some_and(|term| term == "dumb");
        let place = match surroundings.terminal_width {
            _ if is_journal(environment("JOURNAL_STREAM"), surroundings.stderr) => Where::Journal,
            Some(width) if !dumb => Where::Terminal { width },
            Some(_) | None => Where::Plain,
        };
        let forced =
            environment("CLICOLOR_FORCE").is_some_and(|value| value != "0" && !value.is_empty());
        let color = match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if is_set("NO_COLOR") => false,
            ColorChoice::Auto => forced || matches!(place, Where::Terminal { .. }),
        };
        TerminalOptions { place, verbosity, color: color && place != Where::Journal }
    }
}

fn is_journal(stream: Option<OsString>, stderr: Option<&Identity>) -> bool {
    let (Some(stream), Some(Identity::Inode { device, inode })) = (stream, stderr) else {
        return false;
    };
    stream.to_str() == Some(format!("{device}:{inode}").as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(
        color: ColorChoice,
        terminal_width: Option<u16>,
        variables: &[(&str, &str)],
    ) -> TerminalOptions {
        let stderr = Identity::Inode { device: 9, inode: 12_345 };
        let environment = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let surroundings =
            Surroundings { terminal_width, stderr: Some(&stderr), environment: &environment };
        TerminalOptions::choose(Verbosity::Normal, color, &surroundings)
    }

    #[test]
    fn the_place_is_what_standard_error_is() {
        use ColorChoice::Auto;
        let terminal = Where::Terminal { width: 80 };
        assert_eq!(choose(Auto, Some(80), &[]).place, terminal);
        assert_eq!(choose(Auto, Some(80), &[("TERM", "dumb")]).place, Where::Plain);
        assert_eq!(choose(Auto, None, &[]).place, Where::Plain);
        assert_eq!(choose(Auto, None, &[("JOURNAL_STREAM", "9:12345")]).place, Where::Journal);
        // Under a unit, but redirected into a file.
        assert_eq!(choose(Auto, None, &[("JOURNAL_STREAM", "9:54321")]).place, Where::Plain);
        assert_eq!(choose(Auto, Some(80), &[("JOURNAL_STREAM", "")]).place, terminal);
    }

    #[test]
    fn colours_are_for_those_who_want_them() {
        use ColorChoice::{Always, Auto, Never};
        let color = |choice, width, variables: &[_]| choose(choice, width, variables).color;
        assert!(color(Auto, Some(80), &[]));
        assert!(color(Auto, Some(80), &[("NO_COLOR", "")]));
        assert!(!color(Auto, Some(80), &[("NO_COLOR", "1")]));
        assert!(!color(Auto, Some(80), &[("TERM", "dumb")]));
        assert!(!color(Auto, None, &[]));
        assert!(color(Auto, None, &[("CLICOLOR_FORCE", "1")]));
        assert!(!color(Auto, None, &[("CLICOLOR_FORCE", "0")]));
        assert!(color(Always, None, &[("NO_COLOR", "1")]));
        assert!(!color(Never, Some(80), &[("CLICOLOR_FORCE", "1")]));
        assert!(!color(Always, None, &[("JOURNAL_STREAM", "9:12345")]));
    }
}
