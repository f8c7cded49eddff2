//! Files and directories: found, held still volume by volume, and read under their own paths.

use std::path::Path;

use crate::engine::BackupReport;
use crate::host::Host;
use crate::model::job::{CaptureMode, FilesSource, Job};
use crate::model::needs::Needs;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::model::target::Target;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;
use crate::step::recorder::Recorder;

use super::{Findings, HeldBatch, Item, Source};

use self::gaps::gap;
use self::hold::hold;
use self::roots::{probable_cause, resolve};

mod captured;
mod gaps;
mod hold;
mod preflight;
pub mod quiesce;
mod roots;

/// The files of a job: one thing, all volumes of which are held still at once.
pub struct Files<'a> {
    pub(super) job: &'a Job,
    pub(super) files: &'a FilesSource,
}

impl Source for Files<'_> {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn declared(&self) -> Option<Vec<Item>> {
        Some(vec![None])
    }

    fn hold<'s>(
        &'s self,
        cx: RunContext<'_>,
        rec: &mut Recorder<'_>,
        _: &[Item],
        targets: &[&Target],
    ) -> Option<Box<dyn HeldBatch + 's>> {
        let captured = hold(cx, rec, self.job, self.files, targets)?;
        Some(Box::new(captured))
    }

    fn holds_nothing(&self, report: &BackupReport) -> bool {
        report.files == Some(0) && !self.files.allow_empty
    }

    fn not_held(&self, host: &dyn Host, path: &Path) -> String {
        let cause = probable_cause(host, self.files, path);
        format!("{}, a path of the job, is not in the copy: {cause}", path.shown())
    }

    fn needs(&self) -> Needs {
        let capture = &self.files.capture;
        let captures = capture.mode != CaptureMode::None;
        Needs {
            reads: self.files.paths.clone(),
            volume_manager: captures,
            control_groups: captures && !capture.freeze_units.is_empty(),
            ..Needs::default()
        }
    }

    fn preflight(&self, pipeline: Pipeline<'_>, _: &[&Target]) -> Findings {
        let mut found = Vec::new();
        if self.files.capture.mode != CaptureMode::None {
            found.push(("capture".to_owned(), preflight::capture(pipeline, self.files)));
        }
        let compared = resolve(pipeline.host, self.files).map_err(StepError::from);
        for path in &self.files.paths {
            let result =
                gap(pipeline.host, self.files, &compared, path).and_then(|gap| match gap {
                    None => Ok("there".into()),
                    Some(gap) => Err(StepError::from_error(Trouble::Incomplete, &gap, gap.hint())),
                });
            found.push((path.shown().to_string(), result));
        }
        found
    }
}
