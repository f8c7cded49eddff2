//! `serve`: answers one request of another machine about a directory of copies; see [`crate::engine::btrfs::serve`].

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::engine::Context;
use crate::engine::btrfs::Allow;
use crate::engine::btrfs::serve::{Line, Served, serve};
use crate::host::system::SystemHost;
use crate::model::job::Settings;
use crate::model::names::HostName;
use crate::model::outcome::Trouble;

use super::options::{Verdict, host_name};
use super::{piped, render};

/// Help of the verb.
const USE: &str = "It is started by sshd, in root's authorized_keys on the machine that has the copies:\n\
\n  command=\"stillpoint serve --root /srv/backup/web1 --allow list,receive,check,restore --host web1\",restrict ssh-ed25519 AAAA… web1\n\
\nand asked by a target with location = \"ssh://root@nas/srv/backup/web1\". It reads one request from standard input. What\n\
a client wants to be started (SSH_ORIGINAL_COMMAND) is not even looked at, and the configuration is not read.";

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = USE)]
pub struct ServeArgs {
    /// The directory of copies; nothing is done outside
    #[arg(long, value_name = "DIR", value_parser = directory)]
    root: PathBuf,
    /// What may be asked for, with commas between: init, list, receive (new copies, and pins), check (which reads
    /// copies and tells what is damaged), restore (whatever reads them or tells what is in them), delete (copies and
    /// pins), adopt (has what other programs received there be copies of the host, which are then read and deleted like
    /// others)
    #[arg(long, value_name = "WHAT", required = true, value_delimiter = ',', value_parser = allow)]
    allow: Vec<Allow>,
    /// Only copies of this host
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    host: Option<HostName>,
}

fn directory(text: &str) -> Result<PathBuf, String> {
    let path: PathBuf = PathBuf::from(text).components().collect();
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path".into()) }
}

fn allow(word: &str) -> Result<Allow, String> {
    Allow::parse(word).ok_or_else(|| {
        let words = Allow::ALL.map(Allow::word).join(", ");
        format!("expected some of {words}")
    })
}

/// Runs the verb. What came of the request is told to whoever asked, and to nobody else.
pub fn run(args: &ServeArgs) -> Verdict {
    let host = SystemHost::new().context("this machine needs /proc")?;
    let settings = settings(args.host.clone())?;
    let cx = Context {
        host: &host,
        settings: &settings,
        temporary: None,
        lock_wait: Duration::ZERO,
        run: None,
    };
    let ServeArgs { root, allow, host } = args;
    let served =
        Served { root: root.clone(), allowed: allow.iter().copied().collect(), host: host.clone() };
    // Not the standard library's: that reads ahead, and what follows the request is for another process.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = piped::stdout()?;
    let line = Line {
        input: &mut input,
        output: &mut output,
        say: &mut |line| render::say(&String::from_utf8_lossy(line)),
    };
    Ok(match serve(cx, &served, line) {
        Ok(()) => Vec::new(),
        Err(refusal) => {
            render::say(&refusal.line());
            vec![Trouble::JobFailed]
        }
    })
}

/// Settings that nothing here is kept by.
fn settings(host: Option<HostName>) -> anyhow::Result<Settings> {
    let nowhere = PathBuf::from("/nonexistent");
    Ok(Settings {
        host: host.map_or_else(|| HostName::new("server"), Ok)?,
        state_dir: nowhere.clone(),
        runtime_dir: nowhere.clone(),
        cache_dir: nowhere,
        fallback_cache: None,
        parallel: 1,
        parallel_targets: 1,
        lock_wait: Duration::ZERO,
        metrics_file: None,
        max_age: Duration::MAX,
    })
}
