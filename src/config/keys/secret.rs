//! Where a repository's passphrase comes from: three keys, of which one is given.

use std::path::PathBuf;

use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Key, Keyed};
use crate::config::section::Section;
use crate::model::target::SecretSource;

/// What an engine calls its secret, and its keys for it.
pub struct Secret {
    /// Such as `passphrase`.
    pub word: &'static str,
    /// A file that holds it.
    pub file: Key<PathBuf>,
    /// A command that prints it.
    pub command: Key<Vec<String>>,
    /// A systemd credential that holds it.
    pub credential: Key<String>,
    /// What could be written instead of giving one, such as `, or encryption = "none"`.
    pub instead: &'static str,
}

impl Secret {
    /// Reads it; `needed`: a repository of this sort has one.
    pub fn read(
        &self,
        section: &Section<'_>,
        needed: bool,
        notes: &mut Notes,
    ) -> Option<SecretSource> {
        let forms: [&dyn Keyed; 3] = [&self.file, &self.command, &self.credential];
        let mut given: Vec<&dyn Keyed> =
            forms.into_iter().filter(|form| section.has(*form)).collect();
        given.sort_by_key(|form| section.key_at(*form));
        for second in given.iter().skip(1) {
            let message = format!(
                "{} cannot stand beside {}: one source is enough",
                second.key(),
                given[0].key()
            );
            notes.problem(section.key_at(*second), Complaint::new(message));
        }
        if given.is_empty() && needed {
            let [file, command, credential] = forms.map(Keyed::key);
            let complaint = Complaint::new(format!("the {} is missing", self.word))
                .help(format!("add {file}, {command} or {credential}{}", self.instead));
            notes.missing(section.at, complaint);
        }
        if let Some(first) = given.first().filter(|_| !needed) {
            let message = format!("{} has no effect with encryption = \"none\"", first.key());
            notes.problem(section.key_at(*first), Complaint::new(message));
        }
        None.or_else(|| section.get(&self.file).map(SecretSource::File))
            .or_else(|| section.get(&self.command).map(SecretSource::Command))
            .or_else(|| section.get(&self.credential).map(SecretSource::Credential))
    }
}
