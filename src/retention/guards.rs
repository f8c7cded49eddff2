//! The limits that the planner and the gate keep to.

use std::time::Duration;

use crate::model::copy::CLOCK_SLACK;

/// The limits beyond which retention leaves alone or refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards {
    /// A copy dated further ahead than this is in the future; a clock that is further behind has gone back.
    pub clock_slack: Duration,
    /// For how long a series may be without a copy before a leap of the clock is the likelier reason, if
    /// `within` keeps for less.
    pub clock_leap: Duration,
    /// How much smaller than the last good copy the newest may be, in percent of files or bytes; 100
    /// switches the guard off.
    pub max_shrink_percent: u8,
}

impl Default for Guards {
    /// Five minutes of slack, 90 days without a copy, half the size.
    fn default() -> Self {
        Guards {
            clock_slack: CLOCK_SLACK,
            clock_leap: Duration::from_secs(90 * 86_400),
            max_shrink_percent: 50,
        }
    }
}
