//! A byte stream cut into lines as it comes, and the last part of a stream.

/// The longest line that is handed on, in bytes; the rest of a longer one is dropped, so that a program that
/// writes without end cannot fill our memory.
const LONGEST_LINE: usize = 1024 * 1024;

/// How much of standard error is kept for messages, in bytes.
const TAIL: usize = 64 * 1024;

/// Cuts at line feeds and at carriage returns, with which programs rewrite a progress line in place.
///
/// A carriage return before a line feed, or at the beginning of a line, makes no empty line of its own.
#[derive(Debug, Default)]
pub(in crate::host) struct LineSplitter {
    line: Vec<u8>,
    /// The last byte was a carriage return, so a line feed now belongs to it.
    after_return: bool,
}

impl LineSplitter {
    /// Takes the next bytes and hands on each line that they complete.
    pub(in crate::host) fn push(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, rest) = bytes.split_at(end);
            self.keep(text);
            let feed = rest[0] == b'\n';
            let nothing = self.line.is_empty() && (!feed || self.after_return);
            if !nothing {
                take(&self.line);
            }
            self.line.clear();
            self.after_return = !feed;
            bytes = &rest[1..];
        }
        self.keep(bytes);
    }

    /// Hands on what came after the last line break.
    pub(in crate::host) fn finish(&mut self, take: &mut dyn FnMut(&[u8])) {
        if !self.line.is_empty() {
            take(&self.line);
            self.line.clear();
        }
    }

    fn keep(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.after_return = false;
            let room = LONGEST_LINE - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
        }
    }
}

/// The last [`TAIL`] bytes of a stream, from the beginning of a line where there is one.
#[derive(Debug, Default)]
pub(in crate::host) struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    pub(in crate::host) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Dropping only now and then keeps this linear.
        if self.bytes.len() > 2 * TAIL {
            self.cut_to_size();
        }
    }

    pub(in crate::host) fn into_bytes(mut self) -> Vec<u8> {
        self.cut_to_size();
        if self.cut
            && let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n')
            && end + 1 < self.bytes.len()
        {
            self.bytes.drain(..=end);
        }
        self.bytes
    }

    fn cut_to_size(&mut self) {
        let excess = self.bytes.len().saturating_sub(TAIL);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut splitter = LineSplitter::default();
        for part in parts {
            splitter.push(part, &mut |line| found.push(line.to_vec()));
        }
        splitter.finish(&mut |line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn lines_end_at_feeds_and_returns_wherever_the_reads_cut() {
        let whole: &[u8] = b"one\ntwo\r\n\r40%\r80%\r\n\nlast";
        let expected: Vec<&[u8]> = vec![b"one", b"two", b"40%", b"80%", b"", b"last"];
        assert_eq!(lines(&[whole]), expected);
        for cut in 0..whole.len() {
            assert_eq!(lines(&[&whole[..cut], &whole[cut..]]), expected, "cut at {cut}");
        }
        assert_eq!(lines(&[b"a\n"]), vec![b"a"]);
    }

    #[test]
    fn an_endless_line_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; LONGEST_LINE + 10];
        let found = lines(&[&long, &long, b"\nnext\n"]);
        assert_eq!(found[0].len(), LONGEST_LINE);
        assert_eq!(found[1], b"next");
    }

    #[test]
    fn a_tail_keeps_whole_last_lines() {
        let mut tail = Tail::default();
        for number in 0..100_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        let text = String::from_utf8(tail.into_bytes()).unwrap();
        assert!(text.len() <= TAIL && text.len() > TAIL - 20);
        assert!(text.starts_with("line ") && text.ends_with("line 99999\n"));
        let mut short = Tail::default();
        short.push(b"a\nb");
        assert_eq!(short.into_bytes(), b"a\nb");
    }
}
