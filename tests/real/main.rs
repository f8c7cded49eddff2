//! Tests on real parts: borg, restic, file systems, signals. They need root and the packages that
//! `tests/run` installs; what is missing fails, loudly.

#![allow(clippy::disallowed_methods)] // tests make their own names and start programs themselves
#![allow(missing_docs, clippy::unwrap_used)] // a test that unwraps fails where it should

mod absent;
mod adopted;
mod as_subvolume;
mod bad_hour;
mod bench_machine;
mod borg_engine;
mod btrbk;
mod btrfs;
mod btrfs_backup_ng;
mod btrfs_backup_ng_keep;
mod closed;
#[path = "../shared/configured.rs"]
mod configured;
mod contents;
mod excludes;
mod existing;
mod faults;
mod fetched;
mod honest;
mod jobs;
mod locks;
mod lvm;
mod matrix;
mod mounts;
mod parallel;
mod pins;
mod plain;
mod pulled;
mod quiet;
mod restic_engine;
mod restore;
mod resumed;
mod served;
mod space;
mod spread;
mod sshd;
mod stored_parts;
mod stored_streams;
mod subvolumes;
mod swaps;
mod systemd;
mod whose;
mod words;
