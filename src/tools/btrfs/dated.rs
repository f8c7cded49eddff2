//! The moments that other programs write into the names of snapshots and of what was received of them.
//!
//! ```text
//! home.20260101  home.20260101T1531  home.20260101T153123+0200  home.20260101_1     btrbk: short, long, long-iso
//! web1-20260101-153123  web1-20260101-153123_1                                      btrfs-backup-ng
//! ```
//!
//! snapper numbers its snapshots (`12/snapshot`), and writes the moment into a file beside each.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

/// A name that holds a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated<'n> {
    /// What comes before it: that of one series is the same.
    pub stem: &'n str,
    local: NaiveDateTime,
    ahead: Option<FixedOffset>,
}

impl<'n> Dated<'n> {
    /// Reads a name; `None` when it holds no moment in a form that is known.
    pub fn read(name: &'n str) -> Option<Self> {
        btrbk(name).or_else(|| btrfs_backup_ng(name))
    }

    /// The moment. Where the name does not tell the zone, it is the machine's; of an hour that came twice it is the first
    /// one, and one that never came is as far after the one before it.
    pub fn moment(&self, ahead_of_utc: &dyn Fn(DateTime<Utc>) -> FixedOffset) -> DateTime<Utc> {
        let less = |ahead: FixedOffset| {
            let seconds = TimeDelta::seconds(i64::from(ahead.local_minus_utc()));
            self.local.checked_sub_signed(seconds).unwrap_or(self.local).and_utc()
        };
        if let Some(ahead) = self.ahead {
            return less(ahead);
        }
        let around = |days| {
            let near = self.local.checked_add_signed(TimeDelta::days(days)).unwrap_or(self.local);
            ahead_of_utc(near.and_utc())
        };
        let [before, after] = [around(-1), around(1)];
        let fits = |ahead: &FixedOffset| ahead_of_utc(less(*ahead)) == *ahead;
        less([before, after].into_iter().find(fits).unwrap_or(before))
    }
}

/// The moment in snapper's `info.xml`, which is that of UTC; `None` where there is none.
pub fn in_info(text: &str) -> Option<DateTime<Utc>> {
    let (_, rest) = text.split_once("<date>")?;
    let (moment, _) = rest.split_once("</date>")?;
    let moment = NaiveDateTime::parse_from_str(moment.trim(), "%Y-%m-%d %H:%M:%S").ok()?;
    Some(moment.and_utc())
}

/// `NAME.YYYYMMDD[Thhmm[ss(Z|±hhmm)]][_N]`
fn btrbk(name: &str) -> Option<Dated<'_>> {
    let (stem, moment) = unnumbered(name).rsplit_once('.')?;
    let (date, time) = match moment.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (moment, None),
    };
    let (time, ahead) = match time {
        None => (NaiveTime::MIN, None),
        Some(time) if time.len() == 4 => (clock(time)?, None),
        Some(time) => {
            let (time, zone) = time.split_at_checked(6)?;
            (clock(time)?, Some(offset(zone)?))
        }
    };
    Some(Dated { stem, local: day(date)?.and_time(time), ahead })
}

/// A name without the number that tells it from others of the same moment. What has more digits may be a time of day.
fn unnumbered(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((before, number)) if is_number(number) && number.len() <= 3 => before,
        _ => name,
    }
}

/// `PREFIXYYYYMMDD-hhmmss[_N]`
fn btrfs_backup_ng(name: &str) -> Option<Dated<'_>> {
    let name = unnumbered(name);
    let (stem, moment) = name.split_at_checked(name.len().checked_sub(15)?)?;
    let (date, time) = moment.split_once('-')?;
    let time = clock(time).filter(|_| time.len() == 6)?;
    Some(Dated { stem, local: day(date)?.and_time(time), ahead: None })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Two digits at a place.
fn two(digits: &str, at: usize) -> Option<u32> {
    digits.get(at..at + 2)?.parse().ok()
}

fn day(digits: &str) -> Option<NaiveDate> {
    let is_one = digits.len() == 8 && is_number(digits);
    let year = digits.get(..4).filter(|_| is_one)?.parse().ok()?;
    NaiveDate::from_ymd_opt(year, two(digits, 4)?, two(digits, 6)?)
}

/// Four digits, or six with seconds.
fn clock(digits: &str) -> Option<NaiveTime> {
    let seconds = match digits.len() {
        4 => 0,
        6 => two(digits, 4)?,
        _ => return None,
    };
    let [hours, minutes] = [two(digits, 0)?, two(digits, 2)?];
    NaiveTime::from_hms_opt(hours, minutes, seconds).filter(|_| is_number(digits))
}

fn offset(zone: &str) -> Option<FixedOffset> {
    if zone == "Z" {
        return FixedOffset::east_opt(0);
    }
    let (sign, digits) = zone.split_at_checked(1)?;
    let is_one = digits.len() == 4 && is_number(digits);
    let seconds = (two(digits, 0)? * 60 + two(digits, 2)?).cast_signed() * 60;
    match sign {
        "+" if is_one => FixedOffset::east_opt(seconds),
        "-" if is_one => FixedOffset::west_opt(seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hours ahead in summer, one in winter, as in Central Europe in 2026.
    fn central_europe(at: DateTime<Utc>) -> FixedOffset {
        let moment = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let summer = moment("2026-03-29T01:00:00Z")..moment("2026-10-25T01:00:00Z");
        FixedOffset::east_opt(if summer.contains(&at) { 7200 } else { 3600 }).unwrap()
    }

    fn read(name: &str) -> Option<(&str, String)> {
        let dated = Dated::read(name)?;
        Some((dated.stem, dated.moment(&central_europe).format("%Y-%m-%dT%H:%M:%S").to_string()))
    }

    #[test]
    fn names_of_other_programs_are_read() {
        for (name, stem, moment) in [
            ("home.20260101", "home", "2025-12-31T23:00:00"),
            ("home.20260101_2", "home", "2025-12-31T23:00:00"),
            ("a.b.20260701T1531", "a.b", "2026-07-01T13:31:00"),
            ("a_1.20260701T1531_10", "a_1", "2026-07-01T13:31:00"),
            ("home.20260101T153123+0200", "home", "2026-01-01T13:31:23"),
            ("home.20260101T153123-0930", "home", "2026-01-02T01:01:23"),
            ("home.20260101T153123Z", "home", "2026-01-01T15:31:23"),
            (".20260101", "", "2025-12-31T23:00:00"),
            ("web1-20260701-153123", "web1-", "2026-07-01T13:31:23"),
            ("web1_20260701-153123_12", "web1_", "2026-07-01T13:31:23"),
            ("20260701-153123", "", "2026-07-01T13:31:23"),
            ("größe-20260701-153123", "größe-", "2026-07-01T13:31:23"),
        ] {
            assert_eq!(read(name), Some((stem, moment.to_owned())), "{name}");
        }
    }

    #[test]
    fn the_moment_of_a_numbered_snapshot_is_beside_it() {
        let info = "<?xml version=\"1.0\"?>\n<snapshot>\n  <type>single</type>\n  <num>12</num>\n  <date>2026-01-01 15:31:23</date>\n</snapshot>\n";
        let moment = in_info(info).unwrap().to_rfc3339();
        assert_eq!(moment, "2026-01-01T15:31:23+00:00");
        for wrong in ["", "<date>", "<date>yesterday</date>", "<date>2026-13-01 15:31:23</date>"] {
            assert_eq!(in_info(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for name in [
            "home",
            "home.2026",
            "home.20261301",
            "home.20260230",
            "home.20260101T",
            "home.20260101T15",
            "home.20260101T153123",
            "home.20260101T153123+02",
            "home.20260101T2460",
            "home.20260101Tééé",
            "20260101",
            "home.+2260101",
            "web1-20260701-1531",
            "web1-20260701-256000",
            "é20260701-15312",
            "",
            "home@web1.20261121T020304Z.247eb2aa",
            "home.20260101_",
            "home.20260101_x",
            // A day and a time of day in somebody's own format: to take that for the midnight of the day would be a guess.
            "home.20260101_153123",
            "home.20260101_1531",
        ] {
            assert_eq!(read(name), None, "{name}");
        }
    }

    #[test]
    fn the_hour_that_came_twice_is_the_first_and_one_that_never_came_is_moved_on() {
        let read = |name| read(name).unwrap().1;
        assert_eq!(read("h.20261025T0130"), "2026-10-24T23:30:00");
        assert_eq!(read("h.20261025T0230"), "2026-10-25T00:30:00");
        assert_eq!(read("h.20261025T0330"), "2026-10-25T02:30:00");
        assert_eq!(read("h.20260329T0130"), "2026-03-29T00:30:00");
        assert_eq!(read("h.20260329T0230"), "2026-03-29T01:30:00");
        assert_eq!(read("h.20260329T0330"), "2026-03-29T01:30:00");
    }
}
