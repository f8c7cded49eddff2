//! An sshd of our own, and an account for it to log in to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use crate::bench_machine::{command, must, wait_for};

/// An sshd that listens for us alone.
pub struct Sshd {
    process: Child,
    pub port: u16,
    /// Keys and settings.
    files: tempfile::TempDir,
}

impl Sshd {
    /// Starts one that lets in whoever has a key of these names, as `line` says it of the key in `authorized_keys`.
    pub fn start(names: &[&str], line: impl Fn(&str, &str) -> String) -> Sshd {
        let files = tempfile::Builder::new().prefix("stillpoint-sshd.").tempdir().unwrap();
        // Who logs in reads there which keys are let in.
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |below: &str| files.path().join(below).to_str().unwrap().to_owned();
        let write = |below: &str, text: &str| fs::write(at(below), text).unwrap();
        let mut allowed = String::new();
        let mut of_host = String::new();
        for name in names.iter().chain(&["host"]) {
            must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at(name)]);
            let public = fs::read_to_string(at(&format!("{name}.pub"))).unwrap();
            match *name {
                "host" => of_host = public,
                name => allowed.push_str(&line(name, &public)),
            }
        }
        write("authorized", &allowed);
        // It separates its privileges there.
        fs::create_dir_all("/run/sshd").unwrap();
        for _ in 0..20 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            write("known", &format!("[127.0.0.1]:{port} {of_host}"));
            if let Some(process) = Self::listening(&at, port) {
                return Sshd { process, port, files };
            }
        }
        panic!("no sshd listens: {}", fs::read_to_string(at("sshd.log")).unwrap_or_default());
    }

    /// One that listens at a port, unless somebody else has taken that meanwhile.
    fn listening(at: &dyn Fn(&str) -> String, port: u16) -> Option<Child> {
        let settings = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
            at("host"),
            at("authorized")
        );
        fs::write(at("sshd_config"), settings).unwrap();
        let _ = fs::remove_file(at("sshd.log"));
        let mut process = command("/usr/sbin/sshd")
            .args(["-D", "-f", &at("sshd_config"), "-E", &at("sshd.log")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // Who answers at the port may be another one.
        let listens = format!("Server listening on 127.0.0.1 port {port}.");
        let mut has_ended = false;
        wait_for("sshd listens", || {
            has_ended = process.try_wait().unwrap().is_some();
            has_ended || fs::read_to_string(at("sshd.log")).is_ok_and(|log| log.contains(&listens))
        });
        (!has_ended).then_some(process)
    }

    /// Where one of its files is.
    pub fn path(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    /// Opens a connection, which every ssh with these words goes through: one after the other would take its time.
    pub fn line(&self, key: &str, login: &str) -> Line {
        let socket = self.path("line");
        let words = self.ssh(key);
        let process = command(&words[0])
            .args(&words[1..])
            .args(["-M", "-N", "-S", &socket, "-p", &self.port.to_string()])
            .arg(format!("{login}@127.0.0.1"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let line =
            Line { process, words: [words, ["-S".to_owned(), socket.clone()].into()].concat() };
        wait_for("a line", || std::path::Path::new(&socket).exists());
        line
    }

    /// The words of ssh with a key.
    pub fn ssh(&self, key: &str) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.path("known"));
        ["ssh", "-F", "none", "-i", &self.path(key), "-o", "IdentitiesOnly=yes", "-o", &known]
            .map(str::to_owned)
            .into()
    }
}

/// An open connection.
pub struct Line {
    process: Child,
    /// Those of ssh that goes through it.
    pub words: Vec<String>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An account of a person's without rights, whose shell keeps what it is given.
pub struct Account {
    pub name: String,
    home: tempfile::TempDir,
}

impl Account {
    /// Makes one.
    pub fn new() -> Account {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("stillpoint-{}-{number}", std::process::id());
        let home = tempfile::Builder::new().prefix("stillpoint-home.").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let account = Account { name, home };
        let shell = account.path("shell");
        let log = account.path("given");
        // It is executed by processes that others fork: a shell of ours is written by another one.
        let home = account.path("");
        let body = format!(
            "#!/bin/sh\nprintf '%s\\0' \"$2\" >> {log}\n[ ! -e {home}pause ] || . {home}pause\nexec /bin/sh \"$@\"\n"
        );
        must("dd", &["if=/dev/null", &format!("of={log}"), "status=none"]);
        must(
            "python3",
            &["-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])", &shell, &body],
        );
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        let home = account.path("");
        // Without a password, but not locked.
        must("useradd", &["-M", "-d", &home, "-s", &shell, "-p", "*", &account.name]);
        account
    }

    /// A path in its home.
    pub fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    fn sudoers(&self) -> String {
        format!("/etc/sudoers.d/{}", self.name)
    }

    /// Lets it run these programs as root.
    pub fn may_run(&self, programs: &str) {
        let line = format!("{} ALL=(root) NOPASSWD: {programs}\n", self.name);
        fs::write(self.sudoers(), line).unwrap();
        fs::set_permissions(self.sudoers(), fs::Permissions::from_mode(0o440)).unwrap();
        must("visudo", &["-c", "-q", "-f", &self.sudoers()]);
    }

    /// Has its shell wait before the next command with these words in it.
    pub fn pauses_at(&self, words: &str) {
        let home = self.path("");
        let pause = format!(
            "case \"$2\" in *'{words}'*) rm -f {home}pause; echo > {home}pauses; while [ ! -e {home}goes-on ]; do sleep 0.02; done;; esac\n"
        );
        fs::write(self.path("pause"), pause).unwrap();
        // The shell is its own, and so is its home for now.
        fs::set_permissions(self.home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    }

    /// Waits until its shell does.
    pub fn await_pause(&self) {
        wait_for("a pause", || std::path::Path::new(&self.path("pauses")).exists());
    }

    /// Has its shell go on.
    pub fn go_on(&self) {
        fs::write(self.path("goes-on"), "").unwrap();
    }

    /// What its shell was given so far.
    pub fn given(&self) -> Vec<String> {
        let given = String::from_utf8_lossy(&fs::read(self.path("given")).unwrap()).into_owned();
        given.split_terminator('\0').map(str::to_owned).collect()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.sudoers());
        // What its last connections have started may live for a moment.
        for _ in 0..100 {
            if command("userdel").arg(&self.name).status().is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
