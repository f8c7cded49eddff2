//! restic 0.14 to 0.19 as values: command lines, and parsers of what it prints.
//!
//! What differs between versions is here and nowhere else. Every length, code and message shape was
//! measured with 0.14.0, 0.18.0 and 0.19.1; the recordings are in `tests/fixtures/restic-*`.

pub mod command;
pub mod environment;
pub mod failure;
pub mod message;
pub mod tags;

use std::path::PathBuf;
use std::time::Duration;

use crate::host::Tool;
use crate::model::job::Settings;
use crate::model::secret::Secret;

/// restic's own version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 0 in every release so far.
    pub major: u32,
    /// What changes behaviour.
    pub minor: u32,
    /// The third part: corrections only.
    pub patch: u32,
}

/// restic itself, unless the configuration names another.
pub const PROGRAM: Tool = Tool::Known {
    name: "restic",
    hint: "install it (Debian: apt install restic) or name it with program = \"/path/to/restic\"",
};

/// What restic calls the source of its mounts.
pub const MOUNT_SOURCE: &str = "restic";

/// Where restic keeps what it can make anew.
pub fn cache_directory(settings: &Settings) -> PathBuf {
    settings.cache_dir.join("restic")
}

/// The oldest restic that is spoken to: the first with compression and repository format 2.
pub const OLDEST: Version = Version { major: 0, minor: 14, patch: 0 };

impl Version {
    /// Reads the output of `restic version`: `restic 0.14.0 compiled with go1.19.8 on linux/amd64`.
    /// Builds between releases say `0.18.0-dev (…)`. `None` when the text is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix("restic ")?.split_whitespace().next()?;
        let mut parts = number.splitn(3, '.');
        let mut next = || {
            let part = parts.next()?;
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().ok()
        };
        Some(Self { major: next()?, minor: next()?, patch: next()? })
    }

    /// Whether this is `0.minor` or later.
    fn has(self, minor: u32) -> bool {
        self >= Version { major: 0, minor, patch: 0 }
    }

    /// `restore --sparse` (0.15).
    pub fn restores_holes(self) -> bool {
        self.has(15)
    }

    /// `--retry-lock` (0.16).
    pub fn waits_for_locks(self) -> bool {
        self.has(16)
    }

    /// `--insecure-no-password` (0.17).
    pub fn works_without_password(self) -> bool {
        self.has(17)
    }

    /// Ends cleanly, without leaving its lock, on SIGTERM (0.17); before, only on SIGINT.
    pub fn ends_on_sigterm(self) -> bool {
        self.has(17)
    }

    /// `restore --dry-run` (0.17).
    pub fn previews_restore(self) -> bool {
        self.has(17)
    }

    /// `RESTIC_FEATURES=device-id-for-hardlinks=true` (0.17): a snapshot's device number, which is another
    /// one in every run, is not stored, so that unchanged directories stay unchanged.
    pub fn has_feature_flags(self) -> bool {
        self.has(17)
    }

    /// `check` reports in JSON (0.18); before, in text.
    pub fn checks_in_json(self) -> bool {
        self.has(18)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The shortest value that is taken out of texts, in bytes; see [`Repository::redact`].
const SHORTEST: usize = 4;

/// One repository and what opens it.
#[derive(Debug, Clone)]
pub struct Repository {
    /// As restic is told it.
    pub location: String,
    /// `None` is a repository without a password.
    pub password: Option<Secret>,
    /// For the storage backend.
    pub environment: Vec<(String, Secret)>,
}

impl Repository {
    /// The location without the user name and password that a URL in it may hold. For messages.
    pub fn shown(&self) -> String {
        match credentials(&self.location) {
            Some(range) => {
                let mut text = self.location.clone();
                text.replace_range(range, "***");
                text
            }
            None => self.location.clone(),
        }
    }

    /// Whether the location itself must not be shown.
    pub fn is_secret(&self) -> bool {
        credentials(&self.location).is_some()
    }

    /// Takes every secret of this repository out of a text that restic printed. Values of fewer than four
    /// bytes stay: they are region codes and switches, and their letters are everywhere.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(range) = credentials(&self.location) {
            let both = &self.location[range];
            text = text.replace(both, "***");
            if let Some((_, password)) = both.split_once(':')
                && password.len() >= SHORTEST
            {
                text = text.replace(password, "***");
            }
        }
        for (_, value) in &self.environment {
            if let Ok(value) = std::str::from_utf8(value.reveal())
                && value.len() >= SHORTEST
            {
                text = text.replace(value, "***");
            }
        }
        text
    }
}

/// Where `user:password` stands in `scheme://user:password@host/path`; `None` when there is no password.
fn credentials(location: &str) -> Option<std::ops::Range<usize>> {
    let start = location.find("://")? + 3;
    let authority = location[start..].split('/').next().unwrap_or_default();
    // A password with a slash in it is not a valid URL, but restic takes what it takes: look further then.
    let end = start + authority.rfind('@').or_else(|| location[start..].rfind('@'))?;
    location[start..end].contains(':').then_some(start..end)
}

/// How restic is run: program, version, repository and the limits of every call.
#[derive(Debug, Clone)]
pub struct Access {
    /// The restic to run.
    pub program: Tool,
    /// What `restic version` says of it.
    pub version: Version,
    /// What it works on.
    pub repository: Repository,
    /// `RESTIC_CACHE_DIR`.
    pub cache: PathBuf,
    /// `TMPDIR`.
    pub temporary: Option<PathBuf>,
    /// How long it waits for a lock, where it can.
    pub lock_wait: Duration,
    /// How long nothing may move.
    pub stall_limit: Duration,
    /// `--compression`.
    pub compression: Option<String>,
    /// `--limit-upload`, KiB/s.
    pub upload_limit_kib: Option<u32>,
    /// The host name that restic writes into its locks instead of the machine's.
    pub lock_owner: Option<String>,
    /// Read copies without a lock: none can be made there, and nothing can be changed there meanwhile.
    pub unlocked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let read = |text| Version::parse(text).map(|v| v.to_string());
        assert_eq!(
            read("restic 0.14.0 compiled with go1.19.8 on linux/amd64"),
            Some("0.14.0".into())
        );
        assert_eq!(read("restic 0.18.0-dev (compiled manually) compiled"), Some("0.18.0".into()));
        assert_eq!(read("borg 1.2.4"), None);
        assert_eq!(read("restic unknown"), None);
        assert!(Version::parse("restic 0.9.6 x").unwrap() < OLDEST);
        assert!(Version::parse("restic 1.0.0 x").unwrap().checks_in_json());
    }

    #[test]
    fn credentials_are_not_shown() {
        let repository = |location: &str| Repository {
            location: location.into(),
            password: None,
            environment: vec![("KEY".into(), Secret::new(*b"abcdef"))],
        };
        let rest = repository("rest:https://me:geheim@host:8000/web");
        assert_eq!(rest.shown(), "rest:https://***@host:8000/web");
        assert!(rest.is_secret());
        assert_eq!(rest.redact("Head https://me:geheim@host abcdef"), "Head https://***@host ***");
        assert_eq!(repository("rest:http://u:a/b@host/x").shown(), "rest:http://***@host/x");
        assert_eq!(rest.redact("auth geheim failed"), "auth *** failed");
        for plain in
            ["/srv/web@1", "sftp:me@nas:/web", "sftp://me@nas:22//web", "s3:https://host/bucket"]
        {
            assert_eq!(repository(plain).shown(), plain);
            assert!(!repository(plain).is_secret());
        }
    }
}
