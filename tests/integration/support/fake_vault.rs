//! One more engine, with what every engine must have and nothing else: no names of its own choice, no locks, no check,
//! no pins, no mounts. Its program exists on the fake machine only; it keeps marks beside what it copies.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use stillpoint::engine::{
    BackupReport, BackupRequest, Context, Engine, EngineError, Engines, Entry, Initialised, Input,
    OnProgress, Probe, RestoreReport, RestoreRequest,
};
use stillpoint::host::{CommandSpec, Completed, Effect, Fact, Prediction, Tool};
use stillpoint::model::copy::{Copy, Series};
use stillpoint::model::job::Config;
use stillpoint::model::names::{HostName, JobName, RunId};
use stillpoint::model::outcome::Outcome;
use stillpoint::model::target::Target;

use super::fake_borg::Answer;

/// The row of the table: every target is a vault.
pub fn vaults(config: &Config) -> Engines {
    let vault = |target: &Target| -> Box<dyn Engine> { Box::new(Vault(target.clone())) };
    config.targets.iter().map(|target| (target.name.clone(), vault(target))).collect()
}

/// What the program says at the end of its listing.
const END: &str = "end";

/// What a dry run predicts about.
const COPIES: &str = "copies of the vault";

/// The engine of a target.
struct Vault(Target);

impl Vault {
    /// Runs the program; its answer is believed when it ends well.
    fn ask(&self, cx: Context<'_>, spec: &CommandSpec) -> Result<Completed, EngineError> {
        let completed = cx.host.run(spec, &mut |_, _| {})?;
        if completed.success() {
            return Ok(completed);
        }
        Err(EngineError::Failed {
            command: spec.display(),
            exit: completed.exit.to_string(),
            detail: completed.last_lines(3),
        })
    }

    fn command(&self, effect: Effect, verb: &str) -> CommandSpec {
        CommandSpec::new(self.program(), effect).args([verb, &self.0.repository])
    }
}

fn broken(what: &str) -> EngineError {
    EngineError::Output { engine: "vault", what: what.into() }
}

fn fact(value: Value) -> Fact {
    Fact { about: COPIES.into(), value: value.to_string().into_bytes() }
}

/// A copy from what the program lists.
fn as_copy(line: &str) -> Option<Copy> {
    let value: Value = serde_json::from_str(line).ok()?;
    let (id, mark) = (value["id"].as_str()?, &value["mark"]);
    Some(Copy {
        id: id.into(),
        series: Some(Series {
            host: HostName::new(mark["host"].as_str()?).ok()?,
            job: JobName::new(mark["job"].as_str()?).ok()?,
            item: mark["item"].as_str().map(str::to_owned),
        }),
        run: Some(RunId::parse(mark["run"].as_str()?)?),
        time: mark["time"].as_str()?.parse().ok()?,
        ..Copy::default()
    })
}

impl Engine for Vault {
    fn target(&self) -> &Target {
        &self.0
    }

    fn program(&self) -> Tool {
        Tool::Known { name: "vault", hint: "nobody can install it" }
    }

    fn init(&self, cx: Context<'_>) -> Result<Initialised, EngineError> {
        self.ask(cx, &self.command(Effect::Mutate, "make"))?;
        Ok(Initialised { repository_id: None, key_export: None })
    }

    fn probe(&self, cx: Context<'_>) -> Result<Probe, EngineError> {
        self.list(cx)?;
        Ok(Probe { version: "1".into(), repository_id: None, encryption: None })
    }

    fn list(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        let completed = self.ask(cx, &self.command(Effect::Inspect, "list"))?;
        let text = String::from_utf8_lossy(&completed.stdout).into_owned();
        let listed = text.strip_suffix(END).ok_or_else(|| broken("a listing without its end"))?;
        let read = |line: &str| as_copy(line).ok_or_else(|| broken(line));
        let mut copies = listed.lines().map(read).collect::<Result<Vec<Copy>, _>>()?;
        for predicted in cx.host.predicted(COPIES) {
            let text = String::from_utf8_lossy(&predicted).into_owned();
            match text.strip_prefix("\"gone ").and_then(|rest| rest.strip_suffix('"')) {
                Some(gone) => copies.retain(|copy| copy.id != gone),
                None => copies.push(read(&text)?),
            }
        }
        Ok(copies)
    }

    fn backup(
        &self,
        cx: Context<'_>,
        request: &BackupRequest,
        _: OnProgress<'_>,
    ) -> Result<BackupReport, EngineError> {
        let Input::Tree { tree, .. } = &request.input else {
            panic!("a vault is given trees: {:?}", request.input)
        };
        let Series { host, job, item } = &request.series;
        let mark = json!({ "host": host, "job": job, "item": item, "run": request.run, "time": request.time });
        let id = format!("would-be-{}", request.run);
        let mut spec = self.command(Effect::Mutate, "keep").arg(mark.to_string()).args(&tree.paths);
        spec.view = tree.view.clone();
        spec.prediction = Prediction {
            stdout: id.clone().into_bytes(),
            facts: vec![fact(json!({ "id": id, "mark": mark }))],
        };
        let completed = self.ask(cx, &spec)?;
        Ok(BackupReport {
            outcome: Outcome::Ok,
            id: Some(String::from_utf8_lossy(&completed.stdout).into_owned()),
            bytes_new: None,
            size: (!completed.is_predicted).then_some(1_000),
            files: (!completed.is_predicted).then_some(100),
            files_changed: 0,
            unreadable: Vec::new(),
            unreadable_count: 0,
            warnings: Vec::new(),
            absent: Some(Vec::new()),
        })
    }

    fn delete(&self, cx: Context<'_>, ids: &[String]) -> Result<(), EngineError> {
        let mut spec = self.command(Effect::Mutate, "drop").args(ids);
        spec.prediction.facts = ids.iter().map(|id| fact(json!(format!("gone {id}")))).collect();
        self.ask(cx, &spec).map(drop)
    }

    fn restore(
        &self,
        cx: Context<'_>,
        request: &RestoreRequest,
        _: OnProgress<'_>,
    ) -> Result<RestoreReport, EngineError> {
        let effect = if request.dry_run { Effect::Inspect } else { Effect::Mutate };
        let spec = self.command(effect, "lay").arg(&request.copy.id).arg(&request.to);
        self.ask(cx, &spec.args(&request.paths)).map(|_| RestoreReport::default())
    }

    fn contents(
        &self,
        cx: Context<'_>,
        copy: &Copy,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), EngineError> {
        let completed = self.ask(cx, &self.command(Effect::Inspect, "show").arg(&copy.id))?;
        for line in String::from_utf8_lossy(&completed.stdout).lines() {
            let (kind, path) = line.split_at_checked(1).ok_or_else(|| broken(line))?;
            let kind = kind.chars().next().ok_or_else(|| broken(line))?;
            each(Entry {
                path: path.into(),
                kind,
                size: (kind == '-').then_some(10),
                modified: None,
                mode: Some(0o755),
                uid: Some(0),
                gid: Some(0),
                shared: None,
            });
        }
        Ok(())
    }
}

/// The program with what it keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeVault {
    /// Id → mark.
    pub copies: BTreeMap<String, String>,
    made: u32,
}

impl FakeVault {
    /// Carries out a command.
    ///
    /// # Panics
    /// On a command that nobody thought of.
    pub fn answer(&mut self, spec: &CommandSpec) -> Answer {
        let words: Vec<&str> = spec.args.iter().map(|arg| arg.to_str().unwrap()).collect();
        let stdout = match words.as_slice() {
            ["make", _] => String::new(),
            ["list", _] => {
                let line = |(id, mark): (&String, &String)| {
                    format!("{{\"id\":\"{id}\",\"mark\":{mark}}}\n")
                };
                self.copies.iter().map(line).chain([END.to_owned()]).collect()
            }
            ["keep", _, mark, _path, ..] => {
                self.made += 1;
                let id = format!("v{:03}", self.made);
                self.copies.insert(id.clone(), (*mark).to_owned());
                id
            }
            ["drop", _, ids @ ..] => {
                self.copies.retain(|id, _| !ids.contains(&id.as_str()));
                String::new()
            }
            ["show", _, id] if self.copies.contains_key(*id) => "d/data\n-/data/a\n".into(),
            ["lay", _, id, ..] if self.copies.contains_key(*id) => String::new(),
            other => panic!("the fake vault was not told about: {other:?}"),
        };
        Answer::good(stdout)
    }
}
