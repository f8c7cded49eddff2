//! The help is part of the surface: it fits a terminal, names the exit codes, and does not change unseen.

use stillpoint::cli;

#[test]
fn every_verb_of_the_contract_has_its_help() {
    let mut text = String::new();
    for verb in cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        text.push_str(&format!("{:<13} {}\n", verb.get_name(), verb.get_about().unwrap()));
    }
    insta::assert_snapshot!(text, @r"
    check-config  Check the configuration; with --online also tools, targets and passphrases
    init          Create the repositories of targets and print what to store away from this machine
    run           Run all jobs, or those named
    plan          Show every command that run would run; change nothing
    list          List copies
    restore       Restore a copy, or paths of it, below a directory
    mount         Browse a copy as a file system until it is unmounted
    find          Find the versions of a file in all copies
    diff          Show what changed between two copies, or between a copy and the machine
    estimate      Tell how much the next run of a job would store
    prune         Delete what the policy does not keep, or the copies named
    compact       Free the space of deleted copies
    check         Check repositories for damage
    verify        Read one copy back whole, as a restore would
    pin           Keep a copy whatever the policy says
    unpin         Let the policy decide about a copy again
    adopt         Take over copies that this machine did not make
    forget-target Give up a target whose disk is lost: nothing is kept for it any more
    status        Show the last good copy of each job in each target, and what is due
    recover       Release what crashed runs left behind: snapshots, mounts, paused services
    generate      Write unit files, the manual page, completions or a commented configuration
    import        Print the configuration of btrbk, btrfs-backup-ng or snapper as one of Stillpoint's
    serve         Answer another machine that keeps copies of its subvolumes here; started by sshd
    ");
}

#[test]
fn help_fits_a_terminal_and_explains_every_option() {
    fn check(command: &mut clap::Command) {
        let name = command.get_name().to_owned();
        for line in command.render_long_help().to_string().lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {} has no help", argument.get_id());
        }
    }
    let mut root = cli::command();
    root.build();
    check(&mut root);
    for verb in root.get_subcommands_mut() {
        check(verb);
    }
    let help = root.render_long_help().to_string();
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "10 ", "11 ", "12 ", "13 ", "14 ", "130, 143"]
    {
        assert!(help.contains(&format!("\n  {code}")), "exit code {code} is not documented");
    }
}

#[test]
fn what_reads_copies_says_that_it_recovers_first() {
    let mut root = cli::command();
    for verb in ["restore", "mount", "find", "diff", "verify"] {
        let help = root.find_subcommand_mut(verb).unwrap().render_long_help().to_string();
        assert!(help.contains("crashed runs") && help.contains("exit code 11"), "{help}");
    }
}
