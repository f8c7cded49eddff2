//! One more way to hold something still, and a kind of source that holds by it: a subvolume, of which each run keeps its
//! snapshot as the base of the next one, once the snapshot is read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use stillpoint::capture::{self, Capture, CaptureError, Context, Made, Provider, Still};
use stillpoint::engine::{BackupReport, Expected, Input};
use stillpoint::host::{Access, Action, PrivateMount, PrivateView, Subvolume, SubvolumeAction};
use stillpoint::model::job::Job;
use stillpoint::model::names::RunId;
use stillpoint::model::needs::Needs;
use stillpoint::model::report::VolumeReport;
use stillpoint::model::target::Target;
use stillpoint::model::undo::{CaptureUndo, Identity, Kept, SubvolumeSnapshot};
use stillpoint::source::{Findings, HeldBatch, Item, Source};
use stillpoint::step::captures::{self, Held};
use stillpoint::step::context::{Pipeline, RunContext};
use stillpoint::step::error::StepError;
use stillpoint::step::recorder::{Done, Recorder};
use stillpoint::tools::Tree;

use super::fake_btrfs::DEVICE;

/// The subvolume.
pub const VAULT: &str = "/vault";

/// Where the bases are written down.
pub const BASES: &str = "/var/lib/stillpoint/bases";

/// Keeps a snapshot on a shelf.
struct Shelf;

impl Provider for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn lock_key(&self) -> Option<String> {
        Some("shelf".into())
    }

    fn intend(
        &self,
        cx: Context<'_>,
        run: &RunId,
        _: &[CaptureUndo],
    ) -> Result<Box<dyn Capture>, CaptureError> {
        let path = PathBuf::from(VAULT);
        let Some(found) = cx.host.subvolume(&path)? else {
            return Err(CaptureError::Gone { path });
        };
        let snapshot = SubvolumeSnapshot {
            file_system: Some(found.file_system.clone()),
            device: DEVICE.into(),
            mounted_at: path,
            name: format!(".stillpoint.shelf.{run}"),
            origin: found.uuid.clone().unwrap(),
        };
        Ok(Box::new(Shelved { found, snapshot }))
    }
}

/// One snapshot.
struct Shelved {
    found: Subvolume,
    snapshot: SubvolumeSnapshot,
}

impl Capture for Shelved {
    fn undo(&self) -> CaptureUndo {
        self.snapshot.clone().into()
    }

    fn make(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        cx.host.act(&Action::Subvolume(SubvolumeAction::MakeSnapshot {
            device: DEVICE.into(),
            origin: self.found.clone(),
            path: VAULT.into(),
            name: self.snapshot.name.clone(),
        }))?;
        Ok(())
    }

    fn verify(&self, cx: Context<'_>) -> Result<Made, CaptureError> {
        let name = self.snapshot.name.clone();
        let made = cx.host.subvolume_on(DEVICE.as_ref(), name.as_ref())?;
        let made = made.ok_or(CaptureError::Mismatch { what: format!("there is no {name}") })?;
        let about = name.clone();
        Ok(Made {
            identity: made.uuid.clone().map(|uuid| Identity::Subvolume { uuid }),
            still: Still::Subvolume { device: DEVICE.into(), name, found: made },
            about,
        })
    }

    fn still_holds(&self, cx: Context<'_>) -> Result<(), CaptureError> {
        self.verify(cx).map(|_| ())
    }
}

/// What the job protects: the vault.
struct Vault;

/// The row of the table: every job protects the vault.
pub fn vault(_: &Job) -> Box<dyn Source + '_> {
    Box::new(Vault)
}

/// The bases that are written down, of which those that are there are bases.
fn bases(cx: RunContext<'_>) -> Result<Vec<Kept>, StepError> {
    let text = cx.host().read(BASES.as_ref())?;
    let written: Vec<Kept> = serde_json::from_slice(&text).unwrap();
    let mut there = Vec::new();
    for base in written {
        if capture::kept(cx.capture(), &base)?.is_some() {
            there.push(base);
        }
    }
    Ok(there)
}

impl Vault {
    /// Holds it. Whatever comes of it, what there is to release is in `batch`.
    fn capture(
        &self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        batch: &mut VaultBatch,
    ) -> Option<()> {
        let _until_made = rec.step("intend", None, None, |_| {
            let locks = captures::lock(cx, std::iter::once(&Shelf as &dyn Provider))?;
            let intended = Shelf.intend(cx.capture(), cx.run, &[])?;
            batch.bases = bases(cx)?;
            batch.held = captures::intend(cx, vec![(Box::new(Shelf), intended)])?;
            Ok((locks, Done::ok("1")))
        })?;
        rec.step("capture", None, None, |_| {
            batch.held[0].capture.make(cx.capture())?;
            Ok(((), Done::ok(Shelf.name())))
        })?;
        rec.step("verify", None, None, |_| {
            captures::verify(cx, batch.held.iter_mut())?;
            Ok(((), Done::ok("as intended")))
        })
    }
}

impl Source for Vault {
    fn kind(&self) -> &'static str {
        "vault"
    }

    fn declared(&self) -> Option<Vec<Item>> {
        Some(vec![None])
    }

    fn hold<'s>(
        &'s self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        _: &[Item],
        _: &[&Target],
    ) -> Option<Box<dyn HeldBatch + 's>> {
        let mut batch = Box::new(VaultBatch::default());
        if self.capture(cx, rec, &mut batch).is_none() {
            batch.release(cx, rec);
            return None;
        }
        Some(batch)
    }

    fn holds_nothing(&self, report: &BackupReport) -> bool {
        report.files == Some(0)
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn preflight(&self, _: Pipeline<'_>, _: &[&Target]) -> Findings {
        Vec::new()
    }
}

/// The vault, held still.
#[derive(Default)]
struct VaultBatch {
    held: Vec<Held>,
    /// What earlier runs have kept.
    bases: Vec<Kept>,
    /// Whether an engine has read it.
    was_read: AtomicBool,
}

impl VaultBatch {
    /// Keeps the snapshot in the place of the bases before it.
    fn keep(self, cx: RunContext<'_>) -> Result<(), StepError> {
        let [held] = <[Held; 1]>::try_from(self.held).ok().unwrap();
        let kept = held.to_keep().unwrap();
        let written: Vec<&Kept> = self.bases.iter().chain([&kept]).collect();
        let content = serde_json::to_vec(&written).unwrap();
        cx.host().act(&Action::ReplaceFile { path: BASES.into(), mode: 0o600, content })?;
        held.keep(cx, &self.bases)
    }
}

impl HeldBatch for VaultBatch {
    fn input(&self, cx: RunContext<'_>, item: &Item, _: &Target) -> Option<Input> {
        assert_eq!(*item, None);
        let made = self.held[0].made.as_ref().unwrap();
        let Still::Subvolume { device, name, found } = &made.still else { panic!("{made:?}") };
        let mount = PrivateMount::Device {
            device: device.clone(),
            at: VAULT.into(),
            file_system: "btrfs".into(),
            options: found.id.map_or(format!("subvol=/{name}"), |id| format!("subvolid={id}")),
            directory: None,
            access: Access::Read,
        };
        let view = PrivateView {
            mounts: vec![mount],
            workplace: capture::workplace(cx.capture()),
            ..PrivateView::default()
        };
        let path: &Path = VAULT.as_ref();
        Some(Input::Tree {
            tree: Tree { paths: vec![path.to_owned()], view, ..Tree::default() },
            expected: vec![Expected { path: path.to_owned(), is_directory: true }],
        })
    }

    fn gaps(&self, _: &Item) -> &[String] {
        &[]
    }

    fn volumes(&self) -> &[VolumeReport] {
        &[]
    }

    fn still_holds(&self, cx: RunContext<'_>) -> Result<(), StepError> {
        self.held[0].capture.still_holds(cx.capture())?;
        self.was_read.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn watch(&self, _: RunContext<'_>, read: &mut dyn FnMut()) {
        read();
    }

    fn release(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        let _shield = cx.host().shield();
        let (step, was_read) =
            if self.was_read.load(Ordering::Relaxed) { ("keep", true) } else { ("release", false) };
        rec.step(step, None, None, |_| {
            match was_read {
                true => self.keep(cx)?,
                false => captures::release(cx, self.held)?,
            }
            Ok(((), Done::ok("done")))
        });
    }
}
