//! Another machine behind ssh, on which Stillpoint's own `serve` answers, or btrfs-progs and the coreutils do what they
//! are told: its world is part of ours, and lives on when ours dies.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::Duration;

use stillpoint::engine::Context;
use stillpoint::engine::btrfs::kept::ServerRules;
use stillpoint::engine::btrfs::serve::{Line, Served, serve};
use stillpoint::engine::btrfs::{Allow, Refusal};
use stillpoint::host::{CommandSpec, Effect, Exit, Input};
use stillpoint::model::job::Settings;
use stillpoint::model::names::HostName;

use super::fake_borg::Answer;
use super::fake_btrfs::FakeBtrfs;
use super::fake_host::{FakeHost, PowerCut};
use super::fake_plain::Plain;
use super::fake_pool::{LOCATION, OnTheWay};
use super::world::{World, injected};

/// What ssh says when it has waited in vain.
pub const IN_VAIN: &str = "Connection timed out";

/// What a key leads to, and what may be done with it.
#[derive(Debug, Clone)]
pub struct FakeServer {
    pub world: World,
    pub allowed: BTreeSet<Allow>,
    /// What it keeps by itself.
    pub rules: ServerRules,
    /// Nobody gets there.
    pub is_away: bool,
    /// The port at which alone it answers.
    pub only_port: Option<&'static str>,
    /// The number of a request from now on whose answer does not get through.
    pub mute: Option<usize>,
    /// The same, and all behind it, which nobody hears.
    pub mute_from: Option<usize>,
    /// So many copies from now on are not taken, since somebody else has the lock.
    pub held_for: usize,
    /// What was asked.
    pub requests: Vec<String>,
}

/// What a login says that is no answer to anything.
const NOISE: [&str; 3] = [
    "Could not chdir to home directory /home/backup: No such file or directory",
    "sudo: unable to resolve host nas: Name or service not known",
    "** WARNING: connection is not using a post-quantum key exchange algorithm.",
];

impl FakeServer {
    /// One that lets anything be done.
    pub fn new(world: World) -> Self {
        Self {
            world,
            allowed: Allow::ALL.into(),
            rules: ServerRules::default(),
            is_away: false,
            only_port: None,
            mute: None,
            mute_from: None,
            held_for: 0,
            requests: Vec::new(),
        }
    }

    /// What ssh says of a request, behind which there may be a stream.
    pub fn answer(&mut self, ssh: &CommandSpec, stream: Option<OnTheWay>) -> Answer {
        let Input::Bytes(request) = &ssh.input else { panic!("ssh asks nothing") };
        if stream.is_some() && self.held_for > 0 {
            self.held_for -= 1;
            let stderr = vec![Refusal::Locked("somebody else has it".into()).line()];
            return Answer { exit: Exit::Code(10), stdout: Vec::new(), stderr };
        }
        let served = Served {
            root: LOCATION.into(),
            allowed: self.allowed.clone(),
            host: Some(HostName::new("web1").unwrap()),
            rules: self.rules.clone(),
        };
        self.alone("serve", |host| {
            host.world().pool.on_the_way = stream;
            let settings = settings();
            let cx = Context {
                host,
                settings: &settings,
                temporary: None,
                lock_wait: Duration::ZERO,
                run: None,
                seat: None,
            };
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let line = Line {
                input: &mut &request[..],
                output: &mut stdout,
                say: &mut |line| stderr.push(String::from_utf8_lossy(line).into_owned()),
            };
            match serve(cx, &served, line) {
                Ok(()) => Answer { exit: Exit::Code(0), stdout, stderr },
                Err(refusal) => {
                    stderr.push(refusal.line());
                    Answer { exit: Exit::Code(10), stdout: Vec::new(), stderr }
                }
            }
        })
    }

    /// What ssh says of a command that is none of ours.
    pub fn run(&mut self, command: &Plain) -> Answer {
        let mut answer = self.run_quietly(command);
        answer.stderr.splice(..0, NOISE.map(str::to_owned));
        answer
    }

    fn run_quietly(&mut self, command: &Plain) -> Answer {
        self.alone(&command.display(), |host| match command.spec.effect {
            Effect::Inspect => command.look(&host.world()),
            Effect::Mutate => {
                let what = command.spec.display();
                let done = host.effect(what, |world| command.change(world));
                done.unwrap_or_else(|| injected(&command.spec.tool))
            }
        })
    }

    /// What the last two of a chain say that sends a stream to a receiver there.
    pub fn receive(
        &mut self,
        stream: OnTheWay,
        stage: &CommandSpec,
        command: &Plain,
    ) -> [Answer; 2] {
        let stage = CommandSpec { input: Input::Own, ..stage.clone() };
        let mut told = Answer::good("");
        let taken = self.alone(&command.display(), |host| {
            let what = command.spec.display();
            let answers = host.effect(what, |world| {
                world.pool.on_the_way = Some(stream);
                world.pool.receive(&FakeBtrfs::default(), &[&stage, &command.spec])
            });
            match answers.and_then(|answers| <[Answer; 2]>::try_from(answers).ok()) {
                Some([of_stage, of_receiver]) => {
                    told = of_stage;
                    of_receiver
                }
                None => injected(&command.spec.tool),
            }
        });
        [told, taken]
    }

    /// Has somebody work in the world there. The line is cut when that dies, or when this is the request whose answer is
    /// lost.
    fn alone(&mut self, asked: &str, work: impl FnOnce(&FakeHost) -> Answer) -> Answer {
        if self.is_away {
            let stderr = vec![format!("ssh: connect to host: {IN_VAIN}")];
            return Answer { exit: Exit::Code(255), stdout: Vec::new(), stderr };
        }
        if self.mute_from.is_some_and(|from| self.requests.len() >= from) {
            self.requests.push(asked.to_owned());
            return not_reached();
        }
        let host = FakeHost::over(std::mem::take(&mut self.world));
        let done = catch_unwind(AssertUnwindSafe(|| work(&host)));
        self.world = std::mem::take(&mut *host.world());
        // They are let go with whoever held them.
        self.world.locks.clear();
        self.requests.push(asked.to_owned());
        match done {
            Ok(answer) if self.mute != Some(self.requests.len() - 1) => answer,
            Err(payload) if !payload.is::<PowerCut>() => resume_unwind(payload),
            Ok(_) | Err(_) => not_reached(),
        }
    }
}

/// What ssh says when the line is cut.
fn not_reached() -> Answer {
    Answer {
        exit: Exit::Code(255),
        stdout: Vec::new(),
        stderr: vec!["Connection to nas closed by remote host.".into()],
    }
}

fn settings() -> Settings {
    Settings {
        host: HostName::new("nas").unwrap(),
        state_dir: PathBuf::from("/nonexistent"),
        runtime_dir: PathBuf::from("/nonexistent"),
        cache_dir: PathBuf::from("/nonexistent"),
        fallback_cache: None,
        parallel: 1,
        parallel_targets: 1,
        lock_wait: Duration::ZERO,
        metrics_file: None,
        max_age: Duration::MAX,
    }
}
