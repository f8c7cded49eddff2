//! The file of `KEY=value` lines that a storage backend needs (`environment-file`).
//!
//! The dialect is the common part of systemd's `EnvironmentFile=` and a shell script that is sourced:
//! comments, an optional `export`, values bare or wholly in quotes. Nothing is expanded.

use zeroize::Zeroizing;

use crate::model::secret::Secret;

/// Why a file cannot be read. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct EnvironmentError {
    /// Counted from 1.
    pub line: usize,
    /// What was expected.
    pub what: String,
}

/// What Stillpoint itself tells restic; a second source for it would be a contradiction.
fn is_ours(name: &str) -> bool {
    const OURS: [&str; 7] = [
        "RESTIC_REPOSITORY",
        "RESTIC_REPOSITORY_FILE",
        "RESTIC_PASSWORD",
        "RESTIC_PASSWORD_FILE",
        "RESTIC_PASSWORD_COMMAND",
        "RESTIC_CACHE_DIR",
        "RESTIC_PROGRESS_FPS",
    ];
    OURS.contains(&name) || name.starts_with("RESTIC_FROM_")
}

/// Reads the file's content.
///
/// # Errors
/// The first line that is not understood, that names a variable twice, or one that Stillpoint sets.
pub fn parse(content: &[u8]) -> Result<Vec<(String, Secret)>, EnvironmentError> {
    let mut variables: Vec<(String, Secret)> = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let error = |what: String| EnvironmentError { line: index + 1, what };
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
            continue;
        }
        let line = match line.strip_prefix(b"export") {
            Some(rest) if rest.starts_with(b" ") || rest.starts_with(b"\t") => rest.trim_ascii(),
            _ => line,
        };
        let equals = line
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(|| error("expected KEY=value".into()))?;
        let name = std::str::from_utf8(&line[..equals])
            .ok()
            .filter(|name| is_name(name))
            .ok_or_else(|| error("expected a variable's name before '='".into()))?;
        if is_ours(name) {
            return Err(error(format!(
                "{name} is set from the target's own settings, not from this file"
            )));
        }
        if variables.iter().any(|(known, _)| known == name) {
            return Err(error(format!("{name} is set twice")));
        }
        let value = unquote(&line[equals + 1..]).map_err(|what| error(what.into()))?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn unquote(text: &[u8]) -> Result<Secret, &'static str> {
    let Some((&quote @ (b'"' | b'\''), mut rest)) = text.split_first() else {
        if text.contains(&0) {
            return Err("a value cannot hold a zero byte");
        }
        return Ok(Secret::new(text));
    };
    // As long as it can become: a vector that grows leaves its old memory as it was.
    let mut value = Zeroizing::new(Vec::with_capacity(rest.len()));
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            _ if byte == quote => {
                return if tail.is_empty() {
                    Ok(value.into())
                } else {
                    Err("there is text after the closing quote")
                };
            }
            0 => return Err("a value cannot hold a zero byte"),
            b'\\' if quote == b'"' => match tail.split_first() {
                Some((&escaped @ (b'"' | b'\\' | b'$' | b'`'), tail)) => {
                    value.push(escaped);
                    rest = tail;
                }
                _ => {
                    value.push(byte);
                    rest = tail;
                }
            },
            _ => {
                value.push(byte);
                rest = tail;
            }
        }
    }
    Err("the closing quote is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8(value.reveal().to_vec()).unwrap()))
            .collect()
    }

    #[test]
    fn reads_the_usual_files() {
        let text = "# keys\n\nAWS_ACCESS_KEY_ID=AKIA\r\nexport AWS_SECRET_ACCESS_KEY='a b#c'\n  B2_KEY=\"x\\\"y\\z\"  \nEMPTY=\nURL=a=b # c\n";
        assert_eq!(
            read(text),
            [
                ("AWS_ACCESS_KEY_ID".to_owned(), "AKIA".to_owned()),
                ("AWS_SECRET_ACCESS_KEY".to_owned(), "a b#c".to_owned()),
                ("B2_KEY".to_owned(), "x\"y\\z".to_owned()),
                ("EMPTY".to_owned(), String::new()),
                ("URL".to_owned(), "a=b # c".to_owned()),
            ]
        );
    }

    #[test]
    fn errors_name_the_line_and_never_the_value() {
        for bad in [
            "K=ok\nGEHEIM",
            "K=ok\n1K=GEHEIM",
            "K=ok\nL='GEHEIM",
            "K=ok\nL='GEHEIM'x",
            "K=ok\nK=GEHEIM",
            "K=ok\nRESTIC_PASSWORD=GEHEIM",
            "K=ok\nRESTIC_FROM_PASSWORD=GEHEIM",
            "K=ok\na b=GEHEIM",
            "K=ok\nK2=GEHEIM\0",
        ] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert_eq!(error.line, 2, "{bad}");
            assert!(!error.to_string().contains("GEHEIM"), "{error}");
        }
    }
}
