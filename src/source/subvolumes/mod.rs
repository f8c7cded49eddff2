//! Subvolumes of btrfs, each taken over as it is: a snapshot is sent to every target, as a difference to an earlier one
//! that the target has, and stays for the next time.

use std::path::Path;

use crate::engine::BackupReport;
use crate::model::job::{Job, SubvolumesSource};
use crate::model::needs::Needs;
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::step::context::{Pipeline, RunContext};
use crate::step::recorder::Recorder;

use super::{Findings, HeldBatch, Item, Source};

mod fit;
mod hold;
mod kept;

/// The subvolumes of a job.
pub struct Subvolumes<'a> {
    pub(super) job: &'a Job,
    pub(super) subvolumes: &'a SubvolumesSource,
}

impl Source for Subvolumes<'_> {
    fn kind(&self) -> &'static str {
        "subvolumes"
    }

    fn declared(&self) -> Option<Vec<Item>> {
        Some(self.subvolumes.paths.iter().map(|path| Some(fit::item_of(path))).collect())
    }

    fn hold<'s>(
        &'s self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        items: &[Item],
        _: &[&Target],
    ) -> Option<Box<dyn HeldBatch + 's>> {
        let held = hold::hold(cx, rec, self.job, self.subvolumes, items)?;
        Some(Box::new(held))
    }

    fn holds_nothing(&self, report: &BackupReport) -> bool {
        report.files == Some(0)
    }

    fn settle(&self, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        kept::release_unneeded(cx, rec, self.job);
    }

    fn needs(&self) -> Needs {
        Needs { reads: self.subvolumes.paths.clone(), ..Needs::default() }
    }

    fn preflight(&self, pipeline: Pipeline<'_>, _: &[&Target]) -> Findings {
        let examined = |path: &Path| {
            let found = fit::examine(pipeline.host, self.subvolumes, path)?;
            let lacking = (!found.absent.is_empty()).then(|| fit::said(&found));
            let told: Vec<String> = fit::hindered(&found).into_iter().chain(lacking).collect();
            Ok(match told.is_empty() {
                true => "a subvolume that can be sent".to_owned(),
                false => told.join("; "),
            })
        };
        self.subvolumes
            .paths
            .iter()
            .map(|path| (path.shown().to_string(), examined(path)))
            .collect()
    }
}
