//! Stillpoint makes Linux machines restorable: it holds a source still, has a proven engine store it, releases
//! the source, keeps what the policy says, checks that what it kept can be restored, and reports what happened.
//!
//! # Layers
//!
//! From top to bottom; a module names only layers below it, and siblings never name each other (the pipeline
//! joins them). No circle leads from a file over others back to itself. `tests/integration/architecture.rs` enforces both.
//!
//! | layer | what is in it |
//! |---|---|
//! | [`cli`] | one verb a file, exit codes, everything that is printed |
//! | [`pipeline`] | a run from top to bottom; ledger, undo, recover |
//! | [`source`] | what a job protects: how it is looked at, held still, given to engines and let go |
//! | [`step`] | what every step of a run has: context, record, error, hooks, captures, release |
//! | [`engine`] [`capture`] [`machine`] [`report`] [`systemd`] [`import`] | borg, restic, btrfs and stored streams; how a source is held still; the hypervisor; status, metrics, terminal; unit files; other programs' configurations |
//! | [`tools`] [`retention`] [`config`] [`history`] | argument lists and parsers; what to keep; the configuration; what happened |
//! | [`host`] | the one door to the machine |
//! | [`model`] [`lock`] | the words |
//!
//! # One run, narrated
//!
//! `stillpoint run` reads the configuration ([`config::load`]), opens history and hands both to
//! [`pipeline::run::run`]. A [`pipeline::session`] releases what crashed runs left behind, begins the ledger and makes
//! the run's staging directory. Then each job ([`pipeline::job::run_job`]): locks, has the ledger hold its `finally`
//! hooks, runs `before` hooks, and asks its [`source`] which items there are and which of them are held
//! still together. Batch by batch, it holds them still; of files it finds the volumes below the paths
//! ([`capture::survey`]), finds a [`capture::Provider`] for each volume, writes every intent to the ledger,
//! lets the writers stand still if that is asked for, and makes all captures at once. Each target's engine
//! then reads them under their original paths, in a mount namespace of its own ([`capture::view`]), one target after
//! another or several at the same time ([`pipeline::steps::spread`]); those that would send the same share one sender
//! ([`engine::Sharing`]). When the last has read, the captures are released, and the next batch has its turn. Only then
//! each target is listed (of several snapshots of one subvolume, each but the last is looked for before the next is sent)
//! to verify that the new copy is there, and [`retention`] is asked what may go. Targets that are filled from
//! others follow. `after` and `finally` hooks have the last word. When all jobs are through,
//! each target is checked and compacted where that is due. Whatever the ledger still holds is released,
//! history is written, and the worst [`model::outcome::Trouble`] becomes the exit code.
//!
//! # Rules that hold everywhere
//!
//! - Every effect on the machine is a value through [`host::Host`]; no shell, ever. So "a dry run changes
//!   nothing" and "fail the n-th effect" see everything.
//! - What outlives the process is in the ledger, durably, before it happens ([`model::undo`]). What only reads copies
//!   may do with a ledger that a reboot empties ([`pipeline::session::LedgerDirectory`]), but for a copy that is received to
//!   be mounted.
//! - No outcome from an exit status alone: engines are classified by what they say, and a copy exists when
//!   its target lists it.
//! - Deletion is by exact id, recorded or listed as ours, decided and carried out under one lock, and proven by
//!   another listing. Nothing is deleted in a target that is closed ([`pipeline::closed`]).
//! - Trees belong to users: what was found in one is known by its identity from then on, and no path in it is walked
//!   through a link (`host::sys::straight`).
//! - What is not known is `None`, never zero; what cannot be read is an error, never left out.
//!
//! # Where this departs from the design page
//!
//! - `capture = "auto"` that finds no provider is a warning that is printed and reported, but it does not by
//!   itself change the outcome: a nightly exit code 12 that nobody can mend would hide the ones that matter.
//! - There is no namespace for the whole process, nor a mount point that outlives an engine: what an engine
//!   sees is mounted by the thread that starts it, in the namespace that it alone has. So hooks and `mount` are
//!   in the host's namespace without further ado, and a capture cannot be mounted while nobody reads it.
//! - A captured root is not mounted `noexec`: the engine itself is started from it.
//! - LVM snapshots carry the activation-skip flag and are activated past it. One that a crash left behind does
//!   not come up at the next boot to be taken for its origin.
//! - Whether the new copy holds every path of the job is looked up in the copy with restic, while the target is listed. borg
//!   says it while it stores (`create --list`: every directory, and what is left out): another start that reads the list of
//!   all items would cost a small run more than the run itself.
//! - The source is released before the targets are listed, not after: listing reads nothing of it.
//! - Processes joined by pipes are not always one chain: what several targets would send of a subvolume is sent once, by a
//!   chain that ends in as many pipes, with each of which another chain begins (`engine::sharing`). The end of the stream
//!   is told in it, and only when the sender has ended well; whoever has not got that has no copy.
//! - A borg checkpoint of a dead run stays until the next good copy of its series and is deleted then: borg
//!   resumes from it, and a first backup that never finishes is worse than a leftover that is listed.
//! - What proves a copy ours is the record of its making, not the machine's identity that it carries: whoever can
//!   read a repository can forge marks. So a lost history makes nothing ours by itself, whatever identity was lost
//!   with it; `adopt` does. The identity says whose the others are, and its state directory's fingerprint (machine id,
//!   firmware's id) tells a clone. Clones that agree in both are told apart by their records alone.
//! - Copies dated in the future are told by each run, and do not change its outcome.
//! - What sources need of a run, which the page leaves open, is a module [`step`] on a layer of its own. Their trait is
//!   there as well, since a run's context finds them by it.
//! - No program of btrfs-progs deletes a subvolume by its UUID. So a snapshot on another machine lies in a directory that
//!   only root can change there, and is looked at before and after. It has a directory of its own, which goes with it: what
//!   a run had begun there that was killed cannot come about after somebody has looked for it. Its copies bear that
//!   machine's name and this one's identity.
//! - `adopt` takes another tool's copies in borg and restic repositories by their ids: nothing but a person knows what
//!   they are copies of. In a btrfs target, also on a server, the UUID of the snapshot that was sent tells it, as long as that is here. What
//!   was received there by another program is pinned, and is the base of nothing before it was compared with its
//!   snapshot (`verify`) or a person says so: `btrfs receive` ends long before its data is on a disk. There is no verb
//!   `convert` beside it: the snapshots of other programs are bases without further ado, and their configurations are
//!   what `import` reads.

pub mod capture;
pub mod cli;
pub mod config;
pub mod engine;
pub mod history;
pub mod host;
pub mod import;
pub mod lock;
pub mod machine;
pub mod model;
pub mod pipeline;
pub mod report;
pub mod retention;
pub mod source;
pub mod step;
pub mod systemd;
pub mod tools;
