//! What a survey finds on machines of all shapes, and what engines see of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Offset, Utc};

use super::survey::{Absent, Survey, closed, resolved, staging_of_ours, survey};
use super::view::view;
use crate::config::testing;
use crate::host::{
    Access, ActError, Action, Chained, ChildRecorder, CommandSpec, Completed, Host, LockError,
    LockGuard, LockMode, MountEntry, PathKind, PathState, PrivateMount, PrivateView, RunError,
    Shield, Subvolume, ThawGuard, Tool, TrustError, TrustKind, Watch,
};
use crate::model::job::FilesSource;
use crate::model::shown::Show;
use crate::model::undo::{ChildProcess, Identity};

/// A machine of which only mounts, subvolumes and swap files are known.
#[derive(Default)]
struct Machine {
    mounts: Vec<MountEntry>,
    /// Directories with the inode of a subvolume's root.
    roots: BTreeSet<PathBuf>,
    nested: BTreeMap<PathBuf, Vec<PathBuf>>,
    swap_files: Vec<&'static str>,
    /// Directories into which nobody but root looks.
    closed: BTreeSet<PathBuf>,
    /// What leads where.
    links: Vec<(&'static str, &'static str)>,
}

impl Machine {
    fn mounts(mut self, file_system: &str, places: &[&str]) -> Self {
        for at in places {
            let minor = u32::try_from(self.mounts.len()).unwrap();
            self.mounts.push(MountEntry {
                id: 1,
                device: (8, minor),
                root: "/".into(),
                at: at.into(),
                options: "rw".into(),
                file_system: file_system.into(),
                source: format!("/dev/disk{minor}").into(),
                super_options: "rw".into(),
            });
            if file_system == "btrfs" {
                self.roots.insert(at.into());
            }
        }
        self
    }

    fn nests(mut self, outer: &str, inner: &[&str]) -> Self {
        self.roots.extend(inner.iter().map(PathBuf::from));
        self.nested.insert(outer.into(), inner.iter().map(PathBuf::from).collect());
        self
    }

    fn closes(mut self, directory: &str) -> Self {
        self.closed.insert(directory.into());
        self
    }

    /// What is mounted there is a directory of its btrfs, and not the root of a subvolume.
    fn shows_a_directory(mut self, at: &str) -> Self {
        self.roots.remove(Path::new(at));
        self
    }

    fn links(mut self, at: &'static str, to: &'static str) -> Self {
        self.links.push((at, to));
        self
    }

    fn swaps(mut self, file: &'static str) -> Self {
        self.swap_files.push(file);
        self
    }

    fn survey(&self, files: &FilesSource) -> Survey {
        survey(self, &resolved(self, files).unwrap(), &["/disk".into()]).unwrap()
    }
}

impl Host for Machine {
    fn mounts(&self) -> Result<Vec<MountEntry>, ActError> {
        Ok(self.mounts.clone())
    }

    fn subvolume(&self, root: &Path) -> Result<Option<Subvolume>, ActError> {
        Ok(self.roots.contains(root).then(|| Subvolume {
            file_system: "fs-uuid".into(),
            // A mount shows the top level unless the test is about something nested.
            id: Some(if self.mounts.iter().any(|mount| mount.at == root) { 5 } else { 256 }),
            uuid: Some(root.to_string_lossy().into_owned()),
            ..Subvolume::default()
        }))
    }

    fn subvolume_on(&self, _: &Path, _: &Path) -> Result<Option<Subvolume>, ActError> {
        unreachable!("a survey looks for no snapshot")
    }

    fn subvolumes_on(&self, _: &Path) -> Result<Vec<(PathBuf, Subvolume)>, ActError> {
        unreachable!("a survey looks at no device")
    }

    fn btrfs_on(&self, _: &Path) -> Result<Option<String>, ActError> {
        unreachable!("a survey looks at no device")
    }

    fn without_a_place(&self, _: &PrivateView) -> Result<Vec<PathBuf>, ActError> {
        unreachable!("a survey puts no view together")
    }

    fn nested_subvolumes(&self, root: &Path) -> Result<Vec<PathBuf>, ActError> {
        Ok(self.nested.get(root).cloned().unwrap_or_default())
    }

    fn received_as(&self, _: &Path, _: [u8; 16]) -> Result<usize, ActError> {
        unreachable!("a survey does not ask for what was received")
    }

    fn path_state(&self, path: &Path) -> Result<Option<PathState>, ActError> {
        let inode = if self.roots.contains(path) { 256 } else { 2 };
        Ok(Some(PathState {
            kind: PathKind::Directory,
            identity: Identity::Inode { device: 1, inode },
            empty: false,
            size: 0,
            uid: 0,
            gid: 0,
            mode: if self.closed.contains(path) { 0o700 } else { 0o755 },
        }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ActError> {
        assert_eq!(path, Path::new("/proc/swaps"));
        let lines = self.swap_files.iter().map(|file| format!("{file}\tfile\t1024\t0\t-2\n"));
        Ok(format!("Filename\tType\tSize\tUsed\tPriority\n{}", lines.collect::<String>()).into())
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        let leads = |(at, to): &(&str, &str)| Some(Path::new(to).join(path.strip_prefix(at).ok()?));
        self.links.iter().find_map(leads).unwrap_or_else(|| path.to_owned())
    }

    fn run(&self, _: &CommandSpec, _: Watch<'_>) -> Result<Completed, RunError> {
        unreachable!("a survey runs nothing")
    }

    fn chain(&self, _: &[CommandSpec], _: &CommandSpec, _: Watch<'_>) -> Result<Chained, RunError> {
        unreachable!("a survey runs nothing")
    }

    fn hypervisor(&self) -> &dyn crate::host::Hypervisor {
        unreachable!("a survey does not ask for guests")
    }

    fn act(&self, _: &Action) -> Result<Option<Identity>, ActError> {
        unreachable!("a survey changes nothing")
    }

    fn place(&self, _: &crate::host::Placement) -> Result<crate::host::Placed, ActError> {
        unreachable!("a survey moves nothing")
    }

    fn lock(
        &self,
        _: &Path,
        _: LockMode,
        _: Duration,
        _: &str,
    ) -> Result<Box<dyn LockGuard>, LockError> {
        unreachable!("a survey locks nothing")
    }

    fn thaw_guard(&self, _: &[PathBuf], _: Duration) -> Result<Box<dyn ThawGuard>, ActError> {
        unreachable!("a survey freezes nothing")
    }

    fn is_mount_point(&self, _: &Path) -> Result<bool, ActError> {
        unreachable!("a survey has the whole table")
    }

    fn find_program(&self, _: &Tool) -> Result<PathBuf, RunError> {
        unreachable!("a survey runs nothing")
    }

    fn total_space(&self, _: &Path) -> Result<u64, ActError> {
        unreachable!("a survey needs no space")
    }

    fn free_space(&self, _: &Path) -> Result<u64, ActError> {
        unreachable!("a survey needs no space")
    }

    fn names_in(&self, _: &Path) -> Result<Option<Vec<OsString>>, ActError> {
        unreachable!("a survey lists no directory")
    }

    fn try_room(&self, _: &Path) -> Result<(), ActError> {
        unreachable!("a survey needs no room")
    }

    fn is_read_only(&self, _: &Path) -> Result<bool, ActError> {
        unreachable!("a survey asks for no file system")
    }

    fn check_trusted(&self, _: &Path, _: TrustKind) -> Result<(), TrustError> {
        unreachable!("a survey trusts nobody")
    }

    fn process(&self, _: i32) -> Result<Option<ChildProcess>, ActError> {
        unreachable!("a survey looks for no process")
    }

    fn gives_host_names(&self) -> bool {
        unreachable!("a survey starts no process")
    }

    fn environment(&self, _: &str) -> Option<OsString> {
        None
    }

    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn ahead_of_utc(&self, _: DateTime<Utc>) -> FixedOffset {
        Utc.fix()
    }

    fn random(&self) -> [u8; 4] {
        [0; 4]
    }

    fn stop_signal(&self) -> Option<i32> {
        None
    }

    fn shield(&self) -> Box<dyn Shield + '_> {
        unreachable!("a survey needs no shield")
    }

    fn record_children(&self, _: Option<Arc<dyn ChildRecorder>>) {}

    fn predicted(&self, _: &str) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn is_dry(&self) -> bool {
        false
    }
}

fn files(paths: &[&str]) -> FilesSource {
    testing::files(&format!("paths = {paths:?}"))
}

fn one_file_system(paths: &[&str]) -> FilesSource {
    testing::files(&format!("paths = {paths:?}\none-file-system = true"))
}

fn volumes(found: &Survey) -> Vec<&str> {
    found.volumes.iter().map(|volume| volume.at.to_str().unwrap()).collect()
}

fn named(list: &[Absent]) -> Vec<String> {
    list.iter().map(|absent| format!("{} ({})", absent.path.shown(), absent.what)).collect()
}

fn capture_at(at: &str) -> PrivateMount {
    PrivateMount::Device {
        device: "/dev/mapper/vg-snapshot".into(),
        at: at.into(),
        file_system: "ext4".into(),
        options: String::new(),
        directory: None,
        access: Access::Read,
    }
}

/// `=` before what is captured, `+` before what is live, `~` before what is live as long as it is mounted, in
/// the order in which it is mounted.
fn seen(found: &Survey, captured: &[&str], live: &[&str]) -> Vec<String> {
    let captures: Vec<PrivateMount> = captured.iter().map(|at| capture_at(at)).collect();
    let live: Vec<PathBuf> = live.iter().map(PathBuf::from).collect();
    let shown = |mount: &PrivateMount| match mount {
        PrivateMount::Bind { from, at, read_only } => {
            assert_eq!((from, read_only), (at, &false));
            format!("+{}", at.shown())
        }
        PrivateMount::Mounted { at } | PrivateMount::Unlinked { at, .. } => {
            format!("~{}", at.shown())
        }
        PrivateMount::Device { at, .. } => format!("={}", at.shown()),
    };
    view(found, &captures, &live).iter().map(shown).collect()
}

#[test]
fn what_is_mounted_over_is_no_volume() {
    let machine = Machine::default().mounts("ext4", &["/", "/srv", "/srv/old", "/srv", "/srv/new"]);
    let found = machine.survey(&files(&["/"]));
    assert_eq!(volumes(&found), ["/", "/srv", "/srv/new"]);
    assert_eq!(found.volumes[1].mount.device, (8, 3), "the later one is on top");
    assert_eq!(found.mounts.len(), 3);
}

#[test]
fn parents_come_before_what_lies_below_them() {
    let machine = Machine::default().mounts("ext4", &["/", "/a", "/a/b/c", "/a/b", "/a-b"]);
    let found = machine.survey(&files(&["/a/b", "/"]));
    // Mounted later, it hides /a/b/c.
    assert_eq!(volumes(&found), ["/", "/a", "/a/b", "/a-b"]);
    let all = ["/", "/a", "/a/b", "/a-b"];
    assert_eq!(seen(&found, &all, &[]), ["=/", "=/a", "=/a/b", "=/a-b"]);
}

#[test]
fn a_path_below_a_mount_point_belongs_to_that_mount() {
    let machine = Machine::default().mounts("ext4", &["/", "/srv", "/srv/www/cache"]);
    let found = machine.survey(&one_file_system(&["/srv/www", "/etc"]));
    assert_eq!(volumes(&found), ["/", "/srv"]);
    assert_eq!(named(&found.missing), ["/srv/www/cache (ext4 file system)"]);
}

#[test]
fn what_root_may_not_look_at_is_left_out_where_file_systems_are_not_crossed() {
    let machine = || {
        let mut machine = Machine::default()
            .mounts("ext4", &["/"])
            .mounts("fuse.sshfs", &["/home/u/mnt", "/home/u/shared"])
            .links("/link", "/home");
        machine.mounts[1].super_options = "rw,user_id=1000,group_id=1000".into();
        machine.mounts[2].super_options = "rw,user_id=1000,group_id=1000,allow_other".into();
        machine
    };
    let left_out = ["/home/u/mnt (fuse.sshfs file system that root may not look at)"];
    let found = machine().survey(&one_file_system(&["/"]));
    assert_eq!(named(&found.left_out), left_out);
    assert_eq!(named(&found.missing), ["/home/u/shared (fuse.sshfs file system)"]);
    assert_eq!(found.exclude, ["/home/u/mnt"]);
    // Whether anything is captured or not, and by every name.
    let patterns = closed(&machine(), &one_file_system(&["/", "/link"])).unwrap();
    assert_eq!(patterns, ["/home/u/mnt", "/link/u/mnt"]);
    assert_eq!(closed(&machine(), &files(&["/"])).unwrap(), Vec::<String>::new());
    // Who crosses file systems asks for what is in it.
    let found = machine().survey(&files(&["/"]));
    assert_eq!(volumes(&found), ["/", "/home/u/mnt", "/home/u/shared"]);
}

#[test]
fn the_disk_of_a_target_is_not_missed_but_what_is_mounted_in_it_is() {
    let machine = Machine::default().mounts("ext4", &["/", "/disk", "/disk/other", "/disks"]);
    let found = machine.survey(&one_file_system(&["/"]));
    assert_eq!(named(&found.left_out), ["/disk (ext4 file system)"]);
    assert_eq!(
        named(&found.missing),
        ["/disk/other (ext4 file system)", "/disks (ext4 file system)"]
    );
    assert_eq!(found.exclude, Vec::<String>::new());
    // Who crosses file systems reads it, except for the repository, which the configuration excludes.
    let found = machine.survey(&files(&["/"]));
    assert_eq!(volumes(&found), ["/", "/disk", "/disk/other", "/disks"]);
}

#[test]
fn what_is_nested_is_missing_unless_somebody_spoke_of_it() {
    let machine = || {
        Machine::default()
            .mounts("ext4", &["/"])
            .mounts("btrfs", &["/srv"])
            .mounts("xfs", &["/srv/disk"])
            .mounts("proc", &["/proc"])
            .nests("/srv", &["/srv/sub", "/srv/.stillpoint.0a1b2c3d.0"])
            .swaps("/srv/swap")
    };
    let everything =
        ["/srv/disk (xfs file system)", "/srv/sub (subvolume)", "/srv/swap (swap file)"];
    let found = machine().survey(&one_file_system(&["/srv"]));
    assert_eq!(named(&found.missing), everything);
    assert_eq!(found.left_out, []);
    assert_eq!(found.holes, [Path::new("/srv/sub")]);
    assert_eq!(found.exclude, ["/srv/.stillpoint.0a1b2c3d.0", "/srv/swap"]);

    let mut wanted = one_file_system(&["/srv"]);
    wanted.capture.leave_out = ["/srv/disk", "/srv/sub", "/srv/swap"].map(PathBuf::from).into();
    let found = machine().survey(&wanted);
    assert_eq!(
        (named(&found.left_out), found.missing),
        (everything.map(str::to_owned).into(), vec![])
    );
    assert!(found.exclude.contains(&"/srv/disk/*".to_owned()), "{:?}", found.exclude);

    let mut wanted = one_file_system(&["/srv"]);
    wanted.exclude = vec!["/srv/disk".into(), "sub".into(), "/srv/swap".into()];
    let found = machine().survey(&wanted);
    assert_eq!(
        (named(&found.left_out), found.missing),
        (everything.map(str::to_owned).into(), vec![])
    );

    let found = machine().survey(&files(&["/srv"]));
    assert_eq!(volumes(&found), ["/srv", "/srv/disk", "/srv/sub"]);
    assert_eq!(named(&found.missing), ["/srv/swap (swap file)"]);
    assert_eq!(found.holes, [] as [PathBuf; 0]);
}

#[test]
fn what_a_run_of_ours_has_there_for_a_while_is_no_part_of_a_copy() {
    let ours = "/srv/sub/.stillpoint-mounted-0a1b2c3d";
    let received = format!("{ours}/copy");
    let machine = || {
        let machine = Machine::default().mounts("ext4", &["/"]).mounts("btrfs", &["/srv"]);
        machine.nests("/srv", &[&received])
    };
    let found = machine().closes(ours).survey(&files(&["/srv"]));
    assert_eq!(volumes(&found), ["/srv"]);
    assert_eq!((found.holes, &found.missing), (vec![], &vec![]));
    assert_eq!(found.exclude, [ours]);
    // Others may call something of theirs so.
    let found = machine().survey(&files(&["/srv"]));
    assert_eq!(volumes(&found), ["/srv", &received]);
    let is_ours = |directory: &str| {
        let host = Machine::default().closes(&format!("/srv/{directory}"));
        let nested = PathBuf::from(format!("/srv/{directory}/x"));
        staging_of_ours(&host, Path::new("/srv"), &nested).is_some()
    };
    for name in ["restore", "unpacked", "mounted"] {
        assert!(is_ours(&format!(".stillpoint-{name}-0a1b2c3d")), "{name}");
    }
    assert!(!is_ours(".stillpoint-mounted-x") && !is_ours("mounted-0a1b2c3d"));
}

#[test]
fn what_another_path_reads_is_not_missing() {
    let machine = Machine::default().mounts("btrfs", &["/"]).mounts("ext4", &["/home"]);
    let machine = machine.nests("/", &["/var"]);
    let found = machine.survey(&one_file_system(&["/", "/home", "/var"]));
    assert_eq!(volumes(&found), ["/", "/home", "/var"]);
    assert_eq!((found.missing, found.left_out), (vec![], vec![]));
}

#[test]
fn what_is_nested_in_a_directory_of_a_btrfs_that_is_mounted_elsewhere_is_found() {
    let machine = Machine::default().mounts("ext4", &["/"]).mounts("btrfs", &["/export"]);
    let machine = machine.shows_a_directory("/export").nests("/export", &["/export/vm"]);
    let machine = machine.nests("/export/vm", &["/export/vm/deep"]);
    let found = machine.survey(&one_file_system(&["/export"]));
    assert_eq!(named(&found.missing), ["/export/vm (subvolume)"]);
    assert_eq!(found.holes, [] as [PathBuf; 0], "it is seen where it lies");
    let found = machine.survey(&files(&["/export"]));
    assert_eq!(volumes(&found), ["/export", "/export/vm", "/export/vm/deep"]);
    let subvolumes = found.volumes.iter().map(|volume| volume.is_subvolume);
    assert!(subvolumes.eq([false, true, true]));
    let mut wanted = one_file_system(&["/export"]);
    wanted.capture.live = vec!["/export".into()];
    assert!(machine.survey(&wanted).missing[0].remedy.contains("named in live"));
}

#[test]
fn links_that_lead_to_a_path_change_nothing_but_names() {
    let machine = || {
        Machine::default()
            .mounts("ext4", &["/"])
            .mounts("btrfs", &["/data"])
            .mounts("xfs", &["/data/www/scratch", "/data/www/kept"])
            .mounts("proc", &["/data/www/jail/proc"])
            .swaps("/data/www/swap")
            .links("/srv", "/data")
    };
    let mut wanted = files(&["/srv/www"]);
    wanted.capture.leave_out = ["/srv/www/scratch", "/srv/www/swap"].map(PathBuf::from).into();
    let found = machine().survey(&wanted);
    assert_eq!(volumes(&found), ["/data", "/data/www/kept"]);
    // Patterns are about what engines see, and so is what people are told.
    let patterns = ["/srv/www/jail/proc/*", "/srv/www/scratch/*", "/srv/www/swap"];
    assert_eq!(found.exclude, patterns);
    let names = ["/srv/www/scratch (xfs file system)", "/srv/www/swap (swap file)"];
    assert_eq!((named(&found.left_out), found.missing), (names.map(str::to_owned).into(), vec![]));

    // The real path will do as well, and a pattern of the job is about the other one.
    wanted.capture.leave_out = vec!["/data/www/scratch".into()];
    wanted.exclude = vec!["/srv/www/swap".into()];
    let found = machine().survey(&wanted);
    assert_eq!((named(&found.left_out), found.missing), (names.map(str::to_owned).into(), vec![]));
    wanted.exclude = vec!["/data/www/swap".into()];
    assert_eq!(named(&machine().survey(&wanted).missing), ["/srv/www/swap (swap file)"]);

    // Who comes to it by two names is kept out by both.
    wanted.paths = vec!["/data".into(), "/srv/www".into()];
    let found = machine().survey(&wanted);
    assert!(found.exclude.contains(&"/data/www/scratch/*".to_owned()), "{:?}", found.exclude);
    assert!(found.exclude.contains(&"/srv/www/scratch/*".to_owned()), "{:?}", found.exclude);

    let mut wanted = files(&["/srv/www"]);
    wanted.capture.live = vec!["/srv/www/kept".into()];
    wanted.capture.remount_readonly = vec!["/data".into(), "/srv/www/kept".into()];
    let policy = resolved(&machine(), &wanted).unwrap().capture;
    assert_eq!(policy.live, [Path::new("/data/www/kept")]);
    assert_eq!(policy.remount_readonly, ["/data", "/data/www/kept"].map(PathBuf::from));
}

#[test]
fn a_link_below_a_path_leaves_out_nothing_but_itself() {
    let machine = Machine::default().mounts("ext4", &["/", "/home"]);
    // Who owns what lies there has put a link in its place.
    let machine = machine.links("/home/bob/images", "/home").links("/home/bob/disk", "/");
    let mut wanted = files(&["/", "/home"]);
    let said = ["/home/bob/images", "/home/bob/disk"].map(PathBuf::from);
    wanted.capture.leave_out = said.clone().into();
    wanted.capture.live = said.clone().into();
    wanted.capture.remount_readonly = said.clone().into();
    let policy = resolved(&machine, &wanted).unwrap().capture;
    for found in [policy.leave_out, policy.live, policy.remount_readonly] {
        assert_eq!(found, said);
    }
    let found = machine.survey(&wanted);
    assert_eq!(volumes(&found), ["/", "/home"]);
    assert_eq!((found.left_out, found.exclude), (vec![], vec![]));
}

#[test]
fn a_subvolume_that_another_path_reads_is_no_hole() {
    let machine = Machine::default().mounts("btrfs", &["/"]).mounts("nfs", &["/var/share"]);
    let machine = machine.nests("/", &["/var"]);
    let found = machine.survey(&files(&["/", "/var"]));
    assert_eq!(found.holes, [] as [PathBuf; 0]);
    // What is mounted in it is seen, and not an empty directory.
    assert_eq!(seen(&found, &["/", "/var"], &[]), ["=/", "=/var", "+/var/share"]);
}

#[test]
fn mounts_below_file_systems_of_the_kernels_own_go_away_with_them() {
    let machine = Machine::default()
        .mounts("ext4", &["/"])
        .mounts("tmpfs", &["/run"])
        .mounts("ext4", &["/run/media/disk", "/run/media/disk/inner"]);
    let found = machine.survey(&one_file_system(&["/"]));
    assert_eq!((volumes(&found), named(&found.missing)), (vec!["/"], vec![]));
    // But not for a path that names one of them.
    let found = machine.survey(&one_file_system(&["/", "/run/media/disk"]));
    assert_eq!(volumes(&found), ["/", "/run/media/disk"]);
    assert_eq!(named(&found.missing), ["/run/media/disk/inner (ext4 file system)"]);
}

#[test]
fn a_swap_file_keeps_btrfs_only_from_a_snapshot_of_its_own_subvolume() {
    let swap_of = |machine: Machine, at: &str| {
        let found = machine.survey(&files(&["/"]));
        let volume = found.volumes.iter().find(|volume| volume.at == Path::new(at));
        volume.unwrap_or_else(|| panic!("no volume {at}: {found:?}")).swap_file.clone()
    };
    let root = || Machine::default().mounts("btrfs", &["/"]);
    assert_eq!(swap_of(root().swaps("/var/swap"), "/"), Some("/var/swap".into()));
    let nested = || root().nests("/", &["/var"]).swaps("/var/swap");
    assert_eq!(swap_of(nested(), "/"), None);
    assert_eq!(swap_of(nested(), "/var"), Some("/var/swap".into()));
    // It lies on another file system, mounted in a directory of this one.
    let other = || root().mounts("ext4", &["/data"]).swaps("/data/swap");
    assert_eq!(swap_of(other(), "/"), None);
    assert_eq!(swap_of(other(), "/data"), None, "only btrfs minds");
}

#[test]
fn what_a_captured_root_would_hide_is_shown_again() {
    let machine = Machine::default()
        .mounts("ext4", &["/"])
        .mounts("proc", &["/proc"])
        .mounts("devtmpfs", &["/dev"])
        .mounts("devpts", &["/dev/pts"])
        .mounts("ext4", &["/srv"])
        .mounts("vfat", &["/srv/live", "/srv/live/deeper"]);
    let found = machine.survey(&one_file_system(&["/", "/srv"]));
    // What lies below something live comes along with it.
    assert_eq!(seen(&found, &["/", "/srv"], &[]), ["=/", "~/dev", "~/proc", "=/srv", "~/srv/live"]);
    assert_eq!(seen(&found, &["/srv"], &[]), ["=/srv", "~/srv/live"]);
    assert_eq!(seen(&found, &["/"], &[]), ["=/", "~/dev", "~/proc", "+/srv"]);
    assert_eq!(seen(&found, &[], &["/var/cache"]), [] as [&str; 0]);
}

#[test]
fn what_is_only_mounted_may_go_away_but_not_with_what_is_wanted_in_it() {
    let machine = Machine::default().mounts("ext4", &["/", "/disk", "/mnt", "/mnt/deep", "/var"]);
    let mut wanted = files(&["/"]);
    wanted.capture.leave_out = ["/disk", "/mnt", "/var"].map(PathBuf::from).into();
    let found = machine.survey(&wanted);
    assert_eq!(seen(&found, &["/"], &[]), ["=/", "~/disk", "~/mnt", "~/var"]);
    // A repository, and a cache two mounts deep.
    let live = ["/disk/repository", "/mnt/deep/cache"];
    assert_eq!(seen(&found, &["/"], &live), ["=/", "+/disk", "+/mnt", "~/var"]);
    // A volume of the job that is captured, in a mount that the job does not read.
    let mut wanted = one_file_system(&["/", "/mnt/deep"]);
    wanted.capture.leave_out = vec!["/disk".into()];
    let found = machine.survey(&wanted);
    assert_eq!(
        seen(&found, &["/", "/mnt/deep"], &[]),
        ["=/", "~/disk", "+/mnt", "=/mnt/deep", "~/var"]
    );
    // The same, read live.
    assert_eq!(seen(&found, &["/"], &[]), ["=/", "~/disk", "+/mnt", "~/var"]);
}

#[test]
fn a_repository_and_a_cache_below_a_captured_path_stay_live() {
    let machine = Machine::default().mounts("ext4", &["/", "/var", "/srv"]);
    let found = machine.survey(&one_file_system(&["/", "/var", "/srv"]));
    let live = ["/var/cache/stillpoint", "/var/lib/stillpoint", "/srv/repository", "/elsewhere"];
    assert_eq!(
        seen(&found, &["/var", "/srv"], &live),
        ["=/srv", "+/srv/repository", "=/var", "+/var/cache/stillpoint", "+/var/lib/stillpoint"]
    );
    // One inside the other comes along.
    let live = ["/srv/stillpoint/cache", "/srv/stillpoint"];
    assert_eq!(seen(&found, &["/srv"], &live), ["=/srv", "+/srv/stillpoint"]);
}

#[test]
fn a_cache_on_a_volume_of_its_own_stays_live_although_that_is_captured() {
    let machine = Machine::default().mounts("ext4", &["/", "/var/cache/stillpoint"]);
    let found = machine.survey(&files(&["/"]));
    let captured = ["/", "/var/cache/stillpoint"];
    assert_eq!(
        seen(&found, &captured, &["/var/cache/stillpoint"]),
        ["=/", "=/var/cache/stillpoint", "+/var/cache/stillpoint"]
    );
}

#[test]
fn nothing_is_mounted_below_a_subvolume_that_a_snapshot_does_not_hold() {
    let machine = || {
        Machine::default()
            .mounts("btrfs", &["/"])
            .mounts("ext4", &["/srv/backup/disk"])
            .nests("/", &["/srv/backup"])
            .nests("/srv/backup", &["/srv/backup/deep"])
    };
    let found = machine().survey(&one_file_system(&["/"]));
    assert_eq!(found.holes, [Path::new("/srv/backup")]);
    assert_eq!(seen(&found, &["/"], &[]), ["=/"]);
    // What must be reached there is, with the subvolume around it.
    assert_eq!(seen(&found, &["/"], &["/srv/backup/repo"]), ["=/", "+/srv/backup"]);
    assert_eq!(seen(&found, &["/"], &["/srv/backup"]), ["=/", "+/srv/backup"]);

    // A path of the job in it is a volume whose place would be missing.
    let found = machine().survey(&one_file_system(&["/", "/srv/backup/deep"]));
    assert_eq!(volumes(&found), ["/", "/srv/backup/deep"]);
    assert_eq!(
        seen(&found, &["/", "/srv/backup/deep"], &[]),
        ["=/", "+/srv/backup", "=/srv/backup/deep"]
    );
}

#[test]
fn a_nested_subvolume_that_cannot_be_captured_is_seen_live() {
    let machine = Machine::default().mounts("btrfs", &["/"]).nests("/", &["/swapped"]);
    let found = machine.swaps("/swapped/file").survey(&files(&["/"]));
    assert_eq!(volumes(&found), ["/", "/swapped"]);
    // Its parent's snapshot holds an empty directory of that name.
    assert_eq!(seen(&found, &["/"], &[]), ["=/", "+/swapped"]);
}

#[test]
fn memory_and_automounts_are_not_passed_over_in_silence() {
    let machine = || {
        Machine::default()
            .mounts("ext4", &["/"])
            .mounts("tmpfs", &["/home/me/ram", "/run", "/tmp"])
            .mounts("autofs", &["/data"])
    };
    let found = machine().survey(&one_file_system(&["/"]));
    assert_eq!(
        named(&found.missing),
        ["/data (automount that is not mounted now)", "/home/me/ram (tmpfs file system)"]
    );
    assert_eq!(found.kernel, ["/run", "/tmp"].map(PathBuf::from));
    let found = machine().survey(&files(&["/"]));
    assert_eq!(named(&found.missing), ["/data (automount that is not mounted now)"]);
    assert_eq!(volumes(&found), ["/", "/home/me/ram"]);
    assert_eq!(found.exclude, ["/run/*", "/tmp/*"]);
    // A path of the job itself is not excluded with what is around it.
    let found = machine().survey(&files(&["/", "/run/app"]));
    assert_eq!(found.exclude, ["/tmp/*"]);
}
