//! A table of btrfs-backup-ng's file: its values, and what is said of those that are not read.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table of the file.
#[derive(Clone, Copy)]
pub(super) struct Section<'t> {
    pub text: &'t str,
    pub table: Option<&'t DeTable<'t>>,
}

impl<'t> Section<'t> {
    pub fn value(&self, key: &str) -> Option<&'t DeValue<'t>> {
        self.table?.get(key).map(|value| value.get_ref())
    }

    pub fn section(&self, key: &str) -> Section<'t> {
        let table = match self.value(key) {
            Some(DeValue::Table(table)) => Some(table),
            _ => None,
        };
        Section { text: self.text, table }
    }

    /// The tables of an array.
    pub fn sections(&self, key: &str) -> Vec<Section<'t>> {
        let Some(DeValue::Array(values)) = self.value(key) else { return Vec::new() };
        let tables = values.iter().filter_map(|value| match value.get_ref() {
            DeValue::Table(table) => Some(Section { text: self.text, table: Some(table) }),
            _ => None,
        });
        tables.collect()
    }

    pub fn text_of(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            DeValue::String(text) => Some(text.to_string()),
            _ => None,
        }
    }

    pub fn whole(&self, key: &str) -> Option<i64> {
        match self.value(key)? {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A switch, which may stand in quotes, or be a number.
    pub fn switch(&self, key: &str) -> Option<bool> {
        let text = match self.value(key)? {
            DeValue::Boolean(flag) => return Some(*flag),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::String(text) => text.trim().to_lowercase(),
            DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                return None;
            }
        };
        match text.as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    }

    /// A key and its value, as they are written.
    pub fn says(&self, key: &str) -> String {
        let pair = self.table.and_then(|table| table.get_key_value(key));
        let written = |(key, value): (&Spanned<_>, &Spanned<_>)| {
            self.text.get(key.span().start..value.span().end).unwrap_or_default().to_owned()
        };
        pair.map(written).unwrap_or_default()
    }

    /// The line on which a key stands; 1 where it does not.
    pub fn line(&self, key: &str) -> usize {
        let key = self.table.and_then(|table| table.get_key_value(key));
        key.map_or(1, |(key, _)| line_of(self.text, key.span().start))
    }

    /// Tells of what is not read.
    pub fn told(&self, read: &[&str], notes: &mut Vec<String>) {
        for (key, value) in self.table.into_iter().flatten() {
            if read.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let line = line_of(self.text, key.span().start);
            let says = self.text.get(key.span().start..value.span().end).unwrap_or_default();
            // What is a whole table is told by its name.
            let says = if says.contains('\n') { key.get_ref().as_ref() } else { says };
            let says = if is_secret(key.get_ref()) { key.get_ref().as_ref() } else { says };
            notes.push(format!("line {line}, {says}: {}", becomes(key.get_ref())));
        }
    }
}

/// What the configuration must not repeat.
fn is_secret(key: &str) -> bool {
    key.contains("password") || key.contains("passphrase") || key.contains("notifications")
}

fn becomes(key: &str) -> &'static str {
    match key {
        "timestamp_format" => {
            "copies are named by job, host and UTC; those that are there keep their names"
        }
        "incremental" => {
            "the newest snapshot of which a target has a copy is always the base, and all is sent where there is none"
        }
        "log_file" | "transaction_log" | "quiet" | "verbose" => {
            "has no equal: a run tells on standard error, and history has the rest"
        }
        "transfer_timeout" => "has no equal: what still moves is not stopped",
        "parallel_volumes" => {
            "is parallel in [settings], by default 1: so many jobs are at work at once, none two on one target"
        }
        "parallel_targets" => {
            "is parallel-targets in [settings], by default 1: so many targets of a job take its copies at once"
        }
        "notifications" => {
            "has no equal: see OnFailure= of the units, or the hooks on-failure and after"
        }
        "btrfs_debug" => "has no equal: what btrfs-progs say of an error is told in any case",
        "include_types" | "exclude_cleanup" => {
            "has no equal: of snapper's snapshots, those of all kinds are sent"
        }
        "min_age" => "has no equal: each is sent that can no longer be changed, however young",
        "ssh_sudo" | "ssh_password_auth" => "has no equal: the login is root's, by a key",
        "ssh_auth_sock" | "ssh_host_key_policy" => "has no equal: say it in /root/.ssh/config",
        "gpg_recipient" | "gpg_keyring" | "openssl_cipher" => {
            "has no equal: streams are encrypted by age"
        }
        "skip_remote_lock" => "is not needed",
        _ => "is not known, and left out",
    }
}

/// The line at a place in a text.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}
