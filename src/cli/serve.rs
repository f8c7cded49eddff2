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
use crate::engine::btrfs::kept::ServerRules;
use crate::engine::btrfs::serve::{Line, Served, serve};
use crate::host::system::SystemHost;
use crate::model::job::Settings;
use crate::model::keep::{KeepPolicy, MinFree, SHARE_OR_BYTES};
use crate::model::names::HostName;
use crate::model::outcome::Trouble;
use crate::model::span;

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
    #[command(flatten)]
    rules: Rules,
}

/// What the server keeps by itself, for clients whose keys may not delete. There is no number of newest copies among it:
/// whoever has stolen a key could send as many at once.
#[derive(Debug, Args)]
#[command(next_help_heading = "What the server keeps, whatever its clients say")]
struct Rules {
    /// After each copy, delete what no --keep option keeps of its series: keep the newest of each of so many hours. A copy
    /// is as old as it is by the server's clock. Pinned ones stay, and the two newest
    #[arg(long, value_name = "COUNT", value_parser = periods, requires = "keep_within")]
    keep_hourly: Option<u32>,
    /// The same by day
    #[arg(long, value_name = "COUNT", value_parser = periods, requires = "keep_within")]
    keep_daily: Option<u32>,
    /// The same by week
    #[arg(long, value_name = "COUNT", value_parser = periods, requires = "keep_within")]
    keep_weekly: Option<u32>,
    /// The same by month
    #[arg(long, value_name = "COUNT", value_parser = periods, requires = "keep_within")]
    keep_monthly: Option<u32>,
    /// The same by year
    #[arg(long, value_name = "COUNT", value_parser = periods, requires = "keep_within")]
    keep_yearly: Option<u32>,
    /// Keep what is younger than this, counted back from the newest copy; what an intruder sends pushes out nothing that is
    #[arg(long, value_name = "TIME", value_parser = long_span)]
    keep_within: Option<Duration>,
    /// Take no copy that leaves less space free than this: "10%", or bytes with their unit such as "20G"
    #[arg(long, value_name = "SPACE", value_parser = min_free)]
    min_free: Option<MinFree>,
}

impl Rules {
    fn of_server(&self) -> ServerRules {
        let keep = KeepPolicy {
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within,
            ..KeepPolicy::default()
        };
        ServerRules { keep, min_free: self.min_free }
    }
}

fn periods(text: &str) -> Result<u32, String> {
    // None would be no rule, and keep everything.
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "expected a whole number from 1".into())
}

fn long_span(text: &str) -> Result<Duration, String> {
    Ok(span::longer_than_nothing(span::parse(text)?)?)
}

fn min_free(text: &str) -> Result<MinFree, String> {
    MinFree::parse(text).ok_or_else(|| format!("expected {SHARE_OR_BYTES}"))
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
        seat: None,
    };
    let ServeArgs { root, allow, host, rules } = args;
    let served = Served {
        root: root.clone(),
        allowed: allow.iter().copied().collect(),
        host: host.clone(),
        rules: rules.of_server(),
    };
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
