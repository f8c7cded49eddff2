use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::super::names::{HostName, TargetName};
use super::super::target::{RemoteSide, Server};
use super::*;

fn path_of_any_bytes() -> PathBuf {
    PathBuf::from(OsString::from_vec(b"/home/caf\xe9\n/x".to_vec()))
}

fn snapshot() -> SubvolumeSnapshot {
    SubvolumeSnapshot {
        file_system: Some("fs-uuid".into()),
        device: "/dev/sdb".into(),
        mounted_at: "/home".into(),
        name: ".stillpoint.0badc0de.0".into(),
        origin: "uuid".into(),
    }
}

fn far_snapshot() -> FarSnapshot {
    FarSnapshot {
        host: HostName::new("web1").unwrap(),
        server: Server {
            login: "pull@web1".into(),
            port: Some(2222),
            directory: "/mnt/btrfs/.stillpoint".into(),
            ssh_command: vec!["ssh".into(), "-4".into()],
            side: RemoteSide::BtrfsProgs { sudo: true },
            program: "btrfs".into(),
        },
        file_system: u64::MAX,
        above: 7,
        name: ".stillpoint.0badc0de.web.0".into(),
        origin: "uuid".into(),
    }
}

#[test]
fn a_snapshot_on_another_machine_is_read_back() {
    let undo: Undo = CaptureUndo::from(far_snapshot()).into();
    let written = r#"{"capture":{"remove-far-subvolume":{"host":"web1","server":{"login":"pull@web1","port":2222,"directory":"/mnt/btrfs/.stillpoint","ssh-command":["ssh","-4"],"side":{"btrfs-progs":{"sudo":true}},"program":"btrfs"},"file-system":18446744073709551615,"above":7,"name":".stillpoint.0badc0de.web.0","origin":"uuid"}}}"#;
    assert_eq!(serde_json::to_string(&undo).unwrap(), written);
    assert_eq!(serde_json::from_str::<Undo>(written).unwrap(), undo);
    let server = Server { directory: path_of_any_bytes(), ..far_snapshot().server };
    let undo: Undo = CaptureUndo::from(FarSnapshot { server, ..far_snapshot() }).into();
    let written = serde_json::to_string(&undo).unwrap();
    assert_eq!(serde_json::from_str::<Undo>(&written).unwrap(), undo);
}

fn volume() -> VolumeSnapshot {
    VolumeSnapshot {
        group: "vg".into(),
        group_uuid: Some("group-uuid".into()),
        name: "stillpoint.0badc0de.1".into(),
        tag: "stillpoint.run=0badc0de".into(),
        origin: "root".into(),
        origin_uuid: "origin-uuid".into(),
        thin: Some(ThinSnapshot {
            pool: "pool".into(),
            pool_uuid: "pool-uuid".into(),
            device_id: 7,
            transaction_id: 9,
        }),
    }
}

fn remount() -> ReadOnlyMount {
    ReadOnlyMount { path: "/boot".into(), device: (8, 1), boot_id: "boot".into() }
}

fn served() -> ServedMount {
    ServedMount {
        path: "/mnt".into(),
        source: "borgfs".into(),
        subvolume: None,
        before: vec![31],
        boot_id: "boot".into(),
    }
}

fn waiting() -> WaitingSubvolume {
    WaitingSubvolume {
        file_system: "fs-uuid".into(),
        device: "/dev/sdb".into(),
        path: "@home.before-restore.20261127T021500Z".into(),
        uuid: "uuid".into(),
    }
}

fn lock() -> EngineLock {
    EngineLock {
        target: TargetName::new("usb").unwrap(),
        owner: Some("web1.stillpoint-0badc0de".into()),
    }
}

fn hook() -> PendingHook {
    PendingHook {
        kind: HookKind::Resume,
        job: JobName::new("host").unwrap(),
        argv: vec!["/bin/true".into(), "x".into()],
        timeout: Some(Duration::from_secs(60)),
    }
}

/// One of each kind that format 1 had.
fn every_kind() -> Vec<Undo> {
    vec![
        CaptureUndo::from(snapshot()).into(),
        CaptureUndo::from(volume()).into(),
        CaptureUndo::from(remount()).into(),
        EngineUndo::from(lock()).into(),
        EngineUndo::from(served()).into(),
        hook().into(),
        StagingDirectory::new("/var/cache/stillpoint/tmp/0badc0de".into()).into(),
        FrozenGroup { cgroup: "/sys/fs/cgroup/app.slice".into() }.into(),
    ]
}

/// The same, as a stillpoint of ledger format 1 wrote them.
const FORMAT_1: [&str; 8] = [
    r#"{"remove-subvolume":{"file-system":"fs-uuid","device":"/dev/sdb","mounted-at":"/home","name":".stillpoint.0badc0de.0","origin":"uuid"}}"#,
    r#"{"remove-volume":{"group":"vg","group-uuid":"group-uuid","name":"stillpoint.0badc0de.1","tag":"stillpoint.run=0badc0de","origin":"root","origin-uuid":"origin-uuid","thin":{"pool":"pool","pool-uuid":"pool-uuid","device-id":7,"transaction-id":9}}}"#,
    r#"{"remount-writable":{"path":"/boot","device":[8,1],"boot_id":"boot"}}"#,
    r#"{"release-engine-lock":{"target":"usb","owner":"web1.stillpoint-0badc0de"}}"#,
    r#"{"unmount":{"path":"/mnt","source":"borgfs","before":[31],"boot-id":"boot"}}"#,
    r#"{"run-hook":{"promise":"resume","job":"host","argv":["/bin/true","x"],"timeout":{"secs":60,"nanos":0}}}"#,
    r#"{"remove-staging":{"path":"/var/cache/stillpoint/tmp/0badc0de"}}"#,
    r#"{"thaw":{"cgroup":"/sys/fs/cgroup/app.slice"}}"#,
];

#[test]
fn every_kind_is_read_back_and_as_format_1_wrote_it() {
    for (undo, old) in every_kind().into_iter().zip(FORMAT_1) {
        let written = serde_json::to_string(&undo).unwrap();
        assert_eq!(serde_json::from_str::<Undo>(&written).unwrap(), undo, "{written}");
        assert_eq!(serde_json::from_str::<Undo>(old).unwrap(), undo, "{old}");
    }
}

#[test]
fn paths_of_any_bytes_are_written_and_read_back() {
    let path = path_of_any_bytes();
    let undos: [Undo; 6] = [
        StagingDirectory::new(path.clone()).into(),
        CaptureUndo::from(SubvolumeSnapshot { mounted_at: path.clone(), ..snapshot() }).into(),
        CaptureUndo::from(ReadOnlyMount { path: path.clone(), ..remount() }).into(),
        FrozenGroup { cgroup: path.clone() }.into(),
        WaitingSubvolume { path: path.clone(), ..waiting() }.into(),
        EngineUndo::from(ServedMount { path, ..served() }).into(),
    ];
    for undo in undos {
        let written = serde_json::to_string(&undo).unwrap();
        assert_eq!(serde_json::from_str::<Undo>(&written).unwrap(), undo, "{written}");
    }
}

#[test]
fn what_the_first_versions_did_not_write_is_not_known() {
    let old = r#"{"remove-subvolume":{"device":"/dev/sdb","mounted-at":"/home","name":".stillpoint.0badc0de.0","origin":"uuid"}}"#;
    let expected = SubvolumeSnapshot { file_system: None, ..snapshot() };
    let read = serde_json::from_str::<Undo>(old).unwrap();
    assert_eq!(read, CaptureUndo::from(expected).into());
    let old =
        r#"{"run-hook":{"job":"host","argv":["/bin/true","x"],"timeout":{"secs":60,"nanos":0}}}"#;
    let expected = PendingHook { kind: HookKind::Finally, ..hook() };
    assert_eq!(serde_json::from_str::<Undo>(old).unwrap(), expected.into());
    let old = r#"{"release-engine-lock":{"target":"usb"}}"#;
    let expected = EngineUndo::from(EngineLock { owner: None, ..lock() });
    assert_eq!(serde_json::from_str::<Undo>(old).unwrap(), expected.into());
}
