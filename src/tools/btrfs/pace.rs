//! How fast a stream may pass.

use std::time::Duration;

/// How much time that nobody used is made up for. Longer, and a receiver that stood still would be overrun afterwards.
const BURST: Duration = Duration::from_secs(1);

/// Spreads bytes over time.
#[derive(Debug, Clone)]
pub struct Pace {
    bytes_per_second: f64,
    /// Until when the bytes that passed take.
    busy_until: Duration,
}

impl Pace {
    /// A pace of so many KiB per second.
    pub fn new(kib_per_second: u32) -> Pace {
        Pace { bytes_per_second: f64::from(kib_per_second) * 1024.0, busy_until: Duration::ZERO }
    }

    /// Takes note of bytes that have passed by `now`, which counts from the beginning, and answers how long to wait
    /// before the next ones.
    pub fn wait_after(&mut self, bytes: usize, now: Duration) -> Duration {
        let from = self.busy_until.max(now.saturating_sub(BURST));
        self.busy_until = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        self.busy_until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it takes until so many pieces have passed, each of which comes as soon as it may.
    fn total(pace: &mut Pace, pieces: u32, bytes: usize, from: Duration) -> Duration {
        (0..pieces).fold(from, |now, _| now + pace.wait_after(bytes, now)) - from
    }

    #[test]
    fn bytes_take_as_long_as_the_pace_says() {
        let taken = total(&mut Pace::new(100), 40, 256 * 1024, Duration::ZERO);
        // 40 pieces of 256 KiB are 10240 KiB.
        assert_eq!(taken.as_secs_f64().round(), 102.0);
    }

    #[test]
    fn a_sender_that_is_slower_never_waits() {
        let mut pace = Pace::new(1024);
        for second in 1..20 {
            let waited = pace.wait_after(1024 * 1024, Duration::from_secs(second * 2));
            assert_eq!(waited, Duration::ZERO, "after {second}");
        }
    }

    #[test]
    fn a_long_pause_gives_one_second_and_no_more() {
        let mut pace = Pace::new(1024);
        let after = Duration::from_secs(3600);
        assert_eq!(total(&mut pace, 10, 1024 * 1024, after), Duration::from_secs(9));
    }
}
