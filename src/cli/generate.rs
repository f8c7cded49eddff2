//! `generate`: units, manual page, completions, a commented configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, roman};

use crate::config;
use crate::host::Action;
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::pipeline::units::units;
use crate::step::error::StepError;

use super::options::{Global, Verdict};
use super::setup::{Setup, Use};
use super::{render, setup};

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// systemd service and timer of each job, with hardening that fits it
    Units {
        /// Write them into this directory (such as /etc/systemd/system) instead of printing them
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// The path of this program in the units
        #[arg(long, value_name = "PATH", default_value = "/usr/bin/stillpoint")]
        program: PathBuf,
    },
    /// The manual page
    Man,
    /// Completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// A commented configuration to start from
    Config,
    /// The configuration as a JSON schema, for editors
    Schema,
}

/// Runs the verb. `command` is the whole command line.
pub fn run(global: &Global, args: &GenerateArgs, command: &clap::Command) -> Verdict {
    match &args.what {
        What::Units { to, program } => write_units(global, to.as_deref(), program)?,
        What::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command.clone()).render(&mut page)?;
            for verb in for_people(command).get_subcommands() {
                let name = format!("stillpoint {}", verb.get_name());
                let verb = verb.clone().name(name.clone()).bin_name(name);
                page.extend_from_slice(b".PP\n");
                clap_mangen::Man::new(verb.clone()).render_synopsis_section(&mut page)?;
                clap_mangen::Man::new(verb.clone()).render_description_section(&mut page)?;
                clap_mangen::Man::new(verb.clone()).render_options_section(&mut page)?;
                if verb.get_after_help().is_some() {
                    clap_mangen::Man::new(verb).render_extra_section(&mut page)?;
                }
            }
            configuration(&mut page)?;
            render::text(&String::from_utf8_lossy(&page))?;
        }
        What::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut for_people(command), "stillpoint", &mut script);
            render::text(&String::from_utf8_lossy(&script))?;
        }
        What::Schema => render::json(&config::json_schema())?,
        What::Config => render::text(&config::commented_start(&setup::host_name()?))?,
    }
    Ok(Vec::new())
}

/// Every key of the configuration, as a section of the manual page.
fn configuration(page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut section = Roff::new();
    section.control("SH", ["CONFIGURATION"]);
    section.text([roman(
        "The configuration is TOML: /etc/stillpoint.toml, and /etc/stillpoint.d/*.toml laid over it. \
         `stillpoint generate config` prints one to start from.",
    )]);
    for table in config::reference() {
        section.control("SS", [format!("[{}]", table.name).as_str()]);
        section.text([roman(format!("{}.", table.says))]);
        for key in &table.keys {
            section.control("TP", []);
            let holds = match &key.default {
                Some(default) => format!(" ({}; default {default})", key.holds),
                None => format!(" ({})", key.holds),
            };
            section.text([bold(key.name), roman(holds)]);
            section.text([roman(format!("{}.", key.says))]);
        }
    }
    section.to_writer(page)
}

/// The command line without the verbs that are not for people: completions offer hidden ones too.
fn for_people(all: &clap::Command) -> clap::Command {
    let shown = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    clap::Command::new("stillpoint")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(all.is_disable_help_subcommand_set())
        .args(all.get_arguments().cloned())
        .subcommands(shown)
}

fn write_units(
    global: &Global,
    to: Option<&std::path::Path>,
    program: &std::path::Path,
) -> anyhow::Result<()> {
    let setup = Setup::new(global, Use::Inspect)?;
    let config_path = std::path::absolute(&global.config)?;
    let pipeline = setup.pipeline();
    for (name, content) in units(pipeline.config, pipeline.engines, &config_path, program) {
        let Some(directory) = to else {
            render::text(&format!("# {name}\n{content}"))?;
            continue;
        };
        let path = std::path::absolute(directory.join(&name))?;
        let action =
            Action::ReplaceFile { path: path.clone(), mode: 0o644, content: content.into_bytes() };
        setup
            .host
            .act(&action)
            .map_err(|error| StepError::from_error(Trouble::Environment, &error, None))?;
        render::text(&path.shown().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    #[test]
    fn what_hooks_find_in_their_environment_is_where_people_look() {
        let help = command().find_subcommand_mut("run").unwrap().render_long_help().to_string();
        let start = config::commented_start("web1");
        for (name, _) in crate::step::hook::VARIABLES {
            assert!(help.contains(name) && start.contains(name), "{name}");
        }
    }

    #[test]
    fn the_manual_page_lists_every_key_with_its_default() {
        let mut page = Vec::new();
        configuration(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap().replace("\\-", "-");
        for table in config::reference() {
            assert!(page.contains(&format!("[{}]", table.name)), "{}", table.name);
            for key in &table.keys {
                let default = key.default.clone().unwrap_or_default();
                assert!(page.contains(key.name) && page.contains(&default), "{}", key.name);
            }
        }
    }

    #[test]
    fn completions_offer_no_hidden_verb_and_every_other_one() {
        let mut script = Vec::new();
        clap_complete::generate(
            Shell::Bash,
            &mut for_people(&command()),
            "stillpoint",
            &mut script,
        );
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains(" --version ") && !script.contains("stillpoint,help)"), "{script}");
        for verb in command().get_subcommands() {
            let offered = script.contains(&format!("stillpoint,{})", verb.get_name()));
            assert_eq!(offered, !verb.is_hide_set(), "{}", verb.get_name());
        }
    }
}
