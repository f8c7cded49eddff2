//! The space of what was deleted from a btrfs, which its cleaner frees when it comes to it.

use std::path::Path;

use crate::host::{CommandSpec, Completed, Host, RunError, Tool};
use crate::tools::btrfs::command;

/// Waits until the space of all is free that was deleted by now from the btrfs of a path. It counts as free when the file
/// system is flushed after that. `failed` says why one of the processes failed.
///
/// # Errors
/// When it is not known: a process failed, or took too long.
pub fn await_freed<E: From<RunError>>(
    host: &dyn Host,
    program: &Tool,
    path: &Path,
    failed: impl Fn(&CommandSpec, &Completed) -> E,
) -> Result<(), E> {
    run_each(host, freeing(program, path), failed)
}

/// Runs these processes, each when the one before it has done its work.
pub(super) fn run_each<E: From<RunError>>(
    host: &dyn Host,
    specs: [CommandSpec; 2],
    failed: impl Fn(&CommandSpec, &Completed) -> E,
) -> Result<(), E> {
    for spec in specs {
        let completed = host.run(&spec, &mut |_, _| {})?;
        if !completed.success() {
            return Err(failed(&spec, &completed));
        }
    }
    Ok(())
}

/// The processes that do so, one after the other.
pub(super) fn freeing(program: &Tool, path: &Path) -> [CommandSpec; 2] {
    [command::commit(program, path), command::wait_until_freed(program, path)]
}
