//! The machine's time zone: that of `/etc/localtime` (localtime(5)), for everybody. `TZ` is not asked. A shell may have
//! one that the nightly run has not, and what is kept must not depend on who asks for it.

use std::fs;
use std::io;
use std::path::Path;

use tz::TimeZone;

use crate::model::shown::Show;

/// Where the zone of the machine is.
pub const FILE: &str = "/etc/localtime";

/// Seconds that a zone is ahead of UTC at a moment, given in seconds after 1970.
pub fn ahead_of_utc(zone: &TimeZone, moment: i64) -> i32 {
    // A zone that says nothing of a time so far away is of no use for it.
    zone.find_local_time_type(moment).map_or(0, |local| local.ut_offset())
}

/// The zone in a file. Without one it is UTC, as for every other program; so it is where the file cannot be read, and
/// then that is told.
pub fn read(file: &Path) -> TimeZone {
    let told = |why: &dyn std::fmt::Display| {
        tracing::warn!("the time zone in {} cannot be read, so it is UTC: {why}", file.shown());
        TimeZone::utc()
    };
    match fs::read(file) {
        Ok(bytes) => TimeZone::from_tz_data(&bytes).unwrap_or_else(|error| told(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => TimeZone::utc(),
        Err(error) => told(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of tzfile(5), version 2, that says nothing but the rule in its footer.
    fn zone(rule: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..2 {
            bytes.extend(b"TZif2");
            bytes.extend([0; 15]);
            // No indicators, leap seconds or transitions; one type of local time with a name of four bytes.
            for count in [0_u32, 0, 0, 0, 1, 4] {
                bytes.extend(count.to_be_bytes());
            }
            bytes.extend(3_600_i32.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(b"CET\0");
        }
        bytes.extend(format!("\n{rule}\n").bytes());
        bytes
    }

    #[test]
    fn the_machine_s_file_says_it_and_without_one_it_is_utc() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("localtime");
        let (winter, summer) = (1_768_000_000, 1_784_000_000);
        let seen = || [winter, summer].map(|moment| ahead_of_utc(&read(&file), moment));
        assert_eq!(seen(), [0, 0]);
        fs::write(&file, zone("CET-1CEST,M3.5.0,M10.5.0/3")).unwrap();
        assert_eq!(seen(), [3_600, 7_200]);
        fs::write(&file, "no zone").unwrap();
        assert_eq!(seen(), [0, 0]);
    }
}
