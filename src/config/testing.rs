//! Configurations for unit tests, from the text that a person would write.

use super::{SourceFile, load};
use crate::model::job::{Config, FilesSource, Source};
use crate::model::target::Target;

/// The configuration of a text, on a machine called `web1`. A text with a problem fails the test that wrote it.
pub fn config(text: &str) -> Config {
    let file = SourceFile { path: "/etc/stillpoint.toml".into(), text: text.into() };
    let loaded = load(&[file], "web1", |_| None);
    loaded
        .unwrap_or_else(|problems| panic!("the test's configuration is refused:\n{problems}"))
        .config
}

/// The one target of a text.
pub fn target(text: &str) -> Target {
    let mut targets = config(text).targets;
    assert_eq!(targets.len(), 1, "not one target in {text}");
    targets.remove(0)
}

/// What a files job says, from its table without the header.
pub fn files(table: &str) -> FilesSource {
    let job = "[targets.t.borg]\nrepository = 'ssh://nas/r'\nencryption = 'none'\n[jobs.j]\ntargets = ['t']\n";
    match config(&format!("{job}[jobs.j.files]\n{table}")).jobs.remove(0).source {
        Source::Files(files) => files,
        other => panic!("the job of {table} has {}", other.kind()),
    }
}

/// Keys of a table, each with two texts that must give different models.
pub struct Effects {
    /// The table, such as `targets.NAME.keep`.
    pub table: &'static str,
    /// A file in which KEY stands for the text; TARGET and JOB for a borg target `t` and a files job to it.
    pub file: &'static str,
    /// The key, a text without it or with another value, and a text with it.
    pub rows: &'static [(&'static str, &'static str, &'static str)],
}

impl Effects {
    /// The file with that text.
    pub fn with(&self, text: &str) -> String {
        self.file
            .replace("TARGET", "[targets.t.borg]\nrepository='/r'\npassphrase-file='/p'\n")
            .replace("JOB", "[jobs.j]\ntargets=['t']\n[jobs.j.files]\npaths=['/a']\n")
            .replace("KEY", text)
    }
}
