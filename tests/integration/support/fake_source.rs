//! A kind of source that only the machine knows the items of: databases, each held still by itself, in a directory of the
//! run's that is made before it is read and removed afterwards.

use std::path::PathBuf;

use stillpoint::engine::{BackupReport, Expected, Input};
use stillpoint::host::{Action, Host};
use stillpoint::model::job::Job;
use stillpoint::model::needs::Needs;
use stillpoint::model::report::VolumeReport;
use stillpoint::model::target::Target;
use stillpoint::model::undo::{EntryId, Identity, StagingDirectory};
use stillpoint::source::{Findings, HeldBatch, Item, Source};
use stillpoint::step::context::{Pipeline, RunContext};
use stillpoint::step::error::{StepError, ledger_error};
use stillpoint::step::recorder::{Done, Recorder};
use stillpoint::tools::Tree;

/// The databases of a machine.
struct Databases;

/// The row of the table: every job protects databases.
pub fn databases(_: &Job) -> Box<dyn Source + '_> {
    Box::new(Databases)
}

/// Where a database is held still.
pub fn place(database: &str) -> PathBuf {
    PathBuf::from("/var/cache/stillpoint/databases").join(database)
}

impl Source for Databases {
    fn kind(&self) -> &'static str {
        "databases"
    }

    fn declared(&self) -> Option<Vec<Item>> {
        None
    }

    fn items(&self, host: &dyn Host) -> Result<Vec<Item>, StepError> {
        let names = host.read("/databases".as_ref())?;
        Ok(String::from_utf8_lossy(&names).lines().map(|name| Some(name.to_owned())).collect())
    }

    fn batches(&self, items: Vec<Item>) -> Vec<Vec<Item>> {
        items.into_iter().map(|item| vec![item]).collect()
    }

    fn hold<'s>(
        &'s self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        batch: &[Item],
        _: &[&Target],
    ) -> Option<Box<dyn HeldBatch + 's>> {
        let [Some(database)] = batch else { panic!("one database a batch: {batch:?}") };
        let mut held = None;
        let done = rec.step("hold", None, Some(database), |_| {
            let path = place(database);
            let undo = StagingDirectory::new(path.clone());
            let entry = cx.ledger.intend(undo.into()).map_err(ledger_error)?;
            let held = held.insert(Database { name: database.clone(), entry, identity: None });
            let made = cx.host().act(&Action::CreateDirectory { path, mode: 0o700 })?;
            if let Some(identity) = &made {
                cx.ledger.made(entry, identity.clone()).map_err(ledger_error)?;
            }
            held.identity = made;
            Ok(((), Done::ok("held")))
        });
        let held: Box<dyn HeldBatch> = Box::new(held?);
        if done.is_none() {
            held.release(cx, rec);
            return None;
        }
        Some(held)
    }

    fn holds_nothing(&self, report: &BackupReport) -> bool {
        report.files == Some(0)
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn preflight(&self, pipeline: Pipeline<'_>, _: &[&Target]) -> Findings {
        vec![("databases".into(), self.items(pipeline.host).map(|items| items.len().to_string()))]
    }
}

/// A database that is held still.
struct Database {
    name: String,
    entry: EntryId,
    identity: Option<Identity>,
}

impl HeldBatch for Database {
    fn input(&self, _: RunContext<'_>, item: &Item, _: &Target) -> Option<Input> {
        let path = place(&self.name);
        (item.as_ref() == Some(&self.name)).then(|| Input::Tree {
            tree: Tree { paths: vec![path.clone()], ..Tree::default() },
            expected: vec![Expected { path, is_directory: true }],
        })
    }

    fn gaps(&self, _: &Item) -> &[String] {
        &[]
    }

    fn volumes(&self) -> &[VolumeReport] {
        &[]
    }

    fn still_holds(&self, cx: RunContext<'_>) -> Result<(), StepError> {
        let there = cx.host().path_state(&place(&self.name))?;
        assert!(there.is_some(), "{} was let go while it was read", self.name);
        Ok(())
    }

    fn watch(&self, _: RunContext<'_>, read: &mut dyn FnMut()) {
        read();
    }

    fn release(self: Box<Self>, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        let _shield = cx.host().shield();
        rec.step("release", None, Some(&self.name), |_| {
            let path = place(&self.name);
            cx.host().act(&Action::RemoveStaging { path, identity: self.identity.clone() })?;
            cx.ledger.settled(self.entry).map_err(ledger_error)?;
            Ok(((), Done::ok("released")))
        });
    }
}
