//! restic's command lines. One function a subcommand; what a version cannot do is left out here, or
//! refused by the engine before.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{Access, Repository};
use crate::host::{CommandSpec, Effect, EnvValue, FdStyle, SecretFd, StdoutMode, Tool};
use crate::model::target::ReadData;
use crate::tools::Tree;

/// SIGINT and SIGTERM on Linux.
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// `restic version`: in text, since JSON came with 0.17 only.
pub fn version(program: &Tool) -> CommandSpec {
    CommandSpec::helper(program.clone()).arg("version")
}

/// Whether a command takes a lock in the repository, and so may have to wait for one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Taken,
    /// Taken by what only reads copies, unless it cannot be had.
    ToRead,
    /// `--no-lock`: for what reads single files that never change once they are there. So a look works
    /// while somebody prunes, on a read-only medium, and leaves nothing behind.
    None,
}

fn base(access: &Access, effect: Effect, lock: Lock, subcommand: &str) -> CommandSpec {
    let mut spec = CommandSpec::new(access.program.clone(), effect).arg(subcommand);
    let location = access.repository.location.as_str();
    spec.env.push((
        "RESTIC_REPOSITORY".into(),
        if access.repository.is_secret() {
            EnvValue::Secret(crate::model::secret::Secret::new(location))
        } else {
            EnvValue::Plain(location.into())
        },
    ));
    spec = spec.env("RESTIC_CACHE_DIR", &access.cache).env("RESTIC_PROGRESS_FPS", "1");
    if let Some(temporary) = &access.temporary {
        spec = spec.env("TMPDIR", temporary);
    }
    for (name, value) in &access.repository.environment {
        spec.env.push((name.clone(), EnvValue::Secret(value.clone())));
    }
    match &access.repository.password {
        Some(password) => spec.secrets.push(SecretFd {
            variable: "RESTIC_PASSWORD_FILE",
            style: FdStyle::Path,
            value: password.clone(),
        }),
        None => spec = spec.arg("--insecure-no-password"),
    }
    if lock != Lock::None {
        spec.host_name = access.lock_owner.clone();
    }
    match lock {
        Lock::None => spec = spec.arg("--no-lock"),
        Lock::ToRead if access.unlocked => spec = spec.arg("--no-lock"),
        Lock::Taken | Lock::ToRead
            if access.version.waits_for_locks() && !access.lock_wait.is_zero() =>
        {
            spec = spec.arg(format!("--retry-lock={}s", access.lock_wait.as_secs().max(1)));
        }
        Lock::Taken | Lock::ToRead => {}
    }
    // It prints its status every second, whatever happens.
    spec.repeats_itself = true;
    // Waiting for the lock is not a stall, although nothing moves meanwhile.
    spec.stall_limit = Some(access.stall_limit + access.lock_wait);
    spec.stop_signal = if access.version.ends_on_sigterm() { SIGTERM } else { SIGINT };
    spec
}

/// The limits of a command that stores data.
fn storing(access: &Access, mut spec: CommandSpec) -> CommandSpec {
    if let Some(compression) = &access.compression {
        spec = spec.arg(format!("--compression={compression}"));
    }
    if let Some(limit) = access.upload_limit_kib {
        spec = spec.arg(format!("--limit-upload={limit}"));
    }
    spec
}

/// Adds the source repository of `copy` and of `init --copy-chunker-params`.
fn from(mut spec: CommandSpec, source: &Repository) -> CommandSpec {
    spec.env.push((
        "RESTIC_FROM_REPOSITORY".into(),
        if source.is_secret() {
            EnvValue::Secret(crate::model::secret::Secret::new(source.location.as_str()))
        } else {
            EnvValue::Plain(source.location.as_str().into())
        },
    ));
    match &source.password {
        Some(password) => spec.secrets.push(SecretFd {
            variable: "RESTIC_FROM_PASSWORD_FILE",
            style: FdStyle::Path,
            value: password.clone(),
        }),
        None => spec = spec.arg("--from-insecure-no-password"),
    }
    // One process has one environment: what both sides set is equal, or the engine has refused already.
    for (name, value) in &source.environment {
        if !spec.env.iter().any(|(known, _)| known == name) {
            spec.env.push((name.clone(), EnvValue::Secret(value.clone())));
        }
    }
    spec
}

/// `restic init`, with the chunker parameters of the repository that it will be filled from, so that
/// copies deduplicate against what is there.
pub fn init(access: &Access, source: Option<&Repository>) -> CommandSpec {
    let spec = base(access, Effect::Mutate, Lock::Taken, "init").arg("--json");
    match source {
        Some(source) => from(spec.arg("--copy-chunker-params"), source),
        None => spec,
    }
}

/// `restic cat config`.
pub fn cat_config(access: &Access) -> CommandSpec {
    base(access, Effect::Inspect, Lock::None, "cat").arg("config")
}

/// `restic snapshots --json`.
pub fn snapshots(access: &Access) -> CommandSpec {
    base(access, Effect::Inspect, Lock::None, "snapshots").arg("--json")
}

/// What identifies a new snapshot.
#[derive(Debug, Clone)]
pub struct Identity<'a> {
    /// `--host`.
    pub host: &'a str,
    /// `--tag`, each one a tag.
    pub tags: &'a [String],
    /// `--time`, in whole seconds: the moment the snapshot stands for, not that of the upload.
    pub time: chrono::DateTime<chrono::Utc>,
}

fn identified(access: &Access, identity: &Identity<'_>) -> CommandSpec {
    let mut spec = storing(access, base(access, Effect::Mutate, Lock::Taken, "backup")).args([
        "--json",
        "--host",
        identity.host,
    ]);
    for tag in identity.tags {
        spec = spec.arg("--tag").arg(tag);
    }
    // restic reads the time in the local zone of its process.
    spec = spec
        .arg("--time")
        .arg(identity.time.format("%Y-%m-%d %H:%M:%S").to_string())
        .env("TZ", "UTC");
    spec.stdout = StdoutMode::Lines;
    spec
}

/// `restic backup` of files.
///
/// The parent, whose unchanged files are not read again, is left to restic: the newest snapshot of the same
/// host and paths (`--group-by host,paths`, the default since 0.16 and the only way before). Grouping by
/// tags cannot work, since `run=` differs every time, and naming the parent would cost the start of a
/// listing. When a job's paths are edited, one run reads everything; what is stored is the same.
pub fn backup_tree(access: &Access, identity: &Identity<'_>, tree: &Tree) -> CommandSpec {
    let mut spec = identified(access, identity);
    if access.version.has_feature_flags() {
        spec = spec.env("RESTIC_FEATURES", "device-id-for-hardlinks=true");
    }
    for pattern in &tree.exclude {
        spec = spec.arg("--exclude").arg(pattern);
    }
    if tree.exclude_caches {
        spec = spec.arg("--exclude-caches");
    }
    for name in &tree.exclude_if_present {
        spec = spec.arg("--exclude-if-present").arg(name);
    }
    if tree.one_file_system {
        spec = spec.arg("--one-file-system");
    }
    spec = spec.arg("--").args(&tree.paths);
    spec.view = tree.view.clone();
    spec
}

/// `restic backup --stdin`.
pub fn backup_stream(access: &Access, identity: &Identity<'_>, file_name: &str) -> CommandSpec {
    identified(access, identity).args(["--stdin", "--stdin-filename", file_name])
}

/// `restic forget ID…`. Without a policy and without `--prune`: exactly these, and nothing else.
pub fn forget(access: &Access, ids: &[String]) -> CommandSpec {
    base(access, Effect::Mutate, Lock::Taken, "forget").arg("--json").args(ids)
}

/// `restic prune`. In text: its JSON came after 0.19.
pub fn prune(access: &Access) -> CommandSpec {
    let mut spec = storing(access, base(access, Effect::Mutate, Lock::Taken, "prune"));
    spec.stdout = StdoutMode::Lines;
    spec
}

/// `restic check`. `--json` changes nothing before 0.18.
///
/// A mutation for a dry run's purposes: it takes the exclusive lock and hours.
pub fn check(access: &Access, read_data: ReadData) -> CommandSpec {
    let mut spec = base(access, Effect::Mutate, Lock::ToRead, "check").arg("--json");
    spec = match read_data {
        ReadData::None => spec,
        ReadData::Percent(share) => spec.arg(format!("--read-data-subset={share}%")),
        ReadData::All => spec.arg("--read-data"),
    };
    spec.stdout = StdoutMode::Lines;
    spec
}

/// `restic dump ID /` to nowhere: reads, decrypts and authenticates every blob of one snapshot. A mutation
/// for a dry run's purposes, like [`check`].
pub fn dump_all(access: &Access, id: &str) -> CommandSpec {
    let mut spec =
        base(access, Effect::Mutate, Lock::ToRead, "dump").args(["--archive", "tar", id, "/"]);
    spec.stdout = StdoutMode::Discard;
    spec
}

/// `restic dump ID PATH`, to our own standard output.
pub fn dump(access: &Access, id: &str, path: &Path) -> CommandSpec {
    let mut spec = base(access, Effect::Inspect, Lock::ToRead, "dump").args(["--", id]).arg(path);
    spec.stdout = StdoutMode::PassOn;
    spec
}

/// `restic restore ID`. The original paths are laid out below `to`. `preview` writes nothing and needs
/// [`super::Version::previews_restore`].
pub fn restore(
    access: &Access,
    id: &str,
    paths: &[PathBuf],
    to: &Path,
    preview: bool,
) -> CommandSpec {
    let (effect, lock) =
        if preview { (Effect::Inspect, Lock::None) } else { (Effect::Mutate, Lock::ToRead) };
    let mut spec = base(access, effect, lock, "restore").arg("--json").arg("--target").arg(to);
    if access.version.restores_holes() {
        spec = spec.arg("--sparse");
    }
    for path in paths {
        spec = spec.arg("--include").arg(literal(path));
    }
    if preview {
        spec = spec.arg("--dry-run");
    }
    spec.stdout = StdoutMode::Lines;
    spec.arg("--").arg(id)
}

/// A path as a pattern of `--include` that matches nothing but it.
pub fn literal(path: &Path) -> OsString {
    let mut pattern = Vec::with_capacity(path.as_os_str().len());
    for byte in path.as_os_str().as_bytes() {
        if b"\\*?[".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    OsString::from_vec(pattern)
}

/// `restic mount`, narrowed by host and tags. Each snapshot is at `MOUNTPOINT/SHORT-ID`, the first eight
/// digits of its id.
pub fn mount(access: &Access, host: Option<&str>, tags: &[String], at: &Path) -> CommandSpec {
    let mut spec = base(access, Effect::Mutate, Lock::ToRead, "mount");
    if let Some(host) = host {
        spec = spec.args(["--host", host]);
    }
    if !tags.is_empty() {
        // One list is a conjunction; several `--tag` are alternatives.
        spec = spec.arg("--tag").arg(tags.join(","));
    }
    spec.stall_limit = None;
    spec.stdout = StdoutMode::Lines;
    spec.args(["--path-template", "%i", "--"]).arg(at)
}

/// `restic ls --json ID`, of everything, or of these paths and what lies directly in them.
pub fn ls(access: &Access, id: &str, paths: &[&Path]) -> CommandSpec {
    let mut spec =
        base(access, Effect::Inspect, Lock::ToRead, "ls").args(["--json", "--", id]).args(paths);
    spec.stdout = StdoutMode::Lines;
    spec
}

/// `restic diff --json --metadata OLDER NEWER`.
pub fn diff(access: &Access, older: &str, newer: &str) -> CommandSpec {
    let mut spec = base(access, Effect::Inspect, Lock::ToRead, "diff").args([
        "--json",
        "--metadata",
        older,
        newer,
    ]);
    spec.stdout = StdoutMode::Lines;
    spec
}

/// `restic tag --add|--remove TAG ID`. The snapshot gets a new id.
pub fn tag(access: &Access, id: &str, tag: &str, add: bool) -> CommandSpec {
    base(access, Effect::Mutate, Lock::Taken, "tag").args([
        "--json",
        if add { "--add" } else { "--remove" },
        tag,
        id,
    ])
}

/// `restic copy ID…` from another repository. In text: it has no JSON.
pub fn copy(access: &Access, source: &Repository, ids: &[String]) -> CommandSpec {
    let spec = storing(access, base(access, Effect::Mutate, Lock::Taken, "copy"));
    let mut spec = from(spec, source).args(ids);
    spec.stdout = StdoutMode::Lines;
    spec
}

/// `restic list locks`: an id a line.
pub fn list_locks(access: &Access) -> CommandSpec {
    base(access, Effect::Inspect, Lock::None, "list").arg("locks")
}

/// `restic cat lock ID`.
pub fn cat_lock(access: &Access, id: &str) -> CommandSpec {
    base(access, Effect::Inspect, Lock::None, "cat").args(["lock", id])
}

/// `restic unlock` under the host name that the locks of one run bear: removes those whose processes are no more,
/// and every lock that nobody refreshed for half an hour. Never `--remove-all`.
pub fn unlock(access: &Access, owner: &str) -> CommandSpec {
    let mut spec = base(access, Effect::Mutate, Lock::None, "unlock");
    spec.host_name = Some(owner.to_owned());
    spec
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::*;
    use crate::model::secret::Secret;

    fn access(version: &str, location: &str) -> Access {
        Access {
            program: super::super::PROGRAM,
            version: Version::parse(&format!("restic {version} x")).unwrap(),
            repository: Repository {
                location: location.into(),
                password: Some(Secret::new(*b"geheim")),
                environment: vec![("AWS_KEY".into(), Secret::new(*b"schluessel"))],
            },
            cache: "/var/cache/stillpoint/restic".into(),
            temporary: Some("/var/cache/stillpoint/tmp".into()),
            lock_wait: std::time::Duration::from_secs(120),
            stall_limit: std::time::Duration::from_secs(3600),
            compression: Some("max".into()),
            upload_limit_kib: Some(100),
            lock_owner: Some("web1.stillpoint-0badcafe".into()),
            unlocked: false,
        }
    }

    fn value<'a>(spec: &'a CommandSpec, name: &str) -> Option<&'a EnvValue> {
        spec.env.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn backup(version: &str) -> CommandSpec {
        let tags = vec!["job=web".to_owned(), "run=0badcafe".to_owned()];
        let identity = Identity {
            host: "h",
            tags: &tags,
            time: chrono::DateTime::from_timestamp(1_700_000_000, 5).unwrap(),
        };
        let tree = Tree {
            paths: vec!["/a b".into(), "/-x".into()],
            exclude: vec!["*.o".into()],
            exclude_caches: true,
            exclude_if_present: vec![".nobackup".into()],
            one_file_system: true,
            // restic is told nothing of it.
            block_size: Some(524_288),
            view: crate::host::PrivateView::default(),
        };
        backup_tree(&access(version, "/srv/r"), &identity, &tree)
    }

    #[test]
    fn a_backup_on_the_oldest_version() {
        let spec = backup("0.14.0");
        assert_eq!(
            spec.display(),
            "restic backup --compression=max --limit-upload=100 --json --host h --tag job=web --tag run=0badcafe \
             --time '2023-11-14 22:13:20' --exclude '*.o' --exclude-caches --exclude-if-present .nobackup \
             --one-file-system -- '/a b' /-x"
        );
        assert_eq!(spec.stop_signal, SIGINT);
        assert_eq!(spec.host_name.as_deref(), Some("web1.stillpoint-0badcafe"));
        assert_eq!(value(&spec, "TZ"), Some(&EnvValue::Plain("UTC".into())));
        assert_eq!(value(&spec, "RESTIC_FEATURES"), None);
        assert_eq!(
            value(&spec, "TMPDIR"),
            Some(&EnvValue::Plain("/var/cache/stillpoint/tmp".into()))
        );
    }

    #[test]
    fn a_backup_on_a_newer_version() {
        let spec = backup("0.18.0");
        assert!(spec.display().contains("--retry-lock=120s"));
        assert_eq!(spec.stop_signal, SIGTERM);
        assert_eq!(
            value(&spec, "RESTIC_FEATURES"),
            Some(&EnvValue::Plain("device-id-for-hardlinks=true".into()))
        );
    }

    #[test]
    fn no_secret_is_in_argv_or_debug() {
        let access = access("0.18.0", "rest:https://me:pw99@host/r");
        let mut source = access.repository.clone();
        source.location = "rest:https://me:pw98@host/s".into();
        let spec = copy(&access, &source, &["00".into()]);
        let shown = format!("{spec:?}{}", spec.display());
        for secret in ["geheim", "schluessel", "pw99", "pw98"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(
            spec.secrets.iter().map(|s| s.variable).collect::<Vec<_>>(),
            ["RESTIC_PASSWORD_FILE", "RESTIC_FROM_PASSWORD_FILE"]
        );
        assert_eq!(spec.env.iter().filter(|(name, _)| name == "AWS_KEY").count(), 1);
    }

    #[test]
    fn a_path_is_no_pattern() {
        assert_eq!(literal(Path::new(r"/a[b]*c?\d")), r"/a\[b]\*c\?\\d");
        let spec =
            restore(&access("0.18.0", "/r"), "ab12", &["/x*".into()], Path::new("/to"), true);
        assert_eq!(spec.effect, Effect::Inspect);
        assert!(
            spec.display().ends_with(
                r"restore --no-lock --json --target /to --sparse --include '/x\*' --dry-run -- ab12"
            ),
            "{}",
            spec.display()
        );
    }

    #[test]
    fn only_reading_passes_a_lock_that_cannot_be_had() {
        let access = Access { unlocked: true, ..access("0.18.0", "/r") };
        let (to, at) = (Path::new("/to"), Path::new("/mnt"));
        let reading = [
            restore(&access, "ab", &[], to, false),
            dump_all(&access, "ab"),
            ls(&access, "ab", &[]),
            diff(&access, "ab", "cd"),
            mount(&access, None, &[], at),
            check(&access, ReadData::None),
        ];
        for spec in reading {
            assert!(spec.display().contains("--no-lock"), "{}", spec.display());
        }
        // Where there is a lock, it is the ledger's to know.
        let locked = Access { unlocked: false, ..access.clone() };
        for spec in [check(&locked, ReadData::None), dump_all(&locked, "ab")] {
            assert!(!spec.display().contains("--no-lock"), "{}", spec.display());
            assert_eq!(spec.host_name, locked.lock_owner);
        }
        let ids = ["00".to_owned()];
        for spec in [forget(&access, &ids), prune(&access), tag(&access, "00", "x", true)] {
            assert!(!spec.display().contains("--no-lock"), "{}", spec.display());
        }
    }

    #[test]
    fn looks_take_no_lock_and_change_nothing() {
        for spec in [cat_config(&access("0.18.0", "/r")), snapshots(&access("0.18.0", "/r"))] {
            assert_eq!((spec.effect, &spec.host_name), (Effect::Inspect, &None));
            assert!(spec.display().contains("--no-lock"));
        }
        let spec = forget(&access("0.18.0", "/r"), &["00".into(), "11".into()]);
        assert!(!spec.display().contains("prune"));
        assert_eq!(spec.effect, Effect::Mutate);
    }
}
