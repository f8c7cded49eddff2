//! What the pipeline uses of borg, on a list of archives in memory: the real engine builds the commands
//! and reads the answers.

use std::collections::BTreeMap;

use stillpoint::host::{CommandSpec, Exit};

/// A repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeBorg {
    /// Archive name → number of files.
    pub archives: BTreeMap<String, u64>,
    /// How many files the next archive will have.
    pub files: u64,
    /// The repository's id.
    pub id: String,
    /// A check finds damage.
    pub damaged: bool,
    /// What is stored cannot be read back.
    pub broken: bool,
    /// Says that it made an archive and makes none.
    pub forgetful: bool,
}

/// What a command answers.
pub struct Answer {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<String>,
}

impl Answer {
    /// It went well, and printed this.
    pub fn good(stdout: impl Into<String>) -> Self {
        let stdout = stdout.into().into_bytes();
        Self { exit: Exit::Code(0), stdout, stderr: Vec::new() }
    }

    /// It went well, and told this.
    pub fn told(stderr: Vec<String>) -> Self {
        Self { stderr, ..Self::good("") }
    }
}

impl FakeBorg {
    /// Carries out a command as borg would.
    ///
    /// # Panics
    /// On a command that nobody thought of: a test must not pass by accident.
    pub fn answer(&mut self, spec: &CommandSpec) -> Answer {
        let args: Vec<String> = spec
            .args
            .iter()
            .map(|arg| arg.to_string_lossy().replace("{{", "{").replace("}}", "}"))
            .collect();
        let verb = args.iter().find(|arg| {
            ["create", "list", "delete", "compact", "check", "rename", "extract"]
                .contains(&arg.as_str())
        });
        let ok = |stdout: String| Answer::good(stdout);
        match verb.map(String::as_str) {
            Some("create") => {
                let operand =
                    args.iter().find(|arg| arg.contains("::")).expect("create names an archive");
                let name = operand.split("::").nth(1).expect("a name").to_owned();
                if self.archives.contains_key(&name) {
                    return Self::failure("Archive.AlreadyExists", "Archive already exists", 30);
                }
                if !self.forgetful {
                    self.archives.insert(name, self.files);
                }
                // It says of every directory that it was stored.
                let at = args.iter().position(|arg| arg.contains("::")).expect("an archive");
                let stored = args[at + 1..].iter().map(|path| {
                    let line =
                        serde_json::json!({ "type": "file_status", "status": "d", "path": path });
                    format!("{line}\n")
                });
                let stderr = stored.collect();
                let stdout = format!(
                    r#"{{"archive":{{"stats":{{"original_size":{},"compressed_size":1,"deduplicated_size":1,"nfiles":{}}}}}}}"#,
                    self.files * 10,
                    self.files
                );
                Answer { stderr, ..Answer::good(stdout) }
            }
            Some("extract") if self.broken => {
                Self::failure("IntegrityError", "Data integrity error: chunk 17", 90)
            }
            Some("extract") => ok(String::new()),
            // One file, with the directory that it is in.
            Some("list") if args.contains(&"--json-lines".to_owned()) => ok(concat!(
                r#"{"type": "d", "path": "data", "source": "", "size": 0}"#,
                "\n",
                r#"{"type": "-", "path": "data/a", "source": "", "size": 10}"#,
                "\n"
            )
            .to_owned()),
            Some("list") => {
                let archives: Vec<serde_json::Value> = self
                    .archives
                    .keys()
                    .map(|name| {
                        serde_json::json!({
                            "archive": name, "barchive": name, "comment": "", "name": name, "id": "00",
                            "start": "2026-11-21T02:00:00.000000", "time": "2026-11-21T02:00:00.000000",
                        })
                    })
                    .collect();
                ok(serde_json::json!({
                    "archives": archives,
                    "encryption": { "mode": "none" },
                    "repository": { "id": self.id, "last_modified": "2026-11-21T02:00:00.000000", "location": "/repo" },
                })
                .to_string())
            }
            Some("delete") => {
                let repository =
                    args.iter().position(|arg| arg == "--").expect("an end of options") + 1;
                for name in &args[repository + 1..] {
                    self.archives.remove(name);
                }
                ok(String::new())
            }
            Some("rename") => {
                let operand = args.iter().position(|arg| arg.contains("::")).expect("an archive");
                let old = args[operand].split("::").nth(1).expect("a name");
                let new = args[operand + 1].clone();
                if self.archives.contains_key(&new) {
                    return Self::failure("Archive.AlreadyExists", "Archive already exists", 30);
                }
                match self.archives.remove(old) {
                    Some(files) => {
                        self.archives.insert(new, files);
                        ok(String::new())
                    }
                    None => Self::failure("Archive.DoesNotExist", "Archive does not exist", 31),
                }
            }
            Some("check") if self.damaged => Answer {
                exit: Exit::Code(1),
                stdout: Vec::new(),
                stderr: vec![
                    r#"{"type": "log_message", "time": 1.0, "message": "Index object count mismatch.", "levelname": "ERROR", "name": "borg.repository"}"#.into(),
                ],
            },
            Some("compact" | "check") => ok(String::new()),
            _ if args == ["--version"] => ok("borg 1.2.4\n".into()),
            _ => panic!("the fake borg was not told about: {args:?}"),
        }
    }

    /// A failure as borg words it.
    pub fn failure(msgid: &str, message: &str, code: i32) -> Answer {
        let line = serde_json::json!({
            "type": "log_message", "time": 1.0, "message": message, "levelname": "ERROR",
            "name": "borg.archiver", "msgid": msgid,
        });
        Answer { exit: Exit::Code(code), stdout: Vec::new(), stderr: vec![line.to_string()] }
    }
}
