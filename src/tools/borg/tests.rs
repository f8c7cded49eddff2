//! The command lines, word by word.

use std::ffi::OsStr;

use chrono::Utc;

use super::*;
use crate::model::names::{HostName, JobName, TargetName};
use crate::model::target::{EngineConfig, WhenAbsent};

fn settings() -> Settings {
    Settings {
        host: HostName::new("web1").unwrap(),
        state_dir: "/state".into(),
        runtime_dir: "/run/s".into(),
        cache_dir: "/cache".into(),
        fallback_cache: None,
        parallel: 1,
        parallel_targets: 1,
        lock_wait: Duration::from_secs(120),
        metrics_file: None,
        max_age: Duration::from_secs(1),
    }
}

fn target() -> (Target, BorgOptions) {
    let borg = BorgOptions {
        key_file: None,
        encryption: "repokey-blake2".into(),
        compression: Some("zstd,6".into()),
        files_cache: Some("ctime,size,inode".into()),
        remote_program: None,
        ssh_command: Vec::new(),
    };
    let target = Target {
        name: TargetName::new("usb").unwrap(),
        repository: "/srv/r".into(),
        local: Some("/srv/r".into()),
        secret: None,
        require_mount: None,
        when_absent: WhenAbsent::Fail,
        program: None,
        copy_from: None,
        upload_limit_kib: None,
        stall_timeout: Duration::from_secs(600),
        engine: EngineConfig::Borg(borg.clone()),
        keep: None,
        check: None,
        compact_every: None,
        append_only: false,
    };
    (target, borg)
}

fn repository<'a>(
    (target, borg): &'a (Target, BorgOptions),
    settings: &'a Settings,
) -> Repository<'a> {
    Repository {
        target,
        borg,
        settings,
        passphrase: None,
        temporary: None,
        lock_wait: Duration::from_secs(120),
        run: None,
        reading: Reading::default(),
    }
}

fn marks<'a>(series: &'a Series, run: &'a RunId, machine: &'a MachineId) -> Marks<'a> {
    Marks { series, run, machine: Some(machine) }
}

fn machine() -> MachineId {
    MachineId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0xff])
}

fn words(spec: &CommandSpec) -> String {
    spec.display()
}

fn variable<'a>(spec: &'a CommandSpec, name: &str) -> Option<&'a OsStr> {
    let mut found = spec.env.iter().filter(|(key, _)| key == name);
    let value = found.next();
    assert!(found.next().is_none(), "{name} is set twice");
    match value {
        Some((_, EnvValue::Plain(value))) => Some(value),
        Some((_, EnvValue::Secret(_))) => panic!("{name} is a secret in the environment"),
        None => None,
    }
}

fn series() -> Series {
    Series {
        host: HostName::new("web1").unwrap(),
        job: JobName::new("host").unwrap(),
        item: Some("a_b".into()),
    }
}

#[test]
fn create_says_all_that_was_configured() {
    let (settings, target) = (settings(), target());
    let run = RunId::parse("0a1b2c3d").unwrap();
    let tree = Tree {
        paths: vec!["/etc/./x//y".into(), "/home".into()],
        exclude: vec!["/a".into()],
        exclude_caches: true,
        exclude_if_present: vec![".nobackup".into()],
        one_file_system: true,
        block_size: None,
        view: crate::host::PrivateView::default(),
    };
    let (series, machine) = (series(), machine());
    let marks = marks(&series, &run, &machine);
    let spec = repository(&target, &settings).create_tree(&marks, "n{}", &tree).unwrap();
    assert_eq!(
        words(&spec),
        "borg --log-json --progress --lock-wait 120 create --json --comment \
         '{{\"host\":\"web1\",\"item\":\"a_b\",\"job\":\"host\",\"machine\":\"00000000000000ff\",\"run\":\"0a1b2c3d\"}}' \
         --compression zstd,6 --files-cache ctime,size,inode --list --filter dx --one-file-system --exclude-caches \
         --exclude-if-present .nobackup --keep-exclude-tags --exclude 're:\\Aa(?:/|\\Z)' \
         -- '/srv/r::n{{}}' /etc/x/y /home"
    );
    assert_eq!(spec.effect, Effect::Mutate);
    assert_eq!(variable(&spec, "BORG_FILES_CACHE_SUFFIX"), Some(OsStr::new("host.a__b")));
    assert_eq!(spec.prediction.facts[0].about, "copies of /srv/r");
    assert_eq!(spec.prediction.facts[0].value, br#"{"add":"n{}"}"#);
    output::parse_created(&spec.prediction.stdout).unwrap();
}

#[test]
fn a_volume_is_cut_into_blocks_of_one_size() {
    let (settings, target, series, machine) = (settings(), target(), series(), machine());
    let run = RunId::parse("0a1b2c3d").unwrap();
    let create = |block_size| {
        let tree = Tree { paths: vec!["/v".into()], block_size, ..Tree::default() };
        let marks = marks(&series, &run, &machine);
        words(&repository(&target, &settings).create_tree(&marks, "n", &tree).unwrap())
    };
    let blocks = create(Some(524_288));
    assert!(blocks.contains(" --chunker-params=fixed,524288 -- /srv/r::n /v"), "{blocks}");
    assert!(!create(None).contains("--chunker-params"));
}

#[test]
fn every_item_of_a_job_has_a_files_cache_of_its_own() {
    let (settings, target, machine) = (settings(), target(), machine());
    let run = RunId::parse("0a1b2c3d").unwrap();
    let suffix = |item: Option<&str>| {
        let series = Series { item: item.map(str::to_owned), ..series() };
        let tree = Tree { paths: vec!["/v".into()], ..Tree::default() };
        let marks = marks(&series, &run, &machine);
        let spec = repository(&target, &settings).create_tree(&marks, "n", &tree).unwrap();
        variable(&spec, "BORG_FILES_CACHE_SUFFIX").unwrap().to_owned()
    };
    assert_eq!(suffix(None), "host");
    assert_eq!(suffix(Some("vda")), "host.vda");
    assert_eq!(suffix(Some("vdb")), "host.vdb");
    // Nor do names share one that differ in what a file's name cannot hold.
    assert_ne!(suffix(Some("a/b")), suffix(Some("a_b")));
}

#[test]
fn a_stream_is_read_from_standard_input() {
    let (settings, target) = (settings(), target());
    let run = RunId::parse("0a1b2c3d").unwrap();
    let name = name::archive_name(&series(), Utc::now(), &run);
    let spec = repository(&target, &settings).create_stream(
        &marks(&series(), &run, &machine()),
        &name,
        "-dump.sql",
    );
    let end = format!("--stdin-name=-dump.sql -- /srv/r::{name} -");
    assert!(words(&spec).ends_with(&end), "{}", words(&spec));
}

#[test]
fn keys_survive_a_wiped_cache_and_no_question_is_answered_with_yes() {
    let (settings, mut target) = (settings(), target());
    let spec = repository(&target, &settings).list(false);
    for name in ["BORG_CONFIG_DIR", "BORG_KEYS_DIR", "BORG_SECURITY_DIR"] {
        let value = variable(&spec, name).unwrap();
        assert!(Path::new(value).starts_with("/state/borg"), "{name} is {value:?}");
    }
    assert_eq!(variable(&spec, "BORG_CACHE_DIR"), Some(OsStr::new("/cache/borg/cache")));
    assert_eq!(variable(&spec, "TZ"), Some(OsStr::new("UTC")));
    assert_eq!(variable(&spec, "BORG_RELOCATED_REPO_ACCESS_IS_OK"), Some(OsStr::new("no")));
    let unencrypted = "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK";
    assert_eq!(variable(&spec, unencrypted), Some(OsStr::new("no")));
    assert!(variable(&spec, "BORG_RSH").unwrap().to_str().unwrap().contains("BatchMode=yes"));
    target.1.encryption = "none".into();
    target.1.ssh_command = vec!["ssh".into(), "-i/key".into()];
    target.1.remote_program = Some("borg{x}".into());
    target.1.key_file = Some("/k".into());
    let spec = repository(&target, &settings).list(false);
    assert_eq!(variable(&spec, unencrypted), Some(OsStr::new("yes")));
    assert_eq!(variable(&spec, "BORG_RSH"), Some(OsStr::new("ssh -i/key")));
    assert_eq!(variable(&spec, "BORG_REMOTE_PATH"), Some(OsStr::new("borg{{x}}")));
    assert_eq!(variable(&spec, "BORG_KEY_FILE"), Some(OsStr::new("/k")));
}

#[test]
fn the_passphrase_goes_by_descriptor_alone() {
    let (settings, target) = (settings(), target());
    let secret = Secret::new("correct horse");
    let mut repository = repository(&target, &settings);
    repository.passphrase = Some(&secret);
    for spec in [repository.init(), repository.list(true), repository.mount("a", Path::new("/m"))] {
        assert_eq!(spec.secrets.len(), 1);
        assert_eq!(spec.secrets[0].variable, "BORG_PASSPHRASE_FD");
        assert!(!format!("{spec:?}").contains("horse"));
    }
    assert!(repository.version().secrets.is_empty());
}

#[test]
fn every_lock_bears_the_name_of_the_run_that_the_ledger_knows_and_of_no_other() {
    let (settings, target) = (settings(), target());
    let mut repository = repository(&target, &settings);
    let run = RunId::parse("0badcafe").unwrap();
    for run in [None, Some(&run)] {
        repository.run = run;
        for spec in [
            repository.list(false),
            repository.contents("a"),
            repository.diff("a", "b"),
            repository.verify("a"),
            repository.extract("a", &everything()),
            repository.extract_to_stdout("a", Path::new("/x")),
            repository.mount("a", Path::new("/m")),
            repository.rename("a", "b"),
            repository.delete(&["a".into()]),
            repository.compact(),
            repository.check(false),
            repository.accept_place(),
        ] {
            let name = spec.env.iter().find(|(name, _)| name == "BORG_HOST_ID");
            let expected = EnvValue::Plain("web1.stillpoint-0badcafe".into());
            assert_eq!(name.map(|(_, value)| value), run.map(|_| &expected), "{}", words(&spec));
        }
    }
}

#[test]
fn extraction_takes_exact_paths_below_a_directory() {
    let (settings, target) = (settings(), target());
    let repository = repository(&target, &settings);
    let paths = ["/".into(), "/re:x/-y".into(), "/sh:a".into()];
    let above = ["/re:x".into()];
    let mut wanted = Extraction { paths: &paths, above: &above, ..everything() };
    let spec = repository.extract("a", &wanted);
    assert_eq!(
        words(&spec),
        "borg --log-json --progress --lock-wait 120 extract --sparse --umask 0022 --numeric-ids \
         --exclude 're:(^|/)\\.\\.(/|$)' -- /srv/r::a 're:\\Are\\:x\\Z' pp:re:x/-y pp:sh:a"
    );
    assert_eq!(spec.directory.as_deref(), Some(Path::new("/to")));
    wanted.owners_by_name = true;
    assert!(!words(&repository.extract("a", &wanted)).contains("--numeric-ids"));
    let dry = repository.extract("a", &Extraction { dry_run: true, ..everything() });
    assert_eq!(dry.effect, Effect::Inspect);
    assert!(words(&dry).ends_with(" -- /srv/r::a"));
    assert_eq!(dry.directory, None);
    let streamed = repository.extract_to_stdout("a", Path::new("/x/y"));
    assert_eq!(streamed.stdout, StdoutMode::PassOn);
    assert!(words(&streamed).ends_with("extract --stdout -- /srv/r::a 're:\\Ax\\/y\\Z'"));
}

/// All of an archive.
fn everything<'a>() -> Extraction<'a> {
    let to = Path::new("/to");
    Extraction { paths: &[], above: &[], to, owners_by_name: false, dry_run: false }
}

#[test]
fn deletion_names_archives_exactly() {
    let (settings, target) = (settings(), target());
    let spec = repository(&target, &settings).delete(&["a".into(), "-b{c}".into()]);
    assert!(words(&spec).ends_with("delete -- /srv/r a '-b{c}'"), "{}", words(&spec));
    assert_eq!(spec.prediction.facts[1].value, br#"{"gone":"-b{c}"}"#);
}

#[test]
fn looking_is_not_changing() {
    let (settings, target) = (settings(), target());
    let repository = repository(&target, &settings);
    for spec in [
        repository.version(),
        repository.list(false),
        repository.list(true),
        repository.contents("a"),
        repository.diff("a", "b"),
        repository.export_key(),
    ] {
        assert_eq!(spec.effect, Effect::Inspect, "{}", words(&spec));
    }
    for spec in [
        repository.init(),
        repository.compact(),
        repository.check(true),
        repository.verify("a"),
        repository.extract("a", &everything()),
        repository.mount("a", Path::new("/m")),
    ] {
        assert_eq!(spec.effect, Effect::Mutate, "{}", words(&spec));
    }
}

#[test]
fn only_reading_passes_the_lock_and_the_place() {
    let (target, settings) = (target(), settings());
    let repository = Repository {
        reading: Reading { unlocked: true, moved: true },
        ..repository(&target, &settings)
    };
    let names = ["a".to_owned()];
    let extraction = Extraction {
        paths: &[],
        above: &[],
        to: "/to".as_ref(),
        owners_by_name: false,
        dry_run: false,
    };
    let reading = [
        repository.extract_to_stdout("a", "/f".as_ref()),
        repository.list(false),
        repository.contents("a"),
        repository.diff("a", "b"),
        repository.verify("a"),
        repository.extract("a", &extraction),
        repository.mount("a", "/mnt".as_ref()),
    ];
    for spec in reading {
        assert!(words(&spec).contains("--bypass-lock"), "{}", words(&spec));
        assert_eq!(variable(&spec, RELOCATED).unwrap(), "yes");
        assert_eq!(variable(&spec, "BORG_SECURITY_DIR").unwrap(), "/cache/borg/moved/security");
        assert_eq!(variable(&spec, "BORG_CACHE_DIR").unwrap(), "/cache/borg/moved/cache");
    }
    for spec in [repository.delete(&names), repository.compact(), repository.check(false)] {
        assert!(!words(&spec).contains("--bypass-lock"), "{}", words(&spec));
        assert_eq!(variable(&spec, RELOCATED).unwrap(), "no");
        assert_eq!(variable(&spec, "BORG_SECURITY_DIR").unwrap(), "/state/borg/security");
    }
    let spec = repository.accept_place();
    assert_eq!(variable(&spec, RELOCATED).unwrap(), "yes");
    assert_eq!(variable(&spec, "BORG_SECURITY_DIR").unwrap(), "/state/borg/security");
}
