//! `[settings]`: what holds for all jobs.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kinds::{HOST as HOST_NAME, LONG_SPAN, PATH, SPAN, Within};
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::model::job::Settings;
use crate::model::names::HostName;

/// How many jobs, and targets of each, may be at work at the same time: each reads, compresses and encrypts.
const MOST_PARALLEL: u32 = 16;

/// The table.
pub const SETTINGS: Table = Table {
    name: "settings",
    says: "What holds for all jobs; everything in it is optional",
    start: Start::on("settings", ""),
    variants: no_variants,
    items: &[&[
        Item::Value(&HOST),
        Item::Value(&STATE_DIR),
        Item::Value(&RUNTIME_DIR),
        Item::Value(&CACHE_DIR),
        Item::Value(&PARALLEL),
        Item::Value(&PARALLEL_TARGETS),
        Item::Value(&LOCK_WAIT),
        Item::Value(&MAX_AGE),
        Item::Value(&METRICS_FILE),
    ]],
};

const HOST: Key<HostName> = Key::new("host", &HOST_NAME)
    .says("Part of every copy's identity; by default the host name")
    .on("'@HOST@'")
    .told();

const STATE_DIR: Key<PathBuf> = Key::new("state-dir", &PATH)
    .says("Ledger, history and reports; must survive a reboot")
    .default("'/var/lib/stillpoint'")
    .prose("Ledger, history, reports: must survive a reboot. Locks and mount points: need not. The engines' caches.");

const RUNTIME_DIR: Key<PathBuf> = Key::new("runtime-dir", &PATH)
    .says("Locks and mount points; need not survive a reboot")
    .default("'/run/stillpoint'");

const CACHE_DIR: Key<PathBuf> = Key::new("cache-dir", &PATH)
    .says("Caches and temporary files of the engines")
    .default("'/var/cache/stillpoint'");

const PARALLEL: Key<u32> = Key::new("parallel", &Within(1, MOST_PARALLEL))
    .says("How many jobs of a run are at work at the same time, none two of them on one target")
    .default("1")
    .told();

const PARALLEL_TARGETS: Key<u32> = Key::new("parallel-targets", &Within(1, MOST_PARALLEL))
    .says("How many targets of a job take its copies at the same time; what several would send of a subvolume is sent once")
    .default("1")
    .told();

const LOCK_WAIT: Key<Duration> = Key::new("lock-wait", &SPAN)
    .says("How long a run waits for another one that holds a lock")
    .default("'2m'")
    .told();

// A nightly run may fail once, and no more.
const MAX_AGE: Key<Duration> = Key::new("max-age", &LONG_SPAN)
    .says("How old the last good copy may get before `status` calls it stale")
    .default("'48h'")
    .told();

const METRICS_FILE: Key<PathBuf> = Key::new("metrics-file", &PATH)
    .says("A text file for Prometheus' node exporter, written after each run")
    .example("'/var/lib/prometheus/node-exporter/stillpoint.prom'")
    .told();

/// Reads the table; `default_host` is what the machine is called.
pub fn read(section: &Section<'_>, default_host: &str, notes: &mut Notes) -> Option<Settings> {
    let host = section.given(&HOST).or_else(|| of_machine(section, default_host, notes));
    let state_dir = section.get(&STATE_DIR)?;
    let runtime_dir = section.get(&RUNTIME_DIR)?;
    let cache_dir = section.get(&CACHE_DIR)?;
    let directories: [(&dyn Keyed, &PathBuf); 3] =
        [(&STATE_DIR, &state_dir), (&RUNTIME_DIR, &runtime_dir), (&CACHE_DIR, &cache_dir)];
    for (n, (key, directory)) in directories.iter().enumerate() {
        if let Some((other, _)) = directories[..n].iter().find(|(_, other)| other == directory) {
            let message = format!("{} cannot be the same directory as {}", key.key(), other.key());
            let named = if section.has(*key) { *key } else { *other };
            notes.problem(section.value_at(named), Complaint::new(message));
        }
    }
    Some(Settings {
        host: host?,
        state_dir,
        runtime_dir,
        cache_dir,
        fallback_cache: None,
        parallel: section.get(&PARALLEL)?,
        parallel_targets: section.get(&PARALLEL_TARGETS)?,
        lock_wait: section.get(&LOCK_WAIT)?,
        metrics_file: section.get(&METRICS_FILE),
        max_age: section.get(&MAX_AGE)?,
    })
}

/// The machine's own name, for files that give none.
fn of_machine(section: &Section<'_>, default_host: &str, notes: &mut Notes) -> Option<HostName> {
    if section.has(&HOST) {
        return None;
    }
    match HostName::new(default_host) {
        Ok(host) => Some(host),
        Err(error) => {
            let message = format!("this machine is called {default_host:?}, but {error}");
            notes.missing(section.at, Complaint::new(message).help("set host in [settings]"));
            None
        }
    }
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "settings",
    file: "[settings]\nKEY\nTARGET JOB",
    rows: &[
        ("host", "", "host='other'"),
        ("state-dir", "", "state-dir='/x'"),
        ("runtime-dir", "", "runtime-dir='/x'"),
        ("cache-dir", "", "cache-dir='/x'"),
        ("metrics-file", "", "metrics-file='/x'"),
        ("parallel", "", "parallel=2"),
        ("parallel-targets", "", "parallel-targets=2"),
        ("lock-wait", "", "lock-wait='9s'"),
        ("max-age", "", "max-age='9s'"),
    ],
}];
