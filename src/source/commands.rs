//! Standard outputs of commands, each stored as one file. A command runs anew for each target, and nothing is held.

use crate::engine::{BackupReport, Input};
use crate::host::{CommandSpec, Effect, Tool};
use crate::model::job::CommandSource;
use crate::model::needs::Needs;
use crate::model::report::VolumeReport;
use crate::model::target::Target;
use crate::step::context::{Pipeline, RunContext};
use crate::step::error::StepError;
use crate::step::recorder::Recorder;

use super::{Findings, HeldBatch, Item, Source};

/// The commands of a job.
pub struct Commands<'a> {
    pub(super) commands: &'a [CommandSource],
}

impl Source for Commands<'_> {
    fn kind(&self) -> &'static str {
        "commands"
    }

    fn declared(&self) -> Option<Vec<Item>> {
        Some(self.commands.iter().map(|command| Some(command.item.clone())).collect())
    }

    fn hold<'s>(
        &'s self,
        _: RunContext<'_>,
        _: &mut Recorder<'_>,
        _: &[Item],
        _: &[&Target],
    ) -> Option<Box<dyn HeldBatch + 's>> {
        Some(Box::new(Outputs { commands: self.commands }))
    }

    fn holds_nothing(&self, report: &BackupReport) -> bool {
        report.size == Some(0)
    }

    fn programs(&self) -> Vec<(String, &[String])> {
        self.commands.iter().map(|command| (command.item.clone(), &command.command[..])).collect()
    }

    fn needs(&self) -> Needs {
        Needs { foreign_programs: true, ..Needs::default() }
    }

    fn preflight(&self, _: Pipeline<'_>, _: &[&Target]) -> Findings {
        Vec::new()
    }
}

/// What the commands will say.
struct Outputs<'a> {
    commands: &'a [CommandSource],
}

impl HeldBatch for Outputs<'_> {
    fn input(&self, _: RunContext<'_>, item: &Item, _: &Target) -> Option<Input> {
        let command = self.commands.iter().find(|command| Some(&command.item) == item.as_ref())?;
        let (program, args) = command.command.split_first()?;
        // Looking at data does not change it, but it costs: a dry run only shows the command.
        let producer = CommandSpec::new(Tool::from_word(program), Effect::Mutate).args(args);
        Some(Input::Stream { producer: Box::new(producer), file_name: command.file_name.clone() })
    }

    fn gaps(&self, _: &Item) -> &[String] {
        &[]
    }

    fn volumes(&self) -> &[VolumeReport] {
        &[]
    }

    fn still_holds(&self, _: RunContext<'_>) -> Result<(), StepError> {
        Ok(())
    }

    fn watch(&self, _: RunContext<'_>, read: &mut dyn FnMut()) {
        read();
    }

    fn release(self: Box<Self>, _: RunContext<'_>, _: &mut Recorder<'_>) {}
}
