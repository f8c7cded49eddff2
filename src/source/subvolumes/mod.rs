//! Subvolumes of btrfs, each taken over as it is: a snapshot is sent to every target, as a difference to an earlier one
//! that the target has, and stays for the next time.

use std::path::Path;

use crate::engine::BackupReport;
use crate::model::job::{Job, SubvolumesSource};
use crate::model::needs::{Needs, Network};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;
use crate::step::recorder::Recorder;
use crate::tools::ssh;

use super::{Findings, HeldBatch, Item, ItemSnapshot, Source};

mod existing;
mod far;
mod fit;
mod found;
mod here;
mod hold;
mod kept;
mod space;

use found::Which;

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

    fn snapshots(&self, pipeline: Pipeline<'_>) -> Result<Vec<ItemSnapshot>, StepError> {
        Ok(here::snapshots(pipeline, self.subvolumes)?)
    }

    fn hold<'s>(
        &'s self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        items: &[Item],
        targets: &[&Target],
    ) -> Option<Box<dyn HeldBatch + 's>> {
        if let Some(existing) = &self.subvolumes.existing {
            let which = Which::Existing(existing);
            let found = found::find(cx, rec, self.job, self.subvolumes, items, which)?;
            return Some(Box::new(found));
        }
        if let Err(error) = far::note_way(cx, self.job) {
            rec.warn(error.message);
        }
        let resumes = targets.iter().any(|target| cx.pipeline.engine(target).resumes());
        if resumes {
            kept::release_of_killed(cx, rec, self.job);
        }
        let held = hold::hold(cx, rec, self.job, self.subvolumes, items, resumes)?;
        Some(Box::new(held))
    }

    fn hold_kept<'s>(
        &'s self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        items: &[Item],
    ) -> Option<Box<dyn HeldBatch + 's>> {
        if self.subvolumes.existing.is_some() {
            return self.hold(cx, rec, items, &[]);
        }
        let found = found::find(cx, rec, self.job, self.subvolumes, items, Which::Kept)?;
        Some(Box::new(found))
    }

    fn holds_nothing(&self, report: &BackupReport) -> bool {
        report.files == Some(0)
    }

    fn keeps_snapshots(&self) -> bool {
        self.job.keep_snapshots.is_some()
    }

    fn settle(&self, cx: RunContext<'_>, rec: &mut Recorder<'_>) {
        kept::release_unneeded(cx, rec, self.job);
        space::make_room(cx, rec, self.job, self.subvolumes);
    }

    fn needs(&self) -> Needs {
        match &self.subvolumes.from {
            None => Needs { reads: self.subvolumes.paths.clone(), ..Needs::default() },
            Some(from) => Needs {
                reads: ssh::files(&from.server),
                network: Network::Reached,
                ..Needs::default()
            },
        }
    }

    fn preflight(&self, pipeline: Pipeline<'_>, _: &[&Target]) -> Findings {
        let examined = |path: &Path| {
            let found = fit::examine(pipeline.capture_context(), self.subvolumes, path)?;
            let lacking = fit::said(&found);
            let fit = match &self.subvolumes.existing {
                Some(existing) => Some(existing::preflight(pipeline, &found, existing)?),
                None => fit::hindered(&found),
            };
            let kept_in = fit::said_of_kept(&found);
            let trouble = lacking.as_ref().map(|_| Trouble::Incomplete);
            let trouble = trouble.or(kept_in.as_ref().map(|_| Trouble::Warning));
            let told: Vec<String> = fit.into_iter().chain(lacking).chain(kept_in).collect();
            let said = match told.is_empty() {
                true => "a subvolume that can be sent".to_owned(),
                false => told.join("; "),
            };
            match trouble {
                None => Ok(said),
                Some(trouble) => Err(StepError::new(trouble, said)),
            }
        };
        self.subvolumes
            .paths
            .iter()
            .map(|path| (path.shown().to_string(), examined(path)))
            .collect()
    }
}
