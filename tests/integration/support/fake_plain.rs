//! Programs of a machine without Stillpoint, as ssh has them run: what they do in a directory of copies there, and say.

use std::path::{Path, PathBuf};

use stillpoint::host::{CommandSpec, Effect, Exit, Input, Subvolume, Tool};
use stillpoint::tools::btrfs::command::parse_uuid;
use stillpoint::tools::btrfs::stream::{attribute, command, header, kind};

use super::fake_borg::Answer;
use super::fake_pool::{FakePool, LOCATION};
use super::fake_pulled;
use super::world::World;

/// What ssh hands to a shell there.
#[derive(Debug)]
pub struct Plain {
    /// The program and its own words.
    pub spec: CommandSpec,
    /// Those that it runs itself, where that is what it is for.
    each: Vec<Plain>,
}

impl Plain {
    /// What ssh is told to have run, if it is one of these.
    pub fn of(ssh: &CommandSpec) -> Option<Self> {
        let line = ssh.args.last()?.to_str()?.strip_prefix("env LC_ALL=C ")?;
        Some(Plain::by(unquoted(line), ssh.effect, &ssh.input))
    }

    fn by(mut words: Vec<String>, effect: Effect, input: &Input) -> Self {
        if words[0] == "sudo" {
            assert_eq!(words[1], "-n");
            words.drain(..2);
        }
        let mut each = Vec::new();
        if words[0] == "xargs" {
            let ["xargs", "-0", "-x", "-n", width, "env"] = [0, 1, 2, 3, 4, 5].map(|n| &*words[n])
            else {
                panic!("nobody thought of {words:?}");
            };
            let Input::Bytes(read) = input else { panic!("xargs reads nothing") };
            let read: Vec<&str> =
                std::str::from_utf8(read).unwrap().split_terminator('\0').collect();
            let commands = read.chunks_exact(width.parse().unwrap());
            assert_eq!(commands.remainder(), [] as [&str; 0]);
            let own = |words: &[&str]| {
                let own = words.iter().skip_while(|word| word.contains('='));
                Plain::by(own.map(|word| (*word).to_owned()).collect(), effect, &Input::Nothing)
            };
            each = commands.map(own).collect();
        }
        let mut spec = CommandSpec::new(Tool::Named(words.remove(0).into()), effect).args(words);
        spec.input = input.clone();
        Plain { spec, each }
    }

    pub fn words(&self) -> Vec<String> {
        let args = self.spec.args.iter().map(|arg| arg.to_str().unwrap().to_owned());
        [self.spec.tool.name()].into_iter().chain(args).collect()
    }

    /// The paths behind `--`.
    fn paths(&self) -> Vec<PathBuf> {
        let words = self.words();
        words.iter().skip_while(|word| *word != "--").skip(1).map(PathBuf::from).collect()
    }

    /// What it is, in a line.
    pub fn display(&self) -> String {
        match self.each.is_empty() {
            true => self.spec.display(),
            false => self.each.iter().map(Plain::display).collect::<Vec<_>>().join("; "),
        }
    }

    fn refused(&self, pool: &FakePool) -> Option<Answer> {
        let is_it = |it: &str| match it.contains(' ') {
            true => self.spec.display().contains(it),
            false => it == self.spec.tool.name(),
        };
        let (_, code, said) = pool.refused.filter(|(it, ..)| is_it(it))?;
        let stderr = vec![said.to_owned()];
        Some(Answer { exit: Exit::Code(code), stdout: Vec::new(), stderr })
    }

    /// What one that only looks says.
    pub fn look(&self, world: &World) -> Answer {
        let pool = &world.pool;
        assert_eq!(self.spec.effect, Effect::Inspect);
        if let Some(refused) = self.refused(pool) {
            return refused;
        }
        let words = self.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if !words.iter().any(|word| FakePool::holds(Path::new(word)))
            && let Some(answer) = fake_pulled::look(world, &words)
        {
            return answer;
        }
        match &words[..] {
            ["xargs", ..] => {
                let mut all = Answer::good("");
                for command in &self.each {
                    let Answer { exit, stdout, stderr } = command.look(world);
                    if exit != Exit::Code(0) {
                        all.exit = Exit::Code(123);
                    }
                    all.stdout.extend(stdout);
                    all.stderr.extend(stderr);
                }
                all
            }
            ["echo", word] => Answer::good(format!("{word}\n")),
            ["stat", "-f", "-c", "%t %i", "--", LOCATION] => {
                Answer::good(format!("9123683e {:x}\n", FILE_SYSTEM_NUMBER ^ 5))
            }
            ["find", "/sys/fs/btrfs", "-mindepth", ..] => Answer::good(format!(
                "1 d features\0{} d 00000000-0000-0001-0000-000000000001\0{} d {FILE_SYSTEM}\0",
                700,
                800 + pool.mounts
            )),
            ["btrfs", "device", "stats", "--", LOCATION] => Answer::good(format!(
                "[/dev/sdc].write_io_errs    {}\n[/dev/sdc].read_io_errs     0\n[/dev/sdc].flush_io_errs    0\n",
                pool.failures
            )),
            [
                "find",
                at @ ..,
                "-mindepth",
                "1",
                "-maxdepth",
                "1",
                "-name",
                ".*.json.*",
                "-mmin",
                "+1440",
                "-printf",
                "%i %y %p\\0",
            ] => old(pool, at),
            ["stat", "--printf", "%f %u %n\\0", "--", ..] => stat(pool, &self.paths()),
            ["find", at, "-mindepth", "1", "-maxdepth", "1", "-printf", "%i %y %P\\0"] => {
                list(pool, Path::new(at))
            }
            ["cat", "--", "/proc/sys/kernel/random/boot_id"] => {
                Answer::good(format!("boot {}\n", world.boots))
            }
            ["cat", "--", "/proc/sys/kernel/osrelease"] => {
                Answer::good(format!("{}\n", pool.linux.unwrap_or("6.1.0-18-amd64")))
            }
            ["cat", "--", at] => of(pool.file(Path::new(at)).cloned(), at),
            ["btrfs", "subvolume", "show", "--", at] => of(show(pool, Path::new(at)), at),
            ["btrfs", "send", "-q", "--no-data", "-p", at, "--", same] if at == same => {
                of(pool.at(Path::new(at)).and_then(|found| head(Path::new(at), found)), at)
            }
            ["btrfs", "--version"] => {
                Answer::good(format!("{}\n", pool.progs.unwrap_or("btrfs-progs v6.2")))
            }
            ["btrfs", "subvolume", "sync", ..] => Answer::good(""),
            _ => panic!("nobody thought of {}", self.spec.display()),
        }
    }

    /// What one that changes something does.
    pub fn change(&self, world: &mut World) -> Answer {
        assert!(self.each.is_empty());
        if let Some(refused) = self.refused(&world.pool) {
            return refused;
        }
        let words = self.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Some(answer) = fake_pulled::change(world, &words) {
            return answer;
        }
        let pool = &mut world.pool;
        match &words[..] {
            ["mkdir", "-p", "-m", "0700", "--", _] | ["btrfs", "filesystem", "sync", _] => {}
            ["dd", of, "conv=fsync"] => {
                let Input::Bytes(content) = &self.spec.input else { panic!("dd reads nothing") };
                pool.write(Path::new(of.strip_prefix("of=").unwrap()), content);
            }
            ["mv", "-T", "-f", "--", from, to] => {
                let content = pool.file(Path::new(from)).expect("it was written").clone();
                pool.remove(Path::new(from));
                pool.write(Path::new(to), &content);
            }
            ["mv", "-T", "-n", "--", from, to] => {
                let (from, to) = (Path::new(from), Path::new(to));
                let found = pool.at(from).expect("it was received");
                assert!(pool.rename(from, &found, to.file_name().unwrap().to_str().unwrap()));
            }
            ["rm", "-f", "--", file] => pool.remove(Path::new(file)),
            ["sync", "-f", "--", _] => pool.flush(),
            // The names in it are not kept apart from what they name.
            ["sync", "--", LOCATION] => {}
            ["btrfs", "subvolume", "delete", ..] if pool.is_being_read => {
                let said = "WARNING: deletion failed with EPERM, you don't have permissions or send may be in progress";
                return Answer {
                    exit: Exit::Code(1),
                    stdout: Vec::new(),
                    stderr: vec![
                        "ERROR: Could not destroy subvolume/snapshot: Operation not permitted"
                            .into(),
                        said.into(),
                    ],
                };
            }
            ["btrfs", "subvolume", "delete", "-c", "--", path] => {
                let found = pool.at(Path::new(path)).expect("it was looked at");
                assert!(pool.delete(Path::new(path), &found));
            }
            _ => panic!("nobody thought of {}", self.spec.display()),
        }
        Answer::good("")
    }
}

/// The UUID of the file system, and the number that is made of its halves.
const FILE_SYSTEM: &str = "6c00f0b0-934f-41dd-8727-1a33c5a11109";
const FILE_SYSTEM_NUMBER: u64 = 0xeb27_ea83_56ee_50d4;

/// The words that a POSIX shell reads.
fn unquoted(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut rest = line.chars();
    while let Some(next) = rest.next() {
        match next {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            '\\' if !is_quoted => word.extend(rest.next()),
            other => {
                assert!(is_quoted || !"$`;&|<>()*?[]~\"#\n".contains(other), "{line}");
                word.push(other);
            }
        }
    }
    assert!(!is_quoted, "{line}");
    words.push(word);
    words
}

/// What is printed of what is at a path, if something is.
fn of(printed: Option<Vec<u8>>, at: &str) -> Answer {
    match printed {
        Some(stdout) => Answer { stdout, ..Answer::good("") },
        None => Answer {
            exit: Exit::Code(1),
            stdout: Vec::new(),
            stderr: vec![format!("{at}: No such file or directory")],
        },
    }
}

fn is_directory(pool: &FakePool, path: &Path) -> bool {
    let own = FakePool::own();
    let is_made = path == own.join("copies") && pool.has_files_below(&own);
    Path::new(LOCATION).starts_with(path)
        || pool.at(path).is_some()
        || pool.has_files_below(path)
        || is_made
}

fn missing(program: &str, path: &Path) -> String {
    format!("{program} '{}': No such file or directory", path.display())
}

fn stat(pool: &FakePool, paths: &[PathBuf]) -> Answer {
    let mut answer = Answer::good("");
    for path in paths {
        let what = match (pool.odd.get(path), pool.file(path)) {
            (Some(odd), _) => odd,
            (None, Some(_)) => "8180 0",
            (None, None) if is_directory(pool, path) => "41c0 0",
            (None, None) => {
                answer.exit = Exit::Code(1);
                answer.stderr.push(missing("stat: cannot statx", path));
                continue;
            }
        };
        answer.stdout.extend(format!("{what} {}\0", path.display()).into_bytes());
    }
    answer
}

fn list(pool: &FakePool, directory: &Path) -> Answer {
    if !is_directory(pool, directory) {
        let stderr = vec![missing("find:", directory)];
        return Answer { exit: Exit::Code(1), stdout: Vec::new(), stderr };
    }
    let mut said = String::new();
    for path in pool.nested().iter().filter(|path| path.parent() == Some(directory)) {
        said.push_str(&format!("256 d {}\0", path.file_name().unwrap().to_str().unwrap()));
    }
    for name in pool.names_in(directory) {
        said.push_str(&format!("4711 f {}\0", name.to_str().unwrap()));
    }
    Answer::good(said)
}

/// What has been in directories for a day and has the name of a draft.
fn old(pool: &FakePool, directories: &[&str]) -> Answer {
    let mut answer = Answer::good("");
    for directory in directories.iter().map(Path::new) {
        if !is_directory(pool, directory) {
            answer.exit = Exit::Code(1);
            answer.stderr.push(missing("find:", directory));
            continue;
        }
        let files = pool.names_in(directory).into_iter().map(|name| directory.join(name));
        for file in files.filter(|file| pool.old.contains(file)) {
            if file.file_name().unwrap().to_str().unwrap().contains(".json.") {
                answer.stdout.extend(format!("4711 f {}\0", file.display()).into_bytes());
            }
        }
    }
    answer
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// A UUID as it is shown, if there is one.
pub fn or_none(uuid: &Option<String>) -> String {
    uuid.clone().unwrap_or_else(|| "-".into())
}

fn show(pool: &FakePool, path: &Path) -> Option<Vec<u8>> {
    let (name, found) = (name(path), pool.at(path)?);
    let text = format!(
        "{name}\n\tName: \t\t\t{name}\n\tUUID: \t\t\t{}\n\tParent UUID: \t\t{}\n\tReceived UUID: \t\t{}\n\tCreation time: \t\t2026-11-27 02:03:04 +0100\n\tSubvolume ID: \t\t{}\n\tGen at creation: \t1\n\tFlags: \t\t\t{}\n\tSend transid: \t\t{}\n\tSnapshot(s):\n",
        or_none(&found.uuid),
        or_none(&found.parent_uuid),
        or_none(&found.received_uuid),
        found.id.unwrap(),
        if found.read_only { "readonly" } else { "-" },
        found.received
    );
    Some(text.into_bytes())
}

/// The difference of a subvolume to itself.
pub fn head(path: &Path, found: Subvolume) -> Option<Vec<u8>> {
    if !found.read_only {
        return None;
    }
    let generation = found.changed.to_le_bytes();
    let uuid = parse_uuid(&found.uuid?).unwrap_or_default();
    let attributes: [(u16, &[u8]); 3] = [
        (attribute::PATH, name(path).as_bytes()),
        (attribute::UUID, &uuid),
        (attribute::GENERATION, &generation),
    ];
    let begin = command(kind::SNAPSHOT, &attributes).unwrap();
    Some([header(1), begin, command(kind::END, &[]).unwrap()].concat())
}
