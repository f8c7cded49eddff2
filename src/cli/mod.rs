//! The command line: one verb a file, the exit codes, and everything that is printed.
//!
//! Results go to stdout and everything else to stderr. A verb answers with the [`Trouble`]s it met; the
//! exit code follows from them in [`crate::model::exit`], and nowhere else.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::model::exit;
use crate::model::near::nearest;
use crate::model::outcome::Trouble;
use crate::step::error::StepError;

mod adopt;
mod check;
mod check_config;
mod compare_tree;
mod confirm;
mod describe_tree;
mod diff;
mod estimate;
mod find;
mod forget;
mod generate;
mod import;
mod init;
mod list;
mod list_changes;
mod list_tree;
mod mount;
mod options;
mod pass_object;
mod pass_stream;
mod pin;
mod piped;
mod plan;
mod prune;
mod recover;
mod render;
mod restore;
mod run;
mod serve;
mod setup;
mod share_stream;
mod shares;
mod status;
mod take_shared;
mod thaw_guard;
mod tree_walk;
mod unread;
mod verify;

use options::{CONFIG_VARIABLE, Global};

/// Makes Linux machines restorable: has borg or restic store snapshots of them, keeps copies as the policy
/// says, checks that they can be restored, and reports what happened
#[derive(Debug, Parser)]
#[command(name = "stillpoint", version, max_term_width = 100, after_help = exit::table(), disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the configuration; with --online also tools, targets and passphrases
    CheckConfig(check_config::CheckConfigArgs),
    /// Create the repositories of targets and print what to store away from this machine
    Init(init::InitArgs),
    /// Run all jobs, or those named
    Run(run::RunArgs),
    /// Show every command that run would run; change nothing
    Plan(plan::PlanArgs),
    /// List copies
    List(list::ListArgs),
    /// Restore a copy, or paths of it, below a directory
    Restore(restore::RestoreArgs),
    /// Browse a copy as a file system until it is unmounted
    Mount(mount::MountArgs),
    /// Find the versions of a file in all copies
    Find(find::FindArgs),
    /// Show what changed between two copies, or between a copy and the machine
    Diff(diff::DiffArgs),
    /// Tell how much the next run of a job would store
    Estimate(estimate::EstimateArgs),
    /// Delete what the policy does not keep, or the copies named
    Prune(prune::PruneArgs),
    /// Free the space of deleted copies
    Compact(check::CompactArgs),
    /// Check repositories for damage
    Check(check::CheckArgs),
    /// Read one copy back whole, as a restore would
    Verify(verify::VerifyArgs),
    /// Keep a copy whatever the policy says
    Pin(pin::PinArgs),
    /// Let the policy decide about a copy again
    Unpin(pin::PinArgs),
    /// Take over copies that this machine did not make
    Adopt(adopt::AdoptArgs),
    /// Give up a target whose disk is lost: nothing is kept for it any more
    ForgetTarget(forget::ForgetArgs),
    /// Show the last good copy of each job in each target, and what is due
    Status(status::StatusArgs),
    /// Release what crashed runs left behind: snapshots, mounts, paused services
    Recover(recover::RecoverArgs),
    /// Write unit files, the manual page, completions or a commented configuration
    Generate(generate::GenerateArgs),
    /// Print the configuration of btrbk, btrfs-backup-ng or snapper as one of Stillpoint's
    Import(import::ImportArgs),
    /// Answer another machine that keeps copies of its subvolumes here; started by sshd
    #[command(name = crate::engine::btrfs::serve::VERB)]
    Serve(serve::ServeArgs),
    /// Thaw frozen control groups when the run that froze them cannot
    #[command(name = crate::host::guard::VERB, hide = true)]
    ThawGuard(thaw_guard::ThawGuardArgs),
    /// Let through a stream of btrfs that is what was asked for
    #[command(name = crate::tools::btrfs::command::STAGE, hide = true)]
    PassStream(pass_stream::PassStreamArgs),
    /// Hand a stream of btrfs on to several
    #[command(name = crate::tools::btrfs::shared::SHARE, hide = true)]
    ShareStream(share_stream::ShareStreamArgs),
    /// Take a stream of btrfs that is handed on
    #[command(name = crate::tools::btrfs::shared::TAKE, hide = true)]
    TakeShared,
    /// Read, pass on or store an object
    #[command(name = crate::tools::object::VERB, hide = true)]
    PassObject(pass_object::PassObjectArgs),
    /// List what lies in a tree
    #[command(name = crate::tools::listing::VERB, hide = true)]
    ListTree(list_tree::ListTreeArgs),
    /// Tell what a stream of btrfs changes
    #[command(name = crate::tools::btrfs::command::CHANGES, hide = true)]
    ListChanges(list_changes::ListChangesArgs),
    /// Tell what a tree holds
    #[command(name = crate::tools::manifest::DESCRIBE, hide = true)]
    DescribeTree(describe_tree::DescribeTreeArgs),
    /// Compare a tree with what another one holds
    #[command(name = crate::tools::manifest::COMPARE, hide = true)]
    CompareTree(compare_tree::CompareTreeArgs),
}

/// Parses the command line, carries out the verb and answers with the exit code.
pub fn main() -> ExitCode {
    let cli = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    render::start_logging(&cli.global);
    let global = &cli.global;
    let verdict = match cli.verb {
        Verb::CheckConfig(args) => check_config::run(global, &args),
        Verb::Init(args) => init::run(global, &args),
        Verb::Run(args) => run::run(global, &args),
        Verb::Plan(args) => plan::run(global, &args),
        Verb::List(args) => list::run(global, &args),
        Verb::Restore(args) => restore::run(global, &args),
        Verb::Mount(args) => mount::run(global, &args),
        Verb::Find(args) => find::run(global, &args),
        Verb::Diff(args) => diff::run(global, &args),
        Verb::Estimate(args) => estimate::run(global, &args),
        Verb::Prune(args) => prune::run(global, &args),
        Verb::Compact(args) => check::compact(global, &args),
        Verb::Check(args) => check::run(global, &args),
        Verb::Verify(args) => verify::run(global, &args),
        Verb::Pin(args) => pin::run(global, &args, true),
        Verb::Unpin(args) => pin::run(global, &args, false),
        Verb::Adopt(args) => adopt::run(global, &args),
        Verb::ForgetTarget(args) => forget::run(global, &args),
        Verb::Status(args) => status::run(global, &args),
        Verb::Recover(args) => recover::run(global, &args),
        Verb::Generate(args) => generate::run(global, &args, &command()),
        Verb::Import(args) => import::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::ThawGuard(args) => thaw_guard::run(&args),
        Verb::PassStream(args) => pass_stream::run(&args),
        Verb::ShareStream(args) => share_stream::run(&args),
        Verb::TakeShared => take_shared::run(),
        Verb::PassObject(args) => pass_object::run(&args),
        Verb::ListTree(args) => list_tree::run(&args),
        Verb::ListChanges(args) => list_changes::run(&args),
        Verb::DescribeTree(args) => describe_tree::run(&args),
        Verb::CompareTree(args) => compare_tree::run(&args),
    };
    let troubles = verdict.unwrap_or_else(|error| {
        render::error(&error);
        vec![error.downcast_ref::<StepError>().map_or(Trouble::Unexpected, |step| step.trouble)]
    });
    let code = exit::exit_code(&troubles);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Reads the command line.
///
/// # Errors
/// What clap says about it, with the verb that was most likely meant; and an empty name of the configuration.
fn parse(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(words).map_err(|mut error| {
        // clap counts common letters, wherever they are: to it, `runn` is `prune` before it is `run`.
        if error.kind() == ErrorKind::InvalidSubcommand
            && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        {
            let command = command();
            let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
            let near = nearest(word, verbs.map(clap::Command::get_name)).map(str::to_owned);
            error.remove(ContextKind::SuggestedSubcommand);
            if let Some(near) = near {
                error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![near]));
            }
        }
        error
    })?;
    if cli.global.config.as_os_str().is_empty() {
        let text = format!(
            "the configuration has an empty name: {CONFIG_VARIABLE} is set to nothing, or --config is — unset it, or name the file"
        );
        return Err(command().error(ErrorKind::InvalidValue, text));
    }
    Ok(cli)
}

/// The tree of commands, for the manual page, completions and tests.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        let words = std::iter::once("stillpoint").chain(words.iter().copied());
        parse(words.map(Into::into)).unwrap_err().to_string()
    }

    #[test]
    fn the_verb_that_was_meant_is_proposed() {
        for (wrong, meant) in [
            ("runn", "run"),
            ("lsit", "list"),
            ("rest", "restore"),
            ("prun", "prune"),
            ("stats", "status"),
        ] {
            let text = refused(&[wrong]);
            assert!(text.contains(&format!("a similar subcommand exists: '{meant}'")), "{text}");
        }
        let text = refused(&["zzzzzz"]);
        assert!(text.contains("'zzzzzz'") && !text.contains("similar"), "{text}");
        assert!(!refused(&["thaw-guar"]).contains("similar"));
    }

    #[test]
    fn an_empty_name_of_the_configuration_is_told_with_where_it_comes_from() {
        let text = refused(&["--config", "", "list"]);
        assert!(text.contains("STILLPOINT_CONFIG") && text.contains("--config"), "{text}");
    }
}
