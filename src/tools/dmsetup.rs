//! dmsetup: what device-mapper itself says, below lvm2, and the two repairs of a half-made snapshot.
//!
//! Formats: dmsetup(8) for `info -c`; the kernel's admin-guide/device-mapper/thin-provisioning.rst for the
//! status of a pool (`TRANSACTION USED/TOTAL USED/TOTAL HELD-ROOT MODE …`).

use std::time::Duration;

use crate::host::{CommandSpec, Effect, Fact, Tool};

const DMSETUP: Tool =
    Tool::Known { name: "dmsetup", hint: "install it (Debian: apt install dmsetup)" };

/// The name of a volume's device: hyphens inside a name are doubled, one joins the two.
pub fn device_name(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

/// The name of the device by which a thin pool takes messages.
pub fn pool_name(group: &str, pool: &str) -> String {
    format!("{}-tpool", device_name(group, pool))
}

/// One device of device-mapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The name of the device below `/dev/mapper`.
    pub name: String,
    /// Whatever reads or writes it waits.
    pub suspended: bool,
    /// It has a table by which it works.
    pub live: bool,
    /// It has a table that takes effect when it is resumed.
    pub pending: bool,
}

/// Lists all devices.
pub fn devices() -> CommandSpec {
    command(Effect::Inspect).args([
        "info",
        "-c",
        "--noheadings",
        "--separator",
        " ",
        "-o",
        "suspended,tables_loaded,name",
    ])
}

/// Reads what [`devices`] printed.
///
/// # Errors
/// With the line that was not understood.
pub fn parse_devices(text: &[u8]) -> Result<Vec<Device>, String> {
    let text = String::from_utf8_lossy(text);
    let mut devices = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // This is all it says when there is none.
        if line == "No devices found" {
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let suspended = match words.next() {
            Some("Suspended") => Some(true),
            Some("Active") => Some(false),
            _ => None,
        };
        let tables = match words.next() {
            Some("None") => Some((false, false)),
            Some("Live") => Some((true, false)),
            Some("Inactive") => Some((false, true)),
            Some("Both") => Some((true, true)),
            _ => None,
        };
        match (suspended, tables, words.next()) {
            (Some(suspended), Some((live, pending)), Some(name)) => {
                devices.push(Device { name: name.trim().to_owned(), suspended, live, pending })
            }
            _ => return Err(format!("dmsetup info: {line:?} was not understood")),
        }
    }
    Ok(devices)
}

/// Makes a device forget the table that would take effect when it is resumed.
pub fn clear(device: &str) -> CommandSpec {
    command(Effect::Mutate).args(["clear", "--", device])
}

/// Removes a device. One that is in use is refused.
pub fn remove(device: &str) -> CommandSpec {
    command(Effect::Mutate).args(["remove", "--", device])
}

/// Asks for the state of one device.
pub fn status(device: &str) -> CommandSpec {
    command(Effect::Inspect).args(["status", "--", device])
}

/// Lets a suspended device go on.
pub fn resume(device: &str) -> CommandSpec {
    let mut spec = command(Effect::Mutate).args(["resume", "--", device]);
    spec.prediction.facts = vec![Fact { about: RESUMED.into(), value: device.into() }];
    spec
}

/// The subject of predictions about devices that would be resumed; each is one's name.
pub const RESUMED: &str = "resumed devices";

/// Makes a pool forget a thin device.
pub fn delete_thin(pool: &str, device_id: u64) -> CommandSpec {
    command(Effect::Mutate).args(["message", pool, "0", &format!("delete {device_id}")])
}

/// The state of a thin pool as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// The kernel's transaction id.
    pub transaction_id: u64,
    /// How full the metadata are, in hundredths of a percent.
    pub metadata_used: u32,
    /// How full the data are, in hundredths of a percent.
    pub data_used: u32,
    /// `rw`, `ro` or `out_of_data_space`.
    pub mode: String,
    /// The metadata must be repaired first.
    pub needs_check: bool,
}

/// Reads what [`status`] printed for a pool.
///
/// # Errors
/// With the line, when it is not a pool's.
pub fn parse_pool(text: &[u8]) -> Result<PoolStatus, String> {
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [_, _, "thin-pool", mode @ ("Fail" | "Error"), ..] = words.as_slice() {
        return Ok(PoolStatus {
            transaction_id: 0,
            metadata_used: 10_000,
            data_used: 10_000,
            mode: (*mode).to_owned(),
            needs_check: true,
        });
    }
    let read = || {
        let [_, _, "thin-pool", transaction, metadata, data, _held, mode, ..] = words.as_slice()
        else {
            return None;
        };
        Some(PoolStatus {
            transaction_id: transaction.parse().ok()?,
            metadata_used: share(metadata)?,
            data_used: share(data)?,
            mode: (*mode).to_owned(),
            needs_check: words.contains(&"needs_check"),
        })
    };
    read().ok_or_else(|| format!("dmsetup status: {:?} is not a thin pool in order", text.trim()))
}

/// `USED/TOTAL` in hundredths of a percent.
fn share(text: &str) -> Option<u32> {
    let (used, total) = text.split_once('/')?;
    let (used, total): (u64, u64) = (used.parse().ok()?, total.parse().ok()?);
    u32::try_from(used.checked_mul(10_000)?.checked_div(total)?).ok()
}

/// Device-mapper commands are short and are never killed.
fn command(effect: Effect) -> CommandSpec {
    let mut spec = CommandSpec::new(DMSETUP, effect);
    spec.never_kill = true;
    spec.time_limit = Some(Duration::from_secs(120));
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_double_their_hyphens() {
        assert_eq!(device_name("my-vg", "a-b"), "my--vg-a--b");
        assert_eq!(pool_name("vg", "pool"), "vg-pool-tpool");
    }

    #[test]
    fn devices_are_told_by_state_and_tables() {
        let text = b"Active Live vg-data\nSuspended Both vg-origin\n  Active None vg-snap-cow\n";
        let devices = parse_devices(text).unwrap();
        let seen: Vec<_> =
            devices.iter().map(|d| (d.name.as_str(), d.suspended, d.live, d.pending)).collect();
        assert_eq!(
            seen,
            [
                ("vg-data", false, true, false),
                ("vg-origin", true, true, true),
                ("vg-snap-cow", false, false, false)
            ]
        );
        assert_eq!(parse_devices(b"No devices found\n").unwrap(), []);
        assert!(parse_devices(b"vg-data\n").is_err());
        assert!(parse_devices(b"Suspended Some vg-data\n").is_err());
    }

    #[test]
    fn a_pool_is_read_and_a_failed_one_is_an_error() {
        let line = b"0 1228800 thin-pool 3 127/1024 1117/9600 166 rw discard_passdown queue_if_no_space - 256\n";
        let pool = parse_pool(line).unwrap();
        assert_eq!((pool.transaction_id, pool.mode.as_str()), (3, "rw"));
        assert_eq!((pool.metadata_used, pool.data_used), (1240, 1163));
        assert!(!pool.needs_check);
        let line = b"0 1228800 thin-pool 3 127/1024 9600/9600 - out_of_data_space discard_passdown error_if_no_space needs_check 256\n";
        let pool = parse_pool(line).unwrap();
        assert_eq!((pool.data_used, pool.needs_check), (10_000, true));
        let failed = parse_pool(b"0 1228800 thin-pool Fail\n").unwrap();
        assert_eq!((failed.mode.as_str(), failed.data_used), ("Fail", 10_000));
        assert!(parse_pool(b"0 8 linear\n").is_err());
    }
}
