//! `import`: prints another program's configuration as one of ours. Writes nothing.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::host::system::SystemHost;
use crate::host::{Host, PathKind};
use crate::import::{Program, import};
use crate::model::outcome::Trouble;
use crate::model::shown::Show;
use crate::step::error::StepError;

use super::options::Verdict;
use super::render;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Whose configuration it is: btrbk, btrfs-backup-ng or snapper
    #[arg(value_name = "PROGRAM", value_parser = program)]
    program: Program,
    /// The file, such as /etc/btrbk/btrbk.conf, /etc/btrfs-backup-ng/config.toml or /etc/snapper/configs/home
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn program(name: &str) -> Result<Program, String> {
    let known = || Program::ALL.map(Program::name).join(", ");
    Program::parse(name).ok_or_else(|| format!("expected one of {}", known()))
}

/// Runs the verb.
pub fn run(args: &ImportArgs) -> Verdict {
    let host = SystemHost::new()
        .map_err(|error| StepError::from_error(Trouble::Environment, &error, None))?;
    let refused = |what: String| {
        StepError::new(Trouble::Configuration, format!("{}: {what}", args.file.shown()))
    };
    let content = host.read(&args.file).map_err(|error| {
        let usual = format!("name its file, which is usually {}", args.program.usual_file());
        let hint = error.hint().unwrap_or(&usual);
        StepError::from_error(Trouble::Environment, &error, Some(hint))
    })?;
    let text = String::from_utf8(content).map_err(|_| refused("it is no UTF-8 text".into()))?;
    let imported = import(args.program, &text, &|path| looked(&host, Path::new(path)))
        .map_err(|error| refused(error.to_string()))?;
    render::text(&imported)?;
    Ok(Vec::new())
}

/// The content of a plain file, if it is there and can be read.
fn looked(host: &SystemHost, path: &Path) -> Option<Vec<u8>> {
    let is_file =
        |path| host.path_state(path).ok().flatten().is_some_and(|it| it.kind == PathKind::File);
    is_file(path).then(|| host.read(path).ok()).flatten()
}
