//! `[jobs.NAME.hooks]`: programs that run around the job.

use std::time::Duration;

use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::Elements;
use crate::config::kinds::{ARGVS, LONG_SPAN};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::job::Hooks;

/// The table.
pub const HOOKS: Table = Table {
    name: "hooks",
    says: "Programs that run around the job",
    start: Start::off(
        "jobs.system.hooks",
        "Programs to run around the job: lists of a program and its arguments, no shell. Exit 75 of `before` skips the job.\n\
         A hook finds in its environment: STILLPOINT_HOOK (which one it is), STILLPOINT_JOB, STILLPOINT_RUN; after, on-failure\n\
         and finally also STILLPOINT_OUTCOME (ok, warning, incomplete, failed, skipped, interrupted), STILLPOINT_EXIT_CODE (what\n\
         of the job so far) and STILLPOINT_ERROR (what went wrong first). When `recover` runs a finally or resume hook\n\
         for a run that died, its outcome is not known and these three are not set.",
    ),
    variants: no_variants,
    items: &[&[
        Item::Value(&BEFORE),
        Item::Value(&QUIESCE),
        Item::Value(&RESUME),
        Item::Value(&AFTER),
        Item::Value(&ON_FAILURE),
        Item::Value(&FINALLY),
        Item::Value(&TIMEOUT),
    ]],
};

type Hook = Key<Elements<Vec<String>>>;

const BEFORE: Hook = Key::new("before", &ARGVS)
    .says("Before anything else; exit 75 skips the job")
    .example("[['/usr/local/bin/dump-ldap', '--all']]");

/// Just before the captures are made.
pub const QUIESCE: Hook = Key::new("quiesce", &ARGVS)
    .says("Just before the captures are made: make writers pause")
    .example("[['/usr/local/bin/app', 'pause']]")
    .prose("Around the making of the captures, for writers that can be told to pause; resume runs whatever happened.");

/// As soon as the captures exist.
pub const RESUME: Hook = Key::new("resume", &ARGVS)
    .says("As soon as the captures exist, whatever happened: let them go on")
    .example("[['/usr/local/bin/app', 'continue']]");

const AFTER: Hook = Key::new("after", &ARGVS)
    .says("After all targets, when the job did not fail")
    .example("[['/usr/local/bin/ping-monitor']]");

const ON_FAILURE: Hook = Key::new("on-failure", &ARGVS)
    .says("When the job failed, is incomplete or was interrupted")
    .example("[['/usr/local/bin/alert']]");

const FINALLY: Hook =
    Key::new("finally", &ARGVS).says("Always").example("[['/usr/local/bin/tidy-up']]");

const TIMEOUT: Key<Duration> =
    Key::new("timeout", &LONG_SPAN).says("How long one hook may take").example("'10m'");

/// Reads the table.
pub fn read(section: &Section<'_>, notes: &mut Notes) -> Hooks {
    let hooks = [&BEFORE, &QUIESCE, &RESUME, &AFTER, &ON_FAILURE, &FINALLY];
    if section.has(&TIMEOUT) && !hooks.iter().any(|key| section.has(*key)) {
        let message = "timeout has no effect: the job has no hooks";
        notes.missing(section.key_at(&TIMEOUT), Complaint::new(message));
    }
    Hooks {
        before: section.values(&BEFORE),
        quiesce: section.values(&QUIESCE),
        resume: section.values(&RESUME),
        after: section.values(&AFTER),
        on_failure: section.values(&ON_FAILURE),
        finally: section.values(&FINALLY),
        timeout: section.get(&TIMEOUT),
    }
}

/// Refuses the hooks around captures where nobody runs them.
pub fn refuse_quiet(_: &Section<'_>, hooks: Option<&Section<'_>>, notes: &mut Notes) {
    let Some(hooks) = hooks else { return };
    for key in [&QUIESCE, &RESUME].into_iter().filter(|key| hooks.has(*key)) {
        let message = format!("{} has no effect: only jobs of files run it", key.key());
        let complaint = Complaint::new(message).help("use before and finally");
        notes.problem(hooks.key_at(key), complaint);
    }
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "jobs.NAME.hooks",
    file: "[jobs.j.hooks]\nKEY\nTARGET JOB",
    rows: &[
        ("before", "", "before=[['x']]"),
        ("after", "", "after=[['x']]"),
        ("on-failure", "", "on-failure=[['x']]"),
        ("finally", "", "finally=[['x']]"),
        ("quiesce", "quiesce=[['x']]\nresume=[['x']]", "quiesce=[['y']]\nresume=[['x']]"),
        ("resume", "quiesce=[['x']]\nresume=[['x']]", "quiesce=[['x']]\nresume=[['y']]"),
        ("timeout", "after=[['x']]", "after=[['x']]\ntimeout='1m'"),
    ],
}];
