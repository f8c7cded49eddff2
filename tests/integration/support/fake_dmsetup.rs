//! What captures use of dmsetup, on what the kernel knows of the volume group in memory.

use stillpoint::host::CommandSpec;

use super::fake_borg::Answer;
use super::fake_lvm::{FakeLvm, FakeVolume, Kind, POOL, device, failure, words_of};

impl FakeLvm {
    /// Carries out a command of dmsetup.
    ///
    /// # Panics
    /// On a command that nobody thought of, and on one that would harm somebody else's volume.
    pub fn dmsetup(&mut self, spec: &CommandSpec) -> Answer {
        assert!(spec.never_kill, "{} may be killed", spec.display());
        let words = words_of(spec);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [
                "info",
                "-c",
                "--noheadings",
                "--separator",
                " ",
                "-o",
                "suspended,tables_loaded,name",
            ] => {
                let line = |name: String| {
                    let state = if self.suspended.contains(&name) { "Suspended" } else { "Active" };
                    format!("{state} Live {name}\n")
                };
                Answer::good(self.device_names().into_iter().map(line).collect::<String>())
            }
            ["status", "--", device] => self.status(device),
            ["resume", "--", device] => {
                if !self.device_names().iter().any(|name| name == device) {
                    return failure(1, "Device does not exist.");
                }
                self.suspended.remove(*device);
                Answer::good("")
            }
            ["message", "vg-pool-tpool", "0", message] => {
                let id: u64 = message
                    .strip_prefix("delete ")
                    .and_then(|id| id.parse().ok())
                    .unwrap_or_else(|| panic!("a message nobody thought of: {message}"));
                assert!(!self.is_suspended(POOL), "a suspended pool takes no message");
                let owner = self.volumes.iter().find(|volume| volume.kind == Kind::Thin(id));
                assert!(
                    owner.is_none_or(|owner| owner.name.starts_with("stillpoint.")),
                    "the device {id} of {owner:?} was deleted"
                );
                match self.devices.remove(&id) {
                    true => Answer::good(""),
                    false => failure(1, "device-mapper: message ioctl on vg-pool-tpool failed"),
                }
            }
            _ => panic!("the fake dmsetup was not told about: {words:?}"),
        }
    }

    fn device_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.away {
            return names;
        }
        for volume in self.volumes.iter().filter(|volume| volume.minor.is_some()) {
            let name = device(&volume.name);
            match volume.kind {
                Kind::Pool => names.extend([format!("{name}-tpool"), name]),
                Kind::Linear => names.extend([format!("{name}-real"), name]),
                Kind::Classic => names.extend([format!("{name}-cow"), name]),
                Kind::Thin(_) | Kind::Hidden => names.push(name),
            }
        }
        names
    }

    fn status(&self, asked: &str) -> Answer {
        if asked == format!("{}-tpool", device(POOL)) {
            let Self { kernel_transaction, pool_metadata, pool_data, .. } = self;
            return Answer::good(format!(
                "0 819200 thin-pool {kernel_transaction} {pool_metadata}/1000 {pool_data}/1000 - rw discard_passdown queue_if_no_space - 1024\n"
            ));
        }
        let of_volume =
            |volume: &&FakeVolume| device(&volume.name) == asked && volume.minor.is_some();
        let Some(volume) = self.volumes.iter().find(of_volume) else {
            return failure(1, "Device does not exist.");
        };
        match volume.kind {
            Kind::Classic if volume.attributes.contains('I') => {
                Answer::good("0 204800 snapshot Invalid\n")
            }
            Kind::Classic => Answer::good("0 204800 snapshot 16/40960 16\n"),
            kind => panic!("nobody asks for the status of {kind:?}"),
        }
    }
}
