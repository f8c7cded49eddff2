//! Where objects lie: in a directory, or behind four commands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::engine::sent::{culprit, failure};
use crate::engine::{Context, EngineError, secret};
use crate::host::spec::quote;
use crate::host::{
    Action, CommandSpec, Effect, EnvValue, Fact, Input, PathKind, StdoutMode, Tool, TrustKind,
};
use crate::model::secret::Secret;
use crate::model::shown::Show;
use crate::model::target::{StoreCommands, StreamsOptions, Target};
use crate::tools::object::{self, Digest, From, To};
use crate::tools::restic::environment;

/// The objects of a target.
pub(super) struct Store<'a> {
    pub cx: Context<'a>,
    target: &'a Target,
    place: Place<'a>,
}

enum Place<'a> {
    /// Files of a directory.
    Directory(PathBuf),
    /// What commands store and read.
    Commands { commands: &'a StoreCommands, environment: Vec<(String, Secret)> },
}

impl<'a> Store<'a> {
    /// Finds the place.
    ///
    /// # Errors
    /// When others may put there what they like, or the secrets for the commands cannot be had.
    pub fn of(
        cx: Context<'a>,
        target: &'a Target,
        options: &'a StreamsOptions,
    ) -> Result<Self, EngineError> {
        let place = match &options.commands {
            Some(commands) => Place::Commands { commands, environment: variables(cx, options)? },
            None => {
                let path = target.local.as_deref().unwrap_or(Path::new(&target.repository));
                let path = cx.host.canonical(path);
                // Whether there is one is for the marker in it to say.
                if cx.host.path_state(&path)?.is_some() {
                    // What a record says is believed, so nobody else may write one, nor move what it speaks of.
                    cx.host
                        .check_trusted(&path, TrustKind::Directory)
                        .map_err(EngineError::Untrusted)?;
                }
                Place::Directory(path)
            }
        };
        Ok(Self { cx, target, place })
    }

    /// Whether objects can be stored: a directory has to be there.
    ///
    /// # Errors
    /// When it is not, or cannot be looked at.
    pub fn require(&self) -> Result<(), EngineError> {
        let Place::Directory(path) = &self.place else { return Ok(()) };
        match self.cx.host.path_state(path)? {
            Some(found) if found.kind == PathKind::Directory => Ok(()),
            Some(_) | None => {
                let what = format!("there is no directory {}: make it", path.shown());
                Err(EngineError::unsupported(self.target, &what))
            }
        }
    }

    /// The names of all objects. What is not UTF-8 is none of ours.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn names(&self) -> Result<BTreeSet<String>, EngineError> {
        let mut names: BTreeSet<String> = match &self.place {
            Place::Directory(path) => {
                let there = self.cx.host.names_in(path)?.unwrap_or_default();
                there.into_iter().filter_map(|name| name.into_string().ok()).collect()
            }
            Place::Commands { commands, .. } => {
                let spec = self.command(&commands.list, "", Effect::Inspect);
                let completed = self.cx.host.run(&spec, &mut |_, _| {})?;
                if !completed.success() {
                    return Err(failure(self.target, &spec, &completed));
                }
                let lines = completed.stdout.split(|byte| *byte == b'\n');
                lines.filter_map(|line| Some(str::from_utf8(line).ok()?.to_owned())).collect()
            }
        };
        // What a dry run would have made or removed.
        let predicted = |about: &str| {
            let names = self.cx.host.predicted(&format!("{about} {}", self.target.repository));
            names.into_iter().filter_map(|name| String::from_utf8(name).ok())
        };
        names.extend(predicted(STORED));
        for name in predicted(REMOVED) {
            names.remove(&name);
        }
        Ok(names)
    }

    /// A small object as a whole.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, EngineError> {
        match &self.place {
            Place::Directory(path) => {
                let file = path.join(name);
                // To read a pipe would be to wait for ever.
                let found = self.cx.host.path_state(&file)?;
                if found.is_some_and(|found| found.kind == PathKind::Other) {
                    return Err(self.damaged(format!("{} is no file", file.shown())));
                }
                Ok(self.cx.host.read(&file)?)
            }
            Place::Commands { commands, .. } => {
                if let Some(content) = self.cx.host.predicted(&self.content_of(name)).pop() {
                    return Ok(content);
                }
                let spec = self.command(&commands.get, name, Effect::Inspect);
                let completed = self.cx.host.run(&spec, &mut |_, _| {})?;
                match completed.success() {
                    true => Ok(completed.stdout),
                    false => Err(failure(self.target, &spec, &completed)),
                }
            }
        }
    }

    /// A small object that was listed; `None` where somebody has removed it meanwhile. Inside of that: why it cannot be read,
    /// where that is known of the object itself.
    ///
    /// # Errors
    /// When a command fails, which says nothing of the object.
    pub fn read_listed(&self, name: &str) -> Result<Option<Result<Vec<u8>, String>>, EngineError> {
        match self.read(name) {
            Ok(content) => Ok(Some(Ok(content))),
            Err(_) if !self.names()?.contains(name) => Ok(None),
            Err(EngineError::Act(error)) => Ok(Some(Err(error.to_string()))),
            Err(error @ EngineError::Damaged { .. }) => Ok(Some(Err(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    /// Stores a small object, in the place of an earlier one of that name.
    ///
    /// # Errors
    /// When it cannot be stored for good.
    pub fn write(&self, name: &str, content: String) -> Result<(), EngineError> {
        match &self.place {
            Place::Directory(path) => {
                let (path, content) = (path.join(name), content.into_bytes());
                self.cx.host.act(&Action::ReplaceFile { path, mode: 0o600, content })?;
                Ok(())
            }
            Place::Commands { commands, .. } => {
                let [text, put] = self.writers(commands, name, content.into_bytes());
                let chained =
                    self.cx.host.chain(std::slice::from_ref(&text), &put, &mut |_, _| {})?;
                match culprit(std::slice::from_ref(&text), &put, &chained) {
                    Some((spec, ended)) => Err(failure(self.target, spec, ended)),
                    None => Ok(()),
                }
            }
        }
    }

    /// What stores a small object behind commands. Linux takes no argument that is as long as some of them.
    fn writers(&self, commands: &StoreCommands, name: &str, content: Vec<u8>) -> [CommandSpec; 2] {
        let mut put = self.put(commands, name);
        let (about, value) = (self.content_of(name), content.clone());
        put.prediction.facts = vec![self.fact(STORED, name), Fact { about, value }];
        let mut text = object::pass(From::Before, To::Next, self.target.stall_timeout);
        text.input = Input::Bytes(content);
        [text, put]
    }

    /// The last processes of a chain that stores a new object, from there on. The first of them tells what it was.
    pub fn take(&self, from: From<'_>, name: &str) -> Vec<CommandSpec> {
        let limit = self.target.stall_timeout;
        let mut specs = match &self.place {
            Place::Directory(path) => {
                vec![object::pass(from, To::File(&path.join(name)), limit)]
            }
            Place::Commands { commands, .. } => {
                vec![object::pass(from, To::Next, limit), self.put(commands, name)]
            }
        };
        if let Some(last) = specs.last_mut() {
            last.prediction.facts = vec![self.fact(STORED, name)];
        }
        specs
    }

    /// The process that takes the next share of what is sent, for others to change before it is stored.
    pub fn share(&self) -> CommandSpec {
        object::untold(object::pass(From::Share, To::Next, self.target.stall_timeout))
    }

    /// The process that waits until the first byte is there of what is to be stored: it takes the share before that, in which
    /// there is nothing. A command that connects to a server would wait for so long with its line open.
    pub fn awaits(&self) -> CommandSpec {
        let mut spec =
            object::untold(object::pass(From::Share, To::Nobody, self.target.stall_timeout));
        // In a dry run there is nothing to be sent.
        spec.effect = Effect::Mutate;
        spec
    }

    /// The first processes of a chain that reads an object. The last of them tells what it was, and passes it on or not.
    pub fn give(&self, name: &str, to: To<'_>) -> Vec<CommandSpec> {
        let limit = self.target.stall_timeout;
        match &self.place {
            Place::Directory(path) => {
                vec![object::pass(From::File(&path.join(name)), to, limit)]
            }
            Place::Commands { commands, .. } => {
                let mut get = self.command(&commands.get, name, Effect::Inspect);
                get.stdout = StdoutMode::Lines;
                vec![get, object::pass(From::Before, to, limit)]
            }
        }
    }

    /// Removes an object that is there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        match &self.place {
            Place::Directory(path) => {
                self.cx.host.act(&Action::RemoveFile { path: path.join(name) })?;
                Ok(())
            }
            Place::Commands { commands, .. } => {
                let mut spec = self.command(&commands.delete, name, Effect::Mutate);
                spec.stdout = StdoutMode::Discard;
                spec.prediction.facts = vec![self.fact(REMOVED, name)];
                let completed = self.cx.host.run(&spec, &mut |_, _| {})?;
                match completed.success() || completed.is_predicted {
                    true => Ok(()),
                    false => Err(failure(self.target, &spec, &completed)),
                }
            }
        }
    }

    /// Waits until a power cut brings back nothing that was removed. What commands did is for whoever they asked.
    ///
    /// # Errors
    /// When something was lost.
    pub fn flush(&self) -> Result<(), EngineError> {
        if let Place::Directory(path) = &self.place {
            self.cx.host.act(&Action::FlushFileSystem { path: path.clone() })?;
        }
        Ok(())
    }

    /// The length of an object; `None` where nobody tells it without reading it.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn length(&self, name: &str) -> Result<Option<u64>, EngineError> {
        match &self.place {
            Place::Directory(path) => {
                let found = self.cx.host.path_state(&path.join(name))?;
                let file = found.filter(|found| found.kind == PathKind::File);
                Ok(Some(file.map_or(0, |found| found.size)))
            }
            Place::Commands { .. } => Ok(None),
        }
    }

    /// Whether the length of an object is known without reading it.
    pub fn tells_lengths(&self) -> bool {
        match &self.place {
            Place::Directory(_) => true,
            Place::Commands { .. } => false,
        }
    }

    /// Reads an object, without opening it, and compares it with what was stored. Answers what is damaged.
    ///
    /// # Errors
    /// When it cannot be read for another reason.
    pub fn compare(&self, object: &str, stored: &Digest) -> Result<Option<String>, EngineError> {
        let mut specs = self.give(object, To::Nobody);
        let Some(last) = specs.pop() else { return Ok(None) };
        let chained = self.cx.host.chain(&specs, &last, &mut |_, _| {})?;
        let Some((spec, ended)) = culprit(&specs, &last, &chained) else {
            let is_it = Digest::last(&chained.last.stderr_tail).as_ref() == Some(stored);
            return Ok((!is_it).then(|| another(object)));
        };
        let said = ended.last_words(3);
        // The kernel's word for data that cannot be read.
        if said.lines().any(|line| line.ends_with(": Input/output error (os error 5)")) {
            return Ok(Some(format!("{object}: {said}")));
        }
        Err(failure(self.target, spec, ended))
    }

    /// How a person reads an object, as a shell takes it.
    pub fn by_hand(&self, object: ByHand<'_>) -> String {
        match &self.place {
            Place::Directory(path) => {
                let above = path.join("");
                format!("cat {}", object.within(&above.to_string_lossy(), ""))
            }
            Place::Commands { commands, .. } => {
                let words = commands.get.iter().map(|word| object.filled_in(word));
                words.collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// How a person removes an object.
    pub fn removal_by_hand(&self, name: &str) -> String {
        match &self.place {
            Place::Directory(path) => format!("rm {}", quote(path.join(name))),
            Place::Commands { commands, .. } => {
                self.command(&commands.delete, name, Effect::Mutate).display()
            }
        }
    }

    /// That the target is damaged.
    pub fn damaged(&self, detail: String) -> EngineError {
        EngineError::Damaged { repository: self.target.repository.clone(), detail }
    }

    fn fact(&self, about: &str, name: &str) -> Fact {
        Fact { about: format!("{about} {}", self.target.repository), value: name.into() }
    }

    fn content_of(&self, name: &str) -> String {
        format!("{STORED} {} {name}", self.target.repository)
    }

    /// The command that stores an object. Some print what they store.
    fn put(&self, commands: &StoreCommands, name: &str) -> CommandSpec {
        let mut put = self.command(&commands.put, name, Effect::Mutate);
        put.stdout = StdoutMode::Discard;
        put
    }

    /// A command of the administrator's, for an object.
    fn command(&self, argv: &[String], name: &str, effect: Effect) -> CommandSpec {
        let words = || argv.iter().map(|word| word.replace(NAME, name));
        let program = argv.first().map_or("", String::as_str);
        let mut spec = CommandSpec::new(Tool::from_word(program), effect).args(words().skip(1));
        spec.stall_limit = Some(self.target.stall_timeout);
        if let Place::Commands { environment, .. } = &self.place {
            let secret =
                |(name, value): &(String, Secret)| (name.clone(), EnvValue::Secret(value.clone()));
            spec.env = environment.iter().map(secret).collect();
        }
        spec
    }
}

/// What an object is called in a command that is shown to a person.
#[derive(Debug, Clone, Copy)]
pub(super) enum ByHand<'n> {
    /// So.
    Object(&'n str),
    /// As this variable of a shell says.
    Variable(&'n str),
}

impl ByHand<'_> {
    /// A word of a command, in which the place of an object is filled in.
    fn filled_in(self, word: &str) -> String {
        match (word.split_once(NAME), self) {
            (None, _) => quote(word),
            (Some(_), ByHand::Object(name)) => quote(word.replace(NAME, name)),
            (Some((before, after)), ByHand::Variable(_)) => self.within(before, after),
        }
    }

    /// A word in which an object stands between these. Within quotes a shell would take a variable for its name.
    fn within(self, before: &str, after: &str) -> String {
        let quoted = |text: &str| if text.is_empty() { String::new() } else { quote(text) };
        match self {
            ByHand::Object(name) => quote(format!("{before}{name}{after}")),
            ByHand::Variable(name) => {
                let after = match after.contains(NAME) {
                    true => self.filled_in(after),
                    false => quoted(after),
                };
                format!("{}\"${name}\"{after}", quoted(before))
            }
        }
    }
}

/// What stands for an object in the commands.
const NAME: &str = "{name}";

/// That an object is another one than was stored.
pub(super) fn another(object: &str) -> String {
    format!("{object} is not what was stored")
}

/// What a dry run files its predictions under, before the repository.
const STORED: &str = "object stored in";
const REMOVED: &str = "object removed from";

/// The variables for the commands.
fn variables(
    cx: Context<'_>,
    options: &StreamsOptions,
) -> Result<Vec<(String, Secret)>, EngineError> {
    let Some(path) = &options.environment_file else { return Ok(Vec::new()) };
    environment::parse(secret::read_private(cx.host, path)?.reveal())
        .map_err(|error| EngineError::Secret { what: format!("{}: {error}", path.shown()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_is_shown_as_it_is_meant() {
        let object = ByHand::Object("NAME.btrfs");
        let each = ByHand::Variable("part");
        assert_eq!(object.filled_in("s3:my bucket/{name}"), "'s3:my bucket/NAME.btrfs'");
        assert_eq!(each.filled_in("s3:my bucket/{name}"), "'s3:my bucket/'\"$part\"");
        assert_eq!(each.filled_in("{name}"), "\"$part\"");
        assert_eq!(each.filled_in("/a/{name}.x"), "/a/\"$part\".x");
        assert_eq!(each.filled_in("/a b/{name}/c d/{name}"), "'/a b/'\"$part\"'/c d/'\"$part\"");
        assert_eq!(each.filled_in("it's"), "'it'\\''s'");
        assert_eq!(each.within("/mnt/my disk/", ""), "'/mnt/my disk/'\"$part\"");
        assert_eq!(object.within("/mnt/", ""), "/mnt/NAME.btrfs");
    }
}
