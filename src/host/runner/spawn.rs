//! A [`CommandSpec`] becomes a running process: environment, descriptors, session, death signal, mounts.
//!
//! Each child is started by a thread of its own, its *keeper*, which then waits for it and does nothing else.
//! The parent-death signal is tied to the thread that starts a child, so this thread has to live as long as
//! the child; and a thread can enter a private mount namespace without taking the others along.
//!
//! A child waits before it becomes the program until it is recorded: whoever kills us finds no program at work of
//! which the ledger knows nothing.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

use command_fds::CommandFdExt;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use super::locate::FIXED_PATH;
use crate::host::sys::{confine, namespace, private};
use crate::host::{CommandSpec, EnvValue, Exit, FdStyle, Input, StdoutMode};
use crate::model::undo::CHILD_MARK;

/// Where a child's standard streams lead, where the spec does not decide it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Role {
    /// Its standard input is what another one writes.
    pub(super) reads: bool,
    /// Its standard output is what another one reads.
    pub(super) feeds: bool,
}

/// Ends of pipes that a child gets in the place of those that are made for it.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
}

/// A child that was just started.
pub(super) struct Spawned {
    /// The child; not reaped by anybody but its owner.
    pub(super) child: Child,
    /// Hangs up when the child has exited.
    pub(super) exited: PipeReader,
    /// Answers how the child exited, as soon as `exited` hangs up.
    pub(super) keeper: JoinHandle<io::Result<Exit>>,
}

/// Starts a process. Nothing runs on when this fails. `record` is told its number and mark before it is the program.
///
/// # Errors
/// When a descriptor, a mount or the process cannot be made, or `record` fails.
pub(super) fn spawn(
    spec: &CommandSpec,
    program: &Path,
    (role, ends): (Role, Ends),
    record: impl FnOnce(i32, &str) -> io::Result<()>,
) -> io::Result<Spawned> {
    let mut command = build(spec, program, role)?;
    if let Some(stdin) = ends.stdin {
        command.stdin(stdin);
    }
    if let Some(stdout) = ends.stdout {
        command.stdout(stdout);
    }
    let mark = random_mark()?;
    command.env(CHILD_MARK, &mark);
    let gate = gate(&mut command)?;
    let view = spec.view.clone();
    let host_name = spec.host_name.clone();
    let confinement = spec.confinement.clone();
    let (exited, ended) = io::pipe()?;
    let (report, started) = sync_channel(1);
    let keeper = Builder::new().name("keeper".into()).spawn(move || {
        // Held until the child has exited: the other end hangs up when this thread is done.
        let _ended = ended;
        let named = host_name.as_deref().map_or(Ok(()), namespace::take_host_name);
        let entered = named.and_then(|()| match &confinement {
            Some(confinement) => confine::enter(confinement),
            None if view.mounts.is_empty() => Ok(()),
            None => private::enter(&view),
        });
        let spawned = entered.and_then(|()| command.spawn());
        // The command holds our copies of the descriptors that were passed.
        drop(command);
        let pid = spawned.as_ref().map(Child::id).ok();
        // The receiver waits for exactly this message.
        let _ = report.send(spawned);
        match pid {
            Some(pid) => await_exit(pid),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    })?;
    let recorded = gate.open(|pid| record(pid, &mark));
    let child =
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it ended")));
    recorded?;
    Ok(Spawned { child: child?, exited, keeper })
}

/// Where a child waits to be let go on.
struct Gate {
    /// The child writes its number here.
    waits: PipeReader,
    /// What comes out of this is read by it: [`GO`], or that it is to end.
    goes: PipeWriter,
}

/// The word on which a child goes on; on any other it ends.
const GO: u8 = 1;
const END: u8 = 0;

/// How often a child that waits looks whether we live, in milliseconds.
const WHETHER_WE_LIVE: i32 = 100;

/// Makes the child wait between fork and exec.
fn gate(command: &mut Command) -> io::Result<Gate> {
    let (waits, number) = io::pipe()?;
    let (go, goes) = io::pipe()?;
    let parent = std::process::id();
    #[expect(
        unsafe_code,
        reason = "runs between fork and exec; makes system calls only, allocates nothing"
    )]
    unsafe {
        command.pre_exec(move || {
            let gone = || io::Error::from_raw_os_error(libc::ESRCH);
            (&number).write_all(&std::process::id().to_ne_bytes())?;
            let mut come = libc::pollfd { fd: go.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // Its own copy of our end, and those of children that others of our threads have forked and that wait as well,
            // keep the pipe open when we are gone. And the death signal meets a handler that is still ours.
            while libc::poll(&raw mut come, 1, WHETHER_WE_LIVE) <= 0 {
                if nix::unistd::getppid().as_raw().cast_unsigned() != parent {
                    return Err(gone());
                }
            }
            let mut word = [0];
            match (&go).read(&mut word) {
                Ok(1) if word[0] == GO => Ok(()),
                _ => Err(gone()),
            }
        });
    }
    Ok(Gate { waits, goes })
}

impl Gate {
    /// Lets the child go on once it is recorded. Nothing is recorded of one that never came to wait: whoever starts
    /// it says why.
    ///
    /// # Errors
    /// When `record` fails: then the child ends.
    fn open(self, record: impl FnOnce(i32) -> io::Result<()>) -> io::Result<()> {
        let Self { mut waits, mut goes } = self;
        let mut number = [0; 4];
        if waits.read_exact(&mut number).is_err() {
            return Ok(());
        }
        let recorded = record(i32::from_ne_bytes(number));
        // One that was killed meanwhile reads nothing more, which whoever starts it learns.
        let _ = goes.write_all(&[if recorded.is_ok() { GO } else { END }]);
        recorded
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a spec becomes a process")]
fn build(spec: &CommandSpec, program: &Path, role: Role) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.args(&spec.args);
    command.current_dir(spec.directory.as_deref().unwrap_or(Path::new("/")));
    command
        .env_clear()
        .env("PATH", FIXED_PATH)
        .env("LANG", "C.UTF-8")
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", home());
    for (name, value) in &spec.env {
        match value {
            EnvValue::Plain(value) => command.env(name, value),
            EnvValue::Secret(value) => command.env(name, as_os_str(value.reveal())),
        };
    }
    command.stdin(match (role.reads, &spec.input) {
        (true, Input::Nothing | Input::Bytes(_)) => Stdio::piped(),
        (true, Input::Own | Input::Pipe(_)) => {
            return Err(io::Error::other("it cannot read two inputs"));
        }
        // Null, so that no prompt can wait for anybody.
        (false, Input::Nothing) => Stdio::null(),
        (false, Input::Bytes(bytes)) => in_memory("input", bytes)?.into(),
        (false, Input::Own) => Stdio::inherit(),
        (false, Input::Pipe(end)) => end.take()?.into(),
    });
    command.stdout(match (role.feeds, spec.stdout) {
        (true, _)
        | (
            false,
            StdoutMode::Whole | StdoutMode::Secret | StdoutMode::Lines | StdoutMode::PassOn,
        ) => Stdio::piped(),
        (false, StdoutMode::Discard) => Stdio::null(),
    });
    command.stderr(Stdio::piped());
    detach(&mut command, spec)?;
    // The hooks between fork and exec run in the order in which they are added here: first everything is
    // closed to the child, then these alone are opened to it.
    let mut descriptors = Vec::with_capacity(spec.secrets.len() + spec.passed.len());
    for end in &spec.passed {
        let end = end.take()?;
        command.arg(end.as_raw_fd().to_string());
        descriptors.push(end);
    }
    for secret in &spec.secrets {
        let descriptor = in_memory("secret", secret.value.reveal())?;
        // The number is left as it is: moving it to 3 could overwrite the descriptor by which the standard
        // library learns that exec failed.
        let number = descriptor.as_raw_fd();
        match secret.style {
            FdStyle::Number => command.env(secret.variable, number.to_string()),
            FdStyle::Path => command.env(secret.variable, format!("/proc/self/fd/{number}")),
        };
        descriptors.push(descriptor);
    }
    command.preserved_fds(descriptors);
    Ok(command)
}

/// Gives the child a session of its own, so that it leads a process group and has no terminal to ask
/// questions at; ties its life to ours; and keeps every descriptor from it that we did not mean for it, also
/// those that we inherited ourselves.
fn detach(command: &mut Command, spec: &CommandSpec) -> io::Result<()> {
    // Without a death signal a device-mapper tool finishes what it began when we are killed.
    let stop_signal = signal_of(spec)?;
    let death_signal = (!spec.never_kill).then_some(stop_signal);
    let parent = std::process::id();
    #[expect(
        unsafe_code,
        reason = "runs between fork and exec; makes system calls only, allocates nothing"
    )]
    unsafe {
        command.pre_exec(move || {
            // Before Linux 5.11 there is no such call; then the descriptors that we opened still close at
            // exec, since each was opened so.
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            nix::unistd::setsid()?;
            nix::sys::prctl::set_pdeathsig(death_signal)?;
            // If we died before the line above, no signal will come.
            if nix::unistd::getppid().as_raw().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    Ok(())
}

/// A text that nobody else has.
fn random_mark() -> io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!("{:016x}", u64::from_be_bytes(random)))
}

/// The signal that asks the command to stop.
///
/// # Errors
/// When the number is not a signal's.
pub(super) fn signal_of(spec: &CommandSpec) -> io::Result<Signal> {
    Ok(Signal::try_from(spec.stop_signal)?)
}

/// A file in memory that holds this and can no longer be changed. It is read from offset 0, and each
/// opening of `/proc/self/fd/N` begins there again.
fn in_memory(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let descriptor = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(descriptor);
    file.write_all(content)?;
    io::Seek::rewind(&mut file)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

fn as_os_str(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// The home directory of the user we are, whatever `HOME` says: engines keep their keys and caches there.
fn home() -> std::path::PathBuf {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        return "/root".into();
    }
    match nix::unistd::User::from_uid(user) {
        Ok(Some(user)) => user.dir,
        Ok(None) | Err(_) => "/".into(),
    }
}

/// Waits until the child has exited and leaves it unreaped, so that its number, which is also its group's,
/// stays its own until whoever stops the group is done.
fn await_exit(pid: u32) -> io::Result<Exit> {
    #[expect(unsafe_code, reason = "waitid fills the zeroed structure that it is given")]
    let (result, code, status) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = loop {
            let result =
                libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT);
            if result == 0 || *libc::__errno_location() != libc::EINTR {
                break result;
            }
        };
        (result, info.si_code, info.si_status())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(if code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) })
}
