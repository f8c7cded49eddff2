//! The tables of the history file, as a list of steps from one version to the next.
//!
//! `PRAGMA user_version` holds how many steps a file has behind it. A step that was released is never
//! edited; a change is a new step. A file with more steps than this list comes from a newer Stillpoint and
//! is refused, because its meaning is not known here.
//!
//! Times are RFC 3339 in UTC with nine decimals, so that they sort as text and a person can read them.
//! What is not known is NULL. `sequence` orders rows by when they were recorded, whatever the clock showed.

/// The steps, oldest first.
pub(super) const STEPS: &[&str] =
    &[VERSION_1, CLOSURES, MACHINES, FORMER_IDS, ITEMS, KEPT, FORGOTTEN, PROVEN, SENT, PART];

/// The format of this version: how many steps there are.
pub(super) const FORMAT: u32 = STEPS.len() as u32;

const VERSION_1: &str = "
CREATE TABLE run (
    sequence  INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,
    started   TEXT NOT NULL,
    finished  TEXT NOT NULL,
    outcome   TEXT NOT NULL,
    exit_code INTEGER
) STRICT;

CREATE TABLE job (
    run     INTEGER NOT NULL REFERENCES run (sequence) ON DELETE CASCADE,
    name    TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason  TEXT,
    seconds REAL NOT NULL
) STRICT;
CREATE INDEX job_by_name ON job (name, run);

CREATE TABLE step (
    run     INTEGER NOT NULL REFERENCES run (sequence) ON DELETE CASCADE,
    job     TEXT,
    target  TEXT,
    item    TEXT,
    step    TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail  TEXT NOT NULL,
    seconds REAL NOT NULL
) STRICT;
CREATE INDEX step_by_run ON step (run, job);

CREATE TABLE result (
    run     INTEGER NOT NULL REFERENCES run (sequence) ON DELETE CASCADE,
    job     TEXT NOT NULL,
    target  TEXT NOT NULL,
    item    TEXT,
    outcome TEXT NOT NULL
) STRICT;
CREATE INDEX result_by_run ON result (run, job);

CREATE TABLE attempt (
    sequence INTEGER PRIMARY KEY,
    run      TEXT NOT NULL,
    target   TEXT NOT NULL,
    host     TEXT NOT NULL,
    job      TEXT NOT NULL,
    item     TEXT,
    name     TEXT,
    started  TEXT NOT NULL
) STRICT;
CREATE INDEX attempt_by_target ON attempt (target, run);

CREATE TABLE copy (
    sequence      INTEGER PRIMARY KEY,
    target        TEXT NOT NULL,
    id            TEXT NOT NULL,
    first_id      TEXT NOT NULL,
    run           TEXT NOT NULL,
    host          TEXT NOT NULL,
    job           TEXT NOT NULL,
    item          TEXT,
    time          TEXT NOT NULL,
    recorded      TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    size          INTEGER,
    files         INTEGER,
    bytes_new     INTEGER,
    files_changed INTEGER NOT NULL,
    unreadable    INTEGER NOT NULL,
    deleted       INTEGER NOT NULL DEFAULT 0,
    UNIQUE (target, id)
) STRICT;
CREATE INDEX copy_by_series ON copy (target, job, time);

CREATE TABLE pin (
    target TEXT NOT NULL,
    id     TEXT NOT NULL,
    since  TEXT NOT NULL,
    PRIMARY KEY (target, id)
) STRICT;

CREATE TABLE maintenance (
    sequence INTEGER PRIMARY KEY,
    target   TEXT NOT NULL,
    kind     TEXT NOT NULL,
    outcome  TEXT NOT NULL,
    detail   TEXT NOT NULL,
    time     TEXT NOT NULL
) STRICT;
CREATE INDEX maintenance_by_target ON maintenance (target, kind);
";

/// What closes retention in a target, which repository each target is, and which copies are about to be deleted.
const CLOSURES: &str = "
CREATE TABLE repository (
    target TEXT PRIMARY KEY,
    id     TEXT NOT NULL,
    since  TEXT NOT NULL
) STRICT;

CREATE TABLE closure (
    sequence INTEGER PRIMARY KEY,
    target   TEXT NOT NULL,
    kind     TEXT NOT NULL,
    subject  TEXT NOT NULL,
    extent   TEXT,
    detail   TEXT NOT NULL,
    run      TEXT NOT NULL,
    since    TEXT NOT NULL,
    UNIQUE (target, kind, subject)
) STRICT;

ALTER TABLE copy ADD COLUMN leaving INTEGER NOT NULL DEFAULT 0;
";

/// The identities that this state directory has had, the present one last, and whose copies the records are of.
/// Records from before were all made by the machine that keeps them. `adopted` is when a copy was taken into its
/// series; `unseen` says that nothing is known of its making, so that its outcome means nothing.
const MACHINES: &str = "
CREATE TABLE machine (
    sequence     INTEGER PRIMARY KEY,
    id           TEXT NOT NULL,
    installation TEXT,
    hardware     TEXT
) STRICT;

ALTER TABLE copy ADD COLUMN ours INTEGER NOT NULL DEFAULT 1;
ALTER TABLE copy ADD COLUMN adopted TEXT;
ALTER TABLE copy ADD COLUMN unseen INTEGER NOT NULL DEFAULT 0;
";

/// The ids that copies had before their tags or names changed: a person may still know them by these.
const FORMER_IDS: &str = "
CREATE TABLE former_id (
    target TEXT NOT NULL,
    id     TEXT NOT NULL,
    now    TEXT NOT NULL,
    PRIMARY KEY (target, id)
) STRICT;
CREATE INDEX former_id_by_copy ON former_id (target, now);
";

/// The items of jobs, where there is more than one thing to a job: when each was last there, and whether it was when
/// its job last looked.
const ITEMS: &str = "
CREATE TABLE item (
    job  TEXT NOT NULL,
    name TEXT NOT NULL,
    seen TEXT NOT NULL,
    here INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (job, name)
) STRICT;
";

/// Captures that stay on purpose, with how they are released and what proves them ours.
const KEPT: &str = "
CREATE TABLE kept (
    sequence INTEGER PRIMARY KEY,
    host     TEXT NOT NULL,
    job      TEXT NOT NULL,
    item     TEXT,
    run      TEXT NOT NULL,
    undo     TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL,
    made     TEXT NOT NULL
) STRICT;
CREATE INDEX kept_by_job ON kept (job, sequence);
";

/// When a copy was given up with its target. It counts as deleted, and no more than that when a listing shows it again.
const FORGOTTEN: &str = "
ALTER TABLE copy ADD COLUMN forgotten TEXT;
";

/// Whether a copy that was adopted is known to be whole, by a comparison or a person's word.
const PROVEN: &str = "
ALTER TABLE copy ADD COLUMN proven INTEGER NOT NULL DEFAULT 0;
";

/// The moment for which the copy of an attempt is to stand, where that is another one than that of the attempt, and the
/// UUID of the snapshot that is sent for it.
const SENT: &str = "
ALTER TABLE attempt ADD COLUMN time TEXT;
ALTER TABLE attempt ADD COLUMN snapshot TEXT;
";

/// What of a job a run was to do. Of those that were to make snapshots alone, the reason said so.
const PART: &str = "
ALTER TABLE job ADD COLUMN part TEXT NOT NULL DEFAULT 'whole';
UPDATE job SET part = 'snapshots' WHERE reason = 'only snapshots were asked for, and no copy';
";
