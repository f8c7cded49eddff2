//! Knows just enough of Rust to find the paths in a source file: comments and literals are blanked, `use` groups
//! are expanded, `self` and `super` are resolved through inline modules.

/// `src/engine/borg/mod.rs` is `["engine", "borg"]`; `src/lib.rs` and `src/main.rs` are `[]`.
pub(super) fn module_of(file: &str) -> Vec<String> {
    let inner = file.strip_prefix("src/").unwrap_or(file).trim_end_matches(".rs");
    let mut parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The source with comments and the content of literals replaced by spaces; line breaks stay.
pub(super) fn blank(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    // Copies as blanks up to `end`.
    let hide = |out: &mut String, from: usize, end: usize| {
        out.extend(chars[from..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    };
    while at < chars.len() {
        let rest = &chars[at..];
        let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        let length = if rest.starts_with(&['/', '/']) {
            rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
        } else if rest.starts_with(&['/', '*']) {
            block_comment(rest)
        } else if rest[0] == '"' {
            quoted(rest, '"')
        } else if rest[0] == '\'' {
            // A lifetime has no closing quote within two characters unless it is a character literal.
            match rest {
                [_, '\\', ..] => quoted(rest, '\''),
                [_, _, '\'', ..] => 3,
                _ => 0,
            }
        } else if !word_before && matches!(rest[0], 'r' | 'b' | 'c') {
            raw_string(rest)
        } else {
            0
        };
        if length == 0 {
            out.push(rest[0]);
            at += 1;
        } else {
            hide(&mut out, at, at + length);
            at += length;
        }
    }
    out
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and the like; 0 when it is something else.
fn raw_string(rest: &[char]) -> usize {
    let prefix = rest.iter().take(2).take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    if !rest[..prefix].contains(&'r') {
        return 0;
    }
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    if rest.get(prefix + hashes) != Some(&'"') {
        return 0;
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    let body = prefix + hashes + 1;
    (body..rest.len())
        .find(|at| rest[*at..].starts_with(&end))
        .map_or(rest.len(), |at| at + end.len())
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// Words, `::`, and every other character by itself.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let word = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
        let length = if word > 0 {
            word
        } else if chars[at..].starts_with(&[':', ':']) {
            2
        } else {
            1
        };
        if !chars[at].is_whitespace() {
            found.push(Token { text: chars[at..at + length].iter().collect(), line });
        }
        line += usize::from(chars[at] == '\n');
        at += length;
    }
    found
}

#[derive(Debug, PartialEq)]
pub(super) struct Named {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// Whether it stands in a module `tests`, where output goes to the test runner.
    pub(super) in_tests: bool,
    /// The name that an import gives it instead of its own.
    pub(super) alias: Option<String>,
}

/// Every path in the tokens, groups expanded and `self`/`super` resolved; macros end in `!`.
pub(super) fn paths(tokens: &[Token], home: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    // For each open brace: whether it opened an inline module, whose name is then on `inline`.
    let mut braces: Vec<bool> = Vec::new();
    let mut inline: Vec<String> = Vec::new();
    let is_word =
        |token: &Token| token.text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut at = 0;
    while at < tokens.len() {
        if text(at) == "{" {
            let module = at >= 2 && text(at - 2) == "mod";
            if module {
                inline.push(text(at - 1).to_owned());
            }
            braces.push(module);
        } else if text(at) == "}" {
            if braces.pop() == Some(true) {
                inline.pop();
            }
        } else if is_word(&tokens[at]) && (at == 0 || text(at - 1) != "::") {
            let mut raw = Vec::new();
            at = path_from(tokens, at, &[], &mut raw);
            let here: Vec<String> = home.iter().chain(&inline).cloned().collect();
            found.extend(raw.into_iter().filter_map(|named| resolve(named, &here)));
            continue;
        }
        at += 1;
    }
    found
}

/// Reads one path from `at`, with the segments that came before; answers where it ends.
pub(super) fn path_from(
    tokens: &[Token],
    mut at: usize,
    before: &[String],
    found: &mut Vec<Named>,
) -> usize {
    let mut segments = before.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.line);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    loop {
        if text(at) == "{" && !segments.is_empty() {
            at += 1;
            while at < tokens.len() && text(at) != "}" {
                at = if text(at) == "," { at + 1 } else { path_from(tokens, at, &segments, found) };
            }
            return at + 1;
        }
        segments.push(text(at).to_owned());
        at += 1;
        // `!=` is a comparison, a lone `!` calls a macro.
        if text(at) == "!" && text(at + 1) != "=" {
            if let Some(last) = segments.last_mut() {
                last.push('!');
            }
            break;
        }
        let next = text(at + 1);
        let goes_on = next == "{"
            || next == "*"
            || next.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
        if text(at) != "::" || !goes_on {
            break;
        }
        at += 1;
    }
    let alias = (text(at) == "as").then(|| text(at + 1).to_owned());
    found.push(Named { segments, line, in_tests: false, alias });
    // `as other` belongs to the import.
    if text(at) == "as" && !before.is_empty() { at + 2 } else { at }
}

/// Turns `super::x` and `self::x` into `crate::…::x`; single words that call no macro are no paths.
pub(super) fn resolve(named: Named, here: &[String]) -> Option<Named> {
    let Named { mut segments, line, alias, .. } = named;
    let supers = segments.iter().take_while(|segment| *segment == "super").count();
    if supers > 0 || segments[0] == "self" {
        let rest = segments.split_off(supers.max(1));
        let base = &here[..here.len().saturating_sub(supers)];
        segments =
            ["crate".to_owned()].into_iter().chain(base.iter().cloned()).chain(rest).collect();
    }
    let last = segments.last()?;
    let matters = segments.len() > 1
        || last.ends_with('!')
        || super::DOORS.iter().any(|(what, _)| *what == [last]);
    let in_tests = here.iter().any(|module| module == "tests");
    matters.then_some(Named { segments, line, in_tests, alias })
}
