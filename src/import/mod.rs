//! Configurations of other programs, read and written down as one of ours. What has no equal is told, line by line, in
//! comments: nothing is left out in silence, and nothing is written but what is answered with.

mod btrbk;
mod btrfs_backup_ng;
mod draft;
mod lines;
mod snapper;

use draft::{Draft, Target};

pub use lines::{Failed, Look};

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// btrbk.
    Btrbk,
    /// btrfs-backup-ng.
    BtrfsBackupNg,
    /// snapper.
    Snapper,
}

impl Program {
    /// All that are read.
    pub const ALL: [Program; 3] = [Program::Btrbk, Program::BtrfsBackupNg, Program::Snapper];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Program::Btrbk => "btrbk",
            Program::BtrfsBackupNg => "btrfs-backup-ng",
            Program::Snapper => "snapper",
        }
    }

    /// Where its configuration usually is.
    pub fn usual_file(self) -> &'static str {
        match self {
            Program::Btrbk => "/etc/btrbk/btrbk.conf",
            Program::BtrfsBackupNg => "/etc/btrfs-backup-ng/config.toml",
            Program::Snapper => "/etc/snapper/configs/NAME",
        }
    }

    /// Reads its name; `None` when it is none that is known.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }
}

/// What a program's configuration becomes: a whole file of ours, in TOML. What the program has left beside its snapshots is
/// looked at, where that tells of copies which are not whole.
///
/// # Errors
/// When it cannot be read as that.
pub fn import(program: Program, text: &str, look: Look<'_>) -> Result<String, Failed> {
    let mut draft = match program {
        Program::Btrbk => btrbk::draft(text)?,
        Program::BtrfsBackupNg => btrfs_backup_ng::draft(text, look)?,
        Program::Snapper => snapper::draft(text)?,
    };
    let told = std::mem::take(&mut draft.notes);
    draft.notes = next_steps(program, &draft);
    if !told.is_empty() {
        draft.notes.push(String::new());
        draft.notes.extend(told);
    }
    Ok(draft.to_toml())
}

/// What is to be done with it.
fn next_steps(program: Program, draft: &Draft) -> Vec<String> {
    let mut steps = vec![
        format!(
            "Made by `stillpoint import {}`. What is said in comments was not taken over, or differs: read them all.",
            program.name()
        ),
        "Then, with this as /etc/stillpoint.toml (of root, and writable by nobody else):"
            .to_owned(),
        "  stillpoint check-config".to_owned(),
    ];
    for target in &draft.targets {
        steps.push(format!("  stillpoint init {}", target.name));
    }
    for Target { name, here, .. } in draft.targets.iter().filter(|it| it.engine == "btrfs") {
        let needs = match here {
            Some(_) => "",
            None => "with a key that may adopt, ",
        };
        steps.push(format!("  stillpoint adopt {name}       # {needs}what is there becomes copies, and nothing of it is sent again"));
    }
    steps.extend([
        "  stillpoint verify JOB COPY # as adopt says; then stillpoint plan, and stillpoint run".into(),
        "  stillpoint prune --accept  # once, when the first copies are seen to hold all they should: nothing is deleted before".into(),
    ]);
    match program {
        Program::Btrbk | Program::BtrfsBackupNg => steps.push(format!(
            "Before the first run, stop {} (its timer or cron job): it would delete copies by its own rules, which closes the target here.",
            program.name()
        )),
        Program::Snapper => {}
    }
    steps
}

#[cfg(test)]
mod tests;
