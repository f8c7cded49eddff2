//! borg's locks as values: who holds them, in borg's own files.
//!
//! A lock is a directory `lock.exclusive` with a file `HOST-ID.PID-THREAD` in it, of who holds it alone, and a file
//! `lock.roster`, JSON, which names those who share it. There is such a pair in each repository and in each of
//! borg's caches.

use std::collections::BTreeMap;

use crate::model::names::{HostName, RunId};

/// The directory of who holds a lock alone.
pub const EXCLUSIVE: &str = "lock.exclusive";

/// The file of all who hold a lock.
pub const ROSTER: &str = "lock.roster";

/// The name of those who share a lock, in the roster.
const SHARED: &str = "shared";

/// `BORG_HOST_ID` of a run. Its own is made of host name and network card, which a container may share with its
/// host; this one nobody else has.
pub fn owner(host: &HostName, run: &RunId) -> String {
    format!("{host}.stillpoint-{run}")
}

/// The process that a file in [`EXCLUSIVE`] names, if it is of this owner.
pub fn process_of(name: &str, owner: &str) -> Option<i32> {
    let (pid, _thread) = name.strip_prefix(owner)?.strip_prefix('.')?.split_once('-')?;
    pid.parse().ok()
}

/// The processes of this owner that share a lock. Those that hold it alone are in the roster too, but nobody waits
/// for these entries. A roster that cannot be read names nobody: borg writes it in place, so a full disk or a power
/// cut leaves it empty or half-written, and borg itself then begins a new one.
pub fn sharing(roster: &[u8], owner: &str) -> Vec<i32> {
    type Roster = BTreeMap<String, Vec<(String, i32, i64)>>;
    let entries: Roster = serde_json::from_slice(roster).unwrap_or_default();
    let shared = entries.get(SHARED).map(Vec::as_slice).unwrap_or_default();
    shared.iter().filter(|(host, _, _)| host == owner).map(|(_, pid, _)| *pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_known_by_its_whole_name() {
        let owner = owner(&HostName::new("web1").unwrap(), &RunId::parse("0badcafe").unwrap());
        assert_eq!(owner, "web1.stillpoint-0badcafe");
        assert_eq!(process_of("web1.stillpoint-0badcafe.4711-0", &owner), Some(4711));
        for other in [
            "web1.stillpoint-0badcaff.4711-0",
            "web1@52540012.4711-0",
            "web1.stillpoint-0badcafe4711-0",
            "web1.stillpoint-0badcafe.x-0",
            "web1.stillpoint-0badcafe",
        ] {
            assert_eq!(process_of(other, &owner), None, "{other}");
        }
        let roster = br#"{"exclusive": [["web1.stillpoint-0badcafe", 7, 0]], "shared": [["a@1", 8, 0], ["web1.stillpoint-0badcafe", 9, 0]]}"#;
        assert_eq!(sharing(roster, &owner), [9]);
        for nobody in [&b""[..], b"{}", b"{\"shared\": 1}", &roster[..roster.len() - 9]] {
            assert_eq!(sharing(nobody, &owner), Vec::<i32>::new());
        }
    }
}
