//! borg 1.2 and 1.4: command lines, and parsers of what it prints. Nothing here runs anything.
//!
//! borg expands braces in repository paths, archive names and comments, so they are doubled; a repository
//! path is expanded a second time inside borg, so one with braces cannot be used at all.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::host::{
    CommandSpec, Effect, EnvValue, Fact, FdStyle, Judge, Prediction, SecretFd, StdoutMode, Tool,
};
use crate::model::copy::Series;
use crate::model::job::Settings;
use crate::model::names::{MachineId, RunId};
use crate::model::secret::Secret;
use crate::model::target::{BorgOptions, Target};
use crate::tools::Tree;
use crate::tools::exclude::{ExcludeError, to_borg};

pub mod lock;
pub mod log;
pub mod name;
pub mod output;

/// borg itself, unless the configuration names another.
pub const PROGRAM: Tool = Tool::Known {
    name: "borg",
    hint: "install it (Debian: apt install borgbackup) or name it with program = \"/path/to/borg\"",
};

/// What borg calls the source of its mounts.
pub const MOUNT_SOURCE: &str = "borgfs";

/// Whether borg may use a repository that is not where it remembers it, instead of asking.
const RELOCATED: &str = "BORG_RELOCATED_REPO_ACCESS_IS_OK";

/// How borg reaches ssh when the configuration does not say: it never asks, notices a dead line after 90
/// seconds and does not wait for ever for one to come up.
const SSH: &str =
    "ssh -oBatchMode=yes -oServerAliveInterval=30 -oServerAliveCountMax=3 -oConnectTimeout=60";

/// A repository and what every call to it needs.
#[derive(Clone, Copy)]
pub struct Repository<'a> {
    /// The target that it is.
    pub target: &'a Target,
    /// What it says that only borg understands.
    pub borg: &'a BorgOptions,
    /// The directories for borg's own files.
    pub settings: &'a Settings,
    /// The passphrase, for modes that have one.
    pub passphrase: Option<&'a Secret>,
    /// Where borg puts temporary files.
    pub temporary: Option<&'a Path>,
    /// How long borg waits for its lock.
    pub lock_wait: Duration,
    /// The run whose ledger knows of the locks that borg takes. Without one they stay to borg's own rule.
    pub run: Option<&'a RunId>,
    /// What is left out where copies are only read.
    pub reading: Reading,
}

/// How copies are read where borg would refuse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Without the repository's lock: it cannot be made there, and nothing can be changed there meanwhile.
    pub unlocked: bool,
    /// Although the repository is not where borg remembers it. What borg remembers stays as it is, so that
    /// writing is still refused until a person has confirmed the place.
    pub moved: bool,
}

/// What a new archive's comment says of it.
pub struct Marks<'a> {
    /// The series that the archive belongs to.
    pub series: &'a Series,
    /// The run that makes it.
    pub run: &'a RunId,
    /// The machine that makes it.
    pub machine: Option<&'a MachineId>,
}

/// What to extract, and where to.
pub struct Extraction<'a> {
    /// Absolute paths; empty: everything.
    pub paths: &'a [PathBuf],
    /// Directories above them that are extracted without what is in them.
    pub above: &'a [PathBuf],
    /// Below which directory.
    pub to: &'a Path,
    /// Owners by name, not by number.
    pub owners_by_name: bool,
    /// Whether only what would be extracted is listed (`--dry-run`).
    pub dry_run: bool,
}

impl Repository<'_> {
    /// The verb with what all verbs share. A dry run answers a mutation with nothing.
    fn verb(&self, effect: Effect, verb: &[&str], progress: bool) -> CommandSpec {
        self.command(effect, verb, progress, Reading::default())
    }

    /// A verb that only reads copies.
    fn reader(&self, effect: Effect, verb: &[&str], progress: bool) -> CommandSpec {
        self.command(effect, verb, progress, self.reading)
    }

    fn command(
        &self,
        effect: Effect,
        verb: &[&str],
        progress: bool,
        reading: Reading,
    ) -> CommandSpec {
        let tool = PROGRAM.or(self.target.program.as_ref());
        let mut spec = CommandSpec::new(tool, effect).arg("--log-json");
        if reading.unlocked {
            spec = spec.arg("--bypass-lock");
        }
        if progress {
            spec = spec.arg("--progress");
        }
        spec = spec.arg("--lock-wait").arg(self.lock_wait.as_secs().to_string());
        if let Some(limit) = self.target.upload_limit_kib {
            spec = spec.arg("--upload-ratelimit").arg(limit.to_string());
        }
        spec = spec.args(verb.iter().copied());
        // Waiting for the lock is not a stall, although nothing moves meanwhile.
        spec.stall_limit = Some(self.target.stall_timeout + self.lock_wait);
        self.environment(spec, reading)
    }

    /// The environment of every call.
    fn environment(&self, mut spec: CommandSpec, reading: Reading) -> CommandSpec {
        let cache = cache_directory(self.settings);
        // Keys and the memory of known repositories must outlive a wiped cache.
        let state = state_directory(self.settings);
        if let Some(run) = self.run {
            spec = spec.env("BORG_HOST_ID", lock::owner(&self.settings.host, run));
        }
        // Whoever is only let in to read does not teach borg the new place, which it keeps in both.
        let (security, caches) = match reading.moved {
            true => (cache.join("moved/security"), cache.join("moved/cache")),
            false => (state.join("security"), cache.join("cache")),
        };
        let unencrypted = if self.borg.encryption == "none" { "yes" } else { "no" };
        spec = spec
            .env("BORG_BASE_DIR", cache.clone())
            .env("BORG_CACHE_DIR", caches)
            .env("BORG_CONFIG_DIR", state.join("config"))
            .env("BORG_KEYS_DIR", state.join("keys"))
            .env("BORG_SECURITY_DIR", security)
            .env("BORG_EXIT_CODES", "modern")
            .env(RELOCATED, if reading.moved { "yes" } else { "no" })
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", unencrypted)
            .env("TZ", "UTC");
        spec = match self.borg.ssh_command.as_slice() {
            [] => spec.env("BORG_RSH", SSH),
            words => spec.env("BORG_RSH", words.join(" ")),
        };
        if let Some(program) = &self.borg.remote_program {
            spec = spec.env("BORG_REMOTE_PATH", double_braces(program));
        }
        if let Some(key) = &self.borg.key_file {
            spec = spec.env("BORG_KEY_FILE", key.clone());
        }
        if let Some(directory) = self.temporary {
            spec = spec.env("TMPDIR", directory);
        }
        if let Some(passphrase) = self.passphrase {
            spec.secrets.push(SecretFd {
                variable: "BORG_PASSPHRASE_FD",
                style: FdStyle::Number,
                value: passphrase.clone(),
            });
        }
        spec
    }

    /// `REPOSITORY::ARCHIVE`.
    fn archive(&self, name: &str) -> String {
        format!("{}::{}", self.target.repository, double_braces(name))
    }

    /// Asks for the version; needs no repository.
    pub fn version(&self) -> CommandSpec {
        let tool = PROGRAM.or(self.target.program.as_ref());
        CommandSpec::helper(tool).arg("--version")
    }

    /// Creates the repository.
    pub fn init(&self) -> CommandSpec {
        self.verb(Effect::Mutate, &["init", "--encryption"], false).args([
            &self.borg.encryption,
            "--",
            &self.target.repository,
        ])
    }

    /// Looks at the repository through borg's cache, which also has borg remember its place from now on, wherever it
    /// was before.
    pub fn accept_place(&self) -> CommandSpec {
        let mut spec = self.verb(Effect::Mutate, &["info", "--json", "--"], false);
        for (name, value) in &mut spec.env {
            if name == RELOCATED {
                *value = EnvValue::Plain("yes".into());
            }
        }
        spec.arg(&self.target.repository)
    }

    /// Prints the key, encrypted with the passphrase, as a text.
    pub fn export_key(&self) -> CommandSpec {
        self.verb(Effect::Inspect, &["key", "export", "--"], false)
            .args([&self.target.repository, "-"])
    }

    /// Lists all archives, checkpoints included, or only the newest, to look at the repository itself.
    pub fn list(&self, only_newest: bool) -> CommandSpec {
        let mut spec =
            self.reader(Effect::Inspect, &["list", "--json", "--consider-checkpoints"], false);
        if only_newest {
            spec = spec.args(["--last", "1"]);
        }
        spec.args(["--", &self.target.repository])
    }

    /// Lists all archives with their comments, for which borg looks into each.
    pub fn list_comments(&self) -> CommandSpec {
        self.reader(
            Effect::Inspect,
            &["list", "--json", "--consider-checkpoints", "--format"],
            false,
        )
        .args(["{comment}", "--", &self.target.repository])
    }

    /// What a new archive is called, said and compressed with, before its operands.
    fn create(&self, marks: &Marks<'_>, name: &str) -> CommandSpec {
        let Marks { series, run, machine } = marks;
        let mut comment = serde_json::json!({
            "host": series.host, "job": series.job, "item": series.item, "run": run,
        });
        if let Some(machine) = machine {
            comment["machine"] = machine.as_str().into();
        }
        let mut spec = self
            .verb(Effect::Mutate, &["create", "--json", "--comment"], true)
            .arg(double_braces(&comment.to_string()))
            .env("BORG_FILES_CACHE_SUFFIX", files_cache_suffix(series));
        if let Some(compression) = &self.borg.compression {
            spec = spec.args(["--compression", compression]);
        }
        if let Some(mode) = &self.borg.files_cache {
            spec = spec.args(["--files-cache", mode]);
        }
        // borg 1.x takes a full disk below a local repository for an unreadable source file, goes on and
        // commits segments that were cut short (seen with 1.2.4 on ext4). Killed, it rolls back at its
        // next start.
        spec.fatal = Some(Judge(log::is_about_full_repository));
        spec.prediction = Prediction {
            stdout:
                br#"{"archive":{"stats":{"original_size":0,"deduplicated_size":0,"nfiles":0}}}"#
                    .to_vec(),
            facts: vec![self.fact(serde_json::json!({ "add": name }))],
        };
        spec
    }

    /// Makes an archive of a tree.
    ///
    /// # Errors
    /// The first exclude pattern that borg's words cannot say.
    pub fn create_tree(
        &self,
        marks: &Marks<'_>,
        name: &str,
        tree: &Tree,
    ) -> Result<CommandSpec, ExcludeError> {
        // Of every directory that it stores and of everything that it leaves out, borg says so in a line. To look for
        // the job's paths in the archive afterwards would start it once more and read the list of all its items.
        let mut spec = self.create(marks, name).args(["--list", "--filter", "dx"]);
        if tree.one_file_system {
            spec = spec.arg("--one-file-system");
        }
        if tree.exclude_caches {
            spec = spec.arg("--exclude-caches");
        }
        for tag in &tree.exclude_if_present {
            spec = spec.args(["--exclude-if-present", tag]);
        }
        if tree.exclude_caches || !tree.exclude_if_present.is_empty() {
            // The directory and its tag stay, as with restic.
            spec = spec.arg("--keep-exclude-tags");
        }
        for pattern in &tree.exclude {
            spec = spec.arg("--exclude").arg(to_borg(pattern)?);
        }
        if let Some(size) = tree.block_size {
            spec = spec.arg(format!("--chunker-params=fixed,{size}"));
        }
        spec.view = tree.view.clone();
        let paths = tree.paths.iter().map(|path| plain(path));
        Ok(spec.arg("--").arg(self.archive(name)).args(paths))
    }

    /// Makes an archive of what it reads on standard input, as one file.
    pub fn create_stream(&self, marks: &Marks<'_>, name: &str, file_name: &str) -> CommandSpec {
        self.create(marks, name).arg(format!("--stdin-name={file_name}")).args([
            "--",
            &self.archive(name),
            "-",
        ])
    }

    /// Deletes archives by exact name. borg takes these operands as they are, braces included.
    pub fn delete(&self, names: &[String]) -> CommandSpec {
        let mut spec = self
            .verb(Effect::Mutate, &["delete", "--"], false)
            .arg(&self.target.repository)
            .args(names);
        spec.prediction.facts =
            names.iter().map(|name| self.fact(serde_json::json!({ "gone": name }))).collect();
        spec
    }

    /// Gives an archive another name. borg expands braces in both.
    pub fn rename(&self, old: &str, new: &str) -> CommandSpec {
        let mut spec = self
            .verb(Effect::Mutate, &["rename", "--"], false)
            .args([self.archive(old), double_braces(new)]);
        spec.prediction.facts = vec![
            self.fact(serde_json::json!({ "gone": old })),
            self.fact(serde_json::json!({ "add": new })),
        ];
        spec
    }

    /// Frees the space that deletions left.
    pub fn compact(&self) -> CommandSpec {
        // How much it freed, borg says only when it is asked to talk.
        self.verb(Effect::Mutate, &["compact", "--info", "--"], true).arg(&self.target.repository)
    }

    /// Checks repository and archives; with `verify_data`, decrypts and hashes every chunk too.
    ///
    /// A mutation for a dry run's purposes: it takes the exclusive lock and hours.
    pub fn check(&self, verify_data: bool) -> CommandSpec {
        let mut spec = self.verb(Effect::Mutate, &["check"], true);
        if verify_data {
            spec = spec.arg("--verify-data");
        }
        spec.args(["--", &self.target.repository])
    }

    /// Reads a whole archive back and writes nothing. A mutation for a dry run's purposes, like [`Self::check`].
    pub fn verify(&self, name: &str) -> CommandSpec {
        self.reader(Effect::Mutate, &["extract", "--dry-run", "--"], false).arg(self.archive(name))
    }

    /// Extracts paths of an archive below a directory.
    pub fn extract(&self, name: &str, wanted: &Extraction<'_>) -> CommandSpec {
        let mut spec = if wanted.dry_run {
            self.reader(Effect::Inspect, &["extract", "--dry-run"], true)
        } else {
            // Holes stay holes. Directories that the archive does not hold are made for others to pass.
            self.reader(Effect::Mutate, &["extract", "--sparse", "--umask", "0022"], true)
        };
        if !wanted.owners_by_name {
            spec = spec.arg("--numeric-ids");
        }
        // No path of an honest archive has these, and borg before 1.4 follows them out of the directory.
        spec = spec.args(["--exclude", r"re:(^|/)\.\.(/|$)"]);
        // A dry run writes nothing there, and the directory need not exist.
        spec.directory = (!wanted.dry_run).then(|| wanted.to.to_owned());
        spec = spec.arg("--").arg(self.archive(name));
        // The prefix says that it is a path, whatever it looks like: this one alone, or with what is below.
        let above = wanted.above.iter().filter_map(|path| only(path));
        let paths = wanted.paths.iter().filter_map(|path| operand("pp:", path));
        spec.args(above.chain(paths))
    }

    /// Writes the content of one file of an archive to our own standard output.
    pub fn extract_to_stdout(&self, name: &str, path: &Path) -> CommandSpec {
        let mut spec = self
            .reader(Effect::Inspect, &["extract", "--stdout", "--"], false)
            .arg(self.archive(name))
            .args(only(path));
        spec.stdout = StdoutMode::PassOn;
        spec
    }

    /// Lists the entries of an archive, one a line.
    pub fn contents(&self, name: &str) -> CommandSpec {
        let mut spec = self
            .reader(Effect::Inspect, &["list", "--json-lines", "--"], false)
            .arg(self.archive(name));
        spec.stdout = StdoutMode::Lines;
        spec
    }

    /// Compares two archives, one difference a line.
    pub fn diff(&self, older: &str, newer: &str) -> CommandSpec {
        let mut spec = self
            .reader(Effect::Inspect, &["diff", "--json-lines", "--"], false)
            .args([self.archive(older), double_braces(newer)]);
        spec.stdout = StdoutMode::Lines;
        spec
    }

    /// Serves an archive as a file system, in the foreground.
    pub fn mount(&self, name: &str, at: &Path) -> CommandSpec {
        let tool = PROGRAM.or(self.target.program.as_ref());
        let unlocked = self.reading.unlocked.then_some("--bypass-lock");
        let mut spec = CommandSpec::new(tool, Effect::Mutate)
            .args(unlocked)
            .arg("--lock-wait")
            .arg(self.lock_wait.as_secs().to_string())
            .args(["mount", "-f", "--", &self.archive(name)])
            .arg(at);
        // On SIGTERM it ends without unmounting.
        spec.stop_signal = nix::libc::SIGINT;
        self.environment(spec, self.reading)
    }

    /// A predicted change of the list of archives.
    fn fact(&self, value: serde_json::Value) -> Fact {
        Fact { about: copies_of(&self.target.repository), value: value.to_string().into_bytes() }
    }
}

/// The subject of predictions about a repository's list of archives.
pub fn copies_of(repository: &str) -> String {
    format!("copies of {repository}")
}

/// Where borg keeps what it can make anew.
pub fn cache_directory(settings: &Settings) -> PathBuf {
    settings.fallback_cache.as_ref().unwrap_or(&settings.cache_dir).join("borg")
}

/// Where borg keeps what must outlive a wiped cache: its keys and its memory of known repositories.
pub fn state_directory(settings: &Settings) -> PathBuf {
    settings.state_dir.join("borg")
}

/// Which files cache a series uses. borg forgets files that twenty backups in a row did not hold, so
/// series that share a cache re-read everything.
fn files_cache_suffix(series: &Series) -> String {
    match &series.item {
        Some(item) => format!("{}.{}", series.job, name::encode(item)),
        None => series.job.to_string(),
    }
}

/// A path of an archive as a pattern of this kind; `None` for the root, which is no path in it.
fn operand(prefix: &str, path: &Path) -> Option<OsString> {
    let path = plain(path);
    let inside = path.as_bytes();
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    let mut operand = OsString::from(prefix);
    operand.push(std::ffi::OsStr::from_bytes(inside));
    (!inside.is_empty()).then_some(operand)
}

/// A pattern that matches this path of an archive and nothing below it. `pf:` would do the same, but borg says of
/// each that it never matched.
fn only(path: &Path) -> Option<OsString> {
    let path = operand("", path)?;
    let mut pattern = br"re:\A".to_vec();
    for byte in path.as_bytes() {
        if byte.is_ascii() && !byte.is_ascii_alphanumeric() {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.extend_from_slice(br"\Z");
    Some(OsString::from_vec(pattern))
}

/// Doubles braces, which borg would expand.
fn double_braces(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// The path without `.` parts and doubled slashes: `/./` inside a path has a meaning of its own to borg 1.4.
fn plain(path: &Path) -> OsString {
    let parts: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    parts.into_os_string()
}

#[cfg(test)]
mod tests;
